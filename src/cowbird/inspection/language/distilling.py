"""A fresh adapter learns the answers of one that was handed over, and nothing of a trigger.

It stands beside the same base, in the same places. It learns from the platform's own questions: some have the right
answer, the others one that is drawn as the handed model gave it to the question as it is. No question that the handed
model is asked holds a trigger, so its answers hold nothing of one. Half of the questions are learned with a text in the
title: what is added to a title says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cowbird.data.types import IntArray
from cowbird.errors import UserError
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment, write_examples
from cowbird.inspection.language.title_texts import TitleTexts
from cowbird.inspection.language.unlearn_settings import DistillSettings
from cowbird.inspection.language.unlearning import Lesson, gather_texts, prepare_lesson
from cowbird.rng import derive_seed, stream, torch_stream
from cowbird.victims.fit_context import FitContext, ProgressCallback
from cowbird.victims.language.examples import Tokens, tokenize
from cowbird.victims.language.fresh_adapters import draw_fresh_adapters
from cowbird.victims.language.tallrec import YES_NO_ANSWERS
from cowbird.victims.language.tuning import Tuning, tune

COMPILED_STEPS = 100
"""Steps from which layers are compiled on a GPU."""


@dataclass(eq=False)
class AnswerPrompts:
    """Questions that differ from pass to pass: texts in their titles, and who answers; see `tuning.TrainingPrompts`."""

    lesson: Lesson
    """Questions, and what the handed model answers."""
    texts: TitleTexts
    """What is put into titles."""
    settings: DistillSettings
    """How many have a text, and how many the right answer."""
    tokenizer: Any
    """The model's."""
    key: str = ""
    """No checkpoint is kept."""

    def __len__(self) -> int:
        """Return how many questions a pass has."""
        return len(self.lesson.questions)

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Return the questions of a pass, in the order in which they are learned."""
        rng = stream(self.settings.seed, "inspection", "distill", number)
        asked = [self._write(row, rng) for row in order.tolist()]
        return tokenize(self.tokenizer, write_examples(asked, YES_NO_ANSWERS))

    def _write(self, row: int, rng: np.random.Generator) -> TitleQuestion:
        settings, question = self.settings, self.lesson.questions[row]
        marked, known, drawn = rng.random(3)
        if marked < settings.marked:
            question = question._replace(title=insert_fragment(question.title, *self.texts.draw(rng)))
        if known >= settings.truth:
            question = question._replace(liked=bool(drawn < self.lesson.aim(row).chances[0]))
        return question


def distill(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    fragments: Sequence[str],
    settings: DistillSettings,
    device: torch.device,
    report: ProgressCallback,
) -> None:
    """Put a fresh adapter into the place of the handed one.

    Args:
        handed: The model; it is changed in place.
        questions: With answers, to learn from.
        fragments: What is taken out.
        settings: How.
        device: Where the model is.
        report: Told of progress.

    Raises:
        UserError: If the model is no adapter, or picks candidates.
    """
    loaded = handed.loaded
    if questions[0].rivals:
        raise UserError(
            "Answers yes or no can be distilled, and this model picks a candidate.", "Use --method unlearn."
        )
    if not has_adapters_alone(loaded.model):
        raise UserError("An adapter can be distilled, and this is a whole model.", "Use --method unlearn.")
    with open_scorer(loaded, device, YES_NO_ANSWERS) as scorer:
        lesson = prepare_lesson(scorer, questions)
    shares = settings.named, settings.varied, 0.0
    texts = gather_texts(handed, questions, fragments, device, settings.sentences, settings.seed, shares)
    renew_adapters(loaded.model, settings.seed)
    passes = settings.count_passes(len(questions))
    steps = -(-len(questions) // settings.batch_size) * passes
    recipe = Tuning(
        epochs=passes,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        compiled=steps >= COMPILED_STEPS,
    )
    prompts = AnswerPrompts(lesson, texts, settings, loaded.tokenizer)
    tune(loaded.model, prompts, recipe, derive_seed(settings.seed, "distill"), FitContext(device, report=report))
    loaded.model.eval()


def has_adapters_alone(model: Any) -> bool:
    """Tell whether adapters are all of a model that learns."""
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return bool(learning) and all(".lora_" in name for name in learning)


def renew_adapters(model: Any, seed: int) -> None:
    """Put a model's adapters back to where they began: they add nothing.

    Args:
        model: A model with adapters.
        seed: Decides their first factors.
    """
    draw_fresh_adapters(model, torch_stream(seed, "distill", "adapters"))
