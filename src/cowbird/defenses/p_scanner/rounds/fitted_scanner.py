"""A scanner that was fitted: it judges titles, flags those above a threshold, and is written and read.

What is written is the adapter as peft reads it, beside `scanner.json`, which holds all that is not in the weights: how
evidence is weighed, what thresholds come from, and what happened in each round.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cowbird.data.types import Float32Array, Int32Array
from cowbird.defenses.p_scanner.rounds.calibration import Calibration
from cowbird.defenses.p_scanner.rounds.context_gain import ContextGain, PhraseGain
from cowbird.defenses.p_scanner.rounds.ngram_scoring import NGRAM_FEATURES, NgramClassifier, judge_apart, judge_titles
from cowbird.defenses.p_scanner.token_logits import TokenLogits, read_logits
from cowbird.defenses.p_scanner.triggers.agent import RecipeOutcome
from cowbird.defenses.scan_table import scan_table
from cowbird.defenses.titles import Suspicion
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_texts, read_plain_text
from cowbird.path_hints import suggest_close_paths
from cowbird.victims.fit_context import pick_device
from cowbird.victims.language import serialization
from cowbird.victims.language.base_record import name_base
from cowbird.victims.language.llm import Llm, LoadedModel, load_llm
from cowbird.victims.language.tuning import Tuning

SCANNER_NAME, SCANNER_RECORD_FILE, SCANNER_VERSION = "scanner", "scanner.json", 6
SCANNER_PURPOSE = """\
A scanner: a language model that was tuned to tell which words of an item's title look planted. It was taught with
triggers that were written for it. `cowbird scan CATALOG --scanner FOLDER` uses it; the adapter alone gives no verdicts.
It finds nothing in models."""
READER_BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens that are read at once: what a small CPU's cache holds, or enough work for a GPU."""


class ScanVerdicts(NamedTuple):
    """What a scanner makes of some titles; arrays of the shape `[titles]`."""

    score: Float32Array
    """Grows with suspicion; -inf where there is nothing to judge."""
    start: Int32Array
    """First character of the most suspicious span, -1 where there is none."""
    end: Int32Array
    """The character after its last one."""
    flagged: NDArray[np.bool_]
    """Whether the score is above the threshold."""
    review: NDArray[np.bool_]
    """Whether it is not, but above that of the rate for review: a person should look."""


class Round(BaseModel):
    """What happened in a round."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    number: int = Field(ge=1, le=10_000)
    """Counts from 1."""
    trusted: int = Field(ge=0, le=10**12)
    """Titles taken for clean."""
    proposed: int = Field(ge=0, le=10**9)
    """New triggers."""
    before: tuple[RecipeOutcome, ...]
    """Some of the round's new triggers, and the share of titles with each that the scanner caught before it learned
    them; none in the first round, when there is no scanner yet."""
    after: tuple[RecipeOutcome, ...]
    """The same after it did."""
    refused: tuple[str, ...] = ()
    """Why answers of the agent were not taken."""
    seconds: float = Field(ge=0, le=1e8)
    """How long it took."""


class Record(BaseModel):
    """What `scanner.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    version: int = Field(default=SCANNER_VERSION, ge=1, le=10_000)
    """Of this file's form."""
    llm: Llm
    """The language model that was tuned, and what of it."""
    tuning: Tuning
    """How it was tuned; says the number format in which it reads."""
    weights: NgramClassifier
    """How fragments are weighed."""
    calibration: Calibration
    """What thresholds come from: titles judged among all of the catalogue."""
    alone: Calibration
    """The same titles, each judged by itself."""
    fpr: float = Field(gt=0, lt=1)
    """False-positive rate that was asked for."""
    review_fpr: float = Field(gt=0, lt=1)
    """The one for review."""
    titles_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the titles it was fitted to."""
    rounds: tuple[Round, ...]
    """What happened."""
    last: tuple[RecipeOutcome, ...] = ()
    """Triggers that were proposed when nearly all were caught at once, so that no other round was needed."""
    gains: tuple[PhraseGain, ...] | None = None
    """What phrases that recur in those titles gain (`context_gain`); `None` if that is not asked."""

    @field_validator("weights")
    @classmethod
    def _fits(cls, weights: NgramClassifier) -> NgramClassifier:
        if len(weights.weight) != len(NGRAM_FEATURES):
            raise ValueError(f"there are {len(NGRAM_FEATURES)} weights to a fragment, and it has {len(weights.weight)}")
        return weights


@dataclass
class FittedScanner:
    """A scanner that was fitted to a catalogue."""

    record: Record
    """What it is."""
    loaded: LoadedModel
    """The tuned language model and its tokenizer."""
    device: torch.device
    """Where it runs."""
    fitted_to: Suspicion | None = None
    """What it made of the different titles that it was fitted to; `None` for a loaded one."""
    capacity: int | None = None
    """Most tokens in a packed row; `None` takes what suits the device."""
    compiled: bool = field(default=False)
    """Whether layers are compiled on a GPU, which pays for many titles."""

    @property
    def key(self) -> str:
        """What the scanner is, its weights included; the same key gives the same verdicts on one device."""
        told = [self._make_portable_record().model_dump_json(exclude={"rounds", "last"})]
        for name, weight in self.loaded.model.named_parameters():
            if weight.requires_grad:
                told += [name, hash_texts([weight.detach().float().cpu().numpy().tobytes().hex()])]
        return f"{SCANNER_NAME}-{SCANNER_VERSION}-{self.device.type}-{hash_texts(told)}"

    @cached_property
    def whole(self) -> LoadedModel:
        """The language model as published, all of it; loaded when it is first wanted."""
        return load_whole_llm(self.record.llm, self.record.tuning, self.device)

    def threshold(self, fpr: float | None = None, alone: bool = False) -> float:
        """Return the score above which a title is flagged; see `Calibration.threshold`.

        Args:
            fpr: Share of clean titles that may be flagged; the scanner's own by default.
            alone: Whether titles are judged each by itself.
        """
        calibration = self.record.alone if alone else self.record.calibration
        return calibration.threshold(self.record.fpr if fpr is None else fpr)

    def score(self, titles: Sequence[str]) -> Float32Array:
        """Return how suspicious titles are among each other, shape `[titles]`; -inf where there is nothing to judge."""
        return self.suspect(titles).score

    def suspect(self, titles: Sequence[str]) -> Suspicion:
        """Judge titles: by themselves, and by what recurs among them. A repeated title counts once.

        Args:
            titles: Any texts.
        """
        number = {title: nth for nth, title in enumerate(dict.fromkeys(titles))}
        rows = np.array([number[title] for title in titles], dtype=np.int64)
        different = list(number)
        known = self.record.gains
        context_gain = None if known is None else ContextGain(known, lambda: self.whole, self.device)
        found = judge_titles(different, self._read(different), self.record.weights, context_gain=context_gain)
        return Suspicion(found.score[rows], found.start[rows], found.end[rows])

    def score_apart(self, titles: Sequence[str]) -> Float32Array:
        """Return how suspicious titles are, each as if it were the only one, shape `[titles]`."""
        return judge_apart(self._read(titles), titles, self.record.weights).score

    @overload
    def scan(
        self,
        titles: Sequence[str | None] | pl.Series | pl.DataFrame,
        text_column: str = "title",
        fpr: float | None = None,
    ) -> pl.DataFrame: ...
    @overload
    def scan(self, titles: Any, text_column: str = "title", fpr: float | None = None) -> Any: ...
    def scan(self, titles: object, text_column: str = "title", fpr: float | None = None) -> Any:
        """Judge the titles of a list, a polars or pandas series, or a frame; see `scan_table`.

        Args:
            titles: The titles. `None` stands for a missing one: its row is not judged, and stays.
            text_column: The column of titles, where it is a frame.
            fpr: Share of clean titles that may be flagged, above 0 and below 1; the scanner's own by default.

        Returns:
            One row a title, in order: what was given, then `judged`, `score`, `flagged`, `review`, `start`, `end`,
            `fragment` and `clean_title`. A pandas frame for pandas, otherwise a polars frame.

        Raises:
            UserError: If it is a single string or no table, or the rate is no share.
        """
        return scan_table(lambda texts: self.judge_titles(texts, fpr), titles, text_column)

    def judge_titles(self, titles: Sequence[str], fpr: float | None = None) -> ScanVerdicts:
        """Judge titles and flag those above the threshold; `scan` does the same to tables.

        Args:
            titles: Any texts.
            fpr: Share of clean titles that may be flagged; the scanner's own by default.

        Raises:
            UserError: If the rate is no share.
        """
        return self._flag(self.suspect(titles), fpr)

    def judge_apart(self, titles: Sequence[str], fpr: float | None = None) -> ScanVerdicts:
        """Judge titles, each as if it were the only one: what recurs among them does not count.

        Args:
            titles: Any texts.
            fpr: Share of clean titles that may be flagged; the scanner's own by default.

        Raises:
            UserError: If the rate is no share.
        """
        return self._flag(judge_apart(self._read(titles), titles, self.record.weights), fpr, alone=True)

    def _flag(self, found: Suspicion, fpr: float | None, alone: bool = False) -> ScanVerdicts:
        if fpr is not None and not 0 < fpr < 1:
            raise UserError(f"A false-positive rate lies between 0 and 1, not at {fpr:g}.", "0.01 stands for 1 %.")
        flagged = found.score > self.threshold(fpr, alone)
        review = ~flagged & (found.score > self.threshold(max(self.record.review_fpr, fpr or 0.0), alone))
        return ScanVerdicts(found.score, found.start, found.end, flagged, review)

    def save(self, folder: str | Path) -> None:
        """Write the adapter as peft reads it, and `scanner.json`; see `serialization.save_model`."""
        folder = Path(folder)
        llm, notes = self.record.llm, {SCANNER_RECORD_FILE: self._make_portable_record().model_dump_json(indent=1)}
        spec = {"llm": llm.model_dump(mode="json")}
        serialization.save_model(folder, SCANNER_NAME, spec, self.loaded, notes=notes, purpose=SCANNER_PURPOSE)

    def _make_portable_record(self) -> Record:
        """Return the record without any path of this machine."""
        llm = self.record.llm
        return self.record.model_copy(update={"llm": llm.model_copy(update={"name": name_base(llm.name)})})

    def _read(self, titles: Sequence[str]) -> TokenLogits:
        capacity = self.capacity or READER_BATCH_TOKENS.get(self.device.type, READER_BATCH_TOKENS["cpu"])
        return read_logits(self.loaded, titles, self.device, capacity, compile_layers=self.compiled)


def load_whole_llm(llm: Llm, tuning: Tuning, device: torch.device) -> LoadedModel:
    """Return the language model that a scanner's reader was made of, with all layers and tuned on nothing."""
    return load_llm(Llm(name=llm.name), device, tuning.pick_dtype(device))


def load_fitted_scanner(
    folder: str | Path, device: str | torch.device = "cpu", base: str | None = None
) -> FittedScanner:
    """Read what `FittedScanner.save` wrote.

    Args:
        folder: The scanner's folder.
        device: Where it runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        base: The language model it was made of, if that was a folder and now stands elsewhere; `None` finds it by its
            name, or where it was on this machine.

    Raises:
        UserError: If the folder does not hold a scanner, one of another version, or a damaged one; if the device can't
            be used; or if the language model it was made of is not found.
    """
    folder = Path(folder)
    device = pick_device(device) if isinstance(device, str) else device
    if not (folder / SCANNER_RECORD_FILE).exists():
        raise _make_missing_error(folder)
    try:
        told = json.loads(read_plain_text(folder / SCANNER_RECORD_FILE))
        if told.get("version") != SCANNER_VERSION:
            raise ValueError(f"its version is {told.get('version')!r}, and this is {SCANNER_VERSION}")
        record = Record.model_validate(told)
        if not (record.calibration.highest and record.alone.highest):
            raise ValueError("its thresholds rest on no scores, so that it would flag nothing")
    except (OSError, ValueError, AttributeError) as error:
        raise_outage(error, f"'{folder}' can't be read")
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"'{folder}' does not hold a scanner: {reason}.", "Make one with cowbird fit-scanner CATALOG --out DIR."
        ) from None
    here = {"name": serialization.locate_base(folder, base)}
    record = record.model_copy(update={"llm": record.llm.model_copy(update=here)})
    dtype, sealed = record.tuning.pick_dtype(device), (SCANNER_RECORD_FILE,)
    loaded = serialization.read_model(folder, SCANNER_NAME, record.llm, device, dtype, sealed)
    return FittedScanner(record, loaded, device)


def _make_missing_error(folder: Path) -> UserError:
    """Say what was not found where a scanner should be."""
    make = "Make one with cowbird calibrate CATALOG --out FILE, or with cowbird fit-scanner CATALOG --out DIR."
    if folder.is_dir():
        return UserError(f"'{folder}' does not hold a scanner: there is no {SCANNER_RECORD_FILE} in it.", make)
    kind = "it is a file, not a folder" if folder.is_file() else "it is a pipe or a device"
    found = kind if folder.exists() else "there is nothing of that name"
    return UserError(f"'{folder}' does not hold a scanner: {found}.", f"{suggest_close_paths(folder)} {make}".strip())
