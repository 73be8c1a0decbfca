"""What a spec would run, told before anything is trained."""

from typing import Any

from cowbird.experiments.spec import Spec


def describe_run(spec: Spec) -> dict[str, Any]:
    """Return what a spec would run, as plain JSON values.

    Args:
        spec: The spec.

    Returns:
        `name`, `description` and `dataset`; the labels of `victims`, `attacks`, `defenses` and `scenarios`; `seeds`;
        `cells`, how many pairs of a victim and a seed there are; and `combinations`, how many (attack or clean) ×
        defense × scenario each of them comes to.
    """
    found = {"name": spec.name, "description": spec.description, "dataset": spec.dataset.title()}
    labels = {
        key: [part.title() for part in getattr(spec, key)] for key in ("victims", "attacks", "defenses", "scenarios")
    }
    return {
        **found,
        **labels,
        "seeds": list(spec.seeds),
        "cells": len(spec.victims) * len(spec.seeds),
        "combinations": (1 + len(spec.attacks)) * len(spec.defenses) * len(spec.scenarios),
    }
