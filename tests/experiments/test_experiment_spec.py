"""Spec files: what is refused and how it is said, and that a record is the whole spec."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.errors import UserError
from cowbird.experiments.executor import to_tables
from cowbird.experiments.scenarios import MAX_LABEL_LENGTH
from cowbird.experiments.spec import load_spec, parse_spec

SHIPPED = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))


def refused(table):
    with pytest.raises(UserError) as caught:
        parse_spec(table)
    assert caught.value.hint
    return caught.value


def at(table, path):
    for part in path:
        table = table[part]
    return table


LEVELS = {
    "top": ([], "victims"),
    "dataset": (["dataset"], "events_per_user"),
    "split": (["split"], "cold_fraction"),
    "victim": (["victims", 0], "hidden"),
    "attack": (["attacks", 0], "scope"),
    "targets": (["attacks", 0, "targets"], "popularity"),
    "group": (["attacks", 0, "group"], "attribute"),
    "defense": (["defenses", 0], None),
    "scenario": (["scenarios", 0], "label"),
    "scenario with fields": (["scenarios", 1], "patience"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_unknown_key_is_named_with_the_known_ones(table, level):
    table["defenses"] = [{"name": "none"}]
    parse_spec(copy.deepcopy(table))
    path, known = LEVELS[level]
    at(table, path)["cuckoo"] = 1
    error = refused(table)
    assert "cuckoo" in error.message
    assert known is None or known in error.hint


def test_only_the_right_scenario_s_fields_are_listed(table):
    table["scenarios"][0]["cuckoo"] = 1
    assert "patience" not in refused(table).hint


def test_several_problems_are_told_at_once(table):
    table["victims"][0] |= {"hidden": 1, "dropout": 2.0, "cuckoo": 3}
    error = refused(table)
    assert all(word in error.message for word in ("hidden", "dropout", "cuckoo", "[[victims]] number 1 (sasrec)"))
    table["victims"][0] = {"name": "sasrec"}
    table |= {"ks": [0], "name": "../x", "extra": 1}
    error = refused(table)
    assert all(word in error.message for word in ("ks", "name", "extra"))


@pytest.mark.parametrize("kind", ["dataset", "victims", "attacks", "defenses"])
def test_a_misspelled_plugin_lists_the_known_ones(table, kind):
    wanted = {"dataset": "synthetic", "victims": "sasrec", "attacks": "basic_replacement", "defenses": "none"}[kind]
    table[kind] = {"name": "cuckoo"} if kind == "dataset" else [{"name": "cuckoo"}]
    error = refused(table)
    assert "'cuckoo'" in error.message
    assert wanted in error.hint


@pytest.mark.parametrize(
    "name", ["../x", ".", "..", ".x", "x.", "a..b", "", " ", "a b", "x\0y", "=cmd.x", "a/b.c", "base", "os.path", "é\n"]
)
def test_a_hostile_plugin_name_is_a_user_error(table, name):
    table["attacks"][0]["name"] = name
    refused(table)


@pytest.mark.parametrize("name", ["pretrained", "", 3])
def test_an_unknown_scenario_lists_the_known_ones(table, name):
    table["scenarios"] = [{"name": name}]
    assert all(word in refused(table).message for word in ("pretrain", "direct", "fine-tune"))


BAD_LABELS = [
    "../x",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "a b",
    "=1+1",
    "+1",
    "-1",
    "@x",
    "a\n",
    "a\tb",
    "é",
    "[red]",
    "a+b",
]


@pytest.mark.parametrize("label", [*BAD_LABELS, "a" * (MAX_LABEL_LENGTH + 1)])
@pytest.mark.parametrize("kind", ["dataset", "victims", "attacks", "defenses", "scenarios"])
def test_labels_can_neither_leave_the_folder_nor_start_a_formula(table, kind, label):
    table["defenses"] = [{"name": "none"}]
    at(table, [kind] if kind == "dataset" else [kind, 0])["label"] = label
    assert "label" in refused(table).message


@pytest.mark.parametrize("name", [*BAD_LABELS, ""])
def test_the_experiment_s_name_is_checked_alike(table, name):
    table["name"] = name
    assert "name" in refused(table).message


@pytest.mark.parametrize("label", ["a", "A.b_c-1", "0", "fine-tune-1e-4", "a" * MAX_LABEL_LENGTH])
def test_good_labels_are_kept(table, label):
    table["scenarios"][1]["label"] = table["victims"][0]["label"] = label
    spec = parse_spec(table)
    assert spec.scenarios[1].title() == spec.victims[0].title() == label
    assert spec.scenarios[0].title() == "direct"


@pytest.mark.parametrize("kind", ["victims", "attacks", "defenses", "scenarios"])
def test_two_of_one_label_are_refused(table, kind):
    table["defenses"] = [{"name": "none"}]
    table[kind] = [table[kind][0], table[kind][0]]
    assert "two " + kind in refused(table).message


@pytest.mark.parametrize("label", ["clean", "none"])
def test_an_attack_can_t_pose_as_the_clean_model(table, label):
    table["attacks"][0]["label"] = label
    assert label in refused(table).message


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": []},
        {"seeds": [1, 1]},
        {"seeds": ["one"]},
        {"ks": []},
        {"ks": [5, 5]},
        {"ks": [0]},
        {"victims": []},
        {"attacks": []},
        {"scenarios": []},
        {"defenses": []},
        {"split": {"cold_fraction": 2}},
        {"split": 3},
        {"dataset": "synthetic"},
        {"dataset": [{"name": "synthetic"}]},
        {"dataset": {"users": 3}},
        {"victims": ["sasrec"]},
        {"victims": [{"name": 3}]},
        {"scenarios": {"name": "direct"}},
        {"description": 3},
    ],
    ids=str,
)
def test_values_that_do_not_fit(table, changes):
    assert next(iter(changes)) in refused(table | changes).message


@pytest.mark.parametrize("key", ["name", "dataset", "victims", "attacks"])
def test_what_is_missing_is_named(table, key):
    del table[key]
    assert key in refused(table).message


@pytest.mark.parametrize("key", ["victims", "attacks", "defenses"])
def test_a_table_where_a_list_belongs_says_how_to_write_it(table, key):
    table[key] = {"name": "none"}
    error = refused(table)
    assert key in error.message
    assert f"[[{key}]]" in error.hint


def test_a_bad_label_is_one_problem_not_two(table):
    table["victims"][0]["label"] = "../x"
    assert "at least 1 item" not in refused(table).message


@pytest.mark.parametrize(
    "content", [b"name = ", b"\xff\xfe", b'name = "a"\nname = "b"', b"\x00", b"{}", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_not_toml_is_said_to_be_not_toml(tmp_path, content):
    path = tmp_path / "spec.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"spec\.toml' is not TOML"):
        load_spec(path)


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"gone\.toml"):
        load_spec(tmp_path / "gone.toml")
    with pytest.raises(UserError, match="can't be read"):
        load_spec(tmp_path)


def test_seeds_take_the_place_of_the_file_s(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(
        'name="x"\nseeds=[7]\n[dataset]\nname="synthetic"\n[[victims]]\nname="sasrec"\n'
        '[[attacks]]\nname="basic_replacement"\n'
    )
    assert load_spec(path).seeds == (7,)
    assert load_spec(path, (4, 2)).seeds == (4, 2)
    with pytest.raises(UserError, match="seeds must differ"):
        load_spec(path, (1, 1))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_specs_are_whole(path):
    spec = load_spec(path)
    assert parse_spec(to_tables(spec.to_record())) == spec
    assert spec.description


CHANGES = [
    lambda t: t.update(name="other"),
    lambda t: t.update(description="why"),
    lambda t: t.update(seeds=[1, 0]),
    lambda t: t.update(ks=[5]),
    lambda t: t["dataset"].update(users=61),
    lambda t: t["dataset"].update(seed=1),
    lambda t: t["dataset"].update(label="data"),
    lambda t: t.update(split={"cold_fraction": 0.4}),
    lambda t: t["victims"][0].update(name="gru4rec"),
    lambda t: t["victims"][0].update(hidden=32),
    lambda t: t["victims"][0].update(label="v"),
    lambda t: t["attacks"][0].update(rate=0.25),
    lambda t: t["attacks"][0]["targets"].update(count=4),
    lambda t: t["attacks"][0]["group"].update(value="M"),
    lambda t: t["attacks"].reverse(),
    lambda t: t["attacks"].pop(),
    lambda t: t["scenarios"].pop(),
    lambda t: t["scenarios"][1].update(learning_rate=0.5),
]


def test_the_digest_is_stable_and_no_two_specs_share_one(table):
    plain = parse_spec(copy.deepcopy(table))
    assert plain.digest() == parse_spec(copy.deepcopy(table)).digest()
    reordered = dict(reversed(table.items()))
    reordered["attacks"] = [dict(reversed(part.items())) for part in table["attacks"]]
    assert parse_spec(reordered).digest() == plain.digest(), "the order of keys is no difference"
    digests = {plain.digest()}
    for change in CHANGES:
        changed = copy.deepcopy(table)
        change(changed)
        digests.add(parse_spec(changed).digest())
    assert len(digests) == len(CHANGES) + 1


def test_defaults_are_part_of_the_record():
    spec = parse_spec(
        {
            "name": "x",
            "dataset": {"name": "synthetic"},
            "victims": [{"name": "gru4rec"}],
            "attacks": [{"name": "basic_replacement"}],
        }
    )
    record = json.loads(json.dumps(spec.to_record()))
    assert record["dataset"]["options"]["users"] == 1000
    assert record["attacks"][0]["options"]["targets"]["popularity"] == [0.0, 0.25]


names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,10}\Z")
labels = st.lists(names.filter(lambda name: name not in ("clean", "none")), min_size=2, max_size=2, unique=True)
rates = st.floats(0.01, 1.0, allow_nan=False)


@st.composite
def specs(draw):
    label = draw(labels)
    whole = draw(st.booleans())
    return {
        "name": draw(names),
        "description": draw(st.text(st.characters(codec="utf-8"), max_size=20)),
        "seeds": draw(st.lists(st.integers(0, 2**70), min_size=1, max_size=3, unique=True)),
        "ks": draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True)),
        "dataset": {"name": "synthetic", "users": draw(st.integers(1, 99)), "noise": draw(rates)},
        "split": {
            "cold_fraction": draw(st.sampled_from([0.05, 0.1, 0.5])),
            "cut": draw(st.sampled_from(["first", "last"])),
        },
        "victims": [
            {"name": draw(st.sampled_from(["sasrec", "gru4rec"])), "label": part, "learning_rate": draw(rates)}
            for part in label
        ],
        "attacks": [
            {"name": "basic_replacement", "label": label[0], "rate": draw(rates)}
            | ({} if whole else {"scope": "group", "group": {"attribute": draw(st.text(max_size=5)), "value": "F"}}),
            {"name": "basic_replacement", "label": label[1], "targets": {"ids": ["i1", "é"]}},
        ],
        "scenarios": [{"name": "fine-tune", "label": part, "learning_rate": draw(rates)} for part in label],
    }


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(specs())
def test_the_record_is_the_whole_spec(table):
    spec = parse_spec(table)
    record = json.loads(json.dumps(spec.to_record()))
    again = parse_spec(to_tables(record))
    assert again == spec
    assert again.digest() == spec.digest()
    assert repr(again) == repr(spec)


def test_parsing_changes_no_table(table):
    before = copy.deepcopy(table)
    parse_spec(table)
    assert table == before
    record = parse_spec(table).to_record()
    kept = copy.deepcopy(record)
    to_tables(record)
    assert record == kept
