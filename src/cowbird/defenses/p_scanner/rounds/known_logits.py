"""Marks of a catalogue that was read, for some of its titles, or after some were changed: nothing is read again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cowbird.data.types import Int32Array, concat_ranges
from cowbird.defenses.p_scanner.token_logits import TokenLogits, tokenize_titles


def select_logits(known: TokenLogits, tokenizer: Any, titles: Sequence[str], rows: Sequence[int]) -> TokenLogits:
    """Return the marks of some titles of a catalogue, without reading them again.

    Args:
        known: The marks of all titles.
        tokenizer: The model's.
        titles: Those that are wanted.
        rows: Which they are, in the same order.
    """
    made = tokenize_titles(tokenizer, titles)
    chosen = np.asarray(rows, dtype=np.int64)
    return TokenLogits(
        made,
        known.mark[concat_ranges(known.tokenized.offsets[:-1][chosen], np.diff(made.offsets))],
        known.verdict[chosen],
    )


def update_logits(
    before: TokenLogits, tokenizer: Any, titles: Sequence[str], rows: Int32Array, after: TokenLogits
) -> TokenLogits:
    """Return the marks of a catalogue some of whose titles were changed, without reading the others again.

    Args:
        before: The marks of all titles as they were.
        tokenizer: The model's.
        titles: All titles as they are now.
        rows: Which were changed, shape `[changed]`.
        after: The marks of those alone, as they are now.
    """
    made = tokenize_titles(tokenizer, titles)
    count, same = np.diff(made.offsets), np.ones(len(titles), dtype=bool)
    same[rows] = False
    mark = np.empty(len(made.token), dtype=np.float32)
    mark[concat_ranges(made.offsets[:-1][same], count[same])] = before.mark[
        concat_ranges(before.tokenized.offsets[:-1][same], count[same])
    ]
    mark[concat_ranges(made.offsets[:-1][rows], count[rows])] = after.mark
    verdict = before.verdict.copy()
    verdict[rows] = after.verdict
    return TokenLogits(made, mark, verdict)
