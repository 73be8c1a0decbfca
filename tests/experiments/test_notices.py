"""What a run did otherwise than a reader may think is told in words, with its count, and kept on record."""

import json
import shutil
import threading

import numpy as np
import pytest

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.triggers import Trigger
from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import TemporalSplit
from cowbird.data.sources.atomic import Atomic
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.sources.tabular import Tabular
from cowbird.data.split import Split
from cowbird.data.titles import quote_titles
from cowbird.data.types import Dataset, Interactions, Items, Users
from cowbird.defenses.character_rules import CharacterRules
from cowbird.defenses.p_scanner.p_scanner import PScanner
from cowbird.errors import UserError
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.notices import (
    NOTICES_FILE,
    Notice,
    NoticeRank,
    Notices,
    collect_notices,
    merge_notices,
    note,
    read_notices,
)
from cowbird.rng import stream
from doubles.command import call_command


def hear(work):
    """Return what is said while something works."""
    with collect_notices() as found:
        work()
    return [str(notice) for notice in found.list()]


def test_nothing_is_said_where_nobody_listens():
    note(NoticeRank.CHANGE, "{n} lost.", 3)
    assert hear(lambda: None) == []
    assert hear(lambda: note(NoticeRank.CHANGE, "{n} lost.", 0)) == []


def test_counts_widen_and_what_matters_most_comes_first():
    def work():
        note(NoticeRank.CHOICE, "chosen")
        for count in (1200, 3, 40):
            note(NoticeRank.CHANGE, "{n} lost.", count)
        note(NoticeRank.ORDER, "no times", 7)

    assert hear(work) == ["no times", "3 to 1,200 lost.", "chosen"]


def test_one_has_a_sentence_of_its_own(tmp_path):
    """Only where the count is 1 everywhere; it is kept with the notice, and quotes anybody's text."""

    def tell(*counts):
        for count in counts:
            note(NoticeRank.CHANGE, "{n} titles of {n}.csv are lost.", count, "1 title of {n}.csv is lost.")

    assert hear(lambda: tell(1)) == ["1 title of {n}.csv is lost."]
    assert hear(lambda: tell(1, 1)) == ["1 title of {n}.csv is lost."]
    assert hear(lambda: tell(1, 2)) == ["1 to 2 titles of 1 to 2.csv are lost."]
    assert hear(lambda: note(NoticeRank.CHANGE, "{n} lost.", 1)) == ["1 lost."]
    with collect_notices(tmp_path / NOTICES_FILE):
        tell(1)
    assert [str(each) for each in read_notices(tmp_path / NOTICES_FILE)] == ["1 title of {n}.csv is lost."]


def test_notices_of_an_older_version_are_read(tmp_path):
    (tmp_path / NOTICES_FILE).write_text(json.dumps([{"rank": 1, "text": "{n} lost.", "low": 1, "high": 1}]))
    assert [str(each) for each in read_notices(tmp_path / NOTICES_FILE)] == ["1 lost."]


def test_threads_and_blocks_do_not_mix():
    def inner():
        thread = threading.Thread(target=note, args=(NoticeRank.CHANGE, "elsewhere"))
        thread.start()
        thread.join()
        with collect_notices() as own:
            note(NoticeRank.CHANGE, "inside")
        assert [str(each) for each in own.list()] == ["inside"]
        note(NoticeRank.CHANGE, "outside")

    assert hear(inner) == ["outside"]


def test_a_file_holds_them_at_once_and_is_gone_on_from(tmp_path):
    path = tmp_path / NOTICES_FILE
    with collect_notices(path):
        note(NoticeRank.CHANGE, "{n} lost.", 3)
        assert read_notices(path) == [Notice(NoticeRank.CHANGE, "{n} lost.", 3, 3)]
    with collect_notices(path):
        note(NoticeRank.CHANGE, "{n} lost.", 5)
    assert [str(each) for each in read_notices(path)] == ["3 to 5 lost."]
    assert [str(each) for each in merge_notices([read_notices(path), [Notice(NoticeRank.ORDER, "x")]])] == [
        "x",
        "3 to 5 lost.",
    ]
    assert read_notices(tmp_path / "gone.json") == []
    for text in ("[", "[1]", '[{"rank": 9, "text": "", "low": 1, "high": 1}]', '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match="damaged"):
            Notices(path)


def write_log(path, header="user_id,item_id,timestamp,rating", rows=("a,b,1,5", "a,c,1,4", "b,c,2,3"), end="\n"):
    path.write_text(end.join([header, *rows, ""]))
    return path


def test_a_log_without_times_is_told(tmp_path):
    path = write_log(tmp_path / "log.csv", "user_id,item_id,when", ("a,b,3", "a,c,1"))
    (first, *others) = hear(Tabular(path=path).load)
    assert first.startswith(
        "log.csv has no column of times that was read: the order of its rows is taken for the order"
    )
    assert "2 interactions; 'time_column'" in first
    assert others == ["log.csv has no column 'rating', so interactions have no ratings; 'rating_column' names another."]
    assert not any("times" in text for text in hear(Tabular(path=path, time_column="when").load))
    assert any("no column of times" in text for text in hear(Tabular(path=path, time_column=None).load))


def test_other_fallbacks_of_tables_are_told(tmp_path):
    path = write_log(tmp_path / "log.csv")
    assert hear(Tabular(path=path).load) == [
        "1 interaction of log.csv has the time of the one before: its order is that of the rows."
    ]
    (tmp_path / "log.txt").write_text(path.read_text().replace(",", ";"))
    (told,) = [text for text in hear(Tabular(path=tmp_path / "log.txt").load) if text.startswith("log.txt: read as")]
    assert "';'-separated" in told
    assert "'separator'" in told
    (tmp_path / "log.dat").write_text(path.read_text().replace(",", "::"))
    assert any("Quotes of log.dat" in text for text in hear(Tabular(path=tmp_path / "log.dat", separator="::").load))
    write_log(path, rows=("a,b,2024-05-01 10:00:00,1", "a,c,2024-05-02 10:00:00+02:00,1"))
    assert hear(Tabular(path=path).load) == ["log.csv holds dates without a time zone: they are taken for UTC."]
    write_log(path, rows=("a,b,2024-05-01T10:00:00Z,1", "a,c,2024-05-02 10:00:00+02:00,1"))
    assert hear(Tabular(path=path).load) == []
    (tmp_path / "items.csv").write_text("item_id,name\nb,Red\n")
    found = hear(Tabular(path=path, item_path=tmp_path / "items.csv").load)
    assert sorted(text.partition(",")[0] for text in found) == [
        "items.csv has no column 'category'",
        "items.csv has no column 'title'",
    ]


def test_guessed_columns_of_atomic_files_are_told(tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\na\tb\t1\n")
    (tmp_path / "x.item").write_text("item_id:token\tname:token_seq\nb\tRed\n")
    assert hear(Atomic(path=tmp_path).load) == [
        "x.item has no known column of categories; 'category_column' names one.",
        "The titles of x.item are taken from its column 'name'; 'title_column' names another.",
    ]
    assert not any("titles" in text for text in hear(Atomic(path=tmp_path, title_column="name").load))


def make_data(lengths, rating=None):
    events = sum(lengths)
    known = Interactions(
        np.arange(events) % 40,
        np.cumsum([0, *lengths]),
        None if rating is None else np.resize(rating, events),
        np.arange(events, dtype=float),
    )
    users = Users(tuple(f"u{nth}" for nth in range(len(lengths))))
    return Dataset("made", known, users, Items.from_lists([f"i{nth}" for nth in range(40)], ["Title"] * 40))


def test_splits_tell_whom_they_leave_out():
    data = make_data([2, 1, 12, 12, 12, 12, 5])
    found = hear(lambda: Split(cold_fraction=0.4).apply(data, 0))
    assert "2 users have fewer than 3 interactions and are left out (split.min_events)." in found
    assert any("1 cold user keeps only the first 9 interactions" in text for text in found)
    assert hear(lambda: SequenceSplit(history=5).apply(data))[0] == (
        "2 users have 3 interactions or fewer and are left out (sequence_split.shortest)."
    )
    warm = Split(cold_fraction=0).apply(make_data([12, 4, 12]), 0).pretrain
    assert hear(lambda: warm.shorten(9)) == [
        "1 user has fewer than three training interactions among the first 9: no short history."
    ]
    rated = make_data([30, 30, 30], rating=[1, 2, 3, 4, 5])
    found = hear(lambda: TemporalSplit(order="users", history=4, training=0.4, validation=0.2).apply(rated))
    assert "36 of 90 ratings are above 3 and count as likes (time_split.like_above)." in found
    assert any("of the last interactions have fewer than 4 before them" in text for text in found)


def test_titles_that_models_do_not_read_whole_are_told():
    titles = ["x" * 301, "short", ""]
    assert hear(lambda: quote_titles(titles)) == ["1 title is longer than 300 characters: models read no more."]
    assert quote_titles(titles) == ["x" * 300, "short", ""]


def test_attacks_and_defenses_tell_what_they_fell_back_on():
    data = make_data([6, 6, 6]).to_training_data()
    attack = BadRec(
        trigger=Trigger(kind="char_5v"), rate=0.2, history_length=10, targets={"count": 2, "popularity": (0, 1)}
    )
    assert any(
        text.startswith("Histories of fake users have 6 events, not 10")
        for text in hear(lambda: attack.poison(data, stream(0, "attack")))
    )
    rules = CharacterRules(share=0.5)
    text = "CharacterRules flags 2 fewer titles than its share allows: scores tie at the threshold."
    assert hear(lambda: rules.flag([3.0, 1.0, 1.0, 1.0, 1.0, -np.inf])) == [text]
    assert (
        hear(lambda: rules.flag([3.0, 2.0, 1.0, 0.5]))
        == hear(lambda: rules.flag([3.0, -np.inf, -np.inf, -np.inf]))
        == []
    )
    assert hear(lambda: PScanner().suspect(["Red Harbor", "Blue Garden"]))[0].startswith(
        "No scanner is fitted to fewer than"
    )


SPEC = {
    "name": "told",
    "ks": [10],
    "victims": [{"name": "sasrec", "hidden": 8, "epochs": 1, "max_length": 4}],
    "attacks": [
        {"name": "basic_replacement", "scope": "group", "group": {"attribute": "sex", "value": "m"}, "rate": 0.5}
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run on a log without times, and what it came to."""
    folder = tmp_path_factory.mktemp("told")
    rng = np.random.default_rng(0)
    rows = [f"u{user},i{rng.integers(30)}" for user in range(40) for _ in range(2 if user < 3 else 12)]
    write_log(folder / "log\u202e.csv", "user_id,item_id", rows)
    (folder / "users.csv").write_text("user_id,sex\n" + "".join(f"u{user},{'mf'[user % 2]}\n" for user in range(40)))
    data = {"name": "tabular", "path": str(folder / "log\u202e.csv"), "user_path": str(folder / "users.csv")}
    table = SPEC | {"dataset": data}
    table["attacks"] = [SPEC["attacks"][0] | {"targets": {"count": 2}}]
    return folder, table, run(parse_spec(table), folder / "out")


def test_a_run_tells_and_keeps_them(finished):
    folder, _, outcome = finished
    told = [str(notice) for notice in outcome.notices]
    assert "has no column of times that was read" in told[0]
    assert "3 users have fewer than 3 interactions and are left out (split.min_events)." in told
    assert any(text.startswith("The spec leaves these to their defaults: seeds = 0; defenses = none") for text in told)
    assert any(text.startswith("Models run on c") for text in told)
    assert any("than the model sees at once, the last 4 (max_length)" in text for text in told)
    assert any("as precision = 'auto' has it" in text for text in told)
    assert json.loads((folder / "out" / "run.json").read_text())["notices"] == told


def test_a_run_that_is_gone_on_with_still_tells(finished, tmp_path):
    folder, table, outcome = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    assert run(parse_spec(table), tmp_path / "out", resume=True).notices == outcome.notices
    grown = table | {"seeds": [0, 1], "scenarios": [{"name": "direct"}], "defenses": [{"name": "none"}]}
    again = run(parse_spec(grown), tmp_path / "out", resume=True, device="cpu")
    assert {notice.text for notice in outcome.notices} <= {notice.text for notice in again.notices}


def test_the_command_line_tells_them_first(finished, tmp_path, monkeypatch, capsys):
    folder, table, _ = finished
    spec = tmp_path / "spec.toml"
    lines = [f'name = "told"\nks = [10]\n[dataset]\nname = "tabular"\npath = {json.dumps(table["dataset"]["path"])}']
    lines += [f'user_path = {json.dumps(table["dataset"]["user_path"])}\n[[victims]]\nname = "sasrec"\nhidden = 8']
    lines += ['epochs = 1\nmax_length = 4\n[[attacks]]\nname = "basic_replacement"\nscope = "group"\nrate = 0.5']
    lines += ['group = { attribute = "sex", value = "m" }\ntargets = { count = 2 }\n']
    spec.write_text("\n".join(lines))
    shutil.copytree(folder / "out", tmp_path / "out")
    words = ("run", spec, "--out", tmp_path / "out", "--resume")
    code, out, _ = call_command(monkeypatch, capsys, *words)
    assert code == 0
    summary = out.splitlines()[1:]  # behind the title
    assert summary[0].startswith("note     log<U+202E>.csv has no column of times")
    code, out, err = call_command(monkeypatch, capsys, *words, "--quiet")
    assert (code, out) == (0, "")
    assert "no column of times" in err
    assert "defaults" not in err, "choices are on record alone"
    code, out, _ = call_command(monkeypatch, capsys, *words, "--json")
    assert "no column of times" in json.loads(out)["notices"][0]


def test_made_up_data_has_nothing_to_tell():
    assert hear(Synthetic(users=5).load) == []
