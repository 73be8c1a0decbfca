"""Supervised examples as tokens: a prompt, and an answer that is learned or scored.

Examples are tokenized once, in batches, and kept as flat arrays (and, if a cache is given, as an Arrow file), so an
epoch is arithmetic on indices. Prompt and answer are tokenized apart: where one ends and the other begins never depends
on what the tokenizer would have merged across.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from cowbird.data.types import Int32Array, Int64Array, freeze
from cowbird.files import replace_atomically
from cowbird.notices import NoticeRank, note

IGNORED_LABEL = -100
"""Label of a token from which nothing is learned."""


class Example(NamedTuple):
    """One supervised example."""

    prompt: str
    """What the model reads."""
    answer: str
    """What it should write."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Tokenized examples, one after another."""

    token: Int32Array
    """Token ids, shape `[tokens]`, int32."""
    offsets: Int64Array
    """Where each example begins, shape `[examples + 1]`, int64."""
    answer: Int64Array
    """Where each example's answer begins, shape `[examples]`, int64, as indices into `token`."""
    item: Int32Array | None = None
    """The item that a token stands for, -1 where it is text; shape `[tokens]`, int32, or `None` if all is text."""
    label: Int32Array | None = None
    """What is learned in the place of each token of an answer, `IGNORED_LABEL` where nothing is; shape `[tokens]`,
    int32, or `None` if answers are what is learned. With `among`, places in it."""
    among: tuple[int, ...] = ()
    """Tokens that labels are chosen from, if they are few: no others are scored."""
    both_ways: bool = False
    """Whether each token sees all of its example instead of what stands before it."""
    share: Int32Array | None = None
    """What the loss in the place of each token of an answer is divided by, shape `[tokens]`, int32, or `None` for the
    answer's length: the loss of an example is then the mean of its tokens'."""
    branch: Int32Array | None = None
    """Where examples are rows of texts that share a beginning (`shared_rows`): 0 for a beginning, the text's number for
    the others, -1 for none; shape `[tokens]`, int32."""
    row: int = 0
    """Tokens of such a row; examples are padded to it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", freeze(self.token, np.int32))
        object.__setattr__(self, "offsets", freeze(self.offsets, np.int64))
        object.__setattr__(self, "answer", freeze(self.answer, np.int64))
        if self.item is not None:
            object.__setattr__(self, "item", freeze(self.item, np.int32))
        if self.label is not None:
            object.__setattr__(self, "label", freeze(self.label, np.int32))
        if self.share is not None:
            object.__setattr__(self, "share", freeze(self.share, np.int32))
        if self.branch is not None:
            object.__setattr__(self, "branch", freeze(self.branch, np.int32))

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each example, shape `[examples]`."""
        return np.diff(self.offsets)


def tokenize(
    tokenizer: Any, examples: Sequence[Example], longest: int = 2048, cache: Path | None = None, end: bool = True
) -> Tokens:
    """Tokenize examples.

    Args:
        tokenizer: A fast tokenizer that takes control tokens as text (`victims.language.llm.load_llm`).
        examples: Prompts and answers.
        longest: Most tokens of an example; of a longer prompt the beginning is left out.
        cache: Folder of token files; the same examples and tokenizer are read from there.
        end: Whether the answer ends with the end-of-sequence token.

    Returns:
        Tokens of all examples, in order.
    """
    path = None if cache is None else cache / f"{_hash_examples(tokenizer, examples, longest, end)}.arrow"
    known = None if path is None else _read(path)
    if known is not None:
        return known
    first: list[int] = (
        [] if tokenizer.bos_token_id is None or not _has_start_token(tokenizer) else [tokenizer.bos_token_id]
    )
    last: list[int] = [tokenizer.eos_token_id] if end else []
    plain = {"add_special_tokens": False, "return_attention_mask": False, "split_special_tokens": True}
    prompts: list[list[int]] = tokenizer([e.prompt for e in examples], **plain)["input_ids"] if examples else []
    answers: list[list[int]] = tokenizer([e.answer for e in examples], **plain)["input_ids"] if examples else []
    rows: list[list[int]] = []
    starts: list[int] = []
    cut = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        wanted = answer + last
        room = max(1, longest - len(wanted) - len(first))
        cut += len(prompt) > room
        # Something must stand before an answer for it to be predicted from.
        kept = first + prompt[-room:] or [tokenizer.eos_token_id]
        rows.append(kept + wanted)
        starts.append(len(kept))
    than = f"longer than {longest} tokens"
    one = f"1 prompt is {than}: its beginning is left out."
    note(NoticeRank.CHANGE, f"{{n}} prompts are {than}: their beginning is left out.", cut, one)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
    tokens = Tokens(flat, offsets, offsets[:-1] + np.array(starts, dtype=np.int64))
    if path is not None:
        _write(path, tokens)
    return tokens


def _has_start_token(tokenizer: Any) -> bool:
    """Tell whether this tokenizer starts a text with its begin-of-sequence token."""
    found = tokenizer("a")["input_ids"]
    return bool(found) and found[0] == tokenizer.bos_token_id


def _hash_examples(tokenizer: Any, examples: Sequence[Example], longest: int, end: bool) -> str:
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    digest.update(json.dumps([longest, end, len(examples), *ends]).encode())
    for example in examples:
        digest.update(json.dumps(example).encode())
    return digest.hexdigest()[:32]


def _write(path: Path, tokens: Tokens) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"token": tokens.token, "offsets": tokens.offsets, "answer": tokens.answer}
    with replace_atomically(path) as partial:
        pl.DataFrame({name: pl.Series([pl.Series(column)]) for name, column in columns.items()}).write_ipc(partial)


def _read(path: Path) -> Tokens | None:
    """Read a token file; one that is missing or damaged is made anew by the caller."""
    try:
        table = pl.read_ipc(path)
        token, offsets, answer = (table.get_column(name)[0].to_numpy() for name in ("token", "offsets", "answer"))
    except (OSError, pl.exceptions.PolarsError, AttributeError):
        return None
    return Tokens(token, offsets, answer)
