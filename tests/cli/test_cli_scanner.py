"""`cowbird fit-scanner` and `cowbird scan`: what they make, what they say, and how they end."""

import csv
import errno
import functools
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from cowbird.cli import app as cli
from cowbird.defenses.p_scanner.rounds import fitted_scanner as fitted_module
from cowbird.defenses.p_scanner.rounds import scanner_fit as module
from cowbird.defenses.p_scanner.rounds.calibration import Calibration
from cowbird.defenses.p_scanner.rounds.fitted_scanner import FittedScanner, Record, Round, load_fitted_scanner
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.defenses.p_scanner.triggers.agent import Agent, Proposals, RecipeOutcome
from cowbird.defenses.p_scanner.triggers.trigger_families import Recipe
from cowbird.files import hash_file
from cowbird.scanning import fitted_scorer, fitting, scan, sharing
from cowbird.scanning.summary import ScanSummary
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning
from defenses.conftest import llama  # noqa: F401
from doubles.chat_server import ChatServer, Reply
from doubles.command import call_command

pytest.importorskip("transformers")

WORDS = (
    ("Red", "Blue", "The Quiet"),
    ("Harbor", "Garden", "Engine", "Letter"),
    ("at Night", "of the Sea", "II", "Again", "Return"),
)
TITLES = [" ".join(words) for words in itertools.product(*WORDS)]
HIDDEN = "Blue \u202eMirror"
console = Console(width=300)
KEY = "sk-test-0123456789"
LOAD = functools.cache(load_fitted_scanner)
UNICODE = ("最高の庭", "Ночь над гаванью", "حديقة هادئة", "🔥🔥", "e\u0301te\u0301", "ελληνικά")


def catalog(folder, *titles, name="catalog.jsonl"):
    """Write titles as JSON Lines."""
    path = folder / name
    path.write_text("".join(json.dumps({"id": nth, "title": title}) + "\n" for nth, title in enumerate(titles)))
    return path


def cheap(llama):  # noqa: F811
    """Describe a scanner that is fitted in a second."""
    tuning = Tuning(epochs=2, batch_size=32, compiled=False)
    return PoisonScanner(
        llm=Llm(name=str(llama), layers=1, rank=4, modules=("v_proj", "down_proj")),
        tuning=tuning,
        rounds=1,
        proposals=4,
        plantings=6,
        stop_at=1.0,
        context_gain=False,
    )


@pytest.fixture(autouse=True)
def fast(monkeypatch, llama):  # noqa: F811
    """Describe cheap scanners, and load each one once."""
    monkeypatch.setattr(fitting, "DEFAULT_SCANNER", cheap(llama))
    monkeypatch.setattr(fitted_module, "load_fitted_scanner", LOAD)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, llama):  # noqa: F811
    """Return the folder of a scanner that was fitted to `TITLES`."""
    made = tmp_path_factory.mktemp("scanner") / "made"
    cheap(llama).fit(TITLES).save(made)
    return made


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command in this process: exit code, output, errors."""

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, *args)
        assert " safe" not in out.lower() + err.lower()
        return code, " ".join(out.split()), " ".join(err.split())

    return run


def under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def contents(folder):
    """Return the files of a scanner, without what a clock said."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    record, seals = (json.loads(found.pop(name)) for name in ("scanner.json", "cowbird.json"))
    del seals["files"]["scanner.json"]
    found["cowbird.json"] = json.dumps(seals)
    return found, record | {"rounds": [each | {"seconds": 0} for each in record["rounds"]]}


def stopping(monkeypatch, method, at, error=KeyboardInterrupt):
    """Let a method raise in its call of that number, and return a list that grows with the calls."""
    owner, name = method
    real, calls = getattr(owner, name), []

    def patched(*args, **more):
        calls.append(args)
        if len(calls) == at:
            raise error
        return real(*args, **more)

    monkeypatch.setattr(owner, name, patched)
    return calls


# Fitting.


def test_a_fit(call, tmp_path):
    titles, made = catalog(tmp_path, *TITLES, "", TITLES[0]), tmp_path / "deep" / "my [red] scanner"
    code, out, _ = call("fit-scanner", "--p-scanner", titles, "--out", made, "--fpr", 0.2, "--device", "cpu")
    assert code == 0
    assert under(made.parent) == sorted([made.name, *(f"{made.name}/{path.name}" for path in made.iterdir())])
    record = load_fitted_scanner(made, torch.device("cpu")).record
    held = record.calibration
    assert (record.fpr, len(record.rounds)) == (0.2, 1)
    for each in record.rounds:
        caught = np.mean([outcome.rate for outcome in each.after])
        assert f"│ {each.trusted} │ {each.proposed} │" in out
        assert f"{caught:.1%} │ {each.seconds:.1f}" in out
    assert f"Thresholds rest on {held.titles} titles that were not learned from" in out
    assert f"for 0.2 (this scanner's own): {held.threshold(0.2):.3g}." in out
    for fpr in (0.01, 0.001):
        assert (
            f"for {fpr}: {held.threshold(fpr):.3g}. Of the {held.titles} titles that set it, 0 score above it." in out
        )
        assert f"So few titles can't tell {fpr} from {1 / (held.titles + 1):.2g}." in out
    assert "3.7 to 13.7 %" in out, "no rate is promised for titles that the fit never saw"
    assert "probability" not in out
    assert "deep/my [red] scanner" in out.replace(" /", "/")


@pytest.mark.slow
def test_a_fit_for_programs(call, tmp_path):
    titles = catalog(tmp_path, *TITLES)
    code, out, _ = call("fit-scanner", "--p-scanner", titles, "--out", tmp_path / "made", "--device", "cpu", "--json")
    assert code == 0
    told, record = json.loads(out), load_fitted_scanner(tmp_path / "made", torch.device("cpu")).record
    assert (told["scanner"], told["finished_before"], told["unread"]) == (str(tmp_path / "made"), False, [])
    assert np.float32(told["threshold"]) == np.float32(record.calibration.threshold(record.fpr))
    again = ("fit-scanner", "--p-scanner", titles, "--out", tmp_path / "made", "--device", "cpu", "--resume")
    assert json.loads(call(*again, "--json")[1])["finished_before"]
    assert call(*again, "--quiet") == (0, "", "")
    code, out, err = call(
        "fit-scanner", "--p-scanner", tmp_path / "gone.csv", "--out", tmp_path / "other", "--json", "--quiet"
    )
    assert (code, out) == (2, "")
    assert "gone.csv" in err, "errors are told all the same"


def test_what_is_told_of_rounds():
    outcomes = [RecipeOutcome(recipe=Recipe(text=text), rate=rate) for text, rate in (("a", 0.0), ("b", 0.5))]
    rounds = [
        Round(
            number=number,
            trusted=1234,
            proposed=2,
            before=tuple(outcomes[: 2 * number - 2]),
            after=tuple(outcomes[1:]),
            seconds=5,
        )
        for number in (1, 2)
    ]
    calibration = Calibration.of([0.5, 9.0, *np.linspace(-1, 0, 499)])
    record = Record.model_construct(calibration=calibration, fpr=0.01, rounds=tuple(rounds))
    table = fitting._make_round_table(record)
    assert [list(column.cells) for column in table.columns] == [
        ["1", "2"],
        ["1,234", "1,234"],
        ["2", "2"],
        ["–", "25.0%"],
        ["50.0%", "50.0%"],
        ["5.0", "5.0"],
    ], "nothing is caught before there is a scanner"
    made = fitting.format_fit(fitting.FitResult(record, (), before=False))
    said = [str(part) for part in made.renderables[1:]]
    assert said[0].startswith("Thresholds rest on 500 titles that were not learned from. 1 more look poisoned")
    assert said[1].startswith("  for 0.01 (this scanner's own): -0.00602. ")
    assert said[1].endswith("Of the 500 titles that set it, 4 score above it.")
    assert said[2].startswith("  for 0.001: 0.5. ")
    assert said[2].endswith(
        "Of the 500 titles that set it, 0 score above it. So few titles can't tell 0.001 from 0.002."
    )
    assert said[3] == fitted_scorer.FRESH_TITLES_NOTE


@pytest.mark.slow
def test_an_interrupted_fit_ends_in_the_same_scanner(call, tmp_path, monkeypatch):
    titles, made = catalog(tmp_path, *TITLES), tmp_path / "b c"
    words = ("fit-scanner", "--p-scanner", titles, "--device", "cpu", "--out")
    assert call(*words, tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patched:
        stopping(patched, (module.TaggingPrompts, "write_epoch"), 2)
        code, out, err = call(*words, made)
    assert (code, out) == (3, "")
    again = shlex.join(["cowbird", *map(str, words), str(made), "--resume"])
    assert f"Interrupted. Go on with: {again}" in err
    assert not made.exists()
    assert [path.name for path in (tmp_path / "b c.partial" / "round-1").glob("*.json")] == ["step-000000004.json"]
    code, _, err = call(*words, made)
    assert (code, "holds an unfinished fit" in err, "--resume" in err) == (2, True, True)
    code, _, err = call(*words, made, "--resume", "--seed", 1)
    assert (code, "with other options" in err) == (2, True)
    calls = stopping(monkeypatch, (module.TaggingPrompts, "write_epoch"), 0)
    assert call(*shlex.split(again)[1:])[0] == 0
    assert [number for _, number, _ in calls] == [1], "the first epoch was done"
    assert contents(made) == contents(tmp_path / "whole")
    assert not (tmp_path / "b c.partial").exists()


@pytest.mark.slow
def test_a_fit_that_is_there(call, tmp_path, monkeypatch):
    titles, made = catalog(tmp_path, *TITLES), tmp_path / "made"
    made.mkdir()
    words = ("fit-scanner", "--p-scanner", titles, "--device", "cpu", "--out", made)
    assert call(*words, "--resume")[0] == 0, "there is nothing to go on with, and an empty folder"
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    code, _, err = call(*words)
    assert (code, "not an empty folder. It holds a finished scanner." in err) == (2, True)
    monkeypatch.setattr(PoisonScanner, "fit", None)
    code, out, _ = call(*words, "--resume")
    assert (code, "It was finished before; nothing was done." in out) == (0, True)
    code, _, err = call(*words, "--resume", "--fpr", 0.02)
    assert (code, "with other options" in err) == (2, True)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


@pytest.mark.slow
def test_an_agent_behind_a_server_is_asked_once(call, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    told = [{"text": text, "level": "word"} for text in ("zebra", "quince", "umber", "lyre")]
    titles, made = catalog(tmp_path, *TITLES), tmp_path / "made"
    with ChatServer([Reply(json.dumps({"triggers": told}))]) as server:
        server.script += [Reply(status=400)] * 3
        words = ("fit-scanner", "--p-scanner", titles, "--out", made, "--device", "cpu", "--agent", "openai")
        words = (*words, "--agent-model", "tiny", "--agent-url", server.url)
        with monkeypatch.context() as patched:
            stopping(patched, (module.TaggingPrompts, "write_epoch"), 2)
            assert call(*words)[0] == 3
        kept = b"".join(path.read_bytes() for path in (tmp_path / "made.partial").rglob("*") if path.is_file())
        said = call(*words, "--resume")
    assert said[0] == 0
    assert len(server.requests) == 1
    assert server.requests[0]["model"] == "tiny"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    (first,) = load_fitted_scanner(made, torch.device("cpu")).record.rounds
    assert first.before == (), "there was no scanner yet"
    assert {outcome.recipe.text for outcome in first.after} == {"zebra", "quince", "umber", "lyre"}
    assert KEY not in "".join(map(str, said)) + kept.decode("latin-1")
    assert all(KEY.encode() not in path.read_bytes() for path in made.iterdir())


def test_an_agent_that_proposed_nothing_is_asked_again(tmp_path):
    class Mute(Agent):
        def propose(self, brief, rng):
            asked.append(brief)
            return Proposals((Recipe(text="zebra"),) if len(asked) > 1 else (), ("no",))

    asked = []
    agent = fitting.CachingAgent(agent=Mute(), folder=tmp_path)
    briefs = [module.Brief(titles=(title,), wanted=1) for title in ("\ud800", "b")]
    found = [agent.propose(brief, np.random.default_rng()) for brief in (*briefs[:1], *briefs, *briefs)]
    assert [len(each.recipes) for each in found] == [0, 1, 1, 1, 1]
    assert found[1] == found[3] == Proposals((Recipe(text="zebra"),), ("no",))
    assert len(asked) == 3


@pytest.mark.slow
def test_rows_that_a_fit_can_t_read(call, tmp_path):
    path = catalog(tmp_path, *TITLES)
    path.write_bytes(path.read_bytes() + b'{"title": "caf\xe9"}\nnot json\n')
    code, out, _ = call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", "--device", "cpu")
    assert code == 3, "made, from less than all rows"
    assert "Not learned from, because they can't be read: 2 rows." in out
    assert "1 × is not JSON (row 62)" in out
    assert (tmp_path / "made" / "scanner.json").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"agent": "openai"}, "none is named. Name it: --agent-model."),
        ({"agent-url": "http://localhost/v1"}, "--agent-url is for --agent openai"),
        ({"agent": "openai", "agent-model": "m", "agent-url": "ftp://x"}, "'ftp://x' is no address"),
        ({"agent": "openai", "agent-model": ""}, "--agent-model: must be text of 1 characters or more"),
        ({"agent": "parrot"}, "--agent"),
        ({"fpr": 0}, "--fpr: must be more than 0.0, not 0.0"),
        ({"fpr": 1}, "--fpr: must be less than 1.0, not 1.0"),
        ({"fpr": "nan"}, "--fpr: must be"),
        ({"layers": 0}, "--layers"),
        ({"layers": 3}, "3 layers were asked for"),
        ({"rounds": 0}, "--rounds"),
        ({"seed": -1}, "--seed"),
        ({"device": "gpu"}, "Device 'gpu' can't be used"),
        ({"llm": "nowhere.gguf"}, "There is no file 'nowhere.gguf'"),
        ({"llm": "\udcff"}, "no valid text"),
        ({"text-column": "name"}, "name"),
        ({"out": None}, "--out"),
        ({"out": "/"}, "would replace the folder"),
        ({"out": "/proc/cowbird/x"}, "can't be written"),
        ({"out": "/dev/null"}, "can't be written"),
        ({"out": "x" * 300}, "can't be written: File name too long"),
    ],
    ids=ascii,
)
def test_fits_that_can_t_be(call, tmp_path, options, said):
    path = catalog(tmp_path, *TITLES)
    given = {"out": tmp_path / "made", "device": "cpu"} | options
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    code, out, err = call("fit-scanner", "--p-scanner", path, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert under(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        ([], "is empty"),
        ([""] * 60, "there are 0"),
        (["Red Harbor"] * 1000, "50 different titles or more, and there are 1."),
        (["Red Harbor"], "there are 1"),
    ],
)
def test_catalogues_that_are_too_small(call, tmp_path, titles, said):
    path = catalog(tmp_path, *titles)
    code, out, err = call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", "--device", "cpu")
    assert (code, out) == (2, "")
    assert said in err
    assert under(tmp_path) == [path.name]


def test_what_lies_there_is_left_alone(call, tmp_path):
    path = catalog(tmp_path, *TITLES)
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "mine").touch()
    for more in ((), ("--resume",)):
        code, _, err = call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", *more)
        assert (code, "holds something else" in err) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for more in ((), ("--resume",)):
        assert call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "full", *more)[0] == 2
    assert under(tmp_path) == ["catalog.jsonl", "full", "full/mine", "made.partial", "made.partial/mine"]


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_scanners_that_can_t_be_written(call, tmp_path, monkeypatch, code):
    path = catalog(tmp_path, *TITLES)
    stopping(monkeypatch, (FittedScanner, "save"), 1, OSError(code, os.strerror(code)))
    ended, out, err = call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", "--device", "cpu")
    assert (ended, out) == (2, "")
    assert f"can't be written: {os.strerror(code)}" in err
    assert "What was fitted so far is kept" in err
    assert "--resume" in err
    assert under(tmp_path) == [path.name, *(f"made.partial{end}" for end in ("", "/fit.json", "/round-1.safetensors"))]


@pytest.mark.slow
def test_a_full_disk_at_the_last_save_costs_no_fit(call, tmp_path, monkeypatch):
    """A tokenizer that can't be written raises a plain Exception."""
    import transformers

    path, made = catalog(tmp_path, *TITLES), tmp_path / "made"
    words = ("fit-scanner", "--p-scanner", path, "--out", made, "--device", "cpu")
    with monkeypatch.context() as patched:
        error = Exception("No space left on device (os error 28)")
        stopping(patched, (transformers.PreTrainedTokenizerBase, "save_pretrained"), 1, error)
        code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "can't be written: No space left on device" in err
    assert "--resume" in err
    steps = stopping(monkeypatch, (module.TaggingPrompts, "write_epoch"), 0)
    assert call(*words, "--resume")[0] == 0
    assert not steps, "nothing is tuned again"
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name, "made"]


@pytest.mark.slow
def test_an_interrupt_after_a_tuned_round_costs_no_round(call, tmp_path, monkeypatch):
    path, made = catalog(tmp_path, *TITLES), tmp_path / "made"
    words = ("fit-scanner", "--p-scanner", path, "--out", made, "--device", "cpu")
    with monkeypatch.context() as patched:
        stopping(patched, (module.ScannerFit, "_weigh"), 1)
        code, _, err = call(*words)
    assert (code, "Go on with:" in err, "--resume" in err) == (3, True, True)
    assert (tmp_path / "made.partial" / "round-1.safetensors").exists()
    steps = stopping(monkeypatch, (module.TaggingPrompts, "write_epoch"), 0)
    assert call(*words, "--resume")[0] == 0
    assert not steps, "the round was done"
    assert not (tmp_path / "made.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--resume",)], ids=str)
def test_a_second_fit_is_refused_at_its_start(call, tmp_path, monkeypatch, more):
    path, made, said = catalog(tmp_path, *TITLES), tmp_path / "made", []
    words = ("fit-scanner", "--p-scanner", path, "--out", made, "--device", "cpu")
    real = module.ScannerFit._learn

    def meddle(self, number):
        monkeypatch.setattr(module.ScannerFit, "_learn", real)
        before = under(tmp_path)
        said.append(call(*words, *more))
        assert under(tmp_path) == before
        real(self, number)

    monkeypatch.setattr(module.ScannerFit, "_learn", meddle)
    assert call(*words)[0] == 0
    ((code, out, err),) = said
    assert (code, out) == (2, "")
    told = f"Another fit is at work in '{made}.partial': process {os.getpid()} on"
    assert "".join(told.split()) in "".join(err.split())  # a terminal breaks a long path


def test_more_workers_than_processors_are_told(call, tmp_path, fitted, monkeypatch):
    path = catalog(tmp_path, *TITLES)
    monkeypatch.setattr(sharing, "count_processors", lambda: 1)
    words = ("scan", path, "--scanner", fitted, "--out", tmp_path / "a.csv", "--device", "cpu", "--workers", 999)
    code, _, err = call(*words)
    assert code in (0, 1)
    assert "999 workers were asked for, and 1 run: that is what the processors take" in err


def test_paths_of_models_hold_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    found = fitting.make_spec("tiny", 1, 7, 0.2, agent_model="tiny", device="cpu")
    assert (found.llm.name, found.llm.layers, found.llm.rank) == (str(tmp_path.resolve() / "tiny"), 1, 4)
    assert (found.rounds, found.fpr, found.proposals) == (7, 0.2, 4)
    assert found.agent.llm.name == found.llm.name
    assert fitting.make_spec("smollm2-135m").llm.name == "smollm2-135m"
    assert fitting.make_spec() == fitting.DEFAULT_SCANNER
    assert fitting.make_spec("x" * 5000).llm.name == "x" * 5000


# Scanning.


def scanned(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("fpr", [None, 0.6])
def test_a_scan_is_what_the_scanner_says(call, tmp_path, fitted, fpr):
    titles = [*TITLES[:20], HIDDEN, TITLES[3]]
    words = () if fpr is None else ("--fpr", fpr)
    path, out = catalog(tmp_path, *titles), tmp_path / "found.csv"
    code, said, _ = call("scan", path, "--scanner", fitted, "--out", out, "--chunk", 8, "--device", "cpu", *words)
    scanner = LOAD(fitted, torch.device("cpu"))
    parts = [scanner.suspect(titles[first : first + 8]) for first in (0, 8, 16)]
    scores = np.concatenate([part.score for part in parts])
    flagged = scores > scanner.record.calibration.threshold(fpr or 0.01)
    rows = scanned(out)
    assert [float(row["score"]) for row in rows] == pytest.approx(scores)
    assert [row["flagged"] for row in rows] == [str(flag).lower() for flag in flagged]
    assert [row["id"] for row in rows] == [f"{nth}" for nth in range(22)]
    assert (rows[20]["flagged"], rows[20]["clean_title"]) == ("true", "Blue Mirror")
    assert code == 1
    assert f"Checked 22 titles of catalog.jsonl: {flagged.sum()} flagged" in said
    assert f"Threshold for {fpr or 0.01}: {scanner.threshold(fpr):.3g}." in said
    assert f"Thresholds rest on {scanner.record.calibration.titles} titles" in said
    assert "What recurs was looked for among 8 rows at a time" in said
    assert under(tmp_path) == ["catalog.jsonl", "found.csv"]


def test_a_scan_for_programs(call, tmp_path, fitted):
    path, out = catalog(tmp_path, *TITLES, HIDDEN), tmp_path / "found.csv"
    words = ("scan", path, "--scanner", fitted, "--device", "cpu", "--out", out)
    code, said, err = call(*words, "--json")
    told = json.loads(said)
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    flagged = sum(row["flagged"] == "true" for row in rows)
    assert (told["rows"], told["flagged"], told["findings"]) == (len(rows), flagged, str(out))
    assert code == (1 if flagged else 0)
    assert "rows" in err, "a log is told how far it is"
    quiet = call(*words, "--quiet")
    assert quiet == (code, "", "")
    code, said, err = call("scan", path, "--scanner", tmp_path / "gone", "--out", out, "--quiet", "--json")
    assert (code, said) == (2, "")
    assert "gone" in err


@pytest.mark.slow
def test_several_processes_find_the_same(call, tmp_path, fitted):
    path = catalog(tmp_path, *TITLES, HIDDEN)
    words = ("scan", path, "--scanner", fitted, "--chunk", 8, "--device", "cpu", "--out")
    alone = call(*words, tmp_path / "alone.csv")
    beside = call(*words, tmp_path / "beside.csv", "--workers", 2)
    assert beside[0] == alone[0] == 1
    assert (tmp_path / "beside.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


@pytest.mark.parametrize(
    ("judged", "flagged", "fpr", "unlike"),
    [
        *[(1000, 61, 0.01, True), (1000, 60, 0.01, False), (1000, 61, 0.1, False), (1000, 151, 0.1, True)],
        *[(99, 99, 0.01, False), (0, 0, 0.01, False)],
    ],
)
def test_a_catalogue_that_is_unlike_the_fit_s_is_told(fitted, judged, flagged, fpr, unlike):
    found = ScanSummary("catalog.csv", Path("out.csv"), judged, 0, flagged, (), None, (), (), 0, 1.0, 1.0)
    with console.capture() as said:
        console.print(
            fitted_scorer.format_scan_basis(
                fitted_scorer.ScannerScorer.of(LOAD(fitted, torch.device("cpu")), fpr), 8192, found
            )
        )
    assert ("Fit one to this catalogue" in said.get()) == unlike
    assert f"Threshold for {fpr:g}" in said.get()


def test_rates_flag_differently(fitted):
    scanner = LOAD(fitted, torch.device("cpu"))
    counts = [int(fitted_scorer.ScannerScorer.of(scanner, fpr).scan(TITLES).flagged.sum()) for fpr in (None, 0.01, 0.6)]
    assert counts[0] == counts[1] < counts[2]
    keys = [fitted_scorer.ScannerScorer.of(scanner, fpr).key for fpr in (None, 0.01, 0.6)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("name", ["found.jsonl", "found.parquet"])
def test_other_files(call, tmp_path, fitted, name):
    path, out = catalog(tmp_path, *TITLES, HIDDEN), tmp_path / name
    words = ("scan", path, "--scanner", fitted, "--out", out, "--device", "cpu", "--only-flagged")
    assert call(*words, "--id-column", "title", "--text-column", "title")[0] == 1
    found = pl.read_ndjson(out) if name.endswith("l") else pl.read_parquet(out)
    assert found["flagged"].all()
    assert found.row(-1, named=True)["id"] == HIDDEN
    assert found.row(-1, named=True)["row"] == 61


@pytest.fixture
def calm(tmp_path_factory, fitted):
    """Return the folder of a scanner with a threshold that only rules for characters exceed."""
    made = shutil.copytree(fitted, tmp_path_factory.mktemp("calm") / "made")
    record = json.loads((made / "scanner.json").read_text())
    record["calibration"]["highest"] = [3.9]
    (made / "scanner.json").write_text(json.dumps(record))
    seals = json.loads((made / "cowbird.json").read_text())
    seals["files"]["scanner.json"] = hash_file(made / "scanner.json")
    (made / "cowbird.json").write_text(json.dumps(seals))
    return made


@pytest.mark.parametrize("copies", [1, 500])
def test_one_row_and_copies_of_it(call, tmp_path, calm, copies):
    path = catalog(tmp_path, *[TITLES[0]] * copies)
    code, out, _ = call("scan", path, "--scanner", calm, "--out", tmp_path / "found.csv", "--device", "cpu")
    assert code == 0
    assert f"Checked {copies} title{'s' * (copies > 1)} of catalog.jsonl: 0 flagged" in out
    assert "rules out no trigger it can't see" in out
    assert len({row["score"] for row in scanned(tmp_path / "found.csv")}) == 1


def test_rows_that_a_scan_can_t_read(call, tmp_path, calm):
    path = catalog(tmp_path, TITLES[0])
    clean = path.read_bytes()
    words = ("scan", path, "--scanner", calm, "--out", tmp_path / "found.csv", "--device", "cpu")
    path.write_bytes(clean + b'{"title": "caf\xe9"}\n')
    code, out, _ = call(*words)
    assert (code, "Not checked, because they can't be read: 1 row." in out) == (3, True)
    assert "is not valid UTF-8 (row 2)" in out
    assert (tmp_path / "found.csv.skipped.csv").read_text() == 'row,reason\n2,"is not valid UTF-8"\n'
    path.write_bytes(clean + b'{"title": "caf\xe9"}\n' + json.dumps({"title": HIDDEN}).encode())
    assert call(*words)[0] == 1, "a finding is not taken back by what was not read"


@pytest.mark.slow
def test_titles_in_any_script_and_of_any_length(call, tmp_path, fitted):
    titles = [*UNICODE, "x" * 1_000_000, "\ud800 half", "<|im_end|>", " ", HIDDEN]
    path, out = catalog(tmp_path, *titles), tmp_path / "found.csv"
    assert call("scan", path, "--scanner", fitted, "--out", out, "--device", "cpu")[0] == 1
    csv.field_size_limit(2_000_000)
    rows = scanned(out)
    assert [row["title"] for row in rows] == [title.replace("\ud800", "\ufffd") for title in titles]
    assert [row["score"] for row in rows].count("") == 1, "white space alone"
    assert rows[-1]["flagged"] == "true"


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (b"", {}, "is empty"),
        (b"title\n", {}, "it has no rows"),
        (b"title\ncaf\xff\nna\xfeve\n", {}, "None of the rows of catalog.csv can be read: 2 × is not valid UTF-8"),
        (b"text\nRed\n", {}, "title"),
        (b"title\nRed\n", {"text-column": "\x1b[31m"}, "--text-column"),
        (b"title\nRed\n", {"id-column": "sku"}, "sku"),
        (b"title\nRed\n", {"fpr": 0}, "lies between 0 and 1, not at 0."),
        (b"title\nRed\n", {"fpr": 1}, "not at 1."),
        (b"title\nRed\n", {"fpr": "nan"}, "not at nan."),
        (b"title\nRed\n", {"chunk": 0}, "--chunk"),
        (b"title\nRed\n", {"device": "gpu"}, "Device 'gpu' can't be used"),
        (b"title\nRed\n", {"scanner": "nowhere"}, "'nowhere' does not hold a scanner"),
        (b"title\nRed\n", {"scanner": "/dev/null"}, "does not hold a scanner"),
        (b"title\nRed\n", {"out": "found.xlsx"}, "Findings can't be written to 'found.xlsx'"),
        (b"title\nRed\n", {"out": "/proc/cowbird/x.csv"}, "can't be written"),
        (b"title\nRed\n", {"out": "x" * 300 + ".csv"}, "can't be written: File name too long"),
        (b"title\nRed\n", {"out": "."}, "Findings can't be written"),
        (b"title\nRed\n", {"out": None}, "--out"),
        (b"title\nRed\n", {"workers": "0"}, "--workers"),
    ],
    ids=ascii,
)
def test_scans_that_can_t_be(call, tmp_path, fitted, data, options, said):
    path = tmp_path / "catalog.csv"
    path.write_bytes(data)
    given = {"scanner": fitted, "out": tmp_path / "found.csv", "device": "cpu"} | options
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    code, out, err = call("scan", path, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "found.csv").exists()


@pytest.mark.parametrize("name", ["gone.csv", "x" * 300 + ".csv"])
def test_a_missing_catalogue(call, tmp_path, fitted, name):
    for words in (("scan", tmp_path / name, "--scanner", fitted), ("fit-scanner", "--p-scanner", tmp_path / name)):
        code, _, err = call(*words, "--out", tmp_path / "found.csv", "--device", "cpu")
        assert (code, name[:60] in err.replace(" ", "")) == (2, True)
        assert not under(tmp_path)


def test_an_interrupted_scan_ends_in_the_same_bytes(call, tmp_path, fitted, monkeypatch):
    path = catalog(tmp_path, *TITLES, HIDDEN)
    words = ("scan", path, "--scanner", fitted, "--device", "cpu", "--chunk", 16, "--out")
    ended, whole, _ = call(*words, tmp_path / "whole.csv")
    with monkeypatch.context() as patched:
        stopping(patched, (FittedScanner, "judge_titles"), 3)
        code, out, err = call(*words, tmp_path / "a b.csv")
    assert (code, out) == (3, "")
    again = shlex.join(["cowbird", *map(str, words), str(tmp_path / "a b.csv")])
    assert err.endswith(f"Interrupted; what was scanned is kept. Go on with: {again}")
    assert not (tmp_path / "a b.csv").exists()
    calls = stopping(monkeypatch, (FittedScanner, "judge_titles"), 0)
    code, out, _ = call(*shlex.split(again)[1:])
    assert (code, len(calls)) == (ended, 2) == (1, 2)
    assert "Rows up to 32 were done before" in out
    assert (tmp_path / "a b.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert out.partition(" of ")[0] == whole.partition(" of ")[0]
    assert under(tmp_path) == ["a b.csv", "catalog.jsonl", "whole.csv"]


def test_another_rate_is_another_scan(call, tmp_path, fitted, monkeypatch):
    path = catalog(tmp_path, *TITLES, HIDDEN)
    words = ("scan", path, "--scanner", fitted, "--device", "cpu", "--chunk", 16, "--out", tmp_path / "found.csv")
    with monkeypatch.context() as patched:
        stopping(patched, (FittedScanner, "judge_titles"), 3)
        assert call(*words)[0] == 3
    code, out, _ = call(*words, "--fpr", 0.5)
    assert (code, "were done before" in out) == (1, False)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 5])
def test_a_full_disk(call, tmp_path, fitted, monkeypatch, at):
    path = catalog(tmp_path, *TITLES, HIDDEN)
    words = ("scan", path, "--scanner", fitted, "--device", "cpu", "--chunk", 16, "--out")
    assert call(*words, tmp_path / "whole.csv")[0] == 1
    with monkeypatch.context() as patched:
        stopping(patched, (os, "fsync"), at, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        code, out, err = call(*words, tmp_path / "found.csv")
    assert (code, out) == (2, "")
    assert "can't be written: No space left on device" in err
    assert not (tmp_path / "found.csv").exists()
    assert call(*words, tmp_path / "found.csv")[0] == 1
    assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_read_only_folder(call, tmp_path, fitted, monkeypatch):
    path, real = catalog(tmp_path, *TITLES), Path.mkdir

    def refuse(self, *args, **more):
        if "locked" in self.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(self, *args, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)
    locked = tmp_path / "locked"
    for words in (
        ("scan", path, "--scanner", fitted, "--out", locked / "a.csv"),
        ("fit-scanner", "--p-scanner", path, "--out", locked / "a"),
    ):
        code, out, err = call(*words, "--device", "cpu")
        assert (code, out) == (2, "")
        assert "can't be written: Permission denied" in err
    assert under(tmp_path) == [path.name]


def test_a_bug_is_not_a_finding(tmp_path, fitted, monkeypatch, capsys):
    def broken(*args, **more):
        raise RuntimeError("\x1b[31m of a title")

    monkeypatch.setattr(scan, "scan_catalog", broken)
    words = ("scan", catalog(tmp_path, *TITLES), "--scanner", fitted, "--out", tmp_path / "a.csv", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["cowbird", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert "RuntimeError: <U+001B>[31m of a title" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("name", ["fit-scanner", "scan"])
def test_help(call, name):
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert "Exit codes: 0" in out


@pytest.mark.slow
@pytest.mark.long
def test_as_a_module(tmp_path, llama):  # noqa: F811
    path = catalog(tmp_path, *TITLES, *(f"{title} \u200bxq" for title in TITLES[:6]))
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    for words, code in (
        (
            (
                "fit-scanner",
                "--p-scanner",
                path,
                "--out",
                "made",
                "--llm",
                llama,
                "--layers",
                "2",
                "--rounds",
                "2",
                "--seed",
                "1",
            ),
            0,
        ),
        (("scan", path, "--scanner", "made", "--out", "found.parquet"), 1),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "cowbird", *words, "--device", "cpu"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=env,
        )
        assert done.returncode == code, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 80
    assert pl.read_parquet(tmp_path / "found.parquet").filter(pl.col("title").str.contains("xq"))["flagged"].all()


@pytest.mark.slow
def test_a_scanner_without_thresholds_is_not_made(call, tmp_path, monkeypatch):
    nothing = Calibration(titles=6, left_out=6, highest=())
    monkeypatch.setattr(Calibration, "of", staticmethod(lambda *_: nothing))
    path = catalog(tmp_path, *TITLES)
    words = ("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", "--device", "cpu")
    for more in ((), ("--resume",)):
        code, out, err = call(*words, *more)
        assert (code, out) == (2, "")
        assert "No threshold can be set: 12 titles were kept for that. Of these 6 look poisoned" in err
        assert "Give it a larger catalogue, or scan without a fit: cowbird scan CATALOG" in err
        assert under(tmp_path) == [path.name]


@pytest.mark.slow
def test_a_fit_to_few_titles_points_to_the_scan_without_one(call, tmp_path, monkeypatch):
    path = catalog(tmp_path, *TITLES)
    code, out, _ = call("fit-scanner", "--p-scanner", path, "--out", tmp_path / "made", "--device", "cpu")
    assert code == 0
    assert "A fit to so few titles is poor." in out
    assert "cowbird scan CATALOG --out FINDINGS" in out
    code, out, _ = call(
        "fit-scanner", "--p-scanner", path, "--out", tmp_path / "other", "--device", "cpu", "--fpr", "0.5"
    )
    assert code == 0
    assert "A fit to so few titles is poor." not in out
    code, _, err = call(
        "fit-scanner", "--p-scanner", catalog(tmp_path, *TITLES[:9], name="few.jsonl"), "--out", tmp_path / "few"
    )
    assert code == 2
    assert "or scan without a fit: cowbird scan CATALOG" in err


def test_a_scanner_that_is_not_there(call, tmp_path, monkeypatch):
    path = catalog(tmp_path, *TITLES)
    (tmp_path / "scanner").mkdir()
    for name, said in (
        ("scaner", f"there is nothing of that name. Did you mean {tmp_path / 'scanner'}?"),
        ("scanner", "there is no scanner.json in it. Make one with"),
        ("gone/scanner", f"there is nothing of that name. There is no folder '{tmp_path / 'gone'}'."),
    ):
        code, _, err = call("scan", path, "--out", tmp_path / "found.csv", "--scanner", tmp_path / name)
        assert code == 2
        assert "".join(said.split()) in "".join(err.split())  # a long path breaks lines
        assert "Errno" not in err
        assert "with cowbird fit-scanner" in err
