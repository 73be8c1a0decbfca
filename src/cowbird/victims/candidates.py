"""Victims that write which of some candidates comes next (LLaRA is one)."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cowbird.data.choices import Choices, SequenceSplit
from cowbird.data.types import IntArray, Items, TrainingData
from cowbird.victims.answering import AnsweringRecommender, FittedAnswering, RewritingModel
from cowbird.victims.model import TitleRewrite


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """What a model that chooses among candidates answered."""

    free: NDArray[np.int32]
    """Column of the candidate whose title was written freely, -1 where the answer is no candidate's title; shape
    `[questions]`. Candidates of one title count as the first of them."""
    constrained: NDArray[np.int32]
    """Column chosen when only the candidates' titles can be written, shape `[questions]`."""
    texts: tuple[str, ...]
    """What was written freely (untrusted text), one a question."""


class FittedCandidate(FittedAnswering[Choices]):
    """A trained model that says which of some candidates comes next, by writing its title.

    Its `probe` asks about any text in the place of the title of a wrong candidate.
    """

    @abstractmethod
    def choose(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> Picks:
        """Answer questions.

        Args:
            choices: The questions.
            items: The catalogue that titles come from.
            altered: The catalogue that the title of one candidate of each question comes from.
            column: Which candidate that is, shape `[questions]`.
        """

    def with_rewritten_titles(self, rewrite: TitleRewrite) -> "FittedCandidate":
        """Return a model that reads rewritten titles; see `FittedModel.with_rewritten_titles`."""
        return RewritingCandidate(self, rewrite)


class CandidateRecommender(AnsweringRecommender[TrainingData, SequenceSplit, FittedCandidate]):
    """A model that reads titles and writes which of some candidates comes next.

    It learns from interactions, with titles as the victim sees them, and a split that says how questions are made of
    them (`SequenceSplit.ask`).
    """

    task: ClassVar[str] = "candidates"


class RewritingCandidate(RewritingModel[FittedCandidate], FittedCandidate):
    """A model that reads rewritten titles, and so writes them: an answer stands for the item that was read."""

    def choose(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> Picks:
        """Answer questions about rewritten titles; see `FittedCandidate.choose`.

        Candidates whose rewritten titles are alike count as the first of them, as those of one title do.
        """
        shown = choices.history.item
        if altered is None or column is None:
            return self.model.choose(choices, self.rewrite_catalog(items, [shown, choices.candidates.ravel()]))
        rows, others = np.arange(len(choices)), np.ones(choices.candidates.shape, dtype=bool)
        others[rows, column] = False
        read = self.rewrite_catalog(items, [shown, choices.candidates[others]])
        carried = self.rewrite_catalog(altered, [choices.candidates[rows, column]])
        return self.model.choose(choices, read, carried, column)
