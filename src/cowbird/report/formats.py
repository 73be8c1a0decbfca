"""A table as CSV, Markdown or LaTeX. Labels may be anybody's text: each format gets them escaped."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cowbird.text import escape_csv, escape_html, escape_terminal

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_LATEX_SPECIAL = {
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"–": "--", "→": r"$\rightarrow$", "×": r"$\times$", "≥": r"$\geq$", "∞": r"$\infty$", "−": "$-$"},
}


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of text."""

    header: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """The cells, row by row."""
    numeric: frozenset[int] = frozenset()
    """Which columns hold numbers, from 0; they are set to the right."""


def to_csv_table(table: ReportTable) -> str:
    """Return a table as CSV that no spreadsheet takes for formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    for row in table.rows:
        writer.writerow(
            cell if nth in table.numeric else escape_csv(escape_terminal(cell, None)) for nth, cell in enumerate(row)
        )
    return text.getvalue()


def to_markdown(table: ReportTable) -> str:
    """Return a table as GitHub's Markdown has it; no cell holds markup or HTML."""
    rule = ["---:" if nth in table.numeric else "---" for nth in range(len(table.header))]
    lines = [map(_escape_markdown, table.header), rule, *(map(_escape_markdown, row) for row in table.rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _escape_markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", escape_html(text))


def to_latex(table: ReportTable) -> str:
    """Return a table as LaTeX with the package `booktabs`; no cell holds a command of its own."""
    columns = "".join("r" if nth in table.numeric else "l" for nth in range(len(table.header)))
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _join_latex(table.header), r"\midrule"]
    lines += [*map(_join_latex, table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _join_latex(cells: Iterable[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def escape_latex(text: str) -> str:
    """Return a text for LaTeX in which nothing is a command; what can't be seen stands as its code."""
    return "".join(_LATEX_SPECIAL.get(letter, letter) for letter in escape_terminal(text, None))


TABLE_FORMATS: dict[str, Callable[[ReportTable], str]] = {
    "csv": to_csv_table,
    "markdown": to_markdown,
    "latex": to_latex,
}
"""What writes a table, by the name of the format."""


def make_report_table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> ReportTable:
    """Make a table of text.

    Args:
        header: Names of the columns.
        rows: The cells, row by row.
        numeric: Which columns hold numbers, from 0.
    """
    return ReportTable(tuple(header), tuple(tuple(row) for row in rows), frozenset(numeric))
