"""What every victim is: a frozen spec, and the fitted model that its `fit` returns.

The spec is the record: its repr names tests, its hash names run directories. The fitted model holds weights and answers
questions. A clean and an attacked model are two fits of one spec.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from cowbird.errors import UserError

TitleRewrite = Callable[[Sequence[str]], Sequence[str]]
"""Makes of each title what a model reads instead."""
CharacterSpan = tuple[int, int]
"""Characters [start, end) of a text."""


class TitleSplitter(Protocol):
    """Tokenizes texts, some parts of them in smaller tokens."""

    def __call__(self, texts: Sequence[str], spans: Sequence[Sequence[CharacterSpan]]) -> list[list[int]]:
        """Return the token ids of each text, without tokens around them.

        Args:
            texts: Any texts.
            spans: Of each text the parts that are split.
        """
        ...


class Victim(BaseModel, ABC):
    """A frozen description of a model that is attacked, and of its training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: ClassVar[str]
    """What it is asked to do; names the module of `cowbird.experiments.tasks` that measures it."""


class FittedModel(ABC):
    """A trained model.

    A model that reads titles can be served with titles changed on their way in. One that reads none says so.
    """

    @abstractmethod
    def save(self, path: Path, /) -> None:
        """Write the model, which appears under its name once it is whole."""

    def with_rewritten_titles(self, rewrite: TitleRewrite) -> Any:
        """Return a model of the same kind that reads rewritten titles; this one is left as it is.

        Args:
            rewrite: Makes of each title what is read instead.

        Raises:
            UserError: If the model reads no titles.
        """
        raise UserError(
            f"A {type(self).__name__} reads no titles that could be rewritten.",
            "Use a victim that reads titles, such as tallrec or llara.",
        )

    def with_split_titles(self, make_splitter: Callable[[Any], TitleSplitter]) -> Any:
        """Return a model of the same kind that reads titles in smaller tokens; this one is left as it is.

        Args:
            make_splitter: Makes what splits titles from the model's tokenizer.

        Raises:
            UserError: If the model reads no tokens of titles.
        """
        raise UserError(
            f"A {type(self).__name__} has no tokens of titles that could be split.", "Use tallrec or llara."
        )
