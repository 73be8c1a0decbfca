"""The tables of `cowbird inspect` and `cowbird zoo`."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from cowbird.inspection.verdict import Inspection, format_p_value
from cowbird.report.table import EMPTY_CELL
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
        counts = (
            f"{item.shown[name]:,} / {item.expected[name]:,.1f}\n"
            f"rank {item.stands[name]:,.0f} / {item.stands_expected[name]:,.0f}"
            for name in inspection.checked
        )
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
    for name in (name for name in inspection.alone if name not in inspection.checked):
        found = inspection.alone[name]
        known = ", ".join(f"{statistic:.1f}" for statistic in sorted(found["null_statistics"]))
        lines.append(
            Text(
                f"Beside the verdict, {found['what']}: item {found['item']} scores most, {found['statistic']:.1f}, "
                f"{format_p_value(found['p_value'])}. Null models: {known}."
            )
        )
    lines += [Text(f"Assumed: {words}") for words in inspection.assumptions]
    lines += [Text(f"Not checked: {words}", style="dim") for words in inspection.not_checked]
    return lines


def make_zoo_table(scores: Mapping[str, Any]) -> Table:
    """Return how well each kind of planted model is told from clean ones, worst first.

    Args:
        scores: What `cowbird.inspection.zoo.scoring.score_zoo` returns.
    """
    table = Table(title="Planted models", title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kind", overflow="fold")
    table.add_column("attack", overflow="fold")
    for name in ("models", "AUROC", "found at p ≤ 0.01", "targets found"):
        table.add_column(name, justify="right")
    rows = [(kind, name, row) for kind, group in scores["planted"].items() for name, row in group.items()]
    for kind, name, row in sorted(rows, key=lambda entry: entry[2]["auroc"]["value"]):
        table.add_row(
            sanitize_text(kind),
            name,
            str(row["models"]),
            format_interval(row["auroc"]),
            f"{row['found_at_0.01']} of {row['models']}",
            f"{row['targets_found']:.2f}",
        )
    return table


def make_accusation_table(scores: Mapping[str, Any]) -> Table:
    """Return how many clean models are accused at each printed p-value."""
    table = Table(title="Clean models accused", title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("printed p", "accused", "share"):
        table.add_column(name, justify="right")
    for row in scores["accused"]:
        table.add_row(
            f"{row['p']:g}", f"{row['accused']} of {scores['clean']['models']}", format_interval(row["share"])
        )
    return table


def format_interval(record: Mapping[str, float | None]) -> str:
    """Return a value with its interval, if it has one."""
    value, low, high = (record[name] for name in ("value", "low", "high"))
    if value is None:
        return EMPTY_CELL
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
