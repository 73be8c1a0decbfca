"""Processes that need the same null models at the same time make each of them once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cowbird.locks import lock_folder, try_lock_folder

SECONDS_FOR_SHARED_WORK = 86_400.0
"""How long a process waits for another that makes something which both need."""
MadeT = TypeVar("MadeT")


def share_work(folder: Path, keys: Sequence[str], make: Callable[[int], MadeT]) -> list[MadeT]:
    """Make what no other process makes at the moment, then wait for what others make.

    Args:
        folder: Where it is kept; locks lie in a folder of it.
        keys: The key of each.
        make: Makes one by its number, and keeps it; or returns what was kept.
    """
    found: dict[int, MadeT] = {}
    for number, key in enumerate(keys):
        with try_lock_folder(_make_lock_folder(folder, key), _ignore) as mine:
            if mine:
                found[number] = make(number)
    for number, key in enumerate(keys):
        if number not in found:
            place = _make_lock_folder(folder, key)
            with lock_folder(place, "inspection", "Wait for it.", _ignore, patience=SECONDS_FOR_SHARED_WORK):
                found[number] = make(number)
    return [found[number] for number in range(len(keys))]


def _make_lock_folder(folder: Path, key: str) -> Path:
    place = folder / "locks" / key
    place.mkdir(parents=True, exist_ok=True)
    return place


def _ignore(warning: str) -> None:
    """Do nothing: two processes that make the same thing make it alike, so a missing lock costs time alone."""
