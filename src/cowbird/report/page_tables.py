"""Tables that only the page shows: groups of users and kinds of triggers, detectors, families of triggers."""

from collections.abc import Sequence

from cowbird.experiments.measures import CLEAN
from cowbird.experiments.results import NO_K
from cowbird.experiments.shipped_measures import NO_ATTACK, NO_SCENARIO
from cowbird.report.comparison import choose_cutoff
from cowbird.report.detectors import DETECTOR_MEASURES, DetectorLine, FamilyRecall
from cowbird.report.formats import ReportTable, make_report_table
from cowbird.report.rates import NOT_MEASURED
from cowbird.report.result_tables import format_interval, name_measure
from cowbird.report.run_files import RunFiles, add_spreads
from cowbird.report.selection import assign_victims, select_overall


def make_group_table(runs: Sequence[RunFiles], k: int | None = None) -> ReportTable:
    """Return a line a place and group: users of victims that rank, kinds of triggers of those that answer.

    Args:
        runs: The runs.
        k: Cut-off of victims that rank; 10 by default.
    """
    rows: list[list[str]] = []
    for run in runs:
        cutoff, known = choose_cutoff(run.rows, k), select_overall(add_spreads(run.rows))
        tasks = assign_victims(run.rows)
        for (place, group, metric, cut), row in known.items():
            victim, attack, defense, scenario = place
            summary = next((each for each, victims in tasks if victim in victims), None)
            if summary is None or attack == NO_ATTACK or scenario == NO_SCENARIO:
                continue
            measure = next((each for each in summary.attack if each.name == metric), None)
            if measure is None or cut != (cutoff if summary.by_cutoff else NO_K):
                continue
            clean = known.get((place, group, measure[CLEAN].name, cut))
            values = [format_interval(each, measure) for each in (clean, row)]
            labels = [run.label] if len(runs) > 1 else []
            rows.append([*labels, victim, attack, scenario, defense, group, name_measure(measure, cut), *values])
            rows[-1].append(f"{row.n:,}")
    names = ("run",) * (len(runs) > 1) + ("victim", "attack", "scenario", "defense", "group", "measure")
    header = (*names, "clean", "attacked", "n")
    return make_report_table(header, rows, range(len(names), len(header)))


def make_detector_table(lines: Sequence[tuple[RunFiles, DetectorLine]], several_runs: bool = False) -> ReportTable:
    """Return a line a detector and attack, in the order of the lines.

    Args:
        lines: The lines, each with its run.
        several_runs: Whether the run is named in each line.
    """
    shown = [measure for measure in DETECTOR_MEASURES if any(measure.name in line.rows for _, line in lines)]
    names = ("run",) * several_runs + ("victim", "attack", "family", "detector")
    rows: list[list[str]] = []
    for run, line in lines:
        attack = "(clean catalogue)" if line.attack == NO_ATTACK else line.attack
        labels = [run.label] * several_runs + [line.victim, attack, line.family or NOT_MEASURED, line.defense]
        rows.append(labels + [format_interval(line.rows.get(measure.name), measure) for measure in shown])
    header = (*names, *(measure.title for measure in shown))
    return make_report_table(header, rows, range(len(names), len(header)))


def make_family_table(recalls: Sequence[tuple[RunFiles, FamilyRecall]], several_runs: bool = False) -> ReportTable:
    """Return a line a family and detector.

    Args:
        recalls: What was found, each with its run.
        several_runs: Whether the run is named in each line.
    """
    names = ("run",) * several_runs + ("family", "detector")
    rows = [
        [run.label] * several_runs
        + [each.family, each.defense, f"{each.found / each.poisoned:.3f} [{each.low:.3f}, {each.high:.3f}]"]
        + [f"{each.poisoned:,}"]
        for run, each in recalls
    ]
    return make_report_table((*names, "recall", "n"), rows, range(len(names), len(names) + 2))
