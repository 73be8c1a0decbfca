"""Line ends of several kinds in one file: all rows are read, or those that may hide others are told."""

import numpy as np
import pytest

from cowbird.ingest import sniffing
from cowbird.scanning.reading import open_catalog

ENDS = (b"\n", b"\r\n", b"\r")


def write_rows(path, many=300, seed=0, ends=ENDS):
    rng = np.random.default_rng(seed)
    titles = [f'Lamp, {nth}" high' if nth % 3 == 0 else f"Desk {nth}" for nth in range(many)]
    cells = [f'"{title.replace(chr(34), chr(34) * 2)}"' if "," in title else title for title in titles]
    lines = [b"id,title,brand", *(f"{nth},{cell},b".encode() for nth, cell in enumerate(cells))]
    path.write_bytes(b"".join(line + ends[rng.integers(len(ends))] for line in lines))
    return titles


@pytest.mark.parametrize("seed", range(4))
def test_mixed_line_ends_lose_no_title(tmp_path, seed):
    path = tmp_path / "items.csv"
    titles = write_rows(path, seed=seed)
    catalog = open_catalog(path)
    rows = list(catalog.read_rows())
    assert "lines end with CR" in catalog.describe()
    assert [row.title for row in rows] == titles
    assert not any(row.problem for row in rows)
    assert [row.number for row in rows] == list(range(1, 301))
    assert catalog.count_rows() == 300


def test_a_cr_in_a_title_changes_nothing_in_other_files(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes(b'id,title\n1,"a\rb"\n2,c\rd\n3,e\n4,"f\r\ng"\n5\n')
    catalog = open_catalog(path)
    rows = list(catalog.read_rows())
    assert [row.title for row in rows] == ["a\rb", "c\rd", "e", "f\r\ng", ""]
    assert [bool(row.problem) for row in rows] == [False, False, False, False, True]


def test_rows_that_hide_others_behind_the_sample_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sniffing, "SAMPLE_BYTES", 200)
    path = tmp_path / "items.csv"
    lines = [f"{nth},Desk {nth},b" for nth in range(60)]
    path.write_text("id,title,brand\n" + "\n".join(lines) + '\n90,a,b\r91,c,d\n92,a,"b"\r93,c,d\n94,a\n', newline="")
    problems = [row.problem for row in open_catalog(path).read_rows() if row.problem]
    assert problems == [
        "wrong number of columns (expected 3); a CR stands inside, which may end a row",
        "quotes are malformed; a CR stands inside, which may end a row",
        "wrong number of columns (expected 3)",
    ]


def test_a_chunk_may_end_between_a_cr_and_its_lf(tmp_path, monkeypatch):
    monkeypatch.setattr("cowbird.ingest.encodings._CHUNK_BYTES", 7)
    path = tmp_path / "items.csv"
    titles = write_rows(path, seed=7)
    rows = list(open_catalog(path).read_rows())
    assert [row.title for row in rows] == titles
