"""Real processes: two writers of one folder, signals, and workers whose parent is killed."""

import os
import shutil
import signal
import sys

import pytest

from doubles.processes import clear_away, list_survivors, list_workers, measure_work, start_command, wait_until

pytestmark = [
    pytest.mark.slow,  # each is a process of its own; CI runs them
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


SECONDS_OF_WORK = 2.0
"""Processor seconds after which a worker that has planted is in the middle of a fit: its first step loads libraries."""


@pytest.fixture
def spec(tmp_path, tiny_toml):
    """A run that takes long: it is interrupted before its end."""
    path = tmp_path / "long.toml"
    path.write_text(tiny_toml.replace("epochs = 3\n", "epochs = 20000\npatience = 20000\n", 1))
    return path


def count_checkpoints(out):
    """Return how many cells have one."""
    return len({path.parent for path in out.glob("cells/*/models/*/step-*.json")})


def count_begun(out):
    """Return how many cells have planted an attack; the fits follow."""
    return len(list(out.glob("cells/*/plans/*")))


def wait_for_fits(out, process, jobs):
    """Wait until as many workers as there are jobs are in the middle of a fit; return them."""
    wait_until(lambda: count_begun(out) == jobs, process)
    workers = list_workers(process) if jobs > 1 else {process.pid}
    assert len(workers) == jobs
    before = {number: measure_work(number) for number in workers}
    wait_until(lambda: all(measure_work(number) > before[number] + SECONDS_OF_WORK for number in workers), process)
    return workers


@pytest.mark.long  # tests of shared runs have two processes on one folder, too
def test_two_writers_of_one_folder(spec, tmp_path):
    """The second takes the cell that is free; what the first holds is its own until it ends."""
    out = tmp_path / "run"
    words = ("run", spec, "--out", out, "--device", "cpu")
    first = start_command(*words)
    second = None
    try:
        wait_for_fits(out, first, 1)
        second = start_command(*words, "--resume")
        wait_until(lambda: count_begun(out) == 2, second)
        assert first.poll() is None, "the first is not disturbed"
        assert len(list(out.glob("cells/*/lock"))) == 2
        before = measure_work(second.pid)
        wait_until(lambda: measure_work(second.pid) > before + SECONDS_OF_WORK, second)
        for process in (first, second):
            process.terminate()
            said = process.communicate(timeout=60)[0]
            assert process.returncode == 3, said
            assert "Interrupted; what is done is kept. Go on with: " in said
            assert "Traceback" not in said
        assert count_checkpoints(out) == 2, "what was fitted is kept"
        assert not list(out.rglob("lock"))
    finally:
        clear_away(*(process for process in (first, second) if process is not None))


def test_workers_end_with_their_parent(spec, tmp_path):
    """A run that is killed leaves nobody who writes, and goes on at once; told to end, it has its workers save."""
    out = tmp_path / "run"
    words = ("run", spec, "--out", out, "--device", "cpu", "--jobs", 2)
    first, second = start_command(*words), None
    try:
        wait_until(lambda: count_begun(out) == 2, first)
        workers = list_workers(first)
        assert len(workers) == 2
        os.kill(first.pid, signal.SIGKILL)
        assert not list_survivors(workers)
        shutil.rmtree(out / "cells")  # it would hide how far the next one is
        second = start_command(*words, "--resume")
        wait_until(lambda: len(list_workers(second)) == 2, second)
        workers = wait_for_fits(out, second, 2)
        second.send_signal(signal.SIGHUP)  # to the first process alone
        said = second.communicate(timeout=60)[0]
    finally:
        clear_away(*(process for process in (first, second) if process is not None))
    assert second.returncode == 3, said
    assert "Interrupted; what is done is kept. Go on with: " in said
    assert "Traceback" not in said
    assert not list_survivors(workers)
    assert count_checkpoints(out) == 2, "what was fitted is kept"
    assert not (out / "lock").exists()
    assert not list(out.rglob("*.cowbird-partial"))
