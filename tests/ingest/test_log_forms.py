"""Logs in forms that people really have: each is read as a person expects, and what was made of it is told."""

import datetime
import json

import numpy as np
import polars as pl
import pytest

from cowbird.data.sources.atomic import Atomic
from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError
from cowbird.notices import NoticeRank, collect_notices

DAY = datetime.datetime(2019, 10, 15, 2, 13, 51, tzinfo=datetime.UTC).timestamp()
EVENTS = [("108", "11", 3), ("108", "34", 5), ("26", "11", 4)]
"""User, item and rating; a second lies between events."""


def write(path, header, rows, separator=","):
    path.write_text("\n".join([header, *(separator.join(map(str, row)) for row in rows)]) + "\n")
    return path


def load(source):
    """Return a data set and what was told."""
    with collect_notices() as told:
        data = source.load()
    return data, told.list()


def histories(data):
    ends = data.interactions.offsets
    return {
        user: [data.items.ids[item] for item in data.interactions.item[ends[nth] : ends[nth + 1]]]
        for nth, user in enumerate(data.users.ids)
    }


def said(told):
    return " ".join(map(str, told))


WANTED = {"108": ["11", "34"], "26": ["11"]}
TIMES = {
    "zone as a word": ("2019-10-15 02:13:51 UTC", "2019-10-15 02:13:52 UTC", "2019-10-15 02:13:53 UTC"),
    "zone as Z, with nanoseconds": (
        "2019-10-15T02:13:51.000000001Z", "2019-10-15T02:13:52.5Z", "2019-10-15T02:13:53Z"),
    "zone as an offset": ("2019-10-15 04:13:51+02:00", "2019-10-15 04:13:52 +0200", "2019-10-15 02:13:53+00:00"),
    "slashes, the year first": ("2019/10/15 02:13:51", "2019/10/15 02:13:52", "2019/10/15 02:13:53"),
    "numbers": (DAY, DAY + 1, DAY + 2),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMES)
def test_times(tmp_path, name):
    rows = [(*event, time) for event, time in zip(EVENTS, TIMES[name], strict=True)]
    data, _ = load(Tabular(path=write(tmp_path / "log.csv", "user_id,item_id,rating,timestamp", rows[::-1])))
    assert histories(data) == WANTED
    assert np.allclose(data.interactions.timestamp, [DAY + 2, DAY, DAY + 1], atol=0.6)


def test_months_and_days_are_never_guessed(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp", [("1", "a", "10/15/2019"), ("1", "b", "9/16/2019")])
    with pytest.raises(UserError, match=r"Column 'timestamp' of log\.csv should hold times") as error:
        Tabular(path=path).load()
    assert error.value.hint.endswith("Set time_format = '%m/%d/%Y'.")
    assert histories(load(Tabular(path=path, time_format="%m/%d/%Y"))[0]) == {"1": ["b", "a"]}
    write(path, "user_id,item_id,timestamp", [("1", "a", "10/11/2019"), ("1", "b", "9/12/2019")])
    with pytest.raises(UserError) as error:
        Tabular(path=path).load()
    assert "time_format = '%m/%d/%Y' or time_format = '%d/%m/%Y'" in error.value.hint
    with pytest.raises(UserError, match="not written as %Y"):
        Tabular(path=path, time_format="%Y").load()


def test_decimal_commas(tmp_path):
    rows = [("1", "a", "4,5", "1571105631,5"), ("1", "b", "3", "1571105630")]
    path = write(tmp_path / "log.csv", "user_id;item_id;rating;timestamp", rows, ";")
    data, told = load(Tabular(path=path))
    assert data.interactions.rating.tolist() == [3, 4.5]
    assert data.interactions.timestamp.tolist() == [1571105630, 1571105631.5]
    assert "'4,5' is read as 4.5" in said(told)
    with pytest.raises(UserError, match="rating is not a finite number"):
        Tabular(path=write(path, "user_id,item_id,rating", [("1", "a", '"4,5"')])).load()
    assert load(Tabular(path=path, decimal_comma=True))[0].interactions.rating.tolist() == [4.5]


def test_whole_numbers_written_as_floats_meet_those_that_are_not(tmp_path):
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp", [("7.0", "11.0", 1), ("8", "3", 2), ("", "3", 3)])
    items = write(tmp_path / "items.csv", "id,title", [(11, "Eleven"), (3, "Three")])
    data, told = load(Tabular(path=path, item_path=items))
    assert data.users.ids == ("7", "8")
    assert data.items.ids == ("11", "3")
    assert data.items.titles == ("Eleven", "Three")
    assert "'item_id' of log.csv holds whole numbers such as '7.0'" in said(told)
    data, _ = load(Tabular(path=write(path, "user_id,item_id", [("v1.0", "1.0"), ("v1", "1.5")])))
    assert data.users.ids == ("v1.0", "v1")
    assert data.items.ids == ("1.0", "1.5"), "what is no number alone stays as it is"


def test_a_usual_column_of_times_is_found_and_told(tmp_path):
    rows = [("1", "b", "2019-10-15T02:13:52Z"), ("1", "a", "2019-10-15T02:13:51Z")]
    data, told = load(Tabular(path=write(tmp_path / "log.csv", "user_id,item_id,event_time", rows)))
    assert histories(data) == {"1": ["a", "b"]}
    assert "no column 'timestamp', so 'event_time' is read; 'time_column' names another" in said(told)
    _, told = load(Tabular(path=write(tmp_path / "log.csv", "user_id,item_id,note", rows)))
    assert told[0].rank == NoticeRank.ORDER, "without times, that is the first line"


def test_usual_columns_of_users_items_and_titles(tmp_path):
    path = write(tmp_path / "log.csv", "UserID,asin,time", [("1", "b", 2), ("1", "a", 1)])
    items = write(tmp_path / "items.csv", "asin,Product Name", [("a", "Red"), ("b", "NULL")])
    data, told = load(Tabular(path=path, item_path=items))
    assert histories(data) == {"1": ["a", "b"]}
    assert data.items.titles == ("Red", "")
    assert "'Product Name' is read" in said(told)


def test_missing_ratings_cost_no_events(tmp_path):
    rows = [("1", "a", "NULL", 1), ("1", "b", "3", 2), ("1", "c", "", 3), ("1", "d", "five", 4)]
    data, told = load(Tabular(path=write(tmp_path / "log.csv", "user_id,item_id,rating,timestamp", rows)))
    assert histories(data) == {"1": ["a", "b", "c"]}
    assert "2 interactions of log.csv have no rating" in said(told)
    rated = data.interactions.drop_unrated()
    assert (rated.item.tolist(), rated.rating.tolist(), rated.offsets.tolist()) == ([1], [3.0], [0, 1])
    data, _ = load(Tabular(path=write(tmp_path / "log.csv", "user_id,item_id,rating", [("1", "a", "NULL")])))
    assert data.interactions.rating is None


@pytest.mark.parametrize("form", ["parquet", "jsonl", "json"])
def test_a_list_of_items_in_a_row_is_a_history(tmp_path, form):
    frame = {"user_id": ["u", "v", "w"], "item_id": [[8, 11, 8], [3], []], "timestamp": [[30, 10, 30], [5], []]}
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        pl.DataFrame(
            frame, schema_overrides={"item_id": pl.List(pl.Int64), "timestamp": pl.List(pl.Int64)}
        ).write_parquet(path)
    else:
        rows = [dict(zip(frame, row, strict=True)) for row in zip(*frame.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)) if form == "jsonl" else json.dumps(rows))
    data, told = load(Tabular(path=path))
    assert histories(data) == {"u": ["11", "8", "8"], "v": ["3"]}
    assert "Column 'item_id' of" in said(told)
    assert "4 interactions in all" in said(told)
    assert [str(skip) for skip in data.skips] == [f"log.{form}: 1 × list of items is empty (line 3)"]


def test_lists_that_fit_no_history(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": [[1, 2]], "timestamp": [[1]]}).write_parquet(path)
    with pytest.raises(UserError, match=r"'item_id' and 'timestamp' of .* hold lists of unequal length"):
        Tabular(path=path).load()
    pl.DataFrame({"user_id": ["u"], "item_id": [1], "timestamp": [[1]]}).write_parquet(path)
    with pytest.raises(UserError, match=r"Column 'timestamp' of log\.parquet should hold one value a row"):
        Tabular(path=path).load()


def test_json_lines_as_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{"user_id": 1, "item_id": "a", "timestamp": 2.5, "rating": 4}, {"user_id": 1, "item_id": "b"}, [1]]
    path.write_text("\n".join(map(json.dumps, rows)))
    data, _ = load(Tabular(path=path))
    assert histories(data) == {"1": ["a"]}
    assert {skip.reason for skip in data.skips} == {"time is missing", "is not a JSON object"}
    path.write_text(json.dumps({"user_id": 1, "item_id": {"a": 1}}))
    with pytest.raises(UserError, match=r"Column 'item_id' of .* should hold values or lists"):
        Tabular(path=path).load()


def test_unusual_layouts_are_told(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("sep=;\nuser_id;item_id\nä;1\n".encode("cp1252"))
    data, told = load(Tabular(path=path))
    assert data.users.ids == ("ä",)
    assert "log.csv: read as cp1252, ';'-separated, header in line 2" in said(told)


def test_a_layout_may_be_said_in_a_spec(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("x\nuser_id|item_id\n'ж|1'|-\n2|b\n".encode("cp1251"))
    source = Tabular(path=path, encoding="cp1251", separator="|", quote="'", header_row=2, null=("-",))
    data, _ = load(source)
    assert histories(data) == {"2": ["b"]}
    path.write_text(json.dumps({"a": {"b": [{"user_id": 1, "item_id": 2}]}}))
    assert histories(load(Tabular(path=path.rename(tmp_path / "log.json"), json_path="a.b"))[0]) == {"1": ["2"]}
    with pytest.raises(UserError, match="no encoding"):
        Tabular(path=path, encoding="no-such").load()


# ---- atomic files


def test_the_time_of_atomic_files_under_another_name(tmp_path):
    rows = [("1", "b", 2), ("1", "a", 1)]
    write(tmp_path / "x.inter", "user_id:token\titem_id:token\ttime:float", rows, "\t")
    data, told = load(Atomic(path=tmp_path))
    assert histories(data) == {"1": ["a", "b"]}
    assert "no column 'timestamp', so 'time' is read" in said(told)


def test_histories_of_benchmark_files(tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    rows = [("1", "a", "b"), ("2", "c a", "c"), ("1", "a b", "c"), ("3", "", "a")]
    write(tmp_path / "x.train.inter", header, rows, "\t")
    data, told = load(Atomic(path=tmp_path))
    assert histories(data) == {"2": ["c", "a", "c"], "1": ["a", "b", "c"], "3": ["a"]}
    assert "7 interactions in all" in said(told)
    write(tmp_path / "x.train.inter", header, [*rows, ("1", "c", "a")], "\t")
    with pytest.raises(UserError, match=r"several histories that do not continue each other \(line 6\)"):
        Atomic(path=tmp_path).load()


def test_histories_beside_the_item_are_refused_by_the_source_that_does_not_read_them(tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token"
    path = write(tmp_path / "x.train.inter", header, [("1", "4 5", "6")], "\t")
    source = Tabular(path=path)
    with pytest.raises(UserError, match="histories in a column 'item_id_list'") as error:
        source.load()
    assert "'atomic'" in error.value.hint
    assert [str(error.value)] == [str(problem) for problem in source.find_problems()]
