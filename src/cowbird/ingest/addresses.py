"""Addresses of files and databases as they may be shown: without user names, passwords, keys and signatures."""

import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN_MARK = "…"
"""What stands for a secret in a message."""
MAX_SHOWN_REASON = 200
"""Characters of what a library says that are shown."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/")
_NAMED_SECRET = re.compile(r"(?i)\b(password|passwd|pwd|secret|token|signature|sig|access_key_id)(\s*[=:]\s*)\S+")


def hide_secrets(address: str) -> str:
    """Return an address without what stands before its last `@`, and without what follows a question mark."""
    shown = re.sub(r"^([a-z][a-z0-9+]*:/+).*@", r"\1", address, flags=re.DOTALL)
    return shown.partition("?")[0]


def name_address(address: str) -> str:
    """Return the last part of an address, for messages."""
    return PurePosixPath(hide_secrets(address)).name or "address"


def has_password(address: str) -> bool:
    """Tell whether a user's name and a password stand in an address."""
    return re.match(r"[a-z][a-z0-9+]+:/+[^/@]*:.*@", address, flags=re.DOTALL) is not None


def show_path(path: Path) -> str:
    """Return a path, or an address that became one, for messages and records."""
    return hide_secrets(str(path)) if _ADDRESS.match(str(path)) else str(path)


def show_name(path: Path) -> str:
    """Return the name of a file, or the last part of an address, for messages and records."""
    return name_address(str(path)) if _ADDRESS.match(str(path)) else path.name


def redact_reason(reason: str, address: str) -> str:
    """Return the first line of what a library says about an address, without any secret that the address holds.

    Args:
        reason: What it says.
        address: The address as it was given.
    """
    line = reason.strip().partition("\n")[0].replace(address, hide_secrets(address))
    for secret in sorted(_list_secrets(address), key=len, reverse=True):
        line = line.replace(secret, HIDDEN_MARK)
    line = re.sub(r"(\w+://)[^\s/]*@", r"\1", line)
    return _NAMED_SECRET.sub(rf"\1\2{HIDDEN_MARK}", line)[:MAX_SHOWN_REASON]


def _list_secrets(address: str) -> set[str]:
    """Return what an address holds that nobody else may see."""
    found: set[str] = set()
    before = re.match(r"[a-z][a-z0-9+]*:/+(.*)@", address, flags=re.DOTALL)
    if before is not None:
        found.update(before[1].partition(":")[::2])
    with suppress(ValueError):
        parts = urlsplit(address)
        found.update((parts.password or "", parts.query))
        found.update(value for _, value in parse_qsl(parts.query))
    found.update([unquote(each) for each in found])
    return {each for each in found if len(each) > 2}
