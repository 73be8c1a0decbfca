"""Findings, decisions, undo and the export that the next scan reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.errors import OutageError, UserError
from cowbird.review.store import ReviewStore
from cowbird.scanning.allow_list import read_allow_list
from cowbird.text import escape_csv, unescape_csv
from doubles.findings import ROWS, write_findings


def decide(store, row, choice, target="group"):
    store.decide(target, row["id"], choice, row["mark"])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_findings_are_grouped_by_text_and_reason(tmp_path, suffix):
    store = ReviewStore(write_findings(tmp_path, suffix=suffix))
    page = store.list_groups(0, 10)
    assert [(row["fragment"], row["many"], row["tier"]) for row in page.rows] == [
        ("5v", 2, "flagged"), ("\u200b", 1, "flagged"), ("two lines", 1, "flagged"), ("plain", 1, "review"),
    ]  # fmt: skip
    titles = store.list_findings(page.rows[0]["id"], 0, 10)
    assert [(row["title"], row["row"], row["item"]) for row in titles.rows] == [
        ("Mug 5v", 1, "i1"),
        ("Pot 5V", 2, "i2"),
    ]
    assert store.count() == {
        **{"groups": 4, "findings": 5, "accepted": 0, "dismissed": 0, "titles": 0, "last": 0},
    }


def test_search_states_and_pages(tmp_path):
    store = ReviewStore(write_findings(tmp_path))
    assert [row["fragment"] for row in store.list_groups(0, 10, "POT").rows] == ["5v"]
    assert [row["fragment"] for row in store.list_groups(0, 10, "i3").rows] == ["plain"]
    assert store.list_groups(0, 10, "%_'\"").total == 0
    group = store.list_groups(0, 1).rows[0]
    decide(store, group, "accepted")
    with pytest.raises(UserError, match="Reload"):
        decide(store, group | {"id": 999}, "accepted")
    assert [store.list_groups(0, 10, state=state).total for state in ("all", "open", "accepted", "dismissed")] == [
        4,
        3,
        1,
        0,
    ]
    assert [row["fragment"] for row in store.list_groups(1, 2).rows] == ["\u200b", "two lines"]


def test_decisions_are_undone_in_order_and_stay(tmp_path):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    group = store.list_groups(0, 1).rows[0]
    decide(store, group, "accepted")
    decide(store, group, "dismissed")
    assert store.list_groups(0, 1).rows[0]["choice"] == "dismissed"
    assert store.undo() == ("group", "dismissed", 1)
    assert store.list_groups(0, 1).rows[0]["choice"] == "accepted"
    store.close()
    write_findings(tmp_path, [(row + 10, *rest) for row, *rest in ROWS])
    store = ReviewStore(path)
    assert store.list_groups(0, 1).rows[0]["choice"] == "accepted", "it is about the text, not the row"
    assert store.undo() and store.undo() is None
    assert store.list_groups(0, 1).rows[0]["choice"] is None


def test_what_is_dismissed_is_what_the_next_scan_allows(tmp_path):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    known = {row["fragment"]: row for row in store.list_groups(0, 10).rows}
    for fragment in ("5v", "\u200b", "two lines"):
        decide(store, known[fragment], "dismissed")
    decide(store, store.list_findings(known["5v"]["id"], 0, 10).rows[1], "accepted", "title")
    made = store.export_allowed()
    assert (made.texts, made.left_out) == (2, 1)
    allowed = read_allow_list(made.path)
    assert set(allowed.texts) == {"5v", "\u200b"}
    assert allowed.allows("Mug 5v", 4, 6) and not allowed.allows("Pot 5V", 4, 6)
    decide(store, store.list_findings(known["plain"]["id"], 0, 1).rows[0], "dismissed", "title")
    assert read_allow_list(store.export_allowed(tmp_path / "allow.txt").path).allows("Plain", -1, -1)


def test_a_decision_about_findings_that_were_read_anew_is_refused(tmp_path):
    path = write_findings(tmp_path, [(nth, f"t{nth}", None, None, "flagged", "r") for nth in range(3)])
    store = ReviewStore(path)
    group = store.list_groups(0, 3).rows[1]
    title = store.list_findings(group["id"], 0, 1).rows[0]
    write_findings(tmp_path, [(nth, f"zz{nth}", None, None, "flagged", "q") for nth in range(3)])
    other = ReviewStore(path)
    for target, row in (("group", group), ("title", title)):
        with pytest.raises(UserError, match=r"read anew.*Reload the page"):
            decide(store, row, "dismissed", target)
    with pytest.raises(UserError, match="Reload"):
        store.list_findings(group["id"], 0, 1, group["mark"])
    assert other.count()["dismissed"] == other.count()["titles"] == 0 and store.undo() is None
    decide(store, store.list_groups(0, 3).rows[1], "dismissed")
    assert [row["choice"] for row in other.list_groups(0, 3).rows] == [None, "dismissed", None]


def test_what_is_read_anew_and_is_the_same_can_be_decided(tmp_path):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    group = store.list_groups(0, 1).rows[0]
    write_findings(tmp_path, [(row + 10, *rest) for row, *rest in ROWS])
    ReviewStore(path).close()
    decide(store, group, "dismissed")
    assert store.list_groups(0, 1).rows[0]["choice"] == "dismissed"


def test_two_processes_undo_two_decisions(tmp_path):
    path = write_findings(tmp_path)
    store, other = ReviewStore(path), ReviewStore(path)
    for row in store.list_groups(0, 2).rows:
        decide(store, row, "accepted")
    undone = []

    def come_between(statement):
        if statement == "begin immediate" and not undone:
            undone.append(other.undo())

    store._base.set_trace_callback(come_between)
    assert store.undo() and undone[0]
    assert store.count()["accepted"] == 0 and store.undo() is None


def test_a_reviewer_takes_back_her_own_decision_and_no_other(tmp_path):
    path = write_findings(tmp_path)
    mine, other = ReviewStore(path), ReviewStore(path)
    first, second = mine.list_groups(0, 2).rows
    own = mine.decide("group", first["id"], "accepted", first["mark"])
    decide(other, second, "dismissed")
    assert mine.undo(own) == ("group", "accepted", None)
    assert [row["choice"] for row in mine.list_groups(0, 2).rows] == [None, "dismissed"]
    assert mine.undo(own) is None, "it is undone"
    own = mine.decide("group", first["id"], "accepted", first["mark"])
    decide(other, first, "dismissed")
    with pytest.raises(UserError, match="Somebody has decided about the same"):
        mine.undo(own)
    assert mine.list_groups(0, 1).rows[0]["choice"] == "dismissed"


def test_findings_that_change_are_read_anew_and_damaged_ones_are_not(tmp_path):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    store.refresh()
    assert store.count()["groups"] == 4
    write_findings(tmp_path, [(1, "zz", None, None, "flagged", "q")])
    store.refresh()
    assert store.count()["groups"] == 1
    path.write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        store.refresh()
    path.unlink()
    with pytest.raises(UserError, match="can't be read"):
        store.refresh()
    assert store.count()["groups"] == 1


def test_a_full_disk_keeps_no_decision_and_says_so(tmp_path):
    store = ReviewStore(write_findings(tmp_path))
    pages = store._base.execute("pragma page_count").fetchone()[0]
    store._base.execute(f"pragma max_page_count = {pages}")  # SQLite's own way to be full
    row = store.list_groups(0, 1).rows[0]
    with pytest.raises(OutageError, match="is full"):
        for _ in range(2000):
            decide(store, row, "accepted")
    kept = store._base.execute("select count(*) from decision").fetchone()[0]
    store._base.execute("pragma max_page_count = 100000")
    decide(store, row, "dismissed")
    assert store._base.execute("select count(*) from decision").fetchone()[0] == kept + 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("findings.csv", "a,b\n1,2\n", "no column 'row'"),
        ("findings.csv", "row,title,flagged\nx,y,true\n", "numbers"),
        ("findings.csv", "", "can't be read"),
        ("findings.jsonl", "{", "can't be read"),
        ("findings.parquet", "PAR1", "can't be read"),
        ("findings.txt", "x", "no known way"),
        ("none.csv", None, "is no file"),
    ],
)
def test_what_holds_no_findings_is_refused(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        ReviewStore(tmp_path / name)
    assert caught.value.hint


def test_a_file_of_decisions_that_is_none_or_a_link_is_refused(tmp_path):
    path = write_findings(tmp_path)
    own = tmp_path / "findings.jsonl.review.sqlite"
    own.write_bytes(b"no database at all" * 99)
    with pytest.raises(UserError, match="should hold decisions"):
        ReviewStore(path)
    own.unlink()
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        ReviewStore(path)
    assert not (tmp_path / "elsewhere").exists()


@given(st.text(alphabet="'=+-@;\t\n\r \"a\u200b＝", max_size=12))
def test_cells_are_read_back(text):
    assert unescape_csv(escape_csv(text)) == text


@pytest.mark.parametrize("index_later", [False, True])
def test_findings_that_are_refused_leave_no_file(tmp_path, index_later):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no column 'row'"):
        ReviewStore(tmp_path / "other.csv", index_later=index_later)
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


def test_decisions_stay_where_findings_are_damaged_later(tmp_path):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    decide(store, store.list_groups(0, 1).rows[0], "accepted")
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UserError, match="ends within a row"):
        ReviewStore(path)
    path.write_bytes(whole)
    assert ReviewStore(path).count()["accepted"] == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_findings_that_were_cut_are_refused(tmp_path, suffix):
    path = write_findings(tmp_path, suffix=suffix)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="ends within a row"):
        ReviewStore(path)
