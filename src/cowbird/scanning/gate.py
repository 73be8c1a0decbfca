"""A gate for pipelines: which findings count, whether a scan passes, and what programs read about it.

Three lists stay apart: findings, errors (what stopped the scan) and skips (rows that could not be read). A finding that
stands in an older file of findings, with the same title, span and tier, is known and does not count.
"""

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cowbird.errors import ExitCode, UserError
from cowbird.files import replace_atomically, write_text
from cowbird.scanning.findings import FLAGGED_TIER, REVIEW_TIER
from cowbird.scanning.findings_file import ReviewedFinding, read_reviewed
from cowbird.scanning.summary import ScanSummary
from cowbird.scanning.unread import UnreadRows, describe_unread
from cowbird.text import escape_terminal, replace_controls

SUMMARY_SCHEMA, SUMMARY_VERSION = "cowbird-scan-summary", 1
"""Name and version of the JSON summary's form; the version grows when a field changes its meaning or goes."""
SARIF_VERSION = "2.1.0"
MAX_LISTED = 5000
"""Findings in a report at most; the counts are of all."""
MAX_SHOWN_TITLE = 300
"""Characters of a title in a report."""
FailOn = Literal["flagged", "review", "never"]
"""Which findings count."""


@dataclass(frozen=True)
class Gate:
    """What a pipeline asks of a scan."""

    baseline: Path | None = None
    """An older file of findings; what stands there does not count."""
    max_flagged: int = 0
    """Findings that may count before the scan fails."""
    fail_on: FailOn = "flagged"
    """Which findings count: flagged ones, those for review too, or none."""
    sarif: Path | None = None
    """Where a SARIF report goes."""
    junit: Path | None = None
    """Where a JUnit report goes."""
    summary: Path | None = None
    """Where a JSON summary goes."""

    @property
    def asked(self) -> bool:
        """Whether anything differs from what a scan does by itself."""
        return self != Gate()


class GateFinding(NamedTuple):
    """A finding, and what the gate makes of it."""

    finding: ReviewedFinding
    """The finding."""
    fingerprint: str
    """Hash of title and span."""
    known: bool
    """Whether the baseline has it."""
    counts: bool
    """Whether it counts."""


class GateOutcome(NamedTuple):
    """What a gate makes of a scan."""

    catalog: str
    """The catalogue."""
    found: tuple[GateFinding, ...]
    """What is flagged or up for review, in the order of the catalogue."""
    counted: int
    """How many of those count."""
    exit_code: ExitCode
    """What the shell is told."""
    scan: ScanSummary | None
    """The scan; `None` if an error stopped it."""
    error: UserError | None
    """What stopped it."""


def apply_gate(gate: Gate, catalog: str, summary: ScanSummary, known: frozenset[str]) -> GateOutcome:
    """Say which findings of a scan count, and whether it passes.

    Args:
        gate: What is asked.
        catalog: The catalogue, as it was named.
        summary: What the scan came to; its findings are read from their file.
        known: Fingerprints with tiers that do not count; see `read_baseline`.
    """
    tiers = {"flagged": (FLAGGED_TIER,), "review": (FLAGGED_TIER, REVIEW_TIER), "never": ()}[gate.fail_on]
    found = list[GateFinding]()
    for each in read_reviewed(summary.out):
        mark = make_fingerprint(each)
        old = f"{each.tier} {mark}" in known
        found.append(GateFinding(each, mark, old, each.tier in tiers and not old))
    counted = sum(each.counts for each in found)
    code = ExitCode.FINDINGS if counted > gate.max_flagged else ExitCode.CLEAN
    if code == ExitCode.CLEAN and summary.incomplete:
        code = ExitCode.INCOMPLETE
    return GateOutcome(catalog, tuple(found), counted, code, summary, None)


def make_fingerprint(finding: ReviewedFinding) -> str:
    """Return a hash of a finding's title and span; the row does not count, for catalogues are sorted anew.

    Of the title it is the text that CSV shows, so that a finding is the same in all formats.
    """
    span = "" if finding.start is None else f"{finding.start} {finding.end}"
    return hashlib.sha256(f"{span}\n{replace_controls(finding.title)}".encode()).hexdigest()


def read_baseline(path: Path | None) -> frozenset[str]:
    """Return what is known from an older file of findings. What was flagged there is known as one for review, too.

    Raises:
        UserError: If it can't be read.
    """
    known = set[str]()
    for each in () if path is None else read_reviewed(path):
        mark = make_fingerprint(each)
        known |= {f"{each.tier} {mark}", f"{REVIEW_TIER} {mark}"}
    return frozenset(known)


def write_reports(gate: Gate, outcome: GateOutcome) -> None:
    """Write the reports that are asked for.

    Raises:
        OutageError: If one can't be written.
    """
    if gate.summary is not None:
        write_text(gate.summary, json.dumps(make_gate_summary(gate, outcome), indent=1, ensure_ascii=True) + "\n")
    if gate.sarif is not None:
        write_text(gate.sarif, json.dumps(make_sarif(outcome), indent=1, ensure_ascii=True) + "\n")
    if gate.junit is not None:
        with replace_atomically(gate.junit) as partial:
            ET.ElementTree(make_junit(outcome)).write(partial, encoding="utf-8", xml_declaration=True)


def make_gate_summary(gate: Gate, outcome: GateOutcome) -> dict[str, Any]:
    """Return what a scan came to, as plain JSON values, with findings, errors and skips as three lists."""
    from cowbird import __version__  # noqa: PLC0415

    scan = outcome.scan
    counts = {
        "rows": 0 if scan is None else scan.rows,
        "judged": 0 if scan is None else scan.judged,
        "flagged": sum(each.finding.tier == FLAGGED_TIER for each in outcome.found),
        "review": sum(each.finding.tier == REVIEW_TIER for each in outcome.found),
        "allowed": 0 if scan is None else scan.allowed,
        "known": sum(each.known for each in outcome.found),
        "counted": outcome.counted,
        "skipped": 0 if scan is None else scan.skipped,
    }
    return {
        "schema": SUMMARY_SCHEMA,
        "schema_version": SUMMARY_VERSION,
        "cowbird": __version__,
        "catalog": outcome.catalog,
        "exit_code": int(outcome.exit_code),
        "gate": {"fail_on": gate.fail_on, "max_flagged": gate.max_flagged, "baseline": gate.baseline is not None},
        "counts": counts,
        "findings": [_describe_finding(each) for each in _sort_findings(outcome.found)[:MAX_LISTED]],
        "findings_left_out": max(0, len(outcome.found) - MAX_LISTED),
        "errors": [] if outcome.error is None else [{"message": outcome.error.message, "hint": outcome.error.hint}],
        "skips": describe_unread(() if scan is None else scan.unread),
        "reference_skips": describe_unread(() if scan is None else scan.reference_unread),
    }


def _sort_findings(found: Sequence[GateFinding]) -> list[GateFinding]:
    """Return findings, those that count first."""
    return sorted(found, key=lambda each: not each.counts)


def _describe_finding(each: GateFinding) -> dict[str, Any]:
    row = each.finding._asdict()
    return row | {"fingerprint": each.fingerprint, "known": each.known, "counts": each.counts}


def make_sarif(outcome: GateOutcome) -> dict[str, Any]:
    """Return a SARIF 2.1.0 log; lines are right where a row of the catalogue is a line of its file."""
    from cowbird import __version__  # noqa: PLC0415

    listed = _sort_findings(outcome.found)[:MAX_LISTED]
    driver = {
        "name": "cowbird",
        "version": __version__,
        "rules": [
            {
                "id": "planted-text",
                "shortDescription": {"text": "A title looks as if a trigger for a recommender was planted in it."},
                "help": {"text": "Look at the marked text. Honest texts go into the file of --allow."},
            }
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_make_result(outcome.catalog, each) for each in listed],
        "invocations": [
            {
                "executionSuccessful": outcome.error is None,
                "exitCode": int(outcome.exit_code),
                "toolExecutionNotifications": _make_notifications(outcome, len(listed)),
            }
        ],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return {"$schema": schema, "version": SARIF_VERSION, "runs": [run]}


def _make_result(catalog: str, each: GateFinding) -> dict[str, Any]:
    finding = each.finding
    header = 0 if ".jsonl" in catalog.lower() else 1
    return {
        "ruleId": "planted-text",
        "level": "error" if finding.tier == FLAGGED_TIER else "warning",
        "message": {"text": _say(finding)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _make_uri(catalog)},
                    "region": {"startLine": max(1, finding.row + header)},
                },
                "logicalLocations": [{"name": f"row {finding.row}", "fullyQualifiedName": _show(finding.id) or "-"}],
            }
        ],
        "partialFingerprints": {"cowbirdTitle/v1": each.fingerprint},
        "baselineState": "unchanged" if each.known else "new",
        "properties": {"row": finding.row, "score": finding.score, "tier": finding.tier, "counts": each.counts},
    }


def _make_uri(catalog: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return quote(Path(catalog).as_posix().encode("utf-8", "replace"))


def _make_notifications(outcome: GateOutcome, listed: int) -> list[dict[str, Any]]:
    told = [("error", str(outcome.error))] if outcome.error is not None else []
    told += [("warning", f"{what}: {each}") for what, each in _list_unread(outcome.scan)]
    if len(outcome.found) > listed:
        told.append(("note", f"{len(outcome.found) - listed:,} more findings are not listed here."))
    return [{"level": level, "message": {"text": _show(text)}} for level, text in told]


def _list_unread(scan: ScanSummary | None) -> list[tuple[str, UnreadRows]]:
    """Return what could not be read of the catalogue and of the reference, each with what it is."""
    if scan is None:
        return []
    told = [("Rows not read", each) for each in scan.unread]
    return told + [("Rows of the reference not read", each) for each in scan.reference_unread]


def make_junit(outcome: GateOutcome) -> ET.Element:
    """Return a JUnit report: a case for each finding that counts, for what was not read, and for the scan itself."""
    failed = [each for each in outcome.found if each.counts][:MAX_LISTED]
    cases = list[ET.Element]()
    name = _show(outcome.catalog)
    whole = _make_case("scan", name)
    cases.append(whole)
    if outcome.error is not None:
        ET.SubElement(whole, "error", {"message": _show(str(outcome.error))})
    elif outcome.scan is not None:
        judged = f"{outcome.scan.judged:,} titles judged, {outcome.counted:,} findings count."
        ET.SubElement(whole, "system-out").text = judged
    passed = outcome.exit_code != ExitCode.FINDINGS
    for each in failed:
        case = _make_case(f"row {each.finding.row}", name)
        kind = "skipped" if passed else "failure"  # so few may be flagged
        ET.SubElement(case, kind, {"message": _say(each.finding)})
        cases.append(case)
    for what, each in _list_unread(outcome.scan):
        case = _make_case(f"{what.lower()}: {_show(each.reason)}", name)
        ET.SubElement(case, "skipped", {"message": _show(str(each))})
        cases.append(case)
    suite = ET.Element("testsuite", {"name": "cowbird scan", "tests": str(len(cases))})
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)
    suites = ET.Element("testsuites")
    suites.append(suite)
    return suites


def _make_case(name: str, catalog: str) -> ET.Element:
    return ET.Element("testcase", {"classname": catalog, "name": name})


def _say(finding: ReviewedFinding) -> str:
    span = "" if finding.start is None else finding.title[finding.start : finding.end]
    marked = f" at '{_show(span)}'" if span else ""
    return f"{finding.tier}{marked}: {_show(finding.title)} ({_show(finding.reason)})"


def _show(text: str) -> str:
    return escape_terminal(text, MAX_SHOWN_TITLE)
