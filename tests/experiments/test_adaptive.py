"""Attacks that know a defense, in cells: told once, settled once, planted and measured as others are."""

import json
import shutil

import pytest

from cowbird.attacks.adaptive_badrec import AdaptiveBadRec
from cowbird.defenses.p_scanner.p_scanner import PScanner
from cowbird.defenses.p_scanner.rounds.poison_scanner import MIN_TITLES_PER_FIT, PoisonScanner
from cowbird.defenses.titles import Suspicion
from cowbird.errors import UserError
from cowbird.experiments.adaptive import AdaptiveAttacks
from cowbird.experiments.executor import to_tables
from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from doubles.defenses import WORD, Learns, Sees
from doubles.evidence import cell_detections, evidence_files
from doubles.word_judge import FittedWords

pytestmark = pytest.mark.slow

ADAPTIVE = {
    "name": "adaptive_badrec",
    "label": "adaptive",
    "knows": "sees",
    "trigger": {"kind": "custom", "text": WORD},
    "targets": {"count": 3},
    "rate": 0.5,
    "candidates": 10,
    "rounds": 1,
    "positions": ["start"],
}
WOW = {"name": "badrec", "rate": 0.5, "targets": {"count": 3}, "trigger": {"kind": "custom", "text": WORD}}
NONE = {"name": "none"}
SEES, ASKS, LEARNS = (
    {"name": f"doubles.defenses:{name}", "label": name.lower()} for name in ("Sees", "Asks", "Learns")
)


def spec(**changes):
    table = {
        "name": "informed",
        "dataset": {"name": "doubles.rated"},
        "time_split": {"history": 5},
        "victims": [{"name": "doubles.word_judge:WordJudge", "label": "words"}],
        "attacks": [ADAPTIVE],
        "defenses": [NONE, SEES],
    }
    return parse_spec(table | changes, allow_plugins=True)


def lasting(out):
    files = [path for name in ("results.jsonl", "adaptive.json", "words.json") for path in out.rglob(name)]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*files, *evidence_files(out)]}


def value(rows, attack, defense, metric, group="trigger"):
    (row,) = [
        r for r in rows if (r.attack, r.defense, r.metric, r.group, r.seed) == (attack, defense, metric, group, 0)
    ]
    return row.value


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("informed") / "run"
    return out, run(spec(attacks=[WOW, ADAPTIVE]), out, device="cpu")


def test_what_evades_is_planted_and_still_works(done):
    out, outcome = done
    assert (outcome.errors, outcome.warnings) == ([], [])
    cell = out / "cells/words-0"
    settled = json.loads((cell / "settled/adaptive.json").read_text())
    plan = json.loads((cell / "plans/adaptive.json").read_text())
    assert plan["choice"] == {name: settled[name] for name in ("trigger", "knows", "found")}
    assert settled["found"]["flagged"] == 0
    assert settled["found"]["tried"] == 20
    text = settled["trigger"]["text"]
    assert WORD not in text
    assert all(title.startswith(f"{text} ") for title in plan["retitled"].values())
    assert plan["targets"] == json.loads((cell / "plans/badrec.json").read_text())["targets"]
    rows = outcome.rows
    mirrors = sum("Mirror" in title for title in plan["retitled"].values())  # suspected with any trigger, or none
    recall = [value(rows, attack, "sees", "recall", "all") for attack in ("badrec", "adaptive")]
    assert recall == [1, mirrors / 3] != [1, 1]
    assert value(rows, "adaptive", "none", "asr") > 0.9
    assert value(rows, "adaptive", "sees", "asr") > 0.9
    assert value(rows, "badrec", "sees", "asr") == 0
    (found,) = [one for one in cell_detections(spec(attacks=[WOW, ADAPTIVE]), out) if one.attack == "adaptive"]
    assert {(a, b) for a, b in zip(found.truth.span_start, found.truth.span_end, strict=True)} == {(0, len(text))}
    record = json.loads((cell / "cell.json").read_text())
    assert "adaptive@search" in record["seconds"]


def test_the_copy_is_fitted_once_to_the_clean_catalogue_with_a_seed_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Learns, "fitted", [])
    attacks = [ADAPTIVE | {"label": label, "knows": "learns", "rounds": rounds} for rounds, label in enumerate("ab")]
    outcome = run(spec(attacks=attacks, defenses=[NONE, LEARNS], seeds=[0, 1]), tmp_path / "run", device="cpu")
    assert not outcome.errors
    assert [count for count, _ in Learns.fitted] == [80, 80]
    assert len({0, *(seed for _, seed in Learns.fitted)}) == 3


class Cut(KeyboardInterrupt):
    """Somebody pulls the plug."""


@pytest.mark.parametrize(
    ("owner", "name", "call"), [(Sees, "suspect", 4), (AdaptiveAttacks, "settle", 2), (FittedWords, "save", 5)]
)
def test_interrupted_and_resumed(done, tmp_path, monkeypatch, owner, name, call):
    real, left, given = getattr(owner, name), [call], spec(attacks=[WOW, ADAPTIVE])

    def wrapped(*args):
        result = real(*args)
        left[0] -= 1
        if not left[0]:
            raise Cut
        return result

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, wrapped)
        with pytest.raises(Cut):
            run(given, tmp_path / "cut", device="cpu")
    if name != "suspect":
        monkeypatch.setattr(AdaptiveBadRec, "settle", lambda *given: pytest.fail("searched again"))
    outcome = run(given, tmp_path / "cut", device="cpu", resume=True)
    assert (outcome.errors, outcome.warnings) == ([], [])
    assert lasting(tmp_path / "cut") == lasting(done[0])


@pytest.mark.parametrize("damage", ["text", "list", "bytes"])
def test_what_is_damaged_is_searched_again(done, tmp_path, damage):
    copy = shutil.copytree(done[0], tmp_path / "copy")
    path = copy / "cells/words-0/settled/adaptive.json"
    kept = path.read_bytes()
    told = json.loads(kept)
    if damage == "text":
        told["trigger"]["text"] += "!"
    bad = {"list": b"[1]", "bytes": b"\xff\xfe"}.get(damage, json.dumps(told).encode())
    path.write_bytes(bad)
    (copy / "cells/words-0/cell.json").unlink()
    shutil.rmtree(copy / "cells/words-0/evidence")
    outcome = run(spec(attacks=[WOW, ADAPTIVE]), copy, device="cpu", resume=True)
    assert "Searching again" in outcome.warnings[0]
    assert path.read_bytes() == kept
    assert lasting(copy) == lasting(done[0])


def test_an_attack_that_can_t_be_settled_leaves_the_others_going(tmp_path):
    few = ADAPTIVE | {"label": "few", "targets": {"ids": ["no such"]}}
    outcome = run(spec(attacks=[few, WOW]), tmp_path / "run", device="cpu")
    (error,) = outcome.errors
    assert "attack few" in error
    assert "no item 'no such'" in error
    assert {row.attack for row in outcome.rows} == {"badrec", "none"}


# Specs


@pytest.mark.parametrize(("label", "why"), [("nowhere", "is not there"), ("none", "can't be"), ("asks", "can't be")])
def test_a_defense_that_can_t_be_known_is_told_with_those_that_can(label, why):
    with pytest.raises(UserError, match=rf"attack 'adaptive' knows the defense '{label}', which {why}") as caught:
        spec(attacks=[ADAPTIVE | {"knows": label}], defenses=[NONE, SEES, ASKS, LEARNS])
    assert caught.value.message.endswith("that read titles alone: 'sees', 'learns'.")
    assert caught.value.hint


def test_what_was_found_can_t_be_given():
    with pytest.raises(UserError, match="'found' is what its search comes to"):
        spec(attacks=[ADAPTIVE | {"found": {"tried": 1, "flagged": 0.0, "rank": 0.0}}])


def test_a_record_is_parsed_again():
    assert parse_spec(to_tables(json.loads(json.dumps(spec().to_record()))), allow_plugins=True) == spec()


# Copies


def test_a_copy_of_most_defenses_is_themselves():
    assert Sees().make_adversary_copy(["a wow"], 7)(["a wow", "b"]).score.tolist() == [2, 0]
    with pytest.raises(UserError, match="asks the platform's model"):
        parse_defense(ASKS).make_adversary_copy(["a"], 7)


def parse_defense(table):
    return spec(defenses=[SEES, table]).defenses[1].options


def test_a_copy_of_the_scanner_is_fitted_once(monkeypatch):
    fits = []

    class Fitted:
        def threshold(self):
            return 2.0

        def suspect(self, titles):
            return Suspicion(*([len(title) for title in titles], [-1] * len(titles), [-1] * len(titles)))

    def fit(self, titles, seed, place):
        fits.append((len(titles), seed))
        return Fitted()

    monkeypatch.setattr(PoisonScanner, "fit", fit)
    titles = [f"title {number}" for number in range(MIN_TITLES_PER_FIT)]
    judge = PScanner(seed=3, device="cpu").make_adversary_copy(titles, 99)
    assert judge(["abc"]).score.tolist() == judge(["abc", ""]).score.tolist()[:1] == [1]
    assert PScanner(seed=3, device="cpu").suspect(titles).score[0] == 5
    assert fits == [(MIN_TITLES_PER_FIT, 99), (MIN_TITLES_PER_FIT, 3)]
    PScanner(device="cpu").make_adversary_copy(titles[1:], 99)(["abc"])
    assert len(fits) == 2
