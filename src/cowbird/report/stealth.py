"""What `cowbird stealth` shows on a terminal of how visible triggers are."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cowbird.report.table import EMPTY_CELL
from cowbird.report.terminal import sanitize_text


def make_stealth_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of `cowbird stealth`, a line a trigger.

    Args:
        rows: What `cowbird.experiments.stealth.stealth_table` returns.
    """

    def format_value(value: float | None, form: str = ".3g") -> str:
        return EMPTY_CELL if value is None else format(value, form)

    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("trigger", overflow="fold", max_width=24)
    for name in ("titles", "perplexity ×", "bits", "edits", "hidden", "similarity"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low, high = (format_value(row[f"perplexity_ratio_{end}"]) for end in ("low", "high"))
        table.add_row(
            sanitize_text(row["trigger"]),
            str(row["titles"]),
            f"{format_value(row['perplexity_ratio'])} [{low}, {high}]",
            format_value(row["added_bits"]),
            format_value(row["edit_distance"]),
            format_value(row["control_share"], ".0%"),
            format_value(row["similarity"]),
        )
    return table
