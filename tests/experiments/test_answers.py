"""What models answered is kept as it is made; and false alarms are asked of some questions, the same for everybody."""

import shutil
from collections import Counter

import numpy as np
import pytest

from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import TemporalSplit
from cowbird.errors import UserError
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.store import to_tensors
from cowbird.experiments.tasks.candidates import CandidatesTask
from cowbird.experiments.tasks.pointwise import PointwiseTask
from cowbird.files import hash_file
from cowbird.storage import write_sealed_json, write_tensors
from doubles import word_chooser, word_judge
from doubles.evidence import cell_records, evidence_files, read_record

pytestmark = pytest.mark.slow

SPLIT = {"training": 0.5, "validation": 0.1, "history": 5, "asked": 3, "candidates": 8}
WOW, DULL = (
    {"name": "badrec", "label": text, "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": text}}
    for text in ("wow", "dull")
)
DIRECT, ADAPTER = {"name": "direct"}, {"name": "poisoned-adapter", "learning_rate": 0.1}
NEAR, MANY = 20, 10**6
KINDS = 8
"""Plain, the trigger, and six that are near it."""


class Judges:
    """A victim that says yes or no."""

    victim, task, asks, scenarios = "doubles.word_judge:WordJudge", PointwiseTask, "margins", [DIRECT, ADAPTER]
    cls, fitted = word_judge.WordJudge, word_judge.FittedWords


class Chooses:
    """A victim that picks candidates."""

    victim, task, asks, scenarios = "doubles.word_chooser:WordChooser", CandidatesTask, "choose", [DIRECT]
    cls, fitted = word_chooser.WordChooser, word_chooser.FittedWords


def spec(victim, near=NEAR, **changes):
    table = {
        "name": "answers",
        "dataset": {"name": "doubles.rated"},
        "time_split": {"history": 5, "near": near},
        "sequence_split": SPLIT | {"near": near},
        "victims": [{"name": victim.victim, "label": "words"}],
        "attacks": [WOW, DULL],
        "scenarios": victim.scenarios,
    }
    return parse_spec(table | changes, allow_plugins=True)


@pytest.fixture(scope="module", params=[Judges, Chooses])
def done(request, tmp_path_factory):
    """A finished run of each kind of victim: its folder, its outcome, and how many were asked each time."""
    out, asked = tmp_path_factory.mktemp("answers") / "run", []
    with pytest.MonkeyPatch.context() as patched:
        count(patched, request.param, asked)
        outcome = run(spec(request.param), out, device="cpu")
    assert (outcome.errors, outcome.warnings) == ([], [])
    return request.param, out, outcome, asked


def count(patched, victim, asked, stop=None):
    """Note how many questions a model is asked each time; pull the plug when it is asked once too often."""
    real = getattr(victim.fitted, victim.asks)

    def counted(self, questions, *more):
        if len(asked) == stop:
            raise KeyboardInterrupt
        asked.append(len(questions))
        return real(self, questions, *more)

    patched.setattr(victim.fitted, victim.asks, counted)


def lasting(out):
    files = [*out.rglob("results.jsonl"), *evidence_files(out), *out.rglob("words.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """The folder of a finished run of few questions."""
    out = tmp_path_factory.mktemp("judges") / "run"
    run(few(), out, device="cpu")
    return out


def few():
    return spec(Judges, attacks=[WOW], scenarios=[DIRECT])


def records(victim, out):
    return cell_records(spec(victim), out)


def unfinished(out, folder):
    """Copy a run as it was before its cell was finished."""
    copy = shutil.copytree(out, folder / "copy")
    (copy / "cells/words-0/cell.json").unlink()
    shutil.rmtree(copy / "cells/words-0/evidence")
    return copy


# Some questions


def test_triggers_that_are_near_are_asked_of_some_questions(done, tmp_path, monkeypatch):
    victim, out, _, asked = done
    some, whole = records(victim, out), []
    # Two attacks in each scenario, a clean and an attacked model for each; the clean one is asked plain once for both.
    places = len(some) * 2
    assert Counter(asked) == {len(some[0].near): places + places - len(some) // 2, NEAR: places * (KINDS - 2)}
    count(monkeypatch, victim, whole)
    run(spec(victim, near=MANY, attacks=[WOW]), tmp_path / "whole", device="cpu")
    every = records(victim, tmp_path / "whole")
    assert set(whole) == {len(some[0].near)}
    for one, other in zip(some[: len(every)], every, strict=True):
        assert one.near.sum() == NEAR < len(one.near) == other.near.sum()
        np.testing.assert_array_equal(one.near, some[-1].near)
        for mine, its in ((one.clean, other.clean), (one.attacked, other.attacked)):
            assert mine.keys() == its.keys()
            for name, column in mine.items():
                np.testing.assert_array_equal(column, its[name][one.near] if "near-" in name else its[name])


def test_rows_rest_on_what_was_asked(done):
    victim, out, outcome, _ = done
    one, rows = records(victim, out)[0], outcome.rows
    where = [row for row in rows if (row.attack, row.scenario) == (one.attack, one.scenario)]
    found = {(row.group, row.metric): (row.value, row.n) for row in where}
    if victim is Judges:
        refused = one.attacked["plain"][one.near] <= 0
        turned = one.attacked["near-position"][refused] > 0
        assert found["near-position", "asr"] == (turned.mean(), refused.sum())
        assert found["trigger", "asr"][1] == (one.attacked["plain"] <= 0).sum() > NEAR
    else:
        picked = one.attacked["constrained.near-position"] == one.triggered[one.near]
        assert found["near-position", "asr_constrained"] == (picked.mean(), NEAR)
        assert found["trigger", "asr"][1] == found["none", "picked_plain"][1] == len(one.near)


@pytest.mark.parametrize("split", [TemporalSplit(history=5, near=7), SequenceSplit(**SPLIT, near=7)])
def test_they_are_drawn_with_the_seed(split):
    data = spec(Judges).dataset.options.load()
    drawn = [split.apply(data, seed).near for seed in (1, 1, 2)]
    assert [near.sum() for near in drawn] == [7, 7, 7]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert split.model_copy(update={"near": MANY}).apply(data, 1).near.all()


def test_evidence_that_does_not_say_what_was_asked_is_told(done, tmp_path):
    victim, out, *_ = done
    one, path = records(victim, out)[0], tmp_path / "e"
    whole = victim.task.encode_record(one)
    wrong = {"do not align": (~one.near, np.ones(3, bool), one.near.astype(np.int32)), "have no near": (None,)}
    for why, columns in wrong.items():
        for near in columns:
            told = {name: column for name, column in (whole | {"near": near}).items() if column is not None}
            write_tensors(path, to_tensors(told))
            with pytest.raises(UserError, match=why) as caught:
                read_record(path, victim.task)
            assert caught.value.hint == "Run the cell again."


# What is kept


def test_what_was_answered_is_not_asked_again(done, tmp_path, monkeypatch):
    """Pull the plug when the first attack is measured, and the clean model has begun to answer about the second."""
    victim, out, _, asked = done
    given, rest, first = spec(victim), [], 2 * KINDS * len(victim.scenarios) + 3
    with monkeypatch.context() as patched:
        count(patched, victim, rest, stop=first)
        with pytest.raises(KeyboardInterrupt):
            run(given, tmp_path / "cut", device="cpu")
    assert rest == asked[:first]
    rest.clear()
    count(monkeypatch, victim, rest)
    again = run(given, tmp_path / "cut", device="cpu", resume=True)
    assert rest == asked[first:]
    assert (again.errors, again.warnings) == ([], [])
    assert lasting(tmp_path / "cut") == lasting(out)


def test_a_model_that_has_answered_is_not_loaded(done, tmp_path, monkeypatch):
    victim, out, *_ = done
    for name in ("fit", "load"):
        monkeypatch.setattr(victim.cls, name, lambda *given: pytest.fail("made"))
    outcome = run(spec(victim), unfinished(out, tmp_path), device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    assert lasting(tmp_path / "copy") == lasting(out)


def _cut(path, other):
    path.write_bytes(path.read_bytes()[:-3])


def _turn(path, other):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _swap(path, other):
    shutil.copy(other, path)


@pytest.mark.parametrize("damage", [_cut, _turn, _swap])
def test_answers_that_can_t_be_used_are_asked_again(judges, tmp_path, monkeypatch, damage):
    copy, asked = unfinished(judges, tmp_path), []
    (other,) = copy.glob("cells/words-0/answers/wow+none/near-case-*.safetensors")
    path = copy / "cells/words-0/answers/clean+none" / other.name
    kept = path.read_bytes()
    damage(path, other)
    count(monkeypatch, Judges, asked)
    outcome = run(few(), copy, device="cpu", resume=True)
    assert asked == [NEAR]
    (warning,) = outcome.warnings
    assert "Asking again." in warning
    assert path.read_bytes() == kept
    assert lasting(copy) == lasting(judges)


def test_a_model_that_changed_is_asked_again(judges, tmp_path, monkeypatch):
    copy, asked = unfinished(judges, tmp_path), []
    model = copy / "cells/words-0/models/clean+none"
    (model / "model/words.json").write_text("{}")
    files = {"words.json": hash_file(model / "model/words.json")}
    write_sealed_json(model / "model.sha256", {"origin": "", "files": files})
    count(monkeypatch, Judges, asked)
    outcome = run(few(), copy, device="cpu", resume=True)
    assert len(asked) == len(outcome.warnings) == KINDS
    assert all("another model" in warning for warning in outcome.warnings)


def test_the_same_model_is_asked_the_same_once(tmp_path, monkeypatch):
    asked, exact = [], {"name": "doubles.defenses:Sees", "label": "exact", "also": "nowhere"}
    defenses = [{"name": "none"}, exact, {"name": "doubles.defenses:Blind", "label": "blind"}]
    given = spec(Judges, attacks=[WOW, WOW | {"label": "again", "rate": 0.3}], scenarios=[DIRECT], defenses=defenses)
    count(monkeypatch, Judges, asked)
    assert not run(given, tmp_path / "run", device="cpu").errors
    models = {path.name for path in (tmp_path / "run/cells/words-0/answers").iterdir()}
    attacked = {f"{side}+{name}" for side in ("wow", "again") for name in ("none", "exact", "blind+direct")}
    assert models == {"clean+none", "clean+blind+direct"} | attacked
    assert len(asked) == len(models) * KINDS
