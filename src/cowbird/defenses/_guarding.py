"""Models whose titles are rewritten before they read them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cowbird.data.choices import Choices
from cowbird.data.judgments import Judgments
from cowbird.data.types import IntArray, Items
from cowbird.errors import UserError
from cowbird.victims.base import FittedCandidate, FittedPointwise, Picks

Rewrite = Callable[[Sequence[str]], Sequence[str]]
"""Makes of each title what the model reads instead."""


def wrap_model(model: Any, rewrite: Rewrite) -> "RewritingPointwise | RewritingCandidate":
    """Return a model that reads rewritten titles; the model given is left as it is.

    Raises:
        UserError: If it is a model that reads no titles.
    """
    if isinstance(model, FittedPointwise):
        return RewritingPointwise(model, rewrite)
    if isinstance(model, FittedCandidate):
        return RewritingCandidate(model, rewrite)
    raise UserError(
        f"A {type(model).__name__} reads no titles that could be rewritten.",
        "Use a victim that reads titles, such as tallrec or llara.",
    )


@dataclass
class RewritingPointwise(FittedPointwise):
    """A judge that reads rewritten titles."""

    model: FittedPointwise
    """The judge."""
    rewrite: Rewrite
    """Rewrites titles."""

    def margins(self, judgments: Judgments, items: Items, asked: Items | None = None) -> NDArray[np.float32]:
        """Score questions about rewritten titles; see `FittedPointwise.margins`."""
        shown = judgments.history.item
        if asked is None:
            return self.model.margins(judgments, _rewrite_catalog(items, [shown, judgments.target], self.rewrite))
        read = _rewrite_catalog(items, [shown], self.rewrite), _rewrite_catalog(asked, [judgments.target], self.rewrite)
        return self.model.margins(judgments, *read)

    def save(self, folder: Path) -> None:
        """Write the judge, without what rewrites its titles; see `FittedPointwise.save`."""
        self.model.save(folder)


@dataclass
class RewritingCandidate(FittedCandidate):
    """A chooser that reads rewritten titles, and so writes them: an answer stands for the item that was read."""

    model: FittedCandidate
    """The chooser."""
    rewrite: Rewrite
    """Rewrites titles."""

    def choose(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> Picks:
        """Answer questions about rewritten titles; see `FittedCandidate.choose`.

        Candidates whose rewritten titles are alike count as the first of them, as those of one title do.
        """
        shown = choices.history.item
        if altered is None or column is None:
            return self.model.choose(
                choices, _rewrite_catalog(items, [shown, choices.candidates.ravel()], self.rewrite)
            )
        rows, others = np.arange(len(choices)), np.ones(choices.candidates.shape, dtype=bool)
        others[rows, column] = False
        read = _rewrite_catalog(items, [shown, choices.candidates[others]], self.rewrite)
        carried = _rewrite_catalog(altered, [choices.candidates[rows, column]], self.rewrite)
        return self.model.choose(choices, read, carried, column)

    def save(self, folder: Path) -> None:
        """Write the chooser, without what rewrites its titles; see `FittedCandidate.save`."""
        self.model.save(folder)


def _rewrite_catalog(items: Items, used: Sequence[IntArray], rewrite: Rewrite) -> Items:
    """Return a catalogue in which the titles of some items are rewritten; the others are not read."""
    rows: list[int] = np.unique(np.concatenate(used)).tolist()
    titles = list(items.titles)
    for row, title in zip(rows, rewrite([titles[row] for row in rows]), strict=True):
        titles[row] = title
    return dataclasses.replace(items, titles=tuple(titles))
