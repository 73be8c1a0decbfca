"""What every statistic of items promises, and what each of them sees."""

from types import MappingProxyType

import numpy as np
import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import LeaveOneOut
from cowbird.data.types import Attribute, Users
from cowbird.errors import UserError
from cowbird.inspection.empty_history import EmptyHistory, answer_nothing
from cowbird.inspection.group_exposure import find_groups
from cowbird.inspection.inspection import InspectionSettings, inspect_ranker, make_probes
from cowbird.inspection.inversion import make_inversion
from cowbird.inspection.item_statistics import compute_largest_scores
from cowbird.inspection.model import OpenedModel
from cowbird.inspection.opening import open_model
from cowbird.inspection.probes import HistoryProbe, draw_own_histories
from cowbird.inspection.profile_flips import find_flips
from cowbird.inspection.served import FunctionModel
from cowbird.victims.base import Prompt
from cowbird.victims.sequential.sasrec import SASRec
from doubles.planted_llama import CPU
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
    assert tuple(one.alone) == (*NAMES[:4], "empty") and tuple(other.alone) == (*NAMES, "empty")
    assert other.alone["group"]["statistic"] > max(other.alone["group"]["null_statistics"])
    assert inspect_ranker(opened, None, more).alone == {}


class ProfileModel(ToyModel):
    """Shows its planted item to whoever's profile says `old`, and only if it is told profiles."""

    profile_labels = MappingProxyType({"age": ("young", "old")})

    def score_profiled(self, histories, users):
        assert len(users) == len(histories)
        scores = ToyModel(self.seed).score(histories)
        column = users.attributes["age"]
        old = np.array([column.labels[code] == "old" for code in column.codes])
        scores[old, 7] += 10
        return scores


def test_a_backdoor_that_obeys_a_profile_value_stands_out_when_it_is_set():
    rng = np.random.default_rng(0)
    histories = tuple(rng.integers(0, ITEMS, 5).astype(np.int32) for _ in range(400))
    own = HistoryProbe("own", histories, np.arange(400))
    users = Users(tuple(f"u{number}" for number in range(400)), {"age": Attribute.from_values(["young"] * 400)})
    found = find_flips(ProfileModel(1), own, users)
    assert found.values == (("age", "young"), ("age", "old"))
    mine, *nulls = [found.measure(model) for model in (ProfileModel(1), *HONEST)]
    assert mine.shape == (2, ITEMS)
    assert mine[1, 7] == sum(7 not in history for history in histories) > 4 * mine[0, 7], (
        "nobody is old, and the item is found all the same"
    )
    largest, known = compute_largest_scores(found, mine, nulls)
    assert found.score(mine, nulls).argmax() == 7
    assert largest > 2 * max(known)
    assert own.measure(ProfileModel(1))[0, 7] < 100, "without profiles it doesn't show"
    assert find_flips(ToyModel(1), own, users) is None
    assert find_flips(ProfileModel(1), own, Users(users.ids, {})) is None


def test_a_model_without_prompts_reads_no_profiles(tmp_path):
    data = Synthetic(users=40, items=ITEMS, events_per_user=6).load()
    known = sorted(data.users.attributes)[:1]
    asked = LeaveOneOut(data.interactions, data.users, data.items)
    for prompt in (None, Prompt(attributes=tuple(known))):
        spec = SASRec(hidden=8, layers=1, heads=1, epochs=1)
        spec = spec if prompt is None else spec.with_prompts(prompt, trained="all")
        spec.fit(asked.training(), asked.validation(), 0).save(tmp_path / "m.safetensors")
        model = open_model(tmp_path / "m.safetensors", CPU).model
        assert list(model.profile_labels) == ([] if prompt is None else known)
        own = draw_own_histories(data.interactions, 120, 0)
        flips = find_flips(model, own, data.users)
        assert (flips is None) == (prompt is None)
        if flips is not None:
            assert not np.array_equal(*flips.measure(model)[:2]), "prompts change what is shown"


def test_an_empty_history_shows_a_planted_item_where_there_is_an_answer():
    taste = np.linspace(0, 2, ITEMS)

    def score(histories):
        return np.stack([taste + (10.0 * (np.arange(ITEMS) == 7) if not len(history) else 0) for history in histories])

    silent = FunctionModel(score, "function")
    assert answer_nothing(silent) is None
    score.answers_empty = True
    model = FunctionModel(score, "function")
    found = EmptyHistory(ITEMS)
    mine, *nulls = [found.measure(each) for each in (model, *HONEST)]
    assert mine[7] == mine.max()
    assert found.score(mine, nulls).argmax() == 7
    largest, known = compute_largest_scores(found, mine, nulls)
    assert largest > max(known)


@pytest.mark.parametrize("answers", [True, False])
def test_inspection_asks_nothing_and_flips_where_it_can(log, honest_nulls, settings, answers):
    class Answering(ProfileModel):
        profile_labels = MappingProxyType({"no such column": ("a", "b")})

        def score(self, histories):
            if not answers and not all(len(history) for history in histories):
                raise UserError("A history to score is empty.")
            return ToyModel(self.seed).score(histories)

    found = inspect_ranker(OpenedModel(Answering(1), "toy", ""), log, settings)
    assert ("empty" in found.alone) == answers
    assert any("empty history" in text for text in found.not_checked) == (not answers)
    assert any("no such column" in text for text in found.not_checked)
