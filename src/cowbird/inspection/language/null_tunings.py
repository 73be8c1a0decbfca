"""Null tunings: honest adapters of the same base, tuned on the platform's own questions, and what a search finds there.

Their recipe is Cowbird's. Only what the search found is kept, sealed, in the user's cache, by the hash of all that
decides it; so the next adapter of the same base and questions is inspected without tuning anything. A tuning that was
interrupted goes on from its checkpoint. Processes that inspect at the same time share the work.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cowbird.errors import UserError
from cowbird.files import get_cache_folder, hash_texts
from cowbird.inspection.language.adapter_weights import describe_adapter
from cowbird.inspection.language.questions import TitleQuestion, hash_questions, write_examples
from cowbird.inspection.language.search import SearchProgress
from cowbird.inspection.language.settings import LanguageNullSettings
from cowbird.inspection.sharing import share_work
from cowbird.rng import derive_seed
from cowbird.storage import read_sealed_json, write_sealed_json
from cowbird.victims import checkpoint
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.llm import Llm, LoadedModel
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import Tuning


@dataclass(frozen=True)
class NullFinding:
    """What a search found in one null tuning."""

    statistics: dict[str, float]
    """Largest statistic of each family."""
    weights: dict[str, float]
    """Statistics of its adapter's weights."""
    activations: dict[str, float]
    """Statistics of its states."""


def get_search_folder() -> Path:
    """Return where searches and null tunings are kept."""
    return get_cache_folder() / "inspection" / "language"


def fit_null_tunings(
    base: Llm,
    base_sha256: str,
    learning: Sequence[TitleQuestion],
    answers: tuple[str, str],
    settings: LanguageNullSettings,
    seed: int,
    searched: str,
    device: torch.device,
    search: Callable[[LoadedModel, str, SearchProgress], tuple[dict[str, float], dict[str, float]]],
    told: SearchProgress,
) -> list[NullFinding]:
    """Tune honest adapters and search them as the inspected model is searched.

    Args:
        base: The language model, and the places of its adapters.
        base_sha256: SHA-256 of its weights.
        learning: Questions to learn from.
        answers: What the model writes in favor and against.
        settings: How many, and how they are tuned.
        seed: Decides adapters and order.
        searched: Hash of all that decides the search.
        device: Where they are tuned.
        search: Searches a model that goes by a name, and returns the largest statistic of each family, and statistics
            of its states.
        told: Told of progress.

    Raises:
        UserError: If too few questions have answers to learn from.
    """
    examples = write_examples(learning, answers)
    if len(examples) < 8 or len({example.answer for example in examples}) < 2:
        raise UserError(
            "Null tunings learn from questions with both answers, and the platform's have too few.",
            "Give logs with ratings, or questions with answers.",
        )
    tuning = Tuning(epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate)
    spec = TALLRec(llm=base, tuning=tuning)
    decided = [base_sha256, searched, hash_questions(learning), device.type]
    decided.append(
        json.dumps([spec.model_copy(update={"llm": base.model_copy(update={"name": ""})}).model_dump(mode="json")])
    )
    seeds = [derive_seed(seed, "null tuning", number) % 2**31 for number in range(settings.count)]
    keys = [hash_texts([*decided, str(of_one)]) for of_one in seeds]

    def make(number: int) -> NullFinding:
        """Tune and search one, or return what was kept."""
        path, key = get_search_folder() / f"null-{keys[number]}.json", keys[number]
        known = _read_finding(path)
        if known is not None:
            return known
        folder = get_search_folder() / f"tuning-{key}"
        label = f"null tuning {number + 1} of {settings.count}"
        context = FitContext(device, folder, lambda done, total, remark: told(label, done, total, remark))
        fitted = spec.fit_examples(examples, seeds[number], context)
        weights = describe_adapter(fitted.model)
        statistics, activations = search(
            fitted.loaded,
            f"null-{key}",
            lambda what, done, total, remark: told(f"{label}: {what}", done, total, remark),
        )
        known = NullFinding(statistics, weights, activations)
        write_sealed_json(path, asdict(known))
        checkpoint.clear(folder)
        return known

    return share_work(get_search_folder(), keys, make)


def _read_finding(path: Path) -> NullFinding | None:
    """Return what was kept; `None` if nothing was, or it is damaged."""
    if not path.exists():
        return None
    try:
        held = read_sealed_json(path)
        return NullFinding(
            *(
                {str(name): float(value) for name, value in held[part].items()}
                for part in ("statistics", "weights", "activations")
            )
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None
