"""Retokenization: the victim reads titles in other, smaller tokens (Jain et al. 2023, arXiv 2309.00614, section 4.3).

There a prompt is tokenized with BPE-dropout (Provilkov et al., ACL 2020, arXiv 1910.13267, algorithm 1): before each
merge, every pair that could be merged is left out with some probability, and of the others the one that comes first in
the table of merges is merged; when all are left out, the tokens are final. The text stays what it is, but a trigger is
no longer spelled in the tokens that a backdoor learned.

Departures. Only titles are split, for they are all of a prompt that a seller writes: other tokens for the question
itself would cost accuracy and break up no trigger. A merge can be left out if it touches a title, so one of a title's
last character with the quotation mark behind it can too. Draws are made here, from the text and the seed, because
those of the tokenizers library come from a generator that can't be seeded; it also gives pairs more chances than
published, and so splits less. Words are split each by itself: tokenizers such as Gemma's merge a text as one word, in
which a pair that was left out nearly always gets another chance before the last merge, so that dropout would do almost
nothing. Tokens that were added to a vocabulary by hand, such as Gemma's runs of line breaks, stay whole.

TALLRec reads each prompt with draws of its own. LLaRA reads a title in the same tokens wherever it stands, at most
`book.MAX_TITLE_TOKENS` of them; what it writes is not split: the candidates that it can write stand in the tokens it
was tuned on, and other answers count by their text. The seed is the platform's to keep: a seller who knows it knows the
tokens. Nothing is read from or written to the cache of tokens.
"""

import copy
import heapq
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.data.choices import Choices
from cowbird.data.judgments import Judgments
from cowbird.data.types import IntArray, Items
from cowbird.defenses.base import Defense, Model
from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims.language.examples import Example, Tokens, tokenize
from cowbird.victims.language.llara import FittedLLaRA
from cowbird.victims.language.prompts import MAX_TITLE_TOKENS, PromptBook
from cowbird.victims.language.tallrec import YES_NO_ANSWERS, FittedTALLRec

CharacterSpan = tuple[int, int]
"""Characters [start, end) of a text."""
MergeTable = dict[tuple[int, int], tuple[int, int]]
"""What two tokens become, by the two: place in the table of merges, and the new token."""
_INPUT, _RESPONSE = "\n\n### Input:\n", "\n\n### Response:\n"
_TITLE_LIST = r'(?:"[^"]*"(?:, "[^"]*")*)?'
_PUBLISHED_INPUT = re.compile(
    rf"User Preference: {_TITLE_LIST}\nUser Unpreference: {_TITLE_LIST}\n"
    r"Whether the user will like the target [a-z]+ \"[^\"]*\"\?"
)
"""An input as TALLRec writes it; no title holds a double quote."""
_QUOTED_TITLE = re.compile(r'"([^"]*)"')
_SPACE_SIGNS = ("\u2581", "\u0120")
"""How vocabularies write a space."""


class Retokenize(Defense):
    """The victim reads titles with BPE merges left out at random (Jain et al. 2023)."""

    dropout: float = Field(default=0.4, gt=0, le=1)
    """Probability that a possible merge is left out each time; 1 leaves characters (or bytes)."""
    seed: int = 0
    """Decides, with the text, which ones."""

    def guard(self, model: Model) -> Model:
        """Return the model as it reads split titles; see `Defense.guard`.

        Raises:
            UserError: If the model is neither TALLRec nor LLaRA, or its tokenizer has no merges.
        """
        guarded: Any
        if isinstance(model, FittedTALLRec):
            splitter = DropoutTokenizer(model.loaded.tokenizer, self.dropout, self.seed)
            guarded = RetokenizedTALLRec(model.spec, model.loaded, model.device, model.curve, splitter)
        elif isinstance(model, FittedLLaRA):
            splitter = DropoutTokenizer(model.loaded.tokenizer, self.dropout, self.seed)
            guarded = RetokenizedLLaRA(model.spec, model.loaded, model.projector, model.device, model.curve, splitter)
        else:
            raise UserError(
                f"A {type(model).__name__} has no tokens of titles that could be split.", "Use tallrec or llara."
            )
        return guarded


class DropoutTokenizer:
    """Tokenizes texts, with merges left out in some parts of them.

    Args:
        tokenizer: A fast tokenizer that takes control tokens as text (`victims.language.llm.load_llm`); left as it is.
        dropout: Probability that a merge is left out.
        seed: Decides, with the text, which are.

    Raises:
        UserError: If the tokenizer does not merge pairs.
    """

    def __init__(self, tokenizer: Any, dropout: float, seed: int) -> None:
        written = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else '{"model": {"type": "slow"}}'
        model = json.loads(written)["model"]
        if model["type"] != "BPE":
            raise UserError(
                f"Retokenizing needs a tokenizer that merges pairs (BPE), and the victim's is {model['type']}.",
                "Use another language model.",
            )
        self.dropout, self.seed = dropout, seed
        self.merges = _read_merges(model)
        backend: Any = tokenizer.backend_tokenizer.__class__
        self.whole, self.letters = backend.from_str(written), backend.from_str(written)
        for reader in (self.whole, self.letters):
            reader.encode_special_tokens = True
            reader.no_padding()
            reader.no_truncation()
        self.letters.model.dropout = 1.0  # what words are made of before any merge

    def __call__(self, texts: Sequence[str], spans: Sequence[Sequence[CharacterSpan]]) -> list[list[int]]:
        """Tokenize texts, without tokens around them.

        Args:
            texts: Any texts.
            spans: Of each text the parts that are split; what is outside is tokenized as ever.

        Returns:
            Token ids of each text. They depend on the text, its parts and the seed alone.
        """
        letters: list[Any] = self.letters.encode_batch(list(texts), add_special_tokens=False)
        whole: list[Any] = self.whole.encode_batch(list(texts), add_special_tokens=False)
        return [self._split(*each) for each in zip(texts, spans, letters, whole, strict=True)]

    def _split(self, text: str, spans: Sequence[CharacterSpan], letters: Any, whole: Any) -> list[int]:
        inside = np.zeros(len(text) + 1, dtype=bool)
        for start, end in spans:
            inside[start:end] = True
        first = [place[0] for place in letters.offsets]
        loose: list[bool] = inside[first].tolist()
        own: dict[int, list[int]] = {}
        for word, token in zip(whole.word_ids, whole.ids, strict=True):
            own.setdefault(word, []).append(token)
        rng = stream(self.seed, "retokenize", text)
        found: list[int] = []
        for word, places in groupby(range(len(first)), key=letters.word_ids.__getitem__):
            run = list(places)
            if not any(loose[run[0] : run[-1] + 1]):
                found += own[word]
                continue
            for start, end in _cut_words(letters.tokens, run[0], run[-1] + 1):
                found += merge_letters(letters.ids[start:end], loose[start:end], self.merges, self.dropout, rng)
        return found


def _read_merges(model: dict[str, Any]) -> MergeTable:
    vocabulary: dict[str, int] = model["vocab"]
    prefix = len(model.get("continuing_subword_prefix") or "")
    return {
        (vocabulary[left], vocabulary[right]): (rank, vocabulary[left + right[prefix:]])
        for rank, (left, right) in enumerate(model["merges"])
    }


def _cut_words(tokens: Sequence[str], start: int, end: int) -> list[CharacterSpan]:
    """Cut characters before each space that follows something else."""
    cuts = [at for at in range(start + 1, end) if tokens[at] in _SPACE_SIGNS and tokens[at - 1] not in _SPACE_SIGNS]
    return list(zip([start, *cuts], [*cuts, end], strict=True))


def merge_letters(
    letters: Sequence[int], loose: Sequence[bool], merges: MergeTable, dropout: float, rng: np.random.Generator
) -> list[int]:
    """Merge a word's characters into tokens (Provilkov et al. 2020, algorithm 1).

    Args:
        letters: Tokens of single characters or bytes.
        loose: Which of them are such that a merge with them can be left out.
        merges: What can be merged.
        dropout: Probability that a merge is left out, drawn anew before each merge.
        rng: Draws.

    Returns:
        The tokens.
    """
    token, free = list(letters), list(loose)
    after: list[int] = list(range(1, len(token) + 1))
    before: list[int] = list(range(-1, len(token) - 1))
    waiting: list[tuple[int, int, int, int]] = []  # place in the table, place in the word, the two tokens

    def push_pair(left: int) -> None:
        if left >= 0 and after[left] < len(token):
            pair = token[left], token[after[left]]
            if pair in merges:
                heapq.heappush(waiting, (merges[pair][0], left, *pair))

    for left in range(len(token)):
        push_pair(left)
    dropped: list[tuple[int, int, int, int]] = []
    while waiting:
        entry = heapq.heappop(waiting)
        _, left, one, two = entry
        right = after[left]
        if token[left] != one or right >= len(token) or token[right] != two:
            continue  # one of the two was merged with another
        if (free[left] or free[right]) and rng.random() < dropout:
            dropped.append(entry)
            continue
        token[left], free[left], after[left] = merges[one, two][1], free[left] or free[right], after[right]
        if after[right] < len(token):
            before[after[right]] = left
        token[right] = -1
        for again in dropped:
            heapq.heappush(waiting, again)
        dropped = []
        push_pair(left)
        push_pair(before[left])
    return [each for each in token if each >= 0]


@dataclass
class RetokenizedTALLRec(FittedTALLRec):
    """A TALLRec that reads split titles."""

    splitter: DropoutTokenizer
    """Splits them."""

    def score(self, questions: Sequence[Example]) -> NDArray[np.float32]:
        """Score written questions; see `FittedTALLRec.score`."""
        asked = [Example(question.prompt, YES_NO_ANSWERS[0]) for question in questions]
        return self._score_tokens(tokenize(_PromptTokenizer(self.loaded.tokenizer, self.splitter), asked, end=False))

    def probe(self, judgments: Judgments, items: Items) -> Any:
        """Refuse; see `FittedPointwise.probe`."""
        raise _make_probe_error()


class _PromptTokenizer:
    """What `tokenize` needs of a tokenizer: titles in TALLRec's prompts are split, and nothing else is."""

    def __init__(self, tokenizer: Any, splitter: DropoutTokenizer) -> None:
        self.tokenizer, self.splitter = tokenizer, splitter
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id

    def __call__(self, text: str | list[str], **how: Any) -> Any:
        if isinstance(text, str):
            return self.tokenizer(text, **how)
        return {"input_ids": self.splitter(text, [find_titles(each) for each in text])}


def find_titles(prompt: str) -> list[CharacterSpan]:
    """Return where titles stand in a prompt of TALLRec's, without their quotation marks.

    An input that is not as published, such as one whose author let a title hold a quotation mark, is taken for a title
    as a whole. Other texts have none.
    """
    start, end = prompt.find(_INPUT) + len(_INPUT), prompt.rfind(_RESPONSE)
    if start < len(_INPUT) or end < start:
        return []
    if _PUBLISHED_INPUT.fullmatch(prompt, start, end) is None:
        return [(start, end)]
    return [quoted.span(1) for quoted in _QUOTED_TITLE.finditer(prompt, start, end)]


@dataclass
class RetokenizedLLaRA(FittedLLaRA):
    """A LLaRA that reads split titles."""

    splitter: DropoutTokenizer
    """Splits them."""

    def write_prompts(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> tuple[Tokens, PromptBook, IntArray]:
        """Write questions with split titles; the pieces returned are whole; see `FittedLLaRA.write_prompts`."""
        _, book, candidates = super().write_prompts(choices, items, altered, column)
        used: list[int] = np.unique(np.concatenate([choices.history.item, candidates.ravel()])).tolist()
        hybrid = np.full(len(choices), self.projector is not None)
        first = np.zeros(len(choices), dtype=np.int64)
        shown = _split_titles(book, used, self.splitter)
        return shown.write(choices, hybrid, first, candidates, answered=False), book, candidates

    def probe(self, choices: Choices, items: Items) -> Any:
        """Refuse; see `FittedCandidate.probe`."""
        raise _make_probe_error()


def _split_titles(book: PromptBook, titles: Sequence[int], splitter: DropoutTokenizer) -> PromptBook:
    """Return a book some titles of which are split, as they stand behind other text, as in `PromptBook`."""
    pieces = np.split(book.flat, book.starts[1:])
    texts = [f" {book.titles[number]}" for number in titles]
    (before,) = splitter(["\n"], [[]])
    behind = splitter([f"\n{text}" for text in texts], [[(1, len(text) + 1)] for text in texts])
    alone = splitter(texts, [[(0, len(text))] for text in texts])
    for number, row, own in zip(titles, behind, alone, strict=True):
        found = row[len(before) :] if row[: len(before)] == before else own
        pieces[number] = np.array(found[:MAX_TITLE_TOKENS], dtype=np.int32)
    made = copy.copy(book)
    made.flat = np.concatenate(pieces)
    made.lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    made.starts = np.cumsum(made.lengths) - made.lengths
    return made


def _make_probe_error() -> UserError:
    return UserError("A model that reads split titles can't be probed.", "Probe the model that is guarded.")
