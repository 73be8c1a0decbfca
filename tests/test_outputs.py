"""What is written never replaces what is read: paths are compared without links, and as the system knows them."""

import errno
import os
from pathlib import Path

import pytest

from cowbird import outputs
from cowbird.errors import UserError
from cowbird.outputs import check_outputs, check_writable
from doubles.command import call_command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a file, a link, a hard link, and a folder that is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text("title\nMug\n")
    (tmp_path / "link.csv").symlink_to("c.csv")
    os.link(tmp_path / "c.csv", tmp_path / "hard.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "part.csv").write_text("title\nPot\n")
    (tmp_path / "way").symlink_to("sub")
    return tmp_path


@pytest.mark.parametrize("output", ["c.csv", "./c.csv", "sub/../c.csv", "link.csv", "hard.csv", "way/../c.csv"])
@pytest.mark.parametrize("given", ["c.csv", "link.csv", "hard.csv"])
def test_an_input_is_never_an_output(folder, output, given):
    with pytest.raises(UserError, match=r"--out would replace .* --allow reads that file") as caught:
        check_outputs({"--out": folder / output}, {"--allow": folder / given})
    assert caught.value.hint == "Give another name with --out."


@pytest.mark.parametrize(
    ("one", "other"), [("c.csv", "link.csv"), ("new.csv", "sub/../new.csv"), ("sub/n.csv", "way/n.csv")]
)
def test_two_outputs_are_two_files(folder, one, other):
    with pytest.raises(UserError, match="--out and --sarif would both write"):
        check_outputs({"--out": folder / one, "--sarif": folder / other}, {})


@pytest.mark.parametrize("output", ["sub/new.csv", "way/new.csv", "sub/deep/new.csv", "way/part.csv"])
def test_nothing_is_written_into_a_folder_that_is_read(folder, output):
    with pytest.raises(UserError, match="lies in the folder that --reference reads"):
        check_outputs({"--out": folder / output}, {"--reference": folder / "sub"})


def test_a_folder_with_an_input_is_not_replaced(folder):
    with pytest.raises(UserError, match="would replace the folder"):
        check_outputs({"--out": [folder / "new", folder / "way"]}, {"--scanner": folder / "sub" / "part.csv"})


@pytest.mark.parametrize("output", ["c.csv/x", "link.csv/x/y.json", "way/part.csv/x"])
def test_nothing_lies_below_a_file(folder, output):
    with pytest.raises(UserError, match=r"--out would write .* is a file, no folder"):
        check_outputs({"--out": folder / output}, {})
    check_outputs({"--out": folder / ("x" * 300) / "y"}, {})


def test_an_output_does_not_lie_in_another(folder):
    with pytest.raises(UserError, match=r"--summary would write .* lies in what --out writes"):
        check_outputs({"--out": folder / "found", "--summary": folder / "found" / "s.json"}, {})


def test_a_name_is_no_path_unless_something_lies_there(folder):
    check_outputs({"--out": folder / "movielens_100k"}, {"--logs": "movielens_100k", "MODEL": "process:serve"})
    with pytest.raises(UserError, match="--logs reads"):
        check_outputs({"--out": folder / "c.csv"}, {"--logs": "c.csv"})


def test_what_is_apart_is_accepted(folder):
    check_outputs(
        {
            "--out": [folder / "o.csv", folder / "o.csv.partial"],
            "--summary": folder / "sub2" / "s.json",
            "--junit": None,
        },
        {"the catalogue": folder / "c.csv", "--allow": None, "--reference": folder / "sub", "RUN": [folder / "none"]},
    )


def test_what_can_not_be_written_is_told_before_the_work(folder):
    check_writable({"--sarif": folder / "new" / "deep" / "a.sarif", "--junit": None}, {"--out": folder / "sub"})
    assert sorted(path.name for path in folder.iterdir()) == ["c.csv", "hard.csv", "link.csv", "sub", "way"]
    with pytest.raises(UserError, match=r"--sarif should name a file, and '.*sub' is a folder"):
        check_writable({"--sarif": folder / "sub"})
    for files, others in (({"--out": Path("/proc/none/x")}, {}), ({}, {"--out": Path("/proc/none/x")})):
        with pytest.raises(UserError, match="nothing can be written in '/proc': ") as caught:
            check_writable(files, others)
        assert caught.value.hint == "Choose another place with --out, or make that one writable."


@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "c.csv"),
        ("fit-scanner", "c.csv"),
        ("fit-scanner", "c.csv", "--p-scanner"),
        ("train-scanner", "recipe.toml"),
        ("scan", "c.csv", "--detector", "character_rules"),
    ],
)
def test_commands_tell_it_before_they_read_and_keep_nothing(folder, monkeypatch, capsys, words):
    (folder / "recipe.toml").write_text('kind = "small"\n[lists.shop]\npath = "c.csv"\n')

    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(outputs, "TemporaryFile", refuse)
    before = sorted(folder.iterdir())
    code, _, err = call_command(monkeypatch, capsys, *words, "--out", folder / "made.csv")
    told = " ".join(err.split())
    assert code == 2
    assert "Choose another place with --out" in told and "is kept" not in told
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("option", ["--summary", "--sarif", "--junit"])
def test_a_report_that_can_not_be_written_is_told_before_the_scan(folder, monkeypatch, capsys, option):
    words = ("scan", "c.csv", "--detector", "character_rules", "--out", folder / "found.csv")
    code, _, err = call_command(monkeypatch, capsys, *words, option, folder / "sub")
    assert (code, f"{option} should name a file" in " ".join(err.split())) == (2, True)
    assert not (folder / "found.csv").exists()
