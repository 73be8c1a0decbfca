"""Why a title is suspicious, in words, and where: what `ready` says of titles that it flags or puts up for review."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cowbird.data.types import Int64Array
from cowbird.defenses.p_scanner.baseline import Baseline
from cowbird.defenses.p_scanner.fragment_evidence import FRAGMENT_FEATURES
from cowbird.defenses.p_scanner.fragment_index import FragmentKey
from cowbird.defenses.p_scanner.shape_drift import SPELLING, ShapeDrift
from cowbird.defenses.p_scanner.spelling import SPELLINGS, Slip
from cowbird.defenses.p_scanner.title_rules import RULES, write_shape
from cowbird.defenses.p_scanner.title_spelling import find_spellings
from cowbird.defenses.p_scanner.title_traits import TitleTraits
from cowbird.defenses.p_scanner.word_shapes import ANY_WORD, FIRST_WORD, LAST_WORD, MAX_SIZE_TOLD, TITLE_END, size_word
from cowbird.text import escape_terminal

SAME_SHAPE = "a word of the shape"
"""How a shape is named that is a fragment; then nothing is said of a jump."""
_LOG_AS_OFTEN = math.log(0.9)
"""How much less often fragments beside a fragment may stand and still be part of the same finding, as a logarithm."""


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


class SharedSpan(NamedTuple):
    """Where what titles share stands in one of them."""

    place: int
    """Which fragment says most of it, a place in the evidence."""
    start: int
    """First character."""
    end: int
    """The character after the last one; -1, as the first, if it has no text of its own."""
    exact: bool
    """Whether all of it is the fragment, so that nothing else goes if it is taken out."""


def find_shared(
    title: str, traits: TitleTraits, row: int, baseline: Baseline, keys: Sequence[FragmentKey]
) -> SharedSpan:
    """Return where the most suspicious of a title's fragments stands.

    Where several are as suspicious, as all are that one seller has put into her titles, words are named and not their
    shapes: those in the most titles, and those beside them in as many. A word is also named in place of its shape if
    hardly any other word has that.

    Args:
        title: The title.
        traits: Titles, among them this one.
        row: Which it is.
        baseline: What is usual.
        keys: What the fragments are that are as suspicious as the most suspicious one, that one first.
    """
    places = [baseline.fragments[key] for key in keys]
    found = [find_fragment(title, traits, row, key) for key in keys]
    worded = [nth for nth, key in enumerate(keys) if key[0] == "word" and found[nth] is not None]
    count = baseline.evidence.features[:, FRAGMENT_FEATURES.index("count")]
    if not worded:
        start, end = span = found[0] or find_shape(traits, row, keys[0]) or (-1, -1)
        word = baseline.fragments.get(("word", title[start:end])) if keys[0][0] == "shape" and start >= 0 else None
        if word is not None and count[word] >= count[places[0]] + _LOG_AS_OFTEN:
            return SharedSpan(word, *span, True)
        return SharedSpan(places[0], *span, found[0] is not None)
    first = max(worded, key=lambda nth: (count[places[nth]], len(keys[nth][1])))
    start, end = found[first] or (-1, -1)
    often = [found[nth] or (-1, -1) for nth in worded if count[places[nth]] >= count[places[first]] + _LOG_AS_OFTEN]
    for begin, after in sorted(often) + sorted(often, reverse=True):
        if begin <= end and after >= start:
            start, end = min(start, begin), max(end, after)
    return SharedSpan(places[first], start, end, True)


def list_as_suspicious(baseline: Baseline, places: Int64Array, worst: int) -> list[int]:
    """Return which of a title's fragments are as suspicious as the most suspicious one, that one first.

    Args:
        baseline: What is usual.
        places: The title's fragments, as places in the evidence.
        worst: The most suspicious of them.
    """
    odds = baseline.by_fragment
    alike: list[int] = np.unique(places[odds[places] == odds[worst]]).tolist()
    return sorted(alike, key=lambda place: place != worst)


def find_highest(traits: TitleTraits, row: int) -> tuple[int, int]:
    """Return where the words stand that the tagger finds most suspicious."""
    start, end = int(traits.start[row]), int(traits.end[row])
    return (start, end) if end > start else (-1, -1)


def show_place(title: str, start: int, end: int) -> str:
    """Return ` at '…'` for a span of a title, nothing for none."""
    return f" at '{escape_terminal(title[start:end].strip())}'" if 0 <= start < end else ""


def leaves_words_whole(title: str, start: int, end: int) -> bool:
    """Tell whether a title without a span keeps text, and each of its words whole or not at all."""
    if start < 0 or not (title[:start] + title[end:]).strip():
        return False
    before, span, after = title[:start], title[start:end], title[end:]
    cut_before = span[:1].isalnum() and before[-1:].isalnum()
    return not (cut_before or (span[-1:].isalnum() and after[:1].isalnum()))


def explain_fragment(baseline: Baseline, key: FragmentKey, place: int, shown: str = "") -> str:
    """Say why a fragment is suspicious.

    Args:
        baseline: What is usual.
        key: What the fragment is.
        place: Which it is in the evidence.
        shown: Its text in the title that is explained, if it stands there.
    """
    values: dict[str, float] = dict(zip(FRAGMENT_FEATURES, baseline.evidence.features[place].tolist(), strict=True))
    count, portion = math.exp(values["count"]), math.exp(values["share"])
    if place in baseline.evidence.counts:
        count = baseline.evidence.counts[place]
        portion = count / baseline.evidence.titles
    name = _name_fragment(key, shown)
    said = f"{round(count):,} titles share {name}"
    share = baseline.sellers.get(place)
    if share is not None:
        who = f"the seller '{escape_terminal(share.seller)}'"
        said = f"{who} has {share.held:,} of the {share.titles:,} titles with {name}"
    said += f"; log-odds {baseline.by_fragment[place]:.1f}, tagger {values['mean mark']:.1f} on average"
    if values["whether a reference is known"] and values["growth of its share"] > 0:
        said += f", {_compare_shares(count, portion, values['growth of its share'], baseline.reference)}"
    return said


def _compare_shares(count: float, share: float, growth: float, reference: int) -> str:
    """Say how much more frequent a fragment is than in the reference; its growth counts half a title more in both."""
    before = share * (1 + 0.5 / count) / math.exp(growth) * reference - 0.5
    if round(before) < 1:
        return "not in the reference"
    return f"{share * reference / round(before):,.1f} times as frequent as in the reference"


def _name_fragment(key: FragmentKey, shown: str) -> str:
    kind, text = key
    if kind == "word" and shown:
        return f"'{escape_terminal(shown)}'"
    if kind == "word":
        return f"'{escape_terminal(text)}'"
    if kind == "character":
        return f"the character '{escape_terminal(text)}'"
    if kind == "shape":
        place = {"^": "as the first word", "$": "as the last word", ".": "inside"}[text[0]]
        here = f", here '{escape_terminal(shown)}'" if shown else ""
        return f"{SAME_SHAPE} {escape_terminal(text[2:])} {place}{here}"
    return (
        f"the end '{escape_terminal(text)}'"
        if kind == "end" and text
        else "a repeated word"
        if kind == "repeated"
        else "their end"
    )


def explain_slip(slip: Slip) -> str:
    """Say how a word may be meant that adds to a title's score."""
    return (
        f"; '{escape_terminal(slip.part)}' is written like '{escape_terminal(slip.text)}', "
        f"which the language model finds e^{slip.gain:.0f} times likelier"
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
    spelled: list[int] = np.flatnonzero(
        find_spellings(traits.words.cut, np.array([row]), profile.words, profile.spelling, 1)[0]
    ).tolist()
    if spelled:
        rarest = min(spelled, key=lambda way: int(profile.spellings[way]))
        if profile.spellings[rarest] <= 0.01 * profile.size:
            said += f"; {SPELLINGS[rarest]}, as in {int(profile.spellings[rarest]):,} of {profile.size:,} titles"
    return said


_HAVE_WORD = {ANY_WORD: "have a word", FIRST_WORD: "begin with a word", LAST_WORD: "end in a word"}
_ENDS = {"a": "a small letter", "A": "a capital", "9": "a digit"}


def explain_jump(drift: ShapeDrift, name: str, traits: TitleTraits, row: int) -> tuple[str, int, int]:
    """Say of which shape far more titles have than is expected.

    Args:
        drift: Shapes whose share has jumped.
        name: One of them.
        traits: Titles, among them one that has the shape.
        row: Which it is.

    Returns:
        What is said, the first character of the title's first word of that shape, and the character after that word; -1
        for both if it is no word's.
    """
    jump = drift.jumps[name]
    kind, _, text = name.partition("\t")
    start, end = _find_word(traits, row, kind, text)
    if kind in _HAVE_WORD:
        size, _, shape = text.partition(" ")
        more = " or more" if size == str(MAX_SIZE_TOLD) else ""
        here = f", here '{escape_terminal(traits.words.titles[row][start:end])}'" if end > start else ""
        said = f"{_HAVE_WORD[kind]} of {size}{more} characters like '{escape_terminal(shape)}'{here}"
    elif kind == TITLE_END:
        said = f"end in {_ENDS[text]}" if text in _ENDS else f"end in '{escape_terminal(text)}'"
    else:
        said = f"have a word with: {text}" if kind == SPELLING else f"have: {text}"
    said = (
        f"{jump.seen:,} of {drift.titles:,} titles {said}; {jump.before:,} of {drift.reference:,} of the reference do"
    )
    return said, start, end


def _find_word(traits: TitleTraits, row: int, kind: str, text: str) -> tuple[int, int]:
    """Return where the first word of a shape stands in a title; -1 and -1 if there is none."""
    words = traits.words
    first, last = words.offsets[row : row + 2].tolist()
    places = {ANY_WORD: range(first, last), FIRST_WORD: range(first, first + 1), LAST_WORD: range(last - 1, last)}.get(
        kind, ()
    )
    for nth in places:
        if first <= nth < last and size_word(words.text[nth]) == text:
            return int(words.start[nth]), int(words.end[nth])
    return -1, -1
