"""What all tests share."""

import copy
import functools
import gc
import os
import signal
from pathlib import Path

import pytest

from costs import Costs


def pytest_configure(config):
    """Hypothesis draws the same examples on every machine, however slow or busy it is; the end tells what was dear."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup; commands that tests start would inherit it
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.pluginmanager.register(Costs(), "costs")
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process only hands out tests
    gc.disable()  # until all is collected: a third of the time of imports and collection goes to it otherwise
    from hypothesis import settings

    settings.register_profile("cowbird", deadline=None, derandomize=True)
    settings.load_profile("cowbird")


def pytest_collection_finish():
    """What was imported and collected stays to the end: the search for garbage need never look at it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums are made in the same order on every machine, and small ones faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def one_command_line():
    """The tree of commands is built once a session, not at each call: it is the same, and takes longer than most."""
    from typer import main, testing

    with pytest.MonkeyPatch.context() as patch:
        build = functools.cache(main.get_command)
        patch.setattr(main, "get_command", build)
        patch.setattr(testing, "_get_command", build)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_disks():
    """Files are written as ever, but nothing waits until a disk has them: no power is cut in a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def read_once():
    """Weights in the same files are read once a session, and copies are handed out: reading outlasts most fits."""
    import torch
    import transformers

    plain = (str, bool, torch.dtype)
    read, known = transformers.AutoModelForCausalLM.from_pretrained, {}

    def from_pretrained(*given, **fields):
        folder = given[0] if given else ""
        simple = all(isinstance(value, plain) for value in fields.values())
        if not (folder and simple and Path(folder).is_dir()):
            return read(*given, **fields)
        found = [(str(path), path.stat()) for path in sorted(Path(folder).iterdir())]
        files = tuple((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found)
        key = files, tuple(sorted(fields.items(), key=lambda field: field[0]))
        if key not in known:
            known[key] = read(folder, **fields)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", staticmethod(from_pretrained))
        yield
