"""Ways to go through cells: one after another, in threads, in processes; and what a failing cell leaves behind."""

import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import pytest
import torch

from cowbird.errors import UserError
from cowbird.experiments import executor
from cowbird.experiments.cell import list_cells
from cowbird.experiments.executor import MAX_THREADS_PER_GPU, Executor, run_cell
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from doubles.evidence import evidence_files

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OUT_OF_MEMORY = "CUDA out of memory\nTried to allocate 20 GiB."


@pytest.fixture
def four(table):
    """Two victims and two seeds, fitted in a moment."""
    victim = table["victims"][0] | {"epochs": 1, "hidden": 8}
    table["victims"] = [victim, victim | {"label": "other", "hidden": 16}]
    table["seeds"] = [5, 2]
    del table["attacks"][1]
    del table["scenarios"][1]
    return parse_spec(table)


def titles(found):
    return [cell.title for cell in found]


ALL = ["sasrec, seed 5", "sasrec, seed 2", "other, seed 5", "other, seed 2"]


@pytest.fixture
def work(four, tmp_path):
    """Return a function that makes work of all cells, or of some."""

    def make(jobs=1, device=CPU, every_gpu=False, skip=(), **more):
        waiting = [cell for cell in list_cells(four, tmp_path) if cell.title not in skip]
        return Executor(four, tmp_path, waiting, four.dataset.options.load(), device, every_gpu, jobs, **more)

    return make


@pytest.fixture
def ran(monkeypatch):
    """Run no cell: list (title, device) of those that would be, and let `trouble` (title to error) happen to them."""
    calls, trouble, lock = [], {}, threading.Lock()

    def run_cell(cell, data, device, progress, warn):
        with lock:
            calls.append((cell.title, str(device)))
        warn(f"{cell.title} began")
        progress(cell.title, 1, 2, "")
        if cell.title in trouble:
            raise trouble[cell.title]

    monkeypatch.setattr(executor, "run_cell", run_cell)
    run_cell.calls, run_cell.trouble = calls, trouble
    return run_cell


# One after another


def test_run_serially(work, ran):
    told = []
    made = work(progress=lambda *what: told.append(what))
    going = made.run()
    assert ran.calls == [], "nothing runs before it is asked for"
    assert next(going).title == ALL[0]
    assert ran.calls == [(ALL[0], "cpu")], "and no cell before the one before it was told"
    assert titles(going) == ALL[1:]
    assert told == [(title, 1, 2, "") for title in ALL]
    assert made.warnings == [f"{title} began" for title in ALL]
    assert made.failed == []


@pytest.mark.parametrize(
    ("jobs", "device", "skip", "way"),
    [
        (1, CPU, (), "_run_serially"),
        (1, CUDA, (), "_run_serially"),
        (4, CPU, ALL[1:], "_run_serially"),
        (4, CUDA, ALL[:3], "_run_serially"),
        (2, CPU, ALL[:2], "_run_processes"),
        (2, CUDA, ALL[:2], "_run_threads"),
    ],
)
def test_which_way(work, monkeypatch, jobs, device, skip, way):
    for name in ("_run_serially", "_run_processes", "_run_threads"):
        monkeypatch.setattr(Executor, name, lambda self, name=name: iter([name]))
    assert list(work(jobs, device, skip=skip).run()) == [way]


def test_a_cell_that_fails_leaves_the_others_going(work, ran):
    ran.trouble |= {ALL[1]: RuntimeError(OUT_OF_MEMORY), ALL[3]: torch.OutOfMemoryError("none left")}
    made = work()
    assert titles(made.run()) == ALL
    assert [title for title, _ in ran.calls] == ALL
    reasons = [(ALL[1], "CUDA out of memory"), (ALL[3], "none left")]
    assert made.failed == [f"{title} stopped: {reason}. Run again with --resume." for title, reason in reasons]


@pytest.mark.parametrize("jobs", [3, 999])
def test_no_more_jobs_than_processors(work, monkeypatch, jobs):
    monkeypatch.setattr(executor, "count_processors", lambda: 2)
    made = work(jobs)
    assert made.jobs == 2
    assert made.warnings == [f"{jobs} jobs were asked for, and 2 run at once: that is what the processors take."]
    assert work(2).warnings == []


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), ValueError("a defect")])
def test_what_is_not_the_machine_s_account_stops_all(work, ran, error):
    ran.trouble[ALL[1]] = error
    made, found = work(), []
    with pytest.raises(type(error)):
        for cell in made.run():
            found.append(cell)
    assert titles(found) == ALL[:1]
    assert [title for title, _ in ran.calls] == ALL[:2]
    assert made.failed == []


@pytest.mark.slow
def test_a_failure_is_reported_and_mended_by_resuming(four, tmp_path, monkeypatch):
    def failing(cell, *rest):
        if cell.title in ALL[1:3]:
            raise RuntimeError(OUT_OF_MEMORY)
        run_cell(cell, *rest)

    told = []
    with monkeypatch.context() as patched:
        patched.setattr(executor, "run_cell", failing)
        outcome = run(four, tmp_path / "cut", device="cpu", cell_done=lambda *now: told.append(now))
    assert (outcome.done, outcome.total) == (2, 4)
    assert [error.partition(" stopped")[0] for error in outcome.errors] == ALL[1:3]
    assert {(row.victim, row.seed) for row in outcome.rows if row.seed is not None} == {("sasrec", 5), ("other", 2)}
    assert told == [(n, 4) for n in range(5)]
    mended = run(four, tmp_path / "cut", device="cpu", resume=True)
    assert (mended.done, mended.errors) == (4, [])
    assert len({(row.victim, row.seed) for row in mended.rows if row.seed is not None}) == 4


# In threads, with GPUs that are only named


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretend that there are two GPUs; list the devices whose streams were asked for."""
    streams = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(executor, "get_thread_stream", lambda device, purpose: streams.append(str(device)))
    return streams


def test_threads_take_the_gpus_run_serially(work, ran, two_gpus):
    ran.trouble[ALL[2]] = RuntimeError(OUT_OF_MEMORY)
    made = work(3, CUDA, every_gpu=True)
    assert sorted(titles(made.run())) == sorted(ALL)
    assert sorted(ran.calls) == sorted(zip(ALL, ["cuda:0", "cuda:1"] * 2, strict=True))
    assert sorted(two_gpus) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert [error.partition(" stopped")[0] for error in made.failed] == [ALL[2]]
    assert sorted(made.warnings) == sorted(f"{title} began" for title in ALL)


def test_one_gpu_is_one_gpu(work, ran, two_gpus):
    assert len(titles(work(2, torch.device("cuda", 1)).run())) == 4
    assert {device for _, device in ran.calls} == {"cuda:1"}


@pytest.mark.parametrize(
    ("jobs", "every_gpu", "most"), [(3, False, 3), (99, False, MAX_THREADS_PER_GPU), (99, True, 32)]
)
def test_most_threads(work, ran, two_gpus, monkeypatch, jobs, every_gpu, most):
    """No more threads than the GPUs have streams for."""
    asked, real = [], executor.ThreadPoolExecutor
    monkeypatch.setattr(executor, "ThreadPoolExecutor", lambda threads: asked.append(threads) or real(threads))
    list(work(jobs, torch.device("cuda", 0), every_gpu).run())
    assert sum(asked) == most


@pytest.mark.parametrize("how", ["in a cell", "in the caller", "closed"])
def test_threads_stop_together(work, two_gpus, monkeypatch, how):
    """An interrupt reaches the cells that run at their next progress, and the others never begin."""
    began, ended, first = threading.Barrier(2, timeout=20), [], ALL[0]

    def long(cell, data, device, progress, warn):
        began.wait()
        if cell.title == first:
            if how == "in a cell":
                raise UserError("no")
            return
        end = time.monotonic() + 10
        try:
            while time.monotonic() < end:
                progress(cell.title, 1, 2, "")
        except KeyboardInterrupt:
            ended.append(cell.title)
            raise

    monkeypatch.setattr(executor, "run_cell", long)
    made = work(2, CUDA, skip=ALL[2:])
    going = made.run()
    if how == "in a cell":
        with pytest.raises(UserError):
            next(going)
    else:
        assert next(going).title == first
        if how == "closed":
            going.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                going.throw(KeyboardInterrupt)
    assert ended == ALL[1:2]
    assert made.failed == []


# In processes, which are none here


class Inline:
    """Runs what it is given at once, in this process."""

    def __init__(self, jobs, mp_context, initializer, initargs, max_tasks_per_child):
        assert mp_context.get_start_method() == "spawn", "a fork would inherit threads and locks"
        self.jobs = jobs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def submit(self, function, *given):
        done = Future()
        try:
            done.set_result(function(*given))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self, wait, cancel_futures):
        assert wait
        assert cancel_futures


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(executor, "ProcessPoolExecutor", Inline)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_processes_make_the_same_cells(four, tmp_path, contents, inline):
    """Each works from the record of the spec; one that is done already is left out."""
    run(four, tmp_path / "one", device="cpu")
    outcome = run(four, tmp_path / "two", device="cpu", jobs=2)
    assert (outcome.done, outcome.errors) == (4, [])
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    kept = list_cells(four, tmp_path / "two")[1].folder / "cell.json"
    kept.write_text(kept.read_text().replace('"errors": []', '"errors": ["kept"]'))
    for number in (0, 2, 3):
        (list_cells(four, tmp_path / "two")[number].folder / "cell.json").unlink()
    again = run(four, tmp_path / "two", device="cpu", jobs=2, resume=True)
    assert (again.done, again.errors) == (4, ["kept"])
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_processes_that_fail(work, ran, inline):
    ran.trouble |= {ALL[0]: RuntimeError(OUT_OF_MEMORY)}
    made = work(2)
    assert sorted(titles(made.run())) == sorted(ALL)
    assert made.failed == [f"{ALL[0]} stopped: CUDA out of memory. Run again with --resume."]
    assert sorted(made.warnings) == sorted(f"{title} began" for title in ALL[1:])
    ran.trouble[ALL[0]] = BrokenProcessPool("a child died")
    broken = work(2)
    assert sorted(titles(broken.run())) == sorted(ALL), "a pool that broke is followed by another"
    (error,) = broken.failed
    assert error.startswith(f"{ALL[0]} stopped: its worker process died")
    assert "--resume" in error


# On a GPU


@pytest.mark.gpu
def test_two_cells_share_a_gpu_and_change_no_byte(table, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    fields = {"hidden": 64, "epochs": 3, "batch_size": 16, "dropout": 0.2}
    table["victims"] = [{"name": "sasrec"} | fields, {"name": "gru4rec", "loss": "sampled"} | fields]
    table["seeds"] = [0]
    table["attacks"][1] = {"name": "prompt_enhanced", "targets": {"count": 3}, "prompt_epochs": 3, "epochs": 3}
    table["scenarios"].append({"name": "prompt-tune", "epochs": 3})
    spec, found = parse_spec(table), []
    for jobs in (1, 2):
        outcome = run(spec, tmp_path / str(jobs), device="cuda:0", jobs=jobs)
        assert (outcome.done, outcome.errors) == (2, [])
        found.append([path.read_bytes() for path in evidence_files(tmp_path / str(jobs))])
    assert found[0] == found[1]
