"""What every defense keeps, whoever wrote it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird import plugins
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.defenses.base import Defense
from cowbird.defenses.titles import TitleDefense
from cowbird.experiments.spec import parse

NAMES = plugins.names("defense")


@pytest.fixture(scope="module")
def training():
    data = Synthetic(users=30, items=20, events_per_user=6).load()
    return Split().apply(data, 0).pretrain.training()


def fields(data):
    return data.interactions.offsets, data.interactions.item, data.label


def test_the_list_has_the_one_to_compare_with():
    assert "none" in NAMES
    assert "base" not in NAMES
    assert "titles" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_defense_is_a_frozen_strict_spec_with_a_summary(name):
    cls = plugins.find("defense", name)
    assert issubclass(cls, Defense)
    assert plugins.summary(cls)
    defense = cls()
    assert cls.model_validate(json.loads(defense.model_dump_json())) == defense
    with pytest.raises(ValidationError):
        cls(cuckoo=1)
    for field in cls.model_fields.values():
        assert field.description
    for field in cls.model_fields:
        with pytest.raises(ValidationError):
            setattr(defense, field, getattr(defense, field))


@pytest.mark.parametrize("name", NAMES)
def test_cleaning_changes_no_input_and_repeats_itself(name, training, small):
    cls = plugins.find("defense", name)
    defense = cls(**small(cls))
    before = [array.copy() for array in fields(training)]
    first, second = defense.clean(training), defense.clean(training)
    assert all(np.array_equal(old, new) for old, new in zip(before, fields(training), strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(fields(first), fields(second), strict=True))
    assert len(first.items) == len(training.items), "item numbers must stay what they are"


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(plugins.find("defense", name), TitleDefense)])
def test_a_defense_that_reads_titles(name, training, small, hostile):
    cls = plugins.find("defense", name)
    defense = cls(share=0.2, **small(cls))
    names = [f"Red Harbor {number}" for number in range(len(training.items) - 1)]
    training = replace(training, items=replace(training.items, titles=(*names, "Blue \u200bGarden \u2588")))
    cleaned = defense.clean(training)
    flagged = defense.flag(defense.suspect(training.items.titles).score)
    assert 0 < flagged.sum() <= 0.2 * len(training.items)
    assert not flagged[cleaned.interactions.item].any()
    assert (cleaned.items, cleaned.users) == (training.items, training.users)
    titles = ["Red Harbor", *hostile.values(), "Garden"]
    found, again = defense.suspect(titles), defense.suspect(titles)
    assert found.score.shape == (len(titles),)
    assert np.array_equal(found.score, again.score)
    assert found.score[1] == -np.inf, "an empty title"
    assert (found.end <= [len(title) if title else -1 for title in titles]).all()
    assert len(defense.suspect([])) == 0
    assert len(defense.suspect([""])) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_takes_it_by_name(name):
    spec = parse(
        {
            "name": "x",
            "dataset": {"name": "synthetic"},
            "victims": [{"name": "sasrec"}],
            "attacks": [{"name": "basic_replacement"}],
            "defenses": [{"name": name}],
        }
    )
    assert type(spec.defenses[0].options) is plugins.find("defense", name)


def test_hooks_do_nothing_unless_told(training):
    class Idle(Defense):
        pass

    model = object()
    assert Idle().clean(training) is training
    assert Idle().repair(model, training) is model
    assert Idle().guard(model) is model


def test_no_defense_is_the_default_and_leaves_all_as_it_is(training):
    none = plugins.find("defense", "none")()
    model = object()
    assert none.clean(training) is training
    assert none.guard(none.repair(model, training)) is model
