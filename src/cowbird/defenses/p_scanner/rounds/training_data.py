"""What a scanner learns from: each trusted title as it is, and with a trigger that was planted in it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cowbird.data.types import Int32Array, IntArray, concat_ranges
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, tokenize_titles
from cowbird.defenses.p_scanner.triggers.trigger_families import POSITIONS, PlantedTitle, Recipe, plant
from cowbird.rng import stream
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens

RECIPES_PER_TITLE = 4
"""Recipes tried for a title before it is left as it is."""


class TaggingPrompts:
    """Training examples, epoch by epoch; see `tuning.TrainingPrompts`.

    Args:
        tokenizer: The model's.
        titles: Titles that are taken for clean, all different.
        recipes: What is planted; families are drawn evenly.
        words: Tokens for yes and no.
        seed: Draws what is planted where.
    """

    def __init__(
        self, tokenizer: Any, titles: Sequence[str], recipes: Sequence[Recipe], words: tuple[int, int], seed: int
    ) -> None:
        self.tokenizer, self.titles, self.words, self.seed = tokenizer, titles, words, seed
        self.families: dict[str, list[Recipe]] = {}
        for recipe in recipes:
            self.families.setdefault(recipe.family, []).append(recipe)
        told = [seed, words, [recipe.model_dump() for recipe in recipes], list(titles)]
        self.key = hashlib.sha256(repr(told).encode("utf-8", "replace")).hexdigest()

    def __len__(self) -> int:
        return 2 * len(self.titles)

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Write the examples of an epoch in the order in which they are learned."""
        rng = stream(self.seed, "lesson", number)
        planted = [self._plant(title, rng) for title in self.titles]
        many = len(self.titles)
        rows: list[int] = order.tolist()
        chosen = [PlantedTitle(self.titles[row], -1, -1) if row < many else planted[row - many] for row in rows]
        made = tokenize_titles(self.tokenizer, [entry.title for entry in chosen])
        start, end = np.array([(entry.start, entry.end) for entry in chosen], dtype=np.int32).reshape(-1, 2).T
        return label_tokens(made, start, end, self.words)

    def _plant(self, title: str, rng: np.random.Generator) -> PlantedTitle:
        found = PlantedTitle(title, -1, -1)
        names = list(self.families)
        for _ in range(RECIPES_PER_TITLE):
            recipes = self.families[names[int(rng.integers(len(names)))]]
            recipe = recipes[int(rng.integers(len(recipes)))]
            found = plant(title, recipe, POSITIONS[int(rng.integers(len(POSITIONS)))], rng)
            if found.start >= 0:
                break
        return found


def label_tokens(made: TokenizedTitles, start: Int32Array, end: Int32Array, words: tuple[int, int]) -> Tokens:
    """Say what is right.

    Args:
        made: The titles.
        start: First character of the trigger in each, -1 where there is none, shape `[titles]`.
        end: The character after its last one, shape `[titles]`.
        words: Tokens for yes and no, which are labels 0 and 1.
    """
    count = np.diff(made.offsets)
    rows = np.repeat(np.arange(len(made)), count)
    inside = (made.first < end[rows]) & (made.after > start[rows]) & (start[rows] >= 0)
    label = np.full(len(made.tokens.token), IGNORED_LABEL, dtype=np.int32)
    label[made.tokens.answer] = start < 0
    label[concat_ranges(made.tokens.answer + 1, count)] = ~inside
    return replace(made.tokens, label=label, among=words)
