"""Columns by name."""

import difflib
from collections.abc import Sequence

from cowbird.errors import UserError

SHARED_FIELDS = ("item_column", "user_column")
"""Fields that name a column of several files."""


def find_column(wanted: str, names: Sequence[str], file: str, field: str = "") -> int:
    """Return the position of a column.

    Args:
        wanted: Name of the column.
        names: The columns that the file has.
        file: Name of the file, for messages.
        field: The parameter that names the column, for the hint.

    Raises:
        UserError: If the column is missing or is there twice; the hint lists names spelled alike.
    """
    count = names.count(wanted)
    if count == 1:
        return names.index(wanted)
    if count > 1:
        raise UserError(
            f"{file} should have one column '{wanted}', and it has {count} of that name.",
            "Rename or remove the others.",
        )
    folded = {name.lower(): name for name in reversed(names)}
    close = [folded[name] for name in difflib.get_close_matches(wanted.lower(), list(folded), n=3, cutoff=0.6)]
    have = ", ".join(f"'{name[:60]}'" for name in names[:20])
    meant = f"Did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    setting = f"Set {field} to the column's name." if field else "Check that this is the right file."
    if field in SHARED_FIELDS:
        setting += " The column has the same name in all files; if it has not, rename it in one of them."
    raise UserError(f"{file} should have a column '{wanted}', and its columns are {have}.", meant + setting)
