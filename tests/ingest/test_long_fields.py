"""One quoted field of very many lines: rows are refused one by one, and no line is read again and again."""

import gzip

import pytest

from cowbird.ingest.records import MAX_RECORD_LINES, DelimitedRecords, QuoteForm
from cowbird.scanning.reading import open_catalog

LINES = 1000


class CountingRecords(DelimitedRecords):
    """Counts how often a line is looked at behind an open quote."""

    looked = 0

    def _peek_lines(self, line):
        for more in super()._peek_lines(line):
            self.looked += 1
            yield more


@pytest.mark.parametrize(
    "line",
    [b"abc " * 125, b'""' * 250, b'x"' * 250, b',"' + b'""' * 249, b"\\" * 500, b'\\"' * 250, b'"' * 501, b' "a'],
    ids=["words", "pairs", "odd", "fields", "backslashes", "escaped", "open", "spaced"],
)
@pytest.mark.parametrize("form", [QuoteForm(), QuoteForm(escaped=True), QuoteForm(spaced=True)], ids=str)
def test_lines_behind_an_open_quote_are_looked_at_a_few_times(line, form):
    lines = [b'"' + line, *[line] * LINES, b'"']
    records = CountingRecords(iter(lines), b",", form)
    assert sum(1 for _ in records) <= len(lines)
    assert records.looked <= 2 * len(lines) + MAX_RECORD_LINES


def test_it_costs_one_row_and_the_others_are_read(tmp_path):
    path = tmp_path / "field.csv.gz"
    body = b'title\n"' + b"".join(b"%05d\n" % number for number in range(LINES)) + b'"\nlast\n'
    path.write_bytes(gzip.compress(body))
    rows = list(open_catalog(path).read_rows())
    assert [row.number for row in rows if row.problem] == [1, LINES + 1]
    assert rows[-2].problem == "a quote is not closed within 100 lines" or rows[-1].title == "last"
    assert len(rows) >= LINES
