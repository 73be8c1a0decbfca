"""Perplexity filter: titles that a language model finds surprising (Jain et al. 2023, arXiv 2309.00614, section 4.1).

There the logarithm of perplexity is the mean of -log p(token | tokens before it) over a text, or over each of its
windows of some tokens, and a text is flagged if that of the text, or of any window, is above a threshold.

Departures. Texts are titles, not prompts. The threshold is a share of the catalogue unless one is given, since there is
no set of titles known to be clean. Windows overlap: one begins at every token, so that none cuts a trigger in two. A
title is read after a begin-of-text token, so its first token counts, as the victims' models read it: quotable and cut
after 300 characters (`cowbird.victims.language.perplexity`).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from cowbird.data.titles import quote_titles
from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses._reading import average_losses, locate_tokens, map_to_raw, open_model
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.victims.base import Probe
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.perplexity import measure_token_losses


class Perplexity(TitleDefense):
    """Flag titles that a language model finds surprising, whole or in a window (Jain et al. 2023)."""

    llm: Llm = Llm()
    """The language model that reads titles; nothing of it learns."""
    window: int | None = Field(default=None, ge=1)
    """Tokens of a window: the most surprising one counts, and is the span; `None` takes titles whole, without spans."""

    @model_validator(mode="after")
    def _check_spans(self) -> "Perplexity":
        if self.action == "strip" and self.window is None:
            raise ValueError("only a window can be stripped: set window, such as 5, or use the action drop")
        return self

    @property
    def compares_titles(self) -> bool:
        """Whether titles are compared; each is read alone."""
        return False

    def explain(self, title: str, score: float) -> str:
        """Say how surprising the title is; see `TitleDefense.explain`."""
        return f"surprises the language model: {score:.2f} nats a token"

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Measure the mean loss in nats of each title, or of its most surprising window; see `TitleDefense.suspect`.

        A title that is shorter than a window is taken whole.

        Raises:
            UserError: If the device or the model can't be used.
        """
        shown = quote_titles(titles)
        number = {text: place for place, text in enumerate(dict.fromkeys(shown))}
        texts = list(number)
        row = np.array([number[text] for text in shown], dtype=np.int64)
        loaded = open_model(self.llm, self.device)
        loss, offsets = measure_token_losses(loaded, texts)
        start, end = np.full((2, len(titles)), -1)
        if self.window is None:
            return Suspicion(average_losses(loss, offsets)[row].astype(np.float32), start, end)
        worst, first, after = _find_worst_windows(loss, offsets, self.window)
        places = locate_tokens(loaded, texts)
        for nth, (title, text) in enumerate(zip(titles, shown, strict=True)):
            at = number[text]
            tokens = places[at][int(first[at]) : int(after[at])]
            if tokens:
                left, right = min(token[0] for token in tokens), max(token[1] for token in tokens)
                piece = text[left:right]
                left, right = left + len(piece) - len(piece.lstrip()), right - len(piece) + len(piece.rstrip())
                if left < right:
                    raw = map_to_raw(title)
                    start[nth], end[nth] = raw[left], raw[right - 1] + 1
        return Suspicion(worst[row], start, end)


def _find_worst_windows(
    loss: Float32Array, offsets: Int64Array, window: int
) -> tuple[Float32Array, Int64Array, Int64Array]:
    """Return each text's highest mean loss of a window, and that window's first token and the one after its last."""
    count = len(offsets) - 1
    worst = np.full(count, -np.inf, dtype=np.float32)
    first, after = np.zeros((2, count), dtype=np.int64)
    sums = np.concatenate([[0.0], np.cumsum(loss, dtype=np.float64)])
    for text, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        width = min(window, end - begin)
        if width:
            each = (sums[begin + width : end + 1] - sums[begin : end + 1 - width]) / width
            at = int(each.argmax())
            worst[text], first[text], after[text] = each[at], at, at + width
    return worst, first, after
