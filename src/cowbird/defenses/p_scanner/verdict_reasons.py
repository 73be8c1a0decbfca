"""Why a title is suspicious, in words, and where: what `ready` says of titles that it flags or puts up for review."""

import math

import numpy as np

from cowbird.defenses.p_scanner.baseline import Baseline
from cowbird.defenses.p_scanner.fragment_evidence import FRAGMENT_FEATURES
from cowbird.defenses.p_scanner.fragment_index import FragmentKey
from cowbird.defenses.p_scanner.title_evidence import TitleTraits
from cowbird.defenses.p_scanner.title_rules import RULES, write_shape
from cowbird.text import escape_terminal


def find_fragment(title: str, traits: TitleTraits, row: int, key: FragmentKey) -> tuple[int, int] | None:
    """Return where a fragment first stands, whole words for words; `None` if it has no text of its own."""
    kind, text = key
    if kind == "character":
        start = title.find(text)
        return (start, start + len(text)) if start >= 0 else None
    if kind != "word":
        return None
    words = traits.words
    first, last = words.offsets[row : row + 2].tolist()
    wanted = text.split(" ")
    for nth in range(first, last - len(wanted) + 1):
        if words.text[nth : nth + len(wanted)] == wanted:
            return int(words.start[nth]), int(words.end[nth + len(wanted) - 1])
    return None


def find_shape(traits: TitleTraits, row: int, key: FragmentKey) -> tuple[int, int] | None:
    """Return where a word of a shape stands at its place; `None` if the fragment is no shape."""
    kind, text = key
    if kind != "shape":
        return None
    words = traits.words
    first, last = words.offsets[row : row + 2].tolist()
    places = {"^": range(first, first + 1), "$": range(last - 1, last), ".": range(first + 1, last - 1)}[text[0]]
    for nth in places:
        if first <= nth < last and write_shape(words.text[nth]) == text[2:]:
            return int(words.start[nth]), int(words.end[nth])
    return None


def find_highest(traits: TitleTraits, row: int) -> tuple[int, int]:
    """Return where the words stand that the tagger finds most suspicious."""
    start, end = int(traits.start[row]), int(traits.end[row])
    return (start, end) if end > start else (-1, -1)


def leaves_words_whole(title: str, start: int, end: int) -> bool:
    """Tell whether a title without a span keeps text, and each of its words whole or not at all."""
    if start < 0 or not (title[:start] + title[end:]).strip():
        return False
    before, span, after = title[:start], title[start:end], title[end:]
    cut_before = span[:1].isalnum() and before[-1:].isalnum()
    return not (cut_before or (span[-1:].isalnum() and after[:1].isalnum()))


def explain_fragment(baseline: Baseline, key: FragmentKey, place: int) -> str:
    """Say why a fragment is suspicious."""
    values = dict(zip(FRAGMENT_FEATURES, baseline.evidence.features[place].tolist(), strict=True))
    count = round(math.exp(values["count"]))
    said = f"{count:,} titles share {_name_fragment(key)}; log-odds {baseline.by_fragment[place]:.1f}"
    said += f", tagger {values['mean mark']:.1f} on average"
    if values["whether a reference is known"] and values["growth of its share"] > 0:
        said += f", {math.exp(values['growth of its share']):,.0f} times as frequent as in the reference"
    return said


def _name_fragment(key: FragmentKey) -> str:
    kind, text = key
    if kind == "word":
        return f"'{escape_terminal(text)}'"
    if kind == "character":
        return f"the character '{escape_terminal(text)}'"
    if kind == "shape":
        place = {"^": "as the first word", "$": "as the last word", ".": "inside"}[text[0]]
        return f"a word of the shape {escape_terminal(text[2:])} {place}"
    return (
        f"the end '{escape_terminal(text)}'"
        if kind == "end" and text
        else "a repeated word"
        if kind == "repeated"
        else "their end"
    )


def explain_title(baseline: Baseline, traits: TitleTraits, row: int) -> str:
    """Say why a title is suspicious by itself."""
    rules = np.flatnonzero(traits.rules[row])
    profile = baseline.profile
    text = traits.words.titles[row][traits.start[row] : traits.end[row]]
    said = f"tagger {float(traits.highest[row]):.1f} at '{escape_terminal(text)}'" if text else "no words"
    if len(rows := rules.tolist()):
        rarest = min(rows, key=lambda rule: int(profile.rules[rule]))
        if profile.rules[rarest] <= 0.01 * profile.size:
            said += f"; {RULES[rarest]}, as in {int(profile.rules[rarest]):,} of {profile.size:,} titles"
    return said
