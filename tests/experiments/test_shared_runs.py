"""Several processes in the folder of one run: one cell each, all at once, and killed."""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cowbird.errors import UserError
from cowbird.experiments import executor, run_folder
from cowbird.experiments.cell import list_cells
from cowbird.experiments.executor import CellBusyError, run_cell
from cowbird.experiments.run import run
from cowbird.experiments.run_folder import RunFolder
from cowbird.experiments.spec import parse_spec
from cowbird.locks import try_lock_folder
from doubles.evidence import evidence_files
from doubles.processes import clear_away, start_command, wait_until

VICTIM = "doubles.counted_lists:CountedList"


def make_table(seeds, attacks=1):
    return {
        "name": "lists",
        "seeds": list(range(seeds)),
        "ks": [5],
        "dataset": {"name": "synthetic", "users": 40, "items": 20, "events_per_user": 6},
        "victims": [{"name": VICTIM, "label": label, "length": length} for label, length in (("a", 4), ("b", 6))],
        "attacks": [
            {"name": "basic_replacement", "label": f"replace{number}", "targets": {"count": 2 + number}}
            for number in range(attacks)
        ],
    }


def make_spec(seeds=2, attacks=1):
    return parse_spec(make_table(seeds, attacks), allow_plugins=True)


def read_files(out):
    """Return what must not depend on who ran which cell."""
    files = [out / "results.jsonl", *evidence_files(out), *out.glob("cells/*/models/*/list.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(make_spec(), out, device="cpu")
    return read_files(out)


@pytest.mark.slow
def test_cells_one_by_one_in_any_order_make_the_same_files(whole, tmp_path):
    for number in (2, 0, 3, 1):
        outcome = run(make_spec(), tmp_path / "run", device="cpu", number=number)
        assert (outcome.done, outcome.total) == (1, 1)
        assert {row.seed for row in outcome.rows} == {number % 2}
    assert outcome.left == 0
    assert read_files(tmp_path / "run") == whole
    again = run(make_spec(), tmp_path / "run", device="cpu", number=1)
    assert (again.done, again.errors) == (1, [])
    assert read_files(tmp_path / "run") == whole


@pytest.mark.slow
def test_one_cell_leaves_fresh_results_to_the_last_one(tmp_path, monkeypatch):
    out, made = tmp_path / "run", []
    for number in range(4):
        outcome = run(make_spec(), out, device="cpu", number=number)
        made.append((outcome.written, outcome.left))
    assert made == [(True, 3), (False, 2), (False, 1), (True, 0)]
    (out / "cells" / "a-0" / "cell.json").unlink()
    monkeypatch.setattr(run_folder, "SECONDS_BETWEEN_RESULTS", -1.0)
    assert run(make_spec(), out, device="cpu", number=1).written, "they are old"


@pytest.mark.slow
def test_a_lost_result_file_is_made_again(whole, tmp_path):
    for number in range(4):
        run(make_spec(), tmp_path / "run", device="cpu", number=number)
    (tmp_path / "run" / "results.jsonl").unlink()
    run(make_spec(), tmp_path / "run", device="cpu", number=3)
    assert read_files(tmp_path / "run") == whole


@pytest.mark.parametrize("name", ["cell", "only"])
def test_a_cell_that_is_not_there(tmp_path, name):
    given = {"number": 4} if name == "cell" else {"only": "none"}
    with pytest.raises(UserError, match="cell"):
        run(make_spec(), tmp_path / "run", device="cpu", **given)
    assert not (tmp_path / "run").exists()


def test_a_cell_is_run_by_whoever_holds_its_lock(tmp_path):
    spec = make_spec()
    cell, data = list_cells(spec, tmp_path)[0], spec.dataset.options.load()
    cell.folder.mkdir(parents=True)
    given = (cell, data, "cpu", executor.ignore_progress, pytest.fail)
    with try_lock_folder(cell.folder, pytest.fail) as held, pytest.raises(CellBusyError):
        assert held
        run_cell(*given)
    assert not cell.done
    run_cell(*given)
    assert cell.done
    assert not (cell.folder / "lock").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_another_run_holds_comes_last(whole, tmp_path, monkeypatch, jobs):
    """Here the other one ends without having done it, while it is waited for."""
    out, told, ended = tmp_path / "run", [], []
    folder = out / "cells" / "a-0"
    folder.mkdir(parents=True)
    (out / "spec.json").write_text(json.dumps({"sha256": make_spec().digest(), "spec": make_spec().to_record()}))
    lock = try_lock_folder(folder, pytest.fail)
    assert lock.__enter__()

    def sleep(seconds):
        ended.append(sorted(path.parent.name for path in out.glob("cells/*/cell.json")))
        lock.__exit__(None, None, None)

    monkeypatch.setattr(executor, "time", type("Time", (), {"sleep": staticmethod(sleep)}))
    monkeypatch.setattr(executor.Executor, "_run_processes", executor.Executor._run_serially)
    run(make_spec(), out, device="cpu", resume=True, jobs=jobs, progress=lambda *what: told.append(what[0]))
    assert ended == [["a-1", "b-0", "b-1"]]
    assert "waiting for 1 cells that other runs are at work on" in told
    assert read_files(out) == whole


def test_results_on_the_way_take_their_share_of_the_time(tmp_path, monkeypatch):
    now, made = [100.0], []

    class Results:
        def update(self):
            pass

        def write(self, pooled):
            made.append(now[0])
            now[0] += 2.0

    folder = RunFolder(make_spec(), tmp_path, pytest.fail)
    folder.bind(resume=False)
    monkeypatch.setattr(run_folder, "time", type("Time", (), {"monotonic": staticmethod(lambda: now[0])}))
    for moment in (100.0, 200.0, 299.0, 301.0):
        now[0] = moment
        folder.write_results(Results())
    assert made == [100.0, 301.0]


@pytest.mark.slow
def test_a_run_that_has_grown_keeps_its_results(tmp_path):
    """A process of the older, smaller spec does not write rows over those of the grown one."""
    out = tmp_path / "run"
    old = RunFolder(make_spec(), out, (said := []).append)
    out.mkdir()
    old.bind(resume=False)
    run(make_spec(3), out, device="cpu", resume=True)
    before = read_files(out)
    assert old.finish_results(run_folder.ResultsFile(make_spec(), out), []) != []
    assert read_files(out) == before
    assert "has grown since" in said[0]


# Real processes


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A spec's file, and a function that starts `cowbird run` on it, in the folder `run`."""
    table = make_table(6, attacks=2)
    lines = [f"{name} = {json.dumps(table[name])}" for name in ("name", "seeds", "ks")]
    lines += [f"[dataset]\n{_format(table['dataset'])}"]
    for key in ("victims", "attacks"):
        lines += [f"[[{key}]]\n{_format(part)}" for part in table[key]]
    (tmp_path / "grid.toml").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]))
    monkeypatch.setenv("COUNTED_FITS", str(tmp_path / "fits"))
    monkeypatch.setenv("COUNTED_SECONDS", "0.05")

    def start(*words):
        out = tmp_path / "run"
        return start_command(
            "run", tmp_path / "grid.toml", "--out", out, "--device", "cpu", "--allow-plugins", "-q", *words
        )

    return start


def _format(table):
    return "\n".join(
        f"{key} = {{ {_format(value)} }}" if isinstance(value, dict) else f"{key} = {json.dumps(value)}"
        for key, value in table.items()
    )


def end(process, codes=(0,)):
    said = process.communicate(timeout=120)[0]
    assert process.returncode in codes, said
    assert "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_killed_interrupted_and_shared_it_ends_like_one_run(grid, tmp_path, monkeypatch):
    """One is killed, and of two that go on together one is interrupted: what is kept stays, no byte differs."""
    out, fits, draw = tmp_path / "run", tmp_path / "fits", random.Random(22)
    spec = parse_spec(make_table(6, 2), allow_plugins=True)

    def stop(process, kill, code, many):
        wait_until(lambda: fits.exists() and len(fits.read_text().splitlines()) > many, process)
        time.sleep(draw.random() * 0.2)
        process.send_signal(kill)
        end(process, (code,))

    first = grid()
    try:
        stop(first, signal.SIGKILL, -signal.SIGKILL, 5)
    finally:
        clear_away(first)
    left = [cell.folder.name for cell in list_cells(spec, out) if not cell.done]
    assert len(left) > 4
    fits.unlink()
    pair = [grid("--resume"), grid("--resume")]
    try:
        stop(pair[0], signal.SIGINT, 3, 4)
        end(pair[1])
    finally:
        clear_away(*pair)
    counted = Counter(fits.read_text().splitlines())
    # The one that is interrupted may lose the fit that it has not yet written; nothing else is fitted twice.
    assert sum(counted.values()) - len(counted) <= 1
    assert {line.split("/")[-3] for line in counted} <= set(left)
    run(spec, tmp_path / "one", device="cpu")
    assert read_files(out) == read_files(tmp_path / "one")
