"""What the two kinds of zoos share: a folder, a recipe that is sealed in it, and work that goes on where it stopped.

models/m000…                 a model; its name tells nothing
answers/m000.json            sealed: what was planted in it, and how well that works
inspections/m000.json        what the inspection says, made without the answers
sanitized/m000.json          sealed: what taking its suspects out changed, if there were any
times/m000-make.json         seconds that a step took
zoo.json                     sealed: the recipe
scores.json                  sealed: the inspections held against the answers

Several processes may work on one folder, each on its part of the models. A part of the work is itself a fair sample:
kinds of models take turns.
"""

import gc
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from cowbird.errors import UserError
from cowbird.faults import explain_write_errors
from cowbird.storage import read_sealed_json, write_sealed_json

ZooProgress = Callable[[str, int, int, str], None]
"""Told of what is done at the moment, models done, models in all, and a remark."""


class ZooStep(StrEnum):
    """A part of the work."""

    make = "make"
    inspect = "inspect"
    sanitize = "sanitize"
    score = "score"


FOLDERS = {ZooStep.make: "answers", ZooStep.inspect: "inspections", ZooStep.sanitize: "sanitized"}
"""Where a step leaves a file for each model, its last one."""


class NumberedModel(Protocol):
    """A model of a recipe."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    @property
    def plant(self) -> int | None:
        """Which of the recipe's plants; `None` for a clean model."""
        ...


class FolderRecipe(Protocol):
    """What a zoo is made from."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return its fields as plain JSON values."""
        ...


ModelT = TypeVar("ModelT", bound=NumberedModel)
RecipeT = TypeVar("RecipeT", bound=FolderRecipe)


class ZooFolder(ABC, Generic[RecipeT, ModelT]):
    """A zoo in a folder.

    Args:
        recipe: What it is made from.
        folder: Where it lies.
        device: Where models are trained and asked.
    """

    suffix: ClassVar[str]
    """End of a model's name."""

    def __init__(self, recipe: RecipeT, folder: Path, device: torch.device) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        content = recipe.model_dump(mode="json")
        path = folder / "zoo.json"
        if path.exists() and read_sealed_json(path, "Choose another folder.") != content:
            raise UserError(f"'{folder}' holds a zoo of another recipe.", "Choose another folder.")
        file = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        if file.exists() and not file.is_dir():
            raise UserError(f"A zoo is a folder, and '{file}' is a file.", "Name a folder with --out.")
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_sealed_json(path, content)

    @abstractmethod
    def list_models(self) -> list[ModelT]:
        """Return all models of the recipe."""

    @abstractmethod
    def make_model(self, model: ModelT, report: ZooProgress) -> None:
        """Train a model, and write its answer."""

    @abstractmethod
    def inspect_model(self, model: ModelT, report: ZooProgress) -> None:
        """Inspect a model without its answer."""

    @abstractmethod
    def sanitize_model(self, model: ModelT, report: ZooProgress) -> None:
        """Take out what an inspection found, if it found something, and measure what that changes."""

    def work(
        self, steps: Sequence[ZooStep], report: ZooProgress, part: tuple[int, int] = (1, 1), keep_models: bool = True
    ) -> None:
        """Do what is not done yet, model by model.

        Args:
            steps: What is done with each.
            report: Told of progress.
            part: Which part of the models, and of how many.
            keep_models: Whether a model's weights stay once all steps are done; answers and inspections do.
        """
        models = order_fairly(self.list_models())[part[0] - 1 :: part[1]]
        for done, model in enumerate(models):

            def tell(what: str, step: int, total: int, remark: str, n: int = done) -> None:
                report(what, n, len(models), f"{step}/{total} {remark}".strip())

            for step in steps:
                if not self.name_file(step, model).exists():
                    self._do(step, model, tell)
            if not keep_models:
                self.remove_model(model)
            if self.device.type == "cuda":  # other processes share it
                gc.collect()
                torch.cuda.empty_cache()
        report("models", len(models), len(models), "")

    def _do(self, step: ZooStep, model: ModelT, report: ZooProgress) -> None:
        began = time.perf_counter()
        if step is ZooStep.make:
            self.make_model(model, report)
        elif step is ZooStep.inspect:
            self.inspect_model(model, report)
        elif step is ZooStep.sanitize:
            self.sanitize_model(model, report)
        seconds = {"seconds": round(time.perf_counter() - began, 2), "device": self.device.type}
        write_sealed_json(self.folder / "times" / f"{name_model(model)}-{step}.json", seconds)

    @abstractmethod
    def remove_model(self, model: ModelT) -> None:
        """Remove a model's weights."""

    def name_file(self, step: ZooStep, model: ModelT) -> Path:
        """Return where a step leaves its file of a model."""
        return self.folder / FOLDERS[step] / f"{name_model(model)}.json"

    def name_weights(self, model: ModelT) -> Path:
        """Return where a model lies."""
        return self.folder / "models" / f"{name_model(model)}{self.suffix}"

    def read_answer(self, model: ModelT) -> dict[str, Any]:
        """Return what is known of a model."""
        return read_sealed_json(self.name_file(ZooStep.make, model))


def name_model(model: NumberedModel) -> str:
    """Return the name of a model's files."""
    return f"m{model.number:03d}"


def list_inspected(folder: Path) -> list[str]:
    """Return the names of the models of a zoo that are inspected.

    Raises:
        UserError: If there is none.
    """
    names = [path.stem for path in sorted((folder / "answers").glob("*.json"))]
    inspected = [name for name in names if (folder / "inspections" / f"{name}.json").exists()]
    if not inspected:
        missing = "holds no zoo" if not names else "holds a zoo of which no model is inspected"
        raise UserError(f"'{folder}' {missing}.", "Make and inspect one: cowbird zoo RECIPE --out DIR.")
    return inspected


def read_record(path: Path) -> dict[str, Any]:
    """Return what a step left, or an empty record if it left nothing."""
    return read_sealed_json(path) if path.exists() else dict[str, Any]()


def order_fairly(models: Sequence[ModelT]) -> list[ModelT]:
    """Return models in the order of work: every beginning of it holds all kinds in about their shares."""
    sizes = Counter(model.plant for model in models)
    seen: Counter[int | None] = Counter()
    places: dict[int, float] = {}
    for model in models:
        seen[model.plant] += 1
        places[model.number] = (seen[model.plant] - 0.5) / sizes[model.plant]
    return sorted(models, key=lambda model: (places[model.number], model.number))
