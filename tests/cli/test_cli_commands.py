"""The command line: exit codes, what goes where, and never a traceback."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cowbird
from cowbird import plugins
from cowbird.cli import demo
from cowbird.experiments import executor, spec_labels
from cowbird.experiments import spec as spec_module
from cowbird.victims import fit_context
from doubles.command import call_command

SPEC = """
name = "small"
seeds = [0]
ks = [10]
description = "A [red]small\\u001b[31m one\\u202e."
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
"""
UNFIT = '[[attacks]]\nname = "basic_replacement"\nlabel = "unfit"\ntargets = { ids = ["\\u001b[31mnowhere"] }\n'


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, *args)
        return code, " ".join(out.split()), " ".join(err.split())

    return run


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC)
    return path


@pytest.mark.parametrize("kind", ["attack", "defense", "victim", "dataset"])
def test_lists(call, kind):
    code, out, err = call("list", f"{kind}s")
    assert (code, err) == (0, "")
    for name in plugins.list_plugins(kind):
        assert re.search(rf"(^|\s){name}\s", out)
        assert plugins.summarize_plugin(plugins.find_plugin(kind, name)).split()[0] in out


@pytest.mark.parametrize(
    "args",
    [
        ("list", "cuckoos"),
        ("describe",),
        ("describe", "cuckoo"),
        ("init",),
        ("init", "cuckoo"),
        ("validate",),
        ("fly",),
        ("--cuckoo",),
        ("run",),
        ("run", "spec.toml"),
        ("run", "spec.toml", "--out"),
        ("run", "spec.toml", "--out", "x", "--jobs", "0"),
        ("run", "spec.toml", "--out", "x", "--jobs", "many"),
        ("run", "spec.toml", "--out", "x", "--cuckoo"),
        ("run", "spec.toml", "more", "--out", "x"),
        ("demo", "--cuckoo"),
    ],
    ids=" ".join,
)
def test_usage_errors(call, args):
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.parametrize(
    "args", [("--help",), *[(name, "--help") for name in ("run", "list", "demo", "stealth")]], ids=" ".join
)
def test_help(call, args):
    code, out, err = call(*args)
    assert (code, err) == (0, "")
    assert "Usage" in out


def test_version(call):
    assert call("--version") == (0, f"cowbird {cowbird.__version__}", "")


def test_a_run(call, spec, tmp_path):
    code, out, _ = call("run", spec, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0
    assert "[red]small" in out, "text from a spec is text"
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert f"({len(rows)} rows)" in out
    assert len(rows) > 10
    code, told, _ = call("run", spec, "--out", tmp_path / "out", "--dry-run", "--json")
    (cell,) = json.loads(told)
    assert (code, cell["name"], cell["done"], cell["seconds"]) == (0, "sasrec-0", True, 0.0)
    code, told, _ = call("run", spec, "--out", tmp_path / "new", "--dry-run")
    assert (code, "1 of 1 cells are left. Nothing was run or written." in told) == (0, True)
    assert not (tmp_path / "new").exists()
    assert call("run", spec, "--out", tmp_path / "new", "--only", "gru*")[0] == 2
    (tmp_path / "out" / "results.jsonl").unlink()
    code, told, _ = call("run", spec, "--out", tmp_path / "out", "--device", "cpu", "--cell", "0", "--json")
    assert (code, json.loads(told)["cells"]) == (0, {"done": 1, "all": 1, "left": 0})
    for more, message in ((("1",), "no cell 1"), (("0", "--only", "*"), "--cell names one"), (("-1",), "--cell")):
        code, out, err = call("run", spec, "--out", tmp_path / "out", "--cell", *more)
        assert out == "", "nothing is shown before the error"
        assert (code, message in err) == (2, True), err
    kept = json.loads((tmp_path / "out" / "run.json").read_text())
    assert kept["command"] == f"cowbird run {spec} --out {tmp_path / 'out'} --device cpu"
    code, out, _ = call("run", spec, "--out", tmp_path / "out", "--device", "cpu", "--resume")
    assert code == 0
    assert f"({len(rows)} rows)" in out


@pytest.mark.slow
def test_seeds_are_taken_from_the_command_line(call, spec, tmp_path):
    assert call("run", spec, "--out", tmp_path / "out", "--seeds", "5, 3", "--device", "cpu")[0] == 0
    record = json.loads((tmp_path / "out" / "spec.json").read_text())
    assert record["spec"]["seeds"] == [5, 3]
    assert sorted(path.name for path in (tmp_path / "out" / "cells").iterdir()) == ["sasrec-3", "sasrec-5"]
    code, _, err = call("run", spec, "--out", tmp_path / "out", "--resume")
    assert code == 2
    assert "its seeds 5, 3 would be left out" in err


@pytest.mark.parametrize("seeds", ["", "a", "1,", "1,,2", "1;2", "1.5", "1,1", "0x1", "\x1b[31m"])
def test_bad_seeds(call, spec, tmp_path, seeds):
    code, out, err = call("run", spec, "--out", tmp_path / "out", f"--seeds={seeds}")
    assert (code, out) == (2, "")
    assert "seeds" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["gpu", "", "cuda:-1", "cuda:99", "meta", "hpu", "tpu v5"])
def test_bad_devices(call, spec, tmp_path, device):
    code, _, err = call("run", spec, "--out", tmp_path / "out", "--device", device)
    assert code == 2
    assert f"Error: Device '{device}' can't be used" in err
    assert "Use auto, cpu, cuda or cuda:N." in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + "[split]\ncuckoo = 1\n", "split.cuckoo: this key is not known"),
        (lambda text: text.replace("hidden", '"\\u001b[31mhid\\u202e"'), "this key is not known"),
        (
            lambda text: text.replace('"sasrec"', '"sasrek"'),
            "no victim named 'sasrek'. Did you mean sasrec? Known: bert4rec, checkpoint",
        ),
        (lambda text: text.replace('"sasrec"', '"\\u001b[31m"'), "no victim named"),
        (lambda text: text.replace("epochs = 1", "epochs = 0"), "epochs: must be 1 or more, not 0"),
        (lambda text: text.replace("[[attacks]]", "[attacks]"), "Write [[attacks]] before each"),
        (lambda text: text + "[split]\ncold_fraction = 0\n", "serves cold users"),
        (lambda text: text.replace("users = 30", "users = 1"), "too few"),
        (lambda text: text + '[[scenarios]]\nname = "direct"\nlabel = "../x"\n', "label"),
        (lambda text: "x", "is not TOML"),
        (lambda text: "", "name: is missing; dataset: is missing"),
    ],
)
def test_bad_specs(call, spec, tmp_path, change, said):
    spec.write_text(change(SPEC))
    code, out, err = call("run", spec, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 2
    assert "Error:" in err
    assert said in err
    assert "Error" not in out


def test_a_missing_spec(call, tmp_path):
    code, out, err = call("run", tmp_path / "gone.toml", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "gone.toml" in err
    assert call("run", tmp_path, "--out", tmp_path / "out")[0] == 2


def test_folders_that_can_t_be_used(call, spec, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for out in ("file", "file/deeper", "full", "a" * 300):
        code, _, err = call("run", spec, "--out", tmp_path / out, "--device", "cpu")
        assert code == 2
        assert "Error:" in err
    for out in ("/proc/cowbird", "/dev/null"):
        assert call("run", spec, "--out", out, "--device", "cpu")[0] == 2


@pytest.mark.slow
def test_a_run_that_is_there_already(call, spec, tmp_path):
    args = ("run", spec, "--out", tmp_path / "out", "--device", "cpu")
    assert call(*args)[0] == 0
    code, _, err = call(*args)
    assert code == 2
    assert "--resume" in err
    (tmp_path / "out/cells/sasrec-0/cell.json").write_text("{")
    code, _, err = call(*args, "--resume")
    assert code == 2
    assert "cell.json" in err
    (tmp_path / "out/cells/sasrec-0/cell.json").unlink()
    shutil.rmtree(tmp_path / "out/cells/sasrec-0/evidence")
    (tmp_path / "out/cells/sasrec-0/models/clean+none/model.safetensors").write_text("x")
    code, _, err = call(*args, "--resume")
    assert code == 0
    assert "warning" in err
    assert "Fitting it again" in err


def test_errors_in_cells(call, spec, tmp_path):
    spec.write_text(SPEC + UNFIT)
    code, out, err = call("run", spec, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 3
    assert "error" in err
    assert "unfit" in err
    assert "nowhere" in err
    assert "┃one " in out or "│one " in out, "the others are reported"
    assert "nowhere" not in out


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_interrupted(call, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "run_cell", interrupt)
    out = tmp_path / "my out"
    code, _, err = call("run", spec, "--out", out, "--seeds", "4,5", "--device", "cpu")
    assert code == 3
    hint = f"cowbird run {spec} --out '{out}' --seeds 4,5 --device cpu --resume"
    assert hint in err, "the command that is shown goes on with this very run"
    monkeypatch.undo()


def test_the_command_shown_after_an_interrupt_works(call, spec, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(executor, "run_cell", interrupt)
        err = call("run", spec, "--out", tmp_path / "my out", "--seeds", "4", "--device", "cpu")[2]
    words = shlex.split(err.partition("Go on with: ")[2])
    end = words.index("--resume") + 1
    assert call(*words[1:end])[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "items.csv", "--out", "my found.csv"),
        ("calibrate", "items.csv", "--out", "items.calibrated"),
        ("fit-scanner", "items.csv", "--out", "scanner", "--resume"),
        ("train-scanner", "recipe.toml", "--out", "tagger"),
    ],
    ids=lambda words: words[0],
)
def test_long_work_that_is_interrupted_before_it_begins_names_its_command(call, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text("title\nQuiet River\n")
    (tmp_path / "recipe.toml").touch()
    monkeypatch.setattr(fit_context, "pick_device", interrupt)
    code, _, err = call(*words)
    assert code == 3
    assert err.endswith(f"Interrupted. Run again: {shlex.join(['cowbird', *words])}")


@pytest.mark.parametrize("words", [("scan", "items.csv", "--out", "found.csv"), ("peek", "items.csv")])
def test_an_interrupt_that_a_library_makes_an_error_of_is_one(call, tmp_path, monkeypatch, words):
    def build(*given, **more):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("a schema can't be built") from None

    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text("title\nQuiet River\n")
    monkeypatch.setattr(fit_context, "pick_device", build)
    monkeypatch.setattr("cowbird.ingest.peek.peek_file", build)
    code, _, err = call(*words)
    assert code == 3
    assert "schema" not in err
    assert "Interrupted." in err
    if words[0] == "scan":
        assert err.endswith(f"Run again: {shlex.join(['cowbird', *words])}")


def test_interrupted_before_anything(call, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(spec_module, "load_spec", interrupt)
    code, _, err = call("run", spec, "--out", tmp_path / "out")
    assert code == 3
    assert "Interrupted" in err


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["", "It needs peft: pip install [it]."])
def test_the_demo_scans_first_and_runs_specs_that_ship(call, tmp_path, monkeypatch, spec, lacking):
    for name in ("demo", "demo_titles"):
        assert spec_module.load_spec(spec_labels.find_shipped_spec(name)).name.startswith("demo")
    monkeypatch.setattr(spec_labels, "find_shipped_spec", lambda name: spec)
    monkeypatch.setattr(demo, "_explain_missing_model", lambda: lacking)
    scanned = []

    def scan(spec, out, device, language_model):
        scanned.append((spec.name, out, device, language_model, (tmp_path / "out").exists()))

    monkeypatch.setattr(demo, "_scan_planted", scan)
    args = ("demo", "--out", tmp_path / "out", "--device", "cpu")
    with monkeypatch.context() as patched:
        patched.setattr(executor, "run_cell", interrupt)
        code, _, err = call(*args)
    assert code == 3
    assert f"cowbird demo --out {tmp_path / 'out'} --device cpu" in err
    assert call(*args)[0] == 0
    code, shown, _ = call(*args)
    assert code == 0, "a demo goes on by itself"
    assert (tmp_path / "out-titles" / "results.jsonl").exists() == (not lacking)
    assert (lacking in shown) if lacking else ("Left out" not in shown)
    here = ("small", tmp_path / "out-scan", "cpu", not lacking)
    assert scanned == [(*here, False), (*here, True), (*here, True)]


def test_what_the_demo_lacks_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "peft" else name)
    assert demo._explain_missing_model() == "It needs peft: pip install 'cowbird[llm]'."
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path))
    assert "cowbird assets" in demo._explain_missing_model()


# As the shell sees it.


def shell(*args, **options):
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, env=env, **options)


@pytest.mark.slow
def test_the_command_line_does_not_wait_for_torch():
    code = "import sys, cowbird.cli.app; print(sorted({'torch', 'polars', 'transformers'} & set(sys.modules)))"
    done = shell("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.slow
def test_as_a_module():
    done = shell("-m", "cowbird", "--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"cowbird {cowbird.__version__}", "")


@pytest.mark.slow
def test_the_installed_command():
    done = subprocess.run([Path(sys.executable).parent / "cowbird", "fly"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_as_a_module_with_two_jobs(spec, tmp_path):
    done = shell(
        "-m", "cowbird", "run", spec, "--out", tmp_path / "out", "--seeds", "0,1", "--jobs", "2", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Results: ") == 1, "workers must not run the command again"


@pytest.mark.slow
def test_a_user_error_in_a_shell(spec, tmp_path):
    done = shell("-m", "cowbird", "run", tmp_path / "gone.toml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert "gone.toml" in done.stderr.replace("\n", "")
    assert "Error" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scan", "x.csv", "--out", "y.csv", "--fail-on", "foo"), "'--fail-on': 'foo' is not one of 'flagged'"),
        (("init", "foo"), "'source': 'foo' is not one of 'tabular'"),
    ],
    ids=lambda value: value[0],
)
def test_a_wrong_choice_is_told_in_plain_words(call, words, said):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert f"Invalid value for {said}" in err
    assert "Value error" not in err


def test_a_value_that_begins_like_an_error_is_quoted_whole(call):
    _, _, err = call("init", "Value error, foo")
    assert "'Value error, foo' is not one of" in err
