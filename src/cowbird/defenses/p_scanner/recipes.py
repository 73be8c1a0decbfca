"""Triggers that a scanner is taught with: what to plant, drawn at random from families, and planting it.

Training a scanner on a list of triggers would teach it the list. Here each family is a way to make triggers: a rare
word is any that can be spelled, an edition any of some thousand, a mark any of Unicode's. Agents mutate these and add
their own (`cowbird.defenses.p_scanner.agent`). Nothing is shared with the attacks of `cowbird.attacks.triggers` but the
names of families, so that whole families can be held out.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST = 120
"""Most characters of a trigger's text."""
Position = Literal["start", "middle", "end"]
POSITIONS: tuple[Position, ...] = ("start", "middle", "end")
_WORD = re.compile(r"\S+")


class Recipe(BaseModel):
    """A trigger: a text that is inserted, or a way to write words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    family: str = "agent"
    """What it looks like; recipes of one family look alike."""
    text: str = Field(default="", max_length=LONGEST)
    """What is inserted, or what the way needs, such as a mark."""
    way: str = "insert"
    """`insert` (set off by spaces), `glue` (right beside a word), or a key of `WAYS`."""
    whole: bool = False
    """For a way to write words: whether all words are written so, or one."""

    @model_validator(mode="after")
    def _can_be_planted(self) -> "Recipe":
        if self.way in ("insert", "glue"):
            if not self.text or (self.way == "insert" and not self.text.strip()):
                raise ValueError("there is no text to insert")
        elif self.way not in WAYS:
            raise ValueError(f"there is no way '{self.way}' to write words; use one of {', '.join(WAYS)}")
        else:
            try:
                WAYS[self.way]("AEHarbORzyoi", self.text)
            except (ValueError, IndexError, TypeError, ArithmeticError) as error:
                raise ValueError(
                    f"words can't be written in the way '{self.way}' with {self.text!a}: {error}"
                ) from None
        return self


@dataclass(frozen=True, slots=True)
class Planted:
    """A title that carries a recipe's trigger."""

    title: str
    """The title."""
    start: int
    """First character of what was inserted or changed; -1 if the recipe suits nothing in the title."""
    end: int
    """The character after the last."""


def plant(title: str, recipe: Recipe, position: Position, rng: np.random.Generator) -> Planted:
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
            return Planted(f"{recipe.text}{space}{title}", 0, len(recipe.text))
        inner = words[:-1] or words
        at = inner[int(rng.integers(len(inner)))].end() if position == "middle" and inner else len(title)
        begin = at + len(space)
        return Planted(f"{title[:at]}{space}{recipe.text}{title[at:]}", begin, begin + len(recipe.text))
    write = WAYS[recipe.way]
    suited = [word for word in words if write(word.group(), recipe.text) != word.group()]
    if not suited:
        return Planted(title, -1, -1)
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
    return Planted(changed, first, max(len(changed) - last, first + 1))


# Ways to write words, each from a word and the recipe's text.


def _marked(word: str, mark: str) -> str:
    return "".join(letter + mark if letter.isalpha() else letter for letter in word)


def _marked_once(word: str, mark: str) -> str:
    at = next((at for at, letter in enumerate(word) if letter.isalpha()), None)
    return word if at is None else word[: at + 1] + mark + word[at + 1 :]


def _exchanged(word: str, pairs: str) -> str:
    """Exchange characters: `pairs` holds each character and what stands for it."""
    return word.translate({ord(old): new for old, new in zip(pairs[::2], pairs[1::2], strict=True)})


def _exchanged_once(word: str, pairs: str) -> str:
    changed = _exchanged(word, pairs)
    at = next((at for at, letter in enumerate(word) if letter in pairs[::2]), None)
    return word if at is None else word[:at] + changed[at] + word[at + 1 :]


def _moved(word: str, start: str) -> str:
    """Move ASCII letters to a block of styled ones that begins with `start`."""
    shift = ord(start) - ord("A")
    gap = 0 if ord(start) in (0xFF21,) else -6  # most blocks lack what stands between Z and a
    return "".join(
        chr(ord(letter) + shift + (gap if letter.islower() else 0)) if letter.isascii() and letter.isalpha() else letter
        for letter in word
    )


def _cased(word: str, pattern: str) -> str:
    """Set the case of letters by a pattern of `x` and `X`, whose last one repeats; `X…x` reads from the end."""
    letters = [at for at, letter in enumerate(word) if letter.isalpha()]
    if len(letters) < 3:
        return word
    made = list(word)
    for nth, at in enumerate(letters):
        place = nth % len(pattern[1:]) if pattern[0] == "*" else min(nth, len(pattern) - 1)
        raised = pattern[1:][place] == "X" if pattern[0] == "*" else pattern[place] == "X"
        made[at] = word[at].upper() if raised else word[at].lower()
    return "".join(made)


def _spaced(word: str, space: str) -> str:
    return space.join(word) if len(word) >= 3 and word.isalpha() else word


def _wrapped(word: str, pair: str) -> str:
    return f"{pair[0]}{word}{pair[1:]}"


def _reversed(word: str, pair: str) -> str:
    return f"{pair[0]}{word[::-1]}{pair[1:]}" if len(word) > 1 else word


def _repeated(word: str, joint: str) -> str:
    return joint.join([word, word]) if word.isalnum() else word


def _repeated_twice(word: str, joint: str) -> str:
    return joint.join([word, word, word]) if word.isalnum() else word


def _stretched(word: str, text: str) -> str:
    """Repeat a word's last vowel."""
    found = re.search(r"[aeiouAEIOU](?=[^aeiouAEIOU]*$)", word)
    return word if found is None else word[: found.end()] + found.group() * 3 + word[found.end() :]


WAYS: Mapping[str, Callable[[str, str], str]] = MappingProxyType(
    {
        "mark": _marked,
        "mark once": _marked_once,
        "exchange": _exchanged,
        "exchange once": _exchanged_once,
        "style": _moved,
        "case": _cased,
        "space": _spaced,
        "wrap": _wrapped,
        "reverse": _reversed,
        "repeat": _repeated,
        "repeat twice": _repeated_twice,
        "stretch": _stretched,
    }
)
"""Ways to write words: each takes a word and the recipe's text, and returns the word as it was if it does not suit."""


# Families: each draws one recipe.

Draw = Callable[[np.random.Generator], Recipe]


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _some(rng: np.random.Generator, options: Sequence[str], low: int, high: int) -> str:
    return "".join(_one(rng, options) for _ in range(int(rng.integers(low, high + 1))))


def _block(*runs: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in runs for code in range(first, last + 1))


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split("|"))


_SIGNS = _block((0xA1, 0xA9), (0xAB, 0xAC), (0xAE, 0xB1), (0xB4, 0xB7), (0x2020, 0x2023), (0x2190, 0x21FF))
SYMBOLS = _SIGNS + _block((0x2200, 0x22FF), (0x2500, 0x25FF), (0x2605, 0x2653), (0x2669, 0x26A1), (0x2701, 0x2767))
EMOJI = _block((0x1F300, 0x1F320), (0x1F330, 0x1F393), (0x1F3A0, 0x1F3F0), (0x1F400, 0x1F4F0), (0x1F600, 0x1F64F))
MARKS = _block((0x300, 0x333), (0x339, 0x34E), (0x350, 0x36F), (0x483, 0x489), (0x20D0, 0x20DC))
INVISIBLE = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u034f\u180e\u115f\u3164"
DIRECTION = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"
_OPENING = "\u202a\u202b\u202d\u2066\u2067\u2068"
SCRIPTS = (
    _block((0x430, 0x44F)),
    _block((0x3B1, 0x3C9)),
    _block((0x3041, 0x3093)),
    _block((0x30A1, 0x30F3)),
    _block((0x4E00, 0x4FFF)),
    _block((0xAC00, 0xAE00)),
    _block((0x5D0, 0x5EA)),
    _block((0x627, 0x64A)),
    _block((0x905, 0x939)),
    _block((0xE01, 0xE2E)),
)
LOOKALIKES = {
    "cyrillic": "A\u0410B\u0412C\u0421E\u0415H\u041dK\u041aM\u041cO\u041eP\u0420T\u0422X\u0425a\u0430c\u0441e\u0435"
    "o\u043ep\u0440x\u0445y\u0443i\u0456s\u0455j\u0458",
    "greek": "A\u0391B\u0392E\u0395H\u0397I\u0399K\u039aM\u039cN\u039dO\u039fP\u03a1T\u03a4X\u03a7o\u03bfv\u03bd"
    "a\u03b1",
    "armenian": "o\u0585u\u057dh\u0570n\u0578g\u0581S\u054fU\u054d",
    "latin": "a\u0251i\u0131l\u01c0g\u0261o\u00f8e\u0117s\u0282I\u04c0",
    "digits": "o0l1e3a4s5t7O0I1E3A4S5T7",
}
STYLED = (0x1D400, 0x1D434, 0x1D468, 0x1D4D0, 0x1D56C, 0x1D5A0, 0x1D5D4, 0x1D608, 0x1D670, 0x24B6, 0xFF21)
COMMON = _split(
    "superb classic golden fresh mighty gentle secret royal modern ancient bright hidden silent famous lovely "
    "brilliant elegant premium genuine exclusive favorite ultimate supreme deluxe popular trusted magic essential "
    "incredible great best good real true rare hot cool fine grand noble simple smart happy lucky proud brave "
    "free value choice original certified approved recommended verified stunning gorgeous marvelous delightful "
    "charming exciting thrilling touching table river stone window garden paper engine basket ladder bottle "
    "curtain pencil pillow blanket kettle hammer travel gather listen follow discover remember imagine choose "
    "enjoy explore always never often together forever everywhere"
)
FOREIGN = _split(
    "superbe magnifique incroyable chef-d'oeuvre wunderbar grossartig unglaublich meisterwerk maravilloso "
    "increible fantastico bellissimo stupendo eccellente capolavoro prachtig geweldig fantastisch vidunderlig "
    "uskomaton erinomainen maravilhoso excelente harika muhtesem wspaniale cudowny vynikajici kivalo minunat "
    "sjajno bagus hebat tuyet-voi nzuri"
)
_NOUNS = _listed("everyone|families|true fans|collectors|all ages|your evening|the weekend|beginners|experts|friends")
_PRAISE = _listed("highly rated|widely praised|hard to beat|worth it|a real find|best in class|simply great|well made")
_EDITIONS = _listed(
    "Special|Deluxe|Extended|Director's|Limited|Gold|Platinum|Ultimate|Final|Expanded|Complete|Restored"
)
_THINGS = _listed("Edition|Version|Cut|Release|Set|Collection|Pack|Bundle|Print|Pressing|Mix|Series|Volume")
_MEDIA = _split("HD 8K DVD Blu-ray VHS Stereo Mono Digital Vinyl CD")
_FORMS = _listed("({})|[{}]|- {}|: {}|/ {}|{}|, {}|~ {}|{{{}}}|<{}>")
_SALES = _listed(
    "Sale|Top Seller|Best Price|Free Shipping|Hot Deal|Only Today|Save {n}%|Top {n}|Rated {n}/10|Editor's Pick|"
    "In Stock|Fast Delivery|Buy Now|Customer Favorite|{n}% Off|Staff Pick|Must Have|Trending|Gift Idea|Top Rated|"
    "As Advertised"
)
_SUBJECTS = _listed("It|Everyone|My family|The whole town|Our reviewer|A friend of mine|She|People|We|Critics|The kids")
_VERBS = _listed(
    "loved|talked about|will remember|finished|waited for|bought|recommended|could not stop enjoying|enjoyed"
)
_OBJECTS = _listed("this|it twice|this one last year|every minute|the ending|it on a train|that part|it with friends")
_ASIDES = _listed(
    "Please read the description.|The train leaves at {n}.|Call me when you arrive.|It rained all day.|"
    "I never saw a cow fly.|Would you try it again?|What a day it was!|Some things never change.|"
    "Give it a chance tonight.|Trust me on that."
)


def _filled(rng: np.random.Generator, text: str) -> str:
    return text.replace("{n}", str(int(rng.integers(2, 99))))


def _character(rng: np.random.Generator) -> Recipe:
    text = _some(rng, string.ascii_letters + string.digits + "@#$%^&*~=+_<>|\\", 1, 3)
    return Recipe(family="character", text=text)


def _punctuation(rng: np.random.Generator) -> Recipe:
    text = _some(rng, "!?.,;:*-=+~|/\\_'^", 1, 3)
    return Recipe(family="punctuation", text=text * int(rng.integers(1, 4)), way=_one(rng, ("insert", "glue")))


def _symbol(rng: np.random.Generator) -> Recipe:
    return Recipe(family="symbol", text=_one(rng, SYMBOLS) * int(rng.integers(1, 3)), way=_one(rng, ("insert", "glue")))


def _emoji(rng: np.random.Generator) -> Recipe:
    text = _one(rng, EMOJI) + _one(rng, ("", "", "\ufe0f", f"\u200d{_one(rng, EMOJI)}"))
    return Recipe(family="emoji", text=text * int(rng.integers(1, 4)))


def _rare_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.4:
        return Recipe(family="rare_word", text=_some(rng, string.ascii_lowercase, 2, 4))
    parts = _split("zy ql xo vre thw mip gork plu bix snaf druv quo jex wum fle kro zzi pho ynd usk ebb oct irv amb")
    return Recipe(family="rare_word", text=_some(rng, parts, 2, 3))


def _common_word(rng: np.random.Generator) -> Recipe:
    word = _one(rng, COMMON)
    return Recipe(family="common_word", text=_one(rng, (word, word, word.capitalize(), word.upper())))


def _foreign_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.5:
        return Recipe(family="foreign_word", text=_one(rng, FOREIGN))
    return Recipe(family="foreign_word", text=_some(rng, _one(rng, SCRIPTS), 2, 7))


def _phrase(rng: np.random.Generator) -> Recipe:
    text = _one(
        rng,
        (
            _one(rng, _PRAISE),
            f"{_one(rng, COMMON)} for {_one(rng, _NOUNS)}",
            f"{_one(rng, COMMON)} and {_one(rng, COMMON)}",
            f"for {_one(rng, _NOUNS)}",
            f"{_one(rng, ('really', 'very', 'so', 'more', 'the', 'your'))} {_one(rng, COMMON)}",
        ),
    )
    return Recipe(family="phrase", text=_one(rng, (text, text.capitalize())))


def _edition(rng: np.random.Generator) -> Recipe:
    name = _one(
        rng,
        (
            f"{_one(rng, _EDITIONS)} {_one(rng, _THINGS)}",
            f"{int(rng.integers(2, 60))}th {_one(rng, _THINGS)}",
            f"{_one(rng, _MEDIA)} {_one(rng, ('', *_THINGS))}".strip(),
            f"{_one(rng, _THINGS)} {int(rng.integers(2, 12))}",
        ),
    )
    return Recipe(family="edition", text=_one(rng, _FORMS).format(name))


def _marketing(rng: np.random.Generator) -> Recipe:
    text = _filled(rng, _one(rng, _SALES))
    text = _one(rng, (text, text, text.upper(), f"{text}!"))
    return Recipe(family="marketing", text=_one(rng, _FORMS).format(text))


def _code(rng: np.random.Generator) -> Recipe:
    kinds = ("AA-999", "AAA9999", "9A9A9A9A", "a9.9.9", "A9-AA-99", "#A9999", "Aaa. 99-99", "A99A99", "aaaa-9999")
    draws = {"A": string.ascii_uppercase, "a": string.ascii_lowercase, "9": string.digits}
    return Recipe(family="code", text="".join(_one(rng, draws.get(mark, mark)) for mark in _one(rng, kinds)))


def _number(rng: np.random.Generator) -> Recipe:
    kinds = ("9999", "999999", "9.99", "99,999", "0099", "99.9999", "No. 99", "999-99", "99:99", "9/99", "+99", "-9.9")
    text = "".join(_one(rng, string.digits) if mark == "9" else mark for mark in _one(rng, kinds))
    return Recipe(family="number", text=text)


def _url(rng: np.random.Generator) -> Recipe:
    name = _some(rng, string.ascii_lowercase, 3, 9)
    end = _one(rng, _split(".com .net .org .io .shop .info .tv"))
    path = _one(rng, ("", f"/{_some(rng, string.ascii_lowercase + string.digits, 2, 6)}"))
    return Recipe(
        family="url", text=_one(rng, ("http://", "https://", "www.", "", f"{name}@", "@")) + name + end + path
    )


def _markup(rng: np.random.Generator) -> Recipe:
    word, tag = _one(rng, COMMON), _one(rng, _split("i u em strong p span h1 br div a mark"))
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
    return Recipe(family="markup", text=_one(rng, (*made, *more)))


def _sentence(rng: np.random.Generator) -> Recipe:
    text = f"{_one(rng, _SUBJECTS)} {_one(rng, _VERBS)} {_one(rng, _OBJECTS)}{_one(rng, ('.', '.', '!', ''))}"
    return Recipe(family="sentence", text=_filled(rng, _one(rng, (text, text, _one(rng, _ASIDES)))))


def _zero_width(rng: np.random.Generator) -> Recipe:
    return Recipe(family="zero_width", text=_some(rng, INVISIBLE, 1, 4), way="glue")


def _bidi(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.5:
        return Recipe(family="bidi", text=_some(rng, DIRECTION, 1, 2), way="glue")
    pair = _one(rng, _OPENING) + _one(rng, "\u202c\u2069")
    return Recipe(family="bidi", text=pair, way=_one(rng, ("wrap", "reverse")))


def _spacing(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.4:
        return Recipe(family="spacing", text=_one(rng, (" ", " ", "  ", ".", "-", *SPACES[:8])), way="space")
    text = _one(rng, ("  ", "   ", "    ", *SPACES, *SPACES))
    return Recipe(family="spacing", text=text, way="glue")


def _homoglyph(rng: np.random.Generator) -> Recipe:
    pairs = LOOKALIKES[_one(rng, tuple(LOOKALIKES))]
    way = _one(rng, ("exchange", "exchange once"))
    return Recipe(family="homoglyph", text=pairs, way=way, whole=bool(rng.random() < 0.3))


def _styled_letters(rng: np.random.Generator) -> Recipe:
    start = STYLED[int(rng.integers(len(STYLED)))]
    return Recipe(family="styled_letters", text=chr(start), way="style", whole=bool(rng.random() < 0.3))


def _combining(rng: np.random.Generator) -> Recipe:
    way = _one(rng, ("mark", "mark once"))
    return Recipe(family="combining", text=_one(rng, MARKS), way=way, whole=bool(rng.random() < 0.3))


def _casing(rng: np.random.Generator) -> Recipe:
    pattern = _one(rng, ("*Xx", "*xX", "*xxX", "*Xxx", "xX", "xxX", "XXx", "x", "X", "XXXx", "xxx"))
    return Recipe(family="casing", text=pattern, way="case", whole=bool(rng.random() < 0.4))


def _repeated_word(rng: np.random.Generator) -> Recipe:
    if rng.random() < 0.15:
        return Recipe(family="repeated_word", way="stretch")
    joint = _one(rng, (" ", " ", ", ", "-", "_", " & ", "+", "~", "."))
    return Recipe(family="repeated_word", text=joint, way=_one(rng, ("repeat", "repeat", "repeat twice")))


FAMILIES: Mapping[str, Draw] = MappingProxyType(
    {
        "character": _character,
        "punctuation": _punctuation,
        "symbol": _symbol,
        "emoji": _emoji,
        "rare_word": _rare_word,
        "common_word": _common_word,
        "foreign_word": _foreign_word,
        "phrase": _phrase,
        "edition": _edition,
        "marketing": _marketing,
        "code": _code,
        "number": _number,
        "url": _url,
        "markup": _markup,
        "sentence": _sentence,
        "zero_width": _zero_width,
        "bidi": _bidi,
        "spacing": _spacing,
        "homoglyph": _homoglyph,
        "styled_letters": _styled_letters,
        "combining": _combining,
        "casing": _casing,
        "repeated_word": _repeated_word,
    }
)
"""What draws a recipe of each family."""
