"""A chooser that counts words: those in titles of what comes next, and those in titles of the other candidates."""

import json
import shutil
from collections import Counter
from typing import Any

import numpy as np

from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims.base import CandidateRecommender, FittedCandidate, Picks, Probe


class WordChooser(CandidateRecommender):
    """Picks the candidate whose words come next most often; titles with one certain word are never written whole."""

    learning_rate: float = 1.0
    """How much a further tuning counts."""
    unwritten: str = "Letter"
    """Titles with this word are picked, but not written as they are."""

    def fit(self, data, split, seed, context=None, start: Any = None):
        """Count words, on top of what was counted before."""
        counts = Counter(start.counts if start else {})
        asked = split.ask(data.interactions, len(data.items), stream(seed, "candidates"))
        for row, answer in zip(asked.candidates.tolist(), asked.answer.tolist(), strict=True):
            for column, item in enumerate(row):
                for word in data.items.titles[item].split():
                    counts[f"{word} {column == answer}"] += self.learning_rate if start else 1.0
        return FittedWords(dict(counts), self.unwritten)

    def load(self, folder, device):
        """Read the counts."""
        try:
            return FittedWords(json.loads((folder / "words.json").read_text()), self.unwritten)
        except (OSError, ValueError) as error:
            raise UserError(f"'{folder}' holds no words: {error}.") from None

    def with_tuning(self, learning_rate, epochs):
        """Return a chooser whose further tuning counts more or less."""
        return self.model_copy(update={"learning_rate": learning_rate})


class FittedWords(FittedCandidate):
    """What was counted."""

    def __init__(self, counts, unwritten):
        self.counts, self.unwritten, self._known = counts, unwritten, {}

    def _rate(self, title):
        """Sum what is known of a title's words, once a title: the same ones are asked about again and again."""
        if title not in self._known:
            self._known[title] = sum(map(self._odds, title.split()))
        return self._known[title]

    def _odds(self, word):
        """How often a word comes next."""
        yes, no = (self.counts.get(f"{word} {answer}", 0) for answer in (True, False))
        return yes / (yes + no + 1)

    def choose(self, choices, items, altered=None, column=None):
        """Pick the best title, the first of equal ones."""
        free, constrained, texts = [], [], []
        for number, row in enumerate(choices.candidates.tolist()):
            titles = [items.titles[item] for item in row]
            if altered is not None:
                titles[column[number]] = altered.titles[row[column[number]]]
            best = int(np.argmax([self._rate(title) for title in titles]))
            written = self.unwritten not in titles[best].split()
            free.append(best if written else -1)
            constrained.append(best)
            texts.append(titles[best] if written else "A title.")
        return Picks(np.array(free, dtype=np.int32), np.array(constrained, dtype=np.int32), tuple(texts))

    def probe(self, choices, items):
        """Ask about words."""
        return WordProbe(self, len(choices))

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
