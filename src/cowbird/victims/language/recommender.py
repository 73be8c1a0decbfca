"""What victims share that are a tuned language model: its fields, how a fit begins, and the fitted model."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from cowbird.errors import UserError
from cowbird.rng import torch_stream
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language import serialization
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm
from cowbird.victims.language.tuning import TrainingCurve, Tuning
from cowbird.victims.model import FittedModel, TitleSplitter, Victim


class LanguageRecommender(Victim):
    """A victim that is a tuned language model."""

    record_name: ClassVar[str]
    """What it is called in the record of a saved model."""
    llm: Llm = Llm()
    """The language model, and what of it learns."""
    tuning: Tuning = Tuning()
    """How it is tuned."""

    def with_tuning(self, learning_rate: float, epochs: int) -> Self:
        """Return the same model, tuned at another learning rate for other epochs."""
        tuning = self.tuning.model_copy(update={"learning_rate": learning_rate, "epochs": epochs})
        return self.model_copy(update={"tuning": tuning})

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> Any:
        """Read what the fitted model's `save` wrote; see `AnsweringRecommender.load`."""

    def begin_fit(self, seed: int, context: FitContext, start: Any) -> LoadedModel:
        """Return the language model with adapters that a fit begins with, and its tokenizer.

        Args:
            seed: Draws fresh adapters.
            context: Where the fit runs.
            start: A fitted victim of this kind and language model to go on from; `None` for fresh adapters.

        Raises:
            UserError: If the language model can't be loaded, or `start` is another's.
        """
        loaded = load_llm(self.llm, context.device, self.tuning.pick_dtype(context.device))
        model = add_adapters(loaded.model, self.llm, torch_stream(seed, "adapters"))
        if start is not None:
            given = getattr(start, "spec", None)
            kind = isinstance(given, LanguageRecommender) and (given.record_name, given.llm)
            if kind != (self.record_name, self.llm):
                raise UserError(
                    "Tuning can't start from that model: it is tuned from another language model, or otherwise.",
                    f"Start from a {self.record_name} with the same llm.",
                )
            serialization.copy_weights(start.model, model)
        return LoadedModel(model, loaded.tokenizer)

    def read_model(self, folder: Path, device: torch.device) -> LoadedModel:
        """Return the tuned language model of a saved victim; see `serialization.read_model`."""
        return serialization.read_model(folder, self.record_name, self.llm, device, self.tuning.pick_dtype(device))


SpecT = TypeVar("SpecT", bound=LanguageRecommender)


@dataclass
class FittedLanguageRecommender(FittedModel, Generic[SpecT]):
    """A victim's tuned language model."""

    spec: SpecT
    """What it was fitted from."""
    loaded: LoadedModel
    """The language model with its adapters, and the tokenizer."""
    device: torch.device
    """Where the model is."""
    curve: TrainingCurve
    """What tuning went through; empty for a loaded model."""
    splitter: TitleSplitter | None = field(default=None, kw_only=True)
    """Splits the tokens of titles that are read; `None` reads them as the tokenizer does."""

    @property
    def model(self) -> Any:
        """The language model with its adapters."""
        return self.loaded.model

    def with_split_titles(self, make_splitter: Callable[[Any], TitleSplitter]) -> Self:
        """Return the model as it reads split titles; see `FittedModel.with_split_titles`."""
        return replace(self, splitter=make_splitter(self.loaded.tokenizer))

    def check_probing(self, questions: int) -> None:
        """Check that the model can be probed.

        Raises:
            UserError: If it reads split titles, or there are no questions.
        """
        if self.splitter is not None:
            raise UserError("A model that reads split titles can't be probed.", "Probe the model that is guarded.")
        if not questions:
            raise UserError("A probe needs a question to ask, and there is none.", "Give validation data.")

    def get_extra_weights(self) -> dict[str, Tensor] | None:
        """Return the weights beside those of the language model, by name; `None` if there are none."""
        return None

    def save(self, folder: Path) -> None:
        """Write the adapter (or the whole model) as peft and transformers read it; see `serialization.save_model`."""
        spec = self.spec.model_dump(mode="json")
        serialization.save_model(folder, self.spec.record_name, spec, self.loaded, self.get_extra_weights())
