"""The tables of `cowbird inspect`."""

from rich.table import Table
from rich.text import Text

from cowbird.inspection.inspection import Inspection
from cowbird.report.terminal import sanitize_text

SHOWN_ITEMS = 10
"""Items of the ranking that are shown if there are no suspects."""


def make_item_table(inspection: Inspection) -> Table:
    """Return the suspects, or the first items of the ranking if there are none, most suspicious first."""
    suspects = inspection.suspects
    title = "Suspects" if suspects else "No suspects; the items that stand out most"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("rank", "id", "title"):
        table.add_column(column, justify="right" if column == "rank" else "left", overflow="fold")
    table.add_column("score", justify="right")
    for name in inspection.checked:
        table.add_column(f"{name}: shown / expected", justify="right")
    for item in suspects or inspection.ranking[:SHOWN_ITEMS]:
        counts = (f"{item.shown[name]:,} / {item.expected[name]:,.1f}" for name in inspection.checked)
        table.add_row(str(item.rank), sanitize_text(item.id), sanitize_text(item.title), f"{item.score:.1f}", *counts)
    return table


def format_lines(inspection: Inspection) -> list[Text]:
    """Return what stands around the table: the verdict first, then what was asked, assumed and left out."""
    lines = [
        Text(inspection.write_verdict(), style="bold"),
        Text(f"Model: {inspection.model}, {inspection.items:,} items"),
    ]
    lines += [Text(f"Asked: {words}") for words in inspection.checked.values()]
    if inspection.null_statistics:
        known = ", ".join(f"{statistic:.1f}" for statistic in sorted(inspection.null_statistics))
        lines.append(
            Text(
                f"Largest score of an item: {inspection.statistic:.1f}. Null models: {known}. "
                f"Suspects score {inspection.threshold:.1f} or more."
            )
        )
    lines += [Text(f"Assumed: {words}") for words in inspection.assumptions]
    lines += [Text(f"Not checked: {words}", style="dim") for words in inspection.not_checked]
    return lines
