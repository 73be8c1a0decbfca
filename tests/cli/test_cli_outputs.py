"""No command replaces what it reads; what is refused is not told on a path that was refused either."""

import json
import os
import sys

import pytest

from cowbird.cli import hook
from cowbird.experiments.results import write_results
from doubles.command import call_command
from doubles.findings import write_findings
from doubles.result_rows import make_answers, write_rows

RULES = ("--detector", "character_rules", "--device", "cpu", "--quiet")

SPEC = """
name = "mine"
[dataset]
name = "tabular"
path = "log"
[[victims]]
name = "sasrec"
[[attacks]]
name = "random_profiles"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder, with a catalogue and other inputs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.csv").write_text("title\nMug\nPot\u200b\n", encoding="utf-8")
    (tmp_path / "allow.csv").write_text("fragment\nMug\n")
    (tmp_path / "link.csv").symlink_to("c.csv")
    os.link(tmp_path / "c.csv", tmp_path / "hard.csv")
    (tmp_path / "sub").mkdir()
    write_findings(tmp_path).rename("old.jsonl")
    return tmp_path


@pytest.fixture
def refuse(folder, monkeypatch, capsys):
    """Call a command that must be refused, and see that no byte changed and nothing was added."""

    def run(*words):
        def look():
            return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        before = look()
        code, _, err = call_command(monkeypatch, capsys, *words)
        assert look() == before
        assert code == 2
        return " ".join(err.split())

    return run


@pytest.mark.parametrize("report", ["--summary", "--junit", "--sarif"])
@pytest.mark.parametrize(
    ("catalog", "path"),
    [
        ("c.csv", "c.csv"),
        ("c.csv", "sub/../c.csv"),
        ("c.csv", "hard.csv"),
        ("link.csv", "c.csv"),
        ("c.csv", "link.csv"),
        ("sub/../c.csv", "c.csv"),
    ],
)
def test_a_report_never_replaces_the_catalogue(refuse, report, catalog, path):
    said = refuse("scan", catalog, "--out", "o.csv", report, path, *RULES)
    assert f"{report} would replace '{path}', and the catalogue" in said
    assert f"Give another name with {report}." in said


@pytest.mark.parametrize("report", ["--summary", "--junit", "--sarif"])
@pytest.mark.parametrize(
    ("option", "path"),
    [("--allow", "allow.csv"), ("--baseline", "old.jsonl"), ("--reference", "hard.csv"), ("--scanner", "old.jsonl")],
)
def test_a_report_never_replaces_another_input(refuse, report, option, path):
    said = refuse("scan", "allow.csv" if path == "hard.csv" else "c.csv", "--out", "o.csv", report, path, option, path)
    assert f"{report} would replace '{path}'" in said and option in said


@pytest.mark.parametrize(
    ("out", "words", "said"),
    [
        ("old.jsonl", ("--sarif", "old.jsonl"), "--out and --sarif would both write 'old.jsonl'"),
        ("old.jsonl", ("--baseline", "old.jsonl"), "--baseline reads that file"),
        ("allow.csv", ("--allow", "allow.csv"), "--allow reads that file"),
        ("link.csv", (), "would replace 'link.csv'"),
        ("o.csv", ("--summary", "r.json", "--junit", "sub/../r.json"), "would both write"),
        ("o.csv", ("--summary", "o.csv.skipped.csv"), "--out and --summary would both write"),
        ("found", ("--summary", "found/s.json"), "lies in what --out writes"),
        ("sub/o.csv", ("--reference", "sub"), "lies in the folder that --reference reads"),
    ],
)
def test_findings_never_replace_an_input_or_a_report(refuse, out, words, said):
    assert said in refuse("scan", "c.csv", "--out", out, *RULES, *words)


def test_what_skipped_rows_go_into_is_no_input(folder, refuse):
    (folder / "allow.csv").rename(folder / "o.csv.skipped.csv")
    said = refuse("scan", "c.csv", "--out", "o.csv", "--allow", "o.csv.skipped.csv", *RULES)
    assert "--out would replace 'o.csv.skipped.csv', and --allow reads that file" in said


def test_other_errors_are_still_in_the_reports(folder, monkeypatch, capsys):
    words = ("scan", "none.csv", "--out", "o.csv", "--summary", "s.json", *RULES)
    assert call_command(monkeypatch, capsys, *words)[0] == 2
    assert json.loads((folder / "s.json").read_text())["exit_code"] == 2


@pytest.mark.parametrize("words", [("--summary", "c.csv"), ("--junit=sub/../c.csv",)])
def test_the_hook_keeps_the_files_that_come_later(folder, monkeypatch, capsys, words):
    before = (folder / "c.csv").read_bytes()
    monkeypatch.setattr(hook.subprocess, "run", lambda *_, **__: pytest.fail("a scan was started"))
    monkeypatch.setattr(sys, "argv", ["cowbird-hook", *RULES, *words, "--", "allow.csv", "c.csv"])
    with pytest.raises(SystemExit) as end:
        hook.main()
    assert end.value.code == 2
    assert "would replace" in capsys.readouterr().err
    assert (folder / "c.csv").read_bytes() == before


@pytest.mark.parametrize(
    "export", ["old.jsonl", "sub/../old.jsonl", "old.jsonl.review.sqlite", "old.jsonl.review.sqlite-wal"]
)
def test_an_export_never_replaces_findings_or_decisions(folder, refuse, export):
    from cowbird.review.store import ReviewStore

    store = ReviewStore(folder / "old.jsonl")
    group = store.list_groups(0, 1).rows[0]
    store.decide("group", group["id"], "dismissed", group["mark"])
    store.close()
    assert f"--export would replace '{export}'" in refuse("review", "old.jsonl", "--export", export)


@pytest.mark.parametrize("command", ["table", "compare", "leaderboard", "report"])
@pytest.mark.parametrize("out", ["rows.csv", "sub/../rows.csv", "run/results.jsonl", "run/cells/sasrec-0/cell.json"])
def test_a_table_never_replaces_results(folder, refuse, command, out):
    (folder / "run" / "cells" / "sasrec-0").mkdir(parents=True)
    (folder / "run" / "cells" / "sasrec-0" / "cell.json").write_text("{}")
    write_results(folder / "run" / "results.jsonl", make_answers())
    write_rows(folder / "rows.csv", make_answers(attacked=60))
    form = () if command == "report" else ("--format", "csv")
    said = refuse(command, "run", "rows.csv", "--out", out, *form)
    assert "--out would" in said and "RUN reads" in said


@pytest.mark.parametrize("option", ["--findings", "--inspection"])
def test_a_page_never_replaces_what_it_is_about(folder, refuse, option):
    write_rows(folder / "rows.csv", make_answers())
    assert f"{option} reads that file" in refuse("report", "rows.csv", option, "old.jsonl", "--out", "old.jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("calibrate", "c.csv", "--out", "link.csv"), "the catalogue"),
        (("fit-scanner", "s.partial/c.csv", "--out", "s", "--resume"), "would replace the folder 's.partial'"),
        (("fit-scanner", "c.csv", "--out", "hard.csv"), "the catalogue"),
        (("zoo", "zoo/scores.json", "--out", "zoo"), "RECIPE reads that file"),
        (("stealth", "--text", "5v", "--titles", "c.csv", "--out", "link.csv"), "--titles reads that file"),
        (("inspect", "old.jsonl", "--out", "sub/../old.jsonl"), "MODEL reads that file"),
        (("inspect", "m", "--template", "allow.csv", "--out", "allow.csv"), "--template reads that file"),
        (("inspect", "sub", "--out", "sub/inspection.json"), "lies in the folder that MODEL reads"),
        (("sanitize", "m", "--suspects", "old.jsonl", "--out", "old.jsonl"), "--suspects reads that file"),
        (("sanitize", "sub", "--suspects", "old.jsonl", "--out", "sub"), "MODEL reads that file"),
        (("run", "sub/spec.toml", "--out", "log/run"), "lies in the folder that the dataset reads ('log')"),
        (("serve", *RULES, "--no-token", "--allow", "log/audit.jsonl", "--log", "log"), "--allow reads that file"),
        (("survive", "m", "--logs", "c.csv", "--suspects", "old.jsonl", "--out", "c.csv"), "--logs reads that file"),
    ],
    ids=" ".join,
)
def test_no_other_command_replaces_what_it_reads(folder, refuse, words, said):
    for name in ("s.partial/c.csv", "zoo/scores.json", "log/audit.jsonl", "log/log.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("title\nMug\n")
    (folder / "sub" / "spec.toml").write_text(SPEC)
    assert said in refuse(*words)


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/null", "/dev/none"])
@pytest.mark.parametrize("option", ["--out", "--summary", "--sarif", "--junit"])
def test_nothing_is_written_to_what_is_no_file(refuse, out, option):
    more = () if option == "--out" else ("--out", "new.csv")
    assert "--out" not in refuse("scan", "c.csv", *RULES, option, out, *more)


@pytest.mark.parametrize("words", [("stealth", "--text", "5v"), ("table", "old.jsonl"), ("report", "old.jsonl")])
def test_no_command_makes_a_file_called_like_standard_output(refuse, words):
    assert "'-' is no name of a file" in refuse(*words, "--out", "-")


def test_the_hook_refuses_a_report_that_the_last_file_would_replace(folder, monkeypatch, capsys):
    monkeypatch.setattr(hook.subprocess, "run", lambda *_, **__: pytest.fail("a scan was started"))
    monkeypatch.setattr(sys, "argv", ["cowbird-hook", *RULES, "--summary", "new.json", "--", "allow.csv", "c.csv"])
    with pytest.raises(SystemExit) as end:
        hook.main()
    assert end.value.code == 2
    assert "the last one's report alone would stay" in capsys.readouterr().err
