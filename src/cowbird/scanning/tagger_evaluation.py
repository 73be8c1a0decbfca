"""What a trained tagger finds in single titles of lists that it never saw, family by family.

Half of a list sets a threshold for 1 %. The other half says how many fresh clean titles score above it, and triggers of
each family are planted in it, made of words that training leaves out.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.triggers.title_edits import EditSources, edit_title, list_taught_families
from cowbird.metrics.detection import auroc
from cowbird.rng import stream
from cowbird.victims.fit_context import ProgressCallback, report_nothing

EVALUATED_FPR = 0.01
"""Share of clean titles that the threshold stands for."""
MAX_TITLES_ASKED, MIN_TITLES_ASKED = 1500, 20
"""Clean titles of a half, at most; a list with fewer in each half is not asked about."""
TRIGGERS_PER_FAMILY, TRIES_PER_TRIGGER = 100, 5
"""Titles with a trigger of a family, at most, and titles tried for each."""


class AskedTagger(Protocol):
    """What reads titles: a tagger of either kind."""

    def read(self, titles: Sequence[str]) -> TokenLogits:
        """Return the log-odds of every token and of every title."""
        ...


def evaluate_tagger(
    tagger: AskedTagger,
    lists: dict[str, list[str]],
    words: Sequence[str],
    seed: int,
    report: ProgressCallback = report_nothing,
) -> list[dict[str, Any]]:
    """Ask a tagger about single titles of lists.

    Args:
        tagger: The tagger.
        lists: Titles that it never saw, by list.
        words: Plain words that it was not taught with.
        seed: Draws halves, triggers and places.
        report: Told of lists done and all of them.

    Returns:
        One record a list: `list`, `titles`, `fpr` (measured on fresh titles), and `families`, worst first, each with
        `family`, `titles`, `auroc` and `recall`; `families` is empty for a list that is too short.
    """
    found: list[dict[str, Any]] = []
    for done, (name, titles) in enumerate(lists.items()):
        report(done, len(lists), name)
        found.append(_ask_list(tagger, name, titles, words, seed))
    report(len(lists), len(lists), "")
    return found


def _ask_list(tagger: AskedTagger, name: str, titles: list[str], words: Sequence[str], seed: int) -> dict[str, Any]:
    order: list[int] = stream(seed, "halves", name).permutation(len(titles)).tolist()
    half = min(MAX_TITLES_ASKED, len(titles) // 2)
    if half < MIN_TITLES_ASKED:
        return {"list": name, "titles": half, "fpr": None, "families": []}
    known, fresh = ([titles[row] for row in part] for part in (order[:half], order[half : 2 * half]))
    bar = float(np.quantile(tagger.read(known).verdict, 1 - EVALUATED_FPR, method="higher"))
    clean = tagger.read(fresh).verdict
    rows: list[dict[str, Any]] = []
    for family in list_taught_families():
        planted = _plant_family(family, fresh, words or ("word",), stream(seed, "asked", name, family))
        if not planted:
            continue
        scores = tagger.read(planted).verdict
        truth = np.arange(len(clean) + len(scores)) >= len(clean)
        rows.append(
            {
                "family": family,
                "titles": len(planted),
                "auroc": round(float(auroc(np.concatenate([clean, scores]), truth) or 0.0), 4),
                "recall": round(float((scores > bar).mean()), 4),
            }
        )
    rows.sort(key=lambda row: (row["recall"], row["auroc"], row["family"]))
    return {"list": name, "titles": half, "fpr": round(float((clean > bar).mean()), 4), "families": rows}


def _plant_family(family: str, titles: list[str], words: Sequence[str], rng: np.random.Generator) -> list[str]:
    sources, made = EditSources(words, titles), list[str]()
    for _ in range(TRIGGERS_PER_FAMILY * TRIES_PER_TRIGGER):
        if len(made) == min(TRIGGERS_PER_FAMILY, len(titles)):
            break
        edited = edit_title(family, titles[int(rng.integers(len(titles)))], rng, sources)
        if edited is not None:
            made.append(edited.title)
    return made
