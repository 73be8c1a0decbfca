"""Passing faults are told from what was asked in vain, however a library raises them."""

import errno
import os
from pathlib import Path

import pytest
import safetensors
import torch

from cowbird.errors import OutageError, UserError
from cowbird.faults import explain_outage, explain_outages, explain_write_errors, raise_outage


def chained(error, cause):
    try:
        raise error from cause
    except type(error) as caught:
        return caught


PASSING = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EROFS, "Read-only file system"),
    PermissionError(errno.EACCES, "Permission denied"),
    ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
    RuntimeError("CUDA error: an illegal memory access was encountered\nmore"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    Exception("No space left on device (os error 28)"),  # what a tokenizer raises
    OSError("We couldn't connect to 'https://hub' to load the files"),
    OutageError("The server can't be reached.", "Is it up?"),
    chained(ValueError("no model"), ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
]
LASTING = [
    UserError("The attack does not fit.", "Choose another."),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    ValueError("out of memory"),
    RuntimeError("shapes do not match"),
    safetensors.SafetensorError("Error while deserializing header: header too small"),
    Exception("template"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes(error):
    reason = explain_outage(error)
    assert reason
    assert "\n" not in reason
    with pytest.raises(OutageError, match="It can't be done"), explain_outages("It can't be done", "Go on."):
        raise error if not isinstance(error, OutageError) else OutageError("It can't be done.", "Is it up?")
    with pytest.raises(OutageError):
        raise_outage(error, "It can't be done")


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_does_not_pass(error):
    assert explain_outage(error) is None
    raise_outage(error, "It can't be done")
    if not isinstance(error, OSError):
        with pytest.raises(type(error)) as caught, explain_outages("It can't be done"):
            raise error
        assert caught.value is error


def test_all_that_keeps_a_file_from_being_written_passes(tmp_path):
    with (
        pytest.raises(OutageError, match=r"x' can't be written: No such file") as caught,
        explain_write_errors(tmp_path / "x", "All is kept."),
    ):
        (tmp_path / "gone" / "x").write_text("")
    assert caught.value.hint.endswith("All is kept.")


def test_a_hint_says_what_to_mend_and_then_what_is_kept():
    with pytest.raises(OutageError) as caught, explain_write_errors(Path("x"), "All is kept."):
        raise OutageError("The server can't be reached.", "Is it up?")
    assert str(caught.value) == "The server can't be reached. Is it up? All is kept."


def test_a_full_disk_in_a_real_library():
    """The device is full for whoever writes into it; nothing is renamed over it."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no device that is full")
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OutageError, match="No space left on device"),
        explain_write_errors(Path("x")),
    ):
        os.write(file.fileno(), b"x")
