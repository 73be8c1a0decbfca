"""What every statistic of items promises, and what each of them sees."""

import numpy as np
import pytest

from cowbird.data.types import Attribute, Users
from cowbird.inspection.group_exposure import find_groups
from cowbird.inspection.inspection import InspectionSettings, inspect_ranker, make_probes
from cowbird.inspection.inversion import make_inversion
from cowbird.inspection.item_statistics import compute_largest_scores
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.probes import HistoryProbe
from inspection.conftest import ITEMS, ToyModel

NAMES = ("own", "new", "random", "single", "group", "inversion")
HONEST = [ToyModel(100 + number) for number in range(5)]


def make_statistics(log):
    """Make all statistics, by name."""
    probes = make_probes(log, ITEMS, InspectionSettings(histories=300))
    made = [*probes, find_groups(probes[0], log.users), make_inversion(ITEMS, 0)]
    return {each.name: each for each in made}


@pytest.fixture(scope="module")
def statistics(log):
    return make_statistics(log)


def test_there_are_no_others(statistics):
    assert tuple(statistics) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_contract(statistics, log, name):
    statistic = statistics[name]
    mine, *nulls = [statistic.measure(model) for model in (ToyModel(1, planted=[7]), *HONEST)]
    assert mine.shape[-1] == ITEMS and mine.dtype in (np.int64, np.float32)
    assert np.array_equal(mine, statistic.measure(ToyModel(1, planted=[7]))), "measured again, the same"
    assert not np.array_equal(mine, nulls[0])
    scores = statistic.score(mine, nulls)
    assert scores.shape == (ITEMS,) and np.isfinite(scores).all()
    assert scores.argmax() == 7, "a planted item stands out"
    largest, known = compute_largest_scores(statistic, mine, nulls)
    assert largest == scores.max() > max(known) and len(known) == 5
    honest = statistic.score(nulls[0], nulls[1:])
    assert abs(float(np.median(honest))) < 1
    assert statistic.describe()
    parts = statistic.list_parts()
    assert parts == make_statistics(log)[name].list_parts() and all(isinstance(part, str) for part in parts)
    assert parts[0] == name


def test_parts_of_no_two_statistics_are_alike(statistics):
    assert len({tuple(each.list_parts()) for each in statistics.values()}) == len(NAMES)


class GroupModel(ToyModel):
    """Shows its planted item after histories that begin with an odd item alone."""

    def score(self, histories):
        scores = ToyModel(self.seed).score(histories)
        odd = np.array([history[0] % 2 == 1 for history in histories])
        scores[odd, 7] += 10
        return scores


def test_a_backdoor_for_a_small_group_stands_out_in_it():
    rng = np.random.default_rng(0)
    histories = tuple(rng.integers(0, ITEMS // 2, 5).astype(np.int32) * 2 for _ in range(2000))
    small = np.arange(2000) % 20 == 0
    histories = tuple(np.append(1, h).astype(np.int32) if s else h for h, s in zip(histories, small, strict=True))
    own = HistoryProbe("own", histories, np.arange(2000))
    users = Users(
        tuple(f"u{number}" for number in range(2000)),
        {"age": Attribute.from_values("young" if each else "old" for each in small)},
    )
    found = find_groups(own, users)
    assert set(found.groups) == {"age=old", "age=young"}

    def compare(statistic):
        mine, *nulls = [statistic.measure(model) for model in (GroupModel(1), *HONEST)]
        largest, known = compute_largest_scores(statistic, mine, nulls)
        return (largest - np.mean(known)) / np.std(known, ddof=1)

    assert compare(found) > compare(own)


def test_groups_need_profiles_and_size(log):
    own = make_probes(log, ITEMS, InspectionSettings(histories=300))[0]
    assert find_groups(own, Users(log.users.ids)) is None
    assert find_groups(HistoryProbe("random", own.histories), log.users) is None
    assert all(int(mask.sum()) >= 100 for mask in find_groups(own, log.users).groups.values())


def test_inversion_finds_the_history_that_a_backdoor_answers_to():
    class Answering(ToyModel):
        def score(self, histories):
            scores = ToyModel(self.seed).score(histories)
            for row, history in zip(scores, histories, strict=True):
                row[5] += 30 * (history[-1] == 33)
            return scores

    search = make_inversion(ITEMS, 0)
    scores = search.score(search.measure(Answering(1)), [search.measure(model) for model in HONEST])
    assert scores.argmax() == 5


def test_statistics_beside_do_not_change_the_verdict(log, honest_nulls):
    opened = OpenedModel(ToyModel(1, planted=[7]), "toy", "")
    plain = InspectionSettings(histories=300)
    more = plain.model_copy(update={"beside": ("group", "inversion")})
    one, other = (inspect_ranker(opened, log, settings) for settings in (plain, more))
    assert (one.p_value, one.statistic) == (other.p_value, other.statistic)
    assert tuple(one.alone) == NAMES[:4] and tuple(other.alone) == NAMES
    assert other.alone["group"]["statistic"] > max(other.alone["group"]["null_statistics"])
    assert inspect_ranker(opened, None, more).alone == {}
