"""What all victims share that read titles and answer questions about items.

`pointwise` has those that say yes or no about one item, `candidates` those that write which of some items comes next.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from cowbird.data.types import Float32Array, IntArray, Items
from cowbird.errors import UserError
from cowbird.victims.fit_context import FitContext
from cowbird.victims.model import FittedModel, TitleRewrite, Victim

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Probe(ABC):
    """A trained model that reads titles, asked about any texts as titles of the item in question.

    The questions are drawn once; only the title of the item asked about changes.
    """

    @abstractmethod
    def favor(self, titles: Sequence[str]) -> Float32Array:
        """Tell how much the model favors each text, in each question.

        Args:
            titles: Any texts.

        Returns:
            Scores, shape `[titles, questions]`, float32; above 0 means that the item is recommended.
        """

    @abstractmethod
    def states(self, titles: Sequence[str]) -> Float32Array:
        """Return the model's last hidden state where its answer begins, the mean over the questions.

        Args:
            titles: Any texts.

        Returns:
            Shape `[titles, hidden]`, float32.
        """

    def embed_word(self, word: str) -> "Tensor | None":
        """Return a copy of the input of a word's first token, shape `[hidden]`, float32.

        `None` if the model takes no inputs but texts; `favor_behind` can't be asked then.
        """
        return None

    def favor_behind(self, titles: Sequence[str], vector: "Tensor") -> "Tensor":
        """Tell how much the model favors each text when a word stands before it.

        Args:
            titles: Any texts.
            vector: The input of that word, shape `[hidden]`; if it requires gradients, they flow to it.

        Returns:
            Scores as those of `favor`, shape `[titles, questions]`, on the model's device.

        Raises:
            NotImplementedError: If the model takes no inputs but texts, and `embed_word` gives none.
        """
        raise NotImplementedError(f"{type(self).__name__} takes texts alone.")


QuestionsT = TypeVar("QuestionsT")


class FittedAnswering(FittedModel, Generic[QuestionsT]):
    """A trained model that reads titles and answers questions."""

    def probe(self, questions: QuestionsT, items: Items, /) -> Probe:
        """Return the model as a defense may ask it: any text in the place of a title that is asked about.

        Args:
            questions: The questions.
            items: The catalogue that their other titles come from.

        Raises:
            UserError: If this kind of model can't be probed.
        """
        raise UserError(
            f"A {type(self).__name__} can't be probed.", "Use defenses that ask no victim, or another victim."
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into a folder, which appears under its name once it is whole."""


FittedT = TypeVar("FittedT", bound=FittedAnswering[Any])
FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


class AnsweringRecommender(Victim, Generic[FirstT, SecondT, FittedT]):
    """A model that reads titles and answers questions; what it learns from comes in two parts."""

    @abstractmethod
    def fit(
        self, first: FirstT, second: SecondT, /, seed: int, context: FitContext | None = None, start: Any = None
    ) -> FittedT:
        """Train a model.

        Args:
            first: What to learn from.
            second: What gives it its meaning.
            seed: Decides all that is random.
            context: Device, checkpoint folder and progress; a CPU and nothing else by default.
            start: A fitted model of the same spec to go on from, such as a provider's adapter.
        """

    @abstractmethod
    def load(self, folder: Path, device: "torch.device") -> FittedT:
        """Read what the fitted model's `save` wrote.

        Raises:
            UserError: If the folder is missing, damaged or another model's.
        """

    @abstractmethod
    def with_tuning(self, learning_rate: float, epochs: int) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""


class RewritingModel(FittedModel, Generic[FittedT]):
    """A model that reads rewritten titles.

    Args:
        model: The model.
        rewrite: Rewrites titles.
    """

    def __init__(self, model: FittedT, rewrite: TitleRewrite) -> None:
        self.model, self.rewrite = model, rewrite

    def rewrite_catalog(self, items: Items, used: Sequence[IntArray]) -> Items:
        """Return a catalogue in which the titles of some items are rewritten; the others are not read."""
        rows: list[int] = np.unique(np.concatenate(used)).tolist()
        titles = list(items.titles)
        for row, title in zip(rows, self.rewrite([titles[row] for row in rows]), strict=True):
            titles[row] = title
        return replace(items, titles=tuple(titles))

    def save(self, folder: Path) -> None:
        """Write the model, without what rewrites its titles; see `FittedModel.save`."""
        self.model.save(folder)
