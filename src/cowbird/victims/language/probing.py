"""Language-model victims asked about any texts as titles: what defenses that look into a trained model need.

Few questions are asked about very many texts, and all prompts of a question begin alike, up to the title. So each
beginning is run once for a row of texts (`branched_passes`).

TALLRec is asked for the margin between the logits of `Yes` and `No`. LLaRA writes a title, so it is asked how likely it
is to write the text's: log p - log(1 - p), where p is the probability of all its tokens and the end. That is above 0
exactly if the model would rather write this title than anything else, and needs no other candidate to be scored: a
title that gains leaves less for the others. It is a stricter bar than having the highest probability of all candidates.

A text can be asked about with a word before it whose input is any vector, through which gradients flow (`favor_behind`;
RAP needs it). The model's own weights are never touched.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cowbird.data.types import Float32Array, Int32Array
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.branched_passes import AnswerStates, UnfusedBorders, run_passes, sum_log_probs
from cowbird.victims.language.candidate_decoding import BranchBorders
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Example, Tokens, tokenize
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import ItemEmbedder
from cowbird.victims.language.prompts import ItemDomain, PromptBook
from cowbird.victims.repeatable import force_determinism

PROBE_BATCH_TEXTS = 256
"""Texts whose prompts are written at once."""
LOG_PROBABILITY_MARGIN = 1e-6
"""Probabilities are told from 0 and 1 up to here; log p - log(1 - p) stays within 14 above."""


class LanguageProbe(Probe):
    """A tuned language model with some questions.

    Args:
        loaded: The language model with its adapters, and the tokenizer.
        device: Where the model is.
        capacity: Most tokens in a row.
        inputs: Makes the inputs of tokens that stand for items.
        items: How many items it knows.
    """

    questions: int
    """How many questions there are."""

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device,
        capacity: int,
        inputs: ItemEmbedder | None = None,
        items: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.device, self.capacity = loaded.model, loaded.tokenizer, device, capacity
        self.inputs, self.items = inputs, items

    @abstractmethod
    def write(self, titles: Sequence[str], marked: bool) -> Tokens:
        """Write the prompts of some texts with answers of a token or more: all of the first question, then the next.

        Args:
            titles: The texts.
            marked: Whether a token that stands for the item `items` is put right before each text.
        """

    @abstractmethod
    def weigh(self, causal: Any, told: AnswerStates) -> Tensor:
        """Return how much the model favors each text, shape `[prompts]`."""

    def favor(self, titles: Sequence[str]) -> Float32Array:
        """Tell how much the model favors each text; see `Probe.favor`."""
        return self._ask(titles, self.weigh).cpu().numpy()

    def states(self, titles: Sequence[str]) -> Float32Array:
        """Return the state where the answer begins; see `Probe.states`."""
        return self._ask(titles, lambda causal, told: told.first, mean=True).cpu().numpy()

    def embed_word(self, word: str) -> Tensor:
        """Return a copy of the input of a word's first token, shape `[hidden]`, float32."""
        token = self.tokenizer(word, add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
        return plug_in(self.model).get_input_embeddings().weight[token].detach().float().clone()

    def favor_behind(self, titles: Sequence[str], vector: Tensor) -> Tensor:
        """Tell how much the model favors each text when a word stands before it.

        Args:
            titles: Any texts.
            vector: The input of that word, shape `[hidden]`; if it requires gradients, they flow to it.

        Returns:
            Scores as those of `favor`, shape `[titles, questions]`, on the model's device.
        """
        return self._ask(titles, self.weigh, vector)

    def _ask(
        self,
        titles: Sequence[str],
        weigh: Callable[[Any, AnswerStates], Tensor],
        vector: Tensor | None = None,
        mean: bool = False,
    ) -> Tensor:
        """Run all questions about all texts.

        Returns:
            What `weigh` makes of each, shape `[titles, questions, ...]`, or the mean over the questions.
        """
        learns = vector is not None and vector.requires_grad
        found: list[Tensor] = []
        with (
            self._prepare_gradients()
            if learns
            else prepare_inference(self.model, self.device, compile_layers=False) as causal
        ):
            for start in range(0, len(titles), PROBE_BATCH_TEXTS):
                texts = titles[start : start + PROBE_BATCH_TEXTS]
                tokens = self.write(texts, vector is not None)
                kind = UnfusedBorders if learns else BranchBorders
                every = run_passes(
                    causal, tokens, len(texts), self.capacity, self.device, weigh, kind, self._make_embedder(vector)
                )
                told = list(every)
                back = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in told]))).to(self.device)
                values = torch.cat([values for _, values in told])[back]
                table = values.view(self.questions, len(texts), *values.shape[1:]).transpose(0, 1)
                found.append(table.mean(dim=1) if mean else table)
            if not found:
                hidden = causal.get_output_embeddings().weight.shape[1]
                return torch.zeros((0, hidden if mean else self.questions))
            return torch.cat(found)

    @contextmanager
    def _prepare_gradients(self) -> Generator[Any]:
        self.model.eval()
        with force_determinism(self.device):
            yield plug_in(self.model)

    def _make_embedder(self, vector: Tensor | None) -> ItemEmbedder | None:
        known = self.inputs
        if vector is None:
            return known

        def embed_items(item: Tensor) -> Tensor:
            mark = vector.to(item.device).expand(len(item), -1)
            if known is None:
                return mark
            return torch.where((item == self.items)[:, None], mark, known(item.clamp(max=self.items - 1)))

        return embed_items


class PointwiseProbe(LanguageProbe):
    """A model that answers yes or no.

    Args:
        loaded: See `LanguageProbe`.
        device: See `LanguageProbe`.
        capacity: See `LanguageProbe`.
        heads: Each question up to the title asked about.
        tail: What follows the title.
        answers: The answers in favor and against.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device,
        capacity: int,
        heads: Sequence[str],
        tail: str,
        answers: tuple[str, str],
    ) -> None:
        super().__init__(loaded, device, capacity)
        self.heads, self.tail, self.answers, self.questions = heads, tail, answers, len(heads)

    def write(self, titles: Sequence[str], marked: bool) -> Tokens:
        """Write prompts; see `LanguageProbe.write`.

        With a mark, what stands before it and behind it is tokenized apart.
        """
        shown = [quote_for_prompt(title) for title in titles]
        if not marked:
            asked = [Example(f"{head}{title}{self.tail}", self.answers[0]) for head in self.heads for title in shown]
            return tokenize(self.tokenizer, asked, end=False)
        cut = [Example(head, f" {title}{self.tail}") for head in self.heads for title in shown]
        tokens = tokenize(self.tokenizer, cut, end=False)
        mark = self.tokenizer.eos_token_id
        return _join_pieces(
            [
                (
                    (tokens.token[start:border], -1),
                    ([mark], self.items),
                    (tokens.token[border:end], -1),
                    ([mark], -1),
                )
                for start, border, end in zip(tokens.offsets, tokens.answer, tokens.offsets[1:], strict=False)
            ]
        )

    def weigh(self, causal: Any, told: AnswerStates) -> Tensor:
        """Return the logit of the answer in favor minus that of the one against; see `LanguageProbe.weigh`."""
        plain = {"add_special_tokens": False}
        yes, no = (self.tokenizer(answer, **plain)["input_ids"][0] for answer in self.answers)
        head = causal.get_output_embeddings().weight
        return told.first @ (head[yes].float() - head[no].float())


class CandidateProbe(LanguageProbe):
    """A model that writes one of some titles.

    Args:
        loaded: See `LanguageProbe`.
        device: See `LanguageProbe`.
        capacity: See `LanguageProbe`.
        questions: Tokens and their items (-1 for text) before the title asked about and behind it, without answers.
        domain: What the items are.
        inputs: See `LanguageProbe`.
        items: See `LanguageProbe`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device,
        capacity: int,
        questions: Sequence[tuple[tuple[Int32Array, Int32Array], tuple[Int32Array, Int32Array]]],
        domain: ItemDomain,
        inputs: ItemEmbedder | None,
        items: int,
    ) -> None:
        super().__init__(loaded, device, capacity, inputs, items)
        self.pieces, self.questions = questions, len(questions)
        self.domain: ItemDomain = domain

    def write(self, titles: Sequence[str], marked: bool) -> Tokens:
        """Write prompts with the text as the answer; see `LanguageProbe.write`."""
        book, end = PromptBook(self.tokenizer, titles, self.domain, 1), self.tokenizer.eos_token_id
        mark = [([end], self.items)] if marked else []
        known = [book.get_title_tokens(number) for number in range(len(titles))]
        return _join_pieces(
            [(head, *mark, (title, -1), rest, ([*title, end], -1)) for head, rest in self.pieces for title in known]
        )

    def weigh(self, causal: Any, told: AnswerStates) -> Tensor:
        """Return log p - log(1 - p) of writing the text and nothing else; see `LanguageProbe.weigh`."""
        total = sum_log_probs(causal, told).clamp(max=-LOG_PROBABILITY_MARGIN)
        return total - torch.log(-torch.expm1(total))


def _join_pieces(rows: Sequence[Sequence[tuple[Any, Any]]]) -> Tokens:
    """Join prompts of pieces, each tokens and their items (one for all, or one each); the last is the answer."""
    lengths = np.array([[len(token) for token, _ in row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    token = np.concatenate([token for row in rows for token, _ in row])
    item = np.concatenate([np.broadcast_to(item, len(token)) for row in rows for token, item in row])
    return Tokens(token, offsets, offsets[1:] - lengths[:, -1], item)
