import json

import numpy as np
import pytest

import cowbird
from cowbird.errors import ExitCode, UserError
from cowbird.inspection.inspection import inspect_ranker
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.probes import (
    count_items,
    draw_new_histories,
    draw_own_histories,
    draw_random_histories,
    make_single_histories,
    measure_ranks,
    rank_first,
)
from cowbird.inspection.suspects import read_suspects
from cowbird.storage import read_sealed_json
from inspection.conftest import ITEMS, ToyModel


def open_toy(**options):
    return OpenedModel(ToyModel(**options), "toy", "")


def test_planted_items_are_the_suspects(log, settings, honest_nulls):
    found = inspect_ranker(open_toy(seed=1, planted=[3, 7], share=0.5), log, settings)
    assert found.p_value is not None and found.p_value < 0.01
    assert {item.item for item in found.suspects} == {3, 7}
    assert found.choose_exit_code() is ExitCode.FINDINGS
    assert "2 items stand out" in found.write_verdict()
    first = found.ranking[0]
    assert first.rank == 1 and first.id == log.items.ids[first.item] and first.title == log.items.titles[first.item]
    for name in ("own", "new", "random", "single"):
        assert first.shown[name] > 3 * first.expected[name]
        assert first.stands[name] < first.stands_expected[name] / 2


def test_honest_models_are_seldom_accused(log, settings, honest_nulls):
    found = [inspect_ranker(open_toy(seed=seed), log, settings) for seed in range(6)]
    assert all(each.p_value is not None and each.p_value > 0.01 and not each.suspects for each in found)
    assert found[0].choose_exit_code() is ExitCode.CLEAN
    said = found[0].write_verdict()
    assert "not ruled out" in said and "safe" not in said
    assert len(found[0].null_statistics) == 5 and found[0].threshold is not None


def test_without_logs_there_is_a_ranking_and_no_verdict(settings):
    found = inspect_ranker(open_toy(seed=1, planted=[3]), None, settings)
    assert found.p_value is None and found.threshold is None and not found.suspects
    assert found.ranking[0].item == 3
    assert found.choose_exit_code() is ExitCode.INCOMPLETE
    assert "No verdict" in found.write_verdict()
    assert set(found.checked) == {"random", "single"}


def test_it_is_written_whole(log, settings, honest_nulls, tmp_path):
    found = inspect_ranker(open_toy(seed=1, planted=[3, 7]), log, settings)
    found.write(tmp_path / "inspection.json")
    record = read_sealed_json(tmp_path / "inspection.json")
    assert record["schema_version"] == 2 and record["verdict"] == found.write_verdict()
    assert len(record["logs_sha256"]) == 64 and record["settings"]["histories"] == 300
    assert record["settings"]["null_recommender"]["name"] == "SASRec"
    assert read_suspects(tmp_path / "inspection.json", (), ITEMS) == [3, 7]
    text = (tmp_path / "inspection.json").read_text()
    (tmp_path / "inspection.json").write_text(text.replace('"suspect": true', '"suspect": false'))
    with pytest.raises(UserError, match="damaged"):
        read_suspects(tmp_path / "inspection.json", (), ITEMS)


def test_suspects_may_be_named_by_hand(tmp_path):
    path = tmp_path / "suspects.txt"
    path.write_text("b\n\na\n")
    assert read_suspects(path, ("a", "b"), 2) == [0, 1]
    path.write_text("1\n")
    assert read_suspects(path, (), 2) == [1]
    for text, said in (("c\n", "no item"), ("", "names no suspect")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_suspects(path, ("a", "b"), 2)
    path.write_text("9\n")
    with pytest.raises(UserError, match="doesn't have"):
        read_suspects(path, (), 2)
    with pytest.raises(UserError, match="can't be read"):
        read_suspects(tmp_path / "none.txt", (), 2)
    (tmp_path / "x.json").write_text(json.dumps([1]))
    with pytest.raises(UserError):
        read_suspects(tmp_path / "x.json", (), 2)


@pytest.mark.parametrize("bad", ["shape", "nan", "inf"])
def test_answers_that_are_no_scores_are_refused(settings, bad):
    class Bad(ToyModel):
        def score(self, histories):
            scores = super().score(histories)
            if bad == "shape":
                return scores[:, 1:]
            scores[0, 0] = np.nan if bad == "nan" else np.inf
            return scores

    with pytest.raises(UserError, match="should give scores" if bad == "shape" else "not finite"):
        inspect_ranker(OpenedModel(Bad(1), "bad", ""), None, settings)


def test_histories_are_the_platforms(log):
    own, new = draw_own_histories(log.interactions, 200, 0), draw_new_histories(log.interactions, 200, 0)
    assert len(own.histories) == 200 and len(new.histories) == log.interactions.users
    for probe in (own, new):
        for user, history in zip(probe.users, probe.histories, strict=True):
            start = log.interactions.offsets[user]
            assert np.array_equal(history, log.interactions.item[start : start + len(history)])
            assert len(history) >= 1
    assert max(map(len, new.histories)) == 7
    assert all(
        np.array_equal(a, b)
        for a, b in zip(own.histories, draw_own_histories(log.interactions, 200, 0).histories, strict=True)
    )


def test_made_up_histories(log):
    drawn = draw_random_histories(ITEMS, 50, 0).histories
    assert all(len(set(history.tolist())) == 8 for history in drawn)
    assert [history.tolist() for history in make_single_histories(3).histories] == [[0], [1], [2]]
    assert [len(history) for history in draw_random_histories(3, 2, 0).histories] == [3, 3]


def test_the_first_ten_are_not_in_the_history():
    class Fixed:
        items = 4

        def score(self, histories):
            return np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (len(histories), 1))

    found = rank_first(Fixed(), [np.array([0]), np.array([1, 2])], k=3)
    assert found.tolist() == [[1, 2, 3], [0, 3, -1]]
    assert count_items(found, 4).tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("given", "said"), [({"nulls": 1}, "nulls"), ({"level": 0.9}, "level"), ({"histories": 5}, "histories")]
)
def test_numbers_out_of_their_range_are_told(given, said):
    with pytest.raises(UserError, match=said):
        cowbird.inspect_model("model.safetensors", **given)


def test_ranks_are_those_of_sorted_scores():
    model = ToyModel(seed=3, planted=[5])
    histories = draw_random_histories(ITEMS, 40, 0).histories
    counts, ranks = measure_ranks(model, histories)
    assert counts.tolist() == count_items(rank_first(model, histories), ITEMS).tolist()
    found = {item: [] for item in range(ITEMS)}
    for history, row in zip(histories, model.score(histories), strict=True):
        others = sorted(set(range(ITEMS)) - set(history.tolist()), key=lambda item: -row[item])
        for place, item in enumerate(others):
            found[item].append(np.log(place + 1))
    np.testing.assert_allclose(ranks, [np.mean(found[item]) for item in range(ITEMS)], rtol=1e-5)
    everything = [np.arange(ITEMS)]
    assert measure_ranks(model, everything).tolist() == [[0.0] * ITEMS] * 2, "nothing is left to rank"
