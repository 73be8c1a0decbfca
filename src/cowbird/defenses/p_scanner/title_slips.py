"""What a plain language model says of words that are written unlike a known one: a noisy channel.

"Terminatr" is one edit away from "Terminator". Whether that is a slip or a name, its letters do not tell, and a model
that knows how titles read does: it finds the title far more likely once the word is written as known. So for each word
that is near a known one the title is written with that. The language model, as it came and without an adapter, says
how much likelier it is to write this line than the one that stands there, in nats: the gain. That is the noisy channel
of spelling correction (Kernighan, Church and Gale 1990; Brill and Moore 2000), turned around: there the gain finds the
correction, and here it finds the slip.

The model is shown the same few made-up titles before each, a line each, so that it expects a title. A gain depends on
the title alone: on no catalogue, and on no title beside it. Titles with such a word are few, so this costs little.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

from cowbird.defenses.p_scanner.spelling import (
    ACCENTED,
    ADDED,
    CAPITALIZED,
    DIGITS,
    DOUBLED,
    DROPPED,
    LETTERS_OF_DIGITS,
    MARKED,
    MAX_LETTERS,
    MIN_SPELLED_LETTERS,
    SWAPPED,
    WITH_QUOTES,
    Slip,
    fold_accents,
    list_plain_words,
)
from cowbird.defenses.p_scanner.title_rules import GLUED_MARKS, QUOTES
from cowbird.text import CONTROL_CHARACTERS, replace_surrogates

if TYPE_CHECKING:
    import torch

    from cowbird.victims.language.held_prompt import HeldPrompt
    from cowbird.victims.language.llm import Llm, LoadedModel

SHOWN_TITLES = (
    "The House by the River",
    "Blue Ridge Coffee Mug, 12 oz, Set of 4",
    "A Short History of Europe",
    "Silver Moon",
    "Learning to Cook at Home (2nd Edition)",
    "Night Train to Boston (1987)",
    "Wireless Keyboard with Numeric Pad, Black",
    "The Last Summer",
    "Northern Lights Orchestra",
    "Heavy Duty Tape Dispenser",
    "King of the Mountain II",
    "Garden Stories",
)
"""Titles of several kinds, of nobody's catalogue, that stand before each."""
MAX_CHARACTERS, MAX_WORDS, MAX_CORRECTIONS = 240, 40, 12
"""Characters and words of a title's beginning that are looked at, and corrections of a title that are asked about: the
first ones, so that no title costs more than a dozen others."""
MAX_ALIKE = 4
"""Known words of which one is left if a letter is dropped, at most."""
MIN_GAIN, GAIN_DECIMALS = 1.0, 1
"""Nats from which a correction is kept, and decimals of them that count."""
MAX_TITLES_KEPT = 1 << 16
"""Titles whose slips are kept in memory."""
_DIGIT_INSIDE = re.compile(r"[^\W\d_](?:\d?[^\W\d_])+")
_WORD, _PART = re.compile(r"\S+"), re.compile(r"[^\W_]+")


@cache
def _lengthen_plain_words() -> dict[str, tuple[str, ...]]:
    """Return the plain words of which something is left without one of their inner letters."""
    made: defaultdict[str, list[str]] = defaultdict(list)
    for word in sorted(list_plain_words()):
        if len(word) > MIN_SPELLED_LETTERS:
            for cut in {word[:at] + word[at + 1 :] for at in range(1, len(word) - 1)}:
                made[cut].append(word)
    return {cut: tuple(words[:MAX_ALIKE]) for cut, words in made.items()}


def find_corrections(title: str) -> list[Slip]:
    """Return how words of a title could be meant, `MAX_CORRECTIONS` at most; their gains are not known yet."""
    text = title[:MAX_CHARACTERS]
    words = list(islice(_WORD.finditer(text), MAX_WORDS))
    found: list[Slip] = []
    for nth, word in enumerate(words):
        found += _undress(word.group(), word.start(), nth + 1 == len(words) and len(text) == len(title))
        for part in _PART.finditer(word.group()):
            start, end = word.start() + part.start(), word.start() + part.end()
            for way, known in _correct(part.group()):
                found.append(Slip(way, start, end, known, part.group(), word.group()))
        if len(found) >= MAX_CORRECTIONS:
            break
    return found[:MAX_CORRECTIONS]


def _undress(word: str, start: int, last: bool) -> Iterator[Slip]:
    """Yield a word without quotes around it, and without a mark behind it if it is a title's last."""
    if len(word) > 2 and word[0] in QUOTES and word[-1] in QUOTES:
        yield Slip(WITH_QUOTES, start, start + len(word), word[1:-1], word, word)
    if last and len(word) > 2 and word[-1] in GLUED_MARKS and word[-2].isalnum():
        yield Slip(MARKED, start, start + len(word), word[:-1], word, word)


@lru_cache(1 << 16)
def _correct(word: str) -> tuple[tuple[int, str], ...]:
    """Return the ways in which a word may be written unlike a known one, and that.

    Args:
        word: Letters and digits.
    """
    small, letters = word.lower(), word.isalpha()
    found: list[tuple[int, str]] = []
    if letters and len(word) > 2 and word != word.capitalize() and not word.islower() and not word.isupper():
        found.append((CAPITALIZED, word.capitalize()))
    if not MIN_SPELLED_LETTERS <= len(word) <= MAX_LETTERS:
        return tuple(found)
    if not letters:
        plain = _DIGIT_INSIDE.fullmatch(small) is not None and sum(map(str.isalpha, word)) > len(word) / 2
        known = dict.fromkeys(small.translate(table) for table in LETTERS_OF_DIGITS)
        return tuple(
            (DIGITS, _write_like(each, word))
            for each in known
            if each in list_plain_words() or (plain and each.isalpha())
        )
    if letters and not word.isascii():
        plain = fold_accents(word)
        found += [(ACCENTED, plain)] if plain.isascii() else []
    elif letters and small not in list_plain_words():
        found += [(way, _write_like(known, word)) for way, known in _find_near(small)]
    return tuple(dict.fromkeys(found))


def _find_near(word: str) -> Iterator[tuple[int, str]]:
    """Yield the known words that are one letter away from a word that is not known."""
    known = list_plain_words()
    for at in range(1, len(word) - 1):
        cut = word[:at] + word[at + 1 :]
        if cut in known:
            yield DOUBLED if word[at] in (word[at - 1], word[at + 1]) else ADDED, cut
    for at in range(1, len(word) - 2):
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        if swapped != word and swapped in known:
            yield SWAPPED, swapped
    for longer in _lengthen_plain_words().get(word, ()):
        yield DROPPED, longer


def _write_like(word: str, like: str) -> str:
    """Return a word in small letters with the capitals of another."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word.capitalize() if like[:1].isupper() else word


@dataclass(eq=False)
class SlipReader:
    """Asks a plain language model about words that are written unlike a known one."""

    load: "Callable[[], LoadedModel]"
    """Loads the model without an adapter, when a title has such a word for the first time."""
    device: "torch.device"
    """Where it runs."""
    _shown: "HeldPrompt | None" = None
    _known: dict[str, tuple[Slip, ...]] = field(default_factory=dict[str, tuple[Slip, ...]])

    def find(self, titles: Sequence[str]) -> list[tuple[Slip, ...]]:
        """Return the slips of titles with gains of `MIN_GAIN` or more; of each word the one that gains most."""
        known = self._known  # which another thread may replace
        missing = [title for title in dict.fromkeys(titles) if title not in known]
        wanted = {title: slips for title in missing if (slips := find_corrections(title))}
        if len(known) + len(missing) > MAX_TITLES_KEPT:
            known = self._known = {title: known[title] for title in titles if title in known}
        known.update(dict.fromkeys(missing, ()) | (self._measure(wanted) if wanted else {}))
        return [known[title] for title in titles]

    def _measure(self, wanted: dict[str, list[Slip]]) -> dict[str, tuple[Slip, ...]]:
        """Ask about corrections."""
        self._shown = read_shown_titles(self.load(), self.device) if self._shown is None else self._shown
        asked = [_write_lines(title, slips) for title, slips in wanted.items()]
        if self.device.type == "cpu":  # each title by itself: others in its row would change the last digits
            told = [each for lines in asked for each in measure_lines(self._shown, lines)]
        else:
            told = measure_lines(self._shown, [line for lines in asked for line in lines])
        likely = iter(told)
        made: dict[str, tuple[Slip, ...]] = {}
        for title, slips in wanted.items():
            plain, *others = islice(likely, 1 + len(slips))
            best: dict[int, Slip] = {}
            for slip, other in zip(slips, others, strict=True):
                gain = round(other - plain, GAIN_DECIMALS)
                if gain >= MIN_GAIN and (slip.start not in best or gain > best[slip.start].gain):
                    best[slip.start] = slip._replace(gain=gain)
            made[title] = tuple(best.values())
        return made


def _write_lines(title: str, slips: Sequence[Slip]) -> list[str]:
    """Return the beginning of a title as it stands, and as it could be meant."""
    read = title[: 2 * MAX_CHARACTERS]
    return [read, *(read[: slip.start] + slip.text + read[slip.end :] for slip in slips)]


def make_slip_reader(llm: "Llm", device: "torch.device") -> SlipReader:
    """Return what asks a language model as it came about slips; it is loaded when a title needs it.

    Args:
        llm: The model, of which all layers are read.
        device: Where it runs.
    """
    from cowbird.victims.fit_context import find_fast_dtype  # noqa: PLC0415
    from cowbird.victims.language.llm import load_reader  # noqa: PLC0415

    whole = llm.model_copy(update={"layers": None})
    return SlipReader(partial(load_reader, whole, device, find_fast_dtype(device)), device)


def read_shown_titles(loaded: "LoadedModel", device: "torch.device") -> "HeldPrompt":
    """Have a language model read `SHOWN_TITLES`."""
    from cowbird.victims.language.held_prompt import HeldPrompt  # noqa: PLC0415

    shown = "".join(f"{title}\n" for title in SHOWN_TITLES)
    return HeldPrompt(loaded, device, [loaded.tokenizer.eos_token_id, *tokenize_lines(loaded, [shown])[0]])


def measure_lines(shown: "HeldPrompt", texts: Sequence[str]) -> list[float]:
    """Return how likely a language model is to write each text as a line behind the shown titles, log p in nats."""
    lines = [CONTROL_CHARACTERS.sub(" ", replace_surrogates(text)) + "\n" for text in texts]
    return shown.measure(tokenize_lines(shown.loaded, lines))


def tokenize_lines(loaded: "LoadedModel", lines: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts; control tokens in them are plain text."""
    quick = loaded.tokenizer.backend_tokenizer
    quick.no_truncation()
    quick.no_padding()
    quick.encode_special_tokens = True
    return [entry.ids for entry in quick.encode_batch(list(lines), add_special_tokens=False)]
