"""A baseline: what a model's states look like where it answers, beside those of honest tunings of the same base.

Activation probes look for a direction in which a poisoned model's states stand apart (spectral signatures: Tran et al.,
NeurIPS 2018). They need poisoned questions among those asked, and an inspector has none that she knows of. So plain
statistics of the states of honest questions stand for that. No verdict rests on them.
"""

import math
from collections.abc import Sequence

import numpy as np

from cowbird.data.types import Float64Array
from cowbird.inspection.language.fragment_scorer import FragmentScorer
from cowbird.inspection.language.questions import TitleQuestion

ACTIVATION_STATISTICS = ("size", "spread", "top share", "top tail")
"""Logarithms of the states' mean norm and of their spread; the first direction's share of the variance, and how heavy
the tails of the states are in that direction (kurtosis)."""


def describe_activations(scorer: FragmentScorer, questions: Sequence[TitleQuestion]) -> dict[str, float]:
    """Return the statistics of a model's states.

    Args:
        scorer: The model.
        questions: What is asked, two or more.
    """
    return describe_states(scorer.read_states([question.write() for question in questions]).astype(np.float64))


def describe_states(states: Float64Array) -> dict[str, float]:
    """Return the statistics of states, shape `[questions, hidden]`; empty if there are fewer than two."""
    if len(states) < 2:
        return {}
    centered = states - states.mean(axis=0)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    variance = max(float((values**2).sum()), 1e-12)
    along: Float64Array = centered @ directions[0]
    second = max(float(np.mean(along**2)), 1e-12)
    found = (
        math.log(max(float(np.linalg.norm(states, axis=1).mean()), 1e-12)),
        0.5 * math.log(variance / len(states)),
        float(values[0] ** 2) / variance,
        math.log(max(float(np.mean(along**4)) / second**2, 1e-12)),
    )
    return dict(zip(ACTIVATION_STATISTICS, found, strict=True))
