"""The table a person reads at the end of a run: what was planted, what it bought, what it cost.

Everything printed here that came from data or a spec is untrusted text: it goes through `rich.text.Text`, which reads
no markup, with control characters made visible.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.experiments.results import Row

UNSEEN = "–"


def plain(text: str, limit: int = 60) -> Text:
    """Return untrusted text as it may be shown in a terminal: no markup, no control or bidi characters, cut short."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return Text(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def _number(value: float | None, digits: int = 4) -> str:
    return UNSEEN if value is None else f"{value:.{digits}f}"


def _factor(row: Row | None) -> str:
    if row is None or row.value is None:
        return UNSEEN
    sign = "≥ " if row.metric.endswith("_lower_bound") else ""
    digits = 0 if row.value >= 100 else 1
    text = f"{sign}{row.value:.{digits}f} ×"
    if row.low is not None:
        high = "∞" if row.high is None else f"{row.high:.{digits}f}"
        text += f" [{row.low:.{digits}f}, {high}]"
    return text


class Index:
    """Finds rows by what they are."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {self._key(row): row for row in rows}

    @staticmethod
    def _key(row: Row) -> tuple[object, ...]:
        return (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k, row.seed)

    def get(self, like: Row, group: str, *metrics: str, attack: str | None = None) -> Row | None:
        """Return the first of some metrics measured where `like` was, or `None`."""
        for metric in metrics:
            changes = {"group": group, "metric": metric, "attack": attack or like.attack}
            found = self._rows.get(self._key(like.model_copy(update=changes)))
            if found is not None:
                return found
        return None


def summary(rows: Sequence[Row], k: int = 10) -> Group:
    """Return the summary of a run: one line an attack, scenario and group, all seeds together.

    Args:
        rows: Result rows.
        k: Cut-off to show.
    """
    index = Index(rows)
    chosen = [row for row in rows if row.k == k and row.seed is None and row.metric == "exposure_hr"]
    table = Table(
        title=f"Exposure of the planted items, HR@{k}, and the accuracy it costs, NDCG@{k}", title_style="bold"
    )
    for name in ("victim", "attack", "scenario", "users"):
        table.add_column(name, overflow="fold")
    for name in ("clean", "attacked", "lift [95 %]", "NDCG clean", "attacked", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    before: tuple[str, ...] = ()
    for row in chosen:
        clean = index.get(row, row.group, "exposure_hr_clean")
        lift = index.get(row, row.group, "lift_hr", "lift_hr_lower_bound")
        accuracy, unharmed = index.get(row, row.group, "ndcg"), index.get(row, row.group, "ndcg", attack="none")
        change = index.get(row, row.group, "ndcg_change")
        here = (row.victim, row.attack, row.scenario)
        if before and here != before:
            table.add_section()
        table.add_row(
            *(plain(name) if here != before else Text("") for name in here),
            plain(row.group),
            _number(clean.value if clean else None),
            _number(row.value),
            _factor(lift),
            _number(unharmed.value if unharmed else None),
            _number(accuracy.value if accuracy else None),
            UNSEEN if change is None or change.value is None else f"{change.value:+.1%}",
        )
        before = here
    notes = Text(
        "Exposure: share of (user, unseen planted item) pairs in which the item is among the user's first "
        f"{k}. Lift: attacked / clean, bootstrap over users. ≥ marks a lower bound: the clean model never "
        "showed a planted item, so its upper 95 % limit stands in.",
        style="dim",
    )
    return Group(table, notes)
