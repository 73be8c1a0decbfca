"""The ready scanner, calibrated once on clean titles of one's own: what judges daily uploads, single ones too.

A `CalibratedScanner` is the scanner that comes with the package and an `Inventory` of one's own titles. Its file holds
no title: counts of words, characters and shapes, hashes of fragments, and scores. It is sealed with a hash, so that
damage and edits are found; a seal keeps out no attacker, for anybody can compute it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cowbird.defenses.p_scanner.baseline import (
    DEFAULT_FPR,
    DEFAULT_REVIEW_FPR,
    MIN_TITLES_PER_BASELINE,
    Baseline,
    ReadyVerdicts,
    check_baseline,
)
from cowbird.defenses.p_scanner.catalog_judge import (
    CatalogJudge,
    count_phrases,
    draw_sample,
    join_verdicts,
    list_verdicts,
    look_at_whole,
    read_rounded,
    sample_titles,
)
from cowbird.defenses.p_scanner.column_evidence import TitleColumns
from cowbird.defenses.p_scanner.inventory import Inventory
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.second_look import OpenBand
from cowbird.defenses.p_scanner.slip_evidence import SlipHabits
from cowbird.defenses.p_scanner.small_tagger import TaggerName
from cowbird.defenses.p_scanner.spelling import SPELLINGS
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile, SpellingCounts
from cowbird.defenses.p_scanner.title_rules import RULES, WORD_KINDS
from cowbird.defenses.p_scanner.token_logits import TokenLogits
from cowbird.defenses.p_scanner.whole_counts import WholeEvidence
from cowbird.defenses.scan_table import scan_table
from cowbird.errors import OutageError, UserError
from cowbird.files import hash_texts
from cowbird.storage import read_tensors, write_tensors
from cowbird.text import replace_surrogates
from cowbird.victims.fit_context import ProgressCallback, report_nothing

CALIBRATION_VERSION = 3
"""Grows when the file's form changes."""
CALIBRATE_HINT = "Make it anew: cowbird calibrate CATALOG --out FILE, or cowbird fit-scanner CATALOG --out DIR."
CALIBRATION_FILE, CALIBRATED_TAGGER = "calibration.safetensors", "tagger"
"""In a folder of `cowbird fit-scanner`: the calibration, and the tagger that it was made with if that is one's own."""
Count = Annotated[int, Field(ge=1)]


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


@dataclass(eq=False)
class CalibratedScanner:
    """The ready scanner beside clean titles of one's own."""

    scanner: ReadyScanner
    """Reads titles, and scores evidence."""
    inventory: Inventory
    """What is usual among the clean titles, and how such titles score."""
    record: CalibrationRecord
    """What the file says."""

    @classmethod
    def calibrate(
        cls,
        scanner: ReadyScanner,
        titles: Sequence[str],
        fpr: float = DEFAULT_FPR,
        review_fpr: float = DEFAULT_REVIEW_FPR,
        report: ProgressCallback = report_nothing,
    ) -> "CalibratedScanner":
        """Calibrate on titles that are taken for clean.

        Args:
            scanner: The ready scanner.
            titles: Titles of the source whose uploads will be judged; of very many a sample is taken.
            fpr: Share of clean titles that may be flagged.
            review_fpr: Share of clean titles that may be flagged or put up for review.
            report: Told of titles read and all of them.

        Raises:
            UserError: If there are too few different titles, or a rate is no share.
        """
        sample = sample_titles([title for title in titles if title.strip()])
        check_baseline(0, len(sample), fpr, review_fpr)
        inventory = scanner.take_inventory(sample, report)
        profile = inventory.profile
        record = CalibrationRecord(
            scanner=scanner.identity,
            tagger=scanner.tagger_name,
            titles=len(sample),
            titles_sha256=hash_texts(sorted(map(replace_surrogates, sample))),
            fpr=fpr,
            review_fpr=max(fpr, review_fpr),
            characters=_make_portable(profile.characters),
            words=_make_portable(profile.words),
            shapes=_make_portable(profile.shapes),
            slip_names={} if inventory.slips is None else _make_portable(inventory.slips.names),
        )
        return cls(scanner, inventory, record)

    @property
    def key(self) -> str:
        """What the scanner is, the clean titles included: the same key, the same verdicts on one device."""
        return hash_texts([self.scanner.key, self.inventory.key, repr((self.record.fpr, self.record.review_fpr))])

    def learn_baseline(
        self, titles: Sequence[str] = (), fpr: float | None = None, review_fpr: float | None = None
    ) -> Baseline:
        """Return the baseline for titles that are judged together; without any, for single ones.

        Args:
            titles: The titles; different ones.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.

        Raises:
            UserError: If a rate is no share.
        """
        marks, rates = read_rounded(self.scanner, titles), self._choose_rates(fpr, review_fpr)
        return self.scanner.learn_beside(self.inventory, titles, *rates, marks=marks)

    def _choose_rates(self, fpr: float | None, review_fpr: float | None) -> tuple[float, float]:
        """Return rates, the calibration's own where none is given."""
        return self.record.fpr if fpr is None else fpr, self.record.review_fpr if review_fpr is None else review_fpr

    def judge_apart(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> ReadyVerdicts:
        """Judge titles, each as if it were uploaded alone: a verdict depends on the title and the calibration.

        Titles are any texts; rates as in `learn_baseline`.

        Raises:
            UserError: If a rate is no share.
        """
        baseline = self.learn_baseline((), fpr, review_fpr)
        found = self.scanner.judge(titles, baseline, read_rounded(self.scanner, titles))
        return join_verdicts(list_verdicts(titles, found))

    def judge_titles(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> ReadyVerdicts:
        """Judge titles among each other: what recurs among them and is new beside the calibration counts, too.

        Arguments as in `judge_apart`.

        Raises:
            UserError: If a rate is no share.
        """
        return self.learn_from_all(titles, fpr, review_fpr).judge(titles)

    def learn_from_all(
        self, titles: Sequence[str], fpr: float | None = None, review_fpr: float | None = None
    ) -> CatalogJudge:
        """Return what judges the titles of a catalogue that is in memory; see `make_judge`."""
        sample = draw_sample(titles)
        chosen = sample.list_titles()
        marks = read_rounded(self.scanner, chosen)
        whole = look_at_whole(self.scanner, sample, marks, partial(count_phrases, titles))
        return self.make_judge(chosen, fpr, review_fpr, marks=marks, whole=whole)

    def make_judge(
        self,
        sample: Sequence[str],
        fpr: float | None = None,
        review_fpr: float | None = None,
        columns: TitleColumns | None = None,
        marks: TokenLogits | None = None,
        whole: WholeEvidence | None = None,
    ) -> CatalogJudge:
        """Return what judges the titles of a catalogue beside the calibration.

        Args:
            sample: The catalogue's titles, or a sample of them; different ones, none empty.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.
            columns: Other columns of the titles, which explain what recurs; `None` for none.
            marks: What `read_rounded` returned for the sample, if it was read already.
            whole: What `look_at_whole` returned for it.

        Raises:
            UserError: If a rate is no share.
        """
        rates = self._choose_rates(fpr, review_fpr)
        marks = read_rounded(self.scanner, sample) if marks is None else marks
        baseline = self.scanner.learn_beside(self.inventory, sample, *rates, marks=marks, columns=columns, whole=whole)
        known = dict(zip(sample, list_verdicts(sample, self.scanner.judge(sample, baseline, marks)), strict=True))
        return CatalogJudge(lambda: self.scanner, baseline, known)

    def scan(
        self, titles: object, text_column: str = "title", fpr: float | None = None, review_fpr: float | None = None
    ) -> Any:
        """Judge the titles of a list, a polars or pandas series, or a frame, among each other; see `judge_titles`.

        Args:
            titles: The titles. `None` stands for a missing one: its row is not judged, and stays.
            text_column: The column of titles, where it is a frame.
            fpr: Share of clean titles that may be flagged; the calibration's own by default.
            review_fpr: Share that may be flagged or put up for review; likewise.

        Returns:
            One row a title, in order: what was given, then the columns of `scan_table`, `reason` among them.

        Raises:
            UserError: If it is a single string or no table, or a rate is no share.
        """
        return scan_table(lambda texts: self.judge_titles(texts, fpr, review_fpr), titles, text_column)

    def save(self, path: Path) -> str:
        """Write the calibration, and return the file's hash.

        Raises:
            UserError: If it can't be written.
        """
        held = _list_arrays(self.inventory)
        record = json.dumps(self.record.model_dump(), ensure_ascii=True, sort_keys=True, allow_nan=False)
        header = {"cowbird": f"calibration {CALIBRATION_VERSION}", "record": record, "seal": _seal(record, held)}
        return write_tensors(path, {name: torch.from_numpy(values.copy()) for name, values in held.items()}, header)


def is_calibrated(path: Path) -> bool:
    """Tell whether a calibration is looked for there: in a file, or in a folder that has one."""
    return path.is_file() or (path / CALIBRATION_FILE).is_file()


def load_calibrated_scanner(path: Path, device: str = "cpu", scanner: ReadyScanner | None = None) -> CalibratedScanner:
    """Read what `CalibratedScanner.save` wrote.

    Args:
        path: The file, or the folder that `cowbird fit-scanner` wrote.
        device: Where the tagger runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        scanner: The ready scanner, if it is loaded already.

    Raises:
        UserError: If the file does not hold a calibration, one of another version or of another scanner, or a damaged
            one; or if the language model can't be used.
    """
    record, inventory = read_calibration(path)
    if scanner is None:
        own = path / CALIBRATED_TAGGER
        scanner = ReadyScanner.load(device, own if own.is_dir() else record.tagger)
    if record.scanner != scanner.identity:
        raise UserError(
            f"'{path}' was calibrated with another version of the ready scanner, which scored titles otherwise. So its "
            "thresholds do not hold here.",
            _hint_at_calibration(path, record),
        )
    return CalibratedScanner(scanner, inventory, record)


def _hint_at_calibration(path: Path, record: CalibrationRecord) -> str:
    """Return what makes a calibration anew."""
    if path.is_dir():
        return f"Make it anew: cowbird fit-scanner CATALOG --out {path}."
    return f"Make it anew: cowbird calibrate CATALOG --tagger {record.tagger} --fpr {record.fpr:g} --out {path}."


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
    return Inventory(profile, members, fragments, shapes, scores, known, spread, _read_slips(record, held))


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
