"""Ways to write words, each from a word and the recipe's text; no way changes a word that it does not suit."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType


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


WRITING_WAYS: Mapping[str, Callable[[str, str], str]] = MappingProxyType(
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
