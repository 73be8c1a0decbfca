"""Work on a Ray cluster: what is given out and what comes back, and real clusters of two workers, one killed midway."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird import ray_cluster
from cowbird.cli.engine import find_opener, open_engine
from cowbird.cli.options import EngineChoice
from cowbird.errors import OutageError, UserError
from cowbird.experiments.cell import list_cells
from cowbird.experiments.executor import CellBusyError, Executor
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.ray_cluster import RayCluster, find_cluster, join_cluster, share_gpus, use_cluster
from cowbird.scanning.ray_pool import RayScorer
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.scorers import open_scorer
from cowbird.scanning.verdicts import FlaggedSuspicion
from doubles.evidence import evidence_files


class MarkScorer:
    """Flags titles with an exclamation mark; one of them kills its process, once and if a variable says so."""

    key, complete, reference_unread = "marks", False, ()

    def scan(self, titles):
        if "a 150" in titles:
            kill_once("here")
        start = np.array([title.find("!") for title in titles])
        found = start >= 0
        return FlaggedSuspicion(np.where(found, 1.0, 0.0), start, np.where(found, start + 1, -1), found)


def kill_once(what):
    """Kill this process, if a variable names a file that is not there; the file is made before."""
    mark = os.environ.get("KILL_ONCE")
    if mark and not Path(mark).exists():
        Path(mark).write_text(what)
        os.kill(os.getpid(), signal.SIGKILL)


def make_scorer():
    return MarkScorer()


class FakeCluster:
    """Runs what it is given when it is asked for, here."""

    workers, gpus = 2, 0.0

    def __init__(self):
        self.given, self.kept = [], []

    def submit(self, function, *given):
        self.given.append((function, given))
        return len(self.given) - 1

    def put(self, value):
        self.kept.append(value)
        return value

    def wait(self, waiting, seconds=None):
        return waiting[:1]

    def get(self, result):
        function, given = self.given[result]
        return function(*given)

    def cancel(self, waiting):
        assert not list(waiting)


@pytest.fixture
def catalog(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,title\n" + "".join(f"{n},a {n}{'!' * (n % 7 == 2)}\n" for n in range(300)))
    return path


def scan(catalog, out, scorer):
    found = scan_catalog(catalog, out, scorer, form=ScanForm(chunk=16))
    return found.flagged, out.read_bytes()


def test_chunks_are_judged_on_the_cluster_and_come_in_order(catalog, tmp_path, monkeypatch):
    monkeypatch.setattr("cowbird.scanning.ray_pool.get_on_worker", lambda result: result)
    cluster = FakeCluster()
    found = scan(catalog, tmp_path / "ray.csv", RayScorer(MarkScorer(), make_scorer, cluster))
    assert found == scan(catalog, tmp_path / "one.csv", MarkScorer())
    assert found[0] == 43
    assert len(cluster.kept) == 1, "what was learned travels once"
    assert [len(given[1][2]) for given in cluster.given] == [16] * 18 + [12]


def test_a_scorer_opens_on_the_cluster_that_is_used(monkeypatch):
    opened = []

    class Opener:
        def __enter__(self):
            opened.append("in")
            return FakeCluster()

        def __exit__(self, *error):
            opened.append("out")

    with use_cluster(Opener):
        with open_scorer(MarkScorer(), make_scorer, 1, pytest.fail) as scorer:
            assert isinstance(scorer, RayScorer)
        assert opened == ["in", "out"]
        known = MarkScorer()
        known.complete = True
        with open_scorer(known, make_scorer, 1, pytest.fail) as scorer:
            assert scorer is known, "all verdicts are known already"
    assert opened == ["in", "out"]
    assert find_cluster() is None


# Cells


@pytest.fixture
def lists():
    """Four cells that take no time."""
    return parse_spec(make_table(), allow_plugins=True)


def make_table(victim="doubles.counted_lists:CountedList"):
    return {
        "name": "lists",
        "seeds": [0, 1],
        "ks": [5],
        "dataset": {"name": "synthetic", "users": 40, "items": 20, "events_per_user": 6},
        "victims": [{"name": victim, "label": label, "length": length} for label, length in (("a", 4), ("b", 6))],
        "attacks": [{"name": "basic_replacement", "targets": {"count": 2}}],
    }


def read_files(out):
    files = [out / "results.jsonl", *evidence_files(out), *out.glob("cells/*/models/*/list.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_cells_run_as_tasks_and_make_the_same_files(lists, tmp_path):
    threads = torch.get_num_threads()
    try:
        outcome = run(lists, tmp_path / "ray", device="cpu", cluster=FakeCluster())
    finally:
        torch.set_num_threads(threads)
    assert (outcome.done, outcome.errors) == (4, [])
    run(lists, tmp_path / "one", device="cpu")
    assert read_files(tmp_path / "ray") == read_files(tmp_path / "one")


def test_a_task_that_fails_or_finds_its_cell_busy(lists, tmp_path, monkeypatch):
    troubles = [CellBusyError(), OutageError("A worker died."), [], [], ["odd"]]
    cluster = FakeCluster()
    monkeypatch.setattr(cluster, "get", lambda result: give(troubles.pop(0)))
    work = Executor(
        lists, tmp_path, list_cells(lists, tmp_path), None, torch.device("cpu"), False, 1, cluster=cluster
    )  # fmt: skip
    finished = [cell.folder.name for cell in work.run()]
    assert finished == ["a-1", "b-0", "b-1", "a-0"], "the busy one comes again"
    assert work.failed == ["a, seed 1 stopped: A worker died. Run again with --resume."]
    assert work.warnings == ["odd"]


def give(value):
    if isinstance(value, Exception):
        raise value
    return value


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0.0), ("cuda:1", 0.5)])
def test_a_gpu_that_cannot_be_shared_is_refused(lists, tmp_path, monkeypatch, device, gpus):
    monkeypatch.setattr("cowbird.experiments.run.pick_device", lambda device_: torch.device(device))
    cluster = FakeCluster()
    cluster.gpus = gpus
    with pytest.raises(UserError, match="share of a GPU") as error:
        run(lists, tmp_path / "run", cluster=cluster)
    assert "--device cpu" in error.value.hint
    assert not (tmp_path / "run").exists()


def test_each_task_gets_a_share_of_a_gpu(monkeypatch):
    asked = []

    def remote(**options):
        asked.append(options)
        return lambda function: type("Task", (), {"remote": staticmethod(function)})

    library = FakeRay()
    library.remote, library.cluster_resources = remote, lambda: {"CPU": 12.0, "GPU": 2.0}
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    with join_cluster("x", on_gpu=True) as cluster:
        assert cluster.submit(int, "7") == 7
    with join_cluster("x") as cluster:
        cluster.submit(int, "7")
    assert [each["num_gpus"] for each in asked] == [1 / 6, 0.0]
    assert [share_gpus(2, 1), share_gpus(2, 2), share_gpus(2, 3), share_gpus(1, 16)] == [1, 1, 0.5, 1 / 16]
    library.cluster_resources = lambda: {"CPU": 12.0}
    with pytest.raises(UserError, match="has no GPU"), join_cluster("x", on_gpu=True):
        pytest.fail("joined")


# Joining


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the library 'ray'") as error:
        find_opener(EngineChoice.RAY, None, 1)
    assert "cowbird[distributed]" in error.value.hint
    assert find_opener(EngineChoice.LOCAL, None, 1) is None
    with open_engine(EngineChoice.LOCAL, "ray://nowhere", 1) as cluster:
        assert cluster is None


class FakeRay:
    """The part of the library that is used."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause = None

    def __init__(self, trouble=None):
        self.trouble, self.asked, self.ended = trouble, [], 0

    def init(self, address, **options):
        self.asked.append((address, options.get("num_cpus")))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the library does, in its way
        if self.trouble:
            raise self.trouble

    def cluster_resources(self):
        return {"CPU": 12.0}

    def shutdown(self):
        self.ended += 1

    def get(self, result):
        raise result


@pytest.mark.parametrize(
    ("address", "workers", "asked", "many"),
    [(None, 3, ("local", 3), 3), ("ray://head:1", None, ("ray://head:1", None), 12), ("auto", 5, ("auto", None), 5)],
)
def test_joining(monkeypatch, address, workers, asked, many):
    library = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    before = signal.getsignal(signal.SIGTERM)
    with join_cluster(address, workers) as cluster:
        assert signal.getsignal(signal.SIGTERM) is before
        assert cluster.workers == many
        assert library.ended == 0
    assert (library.asked, library.ended) == ([asked], 1)


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay(ConnectionError("ray client connection timeout\nmore")))
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: name)
    with pytest.raises(OutageError, match="can't be used: ray client connection timeout") as error, join_cluster("x"):
        pytest.fail("joined")
    assert "--ray-address" in error.value.hint


def test_errors_come_as_they_were_raised():
    library = FakeRay()
    cluster, raised = RayCluster(library, 1), library.exceptions.RayTaskError("a remote traceback")
    raised.cause = UserError("no")
    with pytest.raises(UserError, match="no"):
        cluster.get(raised)
    with pytest.raises(OutageError, match="died again and again: gone"):
        cluster.get(library.exceptions.RayError("gone\nmore"))


# Real clusters


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="kills a worker")
def test_a_worker_that_is_killed_costs_nothing_and_doubles_nothing(lists, catalog, tmp_path, monkeypatch):
    """Two workers, one of which is killed in the middle of a cell, and then one in the middle of a scan."""
    pytest.importorskip("ray")
    roots = [str(Path(ray_cluster.__file__).parents[1]), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    marks = tmp_path / "cell", tmp_path / "scan"
    monkeypatch.setenv("COUNTED_FITS", str(tmp_path / "fits"))
    monkeypatch.setenv("COUNTED_KILL", str(marks[0]))
    monkeypatch.setenv("KILL_ONCE", str(marks[1]))
    with join_cluster(None, 2) as cluster:
        outcome = run(lists, tmp_path / "ray", device="cpu", cluster=cluster)
        found = scan(catalog, tmp_path / "ray.csv", RayScorer(MarkScorer(), make_scorer, cluster))
    assert all(mark.exists() for mark in marks), "a worker was killed each time"
    monkeypatch.delenv("COUNTED_KILL")
    monkeypatch.delenv("KILL_ONCE")
    assert (outcome.done, outcome.errors) == (4, [])
    fits = (tmp_path / "fits").read_text().splitlines()
    assert len(fits) == len(set(fits)) == 8
    run(lists, tmp_path / "one", device="cpu")
    assert read_files(tmp_path / "ray") == read_files(tmp_path / "one")
    assert found == scan(catalog, tmp_path / "one.csv", MarkScorer())
