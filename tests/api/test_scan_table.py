"""Scans of lists and frames: what goes in comes back, in its form and order."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

import cowbird
from cowbird.defenses.p_scanner.rounds.fitted_scanner import ScanVerdicts
from cowbird.defenses.scan_table import VERDICT_COLUMNS, scan_table
from cowbird.errors import UserError

TITLES = ["Heat wow", "Alien", None, "Wow", "", "Brazil \ud800"]


def find_wow(titles):
    """Flag titles with `wow` in them; put up long ones for review."""
    start = np.array([title.lower().find("wow") for title in titles], dtype=np.int32)
    score = np.array([-np.inf if not title else 2.0 * (at >= 0) for title, at in zip(titles, start, strict=True)])
    flagged = score > 1
    review = ~flagged & np.array([len(title) > 6 for title in titles], dtype=bool)
    return ScanVerdicts(score.astype(np.float32), start, np.where(start >= 0, start + 3, -1), flagged, review)


def test_a_list_becomes_a_frame_in_its_order():
    found = scan_table(find_wow, TITLES, "title")
    assert found.columns == ["title", *VERDICT_COLUMNS]
    assert found["title"].to_list() == [*TITLES[:5], "Brazil \ufffd"]
    assert found["judged"].to_list() == [True, True, False, True, False, True]
    assert found["score"].to_list() == [2.0, 0.0, None, 2.0, None, 0.0]
    assert found["flagged"].to_list() == [True, False, False, True, False, False]
    assert found["review"].to_list() == [False, False, False, False, False, True]
    assert found["fragment"].to_list() == ["wow", None, None, "Wow", None, None]
    assert found["start"].to_list() == [5, None, None, 0, None, None]
    assert found["end"].to_list() == [8, None, None, 3, None, None]
    assert found["clean_title"].to_list() == ["Heat", "Alien", None, None, "", "Brazil \ufffd"]


@pytest.mark.parametrize("make", [tuple, lambda titles: pl.Series("any", titles), np.array, pl.Series])
def test_other_lists_of_titles_give_the_same(make):
    titles = ["Heat wow", "Alien"]
    assert scan_table(find_wow, make(titles), "name").equals(scan_table(find_wow, titles, "name"))


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_a_polars_frame_keeps_its_columns(dtype):
    frame = pl.DataFrame({"id": [3, 1, 2], "name": pl.Series(["Wow", None, "Alien"], dtype=dtype)})
    found = scan_table(find_wow, frame, "name")
    assert found.select("id", "name").equals(frame)
    assert found["flagged"].to_list() == [True, False, False]
    assert found["judged"].to_list() == [True, False, True]
    assert frame.columns == ["id", "name"]


def test_a_dict_of_columns_is_a_frame():
    assert scan_table(find_wow, {"id": [1], "title": ["Wow"]}, "title")["flagged"].to_list() == [True]


def test_a_pandas_frame_comes_back_as_one_with_its_index():
    frame = pd.DataFrame({"id": [3, 1, 2], "title": ["Heat wow", None, float("nan")]}, index=["c", "a", "b"])
    found = scan_table(find_wow, frame, "title")
    assert isinstance(found, pd.DataFrame)
    assert list(found.index) == ["c", "a", "b"]
    assert list(found.columns) == ["id", "title", *VERDICT_COLUMNS]
    assert list(found.judged) == [True, False, False]
    assert list(found[found.flagged].clean_title) == ["Heat"]
    assert list(found.start[found.flagged]) == [5]
    assert found.start.isna().sum() == 2
    assert list(frame.columns) == ["id", "title"], "the caller's frame stays as it is"


def test_a_pandas_series_comes_back_as_a_frame():
    found = scan_table(find_wow, pd.Series(["Wow", None], index=[7, 8], name="x"), "title")
    assert list(found.index) == [7, 8]
    assert list(found.columns) == ["title", *VERDICT_COLUMNS]


def test_no_titles_give_no_rows():
    assert scan_table(find_wow, [], "title").columns == ["title", *VERDICT_COLUMNS]


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ("Heat wow", "a single text", r"\[title\]"),
        (b"Heat", "a single text", r"\[title\]"),
        (3, "this is int", "list"),
        ((title for title in ["a"]), "this is generator", "list"),
        (["a", 3], "Title 1 .* is int", "strings"),
        ([b"a"], "Title 0 .* is bytes", "strings"),
        (pd.Series([1, 2]), "Title 0 .* is int", "strings"),
        (pl.Series([1, 2]), "holds Int64", "text_column"),
        (pl.DataFrame({"name": ["a"], "id": [1]}), "no column 'title'", "'name', 'id'"),
        (pd.DataFrame({"name": ["a"], "id": [1]}), "no column 'title'", "'name', 'id'"),
        (pl.DataFrame({"title": ["a"]}).lazy(), "lazy", "collect"),
        (pl.DataFrame({"title": ["a"], "score": [1], "end": [2]}), "replace: score, end", "'title' alone"),
        (pd.DataFrame({"title": ["a"], "flagged": [1]}), "replace: flagged", "'title' alone"),
    ],
)
def test_what_is_no_table_of_titles_is_answered_in_words(table, message, hint):
    with pytest.raises(UserError, match=message) as error:
        scan_table(find_wow, table, "title")
    assert re.search(hint, error.value.hint)


@pytest.mark.parametrize("form", [str, lambda path: path])
def test_a_folder_without_a_scanner_says_so(tmp_path, form):
    with pytest.raises(UserError, match="does not hold a scanner"):
        cowbird.load_scanner(form(tmp_path))


def test_an_unknown_device_says_so(tmp_path):
    with pytest.raises(UserError, match="Device 'toaster'"):
        cowbird.load_scanner(tmp_path, device="toaster")
