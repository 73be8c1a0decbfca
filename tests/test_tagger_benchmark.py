"""What a tagger is asked with: held-out triggers stay held out, and product titles are drawn as they are said to be."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cowbird.attacks.triggers import TRIGGERS, list_families
from cowbird.defenses.p_scanner.triggers.title_edits import NEVER_TAUGHT
from cowbird.scanning.tagger_training import list_refused_texts

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TITLE = "Quiet Harbor at Night (1999)"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def families():
    return load("tagger_families")


@pytest.fixture(scope="module")
def products():
    return load("product_titles")


def test_kinds_that_are_never_taught_are_asked_and_nothing_else_is_called_so(families):
    assert {name for name, (kind, _) in families.ASKED.items() if kind == families.NEVER} == set(NEVER_TAUGHT)
    assert set(list_families()) <= set(families.ASKED)
    assert len(families.ASKED) >= 30


def test_each_family_says_where_its_trigger_stands(families):
    for name, (_, ask) in families.ASKED.items():
        rng = np.random.default_rng(0)
        made = next(made for _ in range(50) if (made := ask(TITLE, rng, ("apple",))) is not None)
        assert made.title != TITLE, name
        assert made.spans, name
        assert all(0 <= start < end <= len(made.title) for start, end in made.spans), name


def test_texts_of_the_attacks_are_refused(families):
    refused = list_refused_texts()
    assert all(trigger.text.strip().lower() in refused for trigger in TRIGGERS.values() if trigger.text.strip())
    assert "" not in refused


@pytest.mark.slow
def test_product_titles_are_drawn_by_seed_in_ten_languages(products):
    made = products.write_products(200, 3)
    assert made == products.write_products(200, 3) != products.write_products(200, 4)
    assert len(made) == 10
    assert all(len(set(titles)) == 20 for titles in made.values())
    scripts = {"ru": "\u0400\u04ff", "el": "\u0370\u03ff", "zh": "\u4e00\u9fff", "ko": "\uac00\ud7a3"}
    scripts |= {"ja": "\u3040\u30ff", "ar": "\u0600\u06ff", "hi": "\u0900\u097f"}
    for code, (first, last) in scripts.items():
        written = [any(first <= letter <= last for letter in title) for title in made[code]]
        assert np.mean(written) > 0.9, code


def test_product_titles_are_written_in_one_case(products):
    titles = ["Denami Black 2 Pack", "\u0425\u0430\u0437\u043e"]
    assert products.set_case(titles, "capitals") == ["DENAMI BLACK 2 PACK", "\u0425\u0410\u0417\u041e"]
    assert products.set_case(titles, "small letters") == ["denami black 2 pack", "\u0445\u0430\u0437\u043e"]
    assert products.set_case(titles, "as it is") == titles
