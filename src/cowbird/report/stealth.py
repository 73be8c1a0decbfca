"""What `cowbird stealth` shows on a terminal of how visible triggers are."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cowbird.report.table import UNSEEN, plain


def stealth_summary(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of `cowbird stealth`, a line a trigger.

    Args:
        rows: What `cowbird.experiments.stealth.stealth_table` returns.
    """

    def cell(value: float | None, form: str = ".3g") -> str:
        return UNSEEN if value is None else format(value, form)

    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("trigger", overflow="fold", max_width=24)
    for name in ("titles", "perplexity ×", "bits", "edits", "hidden", "similarity"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low, high = (cell(row[f"perplexity_ratio_{end}"]) for end in ("low", "high"))
        table.add_row(
            plain(row["trigger"]),
            str(row["titles"]),
            f"{cell(row['perplexity_ratio'])} [{low}, {high}]",
            cell(row["added_bits"]),
            cell(row["edit_distance"]),
            cell(row["control_share"], ".0%"),
            cell(row["similarity"]),
        )
    return table
