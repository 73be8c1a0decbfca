"""Victims that choose among candidates (LLaRA).

The data is split by users. The victim learns from the earlier ones, clean or poisoned, and is asked what comes next in
the histories of the latest: with the candidates as they are, and with the trigger in the title of one candidate that is
not the right one; in some of them also with triggers that are near it. What it picked is the evidence, and rows are
made from that alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cowbird.data.choices import ChoiceParts, Choices, SequenceSplit
from cowbird.data.types import Dataset, Int32Array, Int64Array, Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments.measures import CLEAN, DIFFERENCE, EXCESS, LOST, Measure, TaskSummary
from cowbird.experiments.results import Row, RowLabels
from cowbird.experiments.shipped_measures import (
    ASR_MEASURES,
    CANDIDATE_SUMMARY,
    DECODING_MODES,
    FREE,
    HIT_RATIO,
    HIT_RATIO_VALID,
    PICKED_PLAIN,
    VALID_RATIO,
)
from cowbird.experiments.tasks.base import EvidenceLabels
from cowbird.experiments.tasks.questions import (
    NEAR_COLUMN,
    PLAIN_KIND,
    QuestionTask,
    Selection,
    ServedModel,
    group_questions,
    is_near,
)
from cowbird.metrics.asr import candidate_asr
from cowbird.metrics.choice import pick_difference, pick_rate, valid_ratio
from cowbird.metrics.intervals import Interval
from cowbird.rng import stream
from cowbird.victims.base import FittedCandidate, Probe


@dataclass(frozen=True, slots=True, eq=False)
class CandidateEvidence:
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
    answer: Int32Array
    """The right candidate's column, shape `[questions]`."""
    triggered: Int32Array
    """Column of the candidate that carries the trigger, shape `[questions]`; never that of the right one."""
    user: Int32Array
    """Who is asked, shape `[questions]`; questions of one user are resampled together."""
    unseen: NDArray[np.bool_]
    """In which questions training never met the item that carries the trigger, shape `[questions]`."""
    near: NDArray[np.bool_]
    """Which questions were asked with triggers that are near the attack's, shape `[questions]`."""
    clean: dict[str, Int32Array]
    """Picks of the clean model, shape `[questions]` each: `free.plain`, `constrained.plain`, and so on for each kind of
    trigger; shape `[near.sum()]` for those that are near the attack's."""
    attacked: dict[str, Int32Array]
    """Picks of the attacked model, of the same kinds."""


class CandidatesTask(QuestionTask[CandidateEvidence, FittedCandidate]):
    """Pick one of some candidates."""

    split_table: ClassVar[str] = "sequence_split"
    split_type: ClassVar[type[BaseModel]] = SequenceSplit
    split_doc: ClassVar[str] = "Users in the order of time, for victims that choose among candidates."
    record_type: ClassVar[type[Any]] = CandidateEvidence
    shared_columns: ClassVar[tuple[str, ...]] = ("answer", "triggered", "user", "unseen", NEAR_COLUMN)
    ways: ClassVar[tuple[str, ...]] = tuple(f"{way}." for way in DECODING_MODES)
    summary: ClassVar[TaskSummary] = CANDIDATE_SUMMARY

    parts: ChoiceParts
    triggered: Int32Array
    """Column of the candidate that carries the trigger, shape `[questions]`."""

    def split_data(self, data: Dataset) -> TrainingData:
        """Split by users, and draw which candidate carries the trigger; see `Task.split_data`."""
        split: SequenceSplit = self.context.split
        self.split, self.parts = split, split.apply(data, self.context.seed)
        parts, seed = self.parts, self.context.seed
        self._numbers, self._titles = _number_titles(parts.test.candidates, parts.training.items)
        self.triggered = draw_triggered(self._titles, parts.test.answer, stream(seed, "triggered candidate"))
        self._everything, self._near = np.arange(len(parts.test)), np.flatnonzero(parts.near)
        return self.require_titles(parts.training)

    def count_questions(self) -> int:
        """Return how many questions test."""
        return len(self.parts.test)

    def make_lesson(self, data: TrainingData) -> tuple[TrainingData, SequenceSplit]:
        """Return the data, and how questions are made of it."""
        return data, self.split

    def get_platform_logs(self) -> tuple[TrainingData, SequenceSplit]:
        """Return the validation users' events, in the clean catalogue; see `QuestionTask.get_platform_logs`."""
        if not self.parts.validation.interactions.users:
            raise UserError(
                "The platform has no users of its own to tune on.", "Set validation above 0 under [sequence_split]."
            )
        return self.parts.validation, self.split

    def draw_probe(self, model: FittedCandidate, questions: int) -> Probe:
        """Return a probe; see `QuestionTask.draw_probe`."""
        data, split = self.get_platform_logs()
        choices = split.ask(data.interactions, len(data.items), stream(self.context.seed, "probe", "candidates"))
        return model.probe(choices.select(self.draw_questions(len(choices), questions)), data.items)

    def ask_model(self, model: FittedCandidate, *asked: Any) -> dict[str, NDArray[Any]]:
        """Pick candidates; see `QuestionTask.ask_model`."""
        picks = model.choose(*asked)
        return {way: np.asarray(getattr(picks, way)) for way in DECODING_MODES}

    def ask_all(self, wanted: ServedModel, catalogs: dict[str, Items]) -> dict[str, Int32Array]:
        """Return picks, with the trigger in one candidate's title; with near triggers only some questions are asked."""
        items, test = self.training.items, self.parts.test
        asked: dict[str, tuple[Any, ...]] = {PLAIN_KIND: (test, items)}
        for kind, altered in catalogs.items():
            rows = self._select_rows(kind)
            asked[kind] = test.select(rows), items, altered, self.triggered[rows]
        found: dict[str, Int32Array] = {}
        for kind, picked in self.collect_answers(wanted, asked).items():
            titles = self._number_altered(test, catalogs[kind]) if kind in catalogs else self._titles
            found |= self._resolve_kind(kind, titles, picked)
        return found

    def _select_rows(self, kind: str) -> Int64Array:
        """Return which questions are asked of a kind."""
        return self._near if is_near(kind) else self._everything

    def describe_questions(self) -> dict[str, NDArray[Any]]:
        """Return answers, triggered candidates, users, and which items are unseen or triggers near."""
        test, rows = self.parts.test, np.arange(len(self.parts.test))
        unseen = self.mask_unseen(test.candidates[rows, self.triggered])
        shared = {"answer": test.answer, "triggered": self.triggered, "user": test.user}
        return shared | {"unseen": unseen, NEAR_COLUMN: self.parts.near}

    def _number_altered(self, test: Choices, altered: Items) -> NDArray[np.int64]:
        """Number the titles as `_number_titles` does, one candidate of each question carrying its altered title."""
        rows = np.arange(len(test))
        carried: list[int] = test.candidates[rows, self.triggered].tolist()
        titles = self._titles.copy()
        # A title that no candidate has by itself is like no other in its question, whatever its number.
        titles[rows, self.triggered] = [self._numbers.get(altered.titles[item], -1) for item in carried]
        return titles

    def _resolve_kind(
        self, kind: str, titles: NDArray[np.int64], picked: dict[str, Int32Array]
    ) -> dict[str, Int32Array]:
        """Return picks of a kind by the column that stands for their title."""
        rows = self._select_rows(kind)
        titles, answer, triggered = titles[rows], self.parts.test.answer[rows], self.triggered[rows]
        return {f"{way}.{kind}": resolve_picks(titles, found, answer, triggered) for way, found in picked.items()}

    @classmethod
    def decode_record(cls, labels: EvidenceLabels, columns: dict[str, NDArray[Any]]) -> CandidateEvidence:
        """Return the record; every kind of trigger was asked for both ways to answer."""
        found = super().decode_record(labels, columns)
        kinds = [{name.partition(".")[2] for name in found.clean if name.startswith(way)} for way in DECODING_MODES]
        if kinds[0] != kinds[1] or any(column.dtype.kind not in "iu" for column in found.clean.values()):
            raise ValueError("picks are missing")
        return found

    @classmethod
    def make_seed_rows(cls, where: RowLabels, record: CandidateEvidence, ks: Sequence[int]) -> list[Row]:
        """Return HitRatio, ValidRatio and ASR; see `Task.make_seed_rows`."""
        return make_rows(where, where.seed or 0, record)

    @classmethod
    def make_defense_rows(
        cls, where: RowLabels, record: CandidateEvidence, bare: CandidateEvidence, ks: Sequence[int]
    ) -> list[Row]:
        """Return ASR left and HitRatio lost; see `Task.make_defense_rows`."""
        return make_defense_rows(where, where.seed or 0, record, bare)


def _number_titles(candidates: Int32Array, items: Items) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Number the candidates' titles; return the numbers, and those of the candidates, shape of `candidates`."""
    distinct: list[int] = np.unique(candidates).tolist()
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(items.titles[item], len(numbers)) for item in distinct]
    return numbers, np.array(codes, dtype=np.int64)[np.searchsorted(distinct, candidates)]


def draw_triggered(titles: NDArray[np.int64], answer: Int32Array, rng: np.random.Generator) -> Int32Array:
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


def resolve_picks(
    titles: NDArray[np.int64], picked: Int32Array, answer: Int32Array, triggered: Int32Array
) -> Int32Array:
    """Return the column that stands for each pick's title; see `CandidateEvidence`.

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


def make_rows(where: RowLabels, seed: int, record: CandidateEvidence) -> list[Row]:
    """Return the rows of one seed: HitRatio and ValidRatio, clean and attacked; ASR of each kind of trigger.

    The group of an ASR row is the kind of trigger: `trigger` is the attack's own, `unseen` the same where training
    never met the item that carries it, and `near-…` others. The group `none` tells how often the same candidate is
    picked without a trigger. All are shares of questions, resampled by user.
    """
    here = where.model_copy(update={"seed": seed})
    rows: list[Row] = []

    def add(group: str, measure: Measure, compute: Callable[[np.random.Generator], Interval]) -> None:
        rows.append(here.make_row(group, measure, compute(_make_rng(where, seed, group, measure))))

    answer, user = record.answer, record.user
    sides = (record.attacked, None), (record.clean, CLEAN)
    for measure, way in HIT_RATIO.items():
        plain = f"{way}.{PLAIN_KIND}"
        for side, whose in sides:
            add("all", measure[whose], partial(pick_rate, side[plain], answer, user))
        after, before = record.attacked[plain], record.clean[plain]
        add("all", measure[DIFFERENCE], partial(pick_difference, after, before, answer, user))
    for side, whose in sides:
        written = side[f"{FREE}.{PLAIN_KIND}"]
        add("all", HIT_RATIO_VALID[whose], partial(pick_rate, written, answer, user, among=written >= 0))
        add("all", VALID_RATIO[whose], partial(valid_ratio, written, user))

    def add_triggered(
        group: str, measures: Mapping[Measure, str], kind: str, questions: Selection, answers: Selection
    ) -> None:
        column, right, asked = record.triggered[questions], answer[questions], user[questions]
        for measure, way in measures.items():
            for side, whose in sides:
                add(group, measure[whose], partial(candidate_asr, side[f"{way}.{kind}"][answers], column, right, asked))

    for group in group_questions(_list_kinds(record), record.near, record.unseen):
        add_triggered(group.name, ASR_MEASURES, group.kind, group.questions, group.answers)
        if group.name == "unseen":
            add_triggered(group.name, PICKED_PLAIN, PLAIN_KIND, group.questions, group.questions)
    add_triggered("none", PICKED_PLAIN, PLAIN_KIND, slice(None), slice(None))
    return rows


def _make_rng(where: RowLabels, seed: int, group: str, measure: Measure) -> np.random.Generator:
    names = (where.victim, where.attack, where.defense, where.scenario, group, measure.name)
    return stream(seed, "bootstrap", *names)


def _list_kinds(record: CandidateEvidence) -> set[str]:
    """Return the kinds of questions that were asked."""
    return {name.partition(".")[2] for name in record.attacked}


def make_defense_rows(where: RowLabels, seed: int, record: CandidateEvidence, bare: CandidateEvidence) -> list[Row]:
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

    def add(
        group: str, measure: Measure, more: Int32Array, less: Int32Array, column: Int32Array, user: Int32Array
    ) -> None:
        found = pick_difference(more, less, column, user, _make_rng(where, seed, group, measure))
        rows.append(here.make_row(group, measure, found))

    for measure, way in HIT_RATIO.items():
        plain = f"{way}.{PLAIN_KIND}"
        add("all", measure[LOST], bare.clean[plain], record.attacked[plain], record.answer, record.user)
    for group in group_questions(_list_kinds(record), record.near, record.unseen):
        column, user = record.triggered[group.questions], record.user[group.questions]
        for measure, way in ASR_MEASURES.items():
            more, less = (side[f"{way}.{group.kind}"][group.answers] for side in (record.attacked, bare.clean))
            add(group.name, measure[EXCESS], more, less, column, user)
    return rows
