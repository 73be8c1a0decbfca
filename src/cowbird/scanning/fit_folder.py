"""The folder in which a scanner is fitted: held by one process, kept whatever ends the fit, and gone once it is whole.

`DIR.partial/` holds checkpoints of the round at work, what finished rounds learned, and what an agent behind a server
wrote. It goes when the scanner stands under its name, and not before.
"""

import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.triggers.agent_server import AGENT_LOG_FILE
from cowbird.errors import UserError
from cowbird.files import PARTIAL_SUFFIX, hash_texts, read_plain_file, sweep_partials, write_text
from cowbird.locks import LOCK_FILE, lock_folder
from cowbird.ownership import make_scratch_folder
from cowbird.processes import hold_interrupts

FIT_FILE = "fit.json"
"""What a fit was asked for, as a hash; it lies beside a scanner so that `--resume` never passes off another one."""
GO_ON_HINT = "What was fitted so far is kept. Mend that, then go on: the same command with --resume."
"""What is said when a fit is stopped by a passing fault."""


def describe_fit(spec: PoisonScanner, seed: int, titles: Sequence[str]) -> bytes:
    """Return what a fit was asked for, as it stands in `FIT_FILE`."""
    asked = hash_texts([spec.model_dump_json(), type(spec.agent).__name__, str(seed), *titles])
    return json.dumps({"fit": asked}).encode()


def check_same_fit(folder: Path, asked: bytes) -> None:
    """Check that what a folder holds comes from the same fit."""
    if (folder / FIT_FILE).is_file() and read_plain_file(folder / FIT_FILE) != asked:
        raise UserError(
            f"'{folder}' comes from a fit to other titles or with other options.",
            "Repeat those, remove the folder, or choose another one.",
        )


@contextmanager
def hold_fit_folder(folder: Path, warn: Callable[[str], None]) -> Generator[None]:
    """Hold the folder in which a scanner is fitted; it stays unless no work lies in it."""
    if folder.exists() and not (folder / FIT_FILE).is_file() and not _is_empty(folder):
        raise UserError(f"'{folder}' is where the fit would go on, and holds something else.", "Choose a new folder.")
    hint = "Wait until it ends, or end it; then go on with --resume. Or choose another folder with --out."
    make_scratch_folder(folder)
    try:
        with lock_folder(folder, "fit", hint, warn):
            sweep_partials(folder, deep=True)
            try:
                yield
            finally:
                _forget_empty_fit(folder)
    finally:
        with suppress(OSError):
            folder.rmdir()  # which does nothing to a folder that holds anything


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what a process leaves that is killed as it begins."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    return all(name in (LOCK_FILE, AGENT_LOG_FILE) or name.endswith(PARTIAL_SUFFIX) for name in names)


def _forget_empty_fit(folder: Path) -> None:
    """Forget what was asked for where there is no work to go on from, so that something else may be asked for."""
    with suppress(OSError):
        for inner in folder.glob("round-*/"):
            with suppress(OSError):
                inner.rmdir()
        if {path.name for path in folder.iterdir()} - {AGENT_LOG_FILE} == {LOCK_FILE, FIT_FILE}:
            (folder / FIT_FILE).unlink()


def check_free(out: Path) -> None:
    """Look before hours of work whether a scanner can be written there."""
    try:
        str(out).encode()
    except UnicodeEncodeError:  # libraries below take text alone
        raise UserError(f"The name '{out}' is no valid text.", "Choose a folder whose path is UTF-8.") from None
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        more = " It holds a finished scanner." if (out / FIT_FILE).is_file() else ""
        raise UserError(f"'{out}' is there and not an empty folder.{more}", "Choose a new folder.")


def check_unfinished(folder: Path, resume: bool) -> None:
    """Check that nobody passes over an unfinished fit without a word."""
    if (folder / FIT_FILE).is_file() and not resume:
        raise UserError(
            f"'{folder}' holds an unfinished fit.", "Go on with it: --resume. Or remove it, or choose another folder."
        )


def write_scanner(fitted: FittedScanner, folder: Path, out: Path) -> None:
    """Write a scanner; its folder appears under its name once it is whole, and only then what it came from goes."""
    whole = folder / "scanner"
    fitted.save(whole)
    if (folder / AGENT_LOG_FILE).is_file():
        (folder / AGENT_LOG_FILE).rename(whole / AGENT_LOG_FILE)
    finish_folder(whole, folder, out)


def finish_folder(whole: Path, folder: Path, out: Path) -> None:
    """Put what was made under its name, with what was asked for beside it, and clear the folder that it was made in."""
    write_text(whole / FIT_FILE, (folder / FIT_FILE).read_text(encoding="utf-8"))
    with hold_interrupts():
        if out.is_dir():
            out.rmdir()
        whole.rename(out)
        clear_fit_folder(folder)


def clear_fit_folder(folder: Path) -> None:
    """Remove all that lies in a folder that is held; the folder goes when it is let go."""
    for path in folder.iterdir():
        if path.name != LOCK_FILE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
