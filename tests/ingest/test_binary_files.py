"""What is no text is refused whole; a title that is full of control characters or of bytes that are no text is not."""

import gzip
import io
import zipfile

import numpy as np
import polars as pl
import pytest

from cowbird.errors import UserError
from cowbird.scanning.reading import open_catalog

NOISE = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\b\6\0\0\0" + NOISE
GIF = b"GIF89a\1\0\1\0\0\0\0!\xf9\4\1\0" + NOISE


def zip_bytes(when=(2026, 11, 30, 15, 0, 0)):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("items.csv", when), "id,title\n1,a\n")
    return file.getvalue()


def parquet_bytes():
    file = io.BytesIO()
    pl.DataFrame({"title": ["a"]}).write_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zip_bytes(), "a zip archive"),
        (zip_bytes((1980, 1, 1, 0, 0, 0)), "a zip archive"),
        (gzip.compress(b"id,title\n1,a\n", mtime=0), "a gzip file"),
        (parquet_bytes(), "a Parquet file"),
        (PNG, "a binary file"),
        (GIF, "a binary file"),
        (NOISE, "a binary file"),
        (b"\0" * 5000, "a binary file"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, said):
    path = tmp_path / "items.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"should be a text file, and it is {said}"):
        open_catalog(path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("marks", [b"\x1b" * 420, b"\x01\x02\x03", b"\x1b\xff" * 400, b"\x1b\0" * 400])
def test_a_hostile_title_does_not_keep_others_from_being_read(tmp_path, marks, end):
    path = tmp_path / "items.csv"
    path.write_bytes(end.join([b"id,title", b"1,Desk " + marks, b"2,Lamp", b"3,Chair", b""]))
    rows = list(open_catalog(path).read_rows())
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.title for row in rows[1:]] == ["Lamp", "Chair"]
    assert rows[0].title.startswith("Desk ") or rows[0].problem


def test_two_rows_of_which_one_is_hostile_are_read(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes(b"id,title\n2,Desk \x01\x02\x03")
    (row,) = open_catalog(path).read_rows()
    assert row.title == "Desk \x01\x02\x03"
