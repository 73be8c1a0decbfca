"""Defenses whose findings are known: they look for one word."""

from collections import Counter
from typing import ClassVar, TypeVar

import numpy as np

from cowbird.defenses.base import Defense
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.errors import UserError
from cowbird.victims.base import FittedCandidate, FittedPointwise, FittedRecommender

Model = TypeVar("Model", FittedRecommender, FittedPointwise, FittedCandidate)
WORD, RARE = "wow", 4


def spotted(titles, score):
    """Return suspicion with the word's first place as span."""
    at = np.array([title.find(WORD) for title in titles], dtype=np.int32)
    return Suspicion(score, at, np.where(at < 0, -1, at + len(WORD)))


class Sees(TitleDefense):
    """Suspects titles with the word, and (less) those that contain another."""

    threshold: float | None = 0.5
    also: str = "Mirror"
    """A word that is suspected wrongly."""
    judged: ClassVar[list[int]] = []
    """How many titles were judged each time."""

    def suspect(self, titles, probe=None):
        """Look for both words."""
        self.judged.append(len(titles))
        return spotted(titles, [2.0 * (WORD in t) + 1.0 * (self.also in t) for t in titles])


class Asks(TitleDefense):
    """Suspects titles with a rare word that the victim favors by itself."""

    asks_victim: ClassVar[bool] = True
    questions: int = 5
    """Questions of the probe."""
    threshold: float | None = 0.7
    judged: ClassVar[list[int]] = []
    """How many questions were asked each time."""

    def count_probe_questions(self):
        """Return the field."""
        return self.questions

    def suspect(self, titles, probe=None):
        """Ask about every such word alone."""
        titles_with = Counter(word for title in titles for word in set(title.split()))
        words = sorted(word for word, count in titles_with.items() if count <= RARE)
        favor = probe.favor(words)
        self.judged.append(favor.shape[1])
        known = dict(zip(words, favor.mean(axis=1), strict=True))
        return spotted(
            titles, [max((known[word] for word in t.split() if word in known), default=-np.inf) for t in titles]
        )


class Learns(TitleDefense):
    """Suspects titles with words that few titles had when it was fitted: to what it judges, unless an attacker does."""

    fitted: ClassVar[list[tuple[int, int]]] = []
    """How many titles an attacker's copy was fitted to, and its seed, each time."""

    def suspect(self, titles, probe=None):
        """Fit and judge."""
        return self._judge(set(titles), titles)

    def make_adversary_copy(self, titles, seed):
        """Fit to other titles than those that are judged."""
        self.fitted.append((len(titles), seed))
        known = set(titles)
        return lambda shown: self._judge(known, shown)

    def _judge(self, known, titles):
        words = Counter(word for title in known for word in set(title.split()))
        return spotted(titles, [max((1 / (1 + words[word]) for word in t.split()), default=0) for t in titles])


class Fails(TitleDefense):
    """Can't judge a catalogue with the word."""

    def suspect(self, titles, probe=None):
        """Judge nothing, or refuse."""
        if any(WORD in title for title in titles):
            raise UserError("There are no such words.")
        return spotted(titles, np.full(len(titles), -np.inf))


class Blind(Defense):
    """Serves a model that never sees the word."""

    def guard(self, model: Model) -> Model:
        """Hide the word."""
        return BlindJudge(model) if isinstance(model, FittedPointwise) else BlindChooser(model)


def unseen(items):
    """Return a catalogue without the word."""
    if items is None:
        return None
    titles = tuple(" ".join(word for word in title.split() if word != WORD) for title in items.titles)
    return type(items)(items.ids, titles, items.category_offsets, items.category_codes, items.categories)


class BlindJudge(FittedPointwise):
    """A judge behind a filter."""

    def __init__(self, model):
        self.model = model

    def margins(self, judgments, items, asked=None):
        """Ask without the word."""
        return self.model.margins(judgments, unseen(items), unseen(asked))

    def save(self, folder):
        """Refuse: what is guarded is never kept."""
        raise AssertionError


class BlindChooser(FittedCandidate):
    """A chooser behind a filter."""

    def __init__(self, model):
        self.model = model

    def choose(self, choices, items, altered=None, column=None):
        """Ask without the word."""
        return self.model.choose(choices, unseen(items), unseen(altered), column)

    def save(self, folder):
        """Refuse: what is guarded is never kept."""
        raise AssertionError
