"""What makes a score is part of a scanner's identity, so that thresholds of other scores are refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ready_doubles import ContextDouble, ReadyDouble, make_titles

import cowbird.defenses.p_scanner
from cowbird.defenses.p_scanner import (
    baseline_learning,
    catalog_judge,
    fragment_verdicts,
    inventory,
    score_identity,
    scoring,
    second_look,
    shape_drift,
    slip_evidence,
    spelling,
    title_context,
    title_evidence,
    title_rules,
    title_slips,
    word_shapes,
)
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.score_identity import SCORE_FORM, SCORE_MODULES, hash_score_form
from cowbird.defenses.p_scanner.scoring import load_scoring

MAKE_NO_SCORE = {
    "calibrated",  # what it adds to scores is `baseline_learning`'s
    "calibration_file",
    "loading",
    "p_scanner",  # the paper's
    "ready",  # its two constants are in `ReadyScanner.identity`
    "score_identity",
    "small_tagger",  # its record holds what it is
    "small_tagger_network",  # likewise
    "tagger",  # likewise
    "title_explanations",  # words
    "verdict_reasons",  # words
    "trick_reasons",  # words
}
CHANGED = [
    (scoring, "TRICK_LOG_ODDS", 7.0),
    (scoring, "FRAGMENT_WEIGHT", 0.6),
    (scoring, "FRAGMENT_WEIGHT_BESIDE", 0.3),
    (slip_evidence, "GAIN_WEIGHT", 0.6),
    (title_slips, "SHOWN_TITLES", ("Another",)),
    (scoring, "RARE_WEIGHTS", (1.5, 0.6)),
    (fragment_verdicts, "FRAGMENT_ROUNDS", 4),
    (fragment_verdicts, "HONEST_MARK", 0.5),
    (title_evidence, "MAX_TRICK_SHARE", 0.02),
    (title_rules, "_DIRECTION", frozenset((0x202A,))),
    (second_look, "OPEN_SHARE", 0.2),
    (title_context, "CONTEXT_TOKENS", 512),
    (baseline_learning, "SHOWN_BELOW", 0.6),
    (inventory, "SPLITS", 5),
    (catalog_judge, "MARK_DECIMALS", 3),
    (spelling, "MIN_TITLES_KNOWN", 4),
    (shape_drift, "CHANCE", 5.0),
    (word_shapes, "MAX_SIZE_TOLD", 6),
    (score_identity, "SCORE_FORM", SCORE_FORM + 1),
]


def make_scanner(**changed) -> ReadyScanner:
    record = SimpleNamespace(model_dump_json=lambda: "a tagger")
    return ReadyScanner(SimpleNamespace(record=record, device=SimpleNamespace(type="cpu")), load_scoring(), **changed)


@pytest.fixture
def forget():
    hash_score_form.cache_clear()
    yield
    hash_score_form.cache_clear()


@pytest.mark.parametrize(("module", "name", "value"), CHANGED, ids=[name for _, name, _ in CHANGED])
def test_a_constant_that_makes_a_score_is_part_of_the_identity(module, name, value, monkeypatch, forget):
    before = make_scanner().identity
    assert getattr(module, name) != value
    monkeypatch.setattr(module, name, value)
    hash_score_form.cache_clear()
    assert make_scanner().identity != before


def test_the_identity_is_the_same_each_time_and_tells_cascades_apart(forget):
    before = make_scanner().identity
    hash_score_form.cache_clear()
    assert make_scanner().identity == before
    assert make_scanner(second=second_look.SecondLook(lambda: None, "a language model")).identity != before


def test_each_module_of_the_room_is_asked_for_its_constants_or_makes_no_score():
    room = Path(cowbird.defenses.p_scanner.__file__).parent
    named = {*SCORE_MODULES} | MAKE_NO_SCORE
    assert {path.stem for path in room.glob("*.py")} - {"__init__"} == named


def judge_known_titles() -> dict[str, list[float]]:
    """Return scores and thresholds of titles that never change, in the three ways in which titles are judged.

    Without a context, and behind one.
    """
    titles = make_titles(220)
    before, batch = titles[:110], titles[110:]
    batch = [
        f"{title} 5v" if nth < 5 else title.replace("e", "\u200be", 1) if nth == 7 else title
        for nth, title in enumerate(batch)
    ]
    batch[9], batch[11] = "The Rivver Stone Song", "the SHADOW castle Night."
    made = {}
    for double, behind in ((ReadyDouble(), ""), (ContextDouble(), " behind a context")):
        asked = double.learn_baseline(batch), double.learn_baseline(batch, before)
        apart = double.learn_beside(double.take_inventory(before), [])
        for name, baseline in (("itself", asked[0]), ("beside", asked[1]), ("apart", apart)):
            found = double.judge(batch, baseline)
            made[name + behind] = [
                float(value) for value in np.round([*baseline.thresholds, *found.score[:14], found.score.sum()], 3)
            ]
    return made


KNOWN = {
    "itself": [
        -0.997,
        -4.063,
        8.455,
        8.47,
        8.455,
        8.587,
        8.588,
        -5.336,
        -3.632,
        1.46,
        -6.2,
        -4.955,
        -5.52,
        -0.997,
        -6.715,
        -5.493,
        -529.321,
    ],
    "beside": [
        -2.102,
        -2.866,
        3.249,
        3.259,
        3.236,
        3.279,
        3.26,
        -6.082,
        -4.723,
        0.905,
        -7.349,
        -5.605,
        -5.465,
        -0.784,
        -7.555,
        -5.63,
        -598.686,
    ],
    "apart": [
        -1.933,
        -2.82,
        -0.207,
        -0.195,
        -0.224,
        -0.168,
        -0.193,
        -3.64,
        -2.203,
        3.323,
        -4.636,
        -3.241,
        -3.818,
        -0.782,
        -5.197,
        -3.907,
        -407.947,
    ],
    "itself behind a context": [
        -0.254,
        -4.232,
        8.388,
        8.403,
        8.388,
        8.518,
        8.519,
        -7.472,
        -6.367,
        2.333,
        -7.303,
        -4.091,
        -7.359,
        -0.254,
        -7.541,
        -7.235,
        -646.21,
    ],
    "beside behind a context": [
        -2.102,
        -3.071,
        3.247,
        3.256,
        3.234,
        3.277,
        3.258,
        -8.323,
        -7.481,
        1.304,
        -8.016,
        -3.808,
        -7.461,
        -0.11,
        -8.251,
        -7.719,
        -743.262,
    ],
    "apart behind a context": [
        -1.736,
        -2.892,
        -0.207,
        -0.195,
        -0.224,
        -0.168,
        -0.193,
        -5.513,
        -5.199,
        4.222,
        -5.513,
        -1.403,
        -5.372,
        -0.11,
        -5.552,
        -5.459,
        -517.364,
    ],
}
"""Of `SCORE_FORM` 4."""


def test_the_form_grows_where_scores_change():
    found = judge_known_titles()
    for way, scores in KNOWN.items():
        assert found[way] == pytest.approx(scores, abs=2e-3), (
            f"titles are scored otherwise ('{way}'). If that is meant, raise score_identity.SCORE_FORM, so that "
            f"calibrations of before are refused, and write into KNOWN: {found}"
        )
    assert found.keys() == KNOWN.keys()
