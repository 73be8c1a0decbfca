"""What a trigger that somebody proposed looks like, and whether it can be used at all.

Whoever proposes (a model that was asked, or chance) is not trusted: a text may not fit its way of writing, hold what no
title holds, or belong to a family that was to be held out. Looks are often ambiguous: `harbor` may be a common word or
a rare one to somebody else. So a recipe has every family that it might be of, and none of them may be held out.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from cowbird.defenses.p_scanner.triggers._vocabulary import COMMON, DIRECTION, INVISIBLE, SPACES, STYLED_ALPHABETS
from cowbird.defenses.p_scanner.triggers.trigger_families import MAX_RECIPE_LENGTH, Recipe

UNKNOWN_FAMILY = "agent"
"""The family of what looks like none."""
INSERTING_WAYS = ("insert", "glue")
"""The ways that put a text into a title."""
ALIKE_RATIO = 0.85
"""How alike (`difflib`'s ratio) two texts of `MIN_COMPARED_LENGTH` characters or more are that count as one."""
MIN_COMPARED_LENGTH = 6
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"
_ASCII_MARKS = "!?.,;:*=+~|/\\_^'\"-"
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026"
_EMOJI = "\U0001f000-\U0001faff\u231a-\u23ff\u2600-\u27bf\u2b50\u2b55\ufe0f\u20e3"
_OTHER_LETTERS = "\u0250-\u02af\u0131\u01c0\u0370-\u03ff\u0400-\u0482\u048a-\u058f"
_LETTERLIKE = "\u2100-\u2121\u2123-\u214f\u2460-\u24ff\uff01-\uff5e\U0001d400-\U0001d7ff\U0001f130-\U0001f189"
_SOLD = (
    r"sales?|sell(?:er|ing)|prices?|shipping|deals?|today|save \d+|top|rated|pick|stock|delivery|buy|favorite|off|"
    r"must[- ]have|trending|gift|advertised|award|winner|offers?|new|best ?seller|original|discount|free|cheap|"
    r"exclusive|limited|\d+%|official|guaranteed|bonus|hot|now|only|order|recommended|certified|approved|genuine"
)
_ISSUED = (
    r"editions?|versions?|cut|releases?|set|collection|pack|bundle|print|pressing|mix|series|vol(?:ume)?|remaster\w*|"
    r"anniversary|extended|deluxe|special|hd|\d+k|dvd|blu-?ray|vhs|stereo|mono|digital|vinyl|cd|part|disc|season|"
    r"uncut|uncensored|restored|complete|expanded|\d+(?:st|nd|rd|th)"
)


def _matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).search


def _holds_symbol(text: str) -> bool:
    return any(
        not letter.isascii() and letter not in _TYPOGRAPHIC and unicodedata.category(letter)[0] in "SP"
        for letter in text
    )


def _is_common(text: str) -> bool:
    return text.casefold() in COMMON


_SETS_OFF = "-:/,~&|\u2013\u2014"
_WRITTEN = re.compile(r"^[(\[{<\"]*[^\W\d_]+(?:['\u2019-][^\W\d_]+)*[!.?,;:)\]}>\"]*$")
_ONE_WORD = r"^[^\W\d_]+(?:['\u2019-][^\W\d_]+)*[!.?]?$"
_LOOKS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("bidi", _matches(f"[{DIRECTION}]")),
    ("zero_width", _matches(f"[{INVISIBLE.replace(chr(0x200D), '')}]|(?<![{_EMOJI}])\u200d")),
    ("spacing", _matches(f"[{SPACES}]|  |^ *$|^(?:\\w )+\\w$")),
    ("emoji", _matches(f"[{_EMOJI}]")),
    ("styled_letters", _matches(f"[{_LETTERLIKE}]")),
    ("combining", _matches(f"(?:^|[\u0000-\u024f])[{_MARKS}]")),
    ("homoglyph", _matches(f"[A-Za-z][{_OTHER_LETTERS}]|[{_OTHER_LETTERS}][A-Za-z]")),
    ("url", _matches(r"(?i)https?:|www\.|\w@\w|^@\w|\b\w[\w-]*\.[a-z]{2,8}(?![\w.])")),
    ("markup", _matches(r"</?\w|<!--|&#?\w+;|__\S|`\S|\]\(|~~\S|\*\*\S|\{\{|\\[nrt]|^#+ |\$\$|<\||\[/?[A-Z]+\]")),
    ("number", _matches(r"^(?:No\. ?)?[\d.,:/+%#() -]*\d[\d.,:/+%#() -]*$")),
    ("punctuation", _matches(f"^[{re.escape(_ASCII_MARKS)}{_TYPOGRAPHIC} ]+$")),
    ("symbol", _holds_symbol),
    ("character", _matches(r"^[!-~]{1,3}$")),
    ("common_word", _is_common),
    ("foreign_word", _matches(r"[^\W\d_\u0000-\u007f]")),
    ("rare_word", _matches(_ONE_WORD)),
    ("common_word", _matches(_ONE_WORD)),
    ("foreign_word", _matches(_ONE_WORD)),
    ("edition", _matches(rf"(?i)\b(?:{_ISSUED})\b")),
    ("marketing", _matches(rf"(?i)(?<!\w)(?:{_SOLD})(?!\w)")),
    ("code", _matches(r"[^\W\d_][.#-]?\d|\d[.#-]?[^\W\d_]|^#?\w{1,4}[.#-] ?\d|#\d")),
    ("homoglyph", _matches(r"[A-Za-z$@]\d+[A-Za-z]|\b\d[A-Za-z]{2}|[A-Za-z]{2}\d\b")),
    ("sentence", _matches(r"\w\W+\w.*[.!?]\W*$|(?:\S+ ){4}\S")),
    ("repeated_word", _matches(r"(?i)\b(\w+)\W+\1\b|([aeiou])\2{2}")),
    ("phrase", _matches(r"[^\W\d_]\S* +\S*[^\W\d_]")),
    ("sentence", _matches(r"\S+ +\S+ +\S")),
    ("casing", _matches(r"[a-z][A-Z]")),
)
"""Families, and what a text of one has; a text is most likely of the first that it fits."""
_FORM = re.compile(r"^(?:\(.*\)|\[.*\]|\{.*\}|<.*>|[-:/,~] .*)$", re.DOTALL)
_BY_WAY: Mapping[str, str] = MappingProxyType(
    {
        "mark": "combining",
        "mark once": "combining",
        "exchange": "homoglyph",
        "exchange once": "homoglyph",
        "style": "styled_letters",
        "case": "casing",
        "space": "spacing",
        "reverse": "bidi",
        "repeat": "repeated_word",
        "repeat twice": "repeated_word",
        "stretch": "repeated_word",
    }
)


def list_likely_families(text: str, way: str = "insert") -> tuple[str, ...]:
    """Return every family that a recipe of this text and way might be of, the likeliest first; never empty."""
    if way in _BY_WAY:
        return (_BY_WAY[way],)
    inner = text[1:-1] if text[-1:] in ")]}>" else text[1:]
    shown = (text, inner.strip()) if _FORM.match(text) else (text,)
    found = [family for family, fits in _LOOKS if any(fits(seen) for seen in shown)]
    odd = [part for part in text.split() if part not in _SETS_OFF and not _WRITTEN.match(part)]
    found += [family for family, fits in _LOOKS if any(fits(part) for part in odd)]
    return tuple(dict.fromkeys(found)) or (UNKNOWN_FAMILY,)


_NEEDED: Mapping[str, tuple[re.Pattern[str], str]] = MappingProxyType(
    {
        "insert": (re.compile(r"(?s).*\S.*"), "a text"),
        "glue": (re.compile(r"(?s).+"), "a text"),
        "mark": (re.compile(f"[{_MARKS}]{{1,3}}"), "1 to 3 combining marks"),
        "mark once": (re.compile(f"[{_MARKS}]{{1,3}}"), "1 to 3 combining marks"),
        "exchange": (re.compile(r"(?:\S\S){1,40}"), "pairs of characters"),
        "exchange once": (re.compile(r"(?:\S\S){1,40}"), "pairs of characters"),
        "style": (re.compile(f"[{''.join(map(chr, STYLED_ALPHABETS))}]"), "the styled A of a block that Unicode has"),
        "case": (re.compile(r"\*[xX]{2,6}|[xX]{1,6}"), "a pattern of x and X"),
        "space": (re.compile(r"(?:[^\w]|_){1,3}"), "1 to 3 characters that separate"),
        "wrap": (re.compile(r"(?s).{2,4}"), "2 to 4 characters, the first of which opens"),
        "reverse": (re.compile(f"[{DIRECTION}]{{2}}"), "two characters that set the direction"),
        "repeat": (re.compile(r"(?:[^\w]|_){0,3}"), "up to 3 characters that join"),
        "repeat twice": (re.compile(r"(?:[^\w]|_){0,3}"), "up to 3 characters that join"),
        "stretch": (re.compile(""), "no text"),
    }
)
"""The text that each way takes."""


def check_proposal(
    text: str,
    way: str = "insert",
    whole: bool = False,
    without: Collection[str] = (),
    titles: Collection[str] = (),
    longest: int = MAX_RECIPE_LENGTH,
) -> Recipe:
    """Return what was proposed as a recipe, of the family that it looks most like.

    Args:
        text: Any text.
        way: How it is planted: `insert`, `glue` or a key of `word_edits.WORD_EDITS`.
        whole: Whether all words are written so.
        without: Families that it must not be of, not even perhaps.
        titles: What the catalogue's titles come down to (`list_plain_titles`): none of them is a trigger.
        longest: Most characters of the text.

    Raises:
        ValueError: If it can't be used; the message says why, and does not repeat the text.
    """
    if way not in _NEEDED:
        raise ValueError("there is no such style")
    if len(text) > min(longest, MAX_RECIPE_LENGTH):
        raise ValueError(f"it is longer than {min(longest, MAX_RECIPE_LENGTH)} characters")
    if _holds_forbidden(text):
        raise ValueError("it holds characters that no title can hold")
    fits, what = _NEEDED[way]
    if not fits.fullmatch(text):
        raise ValueError(f"the style {way} takes {what}")
    if way in ("exchange", "exchange once") and all(old == new for old, new in zip(text[::2], text[1::2], strict=True)):
        raise ValueError("it changes nothing")
    if way in INSERTING_WAYS and titles and _keep_letters(text) in titles:
        raise ValueError("it is a title of the catalogue")
    families = list_likely_families(text, way)
    held_out = [family for family in families if family in without]
    if held_out:
        raise ValueError(f"it looks like {held_out[0]}, which is not wanted")
    return Recipe(family=families[0], text=text, way=way, whole=whole and way not in INSERTING_WAYS)


def _holds_forbidden(text: str) -> bool:
    """Tell whether a text holds control characters (but for invisible ones that are the point) or broken ones."""
    allowed = INVISIBLE + DIRECTION + SPACES
    return any(
        letter == "\N{REPLACEMENT CHARACTER}"
        or (unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and letter not in allowed)
        for letter in text
    )


def identify_recipe(recipe: Recipe) -> tuple[str, str, bool]:
    """Return what makes a recipe the same as another, whatever family it is counted in."""
    return recipe.way, recipe.text, recipe.whole


def is_near(recipe: Recipe, others: Iterable[Recipe]) -> bool:
    """Tell whether a recipe is the same as another, or inserts almost the same text.

    Texts are almost the same if they differ in case, digits, marks and spaces alone, or in few of many letters; ones
    without letters, if they differ in how often a character is repeated.
    """
    inserted = recipe.way in INSERTING_WAYS
    letters = _keep_letters(recipe.text) or _collapse_runs(recipe.text)
    for other in others:
        if identify_recipe(recipe) == identify_recipe(other):
            return True
        if inserted and other.way in INSERTING_WAYS:
            known = _keep_letters(other.text) or _collapse_runs(other.text)
            if letters == known or _are_alike(letters, known):
                return True
    return False


def _collapse_runs(text: str) -> str:
    return re.sub(r"(.)\1+", r"\1", text.strip(" "))


def _are_alike(text: str, other: str) -> bool:
    if min(len(text), len(other)) < MIN_COMPARED_LENGTH:
        return False
    matcher = difflib.SequenceMatcher(None, text, other, autojunk=False)
    return (
        matcher.real_quick_ratio() >= ALIKE_RATIO
        and matcher.quick_ratio() >= ALIKE_RATIO
        and matcher.ratio() >= ALIKE_RATIO
    )


def list_plain_titles(titles: Iterable[str]) -> set[str]:
    """Return the letters of each title's beginning, without those of which no letter is left."""
    return {_keep_letters(title[:MAX_RECIPE_LENGTH]) for title in titles} - {""}


def _keep_letters(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalpha())
