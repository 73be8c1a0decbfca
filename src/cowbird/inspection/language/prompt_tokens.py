"""Tokens of prompts; of many prompts that differ in a title's fragment, what stands far before it is read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cowbird.errors import UserError
from cowbird.inspection.language.questions import TitleQuestion
from cowbird.inspection.language.title_edits import FragmentPosition

MAX_PROMPT_TOKENS = 2048
"""Longer prompts are not asked."""
_CUT_PROBES = ("", "Zq", "7 x", "\u00e9t\u00e9", "5v", "...")
"""Fragments on which a place is tried behind which prompts can be tokenized alone."""
_FEW_PROBES = ("", "...")
"""The same where each of many questions is asked a few times."""


@dataclass(slots=True, eq=False)
class PromptTokenizer:
    """Reads prompts as a model reads them."""

    tokenizer: Any
    """The model's, which takes control tokens as text."""
    start: list[int]
    """The token that the tokenizer begins every text with, if there is one."""
    probes: tuple[str, ...] = _CUT_PROBES
    """Fragments on which places are tried."""
    _cuts: dict[str, tuple[int, list[int]]] = field(default_factory=dict[str, tuple[int, list[int]]])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of whole prompts, with the token that begins a text if the tokenizer sets one.

        Raises:
            UserError: If a prompt is too long.
        """
        plain = {"add_special_tokens": False, "return_attention_mask": False, "split_special_tokens": True}
        rows: list[list[int]] = self.tokenizer(list(texts), **plain)["input_ids"] if texts else []
        if any(len(row) > MAX_PROMPT_TOKENS for row in rows):
            raise UserError(
                f"A question has more than {MAX_PROMPT_TOKENS:,} tokens.", "Give shorter histories: lower --history."
            )
        return [self.start + row for row in rows] if self.start else rows

    def tokenize_asked(self, question: TitleQuestion, asked: Sequence[tuple[str, FragmentPosition]]) -> list[list[int]]:
        """Return the tokens of a question with each fragment at its place."""
        at, before = self.find_cut(question)
        short = question._replace(head=question.head[at:])
        endings = self.tokenize([short.write(fragment, position) for fragment, position in asked])
        kept = len(self.start)
        return [before + ending[kept:] for ending in endings] if at else endings

    def check_less(self) -> "PromptTokenizer":
        """Return a tokenizer that tries each place on few fragments."""
        return PromptTokenizer(self.tokenizer, self.start, _FEW_PROBES)

    def find_cut(self, question: TitleQuestion) -> tuple[int, list[int]]:
        """Return how many characters of a question's head can be tokenized alone, and their tokens; 0 without any."""
        if question.head not in self._cuts:
            self._cuts[question.head] = self._find_cut(question)
        return self._cuts[question.head]

    def _find_cut(self, question: TitleQuestion) -> tuple[int, list[int]]:
        """Find where a question's head can be cut so that both parts have the tokens of the whole.

        Tokenizers read text word by word, so what stands behind a line's or a word's beginning does not change what
        stands before it. That is tried on a few fragments; without such a place, whole prompts are tokenized.

        Returns:
            How many characters of the head stand before the cut, and their tokens; 0 and none without one.
        """
        head = question.head
        whole = self.tokenize([question.write(probe) for probe in self.probes])
        line, word = head.rfind("\n"), head.rfind(" ")
        for at in dict.fromkeys((line, line + 1, word)):
            if not 0 < at < len(head):
                continue
            (before,) = self.tokenize([head[:at]])
            short = question._replace(head=head[at:])
            endings = self.tokenize([short.write(probe) for probe in self.probes])
            if all(before + part[len(self.start) :] == row for part, row in zip(endings, whole, strict=True)):
                return at, before
        return 0, []


def count_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two rows have in common at their beginnings."""
    if len(one) <= len(other) and tuple(one) == tuple(other[: len(one)]):  # most fragments stand behind a beginning
        return len(one)
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
