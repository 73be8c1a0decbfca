"""One page about some runs: a file that loads nothing, needs no script to be read, and trusts no text.

Every text passes through `cowbird.text.escape_terminal` and through Jinja's autoescaping, for titles, labels and
messages may be an attacker's. The page allows the browser nothing but its own style sheet and its own script, both by
their hash. Charts are SVG in percent of their frame (`cowbird.report.plots`): a bundle of Vega would be nine tenths of
the file, and making it takes longer than all else.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cowbird import __version__
from cowbird.errors import UserError
from cowbird.experiments.results import Row
from cowbird.files import hash_file, write_text
from cowbird.report.detectors import FlaggedTitles, count_families, list_detector_lines, load_flagged, make_curve
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.inspection_files import InspectionSummary, read_inspection_file
from cowbird.report.leaderboard import rank_runs
from cowbird.report.outcomes import list_outcomes
from cowbird.report.page_facts import RunFacts, describe_extent, list_gaps, make_run_facts
from cowbird.report.page_tables import make_detector_table, make_family_table, make_group_table
from cowbird.report.plots import Axis, IntervalStrip, LinePlot, Scatter, make_line_plots, make_scatter, make_strips
from cowbird.report.result_tables import make_board_table, make_outcome_table
from cowbird.report.run_files import RunFiles, read_runs
from cowbird.report.shown_titles import PlantedTitles, ScanFindings, list_planted_titles, read_findings_file
from cowbird.report.verdicts import AttackVerdict, VerdictLine, make_verdicts, summarize_verdicts
from cowbird.text import escape_terminal

MAX_SHOWN_VERDICTS = 40
"""Places whose verdict is shown with a chart; the table below has all."""
MAX_SHOWN_PLOTS = 8
"""Trade-off plots, and pairs of detector curves, that are drawn."""
MAX_TABLE_LINES = 400
"""Lines of a table on the page; all rows are in the last section."""
PAGE_FOLDER = "page_files"


@dataclass(frozen=True, slots=True)
class PlaceView:
    """A verdict as the page shows it."""

    title: str
    """The place, in words."""
    tone: str
    """How it is marked."""
    lines: tuple[VerdictLine, ...]
    """Its sentences."""
    axis: Axis
    """The axis of its chart."""
    strips: tuple[IntervalStrip, ...]
    """The lines of its chart."""


@dataclass(frozen=True)
class ReportPage:
    """What a page shows."""

    title: str
    """Names of the experiments."""
    facts: str
    """What was measured on what, in a line."""
    headline: list[str]
    """The verdict in short."""
    verdicts: list[PlaceView]
    """The verdict of each place."""
    more_verdicts: str
    """What is left out of those; empty if nothing is."""
    checked: list[str]
    """What was checked."""
    unchecked: list[str]
    """What was not."""
    outcomes: ReportTable | None
    """A line an outcome; `None` if no attack was measured."""
    groups: ReportTable | None
    """The same by group."""
    scatters: list[Scatter]
    """Trade-offs."""
    boards: list[tuple[str, ReportTable]]
    """Ranks of defenses."""
    detectors: ReportTable | None
    """What detectors find."""
    families: ReportTable | None
    """The same by family of triggers."""
    curves: list[tuple[LinePlot, LinePlot]]
    """ROC and precision-recall plots."""
    planted: list[PlantedTitles]
    """Titles that attacks wrote."""
    scans: list[ScanFindings]
    """What scans found."""
    inspections: list[InspectionSummary]
    """What inspections of models found."""
    runs: list[RunFacts]
    """How the runs were made."""
    files: ReportTable | None
    """Other files, with their hashes."""
    rows: list[tuple[str, Row]]
    """All rows, with the run's label."""
    version: str = __version__
    """Version of Cowbird."""
    sections: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Sections, by anchor and name."""

    def __post_init__(self) -> None:
        """List the sections that there are."""
        shown = [
            ("verdict", "Verdict", True),
            ("outcomes", "Outcomes", self.outcomes),
            ("tradeoff", "Trade-offs", self.scatters),
            ("ranks", "Ranks", self.boards),
            ("detectors", "Detectors", self.detectors),
            ("planted", "Planted titles", self.planted),
            ("scans", "Scan findings", self.scans),
            ("inspections", "Inspected models", self.inspections),
            ("made", "How this was made", True),
            ("rows", "All rows", True),
        ]
        self.sections.extend((anchor, name) for anchor, name, there in shown if there)


def write_report(
    paths: Sequence[Path],
    out: Path,
    findings: Sequence[Path] = (),
    inspections: Sequence[Path] = (),
    k: int | None = None,
) -> int:
    """Write a page about some runs.

    Args:
        paths: Folders of runs, or files of rows.
        out: The page.
        findings: Files that `cowbird scan` wrote.
        inspections: Files that `cowbird inspect` wrote.
        k: Cut-off of victims that rank; 10 by default.

    Returns:
        How many rows the page is about.

    Raises:
        UserError: If a file can't be read, or the page can't be written.
    """
    page = make_page(read_runs(paths), findings, inspections, k)
    write_text(out, render_page(page))
    return len(page.rows)


def make_page(
    runs: Sequence[RunFiles], findings: Sequence[Path] = (), inspections: Sequence[Path] = (), k: int | None = None
) -> ReportPage:
    """Gather what a page shows; arguments and errors as in `write_report`."""
    several = len(runs) > 1
    outcomes = [each for run in runs for each in list_outcomes(run, k)]
    verdicts = make_verdicts(outcomes, several)
    scans, models = [read_findings_file(path) for path in findings], [read_inspection_file(p) for p in inspections]
    held = [(run, list(load_flagged(run))) for run in runs]
    curves = [plots for run, flagged in held for plots in _plot_curves(run, flagged)]
    recalls = [(run, each) for run, flagged in held for each in count_families(run, flagged)]
    lines = [(run, line) for run in runs for line in list_detector_lines(run)]
    others = [*findings, *inspections]
    hidden = len(verdicts) - MAX_SHOWN_VERDICTS
    return ReportPage(
        title=", ".join(dict.fromkeys(row.experiment for run in runs for row in run.rows)),
        facts=_describe_runs(runs),
        headline=summarize_verdicts(verdicts),
        verdicts=[_make_view(each) for each in verdicts[:MAX_SHOWN_VERDICTS]],
        more_verdicts=f"{hidden} more are in the table below." if hidden > 0 else "",
        checked=describe_extent(runs, outcomes, scans, models),
        unchecked=list_gaps(runs, outcomes),
        outcomes=_cut_table(make_outcome_table(outcomes, several)) if outcomes else None,
        groups=_cut_table(make_group_table(runs, k)) if outcomes else None,
        scatters=_plot_trade_offs(verdicts),
        boards=_rank_defenses(runs, k),
        detectors=_cut_table(make_detector_table(lines, several)) if lines else None,
        families=make_family_table(recalls, several) if recalls else None,
        curves=curves[:MAX_SHOWN_PLOTS],
        planted=[each for run, flagged in held for each in list_planted_titles(run, flagged)],
        scans=scans,
        inspections=models,
        runs=[make_run_facts(run) for run in runs],
        files=make_report_table(("file", "SHA-256"), [(path.name, hash_file(path)) for path in others])
        if others
        else None,
        rows=[(run.label, row) for run in runs for row in run.rows],
    )


def _describe_runs(runs: Sequence[RunFiles]) -> str:
    rows = [row for run in runs for row in run.rows]
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    data = ", ".join(dict.fromkeys(row.dataset for row in rows))
    victims = ", ".join(dict.fromkeys(row.victim for row in rows))
    shown = ", ".join(map(str, seeds[:8])) + (f" and {len(seeds) - 8} more" if len(seeds) > 8 else "")
    return f"Data: {data}. Victims: {victims}. Seeds: {shown or 'pooled'}. {len(rows):,} rows."


def _make_view(verdict: AttackVerdict) -> PlaceView:
    axis, strips = make_strips(verdict.outcomes)
    return PlaceView(verdict.title, verdict.tone, verdict.lines, axis, tuple(strips))


def _cut_table(table: ReportTable) -> ReportTable:
    """Return a table with as many lines as a page shows; a last line tells how many are left out."""
    left = len(table.rows) - MAX_TABLE_LINES
    if left <= 0:
        return table
    last = (f"… and {left:,} more", *[""] * (len(table.header) - 1))
    return ReportTable(table.header, (*table.rows[:MAX_TABLE_LINES], last), table.numeric)


def _plot_trade_offs(verdicts: Sequence[AttackVerdict]) -> list[Scatter]:
    made = (make_scatter(each.title, each.outcomes) for each in verdicts)
    return [each for each in made if each is not None][:MAX_SHOWN_PLOTS]


def _plot_curves(run: RunFiles, flagged: Sequence[FlaggedTitles]) -> list[tuple[LinePlot, LinePlot]]:
    found = [make_curve(each) for each in flagged]
    known = [curve for curve in found if curve is not None]
    places = dict.fromkeys((curve.victim, curve.attack) for curve in known)
    return [
        make_line_plots(
            f"{attack}, {victim} ({run.label})", [c for c in known if (c.victim, c.attack) == (victim, attack)]
        )
        for victim, attack in places
    ]


def _rank_defenses(runs: Sequence[RunFiles], k: int | None) -> list[tuple[str, ReportTable]]:
    try:
        boards = rank_runs(runs, "defense", k=k)
    except UserError:
        return []  # there is one defense only
    return [(board.title, make_board_table(board, "defense")) for board in boards[:MAX_SHOWN_PLOTS]]


def render_page(page: ReportPage) -> str:
    """Return a page as HTML."""
    style, script = (_read_part(name) for name in ("style.css", "page.js"))
    policy = f"default-src 'none'; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
    policy += "img-src 'none'; base-uri 'none'; form-action 'none'"
    environment = Environment(
        loader=FunctionLoader(_read_part),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escape_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.j2")
    parts = {"style": style, "script": script, "data": _pack_rows(page.rows)}
    return template.render(page=page, policy=policy, **{name: Markup(text) for name, text in parts.items()})


def _read_part(name: str) -> str:
    return files("cowbird.report").joinpath(PAGE_FOLDER, name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _escape_value(value: Any) -> Any:
    """Return a value as it is escaped next: of a text, what can't be seen stands as its code."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return escape_terminal(value, None)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


def _pack_rows(rows: Sequence[tuple[str, Row]]) -> str:
    """Return rows as JSON for the page's script: texts as numbers into a list of words, and no `<` in it."""
    names = ("run", *(name for name in Row.model_fields if name not in ("experiment", "dataset")))
    numbers = ("k", "seed", "value", "low", "high", "n")
    words: dict[str, int] = {}
    packed: list[list[Any]] = []
    for run, row in rows:
        cells: list[Any] = []
        for name in names:
            value = run if name == "run" else getattr(row, name)
            if name in numbers:
                cells.append(float(f"{value:.6g}") if isinstance(value, float) else value)
            else:
                cells.append(words.setdefault(value, len(words)))
        packed.append(cells)
    content: dict[str, Any] = {"header": names, "texts": [name not in numbers for name in names], "rows": packed}
    content["words"] = [escape_terminal(word, None) for word in words]
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
