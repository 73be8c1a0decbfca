"""Texts that are put into titles while triggers are unlearned: named fragments, their like, and others.

A fragment that a search found is often the trigger with something around it, or a text that shares only its effect. So
its parts and its like are put in as well, and all that a search tries: words, short strings, phrases, sentences, unseen
characters and pairs.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cowbird.inspection.language.title_edits import (
    CHARACTER_EDITS,
    FRAGMENT_POSITIONS,
    PAIR_SEPARATOR,
    STYLE_EDITS,
    FragmentPosition,
    split_pair,
)
from cowbird.rng import stream
from cowbird.text import quote_for_prompt

PlacedText = tuple[str, FragmentPosition]
"""A text and its place in the title."""
MAX_STRING, MAX_PHRASE = 4, 6
"""Characters of a short string, and words of a phrase, at most."""
_LETTERS = "".join(letter for letter in string.printable if not letter.isspace() and letter != '"')


@dataclass
class TitleTexts:
    """Draws texts and their places.

    Args:
        fragments: Named fragments.
        words: Words of titles and of the tokenizer.
        sentences: Sentences that the model wrote.
        named: Share of the texts that are fragments as they are named.
        varied: Share of those that are like a fragment.
        strong: Share of those that are known to move answers, if some are.
    """

    fragments: Sequence[str]
    words: Sequence[str]
    sentences: Sequence[str]
    named: float
    varied: float
    strong: float
    moving: list[PlacedText] = field(default_factory=list[PlacedText])
    """Texts that are known to move answers."""

    def draw(self, rng: np.random.Generator) -> PlacedText:
        """Draw a text and its place."""
        place = draw_place(rng)
        kind = rng.random()
        if kind < self.named:
            return _pick(self.fragments, rng), place
        if kind < self.named + self.varied:
            return vary_fragment(_pick(self.fragments, rng), rng), place
        if self.moving and kind < self.named + self.varied + self.strong:
            text, known = self.moving[int(rng.integers(len(self.moving)))]
            return (vary_fragment(text, rng) if rng.random() < 0.5 else text), (known if rng.random() < 0.5 else place)
        return self.draw_other(rng), place

    def draw_other(self, rng: np.random.Generator) -> str:
        """Draw a text of any kind that a search tries."""
        kind = self._kinds[int(rng.integers(len(self._kinds)))]
        if kind == "phrase":
            size = int(rng.integers(2, MAX_PHRASE + 1))
            return " ".join(_pick(self.words, rng) for _ in range(size))
        if kind == "sentence":
            return _pick(self.sentences, rng)
        if kind == "edit":
            return _pick(_EDITS, rng)
        if kind == "pair":
            return f"{self._draw_part(rng)}{PAIR_SEPARATOR}{self._draw_part(rng)}"
        return _pick(self.words, rng) if kind == "word" else draw_string(rng)

    @cached_property
    def _kinds(self) -> list[str]:
        some = ["word"] * 6 + ["phrase"] * 3 if self.words else []
        return [*some, *["string"] * 5, *(["sentence"] * 3 if self.sentences else []), "edit", "edit", "pair"]

    def _draw_part(self, rng: np.random.Generator) -> str:
        return _pick(self.words, rng) if self.words and rng.random() < 0.5 else draw_string(rng)


def draw_other_texts(titles: Sequence[str], count: int) -> list[str]:
    """Draw texts of many kinds, made of titles' words and characters: the same ones for the same titles."""
    rng = stream(0, "inspection", "other texts")
    texts = TitleTexts((), list(dict.fromkeys(word for title in titles for word in title.split())), (), 0.0, 0.0, 0.0)
    return list(dict.fromkeys(texts.draw_other(rng) for _ in range(count)))


def _pick(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def draw_place(rng: np.random.Generator) -> FragmentPosition:
    """Draw a place in a title."""
    return FRAGMENT_POSITIONS[int(rng.integers(len(FRAGMENT_POSITIONS)))]


def draw_string(rng: np.random.Generator) -> str:
    """Draw a short string."""
    size = int(rng.integers(1, MAX_STRING + 1))
    return "".join(_LETTERS[int(at)] for at in rng.integers(len(_LETTERS), size=size))


_EDITS = [*CHARACTER_EDITS, *STYLE_EDITS]


def vary_fragment(fragment: str, rng: np.random.Generator) -> str:
    """Return a part of a fragment, or a text that is like it."""
    for edits in (CHARACTER_EDITS, STYLE_EDITS):
        if fragment in edits:
            return list(edits)[int(rng.integers(len(edits)))]
    pair = split_pair(fragment)
    if pair is not None:
        first, second = pair
        kept = (first, second, f"{vary_fragment(first, rng)}{PAIR_SEPARATOR}{second}")
        made = (*kept, f"{first}{PAIR_SEPARATOR}{vary_fragment(second, rng)}", f"{second}{PAIR_SEPARATOR}{first}")
        return made[int(rng.integers(len(made)))]
    words = fragment.split()
    at = int(rng.integers(len(fragment)))
    letter = string.ascii_lowercase[int(rng.integers(26))]
    made = (
        words[int(rng.integers(len(words)))],
        " ".join(words[1:]),
        " ".join(words[:-1]),
        fragment[:at] + fragment[at + 1 :],
        fragment[:at] + fragment[at] + fragment[at:],
        fragment[:at] + letter + fragment[at + 1 :],
        fragment.swapcase(),
        fragment[1:],
        fragment[:-1],
        f"{fragment} {letter}",
    )
    usable = [text for each in made if (text := quote_for_prompt(each))]
    return usable[int(rng.integers(len(usable)))]
