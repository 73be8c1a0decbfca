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

import heapq
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from pydantic import Field

from cowbird.defenses.base import Defense, Model
from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims.base import CharacterSpan

MergeTable = dict[tuple[int, int], tuple[int, int]]
"""What two tokens become, by the two: place in the table of merges, and the new token."""
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
            UserError: If the model reads no tokens of titles, or its tokenizer has no merges.
        """
        guarded: Any = model.with_split_titles(lambda tokenizer: DropoutTokenizer(tokenizer, self.dropout, self.seed))
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
