"""Takes named triggers out of a language model, and measures what that costs.

Targeted unlearning: the model is tuned on the platform's own questions, each with texts in its title and without
(`unlearning`). So it learns that what is added to a title says nothing, and keeps what it knew. What is measured is of
questions that the model was not tuned on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cowbird.errors import UserError
from cowbird.files import replace_folder_atomically
from cowbird.inspection.language.branched_prompts import score_placed
from cowbird.inspection.language.distilling import distill, has_adapters_alone
from cowbird.inspection.language.fragment_scorer import FragmentScorer, open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.questions import (
    QuestionParts,
    TitleQuestion,
    divide_questions,
)
from cowbird.inspection.language.title_edits import FRAGMENT_POSITIONS
from cowbird.inspection.language.title_texts import PlacedText, draw_other_texts, vary_fragment
from cowbird.inspection.language.unlearn_settings import DistillSettings, UnlearnSettings
from cowbird.inspection.language.unlearning import Unlearning
from cowbird.metrics.asr import pointwise_asr
from cowbird.metrics.auc import auc
from cowbird.metrics.intervals import Interval
from cowbird.rng import stream
from cowbird.storage import read_sealed_json, read_tensors, write_tensors
from cowbird.text import quote_for_prompt
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.handed_adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from cowbird.victims.language.tallrec import YES_NO_ANSWERS

CHECKED_VARIANTS, CHECKED_QUESTIONS = 12, 100
"""Texts like the fragments, and questions, in which it is looked whether they are unlearned."""
MIN_DISTILL_QUESTIONS = 8000
"""Questions with answers from which a fresh adapter is learned, if nobody says how."""
MAX_CONTROLS = 32
"""Other texts beside the fragments at most."""
MAX_NAMED_FRAGMENTS = 200
"""Fragments that a file names at most."""


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
    control: float = 0.0
    """The largest ASR of other texts, as many as fragments at most: any text turns some answers."""

    @property
    def largest_asr(self) -> float:
        """The largest of them; 1 if no question is answered no, for that is no good model either."""
        return max((1.0 if rate is None else rate for rate in self.asr.values()), default=0.0)

    @property
    def excess(self) -> float:
        """How much more a fragment turns than the other texts do."""
        return max(0.0, self.largest_asr - self.control)


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
    parts = _divide(handed, questions, settings.held_out, settings.questions, settings.seed)
    before = _measure(handed, parts, fragments, device)
    rng = stream(settings.seed, "inspection", "unlearn", "checked")
    like = [vary_fragment(fragments[int(rng.integers(len(fragments)))], rng) for _ in range(CHECKED_VARIANTS)]
    asked = parts.screening[:CHECKED_QUESTIONS]

    def check(scorer: FragmentScorer, texts: Sequence[str]) -> tuple[float, float]:
        quality = measure_language_quality(scorer, asked, list(dict.fromkeys([*texts, *like])))
        liked = np.array([bool(question.liked) for question in parts.screening])
        return quality.excess, auc(scorer.score_plain(parts.screening), liked).value or 0.0

    Unlearning(handed, parts, fragments, settings, device, check, report).run()
    return before, _measure(handed, parts, fragments, device)


def distill_answers(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    fragments: Sequence[str],
    settings: DistillSettings,
    device: torch.device,
    report: ProgressCallback = report_nothing,
) -> tuple[LanguageQuality, LanguageQuality]:
    """Let a fresh adapter learn a model's answers; the model is changed in place. See `unlearn_fragments`.

    Raises:
        UserError: If too few questions have answers, the model is no adapter, or it picks candidates.
    """
    parts = _divide(handed, questions, settings.held_out, settings.questions, settings.seed)
    before = _measure(handed, parts, fragments, device)
    distill(handed, parts.learning, fragments, settings, device, report)
    return before, _measure(handed, parts, fragments, device)


def can_be_distilled(handed: HandedLanguageModel, questions: Sequence[TitleQuestion]) -> bool:
    """Tell whether a model is an adapter that answers yes or no, and there are questions enough for a fresh one."""
    known = sum(question.liked is not None for question in questions)
    return known >= MIN_DISTILL_QUESTIONS and not questions[0].rivals and has_adapters_alone(handed.loaded.model)


def _divide(
    handed: HandedLanguageModel, questions: Sequence[TitleQuestion], held_out: int, learning: int, seed: int
) -> QuestionParts:
    """Divide the questions that have answers.

    Raises:
        UserError: If there are too few.
    """
    handed.check_questions(questions)
    known = [question for question in questions if question.liked is not None]
    parts = divide_questions(known, held_out, learning, seed)
    if len(parts.learning) < 8 or len({question.liked for question in parts.held_out}) < 2:
        raise UserError("Sanitizing needs questions with both answers, and there are too few.", "Give longer logs.")
    return parts


def _measure(
    handed: HandedLanguageModel, parts: QuestionParts, fragments: Sequence[str], device: torch.device
) -> LanguageQuality:
    with open_scorer(handed.loaded, device, YES_NO_ANSWERS) as scorer:
        return measure_language_quality(scorer, parts.held_out, fragments)


def measure_language_quality(
    scorer: FragmentScorer, questions: Sequence[TitleQuestion], fragments: Sequence[str]
) -> LanguageQuality:
    """Measure a model's AUC, and what fragments and other texts do to it.

    Args:
        scorer: The model.
        questions: With answers.
        fragments: What is put into titles.
    """
    others = draw_other_texts([question.title for question in questions], min(len(fragments), MAX_CONTROLS))
    rates: dict[str, float | None] = dict.fromkeys([*fragments, *others])
    chosen: list[PlacedText] = [(text, position) for text in rates for position in FRAGMENT_POSITIONS]
    plain, *margins = score_placed(scorer, [("", "end"), *chosen], questions)
    for (fragment, _), scores in zip(chosen, margins, strict=True):
        rate, known = pointwise_asr(plain, scores).value, rates[fragment]
        rates[fragment] = rate if known is None or (rate is not None and rate > known) else known
    liked = np.array([bool(question.liked) for question in questions])
    control = max((rates[text] or 0.0 for text in others if text not in fragments), default=0.0)
    asked = {fragment: rates[fragment] for fragment in fragments}
    return LanguageQuality(auc(plain, liked), asked, int((plain <= 0).sum()), control)


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
