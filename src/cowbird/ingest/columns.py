"""Columns by name."""

import difflib
from collections.abc import Sequence

from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note

TITLE_COLUMNS = ("title", "name", "product_title", "product_name", "item_title", "item_name", "movie_title")
"""Where titles are looked for, if no column is named, or `title` is and there is none."""
ID_COLUMNS = ("id", "item_id", "sku", "asin", "product_id", "parent_asin", "item", "movie_id")
"""Where ids are looked for, if no column is named."""
USER_COLUMNS = ("user_id", "user", "userid", "uid", "customer_id", "session_id", "visitorid", "reviewerid")
"""Where users are looked for, if no column is named."""
RATING_COLUMNS = ("rating", "score", "stars", "overall")
"""Where ratings are looked for, if no column is named."""
ITEM_COLUMNS = ("item_id", "item", "itemid", "product_id", "asin", "parent_asin", "movie_id", "movieid", "sku")
"""Where items of interactions are looked for, if no column is named."""
TIME_COLUMNS = (
    *("timestamp", "time", "event_time", "datetime", "date", "ts", "created_at", "event_timestamp", "unix_time"),
    *("rating_timestamp", "unixreviewtime", "time_stamp"),
)
"""Where times are looked for, if no column is named."""

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
    nested = [name for name in names if _fold(name.rpartition(".")[2]) == _fold(wanted)]  # such as product.title
    alike = [folded[name] for name in difflib.get_close_matches(wanted.lower(), list(folded), n=3, cutoff=0.6)]
    close = list(dict.fromkeys([*nested, *alike]))[:3]
    have = ", ".join(f"'{name[:60]}'" for name in names[:20])
    meant = f"Did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    setting = f"Set {field} to the column's name." if field else "Check that this is the right file."
    if field in SHARED_FIELDS:
        setting += " The column has the same name in all files; if it has not, rename it in one of them."
    raise UserError(f"{file} should have a column '{wanted}', and its columns are {have}.", meant + setting)


def _fold(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").split())


def match_column(wanted: str, names: Sequence[str]) -> int | None:
    """Return the position of the one column of a name, or else of the one that differs in case or spaces alone."""
    if wanted in names:
        return names.index(wanted) if names.count(wanted) == 1 else None
    close = [nth for nth, name in enumerate(names) if _fold(name) == _fold(wanted)]
    return close[0] if len(close) == 1 else None


def find_usual(usual: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the position of the first of some usual columns that there is; one named exactly goes before others."""
    exact = next((name for name in usual if names.count(name) == 1), None)
    if exact is not None:
        return names.index(exact)
    return next((at for name in usual if (at := match_column(name, names)) is not None), None)


def choose_column(wanted: str, names: Sequence[str], file: str, field: str, usual: Sequence[str] = ()) -> int:
    """Return the position of a column; of one that differs in case or spaces, or has a usual name, it is told.

    Args:
        wanted: Name of the column.
        names: The columns that the file has.
        file: Name of the file, for messages.
        field: The parameter that names the column.
        usual: Names that are looked for if `wanted` is the first of them.

    Raises:
        UserError: If there is none; see `find_column`.
    """
    if wanted in names:
        return find_column(wanted, names, file, field)
    found = match_column(wanted, names)
    if found is None and usual and wanted == usual[0]:
        found = find_usual(usual, names)
    if found is None:
        return find_column(wanted, names, file, field)
    text = f"{file} has no column '{wanted}', so '{names[found]}' is read; '{field}' names another."
    note(NoticeRank.CHOICE, text)
    return found
