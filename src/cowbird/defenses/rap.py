"""RAP: titles that a learned word before them leaves recommended (Yang et al., EMNLP 2021, arXiv 2110.07831).

The embedding of one rare word, and nothing else, is trained so that the word in front of clean inputs of the protected
class lowers that class's probability by something between two bounds: the loss is the mean of

    scale * max(0, low - fall) + max(0, fall - high),    fall = p(x) - p(word + x)

(section 4). The embedding keeps its length, as in the published code. An input with a trigger is more robust: its
probability falls less, and minus the fall is the suspicion.

Departures. The protected class is the answer that recommends the item. The word learns on titles drawn from the
catalogue, of which few are poisoned, since there are none known to be clean, and only on questions that recommend them
(on all, if none does). There inputs of other classes are passed over; here a question that does not recommend a title
counts as a fall from 1, so that a title is suspicious if it is recommended in many questions, and stays so. Steps are
Adam's, in parts of the embedding's length, since embeddings of different models differ in size by orders of magnitude.
The word is one input vector of its own: the victim's table is never written to.

A probe that takes texts alone (`Probe.embed_word` gives nothing) can't train a word. Of `words`, each put before the
drawn titles as text, it takes the one with the lowest loss.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from cowbird.defenses._probing import ProbingDefense, collect_texts, require_probe, to_probability
from cowbird.defenses.titles import Suspicion
from cowbird.rng import stream
from cowbird.victims.base import Probe

Probabilities = NDArray[np.float64]


class Rap(ProbingDefense):
    """Flag titles that a learned word before them leaves recommended (RAP, Yang et al. 2021)."""

    words: tuple[str, ...] = Field(default=("cf", "mn", "bb", "tq", "mb"), min_length=1)
    """Rare words: training starts from the first."""
    drawn: int = Field(default=32, ge=1)
    """Titles that the word learns on."""
    epochs: int = Field(default=5, ge=1)
    """Passes over them."""
    batch_size: int = Field(default=8, ge=1)
    """Titles a step, each with all questions."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Size of a step, as a share of the embedding's mean coordinate."""
    low: float = Field(default=0.1, ge=0, le=1)
    """Fall of a probability that is wanted at least."""
    high: float = Field(default=0.3, ge=0, le=1)
    """Fall of a probability that is wanted at most."""
    scale: float = Field(default=1.0, gt=0)
    """Weight of falling too little against falling too far."""
    seed: int = 0
    """Draws the titles and their order."""

    @model_validator(mode="after")
    def _check_bounds(self) -> "Rap":
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Return minus the mean fall over the questions, between -1 and 1; see `TitleDefense.suspect`.

        Raises:
            UserError: If there is no probe.
        """
        asked, texts = require_probe(probe, self), collect_texts(titles)
        none = np.full((2, len(titles)), -1)
        if not texts.known:
            return Suspicion(np.full(len(titles), -np.inf), *none)
        before = to_probability(asked.favor(texts.known))
        first = asked.embed_word(self.words[0])
        if first is not None:
            word = self.train_word(asked, first, texts.known, before)
            after = to_probability(asked.favor_behind(texts.known, word).cpu().numpy())
        else:
            rare = self.search_word(asked, texts.known, before)
            after = to_probability(asked.favor([f"{rare} {text}" for text in texts.known]))
        falls = np.where(before > 0.5, before - after, 1 - before)
        return Suspicion(texts.to_title_scores(-falls.mean(axis=1)), *none)

    def loss(self, before: Tensor, after: Tensor, counted: Tensor) -> Tensor:
        """Return the loss of some falls, all arguments of one shape; see the head of this module."""
        fall = torch.sub(before, after)[counted]
        return self.scale * F.relu(self.low - fall).mean() + F.relu(fall - self.high).mean()

    def select_training_texts(self, before: Probabilities) -> tuple[list[int], NDArray[np.bool_]]:
        """Return which texts are learned on, and in which questions each text is, shape `[texts, questions]`."""
        counted = before > 0.5
        if not counted.any():
            counted[:] = True
        rows = stream(self.seed, "rap", "drawn").permutation(np.flatnonzero(counted.any(axis=1)))
        return rows[: self.drawn].tolist(), counted

    def train_word(self, probe: Probe, first: Tensor, texts: Sequence[str], before: Probabilities) -> Tensor:
        """Train the word.

        Args:
            probe: The victim.
            first: The input that training starts from, shape `[hidden]`.
            texts: All texts.
            before: The probabilities without the word, shape `[texts, questions]`.

        Returns:
            Its input, shape `[hidden]`.
        """
        rows, counted = self.select_training_texts(before)
        vector = first.clone().requires_grad_()
        length = float(vector.detach().square().sum()) ** 0.5
        optimizer = torch.optim.Adam([vector], lr=self.learning_rate * length / len(vector) ** 0.5)
        for epoch in range(self.epochs):
            order: list[int] = stream(self.seed, "rap", epoch).permutation(rows).tolist()
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                after = torch.sigmoid(probe.favor_behind([texts[row] for row in part], vector))
                known, wanted = torch.from_numpy(before[part]).to(after), torch.from_numpy(counted[part])
                (vector.grad,) = torch.autograd.grad(self.loss(known, after, wanted.to(after.device)), vector)
                optimizer.step()
                with torch.no_grad():
                    vector.mul_(length / max(float(vector.square().sum()) ** 0.5, 1e-12))
        return vector.detach()

    def search_word(self, probe: Probe, texts: Sequence[str], before: Probabilities) -> str:
        """Return the one of `words` with the lowest loss; see `train_word`."""
        rows, counted = self.select_training_texts(before)
        known, wanted = torch.from_numpy(before[rows]), torch.from_numpy(counted[rows])
        losses: list[float] = []
        for word in self.words:
            after = to_probability(probe.favor([f"{word} {texts[row]}" for row in rows]))
            losses.append(float(self.loss(known, torch.from_numpy(after), wanted)))
        return self.words[int(np.argmin(losses))]
