"""What a plug-in of somebody else raises is told in one line: which plug-in, what, and where."""

import pickle
import sys
import textwrap
from pathlib import Path

import pytest

from cowbird import plugin_errors
from cowbird.errors import PluginError, UserError
from cowbird.experiments import executor
from cowbird.experiments.run import run
from cowbird.experiments.spec import load_spec, parse_spec
from cowbird.plugin_errors import blame_plugin, guard_plugins
from cowbird.plugins import find_plugin
from cowbird.scanning import pool
from cowbird.scanning.detectors import DetectorScorer, make_detector
from doubles.command import call_command

SPEC = """
name = "strange"
ks = [10]
[dataset]
name = "{dataset}"
[split]
cold_fraction = 0.3
[[victims]]
name = "{victim}"
[[attacks]]
name = "{attack}"
[[defenses]]
name = "{defense}"
[[scenarios]]
name = "direct"
"""
GIVEN = {"dataset": "synthetic", "victim": "sasrec", "attack": "basic_replacement", "defense": "none"}
BASES = {
    "dataset": "from cowbird.data.sources.synthetic import Synthetic as Base",
    "victim": "from cowbird.victims.sequential.sasrec import SASRec as Base",
    "attack": "from cowbird.attacks.random_profiles import RandomProfiles as Base",
    "defense": "from cowbird.defenses.none import NoDefense as Base",
}
HOSTILE = r"raise ValueError('\x1b[31mred\u202e\n[bold]two')"
METHODS = {
    "dataset": "def load(self):",
    "victim": "def fit(self, *given, **more):",
    "attack": "def run(self, data, rng):",
    "defense": "def clean(self, data, probe=None):",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a plug-in of one kind into the current folder, and a spec that names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("COWBIRD_TRACEBACK", raising=False)
    made = []

    def write_plugin(kind, text, **more):
        name = f"stranger_{tmp_path.name.strip('_').lower()}_{len(made)}"
        made.append(name)
        Path(f"{name}.py").write_text(textwrap.dedent(text))
        Path("spec.toml").write_text(SPEC.format(**GIVEN | {kind: name} | more))
        return name

    yield write_plugin
    for name in made:
        sys.modules.pop(name, None)


def write_method(kind, body):
    """Return a plug-in whose main method has a body."""
    return f"{BASES[kind]}\nclass Mine(Base):\n    {METHODS[kind]}\n        {body}\n"


def call_run(monkeypatch, capsys, *words):
    return call_command(monkeypatch, capsys, "run", "spec.toml", "--out", "out", "--device", "cpu", *words)


@pytest.mark.parametrize("kind", METHODS)
def test_what_a_plug_in_raises_while_it_works_is_one_line(kind, write, monkeypatch, capsys):
    name = write(kind, write_method(kind, HOSTILE))
    code, _, err = call_run(monkeypatch, capsys, "--allow-plugins", "--quiet")
    assert code == 2
    assert err == (
        f"Error: The {kind} '{name}' raised ValueError: <U+001B>[31mred<U+202E> [bold]two ({name}.py:4). "
        "It is no part of Cowbird. COWBIRD_TRACEBACK=1 shows the whole traceback.\n"
    )


RAISES = {
    "runtime": "raise RuntimeError('oh')",
    "exit": "import sys; sys.exit(0)",
    "base": "raise type('Odd', (BaseException,), {})('oh')",
    "silent": "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})",
    "own attack error": "return None",
}


@pytest.mark.parametrize("what", RAISES)
def test_whatever_an_attack_raises(what, write, monkeypatch, capsys):
    """Also an error that is an environment's elsewhere, and nonsense that it returns."""
    name = write("attack", write_method("attack", RAISES[what]))
    code, _, err = call_run(monkeypatch, capsys, "--allow-plugins", "--quiet")
    assert code == 2
    assert err.startswith(f"Error: The attack '{name}' raised ")
    assert err.count("\n") == 1
    assert ".py:" in err


def test_an_error_in_words_stays_one(write, monkeypatch, capsys):
    text = write_method("attack", "from cowbird.errors import UserError; raise UserError('Too few.', 'Give more.')")
    write("attack", text)
    code, _, err = call_run(monkeypatch, capsys, "--allow-plugins", "--quiet")
    assert code == 3
    assert "Too few. Give more." in " ".join(err.split())
    assert "no part of Cowbird" not in err


IMPORTS = {
    "1 / 0": ("ZeroDivisionError: division by zero", 1),
    "\nimport a_library_nobody_has": ("ModuleNotFoundError: No module named 'a_library_nobody_has'", 2),
    "def broken(:": ("SyntaxError: invalid syntax", 1),
    "raise SystemExit(0)": ("SystemExit: 0", 1),
    "raise KeyError": ("KeyError", 1),
}


@pytest.mark.parametrize("text", IMPORTS)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_what_a_plug_in_raises_while_it_is_imported(text, command, write, monkeypatch, capsys):
    name = write("attack", text)
    words = ["--out", "out", "--quiet"] if command == "run" else ["--quiet"]
    code, out, err = call_command(monkeypatch, capsys, command, "spec.toml", "--allow-plugins", *words)
    assert (code, out) == (2, "")
    raised, line = IMPORTS[text]
    assert f"The attack '{name}' can't be loaded: {raised} ({name}.py:{line}). It is no part of Cowbird." in err
    assert err.count("\n") == 1


def test_what_a_plug_in_raises_while_it_is_made(write, monkeypatch, capsys):
    text = f"{BASES['attack']}\nclass Mine(Base):\n    def model_post_init(self, context):\n        1 / 0\n"
    name = write("attack", text)
    code, _, err = call_run(monkeypatch, capsys, "--allow-plugins", "--quiet")
    assert code == 2
    assert f"The attack '{name}' raised ZeroDivisionError: division by zero ({name}.py:4)." in err
    text = text.replace("1 / 0", "raise ValueError('no good')")
    write("attack", text)
    code, _, err = call_run(monkeypatch, capsys, "--allow-plugins", "--quiet")
    assert code == 2
    assert "no good" in err


def test_the_whole_traceback_is_shown_where_it_is_asked_for(write, monkeypatch, capsys):
    name = write("attack", write_method("attack", "1 / 0"))
    monkeypatch.setenv("COWBIRD_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["cowbird", "run", "spec.toml", "--out", "out", "--allow-plugins", "--quiet"])
    from cowbird.cli import app

    with pytest.raises(SystemExit) as end:
        app.main()
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.startswith(f"Error: The attack '{name}' raised ZeroDivisionError")
    assert "Traceback (most recent call last)" in err
    assert f"{name}.py" in err


def test_python_gets_the_error_with_its_cause(write, tmp_path):
    write("attack", write_method("attack", "1 / 0"))
    with pytest.raises(PluginError, match="raised ZeroDivisionError") as error:
        run(load_spec(Path("spec.toml"), allow_plugins=True), tmp_path / "out", device="cpu")
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_an_error_travels_between_processes(write):
    """What a worker raises comes back without its traceback, so the worker says whose fault it is."""
    name = write("attack", write_method("attack", "1 / 0"))
    spec = load_spec(Path("spec.toml"), allow_plugins=True)
    with pytest.raises(PluginError) as error:
        executor._run_in_worker(spec.to_record(), "out", 0, "cpu", 1)
    told = pickle.loads(pickle.dumps(error.value))
    assert type(told) is PluginError
    assert f"The attack '{name}' raised ZeroDivisionError: division by zero ({name}.py:4)." in str(told)


def test_a_detector_that_is_sent_to_another_process_is_known_there(write, monkeypatch):
    base = "from cowbird.defenses.character_rules import CharacterRules as Base"
    name = write("defense", f"{base}\nclass Mine(Base):\n    def suspect(self, titles, probe=None):\n        1 / 0\n")
    detector = make_detector(name, allow_plugins=True)
    known = plugin_errors.copy_registry()
    monkeypatch.setattr(plugin_errors, "_registered", {})  # as in a new process
    monkeypatch.setattr(pool, "_process_scorer", None)
    monkeypatch.setattr(pool, "end_with_parent", lambda: None)
    monkeypatch.setattr(pool, "ignore_stop_signals", lambda: None)
    pool._init_process(lambda: DetectorScorer(name, detector), known)
    with pytest.raises(PluginError, match=f"The defense '{name}' raised ZeroDivisionError"):
        pool._scan(["Red"])


def test_cowbirds_own_faults_and_the_machine_s_are_nobody_else_s(write, monkeypatch):
    def fail(error):
        with pytest.raises(type(error)) as raised, guard_plugins():
            raise error
        assert raised.value is error

    for error in (ZeroDivisionError(), UserError("x"), KeyboardInterrupt()):
        fail(error)
    name = write("attack", write_method("attack", "raise data"))
    attack = find_plugin("attack", name, allow_paths=True)()
    for error in (MemoryError(), OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            attack.run(error, None)
        assert blame_plugin(raised.value) is None
    with pytest.raises(ValueError, match="own") as raised:
        attack.run(ValueError("own"), None)
    assert f"The attack '{name}' raised ValueError: own" in str(blame_plugin(raised.value))


def test_a_fault_of_a_cell_of_cowbird_s_is_as_before(write, monkeypatch):
    from cowbird.attacks.basic_replacement import BasicReplacement

    def fail(self, data, rng):
        return 1 / 0

    monkeypatch.setattr(BasicReplacement, "run", fail)
    table = {"name": "x", "dataset": {"name": "synthetic"}, "victims": [{"name": "sasrec"}]}
    spec = parse_spec(table | {"attacks": [{"name": "basic_replacement"}]})
    with pytest.raises(ZeroDivisionError):
        run(spec, Path("out"), device="cpu")
