"""`cowbird report`, `table`, `compare` and `leaderboard`: what they print and write, and how they end."""

import csv
import io
import json

import pytest

from doubles.command import call_command
from doubles.result_rows import HOSTILE_LABEL, make_answers, make_detections, write_rows


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: call_command(monkeypatch, capsys, *words)


@pytest.fixture
def one(tmp_path):
    rows = [*make_answers(), *make_answers(defense="finder", attacked=6), *make_detections()]
    return write_rows(tmp_path / "one.csv", [*rows, *make_answers(attack=HOSTILE_LABEL)])


@pytest.fixture
def other(tmp_path):
    return write_rows(tmp_path / "other.csv", [*make_answers(attacked=60), *make_answers(defense="finder", attacked=8)])


def test_a_table_on_the_terminal(call, one):
    code, out, err = call("table", one)
    assert (code, err) == (0, "")
    assert "finder" in out
    for part in ("0.950", "[0.888,", "0.978]"):  # a narrow terminal breaks cells
        assert part in out


def test_a_table_for_programs(call, one, tmp_path):
    code, out, _ = call("table", one, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    (line,) = [line for line in lines if (line["attack"], line["defense"]) == ("word", "finder")]
    assert (line["clean"], line["attacked"], line["defended"], line["defended_n"]) == ("0.05", "0.95", "0.06", "100")
    code, out, _ = call("table", one, "--out", tmp_path / "t.csv")
    assert (code, "(3 lines)" in out) == (0, True)
    assert list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8"))) == lines


def test_all_rows(call, one):
    code, out, _ = call("table", one, "--all-rows", "--format", "csv")
    assert (code, len(out.splitlines())) == (0, 1 + 15)


@pytest.mark.parametrize(("name", "start"), [("t.md", "| victim"), ("t.tex", "\\begin{tabular}")])
def test_the_name_tells_the_format(call, one, tmp_path, name, start):
    assert call("table", one, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_a_comparison(call, one, other, tmp_path):
    code, out, err = call("compare", one, other)
    assert (code, err) == (0, "")
    assert "-0.350" in out
    assert "Newcombe, seed 0" in out
    assert "leaves out zero" in out
    code, _, _ = call("compare", one, other, "--metric", "asr", "--out", tmp_path / "d.md")
    assert (code, (tmp_path / "d.md").read_text(encoding="utf-8").count("\n")) == (0, 4)


def test_a_leaderboard(call, one, other):
    code, out, err = call("leaderboard", one, other)
    assert (code, err) == (0, "")
    assert "1–2" in out
    code, out, _ = call("leaderboard", one, "--json")
    (first, second) = json.loads(out)
    assert (first["defense"], first["best_rank"], second["defense"], second["worst_rank"]) == (
        "finder",
        "1",
        "none",
        "2",
    )
    assert call("leaderboard", one, "--by", "attack", "--order", "low", "--format", "markdown")[0] == 0


def test_a_page(call, one, other, tmp_path):
    out_file = tmp_path / "report.html"
    code, out, err = call("report", one, other, "--out", out_file)
    assert (code, err) == (0, "")
    assert f"(23 rows, {out_file.stat().st_size / 1e3:.0f} kB)" in out
    assert "<h1>made</h1>" in out_file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("report",), ("table",), ("compare", "{one}"), ("leaderboard",),
        ("report", "nowhere.csv"), ("table", "nowhere"), ("compare", "{one}", "nowhere"), ("leaderboard", "nowhere"),
        ("table", "{one}", "--format", "pdf"), ("table", "{one}", "--out", "t.pdf"), ("table", "{one}", "--out", "."),
        ("table", "{one}", "--k", "7"), ("table", "{one}", "--k", "0"),
        ("compare", "{one}", "{other}", "--metric", "flown"), ("leaderboard", "{one}", "--metric", "flown"),
        ("leaderboard", "{other}", "--by", "seed"), ("leaderboard", "{other}", "--by", "victim"),
        ("report", "{one}", "--out", "{one}"), ("report", "{one}", "--out", "."),
        ("report", "{one}", "--findings", "{one}", "--out", "r.html"), ("report", "{one}", "--inspection", "{one}"),
        ("report", "{one}", "--inspection", "nowhere.json"), ("report", "{one}", "--findings", "nowhere.csv"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_errors_are_a_line_and_a_hint(call, one, other, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    before = one.read_bytes()
    code, out, err = call(*(word.format(one=one, other=other) for word in words))
    assert (code, out) == (2, "")
    assert err
    assert one.read_bytes() == before
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("columns", ["0", "20"])
def test_a_narrow_terminal_loses_no_column(call, one, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    lines = call("table", one)[1].splitlines()
    assert lines and lines[0].endswith("┓") and lines[-1].endswith("┘")
