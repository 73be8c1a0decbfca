"""Files are whole or not there."""

import os
import stat
import tempfile

import pytest

from cowbird.errors import UserError
from cowbird.files import replace_atomically, write_text


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
        assert partial.parent == tmp_path
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


def test_others_may_read_it(tmp_path):
    write_text(tmp_path / "x", "")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


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

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
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
