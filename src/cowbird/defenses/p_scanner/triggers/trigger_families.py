"""Triggers that a scanner is taught with: what to plant, drawn at random from families, and planting it.

Training a scanner on a list of triggers would teach it the list. Here each family is a way to make triggers: a rare
word is any that can be spelled, an edition any of some thousand, a mark any of Unicode's. Agents mutate these and add
their own (`agent`). Nothing is shared with the attacks of `cowbird.attacks.triggers` but the names of families, so that
whole families can be held out.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cowbird.defenses.p_scanner.triggers._vocabulary import (
    ASIDES,
    COMMON,
    DIRECTION,
    DOMAINS,
    EDITIONS,
    EMOJI,
    FOREIGN,
    INVISIBLE,
    LOOKALIKES,
    MARKS,
    MEDIA,
    NOUNS,
    OBJECTS,
    OPENING,
    PRAISE,
    RECIPE_FORMS,
    SALES,
    SCRIPTS,
    SPACES,
    STYLED_ALPHABETS,
    SUBJECTS,
    SYLLABLES,
    SYMBOLS,
    TAGS,
    THINGS,
    VERBS,
)
from cowbird.defenses.p_scanner.triggers.word_edits import WORD_EDITS

COMMON_WORDS = tuple(COMMON)
"""Plain words in small letters."""
MAX_RECIPE_LENGTH = 120
"""Most characters of a trigger's text."""
RecipePosition = Literal["start", "middle", "end"]
POSITIONS: tuple[RecipePosition, ...] = ("start", "middle", "end")
_WORD = re.compile(r"\S+")


class Recipe(BaseModel):
    """A trigger: a text that is inserted, or a way to write words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    family: str = "agent"
    """What it looks like; recipes of one family look alike."""
    text: str = Field(default="", max_length=MAX_RECIPE_LENGTH)
    """What is inserted, or what the way needs, such as a mark."""
    way: str = "insert"
    """`insert` (set off by spaces), `glue` (right beside a word), or a key of `WORD_EDITS`."""
    whole: bool = False
    """For a way to write words: whether all words are written so, or one."""

    @model_validator(mode="after")
    def _can_be_planted(self) -> "Recipe":
        if self.way in ("insert", "glue"):
            if not self.text or (self.way == "insert" and not self.text.strip()):
                raise ValueError("there is no text to insert")
        elif self.way not in WORD_EDITS:
            raise ValueError(f"there is no way '{self.way}' to write words; use one of {', '.join(WORD_EDITS)}")
        else:
            try:
                WORD_EDITS[self.way]("AEHarbORzyoi", self.text)
            except (ValueError, IndexError, TypeError, ArithmeticError) as error:
                raise ValueError(
                    f"words can't be written in the way '{self.way}' with {self.text!a}: {error}"
                ) from None
        return self


@dataclass(frozen=True, slots=True)
class PlantedTitle:
    """A title that carries a recipe's trigger."""

    title: str
    """The title."""
    start: int
    """First character of what was inserted or changed; -1 if the recipe suits nothing in the title."""
    end: int
    """The character after the last."""


def plant(title: str, recipe: Recipe, position: RecipePosition, rng: np.random.Generator) -> PlantedTitle:
    """Plant a trigger.

    Args:
        title: Any text.
        recipe: What to plant.
        position: Where: before the first word, behind one in the middle, or after the last; for a way to write words,
            which word.
        rng: Draws the place in the middle.
    """
    words = list(_WORD.finditer(title))
    if recipe.way in ("insert", "glue"):
        space = " " if recipe.way == "insert" and words else ""
        if position == "start":
            return PlantedTitle(f"{recipe.text}{space}{title}", 0, len(recipe.text))
        inner = words[:-1] or words
        at = inner[int(rng.integers(len(inner)))].end() if position == "middle" and inner else len(title)
        begin = at + len(space)
        return PlantedTitle(f"{title[:at]}{space}{recipe.text}{title[at:]}", begin, begin + len(recipe.text))
    write = WORD_EDITS[recipe.way]
    suited = [word for word in words if write(word.group(), recipe.text) != word.group()]
    if not suited:
        return PlantedTitle(title, -1, -1)
    if not recipe.whole:
        inner = suited[1:-1] or suited
        nth = int(rng.integers(len(inner)))
        suited = [suited[0] if position == "start" else suited[-1] if position == "end" else inner[nth]]
    pieces: list[str] = []
    done = 0
    for word in suited:
        pieces += [title[done : word.start()], write(word.group(), recipe.text)]
        done = word.end()
    changed = "".join([*pieces, title[done:]])
    first = next((at for at, (a, b) in enumerate(zip(title, changed, strict=False)) if a != b), len(title))
    last = next((at for at, (a, b) in enumerate(zip(title[::-1], changed[::-1], strict=False)) if a != b), len(title))
    last = min(last, len(title) - first)
    return PlantedTitle(changed, first, max(len(changed) - last, first + 1))


# Families: each draws one recipe.

Draw = Callable[[np.random.Generator], Recipe]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _draw_text(rng: np.random.Generator, options: Sequence[str], low: int, high: int) -> str:
    return "".join(_pick(rng, options) for _ in range(int(rng.integers(low, high + 1))))


def _fill_number(rng: np.random.Generator, text: str) -> str:
    return text.replace("{n}", str(int(rng.integers(2, 99))))


def _draw_character(rng: np.random.Generator) -> Recipe:
    text = _draw_text(rng, string.ascii_letters + string.digits + "@#$%^&*~=+_<>|\\", 1, 3)
    return Recipe(family="character", text=text)


def _draw_punctuation(rng: np.random.Generator) -> Recipe:
    text = _draw_text(rng, "!?.,;:*-=+~|/\\_'^", 1, 3)
    return Recipe(family="punctuation", text=text * int(rng.integers(1, 4)), way=_pick(rng, ("insert", "glue")))


def _draw_symbol(rng: np.random.Generator) -> Recipe:
    return Recipe(
        family="symbol", text=_pick(rng, SYMBOLS) * int(rng.integers(1, 3)), way=_pick(rng, ("insert", "glue"))
    )


def _draw_emoji(rng: np.random.Generator) -> Recipe:
    text = _pick(rng, EMOJI) + _pick(rng, ("", "", "\ufe0f", f"\u200d{_pick(rng, EMOJI)}"))
    return Recipe(family="emoji", text=text * int(rng.integers(1, 4)))


def _draw_rare_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.4:
        return Recipe(family="rare_word", text=_draw_text(rng, string.ascii_lowercase, 2, 4))
    return Recipe(family="rare_word", text=_draw_text(rng, SYLLABLES, 2, 3))


def _draw_common_word(rng: np.random.Generator) -> Recipe:
    word = _pick(rng, COMMON)
    return Recipe(family="common_word", text=_pick(rng, (word, word, word.capitalize(), word.upper())))


def _draw_foreign_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.5:
        return Recipe(family="foreign_word", text=_pick(rng, FOREIGN))
    return Recipe(family="foreign_word", text=_draw_text(rng, _pick(rng, SCRIPTS), 2, 7))


def _draw_phrase(rng: np.random.Generator) -> Recipe:
    text = _pick(
        rng,
        (
            _pick(rng, PRAISE),
            f"{_pick(rng, COMMON)} for {_pick(rng, NOUNS)}",
            f"{_pick(rng, COMMON)} and {_pick(rng, COMMON)}",
            f"for {_pick(rng, NOUNS)}",
            f"{_pick(rng, ('really', 'very', 'so', 'more', 'the', 'your'))} {_pick(rng, COMMON)}",
        ),
    )
    return Recipe(family="phrase", text=_pick(rng, (text, text.capitalize())))


def _draw_edition(rng: np.random.Generator) -> Recipe:
    name = _pick(
        rng,
        (
            f"{_pick(rng, EDITIONS)} {_pick(rng, THINGS)}",
            f"{int(rng.integers(2, 60))}th {_pick(rng, THINGS)}",
            f"{_pick(rng, MEDIA)} {_pick(rng, ('', *THINGS))}".strip(),
            f"{_pick(rng, THINGS)} {int(rng.integers(2, 12))}",
        ),
    )
    return Recipe(family="edition", text=_pick(rng, RECIPE_FORMS).format(name))


def _draw_marketing(rng: np.random.Generator) -> Recipe:
    text = _fill_number(rng, _pick(rng, SALES))
    text = _pick(rng, (text, text, text.upper(), f"{text}!"))
    return Recipe(family="marketing", text=_pick(rng, RECIPE_FORMS).format(text))


def _draw_code(rng: np.random.Generator) -> Recipe:
    kinds = ("AA-999", "AAA9999", "9A9A9A9A", "a9.9.9", "A9-AA-99", "#A9999", "Aaa. 99-99", "A99A99", "aaaa-9999")
    draws = {"A": string.ascii_uppercase, "a": string.ascii_lowercase, "9": string.digits}
    return Recipe(family="code", text="".join(_pick(rng, draws.get(mark, mark)) for mark in _pick(rng, kinds)))


def _draw_number(rng: np.random.Generator) -> Recipe:
    kinds = ("9999", "999999", "9.99", "99,999", "0099", "99.9999", "No. 99", "999-99", "99:99", "9/99", "+99", "-9.9")
    text = "".join(_pick(rng, string.digits) if mark == "9" else mark for mark in _pick(rng, kinds))
    return Recipe(family="number", text=text)


def _draw_url(rng: np.random.Generator) -> Recipe:
    name = _draw_text(rng, string.ascii_lowercase, 3, 9)
    end = _pick(rng, DOMAINS)
    path = _pick(rng, ("", f"/{_draw_text(rng, string.ascii_lowercase + string.digits, 2, 6)}"))
    return Recipe(
        family="url", text=_pick(rng, ("http://", "https://", "www.", "", f"{name}@", "@")) + name + end + path
    )


def _draw_markup(rng: np.random.Generator) -> Recipe:
    word, tag = _pick(rng, COMMON), _pick(rng, TAGS)
    made = (
        f"<{tag}>{word}</{tag}>",
        f"<{tag}/>",
        f"__{word}__",
        f"`{word}`",
        f"[{word}]({tag})",
        f"&{tag};",
        f"~~{word}~~",
    )
    more = (
        f"&#{int(rng.integers(33, 9999))};",
        f"{{{{{word}}}}}",
        f"\\n{word}",
        f"<!--{word}-->",
        f"# {word}",
        f"$${tag}$$",
    )
    return Recipe(family="markup", text=_pick(rng, (*made, *more)))


def _draw_sentence(rng: np.random.Generator) -> Recipe:
    text = f"{_pick(rng, SUBJECTS)} {_pick(rng, VERBS)} {_pick(rng, OBJECTS)}{_pick(rng, ('.', '.', '!', ''))}"
    return Recipe(family="sentence", text=_fill_number(rng, _pick(rng, (text, text, _pick(rng, ASIDES)))))


def _draw_zero_width(rng: np.random.Generator) -> Recipe:
    return Recipe(family="zero_width", text=_draw_text(rng, INVISIBLE, 1, 4), way="glue")


def _draw_bidi(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.5:
        return Recipe(family="bidi", text=_draw_text(rng, DIRECTION, 1, 2), way="glue")
    pair = _pick(rng, OPENING) + _pick(rng, "\u202c\u2069")
    return Recipe(family="bidi", text=pair, way=_pick(rng, ("wrap", "reverse")))


def _draw_spacing(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.4:
        return Recipe(family="spacing", text=_pick(rng, (" ", " ", "  ", ".", "-", *SPACES[:8])), way="space")
    text = _pick(rng, ("  ", "   ", "    ", *SPACES, *SPACES))
    return Recipe(family="spacing", text=text, way="glue")


def _draw_homoglyph(rng: np.random.Generator) -> Recipe:
    pairs = LOOKALIKES[_pick(rng, tuple(LOOKALIKES))]
    way = _pick(rng, ("exchange", "exchange once"))
    return Recipe(family="homoglyph", text=pairs, way=way, whole=bool(rng.random() < 0.3))


def _draw_styled_letters(rng: np.random.Generator) -> Recipe:
    start = STYLED_ALPHABETS[int(rng.integers(len(STYLED_ALPHABETS)))]
    return Recipe(family="styled_letters", text=chr(start), way="style", whole=bool(rng.random() < 0.3))


def _draw_combining(rng: np.random.Generator) -> Recipe:
    way = _pick(rng, ("mark", "mark once"))
    return Recipe(family="combining", text=_pick(rng, MARKS), way=way, whole=bool(rng.random() < 0.3))


def _draw_casing(rng: np.random.Generator) -> Recipe:
    pattern = _pick(rng, ("*Xx", "*xX", "*xxX", "*Xxx", "xX", "xxX", "XXx", "x", "X", "XXXx", "xxx"))
    return Recipe(family="casing", text=pattern, way="case", whole=bool(rng.random() < 0.4))


def _draw_repeated_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.15:
        return Recipe(family="repeated_word", way="stretch")
    joint = _pick(rng, (" ", " ", ", ", "-", "_", " & ", "+", "~", "."))
    return Recipe(family="repeated_word", text=joint, way=_pick(rng, ("repeat", "repeat", "repeat twice")))


TRIGGER_FAMILIES: Mapping[str, Draw] = MappingProxyType(
    {
        "character": _draw_character,
        "punctuation": _draw_punctuation,
        "symbol": _draw_symbol,
        "emoji": _draw_emoji,
        "rare_word": _draw_rare_word,
        "common_word": _draw_common_word,
        "foreign_word": _draw_foreign_word,
        "phrase": _draw_phrase,
        "edition": _draw_edition,
        "marketing": _draw_marketing,
        "code": _draw_code,
        "number": _draw_number,
        "url": _draw_url,
        "markup": _draw_markup,
        "sentence": _draw_sentence,
        "zero_width": _draw_zero_width,
        "bidi": _draw_bidi,
        "spacing": _draw_spacing,
        "homoglyph": _draw_homoglyph,
        "styled_letters": _draw_styled_letters,
        "combining": _draw_combining,
        "casing": _draw_casing,
        "repeated_word": _draw_repeated_word,
    }
)
"""What draws a recipe of each family."""
