"""Locks: one writer at a time, who it is, and what is left when it is gone."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from cowbird import files, locks
from cowbird.errors import UserError
from cowbird.files import PARTIAL_SUFFIX, replace_atomically, replace_folder_atomically, sweep_partials
from cowbird.locks import lock_folder


def hold(folder, warn=pytest.fail):
    return lock_folder(folder, "run", "Wait.", warn)


def test_one_at_a_time(tmp_path):
    with hold(tmp_path):
        with pytest.raises(UserError) as caught, hold(tmp_path):
            pytest.fail("two hold it")
        assert (
            f"Another run is at work in '{tmp_path}': process {os.getpid()} on {socket.gethostname()}, since 20"
            in str(caught.value)
        )
        assert caught.value.hint == "Wait."
    assert not list(tmp_path.iterdir())
    with hold(tmp_path):
        pass


def test_a_stale_lock_does_not_block(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / "lock").write_text(json.dumps({"pid": int(done.stdout), "host": socket.gethostname(), "since": "long"}))
    with hold(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_workers_of_a_dead_process_are_waited_for(tmp_path, monkeypatch):
    """The lock of a run is held by its workers, too, which end a moment after it."""
    (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "since": "now"}))
    worker = os.open(tmp_path / "lock", os.O_WRONLY)
    fcntl.flock(worker, fcntl.LOCK_EX)
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            os.close(worker)

    monkeypatch.setattr(locks.time, "sleep", sleep)
    with hold(tmp_path):
        assert len(naps) == 3


def test_a_worker_that_does_not_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_FOR_ORPHANS", 0.0)
    (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "since": "now"}))
    with (tmp_path / "lock").open("ab") as worker:
        fcntl.flock(worker, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=f"process {2**22 + 1} on"), hold(tmp_path):
            pytest.fail("two hold it")


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Its last holder removes the file while somebody has it open already."""
    taken, real = [], locks.take_lock

    def take(handle):
        if not taken:
            (tmp_path / "lock").unlink()
        taken.append(handle)
        return real(handle)

    monkeypatch.setattr(locks, "take_lock", take)
    with hold(tmp_path):
        assert len(taken) == 2
        assert (tmp_path / "lock").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, code):
    def refuse(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = []
    with hold(tmp_path, told.append):
        pass
    assert len(told) == 1
    assert "knows no locks" in told[0]
    left = make_leftover(tmp_path)
    sweep_partials(tmp_path)
    assert left.exists(), "nobody can tell whether its maker is at work"


# What dead processes leave


def make_leftover(folder, name="x"):
    left = folder / f".{name}.abc{PARTIAL_SUFFIX}"
    left.mkdir()
    (left / name).write_text("half")
    return left


def test_what_the_dead_left_is_swept(tmp_path):
    (tmp_path / "deep").mkdir()
    lefts = [make_leftover(tmp_path), make_leftover(tmp_path / "deep"), make_leftover(tmp_path, "y")]
    sweep_partials(tmp_path, "x")
    assert [left.exists() for left in lefts] == [False, True, True]
    sweep_partials(tmp_path, deep=True)
    assert not any(left.exists() for left in lefts)


def test_what_the_living_write_is_left_alone(tmp_path):
    with replace_atomically(tmp_path / "x") as partial, replace_folder_atomically(tmp_path / "y") as folder:
        partial.write_text("whole")
        (folder / "z").write_text("whole")
        sweep_partials(tmp_path)
    assert (tmp_path / "x").read_text() == (tmp_path / "y" / "z").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_what_belongs_to_others_is_left_alone(tmp_path, monkeypatch):
    left = make_leftover(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    (tmp_path / f".z.abc{PARTIAL_SUFFIX}").symlink_to(tmp_path / "mine")
    (tmp_path / ".other.partial").mkdir()
    monkeypatch.setattr(files, "is_owned", lambda found: False)
    sweep_partials(tmp_path)
    monkeypatch.undo()
    assert left.exists()
    sweep_partials(tmp_path)
    assert not left.exists()
    assert (tmp_path / "mine" / "precious").exists()
    assert (tmp_path / ".other.partial").exists(), "another program's"


# Folders that replace others


def make_folder(path, text):
    path.mkdir()
    (path / "x").write_text(text)
    return path


def test_an_older_folder_goes_last(tmp_path):
    folder = make_folder(tmp_path / "a", "old")
    with replace_folder_atomically(folder) as partial:
        (partial / "x").write_text("new")
        assert (folder / "x").read_text() == "old"
    assert (folder / "x").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("oh"), KeyboardInterrupt()])
def test_an_older_folder_stays_if_the_new_one_can_t_be_written(tmp_path, error):
    folder = make_folder(tmp_path / "a", "old")
    with pytest.raises((UserError, RuntimeError, KeyboardInterrupt)), replace_folder_atomically(folder) as partial:
        (partial / "x").write_text("half")
        raise error
    assert (folder / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_older_folder_comes_back_if_the_rename_fails(tmp_path, monkeypatch):
    folder, real = make_folder(tmp_path / "a", "old"), type(tmp_path).rename

    def rename(self, to):
        if self.name == "a" and to == folder:
            raise OSError(5, "Input/output error")
        return real(self, to)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    with pytest.raises(UserError, match="Input/output error"), replace_folder_atomically(folder) as partial:
        (partial / "x").write_text("new")
    assert (folder / "x").read_text() == "old"


def test_a_kill_between_two_renames_is_mended_by_the_next_sweep(tmp_path):
    left = make_leftover(tmp_path, "a")
    make_folder(left / "older", "old")
    sweep_partials(tmp_path)
    assert (tmp_path / "a" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_faster_of_two_that_make_the_same_wins(tmp_path):
    with replace_folder_atomically(tmp_path / "a", keep=True) as partial:
        (partial / "x").write_text("slow")
        make_folder(tmp_path / "a", "fast")
    assert (tmp_path / "a" / "x").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
