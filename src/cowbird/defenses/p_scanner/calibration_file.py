"""The file of a calibration: what it holds, how it is written, and how it is read and checked.

It is a stranger's file until it is checked: sizes, ranges and its seal. A seal finds damage and edits; it keeps out no
attacker, for anybody can compute it. Nothing of it is run or unpickled.

It holds counts of words, characters and shapes, hashes of fragments, and scores. Where a language model that takes
contexts reads titles, it also holds the titles that the model is shown (`title_context`), 192 at most.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cowbird.defenses.p_scanner.baseline import MIN_TITLES_PER_BASELINE
from cowbird.defenses.p_scanner.inventory import Inventory
from cowbird.defenses.p_scanner.second_look import OpenBand
from cowbird.defenses.p_scanner.slip_evidence import SlipHabits
from cowbird.defenses.p_scanner.small_tagger import TaggerName
from cowbird.defenses.p_scanner.spelling import SPELLINGS
from cowbird.defenses.p_scanner.title_context import MAX_CONTEXT_CHARACTERS, MAX_CONTEXT_TITLES, TitleContext
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile, SpellingCounts
from cowbird.defenses.p_scanner.title_rules import RULES, WORD_KINDS
from cowbird.errors import OutageError, UserError
from cowbird.storage import read_tensors, write_tensors
from cowbird.text import replace_surrogates

CALIBRATION_VERSION = 4
"""Grows when the file's form changes."""
CALIBRATE_HINT = "Make it anew: cowbird calibrate CATALOG --out FILE, or cowbird fit-scanner CATALOG --out DIR."
CALIBRATION_FILE, CALIBRATED_TAGGER = "calibration.safetensors", "tagger"
"""In a folder of `cowbird fit-scanner`: the calibration, and the tagger that it was made with if that is one's own."""
Count = Annotated[int, Field(ge=1)]
ShownTitle = Annotated[str, Field(min_length=1, max_length=MAX_CONTEXT_CHARACTERS)]


class CalibrationRecord(BaseModel):
    """What a calibration's file says in words and counts; arrays stand beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    version: int = CALIBRATION_VERSION
    """Of the file's form."""
    scanner: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the ready scanner that titles were read with (`ReadyScanner.identity`)."""
    tagger: TaggerName = "llm"
    """Which tagger that scanner has."""
    titles: int = Field(ge=MIN_TITLES_PER_BASELINE)
    """Titles that were taken for clean."""
    titles_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of those titles."""
    fpr: float = Field(gt=0, lt=1)
    """Share of clean titles that may be flagged."""
    review_fpr: float = Field(gt=0, lt=1)
    """Share of clean titles that may be flagged or put up for review."""
    characters: dict[str, Count]
    """In how many titles each character stands."""
    words: dict[str, Count]
    """The same of words."""
    shapes: dict[str, Count]
    """The same of shapes."""
    slip_names: dict[str, Count] = Field(default_factory=dict)
    """The same of words with capitals inside, quotes or a mark at the end, if slips were asked about."""
    shown: list[ShownTitle] = Field(default_factory=list, max_length=MAX_CONTEXT_TITLES)
    """Titles that the language model is shown before it reads others (`TitleContext.first`)."""
    shown_to_those: list[ShownTitle] = Field(default_factory=list, max_length=MAX_CONTEXT_TITLES)
    """Titles that it is shown before it reads those (`TitleContext.second`)."""


def is_calibrated(path: Path) -> bool:
    """Tell whether a calibration is looked for there: in a file, or in a folder that has one."""
    return path.is_file() or (path / CALIBRATION_FILE).is_file()


def describe_inventory(
    inventory: Inventory, scanner: str, tagger: TaggerName, titles_sha256: str, rates: tuple[float, float]
) -> CalibrationRecord:
    """Return what a file says of an inventory in words and counts.

    Args:
        inventory: The inventory.
        scanner: Identity of the ready scanner that titles were read with.
        tagger: Which tagger it has.
        titles_sha256: Hash of the titles.
        rates: False-positive rates for flags, and for flags and review together.
    """
    profile, slips = inventory.profile, inventory.slips
    return CalibrationRecord(
        scanner=scanner,
        tagger=tagger,
        titles=inventory.size,
        titles_sha256=titles_sha256,
        fpr=rates[0],
        review_fpr=max(rates),
        characters=_make_portable(profile.characters),
        words=_make_portable(profile.words),
        shapes=_make_portable(profile.shapes),
        slip_names={} if slips is None else _make_portable(slips.names),
        shown=list(inventory.context.first),
        shown_to_those=list(inventory.context.second),
    )


def write_calibration(path: Path, record: CalibrationRecord, inventory: Inventory) -> str:
    """Write a calibration, and return the file's hash.

    Raises:
        UserError: If it can't be written.
    """
    held = _list_arrays(inventory)
    text = json.dumps(record.model_dump(), ensure_ascii=True, sort_keys=True, allow_nan=False)
    header = {"cowbird": f"calibration {CALIBRATION_VERSION}", "record": text, "seal": _seal(text, held)}
    return write_tensors(path, {name: torch.from_numpy(values.copy()) for name, values in held.items()}, header)


def read_calibration(path: Path) -> tuple[CalibrationRecord, Inventory]:
    """Read and check a calibration's file, without a language model.

    Raises:
        UserError: If it does not hold a calibration, or a damaged one.
    """
    try:
        tensors, header = read_tensors(path / CALIBRATION_FILE if path.is_dir() else path)
    except OutageError:
        raise
    except UserError:
        raise UserError(f"'{path}' does not hold a calibrated scanner.", CALIBRATE_HINT) from None
    held = {name: tensor.numpy() for name, tensor in tensors.items() if tensor.dtype in _DTYPES}
    try:
        if (form := header.get("cowbird", "")) != f"calibration {CALIBRATION_VERSION}":
            older = form.startswith("calibration ")
            raise ValueError("it was made by another version of Cowbird" if older else "it is no calibration")
        text = header["record"]
        if len(held) != len(tensors) or header.get("seal") != _seal(text, held):
            raise ValueError("its seal is not that of its content")
        record = CalibrationRecord.model_validate(json.loads(text))
        return record, _read_inventory(record, held)
    except ValidationError as error:
        reason = f"its record is not valid ({error.error_count()} faults)"
    except (KeyError, ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    raise UserError(f"'{path}' does not hold a calibrated scanner: {reason}.", CALIBRATE_HINT)


_DTYPES = (torch.int64, torch.float32)


def _make_portable(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts with U+FFFD for halves of characters, which JSON in UTF-8 can't hold."""
    made = Counter[str]()
    for text, count in counts.items():
        made[replace_surrogates(text)] += count
    return dict(made)


def _as_signed(hashes: Sequence[int]) -> NDArray[np.int64]:
    return np.array(hashes, dtype=np.uint64).view(np.int64)


def _as_hashes(values: NDArray[Any]) -> list[int]:
    return values.view(np.uint64).tolist()


def _list_arrays(inventory: Inventory) -> dict[str, NDArray[Any]]:
    """Return the arrays of an inventory by name."""
    profile, fragments, shapes = (
        inventory.profile,
        sorted(inventory.fragments.items()),
        sorted(inventory.shapes.items()),
    )
    held: dict[str, NDArray[Any]] = {
        "members": _as_signed(sorted(inventory.members)),
        "fragments": _as_signed([key for key, _ in fragments]),
        "fragment counts": np.array([count for _, count in fragments], dtype=np.int64),
        "shapes": _as_signed([key for key, _ in shapes]),
        "shape counts": np.array([count for _, count in shapes], dtype=np.int64),
        "rules": profile.rules,
        "verdict": profile.verdict,
        "highest": profile.highest,
        "by kind": profile.by_kind,
        "spellings": profile.spellings,
    }
    held |= {f"span marks {kind}": marks for kind, marks in enumerate(profile.span_marks)}
    if inventory.bands:
        bands = [(band.low, band.high) for _, band in sorted(inventory.bands.items())]
        held["bands"] = np.array(bands, dtype=np.float32)
    held |= {f"spread {size}": spread for size, spread in inventory.spread.items()}
    if inventory.slips is not None:
        held["slips from"] = np.array([inventory.slips.low], dtype=np.float32)
        held |= {f"slips {way}": gains for way, gains in enumerate(inventory.slips.gains)}
    return held | {f"scores {size}": scores for size, scores in inventory.scores.items()}


def _seal(record: str, held: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of all that a calibration holds."""
    seal = hashlib.sha256(record.encode())
    for name in sorted(held):
        values = np.ascontiguousarray(held[name])
        seal.update(f"\0{name}\0{values.dtype}\0{values.shape}\0".encode())
        seal.update(values.tobytes())
    return seal.hexdigest()


def _read_inventory(record: CalibrationRecord, held: Mapping[str, NDArray[Any]]) -> Inventory:
    """Return an inventory of arrays.

    Raises:
        ValueError: If they do not fit each other.
        KeyError: If one is missing.
    """
    many, kinds = record.titles, len(WORD_KINDS)
    sizes = sorted(int(name.removeprefix("scores ")) for name in held if name.startswith("scores "))
    spans = tuple(held[f"span marks {kind}"] for kind in range(kinds))
    shapes = {"rules": (len(RULES),), "verdict": (many,), "highest": (many,), "by kind": (many, kinds)}
    shapes["spellings"] = (len(SPELLINGS),)
    shapes |= {f"scores {size}": (many,) for size in sizes}
    if record.tagger == "cascade":
        shapes["bands"] = (len(sizes), 2)
    if not sizes or sizes[0] < 1 or any(held[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("its arrays do not fit each other")
    spread = {size: held[f"spread {size}"] for size in sizes[1:]}
    if any(each.shape[1:] != (2,) or not len(each) or each.min() < 0 or each.max() > 1 for each in spread.values()):
        raise ValueError("its shares of batches are out of range")
    counted = ("fragment", "shape")
    if sum(map(len, spans)) != many or any(held[f"{name}s"].shape != held[f"{name} counts"].shape for name in counted):
        raise ValueError("its arrays do not fit each other")
    low = any((held[f"{name} counts"] < 1).any() for name in counted)
    if low or not all(np.isfinite(values).all() for values in held.values()):
        raise ValueError("its numbers are out of range")
    profile = CatalogProfile(
        size=many,
        characters=Counter(record.characters),
        words=Counter(record.words),
        shapes=Counter(record.shapes),
        rules=held["rules"],
        verdict=np.sort(held["verdict"]),
        highest=np.sort(held["highest"]),
        by_kind=np.sort(held["by kind"], axis=0),
        span_marks=tuple(np.sort(marks) for marks in spans),
        spelled=SpellingCounts(record.words, held["spellings"]),
    )
    fragments, shapes = (
        dict(zip(_as_hashes(held[f"{name}s"]), held[f"{name} counts"].tolist(), strict=True)) for name in counted
    )
    scores = {size: np.sort(held[f"scores {size}"])[::-1] for size in sizes}
    bands: list[list[float]] = held["bands"].tolist() if record.tagger == "cascade" else []
    known = {size: OpenBand(low, high) for size, (low, high) in zip(sizes, bands, strict=False)}
    members = frozenset(_as_hashes(held["members"]))
    slips, context = _read_slips(record, held), _read_context(record)
    return Inventory(profile, members, fragments, shapes, scores, known, spread, slips, context)


def _read_context(record: CalibrationRecord) -> TitleContext:
    """Return the titles that a language model is shown.

    Raises:
        ValueError: If they are none that could have been chosen.
    """
    context = TitleContext(tuple(record.shown), tuple(record.shown_to_those))
    shown = [*context.first, *context.second]
    if context != TitleContext.choose(shown) or (shown and record.tagger == "small"):
        raise ValueError("the titles that it shows are not as they are chosen")
    return context


def _read_slips(record: CalibrationRecord, held: Mapping[str, NDArray[Any]]) -> SlipHabits | None:
    """Return how often titles have slips, `None` if nothing was asked about them.

    Raises:
        ValueError: If the arrays do not fit each other.
        KeyError: If one is missing.
    """
    if "slips from" not in held:
        return None
    gains = tuple(np.sort(held[f"slips {way}"]) for way in range(len(SPELLINGS)))
    if held["slips from"].shape != (1,) or any(each.ndim != 1 or len(each) > record.titles for each in gains):
        raise ValueError("its arrays do not fit each other")
    return SlipHabits(float(held["slips from"][0]), gains, record.titles, names=record.slip_names)
