"""Tables that callers hold (lists, polars, pandas): texts out of them, and results in the same form back.

pandas is not a dependency. A pandas object is known by its module, so nothing here imports pandas before its owner did.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

import polars as pl

from cowbird.errors import UserError
from cowbird.text import replace_surrogates


def is_pandas(table: object) -> bool:
    """Return whether something is a pandas object."""
    return type(table).__module__.partition(".")[0] == "pandas"


def _is_mapping(table: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(table, Mapping)


def _is_sequence(table: object) -> TypeGuard[Sequence[object]]:
    return isinstance(table, Sequence)


def to_polars(table: object, name: str) -> pl.DataFrame:
    """Return a polars or pandas frame, or a mapping of columns, as a polars frame.

    Args:
        table: The frame; left as it is. An index of pandas is left out.
        name: What to call it in errors.

    Raises:
        UserError: If it is something else, or holds what polars can't.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        raise UserError(f"{name} is a lazy frame.", "Pass frame.collect().")
    try:
        if is_pandas(table) and hasattr(table, "columns"):
            return cast("pl.DataFrame", pl.from_pandas(cast("Any", table)))
        if _is_mapping(table):
            return pl.DataFrame(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{name} can't be read as a table: {error}.", "Give each column one type.") from None
    raise UserError(
        f"{name} must be a polars or pandas frame, and is {type(table).__name__}.", "Or pass a dict of columns."
    )


def get_column(frame: pl.DataFrame, column: str, name: str, option: str) -> pl.Series:
    """Return a column of a frame.

    Raises:
        UserError: If there is none of that name; the hint lists the ones there are.
    """
    if column not in frame.columns:
        raise UserError(
            f"{name} has no column {column!r}.", f"Name one with {option}=: {', '.join(map(repr, frame.columns))}."
        )
    return frame[column]


def read_texts(table: object, text_column: str = "title") -> list[str | None]:
    """Return the texts of a list, a polars or pandas series, or one column of a frame, in order.

    Half a surrogate pair, which is no text, becomes U+FFFD, as in files.

    Args:
        table: The texts. `None`, and NaN in pandas, stand for a missing one.
        text_column: The column, where it is a frame.

    Raises:
        UserError: If it is a single string or no table, the column is missing, or a value is no text; says which.
    """
    if isinstance(table, str | bytes):
        raise UserError("Titles must be a list, and this is a single text.", "Pass [title] to judge one title.")
    column: pl.Series | None = None
    if isinstance(table, pl.Series):
        column = table
    elif isinstance(table, pl.DataFrame | pl.LazyFrame) or _is_mapping(table):
        column = get_column(to_polars(table, "The table"), text_column, "The table", "text_column")
    if column is not None:
        dtype = column.dtype
        if not isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null):
            raise UserError(f"The column of titles holds {dtype}, not text.", "Name another with text_column=.")
        return column.cast(pl.String).to_list()
    if is_pandas(table):
        return _check_texts(_list_pandas(cast("Any", table), text_column))
    if hasattr(table, "tolist"):  # a NumPy array
        return _check_texts(cast("Any", table).tolist())
    if _is_sequence(table):
        return _check_texts(list(table))
    raise UserError(
        f"Titles must be a list, a polars or pandas series or frame, and this is {type(table).__name__}.",
        "Pass list(titles).",
    )


def _list_pandas(table: Any, text_column: str) -> list[object]:
    """Return the values of a pandas series or a frame's column, `None` for what pandas takes for missing."""
    if hasattr(table, "columns"):
        if text_column not in table.columns:
            known = ", ".join(repr(name) for name in table.columns)
            raise UserError(f"The table has no column {text_column!r}.", f"Name one with text_column=: {known}.")
        table = table[text_column]
    missing = table.isna().tolist()
    return [None if gone else value for value, gone in zip(table.tolist(), missing, strict=True)]


def _check_texts(values: list[object]) -> list[str | None]:
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise UserError(
                f"Title {row} (counted from 0) is {type(value).__name__}, not text.",
                "Pass strings, and None where a title is missing.",
            )
        texts.append(None if value is None else replace_surrogates(value))
    return texts


def attach_columns(table: object, texts: Sequence[str | None], found: pl.DataFrame, text_column: str) -> Any:
    """Return a table with columns behind its own, in the form it came in.

    Args:
        table: What `read_texts` was given. A list or series becomes a frame with the texts in `text_column`.
        texts: What `read_texts` returned.
        found: The columns to add, one row a text.
        text_column: See `table`.

    Returns:
        A pandas frame, with the index as it was, for pandas; otherwise a polars frame.

    Raises:
        UserError: If the table has a column of such a name already.
    """
    if isinstance(table, pl.DataFrame) or _is_mapping(table):
        frame = to_polars(table, "The table")
    elif is_pandas(table) and hasattr(table, "columns"):
        frame = table
    else:
        frame = pl.DataFrame({text_column: pl.Series(text_column, texts, dtype=pl.String)})
    taken = [name for name in found.columns if name in cast("Any", frame).columns]
    if taken:
        raise UserError(
            f"The table has columns that the result would replace: {', '.join(taken)}.",
            f"Rename them, or pass the column {text_column!r} alone.",
        )
    if not is_pandas(table):
        return cast("pl.DataFrame", frame).hstack(found)
    pandas: Any = sys.modules["pandas"]
    source: Any = table
    whole = source if hasattr(source, "columns") else source.to_frame(name=text_column)
    return whole.assign(
        **{
            name: pandas.array(found[name].to_list(), dtype=_PANDAS_TYPES[type(found.schema[name])])
            for name in found.columns
        }
    )


_PANDAS_TYPES: dict[type[pl.DataType], str] = {
    pl.Boolean: "bool",
    pl.Float32: "float32",
    pl.Int32: "Int32",
    pl.String: "str",
}
"""The pandas type of each type of column: missing numbers stay missing, and flags can filter a frame."""
