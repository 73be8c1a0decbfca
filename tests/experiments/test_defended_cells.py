"""Defenses in cells: each hook reaches the models it should, and what can't be done leaves the rest going."""

import json
import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest

from cowbird.attacks.badrec import BadRec
from cowbird.errors import UserError
from cowbird.experiments import cell as cell_module
from cowbird.experiments import detection
from cowbird.experiments.cell import find_undefended_label
from cowbird.experiments.results import RowLabels
from cowbird.experiments.results_file import read_evidence
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.store import ColumnStore
from cowbird.experiments.tasks import candidates, pointwise
from cowbird.report.table import summarize_run
from cowbird.rng import stream
from doubles.defenses import Asks, Sees
from doubles.evidence import cell_records, evidence_files
from doubles.word_chooser import WordChooser
from doubles.word_judge import FittedWords, WordJudge

pytestmark = pytest.mark.slow

WOW = {"name": "badrec", "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": "wow"}}
NONE, TUNE = {"name": "none"}, {"name": "fine_tune", "learning_rate": 2.0}
SEES, ASKS, FAILS, BLIND = (
    {"name": f"doubles.defenses:{name}", "label": name.lower()} for name in ("Sees", "Asks", "Fails", "Blind")
)
ALL = [NONE, SEES, ASKS, BLIND, TUNE]
DIRECT, ADAPTER = {"name": "direct"}, {"name": "poisoned-adapter", "learning_rate": 0.1}
JUDGE = {"name": "doubles.word_judge:WordJudge", "label": "words"}
CHOOSER = {"name": "doubles.word_chooser:WordChooser", "label": "words"}
RANKER = {"name": "sasrec", "label": "words", "hidden": 8, "heads": 1, "epochs": 1}


def spec(**changes):
    table = {
        "name": "defended",
        "seeds": [0],
        "ks": [5],
        "dataset": {"name": "doubles.rated"},
        "time_split": {"history": 5},
        "sequence_split": {"training": 0.5, "validation": 0.1, "history": 5, "asked": 5},
        "split": {"cold_fraction": 0.3},
        "victims": [JUDGE],
        "attacks": [WOW],
        "defenses": ALL,
        "scenarios": [DIRECT],
    }
    return parse_spec(table | changes, allow_plugins=True)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    out = tmp_path_factory.mktemp("judged") / "run"
    return out, run(spec(seeds=[0, 1], scenarios=[DIRECT, ADAPTER]), out, device="cpu")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    out = tmp_path_factory.mktemp("chosen") / "run"
    defenses = [NONE, SEES, ASKS | {"threshold": 0.12}, BLIND, TUNE]  # one of twenty comes next
    return out, run(spec(victims=[CHOOSER], defenses=defenses), out, device="cpu")


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Count judgments from here on."""
    for cls in (Sees, Asks):
        monkeypatch.setattr(cls, "judged", [])


def value(rows, defense, metric, group="trigger", scenario="direct", seed=0, attack="badrec"):
    place = (defense, metric, group, scenario, seed, attack)
    (row,) = [r for r in rows if (r.defense, r.metric, r.group, r.scenario, r.seed, r.attack) == place]
    return row.value


def detections(out, seed=0):
    (folder,) = out.glob(f"cells/words-{seed}")
    names = json.loads((folder / "cell.json").read_text())["evidence"]
    places = [name.removesuffix("@titles").split("+") for name in names if name.endswith("@titles")]
    return {
        (attack, defense): read_evidence(
            folder / "evidence" / f"{attack}+{defense}@titles.safetensors",
            partial(detection.decode_record, attack, defense),
        )
        for attack, defense in places
    }


# Each hook


@pytest.mark.parametrize("scenario", ["direct", "poisoned-adapter"])
def test_defenses_of_a_judge_undo_the_backdoor(judged, scenario):
    rows = judged[1].rows
    assert not judged[1].errors
    assert not judged[1].warnings
    assert value(rows, "none", "asr", scenario=scenario) > 0.9
    for defense in ("sees", "asks", "blind"):
        assert value(rows, defense, "asr", scenario=scenario) == 0
        assert value(rows, defense, "asr_clean", scenario=scenario) == 0
        assert value(rows, defense, "asr_excess", scenario=scenario) == 0
        assert abs(value(rows, defense, "auc_lost", "all", scenario)) < 0.1
    assert value(rows, "fine_tune", "asr", scenario=scenario) > 0.9, "clean data says nothing about the word"
    assert value(rows, "fine_tune", "asr_excess", scenario=scenario) > 0.9
    assert not [row for row in rows if row.defense == "none" and row.metric.endswith(("_excess", "_lost"))]


def test_defenses_of_a_chooser_undo_the_backdoor(chosen):
    rows = chosen[1].rows
    assert not chosen[1].errors
    assert value(rows, "none", "asr_constrained") > 0.75
    for defense in ("sees", "asks", "blind"):
        assert value(rows, defense, "asr_constrained") < 0.2
        assert abs(value(rows, defense, "asr_constrained_excess")) < 0.1
        assert abs(value(rows, defense, "hit_ratio_lost", "all")) < 0.15
    assert value(rows, "fine_tune", "asr_excess") > 0.5
    assert value(rows, "asks", "recall", "all", "none") == 1


def test_a_guard_serves_the_clean_and_the_attacked_model(judged, chosen):
    given = spec(seeds=[0, 1], scenarios=[DIRECT, ADAPTER])
    found = {(one.defense, one.scenario): one for one in cell_records(given, judged[0])}
    bare, blind = (found[name, "direct"] for name in ("none", "blind"))
    assert (bare.attacked["trigger"] != bare.attacked["plain"]).any()
    for mine, its in ((blind.clean, bare.clean), (blind.attacked, bare.attacked)):
        np.testing.assert_array_equal(mine["plain"], its["plain"])
        np.testing.assert_array_equal(mine["trigger"], mine["plain"])
    for one in cell_records(spec(victims=[CHOOSER]), chosen[0]):
        if one.defense == "blind":
            for side in (one.clean, one.attacked):
                np.testing.assert_array_equal(side["free.trigger"], side["free.plain"])


def test_a_repair_goes_on_where_the_platform_stands(judged, chosen):
    """Tune the kept models again, by hand."""
    out, parts = judged[0], spec().time_split.apply(spec().dataset.options.load(), 0)
    for side in ("clean", "badrec"):
        for end in ("", "+poisoned-adapter"):
            before = WordJudge().load(out / f"cells/words-0/models/{side}+none{end}/model", None)
            scenario = end or "+direct"
            after = WordJudge().load(out / f"cells/words-0/models/{side}+fine_tune{scenario}@repaired/model", None)
            wanted = WordJudge(learning_rate=2.0).fit(parts.validation, parts.training.items, 0, None, before)
            assert after.counts == wanted.counts != before.counts
    out, parts = chosen[0], spec().sequence_split.apply(spec().dataset.options.load(), 0)
    before, after = (
        WordChooser().load(out / f"cells/words-0/models/badrec+{name}/model", None).counts
        for name in ("none", "fine_tune+direct@repaired")
    )
    lessons = len(spec().sequence_split.ask(parts.validation.interactions, 80, stream(0)))
    learned = sum(after.values()) - sum(before.values())
    assert learned == 2.0 * lessons * 20 * 2, "twenty candidates, two words each"


def test_models_that_are_alike_are_fitted_once(judged):
    folders = {path.name for path in (judged[0] / "cells/words-0/models").iterdir()}
    handed = {f"{side}+{name}" for side in ("clean", "badrec") for name in ("none", "sees", "asks")} - {"clean+asks"}
    tuned = {f"{name}+poisoned-adapter" for name in handed}
    repaired = {
        f"{side}+fine_tune+{s}@repaired" for side in ("clean", "badrec") for s in ("direct", "poisoned-adapter")
    }
    assert folders == handed | tuned | repaired
    record = json.loads((judged[0] / "cells/words-0/cell.json").read_text())
    titles = {f"{side}+{name}@titles" for side in ("clean", "badrec") for name in ("sees", "asks")}
    assert record["seconds"].keys() == folders | titles


def test_a_defense_that_flags_nothing_trains_nothing(tmp_path):
    none = SEES | {"also": "nowhere", "label": "exact"}
    given = spec(defenses=[NONE | {"label": "bare"}, none, SEES | {"threshold": 9, "label": "blunt"}])
    done = run(given, tmp_path / "run", device="cpu")
    folders = {path.name for path in (tmp_path / "run/cells/words-0/models").iterdir()}
    assert folders == {"badrec+bare", "clean+bare", "badrec+exact"}
    assert value(done.rows, "exact", "asr") == 0
    assert value(done.rows, "blunt", "asr") == value(done.rows, "bare", "asr") > 0.9
    assert value(done.rows, "blunt", "recall", "all", "none") == 0
    ranked = run(spec(victims=[RANKER], defenses=[NONE, none]), tmp_path / "ranked", device="cpu")
    folders = {path.name for path in (tmp_path / "ranked/cells/words-0/models").iterdir()}
    assert folders == {"badrec+none", "clean+none", "badrec+exact"}
    assert {row.defense for row in ranked.rows} == {"none", "exact"}


def test_labels_of_what_no_defense_touched():
    given = spec(defenses=[SEES, NONE | {"label": "bare"}, TUNE, BLIND])
    assert find_undefended_label(given) == "bare"
    assert find_undefended_label(spec(defenses=[SEES])) == "none"
    assert find_undefended_label(spec(defenses=[SEES | {"label": "none"}])) not in ("none", "sees")


# Detection


def test_detections_are_what_the_defense_says_beside_the_truth(judged):
    parts = spec().time_split.apply(spec().dataset.options.load(), 0)
    attack = BadRec.model_validate({key: part for key, part in WOW.items() if key != "name"})
    poisoned = attack.poison(parts.training, stream(0, "attack"))
    found = detections(judged[0])
    assert found.keys() == {(attack, name) for attack in ("badrec", "none") for name in ("sees", "asks")}
    one, clean = found["badrec", "sees"], found["none", "sees"]
    titles = poisoned.data.items.titles
    assert np.flatnonzero(one.truth.poisoned).tolist() == sorted(poisoned.targets.tolist())
    assert one.flagged.tolist() == [("wow" in title) or ("Mirror" in title) for title in titles]
    assert [titles[item][a:b] for item, a, b in zip(*spans(one), strict=True)] == ["wow"] * 3
    assert clean.flagged.tolist() == ["Mirror" in title for title in parts.training.items.titles]
    assert not clean.truth.poisoned.any()
    np.testing.assert_array_equal(one.events, np.bincount(parts.training.interactions.item, minlength=80))
    rows, honest = judged[1].rows, [title for title in titles if "wow" not in title]
    mirrors = sum("Mirror" in title for title in honest)
    assert value(rows, "sees", "recall", "all", "none") == value(rows, "sees", "span_iou", "all", "none") == 1
    assert value(rows, "sees", "detection_auroc", "all", "none") == 1
    assert value(rows, "sees", "recall_at_fpr_1pct", "all", "none") == 1
    assert value(rows, "sees", "lost_clean_items", "all", "none") == mirrors
    assert value(rows, "sees", "false_positive_rate", "all", "none") == mirrors / len(honest)
    assert value(rows, "sees", "flagged", "all", "none", attack="none") == 10
    assert value(rows, "sees", "lost_clean_items", "all", "none", attack="none") == 10
    assert 0 < value(rows, "sees", "lost_clean_events", "all", "none") < 0.2
    assert value(rows, "asks", "lost_clean_items", "all", "none") == 0
    assert value(rows, "sees", "recall_over_seeds", "all", "none", seed=None) == 1
    keys = Counter((r.attack, r.defense, r.scenario, r.group, r.metric, r.k, r.seed) for r in rows)
    assert set(keys.values()) == {1}


def spans(one):
    return (part.tolist() for part in (one.truth.span_item, one.truth.span_start, one.truth.span_end))


def test_the_probe_asks_what_the_defense_wants_and_is_made_once(tmp_path):
    defenses = [ASKS, ASKS | {"label": "more", "questions": 7}]
    fitted = Counter()

    def told(name, done, total, remark):
        fitted[name] += 1

    outcome = run(spec(defenses=defenses), tmp_path / "run", device="cpu", progress=told)
    assert not outcome.errors
    assert Asks.judged == [5, 5, 7, 7], "the catalogue as the attack left it, and the clean one"
    folders = {path.name for path in (tmp_path / "run/cells/words-0/models").iterdir()}
    assert folders == {"clean+none", "badrec+none", "badrec+asks", "badrec+more"}
    assert not [row for row in outcome.rows if row.defense == "none"]


def test_the_clean_catalogue_is_judged_once_for_all_attacks(tmp_path):
    attacks = [WOW, WOW | {"label": "again", "rate": 0.3}]
    outcome = run(spec(attacks=attacks, defenses=[NONE, SEES]), tmp_path / "run", device="cpu")
    assert len(Sees.judged) == 3
    assert set(detections(tmp_path / "run")) == {(name, "sees") for name in ("badrec", "again", "none")}
    assert not outcome.errors


# What can't be done


def test_a_defense_that_fails_leaves_the_others_going(tmp_path):
    category = WOW | {"label": "elsewhere", "trigger": WOW["trigger"] | {"field": "category"}}
    outcome = run(spec(attacks=[WOW, category], defenses=[FAILS, SEES, NONE]), tmp_path / "run", device="cpu")
    (error,) = outcome.errors
    assert all(part in error for part in ("attack badrec", "defense fails", "There are no such words"))
    measured = {(row.attack, row.defense) for row in outcome.rows if row.metric == "asr"}
    wanted = {(attack, name) for attack in ("badrec", "elsewhere") for name in ("fails", "sees", "none")}
    assert measured == wanted - {("badrec", "fails")}
    assert value(outcome.rows, "sees", "recall", "all", "none", attack="elsewhere") is None
    assert value(outcome.rows, "sees", "precision", "all", "none", attack="elsewhere") is None
    assert value(outcome.rows, "sees", "flagged", "all", "none", attack="elsewhere") == 10


def test_ranking_victims_can_t_be_asked_and_judge_titles_all_the_same(tmp_path):
    done = run(spec(victims=[RANKER], defenses=[ASKS, NONE, SEES, TUNE]), tmp_path / "run", device="cpu")
    (error,) = done.errors
    assert "defense asks" in error
    assert "reads none" in error
    assert {row.defense for row in done.rows} == {"none", "sees", "fine_tune"}
    assert value(done.rows, "sees", "recall", "all", "none") == 1
    models = {path.name for path in (tmp_path / "run/cells/words-0/models").iterdir()}
    handed = {f"{side}+{name}" for side in ("clean", "badrec") for name in ("none", "sees")}
    assert models == handed | {f"{side}+fine_tune+direct@repaired" for side in ("clean", "badrec")}
    found = {row.metric for row in done.rows if row.defense == "fine_tune"}
    assert {"hr_lost", "ndcg_lost", "exposure_hr_excess"} <= found
    gap = value(done.rows, "none", "ndcg", "all") - value(done.rows, "sees", "ndcg", "all", attack="badrec")
    lost = value(done.rows, "sees", "ndcg_lost", "all")
    clean = value(done.rows, "none", "ndcg_clean", "all")
    assert lost == pytest.approx(clean - value(done.rows, "sees", "ndcg", "all"))
    assert gap != lost
    excess = value(done.rows, "sees", "exposure_hr_excess", "all")
    shown = value(done.rows, "sees", "exposure_hr", "all") - value(done.rows, "none", "exposure_hr_clean", "all")
    assert excess == pytest.approx(shown)
    lines = printed(done.rows)
    table = lines[next(nth for nth, line in enumerate(lines) if "recall" in line and "exposure" in line) :]
    assert any(line.startswith("sees ") and "1.000" in line for line in table)


def test_a_platform_without_logs_can_neither_probe_nor_repair(tmp_path):
    few = {"history": 5, "training": 0.9, "validation": 0}
    outcome = run(spec(defenses=[NONE, ASKS], time_split=few), tmp_path / "judge", device="cpu")
    (error,) = outcome.errors
    assert "defense asks" in error
    assert "no questions of its own" in error
    split = {"training": 0.5, "validation": 0, "history": 5, "asked": 5}
    given = spec(victims=[CHOOSER], defenses=[NONE, ASKS, TUNE], sequence_split=split)
    outcome = run(given, tmp_path / "chooser", device="cpu")
    assert len(outcome.errors) == 2
    assert all("no users of its own" in error for error in outcome.errors)
    assert {row.defense for row in outcome.rows} == {"none"}


def test_a_model_that_can_t_be_probed_is_an_error_on_record(tmp_path, monkeypatch):
    monkeypatch.delattr(FittedWords, "probe")
    outcome = run(spec(defenses=[ASKS, NONE]), tmp_path / "run", device="cpu")
    (error,) = outcome.errors
    assert "FittedWords can't be probed" in error
    assert {row.defense for row in outcome.rows} == {"none"}


# Resuming


def lasting(folder):
    files = [*folder.rglob("results.jsonl"), *evidence_files(folder)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        pytest.param(ColumnStore, "write", 1, marks=pytest.mark.slow),
        pytest.param(ColumnStore, "write", 3, marks=pytest.mark.slow),
        pytest.param(FittedWords, "save", 2, marks=pytest.mark.slow),
        (FittedWords, "save", 9),
        (detection, "encode_record", 1),
        pytest.param(cell_module, "write_text", 2, marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed(judged, tmp_path, monkeypatch, owner, name, call):
    given, left = spec(seeds=[0, 1], scenarios=[DIRECT, ADAPTER]), [call]
    real = getattr(owner, name)

    def wrapped(*args):
        made = real(*args)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, wrapped)
        with pytest.raises(KeyboardInterrupt):
            run(given, tmp_path / "cut", device="cpu")
    outcome = run(given, tmp_path / "cut", device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    assert lasting(tmp_path / "cut") == lasting(judged[0])
    assert len(Sees.judged) == len(Asks.judged) == 4, "what was judged before is not judged again"


def test_measured_again_nothing_is_judged_fitted_or_asked_again(judged, tmp_path, monkeypatch):
    copy = shutil.copytree(judged[0], tmp_path / "copy")
    for path in copy.glob("cells/*/cell.json"):
        path.unlink()
        shutil.rmtree(path.parent / "evidence")
    monkeypatch.setattr(WordJudge, "fit", lambda *given: pytest.fail("fitted"))
    monkeypatch.setattr(FittedWords, "margins", lambda *given: pytest.fail("asked"))
    run(spec(seeds=[0, 1], scenarios=[DIRECT, ADAPTER]), copy, device="cpu", resume=True)
    assert Sees.judged == Asks.judged == []
    assert lasting(copy) == lasting(judged[0])


def test_damaged_detections_are_told(judged, tmp_path):
    given, copy = spec(seeds=[0, 1], scenarios=[DIRECT, ADAPTER]), shutil.copytree(judged[0], tmp_path / "copy")
    path = copy / "cells/words-1/evidence/badrec+sees@titles.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"sees@titles\.safetensors.*SHA-256"):
        run(given, copy, device="cpu", resume=True)
    (copy / "cells/words-1/cell.json").unlink()
    run(given, copy, device="cpu", resume=True)
    assert lasting(copy) == lasting(judged[0])


# Rows and table


def test_what_is_left_and_lost_by_hand():
    where = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="x", scenario="direct", seed=0)
    liked, unseen = np.array([True, False, False, False]), np.array([False, True, False, False])

    def side(plain, trigger):
        return {"plain": np.float32(plain), "trigger": np.float32(trigger)}

    def made(clean, attacked):
        return pointwise.PointwiseEvidence("direct", "a", "x", liked, unseen, liked, clean, attacked)

    bare = made(side([3, -1, -2, -2], [3, -1, 1, -1]), side([0] * 4, [9] * 4))
    mine = made(side([0] * 4, [9] * 4), side([-1, -2, -0.5, 1], [2, 3, -1, 9]))
    rows = {(row.group, row.metric): row for row in pointwise.make_defense_rows(where, mine, bare)}
    assert rows["trigger", "asr_excess"].value == pytest.approx(2 / 3 - 1 / 3)
    assert rows["unseen", "asr_excess"].value == 1 - 0
    assert rows["all", "auc_lost"].value == pytest.approx(1 - 1 / 3)
    one = rows["trigger", "asr_excess"]
    assert -1 < one.low < 0 < one.value < one.high < 1
    # Two thirds in 0.0943 … 0.9916 and a third in 0.0084 … 0.9057, exact intervals of 2 and 1 out of 3.
    assert one.low == pytest.approx(1 / 3 - np.hypot(2 / 3 - 0.0943, 0.9057 - 1 / 3), abs=1e-3)
    assert one.high == pytest.approx(1 / 3 + np.hypot(0.9916 - 2 / 3, 1 / 3 - 0.0084), abs=1e-3)


def test_what_a_chooser_keeps_and_loses_by_hand():
    where = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="x", scenario="direct", seed=None)

    def picks(*columns):
        return np.array(columns, dtype=np.int32)

    def side(plain, trigger):
        return {f"{way}.{kind}": part for way in ("free", "constrained") for kind, part in
                (("plain", plain), ("trigger", trigger))}  # fmt: skip

    nothing = side(picks(-1, -1, -1, -1), picks(-1, -1, -1, -1))
    shared = (
        picks(0, 1, 2, 0),
        picks(1, 2, 0, 2),
        picks(7, 7, 8, 9),
        np.array([True, False, False, True]),
        np.ones(4, bool),
    )
    bare = candidates.CandidateEvidence("s", "a", "none", *shared, side(picks(0, 1, 2, 1), picks(1, 1, 1, 1)), nothing)
    mine = candidates.CandidateEvidence("s", "a", "x", *shared, nothing, side(picks(0, 0, 0, 0), picks(1, 2, 0, 0)))
    rows = {
        (row.group, row.metric): (row.value, row.n, row.seed)
        for row in candidates.make_defense_rows(where, 3, mine, bare)
    }
    for end in ("", "_constrained"):
        assert rows["all", f"hit_ratio{end}_lost"] == ((3 - 2) / 4, 4, 3)
        assert rows["trigger", f"asr{end}_excess"] == ((3 - 1) / 4, 4, 3)
        assert rows["unseen", f"asr{end}_excess"] == ((1 - 1) / 2, 2, 3)


def printed(rows, width=120):
    from rich.console import Console

    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(summarize_run(rows, 5))
    return [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]


def test_the_table_has_a_line_a_defense(judged, chosen):
    lines = printed([row for row in judged[1].rows if row.scenario != "poisoned-adapter"])
    start = next(nth for nth, line in enumerate(lines) if "recall" in line and "AUROC" in line)
    table = {line.split()[0]: line for line in lines[start:] if line.split()[:1] and line.split()[0] != "A"}
    assert {"none", "sees", "asks", "blind", "fine_tune"} <= table.keys()
    assert table["sees"].split()[-3:-1] == ["1.000", "1.000"]
    assert float(table["sees"].split()[-1]) > 8
    assert table["blind"].split()[-3:] == ["–"] * 3
    assert "0.000" in table["asks"]
    assert any("HitRatio@1" in line and "recall" in line for line in printed(chosen[1].rows))
    assert all(len(line) <= 80 for line in printed(judged[1].rows, 80))
