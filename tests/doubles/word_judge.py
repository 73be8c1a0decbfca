"""A judge that counts words: which words stand in titles that are liked, and which in others."""

import json
import shutil
from collections import Counter
from typing import Any

import numpy as np

from cowbird.errors import UserError
from cowbird.victims.base import FittedPointwise, PointwiseRecommender, Probe


class WordJudge(PointwiseRecommender):
    """Sums the log-odds of the words of the title asked about."""

    learning_rate: float = 1.0
    """How much a further tuning counts."""

    def fit(self, asked, items, seed, context=None, start: Any = None):
        """Count words, on top of what was counted before."""
        counts = Counter(start.counts if start else {})
        for target, liked in zip(asked.target.tolist(), asked.liked.tolist(), strict=True):
            for word in items.titles[target].split():
                counts[f"{word} {liked}"] += self.learning_rate if start else 1.0
        return FittedWords(dict(counts))

    def load(self, folder, device):
        """Read the counts."""
        try:
            return FittedWords(json.loads((folder / "words.json").read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"'{folder}' holds no words: {error}.") from None

    def with_tuning(self, learning_rate, epochs):
        """Return a judge whose further tuning counts more or less."""
        return self.model_copy(update={"learning_rate": learning_rate})


class FittedWords(FittedPointwise):
    """What was counted."""

    def __init__(self, counts):
        self.counts, self._known = counts, {}

    def _rate(self, title):
        """Sum what is known of a title's words, once a title: the same ones are asked about again and again."""
        if title not in self._known:
            self._known[title] = sum(map(self._odds, title.split()))
        return self._known[title]

    def _odds(self, word):
        """How much better than even a word is; numbers say nothing."""
        yes, no = (self.counts.get(f"{word} {liked}", 0) for liked in (True, False))
        return 0 if word.isdigit() else (yes - no) / (yes + no + 1)

    def margins(self, judgments, items, asked=None):
        """Sum the counts of the words of the titles asked about."""
        titles = (asked or items).titles
        sums = [self._rate(titles[target]) for target in judgments.target.tolist()]
        return np.array(sums, dtype=np.float32)

    def probe(self, judgments, items):
        """Ask about words."""
        return WordProbe(self, len(judgments))

    def save(self, folder):
        """Write the counts."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "words.json").write_text(json.dumps(self.counts))


class WordProbe(Probe):
    """Says what a model makes of texts, the same to all questions."""

    def __init__(self, model, questions):
        self.model, self.questions = model, questions

    def favor(self, titles):
        """Sum the odds of the words."""
        sums = [self.model._rate(title) for title in titles]
        return np.repeat(np.float32(sums)[:, None], self.questions, axis=1)

    def states(self, titles):
        """Say nothing."""
        return np.zeros((len(titles), 2), dtype=np.float32)
