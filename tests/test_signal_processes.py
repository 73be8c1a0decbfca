"""Signals: the first is an interrupt, during a save it waits, the second ends the process at once."""

import signal
import subprocess
import sys
import time

import pytest

from doubles.processes import list_processes, list_survivors

pytestmark = [
    pytest.mark.slow,  # each is a process of its own; CI runs them
    pytest.mark.skipif(sys.platform == "win32", reason="has no such signals"),
]

PROGRAM = """
import time
from cowbird.processes import hold_interrupts, treat_signals_as_interrupts
with treat_signals_as_interrupts():
    try:
        with {block}:
            print("begun", flush=True)
            time.sleep({seconds})
            print("saved", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        time.sleep({after})
        print("ended", flush=True)
"""


def start(block="hold_interrupts()", seconds=0.0, after=0.0, before=""):
    code = before + PROGRAM.format(block=block, seconds=seconds, after=after)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_is_an_interrupt(number):
    process = start("treat_signals_as_interrupts()", 30)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == "interrupted\nended\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_a_save_is_finished_first(number):
    process = start(seconds=0.4)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == "saved\ninterrupted\nended\n"


def test_the_second_ends_all_at_once():
    process = start(seconds=30)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == ""
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 5


def test_one_that_comes_twice_is_the_same():
    """`timeout` sends each to the process and to its group."""
    process = start("treat_signals_as_interrupts()", 30, after=0.3)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "interrupted\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "ended\n"
    assert process.returncode == 0


def test_an_interrupt_within_code_made_of_text_leaves_the_exit_code(tmp_path):
    code = """
from cowbird.cli import app
def call(**_):
    exec("raise KeyboardInterrupt")  # as where a library makes a class of records
app.app = call
app.main()
"""
    (tmp_path / "interrupted.py").write_text(code)
    command = [sys.executable, "-m", "interrupted"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (3, "Interrupted.\n")


LIBRARY = """
import time
print("begun", flush=True)
time.sleep(0.6)
print("loaded", flush=True)
"""
LOADING = """
import sys
sys.path.insert(0, {folder!r})
from cowbird.processes import treat_signals_as_interrupts
with treat_signals_as_interrupts():
    try:
        import torch
        import time
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def start_loading(folder, seconds="0.6"):
    (folder / "torch.py").write_text(LIBRARY.replace("0.6", seconds))
    code = LOADING.format(folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", NUMBERS)
def test_a_library_is_loaded_first(tmp_path, number):
    """Compiled code that is stopped while it is loaded may abort the process."""
    process = start_loading(tmp_path)
    process.send_signal(number)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == "loaded\ninterrupted\n"
    assert process.returncode == 0


def test_the_second_ends_the_load_of_a_library(tmp_path):
    process = start_loading(tmp_path, "30")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.7)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=10)[0] == ""
    assert process.returncode == 128 + signal.SIGHUP


def test_what_is_ignored_stays_ignored():
    """`nohup` lets a command go on when its terminal closes."""
    process = start(seconds=0.4, before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=10)[0] == "saved\n"


SPARING = """
import os, signal, threading, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from cowbird.processes import WorkerStart, spare_new_workers, treat_signals_as_interrupts

def find_worker():
    for place in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for number in place.read_text().split():
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\\0")
            if any(word.startswith(b"from multiprocessing.spawn") for word in words):
                return int(number)

def interrupt_all():
    while not (worker := find_worker()):
        time.sleep(0.001)
    os.kill(worker, signal.SIGINT)  # it has not read yet what it is given
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt_all).start()
given = "x" * (1 << 22)  # more than a pipe holds
with treat_signals_as_interrupts(), ProcessPoolExecutor(1, get_context("spawn"), WorkerStart(len), (given,)) as pool:
    try:
        with spare_new_workers():
            found = pool.submit(abs, -7)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", found.result(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupt_of_all_leaves_a_worker_alone_that_begins():
    done = subprocess.run([sys.executable, "-c", SPARING], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "interrupted 7\n", done.stderr


SLOW_MODULE = """
import multiprocessing, time
if multiprocessing.current_process().name != "MainProcess":
    time.sleep(60)
def begin():
    pass
def work():
    pass
"""
PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from cowbird.processes import WorkerStart
import slow_module
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), WorkerStart(slow_module.begin))
    pool.submit(slow_module.work)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_still_imports_ends_with_its_parent(tmp_path):
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    (tmp_path / "parent.py").write_text(PARENT.format(folder=str(tmp_path)))
    # The worker runs the parent's file first, which would wait for the module too: it is given by -c.
    code = f"exec(open({str(tmp_path / 'parent.py')!r}).read())"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    time.sleep(1.0)  # it is in the middle of the import
    assert worker in list_processes()
    process.kill()
    process.communicate()
    assert not list_survivors({worker})
