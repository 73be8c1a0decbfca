"""What a run would do, and running some of its cells alone."""

import json

import pytest

from cowbird.errors import UserError
from cowbird.experiments.cell import list_cells
from cowbird.experiments.plan import plan_run, select_cells
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.report.plan import describe_plan, format_seconds

SPEC = {
    "name": "planned",
    "seeds": [0, 1],
    "ks": [5],
    "dataset": {"name": "synthetic", "users": 30, "items": 20, "events_per_user": 6},
    "victims": [{"name": "sasrec", "hidden": 8, "heads": 1, "layers": 1, "epochs": 1}],
    "attacks": [{"name": "basic_replacement", "label": label, "targets": {"count": 2}} for label in ("one", "two")],
}


@pytest.fixture(scope="module")
def spec():
    return parse_spec(SPEC)


def list_files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_cells_are_chosen_by_their_names(spec, tmp_path):
    cells = list_cells(spec, tmp_path)
    assert [cell.folder.name for cell in select_cells(cells, "")] == ["sasrec-0", "sasrec-1"]
    assert [cell.folder.name for cell in select_cells(cells, "*-1")] == ["sasrec-1"]
    with pytest.raises(UserError, match="No cell is called 'gru'") as error:
        select_cells(cells, "gru")
    assert "sasrec-0, sasrec-1" in error.value.hint
    assert [cell.folder.name for cell in select_cells(cells, number=1)] == ["sasrec-1"]
    for number in (2, -1):
        with pytest.raises(UserError, match=f"There is no cell {number} in this spec, which has 2 cells") as error:
            select_cells(cells, number=number)
        assert "from 0 to 1" in error.value.hint
    with pytest.raises(UserError, match="--cell names one cell"):
        select_cells(cells, "*", 0)


def test_a_plan_of_nothing_done_writes_nothing(spec, tmp_path):
    plan = plan_run(spec, tmp_path / "run")
    assert [cell.number for cell in plan] == [0, 1]
    assert [cell.number for cell in plan_run(spec, tmp_path / "run", "*-1")] == [1]
    assert [cell.number for cell in plan_run(spec, tmp_path / "run", number=1)] == [1]
    assert [(cell.done, cell.places, cell.measured, cell.models, cell.seconds) for cell in plan] == [
        (False, 2, 0, 0, None)
    ] * 2
    assert "2 of 2 cells are left." in describe_plan(plan)
    assert "nothing tells how long" in describe_plan(plan)
    assert list_files(tmp_path) == []


def test_a_folder_of_something_else_is_refused(spec, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not an empty folder"):
        plan_run(spec, tmp_path)


@pytest.mark.slow
def test_one_cell_alone_then_the_plan_then_the_rest(spec, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError, match="No cell"):
        run(spec, out, device="cpu", only="gru")
    assert not out.exists()
    first = run(spec, out, device="cpu", only="*-1")
    assert (first.done, first.total, {row.seed for row in first.rows} - {None}) == (1, 1, {1})
    before = list_files(out)
    plan = plan_run(spec, out)
    assert [(cell.name, cell.done, cell.measured) for cell in plan] == [("sasrec-0", False, 0), ("sasrec-1", True, 2)]
    assert plan[0].seconds > 0
    assert plan[1].models >= 2
    assert "as cells that are done took" in describe_plan(plan)
    (out / "cells" / "sasrec-1" / "cell.json").unlink()
    (out / "cells" / "sasrec-1" / "evidence" / "one+none+direct.sha256").unlink()
    assert [(cell.done, cell.measured) for cell in plan_run(spec, out, "*-1")] == [(False, 1)]
    run(spec, out, device="cpu", only="*-1", resume=True)
    assert list_files(out) == before
    run(spec, out, device="cpu", resume=True)
    run(spec, tmp_path / "whole", device="cpu")
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "whole" / "results.jsonl").read_bytes()
    grown = parse_spec(SPEC | {"attacks": SPEC["attacks"][:1]})
    with pytest.raises(UserError, match="another spec"):
        plan_run(grown, out)


def test_times_are_told_in_their_unit():
    assert [format_seconds(each) for each in (3.2, 600, 9000)] == ["3 s", "10 min", "2.5 h"]
    assert json.dumps(format_seconds(0)) == '"0 s"'
