"""Hints for paths that are not there: what is spelled alike."""

import difflib
from collections.abc import Sequence
from pathlib import Path


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if it can't be listed."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def suggest_names(name: str, listing: Sequence[str]) -> str:
    """Write a hint for what is missing: names spelled alike, or what there is."""
    close = difflib.get_close_matches(name, listing, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if listing:
        return f"Found there: {', '.join(listing[:10])}{', …' if len(listing) > 10 else ''}."
    return "Check the path."


def suggest_close_paths(path: Path, ending: str = "") -> str:
    """Write a hint for a path that is not there: what is spelled alike in its folder, or that there is no such folder.

    Args:
        path: The path.
        ending: How the names end that are looked at.

    Returns:
        A sentence; empty if nothing is spelled alike.
    """
    if not path.parent.is_dir():
        return f"There is no folder '{path.parent}'."
    names = [name for name in list_names(path.parent) if name.endswith(ending) and name != path.name]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(str(path.with_name(name)) for name in close)}?" if close else ""
