"""How visible a change to a title is: edits, characters that an ordinary title does not have, and what a model says.

Texts are compared by code points as they are, never normalized: an accent written as a mark of its own is a change.
What a language model makes of titles comes in as arrays (`cowbird.victims.language.perplexity` fills them). No measure
of this kind is in the BadRec paper, which calls its triggers stealthy without one; perplexity is how ONION (Qi et al.,
EMNLP 2021) looks for inserted words, similarity of embeddings how attacks on text are usually held to their meaning.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, Floats, to_floats, to_numpy
from cowbird.metrics.intervals import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE_LEVEL,
    Interval,
    check_level,
    clopper_pearson,
    percentiles,
)


def edit_distance(one: str, other: str) -> int:
    """Return the fewest insertions, deletions and substitutions of characters between two texts (Levenshtein, 1966).

    Columns of the table are kept as the bits of whole numbers (Myers, Journal of the ACM 1999, in the form of Hyyrö,
    2003), so that 10,000 characters against 10,000 take a fraction of a second.

    Args:
        one: A text.
        other: Another text.
    """
    short, long = _trim_common(*sorted((one, other), key=len))
    if not short:
        return len(long)
    places: dict[str, int] = {}
    for at, letter in enumerate(short):
        places[letter] = places.get(letter, 0) | 1 << at
    everywhere, last = (1 << len(short)) - 1, 1 << len(short) - 1
    # Where the distance rises or falls by one from row to row of a column, and then from column to column of a row.
    rises, falls, distance = everywhere, 0, len(short)
    for letter in long:
        same = places.get(letter, 0)
        diagonal = (((same & rises) + rises) ^ rises) | same | falls
        up = falls | ~(diagonal | rises)
        down = rises & diagonal
        distance += bool(up & last) - bool(down & last)
        up, down = up << 1 | 1, down << 1
        rises = (down | ~(diagonal | up)) & everywhere
        falls = up & diagonal & everywhere
    return distance


def _trim_common(short: str, long: str) -> tuple[str, str]:
    """Return both texts without what they begin and end with in common."""
    start, length = 0, len(short)
    while start < length and short[start] == long[start]:
        start += 1
    end = 0
    while end < length - start and short[-1 - end] == long[-1 - end]:
        end += 1
    return short[start : length - end], long[start : len(long) - end]


def relative_edit_distance(one: str, other: str) -> float:
    """Return the edit distance over the length of the longer text, from 0 (equal) to 1; 0 for two empty texts."""
    return edit_distance(one, other) / max(len(one), len(other), 1)


@dataclass(frozen=True, slots=True)
class CharacterCounts:
    """How many characters of a text are of kinds that a reader does not see or takes for others."""

    control: int
    """Control characters (category Cc), line breaks and tabs among them."""
    format: int
    """Characters of no width that steer others (category Cf): joiners, soft hyphens, and all of `bidi`."""
    bidi: int
    """Those of them that steer the direction of writing (Unicode's property Bidi_Control)."""
    combining: int
    """Marks that join the character before them (categories Mn, Mc and Me)."""
    non_ascii_letters: int
    """Letters outside of ASCII, accented ones included."""
    mixed_words: int
    """Words with letters of more than one script, such as a Latin word with one Cyrillic letter."""


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_TOGETHER = {
    "HIRAGANA": "CJK",
    "KATAKANA": "CJK",
    "KATAKANA-HIRAGANA": "CJK",
    "IDEOGRAPHIC": "CJK",
    "HANGUL": "CJK",
    "BOPOMOFO": "CJK",
}


def count_characters(text: str) -> CharacterCounts:
    """Count control, format, bidi and combining characters, letters outside of ASCII, and words of mixed scripts.

    A script is the first word of a letter's Unicode name, after compatibility forms such as fullwidth letters were
    resolved; the scripts that Chinese, Japanese and Korean mix count as one.

    Args:
        text: Any text.
    """
    category = [unicodedata.category(letter) for letter in text]
    return CharacterCounts(
        category.count("Cc"),
        category.count("Cf"),
        sum(letter in _BIDI for letter in text),
        sum(kind.startswith("M") for kind in category),
        sum(kind.startswith("L") and not letter.isascii() for kind, letter in zip(category, text, strict=True)),
        sum(len(_find_scripts(word)) > 1 for word in text.split()),
    )


def _find_scripts(word: str) -> set[str]:
    forms = (unicodedata.normalize("NFKC", letter) for letter in set(word) if letter.isalpha())
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for form in forms for letter in form if letter.isalpha()}
    return {_TOGETHER.get(script, script) for script in scripts} - {"", "MODIFIER"}


def control_share(clean: Sequence[str], poisoned: Sequence[str], level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return the share of titles that gained a control or format character, which a reader does not see.

    Args:
        clean: Titles as they were.
        poisoned: The same titles after the change, as many.
        level: Coverage of the interval (Clopper and Pearson 1934).

    Raises:
        UserError: If the two differ in length.
    """
    _check_lengths(len(clean), len(poisoned), "titles")
    gained = sum(_count_hidden(after) > _count_hidden(before) for before, after in zip(clean, poisoned, strict=True))
    return clopper_pearson(gained, len(clean), level)


def _count_hidden(text: str) -> int:
    return sum(unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


def perplexity_change(clean: Array, poisoned: Array) -> Floats:
    """Return by what factor each title became more surprising: its perplexity after the change over that before.

    Perplexity is exp(-1/n · Σ log p(token i | tokens before it)) over a title's n tokens, the natural logarithm and the
    same begin-of-text token before each. It is a mean over tokens, so a title does not become surprising by being long.

    Args:
        clean: Perplexity of each title as it was, shape `[titles]`.
        poisoned: Perplexity of the same title after the change, shape `[titles]`.

    Returns:
        Ratios, shape `[titles]`; above 1 where the change surprises the model.

    Raises:
        UserError: If the two differ in length, or one is missing, infinite, or not above zero.
    """
    before, after = to_floats(clean, "perplexities"), to_floats(poisoned, "perplexities")
    _check_lengths(len(before), len(after), "perplexities")
    if (before <= 0).any() or (after <= 0).any():
        raise UserError("Perplexities must be above zero.", "Pass perplexities, not log likelihoods.")
    return after / before


def embedding_similarity(clean: Array, poisoned: Array) -> Floats:
    """Return the cosine between the embeddings of each title before and after the change.

    Args:
        clean: Embedding of each title as it was, shape `[titles, width]`.
        poisoned: Embedding of the same title after the change, shape `[titles, width]`.

    Returns:
        Cosines from -1 to 1, shape `[titles]`.

    Raises:
        UserError: If the shapes differ, or an embedding holds NaN or infinity or is zero.
    """
    before, after = (to_numpy(table).astype(np.float64) for table in (clean, poisoned))
    if before.ndim != 2 or before.shape != after.shape:
        raise UserError(
            f"Embeddings must have one shape [titles, width], and have {before.shape} and {after.shape}.",
            "Embed the same titles twice.",
        )
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise UserError("An embedding is zero, or holds NaN or infinity.", "Leave out titles without one.")
    return np.clip(np.sum(before * after, axis=1) / lengths, -1.0, 1.0)


def median_interval(
    values: Array, rng: np.random.Generator, resamples: int = BOOTSTRAP_RESAMPLES, level: float = CONFIDENCE_LEVEL
) -> Interval:
    """Return a median and its percentile bootstrap interval, in the time it takes to sort.

    A resample's k-th smallest value is the value at the place floor(n · U), U the k-th smallest of n uniform numbers,
    which has a beta distribution (Maritz and Jarrett, JASA 1978); so medians of resamples are drawn without resampling.

    Args:
        values: One value a title, shape `[n]`, in any unit.
        rng: Generator to draw from.
        resamples: Number of resamples.
        level: Coverage.

    Returns:
        The interval in the unit of the values; all `None` without values, and no ends for a single one.

    Raises:
        UserError: If a value is missing, NaN or infinite, or an option is out of range.
    """
    check_level(level)
    sample = np.sort(to_floats(values, "values"))
    n = len(sample)
    if resamples < 1:
        raise UserError(f"At least one resample is needed, and {resamples} were asked for.", "2000 is usual.")
    if n < 2:
        return Interval(float(sample[0]) if n else None, None, None, n)
    k = (n + 1) // 2
    lower = rng.beta(k, n - k + 1, size=resamples)
    # With an even number the median is the mean of the middle two; the next of the uniform numbers, given this one.
    upper = lower if n % 2 else lower + (1 - lower) * rng.beta(1, n - k, size=resamples)
    places = [np.minimum((n * share).astype(np.int64), n - 1) for share in (lower, upper)]
    low, high = percentiles((sample[places[0]] + sample[places[1]]) / 2, level)
    return Interval(float(np.median(sample)), low, high, n)


def _check_lengths(one: int, other: int, what: str) -> None:
    if one != other:
        raise UserError(f"There are {one} clean and {other} poisoned {what}.", "Measure the same titles twice.")
