"""A catalogue, a tiny scanner fitted to it, and titles whose words are tokens."""

import re

import numpy as np
import pytest
import torch

from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, TokenLogits
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tuning import Tuning

WORDS = ("Red", "Harbor", "Blue", "Garden", "The", "Engine", "at", "Night", "of", "Quiet", "Letter")
"""What the tiny tokenizer knows."""
TRIGGER = " zq"


@pytest.fixture(scope="session")
def catalogue():
    """Return a function that makes different titles of three to five words each, in which nothing else recurs."""

    def make(count=240, seed=0):
        rng = np.random.default_rng(seed)
        made = (" ".join(rng.choice(WORDS, int(rng.integers(3, 6)), replace=False)) for _ in range(4 * count))
        return list(dict.fromkeys(made))[:count]

    return make


@pytest.fixture(scope="session")
def loaded(llama):
    """Return the tiny model and its tokenizer."""
    return load_llm(Llm(name=str(llama)), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def tiny_scanner(llama):
    """Return a function that describes a scanner whose fit takes half a second."""
    pytest.importorskip("peft")

    def make(recipe=None, layers=1, **fields):
        tuning = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-2, "precision": "float32"} | (recipe or {})
        given = {
            "llm": Llm(name=str(llama), rank=2, layers=layers),
            "tuning": Tuning(**tuning),
            "rounds": 1,
            "proposals": 24,
            "plantings": 12,
            "held": 0.4,
            "fpr": 0.02,
            "context_gain": False,
        }
        return PoisonScanner(**(given | fields))

    return make


@pytest.fixture(scope="session")
def clean_fit(tiny_scanner, catalogue):
    """Return a scanner that was fitted to a catalogue in which nothing is planted."""
    return tiny_scanner().fit(catalogue())


@pytest.fixture(scope="session")
def poisoned(catalogue):
    """Return a catalogue in which eight titles end with a trigger, and which they are."""
    titles = catalogue()
    truth = np.zeros(len(titles), dtype=bool)
    truth[np.random.default_rng(1).choice(len(titles), 8, replace=False)] = True
    return [title + TRIGGER * int(bad) for title, bad in zip(titles, truth, strict=True)], truth


@pytest.fixture(scope="session")
def poisoned_fit(tiny_scanner, poisoned):
    """Return a scanner that was fitted to the poisoned catalogue, in two rounds."""
    return tiny_scanner(rounds=2, layers=2).fit(poisoned[0])


@pytest.fixture(scope="session")
def worded():
    """Return a function that gives pages on which every word is a token."""

    def make(titles):
        numbers = {}
        found = [list(re.finditer(r"\S+", title)) for title in titles]
        token = [numbers.setdefault(word.group(), len(numbers)) for words in found for word in words]
        spans = [word.span() for words in found for word in words]
        first, after = np.array(spans, dtype=np.int32).reshape(-1, 2).T
        offsets = np.cumsum([0] + [len(words) for words in found])
        nothing = Tokens([], [0], [])
        return TokenizedTitles(nothing, np.array(token, dtype=np.int32), first, after, offsets)

    return make


@pytest.fixture(scope="session")
def marked(worded):
    """Return a function that gives marks by word: those told, and `other` for the others."""

    def make(titles, told, other=-3.0):
        made = worded(titles)
        words = [word for title in titles for word in title.split()]
        mark = np.array([told.get(word, other) for word in words], dtype=np.float32)
        return TokenLogits(made, mark, np.zeros(len(titles), dtype=np.float32))

    return make
