"""What every defense keeps, whoever wrote it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird import plugins
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.defenses.base import PROBE_QUESTIONS, Defense
from cowbird.defenses.titles import TitleDefense
from cowbird.errors import UserError
from cowbird.experiments.spec import parse_spec

NAMES = plugins.list_plugins("defense")
TITLED = [name for name in NAMES if issubclass(plugins.find_plugin("defense", name), TitleDefense)]
DEAR = {"bki", "rap", "strip"}
"""Those that ask a victim so often that a test of them takes long."""


def spare(names):
    """Return names as parameters; tests of the dear ones are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in DEAR)) for name in names]


@pytest.fixture(scope="module")
def training():
    data = Synthetic(users=30, items=20, events_per_user=6).load()
    return Split().apply(data, 0).pretrain.training()


@pytest.fixture(scope="module")
def asked(llama):
    """Return a function that gives the probe of a tiny TALLRec to a class that asks for one, and `None` to others."""
    from doubles.tiny_tallrec import ITEMS, tiny
    from doubles.tiny_tallrec import asked as questions

    fitted = []

    def probe(cls):
        if not cls.asks_victim:
            return None
        if not fitted:
            fitted.append(tiny(llama, {"capacity": 2000, "epochs": 1}).fit(questions(), ITEMS, 0))
        return fitted[0].probe(questions(seed=1).select([0]), ITEMS)

    return probe


def fields(data):
    return data.interactions.offsets, data.interactions.item, data.label


def test_the_list_has_the_one_to_compare_with():
    assert "none" in NAMES
    assert "base" not in NAMES
    assert "titles" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_defense_is_a_frozen_strict_spec_with_a_summary(name):
    cls = plugins.find_plugin("defense", name)
    assert issubclass(cls, Defense)
    assert plugins.summarize_plugin(cls)
    defense = cls()
    assert cls.model_validate(json.loads(defense.model_dump_json())) == defense
    with pytest.raises(ValidationError):
        cls(cuckoo=1)
    for field in cls.model_fields.values():
        assert field.description
    for field in cls.model_fields:
        with pytest.raises(ValidationError):
            setattr(defense, field, getattr(defense, field))


@pytest.mark.parametrize("name", spare(NAMES))
def test_cleaning_changes_no_input_and_repeats_itself(name, training, small, asked):
    cls = plugins.find_plugin("defense", name)
    defense, probe = cls(**small(cls)), asked(cls)
    before = [array.copy() for array in fields(training)]
    first, second = defense.clean(training, probe), defense.clean(training, probe)
    assert all(np.array_equal(old, new) for old, new in zip(before, fields(training), strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(fields(first), fields(second), strict=True))
    assert len(first.items) == len(training.items), "item numbers must stay what they are"


@pytest.mark.parametrize("name", spare(TITLED))
def test_a_defense_that_reads_titles(name, training, small, hostile, asked):
    cls = plugins.find_plugin("defense", name)
    defense, probe = cls(share=0.2, **small(cls)), asked(cls)
    names = [f"Red Harbor {number}" for number in range(len(training.items) - 1)]
    training = replace(training, items=replace(training.items, titles=(*names, "Blue \u200bGarden \u2588")))
    verdict = defense.judge(training.items.titles, probe)
    flagged = verdict.flagged
    cleaned = defense.clean(training, probe)
    assert flagged.sum() <= 0.2 * len(training.items)
    assert cls.asks_victim or flagged.any(), "what a victim makes of them is its own affair"
    assert not flagged[cleaned.interactions.item].any()
    assert (cleaned.items, cleaned.users) == (training.items, training.users)
    titles = ["Red Harbor", *hostile.values(), "Garden"]
    found, again = (defense.judge(titles, probe).found for _ in range(2))
    assert found.score.shape == (len(titles),)
    assert np.array_equal(found.score, again.score)
    assert found.score[1] == -np.inf, "an empty title"
    assert (found.end <= [len(title) if title else -1 for title in titles]).all()
    for few in ([], [""]):
        assert len(defense.judge(few, probe).found) == len(few)


@pytest.mark.parametrize("name", [name for name in TITLED if plugins.find_plugin("defense", name).asks_victim])
def test_a_defense_that_asks_says_so_without_a_probe(name, training, small):
    cls = plugins.find_plugin("defense", name)
    with pytest.raises(UserError):
        cls(**small(cls)).clean(training)


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_takes_it_by_name(name):
    spec = parse_spec(
        {
            "name": "x",
            "dataset": {"name": "synthetic"},
            "victims": [{"name": "sasrec"}],
            "attacks": [{"name": "basic_replacement"}],
            "defenses": [{"name": name}],
        }
    )
    assert type(spec.defenses[0].options) is plugins.find_plugin("defense", name)


def test_hooks_do_nothing_unless_told(training):
    class Idle(Defense):
        pass

    model = object()
    assert Idle().clean(training) is training
    assert Idle().repair(model, training) is model
    assert Idle().guard(model) is model
    assert Idle().count_probe_questions() == PROBE_QUESTIONS
    assert plugins.find_plugin("defense", "strip")(questions=3).count_probe_questions() == 3


def test_no_defense_is_the_default_and_leaves_all_as_it_is(training):
    none = plugins.find_plugin("defense", "none")()
    model = object()
    assert none.clean(training) is training
    assert none.guard(none.repair(model, training)) is model
