"""Tells whether two versions of the package score titles alike.

A calibration keeps thresholds of scores. They hold only where titles are scored as they were then. So the identity of a
scanner holds its weights, all constants of the modules that make scores, and `SCORE_FORM`, which stands for their code.
"""

import re
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from cowbird.defenses.p_scanner.spelling import PLAIN_WORDS
from cowbird.files import hash_file, hash_texts

SCORE_FORM = 6
"""Grows with each change of code that changes a score; `tests/defenses/p_scanner/test_score_identity.py` tells when."""
SCORE_MODULES = (
    "baseline",
    "baseline_learning",
    "catalog_judge",
    "clean_scores",
    "column_evidence",
    "fragment_evidence",
    "fragment_index",
    "fragment_table",
    "fragment_verdicts",
    "inventory",
    "reference_role",
    "scoring",
    "second_look",
    "shape_drift",
    "slip_evidence",
    "spelling",
    "title_context",
    "title_evidence",
    "title_pieces",
    "title_rules",
    "title_sample",
    "title_slips",
    "title_spelling",
    "title_traits",
    "title_words",
    "token_logits",
    "whole_counts",
    "word_shapes",
)
"""Modules that make scores and thresholds of what a tagger says."""
MAX_ARRAY_WRITTEN = 1 << 12
"""Numbers of an array that is no table of all characters."""
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")


@cache
def hash_score_form() -> str:
    """Return a hash of all that makes a score of what a tagger says, but for the networks' weights."""
    room = __package__ or ""
    told = [f"{name} {line}" for name in SCORE_MODULES for line in list_constants(import_module(f"{room}.{name}"))]
    return hash_texts([str(SCORE_FORM), *told, hash_file(PLAIN_WORDS)])


def list_constants(module: ModuleType) -> list[str]:
    """Return the constants of a module by name; files and what is no plain value are left out."""
    held = sorted((name, value) for name, value in vars(module).items() if _CONSTANT.fullmatch(name))
    written = ((name, _write_value(value)) for name, value in held)
    return [f"{name} {text}" for name, text in written if text]


def _write_value(value: Any) -> str:
    """Return a value as text, the same in every process; empty for what is no plain value."""
    held: Any = value  # whose parts are of any kind
    if isinstance(value, re.Pattern):
        return repr((held.pattern, held.flags))
    if isinstance(value, np.ndarray):
        return repr((held.dtype.str, held.shape, held.tobytes().hex() if held.size < MAX_ARRAY_WRITTEN else ""))
    if isinstance(value, frozenset | set):
        return repr(sorted(map(_write_value, held)))
    if isinstance(value, tuple | list):
        return repr(list(map(_write_value, held)))
    if isinstance(value, dict):
        return repr(sorted((_write_value(key), _write_value(each)) for key, each in held.items()))
    return repr(value) if isinstance(value, bool | int | float | str) else ""
