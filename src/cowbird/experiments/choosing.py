"""Cells whose victim chooses among candidates (LLaRA) instead of ranking a catalogue.

The data is split by users. The victim learns from the earlier ones, clean or poisoned, and is asked what comes next in
the histories of the latest: with the candidates as they are, and with the trigger in the title of one candidate that is
not the right one; in some of them also with triggers that are near it. What it picked is kept as evidence, and rows are
made from that alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.choices import ChoiceParts, Choices, SequenceSplit
from cowbird.data.types import Index, Items, Offset, TrainingData
from cowbird.errors import UserError
from cowbird.experiments.adapters import Adapters, Bench, Wanted, draw_questions, never_met
from cowbird.experiments.evidence import NEAR, PLAIN, Columns, is_near, load_columns, save_columns
from cowbird.experiments.results import NO_K, Row, Rows, Where, groups_of
from cowbird.metrics.choice import picked_difference, picked_rate, valid_ratio
from cowbird.metrics.intervals import Interval
from cowbird.rng import stream
from cowbird.victims.base import Chooser, FittedChooser, Probe

KIND = "choose"
"""What kind of evidence this is."""
SHARED = ("answer", "triggered", "user", "unseen", NEAR)
FREE, CONSTRAINED = "free", "constrained"
WAYS = {"": FREE, "_constrained": CONSTRAINED}
"""Ways to answer, by how their metrics end."""


@dataclass(frozen=True, slots=True, eq=False)
class Choosings:
    """One attack in one scenario: what the clean and the attacked model picked.

    Picks are columns, -1 for what is no candidate. Of candidates of one title the right one stands for all, then the
    one that carries the trigger, then the first, so that a pick is right if it equals `answer`.
    """

    scenario: str
    """Label of the scenario."""
    attack: str
    """Label of the attack."""
    defense: str
    """Label of the defense."""
    answer: Index
    """The right candidate's column, shape `[questions]`."""
    triggered: Index
    """Column of the candidate that carries the trigger, shape `[questions]`; never that of the right one."""
    user: Index
    """Who is asked, shape `[questions]`; questions of one user are resampled together."""
    unseen: NDArray[np.bool_]
    """In which questions training never met the item that carries the trigger, shape `[questions]`."""
    near: NDArray[np.bool_]
    """Which questions were asked with triggers that are near the attack's, shape `[questions]`."""
    clean: dict[str, Index]
    """Picks of the clean model, shape `[questions]` each: `free.plain`, `constrained.plain`, and so on for each kind of
    trigger; shape `[near.sum()]` for those that are near the attack's."""
    attacked: dict[str, Index]
    """Picks of the attacked model, of the same kinds."""


def save(path: Path, records: list[Choosings]) -> None:
    """Write a cell's evidence atomically."""
    columns = [
        Columns(
            (record.scenario, record.attack, record.defense),
            {name: getattr(record, name) for name in SHARED},
            record.clean,
            record.attacked,
        )
        for record in records
    ]
    save_columns(path, KIND, columns)


def load(path: Path) -> list[Choosings]:
    """Read a cell's evidence.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    records: list[Choosings] = []
    for found in load_columns(path, KIND, SHARED, [f"{way}." for way in WAYS.values()]):
        # Every kind of trigger was asked for both ways to answer.
        kinds = [{name.partition(".")[2] for name in found.clean if name.startswith(way)} for way in WAYS.values()]
        if kinds[0] != kinds[1] or any(column.dtype.kind not in "iu" for column in found.clean.values()):
            raise UserError(f"'{path}' does not hold the evidence of a run: picks are missing.", "Run the cell again.")
        records.append(Choosings(*found.names, **found.shared, clean=dict(found.clean), attacked=dict(found.attacked)))
    return records


class Choosing(Adapters[TrainingData, SequenceSplit, FittedChooser]):
    """Fits and asks the models of one cell.

    Args:
        victim: The victim's spec.
        split: How the data was split.
        parts: The split data.
        bench: Where models are made.
    """

    def __init__(self, victim: Chooser, split: SequenceSplit, parts: ChoiceParts, bench: Bench) -> None:
        super().__init__(victim, bench)
        self.split, self.parts = split, parts
        self._numbers, self._titles = _numbered(parts.test.candidates, parts.training.items)
        self.triggered = draw_triggered(self._titles, parts.test.answer, stream(bench.seed, "triggered candidate"))
        self._everything, self._near = np.arange(len(parts.test)), np.flatnonzero(parts.near)

    def platform(self) -> tuple[TrainingData, SequenceSplit]:
        """Return the validation users' events, in the clean catalogue.

        Raises:
            UserError: If there are no such users.
        """
        if not self.parts.validation.interactions.users:
            raise UserError(
                "The platform has no users of its own to tune on.", "Set validation above 0 under [sequence_split]."
            )
        return self.parts.validation, self.split

    def _asked(self, model: FittedChooser, questions: int) -> Probe:
        data, split = self.platform()
        choices = split.ask(data.interactions, len(data.items), stream(self.bench.seed, "probe", "candidates"))
        rows = draw_questions(len(choices), questions, self.bench.seed)
        return model.probe(choices.select(rows), data.items)

    def _answer(self, model: FittedChooser, *asked: Any) -> dict[str, NDArray[Any]]:
        picks = model.choose(*asked)
        return {way: np.asarray(getattr(picks, way)) for way in WAYS.values()}

    def picks(self, wanted: Wanted[TrainingData, SequenceSplit], catalogues: dict[str, Items]) -> dict[str, Index]:
        """Return the picks in the test questions, plain and with each kind of trigger in one candidate's title.

        With triggers that are near the attack's only some are asked.
        """
        items, test = self.parts.training.items, self.parts.test
        asked: dict[str, tuple[Any, ...]] = {PLAIN: (test, items)}
        for kind, altered in catalogues.items():
            rows = self._rows(kind)
            asked[kind] = test.select(rows), items, altered, self.triggered[rows]
        found: dict[str, Index] = {}
        for kind, picked in self.answered(wanted, asked).items():
            titles = self._with(test, catalogues[kind]) if kind in catalogues else self._titles
            found |= self._standing(kind, titles, picked)
        return found

    def _rows(self, kind: str) -> Offset:
        """Return which questions are asked of a kind."""
        return self._near if is_near(kind) else self._everything

    def unseen(self) -> NDArray[np.bool_]:
        """Return in which test questions clean training never met the item that carries the trigger."""
        rows = np.arange(len(self.parts.test))
        return never_met(self.parts.training, self.parts.test.candidates[rows, self.triggered])

    def _with(self, test: Choices, altered: Items) -> NDArray[np.int64]:
        """Number the titles as `_numbered` does, one candidate of each question carrying its altered title."""
        rows = np.arange(len(test))
        carried: list[int] = test.candidates[rows, self.triggered].tolist()
        titles = self._titles.copy()
        # A title that no candidate has by itself is like no other in its question, whatever its number.
        titles[rows, self.triggered] = [self._numbers.get(altered.titles[item], -1) for item in carried]
        return titles

    def _standing(self, kind: str, titles: NDArray[np.int64], picked: dict[str, Index]) -> dict[str, Index]:
        """Return picks of a kind by the column that stands for their title."""
        rows = self._rows(kind)
        titles, answer, triggered = titles[rows], self.parts.test.answer[rows], self.triggered[rows]
        return {f"{way}.{kind}": standing(titles, found, answer, triggered) for way, found in picked.items()}


def _numbered(candidates: Index, items: Items) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Number the candidates' titles; return the numbers, and those of the candidates, shape of `candidates`."""
    distinct: list[int] = np.unique(candidates).tolist()
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(items.titles[item], len(numbers)) for item in distinct]
    return numbers, np.array(codes, dtype=np.int64)[np.searchsorted(distinct, candidates)]


def draw_triggered(titles: NDArray[np.int64], answer: Index, rng: np.random.Generator) -> Index:
    """Draw which candidate of each question carries the trigger.

    Args:
        titles: Numbers of the candidates' titles, shape `[questions, candidates]`.
        answer: The right candidate's column, shape `[questions]`.
        rng: Where it is drawn.

    Returns:
        A column of each question, shape `[questions]`: not the right one's, nor one of the same title if there is
        another.
    """
    rows = np.arange(len(titles))
    lots = rng.random(titles.shape)
    lots -= titles == titles[rows, answer][:, None]
    lots[rows, answer] -= 1
    return np.argmax(lots, axis=1).astype(np.int32)


def standing(titles: NDArray[np.int64], picked: Index, answer: Index, triggered: Index) -> Index:
    """Return the column that stands for each pick's title; see `Choosings`.

    Args:
        titles: Numbers of the candidates' titles, shape `[questions, candidates]`.
        picked: The columns picked, -1 for none, shape `[questions]`.
        answer: The right candidate's column, shape `[questions]`.
        triggered: Column of the candidate that carries the trigger, shape `[questions]`.
    """
    rows = np.arange(len(titles))
    title = titles[rows, picked]
    found = np.argmax(titles == title[:, None], axis=1)
    found = np.where(title == titles[rows, triggered], triggered, found)
    found = np.where(title == titles[rows, answer], answer, found)
    return np.where(picked < 0, -1, found).astype(np.int32)


def rows_of(where: Where, seed: int, record: Choosings) -> list[Row]:
    """Return the rows of one seed: HitRatio and ValidRatio, clean and attacked; ASR of each kind of trigger.

    The group of an ASR row is the kind of trigger: `trigger` is the attack's own, `unseen` the same where training
    never met the item that carries it, and `near-…` others. The group `none` tells how often the same candidate is
    picked without a trigger. All are shares of questions, resampled by user.
    """
    here = where.model_copy(update={"seed": seed})
    names = (where.victim, where.attack, where.defense, where.scenario)
    rows: list[Row] = []

    def draws(group: str, metric: str) -> np.random.Generator:
        return stream(seed, "bootstrap", *names, group, metric)

    def add(group: str, metric: str, found: Interval) -> None:
        rows.append(here.row(group, metric, NO_K, found.value, found.low, found.high, found.n))

    def share(group: str, metric: str, picked: Index, column: Index, among: NDArray[np.bool_] | None = None) -> None:
        add(group, metric, picked_rate(picked, column, record.user, draws(group, metric), among))

    sides = {"": record.attacked, "_clean": record.clean}
    for end, way in WAYS.items():
        plain = f"{way}.plain"
        for whose, side in sides.items():
            share("all", f"hit_ratio{end}{whose}", side[plain], record.answer)
        name, (after, before) = f"hit_ratio{end}_difference", (side[plain] for side in sides.values())
        add("all", name, picked_difference(after, before, record.answer, record.user, draws("all", name)))
    for whose, side in sides.items():
        written = side[f"{FREE}.plain"]
        share("all", f"hit_ratio_valid{whose}", written, record.answer, written >= 0)
        name = f"valid_ratio{whose}"
        add("all", name, valid_ratio(written, record.user, draws("all", name)))

    def triggered(group: str, metric: str, kind: str, questions: Rows, answers: Rows) -> None:
        column, user = record.triggered[questions], record.user[questions]
        for end, way in WAYS.items():
            for whose, side in sides.items():
                name = f"{metric}{end}{whose}"
                add(group, name, picked_rate(side[f"{way}.{kind}"][answers], column, user, draws(group, name)))

    for group in groups_of(_kinds(record), record.near, record.unseen):
        triggered(group.name, "asr", group.kind, group.questions, group.answers)
        if group.name == "unseen":
            triggered(group.name, "picked_plain", PLAIN, group.questions, group.questions)
    triggered("none", "picked_plain", PLAIN, slice(None), slice(None))
    return rows


def _kinds(record: Choosings) -> set[str]:
    """Return the kinds of questions that were asked."""
    return {name.partition(".")[2] for name in record.attacked}


def defended_rows(where: Where, seed: int, record: Choosings, bare: Choosings) -> list[Row]:
    """Return what a defense left of the attack and what it cost, against the clean model without any defense.

    `asr_excess` is the ASR of the attacked and defended model less that model's; `hit_ratio_lost` is that model's
    HitRatio less that of the attacked and defended one. Both are paired by question and resampled by user.

    Args:
        where: Where the defended model was measured.
        seed: The seed.
        record: What it picked.
        bare: What the models without a defense picked, in the same questions.
    """
    here = where.model_copy(update={"seed": seed})
    rows: list[Row] = []

    def add(group: str, metric: str, more: Index, less: Index, column: Index, user: Index) -> None:
        names = (where.victim, where.attack, where.defense, where.scenario, group, metric)
        found = picked_difference(more, less, column, user, stream(seed, "bootstrap", *names))
        rows.append(here.row(group, metric, NO_K, found.value, found.low, found.high, found.n))

    for end, way in WAYS.items():
        plain = f"{way}.{PLAIN}"
        add("all", f"hit_ratio{end}_lost", bare.clean[plain], record.attacked[plain], record.answer, record.user)
    for group in groups_of(_kinds(record), record.near, record.unseen):
        column, user = record.triggered[group.questions], record.user[group.questions]
        for end, way in WAYS.items():
            more, less = (side[f"{way}.{group.kind}"][group.answers] for side in (record.attacked, bare.clean))
            add(group.name, f"asr{end}_excess", more, less, column, user)
    return rows
