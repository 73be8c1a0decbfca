"""Profiles of a spec: what they change, and how the command line names them."""

import copy
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from cowbird.errors import UserError
from cowbird.experiments import executor
from cowbird.experiments.profiles import apply_profile
from cowbird.experiments.spec import load_spec, parse_spec
from doubles.command import call_command

SHIPPED = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))

SPEC = """
name = "two"
seeds = [4, 5]
[dataset]
name = "synthetic"
users = 40
items = 20
events_per_user = 8
[[victims]]
name = "sasrec"
hidden = 8
epochs = 9
[[victims]]
name = "sasrec"
label = "wide"
hidden = 16
epochs = 9
[[victims]]
name = "gru4rec"
hidden = 8
epochs = 9
[[attacks]]
name = "basic_replacement"
scope = "group"
rate = 0.2
targets = { count = 2, popularity = [0.0, 0.5] }
group = { attribute = "gender", value = "F" }
[[attacks]]
name = "random_profiles"
targets = { count = 2 }
[profile.quick]
seeds = [4]
[profile.quick.victims]
epochs = 1
[profile.deep]
description = "More of all."
name = "own-name"
"""


@pytest.fixture
def tables():
    return tomllib.loads(SPEC)


def with_profile(tables, changes):
    """Return the tables as a profile of these changes leaves them; the tables given must not change."""
    tables = copy.deepcopy(tables) | {"profile": {"x": changes}}
    before = copy.deepcopy(tables)
    found = apply_profile(tables, "x")
    assert tables == before
    return found


def plain(tables):
    return {key: value for key, value in tables.items() if key != "profile"}


# What a profile changes


def test_without_a_profile_its_table_is_left_out(tables):
    before = copy.deepcopy(tables)
    assert apply_profile(tables, "") == plain(tables)
    assert tables == before
    assert apply_profile(plain(tables), "") == plain(tables)
    parse_spec(apply_profile(tables, ""))


def test_an_empty_profile_changes_the_name_alone(tables):
    assert with_profile(tables, {}) == plain(tables) | {"name": "two-x"}
    assert apply_profile(tables, "deep")["name"] == "own-name", "unless the profile has a name of its own"


def test_other_values_replace(tables):
    found = with_profile(tables, {"seeds": [1], "ks": [3], "scenarios": [{"name": "pretrain"}], "description": "d"})
    changed = {"name": "two-x", "seeds": [1], "ks": [3], "scenarios": [{"name": "pretrain"}], "description": "d"}
    assert found == plain(tables) | changed
    found = with_profile(tables, {"victims": [{"name": "gru4rec"}]})
    assert found["victims"] == [{"name": "gru4rec"}], "a list replaces a list"


def test_a_table_changes_the_keys_it_names(tables):
    found = with_profile(tables, {"dataset": {"users": 90, "noise": 0.5}, "split": {"cold_fraction": 0.5}})
    assert found["dataset"] == tables["dataset"] | {"users": 90, "noise": 0.5}
    assert found["split"] == {"cold_fraction": 0.5}
    assert {key: found[key] for key in ("victims", "attacks")} == {key: tables[key] for key in ("victims", "attacks")}
    tables["dataset"]["deep"] = {"a": 1, "b": {"c": 2, "d": 3}}
    found = with_profile(tables, {"dataset": {"deep": {"b": {"c": 5}}}})
    assert found["dataset"]["deep"] == {"a": 1, "b": {"c": 5, "d": 3}}
    same_name = with_profile(tables, {"dataset": {"name": "synthetic", "users": 90}})
    assert same_name["dataset"] == tables["dataset"] | {"users": 90}


def test_a_plugin_of_another_name_replaces_the_whole_table(tables):
    assert with_profile(tables, {"dataset": {"name": "movielens_100k"}})["dataset"] == {"name": "movielens_100k"}
    other = {"name": "movielens_100k", "path": "elsewhere"}
    assert with_profile(tables, {"dataset": other})["dataset"] == other


def test_a_table_for_a_list_changes_every_entry(tables):
    found = with_profile(tables, {"victims": {"epochs": 2, "dropout": 0.0}})
    assert found["victims"] == [victim | {"epochs": 2, "dropout": 0.0} for victim in tables["victims"]]
    assert found["attacks"] == tables["attacks"]


def test_tables_inside_an_entry_are_merged_too(tables):
    found = with_profile(tables, {"attacks": {"targets": {"count": 5}}})
    assert [attack["targets"] for attack in found["attacks"]] == [{"count": 5, "popularity": [0.0, 0.5]}, {"count": 5}]
    found = with_profile(tables, {"attacks": {"basic_replacement": {"group": {"value": "M"}}}})
    assert found["attacks"][0]["group"] == {"attribute": "gender", "value": "M"}
    assert found["attacks"][1] == tables["attacks"][1]


def test_one_entry_by_its_label_or_else_its_name(tables):
    changes = {"epochs": 2, "sasrec": {"hidden": 32}, "wide": {"epochs": 3}, "gru4rec": {"dropout": 0.0}}
    first, wide, recurrent = with_profile(tables, {"victims": changes})["victims"]
    assert first == {"name": "sasrec", "hidden": 32, "epochs": 2}
    assert wide == {"name": "sasrec", "label": "wide", "hidden": 16, "epochs": 3}, "its name is not what it's called by"
    assert recurrent == {"name": "gru4rec", "hidden": 8, "epochs": 2, "dropout": 0.0}
    parse_spec(with_profile(tables, {"victims": changes}))


@pytest.mark.parametrize("key", ["wyde", "attacks"])
def test_an_entry_that_is_not_there_is_an_unknown_key(tables, key):
    with pytest.raises(UserError, match=f"{key}: this key is not known"):
        parse_spec(with_profile(tables, {"victims": {key: {"epochs": 3}}}))


def test_an_unknown_profile_lists_those_there_are(tables):
    for name in ("quack", "Quick", "quick "):
        with pytest.raises(UserError, match=f"here has no profile '{name}'") as error:
            apply_profile(tables, name, "here")
        assert error.value.hint == "Its profiles: quick, deep."
    with pytest.raises(UserError, match="has no profile 'quick'") as error:
        apply_profile(plain(tables), "quick")
    assert error.value.hint.startswith("It has none. Add a line at its end: [profile.quick]")
    head, seeds, victims = re.search(r"(\[.*\]), .*: (seeds .*) and, .*, (victims .*)\.", error.value.hint).groups()
    added = tomllib.loads("\n".join([head, seeds, victims]))
    changed = apply_profile(plain(tables) | added, "quick")
    assert changed["seeds"] == [0]
    assert {victim["epochs"] for victim in changed["victims"]} == {1}
    with pytest.raises(UserError) as error:
        apply_profile({"victims": [{"name": "tallrec"}, 3]}, "a b")
    assert error.value.hint.endswith('[profile."a b"], and below it what such a run changes, such as: seeds = [0].')


def test_a_file_is_read_with_its_profile(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    bare, quick, seeded = load_spec(path), load_spec(path, None, "quick"), load_spec(path, (7, 8), "quick")
    assert (bare.name, bare.seeds, bare.victims[1].options.epochs) == ("two", (4, 5), 9)
    assert (quick.name, quick.seeds, quick.victims[1].options.epochs) == ("two-quick", (4,), 1)
    assert (seeded.name, seeded.seeds) == ("two-quick", (7, 8)), "seeds of the command line win"
    assert quick == parse_spec(apply_profile(tomllib.loads(SPEC), "quick"))
    assert len({spec.digest() for spec in (bare, quick, seeded)}) == 3
    with pytest.raises(UserError, match=r"spec\.toml' has no profile|spec\.toml has no profile"):
        load_spec(path, None, "quack")


def profiles():
    """List every shipped spec with none and each of its profiles."""
    found = []
    for path in SHIPPED:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        found += [(path, name) for name in ("", *table.get("profile", {}))]
    return found


@pytest.mark.parametrize(("path", "profile"), profiles(), ids=lambda part: getattr(part, "stem", part))
def test_shipped_specs_parse_with_each_profile(path, profile):
    spec = load_spec(path, None, profile)
    assert spec.name == (f"{path.stem}-{profile}" if profile else path.stem)
    assert spec.description
    assert (spec.digest() == load_spec(path).digest()) == (not profile)


def test_some_shipped_spec_has_a_quick_profile():
    assert {"quick"} <= {profile for _, profile in profiles()}


# The command line


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, *args)
        return code, " ".join(out.split()), " ".join(err.split())

    return run


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    return path


def record(out):
    return json.loads((out / "spec.json").read_text())["spec"]


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        ["--quick"],
        pytest.param(["--profile", "quick"], marks=pytest.mark.slow),
        pytest.param(["--quick", "--profile", "quick"], marks=pytest.mark.slow),
    ],
)
def test_a_quick_run_goes_on_with_the_command_shown(call, path, tmp_path, monkeypatch, chosen):
    out = tmp_path / "my out"
    with monkeypatch.context() as patched:
        patched.setattr(executor, "run_cell", interrupt)
        code, _, err = call("run", path, "--out", out, "--device", "cpu", *chosen)
    assert code == 3
    shown = f"cowbird run {path} --out '{out}' --profile quick --device cpu --resume"
    assert err.endswith(f"Go on with: {shown}")
    code, _, err = call("run", path, "--out", out, "--device", "cpu", "--resume")
    assert code == 2
    assert "another spec" in err, "the same file without the profile is another spec"
    code, out_text, _ = call(*shlex.split(shown)[1:])
    assert code == 0
    assert "two-quick" in out_text
    assert (record(out)["name"], record(out)["seeds"]) == ("two-quick", [4])
    assert [victim["options"]["epochs"] for victim in record(out)["victims"]] == [1, 1, 1]


def test_another_profile(call, path, tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "run_cell", interrupt)
    code, out, err = call("run", path, "--out", tmp_path / "out", "--profile", "deep")
    assert code == 3
    assert "own-name: More of all." in out
    assert "--profile deep --resume" in err
    code, _, err = call("run", path, "--out", tmp_path / "plain")
    assert code == 3
    assert "--profile" not in err


def test_two_profiles_at_once_are_refused(call, path, tmp_path):
    code, out, err = call("run", path, "--out", tmp_path / "out", "--quick", "--profile", "deep")
    assert (code, out) == (2, "")
    assert "--quick is itself a profile" in err
    assert "--profile deep" in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_profile_on_the_command_line(call, path, tmp_path):
    code, out, err = call("run", path, "--out", tmp_path / "out", "--profile", "quack")
    assert (code, out) == (2, "")
    assert "no profile 'quack'" in err
    assert "Its profiles: quick, deep." in err
    assert not (tmp_path / "out").exists()
