"""What a title scanner makes of a table in memory: the table, with verdicts beside each title."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cowbird.data.tables import attach_columns, read_texts
from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.titles import strip_span


class TitleVerdicts(Protocol):
    """What a scanner makes of some titles; arrays of the shape `[titles]`."""

    @property
    def score(self) -> Float32Array:
        """Grows with suspicion; -inf where there is nothing to judge."""
        ...

    @property
    def start(self) -> Int32Array:
        """First character of the most suspicious span, -1 where there is none."""
        ...

    @property
    def end(self) -> Int32Array:
        """The character after its last one."""
        ...

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Whether the score is above the threshold."""
        ...

    @property
    def review(self) -> NDArray[np.bool_]:
        """Whether it is not, but a person should look."""
        ...


@runtime_checkable
class ExplainedVerdicts(TitleVerdicts, Protocol):
    """Verdicts that say why."""

    @property
    def reason(self) -> Sequence[str]:
        """Why each flagged or reviewed title is suspicious; empty for others."""
        ...

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Where the span can be taken out and leaves honest text whole."""
        ...


def scan_table(judge: Callable[[Sequence[str]], TitleVerdicts], table: object, text_column: str) -> Any:
    """Judge the titles of a table and put the verdicts beside them.

    Args:
        judge: Judges titles, all of the table at once.
        table: A list, a polars or pandas series, or a frame; see `cowbird.data.tables.read_texts`.
        text_column: The column of titles, where it is a frame.

    Returns:
        The rows in their order, none left out: the columns of a frame, or the titles in `text_column`, and

        - `judged`: whether there was a title to judge,
        - `score`: grows with suspicion; null where nothing was judged,
        - `flagged`: whether it is above the threshold,
        - `review`: whether it is not, but a person should look,
        - `start`, `end`: the most suspicious characters, from 0, the end not included; null where there are none,
        - `fragment`: the text between them,
        - `clean_title`: the title, without the fragment if it is flagged; null if nothing would be left or it is not
          known which part to take out,
        - `reason`: why it is flagged or put up for review, from a scanner that says so.

    Raises:
        UserError: If it is a single string or no table, the column is missing, a value is no text, or the table has
            columns of such names.
    """
    texts = read_texts(table, text_column)
    found = judge([text or "" for text in texts])
    rows = [
        _describe_title(text, float(found.score[row]), bool(found.flagged[row]), bool(found.review[row]), span)
        for row, (text, span) in enumerate(
            zip(texts, zip(found.start.tolist(), found.end.tolist(), strict=True), strict=True)
        )
    ]
    verdicts = pl.DataFrame(rows, schema=VERDICT_COLUMNS, orient="row")
    if isinstance(found, ExplainedVerdicts):
        unsure = pl.Series(found.flagged & ~np.asarray(found.sure))
        verdicts = verdicts.with_columns(
            pl.when(unsure).then(None).otherwise(pl.col("clean_title")).alias("clean_title"),
            pl.Series("reason", list(found.reason), dtype=pl.String),
        )
    return attach_columns(table, texts, verdicts, text_column)


VERDICT_COLUMNS = {
    "judged": pl.Boolean,
    "score": pl.Float32,
    "flagged": pl.Boolean,
    "review": pl.Boolean,
    "start": pl.Int32,
    "end": pl.Int32,
    "fragment": pl.String,
    "clean_title": pl.String,
}
"""The columns that a scan adds to a table, with their types."""


def _describe_title(
    text: str | None, score: float, flagged: bool, review: bool, span: tuple[int, int]
) -> tuple[Any, ...]:
    start, end = span
    judged, marked = text is not None and np.isfinite(score), start >= 0
    if text is None or not judged:
        return False, None, False, False, None, None, None, text
    clean = text
    if flagged:
        clean = strip_span(text, start, end) if marked else ""
    place = (start, end, text[start:end]) if marked else (None, None, None)
    return True, score, flagged, review, *place, clean or None
