"""The table of `cowbird survive`."""

from rich.table import Table

from cowbird.inspection.survival import Survival, SurvivalRow
from cowbird.metrics.intervals import Interval


def make_survival_table(survival: Survival) -> Table:
    """Return exposure and accuracy before and after tuning, most exposure first."""
    title = f"{len(survival.suspects)} suspects shown to {survival.users:,} users"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("learning rate", "epochs", "exposure (95 %)", "of before", "NDCG@10 (95 %)"):
        table.add_column(column, justify="right")
    for row in (survival.before, *survival.after):
        table.add_row(*_format_row(row))
    return table


def _format_row(row: SurvivalRow) -> list[str]:
    if row.learning_rate is None:
        return ["as it came", "", _format_interval(row.exposure), "", _format_interval(row.ndcg)]
    kept = "–" if row.kept is None else f"{row.kept:.0%}"
    return [f"{row.learning_rate:g}", str(row.epochs), _format_interval(row.exposure), kept, _format_interval(row.ndcg)]


def _format_interval(interval: Interval) -> str:
    if interval.value is None:
        return "not measured"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.4f}"
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
