"""Files are whole or not there."""

import os
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from cowbird.errors import UserError
from cowbird.files import hold_temporary_folder, replace_atomically, share_folder, write_text
from cowbird.ownership import make_scratch_folder, open_own_file
from cowbird.processes import treat_signals_as_interrupts


def inside(folder):
    return [entry.name for entry in folder.iterdir()]


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, "grüße\n")
    assert path.read_bytes() == "grüße\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


def test_the_old_file_stays_until_the_end(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with replace_atomically(path) as partial:
        assert partial.parent.parent == tmp_path
        assert partial.name == "x", "libraries look at how a name ends"
        partial.write_text("new and longer")
        assert path.read_text() == "old"
    assert path.read_text() == "new and longer"
    assert inside(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")])
@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_what_was_there(tmp_path, error, exists):
    path = tmp_path / "x"
    if exists:
        path.write_text("old")
    wanted = UserError if isinstance(error, OSError) else error
    with pytest.raises(wanted) as caught, replace_atomically(path) as partial:
        partial.write_text("half")
        raise error
    assert inside(tmp_path) == (["x"] if exists else [])
    assert not exists or path.read_text() == "old"
    if wanted is UserError:
        assert "No space left" in str(caught.value)
        assert str(path) in str(caught.value)


def test_it_is_one_rename_of_synced_bytes(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, target: calls.append(("rename", str(target))) or replace(self, target)
    )
    write_text(tmp_path / "x", "text")
    assert calls == ["fsync", ("rename", str(tmp_path / "x"))]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "x"
    with replace_atomically(path) as one, replace_atomically(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one", "the last to finish wins"
    assert inside(tmp_path) == ["x"]


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    """Return the permissions of new files under a umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_whoever_the_umask_names_may_read_it(tmp_path, umask):
    write_text(tmp_path / "x", "")
    assert mode(tmp_path / "x") == umask
    write_text(tmp_path / "x", "again")
    assert mode(tmp_path / "x") == umask
    assert inside(tmp_path) == ["x"]


def test_a_shared_folder_is_readable_as_the_umask_says(tmp_path, umask):
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    for path in (folder / "x", folder / "b" / "y"):
        path.write_text("")
        path.chmod(0o600)
    (folder / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "mine").write_text("")
    (tmp_path / "mine").chmod(0o600)
    share_folder(folder)
    assert mode(folder / "x") == mode(folder / "b" / "y") == umask
    assert mode(folder) == mode(folder / "b") == umask | (umask & 0o444) >> 2
    assert mode(tmp_path / "mine") == 0o600, "no link is followed"


def test_a_scratch_folder_is_its_owner_s(tmp_path, umask):
    folder = tmp_path / "deep" / "x.partial"
    make_scratch_folder(folder)
    (folder / "held").write_text("")
    folder.chmod(0o777)
    make_scratch_folder(folder)
    assert mode(folder) == 0o700
    assert inside(folder) == ["held"], "earlier work is gone on with"


def test_a_scratch_folder_that_is_a_link_or_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="link"):
        make_scratch_folder(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="another user"):
        make_scratch_folder(tmp_path / "theirs")


@pytest.mark.parametrize("how", ["ab", "r+b"])
def test_no_link_is_followed(tmp_path, monkeypatch, how):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    (tmp_path / "soft").symlink_to(mine)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.link(mine, tmp_path / "hard")
    for name in ("soft", "hard", "nowhere"):
        with pytest.raises(UserError, match="is a link"):
            open_own_file(tmp_path / name, how)
    assert mine.read_text() == "precious"
    assert not (tmp_path / "gone").exists()
    with open_own_file(tmp_path / "new", how) as file:
        file.write(b"x")
    assert mode(tmp_path / "new") == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="another user"):
        open_own_file(tmp_path / "new", how)


def user_error(path):
    with pytest.raises(UserError) as error:
        write_text(path, "text")
    assert error.value.hint
    return str(error.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    assert "ermission denied" in user_error(tmp_path / "x")


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert "Permission denied" in user_error(tmp_path / "x")
    monkeypatch.undo()
    assert not inside(tmp_path)


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in user_error(tmp_path / "file" / "x")
    user_error(tmp_path / "file" / "deeper" / "x")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "x" / "inside").mkdir(parents=True)
    user_error(tmp_path / "x")
    assert inside(tmp_path) == ["x"]


def test_a_name_too_long(tmp_path):
    assert "too long" in user_error(tmp_path / ("x" * 300))
    assert not inside(tmp_path)


def test_a_temporary_folder_goes_and_so_does_what_a_killed_process_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, tempfile; from pathlib import Path; from cowbird.files import hold_temporary_folder\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with hold_temporary_folder('work') as folder:\n"
        "    (folder / 'a').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    with hold_temporary_folder("work") as first, hold_temporary_folder("work") as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
        assert first.stat().st_mode & 0o077 == 0
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_an_interrupt_while_the_temporary_folder_is_made_leaves_nothing(tmp_path, monkeypatch):
    make = tempfile.mkdtemp

    def make_interrupted(**given):
        made = make(**given)
        os.kill(os.getpid(), signal.SIGTERM)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", make_interrupted)
    with pytest.raises(KeyboardInterrupt), treat_signals_as_interrupts():
        write_text(tmp_path / "a.txt", "a")
    assert list(tmp_path.iterdir()) == []
