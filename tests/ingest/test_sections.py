"""Sections of a text file: read apart, their rows are those of the whole file, whatever its quotes do."""

import gzip
import random

import pytest

from cowbird.ingest import sections
from cowbird.ingest.open import open_rows
from cowbird.ingest.options import ReadOptions
from cowbird.ingest.records import MAX_RECORD_LINES
from cowbird.ingest.sections import Section, cut_sections
from cowbird.notices import collect_notices

PIECES = ("plain", "", "a, b", 'half "quoted"', "two\nlines", '"', "x" * 300, "\ufeff", "é", "NULL")


@pytest.fixture(autouse=True)
def small_sections(monkeypatch):
    monkeypatch.setattr(sections, "SECTION_BYTES", 1500)
    monkeypatch.setattr(sections, "LOOK_BYTES", (2000, 8000))


def write_rows(draw, rows, quoted):
    """Return lines of a CSV, of which a share has quotes, some of them open."""
    lines = []
    for row in range(rows):
        text = f"title {row}"
        if draw.random() < quoted:
            text = draw.choice([f'"{draw.choice(PIECES)}"', f'"open {row}', f'pipe 5" {row}', f'"a ""b"" {row}"', '""'])
        elif draw.random() < 0.05:
            text = draw.choice(
                [piece for piece in PIECES if '"' not in piece and "," not in piece and "\n" not in piece]
            )
        lines.append(draw.choice([f"{row},{text}\n"] * 40 + [f"{row},{text}\r\n", "\n", "id,title\n", f"{row},a,b\n"]))
    return lines


def read_all(table):
    """Return the rows of a table and how often its header is repeated."""
    with collect_notices() as told:
        rows = [row for run in table.read_runs([0, 1]) for row in spell_run(run)]
    return rows, sum(notice.low or 0 for notice in told.list())


def spell_run(run):
    if isinstance(run, list):
        return [
            (tuple(cell.decode("utf-8", "replace") for cell in row.cells if cell is not None), row.problem)
            for row in run
        ]
    return [(cells, "") for cells in zip(*run.columns, strict=True)]


@pytest.mark.parametrize("quoted", [0.0, 0.001, 0.02, 0.5])
@pytest.mark.parametrize("options", [ReadOptions(), ReadOptions(quote="none")], ids=["quotes", "no quotes"])
def test_sections_have_the_rows_of_the_file(tmp_path, quoted, options):
    cut = 0
    for seed in range(3):
        draw = random.Random(seed)
        path = tmp_path / "items.csv"
        head = "\ufeffid,title\n" if seed % 2 else "id,title\n"
        body = "".join(write_rows(draw, 1500, quoted))
        path.write_bytes((head + body)[: None if seed % 3 else -1].encode())
        table = open_rows(path, options)
        parts = [read_all(table.take_part(nth)) for nth in range(len(table.parts))]
        rows, repeats = read_all(open_rows(path, options))
        assert [row for part, _ in parts for row in part] == rows
        assert sum(count for _, count in parts) == repeats
        cut += len(parts) > 5
    assert cut == 3 or (quoted >= 0.02 and options == ReadOptions())


def test_numbers_begin_anew_in_each_section(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("id,title\n" + "".join(f"{n},title {n}\n" for n in range(3000)))
    table = open_rows(path)
    first = [next(iter(table.take_part(nth).read_rows([0]))).number for nth in range(len(table.parts))]
    assert len(first) > 5
    assert set(first) == {1}


def test_a_section_never_begins_within_so_many_lines_behind_a_quote(tmp_path):
    path = tmp_path / "items.csv"
    lines = [f"{n},a title\n" for n in range(2000)]
    for place in range(0, 2000, 2 * MAX_RECORD_LINES):
        lines[place] = f'{place},"open\n'
    path.write_text("id,title\n" + "".join(lines))
    with path.open("rb") as file:
        found = list(cut_sections(file, 9, b'"'))
    assert len(found) > 3
    assert [each.begin for each in found[1:]] == [each.end for each in found[:-1]]
    assert (found[0].begin, found[-1].end) == (0, path.stat().st_size)
    data = path.read_bytes()
    for each in found[1:]:
        before = data[: each.begin].splitlines()[-MAX_RECORD_LINES:]
        assert data[each.begin - 1 : each.begin] == b"\n"
        assert not any(b'"' in line for line in before)


@pytest.mark.parametrize("form", ["gzip", "cp1252", "carriage", "short"])
def test_what_is_not_plain_is_one_section(tmp_path, form):
    text = "id,title\n" + "".join(f"{n},títle {n}\n" for n in range(3000))
    path = tmp_path / ("items.csv.gz" if form == "gzip" else "items.csv")
    data = {"gzip": gzip.compress(text.encode()), "cp1252": text.encode("cp1252"), "short": text[:900].encode()}
    path.write_bytes(data.get(form, text.replace("\n", "\r").encode()))
    table = open_rows(path)
    assert len(table.parts) == 1
    assert read_all(table.take_part(0)) == read_all(table)


def test_a_line_longer_than_a_section_is_not_cut(tmp_path, monkeypatch):
    path = tmp_path / "items.csv"
    path.write_text("id,title\n1," + "x" * 30_000 + "\n" + "".join(f"{n},title {n}\n" for n in range(2, 900)))
    with path.open("rb") as file:
        first = next(iter(cut_sections(file, 9, b"")))
    assert first.end > 30_000
    assert isinstance(first, Section)
    assert open_rows(path).parts[0].end > 30_000
