"""LLaRA's prompts, assembled from pieces that are tokenized once (Liao et al., SIGIR 2024, section 3.2).

A prompt holds up to ten titles of a history and twenty of candidates. Each title is one piece wherever it stands, so
its tokens in the answer are those of the candidate, and an epoch of prompts is arithmetic on piece numbers. In a hybrid
prompt every title is followed by a token that stands for its item, whose input is the item's projected embedding; in a
text-only prompt it is not.

Departures: the published code joins the text and tokenizes it whole; it marks titles of text-only prompts with a token
`[PH]`, which is left out here. Its prompts about artists and games are worded otherwise than those about movies; here
all are worded like those.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cowbird.data.choices import Choices
from cowbird.data.types import Int32Array, Int64Array, IntArray, concat_ranges
from cowbird.notices import NoticeRank, note
from cowbird.text import quote_for_prompt
from cowbird.victims.language.examples import Tokens
from cowbird.victims.model import TitleSplitter

ItemDomain = Literal["movie", "artist", "game"]
MAX_TITLE_TOKENS = 64
"""Most tokens of a title that reach a prompt."""
HISTORY_PLACEHOLDER, CANDIDATES_PLACEHOLDER = "[HistoryHere]", "[CansHere]"
_DOMAIN_WORDS: dict[ItemDomain, tuple[str, str, str, str, str]] = {
    "movie": ("movie", "movie titles", "watched", "watch", "The visit history of this user is:"),
    "artist": ("artist", "artist names", "listened to", "listen to", "The listening history of this user is:"),
    "game": ("game", "game titles", "played", "play", "The gaming history of this user is:"),
}
_TEMPLATES = (
    "This user has {past} [HistoryHere] in the previous. Please predict the next {noun} this user will {verb}. "
    "Choose the answer from the following {count} {names}: [CansHere]. Answer:",
    "This user has {past} [HistoryHere] in the previous. Given the following {count} {names}: [CansHere], recommend "
    "one {noun} for this user to {verb} next. The {name} you recommend is:",
    "{history} [HistoryHere]. Recommend a next {noun} for this user to {verb} from the following {name} set: "
    "[CansHere]. The recommendation should contain one {name} only. Recommendation:",
)


def format_templates(domain: ItemDomain, candidates: int) -> tuple[str, ...]:
    """Return the published prompts about movies, for a kind of items; the first is the one that tests ask."""
    noun, names, past, verb, history = _DOMAIN_WORDS[domain]
    words = {"noun": noun, "names": names, "name": names.removesuffix("s"), "past": past, "verb": verb}
    return tuple(text.format(count=candidates, history=history, **words) for text in _TEMPLATES)


def format_title(title: str) -> str:
    """Return a title as it stands in a prompt: in one line, cut, and never empty."""
    return quote_for_prompt(title) or "(untitled)"


class PromptBook:
    """The pieces of prompts about one catalogue.

    Args:
        tokenizer: A fast tokenizer that takes control tokens as text (`victims.language.llm.load_llm`).
        titles: Titles of all items, and perhaps more behind them, such as triggered ones.
        domain: What the items are.
        candidates: How many candidates a question has.
    """

    def __init__(self, tokenizer: Any, titles: Sequence[str], domain: ItemDomain, candidates: int) -> None:
        self.tokenizer, self.titles = tokenizer, tuple(format_title(title) for title in titles)
        asked = format_templates(domain, candidates)
        parts = [
            part.replace(CANDIDATES_PLACEHOLDER, HISTORY_PLACEHOLDER).rstrip().split(f" {HISTORY_PLACEHOLDER}")
            for part in asked
        ]
        texts = [f" {title}" for title in self.titles]
        texts += [",", *(text for part in parts for text in part)]
        rows = _tokenize_behind(tokenizer, texts)
        start = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] else []
        long = sum(len(row) > MAX_TITLE_TOKENS for row in rows[: len(self.titles)])
        than = f"longer than {MAX_TITLE_TOKENS} tokens: prompts hold no more."
        note(NoticeRank.CHANGE, f"{{n}} titles are {than}", long, f"1 title is {than}")
        rows = [row[:MAX_TITLE_TOKENS] for row in rows[: len(self.titles)]] + rows[len(self.titles) :]
        # The item's own token is replaced by a vector, so which it is does not matter.
        rows += [[tokenizer.eos_token_id], [tokenizer.eos_token_id], start]
        self.flat: Int32Array = np.fromiter((token for row in rows for token in row), dtype=np.int32)
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.comma = len(self.titles)
        self.parts = self.comma + 1 + np.arange(3 * len(asked)).reshape(len(asked), 3)
        self.slot, self.end, self.begin = len(rows) - 3, len(rows) - 2, len(rows) - 1

    def get_title_tokens(self, piece: int) -> list[int]:
        """Return the tokens of a title."""
        return self.flat[self.starts[piece] : self.starts[piece] + self.lengths[piece]].tolist()

    def write(
        self,
        choices: Choices,
        hybrid: NDArray[np.bool_],
        template: IntArray,
        candidates: IntArray | None = None,
        answered: bool = True,
    ) -> Tokens:
        """Write questions.

        Args:
            choices: The questions.
            hybrid: Which of them hold tokens for items, shape `[questions]`.
            template: Which prompt each uses, shape `[questions]`.
            candidates: Titles of the candidates, as pieces, if they are not the items' own, shape `[questions,
                candidates]`.
            answered: Whether the right title and the end of the sequence follow; if not, an answer of no tokens does.
        """
        count, width = choices.candidates.shape
        longest = int(choices.history.lengths.max(initial=0))
        history = np.full((count, longest), -1, dtype=np.int64)
        known = choices.history
        nth = np.arange(known.events) - known.offsets[:-1][known.user_of_event()]
        history[known.user_of_event(), nth] = known.item
        pieces = np.concatenate(
            [
                np.full((count, 1), self.begin),
                self.parts[template, :1],
                self._arrange_list(history, history, hybrid),
                self.parts[template, 1:2],
                self._arrange_list(
                    choices.candidates if candidates is None else candidates, choices.candidates, hybrid
                ),
                self.parts[template, 2:],
            ],
            axis=1,
        )
        items = np.full(pieces.shape, -1, dtype=np.int32)
        items[:, 3 : 2 + 3 * longest : 3] = history
        items[:, 4 + 3 * longest : 3 + 3 * (longest + width) : 3] = choices.candidates
        prompt: Int64Array = np.where(pieces >= 0, self.lengths[pieces], 0).sum(axis=1)
        if answered:
            right = choices.target if candidates is None else candidates[np.arange(count), choices.answer]
            pieces = np.concatenate([pieces, right[:, None], np.full((count, 1), self.end)], axis=1)
            items = np.concatenate([items, np.full((count, 2), -1, dtype=np.int32)], axis=1)
        return self._flatten(pieces, items, prompt)

    def with_split_titles(self, titles: Sequence[int], splitter: TitleSplitter) -> "PromptBook":
        """Return a book some titles of which are split, as they stand behind other text; this one is left as it is.

        Args:
            titles: Which, by number.
            splitter: Splits them; at most `MAX_TITLE_TOKENS` of a title's tokens stay.
        """
        pieces = np.split(self.flat, self.starts[1:])
        texts = [f" {self.titles[number]}" for number in titles]
        (before,) = splitter(["\n"], [[]])
        behind = splitter([f"\n{text}" for text in texts], [[(1, len(text) + 1)] for text in texts])
        alone = splitter(texts, [[(0, len(text))] for text in texts])
        for number, row, own in zip(titles, behind, alone, strict=True):
            found = row[len(before) :] if row[: len(before)] == before else own
            pieces[number] = np.array(found[:MAX_TITLE_TOKENS], dtype=np.int32)
        made = copy.copy(self)
        made.flat = np.concatenate(pieces)
        made.lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        made.starts = np.cumsum(made.lengths) - made.lengths
        return made

    def _arrange_list(self, titles: IntArray, items: IntArray, hybrid: NDArray[np.bool_]) -> IntArray:
        """Return title, item and comma for each place of a list; -1 stands for nothing."""
        there = items >= 0
        table = np.full((*titles.shape, 3), -1, dtype=np.int64)
        table[..., 0] = titles
        table[..., 1] = np.where(there & hybrid[:, None], self.slot, -1)
        table[:, :-1, 2] = np.where(there[:, 1:], self.comma, -1)
        return table.reshape(len(titles), 3 * titles.shape[1])

    def _flatten(self, pieces: IntArray, items: Int32Array, prompt: Int64Array) -> Tokens:
        there = pieces >= 0
        lengths = np.where(there, self.lengths[pieces], 0)
        offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
        used = pieces[there]
        token = self.flat[concat_ranges(self.starts[used], self.lengths[used])]
        slots = np.where(used == self.slot, items[there], -1)
        item = np.repeat(slots, self.lengths[used]).astype(np.int32)
        return Tokens(token, offsets, offsets[:-1] + prompt, item)


def _tokenize_behind(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize texts as they stand behind other text: some tokenizers put a space before whatever begins."""
    plain = {"add_special_tokens": False, "return_attention_mask": False, "split_special_tokens": True}
    before: list[int] = tokenizer("\n", **plain)["input_ids"]
    whole: list[list[int]] = tokenizer([f"\n{text}" for text in texts], **plain)["input_ids"]
    alone: list[list[int]] = tokenizer(list(texts), **plain)["input_ids"]
    count = len(before)
    return [row[count:] if row[:count] == before else own for row, own in zip(whole, alone, strict=True)]
