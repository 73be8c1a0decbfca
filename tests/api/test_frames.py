"""One's own logs from frames to an attack and back."""

import warnings
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

import cowbird
from cowbird.attacks.badrec import BadRec
from cowbird.attacks.targets import TargetItems
from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError
from cowbird.rng import stream

EVENTS = pl.DataFrame(
    {
        "user_id": ["b", "a", "a", "b", "a"],
        "item_id": [1, 2, 1, 3, 3],
        "timestamp": [5.0, 1.0, 2.0, 4.0, 3.0],
        "rating": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)
ITEMS = pl.DataFrame({"item_id": [1, 2, 3], "title": ["Heat", None, "Alien"], "category": ["x|y", "", "y"]})
USERS = pl.DataFrame({"user_id": ["a", "b"], "age": ["young", None]})


def read_rows(frame):
    return frame.rows()


@pytest.mark.parametrize(
    "form", [lambda frame: frame, pl.DataFrame.to_pandas, lambda frame: frame.to_dict(as_series=False)]
)
def test_frames_and_files_give_the_same_dataset(tmp_path, form):
    made = cowbird.make_dataset(form(EVENTS), form(ITEMS), form(USERS))
    paths = {}
    for name, frame in (("path", EVENTS), ("item_path", ITEMS), ("user_path", USERS)):
        paths[name] = tmp_path / f"{name}.csv"
        frame.write_csv(paths[name])
    read = Tabular(**paths).load()
    for name in ("item", "offsets", "rating", "timestamp"):
        assert np.array_equal(getattr(made.interactions, name), getattr(read.interactions, name))
    assert made.users.ids == read.users.ids
    assert made.users.attributes["age"].labels == read.users.attributes["age"].labels
    assert (made.items.ids, made.items.titles, made.items.categories) == (
        read.items.ids,
        read.items.titles,
        read.items.categories,
    )
    assert not made.skips


def test_events_alone_are_enough_and_keep_their_order_without_times():
    made = cowbird.make_dataset({"user_id": ["u", "u"], "item_id": ["second", "first"]})
    assert made.items.ids == ("second", "first")
    assert made.items.titles == ("", "")
    assert made.interactions.timestamp is None


@pytest.mark.parametrize(
    "times",
    [
        [datetime(2024, 5, 1, 0, 0, 2), datetime(2024, 5, 1, 0, 0, 1)],
        [datetime(2024, 5, 1, 0, 0, 2, tzinfo=UTC), datetime(2024, 5, 1, 0, 0, 1, tzinfo=UTC)],
        [date(2024, 5, 2), date(2024, 5, 1)],
        ["2024-05-01 00:00:02", "2024-05-01 00:00:01"],
    ],
)
def test_times_may_be_dates(times):
    made = cowbird.make_dataset(pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": times}))
    since = made.interactions.timestamp - datetime(2024, 5, 1, tzinfo=UTC).timestamp()
    assert since.tolist() in ([1.0, 2.0], [0.0, 86400.0])
    assert made.items.ids[made.interactions.item[0]] == "2"


def test_other_names_of_columns():
    made = cowbird.make_dataset(
        {"who": ["a"], "what": ["i"], "when": [3], "stars": [5]},
        {"what": ["i"], "name": ["Heat"], "kind": [["x", "y"]]},
        {"who": ["a"], "age": ["1"], "city": ["X"]},
        user_column="who",
        item_column="what",
        time_column="when",
        rating_column="stars",
        title_column="name",
        category_column="kind",
        attribute_columns=["age"],
    )
    assert (made.items.titles, made.items.categories) == (("Heat",), ("x", "y"))
    assert (made.interactions.timestamp[0], made.interactions.rating[0]) == (3, 5)
    assert list(made.users.attributes) == ["age"]


def test_what_is_left_out_is_told():
    events = {"user_id": ["a", None, "a"], "item_id": ["i", "i", "j"], "timestamp": [1, 2, None]}
    with pytest.warns(UserWarning) as told:
        made = cowbird.make_dataset(events)
    assert [str(each.message) for each in told] == [
        "interactions: 1 × time is missing (row 3)",
        "interactions: 1 × user id is missing (row 2)",
    ]
    assert made.interactions.events == 1
    assert sum(skip.count for skip in made.skips) == 2


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        (("a.csv",), {}, "interactions must be a polars or pandas frame, and is str"),
        ((EVENTS.lazy(),), {}, "lazy"),
        ((EVENTS.drop("user_id"),), {}, "interactions has no column 'user_id'"),
        ((EVENTS,), {"time_column": "when"}, "interactions has no column 'when'"),
        ((EVENTS, ITEMS.drop("item_id")), {}, "items has no column 'item_id'"),
        ((EVENTS, ITEMS), {"title_column": "name"}, "items has no column 'name'"),
        ((EVENTS, None, USERS), {"attribute_columns": ["city"]}, "users has no column 'city'"),
        ((EVENTS.clear(),), {}, "none can be used"),
        (({"user_id": ["a"], "item_id": ["i", "j"]},), {}, "can't be read as a table"),
    ],
)
def test_tables_that_do_not_fit_are_answered_in_words(tables, options, message):
    with pytest.raises(UserError, match=message):
        cowbird.make_dataset(*tables, **options)


def test_an_attack_and_back_to_frames():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = cowbird.make_dataset(EVENTS, ITEMS, USERS).to_training_data()
    attack = BadRec(rate=0.4, targets=TargetItems(ids=("3",)))
    poisoned = attack.poison(data, seed=1)
    frames = poisoned.to_frames()
    assert frames.interactions.filter(~pl.col("poisoned")).select("user_id", "item_id", "timestamp").rows() == [
        ("b", "3", 4.0),
        ("b", "1", 5.0),
        ("a", "2", 1.0),
        ("a", "1", 2.0),
        ("a", "3", 3.0),
    ]
    planted = frames.interactions.filter("poisoned")
    assert planted.height == poisoned.budget > 0
    assert planted["user_id"].str.starts_with("fake-").all()
    assert frames.items["poisoned"].to_list() == [False, False, True]
    assert frames.items["title"].to_list() == ["Heat", "", "Alien 5v"]
    assert frames.items["category"].to_list() == [["x", "y"], [], ["y"]]
    assert frames.users.head(2).rows() == [("b", None), ("a", "young")]
    assert isinstance(frames.items.to_pandas(), pd.DataFrame)
    again = cowbird.make_dataset(frames.interactions, frames.items, frames.users)
    assert again.interactions.events == poisoned.data.interactions.events


def test_a_seed_stands_for_the_stream_of_an_experiment():
    data = cowbird.make_dataset(EVENTS, ITEMS, USERS).to_training_data()
    attack = BadRec(rate=0.4, targets=TargetItems(ids=("3",)))
    assert attack.poison(data, seed=3).hash_plan() == attack.poison(data, stream(3, "attack")).hash_plan()
    assert attack.poison(data).hash_plan() == attack.poison(data, seed=0).hash_plan()
    drawn = BadRec(rate=0.4, targets=TargetItems(count=1, popularity=(0, 1)))
    assert len({drawn.poison(data, seed=seed).hash_plan() for seed in range(9)}) > 1
