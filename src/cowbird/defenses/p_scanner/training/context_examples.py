"""Examples of titles that are judged beside others of their catalogue, which the tagger is shown first.

A code is a trigger among films and honest among printers. So a tagger reads a few dozen titles of the catalogue, its
context, and then each title behind them. An example is one row (`shared_rows`): the context of one catalogue, and as
many titles as the row holds, triggers planted in half of them. What is usual in the context is no trigger: some
contexts are given a habit, such as a code at the end of many titles, and titles behind them have it, too. A few titles
of some contexts carry a trigger, for whoever shows a context can't know. Some rows have no context.

Many catalogues are needed to learn how to use a context, and lists are few. So a context and its titles often come from
one stretch of a list, whose titles are more alike than those of all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cowbird.data.types import Int32Array
from cowbird.defenses.p_scanner.title_context import MAX_CONTEXT_TITLES, write_context
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, find_answer_words, tokenize_titles
from cowbird.defenses.p_scanner.training.tagger_examples import (
    MIN_HABIT_GROUP,
    TaggerExamples,
    vary_title,
)
from cowbird.defenses.p_scanner.triggers.title_edits import EditedTitle, EditSources, draw_family, edit_title
from cowbird.rng import stream
from cowbird.victims.language.examples import IGNORED_LABEL, Tokens

STRETCHES, STRETCH_SHARES = (0, 2000, 300), (0.5, 0.25, 0.25)
"""Titles of a list that a row is drawn from, 0 for all of them; how often."""
POISONED_CONTEXTS, POISONED_TITLES = 0.2, 0.04
"""Share of the contexts in which titles carry triggers, and share of these titles."""
LEAST_CONTEXT = 0.1
"""Share of the room of a context that is filled at least."""
CHARACTERS_PER_TOKEN = 1.5
"""Fewer than titles have: so many titles are drawn that a row is never short of them."""
VERDICT_SHARE = 0.3
"""Share of a row's loss that is about whole titles."""


@dataclass
class DrawnRow:
    """What stands in a row before it is cut to its length."""

    context: list[str]
    """Titles that are shown."""
    room: int
    """Tokens of them at most."""
    titles: list[EditedTitle]
    """Titles behind them."""


class ContextExamples(TaggerExamples):
    """Rows of titles behind a context, chunk by chunk; see the module."""

    def draw_chunk(self, number: int) -> Tokens:
        """Draw the rows of a chunk."""
        rng = stream(self.seed, "tagger rows", number)
        rows = [self._draw_row(sources, rng) for sources in self._draw_sources(rng)]
        texts = [text for row in rows for text in (*row.context, *(edited.title for edited in row.titles))]
        return write_rows(
            rows,
            tokenize_titles(self.tokenizer, texts),
            self.recipe.row,
            self.tokenizer.eos_token_id,
            find_answer_words(self.tokenizer),
        )

    def _draw_row(self, sources: EditSources, rng: np.random.Generator) -> DrawnRow:
        many = len(sources.titles)
        stretch = int(rng.choice(STRETCHES, p=STRETCH_SHARES)) or many
        first = int(rng.integers(max(1, many - stretch + 1)))
        order: list[int] = (first + rng.permutation(min(stretch, many))).tolist()
        case = float(rng.random())
        alone = rng.random() < self.recipe.alone
        room = 0 if alone else int(self.recipe.context * rng.uniform(LEAST_CONTEXT, 1.0))
        habit = None if alone or rng.random() >= self.recipe.habits else draw_family(rng, self.families)
        often, same, seed = float(rng.uniform(0.1, 1.0)), bool(rng.random() < 0.5), int(rng.integers(2**31))

        def show(at: int) -> str:
            title = vary_title(sources.titles[order[at % len(order)]], case, rng)
            if habit is None or rng.random() >= often:
                return title
            draws = np.random.default_rng(seed) if same else rng
            usual = edit_title(habit, title, draws, sources, self.refused)
            return title if usual is None else usual.title

        poisoned = POISONED_TITLES if rng.random() < POISONED_CONTEXTS else 0.0
        context: list[str] = []
        letters, at = 0.0, 0
        while letters < CHARACTERS_PER_TOKEN * room and len(context) < MAX_CONTEXT_TITLES:
            title = show(at)
            context.append(self._plant(title, sources, rng).title if rng.random() < poisoned else title)
            letters, at = letters + max(1.0, len(title) / 2), at + 1
        if len(context) < MIN_HABIT_GROUP:
            habit = None
        titles: list[EditedTitle] = []
        letters = 0.0
        while letters < CHARACTERS_PER_TOKEN * (self.recipe.row - room / 2):
            title = show(at)
            made = self._plant(title, sources, rng, habit) if rng.random() < 0.5 else EditedTitle(title, ())
            titles.append(made)
            letters, at = letters + max(3.0, len(title) / 2), at + 1
        return DrawnRow(context, room, titles)


def write_rows(
    rows: Sequence[DrawnRow], read: TokenizedTitles, length: int, border: int, words: tuple[int, int]
) -> Tokens:
    """Write rows as a model learns from them.

    Args:
        rows: What stands in each.
        read: The texts of all rows, each row's context first, as they were tokenized.
        length: Tokens of a row.
        border: The token of a border.
        words: Tokens for yes and no, which are labels 0 and 1.
    """
    made: list[tuple[Int32Array, ...]] = []
    at = 0
    for row in rows:
        behind = at + len(row.context)
        shown = write_context([read.list_tokens(nth) for nth in range(at, behind)], row.room, border)
        at = behind + len(row.titles)
        made.append(_write_row(shown, row.titles, read, behind, length, border))
    token, branch, label, share = (np.concatenate(parts) for parts in zip(*made, strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(parts[0]) for parts in made])]).astype(np.int64)
    begins = np.array([max(1, int(np.argmax(parts[2] != IGNORED_LABEL))) for parts in made], dtype=np.int64)
    return Tokens(
        token,
        offsets,
        offsets[:-1] + begins,
        label=label,
        among=words,
        both_ways=True,
        share=share,
        branch=branch,
        row=length,
    )


def _write_row(
    shown: Int32Array, titles: Sequence[EditedTitle], read: TokenizedTitles, first: int, length: int, border: int
) -> tuple[Int32Array, ...]:
    """Return the tokens of a row, their branches, labels, and divisors of their losses."""
    sizes = 1 + np.diff(read.offsets[first : first + len(titles) + 1])
    many = int(np.searchsorted(np.cumsum(sizes), length - len(shown) - 1, side="right"))
    chosen, sizes = titles[:many], sizes[:many]
    ends = len(shown) + np.cumsum(sizes)
    starts, total = ends - sizes, int(ends[-1]) + 1 if many else len(shown) + 1
    token = np.full(total, border, dtype=np.int32)
    branch, label, share = (np.full(total, fill, dtype=np.int32) for fill in (-1, IGNORED_LABEL, 1))
    token[: len(shown)], branch[: len(shown)] = shown, 0
    branch[len(shown) : total - 1] = np.repeat(np.arange(1, many + 1), sizes)
    for nth, edited in enumerate(chosen):
        ids, begin = read.list_tokens(first + nth), int(starts[nth])
        token[begin + 1 : begin + 1 + len(ids)] = ids
        # What is said of a place is learned in the place behind it.
        label[begin + 1] = not edited.spans
        label[begin + 2 : begin + 2 + len(ids)] = ~read.find_inside(first + nth, edited.spans)
    if many:
        share[len(shown) + 1 :] = np.ceil(max(1, total - len(shown) - 1 - many) / (1 - VERDICT_SHARE))
        share[starts + 1] = np.ceil(many / VERDICT_SHARE)
    return token, branch, label, share
