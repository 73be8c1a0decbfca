"""`cowbird stealth`: the table it writes, and what it says when it can't."""

import csv
import json
import os
import subprocess
import sys

import pytest

from cowbird.cli import app as cli
from cowbird.experiments import stealth
from doubles.tiny_llama import save_llama, train_tokenizer

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a tiny language model that reads bytes."""
    return save_llama(tmp_path_factory.mktemp("llm"), train_tokenizer([]))


@pytest.fixture
def call(monkeypatch, capsys, folder):
    """Call the command in this process: exit code, output, errors."""

    def run(*args, **options):
        given = {"llm": folder, "dataset": "synthetic", "device": "cpu"} | options
        words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["cowbird", "stealth", *map(str, args), *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        for text in (out, err):
            assert "Traceback" not in text
            assert not set(text) & set("\x1b\x07\u202e")
        return end.value.code or 0, " ".join(out.split()), " ".join(err.split())

    return run


def test_a_table(call, tmp_path):
    out = tmp_path / "new" / "stealth [red].csv"
    kinds = ("char_5v", "zero_width_space", "char_5v")
    code, said, _ = call(*[word for kind in kinds for word in ("--trigger", kind)], out=out, sample=5, layers=1)
    assert code == 0
    assert "char_5v" in said
    assert "stealth [red].csv" in said, "no markup"
    with out.open(encoding="utf-8") as file:
        plain, hidden = csv.DictReader(file)
    assert (plain["trigger"], plain["titles"], plain["layers"], plain["seed"]) == ("char_5v", "5", "1", "0")
    assert (float(plain["edit_distance"]), float(hidden["edit_distance"])) == (3, 1)
    assert (float(plain["control_share"]), float(hidden["control_share"])) == (0, 1)
    assert float(plain["perplexity_ratio_low"]) <= float(plain["perplexity_ratio"])
    assert [path.name for path in out.parent.iterdir()] == [out.name], "nothing is left beside it"
    before = out.read_bytes()
    assert call("--trigger", "char_5v", "--trigger", "zero_width_space", out=out, sample=5, layers=1)[0] == 0
    assert out.read_bytes() == before, "an older table is replaced, by the same"
    assert call("--trigger", "char_5v", out=out, sample=5, seed=1)[0] == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, "Device 'gpu' can't be used"),
        ({"dataset": "cuckoo"}, "no dataset named 'cuckoo'"),
        ({"dataset": "\x1b[31m"}, "no dataset named"),
        ({"dataset": "tabular"}, "needs options: path: is missing"),
        ({"llm": "nowhere.gguf"}, "There is no file 'nowhere.gguf'"),
        ({"llm": "/proc"}, "The language model '/proc' can't be loaded"),
        ({"layers": 3}, "3 layers were asked for"),
        ({"layers": 0}, "--layers"),
        ({"sample": 0}, "--sample"),
        ({"sample": "many"}, "--sample"),
        ({"seed": -1}, "--seed"),
        ({"titles": "gone.csv", "dataset": None}, "gone.csv"),
        ({"titles": "gone.csv"}, "both name titles"),
        ({"position": "above"}, "--position"),
        ({"out": "/proc/cowbird/x.csv"}, "can't be written"),
        ({"out": "/proc"}, "is a folder"),
    ],
    ids=str,
)
def test_what_can_t_be_done(call, tmp_path, options, said):
    code, out, err = call("--trigger", "char_5v", **({"out": tmp_path / "x.csv"} | options))
    assert (code, out) == (2, "")
    assert said in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), "No trigger is named. Add --trigger"),
        (("char_5w",), "no shipped trigger 'char_5w'. Such as char_5v"),
        (("char_5v", "custom"), "no shipped trigger 'custom'"),
        (("\x1b[31m[red]\u202e",), "no shipped trigger"),
    ],
)
def test_triggers_that_there_are_not(call, tmp_path, kinds, said):
    code, out, err = call(*[word for kind in kinds for word in ("--trigger", kind)], out=tmp_path / "x.csv")
    assert (code, out) == (2, "")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_not_finished_is_not_there(call, tmp_path, monkeypatch):
    def interrupt(*args, **more):
        raise KeyboardInterrupt

    (tmp_path / "x.csv").write_text("older")
    monkeypatch.setattr(stealth, "measure_stealth", interrupt)
    code, _, err = call("--trigger", "char_5v", out=tmp_path / "x.csv")
    assert code == 3
    assert "Interrupted" in err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


@pytest.mark.slow
def test_a_text_of_one_s_own_in_titles_of_one_s_own(call, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('id,name\n1,Red Harbor\n2,\n3,"Blue ""Garden"""\n', encoding="utf-8")
    options = {"titles": file, "text-column": "name", "dataset": None}
    code, out, err = call("--text", "[red]5v\u3164", "--position", "start", "--json", **options)
    assert code == 0, err
    (row,) = json.loads(out)
    assert (row["trigger"], row["position"], row["titles"]) == ("[red]5v\u3164", "start", 2)
    assert row["edit_distance"] == len("[red]5v\u3164 ")
    assert "\u3164" not in out, "JSON is ASCII"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv"], "nothing is written without --out"
    code, out, err = call("--text", "5v", "--trigger", "char_5v", "--quiet", **options)
    assert (code, out, err) == (0, "", "")
    assert call("--text", "5v", **(options | {"text-column": "gone"}))[0] == 2
    for text in ("", "  ", "x" * 501):
        code, out, err = call(f"--text={text}", **options)
        assert (code, out) == (2, "")
        assert "can't be a trigger" in err


def test_progress_stands_in_a_log(call):
    assert "titles as they are" in call("--text", "5v", sample=3)[2]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "＝1", "\r=1", "a;=1"])
def test_no_cell_is_a_formula(name):
    row = dict.fromkeys(stealth.STEALTH_COLUMNS, -0.5) | {"trigger": name, "llm": "a"}
    (read,) = csv.DictReader(stealth.table_to_csv([row]).splitlines())
    assert read["trigger"].split(";")[-1].startswith(("'", "<U+")), "an apostrophe, or a code"
    assert (read["llm"], read["similarity"]) == ("a", "-0.5")


def test_cells_are_whole_and_steer_nothing():
    name = 'a,"b"\n\x1b[31m\u202e\u200b\ud800\u00e9'
    row = dict.fromkeys(stealth.STEALTH_COLUMNS) | {"trigger": name}
    text = stealth.table_to_csv([row])
    assert text.encode().decode() == text
    (read,) = csv.DictReader(text.splitlines())
    assert read["trigger"] == 'a,"b"<U+000A><U+001B>[31m<U+202E><U+200B><U+D800>\u00e9'
    assert read["similarity"] == ""


@pytest.mark.slow
@pytest.mark.long
def test_as_a_module(folder, tmp_path):
    words = ["--trigger", "char_5v", "--out", "x.csv", "--dataset", "synthetic", "--llm", str(folder), "--sample", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "cowbird", "stealth", *words, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert (tmp_path / "x.csv").is_file()
