"""Values of columns as people write them: missing ones, whole numbers as `7.0`, decimal commas, dates.

What is made of a column of ids is decided by its first rows that hold anything, so all blocks of a file are treated
alike.
"""

from collections.abc import Iterable, Mapping

import polars as pl

from cowbird.errors import UserError
from cowbird.notices import NoticeRank, note

_WHOLE = r"^[+-]?\d+\.0+$"
_NUMBER = r"^[+-]?\d+(\.0+)?$"
_DECIMAL_COMMA = r"^\s*[+-]?\d*,\d+\s*$"
_ZONE = r"([+-]\d\d:?\d\d|Z)$"
DATE_FORMATS = (
    *("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d"),
    *("%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y"),
)
"""Dates that mean one thing alone; others need `time_format`."""
GUESSED_FORMATS = tuple(
    f"{day}{rest}"
    for day in ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y")
    for rest in ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
)
"""Dates that may mean two things: they are proposed and never guessed."""


def blank_missing(values: pl.Series, null: Iterable[str]) -> pl.Series:
    """Return a column in which texts that stand for a missing value are missing."""
    if values.dtype != pl.String:
        return values
    known = pl.Series(sorted(null), dtype=pl.String)
    if not len(known):
        return values
    found = values.is_in(known.implode()).fill_null(False)
    return values.set(found, None) if found.any() else values


class IdColumn:
    """Ids of one column, block by block; whole numbers that are written as `7.0` become `7`.

    Args:
        name: Name of the column, for messages.
        file: Name of its file.
        null: Texts that stand for a missing id.
    """

    def __init__(self, name: str, file: str, null: Iterable[str]) -> None:
        self._name, self._file, self._null = name, file, frozenset(null)
        self._is_whole: bool | None = None

    def clean(self, values: pl.Series) -> pl.Series:
        """Return a block of ids as strings.

        Raises:
            UserError: If the values are lists.
        """
        if isinstance(values.dtype, pl.List | pl.Array):
            raise UserError(
                f"Column '{self._name}' of {self._file} should hold one value a row, and it holds lists.",
                "Write a row for each value, or name another column.",
            )
        if values.dtype.is_float():
            whole = values.cast(pl.Int64, strict=False)
            return pl.select(
                pl.when((whole.cast(pl.Float64) == values).fill_null(False))
                .then(whole.cast(pl.String))
                .otherwise(values.cast(pl.String))
            ).to_series()
        if values.dtype != pl.String:
            return values.cast(pl.String)
        values = blank_missing(values, self._null)
        if self._is_whole is None and values.null_count() < len(values):
            texts = values.head(10_000).str.strip_chars()
            self._is_whole = bool(texts.str.contains(_NUMBER).all()) and bool(texts.str.contains(_WHOLE).any())
            if self._is_whole:
                text = f"Column '{self._name}' of {self._file} holds whole numbers such as '7.0': they are read as '7'."
                note(NoticeRank.CHOICE, text)
        return values.str.strip_chars().str.replace(r"^([+-]?\d+)\.0+$", "$1") if self._is_whole else values


def read_decimal_commas(values: pl.Series, name: str, file: str) -> pl.Series:
    """Return a column in which `4,5` is `4.5`, which is told."""
    if values.dtype != pl.String:
        return values
    found = values.str.contains(_DECIMAL_COMMA).fill_null(False)
    if not found.any():
        return values
    note(NoticeRank.CHOICE, f"Column '{name}' of {file} has decimal commas: '4,5' is read as 4.5.")
    return pl.select(pl.when(found).then(values.str.replace(",", ".", literal=True)).otherwise(values)).to_series()


def parse_times(values: pl.Series, form: str | None = None) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Turn times written as numbers or dates into seconds since 1970 (UTC where they name no zone).

    Args:
        values: The times as strings.
        form: How dates are written, as in `strptime`; `None` takes those of `DATE_FORMATS`.

    Returns:
        The times as float64, null where there is none; which are written and are no numbers; which name a zone.
    """
    texts = values.str.strip_chars()
    numbers = _make_nothing(texts) if form is not None else texts.cast(pl.Float64, strict=False)
    written = numbers.is_null() & texts.is_not_null() & (texts != "")
    if not written.any():
        return numbers, written, written
    if form is not None:
        return _to_seconds(texts, form), written, texts.str.contains(_ZONE).fill_null(False)
    spaced = texts.str.replace(r"^(\S{10})T", "$1 ").str.replace(r"\s*(Z|UTC|GMT)$", "+00:00")
    spaced = spaced.str.replace(r"\s+([+-]\d\d:?\d\d)$", "$1")
    found = numbers
    for each in DATE_FORMATS:
        missing = found.is_null() & written
        if not missing.any():
            break
        found = found.zip_with(~missing, _to_seconds(spaced, each))
    return found, written, spaced.str.contains(_ZONE).fill_null(False)


def _to_seconds(texts: pl.Series, form: str) -> pl.Series:
    try:
        return texts.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us").cast(pl.Float64) / 1e6
    except pl.exceptions.PolarsError:
        return _make_nothing(texts)


def _make_nothing(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [None] * len(values), dtype=pl.Float64)


def read_times(values: pl.Series, file: str, column: str, form: str | None, option: str) -> tuple[pl.Series, pl.Series]:
    """Turn times written as numbers or dates into seconds since 1970; that dates without a zone are UTC is told.

    Args:
        values: The times as strings.
        file: Name of their file.
        column: Name of their column.
        form: See `parse_times`.
        option: The parameter that says so.

    Returns:
        The times as float64; which are written and can't be read.

    Raises:
        UserError: If none of the dates can be read.
    """
    seconds, written, zoned = parse_times(values, form)
    failed = written & seconds.is_null()
    filled = values.is_not_null() & (values.str.strip_chars() != "")
    if failed.any() and failed.sum() == filled.sum():
        raise _make_time_error(values.filter(failed), file, column, form, option)
    count = int((written & ~zoned & ~failed).sum())
    note(NoticeRank.CHOICE, f"{file} holds dates without a time zone: they are taken for UTC.", count)
    return seconds, failed


def _make_time_error(texts: pl.Series, file: str, column: str, form: str | None, option: str) -> UserError:
    shown = str(texts.drop_nulls()[0])[:40]
    message = f"Column '{column}' of {file} should hold times, and none can be read, such as '{shown}'"
    if form is not None:
        return UserError(f"{message}; they are not written as {form}.", f"Change {option}.")
    fitting = propose_formats(texts)
    if not fitting:
        return UserError(f"{message}.", f"Say how they are written: {option} = '%d.%m.%Y %H:%M'.")
    ways = " or ".join(f"{option} = '{way}'" for way in fitting[:3])
    return UserError(f"{message}.", f"Whether the month or the day comes first is not guessed. Set {ways}.")


def note_missing_titles(file: str, counts: Mapping[str, int]) -> None:
    """Say which titles were taken for missing.

    Args:
        file: Name of the file.
        counts: How many titles are one of the texts that stand for a missing value.
    """
    for text, count in sorted(counts.items()):
        say = f"Titles of {file} that are '{text}' are taken for missing: {{n}}; --null names others."
        note(NoticeRank.CHANGE, say, count)


def propose_formats(texts: pl.Series) -> list[str]:
    """Return which of `GUESSED_FORMATS` fit all of some dates."""
    known = texts.drop_nulls().str.strip_chars()
    known = known.filter(known != "").head(10_000)
    return [form for form in GUESSED_FORMATS if len(known) and _to_seconds(known, form).null_count() == 0]
