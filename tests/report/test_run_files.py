"""Files of runs as reports read them: folders, JSON lines and CSV; what is damaged is told or left out."""

import json

import pytest

from cowbird.errors import UserError
from cowbird.experiments.results import write_results
from cowbird.report.run_files import add_spreads, read_run, read_runs
from doubles.result_rows import HOSTILE_LABEL, make_answers, make_row, write_rows


def test_csv_and_json_lines_hold_the_same_rows(tmp_path):
    rows = [
        *make_answers(),
        make_row(seed=None, low=None, high=None),
        make_row(seed=7, value=None, low=None, high=None),
    ]
    write_results(tmp_path / "results.jsonl", rows)
    runs = read_runs([tmp_path, tmp_path / "results.jsonl", write_rows(tmp_path / "rows.csv", rows)])
    assert [list(run.rows) for run in runs] == [rows] * 3
    assert [run.label for run in runs] == [tmp_path.name, "results", "rows"]
    assert runs[0].sha256 == runs[1].sha256 != runs[2].sha256


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [write_rows(tmp_path / f"{nth}.csv", make_answers()).rename(tmp_path / "a.csv") for nth in range(1)] * 3
    assert [run.label for run in read_runs(paths)] == ["a", "a (2)", "a (3)"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"a,b\n1,2\n", "no column 'experiment'"),
        ("rows.csv", b"", "no column"),
        ("rows.csv", b"\xff\xfe\x00", "can't be read"),
        ("results.jsonl", b"", "holds no rows"),
        ("results.jsonl", b"{}\n", "Line 1"),
        ("results.jsonl", b"\x80abc", "can't be read"),
        ("results.jsonl", make_row().model_dump_json().replace("0.5", "1e999").encode(), "not finite"),
        ("results.jsonl", make_row().model_dump_json().replace("0.5", "NaN").encode(), "not finite|not a result row"),
    ],
)
def test_what_holds_no_rows_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_run(tmp_path / name)
    assert error.value.hint


@pytest.mark.parametrize(("place", "cell"), [("k", "ten"), ("value", "x"), ("n", ""), ("seed", "1.5")])
def test_a_line_of_a_csv_that_is_no_row_is_named(tmp_path, place, cell):
    path = write_rows(tmp_path / "rows.csv", make_answers())
    lines = path.read_text().splitlines()
    at = lines[0].split(",").index(place)
    cells = lines[2].split(",")
    cells[at] = cell
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]))
    with pytest.raises(UserError, match=f"Line 3 .*'{place}'"):
        read_run(path)


def test_a_missing_path_and_an_empty_folder(tmp_path):
    for path, said in ((tmp_path / "nowhere", "is no file"), (tmp_path, "has no results.jsonl")):
        with pytest.raises(UserError, match=said):
            read_run(path)


@pytest.mark.parametrize("content", ["", "[]", '{"spec": [], "cells": 3}', "{" * 100_000, '{"spec": {"attacks": {}}}'])
def test_damaged_records_leave_the_rows(tmp_path, content):
    write_results(tmp_path / "results.jsonl", make_answers())
    (tmp_path / "cells" / "a").mkdir(parents=True)
    for name in ("spec.json", "run.json", "cells/a/cell.json"):
        (tmp_path / name).write_text(content)
    run = read_run(tmp_path)
    assert len(run.rows) == 4
    assert run.list_parts("attacks") == []
    assert run.find_undefended() == "none"
    assert (run.cells[0].victim, run.cells[0].errors) == ("a", ())


def test_rows_that_contradict_each_other_are_refused(tmp_path):
    rows = make_answers()
    write_results(tmp_path / "results.jsonl", [*rows, *rows])
    assert len(read_run(tmp_path).rows) == 8, "the same row twice says nothing else"
    write_results(tmp_path / "results.jsonl", [*rows, rows[0].model_copy(update={"value": 0.123})])
    with pytest.raises(UserError, match=r"Rows 1 and 5 of .* measure the same, and differ"):
        read_run(tmp_path)


def test_a_cell_is_read(tmp_path):
    write_results(tmp_path / "results.jsonl", make_answers())
    (tmp_path / "cells" / "a-0").mkdir(parents=True)
    record = {"victim": HOSTILE_LABEL, "seed": 0, "models": {"m": "1" * 64, "bad": 3}, "evidence": {"e": "2" * 64}}
    record |= {"errors": ["one"], "unmeasured": ["two"], "plans": {"word": {"rows": "x"}}}
    record |= {"seconds": {"fit": 1.5, "x": 2}}
    (tmp_path / "cells" / "a-0" / "cell.json").write_text(json.dumps(record))
    (cell,) = read_run(tmp_path).cells
    assert (cell.victim, cell.seed, cell.errors, cell.seconds, cell.plans) == (
        HOSTILE_LABEL,
        "0",
        ("one", "two"),
        3.5,
        {},
    )
    assert cell.hashes == {"model m": "1" * 64, "evidence e": "2" * 64}


def test_the_undefended_model_is_known_by_the_spec(tmp_path):
    write_results(tmp_path / "results.jsonl", make_answers(defense="bare"))
    spec = {"sha256": "x", "spec": {"defenses": [{"name": "onion"}, {"name": "none", "label": "bare"}]}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert read_run(tmp_path).find_undefended() == "bare"


def test_means_over_seeds_are_added_where_they_are_missing():
    rows = [make_row(value=value, seed=seed) for seed, value in enumerate((0.4, 0.6))]
    (made,) = add_spreads(rows)[2:]
    assert (made.metric, made.value, made.n, made.seed) == ("asr_over_seeds", 0.5, 2, None)
    assert add_spreads([*rows, made]) == [*rows, made]
    assert add_spreads([make_row(metric="unheard", seed=seed) for seed in (0, 1)])
