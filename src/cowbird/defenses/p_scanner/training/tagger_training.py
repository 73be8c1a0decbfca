"""Training a tagger on examples that are drawn anew all the time.

`tagger_examples` says what is tuned and for how long, and draws the examples; `train_tagger` returns a `Tagger`.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cowbird.data.types import IntArray
from cowbird.defenses.p_scanner.tagger import Tagger, TaggerRecord, read_adapter
from cowbird.defenses.p_scanner.training.context_examples import ContextExamples
from cowbird.defenses.p_scanner.training.tagger_examples import DrawnAhead, TaggerExamples, TaggerRecipe
from cowbird.defenses.p_scanner.triggers.title_edits import (
    NEVER_TAUGHT,
)
from cowbird.errors import UserError
from cowbird.files import hash_texts
from cowbird.rng import derive_seed, torch_stream
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.examples import Tokens
from cowbird.victims.language.llm import LoadedModel, add_adapters, load_llm
from cowbird.victims.language.tuning import TrainingCurve, TrainingPrompts, tune


def list_plain_words(tokenizer: Any) -> tuple[str, ...]:
    """Return plain words in small letters: tokens of a vocabulary that begin a word, of three letters and more."""
    spelled: dict[str, int] = tokenizer.get_vocab()
    words = {token[1:] for token in spelled if token[:1] == "\u0120"}
    return tuple(
        sorted(word for word in words if len(word) > 2 and word.isascii() and word.isalpha() and word.islower())
    )


def split_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide words by their hash: those to teach with, and those to ask with."""
    taught = [hashlib.sha256(word.encode()).digest()[0] % 2 == 0 for word in words]
    return (
        tuple(word for word, known in zip(words, taught, strict=True) if known),
        tuple(word for word, known in zip(words, taught, strict=True) if not known),
    )


class WatchedExamples:
    """Examples whose learner is looked at before each chunk; see `tuning.TrainingPrompts`.

    Args:
        examples: What gives them.
        look: Called with the number of the chunk that comes next.
    """

    def __init__(self, examples: TrainingPrompts, look: Callable[[int], None]) -> None:
        self.key, self.examples, self.look = examples.key, examples, look

    def __len__(self) -> int:
        return len(self.examples)

    def write_epoch(self, number: int, order: IntArray) -> Tokens:
        """Return the examples of a chunk."""
        self.look(number)
        return self.examples.write_epoch(number, order)


def copy_adapter(model: Any, held: Mapping[str, Tensor]) -> None:
    """Put a tagger's adapters into those of a model, in place.

    Raises:
        UserError: If they are of other layers, or have another rank.
    """
    mine = {name.replace(".default.", "."): weight for name, weight in model.named_parameters() if ".lora_" in name}
    if mine.keys() != held.keys() or any(mine[name].shape != held[name].shape for name in held):
        raise UserError(
            "The tagger to begin with has adapters of another rank or of other layers than the recipe names.",
            "Take the language model, the layers and the rank from its tagger.json.",
        )
    with torch.no_grad():
        for name, weight in mine.items():
            weight.copy_(held[name])


def train_tagger(
    recipe: TaggerRecipe,
    catalogs: Mapping[str, Sequence[str]],
    seed: int,
    place: FitContext,
    refused: Collection[str] = (),
    workers: int = 0,
    start: Path | None = None,
    seconds: float | None = None,
    look: Callable[[Any, int], None] | None = None,
) -> tuple[Tagger, TrainingCurve]:
    """Train a tagger.

    Args:
        recipe: What it is made of.
        catalogs: Titles that are taken for clean, by the catalogue's name.
        seed: Decides all that is random.
        place: Where it is trained, and who is told.
        refused: Texts that are never planted.
        workers: Processes that draw examples; 0 draws them here.
        start: Folder of a tagger whose adapters they begin with; drawn at random if this is `None`.
        seconds: See `tuning.tune`.
        look: Called before each chunk with the model as it is then, and with the chunk's number.

    Returns:
        The tagger, and what its training went through.

    Raises:
        UserError: If a catalogue holds no title, the model can't be used, or the adapters to begin with are others.
        KeyboardInterrupt: Passed on after a checkpoint was written, if `place` names a folder.
    """
    empty = [name for name, titles in catalogs.items() if not titles]
    if empty or not catalogs:
        raise UserError(
            f"A tagger learns from titles, and {f'catalogue {empty[0]!r} holds' if empty else 'there are'} none.",
            "Give catalogues that hold titles.",
        )
    dtype = recipe.tuning.pick_dtype(place.device)
    loaded = load_llm(recipe.llm, place.device, dtype)
    words, _ = split_words(list_plain_words(loaded.tokenizer))
    texts = frozenset(text.strip().lower() for text in refused)
    kind = ContextExamples if recipe.context else TaggerExamples
    examples = kind(loaded.tokenizer, catalogs, words or ("word",), texts, recipe, seed)
    model = add_adapters(loaded.model, recipe.llm, torch_stream(seed, "adapters"))
    if start is not None:
        copy_adapter(model, read_adapter(start))
    drawn = DrawnAhead(examples, recipe.chunks, workers) if workers else examples
    shown = drawn if look is None else WatchedExamples(drawn, partial(look, model))
    try:
        curve = tune(model, shown, recipe.tuning, derive_seed(seed, "tagger"), place, seconds=seconds)
    finally:
        if isinstance(drawn, DrawnAhead):
            drawn.close()
    hashes = {name: hash_texts(titles) for name, titles in catalogs.items()}
    record = TaggerRecord(
        llm=recipe.llm,
        recipe=recipe.model_dump(mode="json", exclude={"llm"}),
        seed=seed,
        catalogs={name: len(titles) for name, titles in catalogs.items()},
        titles_sha256=hashes,
        never_taught=NEVER_TAUGHT,
        loss=round(float(np.mean(curve.losses[-50:])), 5),
        seconds=round(curve.seconds, 1),
        tokens=curve.tokens,
        steps=len(curve.losses),
    )
    return Tagger(record, LoadedModel(model.eval(), loaded.tokenizer), place.device), curve
