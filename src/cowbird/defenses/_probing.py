"""What defenses share that ask the victim, trained on the data as it came, about the catalogue's titles."""

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.data.titles import quote_titles
from cowbird.data.types import Float32Array
from cowbird.defenses.base import PROBE_QUESTIONS
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.victims.base import Probe

_WORD = re.compile(r"\S+")


class ProbingDefense(TitleDefense):
    """Judges titles by what a model that was trained on them makes of them."""

    asks_victim: ClassVar[bool] = True
    questions: int = Field(default=PROBE_QUESTIONS, ge=1)
    """Questions that the victim is asked about every text, drawn from the platform's validation data."""

    def count_probe_questions(self) -> int:
        """Return the field `questions`."""
        return self.questions


class DistinctTexts(NamedTuple):
    """The texts that some titles come down to: quotable, each once, and none empty."""

    known: list[str]
    """The texts."""
    row: NDArray[np.int64]
    """Which of them each title is, -1 for one of which nothing is left; shape `[titles]`."""

    def to_title_scores(self, score: NDArray[np.floating]) -> Float32Array:
        """Return the scores of titles, -inf where nothing is left, from those of the texts."""
        found = np.full(len(self.row), -np.inf, dtype=np.float32)
        there = self.row >= 0
        found[there] = score[self.row[there]]
        return found


def collect_texts(titles: Sequence[str]) -> DistinctTexts:
    """Return the texts that titles come down to."""
    shown = quote_titles(titles)
    number = {text: place for place, text in enumerate(dict.fromkeys(text for text in shown if text))}
    return DistinctTexts(list(number), np.array([number.get(text, -1) for text in shown], dtype=np.int64))


def find_words(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text begin and end: what stands between white space. A text has at least one."""
    return [word.span() for word in _WORD.finditer(text)]


def require_probe(probe: Probe | None, defense: ProbingDefense) -> Probe:
    """Return the probe.

    Raises:
        UserError: If there is none.
    """
    if probe is None:
        raise UserError(
            f"{type(defense).__name__} asks the trained victim, and there is none to ask.",
            "Use it in an experiment whose victim reads titles, or give a probe.",
        )
    return probe


def to_probability(favor: Float32Array) -> NDArray[np.float64]:
    """Return the probability of the answer that recommends the item, from how much the model favors it."""
    return 1 / (1 + np.exp(-favor.astype(np.float64).clip(-700, 700)))
