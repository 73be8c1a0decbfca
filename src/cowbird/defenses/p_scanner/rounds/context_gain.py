"""Context gain: what people wrote is needed by what follows it; what was planted is not.

An attacker who knows the scanner takes words that its reader finds ordinary, and nothing in a title tells *Piano* from
*Love*. But *Love* was written by whoever wrote the rest, and *Piano* was put into titles that were whole before. So a
causal language model, shown some of the catalogue's titles a line each, reads titles with a recurring phrase and
without it: how much more likely it finds what follows (the next tokens, or the end of the line) is what the phrase
gains. What recurs in honest titles gains several nats; triggers gain nothing, wherever they stand. Of 450 phrases that
were put together from words of three catalogues' titles and planted, none gained more than 1.5 nats; of 127 words that
clean titles of these catalogues share, the lowest but for numerals gained 1.7, and of 20 runs of several words 4.2
(`benchmarks/scan_phrases.py`).

Two kinds of phrases are looked at: words that recur, whatever the reader makes of them, and runs of tokens that it
finds suspicious, such as *00* or the first letter of a word, most of which are cleared. It takes several titles to
tell; a mean over nine places is enough, and over two dozen where that leaves it open. Numerals are never raised, for a
sequel's number is as unforeseen as a planted one. What a catalogue does by habit is not looked at (`common_patterns`).
ONION (Qi et al. 2021) leaves out words, too, but judges one title by its perplexity.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.rounds.common_patterns import COMMON_SHARE
from cowbird.defenses.p_scanner.rounds.common_patterns import MIN_COMMON_TITLES as FEW
from cowbird.defenses.p_scanner.rounds.ngrams import Ngrams, TokenSequences, find_ngrams
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles
from cowbird.rng import stream
from cowbird.text import CONTROL_CHARACTERS, replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.likelihood import compute_log_likelihood
from cowbird.victims.language.llm import LoadedModel

MIN_TITLES_PER_PHRASE, MIN_PHRASE_SHARE = 8, 0.004
"""Titles that a phrase stands in at least, and their share of all."""
MIN_SUSPECT_ODDS, MIN_TITLES_PER_SUSPECT = 1.0, 4
"""Log-odds from which a run of tokens is looked at, and least titles it stands in (or half `MIN_PHRASE_SHARE`)."""
MIN_SHARE_KEPT = 0.8
"""Share of a run's places that it may grow by words or tokens around it in."""
MAX_PHRASE_LENGTH = 16
"""Words or tokens of a phrase at most."""
EXAMPLES_SHOWN, MAX_EXAMPLE_LENGTH = 12, 80
"""Titles that the model is shown first, and the most characters of one."""
FIRST_PLACES, MORE_PLACES, MAX_PLACES_PER_PHRASE = 3, 9, 24
"""Places of a phrase that are looked at first, then, and all in all, as long as what it gains is not clear."""
CLEAR_GAIN = 6.0
"""Nats from which a phrase is clear after the first places."""
UNSURE_GAINS = (0.0, 4.0)
"""Nats between which a phrase is not clear after more of them."""
MIN_NEIGHBORHOODS = 4
"""Different neighborhoods that a phrase must have to be judged."""
MAX_HEAD_TOKENS, TOKENS_BEFORE, TOKENS_WITHIN, TOKENS_BEHIND = 512, 24, 24, 6
"""Tokens that are read of the titles shown, before a phrase and of it, and that follow it, at most."""
ODDS_WITHOUT_GAIN, ODDS_PER_NAT = 6.0, 3.0
"""Log-odds that a phrase without any gain adds, and what each nat takes away."""
ODDS_OF_SEVERAL_WORDS = 2.0
"""Log-odds that several words add beyond that: honest titles need such phrases more than they need single words."""
MIN_ADDED_ODDS, MAX_ADDED_ODDS = -3.0, 6.0
"""Log-odds that are added, at least and at most."""
MAX_SHARE_GROWTH = 1.5
"""What a phrase gained is not asked again until it stands in so many times the share of titles that it stood in."""
MAX_PHRASES_MEASURED = 512
"""Phrases that are measured at once, at most: those that stand in the most titles."""

Phrase = str
_WORD = re.compile(r"\S+")
_WORDS = re.compile(r" \S+(?: \S+)+ ")
_ROMAN = re.compile(r"\W*(?=[IVX])X?(?:IX|IV|V?I{0,3})\W*")
_NONE = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))


class PhraseGain(BaseModel):
    """What is known of a phrase."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    phrase: str
    """As it stands in a title; words between spaces, for the same letters may be a part of a word elsewhere."""
    gain: float = Field(ge=-1e6, le=1e6)
    """How much better what follows it is foretold with it than without, in nats."""
    share: float = Field(ge=0, le=1)
    """Share of the titles that it stands in."""


class Place(NamedTuple):
    """Where a phrase stands."""

    row: int
    """The title."""
    start: int
    """First character."""
    end: int
    """The character after the last one."""


def find_phrases(titles: Sequence[str]) -> dict[Phrase, list[Place]]:
    """Find words that recur together, as far as they do, and all of their places.

    Args:
        titles: Any texts, best all different.
    """
    texts = [replace_surrogates(title) for title in titles]
    words = [[(found.group(), found.start(), found.end()) for found in _WORD.finditer(text)] for text in texts]
    flat = [word for row in words for word in row]
    number = {word: nth for nth, word in enumerate(dict.fromkeys(word for word, _, _ in flat))}
    token = np.array([number[word] for word, _, _ in flat], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in words], dtype=np.int64)])
    first, after = (np.array([word[side] for word in flat], dtype=np.int32) for side in (1, 2))
    found = find_ngrams(TokenSequences(token, offsets))
    many = len(titles)
    likely = (found.titles >= max(MIN_TITLES_PER_PHRASE, MIN_PHRASE_SHARE * many)) & (
        found.titles <= max(COMMON_SHARE * many, FEW)
    )
    made = _grow_phrases(found, likely, TokenizedTitles(_NONE, token, first, after, offsets))
    return {f" {' '.join(texts[at[0].row][at[0].start : at[0].end].split())} ": at for at in made}


def find_suspects(
    titles: Sequence[str], made: TokenizedTitles, found: Ngrams, odds: NDArray[Any]
) -> dict[Phrase, list[Place]]:
    """Find runs of tokens that are suspicious and recur, as far as they do, and all of their places.

    Args:
        titles: The catalogue's.
        made: The same as they were read.
        found: Their fragments.
        odds: The log-odds of each fragment, shape `[fragments]`.
    """
    likely = (odds > MIN_SUSPECT_ODDS) & (
        found.titles >= max(MIN_TITLES_PER_SUSPECT, MIN_PHRASE_SHARE / 2 * len(titles))
    )
    places = _grow_phrases(found, likely, made)
    return {replace_surrogates(titles[at[0].row][at[0].start : at[0].end]): at for at in places}


def _grow_phrases(found: Ngrams, likely: NDArray[np.bool_], made: TokenizedTitles) -> list[list[Place]]:
    """Return the places of some fragments, each grown by what nearly always stands before and behind it, once."""
    order = np.argsort(found.number, kind="stable")
    ends = np.searchsorted(found.number[order], np.arange(len(likely) + 1))
    rows = np.repeat(np.arange(len(made)), np.diff(made.offsets))
    known: dict[tuple[int, ...], list[Place]] = {}
    for nth in np.flatnonzero(likely).tolist():
        start, length = found.start[order[ends[nth] : ends[nth + 1]]], int(found.pieces[nth])
        least, growing = MIN_SHARE_KEPT * len(start), True
        while growing and length < MAX_PHRASE_LENGTH:
            start, length, growing = _grow_once(made.token, rows, start, length, least)
        key = tuple(made.token[start[0] : start[0] + length].tolist())
        if key not in known:
            end = start + length - 1
            table: list[list[int]] = np.stack([rows[start], made.first[start], made.after[end]], axis=1).tolist()
            known[key] = [Place(*row) for row in table]
    return [at for at in known.values() if at[0].start < at[0].end]


def _grow_once(
    token: Int32Array, rows: NDArray[Any], start: NDArray[Any], length: int, least: float
) -> tuple[NDArray[Any], int, bool]:
    """Take the token behind or before a phrase into it if that is the same in enough places, and tell whether it is."""
    for step in (length, -1):
        there = (start + step >= 0) & (start + step < len(token))
        at = np.where(there, start + step, 0)
        there &= rows[at] == rows[start]
        kinds, counts = np.unique(token[at[there]], return_counts=True)
        if len(kinds) and counts.max() >= least:
            return start[there & (token[at] == kinds[counts.argmax()])] - (step < 0), length + 1, True
    return start, length, False


def _is_numeral(phrase: Phrase) -> bool:
    """Tell whether a phrase is a number in digits, or one of the Roman numbers from I to XIX."""
    digits = any(map(str.isdigit, phrase)) and not any(map(str.isalpha, phrase))
    return digits or _ROMAN.fullmatch(phrase) is not None


def _score_gain(phrase: Phrase, gain: float) -> float:
    """Return the log-odds that a phrase adds."""
    odds = ODDS_WITHOUT_GAIN - ODDS_PER_NAT * gain + (ODDS_OF_SEVERAL_WORDS if _WORDS.fullmatch(phrase) else 0.0)
    return max(MIN_ADDED_ODDS, min(0.0 if _is_numeral(phrase) else MAX_ADDED_ODDS, odds))


class ContextGain:
    """Says what phrases add to the log-odds of what stands in titles.

    Args:
        known: What is known of phrases already: of a share of titles that is not much larger now, it still holds.
        load: Gives a causal language model that was tuned on none of this; not called if nothing has to be measured.
        device: Where it is.
        suspecting: Whether what the reader finds suspicious is looked at too, beside words that recur.
        report: Told of questions to the language model done and all of them.
    """

    def __init__(
        self,
        known: Iterable[PhraseGain],
        load: Callable[[], LoadedModel],
        device: torch.device,
        suspecting: bool = True,
        report: ProgressCallback = report_nothing,
    ) -> None:
        self.known = {gain.phrase: gain for gain in known}
        self.load, self.device, self.suspecting, self.report = load, device, suspecting, report

    def add_odds(
        self, titles: Sequence[str], made: TokenizedTitles, found: Ngrams, odds: NDArray[Any]
    ) -> tuple[Float32Array, tuple[PhraseGain, ...]]:
        """Return what phrases add to the log-odds of tokens.

        Args:
            titles: The catalogue's, all different.
            made: The same as the reader read them.
            found: Their fragments.
            odds: The log-odds of each fragment, shape `[fragments]`; habits are below `MIN_SUSPECT_ODDS`.

        Returns:
            Log-odds to be added, shape `[marks]`, NaN where no phrase stands; and what all phrases gain.
        """
        every = (find_suspects(titles, made, found, odds) if self.suspecting else {}) | find_phrases(titles)
        many = len(titles)
        old = {
            phrase: gain.gain
            for phrase, at in every.items()
            if (gain := self.known.get(phrase)) and len(at) <= MAX_SHARE_GROWTH * gain.share * many
        }
        unknown = {phrase: at for phrase, at in every.items() if phrase not in old}
        new = measure_gains(self.load, titles, unknown, self.device, self.report)
        told = {
            phrase: old[phrase] if phrase in old else new[phrase] for phrase in every if phrase in old or phrase in new
        }
        gained = (
            PhraseGain(phrase=phrase, gain=gain, share=len(every[phrase]) / many) for phrase, gain in told.items()
        )
        return spread_odds(made, ((phrase, every[phrase], gain) for phrase, gain in told.items())), tuple(gained)


def measure_gains(
    load: Callable[[], LoadedModel],
    titles: Sequence[str],
    wanted: Mapping[Phrase, Sequence[Place]],
    device: torch.device,
    report: ProgressCallback = report_nothing,
) -> dict[Phrase, float]:
    """Measure how much better a language model foretells what follows phrases, in nats.

    Args:
        load: Gives the model and its tokenizer; not called if no phrase can be judged.
        titles: The catalogue's.
        wanted: Phrases and all their places; those with too few different neighborhoods are left out, and those beyond
            `MAX_PHRASES_MEASURED`.
        device: Where the model is.
        report: Told of questions to the model done and all of them.

    Returns:
        The mean gain of each phrase that can be judged.
    """
    most = sorted(wanted, key=lambda phrase: len(wanted[phrase]), reverse=True)[:MAX_PHRASES_MEASURED]
    looked = {phrase: chosen for phrase in most if (chosen := _choose_places(titles, phrase, wanted[phrase]))}
    if not looked:
        return {}
    loaded, shown = load(), _write_examples(titles)
    held: dict[Phrase, list[float]] = {phrase: [] for phrase in looked}
    for upto, low, high in (
        (FIRST_PLACES, -np.inf, np.inf),
        (MORE_PLACES, -np.inf, CLEAR_GAIN),
        (MAX_PLACES_PER_PHRASE, *UNSURE_GAINS),
    ):
        unclear = (phrase for phrase in looked if not held[phrase] or low <= np.mean(held[phrase]) < high)
        places = {phrase: looked[phrase][len(held[phrase]) : upto] for phrase in unclear}
        for phrase, gained in _measure_places(loaded, titles, places, shown, device, report).items():
            held[phrase] += gained
    return {phrase: round(float(np.mean(gained)), 4) for phrase, gained in held.items()}


def _choose_places(titles: Sequence[str], phrase: Phrase, places: Sequence[Place]) -> list[Place]:
    """Draw some places of a phrase that differ in what stands around them; none if there are too few."""
    order: list[int] = stream(0, "company", phrase).permutation(len(places)).tolist()
    different: dict[tuple[str, str], Place] = {}
    for at in (places[nth] for nth in order):
        before, behind = titles[at.row][: at.start].split(), titles[at.row][at.end :].split()
        different.setdefault((" ".join(before[-2:]), " ".join(behind[:2])), at)
    return list(different.values())[:MAX_PLACES_PER_PHRASE] if len(different) >= MIN_NEIGHBORHOODS else []


def _write_examples(titles: Sequence[str]) -> str:
    """Return some titles, a line each."""
    order: list[int] = stream(0, "company").permutation(len(titles)).tolist()
    short = (
        text for nth in order if (text := _blank_controls(titles[nth]).strip()) and len(text) <= MAX_EXAMPLE_LENGTH
    )
    return "".join(f"{text}\n" for text, _ in zip(short, range(EXAMPLES_SHOWN), strict=False))


def _blank_controls(text: str) -> str:
    """Return a text without line breaks, control characters and halves of characters."""
    return CONTROL_CHARACTERS.sub(" ", replace_surrogates(text))


def _measure_places(
    loaded: LoadedModel,
    titles: Sequence[str],
    places: Mapping[Phrase, Sequence[Place]],
    shown: str,
    device: torch.device,
    report: ProgressCallback = report_nothing,
) -> dict[Phrase, list[float]]:
    """Return the gain of each phrase at some places."""
    every = [(phrase, at) for phrase, several in places.items() for at in several]
    parts: list[str] = []
    for _, (row, start, end) in every:
        title = titles[row]
        left, right = title[:start].rstrip(), title[end:].rstrip()
        alone = right if left.strip() else right.lstrip()
        parts += [left, title[len(left) : end], right, alone]
    pieces = _tokenize(loaded.tokenizer, [_blank_controls(part) for part in parts])
    head, *stop = _tokenize(loaded.tokenizer, [shown, "\n"])
    head, stop = head[-MAX_HEAD_TOKENS:] or [loaded.tokenizer.eos_token_id], stop[0] or [loaded.tokenizer.eos_token_id]
    prompts: list[list[int]] = []
    answers: list[list[int]] = []
    for nth in range(0, len(pieces), 4):
        left, phrase, right, alone = pieces[nth : nth + 4]
        before = head + left[-TOKENS_BEFORE:]
        prompts += [before + phrase[-TOKENS_WITHIN:], before]
        answers += [(right + stop)[:TOKENS_BEHIND], (alone + stop)[:TOKENS_BEHIND]]
    told = compute_log_likelihood(loaded, _join_questions(prompts, answers), device, report=report)
    found: dict[Phrase, list[float]] = {phrase: [] for phrase in places}
    for (phrase, _), gain in zip(every, (told[::2] - told[1::2]).tolist(), strict=True):
        found[phrase].append(gain)
    return found


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    plain = {"add_special_tokens": False, "return_attention_mask": False, "split_special_tokens": True}
    return tokenizer(list(texts), **plain)["input_ids"] if texts else []


def _join_questions(prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Tokens:
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    return Tokens(flat, offsets, offsets[:-1] + np.array([len(prompt) for prompt in prompts], dtype=np.int64))


def spread_odds(made: TokenizedTitles, found: Iterable[tuple[Phrase, Sequence[Place], float]]) -> Float32Array:
    """Return what phrases add to the log-odds of their tokens, shape `[marks]`; NaN where no phrase stands.

    Args:
        made: The titles as they were read.
        found: Phrases, their places and gains. Where two stand, the one that gains less counts.
    """
    odds = np.full(len(made.token), np.nan, dtype=np.float32)
    for phrase, places, gain in found:
        more = _score_gain(phrase, gain)
        for row, start, end in places:
            tokens = slice(int(made.offsets[row]), int(made.offsets[row + 1]))
            inside = (made.after[tokens] > start) & (made.first[tokens] < end)
            odds[tokens] = np.where(inside, np.fmax(odds[tokens], more), odds[tokens])
    return odds
