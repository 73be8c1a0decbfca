"""Result rows against numbers made by hand."""

import csv
import io
import json
import math

import numpy as np
import pytest

from cowbird.errors import UserError
from cowbird.experiments import results
from cowbird.experiments.results import Row, RowLabels, drop_duplicates, summarize_seeds, to_csv
from cowbird.experiments.tasks.ranking.rows import RANKING_ARRAYS, RankingEvidence, make_rows

WHERE = RowLabels(experiment="e", dataset="d", victim="v", attack="a", defense="none", scenario="direct", seed=None)
SECOND = 1 / math.log2(3)
"""What a second rank is worth in NDCG."""


def ints(*values):
    return np.array(values, dtype=np.int32)


def by_hand(group=(True, True, False, False), **changes):
    """Four users, two targets. With a cut-off of 2:

    attacked: user 0 is shown target 0; user 1 target 0 (and has seen the other); user 2 target 1; user 3 none.
    clean: user 0 is shown target 1; user 3 only the one already seen, which does not count.
    """
    fields = {
        "clean_rank": ints(1, 2, 2, 1),
        "attacked_rank": ints(1, 9, 1, 3),
        "attacked_exposure": ints([1, 3], [2, 1], [5, 1], [1, 3]),
        "clean_exposure": ints([3, 2], [3, 1], [9, 9], [1, 9]),
        "seen": np.array([[False, False], [False, True], [False, False], [True, False]]),
        "group": np.array(group),
    }
    return RankingEvidence("direct", "a", "none", **(fields | changes))


def index(rows, seed=0):
    found = {}
    for row in rows:
        if row.seed == seed and row.attack == "a":
            key = (row.group, row.metric, row.k)
            assert key not in found
            found[key] = row
    return found


def test_exposures_by_hand():
    rows = index(make_rows(WHERE, {0: by_hand()}, (1, 2)))
    values = {key: row.value for key, row in rows.items()}
    assert values["target", "exposure_hr", 2] == pytest.approx(2 / 3)
    assert values["other", "exposure_hr", 2] == pytest.approx(1 / 3)
    assert values["all", "exposure_hr", 2] == pytest.approx(3 / 6)
    assert values["all", "exposure_hr", 1] == pytest.approx(2 / 6)
    assert values["target", "exposure_hr_clean", 2] == pytest.approx(1 / 3)
    assert values["other", "exposure_hr_clean", 2] == 0
    assert values["all", "exposure_hr_clean", 2] == pytest.approx(1 / 6)
    assert values["target", "exposure_ndcg", 2] == pytest.approx((1 + SECOND) / 3)
    assert values["all", "exposure_ndcg", 2] == pytest.approx((2 + SECOND) / 6)
    assert {key[0]: row.n for key, row in rows.items() if key[1:] == ("exposure_hr", 2)} == {
        "target": 3,
        "other": 3,
        "all": 6,
    }


def test_lifts_by_hand():
    rows = index(make_rows(WHERE, {0: by_hand()}, (2,)))
    assert rows["target", "lift_hr", 2].value == pytest.approx(2)
    assert rows["all", "lift_hr", 2].value == pytest.approx(3)
    assert rows["all", "lift_ndcg", 2].value == pytest.approx((2 + SECOND) / SECOND)
    assert rows["all", "lift_hr", 2].n == 4
    assert rows["all", "selectivity_hr", 2].value == pytest.approx(2)


def test_a_clean_exposure_of_zero_gives_a_lower_bound():
    rows = index(make_rows(WHERE, {0: by_hand()}, (2,)))
    assert ("other", "lift_hr", 2) not in rows
    bound = rows["other", "lift_hr_lower_bound", 2]
    assert bound.value == pytest.approx((1 / 3) / (1 - 0.05 ** (1 / 3)))
    assert bound.high is None
    assert bound.low is not None
    assert bound.low <= bound.value


def test_pooled_seeds_tighten_the_lower_bound():
    rows = index(make_rows(WHERE, {0: by_hand(), 7: by_hand()}, (2,)), None)
    assert rows["other", "lift_hr_lower_bound", 2].value == pytest.approx((1 / 3) / (1 - 0.05 ** (1 / 6)))


def test_nothing_shown_by_either_is_not_measured():
    never = np.full((4, 2), 51, dtype=np.int32)
    rows = index(make_rows(WHERE, {0: by_hand(clean_exposure=never, attacked_exposure=never)}, (2,)))
    for group in ("target", "other", "all"):
        row = rows[group, "lift_hr", 2]
        assert (row.value, row.low, row.high) == (None, None, None)
        shown = rows[group, "exposure_hr", 2]
        assert (shown.value, shown.low, shown.high) == (0, None, None)


def test_an_attack_that_hides_its_targets():
    never = np.full((4, 2), 51, dtype=np.int32)
    row = index(make_rows(WHERE, {0: by_hand(attacked_exposure=never)}, (2,)))["all", "lift_hr", 2]
    assert (row.value, row.low, row.high) == (0, 0, None)


def test_no_pairs_are_not_measured():
    everything = np.ones((4, 2), dtype=bool)
    rows = index(make_rows(WHERE, {0: by_hand(seen=everything)}, (2,)))
    for metric in ("exposure_hr", "exposure_hr_clean", "lift_hr"):
        row = rows["all", metric, 2]
        assert (row.value, row.low, row.high, row.n) == (None, None, None, 0)


def test_a_group_without_users_is_not_measured():
    rows = index(make_rows(WHERE, {0: by_hand(group=(False,) * 4)}, (2,)))
    assert rows["target", "exposure_hr", 2].value is None
    assert rows["all", "selectivity_hr", 2].value is None
    assert ("target", "ndcg", 2) not in rows
    assert rows["all", "ndcg", 2] == rows["other", "ndcg", 2].model_copy(
        update={"group": "all", "low": rows["all", "ndcg", 2].low, "high": rows["all", "ndcg", 2].high}
    )


def test_everybody_a_target_leaves_no_others():
    rows = index(make_rows(WHERE, {0: by_hand(group=(True,) * 4)}, (2,)))
    assert {key[0] for key in rows} == {"target", "all"}
    assert not any(key[1].startswith("selectivity") for key in rows)
    assert rows["target", "exposure_hr", 2].value == rows["all", "exposure_hr", 2].value


def test_accuracy_by_hand():
    rows = index(make_rows(WHERE, {0: by_hand()}, (1, 2)))
    assert rows["all", "hr", 1].value == 0.5
    assert rows["all", "hr_clean", 2].value == 1
    assert rows["all", "hr_change", 2].value == pytest.approx(-0.5)
    assert rows["all", "ndcg", 2].value == pytest.approx(0.5)
    assert rows["all", "ndcg_clean", 2].value == pytest.approx((2 + 2 * SECOND) / 4)
    assert rows["all", "ndcg_change", 2].value == pytest.approx(2 / (2 + 2 * SECOND) - 1)
    assert rows["target", "ndcg_change", 2].value == pytest.approx(1 / (1 + SECOND) - 1)
    assert rows["other", "ndcg_change", 2].value == pytest.approx(1 / (1 + SECOND) - 1)
    assert rows["all", "mrr", 2].value == pytest.approx(0.5)
    assert {rows[group, "hr", 2].n for group in ("target", "other")} == {2}
    change = rows["all", "ndcg_change", 2]
    assert change.low <= change.value <= change.high


def test_a_change_from_nothing_is_not_measured():
    rows = index(make_rows(WHERE, {0: by_hand(clean_rank=ints(9, 9, 9, 9))}, (2,)))
    change = rows["all", "hr_change", 2]
    assert (change.value, change.low, change.high) == (None, None, None)
    assert rows["all", "hr_clean", 2].value == 0


def test_pooled_rows_hold_the_users_of_every_seed():
    other = by_hand(
        group=(True, False, False, False),
        attacked_rank=ints(1, 1, 1, 9),
        attacked_exposure=np.full((4, 2), 51, dtype=np.int32),
    )
    rows = index(make_rows(WHERE, {0: by_hand(), 1: other}, (2,)), None)
    assert rows["all", "hr", 2].value == pytest.approx((2 + 3) / 8)
    assert rows["target", "hr", 2].value == pytest.approx((1 + 1) / 3)
    assert (rows["all", "hr", 2].n, rows["target", "hr", 2].n) == (8, 3)
    assert rows["all", "exposure_hr", 2].value == pytest.approx(3 / 12)
    assert rows["target", "exposure_hr", 2].value == pytest.approx(2 / 5)


def test_seeds_may_have_other_numbers_of_users():
    whole = by_hand()
    shorter = RankingEvidence("direct", "a", "none", *(getattr(whole, name)[:3] for name in RANKING_ARRAYS))
    rows = index(make_rows(WHERE, {0: by_hand(), 1: shorter}, (2,)), None)
    assert rows["all", "hr", 2].n == 7


def row(value, seed, **changes):
    fields = {"group": "all", "metric": "hr", "k": 10, "seed": seed, "value": value, "low": 0.0, "high": 1.0, "n": 50}
    return Row(**(WHERE.model_dump() | fields | changes))


def test_over_seeds_by_hand():
    (found,) = summarize_seeds([row(value, seed, metric="lift_hr") for seed, value in enumerate((1.0, 2.0, 6.0))])
    half = 4.302652729911275 * math.sqrt(7) / math.sqrt(3)
    assert (found.metric, found.seed, found.n) == ("lift_hr_over_seeds", None, 3)
    assert found.value == pytest.approx(3)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_shares_over_seeds_stay_between_0_and_1():
    (share,) = summarize_seeds([row(0.99, 0, metric="asr"), row(0.9, 1, metric="asr")])
    assert (share.low, share.high) == (pytest.approx(0.945 - 12.706 * 0.045, abs=1e-3), 1.0)
    (change,) = summarize_seeds([row(0.99, 0, metric="ndcg_change"), row(0.9, 1, metric="ndcg_change")])
    assert change.high > 1


def test_over_seeds_leaves_out_what_was_not_measured():
    assert summarize_seeds([row(1.0, 0), row(None, 1)]) == []
    assert summarize_seeds([row(1.0, 0), row(2.0, None)]) == []
    assert (
        summarize_seeds([row(1.0, 0), row(2.0, 1, metric="ndcg"), row(3.0, 2, group="target"), row(3.0, 2, k=5)]) == []
    )
    (found,) = summarize_seeds([row(1.0, 0), row(None, 1), row(3.0, 2)])
    assert (found.value, found.n) == (2, 2)


def test_over_seeds_comes_with_two_seeds_only():
    assert not any(row.metric.endswith("_over_seeds") for row in make_rows(WHERE, {0: by_hand()}, (2,)))
    rows = index(make_rows(WHERE, {0: by_hand(), 1: by_hand()}, (2,)), None)
    assert rows["all", "lift_hr_over_seeds", 2].value == pytest.approx(3)
    assert rows["all", "lift_hr_over_seeds", 2].n == 2


def two_attacks():
    """Two attacks on one victim that aim at different users."""
    first = make_rows(WHERE, {0: by_hand()}, (2,))
    there = WHERE.model_copy(update={"attack": "b"})
    second = by_hand(group=(False, False, True, True), attacked_rank=ints(9, 9, 9, 1), clean_rank=ints(1, 9, 9, 9))
    return [*first, *make_rows(there, {0: second}, (2,))]


def test_no_measurement_is_there_twice():
    rows = drop_duplicates(two_attacks())
    keys = [
        tuple(row.model_dump(include=set(Row.model_fields) - {"value", "low", "high", "n"}).values()) for row in rows
    ]
    assert len(set(keys)) == len(keys)
    assert len([row for row in rows if row.attack == "none" and row.metric == "hr" and row.seed == 0]) == 1


def test_the_clean_model_s_group_rows_belong_to_the_attack_that_defines_the_group():
    """Each attack has a target group of its own: the clean accuracy of one is not that of the other."""
    rows = drop_duplicates(two_attacks())
    clean = {r.attack: r.value for r in rows if (r.metric, r.group, r.seed) == ("hr_clean", "target", 0)}
    assert clean == {"a": 1.0, "b": 0.0}
    assert {row.group for row in rows if row.attack == "none"} == {"all"}


def test_the_same_evidence_gives_the_same_rows():
    assert make_rows(WHERE, {0: by_hand(), 1: by_hand()}, (2,)) == make_rows(WHERE, {0: by_hand(), 1: by_hand()}, (2,))


def test_rows_survive_the_file(tmp_path):
    rows = two_attacks()
    results.write_results(tmp_path / "results.jsonl", rows)
    assert results.read_results(tmp_path / "results.jsonl") == rows
    for line in (tmp_path / "results.jsonl").read_text().splitlines():
        assert all(word not in line for word in ("NaN", "Infinity"))
        assert list(json.loads(line)) == list(Row.model_fields)


@pytest.mark.parametrize("line", ["{}", "x", "[]", "null", '{"experiment": "e"}', "", '{"value": NaN}'])
def test_a_line_that_is_no_row_is_numbered(tmp_path, line):
    path = tmp_path / "results.jsonl"
    results.write_results(path, [row(1.0, 0)])
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(UserError, match="Line 2 of"):
        results.read_results(path)


def test_an_extra_field_is_no_row(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(row(1.0, 0).model_dump() | {"extra": 1}) + "\n")
    with pytest.raises(UserError, match="Line 1 of"):
        results.read_results(path)


def test_results_that_can_t_be_read(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff")
    for path in (tmp_path / "gone", tmp_path, tmp_path / "bytes"):
        with pytest.raises(UserError, match="can't be read"):
            results.read_results(path)


def test_csv_holds_the_rows():
    rows = [row(0.1 + 0.2, 0), row(None, None, low=None, high=None, attack="a.b-c_d")]
    lines = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert list(lines[0]) == list(Row.model_fields)
    assert float(lines[0]["value"]) == 0.1 + 0.2
    assert (lines[1]["value"], lines[1]["low"], lines[1]["seed"]) == ("", "", "")
    assert to_csv([]).strip() == ",".join(Row.model_fields)


def test_no_csv_cell_of_a_run_starts_a_formula(tiny_run):
    for line in csv.reader(io.StringIO(to_csv(tiny_run[1].rows))):
        for cell in line:
            assert not cell or cell[0].isalnum() or (cell[0] == "-" and float(cell) < 0)
