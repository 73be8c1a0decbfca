"""What all tests share."""

import copy
import functools
import gc
import hashlib
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
    """The tree of commands is built once a session, not at each call: that takes some 30 milliseconds."""
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
    """The same weights are read once a session, and copies are handed out: reading outlasts most fits.

    Models are read from private copies of folders, so it is what the files hold that tells them, not where they are.
    Of large models the last one is kept.
    """
    import torch
    import transformers

    plain = (str, bool, torch.dtype)
    read, known, large = transformers.AutoModelForCausalLM.from_pretrained, {}, []

    def from_pretrained(*given, **fields):
        folder = Path(given[0]) if given else Path("nowhere")
        if not (folder.is_dir() and all(isinstance(value, plain) for value in fields.values())):
            return read(*given, **fields)
        key = tuple(map(name_content, sorted(folder.iterdir()))), tuple(sorted(fields.items()))
        if key not in known:
            known[key] = read(folder, **fields)
            if max(path.stat().st_size for path in folder.iterdir()) > LARGE_FILE:
                for old in large:
                    del known[old]
                large[:] = [key]
        found = copy.deepcopy(known[key])
        model = found[0] if isinstance(found, tuple) else found
        model.name_or_path = model.config._name_or_path = str(folder)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", staticmethod(from_pretrained))
        yield


LARGE_FILE = 1 << 22
"""From how many bytes on a file is known by its place, size and time, not by what it holds."""


def name_content(path):
    """Return what tells a file from others."""
    stat = path.stat()
    if stat.st_size > LARGE_FILE:
        return path.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    return path.name, path.is_file() and hashlib.sha256(path.read_bytes()).digest()
