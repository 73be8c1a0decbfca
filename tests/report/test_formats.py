"""Tables as CSV, Markdown and LaTeX: numbers whole, and no label that is markup, a command or a formula."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.report.formats import TABLE_FORMATS, escape_latex, make_report_table, to_csv_table, to_latex, to_markdown
from cowbird.text import escape_csv, restore_csv
from doubles.result_rows import HOSTILE_LABEL
from hostile import PAYLOAD, find_raw

TABLE = make_report_table(("attack", "ASR"), [("a|b_c", "0.9 [0.8, 1.0]"), ("=1+1", "-0.5")], [1])


def test_csv_reads_back_and_holds_no_formula():
    assert list(csv.reader(io.StringIO(to_csv_table(TABLE)))) == [
        ["attack", "ASR"], ["a|b_c", "0.9 [0.8, 1.0]"], ["'=1+1", "-0.5"]
    ]  # fmt: skip


def test_markdown():
    assert to_markdown(TABLE) == (
        "| attack | ASR |\n| --- | ---: |\n| a\\|b\\_c | 0.9 \\[0.8, 1.0\\] |\n| =1\\+1 | -0.5 |\n"
    )


def test_latex():
    assert to_latex(TABLE) == (
        "\\begin{tabular}{lr}\n\\toprule\nattack & ASR \\\\\n\\midrule\na\\textbar{}b\\_c & 0.9 [0.8, 1.0] \\\\\n"
        "=1+1 & -0.5 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    assert escape_latex("\\input{x} 5% → ∞") == "\\textbackslash{}input\\{x\\} 5\\% $\\rightarrow$ $\\infty$"


@pytest.mark.parametrize("form", TABLE_FORMATS)
@pytest.mark.parametrize("text", [PAYLOAD, HOSTILE_LABEL, "a\nb | c\n\\end{tabular}"])
def test_hostile_labels_stay_in_their_cell(form, text):
    made = TABLE_FORMATS[form](make_report_table(("a",), [(text,)]))
    assert not find_raw(made)
    assert made.count("\n") == {"csv": 2, "markdown": 3, "latex": 7}[form]
    if form == "markdown":
        assert "<" not in made
    if form == "latex":
        assert made.count("\\end{tabular}") == 1


@given(st.text(st.sampled_from("'\"=+-@; \t\n\ra＝"), max_size=9))
def test_a_cell_gives_its_text_back(text):
    assert restore_csv(escape_csv(text)) == text
