"""Hostile text: nothing that can't be seen stays unseen, no cell is a formula, no markup is read."""

import csv
import html
import html.parser
import io
import json
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cowbird import text as hiding
from cowbird.text import escape_csv, escape_html, escape_terminal, quote_for_prompt, quote_json, replace_surrogates
from hostile import (
    BIDI_CONTROLS,
    BLANK_LETTERS,
    CONTROLS,
    DEFAULT_IGNORABLE,
    NO_CHARACTERS,
    PAYLOAD,
    SEQUENCES,
    SPACES,
    UNSEEN,
    VISIBLE_PAYLOAD,
    find_raw,
)

ANY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from(UNSEEN), st.sampled_from("=+-@;\t\r\n'\" ＝＋－＠﹢−<>&[]ab")),
    max_size=60,
)
PLAIN = ["Café 紅 – [a]", "Amélie (2001)", "七人の侍", "a  b", "8½ & “so” on", "", "🦜 über ß", "x" * 60]


def code(letter):
    return f"<U+{ord(letter):04X}>"


@pytest.mark.parametrize(
    "letters",
    [DEFAULT_IGNORABLE, BIDI_CONTROLS, CONTROLS, BLANK_LETTERS, NO_CHARACTERS, SPACES],
    ids=["default-ignorable", "bidi", "controls", "blank", "no characters", "spaces"],
)
def test_what_cannot_be_seen_stands_as_its_code(letters):
    for letter in letters:
        assert escape_terminal(f"A{letter}B") == f"A{code(letter)}B"
        assert escape_terminal(letter) == code(letter)
        assert escape_html(f"A{letter}B") == f"A&lt;U+{ord(letter):04X}&gt;B"
        assert not find_raw(escape_csv(escape_terminal(f"A{letter}B")))


def test_the_two_lists_of_default_ignorable_code_points_agree():
    """The code's and this test's were written down apart; a third, in the library regex, is newer than Python's."""
    letters = "".join(map(chr, range(0x110000)))
    own = set(re.findall(f"[{hiding._DEFAULT_IGNORABLE}]", letters))
    assert own == set(DEFAULT_IGNORABLE)
    regex = pytest.importorskip("regex")
    assert own == set(regex.findall(r"\p{Default_Ignorable_Code_Point}", letters))


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_do_nothing(name):
    for shown in (escape_terminal(SEQUENCES[name]), escape_html(SEQUENCES[name])):
        assert not find_raw(shown)
    assert not re.search(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]", escape_csv(SEQUENCES[name]))


@pytest.mark.parametrize("text", PLAIN)
def test_what_can_be_seen_stays(text):
    assert escape_terminal(text) == escape_terminal(text, None) == text
    assert escape_csv(text) == quote_for_prompt(text) == text
    assert html.unescape(escape_html(text)) == text


def test_a_bit_of_everything():
    assert escape_terminal(PAYLOAD, None) == VISIBLE_PAYLOAD
    assert [escape_terminal(text) for text in (" ", "  ", "a b", " a", "")] == [
        "<U+0020>",
        "<U+0020><U+0020>",
        "a b",
        " a",
        "",
    ]


def test_long_text_is_cut_by_its_own_characters():
    assert escape_terminal("abcdef", 4) == "abc…"
    assert escape_terminal("\x1b" * 3, 3) == "<U+001B>" * 3
    assert escape_terminal("\x1b" * 4, 3) == "<U+001B><U+001B>…"
    assert escape_terminal(" " * 61, 60) == "<U+0020>" * 59 + "…"
    assert escape_html("<b>&" * 20, 5) == "&lt;b&gt;&amp;…"


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, st.one_of(st.none(), st.integers(1, 70)))
def test_nothing_raw_is_shown_of_any_text(text, limit):
    shown = escape_terminal(text, limit)
    assert not find_raw(shown)
    assert shown.isprintable()
    assert "\n" not in shown
    assert text == "" or shown.strip()
    shown.encode()


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
@example('"><script>alert(1)</script>')
def test_html_reads_as_text(text):
    seen = []
    parser = html.parser.HTMLParser(convert_charrefs=True)
    parser.handle_starttag = lambda tag, attributes: seen.append((tag, attributes))
    parser.handle_data = seen.append
    parser.feed(f'<p title="{escape_html(text)}">{escape_html(text)}')
    parser.close()
    shown = escape_terminal(text, None)
    assert seen[0] == ("p", [("title", shown)])
    assert "".join(seen[1:]) == shown


FORMULAS = {
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "\tx": "'\tx",
    "\rx": "'\rx",
    "\n=x": "'\n'=x",
    "  =x": "'  =x",
    "＝x": "'＝x",
    "＋x": "'＋x",
    "－x": "'－x",
    "＠x": "'＠x",
    "﹦x": "'﹦x",
    "−x": "'−x",
    "'=x": "''=x",
    "\u200b=x": "'\u200b=x",
    "a;=x": "a;'=x",
    "a; -x": "a;' -x",
    'a;"=x': "a;'\"=x",
    "a\t=x": "a\t'=x",
    "a\r\n+x": "a\r\n'+x",
    ";;=x;@y": ";;'=x;'@y",
    "'Tis a title": "'Tis a title",
    "a=b": "a=b",
    "M5; 10 pcs": "M5; 10 pcs",
    "a, -b": "a, -b",
    "": "",
}


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    assert escape_csv(text) == FORMULAS[text]


SIGNS = tuple("=+-@＝＋－＠﹢﹣﹦﹫−")


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(ANY_TEXT)
@example("a;=cmd|' /C calc'!A0")
@example(";\t=x")
@example("''\t'=x")
def test_no_spreadsheet_finds_a_formula_whatever_it_splits_at(text):
    """A cell is read by a spreadsheet that splits at commas, semicolons or tabs, and minds quotes or not."""
    cell = escape_csv(text)
    line = f'1,"{cell}",x'.replace('"' + cell + '"', '"' + cell.replace('"', '""') + '"')
    for separator in ",;\t":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            reader = csv.reader(io.StringIO(line, newline=""), delimiter=separator, quoting=quoting)
            for row in reader:
                for part in row:
                    seen = re.sub(r"^[\s\"\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+", "", part)
                    assert (quoting == csv.QUOTE_NONE and separator == ",") or not seen.startswith(SIGNS), part


def restore(cell):
    """Take away one apostrophe in each place where one was put, by the words of the docstring."""
    skipped = r"[^\S\t\r\n]|['\"\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
    signs = "".join(map(re.escape, SIGNS))
    return re.sub(rf"(\A|(?<=[;\t\r\n]))'(?=(?:{skipped})*[{signs}])|\A'(?='*[\t\r\n])", "", cell)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(ANY_TEXT)
def test_the_text_comes_back_from_a_cell(text):
    known = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
    assert restore(escape_csv(text)) == known
    assert len(known) == len(text), "places in the text stay where they are"


@pytest.mark.parametrize("text", ["\t" * 200_000, ";" * 200_000, "'" * 200_000, " " * 200_000, "; " * 100_000 + "="])
def test_long_text_costs_no_time(text):
    """A title of a stranger may be long; the time grows with its length and not with the square."""
    import time

    begun = time.process_time()
    escape_csv(text), escape_terminal(text, None), escape_html(text), quote_for_prompt(text)
    assert time.process_time() - begun < 2


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_a_quotation_ends_neither_itself_nor_its_line(text):
    found = quote_for_prompt(text)
    assert '"' not in found
    assert len(found.splitlines()) <= 1
    assert quote_for_prompt(found) == found
    quoted = quote_json(text)
    assert json.loads(quoted) == text
    assert quoted.isascii()
    assert quoted.isprintable()
    assert not set(quoted) & set("<[")


def test_surrogates_are_replaced_one_by_one():
    assert replace_surrogates("a\ud83d\udc00b") == "a\ufffd\ufffdb"


def test_nothing_heavy_is_imported():
    code = "import sys, cowbird.text; sys.exit(bool({'torch', 'polars', 'rich', 'regex'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
