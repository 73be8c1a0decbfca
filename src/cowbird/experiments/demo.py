"""The end of the demo: the catalogue that its seller left behind, as a scan sees it.

What the spec's first attack makes of the catalogue is written as a platform would export it, titles and ids alone. A
small scanner is fitted to that file, poisoned as it is, and scans it; afterwards, and only then, its findings are held
against what was planted.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cowbird.data.types import Items, TrainingData
from cowbird.defenses.p_scanner.scanner import PoisonScanner
from cowbird.errors import UserError
from cowbird.experiments.spec import Spec
from cowbird.experiments.tasks import find_task
from cowbird.files import write_text
from cowbird.rng import stream
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning

DEMO_SCANNER = PoisonScanner(
    llm=Llm(layers=2, rank=32, alpha=64),
    tuning=Tuning(epochs=3, batch_size=64, learning_rate=2e-3, compiled=False),
    rounds=1,
    proposals=256,
)
"""A scanner that two processor cores fit in about a minute; `cowbird fit-scanner` makes a better one."""


def write_catalog(spec: Spec, path: Path) -> frozenset[int]:
    """Write the catalogue as the spec's first attack leaves it under its first seed.

    Args:
        spec: An experiment whose attack writes into titles, with victims that judge them.
        path: Where it goes: a CSV file with the columns `id` and `title`.

    Returns:
        The rows whose title carries the trigger, counted from 1 below the header.

    Raises:
        UserError: If the data can't be read, or the attack does not fit it or changes no title.
    """
    seed = spec.seeds[0]
    split: Any = spec.get_split(find_task(spec.victims[0].options))
    training: TrainingData = split.apply(spec.dataset.options.load(), seed).training
    poisoned = spec.attacks[0].options.poison(training, stream(seed, "attack"))
    if not len(poisoned.retitled):
        raise UserError(f"The attack {spec.attacks[0].title()} changes no title.", "Use badrec.")
    write_text(path, _to_csv(poisoned.data.items))
    changed: list[int] = (poisoned.retitled + 1).tolist()
    return frozenset(changed)


def _to_csv(items: Items) -> str:
    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(("id", "title"))
    writer.writerows(zip(items.ids, items.titles, strict=True))
    return held.getvalue()


def format_tally(findings: Path, poisoned: frozenset[int]) -> str:
    """Return what was flagged of the titles that were changed, and of the others.

    Args:
        findings: What a scan wrote, as CSV.
        poisoned: What `write_catalog` returned.
    """
    table = pl.read_csv(findings, columns=["row", "flagged"])
    flagged = table["flagged"].to_numpy()
    bad = np.isin(table["row"].to_numpy(), list(poisoned))
    return (
        f"Flagged: {int((flagged & bad).sum())} of the {int(bad.sum())} titles that carry the trigger, and "
        f"{int((flagged & ~bad).sum())} of the {int((~bad).sum()):,} others."
    )
