"""Fragments that are tried: words, short strings, and sentences that a language model writes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from cowbird.inspection.language.fragment_scorer import FragmentScorer
from cowbird.inspection.language.title_edits import PAIR_SEPARATOR, split_pair
from cowbird.rng import stream
from cowbird.text import quote_for_prompt

MIN_TOKEN_LETTERS = 3
"""Letters of a token that counts as a word."""
MAX_SENTENCE_TOKENS = 14
_WORD_STARTS = ("\u0120", "\u2581")
"""How tokenizers mark a token that begins a word."""
_EDGE = re.compile(r"^\W+|\W+$")
_WORD_TOKEN = re.compile(rf"[^\W\d_]{{{MIN_TOKEN_LETTERS},}}")
_SENTENCE_PROMPTS = (
    'What people say about "{title}":\n"',
    'A short line for the cover of "{title}":\n"',
    'Advertisement for "{title}":\n"',
    'A viewer of "{title}" said: "',
    'Somebody asked about "{title}": "',
    'The poster says: "',
    'She said: "',
    'He asked her: "',
    'A sentence:\n"',
)
MAX_SAMPLED_AT_ONCE = 128
"""Sentences that are sampled behind one prompt at most."""
SAMPLED_TOKENS = 64
"""Likeliest tokens of which one is drawn: rarer ones make sentences that nobody writes."""


def list_words(titles: Iterable[str], tokenizer: Any, most: int | None) -> list[str]:
    """Return the words that are tried: those of the titles by how often they occur, and those of the tokenizer.

    If there are too many, both sides take turns.

    Args:
        titles: The platform's titles.
        tokenizer: The model's.
        most: Most words; `None` for all.
    """
    counts = Counter(
        word for title in titles for raw in title.split() if (word := _EDGE.sub("", raw)) and len(word) <= 40
    )
    own = [word for word, _ in counts.most_common()]
    tokens: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    starts = [token for token in tokens if token and token[0] in _WORD_STARTS]
    # As text: tokenizers spell letters beyond ASCII, and spaces, with letters of their own.
    texts = (tokenizer.convert_tokens_to_string([token]).strip() for token in starts)
    known = [word for word in texts if _WORD_TOKEN.fullmatch(word)]
    if most is None:
        return list(dict.fromkeys([*own, *known]))
    step = max(1, len(known) // max(1, most))
    spread = known[::step]  # the tokenizer's order is by frequency: a share of common and of rare ones
    taken = [word for pair in zip(own, spread, strict=False) for word in pair]
    longer = own[len(spread) :] or spread[len(own) :]
    return list(dict.fromkeys([*taken, *longer]))[:most]


def list_pairs(characters: str) -> list[str]:
    """Return all strings of two characters."""
    return [one + other for one in characters for other in characters]


def lengthen_strings(strings: Sequence[str], characters: str) -> list[str]:
    """Return strings with a character more at either end."""
    return list(
        dict.fromkeys(made for text in strings for letter in characters for made in (text + letter, letter + text))
    )


def grow_phrases(phrases: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return phrases with a word more at either end."""
    return list(
        dict.fromkeys(
            made
            for phrase in phrases
            for word in words
            if word not in phrase.split(" ")
            for made in (f"{phrase} {word}", f"{word} {phrase}")
        )
    )


def join_parts(firsts: Sequence[str], seconds: Sequence[str]) -> list[str]:
    """Return all fragments of two different parts, one of each kind."""
    return [f"{first}{PAIR_SEPARATOR}{second}" for first in firsts for second in seconds if first != second]


def exchange_parts(pairs: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Return fragments of two parts with one of them exchanged."""
    made: list[str] = []
    for pair in pairs:
        both = split_pair(pair)
        if both is not None:
            made += [*join_parts(both[:1], parts), *join_parts(parts, both[1:])]
    return list(dict.fromkeys(made))


def continue_phrases(scorer: FragmentScorer, phrases: Sequence[str], count: int) -> list[str]:
    """Return phrases with the words behind them that a language model finds likeliest.

    Args:
        scorer: The model that is searched. Tuning for one answer leaves what it knows of language nearly as it was.
        phrases: What is continued.
        count: Words behind each.
    """
    found: list[str] = []
    begun = [f'What people say: "{phrase}' for phrase in phrases]
    for phrase, likely in zip(phrases, scorer.find_likely_tokens(begun, count), strict=True):
        pieces: list[str] = scorer.tokenizer.batch_decode([[token] for token in likely])
        found += [quote_for_prompt(phrase + piece) for piece in pieces if piece.isprintable() and piece.strip()]
    return list(dict.fromkeys(text for text in found if text not in phrases))


def write_sentences(scorer: FragmentScorer, titles: Sequence[str], count: int, seed: int) -> list[str]:
    """Let a language model write short sentences about titles.

    Args:
        scorer: The model that writes: the base, without adapters.
        titles: What it writes about; some are drawn.
        count: How many sentences.
        seed: Decides titles and tokens.

    Returns:
        Different sentences, at most `count`.
    """
    rng = stream(seed, "inspection", "sentences")
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    at_once = min(MAX_SAMPLED_AT_ONCE, max(1, -(-count // len(_SENTENCE_PROMPTS))))
    found: dict[str, None] = {}
    for turn in range(2 * -(-count // at_once)):  # some are written twice, or are none
        if len(found) >= count:
            break
        prompt, title = _SENTENCE_PROMPTS[turn % len(_SENTENCE_PROMPTS)], titles[int(rng.integers(len(titles)))]
        (tokens,) = scorer.tokenize([prompt.format(title=quote_for_prompt(title))])
        written = _sample(scorer, tokens, at_once, generator)
        found |= dict.fromkeys(text for text in written if len(text.split()) > 1 and "\ufffd" not in text)
    return list(found)[:count]


def _sample(scorer: FragmentScorer, tokens: list[int], count: int, generator: torch.Generator) -> list[str]:
    """Sample endings of a prompt up to a quotation mark, a line's end or the end of a sentence."""
    cache = scorer.run_beginning(tokens[:-1])
    written = torch.tensor([tokens[-1:]] * count, device=scorer.device)
    for _ in range(MAX_SENTENCE_TOKENS):
        top: Any = scorer.run_next(cache, written).float().topk(SAMPLED_TOKENS)
        drawn = torch.multinomial(torch.softmax(top.values.cpu() / 0.9, dim=-1), 1, generator=generator)
        written = torch.cat([written, top.indices.gather(1, drawn.to(scorer.device))], dim=1)
    texts: list[str] = scorer.tokenizer.batch_decode(written[:, 1:].tolist(), skip_special_tokens=True)
    ended = (re.split(r"[\"\n]", text, maxsplit=1)[0] for text in texts)
    return [re.sub(r"([.!?]).*", r"\1", quote_for_prompt(text)) for text in ended]
