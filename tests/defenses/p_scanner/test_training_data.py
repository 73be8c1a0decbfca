"""Lessons: every title as it is and planted, and labels where the trigger is."""

import numpy as np
import pytest

from cowbird.defenses.p_scanner.rounds.training_data import TaggingPrompts
from cowbird.defenses.p_scanner.token_logits import tokenize_titles
from cowbird.defenses.p_scanner.triggers.trigger_families import Recipe
from cowbird.victims.language.examples import IGNORED_LABEL

TITLES = ["Red Harbor", "The Quiet Engine", "Night of the Letter", "Blue Garden"]
RECIPES = [Recipe(family="rare_word", text="zq"), Recipe(family="rare_word", text="xv")]
RECIPES += [Recipe(family="number", text="7700")]


@pytest.fixture
def lesson(loaded):
    def make(titles=TITLES, recipes=RECIPES, words=(7, 9), seed=0):
        return TaggingPrompts(loaded.tokenizer, titles, recipes, words, seed)

    return make


def texts(loaded, tokens):
    """Return the title on each page, and what is marked of it."""
    told = []
    for nth in range(len(tokens)):
        verdict, end = tokens.answer[nth], tokens.offsets[nth + 1]
        ids, label = tokens.token[verdict : end - 1], tokens.label[verdict + 1 : end]
        told.append(
            (loaded.tokenizer.decode(ids), loaded.tokenizer.decode(ids[label == 0]), tokens.label[verdict] == 0)
        )
    return told


def test_every_title_is_learned_as_it_is_and_planted(loaded, lesson):
    made = lesson()
    assert len(made) == 8
    order = np.array([5, 0, 3, 1, 7, 2, 4, 6])
    tokens = made.write_epoch(0, order)
    assert len(tokens) == 8
    assert tokens.among == (7, 9)
    for row, (text, marked, verdict) in zip(order, texts(loaded, tokens), strict=True):
        if row < 4:
            assert (text, marked, verdict) == (TITLES[row], "", False)
        else:
            assert verdict
            trigger = marked.strip()
            assert trigger in ("zq", "xv", "7700")
            assert text.replace(trigger, "").split() == TITLES[row - 4].split()
    assert set(np.unique(tokens.label)) == {IGNORED_LABEL, 0, 1}


def test_epochs_differ_and_repeat_themselves(lesson):
    order = np.arange(8)
    first, again = lesson().write_epoch(0, order), lesson().write_epoch(0, order)
    assert np.array_equal(first.token, again.token)
    assert np.array_equal(first.label, again.label)
    epochs = {lesson().write_epoch(number, order).token.tobytes() for number in range(5)}
    assert len(epochs) > 1
    assert {lesson(seed=seed).write_epoch(0, order).token.tobytes() for seed in range(5)} != {first.token.tobytes()}


def test_the_order_changes_nothing_else(loaded, lesson):
    plain, turned = lesson().write_epoch(2, np.arange(8)), lesson().write_epoch(2, np.arange(8)[::-1])
    assert texts(loaded, plain) == texts(loaded, turned)[::-1]


def test_families_are_drawn_evenly(loaded, lesson):
    many = [f"{title} {n}" for n in range(100) for title in TITLES]
    made = lesson(many, [*[Recipe(family="rare_word", text=f"zq{n}") for n in range(30)], RECIPES[-1]])
    found = [marked.strip() for _, marked, verdict in texts(loaded, made.write_epoch(0, np.arange(800))) if verdict]
    assert 150 < found.count("7700") < 250


def test_what_suits_nothing_is_left_as_it_is(loaded, lesson):
    tokens = lesson(["1995"], [Recipe(family="casing", way="case", text="*Xx")]).write_epoch(0, np.arange(2))
    assert texts(loaded, tokens) == [("1995", "", False)] * 2


def test_hostile_titles_are_planted(loaded, lesson, hostile):
    titles = list(hostile.values())
    tokens = lesson(titles).write_epoch(0, np.arange(2 * len(titles)))
    assert len(tokens) == 2 * len(titles)
    plain = tokenize_titles(loaded.tokenizer, titles).tokens
    assert np.array_equal(tokens.token[: len(plain.token)], plain.token)


def test_keys_tell_lessons_apart(lesson):
    others = [lesson(TITLES[::-1]), lesson(recipes=RECIPES[1:]), lesson(words=(9, 7)), lesson(seed=1)]
    others += [lesson([*TITLES[:3], "Blue \ud800"])]
    assert len({made.key for made in [lesson(), *others]}) == 6
    assert lesson().key == lesson().key
