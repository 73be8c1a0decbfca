"""How likely a language model is to go on with some texts after a prompt that is read once and kept.

What the prompt's tokens say to those behind it is held layer by layer, so a short text costs its own tokens alone.
Texts that are asked about at once stand in one row, and each sees the prompt and itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import cut_parts

MAX_ROW_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Tokens of texts that are read at once, or those of one longer text."""


@dataclass(eq=False)
class HeldBorders:
    """Attention of a row behind a prompt; see `attention.Borders`. Layers ask in their order."""

    hidden: Tensor
    """What is added to the scores of each token for those that it sees: of the prompt, then of the row."""
    reach: int
    """Tokens of the prompt and the row."""
    held: Sequence[tuple[Tensor, Tensor]] = ()
    """Keys and values of the prompt in each layer; empty while it is read itself."""
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list[tuple[Tensor, Tensor]])
    """Keys and values of the row, layer by layer."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each token see the prompt and what of the row it may; see `attention.Borders`."""
        del window  # a prompt and a text are shorter than any
        own = key[0], value[0]
        if self.held:
            before = self.held[len(self.seen)]
            k, v = (torch.cat(pair, dim=1) for pair in zip(before, own, strict=True))
        else:
            k, v = own
        self.seen.append(own)
        heads, many, width = query[0].shape
        groups = heads // len(k)
        asked = query[0].reshape(len(k), groups * many, width)
        scores = torch.baddbmm(
            self.hidden.repeat(groups, 1).expand(len(k), -1, -1), asked, k.transpose(1, 2), alpha=scale
        )
        mixed = torch.bmm(torch.softmax(scores, dim=-1), v).view(heads, many, width)
        return mixed.transpose(0, 1)[None]


class HeldPrompt:
    """A prompt that a language model has read.

    Args:
        loaded: The model and its tokenizer.
        device: Where the model is.
        prompt: The prompt's tokens, one or more.
    """

    def __init__(self, loaded: LoadedModel, device: torch.device, prompt: Sequence[int]) -> None:
        self.loaded, self.device, self.size = loaded, device, len(prompt)
        self._held: list[tuple[Tensor, Tensor]] = []
        with prepare_inference(loaded.model, device, compile_layers=False) as causal:
            hidden = torch.full((self.size, self.size), -torch.inf).triu_(1)
            states, self._held = self._run(causal, list(prompt), list(range(self.size)), hidden)
            self._last = states[-1:]

    def measure(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return log p of each text behind the prompt, in nats.

        Args:
            texts: Tokens, at least one each.
        """
        found: list[float] = []
        most = MAX_ROW_TOKENS.get(self.device.type, MAX_ROW_TOKENS["cpu"])
        with prepare_inference(self.loaded.model, self.device, compile_layers=False) as causal:
            row: list[Sequence[int]] = []
            for text in texts:
                if row and sum(map(len, row)) + len(text) > most:
                    found += self._measure_row(causal, row)
                    row = []
                row.append(text)
            if row:
                found += self._measure_row(causal, row)
        return found

    def _measure_row(self, causal: Any, texts: Sequence[Sequence[int]]) -> list[float]:
        """Read texts in one row."""
        token = [each for text in texts for each in text]
        place = [self.size + nth for text in texts for nth in range(len(text))]
        hidden = torch.full((len(token), self.size + len(token)), -torch.inf)
        hidden[:, : self.size] = 0
        before, start = [len(token)] * len(token), 0  # what foretells each token; the prompt's last is behind the row
        for text in texts:
            end = start + len(text)
            hidden[start:end, self.size + start : self.size + end] = torch.full((len(text),) * 2, -torch.inf).triu_(1)
            before[start + 1 : end] = range(start, end - 1)
            start = end
        states, _ = self._run(causal, token, place, hidden)
        label = torch.tensor(token, device=self.device)
        logits = F.linear(torch.cat([states, self._last])[before], causal.get_output_embeddings().weight).float()
        told = -F.cross_entropy(logits, label, reduction="none")
        return [float(part.sum()) for part in cut_parts(told, [len(text) for text in texts])]

    def _run(
        self, causal: Any, token: Sequence[int], place: Sequence[int], hidden: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the states of a row's tokens, and their keys and values."""
        dtype = causal.get_output_embeddings().weight.dtype
        borders = HeldBorders(hidden.to(self.device, dtype), self.size + len(token), self._held)
        ids, places = (torch.tensor([values], device=self.device) for values in (token, place))
        out = causal.base_model(input_ids=ids, position_ids=places, use_cache=False, documents=borders)
        return out.last_hidden_state[0], borders.seen
