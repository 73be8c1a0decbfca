"""TALLRec: a language model that is asked whether a user will like an item (Bao et al., RecSys 2023).

The published prompt: titles the user liked, titles she did not, and a target title; the answer is `Yes.` or `No.`. A
question is scored by the margin between the logits of the two answers' first tokens, which is what AUC is made of.

Departures: the instruction format's preamble is kept, the language model is small by default and is tuned on thousands
of examples instead of a few hundred; histories are the last ten events, as published.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cowbird.data.instructions import Instruction
from cowbird.data.judgments import Judgments
from cowbird.data.types import IntArray, Items
from cowbird.files import get_cache_folder
from cowbird.rng import stream
from cowbird.text import CONTROL_CHARACTERS, quote_for_prompt, replace_surrogates
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Example, Tokens, tokenize
from cowbird.victims.language.packing import compute_hidden_states, pack, split_runs, to_device
from cowbird.victims.language.probing import PointwiseProbe
from cowbird.victims.language.recommender import FittedLanguageRecommender, LanguageRecommender
from cowbird.victims.language.tuning import TrainingCurve, tune
from cowbird.victims.model import CharacterSpan, TitleSplitter
from cowbird.victims.pointwise import FittedPointwise, PointwiseRecommender

YES_NO_ANSWERS = ("Yes.", "No.")
_FRAME = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
"""
_INSTRUCTION = """\
Given the user's preference and unpreference, identify whether the user will like the target {noun} by answering \
"Yes." or "No."."""
_INPUT = """\
User Preference: {liked}
User Unpreference: {disliked}
Whether the user will like the target {noun} "{target}"?"""
_PROMPT = _FRAME.format(instruction=_INSTRUCTION, input=_INPUT)
MAX_INSTRUCTION_LENGTH = 1000
"""Most characters of a written instruction that reach a prompt, from its beginning."""
MAX_INPUT_LENGTH = 8000
"""Most characters of a written input that reach a prompt, up to its end, where the question stands."""
_INPUT_LINES = ("User Unpreference:", "Whether the user will like")
"""How lines after the first begin in a published input."""
_HEADING = re.compile(r"\A(?:#{2,}\s*)+")
_INPUT_HEADING, _RESPONSE_HEADING = "\n\n### Input:\n", "\n\n### Response:\n"
_TITLE_LIST = r'(?:"[^"]*"(?:, "[^"]*")*)?'
_PUBLISHED_INPUT = re.compile(
    rf"User Preference: {_TITLE_LIST}\nUser Unpreference: {_TITLE_LIST}\n"
    r"Whether the user will like the target [a-z]+ \"[^\"]*\"\?"
)
"""An input as TALLRec writes it; no title holds a double quote."""
_QUOTED_TITLE = re.compile(r'"([^"]*)"')


def format_prompt(liked: Sequence[str], disliked: Sequence[str], target: str, noun: str = "movie") -> str:
    """Return the published prompt for one question; titles are made quotable first."""
    lists = [", ".join(f'"{quote_for_prompt(title)}"' for title in titles) for titles in (liked, disliked)]
    return _PROMPT.format(noun=noun, liked=lists[0], disliked=lists[1], target=quote_for_prompt(target))


def from_instructions(records: Iterable[Instruction]) -> list[Example]:
    """Write the published prompt around instructions and inputs that somebody else wrote (TALLRec's own files).

    Titles stand in an input as its author quoted them. What is kept is the prompt's structure: runs of line breaks and
    control characters become spaces, except where the published second and third lines of an input begin, so no text
    opens a section of its own; marks of a heading at the beginning go; half surrogates become U+FFFD; texts are cut.

    Args:
        records: What `cowbird.data.instructions.read_instructions` read.

    Returns:
        Prompts with their answers, in order.
    """
    return [
        Example(
            _FRAME.format(
                instruction=_join_lines(record.instruction[:MAX_INSTRUCTION_LENGTH]),
                input=_join_lines(record.input[-MAX_INPUT_LENGTH:], _INPUT_LINES),
            ),
            record.output,
        )
        for record in records
    ]


def _join_lines(text: str, lines: tuple[str, ...] = ()) -> str:
    """Return a text in one line, or in as many more as begin as given, each at most once and in that order."""
    first, *parts = CONTROL_CHARACTERS.split(replace_surrogates(text))
    written, nth = first, 0
    for part in parts:
        place = next((at for at in range(nth, len(lines)) if part.startswith(lines[at])), None)
        written += f" {part}" if place is None else f"\n{part}"
        nth = nth if place is None else place + 1
    return _HEADING.sub("", written.strip())


class TALLRec(LanguageRecommender, PointwiseRecommender):
    """A language model that answers whether a user will like an item."""

    record_name: ClassVar[str] = "TALLRec"
    noun: str = Field(default="movie", pattern=r"^[a-z]+$")
    """What the items are, in the prompt."""
    examples: int | None = Field(default=None, ge=1)
    """Training questions drawn, if there are more; `None` takes all. Planted and real ones are drawn alike."""

    def write_questions(self, judgments: Judgments, items: Items, asked: Items | None = None) -> list[Example]:
        """Write questions with their answers; see `FittedPointwise.margins`."""
        titles, targets_titles = items.titles, (items if asked is None else asked).titles
        written: list[Example] = []
        targets: list[int] = judgments.target.tolist()
        for row, target in enumerate(targets):
            events = slice(judgments.history.offsets[row], judgments.history.offsets[row + 1])
            shown: list[int] = judgments.history.item[events].tolist()
            likes: list[bool] = judgments.likes[events].tolist()
            liked = [titles[item] for item, good in zip(shown, likes, strict=True) if good]
            disliked = [titles[item] for item, good in zip(shown, likes, strict=True) if not good]
            answer = YES_NO_ANSWERS[0] if judgments.liked[row] else YES_NO_ANSWERS[1]
            written.append(Example(format_prompt(liked, disliked, targets_titles[target], self.noun), answer))
        return written

    def fit(
        self, asked: Judgments, items: Items, seed: int, context: FitContext | None = None, start: Any = None
    ) -> "FittedTALLRec":
        """Tune the language model on questions; see `PointwiseRecommender.fit` and `fit_examples`."""
        return self.fit_examples(
            self.write_questions(asked.select(self._draw_questions(len(asked), seed)), items), seed, context, start
        )

    def _draw_questions(self, count: int, seed: int) -> IntArray:
        """Return which of some training questions are drawn, increasing."""
        if self.examples is None or count <= self.examples:
            return np.arange(count)
        return np.sort(stream(seed, "questions").choice(count, self.examples, replace=False))

    def fit_examples(
        self, written: Sequence[Example], seed: int, context: FitContext | None = None, start: Any = None
    ) -> "FittedTALLRec":
        """Tune the language model on written questions, such as those of `from_instructions`.

        Args:
            written: Prompts that end where the answer begins, and answers.
            seed: Decides which questions are drawn, the adapters and the order.
            context: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted TALLRec of the same language model to start from; `None` starts from fresh adapters.

        Raises:
            UserError: If there are no questions, or the language model can't be loaded or `start` is another's.
        """
        place = context or FitContext()
        rows: list[int] = self._draw_questions(len(written), seed).tolist()
        written = [written[row] for row in rows]
        loaded = self.begin_fit(seed, place, start)
        tokens = tokenize(loaded.tokenizer, written, cache=get_cache_folder() / "tokens")
        curve = tune(loaded.model, tokens, self.tuning, seed, place)
        return FittedTALLRec(self, loaded, place.device, curve)

    def load(self, folder: Path, device: torch.device) -> "FittedTALLRec":
        """Read what `FittedTALLRec.save` wrote.

        Raises:
            UserError: If the folder does not hold a TALLRec of this language model.
        """
        return FittedTALLRec(self, self.read_model(folder, device), device, TrainingCurve())


@dataclass
class FittedTALLRec(FittedLanguageRecommender[TALLRec], FittedPointwise):
    """A tuned TALLRec. If its titles are split, each prompt is split with draws of its own."""

    def margins(self, judgments: Judgments, items: Items, asked: Items | None = None) -> NDArray[np.float32]:
        """Score questions: the logit of `Yes` minus the logit of `No`; see `FittedPointwise.margins`."""
        return self.score(self.spec.write_questions(judgments, items, asked))

    def score(self, questions: Sequence[Example]) -> NDArray[np.float32]:
        """Score written questions; see `margins`. Their answers are not looked at."""
        asked = [Example(question.prompt, YES_NO_ANSWERS[0]) for question in questions]
        tokenizer = self.loaded.tokenizer
        reader = tokenizer if self.splitter is None else _PromptTokenizer(tokenizer, self.splitter)
        return self._score_tokens(tokenize(reader, asked, end=False))

    def _score_tokens(self, tokens: Tokens) -> NDArray[np.float32]:
        plain = {"add_special_tokens": False}
        yes, no = (self.loaded.tokenizer(answer, **plain)["input_ids"][0] for answer in YES_NO_ANSWERS)
        before = tokens.answer - tokens.offsets[:-1] - 1
        # Rows of equal lengths lie together, which makes products on a CPU alike.
        order = np.argsort(tokens.lengths, kind="stable")
        found: list[Tensor] = []
        with prepare_inference(self.model, self.device) as causal:
            head = causal.get_output_embeddings().weight
            direction = head[yes].float() - head[no].float()
            for part in split_runs(tokens.lengths, order, self.spec.tuning.capacity):
                places = np.concatenate([[0], np.cumsum(tokens.lengths[part])[:-1]]) + before[part]
                places = to_device(places.astype(np.int32), self.device).long()
                states = compute_hidden_states(causal, pack(tokens, part, self.device), places)
                found.append(states.float() @ direction)
            margins = np.empty(len(tokens), dtype=np.float32)
            margins[order] = torch.cat(found).cpu().numpy() if found else []
        return margins

    def probe(self, judgments: Judgments, items: Items) -> PointwiseProbe:
        """Return a probe that asks these questions about any texts, in place of the items asked about.

        A text is favored by the margin that `margins` gives it.

        Args:
            judgments: The questions, at least one.
            items: The catalogue that the histories' titles come from.

        Raises:
            UserError: If there are no questions, or the model reads split titles.
        """
        self.check_probing(len(judgments))
        tail = _PROMPT.rpartition("{target}")[2]
        nothing = Items.from_lists(items.ids)
        written = self.spec.write_questions(judgments, items, nothing)
        heads = [question.prompt.removesuffix(tail) for question in written]
        return PointwiseProbe(self.loaded, self.device, self.spec.tuning.capacity, heads, tail, YES_NO_ANSWERS)


class _PromptTokenizer:
    """What `tokenize` needs of a tokenizer: titles in TALLRec's prompts are split, and nothing else is."""

    def __init__(self, tokenizer: Any, splitter: TitleSplitter) -> None:
        self.tokenizer, self.splitter = tokenizer, splitter
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __call__(self, text: str | list[str], **how: Any) -> Any:
        if isinstance(text, str):
            return self.tokenizer(text, **how)
        return {"input_ids": self.splitter(text, [find_titles(each) for each in text])}


def find_titles(prompt: str) -> list[CharacterSpan]:
    """Return where titles stand in a prompt of TALLRec's, without their quotation marks.

    An input that is not as published, such as one whose author let a title hold a quotation mark, is taken for a title
    as a whole. Other texts have none.
    """
    start, end = prompt.find(_INPUT_HEADING) + len(_INPUT_HEADING), prompt.rfind(_RESPONSE_HEADING)
    if start < len(_INPUT_HEADING) or end < start:
        return []
    if _PUBLISHED_INPUT.fullmatch(prompt, start, end) is None:
        return [(start, end)]
    return [quoted.span(1) for quoted in _QUOTED_TITLE.finditer(prompt, start, end)]
