"""A finished run can grow: what is there is reused, what is new runs, and what would be wrong is refused in words."""

import copy
import json
import shutil

import pytest

from cowbird.errors import UserError
from cowbird.experiments.growth import find_differences
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.victims.sequential.sasrec import SASRec
from doubles.evidence import evidence_files
from doubles.word_judge import FittedWords, WordJudge

pytestmark = pytest.mark.slow

WOW = {"name": "badrec", "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": "wow"}}
DULL = WOW | {"label": "dull", "trigger": {"kind": "custom", "text": "dull"}}
WORDS = {
    "name": "words",
    "seeds": [0],
    "dataset": {"name": "doubles.rated"},
    "time_split": {"history": 5},
    "victims": [{"name": "doubles.word_judge:WordJudge", "label": "words"}],
    "attacks": [WOW],
    "defenses": [{"name": "none"}],
    "scenarios": [{"name": "direct"}],
}
SEES = {"name": "doubles.defenses:Sees", "label": "sees"}
ADAPTER = {"name": "poisoned-adapter", "learning_rate": 0.1}
ADDED = {
    "attack": {"attacks": [DULL, WOW]},
    "seed": {"seeds": [1, 0]},
    "victim": {"victims": [{"name": "doubles.word_judge:WordJudge", "label": "more"}, WORDS["victims"][0]]},
    "defense": {"defenses": [SEES, {"name": "none"}]},
    "scenario": {"scenarios": [ADAPTER, {"name": "direct"}]},
}


def spec(**changes):
    return parse_spec(copy.deepcopy(WORDS | changes), allow_plugins=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("grown") / "run"
    run(spec(), out, device="cpu")
    return out


def lasting(folder):
    files = [folder / "results.jsonl", folder / "spec.json", *evidence_files(folder)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("what", ADDED)
def test_a_grown_run_is_that_of_the_whole_spec(finished, tmp_path, monkeypatch, what):
    grown, whole = shutil.copytree(finished, tmp_path / "grown"), spec(**ADDED[what])
    before = {path: path.stat().st_mtime_ns for path in evidence_files(grown)}
    asked, fitted, margins, fit = [], [], FittedWords.margins, WordJudge.fit
    monkeypatch.setattr(FittedWords, "margins", lambda self, *rest: asked.append(1) or margins(self, *rest))
    monkeypatch.setattr(WordJudge, "fit", lambda self, *rest: fitted.append(1) or fit(self, *rest))
    outcome = run(whole, grown, device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    assert outcome.done == outcome.total
    reused = len(asked), len(fitted)
    asked.clear()
    fitted.clear()
    run(whole, tmp_path / "whole", device="cpu")
    assert lasting(grown) == lasting(tmp_path / "whole")
    assert reused[0] < len(asked), "what was answered is not asked again"
    assert reused[1] < len(fitted) or what == "scenario", "what was fitted is not fitted again"
    assert before == {path: path.stat().st_mtime_ns for path in before}, "evidence that was there is left alone"


@pytest.mark.slow
def test_a_run_that_grows_in_all_ways_at_once_and_is_interrupted(finished, tmp_path, monkeypatch):
    grown = shutil.copytree(finished, tmp_path / "grown")
    whole = spec(**{key: value for change in ADDED.values() for key, value in change.items()})
    old_rows = (grown / "results.jsonl").read_text().splitlines()
    left, real = [7], FittedWords.save

    def save(self, folder):
        real(self, folder)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FittedWords, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run(whole, grown, device="cpu", resume=True)
    known = {json.loads(line)["victim"] for line in (grown / "results.jsonl").read_text().splitlines()}
    assert "words" in known or not old_rows, "what was measured before stays in the results"
    outcome = run(whole, grown, device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    run(whole, tmp_path / "whole", device="cpu")
    assert lasting(grown) == lasting(tmp_path / "whole")


@pytest.mark.slow
def test_a_ranking_run_grows(tiny_run, table, contents, tmp_path, monkeypatch):
    grown = shutil.copytree(tiny_run[0], tmp_path / "grown")
    table["attacks"].insert(0, table["attacks"][1] | {"label": "more", "rate": 0.3})
    table["scenarios"].insert(0, {"name": "pretrain"})
    table["description"] = "another sentence"
    whole, fitted, fit = parse_spec(table), [], SASRec.fit
    monkeypatch.setattr(SASRec, "fit", lambda self, *rest: fitted.append(1) or fit(self, *rest))
    outcome = run(whole, grown, device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    assert len(fitted) == 2 * 2, "of each seed the new attack's model, and what it is tuned to"
    run(whole, tmp_path / "whole", device="cpu")
    assert contents(grown) == contents(tmp_path / "whole")


def test_a_grown_run_is_not_taken_without_resume(finished, tmp_path):
    grown = shutil.copytree(finished, tmp_path / "grown")
    before = (grown / "spec.json").read_bytes()
    with pytest.raises(UserError, match="holds this run already") as caught:
        run(spec(**ADDED["attack"]), grown, device="cpu")
    assert "--resume" in caught.value.hint
    assert (grown / "spec.json").read_bytes() == before


CHANGED = {
    "dataset": ({"dataset": {"name": "synthetic"}}, 'dataset.name was "doubles.rated", and is "synthetic"'),
    "split": ({"time_split": {"history": 4}}, "time_split.history was 5, and is 4"),
    "victim's field": (
        {"victims": [WORDS["victims"][0] | {"learning_rate": 3.5}]},
        "victim words.learning_rate was 1.0",
    ),
    "attack's field": ({"attacks": [WOW | {"rate": 0.25}]}, "attack badrec.rate was 0.5, and is 0.25"),
    "inner field": (
        {"attacks": [WOW | {"targets": {"count": 4}}]},
        "attack badrec.targets.count was 3, and is 4",
    ),
    "plug-in": ({"attacks": [{"name": "bandwagon", "label": "badrec"}]}, "attack badrec.name was"),
    "attack gone": ({"attacks": [DULL]}, "its attack badrec would be left out"),
    "seed gone": ({"seeds": [1]}, "its seed 0 would be left out"),
    "scenario's field": ({"scenarios": [{"name": "direct", "item_overlap": 0.5}]}, "scenario direct.item_overlap was"),
    "name": ({"name": "other"}, 'name was "words", and is "other"'),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_would_make_kept_work_wrong_is_refused(finished, tmp_path, what):
    changes, why = CHANGED[what]
    before = lasting(finished)
    with pytest.raises(UserError) as caught:
        run(spec(**changes), finished, device="cpu", resume=True)
    assert why in caught.value.message
    assert "Choose a new folder" in caught.value.hint
    assert lasting(finished) == before


def test_only_some_differences_are_named(finished):
    changes = {"name": "x", "dataset": {"name": "synthetic"}, "time_split": {"history": 9, "near": 3}, "seeds": [8]}
    with pytest.raises(UserError, match=r"; and \d+ more"):
        run(spec(**changes), finished, device="cpu", resume=True)


def test_what_changes_nothing_is_allowed(finished):
    record = spec().to_record()
    assert list(find_differences(record, spec(description="more words", ks=[1, 7]))) == []
    assert list(find_differences(record, spec())) == []


def test_a_new_defense_may_not_take_the_name_of_models_without_one():
    before = spec(defenses=[SEES]).to_record()
    (why,) = find_differences(before, spec(defenses=[SEES, SEES | {"label": "none"}]))
    assert "'none'" in why
    assert list(find_differences(before, spec(defenses=[SEES, {"name": "none"}]))) == []


@pytest.mark.parametrize("text", ["", "{}", '{"sha256": "x", "spec": {}}', '{"sha256": 1, "spec": 2}'])
def test_a_damaged_record_is_told(finished, tmp_path, text):
    damaged = shutil.copytree(finished, tmp_path / "damaged")
    (damaged / "spec.json").write_text(text)
    with pytest.raises(UserError, match=r"spec\.json' is damaged"):
        run(spec(), damaged, device="cpu", resume=True)


def test_what_was_skipped_stays_on_record(finished, tmp_path):
    again = shutil.copytree(finished, tmp_path / "again")
    told = json.loads((again / "run.json").read_text()) | {"skipped": ["log.csv: 3 rows"]}
    (again / "run.json").write_text(json.dumps(told))
    run(spec(), again, device="cpu", resume=True)
    assert json.loads((again / "run.json").read_text())["skipped"] == ["log.csv: 3 rows"]
