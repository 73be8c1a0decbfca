"""What a scan comes to: counts, what flagged titles have in common, an exit code, and what is shown on a terminal."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.errors import ExitCode
from cowbird.scanning.findings import REVIEW_TIER, Finding
from cowbird.scanning.unread import UnreadRows, UnreadTally, count_unread, format_unread
from cowbird.text import MAX_FRAGMENT_LENGTH, count_things, escape_terminal, normalize_span

MAX_SHARED_FRAGMENTS = 20
"""Recurring fragments that a summary holds at most."""
EXAMPLES_PER_FRAGMENT = 3
"""Titles that a summary shows of each."""
MAX_WORST_FINDINGS = 5
"""Most suspicious rows that a summary holds at most."""
MAX_DOUBTFUL_FINDINGS = 3
"""Rows for review that a summary holds at most."""
MANY_UNREAD = 0.05
"""Share of rows that can't be read from which on the file may be read in a wrong way."""
MANY_UNREAD_HINT = (
    "Those are many: see how the file is read (cowbird peek), and say how it is to be: --separator, --quote, "
    "--header-row, --encoding."
)
REFERENCE_UNREAD_LEAD = "Nothing was learned from rows of the reference that can't be read"
"""What is said of them, before their number."""
MAX_DISTINCT_FRAGMENTS = 1 << 14
"""Distinct fragments counted at once; when there are more, the rarer half is forgotten and later counted anew."""


@dataclass(frozen=True, slots=True)
class SharedFragment:
    """A piece of text that a title was flagged for, and other titles for it too, or put up for review."""

    text: str
    """The span, normalized (NFKC), case-folded, and with single spaces."""
    count: int
    """Flagged rows whose span it is; at least so many of more than `MAX_DISTINCT_FRAGMENTS` spans."""
    examples: tuple[str, ...]
    """The first distinct flagged titles with it."""
    review: int = 0
    """Rows for review whose span it is."""


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """What a scan came to."""

    catalog: str
    """Name of the catalogue."""
    out: Path
    """Where the findings stand."""
    rows: int
    """Rows of the catalogue, readable or not."""
    empty: int
    """Rows that have no title."""
    flagged: int
    """Rows whose title is flagged."""
    unread: tuple[UnreadRows, ...]
    """Rows that could not be read and were skipped, by reason, most first."""
    skipped_file: Path | None
    """Where all of these stand; `None` if there are none."""
    fragments: tuple[SharedFragment, ...]
    """What flagged rows share with others, flagged or for review, most often flagged first; `MAX_SHARED_FRAGMENTS`."""
    worst: tuple[Finding, ...]
    """The flagged rows with the highest scores, one of those flagged for the same, at most `MAX_WORST_FINDINGS`."""
    resumed: int
    """Rows that an interrupted scan had done before."""
    seconds: float
    """Seconds since this scan was started or resumed."""
    rate: float
    """Titles a second since then, with what made the scorer ready."""
    review: int = 0
    """Rows that are not flagged, but a person should look."""
    allowed: int = 0
    """Rows that are suspicious, but named by `--allow`."""
    doubtful: tuple[Finding, ...] = ()
    """The rows up for review with the highest scores, at most `MAX_DOUBTFUL_FINDINGS`; of those judged since."""
    only_flagged: bool = False
    """Whether only flagged rows stand in the findings."""
    ids: bool = True
    """Whether any of the rows has an id; of those that are in the findings, or were judged since."""
    notes: tuple[str, ...] = ()
    """How the catalogue was read, and what was done to it."""
    reference_unread: tuple[UnreadRows, ...] = ()
    """Rows of the reference that could not be read, and so say nothing of what is usual."""

    @property
    def skipped(self) -> int:
        """Rows that could not be read."""
        return count_unread(self.unread)

    @property
    def incomplete(self) -> bool:
        """Whether rows could not be read, of the catalogue or of the reference."""
        return bool(self.unread or self.reference_unread)

    @property
    def judged(self) -> int:
        """Rows whose title was judged."""
        return self.rows - self.skipped - self.empty


class FindingTally:
    """Counts as a scan goes on; memory does not grow with the catalogue."""

    def __init__(self) -> None:
        self.flagged = 0
        self.worst: tuple[Finding, ...] = ()
        """The most suspicious of them, most suspicious first."""
        self.doubtful: tuple[Finding, ...] = ()
        """The most suspicious of those for review, most suspicious first."""
        self.ids = False
        """Whether any of them has an id."""
        self._unread = UnreadTally()
        self._counts: Counter[str] = Counter()
        self._doubted: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, finding: Finding) -> None:
        """Count a finding."""
        self.ids = self.ids or finding.id is not None
        if finding.tier == REVIEW_TIER:
            self.doubtful = _rank(self.doubtful, finding, MAX_DOUBTFUL_FINDINGS)
        if finding.flagged:
            self.flagged += 1
            self.worst = _rank(self.worst, finding, MAX_WORST_FINDINGS)
        if finding.start is None or finding.end is None or not (finding.flagged or finding.tier == REVIEW_TIER):
            return
        text = normalize_span(finding.title[finding.start : finding.end])
        if not finding.flagged:
            self._doubted[text] += 1
            self._forget_rare()
            return
        self._counts[text] += 1
        examples, title = self._examples.setdefault(text, []), finding.title[:MAX_FRAGMENT_LENGTH]
        if len(examples) < EXAMPLES_PER_FRAGMENT and title not in examples:
            examples.append(title)
        self._forget_rare()

    def add_skip(self, row: int, reason: str) -> None:
        """Count a row that could not be read."""
        self._unread.add(row, reason)

    def merge(self, other: "FindingTally") -> None:
        """Count what was counted of rows behind these."""
        for each in other.worst:
            self.worst = _rank(self.worst, each, MAX_WORST_FINDINGS)
        for each in other.doubtful:
            self.doubtful = _rank(self.doubtful, each, MAX_DOUBTFUL_FINDINGS)
        self.flagged, self.ids = self.flagged + other.flagged, self.ids or other.ids
        for text, count in other._counts.items():
            self._counts[text] += count
            known = self._examples.setdefault(text, [])
            known += [title for title in other._examples[text] if title not in known][
                : EXAMPLES_PER_FRAGMENT - len(known)
            ]
        self._doubted.update(other._doubted)
        self._forget_rare()

    def _forget_rare(self) -> None:
        if len(self._counts) > MAX_DISTINCT_FRAGMENTS:
            self._counts = Counter(dict(self._counts.most_common(MAX_DISTINCT_FRAGMENTS // 2)))
            self._examples = {text: self._examples[text] for text in self._counts}
        if len(self._doubted) > MAX_DISTINCT_FRAGMENTS:
            self._doubted = Counter(dict(self._doubted.most_common(MAX_DISTINCT_FRAGMENTS // 2)))

    def to_record(self) -> dict[str, Any]:
        """Return what is counted of findings as plain JSON values; rows that could not be read are not in it."""
        return {
            "flagged": self.flagged,
            "ids": self.ids,
            "worst": self.worst,
            "doubtful": self.doubtful,
            "fragments": [[text, count, self._examples[text]] for text, count in self._counts.items()],
            "doubted": list(self._doubted.items()),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "FindingTally":
        """Return what `to_record` told; any error of Python says that it is no such record."""
        made = FindingTally()
        made.flagged, made.ids = int(record["flagged"]), bool(record["ids"])
        made.worst = tuple(Finding(*each) for each in record["worst"])
        made.doubtful = tuple(Finding(*each) for each in record["doubtful"])
        made._counts = Counter({str(text): int(count) for text, count, _ in record["fragments"]})
        made._doubted = Counter({str(text): int(count) for text, count in record["doubted"]})
        made._examples = {str(text): list(map(str, examples)) for text, _, examples in record["fragments"]}
        return made

    def list_unread(self) -> tuple[UnreadRows, ...]:
        """Return what could not be read, by reason, most rows first."""
        return self._unread.list()

    def list_fragments(self) -> tuple[SharedFragment, ...]:
        """Return what a flagged row has in common with others, flagged or for review; most often flagged first."""
        common = [(text, count) for text, count in self._counts.most_common() if count + self._doubted[text] > 1]
        return tuple(
            SharedFragment(text, count, tuple(self._examples[text]), self._doubted[text])
            for text, count in common[:MAX_SHARED_FRAGMENTS]
        )


def _rank(known: tuple[Finding, ...], finding: Finding, most: int) -> tuple[Finding, ...]:
    """Return the most suspicious of some findings; of those for the same span the first with the highest score."""
    if len(known) == most and (finding.score or 0.0) <= (known[-1].score or 0.0):
        return known  # which it can't change: it would come behind all of them
    best: dict[str, Finding] = {}
    for each in sorted((*known, finding), key=lambda each: -(each.score or 0.0)):
        spanned = each.start is not None and each.end is not None
        best.setdefault(normalize_span(each.title[each.start : each.end]) if spanned else each.title, each)
    return tuple(best.values())[:most]


def choose_exit_code(summary: ScanSummary) -> ExitCode:
    """Return what a scan tells the shell.

    1 if titles were flagged, whether or not all rows could be read: a finding is not taken back by what was not read,
    and a script that stops at findings must stop. 3 if none was and rows could not be read, of the catalogue or of the
    reference. 0 if none was among all rows. An error that stops the scan is 2, as everywhere.
    """
    if summary.flagged:
        return ExitCode.FINDINGS
    return ExitCode.INCOMPLETE if summary.incomplete else ExitCode.CLEAN


def render_summary(summary: ScanSummary, how: str = "") -> Group:
    """Return the summary for a terminal: what was checked, what was found, and what was not checked.

    Args:
        summary: What the scan came to.
        how: A sentence on what read the titles; empty for none.
    """
    share = f" ({summary.flagged / summary.judged:.2%})" if summary.judged else ""
    head = Text(f"Checked {count_things(summary.judged, 'title')} of ").append(escape_terminal(summary.catalog))
    head.append(f": {summary.flagged:,} flagged{share}.", style="bold")
    parts: list[Text | Table] = [head, *([Text(how)] if how else [])]
    if not summary.flagged:
        parts.append(Text("None scored above this scanner's threshold; that rules out no trigger it can't see."))
    if summary.review:
        place = "not in the findings (--only-flagged)" if summary.only_flagged else "tier 'review' in the findings"
        parts.append(Text(f"For review: {count_things(summary.review, 'more title')}, {place}."))
    if summary.allowed:
        titles = count_things(summary.allowed, "title")
        parts.append(Text(f"Suspicious, but allowed by --allow: {titles}, with the tier 'allowed'."))
    if summary.empty:
        parts.append(Text(f"Without a title: {count_things(summary.empty, 'row')}."))
    parts += format_unread(summary.unread, "Not checked, because they can't be read")
    if summary.skipped > MANY_UNREAD * summary.rows:
        parts.append(Text(MANY_UNREAD_HINT))
    parts += format_unread(summary.reference_unread, REFERENCE_UNREAD_LEAD)
    parts += [Text(escape_terminal(note, 500), style="dim") for note in summary.notes]
    if summary.fragments:
        parts.append(_make_fragment_table(summary.fragments))
    if summary.resumed:
        parts.append(Text(f"Rows up to {summary.resumed:,} were done before the interruption."))
    rate = f"{summary.rate:,.0f}" if summary.rate >= 10 else f"{summary.rate:.2g}"
    parts.append(Text(f"{summary.seconds:.1f} s, {rate} titles a second.", style="dim"))
    if not summary.ids:
        parts.append(
            Text("The findings have no ids: no column is known for them by its name. Name it: --id-column COLUMN.")
        )
    parts.append(Text("Findings: ").append(escape_terminal(str(summary.out), 300)))
    if summary.skipped_file:
        parts.append(Text("Rows not read: ").append(escape_terminal(str(summary.skipped_file), 300)))
    return Group(*parts)


def _make_fragment_table(fragments: tuple[SharedFragment, ...]) -> Table:
    table = Table(title="flagged for the same", title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("fragment", overflow="fold", max_width=32)
    table.add_column("rows", justify="right", no_wrap=True)
    doubted = any(each.review for each in fragments)
    if doubted:
        table.add_column("and for review", justify="right", no_wrap=True)
    table.add_column("such as", overflow="fold")
    for each in fragments:
        examples = Text("\n".join(escape_terminal(title) for title in each.examples))
        more = [f"{each.review:,}"] if doubted else []
        table.add_row(Text(escape_terminal(each.text)), f"{each.count:,}", *more, examples)
    return table
