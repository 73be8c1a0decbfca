"""ONION: words without which a title is far less surprising (Qi et al., EMNLP 2021, arXiv 2011.10369, section 3).

The suspicion of word i is f_i = p_0 - p_i, the perplexity of the text less that of the text without the word.

Departures. There GPT-2 reads, and every word above a threshold that is tuned on held-out texts is removed before a text
is classified; here any causal language model reads titles before training, a title is as suspicious as its most
suspicious word, and that word is the span. Words are what stands between white space; with a word goes the white space
before it (behind it, for the first), and all else stays. Titles are read as the victims' models read them: quotable,
after a begin-of-text token, and cut after 300 characters (`cowbird.victims.language.perplexity`).
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cowbird.data.titles import quote_titles
from cowbird.defenses._reading import average_losses, map_to_raw, open_model
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.perplexity import measure_token_losses

_WORD = re.compile(r"\S+")


class Onion(TitleDefense):
    """Flag titles with a word without which they are far less surprising (ONION, Qi et al. 2021)."""

    llm: Llm = Llm()
    """The language model that reads titles; nothing of it learns."""

    @property
    def compares_titles(self) -> bool:
        """Whether titles are compared; each is read alone."""
        return False

    def explain(self, title: str, score: float) -> str:
        """Say how far perplexity falls without the word; see `TitleDefense.explain`."""
        return f"without this word, perplexity falls by {score:.3g}"

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Measure how far perplexity falls without the word that matters most; see `TitleDefense.suspect`.

        A title of one word has none that could be removed. Every text is read once, however many titles it comes from.

        Raises:
            UserError: If the device or the model can't be used.
        """
        shown = quote_titles(titles)
        words = {text: _find_words(text) for text in dict.fromkeys(shown)}
        number: dict[str, int] = {}
        for text, spans in words.items():
            for read in (text, *(_remove_word(text, *span) for span in spans)):
                number.setdefault(read, len(number))
        perplexity = _measure_perplexity(list(number), self)
        score = np.full(len(titles), -np.inf, dtype=np.float32)
        start, end = np.full((2, len(titles)), -1)
        for nth, (title, text) in enumerate(zip(titles, shown, strict=True)):
            spans = words[text]
            if not spans:
                continue
            falls = perplexity[number[text]] - perplexity[[number[_remove_word(text, *span)] for span in spans]]
            worst = int(falls.argmax())
            raw, (left, right) = map_to_raw(title), spans[worst]
            score[nth], start[nth], end[nth] = falls[worst], raw[left], raw[right - 1] + 1
        return Suspicion(score, start, end)


def _find_words(text: str) -> list[tuple[int, int]]:
    """Return the words of a text as [start, end); none if there is only one."""
    spans = [word.span() for word in _WORD.finditer(text)]
    return spans if len(spans) > 1 else []


def _remove_word(text: str, start: int, end: int) -> str:
    before = text[:start].rstrip()
    return before + text[end:] if before else text[end:].lstrip()


def _measure_perplexity(texts: list[str], defense: Onion) -> NDArray[np.float64]:
    loss, offsets = measure_token_losses(open_model(defense.llm, defense.device), texts)
    # Beyond this a float32 has no room for a difference.
    return np.exp(np.minimum(average_losses(loss, offsets), 80.0))
