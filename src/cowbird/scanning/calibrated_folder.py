"""What `cowbird fit-scanner` does: calibrate the ready scanner on a catalogue, and tune its tagger on it if asked.

The folder holds the calibration and, if it is not one that comes with the package, the tagger that it was made with.
A tagger is tuned on one half of the titles and calibrated on the other: titles that it learned as clean would set
thresholds that fresh ones exceed. An interrupted fit goes on with `--resume` (`fit_folder`).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from rich.console import Group
from rich.text import Text

from cowbird.defenses.p_scanner.baseline import MIN_TITLES_PER_BASELINE
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner
from cowbird.defenses.p_scanner.calibration_file import CALIBRATED_TAGGER, CALIBRATION_FILE, read_calibration
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.small_tagger import (
    READY_SMALL_TAGGER,
    SMALL_RECORD_FILE,
    WEIGHTS_FILE,
    SmallTagger,
    TaggerSource,
    load_small_tagger,
)
from cowbird.defenses.p_scanner.tagger import (
    ADAPTER_FILE,
    READY_TAGGER,
    TAGGER_RECORD_FILE,
    Tagger,
    read_tagger_record,
)
from cowbird.defenses.p_scanner.training.small_tagger_training import SmallTaggerRecipe, train_small_taggers
from cowbird.defenses.p_scanner.training.tagger_examples import TaggerRecipe
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words, train_tagger
from cowbird.defenses.p_scanner.triggers.trigger_families import COMMON_WORDS
from cowbird.errors import UserError
from cowbird.faults import explain_outages, explain_write_errors
from cowbird.files import hash_file, hash_texts, write_text
from cowbird.scanning.calibrating import Calibrated, format_calibrated, read_clean_titles
from cowbird.scanning.fit_folder import (
    FIT_FILE,
    GO_ON_HINT,
    check_free,
    check_same_fit,
    check_unfinished,
    finish_folder,
    hold_fit_folder,
)
from cowbird.scanning.ready_scorer import check_rates, choose_rates
from cowbird.scanning.tagger_training import list_refused_texts
from cowbird.victims.fit_context import FitContext, ProgressCallback, report_nothing
from cowbird.victims.language.llm import Llm, load_llm

SMALL_STEPS, LLM_STEPS = 200, 60
"""Steps of a tuning, if none are named."""
SMALL_TUNING, LLM_TUNING = {"chunk": 512, "learning_rate": 2e-4}, {"batch_size": 32, "learning_rate": 1e-4}
"""How a tagger is tuned: with less of everything than it was trained, for one catalogue is narrow."""
CONTEXT_TUNING = {"batch_size": 2}
"""What differs for a tagger that takes contexts: rows a step, each of as many titles as a dozen groups."""


@dataclass(frozen=True)
class TaggerTuning:
    """How a tagger is tuned on a catalogue's own titles."""

    steps: int | None = None
    """Steps; `None` takes `SMALL_STEPS` or `LLM_STEPS`."""
    minutes: float | None = None
    """Minutes that a small tagger is tuned at most; `None` sets no limit."""
    seed: int = 0
    """Decides all that is random."""


class CalibratedFolder(NamedTuple):
    """A scanner that was calibrated, and perhaps tuned."""

    made: Calibrated
    """The calibration."""
    tuned_on: int
    """Titles that the tagger was tuned on; 0 if it was not."""
    before: bool
    """Whether an earlier call had finished it."""


def fit_calibrated(
    catalog: Path,
    out: Path,
    place: FitContext,
    tagger: TaggerSource = "llm",
    fpr: float | None = None,
    review_fpr: float | None = None,
    text_column: str = "title",
    tuning: TaggerTuning | None = None,
    resume: bool = False,
    report_rows: ProgressCallback = report_nothing,
    load: Callable[[str, TaggerSource], ReadyScanner] = ReadyScanner.load,
) -> CalibratedFolder:
    """Calibrate the ready scanner on a catalogue of titles that are taken for clean, and write it.

    Args:
        catalog: The catalogue; see `cowbird.scanning.reading.open_catalog`.
        out: The scanner's folder, new or empty.
        place: Device, progress and warnings; its folder is not used.
        tagger: What reads titles, or is tuned.
        fpr: Share of clean titles that may be flagged; `None` takes the default.
        review_fpr: Share that may be flagged or put up for review; likewise.
        text_column: The column of titles.
        tuning: How the tagger is tuned first; `None` leaves it as it is.
        resume: Whether to go on with an interrupted fit; a finished one is then returned as it is.
        report_rows: Told of rows read and rows in all.
        load: Opens the ready scanner with a tagger on a device.

    Raises:
        UserError: If the catalogue can't be read or is too small, a folder can't be used, or a model can't.
        KeyboardInterrupt: Passed on; what was tuned so far is kept.
    """
    rates = choose_rates(fpr, review_fpr)
    check_rates(*rates)
    out = out.resolve()
    folder, done = out.with_name(f"{out.name}.partial") if out.name else out, resume and (out / FIT_FILE).is_file()
    if not done:
        with explain_write_errors(out):
            check_free(out)
    read = read_clean_titles(catalog, text_column, rates, report_rows)
    titles = read.titles
    taught, rest = _split_titles(titles) if tuning else ([], titles)
    if len(rest) < MIN_TITLES_PER_BASELINE:
        raise UserError(
            f"Tuning takes half of the titles, and {len(rest)} different ones are left to set thresholds by; it takes "
            f"{MIN_TITLES_PER_BASELINE}.",
            "Give a larger catalogue, or leave out --tune.",
        )
    asked = _describe_fit(titles, tagger, rates, tuning)
    if done:
        check_same_fit(out, asked)
        digest = hash_file(out / CALIBRATION_FILE)
        made = Calibrated(out, digest, *read_calibration(out), read.complete, read.unread)
        return CalibratedFolder(made, len(taught), before=True)
    with explain_write_errors(out, GO_ON_HINT), hold_fit_folder(folder, place.warn):
        check_free(out)
        check_unfinished(folder, resume)
        check_same_fit(folder, asked)
        write_text(folder / FIT_FILE, asked.decode())
        whole = folder / "whole"
        whole.mkdir(exist_ok=True)
        own = whole / CALIBRATED_TAGGER
        with explain_outages("The scanner can't be fitted"):
            if tuning is not None and not own.is_dir():
                _keep_tagger(lambda new: _tune(taught, tagger, tuning, folder, place).save(new), own)
            elif isinstance(tagger, Path) and not own.is_dir():
                _keep_tagger(lambda new: _copy_tagger(tagger, new), own)
            scanner = load(str(place.device), own if own.is_dir() else tagger)
            calibrated = CalibratedScanner.calibrate(scanner, rest, *rates, report=place.report)
        digest = calibrated.save(whole / CALIBRATION_FILE)
        finish_folder(whole, folder, out)
    return CalibratedFolder(
        Calibrated(out, digest, calibrated.record, calibrated.inventory, read.complete, read.unread),
        len(taught),
        before=False,
    )


def _split_titles(titles: list[str]) -> tuple[list[str], list[str]]:
    """Divide titles by the order of a sample, which their hashes decide: every other one is tuned on."""
    return titles[::2], titles[1::2]


def _describe_fit(
    titles: list[str], tagger: TaggerSource, rates: tuple[float, float], tuning: TaggerTuning | None
) -> bytes:
    """Return what is asked for, as a hash. How long a tuning may take does not count."""
    kind = _hash_tagger(tagger) if isinstance(tagger, Path) else tagger
    tuned = None if tuning is None else (tuning.steps, tuning.seed)
    return json.dumps({"fit": hash_texts(["calibrated", kind, repr(rates), repr(tuned), *titles])}).encode()


def _is_small(tagger: TaggerSource) -> bool:
    return tagger == "small" or (isinstance(tagger, Path) and (tagger / SMALL_RECORD_FILE).exists())


def _hash_tagger(folder: Path) -> str:
    """Return a hash of a tagger's record, which holds that of its weights."""
    if _is_small(folder):
        return load_small_tagger(folder, "cpu").record.model_dump_json()
    return read_tagger_record(folder).model_dump_json()


def _keep_tagger(write: Callable[[Path], object], own: Path) -> None:
    """Write a tagger under another name first, so that a folder of the right name is whole."""
    new = own.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    write(new)
    new.rename(own)


def _copy_tagger(tagger: Path, new: Path) -> None:
    """Copy the files that a tagger consists of; what else lies beside them stays."""
    new.mkdir()
    small = _is_small(tagger)
    for name in (SMALL_RECORD_FILE, WEIGHTS_FILE) if small else (TAGGER_RECORD_FILE, ADAPTER_FILE):
        shutil.copyfile(tagger / name, new / name)


def _tune(
    titles: list[str], tagger: TaggerSource, tuning: TaggerTuning, folder: Path, place: FitContext
) -> SmallTagger | Tagger:
    """Go on training a tagger on a catalogue's own titles."""
    work = FitContext(place.device, folder / "round-1", _say("tuning", place.report), place.warn)
    if _is_small(tagger):
        start = load_small_tagger(tagger if isinstance(tagger, Path) else READY_SMALL_TAGGER, str(place.device))
        recipe = SmallTaggerRecipe.model_validate(
            {"sizes": start.record.sizes, "chunks": tuning.steps or SMALL_STEPS, **SMALL_TUNING}
        )
        seconds = None if tuning.minutes is None else 60 * tuning.minutes
        return train_small_taggers(
            recipe, {"own": titles}, _find_words(), tuning.seed, work, list_refused_texts(), start=start,
            seconds=seconds,
        )["all"]  # fmt: skip
    if tuning.minutes is not None:
        raise UserError("--minutes is for a small tagger.", "Say how many steps: --steps. Or take --tagger small.")
    origin = tagger if isinstance(tagger, Path) else READY_TAGGER
    recipe = _choose_recipe(origin, tuning.steps or LLM_STEPS)
    made, _ = train_tagger(recipe, {"own": titles}, tuning.seed, work, list_refused_texts(), start=origin)
    made.record = made.record.model_copy(update={"seconds": None, "tokens": None})  # an interrupt changes them
    return made


def _choose_recipe(origin: Path, steps: int) -> TaggerRecipe:
    """Return how a language model's tagger is trained further; one that takes contexts goes on to learn with them.

    Raises:
        UserError: If its folder holds no tagger, or its record tells of no context that can be drawn.
    """
    record = read_tagger_record(origin)
    given: dict[str, Any] = {"chunks": 1, "compiled": False, "capacity": 4096, **LLM_TUNING}
    if record.takes_context:
        given |= {name: record.recipe[name] for name in ("context", "row") if name in record.recipe} | CONTEXT_TUNING
    given |= {"llm": record.llm, "chunk": steps * given["batch_size"]}
    try:
        return TaggerRecipe.model_validate(given)
    except ValidationError as error:
        raise UserError(
            f"The tagger in '{origin}' can't be trained further: its recipe is not valid ({error.errors()[0]['msg']}).",
            "Give the folder of a trained tagger, or leave out --tune.",
        ) from None


def _find_words() -> tuple[str, ...]:
    """Return plain words to plant: of the embedded language model if it is here, and else a short list."""
    try:
        cpu = FitContext().device
        tokenizer = load_llm(Llm(layers=1), cpu, TaggerRecipe().tuning.pick_dtype(cpu)).tokenizer
    except UserError:
        return COMMON_WORDS
    return split_words(list_plain_words(tokenizer))[0]


def _say(phase: str, report: ProgressCallback) -> ProgressCallback:
    return lambda done, total, remark: report(done, total, f"{phase}, {remark}")


def format_calibrated_folder(found: CalibratedFolder) -> Group:
    """Return what is shown of a scanner."""
    parts: list[Group | Text] = [format_calibrated(found.made, found.tuned_on)]
    if found.before:
        parts.insert(0, Text("It was finished before; nothing was done."))
    if found.tuned_on:
        parts.append(Text(f"Its tagger was tuned on {found.tuned_on:,} other titles, which set no threshold."))
    return Group(*parts)
