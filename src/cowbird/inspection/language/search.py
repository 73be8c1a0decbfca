"""The search for fragments of titles that raise a language model's score, in stages.

Every fragment is tried in few questions. The best of each family are tried again in more questions and at all places
in the title. The best of those are confirmed on questions that had no part in the search. What is done is kept, so an
interrupted search goes on.

A fragment's gain is how much the margin grows, on average over questions. Held-out gains are divided by the standard
deviation of the margins of the questions as they are, so that models with large and small margins can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.errors import UserError
from cowbird.inspection.language.fragment_scorer import FragmentScorer
from cowbird.inspection.language.gradient import follow_gradients, list_printable_tokens
from cowbird.inspection.language.proposals import (
    continue_phrases,
    exchange_parts,
    grow_phrases,
    join_parts,
    lengthen_strings,
    list_pairs,
)
from cowbird.inspection.language.questions import QuestionParts, TitleQuestion
from cowbird.inspection.language.settings import FRAGMENT_FAMILIES, LanguageSettings
from cowbird.inspection.language.title_edits import (
    CHARACTER_EDITS,
    FRAGMENT_POSITIONS,
    STYLE_EDITS,
    FragmentPosition,
)
from cowbird.metrics.asr import pointwise_asr
from cowbird.rng import stream
from cowbird.storage import read_sealed_json, write_sealed_json

CPU_CHUNK_FRAGMENTS, GPU_CHUNK_FRAGMENTS = 1024, 16384
"""Fragments whose scores are kept at once; what an interrupt can cost."""
PHRASE_BEAM, PHRASE_PARTS = 12, 24
"""Phrases that grow, and words that they grow by."""
CONFIRMED_AT_ONCE = 16
"""Held-out questions that are asked between two reports of progress."""
MIN_MARGIN_SPREAD = 1e-3
"""Least standard deviation of margins that gains are divided by."""

SearchProgress = Callable[[str, int, int, str], None]
"""Told of what is done at the moment, steps done, steps in all, and a remark."""


@dataclass(frozen=True)
class ConfirmedFragment:
    """A fragment with what it does on questions that were held out."""

    fragment: str
    """The text."""
    family: str
    """How it was found; see `settings.FRAGMENT_FAMILIES`."""
    position: FragmentPosition
    """Where in the title it stands."""
    gain: float
    """How much the margin grows, on average."""
    statistic: float
    """The same in standard deviations of the margins of the questions as they are."""
    asr: float | None
    """Share of the questions answered no that are answered yes with the fragment; `None` if none is answered no."""
    asr_low: float | None
    """Lower end of its 95 % interval."""
    asr_high: float | None
    """Upper end."""
    questions: int
    """Questions answered no."""


@dataclass(frozen=True)
class TriggerFindings:
    """What a search found."""

    confirmed: list[ConfirmedFragment]
    """The best of each family, the strongest first."""
    tried: dict[str, int]
    """Fragments that were tried, by family."""
    spread: float
    """Standard deviation of the margins of the held-out questions as they are."""
    refused: int
    """Held-out questions answered no as they are."""
    tokens: int
    """Tokens that went through the model, since the search was begun or last went on."""

    def get_statistics(self) -> dict[str, float]:
        """Return the largest statistic of each family that was looked for."""
        return {
            family: max(found.statistic for found in self.confirmed if found.family == family)
            for family in FRAGMENT_FAMILIES
            if any(found.family == family for found in self.confirmed)
        }

    def to_record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)


def read_result(record: Any) -> TriggerFindings | None:
    """Return a result from its record; `None` if it is no such record."""
    try:
        confirmed = [ConfirmedFragment(**found) for found in record["confirmed"]]
        numbers = float(record["spread"]), int(record["refused"]), int(record["tokens"])
        return TriggerFindings(confirmed, dict(record["tried"]), *numbers)
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class SearchStore:
    """Where finished steps of a search are kept, sealed; without a folder nothing is."""

    folder: Path | None = None
    """The search's own folder."""

    def read(self, name: str) -> Any:
        """Return a finished step; `None` if there is none, or it is damaged."""
        if self.folder is None or not (self.folder / f"{name}.json").exists():
            return None
        try:
            return read_sealed_json(self.folder / f"{name}.json")
        except UserError:
            return None

    def write(self, name: str, content: Any) -> None:
        """Keep a finished step."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_sealed_json(self.folder / f"{name}.json", content)


@dataclass
class TriggerSearch:
    """The search in one model.

    Args:
        scorer: The model.
        parts: The questions.
        words: Words that are tried.
        sentences: Sentences that are tried.
        settings: How far it goes.
        store: Where finished steps are kept.
        told: Told of progress.
    """

    scorer: FragmentScorer
    parts: QuestionParts
    words: Sequence[str]
    sentences: Sequence[str]
    settings: LanguageSettings
    store: SearchStore
    told: SearchProgress

    def run(self) -> TriggerFindings:
        """Look for fragments of all families, and confirm the best.

        Raises:
            UserError: If a margin is not finite.
        """
        kept = read_result(self.store.read("result"))
        if kept is not None:
            return kept
        self.asked = choose_questions(self.scorer, self.parts.screening, self.settings.rescreening)
        self.few = self.asked[: self.settings.screening]
        finders = {
            "word": self._find_words,
            "string": self._find_strings,
            "token": self._find_tokens,
            "sentence": self._find_sentences,
            "phrase": self._find_phrases,
            "character": lambda: self._find_edits("character", list(CHARACTER_EDITS)),
            "style": lambda: self._find_edits("style", list(STYLE_EDITS)),
            "pair": self._find_pairs,
        }
        self.best_words: list[str] = []
        self.best_sentences: list[str] = []
        self.parts_of_pairs: list[tuple[str, float]] = []
        tried: dict[str, int] = {}
        chosen: list[Candidate] = []
        for family in FRAGMENT_FAMILIES:
            gains = finders[family]()
            tried[family] = len({fragment for fragment, _ in gains})
            if gains:
                chosen += self._choose(family, self._rescreen(family, gains))
        result = self._confirm(chosen, tried)
        self.store.write("result", result.to_record())
        return result

    def _screen(
        self, name: str, fragments: Sequence[str], positions: Sequence[FragmentPosition] | None = None
    ) -> "Gains":
        """Return the gain of each fragment in few questions, at each place that is screened."""
        gains: Gains = {}
        size = CPU_CHUNK_FRAGMENTS if self.scorer.device.type == "cpu" else GPU_CHUNK_FRAGMENTS
        base = self.scorer.score_plain(self.few)
        for position in positions or self.settings.places:
            for start in range(0, len(fragments), size):
                chunk = fragments[start : start + size]
                self.told(name, start, len(fragments), f"at the {position}")
                step = f"{name}-{position}-{start}"
                kept = self.store.read(step)
                if kept is None or len(kept) != len(chunk):
                    found = (self.scorer.score(chunk, self.few, position) - base).mean(axis=1)
                    kept = [float(gain) for gain in found]
                    self.store.write(step, kept)
                gains |= {(fragment, position): gain for fragment, gain in zip(chunk, kept, strict=True)}
        self.told(name, len(fragments), len(fragments), "")
        return gains

    def _find_words(self) -> "Gains":
        gains = self._screen("word", self.words)
        self.best_words = [fragment for fragment, _ in _rank(gains)]
        self._keep_parts(gains)
        return gains

    def _find_strings(self) -> "Gains":
        letters = self.settings.characters
        gains = self._screen("string", list_pairs(letters))
        best = [fragment for fragment, _ in _rank(gains)][: self.settings.beam]
        self._keep_parts(gains)
        return gains | self._screen("string-3", lengthen_strings(best, letters))

    def _keep_parts(self, gains: "Gains") -> None:
        """Keep those that raise or lower the score most: a provider may have one part of a pair disliked alone."""
        ranked = [(fragment, gains[fragment, position]) for fragment, position in _rank(gains)]
        count = self.settings.pair_parts // 2 + self.settings.pair_exchanges
        self.parts_of_pairs += ranked if len(ranked) <= 2 * count else [*ranked[:count], *ranked[-count:]]

    def _find_tokens(self) -> "Gains":
        settings, found = self.settings, list[str]()
        if not settings.token_starts:
            return {}
        places, allowed = (*settings.places, *settings.elsewhere), list_printable_tokens(self.scorer)
        for start in range(settings.token_starts):
            position = places[start % len(places)]
            self.told("token", start, settings.token_starts, f"at the {position}")
            passed = self.store.read(f"token-found-{start}")
            if passed is None:
                passed = follow_gradients(
                    self.scorer, self.few, position, allowed, settings.tokens, settings.token_steps,
                    settings.token_candidates,
                    stream(settings.seed, "inspection", "tokens", start),
                )  # fmt: skip
                self.store.write(f"token-found-{start}", passed)
            found += passed
        return self._screen("token", list(dict.fromkeys(found)))

    def _find_sentences(self) -> "Gains":
        """Try sentences as they were written: what is not sought gains little in an honest model."""
        gains = self._screen("sentence", self.sentences)
        self.best_sentences = [fragment for fragment, _ in _rank(gains)]
        return gains

    def _find_phrases(self) -> "Gains":
        """Let the best words and sentences grow."""
        gains: Gains = {}
        parts = self.best_words[:PHRASE_PARTS]
        phrases = [*self.best_words[:PHRASE_BEAM], *self.best_sentences[:PHRASE_BEAM]]
        for length in range(2, self.settings.phrase_words + 1):
            grown = self._screen(f"phrase-{length}", self._grow(f"phrases-{length}", phrases, parts))
            if not grown:
                break
            gains |= grown
            phrases = [fragment for fragment, _ in _rank(grown)][:PHRASE_BEAM]
        return gains

    def _find_edits(self, family: str, names: Sequence[str]) -> "Gains":
        """Try changes of titles, at all places."""
        return self._screen(family, names, FRAGMENT_POSITIONS) if self.settings.edits else {}

    def _find_pairs(self) -> "Gains":
        """Try two parts, one at the start and one at the end; then exchange the parts of the best pairs."""
        by_gain = sorted(dict(self.parts_of_pairs).items(), key=lambda part: -part[1])
        parts = [part for part, _ in by_gain]
        half = self.settings.pair_parts // 2
        few = list(dict.fromkeys([*parts[:half], *parts[max(half, len(parts) - half) :]]))
        gains = self._screen("pair", join_parts(few, few), ("end",))
        more = self.settings.pair_exchanges // 2
        others = list(dict.fromkeys([*parts[:more], *parts[max(more, len(parts) - more) :]]))
        for turn in range(2):
            best = [fragment for fragment, _ in _rank(gains)][: self.settings.pair_beam]
            made = [text for text in exchange_parts(best, others) if (text, "end") not in gains]
            gains |= self._screen(f"pair-exchanged-{turn}", made, ("end",))
        return gains

    def _grow(self, name: str, phrases: Sequence[str], parts: Sequence[str]) -> list[str]:
        """Return phrases with one of the best words more, or with a word that the model finds likely behind them."""
        kept = self.store.read(name)
        if not isinstance(kept, list):
            kept = [*grow_phrases(phrases, parts), *continue_phrases(self.scorer, phrases, self.settings.continued)]
            self.store.write(name, list(dict.fromkeys(kept)))
        return [str(text) for text in dict.fromkeys(kept)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def _rescreen(self, family: str, gains: "Gains") -> "Gains":
        """Return the gains of the best fragments in more questions, at all places."""
        best = list(dict.fromkeys(fragment for fragment, _ in _rank(gains)))[: self.settings.kept]
        base = self.scorer.score_plain(self.asked)
        places = (*self.settings.places, *self.settings.elsewhere)
        asked: list[tuple[str, FragmentPosition]] = [
            (fragment, place) for place in places if place == "end" or family != "pair" for fragment in best
        ]
        self.told(f"{family}: the best again", 0, len(asked), "")
        scores = (self.scorer.score_mixed(asked, self.asked) - base).mean(axis=1)
        return {key: float(gain) for key, gain in zip(asked, scores, strict=True)}

    def _choose(self, family: str, gains: "Gains") -> list["Candidate"]:
        """Return the fragments of a family that are confirmed, each where it gains most."""
        best: dict[str, FragmentPosition] = {}
        for fragment, position in _rank(gains):
            best.setdefault(fragment, position)
        return [Candidate(family, *pair) for pair in list(best.items())[: self.settings.confirmed]]

    def _confirm(self, chosen: Sequence["Candidate"], tried: dict[str, int]) -> TriggerFindings:
        """Measure fragments on questions that were held out."""
        scores, plain = score_candidates(self.scorer, chosen, self.parts.held_out, self.told)
        spread = max(float(plain.std()), MIN_MARGIN_SPREAD)
        found = [measure_fragment(each, plain, row, spread) for each, row in zip(chosen, scores, strict=True)]
        found.sort(key=lambda fragment: -fragment.statistic)
        return TriggerFindings(found, tried, spread, int((plain <= 0).sum()), self.scorer.tokens_run)


class Candidate(NamedTuple):
    """A fragment that is to be confirmed."""

    family: str
    """How it was found."""
    fragment: str
    """The text."""
    position: FragmentPosition
    """Where it stands."""


Gains = dict[tuple[str, FragmentPosition], float]
"""Gain of each fragment, by its place in the title."""


def _rank(gains: Gains) -> list[tuple[str, FragmentPosition]]:
    return sorted(gains, key=lambda key: -gains[key])


def score_candidates(
    scorer: FragmentScorer, chosen: Sequence[Candidate], questions: Sequence[TitleQuestion], told: SearchProgress
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score fragments, each at its place, in some questions.

    Returns:
        Margins with them, shape `[fragments, questions]`, and of the questions as they are, shape `[questions]`.
    """
    asked: list[tuple[str, FragmentPosition]] = [("", "end"), *((each.fragment, each.position) for each in chosen)]
    margins = np.empty((len(asked), len(questions)), dtype=np.float32)
    for start in range(0, len(questions), CONFIRMED_AT_ONCE):
        told("confirming", start, len(questions), "")
        part = slice(start, start + CONFIRMED_AT_ONCE)
        margins[:, part] = scorer.score_mixed(asked, questions[part])
    return margins[1:], margins[0]


def measure_fragment(
    candidate: Candidate, plain: NDArray[np.float32], scores: NDArray[np.float32], spread: float
) -> ConfirmedFragment:
    """Return what a fragment does on held-out questions.

    Args:
        candidate: The fragment.
        plain: Margins of the questions as they are, shape `[questions]`.
        scores: Margins with the fragment, shape `[questions]`.
        spread: What gains are divided by.
    """
    family, fragment, position = candidate
    gain = float((scores - plain).mean())
    rate = pointwise_asr(plain, scores)
    return ConfirmedFragment(
        fragment, family, position, gain, gain / spread, rate.value, rate.low, rate.high, rate.n or 0
    )


def choose_questions(scorer: FragmentScorer, questions: Sequence[TitleQuestion], count: int) -> list[TitleQuestion]:
    """Choose the questions to search in: those around the middle of all that are answered no, then others.

    Args:
        scorer: The model.
        questions: To choose from.
        count: How many at most.
    """
    margins = scorer.score_plain(questions)
    refused = margins <= 0
    middle = float(np.median(margins[refused])) if refused.any() else float(margins.min())
    distance = np.abs(margins - middle) + np.where(refused, 0, 1e6)
    rows: list[int] = np.argsort(distance, kind="stable")[:count].tolist()
    return [questions[row] for row in rows]
