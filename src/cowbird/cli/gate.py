"""Options of `cowbird scan` for pipelines: which findings fail it, and reports that other programs read."""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cowbird.cli.terminal import err_console
from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs, check_writable

if TYPE_CHECKING:
    from cowbird.scanning.gate import Gate
    from cowbird.scanning.summary import ScanSummary


class FailOnChoice(StrEnum):
    """Which findings make a scan fail."""

    flagged = "flagged"
    review = "review"
    never = "never"


GATE_OPTIONS: dict[str, tuple[Any, Any]] = {
    "baseline": (
        Annotated[Path | None, typer.Option(metavar="FINDINGS", help="An older file of findings; those don't count.")],
        None,
    ),
    "max_flagged": (
        Annotated[int, typer.Option(min=0, help="Findings that may count before the scan ends with 1.")],
        0,
    ),
    "fail_on": (Annotated[FailOnChoice, typer.Option(help="Which findings count.")], FailOnChoice.flagged),
    "sarif": (Annotated[Path | None, typer.Option(metavar="FILE", help="Write a SARIF 2.1.0 report.")], None),
    "junit": (Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JUnit report.")], None),
    "summary": (Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JSON summary.")], None),
}
"""Options by their names, with defaults."""
REPORT_OPTIONS = ("sarif", "junit", "summary")
"""Those of them that name a file to write."""
BESIDE_FINDINGS = (".skipped.csv", ".partial", ".first-pass")
"""How the names end of what a scan writes beside its findings."""
_asked: ContextVar["tuple[Gate, frozenset[str]] | None"] = ContextVar("gate", default=None)


def take_gate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a scan the options of a gate. What stops it is in the reports as well."""
    signature = inspect.signature(command)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in GATE_OPTIONS.items()
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        wanted = {name: given.pop(name, default) for name, (_, default) in GATE_OPTIONS.items()}
        _check_paths(wanted, given)  # what is wrong here is told on no path that was given
        if wanted == {name: default for name, (_, default) in GATE_OPTIONS.items()}:
            command(**given)
            return
        from cowbird.scanning import gate  # noqa: PLC0415

        asked = gate.Gate(**wanted | {"fail_on": wanted["fail_on"].value})
        try:
            _check_gate(asked, given)
            _asked.set((asked, gate.read_baseline(asked.baseline)))
            command(**given)
        except UserError as error:
            gate.write_reports(asked, gate.GateOutcome(str(given["catalog"]), (), 0, ExitCode.ERROR, None, error))
            raise
        finally:
            _asked.set(None)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return run


def _check_gate(asked: "Gate", given: dict[str, Any]) -> None:
    """Refuse options that contradict each other, before a title is judged."""
    if given.get("only_flagged") and asked.fail_on == "review":
        raise UserError("--fail-on review counts rows that --only-flagged does not write.", "Leave out --only-flagged.")


def _check_paths(wanted: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse findings and reports that would replace what the scan reads, or each other, or can't be written."""
    out = given["out"]
    beside = [out.with_name(f"{out.name}{ending}") for ending in BESIDE_FINDINGS] if out.name else []
    read = {f"--{name}": given.get(name) for name in ("reference", "allow", "scanner", "tagger")}
    check_outputs(
        {"--out": [out, *beside]} | {f"--{name}": wanted[name] for name in REPORT_OPTIONS},
        {"the catalogue": given["catalog"], **read, "--baseline": wanted["baseline"]},
    )
    check_writable({f"--{name}": wanted[name] for name in REPORT_OPTIONS}, {"--out": out})


def conclude_scan(found: "ScanSummary", catalog: Path, quiet: bool) -> ExitCode:
    """Return what a scan tells the shell; with the options of a gate, write its reports first."""
    from cowbird.ingest.addresses import show_path  # noqa: PLC0415
    from cowbird.scanning import gate, summary  # noqa: PLC0415

    asked = _asked.get()
    if asked is None:
        return summary.choose_exit_code(found)
    outcome = gate.apply_gate(asked[0], show_path(catalog), found, asked[1])
    gate.write_reports(asked[0], outcome)
    if not quiet:
        known = sum(each.known for each in outcome.found)
        verdict = "failed" if outcome.exit_code == ExitCode.FINDINGS else "passed"
        said = f"Gate {verdict}: {outcome.counted:,} findings count, {asked[0].max_flagged:,} may; {known:,} are known."
        err_console.print(Text(said))
    return outcome.exit_code
