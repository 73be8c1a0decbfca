"""What a catalogue does by habit, and what breaks its habits.

A trigger stands in a few titles of a hundred: what more of them share is how this catalogue writes, such as years in
parentheses or a Roman numeral. Digits change within such a habit, so they are told alike. And rules for characters
(`cowbird.defenses.character_rules`) are broken by honest titles too, each about as often as its weight in bits says:
what counts is by how much more often a rule is broken than that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int32Array
from cowbird.defenses._characters import to_code_points
from cowbird.defenses.character_rules import find_broken_rules
from cowbird.defenses.p_scanner.rounds.ngrams import Ngrams, TokenSequences
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles
from cowbird.defenses.titles import Suspicion

COMMON_SHARE, MIN_COMMON_TITLES = 0.03, 20
"""Share of the titles, and number of them, above which what they share is a habit."""
COMMON_RULE_SHARE = 0.1
"""Share of the titles, if that is more than `MIN_COMMON_TITLES`, above which breaking a rule is a habit: a catalogue in
small letters, or with spaces of another kind throughout."""
MAX_RULE_ODDS = 12.0
"""Log-odds of a rule, at most."""
SURPRISE_BITS = 8.0
"""Bits. A rule of so many is broken once by honest titles, however few there are; one of a bit more half as often."""


_DIGIT = np.array([chr(code).isdigit() for code in range(128)] + [False])


def list_tokens(titles: Sequence[str], made: TokenizedTitles, token: Int32Array | None = None) -> TokenSequences:
    """Return titles as tokens whose fragments can be found.

    Args:
        titles: The titles.
        made: The same as they were read.
        token: What stands for the tokens; themselves by default, with digits told alike.
    """
    if token is not None:
        return TokenSequences(token, made.offsets)
    return TokenSequences(made.token, made.offsets, find_digit_tokens(titles, made))


def find_digit_tokens(titles: Sequence[str], made: TokenizedTitles) -> NDArray[np.bool_]:
    """Return which tokens hold nothing but ASCII digits, spaces aside, shape `[marks]`."""
    code, lengths = to_code_points(titles)
    begin = np.repeat(np.cumsum(lengths) - lengths, np.diff(made.offsets))
    first, after = begin + made.first, begin + made.after
    digit = _DIGIT[np.minimum(code, 128)]
    held, other = (np.concatenate([[0], np.cumsum(some)]) for some in (digit, ~digit & (code != ord(" "))))
    return (held[after] > held[first]) & (other[after] == other[first])


def find_common_ngrams(found: Ngrams) -> NDArray[np.bool_]:
    """Return which fragments are a habit of the catalogue, shape `[fragments]`."""
    return found.alike > max(COMMON_SHARE * found.many, MIN_COMMON_TITLES)


def list_kept_rules(titles: Sequence[str], apart: bool = False) -> list[tuple[float, Suspicion, NDArray[np.bool_]]]:
    """Return the rules that this catalogue holds to: its weight in bits, verdicts, and which titles break it.

    A rule that more than a tenth of the titles break is none here; titles that are judged apart have no habits.
    """
    known = [(bits, rule, np.isfinite(rule.score)) for bits, rule in find_broken_rules(titles)]
    return [each for each in known if apart or each[2].sum() <= max(COMMON_RULE_SHARE * len(titles), MIN_COMMON_TITLES)]


def judge_by_characters(titles: Sequence[str], apart: bool = False) -> tuple[Suspicion, Int32Array]:
    """Judge titles by rules for characters: in log-odds, -inf where none is broken more often than honest titles do.

    Where t of n titles break a rule of b bits, about m = n / 2^b honest ones are expected to (or 2^(8 - b), if that is
    more). Then t - m of them are more than that, and each is one of these with odds of (t - m) / m.

    Args:
        titles: Any texts.
        apart: Whether each is judged as if it were the only one.

    Returns:
        The verdicts, by the rule that speaks loudest, and how many titles break that, shape `[titles]`.
    """
    score = np.full(len(titles), -np.inf, dtype=np.float32)
    start, end, shared = np.full((3, len(titles)), -1, dtype=np.int32)
    for bits, rule, broken in list_kept_rules(titles, apart):
        many, count = (1, 1) if apart else (len(titles), int(broken.sum()))
        honest = max(many * 2.0**-bits, 2.0 ** (SURPRISE_BITS - bits))
        if count <= honest:
            continue
        odds = min(MAX_RULE_ODDS, float(np.log((count - honest) / honest)))
        louder = broken & (odds > score)
        score[louder], shared[louder] = odds, count
        start[louder], end[louder] = rule.start[louder], rule.end[louder]
    return Suspicion(score, start, end), np.maximum(shared, 0)
