"""The table a person reads at the end of a run: what was planted, what it bought, what it cost.

Everything printed here that came from data or a spec is untrusted text: it goes through `sanitize_text`.
"""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.experiments.cell_files import PlantedSummary
from cowbird.experiments.measures import CLEAN, LOWER_BOUND, OVER_SEEDS, Measure, TaskSummary, find_measure
from cowbird.experiments.results import NO_K, Row
from cowbird.experiments.shipped_measures import DETECTION_AUROC, LOST_CLEAN_ITEMS, NO_ATTACK, NO_SCENARIO, RECALL
from cowbird.report.rates import format_counts, format_rates, judge_rates
from cowbird.report.selection import PlaceLabels, assign_victims, select_overall
from cowbird.report.terminal import sanitize_text

EMPTY_CELL = "–"
MAX_SHOWN_TARGETS = 5
JUDGED_GROUPS = ("trigger", "unseen")
"""Kinds of triggers whose rates are to show something: the attack's own. Those near it are rather to show nothing."""


def _format_row(row: Row | None, unit: Measure) -> str:
    """Return a value as its measure says, or as another measure of the same unit does if it is unknown."""
    if row is None or row.value is None:
        return EMPTY_CELL
    return (find_measure(row.metric) or unit).format_value(row.value)


def _format_interval(row: Row) -> str:
    """Return the interval behind a value; empty if there is none."""
    return "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"


def _format_lift(row: Row | None, measure: Measure, exposure: Row) -> str:
    """Return a lift; where there is none, for the clean model showed no planted item, the interval of the exposure."""
    if row is not None and row.metric == measure[LOWER_BOUND].name:
        if exposure.low is None or exposure.high is None:
            return EMPTY_CELL
        return f"exposure [{exposure.low:.2g}, {exposure.high:.2g}]"
    text = _format_row(row, measure)
    if row is None or row.value is None or row.low is None:
        return text
    digits = 0 if row.value >= 100 else 1
    high = "∞" if row.high is None else f"{row.high:.{digits}f}"
    return f"{text} [{row.low:.{digits}f}, {high}]"


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


def _format_change(before: Row | None, after: Row | None, measure: Measure) -> str:
    return f"{_format_row(before, measure)} → {_format_row(after, measure)}"


def _format_cost(after: Row | None, change: Row | None, measure: Measure) -> str:
    if after is None:
        return EMPTY_CELL
    changed = "" if change is None or change.value is None else f" {_format_row(change, measure)}"
    return _format_row(after, measure) + changed


def _title(measure: Measure, k: int) -> str:
    """Return what a column is called: the measure's title, with its cut-off if it has one."""
    return measure.title if k == NO_K else f"{measure.title}@{k}"


def summarize_run(rows: Sequence[Row], k: int = 10) -> Group:
    """Return the summary of a run: one line an attack, scenario and group, all seeds together.

    Args:
        rows: Result rows.
        k: Cut-off to show.
    """
    tables = list[Table | Text]()
    for summary, victims in assign_victims(rows):
        here = [row for row in rows if row.victim in victims]
        tables += _make_exposure_tables(here, summary, k) if summary.lift else _make_answer_table(here, summary)
        tables.append(Text(summary.note.format(k=k), style="dim"))
    return Group(*tables, *make_defense_tables(rows, k))


def _make_exposure_tables(rows: Sequence[Row], summary: TaskSummary, k: int) -> list[Table]:
    """Return a table a victim and defense; all seeds together."""
    index, measure = RowIndex(rows), summary.attack[0].name
    chosen = [row for row in rows if row.k == k and row.seed is None and row.metric == measure]
    shown = [row for row in chosen if row.group != "target" or index.get(row, "other", measure)]
    several = len({row.defense for row in shown}) > 1
    tables: list[Table] = []
    for victim, defense in dict.fromkeys((row.victim, row.defense) for row in shown):
        rows_here = [row for row in shown if (row.victim, row.defense) == (victim, defense)]
        title = f"{victim}, defense {defense}" if several else victim
        tables.append(_make_exposure_table(rows_here, index, title, summary, k))
    return tables


def _make_answer_table(rows: Sequence[Row], summary: TaskSummary) -> list[Table | Text]:
    """Return a line an attack, defense and scenario, and one a kind of trigger below it; over seeds if several.

    Of several defenses the first alone has lines of texts near the trigger: `results.jsonl` has the others'.

    Args:
        rows: The rows of the victims of one task.
        summary: What is shown of it.

    Returns:
        The table, and a line for each rate of the attack's own trigger that shows nothing or little.
    """
    several = any(row.metric == summary.accuracy[0][OVER_SEEDS].name for row in rows)
    over = OVER_SEEDS if several else None
    known = {
        (r.victim, r.attack, r.defense, r.scenario, r.group, r.metric): r for r in rows if (r.seed is None) == several
    }
    picked = {measure[over].name: measure[CLEAN][over].name for measure in summary.attack}
    main = summary.attack[0]
    lines = [(place, row) for place, row in known.items() if row.metric in picked]
    lines = [(place[:4], row) for place, row in lines if row.group != "unseen" or row.metric == main[over].name]
    first = lines[0][1].defense if lines else ""
    lines = [(here, row) for here, row in lines if row.defense == first or not row.group.startswith("near-")]
    # What is the same in every line is left out, for terminals are narrow.
    names = ("victim", "attack", "defense", "scenario")
    shown = [nth for nth in range(len(names)) if len({here[nth] for here, _ in lines}) > 1]
    table = Table(pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(", ".join([*(names[nth] for nth in shown), "trigger"]), overflow="fold", min_width=16)
    for measure in summary.accuracy:
        table.add_column(measure.title, justify="right", no_wrap=True)
    table.add_column(main.title, justify="right")
    remarks: list[Text] = []
    before: tuple[str, ...] = ()
    for here, row in lines:
        clean = known.get((*here, row.group, picked[row.metric]))
        label = sanitize_text(row.group) + Text("" if several else f", n {format_counts(clean, row)}")
        if row.group in JUDGED_GROUPS and (words := judge_rates(clean, row, counted=not several)):
            place = Text(", ").join([sanitize_text(here[nth]) for nth in shown] + [sanitize_text(row.group)])
            remarks.append(place.append(f" {words}.", style="yellow"))
        both = [""] * len(summary.accuracy)
        if here != before:
            both = [
                _format_change(
                    known.get((*here, "all", measure[CLEAN][over].name)),
                    known.get((*here, "all", measure[over].name)),
                    measure,
                )
                for measure in summary.accuracy
            ]
        if here != before and shown:
            table.add_row(Text(", ").join([sanitize_text(here[nth]) for nth in shown]), *both, "")
            both = [""] * len(summary.accuracy)
        table.add_row(Text("  " * bool(shown)) + label, *both, format_rates(clean, row))
        before = here
    return [table, *remarks]


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
    known = select_overall(rows)
    tables = [table for summary, _ in assign_victims(rows) if (table := _make_defense_table(known, summary, k))]
    note = (
        "A line a defense. ASR, exposure and accuracy: of the attacked model that the defense cleaned, repaired or "
        "guards, with a 95 % interval. Recall: share of the poisoned titles that were flagged, and AUROC of its scores "
        "(– where it reads no titles, or none is poisoned). Lost: clean items whose interactions left the training "
        "data."
    )
    return [*tables, Text(note, style="dim")] if tables else []


def _make_defense_table(
    known: Mapping[tuple[PlaceLabels, str, str, int], Row], summary: TaskSummary, cutoff: int
) -> Table | None:
    k, accuracy, attack = cutoff if summary.by_cutoff else NO_K, summary.accuracy[0], summary.attack[0]
    measured = {
        place: next((row for group in summary.groups if (row := known.get((place, group, attack.name, k)))), None)
        for place, group, metric, cut in known
        if (group, metric, cut) == ("all", accuracy.name, k) and place[1] != NO_ATTACK
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
    flags = (RECALL, DETECTION_AUROC, LOST_CLEAN_ITEMS)
    for name in (_title(attack, k), _title(accuracy, k), *(measure.title for measure in flags)):
        table.add_column(name, justify="right", no_wrap=True)
    before: tuple[str, ...] = ()
    for victim, attack_label, scenario, defense in sorted(places, key=lambda place: order[place[:3]]):
        row, here = lines[victim, attack_label, defense, scenario], (victim, attack_label, scenario)
        place = (victim, attack_label, defense, scenario)
        flagged = [known.get(((*place[:3], NO_SCENARIO), "all", measure.name, NO_K)) for measure in flags]
        labels = [*(here if here != before else ("", "", "")), defense]
        table.add_row(
            *(sanitize_text(labels[nth]) for nth in shown),
            f"{row.value:.3f}{_format_interval(row)}" if row.value is not None else EMPTY_CELL,
            _format_row(known[place, "all", accuracy.name, k], accuracy),
            *(_format_row(found, measure) for found, measure in zip(flagged, flags, strict=True)),
        )
        before = here
    return table


def _make_exposure_table(rows: Sequence[Row], index: RowIndex, title: str, summary: TaskSummary, k: int) -> Table:
    measure, accuracy, (lift, *_) = summary.attack[0], summary.accuracy[0], summary.lift
    change = summary.change or accuracy
    table = Table(
        title=sanitize_text(title, 140), title_justify="left", title_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in ("attack", "scenario", "users"):
        table.add_column(name, overflow="fold", max_width=24)
    for name in (_title(measure, k), lift.title, _title(accuracy, k)):
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
            _format_change(index.get(row, row.group, measure[CLEAN].name), row, measure),
            _format_lift(index.get(row, row.group, lift.name, lift[LOWER_BOUND].name), lift, row),
            _format_cost(index.get(row, row.group, accuracy.name), index.get(row, row.group, change.name), change),
        )
        before = here
    return table
