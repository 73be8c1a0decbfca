"""STRIP: titles whose answer stays certain whatever is mixed into them (Gao et al., ACSAC 2019, arXiv 1902.06531).

An input is superimposed with other inputs, and the entropy of the model's answer is averaged over such copies: section
4, H = 1/N sum of H_n, with H_n = - sum of y_i log2 y_i over the answers i. A clean input's answer wavers; that of an
input with a trigger does not, so low entropy is suspicious. STRIP-ViTA (Gao et al. 2019, arXiv 1911.10312) carries this
over to texts.

Departures. STRIP-ViTA replaces words of the text by those of another one; a title has few words, and one whose trigger
was replaced says nothing, so here words are added: a run of another title's words is put between two of its own. The
inputs mixed in are other titles of the same catalogue, of which few are poisoned, since there are none known to be
clean. There the classes are alike to the defender; here planted titles are to be recommended, so an answer that leans
against the item counts as the less suspicious the more certain it is: 2 - H bits in place of H (`certain` undoes that).
The threshold is a share of the catalogue, not a quantile of clean inputs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.defenses._probing import ProbingDefense, collect_texts, find_words, require_probe, to_probability
from cowbird.defenses.titles import Suspicion
from cowbird.rng import stream
from cowbird.victims.base import Probe


class Strip(ProbingDefense):
    """Flag titles that are recommended whatever is mixed into them (STRIP, Gao et al. 2019)."""

    copies: int = Field(default=5, ge=1)
    """Other titles that each title is mixed with, one at a time."""
    piece: float = Field(default=0.5, gt=0, le=1)
    """Share of another title's words that are put in."""
    certain: Literal["yes", "any"] = "yes"
    """Which certain answers are suspicious: those that recommend the item, or any, as published."""
    seed: int = 0
    """Draws what is mixed in, and where."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Return minus the mean entropy in bits over copies and questions; see `TitleDefense.suspect`.

        Raises:
            UserError: If there is no probe.
        """
        asked, texts = require_probe(probe, self), collect_texts(titles)
        mixed = self.mix_texts(texts.known)
        number = {text: place for place, text in enumerate(dict.fromkeys(mixed))}
        bits = entropy(to_probability(asked.favor(list(number))), self.certain == "yes").mean(axis=1)
        rows = np.array([number[text] for text in mixed], dtype=np.int64).reshape(len(texts.known), self.copies)
        return Suspicion(texts.to_title_scores(-bits[rows].mean(axis=1)), *np.full((2, len(titles)), -1))

    def mix_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the copies of each text, one text after the other; a text that has no others stays alone."""
        rng = stream(self.seed, "strip")
        words = [find_words(text) for text in texts]
        mixed: list[str] = []
        for nth, text in enumerate(texts):
            for _ in range(self.copies):
                if len(texts) < 2:
                    mixed.append(text)
                    continue
                # Any but the text itself.
                other = (nth + 1 + int(rng.integers(len(texts) - 1))) % len(texts)
                count = math.ceil(self.piece * len(words[other]))
                first = int(rng.integers(len(words[other]) - count + 1))
                piece = texts[other][words[other][first][0] : words[other][first + count - 1][1]]
                behind = int(rng.integers(len(words[nth]) + 1))
                place = words[nth][behind - 1][1] if behind else 0
                mixed.append(f"{text[:place]} {piece}{text[place:]}" if behind else f"{piece} {text}")
        return mixed


def entropy(yes: NDArray[np.float64], leaning: bool = False) -> NDArray[np.float64]:
    """Return the entropy in bits of answers of two kinds.

    Args:
        yes: Probability of one of them.
        leaning: Whether the entropy of answers that lean against it is counted from 2 downward.
    """
    p = yes.clip(1e-12, 1 - 1e-12)
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.where(p < 0.5, 2 - bits, bits) if leaning else bits
