"""Processes that need the same null models at the same time make each once."""

import multiprocessing
import time

from cowbird.inspection.sharing import share_work

KEYS = [f"k{number}" for number in range(4)]


def work(folder, made):
    """Make what is not there, slowly, and note that it was made."""

    def make(number):
        path = folder / f"{KEYS[number]}.txt"
        if not path.exists():
            time.sleep(0.05)
            with made.get_lock():
                made.value += 1
            path.write_text(str(number))
        return int(path.read_text())

    assert share_work(folder, KEYS, make) == [0, 1, 2, 3]


def test_alone(tmp_path):
    work(tmp_path, multiprocessing.Value("i", 0))


def test_three_processes_make_each_once(tmp_path):
    context = multiprocessing.get_context("fork")
    made = context.Value("i", 0)
    workers = [context.Process(target=work, args=(tmp_path, made)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert made.value == len(KEYS)
