"""Two runs compared, and many ranked: pairs by cell and seed, intervals of differences, ranks as ranges."""

import pytest

from cowbird.errors import UserError
from cowbird.experiments.measures import MEASURES
from cowbird.metrics.intervals import Interval, measure_spread, subtract_rates, wilson
from cowbird.report.comparison import choose_cutoff, choose_measures, compare_runs
from cowbird.report.leaderboard import find_order, rank_runs
from cowbird.report.run_files import RunFiles
from cowbird.report.selection import select_overall
from doubles.result_rows import make_answers, make_detections, make_rate, make_row


def make_run(label, rows):
    from pathlib import Path

    return RunFiles(label, Path(label), tuple(rows), label)


def compare(one, other, **options):
    return compare_runs(make_run("a", one), make_run("b", other), **options)


def test_one_seed_has_newcombes_interval():
    found = compare([make_rate(50)], [make_rate(70)])
    (gap,) = found.differences
    assert gap.found == subtract_rates(wilson(70, 100), wilson(50, 100))
    assert (gap.one, gap.other, gap.method) == (0.5, 0.7, "Newcombe, seed 0")
    assert gap.differs
    assert (found.only_one, found.only_other, found.remarks) == (0, 0, ())


def test_several_seeds_have_a_t_interval_of_paired_differences():
    one = [make_row(seed=seed, value=value) for seed, value in enumerate((0.1, 0.5, 0.9))]
    other = [make_row(seed=seed, value=value) for seed, value in enumerate((0.21, 0.6, 0.99))]
    (gap,) = compare(one, other[::-1]).differences
    wanted = measure_spread([0.11, 0.1, 0.09])
    assert gap.found.value == pytest.approx(0.1)
    assert (gap.found.low, gap.found.high) == pytest.approx((wanted.low, wanted.high))
    assert gap.differs, "the pairs agree, though the seeds differ more than the runs"
    assert gap.method == "t, 3 paired seeds"


def test_only_shared_seeds_count():
    one = [make_rate(50, seed=0), make_rate(90, seed=1)]
    (gap,) = compare(one, [make_rate(70, seed=0), make_rate(70, seed=2)]).differences
    assert (gap.one, gap.other) == (0.5, 0.7)
    with pytest.raises(UserError, match="same cell and seed"):
        compare([make_rate(50, seed=0)], [make_rate(50, seed=1)])


def test_seeds_that_are_all_alike_claim_no_certainty():
    one, other = ([make_rate(count, seed=seed) for seed in (0, 1)] for count in (99, 100))
    (gap,) = compare(one, other).differences
    assert gap.method == "Newcombe, 2 seeds alike"
    assert gap.found.low < 0 < gap.found.high


def test_pooled_rows_are_compared_where_there_are_no_seeds():
    (gap,) = compare([make_rate(50, seed=None)], [make_rate(70, seed=None)]).differences
    assert gap.method == "Newcombe, all seeds pooled"


def test_what_has_no_interval_says_so():
    bare = {"low": None, "high": None}
    (gap,) = compare([make_row(value=0.1, **bare)], [make_row(value=0.4, **bare)]).differences
    assert (gap.method, gap.found) == ("no interval, seed 0", Interval(0.30000000000000004, None, None, 100))
    assert not gap.differs
    counts = [make_row(metric="flagged", value=value, group="all") for value in (3, 5)]
    (gap,) = compare(counts[:1], counts[1:], metrics=["flagged"]).differences
    assert gap.method == "no interval, seed 0", "a count is no rate"


def test_what_differs_comes_first_and_what_is_alone_is_counted():
    one = [make_rate(50), make_rate(10, attack="b"), make_rate(1, attack="c"), make_row(value=None, attack="d")]
    other = [make_rate(52), make_rate(90, attack="b"), make_rate(1, attack="e"), make_row(attack="d")]
    found = compare(one, other)
    assert [gap.place.attack for gap in found.differences] == ["b", "word"]
    assert (found.only_one, found.only_other) == (1, 2)


def test_other_data_and_the_same_file_are_told():
    assert compare([make_rate(5)], [make_rate(5, dataset="songs")]).remarks == (
        "The datasets differ: films and songs.",
    )
    run = make_run("a", [make_rate(5)])
    assert compare_runs(run, run).remarks == ("Both are the same file.",)


def test_measures_and_cutoffs_are_chosen():
    rows = [make_row(metric="hr", k=5), make_row(metric="ndcg", k=20), make_row()]
    assert choose_cutoff(rows, None) == 5
    assert choose_cutoff([*rows, make_row(k=10)], None) == choose_cutoff([make_row()], None) == 10
    assert choose_measures(["all"], {"x"}) == {"x"}
    assert {"asr", "auc", "ndcg", "recall"} <= choose_measures([], {"x"})
    for call in (lambda: choose_cutoff(rows, 7), lambda: choose_measures(["y"], {"x"})):
        with pytest.raises(UserError, match="No row"):
            call()


# Ranks


def rank(*rows, **options):
    return rank_runs([make_run(f"run{nth}", each) for nth, each in enumerate(rows)], **options)


def test_ranks_are_ranges_where_intervals_overlap():
    rows = [make_rate(count, defense=name) for name, count in (("best", 2), ("near", 4), ("worst", 90))]
    (board,) = rank(rows)
    assert [(entry.name, entry.best, entry.worst) for entry in board.entries] == [
        ("best", 1, 2), ("near", 1, 2), ("worst", 3, 3)
    ]  # fmt: skip
    assert board.title == "films, victim judge, attack word, scenario direct, group trigger"


def test_the_order_follows_the_measure_and_what_is_ranked():
    assert find_order(MEASURES["asr"], "defense") == find_order(MEASURES["asr"], "victim") == "low"
    assert find_order(MEASURES["asr"], "attack") == find_order(MEASURES["recall"], "defense") == "high"
    assert (
        find_order(MEASURES["false_positive_rate"], "defense") == find_order(MEASURES["auc_lost"], "defense") == "low"
    )
    rows = [make_rate(count, attack=name) for name, count in (("weak", 2), ("strong", 90))]
    (board,) = rank(rows, by="attack")
    assert [entry.name for entry in board.entries] == ["strong", "weak"]
    (board,) = rank(rows, by="attack", order="low")
    assert [(entry.name, entry.best) for entry in board.entries] == [("weak", 1), ("strong", 2)]


def test_one_label_in_several_runs_is_told_apart():
    (board,) = rank([make_rate(2)], [make_rate(90)])
    assert [entry.name for entry in board.entries] == ["none (run0)", "none (run1)"]


def test_the_first_group_that_there_is_ranks():
    rows = [make_rate(count, defense=name, metric="exposure_hr", k=10, group=group)
            for name, count in (("a", 2), ("b", 90)) for group in ("all", "target", "other")]  # fmt: skip
    (board,) = rank(rows)
    assert board.title.endswith("group target")


def test_detectors_are_ranked_by_recall():
    rows = [*make_detections(defense="a", recall=10), *make_detections(defense="b", recall=90)]
    (board,) = rank(rows, metric="recall")
    assert [entry.name for entry in board.entries] == ["b", "a"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "two defenses"), ({"metric": "flown"}, "No row"), ({"k": 3}, "cut-off"), ({"by": "seed"}, "can't be ranked")],
)
def test_what_can_not_be_ranked_is_told(options, said):
    with pytest.raises(UserError, match=said):
        rank(make_answers(), **options)


def test_a_mean_of_seeds_that_are_all_alike_does_not_stand_for_them():
    alike = make_row(metric="asr_over_seeds", seed=None, value=0.0, low=0.0, high=0.0, n=3)
    single = make_rate(0, seed=0)
    assert list(select_overall([alike, single]).values()) == list(select_overall([single, alike]).values()) == [single]
    assert list(select_overall([alike]).values()) == [alike]
