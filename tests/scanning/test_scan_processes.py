"""Real processes of a scan: signals, and workers whose parent is killed."""

import csv
import os
import signal
import sys

import pytest

from doubles.processes import clear_away, list_survivors, list_workers, start_command, wait_until

pytestmark = [
    pytest.mark.slow,  # each is a process of its own; CI runs them
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture
def words(tmp_path):
    """A scan that takes long, by two workers."""
    path = tmp_path / "catalog.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("title",), *((f"Red Harbor number {nth}",) for nth in range(300_000))])
    given = ("--detector", "character_rules", "--device", "cpu", "--chunk", 64, "--workers", 2)
    return ("scan", path, "--out", tmp_path / "found.csv", *given)


@pytest.fixture
def at_work(words, tmp_path):
    process = start_command(*words)
    wait_until((tmp_path / "found.csv.partial" / "state.json").exists, process)
    wait_until(lambda: len(list_workers(process)) == 2, process)
    yield process
    clear_away(process)


def test_workers_end_with_their_parent(at_work):
    workers = list_workers(at_work)
    os.kill(at_work.pid, signal.SIGKILL)
    assert not list_survivors(workers)


def test_a_signal_to_all_is_an_interrupt(at_work, words):
    """The workers of a group that is told to end leave the end to the first process, which says how to go on."""
    workers = list_workers(at_work)
    os.killpg(at_work.pid, signal.SIGTERM)
    said = at_work.communicate(timeout=60)[0]
    assert at_work.returncode == 3, said
    assert "Interrupted; what was scanned is kept. Go on with: " in said
    assert "Traceback" not in said
    assert not list_survivors(workers)
