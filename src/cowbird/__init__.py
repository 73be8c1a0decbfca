"""Cowbird plants known backdoors in recommenders, measures them, and searches titles for planted triggers.

This is the public Python API. Each name is imported when it is first used, so `import cowbird` alone loads neither
torch nor polars. See `docs/how-to/python.md` for examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cowbird.errors import UserError as UserError

if TYPE_CHECKING:
    from cowbird import metrics as metrics
    from cowbird.api.experiments import Experiment as Experiment
    from cowbird.api.experiments import Results as Results
    from cowbird.api.experiments import run as run
    from cowbird.api.inspection import inspect_adapter as inspect_adapter
    from cowbird.api.inspection import inspect_model as inspect_model
    from cowbird.api.stealth import compare_texts as compare_texts
    from cowbird.attacks.base import PoisonedData as PoisonedData
    from cowbird.data.sources.frames import make_dataset as make_dataset
    from cowbird.data.types import Dataset as Dataset
    from cowbird.data.types import Interactions as Interactions
    from cowbird.data.types import TrainingData as TrainingData
    from cowbird.defenses.p_scanner.calibrated import CalibratedScanner as CalibratedScanner
    from cowbird.defenses.p_scanner.loading import load_scanner as load_scanner
    from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner as FittedScanner
    from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner as PoisonScanner
    from cowbird.inspection.language.inspection import LanguageInspection as LanguageInspection
    from cowbird.inspection.verdict import Inspection as Inspection
    from cowbird.plugins import find_plugin as find_plugin
    from cowbird.plugins import list_plugins as list_plugins

__version__ = "0.1.0"

_HOMES = {
    "CalibratedScanner": "cowbird.defenses.p_scanner.calibrated",
    "Dataset": "cowbird.data.types",
    "Experiment": "cowbird.api.experiments",
    "FittedScanner": "cowbird.defenses.p_scanner.rounds.fitted_scanner",
    "Inspection": "cowbird.inspection.verdict",
    "Interactions": "cowbird.data.types",
    "LanguageInspection": "cowbird.inspection.language.inspection",
    "PoisonScanner": "cowbird.defenses.p_scanner.rounds.poison_scanner",
    "PoisonedData": "cowbird.attacks.base",
    "Results": "cowbird.api.experiments",
    "TrainingData": "cowbird.data.types",
    "compare_texts": "cowbird.api.stealth",
    "find_plugin": "cowbird.plugins",
    "inspect_adapter": "cowbird.api.inspection",
    "inspect_model": "cowbird.api.inspection",
    "list_plugins": "cowbird.plugins",
    "load_scanner": "cowbird.defenses.p_scanner.loading",
    "make_dataset": "cowbird.data.sources.frames",
    "metrics": "",
    "run": "cowbird.api.experiments",
}
"""The module of each public name; empty for a module of this package."""

__all__ = [
    "CalibratedScanner",
    "Dataset",
    "Experiment",
    "FittedScanner",
    "Inspection",
    "Interactions",
    "LanguageInspection",
    "PoisonScanner",
    "PoisonedData",
    "Results",
    "TrainingData",
    "UserError",
    "__version__",
    "compare_texts",
    "find_plugin",
    "inspect_adapter",
    "inspect_model",
    "list_plugins",
    "load_scanner",
    "make_dataset",
    "metrics",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cowbird' has no attribute '{name}'")
    home = _HOMES[name]
    found = getattr(import_module(home), name) if home else import_module(f"cowbird.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
