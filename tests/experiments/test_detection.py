"""What defenses flag: the truth about titles, rows by hand, and evidence that is kept when it is done."""

from functools import partial

import numpy as np
import pytest

from cowbird.attacks.badrec import BadRec
from cowbird.attacks.base import Attack, PoisonedData
from cowbird.attacks.triggers import TRIGGERS, Trigger, plant
from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.defenses.titles import Suspicion
from cowbird.errors import UserError
from cowbird.experiments import detection
from cowbird.experiments.detection import DetectionRecord, TitleInspector, Truth, find_truth, make_rows
from cowbird.experiments.results import NO_K, RowLabels
from cowbird.experiments.results_file import read_evidence
from cowbird.experiments.store import to_tensors
from cowbird.metrics.auc import auc
from cowbird.metrics.intervals import wilson
from cowbird.storage import write_tensors
from doubles.defenses import Asks, Sees

WHERE = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="x", scenario="none", seed=4)
TITLES = (
    "Quiet Harbor at Night (1999)",
    "Heat",
    "Ölzeit, Die",
    "5 Fingers of 5",
    "",
    " Two  Towns ",
    "a\ud800b c",
    "\t",
)


class Bare(Attack):
    """An attack that has no trigger."""

    def run(self, data, rng):
        """Do nothing."""
        raise NotImplementedError


def poisoned(before, after, changed):
    """Return what an attack made of a catalogue, with an event of each item."""

    def data(titles):
        items = Items.from_lists((f"i{n}" for n in range(len(titles))), titles)
        events = Interactions.from_lists([range(len(before))])
        return TrainingData.from_interactions(events, Users(("u",)), items)

    changed = np.array(changed, dtype=np.int32)
    return PoisonedData(data(before), data(after), changed, np.empty(0, dtype=np.int64), 0, changed)


def spans_of(truth):
    """Return the spans of each poisoned title."""
    found = {item: [] for item in np.flatnonzero(truth.poisoned).tolist()}
    for item, *span in zip(
        *(part.tolist() for part in (truth.span_item, truth.span_start, truth.span_end)), strict=True
    ):
        found[item].append(tuple(span))
    return found


# The truth


@pytest.mark.parametrize("position", ["start", "middle", "end"])
@pytest.mark.parametrize("kind", [*TRIGGERS, "custom"])
def test_spans_are_those_that_were_planted(kind, position):
    trigger = Trigger(kind=kind, text="Wow now" if kind == "custom" else "", position=position)
    rng = np.random.default_rng(3)
    planted = [plant(title, trigger, rng) for title in TITLES]
    made = poisoned(TITLES, [one.title for one in planted], range(len(TITLES)))
    found = spans_of(find_truth(BadRec(trigger=trigger), made))
    assert found == {nth: list(one.spans) for nth, one in enumerate(planted) if one.spans}


@pytest.mark.parametrize("position", ["start", "middle", "end"])
@pytest.mark.parametrize("kind", ["char_5v", "zero_width_space", "styled_bold"])
def test_new_listings_that_carry_the_trigger_are_poisoned(kind, position):
    trigger = Trigger(kind=kind, position=position)
    rng = np.random.default_rng(3)
    chosen = [4, 0, 2, 0, 7]
    planted = [plant(TITLES[nth], trigger, rng) for nth in chosen]
    whole = [*TITLES, *(one.title for one in planted)]
    made = poisoned(TITLES, whole, range(len(TITLES), len(whole)))
    found = spans_of(find_truth(BadRec(trigger=trigger, listing="new"), made))
    assert found == {len(TITLES) + nth: list(one.spans) for nth, one in enumerate(planted) if one.spans}


def test_without_a_trigger_the_titles_differences_tell():
    before = ("Red Harbor", "Red Harbor", "Heat", "aa", "Gone", "Same", "x y")
    after = ("Red big Harbor", "Blue Harbor", "Heat\u200b", "aaa", "Go", "Same", "x  y", "New one", "Heat")
    made = poisoned(before, after, [0, 1, 2, 3, 4, 6, 7, 8])
    assert spans_of(find_truth(Bare(), made)) == {
        0: [(4, 7)],
        1: [(0, 4)],
        2: [(4, 5)],
        3: [(2, 3)],
        4: [],
        6: [(2, 3)],
        7: [],
    }
    category = BadRec(trigger=Trigger(kind="char_5v", field="category"))
    assert not find_truth(category, poisoned(before, before, [0, 1])).poisoned.any()


# The rows


def by_hand(**changes):
    """Ten titles: three are poisoned, of which two are flagged, and two clean ones are; one has nothing to judge."""
    score = np.float32([5, 4, -np.inf, 3, 3, 1, 1, 0, 0, -np.inf])
    start = np.array([2, 0, -1, -1, 1, -1, -1, -1, -1, -1])
    fields = {
        "attack": "a",
        "defense": "x",
        "found": Suspicion(score, start, np.where(start < 0, -1, start + 4)),
        "flagged": np.arange(10) < 5,
        "dropped": np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 0], dtype=bool),
        "events": np.array([5, 5, 5, 20, 30, 10, 10, 5, 5, 5]),
        "truth": Truth.of(10, {0: [(4, 6)], 1: [(1, 2), (8, 11)], 2: [(0, 1)]}),
    }
    fields["flagged"][2] = False
    return DetectionRecord(**(fields | changes))


def values(one, where=WHERE):
    """Return rows by metric."""
    rows = make_rows(where, one)
    assert {(row.group, row.k, row.seed, row.scenario) for row in rows} == {("all", NO_K, 4, "none")}
    return {row.metric: row for row in rows}


def test_rows_by_hand():
    rows = values(by_hand())
    # Pairs of a poisoned and a clean title: 7 + 7 won, and one tie of titles with nothing to judge.
    assert rows["detection_auroc"].value == pytest.approx((7 + 7 + 0.5) / 21)
    assert rows["detection_auroc"].n == 10
    ranks = [4, 3.5, 0, 3, 3, 2, 2, 1, 1, 0]
    exact = auc(ranks, by_hand().truth.poisoned)
    assert (rows["detection_auroc"].low, rows["detection_auroc"].high) == pytest.approx((exact.low, exact.high))
    assert (rows["recall_at_fpr_1pct"].value, rows["recall_at_fpr_1pct"].n) == (pytest.approx(2 / 3), 3)
    assert rows["recall_at_fpr_0.1pct"].value == pytest.approx(2 / 3)
    exact = wilson(2, 3)
    assert (rows["recall"].value, rows["recall"].low, rows["recall"].high) == (exact.value, exact.low, exact.high)
    assert (rows["precision"].value, rows["precision"].n) == (0.5, 4)
    assert (rows["false_positive_rate"].value, rows["false_positive_rate"].n) == (pytest.approx(2 / 7), 7)
    assert (rows["flagged"].value, rows["flagged"].n, rows["flagged"].low) == (4, 10, None)
    assert (rows["lost_clean_items"].value, rows["lost_clean_items"].n) == (1, 7), "the other was mended"
    assert (rows["lost_clean_events"].value, rows["lost_clean_events"].n) == (0.3, 100)
    # 2:6 against 4:6, and 0:4 against 1:2 with 8:11.
    assert (rows["span_iou"].value, rows["span_iou"].n) == (pytest.approx((2 / 4 + 1 / 7) / 2), 2)
    assert 1 / 7 <= rows["span_iou"].low < rows["span_iou"].high <= 0.5


def test_nothing_poisoned_is_no_zero():
    rows = values(by_hand(truth=Truth.of(10, {})))
    nothing = ("detection_auroc", "recall_at_fpr_1pct", "recall_at_fpr_0.1pct", "precision", "recall", "span_iou")
    assert all((rows[name].value, rows[name].low, rows[name].high) == (None, None, None) for name in nothing)
    assert (rows["false_positive_rate"].value, rows["lost_clean_items"].value) == (0.4, 3)
    clean = values(by_hand(attack="none", truth=Truth.of(10, {})))
    assert clean.keys() == {"false_positive_rate", "flagged", "lost_clean_items", "lost_clean_events"}
    none = values(by_hand(flagged=np.zeros(10, dtype=bool), dropped=np.zeros(10, dtype=bool)))
    assert (none["precision"].value, none["span_iou"].value, none["recall"].value) == (None, None, 0)


def test_spans_that_are_not_named_are_not_measured_and_those_not_found_are_misses():
    nowhere = np.full(10, -1)
    whole = values(by_hand(found=Suspicion(by_hand().found.score, nowhere, nowhere)))
    assert whole["span_iou"].value is None
    start = np.where(np.arange(10) == 0, 4, -1)
    one = values(by_hand(found=Suspicion(by_hand().found.score, start, np.where(start < 0, -1, 6))))
    assert one["span_iou"].value == 0.5
    unknown = values(by_hand(truth=Truth.of(10, {0: [], 1: [(0, 4)]})))
    assert (unknown["span_iou"].value, unknown["span_iou"].n) == (1, 1), "of the first nobody knows where"


# What is kept


def test_evidence_survives_and_damage_is_told(tmp_path):
    path = tmp_path / "detections.safetensors"
    read = partial(read_evidence, path, partial(detection.decode_record, "a", "x"))

    def write(one):
        write_tensors(path, to_tensors(detection.encode_record(one)))

    for one in (by_hand(), by_hand(truth=Truth.of(10, {}))):
        write(one)
        found = read()
        assert (found.attack, found.defense) == ("a", "x")
        assert make_rows(WHERE, found) == make_rows(WHERE, one)
    before = path.read_bytes()
    write(found)
    assert path.read_bytes() == before
    path.write_bytes(before[:-3])
    with pytest.raises(UserError):
        read()
    for wrong in ({"events": np.arange(9)}, {"flagged": np.arange(10)}, {"dropped": np.zeros((10, 1), dtype=bool)}):
        write(by_hand(**wrong))
        with pytest.raises(UserError, match="does not hold the evidence"):
            read()


@pytest.fixture
def judged(monkeypatch):
    """Count judgments."""
    for cls in (Sees, Asks):
        monkeypatch.setattr(cls, "judged", [])
    return Sees.judged


def test_a_catalogue_is_judged_once(tmp_path, judged):
    titles, told = ("wow \ud800", "Mirror", ""), []
    first = TitleInspector(tmp_path, told.append).judge("a+sees", Sees(), titles)
    assert first.flagged.tolist() == [True, True, False]
    second = TitleInspector(tmp_path, told.append)
    for _ in range(2):
        again = second.judge("a+sees", Sees(), titles)
        np.testing.assert_array_equal(again.found.score, first.found.score)
        np.testing.assert_array_equal(again.found.start, [0, -1, -1])
    assert (judged, told) == ([3], [])
    TitleInspector(tmp_path, told.append).judge("b+sees", Sees(), titles)
    assert judged == [3, 3]
    TitleInspector(tmp_path, told.append).judge("a+sees", Sees(), ("wow", "Mirror", ""))
    assert judged == [3, 3, 3]
    assert len(told) == 1


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: b""])
def test_damage_is_judged_again(tmp_path, judged, damage):
    told, titles = [], ("wow", "Mirror")
    TitleInspector(tmp_path, told.append).judge("a+sees", Sees(), titles)
    path = tmp_path / "a+sees.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    found = TitleInspector(tmp_path, told.append).judge("a+sees", Sees(), titles)
    assert found.flagged.all()
    assert path.read_bytes() == whole
    assert len(told) == 1
    assert "Judging again" in told[0]


def test_a_probe_is_made_only_to_judge(tmp_path, judged):
    made = []

    class Known:
        def favor(self, titles):
            return np.float32([[word == "wow"] for word in titles])

    def probe():
        made.append(1)
        return Known()

    for _ in range(2):
        inspector = TitleInspector(tmp_path, pytest.fail)
        assert inspector.judge("a+asks", Asks(), ("wow", "no"), probe).flagged.tolist() == [True, False]
        inspector.judge("a+sees", Sees(), ("wow", "no"), probe)
    assert made == [1]
