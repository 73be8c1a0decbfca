"""Titles cut into pieces without a language model's tokenizer, and numbers that say what each piece is written with.

A piece is a run of letters, a run of digits, or any other single character; blanks belong to none. A character of a
script that is written without blanks, such as Chinese, is a piece by itself. Each piece is described by hashed n-grams
of its characters, by its spelling, its shape and the pair with the piece before it, as fastText describes words
(Bojanowski et al. 2017, arXiv 1607.04606, section 3.2). So no vocabulary is needed, and every script has numbers.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Int32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.token_logits import HEAD_CHARACTERS, TAIL_CHARACTERS

BUCKETS = 1 << 16
"""Numbers that n-grams are hashed to."""
LONGEST_PIECE = 16
"""Characters of a piece; a longer run is several pieces."""
LONGEST_NGRAM = 5
"""Characters of the longest n-gram, borders of a piece included."""
MAX_PIECES = 160
"""Pieces of a title that are described; of more, the last quarter stands for the end."""
PIECE_FEATURES = ("n-grams", "spelling", "raw spelling", "shape", "pair")
"""Groups of numbers; each can be left out in training."""
PIECE_FLAGS = ("blank before", "blank behind", "first", "last", "two blanks before")
"""What else is told of a piece."""

_BLANK, _LOWER, _UPPER, _DIGIT, _LETTER, _MARK, _CONTROL, _PUNCTUATION, _SYMBOL, _UNKNOWN = range(10)
_KINDS = {"Ll": _LOWER, "Lu": _UPPER, "Nd": _DIGIT, "Zs": _BLANK}
_FAMILIES = {"L": _LETTER, "N": _SYMBOL, "M": _MARK, "C": _CONTROL, "Z": _CONTROL, "P": _PUNCTUATION, "S": _SYMBOL}
_KIND_OF = np.full(0x110000, _UNKNOWN, dtype=np.uint8)
_FOLDED = np.arange(0x110000, dtype=np.int32)
_UNSPACED = ((0x0E00, 0x0E7F), (0x2E80, 0xA4CF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF))
"""Scripts that are written without blanks, but for Hangul."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SALT = np.uint64(0xD6E8FEB86659FD93)
_FIRST_BORDER, _LAST_BORDER = 0x110001, 0x110002


class TitlePieces(NamedTuple):
    """Titles cut into pieces, and the numbers of each."""

    first: Int32Array
    """First character of each piece in its title, shape `[pieces]`."""
    after: Int32Array
    """The character after its last one, shape `[pieces]`."""
    offsets: Int64Array
    """Where each title's pieces begin, shape `[titles + 1]`."""
    bucket: Int32Array
    """Hashed numbers of all pieces, shape `[numbers]`."""
    group: NDArray[np.uint8]
    """Which of `PIECE_FEATURES` each is, shape `[numbers]`."""
    starts: Int64Array
    """Where each piece's numbers begin, shape `[pieces + 1]`."""
    flags: NDArray[np.bool_]
    """`PIECE_FLAGS` of each piece, shape `[pieces, flags]`."""


def cut_titles(titles: Sequence[str]) -> TitlePieces:
    """Cut titles into pieces and describe them.

    Args:
        titles: Any texts. Of long ones the beginning and the end are read.
    """
    texts = [_shorten(title) for title in titles]
    length = np.array([len(text) for text in texts], dtype=np.int64)
    code = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), length)
    place = concat_ranges(np.zeros(len(texts), dtype=np.int64), length)
    kind = _classify(code)
    begin = _find_borders(code, kind, owner)
    inside = kind != _BLANK
    starts = np.flatnonzero(begin & inside)
    size = np.diff(np.append(np.cumsum(inside)[starts] - 1, inside.sum()))
    starts, size = _drop_middle(starts, size, owner)
    count = np.bincount(owner[starts], minlength=len(texts)) if len(starts) else np.zeros(len(texts), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    first, after = place[starts], place[starts] + size
    flags = _flag_pieces(owner[starts], first, after, length)
    bucket, group, numbers = _hash_pieces(code, kind, starts, size, offsets)
    gap = np.array([max(0, len(title) - len(text)) for title, text in zip(titles, texts, strict=True)], dtype=np.int64)
    moved = np.repeat(gap, count)
    first, after = first + moved * (first >= HEAD_CHARACTERS), after + moved * (after > HEAD_CHARACTERS)
    return TitlePieces(first.astype(np.int32), after.astype(np.int32), offsets, bucket, group, numbers, flags)


def _shorten(title: str) -> str:
    most = HEAD_CHARACTERS + TAIL_CHARACTERS
    return title if len(title) <= most else title[:HEAD_CHARACTERS] + title[-TAIL_CHARACTERS:]


def _classify(code: Int64Array) -> NDArray[np.uint8]:
    """Return the kind of each character; what a character is, is looked up once."""
    kind = _KIND_OF[code]
    if (kind == _UNKNOWN).any():
        for value in np.unique(code[kind == _UNKNOWN]).tolist():
            character = chr(value)
            name = unicodedata.category(character)
            _KIND_OF[value] = _BLANK if character in "\t\n\r" else _KINDS.get(name, _FAMILIES[name[0]])
            folded = character.lower()
            _FOLDED[value] = ord(folded) if len(folded) == 1 else value
        kind = _KIND_OF[code]
    return kind


def _find_borders(code: Int64Array, kind: NDArray[np.uint8], owner: Int64Array) -> NDArray[np.bool_]:
    """Return where a piece begins, shape `[characters]`; blanks begin pieces too, which are no pieces."""
    run = np.array([0, 1, 1, 2, 1, 1, 3, 4, 5, 5], dtype=np.uint8)[kind]
    alone = run >= 3
    for low, high in _UNSPACED:
        alone |= (code >= low) & (code <= high) & (run == 1)
    begin = np.ones(len(code), dtype=np.bool_)
    begin[1:] = (run[1:] != run[:-1]) | alone[1:] | alone[:-1] | (owner[1:] != owner[:-1])
    last = np.maximum.accumulate(np.where(begin, np.arange(len(code)), 0))
    return begin | ((np.arange(len(code)) - last) % LONGEST_PIECE == 0)


def _drop_middle(starts: Int64Array, size: Int64Array, owner: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Leave out pieces from the middle of titles that have too many."""
    count = np.bincount(owner[starts]) if len(starts) else np.zeros(0, dtype=np.int64)
    if not (count > MAX_PIECES).any():
        return starts, size
    nth = concat_ranges(np.zeros(len(count), dtype=np.int64), count)
    many = np.repeat(count, count)
    tail = MAX_PIECES // 4
    keep = (many <= MAX_PIECES) | (nth < MAX_PIECES - tail) | (nth >= many - tail)
    return starts[keep], size[keep]


def _flag_pieces(owner: Int64Array, first: Int64Array, after: Int64Array, length: Int64Array) -> NDArray[np.bool_]:
    flags = np.zeros((len(first), len(PIECE_FLAGS)), dtype=np.bool_)
    if not len(first):
        return flags
    new = np.concatenate([[True], owner[1:] != owner[:-1]])
    gap = np.where(new, first, first - np.concatenate([[0], after[:-1]]))
    end = np.concatenate([new[1:], [True]])
    behind = np.where(end, length[owner] - after, np.concatenate([first[1:], [0]]) - after)
    flags[:, 0], flags[:, 1], flags[:, 2], flags[:, 3], flags[:, 4] = gap > 0, behind > 0, new, end, gap > 1
    return flags


def _hash_pieces(
    code: Int64Array, kind: NDArray[np.uint8], starts: Int64Array, size: Int64Array, offsets: Int64Array
) -> tuple[Int32Array, NDArray[np.uint8], Int64Array]:
    """Return the numbers of all pieces, their groups, and where each piece's begin."""
    many = len(starts)
    places = concat_ranges(starts, size)
    folded = _FOLDED[code[places]].astype(np.uint64)
    bordered, owner = _add_borders(folded, size)
    found: list[NDArray[np.uint64]] = []
    owners: list[Int64Array] = [owner]
    rolling = bordered
    found.append(rolling * _PRIME + _SALT)
    for length in range(2, LONGEST_NGRAM + 1):
        rolling = rolling[:-1] * _PRIME + bordered[length - 1 :]
        same = owner[: len(rolling)] == owner[length - 1 :]
        found.append((rolling[same] + np.uint64(length)) * _SALT)
        owners.append(owner[: len(rolling)][same])
    spelling = _hash_runs(folded, size, 11)
    raw = _hash_runs(code[places].astype(np.uint64), size, 12)
    shape = _hash_runs(kind[places].astype(np.uint64), size, 13)
    before = np.concatenate([[np.uint64(1)], spelling[:-1]]) if many else spelling
    before[offsets[:-1][np.diff(offsets) > 0]] = np.uint64(1)
    pair = (before * _PRIME + spelling) * _SALT
    ngrams = np.concatenate(found)
    value = np.concatenate([ngrams, spelling, raw, shape, pair])
    whole = np.arange(many)
    owner = np.concatenate([*owners, whole, whole, whole, whole])
    group = np.repeat(np.arange(5, dtype=np.uint8), [len(ngrams), many, many, many, many])
    order = np.argsort(owner, kind="stable")
    value = value[order]
    bucket = (((value ^ (value >> np.uint64(29))) * _PRIME) >> np.uint64(64 - 16)).astype(np.int32)
    numbers = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=many))]).astype(np.int64)
    return bucket, group[order], numbers


def _add_borders(value: NDArray[np.uint64], size: Int64Array) -> tuple[NDArray[np.uint64], Int64Array]:
    """Return characters of pieces with a border before and behind each piece, and the piece of each."""
    many = len(size)
    starts = np.concatenate([[0], np.cumsum(size + 2)])
    made = np.full(int(starts[-1]), _FIRST_BORDER, dtype=np.uint64)
    made[concat_ranges(starts[:-1] + 1, size)] = value
    made[starts[1:] - 1] = _LAST_BORDER
    return made, np.repeat(np.arange(many), size + 2)


def _hash_runs(value: NDArray[np.uint64], size: Int64Array, salt: int) -> NDArray[np.uint64]:
    """Return a hash of the characters of each piece, in order."""
    nth = concat_ranges(np.zeros(len(size), dtype=np.int64), size).astype(np.uint64)
    mixed = (value + np.uint64(salt)) * _PRIME ^ ((nth + np.uint64(1)) * _SALT)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _SALT
    starts = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64) if len(size) else np.zeros(0, dtype=np.int64)
    return np.add.reduceat(mixed, starts) if len(size) else np.zeros(0, dtype=np.uint64)
