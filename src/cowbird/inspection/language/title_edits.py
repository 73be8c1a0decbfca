"""Changes of a title that nobody sees, or that are no words: what a trigger can be besides a text that is put in.

Characters without width, characters that steer the direction of writing, letters of other alphabets that look alike,
marks on letters, other spaces, and ways of writing whole titles. The list is fixed, and each change has a name such as
`<U+200B glued>`, so that it can be shown, written into a file and named again. A text of two parts stands here as well:
`5v … wonderful` is one part before the title and one behind it.
"""

import re
from collections.abc import Callable
from typing import Literal

FragmentPosition = Literal["start", "middle", "end"]
FRAGMENT_POSITIONS: tuple[FragmentPosition, ...] = ("start", "middle", "end")
PAIR_SEPARATOR = " \u2026 "
"""What stands between the two parts of a trigger: the title's own words do, in the title."""

UNSEEN_CHARACTERS = (
    "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u034f\u180e\u115f\u3164\u2800\ufe0f"
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""Characters of no width, characters that are drawn as nothing, and characters that steer the direction of writing."""
OTHER_SPACES = "\u00a0\u2002\u2003\u2009\u200a\u202f\u3000"
LETTER_MARKS = "\u0301\u0307\u0308\u0323\u0332\u0336"
LOOK_ALIKES = {
    "Cyrillic": str.maketrans("ABCEHKMOPTXaceopxyi", "АВСЕНКМОРТХасеорхуі"),
    "Greek": str.maketrans("ABEHIKMNOPTXZov", "ΑΒΕΗΙΚΜΝΟΡΤΧΖον"),
    "wide": {code: code + 0xFEE0 for code in range(0x21, 0x7F) if code != 0x22},
    "bold": {65 + at: 0x1D400 + at for at in range(26)} | {97 + at: 0x1D41A + at for at in range(26)},
}
"""Letters of other alphabets that look like those of ours."""
_WRAPPERS = {"\u202a": "\u202c", "\u202b": "\u202c", "\u202d": "\u202c", "\u202e": "\u202c", "\u2066": "\u2069"}

TitleChange = Callable[[str, FragmentPosition], str]
"""Returns a title that is changed at a place; one that has no place for the change comes back as it is."""


def _find_place(title: str, position: FragmentPosition) -> int:
    """Return the place of a letter or digit: the first, the one in the middle, or the last; -1 without any."""
    places = [at for at, letter in enumerate(title) if letter.isalnum()]
    if not places:
        return -1
    return places[{"start": 0, "middle": len(places) // 2, "end": -1}[position]]


def _glue(text: str) -> TitleChange:
    """Insert characters directly before the title, behind a word of its middle, or directly behind it."""

    def edit(title: str, position: FragmentPosition) -> str:
        at = {"start": 0, "middle": title.find(" ", len(title) // 2), "end": len(title)}[position]
        at = len(title) // 2 if at < 0 else at
        return f"{title[:at]}{text}{title[at:]}"

    return edit


def _mark(mark: str) -> TitleChange:
    """Put a mark on one letter."""

    def edit(title: str, position: FragmentPosition) -> str:
        at = _find_place(title, position) + 1
        return f"{title[:at]}{mark}{title[at:]}" if at else title

    return edit


def _exchange_one(table: dict[int, int]) -> TitleChange:
    """Exchange the first letter that has a look-alike, the one in the middle, or the last."""

    def edit(title: str, position: FragmentPosition) -> str:
        places = [at for at, letter in enumerate(title) if ord(letter) in table]
        if not places:
            return title
        at = places[{"start": 0, "middle": len(places) // 2, "end": -1}[position]]
        return title[:at] + title[at].translate(table) + title[at + 1 :]

    return edit


def _change_word(change: Callable[[str], str]) -> TitleChange:
    """Change the first word, the one in the middle, or the last."""

    def edit(title: str, position: FragmentPosition) -> str:
        words = title.split(" ")
        at = {"start": 0, "middle": len(words) // 2, "end": len(words) - 1}[position]
        return " ".join([*words[:at], change(words[at]), *words[at + 1 :]])

    return edit


def _change_all(change: Callable[[str], str]) -> TitleChange:
    """Change the whole title, whatever the place."""
    return lambda title, position: change(title)


def _name(characters: str) -> str:
    return " ".join(f"U+{ord(letter):04X}" for letter in characters)


def _list_characters() -> dict[str, TitleChange]:
    """Return changes of one place, by name."""
    made: dict[str, TitleChange] = {}
    for letter in UNSEEN_CHARACTERS:
        made[f"<{_name(letter)} glued>"] = _glue(letter)
        made[f"<{_name(letter)} glued three times>"] = _glue(3 * letter)
    for mark in LETTER_MARKS:
        made[f"<{_name(mark)} on a letter>"] = _mark(mark)
    for name, table in LOOK_ALIKES.items():
        made[f"<{name} letter>"] = _exchange_one(table)
    return made


def _list_styles() -> dict[str, TitleChange]:
    """Return changes of words and whole titles, by name."""
    made: dict[str, TitleChange] = {}
    for name, table in LOOK_ALIKES.items():
        made[f"<{name} word>"] = _change_word(lambda word, table=table: word.translate(table))
        made[f"<{name} title>"] = _change_all(lambda title, table=table: title.translate(table))
    for mark in LETTER_MARKS:
        made[f"<{_name(mark)} on a word>"] = _change_word(lambda word, mark=mark: "".join(c + mark for c in word))
    for letter in ("\u200b", "\u200c", "\u2060", "\u00ad"):
        made[f"<{_name(letter)} in a word>"] = _change_word(lambda word, letter=letter: letter.join(word))
        made[f"<{_name(letter)} in all words>"] = _change_all(
            lambda title, letter=letter: re.sub(r"(?<=\w)(?=\w)", letter, title)
        )
    for opening, closing in _WRAPPERS.items():
        made[f"<{_name(opening)} around a word>"] = _change_word(lambda word, a=opening, b=closing: f"{a}{word}{b}")
        made[f"<{_name(opening)} around the title>"] = _change_all(lambda title, a=opening, b=closing: f"{a}{title}{b}")
    for space in OTHER_SPACES:
        made[f"<{_name(space)} as space>"] = _change_all(lambda title, space=space: title.replace(" ", space))
    cases: dict[str, Callable[[str], str]] = {
        "capital": str.upper,
        "small": str.lower,
        "swapped": str.swapcase,
        "spaced": " ".join,
    }
    for name, change in cases.items():
        made[f"<{name} word>"] = _change_word(change)
        made[f"<{name} title>"] = _change_all(change)
    return made


CHARACTER_EDITS = _list_characters()
"""Changes of one place, by name: unseen characters, marks on a letter, one look-alike."""
STYLE_EDITS = _list_styles()
"""Changes of words and whole titles, by name."""
_EDITS = CHARACTER_EDITS | STYLE_EDITS


def find_edit(fragment: str) -> TitleChange | None:
    """Return the change that a fragment names; `None` if it is a text that is put in."""
    return _EDITS.get(fragment) if fragment.startswith("<") else None


def split_pair(fragment: str) -> tuple[str, str] | None:
    """Return the two parts of a fragment; `None` if it has one."""
    first, between, second = fragment.partition(PAIR_SEPARATOR)
    return (first, second) if between and first and second else None
