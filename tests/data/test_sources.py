"""Each dataset source on small files in its published format."""

import datetime
import importlib.metadata
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from cowbird import plugins
from cowbird.data.sources._events import EventLog
from cowbird.data.sources.aliec import AliEC
from cowbird.data.sources.atomic import Atomic
from cowbird.data.sources.base import Source
from cowbird.data.sources.cikm19 import CIKM19
from cowbird.data.sources.movielens_1m import MovieLens1M
from cowbird.data.sources.movielens_100k import MovieLens100K
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError

GENRES = ["unknown", "Action", "Comedy", "Sci-Fi"]
ML100K = {
    "u.data": b"1\t2\t3\t200\n2\t1\t5\t100\n1\t1\t4\t100\n1\t9\t4\t300\n1\t1\tnan\t100\n1\t1\t4\t100\n",
    "u.item": (
        '1|Caf\xe9 "Noir" (1995)|01-Jan-1995||http://x|0|1|0|1\n2|Two (1996)|01-Jan-1996||http://y|0|0|1|0\n'
        "3|Unseen||||1|0|0|0\n"
    ).encode("latin-1"),
    "u.user": b"1|24|M|technician|85711\n2|53|F|other|94043\n3|17|F|student|00001\n",
    "u.genre": "".join(f"{name}|{number}\n" for number, name in enumerate(GENRES)).encode() + b"\n",
}
ML1M = {
    "ratings.dat": b"1::10::5::978300760\n1::20::3::978300700\n2::10::4::1\nbad line\n",
    "movies.dat": "10::Toy: Story (1995)::Animation|Children's\n20::Ch\xe9ri (2000)::Sci-Fi\n".encode("latin-1"),
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def archive(path: Path, files: dict[str, bytes], inside: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(f"__MACOSX/{next(iter(files))}", b"junk")
        for name, data in files.items():
            target.writestr(inside + name, data)
    return path


def categories(items, row: int) -> list[str]:
    codes = items.category_codes[items.category_offsets[row] : items.category_offsets[row + 1]]
    return [items.categories[code] for code in codes]


def history(data, user: str) -> list[str]:
    row = data.users.ids.index(user)
    span = slice(data.interactions.offsets[row], data.interactions.offsets[row + 1])
    return [data.items.ids[item] for item in data.interactions.item[span]]


def reasons(data) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {f"{skip.file}: {skip.reason}": (skip.count, skip.lines) for skip in data.skips}


# ---- the contract of all sources


@pytest.mark.parametrize("name", plugins.list_plugins("dataset"))
def test_sources_are_documented_frozen_specs(name):
    cls = plugins.find_plugin("dataset", name)
    assert issubclass(cls, Source)
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"
    assert plugins.summarize_plugin(cls).endswith((".", "read."))
    assert all(field.description for field in cls.model_fields.values())
    assert cls.load.__doc__
    with pytest.raises(ValidationError):
        cls(no_such_field=1)


@pytest.mark.parametrize("name", ["movielens_100k", "movielens_1m", "atomic", "tabular", "aliec", "cikm19"])
@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_a_path_to_nothing_useful_is_explained(name, kind, tmp_path):
    path = tmp_path / "here"
    if kind == "file":
        path.write_bytes(b"\x00\x01\x02 not a zip")
    elif kind == "empty":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        plugins.find_plugin("dataset", name)(path=path).load()
    assert caught.value.message
    assert caught.value.hint


def test_all_sources_are_there():
    assert plugins.list_plugins("dataset") == sorted(
        ["movielens_100k", "movielens_1m", "atomic", "tabular", "aliec", "cikm19", "synthetic"]
    )


# ---- MovieLens


@pytest.mark.parametrize("packed", [False, True])
def test_movielens_100k_from_grouplens(tmp_path, packed):
    path = archive(tmp_path / "m.zip", ML100K, "ml-100k/") if packed else folder(tmp_path / "ml-100k", ML100K)
    data = MovieLens100K(path=path).load()
    assert data.items.ids == ("1", "2", "3", "9")
    assert data.items.titles == ('Café "Noir" (1995)', "Two (1996)", "Unseen", "")
    assert [categories(data.items, row) for row in range(4)] == [["Action", "Sci-Fi"], ["Comedy"], ["unknown"], []]
    assert data.users.ids == ("1", "2")
    assert history(data, "1") == ["1", "2", "9"]
    assert data.interactions.rating is not None
    assert data.interactions.rating.tolist() == [4, 3, 4, 5]
    assert data.users.get_attribute("age_group").find_rows("18-24").tolist() == [True, False]
    assert data.users.get_attribute("occupation").labels == ("other", "technician")
    assert reasons(data) == {
        "u.data: rating is not a finite number": (1, (5,)),
        "u.data: repeats an earlier event exactly": (1, (6,)),
        "u.data: item is not in u.item: kept, without title or category": (1, (4,)),
        "u.user: user has no events: profile not used": (1, (3,)),
    }


def test_movielens_100k_from_the_wheel():
    try:
        importlib.metadata.files("recbole")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the wheel recbole is not installed")
    data = MovieLens100K().load()
    assert (len(data.users), len(data.items), data.interactions.events) == (943, 1682, 100_000)
    assert set(data.users.attributes) == {"age", "gender", "occupation", "zip_code", "age_group"}
    assert data.items.titles[0] == "Toy Story"
    assert categories(data.items, 0) == ["Animation", "Children's", "Comedy"]
    assert "Sci-Fi" in data.items.categories
    assert not data.skips
    assert all(
        np.all(np.diff(times) >= 0) for times in np.split(data.interactions.timestamp, data.interactions.offsets[1:-1])
    )


def test_movielens_100k_without_the_wheel(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        MovieLens100K().load()
    assert "cowbird assets" in caught.value.hint
    assert "ml-100k.zip" in caught.value.hint


def test_movielens_archive_without_a_member(tmp_path):
    files = {name: data for name, data in ML100K.items() if name != "u.item"} | {"u.items": b""}
    with pytest.raises(UserError, match=r"u\.item can't be found") as caught:
        MovieLens100K(path=archive(tmp_path / "ml-100k.zip", files, "")).load()
    assert "u.items" in caught.value.hint


def test_archive_paths_mean_nothing(tmp_path):
    path = archive(tmp_path / "x.zip", ML100K, "../../../evil/")
    assert MovieLens100K(path=path).load().interactions.events == 4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.zip"]


def test_damaged_archive(tmp_path):
    path = archive(tmp_path / "x.zip", ML1M, "ml-1m/")
    data = bytearray(path.read_bytes())
    place = data.rfind(b"ratings.dat", 0, data.find(b"movies.dat")) + len(b"ratings.dat") + 5
    data[place : place + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"ratings\.dat can't be read"):
        MovieLens1M(path=path).load()


@pytest.mark.parametrize("packed", [False, True])
def test_movielens_1m(tmp_path, packed):
    path = archive(tmp_path / "m.zip", ML1M, "ml-1m/") if packed else folder(tmp_path / "ml-1m", ML1M)
    data = MovieLens1M(path=path).load()
    assert data.items.titles == ("Toy: Story (1995)", "Chéri (2000)")
    assert categories(data.items, 0) == ["Animation", "Children's"]
    assert history(data, "1") == ["20", "10"]
    assert data.users.get_attribute("age_group").labels == ("56+", "under 18")
    assert reasons(data) == {"ratings.dat: wrong number of columns (expected 4)": (1, (4,))}


# ---- atomic files


ATOMIC = {
    "x.inter": b"user_id:token\titem_id:token\ttimestamp:float\na\tp\t2\na\tq\t1\nb\tq\tinf\nb\tp\t3\n",
    "x.item": b"item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
    b'p\tThe "P"\tChildren\'s Sci-Fi\nq\t\tDrama\np\tAgain\tWar\n',
    "x.user": b"user_id:token\tage:token\na\t30\nb\t\n",
}


def test_atomic(tmp_path):
    path = folder(tmp_path / "x", ATOMIC)
    for cls in (Atomic, MovieLens1M, MovieLens100K):
        data = cls(path=path).load()
        assert data.items.titles == ('The "P"', "")
        assert categories(data.items, 0) == ["Children's", "Sci-Fi"]
        assert history(data, "a") == ["q", "p"]
        assert data.interactions.rating is None
        assert data.users.get_attribute("age").codes.tolist() == [0, -1]
        assert reasons(data) == {
            "x.inter: time is not a finite number": (1, (4,)),
            "x.item: item id stands in an earlier row, which is kept": (1, (4,)),
        }


def test_atomic_columns(tmp_path):
    path = folder(tmp_path / "x", ATOMIC | {"y.inter": b"user_id:token\titem_id:token\na\tp\n"})
    with pytest.raises(UserError, match="holds 2: x, y"):
        Atomic(path=path).load()
    data = Atomic(path=path, stem="y").load()
    assert data.name == "y"
    assert data.interactions.timestamp is None
    with pytest.raises(UserError) as caught:
        Atomic(path=path, stem="x", rating_column="timestmp").load()
    assert "'timestamp'" in caught.value.hint
    assert "rating_column" in caught.value.hint
    with pytest.raises(UserError, match="user_id:token"):
        Atomic(path=folder(tmp_path / "z", {"z.inter": b"user\titem\na\tb\n"})).load()


# ---- your own tables


def test_tabular_csv(tmp_path):
    path = folder(
        tmp_path,
        {
            "log.csv": (
                b"who,what,score,when\nu1,i1,5,30\n"
                b"u1, i2 ,4,2024-05-01T00:00:00Z\nu2,=cmd|'/c',3,10\n,i1,1,1\nu1,,1,1\n"
                b"u1,i1,five,1\nu1,i1,,1\nu1,i1,1e39,1\nu1,i1,1,soon\nu1,i1,1,nan\nu1,i1,5,30\nu1,i1,4,30\n"
            ),
            "items.csv": b'what,label,kind\ni1," Red, ""hot""\n{{7*7}}",a|b\ni2,,\ni4,Unseen,b| a|b\n',
            "users.csv": b"who,age,city\nu1,20,Oslo\nu3,30,Rome\n",
        },
    )
    source = Tabular(
        path=path / "log.csv",
        item_path=path / "items.csv",
        user_path=path / "users.csv",
        user_column="who",
        item_column="what",
        time_column="when",
        rating_column="score",
        title_column="label",
        category_column="kind",
        attribute_columns=("age",),
    )
    data = source.load()
    assert data.name == "log"
    assert data.users.ids == ("u1", "u2")
    assert data.items.ids == ("i1", "i2", "i4", "=cmd|'/c'")
    assert data.items.titles == (' Red, "hot"\n{{7*7}}', "", "Unseen", "")
    assert [categories(data.items, row) for row in range(4)] == [["a", "b"], [], ["b", "a"], []]
    assert history(data, "u1") == ["i1", "i1", "i1", "i2"]
    day = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC).timestamp()
    assert data.interactions.timestamp.tolist() == [1, 30, 30, day, 10]
    assert np.isnan(data.interactions.rating[0]), "without a rating, an event is still one"
    assert list(data.users.attributes) == ["age"]
    assert reasons(data) == {
        "log.csv: user id is missing": (1, (5,)),
        "log.csv: item id is missing": (1, (6,)),
        "log.csv: rating is not a finite number": (2, (7, 9)),
        "log.csv: time is neither a number nor a date": (1, (10,)),
        "log.csv: time is missing": (1, (11,)),
        "log.csv: repeats an earlier event exactly": (1, (12,)),
        "log.csv: item is not in items.csv: kept, without title or category": (1, (4,)),
        "log.csv: user is not in users.csv: kept, without attributes": (1, (4,)),
        "users.csv: user has no events: profile not used": (1, (3,)),
    }


def test_tabular_without_times_keeps_order_and_repeats(tmp_path):
    path = folder(tmp_path, {"log.tsv": b"user_id\titem_id\n1\tb\n2\ta\n1\ta\n1\tb\n"}) / "log.tsv"
    data = Tabular(path=path).load()
    assert history(data, "1") == ["b", "a", "b"]
    assert data.interactions.timestamp is None
    assert not data.skips


def test_tabular_misspelled_column(tmp_path):
    path = folder(tmp_path, {"log.csv": b"usr_id,item_id\n1,2\n"}) / "log.csv"
    with pytest.raises(UserError, match="should have a column 'user_id'") as caught:
        Tabular(path=path).load()
    assert "Did you mean 'usr_id'?" in caught.value.hint
    assert "user_column" in caught.value.hint


def test_tabular_without_usable_rows(tmp_path):
    path = folder(tmp_path, {"log.csv": b"user_id,item_id\n1\n2\n"}) / "log.csv"
    with pytest.raises(UserError, match="2 × wrong number of columns"):
        Tabular(path=path).load()


def test_tabular_misspelled_file(tmp_path):
    folder(tmp_path, {"log.csv": b""})
    with pytest.raises(UserError) as caught:
        Tabular(path=tmp_path / "logs.csv").load()
    assert "log.csv" in caught.value.hint


def test_tabular_parquet(tmp_path):
    start = datetime.datetime(2024, 1, 1)
    pl.DataFrame(
        {
            "user_id": [1.0, 2.0, None, 1.0],
            "item_id": ["x", "y", "x", "x"],
            "timestamp": [start + datetime.timedelta(days=days) for days in (2, 0, 0, 1)],
            "rating": [1.5, 2.0, 1.0, float("inf")],
        }
    ).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"item_id": ["y", "x"], "title": ["Y", None], "category": [["a", "b"], []]}).write_parquet(
        tmp_path / "items.parquet"
    )
    pl.DataFrame({"user_id": [1, 2], "adult": [True, False]}).write_parquet(tmp_path / "users.parquet")
    data = Tabular(
        path=tmp_path / "log.parquet", item_path=tmp_path / "items.parquet", user_path=tmp_path / "users.parquet"
    ).load()
    assert data.users.ids == ("1", "2")
    assert data.items.ids == ("y", "x")
    assert data.items.titles == ("Y", "")
    assert categories(data.items, 0) == ["a", "b"]
    assert data.interactions.timestamp[0] == start.replace(tzinfo=datetime.UTC).timestamp() + 2 * 86400
    assert data.users.get_attribute("adult").labels == ("false", "true")
    assert reasons(data) == {
        "log.parquet: user id is missing": (1, (3,)),
        "log.parquet: rating is not a finite number": (1, (4,)),
    }


def test_parquet_with_lists_where_ids_should_be(tmp_path):
    frame = pl.DataFrame({"user_id": [["a", "b"], ["c"]], "item_id": [1, 2], "timestamp": [1, 2]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"Column 'user_id' of .* should hold one value a row, and it holds lists"):
        Tabular(path=tmp_path / "log.parquet").load()


def test_parquet_that_is_not(tmp_path):
    (tmp_path / "log.parquet").write_bytes(b"PAR1" + b"junk" * 50 + b"PAR1")
    with pytest.raises(UserError, match="should be a Parquet file"):
        Tabular(path=tmp_path / "log.parquet").load()
    pl.DataFrame({"user_id": [b"x"], "item_id": [{"a": 1}]}).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(UserError, match="should hold text, numbers or dates"):
        Tabular(path=tmp_path / "odd.parquet").load()


# ---- Alibaba


ALIEC = {
    "raw_sample.csv": (
        b"user,time_stamp,adgroup_id,pid,nonclk,clk\n7,300,11,p_1,0,1\n7,200,12,p_1,1,0\n7,100,12,p_1,0,1\n8,5,11,p,0,2\n"
        b"9,1,12,p,1,0\n"
    ),
    "ad_feature.csv": (
        b"adgroup_id,cate_id,campaign_id,customer,brand,price\n11,6406,83237,1,95471,170.0\n12,1,2,3,NULL,1.0\n13,1,1,1,1,1\n"
    ),
    "user_profile.csv": (
        b"userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation,"
        b"new_user_class_level \n7,0,5,2,5,,3,0,3\n9,0,5,1,2,1,3,0,\n"
    ),
    "behavior_log.csv": (
        b"user,time_stamp,btag,cate,brand\n7,1,pv,6406,1\n7,1,buy,6406,1\n7,1,buy,6406,1\n7,3,cart,6406,\n9,2,fav,1,2\n9,2,eat,1,2\n"
    ),
}


def test_aliec_clicks(tmp_path):
    data = AliEC(path=folder(tmp_path, ALIEC)).load()
    assert data.users.ids == ("7",)
    assert history(data, "7") == ["12", "11"]
    assert data.items.ids == ("11", "12", "13")
    assert categories(data.items, 0) == ["6406"]
    assert data.users.get_attribute("new_user_class_level").labels == ("3",)
    assert data.users.get_attribute("pvalue_level").codes.tolist() == [-1]
    assert reasons(data) == {
        "raw_sample.csv: clk is neither 0 nor 1": (1, (5,)),
        "user_profile.csv: user has no events: profile not used": (1, (3,)),
    }
    brands = AliEC(path=tmp_path, category="brand", events="impressions").load()
    assert brands.items.categories == ("1", "95471")
    assert history(brands, "7") == ["12", "12", "11"]


def test_aliec_behaviors(tmp_path):
    data = AliEC(path=archive(tmp_path / "ali.zip", ALIEC, "ali/"), events="behaviors").load()
    assert data.items.ids == ("6406/1", "1/2")
    assert categories(data.items, 0) == ["6406"]
    assert history(data, "7") == ["6406/1", "6406/1"]
    assert reasons(data) == {
        "behavior_log.csv: btag is none of pv, cart, fav, buy": (1, (7,)),
        "behavior_log.csv: item id is missing": (1, (5,)),
        "behavior_log.csv: repeats an earlier event exactly": (1, (4,)),
    }
    assert AliEC(path=tmp_path / "ali.zip", events="behaviors", behaviors=("fav",)).load().users.ids == ("9",)


def test_cikm19(tmp_path):
    files = {
        "user_behavior.csv": b"1,10,pv,5\n1,10,buy,5\n1,20,cart,1\n2,30,fav,9\n2,10,look,9\n2,10,pv\n2,30,fav,9\n",
        "user.csv": b"1,0,33,4\n2,1,,5\n",
        "item.csv": b"10,100,7,8\n20,200,7,\n40,100,1,1\n",
    }
    path = folder(tmp_path, files)
    data = CIKM19(path=path).load()
    assert history(data, "1") == ["20", "10", "10"]
    assert data.items.ids == ("10", "20", "40", "30")
    assert categories(data.items, 1) == ["200"]
    assert data.users.get_attribute("age_group").labels == ("25-34",)
    assert list(data.users.attributes) == ["gender", "age", "purchase_power", "age_group"]
    assert reasons(data) == {
        "user_behavior.csv: behavior is none of pv, buy, cart, fav": (1, (5,)),
        "user_behavior.csv: wrong number of columns (expected 4)": (1, (6,)),
        "user_behavior.csv: repeats an earlier event exactly": (1, (7,)),
        "user_behavior.csv: item is not in item.csv: kept, without title or category": (1, (4,)),
    }
    assert CIKM19(path=path, behaviors=("buy",), category="shop").load().items.categories == ("1", "7")


# ---- the known answer


def test_synthetic_is_what_it_says():
    source = Synthetic(users=300, items=50, events_per_user=12, categories=6, noise=0.2, seed=3)
    data = source.load()
    assert (len(data.users), len(data.items), data.interactions.events) == (300, 50, 3600)
    path = data.interactions.item.reshape(300, 12)
    follows = source.find_successors()[path[:, :-1]] == path[:, 1:]
    assert 0.75 < follows.mean() < 0.9
    age = data.users.get_attribute("age")
    for number, label in enumerate(source.groups):
        assert set(path[age.find_rows(label)].ravel().tolist()) <= set(source.find_preferred(number).tolist())
    member = data.items.memberships()
    assert (member.sum(axis=1) == 1).all()
    assert (member[np.arange(50)] == member[source.find_successors()]).all()
    assert len(set(data.items.titles)) == 50
    assert sorted(source.find_successors().tolist()) == list(range(50))


def test_synthetic_depends_on_its_seed_alone():
    one, same, other = (Synthetic(users=20, seed=seed).load() for seed in (1, 1, 2))
    assert one.interactions.item.tolist() == same.interactions.item.tolist()
    assert one.interactions.item.tolist() != other.interactions.item.tolist()
    assert Synthetic(users=5, noise=0.0, items=8).load().interactions.events == 100


def test_synthetic_refuses_what_does_not_fit():
    with pytest.raises(ValidationError, match="no more groups than categories"):
        Synthetic(categories=2)
    with pytest.raises(ValidationError, match="distinct"):
        Synthetic(groups=("a", "a"))


# ---- corners


def test_catalog_without_rows_and_attributes_with_odd_names(tmp_path):
    path = folder(
        tmp_path,
        {
            "log.csv": b"user_id,item_id\n1,2\n",
            "items.csv": b"item_id,title,category\n",
            "users.csv": b"user_id,id,user,item\n1,x,y,z\n",
        },
    )
    data = Tabular(path=path / "log.csv", item_path=path / "items.csv", user_path=path / "users.csv").load()
    assert data.items.titles == ("",)
    assert list(data.users.attributes) == ["id", "user", "item"]


def test_one_column_in_two_roles(tmp_path):
    folder(tmp_path, {"log.csv": b"user_id,item_id\n1,a\n", "items.csv": b"item_id,name\na,Red|Hot\n"})
    items = Tabular(
        path=tmp_path / "log.csv", item_path=tmp_path / "items.csv", title_column="name", category_column="name"
    )
    data = items.load().items
    assert data.titles == ("Red|Hot",)
    assert categories(data, 0) == ["Hot", "Red"] or categories(data, 0) == ["Red", "Hot"]


@pytest.mark.parametrize("separator", ["", '"', "\n", "é"])
def test_impossible_separator(separator):
    with pytest.raises(ValidationError):
        Tabular(path=Path("x"), separator=separator)


def test_long_separator_and_latin_1(tmp_path):
    path = folder(tmp_path, {"log.txt": b"user_id::item_id\n\xe9::1\n"}) / "log.txt"
    assert Tabular(path=path, separator="::", encoding="latin-1").load().users.ids == ("é",)


def test_gzipped_members_of_a_folder(tmp_path):
    import gzip

    folder(tmp_path, {f"{name}.gz": gzip.compress(data) for name, data in ALIEC.items()})
    assert AliEC(path=tmp_path).load().interactions.events == 2


def test_atomic_with_one_name_twice(tmp_path):
    twice = {"x.user": b"user_id:token\tage:token\tage:float\na\t1\t1\n"}
    with pytest.raises(UserError, match="one column 'age', and it has 2"):
        Atomic(path=folder(tmp_path, ATOMIC | twice)).load()


def test_parquet_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("cowbird.ingest.parquet.ROWS_PER_BLOCK", 2)
    pl.DataFrame({"user_id": [1, None, 1, 2], "item_id": ["a", "b", None, "c"]}).write_parquet(
        tmp_path / "x[1]*.parquet"
    )
    data = Tabular(path=tmp_path / "x[1]*.parquet").load()
    assert data.items.ids == ("a", "c")
    assert reasons(data) == {
        "x[1]*.parquet: user id is missing": (1, (2,)),
        "x[1]*.parquet: item id is missing": (1, (3,)),
    }


@pytest.mark.parametrize("form", ["tabular", "atomic"])
def test_logs_that_are_written_meanwhile_are_refused(tmp_path, monkeypatch, form):
    if form == "tabular":
        path, source = tmp_path / "log.csv", Tabular(path=tmp_path / "log.csv")
        path.write_text("user_id,item_id,timestamp\n" + "".join(f"u{n % 5},i{n % 7},{n}\n" for n in range(60)))
    else:
        path, source = tmp_path / "log.inter", Atomic(path=tmp_path)
        path.write_text(
            "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"u{n % 5}\ti{n % 7}\t{n}\n" for n in range(60))
        )
    assert len(source.load().users) == 5
    add = EventLog.add

    def grow(self, frame):
        add(self, frame)
        with path.open("a") as file:
            file.write("half a li")

    monkeypatch.setattr(EventLog, "add", grow)
    with pytest.raises(UserError, match="was changed while it was read") as refused:
        source.load()
    assert "copy" in refused.value.hint
