"""Ways to write words, each from a word and the recipe's text; no way changes a word that it does not suit."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType


def _mark_letters(word: str, mark: str) -> str:
    return "".join(letter + mark if letter.isalpha() else letter for letter in word)


def _mark_first_letter(word: str, mark: str) -> str:
    at = next((at for at, letter in enumerate(word) if letter.isalpha()), None)
    return word if at is None else word[: at + 1] + mark + word[at + 1 :]


def _exchange(word: str, pairs: str) -> str:
    """Exchange characters: `pairs` holds each character and what stands for it."""
    return word.translate({ord(old): new for old, new in zip(pairs[::2], pairs[1::2], strict=True)})


def _exchange_first(word: str, pairs: str) -> str:
    changed = _exchange(word, pairs)
    at = next((at for at, letter in enumerate(word) if letter in pairs[::2]), None)
    return word if at is None else word[:at] + changed[at] + word[at + 1 :]


def _style_letters(word: str, start: str) -> str:
    """Move ASCII letters to a block of styled ones that begins with `start`."""
    shift = ord(start) - ord("A")
    gap = 0 if ord(start) in (0xFF21,) else -6  # most blocks lack what stands between Z and a
    return "".join(
        chr(ord(letter) + shift + (gap if letter.islower() else 0)) if letter.isascii() and letter.isalpha() else letter
        for letter in word
    )


def _set_case(word: str, pattern: str) -> str:
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


def _space_letters(word: str, space: str) -> str:
    return space.join(word) if len(word) >= 3 and word.isalpha() else word


def _wrap(word: str, pair: str) -> str:
    return f"{pair[0]}{word}{pair[1:]}"


def _reverse(word: str, pair: str) -> str:
    return f"{pair[0]}{word[::-1]}{pair[1:]}" if len(word) > 1 else word


def _repeat(word: str, joint: str) -> str:
    return joint.join([word, word]) if word.isalnum() else word


def _repeat_twice(word: str, joint: str) -> str:
    return joint.join([word, word, word]) if word.isalnum() else word


def _stretch(word: str, text: str) -> str:
    """Repeat a word's last vowel."""
    found = re.search(r"[aeiouAEIOU](?=[^aeiouAEIOU]*$)", word)
    return word if found is None else word[: found.end()] + found.group() * 3 + word[found.end() :]


WORD_EDITS: Mapping[str, Callable[[str, str], str]] = MappingProxyType(
    {
        "mark": _mark_letters,
        "mark once": _mark_first_letter,
        "exchange": _exchange,
        "exchange once": _exchange_first,
        "style": _style_letters,
        "case": _set_case,
        "space": _space_letters,
        "wrap": _wrap,
        "reverse": _reverse,
        "repeat": _repeat,
        "repeat twice": _repeat_twice,
        "stretch": _stretch,
    }
)
"""Ways to write words: each takes a word and the recipe's text, and returns the word as it was if it does not suit."""
