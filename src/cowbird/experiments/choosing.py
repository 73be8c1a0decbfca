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
from cowbird.data.types import Int32Array, Int64Array, Items, TrainingData
from cowbird.errors import UserError
from cowbird.experiments.adapters import AnsweringModels, ServedModel, StoreContext, draw_questions, mask_unseen
from cowbird.experiments.evidence import NEAR_COLUMN, PLAIN_KIND, AnswerColumns, is_near, load_columns, save_columns
from cowbird.experiments.results import NO_K, Row, RowLabels, Selection, group_questions
from cowbird.metrics.choice import pick_difference, pick_rate, valid_ratio
from cowbird.metrics.intervals import Interval
from cowbird.rng import stream
from cowbird.victims.base import CandidateRecommender, FittedCandidate, Probe

CANDIDATE_KIND = "choose"
"""What kind of evidence this is."""
CANDIDATE_COLUMNS = ("answer", "triggered", "user", "unseen", NEAR_COLUMN)
FREE, CONSTRAINED = "free", "constrained"
DECODING_MODES = {"": FREE, "_constrained": CONSTRAINED}
"""Ways to answer, by how their metrics end."""


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


def save(path: Path, records: list[CandidateEvidence]) -> None:
    """Write a cell's evidence atomically."""
    columns = [
        AnswerColumns(
            (record.scenario, record.attack, record.defense),
            {name: getattr(record, name) for name in CANDIDATE_COLUMNS},
            record.clean,
            record.attacked,
        )
        for record in records
    ]
    save_columns(path, CANDIDATE_KIND, columns)


def load(path: Path) -> list[CandidateEvidence]:
    """Read a cell's evidence.

    Raises:
        UserError: If the file is missing, damaged or something else.
    """
    records: list[CandidateEvidence] = []
    for found in load_columns(path, CANDIDATE_KIND, CANDIDATE_COLUMNS, [f"{way}." for way in DECODING_MODES.values()]):
        # Every kind of trigger was asked for both ways to answer.
        kinds = [
            {name.partition(".")[2] for name in found.clean if name.startswith(way)} for way in DECODING_MODES.values()
        ]
        if kinds[0] != kinds[1] or any(column.dtype.kind not in "iu" for column in found.clean.values()):
            raise UserError(f"'{path}' does not hold the evidence of a run: picks are missing.", "Run the cell again.")
        records.append(
            CandidateEvidence(*found.names, **found.shared, clean=dict(found.clean), attacked=dict(found.attacked))
        )
    return records


class CandidateModels(AnsweringModels[TrainingData, SequenceSplit, FittedCandidate]):
    """Fits and asks the models of one cell.

    Args:
        victim: The victim's spec.
        split: How the data was split.
        parts: The split data.
        bench: Where models are made.
    """

    def __init__(
        self, victim: CandidateRecommender, split: SequenceSplit, parts: ChoiceParts, bench: StoreContext
    ) -> None:
        super().__init__(victim, bench)
        self.split, self.parts = split, parts
        self._numbers, self._titles = _number_titles(parts.test.candidates, parts.training.items)
        self.triggered = draw_triggered(self._titles, parts.test.answer, stream(bench.seed, "triggered candidate"))
        self._everything, self._near = np.arange(len(parts.test)), np.flatnonzero(parts.near)

    def get_platform_logs(self) -> tuple[TrainingData, SequenceSplit]:
        """Return the validation users' events, in the clean catalogue.

        Raises:
            UserError: If there are no such users.
        """
        if not self.parts.validation.interactions.users:
            raise UserError(
                "The platform has no users of its own to tune on.", "Set validation above 0 under [sequence_split]."
            )
        return self.parts.validation, self.split

    def _draw_probe(self, model: FittedCandidate, questions: int) -> Probe:
        data, split = self.get_platform_logs()
        choices = split.ask(data.interactions, len(data.items), stream(self.bench.seed, "probe", "candidates"))
        rows = draw_questions(len(choices), questions, self.bench.seed)
        return model.probe(choices.select(rows), data.items)

    def _ask_model(self, model: FittedCandidate, *asked: Any) -> dict[str, NDArray[Any]]:
        picks = model.choose(*asked)
        return {way: np.asarray(getattr(picks, way)) for way in DECODING_MODES.values()}

    def pick_candidates(
        self, wanted: ServedModel[TrainingData, SequenceSplit], catalogues: dict[str, Items]
    ) -> dict[str, Int32Array]:
        """Return the picks in the test questions, plain and with each kind of trigger in one candidate's title.

        With triggers that are near the attack's only some are asked.
        """
        items, test = self.parts.training.items, self.parts.test
        asked: dict[str, tuple[Any, ...]] = {PLAIN_KIND: (test, items)}
        for kind, altered in catalogues.items():
            rows = self._select_rows(kind)
            asked[kind] = test.select(rows), items, altered, self.triggered[rows]
        found: dict[str, Int32Array] = {}
        for kind, picked in self.collect_answers(wanted, asked).items():
            titles = self._number_altered(test, catalogues[kind]) if kind in catalogues else self._titles
            found |= self._resolve_kind(kind, titles, picked)
        return found

    def _select_rows(self, kind: str) -> Int64Array:
        """Return which questions are asked of a kind."""
        return self._near if is_near(kind) else self._everything

    def find_unseen(self) -> NDArray[np.bool_]:
        """Return in which test questions clean training never met the item that carries the trigger."""
        rows = np.arange(len(self.parts.test))
        return mask_unseen(self.parts.training, self.parts.test.candidates[rows, self.triggered])

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
    names = (where.victim, where.attack, where.defense, where.scenario)
    rows: list[Row] = []

    def make_rng(group: str, metric: str) -> np.random.Generator:
        return stream(seed, "bootstrap", *names, group, metric)

    def add(group: str, metric: str, found: Interval) -> None:
        rows.append(here.make_row(group, metric, NO_K, found.value, found.low, found.high, found.n))

    def add_share(
        group: str, metric: str, picked: Int32Array, column: Int32Array, among: NDArray[np.bool_] | None = None
    ) -> None:
        add(group, metric, pick_rate(picked, column, record.user, make_rng(group, metric), among))

    sides = {"": record.attacked, "_clean": record.clean}
    for end, way in DECODING_MODES.items():
        plain = f"{way}.plain"
        for whose, side in sides.items():
            add_share("all", f"hit_ratio{end}{whose}", side[plain], record.answer)
        name, (after, before) = f"hit_ratio{end}_difference", (side[plain] for side in sides.values())
        add("all", name, pick_difference(after, before, record.answer, record.user, make_rng("all", name)))
    for whose, side in sides.items():
        written = side[f"{FREE}.plain"]
        add_share("all", f"hit_ratio_valid{whose}", written, record.answer, written >= 0)
        name = f"valid_ratio{whose}"
        add("all", name, valid_ratio(written, record.user, make_rng("all", name)))

    def add_triggered(group: str, metric: str, kind: str, questions: Selection, answers: Selection) -> None:
        column, user = record.triggered[questions], record.user[questions]
        for end, way in DECODING_MODES.items():
            for whose, side in sides.items():
                name = f"{metric}{end}{whose}"
                add(group, name, pick_rate(side[f"{way}.{kind}"][answers], column, user, make_rng(group, name)))

    for group in group_questions(_list_kinds(record), record.near, record.unseen):
        add_triggered(group.name, "asr", group.kind, group.questions, group.answers)
        if group.name == "unseen":
            add_triggered(group.name, "picked_plain", PLAIN_KIND, group.questions, group.questions)
    add_triggered("none", "picked_plain", PLAIN_KIND, slice(None), slice(None))
    return rows


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

    def add(group: str, metric: str, more: Int32Array, less: Int32Array, column: Int32Array, user: Int32Array) -> None:
        names = (where.victim, where.attack, where.defense, where.scenario, group, metric)
        found = pick_difference(more, less, column, user, stream(seed, "bootstrap", *names))
        rows.append(here.make_row(group, metric, NO_K, found.value, found.low, found.high, found.n))

    for end, way in DECODING_MODES.items():
        plain = f"{way}.{PLAIN_KIND}"
        add("all", f"hit_ratio{end}_lost", bare.clean[plain], record.attacked[plain], record.answer, record.user)
    for group in group_questions(_list_kinds(record), record.near, record.unseen):
        column, user = record.triggered[group.questions], record.user[group.questions]
        for end, way in DECODING_MODES.items():
            more, less = (side[f"{way}.{group.kind}"][group.answers] for side in (record.attacked, bare.clean))
            add(group.name, f"asr{end}_excess", more, less, column, user)
    return rows
