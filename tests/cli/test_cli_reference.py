"""`cowbird list`, `describe`, `init`, `validate` and `run NAME`: what they print, and how they end."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from cowbird.experiments.reference import entries
from cowbird.experiments.reference.page import make_spec_page
from cowbird.experiments.spec_labels import find_shipped_spec
from doubles.command import call_command

COMMANDS = (
    *("demo", "assets", "scan", "fit-scanner", "peek", "init", "validate", "run", "list", "describe", "stealth"),
    *("inspect", "sanitize", "zoo"),
    *("report", "table", "compare", "leaderboard"),
)
SPEC = """
name = "small"
seeds = [0, 1]
ks = [10]
[dataset]
name = "synthetic"
users = 30
items = 20
events_per_user = 6
[[victims]]
name = "sasrec"
hidden = 8
epochs = 1
[[attacks]]
name = "basic_replacement"
label = "one"
targets = { count = 2 }
[profile.deep]
victims = { layers = 3 }
"""


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, *args, unseen="\x1b\x07\u202e\u200b\u3164")
        return code, out, " ".join(err.split())

    return run


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(call, name):
    short, long = call(name, "-h"), call(name, "--help")
    assert short == long
    assert (short[0], short[2]) == (0, "")
    out = short[1]
    assert "Examples:" in out
    examples = re.findall(rf"^ +(cowbird {name}\b.*)$", out, re.MULTILINE)
    assert examples, "an example stands on a line of its own"
    purpose = out.split("\n\n")[1]
    assert purpose.strip().endswith((".", ").")), "the help is a whole sentence"
    options = {word for example in examples for word in example.split() if word.startswith("-")}
    assert options <= set(re.findall(r"--?[a-z-]+", out.partition("Examples:")[0]))


def test_the_help_of_all(call):
    code, out, _ = call("-h")
    assert code == 0
    assert "--install-completion" in out
    listed = re.findall(r"^  ([a-z-]+)  +\S.*\.$", out, re.MULTILINE)
    assert set(COMMANDS) <= set(listed), "each with a sentence that is not cut"


def test_list_alone_counts(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    counts = json.loads(call("list", "--json")[1])
    assert counts == {f"{kind}s": len(entries.list_entries(kind)) for kind in entries.KINDS}
    for kind, count in counts.items():
        assert re.search(rf"^{kind} +{count} +cowbird list {kind} *$", out, re.MULTILINE)


def test_list_shows_files_of_this_folder_if_they_may_run(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = "from cowbird.defenses.base import Defense\n\n\nclass Mine(Defense):\n    " + '"""Do \\u202enothing."""\n'
    (tmp_path / "local_defense.py").write_text(text)
    assert "local_defense" not in call("list", "defenses")[1]
    code, out, err = call("list", "defenses", "--allow-plugins")
    assert (code, err) == (0, "")
    assert "local_defense" in out
    assert "Do <U+202E>nothing." in out
    assert "the file local_defense.py" in out
    counts = [json.loads(call("list", "--json", *more)[1])["defenses"] for more in ((), ("--allow-plugins",))]
    assert counts[1] == counts[0] + 1


@pytest.mark.parametrize("kind", entries.KINDS)
def test_lists_as_json_and_as_table(call, kind):
    code, out, err = call("list", f"{kind}s", "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert [entry["name"] for entry in listed] == [entry.name for entry in entries.list_entries(kind)]
    assert {entry["origin"] for entry in listed} == {"Cowbird"}
    code, shown, _ = call("list", f"{kind}s")
    assert code == 0
    assert all(entry["name"] in shown for entry in listed)
    assert shown.count("Cowbird") >= len(listed)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[(kind, entries.list_entries(kind)[0].name) for kind in entries.KINDS],
        ("attack", "badrec"),
        ("trigger", "zero_width_space"),
    ],
)
def test_describe(call, kind, name):
    code, out, err = call("describe", kind, name)
    assert (code, err) == (0, "")
    code, data, err = call("describe", kind, name, "--json")
    assert (code, err) == (0, "")
    entry = json.loads(data)
    assert (entry["kind"], entry["name"]) == (kind, name)
    for table in entry["tables"]:
        for field in table["fields"]:
            assert field["name"] in out
    if kind == "metric":
        assert "results.jsonl" in out
    elif kind != "spec":
        example = out.partition("with the defaults:\n")[2].partition("\nBackground")[0]
        assert tomllib.loads(example), "the example can be copied as it is shown"


def test_describe_tells_type_default_and_meaning(call):
    shown = call("describe", "attack", "badrec")[1]
    line = next(line for line in shown.splitlines() if line.split()[:1] == ["rate"])
    assert "0.01" in line
    assert "number" in line
    assert "Planted" in line
    record = json.loads(call("describe", "attack", "badrec", "--json")[1])
    rate = next(field for field in record["tables"][0]["fields"] if field["name"] == "rate")
    assert (rate["type"], rate["default"], rate["required"]) == ("number > 0, ≤ 1", 0.01, False)
    assert rate["meaning"].startswith("Planted interactions with targets")


@pytest.mark.slow
def test_describe_spec(call, spec):
    assert call("describe", "spec") == (0, make_spec_page(), "")
    code, out, err = call("describe", "spec", "--schema")
    assert (code, err) == (0, "")
    validator = jsonschema.Draft202012Validator(json.loads(out))
    assert validator.is_valid(tomllib.loads(spec.read_text()))
    assert not validator.is_valid(tomllib.loads(spec.read_text().replace("hidden", "hiden")))
    tables = json.loads(call("describe", "spec", "--json")[1])
    assert tables[0]["name"] == "Spec"
    shown = call("describe", "spec", "aprec")[1]
    assert tomllib.loads(shown.partition("The file:\n")[2]) == tomllib.loads(
        find_shipped_spec("aprec").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("attack",), "Which attack is not said. Add its name: cowbird list attacks"),
        (("attack", "badrek"), "no attack named 'badrek'. Did you mean badrec? Known: adaptive_badrec"),
        (("trigger", "char_5w"), "no trigger named 'char_5w'. Do you mean char_5v"),
        (("scenario", "\x1b[31m\u202e"), "no scenario named"),
        (("attack", "badrec", "--schema"), "--schema is for the whole spec"),
        (("spec", "demo", "--schema"), "--schema is for the whole spec"),
        (("metric", "asrr"), "no metric named 'asrr'"),
        (("spec", "cuckoo"), "no spec named 'cuckoo'"),
    ],
)
def test_what_can_t_be_described(call, args, said):
    code, out, err = call("describe", *args)
    assert (code, out) == (2, "")
    assert said in err


def test_init_then_validate_tabular(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("init", "tabular")
    assert (code, err) == (0, "")
    assert "cowbird validate spec.toml" in out
    code, out, err = call("validate", "spec.toml")
    assert (code, out) == (2, "")
    assert "interactions.csv" in err
    Path("data").mkdir()
    rows = [f"u{user},i{(user + nth) % 40},{nth}" for user in range(20) for nth in range(6)]
    Path("data/interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))
    code, _, err = call("validate", "spec.toml")
    assert code == 2
    assert "items.csv" in err
    titles = "".join(f"i{nth},Red Harbor {nth},sea\n" for nth in range(40))
    Path("data/items.csv").write_text("item_id,title,category\n" + titles)
    code, out, err = call("validate", "spec.toml")
    assert (code, err) == (0, "")
    assert "all 120 rows of interactions.csv" in out
    Path("data/interactions.csv").write_text("who,item_id,timestamp\na,b,1\n")
    code, _, err = call("validate", "spec.toml")
    assert code == 2
    assert "user_id" in err


def test_init_then_validate_atomic(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("init", "atomic", "--out", "mine.toml")[0] == 0
    assert call("validate", "mine.toml")[0] == 2
    Path("data/my-dataset").mkdir(parents=True)
    rows = [f"u{user}\ti{(user + nth) % 40}\t{nth}" for user in range(20) for nth in range(6)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    Path("data/my-dataset/x.inter").write_text("\n".join([header, *rows, ""]))
    code, _, err = call("validate", "mine.toml")
    assert code == 2
    assert "a target has no category" in err, "there are no categories yet"
    films = "".join(f"i{nth}\tRed\tsea\n" for nth in range(40))
    Path("data/my-dataset/x.item").write_text(f"item_id:token\ttitle:token_seq\tclass:token_seq\n{films}")
    assert call("validate", "mine.toml")[0] == 0
    Path("data/my-dataset/x.item").write_text("film:token\ttitle:token_seq\nb\tRed\n")
    code, _, err = call("validate", "mine.toml")
    assert code == 2
    assert "item_id" in err


def test_init_then_validate_movielens(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("init", "movielens_100k")[0] == 0
    code, out, _ = call("validate", "spec.toml", "--profile", "quick")
    assert code == 0
    assert "my-experiment-quick" in out


def test_init_never_overwrites(call, tmp_path):
    out = tmp_path / "mine.toml"
    out.write_text("mine")
    code, said, err = call("init", "tabular", "--out", out)
    assert (code, said) == (2, "")
    assert "--force" in err
    assert out.read_text() == "mine"
    assert call("init", "tabular", "--out", out, "--force")[0] == 0
    assert out.read_text() != "mine"
    assert call("init", "tabular", "--out", tmp_path)[0] == 2
    assert call("init", "tabular", "--out", "/proc/cowbird/spec.toml")[0] == 2


def test_validate_tells_what_would_run(call, spec):
    code, out, err = call("validate", spec)
    assert (code, err) == (0, "")
    assert "2 cells (victim × seed), each with 2 combinations" in " ".join(out.split())
    plan = json.loads(call("validate", spec, "--json")[1])
    assert plan["cells"] == 2
    assert plan["attacks"] == ["one"]
    assert plan["scenarios"] == ["direct"]
    assert call("validate", spec, "--quiet") == (0, "", "")
    assert json.loads(call("validate", spec, "--profile", "deep", "--json")[1])["name"] == "small-deep"
    assert not list(spec.parent.glob("cells"))


@pytest.mark.parametrize(
    ("args", "change", "said"),
    [
        ((), ("hidden", "hiden"), "this key is not known"),
        ((), ('"synthetic"\nusers = 30', '"atomic"\npath = "/gone"'), "items: this key is not known"),
        ((), ("users = 30", "users = 0"), "users: must be"),
        ((), ('"small"', "small"), "is not TOML"),
        ((), ('"one"', '"\\u001b[31m\\u202e"'), "label"),
        (("--profile", "gone"), ("", ""), "no profile 'gone'"),
    ],
)
def test_validate_refuses(call, spec, args, change, said):
    spec.write_text(SPEC.replace(*change))
    code, out, err = call("validate", spec, *args)
    assert (code, out) == (2, "")
    assert said in err
    assert call("validate", spec.parent / "gone.toml")[0] == 2


OWN = """
from cowbird.attacks.random_profiles import RandomProfiles
print("imported")
class Own(RandomProfiles):
    \"\"\"Do as random profiles do.\"\"\"
    marks: int = 3
    \"\"\"How many marks.\"\"\"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a spec with an attack that lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_attack_of_cli_tests", raising=False)
    Path("own_attack_of_cli_tests.py").write_text(OWN)
    Path("own.toml").write_text(
        SPEC.replace('name = "basic_replacement"', 'name = "own_attack_of_cli_tests:Own"\nrate = 0.5')
    )
    return "own.toml"


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "own.toml"),
        ("describe", "attack", "own_attack_of_cli_tests:Own"),
        ("run", "own.toml", "--out", "out", "--seeds", "0", "--device", "cpu"),
    ],
)
def test_a_stranger_s_code_runs_only_where_it_is_allowed(call, own, words):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "--allow-plugins" in err
    assert "own_attack_of_cli_tests" not in sys.modules
    code, out, err = call(*words, "--allow-plugins")
    assert code == 0, err
    assert "imported" in out
    if words[0] == "describe":
        assert "How many marks." in out


def test_plug_ins_of_installed_packages_are_listed_with_where_they_come_from(call, monkeypatch):
    from cowbird import plugins

    listed = [plugins.PluginEntry("theirs", "their\u202e-package 1.0", "Do \x1b[31mit.")]
    monkeypatch.setattr(plugins, "describe_plugins", lambda kind: listed)
    code, out, err = call("list", "attacks")
    assert (code, err) == (0, "")
    assert "theirs" in out
    assert "their<U+202E>-package 1.0" in " ".join(out.split())
    assert json.loads(call("list", "attacks", "--json")[1])[0]["origin"] == "their\u202e-package 1.0"


def test_a_shipped_spec_runs_by_name(call, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cowbird.experiments.reference.shipped_specs.find_shipped_spec", lambda name: spec)
    monkeypatch.setattr("cowbird.experiments.reference.shipped_specs._list_files", lambda: [Path("tiny.toml")])
    code, out, _ = call("run", "tiny", "--out", "out", "--seeds", "0", "--device", "cpu", "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["cells"] == {"done": 1, "all": 1, "left": 0}
    assert summary["rows"] == len(Path(summary["results"]).read_text().splitlines())
    code, out, err = call("run", "tiny", "--out", "out", "--seeds", "0", "--device", "cpu", "--resume", "--quiet")
    assert (code, out, err) == (0, "", "")
    Path("tiny.toml").write_text(SPEC)
    code, out, err = call("run", "tiny", "--out", "other")
    assert (code, out) == (2, "")
    assert "shipped:tiny" in err
    assert "./tiny.toml" in err
    assert not Path("other").exists()


def test_a_name_that_is_neither_file_nor_spec(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("run", "cuckoo", "--out", "out")
    assert (code, out) == (2, "")
    assert "no shipped spec 'cuckoo', and no file" in err
    assert "aprec" in err


def test_a_run_tells_a_log_how_far_it_is(call, spec, tmp_path):
    code, _, err = call("run", spec, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0
    assert re.search(r"\[00:0\d\] cells \(victim × seed\) 0/2", err)
    assert "2/2" in err


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    """The shell is named here; otherwise typer looks for one among the processes that started this one."""
    done = subprocess.run(
        [sys.executable, "-m", "cowbird", "--show-completion", shell],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    marks = {"bash": "complete -o default -F", "zsh": "#compdef ", "fish": "complete --command "}
    assert marks[shell] in done.stdout
