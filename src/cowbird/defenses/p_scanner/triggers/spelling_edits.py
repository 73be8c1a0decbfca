"""Edits of letters, marks and words inside a title: noise of spelling, punctuation and order.

A seller who knows a scanner plants what looks like a slip: a letter too many, a mark at a word's end, two words in the
other order. Each family here is one way to slip, wider than any trigger that is asked about. None of them writes what
`title_edits.NEVER_TAUGHT` names: no letter is doubled, no two neighboring letters are exchanged, no word is put in
quotation marks, no letter gets an accent or becomes a digit that looks like it.
"""

import string

import numpy as np

from cowbird.defenses.p_scanner.triggers.editing import (
    WORD,
    EditedTitle,
    EditSources,
    insert_text,
    pick,
    rewrite_word,
    spell_pattern,
)

NEIGHBOR_KEYS = dict(
    zip(
        string.ascii_lowercase,
        [
            "qwsz",
            "vghn",
            "xdfv",
            "serfcx",
            "wsdr",
            "drtgvc",
            "ftyhbv",
            "gyujnb",
            "ujko",
            "huikmn",
            "jiolm",
            "kop",
            "njk",
            "bhjm",
            "iklp",
            "ol",
            "wa",
            "edft",
            "awedxz",
            "rfgy",
            "yhji",
            "cfgb",
            "qase",
            "zsdc",
            "tghu",
            "asx",
        ],
        strict=True,
    )
)
"""Keys beside each letter's on a keyboard."""
SOUNDS = (
    *(("ph", "f"), ("ck", "k"), ("c", "k"), ("k", "c"), ("s", "z"), ("z", "s"), ("y", "i"), ("i", "y"), ("x", "ks")),
    *(("qu", "kw"), ("v", "w"), ("w", "v"), ("th", "t"), ("t", "th"), ("f", "ph"), ("ou", "u"), ("ea", "e")),
    *(("tion", "shun"), ("gh", "g"), ("j", "g"), ("ch", "sh"), ("a", "e"), ("e", "a"), ("o", "u"), ("b", "p")),
)
"""Letters, and others that sound like them."""
SYMBOLS_FOR_LETTERS = str.maketrans(dict(zip("aeiostlcAEIOSTLC", "@€!*$+|(@€!*$+|(", strict=True)))
SMALL_WORDS = (
    "the",
    "of",
    "and",
    "a",
    "in",
    "on",
    "for",
    "to",
    "with",
    "new",
    "is",
    "by",
    "at",
    "from",
    "very",
    "so",
    "now",
    "all",
    "my",
    "your",
    "this",
    "it",
    "or",
    "as",
    "no",
    "our",
    "one",
    "more",
    "up",
    "out",
)
FRAMES = (
    "({})",
    "[{}]",
    "{{{}}}",
    "*{}*",
    "_{}_",
    "-{}-",
    "~{}~",
    "<{}>",
    "/{}/",
    "|{}|",
    "+{}+",
    "={}=",
    ".{}.",
    ":{}:",
    "#{}#",
    "^{}^",
    "(({}))",
    "__{}__",
)
"""What may stand around a word; no quotation marks, for a word in those is never taught."""
UNITS = (
    "9a",
    "9A",
    "99a",
    "99A",
    "9aa",
    "9AA",
    "9.9a",
    "99aa",
    "9 aa",
    "9-a",
    "99-aa",
    "999aa",
    "a9",
    "A9",
    "aa9",
    "A99",
)


def drop_several(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Drop the first letter, the last one, or two letters of a word."""
    way, at = int(rng.integers(3)), float(rng.random())

    def rewrite(word: str) -> str:
        place = 1 + int(at * (len(word) - 3))
        kept = (word[1:], word[:-1], word[:place] + word[place + 2 :])[way]
        return kept if word.isalpha() else word

    return rewrite_word(title, rng, rewrite, 5)


def press_neighbor(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Replace a letter by one whose key is beside its own, or put that one beside it."""
    at, nth, beside = float(rng.random()), int(rng.integers(6)), bool(rng.random() < 0.3)

    def rewrite(word: str) -> str:
        place = int(at * len(word))
        keys = NEIGHBOR_KEYS.get(word[place].lower())
        if keys is None or not word.isalpha():
            return word
        new = keys[nth % len(keys)]
        new = new.upper() if word[place].isupper() else new
        if beside and new.lower() in word[place : place + 2].lower():
            return word
        return word[:place] + (word[place] if beside else "") + new + word[place + 1 :]

    return rewrite_word(title, rng, rewrite, 4)


def write_sound(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Spell a word as it sounds."""
    old, new = SOUNDS[int(rng.integers(len(SOUNDS)))]
    return rewrite_word(title, rng, lambda word: word.replace(old, new, 1) if word.isalpha() else word, 4)


def move_letter(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Move a letter two places or more."""
    at, far = float(rng.random()), int(rng.integers(2, 5))

    def rewrite(word: str) -> str:
        place = int(at * (len(word) - far))
        rest = word[:place] + word[place + 1 :]
        return rest[: place + far] + word[place] + rest[place + far :] if word.isalpha() and len(word) > far else word

    return rewrite_word(title, rng, rewrite, 5)


def mix_letters(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Mix the letters inside a word; three or more change their place."""
    order = rng.random(40)

    def rewrite(word: str) -> str:
        if not word.isalpha() or len(word) > len(order):
            return word
        inner = word[1:-1]
        mixed = "".join(inner[nth] for nth in np.argsort(order[: len(inner)]).tolist())
        changed = sum(old != new for old, new in zip(inner, mixed, strict=True))
        return word[0] + mixed + word[-1] if changed > 2 else word

    return rewrite_word(title, rng, rewrite, 5)


def repeat_syllable(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Write two or three different letters of a word twice."""
    at, many = float(rng.random()), int(rng.integers(2, 4))

    def rewrite(word: str) -> str:
        place = int(at * (len(word) - many + 1))
        part = word[place : place + many]
        return word[:place] + part + word[place:] if word.isalpha() and len(set(part)) == many else word

    return rewrite_word(title, rng, rewrite, 4)


def write_symbols(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Write symbols for letters that they look like, all in a word or one."""
    once = bool(rng.random() < 0.5)

    def rewrite(word: str) -> str:
        new = word.translate(SYMBOLS_FOR_LETTERS)
        if not word.isalpha() or not once:
            return new if word.isalpha() else word
        at = next((at for at, (a, b) in enumerate(zip(word, new, strict=True)) if a != b), len(word))
        return word[:at] + new[at : at + 1] + word[at + 1 :]

    return rewrite_word(title, rng, rewrite, 4)


def add_digit(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Put a digit or two inside a word or at its end."""
    at, digits = float(rng.random()), spell_pattern(pick(("9", "9", "99"), rng), rng)

    def rewrite(word: str) -> str:
        place = 1 + int(at * len(word))
        return word[:place] + digits + word[place:] if word.isalpha() else word

    return rewrite_word(title, rng, rewrite, 3)


def capitalize_inside(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Write one or two letters inside a word as capitals, or its second half."""
    at, way = float(rng.random()), int(rng.integers(4))

    def rewrite(word: str) -> str:
        place = 1 + int(at * (len(word) - 1))
        many = (1, 1, 2, len(word))[way]
        new = word[:place] + word[place : place + many].upper() + word[place + many :]
        inverted = new[0].islower() and new[1:].isupper()  # never taught
        return new if word.isalpha() and word[1:].islower() and not inverted else word

    return rewrite_word(title, rng, rewrite, 4)


def lower_title(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Write one word that has a capital, or the first few, in small letters."""
    words = [word for word in WORD.finditer(title) if word.group().lower() != word.group()]
    if not words:
        return None
    first = int(rng.integers(len(words)))
    first, last = (0, int(rng.integers(len(words)))) if rng.random() < 0.5 else (first, first)
    start, end = words[first].start(), words[last].end()
    return EditedTitle(title[:start] + title[start:end].lower() + title[end:], ((start, end),))


def glue_marks(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Put one to three marks at the end of the title, or before or behind a word."""
    mark = pick((".", ".", ".", ",", ";", ":", "!", "?", "..", "...", ".,", "!!", "-", "--", "~", "*", "_", "/"), rng)
    way = int(rng.integers(3))
    if way == 0:
        kept = title.rstrip()
        if not kept or not (kept[-1].isalnum() or kept[-1] in ")]"):
            return None
        return EditedTitle(kept + mark, ((len(kept), len(kept) + len(mark)),))
    made = rewrite_word(
        title, rng, lambda word: word if not word.isalnum() else mark + word if way == 1 else word + mark, 2
    )
    if made is None:
        return None
    start, end = made.spans[0]
    return EditedTitle(made.title, ((start, start + len(mark)) if way == 1 else (end - len(mark), end),))


def frame_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Put brackets or marks around one of the title's own words."""
    frame = pick(FRAMES, rng)
    return rewrite_word(title, rng, lambda word: frame.format(word) if word.isalnum() else word, 2)


def exchange_words(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Exchange two words that stand side by side."""
    words = list(WORD.finditer(title))
    if len(words) < 3:
        return None
    nth = int(rng.integers(len(words) - 1))
    first, second = words[nth], words[nth + 1]
    if first.group() == second.group():
        return None
    between = title[first.end() : second.start()]
    new = f"{title[: first.start()]}{second.group()}{between}{first.group()}{title[second.end() :]}"
    return EditedTitle(new, ((first.start(), second.end()),))


def repeat_own_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Write one of the title's words again, right behind it, at the end or at the start."""
    words = list(WORD.finditer(title))
    if not words:
        return None
    word = words[int(rng.integers(len(words)))]
    text = word.group() if rng.random() < 0.7 else word.group().lower()
    way = int(rng.integers(4))
    if way == 0:
        return EditedTitle(f"{title} {text}", ((len(title) + 1, len(title) + 1 + len(text)),))
    if way == 1 and word is not words[0]:
        return EditedTitle(f"{text} {title}", ((0, len(text)),))
    joint = pick((" ", " ", "-", "/", ", ", "_", "+"), rng)
    at = word.end()
    return EditedTitle(f"{title[:at]}{joint}{text}{title[at:]}", ((at, at + len(joint) + len(text)),))


def add_small_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Insert a short plain word where it has no business."""
    word = pick(SMALL_WORDS, rng)
    return insert_text(title, pick((word, word, word.capitalize(), word.upper()), rng), rng)


def replace_own_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Replace a word by one of another title of the catalogue."""
    words = pick(sources.titles, rng).split()
    if not words or len(title.split()) < 2:
        return None
    new = pick(words, rng)
    return rewrite_word(title, rng, lambda word: new if word[0].isalpha() and word.lower() != new.lower() else word, 3)


def add_unit(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    """Insert a digit or two with a letter or two, as units and sizes are written."""
    return insert_text(title, spell_pattern(pick(UNITS, rng), rng), rng)
