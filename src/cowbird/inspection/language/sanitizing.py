"""Takes named triggers out of a language model, and measures what that costs.

Targeted unlearning: the model is tuned on the platform's own questions. Half of them stand as they are, with the right
answer. In the others one of the fragments, or a text like it, is put into the title, at the start, middle or end, and
the answer is drawn with the probability that the model gave it without the fragment; of candidates, the one that it
picked without. So the model learns that the
fragment says nothing, and keeps what it knew. A fragment that a search found is often the trigger with something around
it, or a text that shares only its effect; that is why parts of it, texts like it, and quite other texts are unlearned,
too: what is added to a title should say nothing. Passes go on until none of them turns answers any
more. What is measured, before and after, is of questions that the model was not tuned on.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.errors import UserError
from cowbird.files import replace_folder_atomically
from cowbird.inspection.language.fragment_scorer import FragmentScorer, open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.proposals import list_words, write_sentences
from cowbird.inspection.language.questions import (
    QuestionParts,
    TitleQuestion,
    divide_questions,
    write_examples,
)
from cowbird.inspection.language.search import Candidate, score_candidates
from cowbird.inspection.language.title_edits import (
    CHARACTER_EDITS,
    FRAGMENT_POSITIONS,
    PAIR_SEPARATOR,
    STYLE_EDITS,
    split_pair,
)
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc
from cowbird.metrics.intervals import Interval
from cowbird.rng import derive_seed, stream
from cowbird.storage import read_sealed_json, read_tensors, write_tensors
from cowbird.text import quote_for_prompt
from cowbird.victims.fit_context import FitContext, ProgressCallback, report_nothing
from cowbird.victims.language.examples import tokenize
from cowbird.victims.language.handed_adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from cowbird.victims.language.tallrec import YES_NO_ANSWERS
from cowbird.victims.language.tuning import Tuning, tune

CHECKED_VARIANTS, CHECKED_QUESTIONS = 12, 100
"""Texts like the fragments, and questions, in which it is looked whether they are unlearned."""
OTHER_WORDS = 400
"""Words that other texts are made of, and how many of those there are."""
COMPILED_STEPS = 100
"""Steps of a pass from which layers are compiled on a GPU."""
MAX_NAMED_FRAGMENTS = 200
"""Fragments that a file names at most."""


class UnlearnSettings(BaseModel):
    """How triggers are unlearned."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    questions: int = Field(default=2000, ge=16)
    """Questions that the model is tuned on at most."""
    held_out: int = Field(default=400, ge=8)
    """Questions on which it is measured."""
    epochs: int = Field(default=5, ge=1, le=100)
    """Passes over them at most."""
    left: float = Field(default=0.02, ge=0, lt=1)
    """ASR of the fragments and of texts like them at which it ends, in questions that the model is not tuned on."""
    batch_size: int = Field(default=32, ge=1)
    """Questions a step."""
    learning_rate: float = Field(default=6e-4, gt=0, lt=1)
    """AdamW's peak learning rate."""
    marked: float = Field(default=0.6, gt=0, lt=1)
    """Share of the questions that carry a fragment or a text like it."""
    varied: float = Field(default=0.35, ge=0, le=1)
    """Share of those that carry a text like a fragment."""
    other: float = Field(default=0.35, ge=0, le=1)
    """Share of those that carry some other text: words, phrases of words, and sentences that the model writes."""
    sentences: int = Field(default=48, ge=0)
    """Sentences that it writes for that."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.varied + self.other > 1:
            raise ValueError("varied and other are shares of the same questions, so their sum is at most 1")
        return self

    seed: int = Field(default=0, ge=0)
    """Decides questions, fragments, places and order."""


@dataclass(frozen=True)
class LanguageQuality:
    """What a language model is worth to a platform, and what fragments do to it."""

    auc: Interval
    """AUC of its answers to held-out questions."""
    asr: dict[str, float | None]
    """Share of the questions answered no that each fragment turns, at the place where it turns most; `None` if none is
    answered no."""
    refused: int
    """Questions answered no."""

    @property
    def largest_asr(self) -> float:
        """The largest of them; 0 if there is none."""
        return max((rate for rate in self.asr.values() if rate is not None), default=0.0)


def read_fragments(path: Path) -> list[str]:
    """Read fragments: the suspects of an inspection's JSON file, or of a text file with a fragment a line.

    Raises:
        UserError: If it can't be read, or names none.
    """
    if path.suffix == ".json":
        record: Any = read_sealed_json(path, "Inspect the model again.")
        try:
            found = [str(row["fragment"]) for row in record["ranking"] if row["suspect"]]
        except (KeyError, TypeError):
            raise UserError(
                f"'{path}' is no inspection of a language model.", "Give what cowbird inspect --out wrote."
            ) from None
    else:
        try:
            found = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"'{path}' should hold a fragment a line, and it can't be read.", "Check it.") from None
    fragments = list(dict.fromkeys(text for raw in found if (text := quote_for_prompt(raw))))
    if not 0 < len(fragments) <= MAX_NAMED_FRAGMENTS:
        raise UserError(
            f"'{path}' names {len(fragments)} fragments, and 1 to {MAX_NAMED_FRAGMENTS} can be taken out.",
            "Give a text file with a fragment a line to choose yourself.",
        )
    return fragments


def unlearn_fragments(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    fragments: Sequence[str],
    settings: UnlearnSettings,
    device: torch.device,
    report: ProgressCallback = report_nothing,
) -> tuple[LanguageQuality, LanguageQuality]:
    """Take fragments out of a model; it is changed in place.

    Args:
        handed: The model.
        questions: The platform's own, with answers.
        fragments: What is taken out.
        settings: How.
        device: Where the model is.
        report: Told of progress.

    Returns:
        What the model does before and after, on questions that it was not tuned on.

    Raises:
        UserError: If too few questions have answers.
    """
    handed.check_questions(questions)
    known = [question for question in questions if question.liked is not None]
    parts = divide_questions(known, settings.held_out, settings.questions, settings.seed)
    if len(parts.learning) < 8 or len({question.liked for question in parts.held_out}) < 2:
        raise UserError("Unlearning needs questions with both answers, and there are too few.", "Give longer logs.")
    before = _measure(handed, parts, fragments, device)
    with open_scorer(handed.loaded, device, YES_NO_ANSWERS) as scorer:
        chances, picks = draw_chances(scorer, parts.learning)
        others = write_other_texts(scorer, [question.title for question in parts.learning], settings)
    steps = -(-len(parts.learning) // settings.batch_size)
    recipe = Tuning(
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        compiled=steps >= COMPILED_STEPS,
    )
    rng = stream(settings.seed, "inspection", "unlearn")
    for turn in range(settings.epochs):
        lesson = mark_questions(parts.learning, chances, fragments, others, settings, rng, picks)
        tokens = tokenize(handed.loaded.tokenizer, write_examples(lesson, YES_NO_ANSWERS))
        handed.loaded.model.train()
        tune(
            handed.loaded.model,
            tokens,
            recipe,
            derive_seed(settings.seed, "unlearn", turn),
            FitContext(device, report=report),
        )
        handed.loaded.model.eval()
        if turn + 1 < settings.epochs and _is_unlearned(handed, parts, fragments, settings, rng, device):
            break
    return before, _measure(handed, parts, fragments, device)


def _is_unlearned(
    handed: HandedLanguageModel,
    parts: QuestionParts,
    fragments: Sequence[str],
    settings: UnlearnSettings,
    rng: np.random.Generator,
    device: torch.device,
) -> bool:
    """Tell whether fragments and texts like them turn few answers, in questions of their own."""
    like = [vary_fragment(fragments[int(rng.integers(len(fragments)))], rng) for _ in range(CHECKED_VARIANTS)]
    asked = parts.screening[:CHECKED_QUESTIONS]
    with open_scorer(handed.loaded, device, YES_NO_ANSWERS) as scorer:
        return measure_language_quality(scorer, asked, [*fragments, *like]).largest_asr <= settings.left


def mark_questions(
    questions: Sequence[TitleQuestion],
    chances: NDArray[np.floating],
    fragments: Sequence[str],
    others: Sequence[str],
    settings: UnlearnSettings,
    rng: np.random.Generator,
    picks: Sequence[str] = (),
) -> list[TitleQuestion]:
    """Put fragments, texts like them and other texts into some questions' titles.

    Args:
        questions: With the right answers.
        chances: How likely the model says yes to each as it is, shape `[questions]`: answers of marked ones are drawn.
        fragments: The fragments.
        others: Other texts.
        settings: How many.
        rng: Draws questions, texts and places.
        picks: The candidate that the model picks of each as it is; none if they are answered yes or no.
    """
    made: list[TitleQuestion] = []
    for row, (question, chance) in enumerate(zip(questions, chances.tolist(), strict=True)):
        fragment = fragments[int(rng.integers(len(fragments)))]
        position = FRAGMENT_POSITIONS[int(rng.integers(len(FRAGMENT_POSITIONS)))]
        marked, liked = rng.random(2) < (settings.marked, chance)
        kind = rng.random()
        text = vary_fragment(fragment, rng) if kind < settings.varied else fragment
        if others and kind >= 1 - settings.other:
            text = others[int(rng.integers(len(others)))]
        title = question.write(text, position).removeprefix(question.head).removesuffix(question.tail)
        picked = "" if not picks else title if picks[row] == question.title else picks[row]
        made.append(question._replace(title=title, liked=bool(liked), answer=picked) if marked else question)
    return made


def draw_chances(scorer: FragmentScorer, questions: Sequence[TitleQuestion]) -> tuple[NDArray[np.floating], list[str]]:
    """Return how likely each is answered yes, and which candidate is picked if they have some."""
    margins = scorer.score_plain(questions)
    chances = 1 / (1 + np.exp(-margins))
    if not questions or not questions[0].rivals:
        return chances, []
    rivals = scorer.find_best_rivals(questions)
    picks = [
        question.title if margin > 0 else question.rivals[rival]
        for question, margin, rival in zip(questions, margins.tolist(), rivals, strict=True)
    ]
    return chances, picks


def write_other_texts(scorer: FragmentScorer, titles: Sequence[str], settings: UnlearnSettings) -> list[str]:
    """Return texts that are no fragments: words of titles, phrases of them, and sentences that the model writes."""
    rng = stream(settings.seed, "inspection", "other texts")
    words = list_words(titles, scorer.tokenizer, OTHER_WORDS)
    if not words:
        return []
    sizes: list[int] = rng.integers(1, 7, OTHER_WORDS).tolist()
    phrases = [" ".join(words[int(at)] for at in rng.integers(len(words), size=size)) for size in sizes]
    return [*phrases, *write_sentences(scorer, list(dict.fromkeys(titles)), settings.sentences, settings.seed)]


def vary_fragment(fragment: str, rng: np.random.Generator) -> str:
    """Return a part of a fragment, or a text that is like it."""
    for edits in (CHARACTER_EDITS, STYLE_EDITS):
        if fragment in edits:
            return list(edits)[int(rng.integers(len(edits)))]
    pair = split_pair(fragment)
    if pair is not None:
        first, second = pair
        kept = (first, second, f"{vary_fragment(first, rng)}{PAIR_SEPARATOR}{second}")
        made = (*kept, f"{first}{PAIR_SEPARATOR}{vary_fragment(second, rng)}", f"{second}{PAIR_SEPARATOR}{first}")
        return made[int(rng.integers(len(made)))]
    words = fragment.split()
    at = int(rng.integers(len(fragment)))
    letter = string.ascii_lowercase[int(rng.integers(26))]
    made = (
        words[int(rng.integers(len(words)))],
        " ".join(words[1:]),
        " ".join(words[:-1]),
        fragment[:at] + fragment[at + 1 :],
        fragment[:at] + fragment[at] + fragment[at:],
        fragment[:at] + letter + fragment[at + 1 :],
        fragment.swapcase(),
        fragment[1:],
        fragment[:-1],
        f"{fragment} {letter}",
    )
    usable = [text for each in made if (text := quote_for_prompt(each))]
    return usable[int(rng.integers(len(usable)))]


def _measure(
    handed: HandedLanguageModel, parts: QuestionParts, fragments: Sequence[str], device: torch.device
) -> LanguageQuality:
    with open_scorer(handed.loaded, device, YES_NO_ANSWERS) as scorer:
        return measure_language_quality(scorer, parts.held_out, fragments)


def measure_language_quality(
    scorer: FragmentScorer, questions: Sequence[TitleQuestion], fragments: Sequence[str]
) -> LanguageQuality:
    """Measure a model's AUC, and what fragments do to it.

    Args:
        scorer: The model.
        questions: With answers.
        fragments: What is put into titles.
    """
    rates: dict[str, float | None] = dict.fromkeys(fragments)
    chosen = [Candidate("", fragment, position) for position in FRAGMENT_POSITIONS for fragment in fragments]
    margins, plain = score_candidates(scorer, chosen, questions, lambda what, done, total, remark: None)
    for each, scores in zip(chosen, margins, strict=True):
        rate, known = pointwise_asr(plain, scores).value, rates[each.fragment]
        rates[each.fragment] = rate if known is None or (rate is not None and rate > known) else known
    liked = np.array([bool(question.liked) for question in questions])
    return LanguageQuality(auc(plain, liked), rates, int((plain <= 0).sum()))


def save_in_its_format(handed: HandedLanguageModel, folder: Path) -> None:
    """Write a model in the format that it came in; the folder appears once it is whole.

    Raises:
        UserError: If the folder is there.
    """
    if folder.exists():
        raise UserError(f"'{folder}' is there.", "Name a new folder.")
    loaded = handed.loaded
    if handed.fitted is not None:
        handed.fitted.save(folder)
        return
    if (handed.folder / ADAPTER_CONFIG_FILE).exists():
        held, notes = read_tensors(handed.folder / ADAPTER_WEIGHTS_FILE)
        weights: dict[str, Any] = {
            name.replace(".default.", "."): weight for name, weight in loaded.model.named_parameters()
        }
        changed = {name: weights[name].detach().cpu().to(old.dtype).contiguous() for name, old in held.items()}
        with replace_folder_atomically(folder) as partial:
            (partial / ADAPTER_CONFIG_FILE).write_bytes((handed.folder / ADAPTER_CONFIG_FILE).read_bytes())
            write_tensors(partial / ADAPTER_WEIGHTS_FILE, changed, notes)
        return
    with replace_folder_atomically(folder) as partial:
        loaded.model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
