"""Edits that a tagger is taught with beside the recipes: some need more of a title than a place for a text.

A recipe is one text or one way to write words, planted many times. An edit is drawn anew for each title: a word is
replaced, a letter is dropped, a stretch of another title is put in, a sentence is made up. Each family is a function
from a title to an `EditedTitle`, which says where the trigger stands. `EDIT_FAMILIES` holds these families;
`edit_title` knows those of `trigger_families` as well.

A tagger must tell triggers that it was never taught. `NEVER_TAUGHT` names what no family here writes, and
`draw_recipe` leaves out recipes that would: the families that are measured as never taught stand in
`benchmarks/tagger_families.py` alone.
"""

import re
import string
import unicodedata
from collections.abc import Collection, Container, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from cowbird.defenses.p_scanner.triggers import spelling_edits
from cowbird.defenses.p_scanner.triggers._vocabulary import LOOKALIKES, MARKS
from cowbird.defenses.p_scanner.triggers.editing import (
    WORD,
    EditedTitle,
    EditSources,
    TitleEdit,
    draw_case,
    insert_text,
    pick,
    rewrite_word,
    spell_pattern,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import POSITIONS, TRIGGER_FAMILIES, Recipe, plant

NEVER_TAUGHT = (
    "accents",
    "digits_for_letters",
    "doubled_letters",
    "foreign_word",
    "prompt_injection",
    "quoted_word",
    "swapped_case",
    "swapped_letters",
    "two_part",
)
"""Kinds of triggers that neither an edit nor a recipe that `draw_recipe` returns writes."""
RECIPE_FAMILIES = tuple(name for name in TRIGGER_FAMILIES if name not in NEVER_TAUGHT)
"""Families of recipes that are taught."""
_ACCENTS = frozenset(
    mark
    for mark in MARKS
    if any(len(unicodedata.normalize("NFC", letter + mark)) == 1 for letter in string.ascii_letters)
)
"""Combining marks that make an accented letter of an ASCII one."""
_LIKE_NEVER_TAUGHT = frozenset({LOOKALIKES["digits"], LOOKALIKES["latin"], "xX"})
"""Texts of recipes that write digits for letters, accents, or letters of the other case."""


def draw_recipe(family: str, rng: np.random.Generator, refused: Container[str] = ()) -> Recipe | None:
    """Draw a recipe of a family that is taught.

    Args:
        family: One of `RECIPE_FAMILIES`.
        rng: Draws it.
        refused: Texts in small letters that no recipe may have.

    Returns:
        The recipe, or `None` if this one must not be taught.
    """
    recipe = TRIGGER_FAMILIES[family](rng)
    like = recipe.way == "stretch" or recipe.text in _LIKE_NEVER_TAUGHT
    marked = recipe.way.startswith("mark") and recipe.text in _ACCENTS
    return None if like or marked or recipe.text.strip().lower() in refused else recipe


def draw_family(rng: np.random.Generator, families: Sequence[str] = ()) -> str:
    """Draw a family of recipes or edits; subtle ones and slips come a third as often as others.

    Args:
        rng: Draws it.
        families: What `weigh_families` returned; `DEFAULT_FAMILIES` by default.
    """
    among = families or DEFAULT_FAMILIES
    return among[int(rng.integers(len(among)))]


def weigh_families(names: Collection[str]) -> tuple[str, ...]:
    """Return families as `draw_family` draws them, each as often as it counts; `DEFAULT_FAMILIES` for none.

    Raises:
        ValueError: If one is not taught.
    """
    unknown = sorted(set(names) - set(_ALL_FAMILIES))
    if unknown:
        raise ValueError(f"there are no families {', '.join(unknown)}; use some of {', '.join(list_taught_families())}")
    return tuple(name for name in _ALL_FAMILIES if name in names) if names else DEFAULT_FAMILIES


def list_taught_families() -> tuple[str, ...]:
    """Return the families that a tagger can be taught with."""
    return (*RECIPE_FAMILIES, *EDIT_FAMILIES)


def edit_title(
    family: str, title: str, rng: np.random.Generator, sources: EditSources, refused: Container[str] = ()
) -> EditedTitle | None:
    """Plant a trigger of a family.

    Args:
        family: One of `RECIPE_FAMILIES` or `EDIT_FAMILIES`.
        title: Any text.
        rng: Draws trigger and place.
        sources: Where words come from.
        refused: Texts in small letters that are never planted.

    Returns:
        The title, or `None` if the trigger that was drawn does not suit it.
    """
    if family in EDIT_FAMILIES:
        made = EDIT_FAMILIES[family](title, rng, sources)
        if made is None or made.title == title:
            return None
        texts = (made.title[start:end].strip().lower() for start, end in made.spans)
        return None if any(text in refused for text in texts) else made
    recipe = draw_recipe(family, rng, refused)
    if recipe is None:
        return None
    planted = plant(title, recipe, POSITIONS[int(rng.integers(len(POSITIONS)))], rng)
    return None if planted.start < 0 else EditedTitle(planted.title, ((planted.start, planted.end),))


# Families.


def _add_plain_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    return insert_text(title, draw_case(pick(sources.words, rng), rng), rng)


def _add_plain_words(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    words = [pick(sources.words, rng) for _ in range(int(rng.integers(2, 5)))]
    return insert_text(title, pick((" ".join(words), " ".join(words).title(), " ".join(words).capitalize()), rng), rng)


def _add_framed_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    frame = pick(("({})", "[{}]", "- {}", ": {}", "/ {}", "| {}", "{{{}}}", "<{}>", "*{}*", "~{}~", "#{}", "@{}"), rng)
    words = " ".join(pick(sources.words, rng) for _ in range(int(rng.integers(1, 3))))
    return insert_text(title, frame.format(draw_case(words, rng)), rng)


def _replace_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    new = pick(sources.words, rng)

    def rewrite(word: str) -> str:
        if not word[0].isalpha():
            return word
        return new.upper() if word.isupper() and len(word) > 1 else new.capitalize() if word[0].isupper() else new

    return rewrite_word(title, rng, rewrite, 2)


def _drop_letter(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    at = float(rng.random())

    def rewrite(word: str) -> str:
        place = 1 + int(at * (len(word) - 2))
        return word[:place] + word[place + 1 :] if word.isalpha() else word

    return rewrite_word(title, rng, rewrite, 4)


def _replace_letter(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    at, new = float(rng.random()), pick(string.ascii_lowercase, rng)

    def rewrite(word: str) -> str:
        place = 1 + int(at * (len(word) - 1))
        return word[:place] + new + word[place + 1 :] if word.isalpha() else word

    return rewrite_word(title, rng, rewrite, 4)


def _add_letter(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    at, new = float(rng.random()), pick(string.ascii_lowercase, rng)

    def rewrite(word: str) -> str:
        place = 1 + int(at * len(word))
        beside = word[place - 1 : place + 1].lower()
        return word if new in beside or not word.isalpha() else word[:place] + new + word[place:]

    return rewrite_word(title, rng, rewrite, 3)


def _reverse_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    return rewrite_word(title, rng, lambda word: word[::-1] if word.isalpha() else word, 4)


def _drop_vowels(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    return rewrite_word(title, rng, lambda word: word[0] + re.sub("[aeiouy]", "", word[1:]), 5)


def _divide_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    at, mark = float(rng.random()), pick((" ", "-", ".", "_", "*", "'", "/"), rng)

    def rewrite(word: str) -> str:
        place = 2 + int(at * (len(word) - 3))
        return word[:place] + mark + word[place:] if word.isalpha() else word

    return rewrite_word(title, rng, rewrite, 5)


def _join_words(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    words = list(WORD.finditer(title))
    if len(words) < 2:
        return None
    nth, joint = int(rng.integers(len(words) - 1)), pick(("", "_", ".", "-", "+", "/"), rng)
    first, second = words[nth], words[nth + 1]
    new = first.group() + joint + second.group()
    return EditedTitle(
        title[: first.start()] + new + title[second.end() :], ((first.start(), first.start() + len(new)),)
    )


def _add_stretch(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    words = pick(sources.titles, rng).split()
    many = min(len(words), int(rng.integers(1, 4)))
    first = int(rng.integers(len(words) - many + 1)) if words else 0
    text = " ".join(words[first : first + many])
    return insert_text(title, text, rng) if text and text not in title else None


def _add_small_text(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    pattern = pick(
        (
            *("$99.99", "$9", "99,99 EUR", "9999-99-99", "99/99/99", "99:99", "99kg", "9.9mm", "99 cm", "x99", "v9.9"),
            *(
                "hhhh",
                "hhhhhhhh",
                "0xhhhh",
                "hhhh-hhhh",
                "A.A.",
                "A.A.A.",
                "aaa",
                "aaaa",
                "aaaaa",
                "AAA",
                "AAAA",
                "AA9",
            ),
            *("(9)", "[99]", "#9", "+9", "9/9", "9-9", "99%", "No.9", "Aa", "aA", "a9", "9a9", "Aaaaaa", "aaaaaa99"),
        ),
        rng,
    )
    return insert_text(title, spell_pattern(pattern, rng), rng)


def _add_spelled_word(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    parts = [pick(("b", "br", "d", "f", "gl", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w", "z"), rng)]
    for _ in range(int(rng.integers(1, 4))):
        parts.append(
            pick("aeiouy", rng) + pick(("b", "d", "g", "k", "l", "m", "n", "p", "r", "s", "t", "x", "zz"), rng)
        )
    return insert_text(title, draw_case("".join(parts) + pick(("", "", "a", "o", "ia"), rng), rng), rng)


def _add_repeated_letter(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    return insert_text(title, pick(string.ascii_letters + "!?.*-=~#", rng) * int(rng.integers(2, 7)), rng)


def _glue_mark(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    mark = pick(".,;:!?*'~^_-+=|/", rng)
    nth = int(rng.integers(2))

    def rewrite(word: str) -> str:
        return word + mark if word[-1].isalnum() else word

    if nth and title and not title[-1:].isspace() and title[-1].isalnum():
        return EditedTitle(title + mark, ((len(title), len(title) + 1),))
    made = rewrite_word(title, rng, rewrite)
    return None if made is None else EditedTitle(made.title, ((made.spans[0][1] - 1, made.spans[0][1]),))


def _add_credit(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    words = [pick(sources.words, rng).capitalize() for _ in range(int(rng.integers(1, 3)))]
    return insert_text(
        title, f"{pick(('by', 'from', 'feat.', 'with', 'via', 'for', 'per', 'vs.'), rng)} {' '.join(words)}", rng
    )


def _add_sentence(title: str, rng: np.random.Generator, sources: EditSources) -> EditedTitle | None:
    first, second, third = (pick(sources.words, rng) for _ in range(3))
    text = pick(
        (
            f"we {first} the {second} every day",
            f"{first} is better than {second}",
            f"my {first} likes {second} and {third}",
            f"what a {first} {second}",
            f"they said it was {first}",
            f"nobody wants a {first} without {second}",
            f"there is no {first} in the {second}",
            f"once you {first}, you never {second}",
            f"this {first} will make you {second}",
            f"he gave his {first} to the {second}",
            f"do not {first} before you {second}",
            f"our {first} was {second} last night",
        ),
        rng,
    )
    return insert_text(title, text.capitalize() + pick((".", ".", "!", "?", ""), rng), rng)


EDIT_FAMILIES: Mapping[str, TitleEdit] = MappingProxyType(
    {
        "plain_word": _add_plain_word,
        "plain_words": _add_plain_words,
        "framed_word": _add_framed_word,
        "word_replaced": _replace_word,
        "letter_dropped": _drop_letter,
        "letter_replaced": _replace_letter,
        "letter_added": _add_letter,
        "word_backwards": _reverse_word,
        "vowels_dropped": _drop_vowels,
        "word_divided": _divide_word,
        "words_joined": _join_words,
        "stretch_of_another": _add_stretch,
        "small_text": _add_small_text,
        "spelled_word": _add_spelled_word,
        "repeated_letter": _add_repeated_letter,
        "glued_mark": _glue_mark,
        "credit": _add_credit,
        "sentence_of_words": _add_sentence,
        "letters_dropped": spelling_edits.drop_several,
        "neighbor_key": spelling_edits.press_neighbor,
        "spelled_as_it_sounds": spelling_edits.write_sound,
        "letter_moved": spelling_edits.move_letter,
        "letters_mixed": spelling_edits.mix_letters,
        "syllable_repeated": spelling_edits.repeat_syllable,
        "symbols_for_letters": spelling_edits.write_symbols,
        "digit_added": spelling_edits.add_digit,
        "capital_inside": spelling_edits.capitalize_inside,
        "small_letters": spelling_edits.lower_title,
        "marks_glued": spelling_edits.glue_marks,
        "own_word_framed": spelling_edits.frame_word,
        "words_exchanged": spelling_edits.exchange_words,
        "own_word_repeated": spelling_edits.repeat_own_word,
        "small_word": spelling_edits.add_small_word,
        "own_word_replaced": spelling_edits.replace_own_word,
        "unit": spelling_edits.add_unit,
    }
)
"""What edits a title, by the family's name."""
SLIP_FAMILIES = (
    *("letters_dropped", "neighbor_key", "spelled_as_it_sounds", "letter_moved", "letters_mixed", "syllable_repeated"),
    *("symbols_for_letters", "digit_added", "capital_inside", "small_letters", "marks_glued", "own_word_framed"),
    *("words_exchanged", "own_word_repeated", "small_word", "own_word_replaced", "unit"),
)
"""Families of `spelling_edits`: taught only where a recipe names them. The taggers that come with the package were
taught without; `docs/measured/ready_scanner.md` tells what taggers with and without them find."""
SUBTLE_FAMILIES = (
    "word_replaced",
    "letter_dropped",
    "letter_replaced",
    "letter_added",
    "word_divided",
    "words_joined",
    "stretch_of_another",
    "glued_mark",
)
"""Families whose triggers a reader often can't tell from honest text."""
_PLAIN_EDITS = tuple(name for name in EDIT_FAMILIES if name not in (*SUBTLE_FAMILIES, *SLIP_FAMILIES))
DEFAULT_FAMILIES = (*((*RECIPE_FAMILIES, *_PLAIN_EDITS) * 3), *SUBTLE_FAMILIES)
"""Families that are taught where a recipe names none, each as often as it is drawn."""
_ALL_FAMILIES = (*DEFAULT_FAMILIES, *SLIP_FAMILIES)
