"""The tables of `cowbird inspect` and `cowbird zoo` for language models."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from cowbird.inspection.language.inspection import LanguageInspection, RankedFragment
from cowbird.inspection.verdict import format_p_value
from cowbird.report.inspection import format_interval
from cowbird.report.table import EMPTY_CELL
from cowbird.report.terminal import sanitize_text

SHOWN_FRAGMENTS = 10
"""Fragments of the ranking that are shown if there are no suspects."""


def make_fragment_table(inspection: LanguageInspection) -> Table:
    """Return the suspects, or the first fragments of the ranking if there are none, most suspicious first."""
    suspects = inspection.suspects
    title = "Suspects" if suspects else "No suspects; the fragments that raise answers most"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("rank", justify="right")
    for name in ("fragment", "family", "place"):
        table.add_column(name, overflow="fold")
    for name in ("gain", "in deviations", "ASR, held out"):
        table.add_column(name, justify="right")
    for found in suspects or inspection.ranking[:SHOWN_FRAGMENTS]:
        table.add_row(
            str(found.rank), sanitize_text(found.fragment), found.family, found.position, f"{found.gain:.2f}",
            f"{found.statistic:.2f}", _format_rate(found),
        )  # fmt: skip
    return table


def _format_rate(found: RankedFragment) -> str:
    if found.asr is None:
        return EMPTY_CELL
    return f"{found.asr:.3f} [{found.asr_low:.3f}, {found.asr_high:.3f}]"


def format_language_lines(inspection: LanguageInspection) -> list[Text]:
    """Return what stands around the table: the verdict first, then what was tried, assumed and left out."""
    lines = [Text(inspection.write_verdict(), style="bold"), Text(f"Model: {inspection.model}")]
    lines += [Text(f"Tried: {words}") for words in inspection.checked.values()]
    for name, family in inspection.families.items():
        nulls = ", ".join(f"{value:.2f}" for value in sorted(family["null_statistics"]))
        if nulls:
            lines.append(
                Text(
                    f"Largest gain of a {name}: {family['statistic']:.2f} deviations. Null tunings: {nulls}. "
                    f"Suspects have {family['threshold']:.2f} or more."
                )
            )
    if inspection.p_values:
        told = "; ".join(f"{name}: {format_p_value(value)}" for name, value in inspection.p_values.items())
        lines.append(Text(f"The verdict's p is twice the smaller of two. {told[0].upper()}{told[1:]}."))
    far = inspection.weights["largest_deviation"]
    if far is not None:
        lines.append(
            Text(f"Weights alone, for comparison: {far:.1f} deviations from the null tunings. No verdict rests on it.")
        )
    lines += [Text(f"Assumed: {words}") for words in inspection.assumptions]
    lines += [Text(f"Not checked: {words}", style="dim") for words in inspection.not_checked]
    return lines


def make_language_zoo_table(scores: Mapping[str, Any]) -> Table:
    """Return how well each kind of planted model is told from clean ones, worst first.

    Args:
        scores: What `cowbird.inspection.zoo.language_scoring.score_language_zoo` returns.
    """
    table = Table(title="Planted models", title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kind", overflow="fold")
    for name in ("models", "ASR", "AUROC", "AUROC of weights alone", "found at p ≤ 0.05", "trigger found"):
        table.add_column(name, justify="right")
    rows = sorted(scores["planted"].items(), key=lambda entry: entry[1]["auroc"]["value"])
    for kind, row in rows:
        weights = row["auroc_weights"]
        table.add_row(
            sanitize_text(kind),
            str(row["models"]),
            f"{row['asr']:.3f}",
            format_interval(row["auroc"]),
            EMPTY_CELL if weights is None else format_interval(weights),
            f"{row['found_at_0.05']} of {row['models']}",
            format_interval(row["trigger_found"]),
        )
    return table
