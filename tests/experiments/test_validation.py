"""`cowbird validate`: what it finds that a run would find later, all at once, and what it says it looked at."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cowbird.data.sources.tabular import Tabular
from cowbird.errors import UserError
from cowbird.experiments.run import run
from cowbird.experiments.spec import SpecError, list_problems, load_spec, parse_spec
from cowbird.experiments.validation import validate_spec
from cowbird.ingest import delimited
from cowbird.ingest.sampling import read_sample
from doubles.command import call_command

SPEC = {
    "name": "looked-at",
    "ks": [10],
    "dataset": {"name": "tabular", "path": "log.csv", "item_path": "items.csv", "user_path": "users.csv"},
    "victims": [{"name": "sasrec", "epochs": 1, "hidden": 8}],
    "attacks": [{"name": "basic_replacement", "rate": 0.3, "targets": {"count": 2}}],
}
GROUP = {"name": "basic_replacement", "label": "group", "scope": "group", "targets": {"count": 2}}


def write_tables(folder, **more):
    """Write a log, a catalogue and profiles; `more` replaces whole files by their text."""
    rows = [
        f"u{user},i{(user * 7 + nth) % 40},{100 * user + nth},{nth % 5 + 1}" for user in range(30) for nth in range(8)
    ]
    texts = {
        "log": "\n".join(["user_id,item_id,timestamp,rating", *rows, ""]),
        "items": "item_id,title,category\n" + "".join(f"i{nth},Red Harbor {nth},sea\n" for nth in range(40)),
        "users": "user_id,sex\n" + "".join(f"u{user},{'mf'[user % 2]}\n" for user in range(30)),
    }
    for name, text in (texts | more).items():
        (folder / f"{name}.csv").write_text(text)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    return tmp_path


def look(rows=10_000, **changes):
    return validate_spec(lambda: parse_spec(SPEC | changes), rows)


def test_what_can_run_is_told_with_what_was_checked(here):
    found = look()
    assert found.problems == found.left_out == []
    assert found.plan["cells"] == 1
    assert found.checked == [
        "the fields of the spec, and whether its plug-ins can be imported",
        "all 40 rows of items.csv",
        "all 30 rows of users.csv",
        "all 240 rows of log.csv",
        "the split for sasrec, seed 0",
        "victim sasrec, attack basic_replacement: 36 rows planted",
    ]
    assert found.unchecked == ["training, what trained models answer, memory and time"]
    assert any("defaults: seeds = 0" in str(notice) for notice in found.notices)
    assert {path.name for path in here.iterdir()} == {"log.csv", "items.csv", "users.csv"}, "nothing is written"


PROBLEMS = {
    "no users for the split": ({"split": {"min_events": 9}}, {}, "split: 'log' has 0 users with 9 events or more"),
    "too few interactions": (
        {"attacks": [{"name": "random_profiles", "rate": 0.001, "targets": {"count": 2}}]},
        {},
        "attack random_profiles: The budget is 0 planted events",
    ),
    "too many targets": (
        {"attacks": [SPEC["attacks"][0] | {"targets": {"count": 500}}]},
        {},
        "attack basic_replacement: 500 targets were asked for",
    ),
    "no such group": (
        {"attacks": [GROUP | {"group": {"attribute": "age", "value": "18-24"}}]},
        {},
        "attack group: Users have no attribute 'age'",
    ),
    "no such value": (
        {"attacks": [GROUP | {"group": {"attribute": "sex", "value": "x"}}]},
        {},
        "attack group: No row has the value 'x'",
    ),
    "no such target": (
        {"attacks": [SPEC["attacks"][0] | {"targets": {"ids": ["nowhere"]}}]},
        {},
        "The catalogue has no item 'nowhere'",
    ),
    "scenario of other victims": ({"scenarios": [{"name": "poisoned-adapter"}]}, {}, "scenario poisoned-adapter: "),
    "defense of other victims": (
        {"defenses": [{"name": "strip"}]},
        {},
        "defense strip: It asks the victim about titles",
    ),
    "no device": ({"defenses": [{"name": "onion", "device": "cuda:99"}]}, {}, "defenses onion: Device 'cuda:99'"),
    "dates that can't be read": (
        {},
        {"log": "user_id,item_id,timestamp\n" + "a,b,tomorrow\nb,c,32 May\n"},
        "dataset: Column 'timestamp' of log.csv",
    ),
    "lists written as text": (
        {"dataset": {"name": "tabular", "path": "log.csv"}},
        {"log": "user_id,item_id\n" + '"[1, 2]",a\n"[3]",b\n'},
        "dataset: The user ids look like lists, such as '[1, 2]'",
    ),
    "empty log": ({}, {"log": "user_id,item_id\n"}, "none can be used"),
    "no model here": (
        {"defenses": [{"name": "onion", "llm": {"name": "gone.gguf"}}]},
        {},
        "defenses onion: There is no file 'gone.gguf'",
    ),
    "no server": (
        {"defenses": [{"name": "p_scanner", "scanner": {"agent": {"model": "x"}}}]},
        {},
        'defenses p_scanner: The agent asks the model "x" on a server, and none is named. Name it: --agent-url',
    ),
    "a server in a spec": (
        {"defenses": [{"name": "p_scanner", "scanner": {"agent": {"model": "x", "api_key_env": "HOME"}}}]},
        {},
        "a spec can't name api_key_env",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_a_run_would_find_later(name, here, monkeypatch):
    changes, tables, said = PROBLEMS[name]
    write_tables(here, **tables)
    monkeypatch.setattr(
        "cowbird.defenses.p_scanner.triggers._openai._import_library", lambda: None
    )  # importing it takes a second
    found = look(**changes)
    assert len(found.problems) == 1, found.problems
    assert said in found.problems[0]


@pytest.mark.parametrize(
    "name", ["no users for the split", "too many targets", "scenario of other victims", "dates that can't be read"]
)
def test_a_run_finds_the_same_later(name, here, tmp_path):
    changes, tables, _ = PROBLEMS[name]
    write_tables(here, **tables)
    (problem,) = look(**changes).problems
    try:
        (told,) = run(parse_spec(SPEC | changes), tmp_path / "out", device="cpu").errors
    except UserError as error:
        told = str(error)
    assert problem.rpartition(": ")[2] in told


def test_all_problems_are_told_at_once(here):
    write_tables(here, items="sku,name\n1,Red\n", users="who\n1\n", log="when,what\n1,2\n")
    found = look(
        victims=[{"name": "sasrec", "epochs": 1}, {"name": "gru4rec"}], defenses=[{"name": "onion", "device": "tpu"}]
    )
    texts = [problem.partition(", and its columns")[0] for problem in found.problems]
    assert texts[0].startswith("defenses onion: Device 'tpu' can't be used")
    assert texts[1:] == [
        "dataset: log.csv should have a column 'user_id'",
        "dataset: log.csv should have a column 'item_id'",
        "dataset: users.csv should have a column 'user_id'",
    ]
    assert "the split and the attacks: the data has to be readable first" in found.unchecked


def test_all_problems_of_the_fields_are_told_at_once(here):
    found = look(
        victims=[{"name": "sasrec", "epochs": 0, "hiden": 3}, {"name": "cuckoo"}],
        attacks=[{"name": "strangers.module"}, {"label": "x"}],
        dataset={"name": "tabular"},
        ks=[0],
        colour="red",
    )
    texts = [problem.removeprefix("spec: ") for problem in found.problems]
    assert len(texts) == 8
    joined = "\n".join(texts)
    for said in (
        "path: is missing",
        "epochs: must be 1 or more, not 0",
        "hiden: this key",
        "cuckoo",
        "would import",
        "colour",
        "ks",
    ):
        assert said in joined
    assert found.plan == {}
    assert found.checked == []


def test_several_problems_are_one_error_for_a_run(here):
    with pytest.raises(SpecError) as error:
        parse_spec(SPEC | {"victims": [{"name": "cuckoo"}], "attacks": [{"name": "magpie"}]})
    assert "no victim named 'cuckoo'" in error.value.message
    assert "no attack named 'magpie'" in error.value.message
    assert [problem.message for problem in list_problems(error.value)] == [
        "There is no victim named 'cuckoo'.",
        "There is no attack named 'magpie'.",
    ]
    with pytest.raises(UserError) as error:
        parse_spec(SPEC | {"victims": [{"name": "cuckoo"}]})
    assert error.value.message == "There is no victim named 'cuckoo'."
    with pytest.raises(UserError, match=r"two attacks are called 'a'.*seeds must differ"):
        parse_spec(SPEC | {"attacks": [SPEC["attacks"][0] | {"label": "a"}] * 2, "seeds": [1, 1]})


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("user_id", [["a"], ["b"]], "Column 'user_id' of log.parquet should hold one value a row, and it holds lists"),
        ("timestamp", [[1.0], [2.0]], "Column 'timestamp' of log.parquet should hold one value a row"),
        ("rating", [[1], [2]], "Column 'rating' of log.parquet should hold one value a row"),
        ("user_id", [{"a": 1}, {"a": 2}], "should hold text, numbers or dates, and it holds Struct"),
    ],
)
def test_columns_of_a_wrong_type(column, values, said, here):
    good = {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1.0, 2.0], "rating": [1, 2]}
    pl.DataFrame(good | {column: values}).write_parquet("log.parquet")
    (problem,) = look(dataset={"name": "tabular", "path": "log.parquet"}).problems
    assert said in problem
    with pytest.raises(UserError):
        Tabular(path=Path("log.parquet")).load()


def test_titles_that_are_lists(here):
    pl.DataFrame({"item_id": ["i1"], "title": [["Red", "Harbor"]]}).write_parquet("items.parquet")
    (problem,) = look(dataset=SPEC["dataset"] | {"item_path": "items.parquet"}).problems
    assert "Column 'title' of items.parquet should hold one value a row" in problem


def test_rows_that_would_be_left_out_are_told(here):
    text = (here / "log.csv").read_text()
    write_tables(here, log=text + "u1,i1,tomorrow,1\nu1,,5,1\n")
    found = look()
    assert found.problems == []
    assert found.left_out == [
        "log.csv: 1 × item id is missing (line 243)",
        "log.csv: 1 × time is neither a number nor a date (line 242)",
    ]


def test_a_large_table_is_read_in_part_and_that_is_told(here):
    found = look(rows=100)
    assert found.problems == found.left_out == []
    assert "the first 100 rows of log.csv" in found.checked
    assert (
        found.unchecked[0] == "rows behind those of log.csv, and so the split and the attacks, which need all of them"
    )
    assert not any("planted" in text for text in found.checked)
    assert look(rows=240).unchecked == ["training, what trained models answer, memory and time"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_sample_reads_no_more(form, here, monkeypatch):
    table = pl.DataFrame({"user_id": np.arange(5000) % 50, "item_id": np.arange(5000) % 70})
    path = here / f"big.{form}"
    table.write_csv(path) if form == "csv" else table.write_parquet(path)
    monkeypatch.setattr(delimited, "SAMPLED_BYTES_PER_BLOCK", 2000)
    for rows, read in ((100, 100), (4000, 4000), (5000, 5000), (9000, 5000)):
        with read_sample(rows) as sample:
            for _ in range(2):
                assert Tabular(path=path).load().interactions.events == read
        assert sample.read == {path.name: read}
        assert sample.cut == ({path.name} if rows < 5000 else set())
    assert Tabular(path=path).load().interactions.events == 5000


def test_missing_libraries_are_told(here, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    found = look(
        victims=[{"name": "tallrec"}],
        attacks=[{"name": "badrec", "trigger": {"kind": "char_5v"}, "targets": {"count": 2}, "rate": 0.1}],
    )
    assert "victims tallrec: Language models need peft. Install it: pip install 'cowbird[llm]'." in found.problems


def test_an_attack_that_searches_is_not_tried(here):
    attack = {"name": "adaptive_badrec", "knows": "character_rules", "rate": 0.1, "targets": {"count": 2}}
    found = look(attacks=[attack], defenses=[{"name": "character_rules"}])
    assert any("it searches with a copy of a defense" in text for text in found.unchecked)


def write_spec(path, **changes):
    table = SPEC | changes
    lines = ['name = "looked-at"', "ks = [10]", "[dataset]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in table["dataset"].items()]
    lines += ["[[victims]]", 'name = "sasrec"', "[[attacks]]", 'name = "basic_replacement"', "rate = 0.3"]
    lines += ["targets = { count = 2 }", ""]
    path.write_text("\n".join(lines))


def test_the_command_says_a_line_a_problem_and_what_was_checked(here, monkeypatch, capsys):
    def call(*words):
        return call_command(monkeypatch, capsys, "validate", "spec.toml", *words)

    write_spec(Path("spec.toml"))
    code, out, err = call()
    assert (code, err) == (0, "")
    assert out.startswith("No problem found: looked-at\n")
    assert "checked      all 240 rows of log.csv\n" in out
    assert "not checked  training" in out
    assert not {"safe", "valid", "ok"} & {word.lower().strip(".:") for word in out.split()}
    write_tables(here, items="sku\u202e\n1\n", users="who\n1\n")
    code, out, err = call()
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert [line.partition(" should")[0] for line in lines[:2]] == [
        "Error: dataset: items.csv",
        "Error: dataset: users.csv",
    ]
    assert not lines[2].startswith("Error")
    assert any(line.startswith("not checked  the split and the attacks") for line in lines)
    code, out, err = call("--quiet")
    assert (code, out, len(err.splitlines())) == (2, "", 2)
    code, out, err = call("--json")
    record = json.loads(out)
    assert (code, err) == (2, "")
    assert len(record["problems"]) == 2
    assert record["cells"] == 1
    assert record["checked"]
    assert record["not_checked"]


def test_shipped_data_is_read_by_its_own_reader(here):
    found = validate_spec(lambda: parse_spec(SPEC | {"dataset": {"name": "synthetic", "users": 50}}))
    assert found.problems == []
    assert "the data: 50 users, 200 items, 1,000 interactions" in found.checked


@pytest.mark.parametrize("field", ["users", "items", "events_per_user"])
def test_made_up_data_of_any_size_is_not_made(field, here):
    found = validate_spec(lambda: parse_spec(SPEC | {"dataset": {"name": "synthetic", field: 10**12}}))
    assert found.problems == []
    assert found.unchecked[0].startswith("rows behind those of the made-up data")


def test_a_spec_that_is_not_there(here):
    found = validate_spec(lambda: load_spec(Path("gone.toml")))
    assert len(found.problems) == 1
    assert "There is no spec 'gone.toml'" in found.problems[0]
    Path("demi.toml").touch()
    Path("demi.py").touch()
    (problem,) = validate_spec(lambda: load_spec(Path("demy.toml"))).problems
    assert problem == "There is no spec 'demy.toml'. Did you mean demi.toml?"
    (problem,) = validate_spec(lambda: load_spec(Path("nowhere/demi.toml"))).problems
    assert problem == "There is no spec 'nowhere/demi.toml'. There is no folder 'nowhere'."


def test_what_an_unknown_victim_hides_is_told(here):
    found = look(victims=[{"name": "sasrek", "epochs": 0}])
    (problem,) = found.problems
    assert problem.startswith("spec: [[victims]] number 1: There is no victim named 'sasrek'. Did you mean sasrec?")
    assert problem.endswith("tallrec. Not checked until it is found: epochs.")
    assert "fields of plug-ins that are not known" in found.unchecked[0]
    assert "there may be more" in found.unchecked[0]


def test_what_an_unknown_attack_hides_is_not_the_data(here, monkeypatch, capsys):
    write_tables(here, log="user_id,item_id,timestamp\nu0,i0,10/13/2019\n", items="who\n1\n")
    write_spec(Path("spec.toml"))
    path = Path("spec.toml")
    path.write_text(path.read_text().replace('name = "basic_replacement"', 'name = "global"'))
    code, _, err = call_command(monkeypatch, capsys, "validate", "spec.toml")
    lines = err.splitlines()
    assert code == 2
    assert (
        "There is no attack named 'global'. 'global' is a label of the spec demo: there it stands for the" in lines[0]
    )
    assert 'Write name = "basic_replacement".' in lines[0]
    assert any("dataset: items.csv should have a column" in line for line in lines)
    assert any(line.startswith("not checked  fields of plug-ins that are not known") for line in lines)
    write_tables(here)
    code, _, err = call_command(monkeypatch, capsys, "validate", "spec.toml")
    assert code == 2 and "checked      all 240 rows of log.csv" in err


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (3, "seeds: must be a list in [ ], not 3"),
        ("0,1", "seeds: must be a list in [ ], not '0,1'"),
        ([0.5], "seeds.0: must be a whole number, not 0.5"),
        (["a"], "seeds.0: must be a whole number, not 'a'"),
        ([], "seeds: must have 1 or more entries, and has 0"),
        ([1, 1], "seeds must differ and be 0 or more"),
        ([-1], "seeds must differ and be 0 or more"),
        ([["x" * 500]], "seeds.0: must be a whole number, not ['xxx"),
    ],
)
def test_seeds_are_told_in_words(here, seeds, said):
    (problem,) = look(seeds=seeds).problems
    assert said in problem
    assert "Input" not in problem
    assert len(problem) < 200


@pytest.mark.parametrize("missing", ["items.csv", "users.csv"])
def test_dates_that_can_not_be_read_are_told_beside_a_file_that_is_missing(here, missing):
    log = (here / "log.csv").read_text().splitlines()
    rows = [line.split(",") for line in log[1:]]
    dated = [f"{user},{item},{1 + nth % 12:02}/15/2019,{rating}" for nth, (user, item, _, rating) in enumerate(rows)]
    (here / "log.csv").write_text("\n".join([log[0], *dated, ""]))
    (here / missing).unlink()
    dates, file = look().problems
    assert "none can be read, such as '01/15/2019'" in dates
    assert f"Expected a file at {missing}" in file
