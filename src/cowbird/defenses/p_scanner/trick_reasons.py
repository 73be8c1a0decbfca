"""Where a title has what nobody sees, and the reason in words: it says more of a title than what honest ones share."""

from typing import NamedTuple

import numpy as np

from cowbird.defenses.p_scanner.baseline import Baseline
from cowbird.defenses.p_scanner.inventory import hash_rows
from cowbird.defenses.p_scanner.scoring import TRICK_LOG_ODDS
from cowbird.defenses.p_scanner.title_evidence import TitleTraits, find_tricks
from cowbird.defenses.p_scanner.title_rules import RULES, TRICK_RULES, describe_word, judge_character
from cowbird.text import escape_terminal

_TRICKS = tuple(map(RULES.index, TRICK_RULES))


class TrickSpan(NamedTuple):
    """What nobody sees in a title."""

    start: int
    """First character of the first of it."""
    end: int
    """The character after that."""
    alone: bool
    """Whether nothing else goes if it is taken out, and no more of it stays."""
    reason: str
    """Why it is suspicious."""


def find_trick(baseline: Baseline, traits: TitleTraits, row: int, place: int) -> TrickSpan | None:
    """Return what nobody sees in a title, such as a hidden character, if that carries the title's score.

    Args:
        baseline: What is usual.
        traits: Titles, among them this one.
        row: Which it is.
        place: Its most suspicious fragment, a place in the evidence; -1 for none.

    Returns:
        `None` if there is none, if it is a habit of the catalogue, or if a fragment or the tagger says more.
    """
    met = [number for number in _TRICKS if traits.rules[row, number]]
    if not met:
        return None
    rows, profile, title = np.array([row], dtype=np.int64), baseline.profile, traits.words.titles[row]
    own = np.array([found in baseline.members for found in hash_rows(traits, rows)], dtype=np.bool_)
    if not find_tricks(traits, rows, profile, own)[0]:
        return None
    rule = min(met, key=lambda number: int(profile.rules[number]))
    start, end, alone = _locate(title, traits, row, rule)
    highest = float(traits.highest[row])
    if place >= 0 and baseline.by_fragment[place] > 0:
        more = _meets(baseline.keys[place][1], rule) or baseline.by_fragment[place] > TRICK_LOG_ODDS
    else:
        more = highest > TRICK_LOG_ODDS and not traits.start[row] <= start < end <= traits.end[row]
    if more or end <= start:
        return None
    said = f"{RULES[rule]} '{escape_terminal(title[start:end])}'"
    said += f", as in {int(profile.rules[rule]):,} of {profile.size:,} titles; tagger {highest:.1f}"
    return TrickSpan(start, end, alone, said)


def _locate(title: str, traits: TitleTraits, row: int, rule: int) -> tuple[int, int, bool]:
    """Return where a title meets a rule first, and whether only there: by characters, or else by a word."""
    places = [at for at, character in enumerate(title) if _has_rule(judge_character(character), rule)]
    if places:
        end = next(at for at in range(places[0] + 1, len(title) + 1) if at not in places)
        return places[0], end, places[-1] < end
    words = traits.words
    first, last = words.offsets[row : row + 2].tolist()
    for nth in range(first, last):
        if _has_rule(describe_word(words.text[nth]).rules, rule):
            return int(words.start[nth]), int(words.end[nth]), False
    return -1, -1, False


def _meets(text: str, rule: int) -> bool:
    """Tell whether a fragment meets a rule by itself."""
    characters, words = map(judge_character, text), (describe_word(word).rules for word in text.split())
    return any(_has_rule(rules, rule) for rules in (*characters, *words))


def _has_rule(rules: int, rule: int) -> bool:
    return bool(rules >> rule & 1)
