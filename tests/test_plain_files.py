"""What is no file, such as a pipe without a writer, is refused in words wherever a path is read, not waited for."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cowbird import storage
from cowbird.errors import UserError
from cowbird.experiments.spec import load_spec
from cowbird.experiments.spec_labels import find_shipped_spec
from cowbird.files import hash_file, open_plain_file, read_plain_file, read_plain_text, replace_atomically

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")

WORDS = "It is a pipe or a device, and a file was expected"


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request, tmp_path):
    path = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        held = socket.socket(socket.AF_UNIX)
        held.bind(str(path))
        request.addfinalizer(held.close)
    return path


def call_soon(function, *given):
    """Call what may block for good; a test that waits is red after seconds."""
    found = []

    def act():
        try:
            found.append(function(*given))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(20)
    assert found, "it waits for good"
    return found[0]


@pytest.mark.parametrize("read", [read_plain_file, read_plain_text, hash_file, open_plain_file])
def test_what_is_no_file_is_refused(special, read):
    error = call_soon(read, special)
    assert isinstance(error, OSError)
    assert WORDS in str(error) or "No such device" in str(error)  # a socket can't even be opened


@pytest.mark.parametrize(
    "read", [load_spec, storage.read_sealed_json, storage.read_tensors], ids=lambda read: read.__name__
)
def test_it_is_told_in_words(special, read):
    error = call_soon(read, special)
    assert isinstance(error, UserError)
    assert WORDS in error.message or "No such device" in error.message
    assert error.hint or read is storage.read_tensors


def test_a_file_is_read_whole_and_up_to_a_size(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_plain_file(path, 5) == b"12345"
    assert read_plain_file(path, None) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_plain_file(path, 4)
    with pytest.raises(IsADirectoryError):
        read_plain_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_plain_file(tmp_path / "b")


def test_a_large_spec_is_not_read(tmp_path):
    path = tmp_path / "spec.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="more than 16,777,216 bytes"):
        load_spec(path)


def test_what_is_no_file_is_not_replaced(special):
    with pytest.raises(UserError, match="pipe or a device"), replace_atomically(special):
        pytest.fail("it would be written")
    assert not special.is_file()
    assert os.path.lexists(special)


def test_what_the_shell_opened_is_read(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"abc")
    os.close(writer)
    path = Path(f"/dev/fd/{reader}")
    if not path.exists():
        pytest.skip("needs /dev/fd")
    try:
        with pytest.raises(OSError, match=WORDS):
            read_plain_file(path)
        assert read_plain_file(path, shell=True) == b"abc"
    finally:
        os.close(reader)
    other = tmp_path / "fd"
    os.mkfifo(other)
    assert WORDS in str(call_soon(read_plain_file, other, None, True)), "another pipe is none of the shell's"


@pytest.mark.slow
def test_a_spec_from_the_shell_is_validated():
    text = find_shipped_spec("demo").read_text(encoding="utf-8")
    words = [sys.executable, "-m", "cowbird", "validate", "/dev/stdin", "--json"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
