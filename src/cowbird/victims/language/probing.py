"""Language-model victims asked about any texts as titles: what defenses that look into a trained model need.

Few questions are asked about very many texts, and all prompts of a question begin alike, up to the title. So each
beginning is run once for a row of texts, whose endings branch off it (`branches.BranchBorders`): of a prompt of 200
tokens some 20 are left to run. What comes out is what each prompt gives alone (`tests/victims/test_probing.py`).

TALLRec is asked for the margin between the logits of `Yes` and `No`. LLaRA writes a title, so it is asked how likely it
is to write the text's: log p - log(1 - p), where p is the probability of all its tokens and the end. That is above 0
exactly if the model would rather write this title than anything else, and needs no other candidate to be scored: a
title that gains leaves less for the others. It is a stricter bar than having the highest probability of all candidates.

A text can be asked about with a word before it whose input is any vector, through which gradients flow (`favor_behind`;
RAP needs it). The model's own weights are never touched.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cowbird.data.types import Float32Array, Int32Array, Int64Array, IntArray, concat_ranges
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.candidate_decoding import BranchBorders
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Example, Tokens, tokenize
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import ItemEmbedder, cut_parts, embed_inputs, split_runs, to_device
from cowbird.victims.language.prompts import ItemDomain, PromptBook
from cowbird.victims.repeatable import force_determinism

PROBE_BATCH_TEXTS = 256
"""Texts whose prompts are written at once."""
MAX_BRANCH_TOKENS = 512
"""Most tokens that branch off one beginning in a row, where attention makes the scores of all pairs of them: on a CPU,
and with gradients."""
LIKELIHOOD_CHUNK_TOKENS = 1024
"""Tokens whose logits are held at once."""
LOG_PROBABILITY_MARGIN = 1e-6
"""Probabilities are told from 0 and 1 up to here; log p - log(1 - p) stays within 14 above."""


class AnswerStates(NamedTuple):
    """What a model has in mind where it answers some prompts."""

    states: Tensor
    """Last hidden states that predict the answers' tokens, shape `[tokens]` of all answers by `[hidden]`."""
    labels: Tensor
    """Those tokens, shape `[tokens]`, int64."""
    lengths: Tensor
    """How many of them each prompt has, at least one, shape `[prompts]`, int64."""

    @property
    def first(self) -> Tensor:
        """The state where each answer begins, shape `[prompts, hidden]`, float32."""
        return self.states[self.lengths.cumsum(0) - self.lengths].float()


@dataclass(frozen=True, slots=True, eq=False)
class UnfusedBorders(BranchBorders):
    """Attention in plain steps on every device: the fused kernel's sums of exponentials have no gradients."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let prompts see themselves, and branches their prompt and themselves; see `BranchBorders.attend`."""
        q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
        return self._attend_on_cpu(q, k, v, scale, window)[None]


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


def run_passes(
    causal: Any,
    tokens: Tokens,
    each: int,
    capacity: int,
    device: torch.device,
    weigh: Callable[[Any, AnswerStates], Tensor],
    kind: type[BranchBorders],
    inputs: ItemEmbedder | None = None,
) -> Iterator[tuple[IntArray, Tensor]]:
    """Run prompts, runs of `each` of which begin alike; yield which prompts, and what `weigh` makes of them.

    Args:
        causal: The causal LM, as `engine.prepare_inference` gives it.
        tokens: Prompts with answers of a token or more.
        each: Prompts of a run.
        capacity: Most tokens in a row.
        device: Where the model is.
        weigh: Told what the model has in mind where it answers.
        kind: How prompts and branches attend.
        inputs: Makes the inputs of tokens that stand for items.
    """
    shared = _count_shared(tokens, each)
    if not shared.all():  # prompts so long that they lost their beginnings: each is a run of its own
        each, shared = 1, tokens.answer - tokens.offsets[:-1] - 1
    grid = np.arange(len(tokens)).reshape(-1, each)
    # An answer's last token predicts nothing that is asked for.
    rest = tokens.lengths.reshape(-1, each) - shared[:, None] - 1
    most = MAX_BRANCH_TOKENS if kind is UnfusedBorders or device.type == "cpu" else capacity
    # Within a model's window the kernel is taken, which makes no scores of all pairs.
    most = min(most, getattr(causal.config, "sliding_window", None) or most)
    for part in split_runs(shared, np.arange(len(grid)), capacity // 2):
        room = min(capacity // 2, most * len(part))
        for texts in split_runs(rest[part].sum(axis=0), np.arange(each), room):
            rows = grid[np.ix_(part, texts)]
            told = _run_pass(causal, tokens, rows, shared[part], device, inputs, kind)
            yield rows.ravel(), weigh(causal, told)


def _count_shared(tokens: Tokens, each: int) -> Int64Array:
    """Return how many tokens the prompts of each run have in common at their beginnings, but for their last ones."""
    found: list[int] = []
    for start in range(0, len(tokens), each):
        first = tokens.offsets[start : start + each]
        alike = int((tokens.answer[start : start + each] - first).min()) - 1
        table = first[:, None] + np.arange(alike)
        same = (tokens.token[table] == tokens.token[table[0]]).all(axis=0)
        if tokens.item is not None:
            same &= (tokens.item[table] == tokens.item[table[0]]).all(axis=0)
        found.append(alike if same.all() else int(same.argmin()))
    return np.array(found, dtype=np.int64)


def _run_pass(
    causal: Any,
    tokens: Tokens,
    rows: IntArray,
    shared: Int64Array,
    device: torch.device,
    inputs: ItemEmbedder | None,
    kind: type[BranchBorders],
) -> AnswerStates:
    """Run some prompts as branches of their common beginnings.

    Args:
        causal: The causal LM.
        tokens: All prompts.
        rows: Which of them, shape `[runs, each]`.
        shared: Tokens that each run has in common, shape `[runs]`, at least one.
        device: Where the model is.
        inputs: Makes the inputs of tokens that stand for items.
        kind: How they attend.
    """
    each, chosen = rows.shape[1], rows.ravel()
    skipped = np.repeat(shared, each)
    wide, answer = tokens.lengths[chosen] - skipped - 1, tokens.offsets[1:][chosen] - tokens.answer[chosen]
    heads, tails = tokens.offsets[:-1][rows[:, 0]], tokens.offsets[:-1][chosen] + skipped
    place = np.concatenate([concat_ranges(heads, shared), concat_ranges(tails, wide)])
    position = np.concatenate([concat_ranges(np.zeros_like(shared), shared), concat_ranges(skipped, wide)])
    asked, told = np.concatenate([[0], np.cumsum(shared)]), np.concatenate([[0], np.cumsum(wide)])
    before = asked[-1] + concat_ranges(told[1:] - answer, answer)
    label = tokens.token[concat_ranges(tokens.answer[chosen], answer)]
    grouped = told[::each]
    arrays: list[NDArray[Any]] = [tokens.token[place], position, before, label, answer, asked, told, grouped]
    if tokens.item is not None:
        arrays.append(tokens.item[place])
    flat = to_device(np.concatenate([array.astype(np.int32) for array in arrays]), device)
    parts = [part.contiguous() for part in cut_parts(flat, [len(array) for array in arrays])]
    longest = int(max(shared.max(), np.diff(grouped).max()))
    borders = kind(tuple(asked.tolist()), tuple(told.tolist()), each, (parts[5], parts[6], parts[7]), longest)
    given = embed_inputs(causal, parts[0].long()[None], parts[8].long() if len(parts) > 8 else None, inputs)
    out = causal.base_model(**given, position_ids=parts[1].long()[None], use_cache=False, documents=borders)
    return AnswerStates(out.last_hidden_state[0][parts[2].long()], parts[3].long(), parts[4].long())


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


def sum_log_probs(causal: Any, told: AnswerStates) -> Tensor:
    """Return the log p of whole answers, shape `[prompts]`; logits are made for some tokens at a time."""
    head = causal.get_output_embeddings()
    found: list[Tensor] = []
    for start in range(0, len(told.labels), LIKELIHOOD_CHUNK_TOKENS):
        logits = head(told.states[start : start + LIKELIHOOD_CHUNK_TOKENS]).float()
        found.append(-F.cross_entropy(logits, told.labels[start : start + LIKELIHOOD_CHUNK_TOKENS], reduction="none"))
    return torch.segment_reduce(torch.cat(found), "sum", lengths=told.lengths, axis=0)


def _join_pieces(rows: Sequence[Sequence[tuple[Any, Any]]]) -> Tokens:
    """Join prompts of pieces, each tokens and their items (one for all, or one each); the last is the answer."""
    lengths = np.array([[len(token) for token, _ in row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    token = np.concatenate([token for row in rows for token, _ in row])
    item = np.concatenate([np.broadcast_to(item, len(token)) for row in rows for token, item in row])
    return Tokens(token, offsets, offsets[1:] - lengths[:, -1], item)
