"""What a page says of how runs were made, what they checked, and what they did not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from cowbird.experiments.shipped_measures import NO_ATTACK
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.inspection_files import InspectionSummary
from cowbird.report.outcomes import Outcome
from cowbird.report.run_files import RunFiles
from cowbird.report.shown_titles import ScanFindings
from cowbird.text import count_things

MACHINE_FACTS = ("command", "cowbird", "torch", "python", "device", "threads", "jobs")
"""What of `run.json` is shown as a fact."""
MAX_SHOWN_HASHES = 400
"""Hashes of a run that are shown."""
MAX_SHOWN_ERRORS = 100
"""Errors and notices of a run that are shown, each."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How one run was made."""

    label: str
    """What the report calls it."""
    facts: tuple[tuple[str, str], ...]
    """Names and values."""
    errors: tuple[str, ...]
    """What could not be measured."""
    notices: tuple[str, ...]
    """What was done otherwise than a reader may think."""
    hashes: ReportTable
    """SHA-256 of models and evidence, by cell."""


def make_run_facts(run: RunFiles) -> RunFacts:
    """Return how a run was made, as far as its files tell."""
    facts = [("file of rows", str(run.path)), ("SHA-256 of the rows", run.sha256)]
    if run.spec_sha256:
        facts.append(("SHA-256 of the spec", run.spec_sha256))
    facts += [(name, str(run.machine[name])) for name in MACHINE_FACTS if run.machine.get(name) not in (None, "")]
    if run.cells:
        facts.append(("cells on record", str(len(run.cells))))
        facts.append(("time on record", f"{sum(cell.seconds for cell in run.cells):,.0f} s"))
    errors = tuple(error for cell in run.cells for error in cell.errors)[:MAX_SHOWN_ERRORS]
    notices = tuple(_list_texts(run.machine.get("warnings")) + _list_texts(run.machine.get("notices")))
    hashes = [
        (f"{cell.victim}, seed {cell.seed}", name, seal) for cell in run.cells for name, seal in cell.hashes.items()
    ]
    table = make_report_table(("cell", "of", "SHA-256"), hashes[:MAX_SHOWN_HASHES])
    return RunFacts(run.label, tuple(facts), errors, notices[:MAX_SHOWN_ERRORS], table)


def _list_texts(value: Any) -> list[str]:
    return [str(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def describe_extent(
    runs: Sequence[RunFiles],
    outcomes: Sequence[Outcome],
    scans: Sequence[ScanFindings],
    models: Sequence[InspectionSummary],
) -> list[str]:
    """Return what was checked, in sentences.

    Args:
        runs: The runs.
        outcomes: What was measured in them.
        scans: What scans found.
        models: What inspections found.
    """
    words: list[str] = []
    for run in runs:
        mine = [each for each in outcomes if each.run == run.label]
        seeds = len({row.seed for row in run.rows if row.seed is not None})
        counts = [
            (len({each.victim for each in mine}), "victim"),
            (len({each.attack for each in mine}), "attack"),
            (len({each.defense for each in mine if not each.bare}), "defense"),
            (len({each.scenario for each in mine}), "scenario"),
            (seeds, "seed"),
        ]
        shown = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
        words.append(f"{run.label}: {shown}.")
    words += [f"{scan.label}: {scan.rows:,} rows of a scan." for scan in scans]
    words += [f"{model.label}: one model." for model in models]
    return words


def list_gaps(runs: Sequence[RunFiles], outcomes: Sequence[Outcome]) -> list[str]:
    """Return what was not checked, in sentences.

    Args:
        runs: The runs.
        outcomes: What was measured in them.
    """
    words: list[str] = []
    for run in runs:
        total = len(run.list_parts("victims")) * len(_list_texts(run.spec.get("seeds")))
        if len(run.cells) < total:
            words.append(f"{run.label}: {total - len(run.cells)} of {total} cells are not on record.")
        failed = sum(len(cell.errors) for cell in run.cells)
        if failed:
            words.append(
                f"{run.label}: {count_things(failed, 'place')} could not be measured; the reasons stand below."
            )
        if run.folder is None:
            words.append(f"{run.label}: only the rows were given, so spec, machine and hashes are missing.")
        if run.damaged:
            words.append(f"{run.label}: missing or not readable, so not told here: {', '.join(run.damaged)}.")
        if len({row.seed for row in run.rows if row.seed is not None}) == 1:
            words.append(f"{run.label}: one seed. How much seeds differ is not known.")
        empty = sum(row.value is None and row.attack != NO_ATTACK for row in run.rows)
        if empty:
            words.append(f"{run.label}: {empty:,} rows hold no value, for there was nothing to measure.")
    if outcomes and all(each.bare for each in outcomes):
        words.append("No defense was tried.")
    words.append("Other attacks, triggers, data and models than those named here.")
    words.append("Intervals hold for one number each. Of many comparisons some are wrong by chance.")
    return words
