"""Victims that say yes or no about one item (TALLRec is one)."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cowbird.data.judgments import Judgments
from cowbird.data.types import Items
from cowbird.victims.answering import AnsweringRecommender, FittedAnswering, RewritingModel
from cowbird.victims.model import TitleRewrite


class FittedPointwise(FittedAnswering[Judgments]):
    """A trained model that says whether a user will like an item.

    Its `probe` asks about any text in the place of the title asked about.
    """

    @abstractmethod
    def margins(self, judgments: Judgments, items: Items, asked: Items | None = None) -> NDArray[np.float32]:
        """Score questions.

        Args:
            judgments: The questions.
            items: The catalogue that titles come from.
            asked: The catalogue that the titles of the items asked about come from, if it is another.

        Returns:
            Scores, shape `[questions]`; above 0 means yes.
        """

    def with_rewritten_titles(self, rewrite: TitleRewrite) -> "FittedPointwise":
        """Return a model that reads rewritten titles; see `FittedModel.with_rewritten_titles`."""
        return RewritingPointwise(self, rewrite)


class PointwiseRecommender(AnsweringRecommender[Judgments, Items, FittedPointwise]):
    """A model that reads titles and says whether a user will like an item.

    It learns from questions with their answers, and the catalogue with titles as the victim sees them.
    """

    task: ClassVar[str] = "pointwise"


class RewritingPointwise(RewritingModel[FittedPointwise], FittedPointwise):
    """A model that says yes or no about rewritten titles."""

    def margins(self, judgments: Judgments, items: Items, asked: Items | None = None) -> NDArray[np.float32]:
        """Score questions about rewritten titles; see `FittedPointwise.margins`."""
        shown = judgments.history.item
        if asked is None:
            return self.model.margins(judgments, self.rewrite_catalog(items, [shown, judgments.target]))
        read, titled = self.rewrite_catalog(items, [shown]), self.rewrite_catalog(asked, [judgments.target])
        return self.model.margins(judgments, read, titled)
