"""LLaRA: a language model that writes which of twenty candidates comes next (Liao et al., SIGIR 2024).

Histories and candidates are titles, each followed by the item's embedding from a conventional recommender (SASRec),
projected into the language model's inputs by a two-layer network (section 3.2). Training goes from text-only prompts
to hybrid ones: the share of hybrid prompts rises linearly with the steps (section 3.3). The model answers freely and
greedily; an answer counts if it is a candidate's title to the letter.

Departures: each training example is text-only or hybrid by a toss of its own (the published code tosses for a whole
batch); the candidates that are not right are drawn anew in every epoch; embeddings are standardized before they are
projected. A decoder that can write nothing but candidates is measured beside the free one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from cowbird.data.choices import Choices, SequenceSplit
from cowbird.data.split import Queries
from cowbird.data.types import Int32Array, IntArray, Items, TrainingData
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.rng import derive_seed, stream, torch_stream
from cowbird.victims.candidates import CandidateRecommender, FittedCandidate, Picks
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language import serialization
from cowbird.victims.language.candidate_decoding import decode_answers
from cowbird.victims.language.engine import ItemInputs, prepare_inference
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.probing import CandidateProbe
from cowbird.victims.language.prompts import ItemDomain, PromptBook, format_templates
from cowbird.victims.language.recommender import FittedLanguageRecommender, LanguageRecommender
from cowbird.victims.language.tuning import TrainingCurve, Tuning, tune
from cowbird.victims.sequential.sasrec import SASRec
from cowbird.victims.training_loop import get_process_rank


class Projector(nn.Module):
    """Makes inputs of a language model from items' embeddings.

    Args:
        embeddings: What a recommender learned of the items, shape `[items, width]`; never changed.
        hidden: Width of the language model's inputs.
        spread: Standard deviation of its tokens' inputs, which those of items start with.
        generator: Draws the first weights, on the CPU.
    """

    def __init__(self, embeddings: Tensor, hidden: int, spread: float, generator: torch.Generator) -> None:
        super().__init__()
        table = embeddings.float()
        self.register_buffer("table", (table - table.mean(dim=0)) / table.std(dim=0).clamp(min=1e-6))
        self.first = nn.Linear(table.shape[1], hidden)
        self.second = nn.Linear(hidden, hidden)
        with torch.no_grad():
            for layer, scale in ((self.first, 1.0), (self.second, spread)):
                wide = layer.weight.shape[1]
                layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, scale * wide**-0.5, generator=generator))
                layer.bias.zero_()

    @property
    def items(self) -> int:
        """Number of items."""
        table: Any = self.table
        return len(table)

    def forward(self, item: Tensor) -> Tensor:
        """Return inputs of items, shape `[items]` to `[items, hidden]`."""
        table: Any = self.table
        return self.second(nn.functional.gelu(self.first(table[item])) * 2**0.5)


class LLaRA(LanguageRecommender, CandidateRecommender):
    """A language model that reads titles and item embeddings and writes the title that comes next."""

    record_name: ClassVar[str] = "LLaRA"
    tuning: Tuning = Tuning(epochs=3)
    """How it is tuned."""
    recommender: SASRec = SASRec(epochs=30, keep="last", patience=None)
    """The recommender whose item embeddings the prompts hold; trained on the same data."""
    prompts: Literal["hybrid", "text"] = "hybrid"
    """Whether prompts hold item embeddings."""
    curriculum: bool = True
    """Whether training goes from text-only to hybrid prompts; without, all of it is hybrid."""
    projector_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the projector, as a multiple of that of the language model."""
    domain: ItemDomain = "movie"
    """What the items are, in the prompt."""
    wordings: Literal["all", "first"] = "all"
    """Which of the published prompts training draws from; tests ask the first."""
    longest_answer: int = Field(default=48, ge=1)
    """Most tokens that are written freely."""

    def fit(
        self,
        data: TrainingData,
        split: SequenceSplit,
        seed: int,
        context: FitContext | None = None,
        start: Any = None,
    ) -> "FittedLLaRA":
        """Train the recommender, then tune the language model; see `CandidateRecommender.fit`.

        A start brings its recommender's embeddings with it; only the language model and the projector go on learning.
        Of items that it knows beyond those of the data (its provider's catalogue was longer), the embeddings are
        dropped.

        Raises:
            UserError: If there are no questions, or the language model can't be loaded, or `start` is another's or of
                a smaller catalogue.
        """
        place = context or FitContext()
        loaded = self.begin_fit(seed, place, start)
        if start is not None:
            known = None if start.projector is None or self.prompts == "text" else start.projector.items
            if known is not None and known < len(data.items):
                raise UserError(
                    f"Tuning can't start from that model: it knows {known} items, and the data has {len(data.items)}.",
                    "Start from a LLaRA of the same catalogue.",
                )
        projector = self._make_projector(data, loaded, seed, place, start)
        book = PromptBook(loaded.tokenizer, data.items.titles, self.domain, split.candidates)
        lesson = LLaRAPrompts(self, book, data, split, seed)
        items = None if projector is None else ItemInputs(projector, self.projector_rate)
        curve = tune(loaded.model, lesson, self.tuning, seed, place, items)
        return FittedLLaRA(self, loaded, place.device, curve, projector)

    def _make_projector(
        self, data: TrainingData, loaded: LoadedModel, seed: int, place: FitContext, start: "FittedLLaRA | None"
    ) -> Projector | None:
        if self.prompts == "text":
            return None
        inputs = loaded.model.get_input_embeddings()
        with torch.no_grad():  # some models scale what they look up
            spread = inputs(torch.arange(len(inputs.weight), device=place.device)).float().std().item()
        hidden = inputs.weight.shape[1]
        if start is not None and start.projector is not None:
            held = start.projector.state_dict()
            held["table"] = held["table"][: len(data.items)]
            projector = Projector(held["table"].cpu(), hidden, spread, torch_stream(seed, "projector"))
            projector.load_state_dict(held)
        else:
            embeddings = self._train_embeddings(data, seed, place)
            projector = Projector(embeddings, hidden, spread, torch_stream(seed, "projector"))
        return projector.to(place.device)

    def _train_embeddings(self, data: TrainingData, seed: int, place: FitContext) -> Tensor:
        """Train the recommender on all events and return what it learned of the items."""
        # Processes that share the work all train it, and end in the same weights; one of them keeps checkpoints.
        rank, _ = get_process_rank()
        folder = None if place.folder is None or rank else place.folder / "recommender"
        known = data.interactions
        # All epochs are trained and the last state is kept, so what validates decides nothing.
        few = np.flatnonzero(known.lengths > 1)[:64]
        shown_events = known.take(known.offsets[:-1][few], known.lengths[few] - 1)
        queries = Queries(shown_events, known.item[known.offsets[1:][few] - 1], data.users.take(few))
        own = FitContext(place.device, folder, place.report, place.warn)
        spec = self.recommender.model_copy(update={"keep": "last", "patience": None})
        fitted = spec.fit(data, queries, derive_seed(seed, "recommender"), own)
        return fitted.network.item.weight[: len(data.items)].detach().float().cpu()

    def with_tuning(self, learning_rate: float, epochs: int) -> "LLaRA":
        """Return the same model, tuned at another learning rate for other epochs, and without a curriculum."""
        return super().with_tuning(learning_rate, epochs).model_copy(update={"curriculum": False})

    def load(self, folder: Path, device: torch.device) -> "FittedLLaRA":
        """Read what `FittedLLaRA.save` wrote.

        Raises:
            UserError: If the folder does not hold a LLaRA of this language model and kind of prompts.
        """
        loaded = self.read_model(folder, device)
        projector = None
        if self.prompts == "text" and (folder / serialization.EXTRA_WEIGHTS_FILE).exists():
            raise UserError(f"'{folder}' does not hold this {self.record_name}: its prompts are hybrid.")
        if self.prompts == "hybrid":
            held = serialization.read_extra(folder)
            try:
                hidden = loaded.model.get_input_embeddings().weight.shape[1]
                projector = Projector(held["table"], hidden, 1.0, torch_stream(0, "projector"))
                projector.load_state_dict(held)
            except (KeyError, IndexError, RuntimeError) as error:
                raise_outage(error, f"'{folder}' can't be read")
                reason = str(error).partition("\n")[0]
                raise UserError(f"'{folder}' does not hold this {self.record_name}: {reason}.") from None
            projector = projector.to(device)
        return FittedLLaRA(self, loaded, device, TrainingCurve(), projector)


class LLaRAPrompts:
    """Training prompts, epoch by epoch; see `tuning.TrainingPrompts`.

    Args:
        spec: Which prompts.
        book: Their pieces.
        data: What questions are made of.
        split: How.
        seed: Draws candidates, wordings and which prompts are hybrid.
    """

    def __init__(self, spec: LLaRA, book: PromptBook, data: TrainingData, split: SequenceSplit, seed: int) -> None:
        self.spec, self.book, self.data, self.split, self.seed = spec, book, data, split, seed
        self.count = int(np.maximum(data.interactions.lengths - split.shortest, 0).sum())
        digest = hashlib.sha256(repr((spec, split, seed, book.titles)).encode())
        known = data.interactions
        for array in (known.item, known.offsets, known.timestamp, book.flat, book.lengths):
            if array is not None:
                digest.update(array.tobytes())
        self.key = digest.hexdigest()

    def __len__(self) -> int:
        return self.count

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Write the prompts of an epoch in the order in which they are learned."""
        spec, epochs = self.spec, self.spec.tuning.epochs
        rng = stream(self.seed, "lesson", number)
        choices = self.split.ask(self.data.interactions, len(self.data.items), rng).select(order)
        done = (number + np.arange(self.count) / self.count) / epochs
        hybrid = np.full(self.count, spec.prompts == "hybrid")
        if spec.curriculum:
            hybrid &= rng.random(self.count) < done
        wordings = len(format_templates(spec.domain, self.split.candidates)) if spec.wordings == "all" else 1
        return self.book.write(choices, hybrid, rng.integers(wordings, size=self.count))


@dataclass
class FittedLLaRA(FittedLanguageRecommender[LLaRA], FittedCandidate):
    """A tuned LLaRA.

    If its titles are split, a title is read in the same tokens wherever it stands. What it writes is not split: the
    candidates that it can write stand in the tokens it was tuned on, and other answers count by their text.
    """

    projector: Projector | None
    """What makes inputs of items; `None` if prompts are text alone."""

    def write_prompts(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> tuple[Tokens, PromptBook, IntArray]:
        """Write questions without answers.

        Returns:
            The prompts, their pieces (whole, also if titles are split), and the piece of each candidate's title, shape
            `[questions, candidates]`.
        """
        titles: Sequence[str] = items.titles
        candidates = choices.candidates.astype(np.int64)
        if altered is not None and column is not None:
            rows = np.arange(len(choices))
            changed = choices.candidates[rows, column]
            candidates[rows, column] = len(titles) + np.arange(len(changed))
            numbers: list[int] = changed.tolist()
            titles = [*titles, *(altered.titles[item] for item in numbers)]
        book = PromptBook(self.loaded.tokenizer, titles, self.spec.domain, candidates.shape[1])
        hybrid = np.full(len(choices), self.projector is not None)
        first = np.zeros(len(choices), dtype=np.int64)
        shown = book
        if self.splitter is not None:
            used: list[int] = np.unique(np.concatenate([choices.history.item, candidates.ravel()])).tolist()
            shown = book.with_split_titles(used, self.splitter)
        return shown.write(choices, hybrid, first, candidates, answered=False), book, candidates

    def choose(
        self, choices: Choices, items: Items, altered: Items | None = None, column: IntArray | None = None
    ) -> Picks:
        """Answer questions greedily, freely and among the candidates alone; see `FittedCandidate.choose`."""
        tokens, book, candidates = self.write_prompts(choices, items, altered, column)
        table: list[list[int]] = candidates.tolist()
        branches = [[book.get_title_tokens(piece) for piece in row] for row in table]
        end = self.loaded.tokenizer.eos_token_id
        with prepare_inference(self.model, self.device, compile_layers=False) as causal:
            told = decode_answers(
                causal,
                tokens,
                branches,
                end,
                self.device,
                self.projector,
                self.spec.tuning.capacity,
                self.spec.longest_answer,
            )
        texts: list[str] = self.loaded.tokenizer.batch_decode(told.texts) if told.texts else []
        texts = [text.removeprefix(" ") for text in texts]
        return Picks(_match_answers(told.free, texts, table, book.titles), told.constrained, tuple(texts))

    def probe(self, choices: Choices, items: Items) -> CandidateProbe:
        """Return a probe that asks these questions about any texts, each in place of a wrong candidate's title.

        That candidate is the last wrong one, so that prompts differ as late as they can; its item embedding stays,
        since a text need not be an item's. See `probing` for how much a text is favored.

        Args:
            choices: The questions, at least one, of at least two candidates.
            items: The catalogue that titles come from.

        Raises:
            UserError: If there are no questions, a question has no wrong candidate, or the model reads split titles.
        """
        width = choices.candidates.shape[1]
        self.check_probing(len(choices))
        if width < 2:
            raise UserError("A probe needs questions with a wrong candidate, and there is none.", "Give more data.")
        tokens, book, pieces = self.write_prompts(choices, items)
        # Behind the title: its slot, then comma, title and slot of each later candidate, then the prompt's end.
        slot = 0 if self.projector is None else book.lengths[book.slot]
        asked: list[tuple[tuple[Int32Array, Int32Array], tuple[Int32Array, Int32Array]]] = []
        assert tokens.item is not None
        for row, right in enumerate(choices.answer.tolist()):
            column = width - 2 if right == width - 1 else width - 1
            later = book.lengths[pieces[row, column + 1 :]] + book.lengths[book.comma] + slot
            rest = int(tokens.offsets[row + 1] - book.lengths[book.parts[0, 2]] - later.sum() - slot)
            head = slice(int(tokens.offsets[row]), rest - int(book.lengths[pieces[row, column]]))
            tail = slice(rest, int(tokens.offsets[row + 1]))
            asked.append(((tokens.token[head], tokens.item[head]), (tokens.token[tail], tokens.item[tail])))
        known = 0 if self.projector is None else self.projector.items
        capacity = self.spec.tuning.capacity
        return CandidateProbe(self.loaded, self.device, capacity, asked, self.spec.domain, self.projector, known)

    def get_extra_weights(self) -> dict[str, Tensor] | None:
        """Return the projector and the embeddings; see `FittedLanguageRecommender.get_extra_weights`."""
        return None if self.projector is None else self.projector.state_dict()


def _match_answers(branch: NDArray[np.int32], texts: list[str], table: list[list[int]], titles: Sequence[str]) -> Any:
    """Return the first candidate whose title was written, -1 if none was.

    A branch that was followed to its end is a title as far as it is shown; other answers may still be a title to the
    letter, in other tokens.
    """
    found = np.full(len(texts), -1, dtype=np.int32)
    followed: list[int] = branch.tolist()
    for nth, (number, text, row) in enumerate(zip(followed, texts, table, strict=True)):
        known = [titles[piece] for piece in row]
        if number >= 0:
            found[nth] = known.index(known[number])
        elif text.strip() in known:
            found[nth] = known.index(text.strip())
    return found
