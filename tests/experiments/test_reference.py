"""What is told of specs: fields, examples that hold, the page in the docs, the JSON schema, and new specs."""

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel

from cowbird import plugins
from cowbird.errors import UserError
from cowbird.experiments.reference import entries, fields, page, schema, shipped_specs, templates
from cowbird.experiments.reference.toml_text import format_value
from cowbird.experiments.spec import load_spec, parse_spec
from cowbird.experiments.spec_labels import find_shipped_spec

ROOT = Path(__file__).parents[2]
PLUGINS = [(kind, name) for kind in entries.PLUGIN_SECTIONS for name in plugins.list_plugins(kind)]
MINIMAL = {
    "name": "example",
    "dataset": {"name": "synthetic"},
    "victims": [{"name": "sasrec"}],
    "attacks": [{"name": "random_profiles"}],
    "defenses": [{"name": "p_scanner"}],
}


@pytest.fixture(scope="module")
def validator():
    made = schema.make_spec_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert json.loads(json.dumps(made)) == made
    return jsonschema.Draft202012Validator(made)


def list_errors(validator, table):
    return [error.message for error in validator.iter_errors(table)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=lambda value: value)
def test_every_field_is_told(kind, name):
    described = entries.describe_entry(kind, name)
    model = plugins.find_plugin(kind, name)
    told = {field.name: field for field in described.tables[0].fields}
    assert set(told) == set(model.model_fields) - {"found"}
    for table in described.tables:
        for field in table.fields:
            assert field.meaning, f"{table.name}.{field.name} has no docstring"
            assert field.type
    for key, field in told.items():
        assert field.required == model.model_fields[key].is_required()
    assert json.loads(json.dumps(described.to_record()))["name"] == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *PLUGINS,
        *[("scenario", name) for name in entries.find_scenarios()],
        ("trigger", "char_5v"),
        ("trigger", "zero_width_space"),
    ],
    ids=lambda value: value,
)
def test_examples_hold(kind, name, validator):
    table = tomllib.loads(entries.describe_entry(kind, name).example)
    whole = MINIMAL | table
    parse_spec(copy.deepcopy(whole))
    assert not list_errors(validator, whole)


@pytest.mark.parametrize("name", shipped_specs.list_shipped_specs())
def test_shipped_specs_fit_the_schema(name, validator):
    assert not list_errors(validator, tomllib.loads(find_shipped_spec(name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        {"cuckoo": 1},
        {"name": 3},
        {"name": "../x"},
        {"seeds": []},
        {"seeds": "0"},
        {"ks": [1.5]},
        {"dataset": {"name": "cuckoo"}},
        {"dataset": {"name": "tabular"}},
        {"dataset": {"name": "synthetic", "path": "x"}},
        {"dataset": [{"name": "synthetic"}]},
        {"attacks": {"name": "badrec"}},
        {"attacks": []},
        {"attacks": [{"name": "badrec", "rat": 0.1}]},
        {"attacks": [{"name": "badrec", "rate": 2}]},
        {"attacks": [{"name": "badrec", "trigger": {"kind": "char_5w"}}]},
        {"attacks": [{"name": "badrec", "trigger": {"position": "end"}}]},
        {"attacks": [{"name": "badrec", "listing": "old"}]},
        {"attacks": [{"name": "adaptive_badrec", "found": {"tried": 1, "flagged": 0, "rank": 0}}]},
        {"attacks": [{"rate": 0.1}]},
        {"victims": [{"name": "badrec"}]},
        {"victims": [{"name": "sasrec", "hidden": "wide"}]},
        {"scenarios": [{"name": "direkt"}]},
        {"scenarios": [{"name": "direct", "epochs": 3}]},
        {"split": {"cold": 0.1}},
        {"profile": {"quick": 3}},
        {"profile": {"quick": {"victimz": {"epochs": 1}}}},
    ],
    ids=str,
)
def test_the_schema_refuses_mistakes(change, validator):
    assert not list_errors(validator, MINIMAL)
    assert list_errors(validator, MINIMAL | change)


def test_the_schema_takes_what_does_not_ship(validator):
    foreign = {"name": "their.attacks:Own", "label": "own", "anything": [1]}
    assert not list_errors(validator, MINIMAL | {"attacks": [foreign]})


STALE = "run: cowbird describe spec > docs/reference/spec.md"


def test_the_page_in_the_docs_is_up_to_date():
    """Other tests declare measures of their own in this process, so among the metrics there may be more."""
    in_docs, made = (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8"), page.make_spec_page()
    sections = [re.search("^## Metrics$.*?^## ", text, re.M | re.S)[0].splitlines() for text in (in_docs, made)]
    assert set(sections[0]) <= set(sections[1]), STALE
    rest = [re.split("^## (?:Metrics|Triggers)$", text, flags=re.M)[::2] for text in (in_docs, made)]
    assert len(rest[0]) == 2
    assert rest[0] == rest[1], STALE


@pytest.mark.slow
def test_the_command_prints_the_page_in_the_docs():
    command = [sys.executable, "-m", "cowbird", "describe", "spec"]
    made = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert made == (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8"), STALE


@pytest.mark.slow
def test_the_page_names_everything():
    made = page.make_spec_page()
    for kind, name in [*PLUGINS, *[("scenario", name) for name in entries.find_scenarios()]]:
        assert f"### {kind} `{name}`" in made
    for line in made.splitlines():
        if line.startswith("| `"):
            assert line.replace("\\|", "").count("|") == 5, line


def test_types_and_defaults_in_words():
    class Inner(BaseModel):
        depth: int = 1
        width: int = 2

    class Outer(BaseModel):
        inner: Inner = Inner(width=3)
        perhaps: float | None = None
        several: tuple[Path, ...] = ()
        pair: tuple[int, bool] = (1, True)

    outer, inner = fields.describe_model(Outer)
    told = {field.name: (field.type, field.default) for field in outer.fields}
    assert told == {
        "inner": ("table Inner", {"width": 3}),
        "perhaps": ("number", None),
        "several": ("list of paths", []),
        "pair": ("list of 2: whole number, true or false", [1, True]),
    }
    assert [field.name for field in inner.fields] == ["depth", "width"]


@pytest.mark.parametrize("value", ["a", 'a"\\b\n\x1b\x7f\u3164', 1, 0.5, True, [1, [2]], {"a": [{"b": "c"}]}], ids=repr)
def test_values_survive_as_toml(value):
    assert tomllib.loads(f"x = {format_value(value)}") == {"x": value}


@pytest.mark.parametrize("kind", entries.KINDS)
def test_lists_are_whole(kind):
    listed = entries.list_entries(kind)
    assert len({entry.name for entry in listed}) == len(listed) > 0
    assert all(entry.summary and entry.origin for entry in listed)
    for entry in listed[:3]:
        assert entries.describe_entry(kind, entry.name).summary == entry.summary


@pytest.mark.parametrize("kind", entries.KINDS)
def test_what_there_is_not(kind):
    with pytest.raises(UserError, match=f"no {kind} named 'cuckoo'") as raised:
        entries.describe_entry(kind, "cuckoo")
    assert "Known" in raised.value.hint or f"cowbird list {kind}s" in raised.value.hint


def test_a_spec_is_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_specs.find_spec("demo") == find_shipped_spec("demo")
    assert shipped_specs.find_spec("mine.toml") == Path("mine.toml")
    with pytest.raises(UserError, match="no shipped spec 'mine'"):
        shipped_specs.find_spec("mine")
    (tmp_path / "demo.toml").touch()
    with pytest.raises(UserError, match="may be the spec that ships") as raised:
        shipped_specs.find_spec("demo")
    assert "shipped:demo" in raised.value.hint
    assert "./demo.toml" in raised.value.hint
    assert shipped_specs.find_spec("shipped:demo") == find_shipped_spec("demo")
    assert shipped_specs.find_spec("./demo.toml") == Path("demo.toml")
    with pytest.raises(UserError, match="no shipped spec 'mine'"):
        shipped_specs.find_spec("shipped:mine")
    monkeypatch.chdir(find_shipped_spec("demo").parent)
    assert shipped_specs.find_spec("demo") == find_shipped_spec("demo"), "the same file is no doubt"


@pytest.mark.parametrize("source", ["tabular", "atomic", "movielens_100k"])
def test_new_specs_hold(source, tmp_path, validator):
    out = tmp_path / "deeper" / "mine.toml"
    templates.write_template(source, out)
    text = out.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assert not list_errors(validator, table)
    assert load_spec(out).dataset.name == source
    assert load_spec(out, profile="quick").victims[0].options.epochs == 2
    assert "cowbird run mine.toml" in text
    assert ("CHANGE" in text.replace("marked CHANGE", "")) == (source != "movielens_100k")
    # What is commented out holds as well.
    hidden = ("# [[", "# group", "# name =", "# label", "# scope", "# rate", "# targets")
    lines = [line.removeprefix("# ") if line.startswith(hidden) else line for line in text.splitlines()]
    opened = tomllib.loads("\n".join(lines))
    assert len(opened["attacks"]) == 2
    assert not list_errors(validator, opened)
    out.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        templates.write_template(source, out)
    assert out.read_text() == "mine"
    templates.write_template(source, out, force=True)
    assert out.read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match="is a folder"):
        templates.write_template(source, tmp_path, force=True)


def test_a_template_names_its_file_in_one_line(tmp_path):
    path = tmp_path / "a\nimport = 1\n\x1b\u202e.toml"
    templates.write_template("tabular", path)
    written = path.read_text(encoding="utf-8")
    assert not set(written) & set("\x1b\u202e")
    assert "import" not in tomllib.loads(written)


def test_a_spec_that_nests_without_end_is_told(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 5000)
    with pytest.raises(UserError, match="nests its values too deeply"):
        load_spec(path)
