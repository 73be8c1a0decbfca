"""The table a person reads at the end of a run: what was planted, what it bought, what it cost.

Everything printed here that came from data or a spec is untrusted text: it goes through `sanitize_text`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.experiments.cell import PlantedSummary
from cowbird.experiments.detection import NO_SCENARIO
from cowbird.experiments.results import NO_K, Row
from cowbird.report.terminal import sanitize_text

EMPTY_CELL = "–"
MAX_SHOWN_TARGETS = 5


def _format_number(value: float | None, digits: int = 4) -> str:
    return EMPTY_CELL if value is None else f"{value:.{digits}f}"


def _format_lift(row: Row | None) -> str:
    if row is None or row.value is None:
        return EMPTY_CELL
    sign = "≥" if row.metric.endswith("_lower_bound") else ""
    digits = 0 if row.value >= 100 else 1
    text = f"{sign}{row.value:.{digits}f}×"
    if row.low is not None:
        high = "∞" if row.high is None else f"{row.high:.{digits}f}"
        text += f" [{row.low:.{digits}f}, {high}]"
    return text


class RowIndex:
    """Finds rows by what they are."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {self._make_key(row): row for row in rows}

    @staticmethod
    def _make_key(row: Row) -> tuple[object, ...]:
        return (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k, row.seed)

    def get(self, like: Row, group: str, *metrics: str, attack: str | None = None) -> Row | None:
        """Return the first of some metrics measured where `like` was, or `None`."""
        for metric in metrics:
            changes = {"group": group, "metric": metric, "attack": attack or like.attack}
            found = self._rows.get(self._make_key(like.model_copy(update=changes)))
            if found is not None:
                return found
        return None


def make_planting_table(planted: Mapping[str, PlantedSummary]) -> Table:
    """Return what was planted, a line an attack: how many labels, and which items.

    Args:
        planted: What each attack planted in one cell.
    """
    table = Table(title="planted", title_justify="left", title_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("attack", overflow="fold", max_width=24)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("of all", justify="right", no_wrap=True)
    table.add_column("target items", overflow="fold")
    for attack, plan in planted.items():
        shown = [title or item for title, item in zip(plan.target_titles, plan.targets, strict=True)]
        names = Text(", ").join(sanitize_text(name, 40) for name in shown[:MAX_SHOWN_TARGETS])
        if len(shown) > MAX_SHOWN_TARGETS:
            names.append(f" and {len(shown) - MAX_SHOWN_TARGETS} more")
        table.add_row(sanitize_text(attack), f"{plan.rows:,}", f"{plan.share_of_labels:.1%}", names)
    return table


def _format_exposure(before: Row | None, after: Row) -> str:
    return f"{_format_number(before.value if before else None)} → {_format_number(after.value)}"


def _format_cost(after: Row | None, change: Row | None) -> str:
    if after is None:
        return EMPTY_CELL
    return _format_number(after.value, 3) + ("" if change is None or change.value is None else f" {change.value:+.1%}")


def summarize_run(rows: Sequence[Row], k: int = 10) -> Group:
    """Return the summary of a run: one line an attack, scenario and group, all seeds together.

    Args:
        rows: Result rows.
        k: Cut-off to show.
    """
    tables = list[Table | Text]()
    for name, (measures, note) in ANSWER_MEASURES.items():
        victims = {row.victim for row in rows if row.metric == name}
        if victims:
            tables += [
                _make_answer_table([row for row in rows if row.victim in victims], measures),
                Text(note, style="dim"),
            ]
    if tables and not any(row.metric == "exposure_hr" for row in rows):
        return Group(*tables, *make_defense_tables(rows, k))
    index = RowIndex(rows)
    chosen = [row for row in rows if row.k == k and row.seed is None and row.metric == "exposure_hr"]
    shown = [row for row in chosen if row.group != "target" or index.get(row, "other", "exposure_hr")]
    several = len({row.defense for row in shown}) > 1
    for victim, defense in dict.fromkeys((row.victim, row.defense) for row in shown):
        rows_here = [row for row in shown if (row.victim, row.defense) == (victim, defense)]
        tables.append(_make_exposure_table(rows_here, index, f"{victim}, defense {defense}" if several else victim, k))
    notes = (
        f"Exposure: share of (user, unseen planted item) pairs in which the item is among the user's first {k}, clean "
        "→ attacked model. Lift: attacked / clean with a 95 % bootstrap interval over users; ≥ marks a lower bound: "
        "the clean model never showed a planted item, so its upper 95 % limit stands in. "
        f"NDCG@{k}: of the attacked model on the users' held-out items, and its change against the clean model."
    )
    return Group(*tables, Text(notes, style="dim"), *make_defense_tables(rows, k))


_INTERVAL_NOTE = (
    " with a 95 % interval; means over seeds have an interval over seeds. near-…: titles with something like the "
    "trigger, for the first defense alone; unseen: items that training never met."
)
ANSWER_MEASURES = {
    "auc": (
        (("AUC", "auc"),),
        "AUC: of yes and no about the questions that test, clean → attacked model. ASR: share of the questions "
        "answered no that are answered yes once the title asked about carries the trigger, clean → attacked model,"
        + _INTERVAL_NOTE,
    ),
    "hit_ratio": (
        (("HitRatio@1", "hit_ratio"), ("valid", "valid_ratio")),
        "HitRatio@1: share of all questions answered with the right title; valid: with some candidate's title. ASR: "
        "share answered with the candidate that carries the trigger, which is never the right one, clean → attacked "
        "model," + _INTERVAL_NOTE + " none: how often the same candidate is picked without a trigger.",
    ),
}
"""What tables of victims that answer questions show beside ASR, and what is said below them, by a metric they have."""


def _make_answer_table(rows: Sequence[Row], measures: Sequence[tuple[str, str]]) -> Table:
    """Return a line an attack, defense and scenario, and one a kind of trigger below it; over seeds if several.

    Of several defenses the first alone has lines of texts near the trigger: `results.jsonl` has the others'.

    Args:
        rows: The rows of victims of one kind.
        measures: Titles and metrics of what is measured without a trigger.
    """
    several = any(row.metric == f"{measures[0][1]}_over_seeds" for row in rows)
    suffix = "_over_seeds" if several else ""
    known = {
        (r.victim, r.attack, r.defense, r.scenario, r.group, r.metric): r for r in rows if (r.seed is None) == several
    }
    picked = {f"asr{suffix}": f"asr_clean{suffix}", f"picked_plain{suffix}": f"picked_plain_clean{suffix}"}
    lines = [(place, row) for place, row in known.items() if row.metric in picked]
    lines = [(place[:4], row) for place, row in lines if row.group != "unseen" or row.metric == f"asr{suffix}"]
    first = lines[0][1].defense if lines else ""
    lines = [(here, row) for here, row in lines if row.defense == first or not row.group.startswith("near-")]
    # What is the same in every line is left out, for terminals are narrow.
    names = ("victim", "attack", "defense", "scenario")
    shown = [nth for nth in range(len(names)) if len({here[nth] for here, _ in lines}) > 1]
    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(", ".join([*(names[nth] for nth in shown), "trigger"]), overflow="fold", min_width=16)
    for name in (*(title for title, _ in measures), "ASR"):
        table.add_column(name, justify="right", no_wrap=True)
    before: tuple[str, ...] = ()
    for here, row in lines:
        clean = known.get((*here, row.group, picked[row.metric]))
        rates = f"{_format_number(clean.value if clean else None, 3)} → {_format_number(row.value, 3)}"
        interval = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
        both = [""] * len(measures)
        if here != before:
            both = [_format_change(known, here, f"{name}_clean{suffix}", f"{name}{suffix}") for _, name in measures]
        if here != before and shown:
            table.add_row(Text(", ").join([sanitize_text(here[nth]) for nth in shown]), *both, "")
            both = [""] * len(measures)
        table.add_row(Text("  " * bool(shown)) + sanitize_text(row.group), *both, rates + interval)
        before = here
    return table


class _DefenseMeasures(NamedTuple):
    """What shows whether a defense helps victims of one kind."""

    attack: str
    """Title of what the attack is measured by."""
    metrics: tuple[tuple[str, str], ...]
    """That measure: groups and metrics, of which the first that a victim has is shown."""
    accuracy: tuple[str, str]
    """Title and metric of what defenses may cost."""
    k: int
    """Cut-off of both."""


def make_defense_tables(rows: Sequence[Row], k: int = 10) -> list[Table | Text]:
    """Return a line a defense: what is left of the attack, the accuracy, what was flagged rightly, what was lost.

    Args:
        rows: Result rows.
        k: Cut-off to show of victims that rank.

    Returns:
        A table for each kind of victim and what is to be known about them; nothing if there is one defense that reads
        no titles, or none.
    """
    if len({row.defense for row in rows}) < 2 and not any(row.metric == "recall" for row in rows):
        return []
    exposed = tuple((group, "exposure_hr") for group in ("target", "all"))
    kinds = (
        _DefenseMeasures("ASR", (("trigger", "asr"),), ("AUC", "auc"), NO_K),
        _DefenseMeasures("ASR", (("trigger", "asr"),), ("HitRatio@1", "hit_ratio"), NO_K),
        _DefenseMeasures(f"exposure HR@{k}", exposed, (f"NDCG@{k}", "ndcg"), k),
    )
    known = _select_overall(rows)
    tables = [table for kind in kinds if (table := _make_defense_table(known, kind))]
    note = (
        "A line a defense. ASR, exposure and accuracy: of the attacked model that the defense cleaned, repaired or "
        "guards, with a 95 % interval. Recall: share of the poisoned titles that were flagged, and AUROC of its scores "
        "(– where it reads no titles, or none is poisoned). Lost: clean items whose interactions left the training "
        "data."
    )
    return [*tables, Text(note, style="dim")] if tables else []


PlaceLabels = tuple[str, str, str, str]
"""Labels of victim, attack, defense and scenario."""


def _select_overall(rows: Iterable[Row]) -> dict[tuple[PlaceLabels, str, str, int], Row]:
    """Return one row a measurement: the mean over seeds, or else of all seeds pooled, or else the only seed's."""
    best: dict[tuple[PlaceLabels, str, str, int], tuple[int, Row]] = {}
    for row in rows:
        metric = row.metric.removesuffix("_over_seeds")
        rank = 2 if metric != row.metric else 1 if row.seed is None else 0
        key = ((row.victim, row.attack, row.defense, row.scenario), row.group, metric, row.k)
        if key not in best or rank > best[key][0]:
            best[key] = rank, row
    return {key: row for key, (_, row) in best.items()}


def _make_defense_table(known: Mapping[tuple[PlaceLabels, str, str, int], Row], kind: _DefenseMeasures) -> Table | None:
    title, metric = kind.accuracy
    measured = {
        place: next((row for name in kind.metrics if (row := known.get((place, *name, kind.k)))), None)
        for place, group, found, k in known
        if (group, found, k) == ("all", metric, kind.k) and place[1] != "none"
    }
    lines = {place: row for place, row in measured.items() if row is not None}
    if not lines:
        return None
    # Defenses of one attack stand together; what is the same in every line is left out, for terminals are narrow.
    order = {place: nth for nth, place in enumerate(dict.fromkeys((v, a, s) for v, a, _, s in lines))}
    names = ("victim", "attack", "scenario", "defense")
    places = [(victim, attack, scenario, defense) for victim, attack, defense, scenario in lines]
    shown = [nth for nth, name in enumerate(names) if name == "defense" or len({place[nth] for place in places}) > 1]
    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    for nth in shown:
        table.add_column(names[nth], overflow="fold", max_width=20)
    for name in (kind.attack, title, "recall", "AUROC", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    before: tuple[str, ...] = ()
    for victim, attack, scenario, defense in sorted(places, key=lambda place: order[place[:3]]):
        row, here = lines[victim, attack, defense, scenario], (victim, attack, scenario)
        interval = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
        cost = known[(victim, attack, defense, scenario), "all", metric, kind.k]
        flags = ((victim, attack, defense, NO_SCENARIO), "all")
        recall, area, lost = (
            known.get((*flags, name, NO_K)) for name in ("recall", "detection_auroc", "lost_clean_items")
        )
        labels = [*(here if here != before else ("", "", "")), defense]
        table.add_row(
            *(sanitize_text(labels[nth]) for nth in shown),
            _format_number(row.value, 3) + interval,
            _format_number(cost.value, 3),
            *(_format_number(found.value if found else None, 3) for found in (recall, area)),
            EMPTY_CELL if lost is None or lost.value is None else f"{lost.value:,.1f}".removesuffix(".0"),
        )
        before = here
    return table


def _format_change(known: Mapping[tuple[str, ...], Row], here: tuple[str, ...], *metrics: str) -> str:
    found = [known.get((*here, "all", metric)) for metric in metrics]
    return " → ".join(_format_number(row.value if row else None, 3) for row in found)


def _make_exposure_table(rows: Sequence[Row], index: RowIndex, title: str, k: int) -> Table:
    table = Table(
        title=sanitize_text(title, 140), title_justify="left", title_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in ("attack", "scenario", "users"):
        table.add_column(name, overflow="fold", max_width=24)
    for name in (f"exposure HR@{k}", "lift", f"NDCG@{k}"):
        table.add_column(name, justify="right", no_wrap=True)
    before: tuple[str, ...] = ("", "")
    for row in rows:
        here = (row.attack, row.scenario)
        if before[0] not in ("", row.attack):
            table.add_section()
        fresh = here != before
        table.add_row(
            sanitize_text(row.attack) if row.attack != before[0] else Text(""),
            sanitize_text(row.scenario) if fresh else Text(""),
            sanitize_text(row.group),
            _format_exposure(index.get(row, row.group, "exposure_hr_clean"), row),
            _format_lift(index.get(row, row.group, "lift_hr", "lift_hr_lower_bound")),
            _format_cost(index.get(row, row.group, "ndcg"), index.get(row, row.group, "ndcg_change")),
        )
        before = here
    return table
