"""Commands as processes of their own, and what became of those that they started."""

import os
import subprocess
import sys
import time
from pathlib import Path

SECONDS_AT_MOST = 120
SECONDS_FOR_ORPHANS = 1.5
"""Within what time a worker ends after its parent; a second, and some for a busy machine."""


def start_command(*words):
    """Start `cowbird` in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cowbird", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(holds, process, seconds=SECONDS_AT_MOST):
    """Wait until something holds while a process runs."""
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def list_processes():
    """Return parent and words of each process that is alive, by its number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended just now
                continue
            if state != "Z":
                found[int(folder.name)] = int(parent), words
    return found


def list_workers(process):
    """Return the numbers of the processes below one that do work."""
    known, below, grown = list_processes(), {process.pid}, True
    while grown:
        more = {number for number, (parent, _) in known.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return {number for number in below - {process.pid} if any("spawn_main" in word for word in known[number][1])}


def measure_work(number):
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def list_survivors(numbers):
    """Return those of some processes that are alive after a moment in which they may end."""
    end = time.monotonic() + SECONDS_FOR_ORPHANS
    while time.monotonic() < end:
        if not set(numbers) & list_processes().keys():
            return set()
        time.sleep(0.02)
    left = set(numbers) & list_processes().keys()
    for number in left:  # nobody else would
        os.kill(number, 9)
    return left


def clear_away(*processes):
    """End processes, and all that they started."""
    for process in processes:
        for number in {process.pid, *list_workers(process)}:
            try:
                os.kill(number, 9)
            except ProcessLookupError:
                continue
        process.communicate()
