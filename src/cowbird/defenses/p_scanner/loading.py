"""Scanners by where they lie: the one that comes with the package, a calibrated one, a fitted one."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import torch

from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.calibration_file import is_calibrated
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import TaggerName, TaggerSource
from cowbird.defenses.p_scanner.tagger import READY_TAGGER, read_tagger_record
from cowbird.errors import UserError
from cowbird.victims.language.llm import import_transformers, locate_model

if TYPE_CHECKING:
    from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner


class ChosenTagger(NamedTuple):
    """A tagger that nobody named."""

    name: TaggerName
    """Which of those that come with the package."""
    lacking: str = ""
    """Why it is not the one that suits the device; empty if it is."""


def choose_ready_tagger(device: str | torch.device) -> ChosenTagger:
    """Return the tagger that suits a device: the language model on a GPU, the cascade on a processor.

    On a processor without the language model's files it is the small one.

    Args:
        device: Where it runs: `cpu`, `cuda` or `cuda:N`.
    """
    if torch.device(device).type != "cpu":
        return ChosenTagger("llm")
    try:
        if find_spec("transformers") is None:
            import_transformers()
        locate_model(read_tagger_record(READY_TAGGER).llm.name)
    except UserError as error:
        return ChosenTagger("small", str(error))
    return ChosenTagger("cascade")


@overload
def load_scanner(
    path: str | Path, device: str | torch.device = "cpu", base: str | None = None
) -> "FittedScanner | CalibratedScanner": ...
@overload
def load_scanner(
    path: None = None,
    device: str | torch.device = "cpu",
    base: None = None,
    tagger: TaggerSource = "llm",
    slips: bool = False,
) -> ReadyScanner: ...
def load_scanner(
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    base: str | None = None,
    tagger: TaggerSource = "llm",
    slips: bool = False,
) -> "FittedScanner | CalibratedScanner | ReadyScanner":
    """Read a scanner, or the one that comes with the package and needs no fit.

    Args:
        path: A file that `cowbird calibrate` wrote, or a folder that `cowbird fit-scanner` wrote; `None` for the one
            that comes with the package.
        device: Where it runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        base: The language model a fitted scanner was made of, if that was a folder and now stands elsewhere; `None`
            finds it by its name, or where it was on this machine.
        tagger: What reads titles in the scanner that comes with the package: `llm`, a language model; `small`, which
            finds less and is far faster; `cascade`, the small one, and the language model for titles that it leaves
            open; or the folder of a tagger of your own. Other scanners know theirs.
        slips: Whether the scanner that comes with the package asks the language model, too, how misspelled words are
            meant; see `ReadyScanner.load`.

    Raises:
        UserError: If no scanner lies there, one of another version, or a damaged one; if the device can't be used; or
            if the language model is not found.
    """
    if path is None:
        return ReadyScanner.load(str(device), tagger, slips)
    if is_calibrated(Path(path)):
        return load_calibrated_scanner(Path(path), str(device))
    from cowbird.defenses.p_scanner.rounds.fitted_scanner import load_fitted_scanner  # noqa: PLC0415

    return load_fitted_scanner(path, device, base)
