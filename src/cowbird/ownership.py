"""Folders and files whose names can be guessed: they are used only if they are this user's, and no links.

Somebody else may have put them there, in a folder that is shared.
"""

import errno
import os
import stat
from pathlib import Path
from typing import IO, Literal

from cowbird.errors import UserError


def is_owned(found: os.stat_result) -> bool:
    """Tell whether a file or folder is this user's."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def make_scratch_folder(folder: Path, named: bool = False) -> None:
    """Make a folder in which work can be resumed, for its owner alone; or take the one that earlier work left.

    Its name can be guessed, so somebody may have put another folder there, full of links to files of ours.

    Args:
        folder: The folder.
        named: Whether a user named it; one that stands there then keeps its permissions.

    Raises:
        UserError: If what is there is a link, or belongs to somebody else.
    """
    kept = named and folder.is_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not is_owned(found):
        what = "files are" if named else "unfinished work is"
        raise UserError(
            f"'{folder}' is where {what} kept, and it is a link or belongs to another user.",
            "Remove it, or choose a folder that others can't write to.",
        )
    if not kept:
        folder.chmod(0o700)


def open_own_file(path: Path, mode: Literal["ab", "r+b"]) -> IO[bytes]:
    """Open a file of a scratch folder for writing, or make it; no link is followed.

    Raises:
        UserError: If it is a link, has another name too, or belongs to somebody else.
    """
    refused = UserError(f"'{path}' is a link, or belongs to another user.", "Remove it, or choose another file.")
    flags = os.O_APPEND | os.O_WRONLY if mode == "ab" else os.O_RDWR
    try:
        more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe without a reader would wait
        handle = os.open(path, flags | os.O_CREAT | more, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not is_owned(found):
        os.close(handle)
        raise refused
    return os.fdopen(handle, mode)
