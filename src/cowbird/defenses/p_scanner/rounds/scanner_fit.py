"""A fit of P-Scanner, round by round: propose, plant, learn, read the catalogue anew; then thresholds."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cowbird.defenses.p_scanner.rounds.calibration import Calibration
from cowbird.defenses.p_scanner.rounds.clean_subset import choose_clean_subset
from cowbird.defenses.p_scanner.rounds.common_patterns import list_tokens
from cowbird.defenses.p_scanner.rounds.context_gain import ContextGain, PhraseGain
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner, Record, Round, load_whole_llm
from cowbird.defenses.p_scanner.rounds.known_logits import select_logits, update_logits
from cowbird.defenses.p_scanner.rounds.ngram_scoring import (
    NgramClassifier,
    fade_logits,
    fit_classifier,
    judge_apart,
    judge_titles,
    judge_together,
    list_examples,
)
from cowbird.defenses.p_scanner.rounds.ngrams import find_ngrams
from cowbird.defenses.p_scanner.rounds.scanner_spec import ScannerSpec
from cowbird.defenses.p_scanner.rounds.training_data import TaggingPrompts
from cowbird.defenses.p_scanner.token_logits import (
    TokenLogits,
    find_answer_words,
    read_logits,
    tokenize_titles,
)
from cowbird.defenses.p_scanner.triggers.agent import (
    Brief,
    RecipeOutcome,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import (
    POSITIONS,
    PlantedTitle,
    Recipe,
    plant,
)
from cowbird.errors import OutageError, UserError
from cowbird.files import hash_texts
from cowbird.notices import NoticeRank, note
from cowbird.rng import derive_seed, stream, torch_stream
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims import checkpoint
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.llm import LoadedModel, add_adapters, load_llm
from cowbird.victims.language.tuning import tune

MAX_TITLES_WEIGHED = 4096
"""Titles of a catalogue that the weighing learns from, at most."""
PLANTED_SHARES = (0.003, 0.005, 0.01, 0.02)
"""Shares of the titles that a planted trigger stands in while the weighing is learned."""
RECIPES_PER_CATALOG = 6
"""Triggers planted in one catalogue, in different titles, while the weighing is learned."""


class ScannerFit:
    """One run of `PoisonScanner.fit`.

    Args:
        spec: What is fitted.
        titles: Different titles, none empty.
        seed: Decides all that is random.
        place: Device, folder of what an interrupted fit goes on from, and progress.
    """

    def __init__(self, spec: ScannerSpec, titles: list[str], seed: int, place: FitContext) -> None:
        self.spec, self.titles, self.seed, self.place = spec, titles, seed, place
        base = load_llm(spec.llm, place.device, spec.tuning.pick_dtype(place.device))
        model = add_adapters(base.model, spec.llm, torch_stream(seed, "adapters"))
        self.loaded = LoadedModel(model, base.tokenizer)
        self.held = stream(seed, "held").random(len(titles)) < spec.held
        made = tokenize_titles(base.tokenizer, titles)
        self.doubts = choose_clean_subset(titles, made, stream(seed, "trust"))
        self.trust = self.doubts.trusted
        self.recipes: list[Recipe] = []
        self.rounds: list[Round] = []
        self.scanner: FittedScanner | None = None
        self.marks: TokenLogits | None = None
        self.gains: tuple[PhraseGain, ...] | None = () if spec.context_gain else None

    def run(self) -> FittedScanner:
        """Go through the rounds, and return the scanner."""
        last: tuple[RecipeOutcome, ...] = ()
        for number in range(1, self.spec.rounds + 1):
            began = time.perf_counter()
            proposed, refused = self._propose(number)
            before = () if self.scanner is None else self._outcomes(proposed, number)
            if not self.recipes:
                raise UserError(
                    "The agent proposed no trigger.", f"What it said: {'; '.join(refused[:3]) or 'nothing'}."
                )
            rates = [outcome.rate for outcome in before]
            if number > 1 and rates and float(np.mean(rates)) >= self.spec.stop_at:
                last = before
                break
            self._learn(number)
            self.marks = marks = self._read(self.titles)
            self.scanner = self._weigh(number, marks)
            after = self._outcomes(proposed, number)
            made = Round(
                number=number,
                trusted=int(self.trust.sum()),
                proposed=len(proposed),
                before=before,
                after=after,
                refused=refused,
                seconds=round(time.perf_counter() - began, 2),
            )
            self.rounds.append(made)
            self._doubt(self.scanner, marks)
        assert self.scanner is not None and self.marks is not None
        if self.gains is not None:  # what the reader still suspects is looked at last; most of it is cleared
            weights, remark = self.scanner.record.weights, "looking at what is suspicious"
            self.scanner = self._calibrate(weights, self.marks, remark, suspecting=True)
        self.scanner.record = self.scanner.record.model_copy(update={"rounds": tuple(self.rounds), "last": last})
        return self.scanner

    def _propose(self, number: int) -> tuple[tuple[Recipe, ...], tuple[str, ...]]:
        rng = stream(self.seed, "agent", number)
        shown: list[int] = rng.permutation(np.flatnonzero(self.trust))[:24].tolist()
        told = tuple(outcome for made in self.rounds for outcome in made.after)
        brief = Brief(
            titles=tuple(self.titles[row] for row in shown),
            wanted=self.spec.proposals,
            outcomes=told,
            without=self.spec.without,
        )
        found = self.spec.agent.propose(brief, rng)
        self.recipes += found.recipes
        if len(found.recipes) < self.spec.proposals:
            text = f"An agent proposed fewer triggers in a round than {self.spec.proposals:,}: {{n}}."
            note(NoticeRank.CHANGE, text, len(found.recipes))
        return found.recipes, found.refused

    def _learn(self, number: int) -> None:
        """Tune the model on triggers of this round and of earlier ones."""
        place, seed = self.place, derive_seed(self.seed, "round", number)
        rows: list[int] = np.flatnonzero(self.trust & ~self.held).tolist()
        folder = None if place.folder is None else place.folder / f"round-{number}"
        own = FitContext(
            place.device,
            folder,
            lambda done, total, remark: place.report(done, total, f"round {number}, {remark}"),
            place.warn,
        )
        taught = [self.titles[row] for row in rows]
        lesson = TaggingPrompts(
            self.loaded.tokenizer, taught, self.recipes, find_answer_words(self.loaded.tokenizer), seed
        )
        done = None if place.folder is None else place.folder / f"round-{number}.safetensors"
        again = {} if number == 1 else {"epochs": self.spec.refresh}
        tuning = self.spec.tuning.model_copy(update=again)
        key = f"{lesson.key}-{tuning!r}-{self.spec.llm!r}-{seed}"
        if done is None or not self._recall(done, key):
            tune(self.loaded.model, lesson, tuning, seed, own)
            if done is not None:
                write_tensors(done, dict(self._learning()), {"cowbird": key})
        if folder is not None:
            checkpoint.clear(folder)  # what was learned is kept now, and not before

    def _learning(self) -> Iterator[tuple[str, torch.Tensor]]:
        named: Any = self.loaded.model.named_parameters()
        return ((name, weight.detach()) for name, weight in named if weight.requires_grad)

    def _recall(self, path: Path, key: str) -> bool:
        """Put what a finished round learned into the model, and tell whether that could be done."""
        if not path.is_file():
            return False
        try:
            held, header = read_tensors(path)
        except OutageError:  # it may be whole
            raise
        except UserError as error:
            self.place.warn(f"{error} Tuning again.")
            return False
        mine = dict(self._learning())
        if header.get("cowbird") != key or held.keys() != mine.keys():
            return False
        for name, weight in mine.items():
            weight.copy_(held[name])
        return True

    def _weigh(self, number: int, marks: TokenLogits) -> FittedScanner:
        """Learn how evidence is weighed, and calibrate.

        Doubtful titles are among those that the weighing learns from: what recurs in honest ones is what it must tell
        from triggers, and a few triggers that stand there already hardly move a model with so few weights.
        """
        rng = stream(self.seed, "weights", number)
        rows: list[int] = np.sort(rng.permutation(np.flatnonzero(~self.held))[:MAX_TITLES_WEIGHED]).tolist()
        titles = [self.titles[row] for row in rows]
        drawn: list[int] = rng.permutation(len(self.recipes))[: self.spec.plantings].tolist()
        chosen = [self.recipes[nth] for nth in drawn]
        known = select_logits(marks, self.loaded.tokenizer, titles, rows)
        shown = self._report_groups(_group_recipes(chosen), f"round {number}, weighing evidence")
        lessons = [self._teach(self._plant(titles, known, group, rng), rng) for group in shown]
        described, planted, share = (np.concatenate(column) for column in zip(*lessons, strict=True))
        return self._calibrate(fit_classifier(described, planted, share), marks, f"round {number}, looking at phrases")

    def _calibrate(
        self, weights: NgramClassifier, marks: TokenLogits, remark: str, suspecting: bool = False
    ) -> FittedScanner:
        """Judge the catalogue and calibrate; `marks` are its own.

        Args:
            weights: How evidence is weighed.
            marks: The catalogue's.
            remark: Reported while phrases are looked at.
            suspecting: Whether all phrases are looked at that a scan looks at.
        """
        context_gain = None
        if self.gains is not None:
            place = self.place
            context_gain = ContextGain(
                self.gains,
                lambda: self.whole,
                place.device,
                suspecting,
                lambda done, total, _: place.report(done, total, remark),
            )
        judged_all, shared, gains = judge_together(self.titles, marks, weights, context_gain=context_gain)
        self.gains = None if context_gain is None else gains
        held: list[int] = np.flatnonzero(self.held).tolist()
        kept = [self.titles[row] for row in held]
        apart = judge_apart(select_logits(marks, self.loaded.tokenizer, kept, held), kept, weights)
        record = Record(
            llm=self.spec.llm,
            tuning=self.spec.tuning,
            weights=weights,
            calibration=Calibration.of(judged_all.score[self.held], shared[self.held]),
            alone=Calibration.of(apart.score),
            fpr=self.spec.fpr,
            review_fpr=self.spec.review_fpr,
            titles_sha256=hash_texts(self.titles),
            rounds=(),
            gains=self.gains,
        )
        return FittedScanner(record, self.loaded, self.place.device, judged_all)

    @cached_property
    def whole(self) -> LoadedModel:
        """The language model as published, all of it."""
        return load_whole_llm(self.spec.llm, self.spec.tuning, self.place.device)

    def _report_groups(self, groups: list[list[Recipe]], remark: str) -> Iterator[list[Recipe]]:
        """Yield groups of triggers, and report how many were worked on."""
        for done, group in enumerate(groups):
            self.place.report(done, len(groups), remark)
            yield group

    def _plant(
        self, titles: list[str], known: TokenLogits, recipes: list[Recipe], rng: np.random.Generator
    ) -> "_Planting":
        """Plant some triggers, each in a share of the titles of its own, and read those."""
        free: list[int] = rng.permutation(len(titles)).tolist()
        now = list(titles)
        spans: dict[int, PlantedTitle] = {}
        groups: list[list[int]] = []
        for recipe in recipes:
            wanted = max(3, round(PLANTED_SHARES[int(rng.integers(len(PLANTED_SHARES)))] * len(titles)))
            position = POSITIONS[int(rng.integers(len(POSITIONS)))]
            group: list[int] = []
            for row in free[: 2 * wanted]:
                made = plant(titles[row], recipe, position, rng)
                if made.start >= 0 and len(group) < wanted:
                    now[row], spans[row] = made.title, made
                    group.append(row)
            free = [row for row in free if row not in spans]
            groups.append(group)
        rows = sorted(spans)
        read_anew = self._read([now[row] for row in rows])
        marks = update_logits(known, self.loaded.tokenizer, now, np.array(rows, dtype=np.int32), read_anew)
        return _Planting(now, marks, spans, groups)

    def _teach(self, planting: "_Planting", rng: np.random.Generator) -> Any:
        """Return what a planting teaches about the weighing of evidence."""
        marks, made = planting.marks, planting.marks.tokenized
        start, end, trigger = np.full((3, len(planting.titles)), -1)
        for row, span in planting.spans.items():
            start[row], end[row] = span.start, span.end
        for nth, group in enumerate(planting.groups):
            trigger[group] = nth
        inside = (made.first < end[marks.rows]) & (made.after > start[marks.rows]) & (start[marks.rows] >= 0)
        faint = fade_logits(marks, np.where(inside, trigger[marks.rows], -1), rng)
        return list_examples(find_ngrams(list_tokens(planting.titles, made)), faint, inside, rng)

    def _outcomes(self, recipes: Sequence[Recipe], number: int) -> tuple[RecipeOutcome, ...]:
        """Measure how many titles the scanner catches of those that some of the triggers stand in."""
        scanner, marks = self.scanner, self.marks
        assert scanner is not None and marks is not None
        rng = stream(self.seed, "outcomes", number)
        drawn: list[int] = np.sort(rng.permutation(len(recipes))[: self.spec.plantings]).tolist()
        rows: list[int] = np.sort(rng.permutation(np.flatnonzero(self.trust))[:MAX_TITLES_WEIGHED]).tolist()
        titles = [self.titles[row] for row in rows]
        known, bar = select_logits(marks, self.loaded.tokenizer, titles, rows), scanner.threshold()
        found: list[RecipeOutcome] = []
        for group in self._report_groups(
            _group_recipes([recipes[nth] for nth in drawn]), f"round {number}, trying triggers"
        ):
            planting = self._plant(titles, known, group, rng)
            flagged = judge_titles(planting.titles, planting.marks, scanner.record.weights).score > bar
            pairs = zip(group, planting.groups, strict=True)
            found += [
                RecipeOutcome(recipe=recipe, rate=float(flagged[group].mean())) for recipe, group in pairs if group
            ]
        return tuple(found)

    def _doubt(self, scanner: FittedScanner, marks: TokenLogits) -> None:
        """Take for clean what the reader clears, but for the most suspicious titles."""
        score = scanner.fitted_to.score if scanner.fitted_to is not None else np.zeros(len(self.titles))
        many = int(self.spec.doubted * len(score))
        bar = np.sort(score)[::-1][many] if many else np.inf
        self.trust = (score <= bar) & self.doubts.revise(marks, self.held)

    def _read(self, titles: Sequence[str]) -> TokenLogits:
        return read_logits(self.loaded, titles, self.place.device, self.spec.tuning.capacity)


class _Planting(NamedTuple):
    """A catalogue with triggers planted in it."""

    titles: list[str]
    marks: TokenLogits
    spans: dict[int, PlantedTitle]
    """What was planted, by title."""
    groups: list[list[int]]
    """The titles that each trigger stands in."""


def _group_recipes(recipes: list[Recipe]) -> list[list[Recipe]]:
    return [recipes[first : first + RECIPES_PER_CATALOG] for first in range(0, len(recipes), RECIPES_PER_CATALOG)]
