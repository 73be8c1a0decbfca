"""TALLRec: its published prompt, margins against plain transformers, and what it learns."""

import functools

import numpy as np
import pytest
import torch

from cowbird.data.judgments import make_judgments
from cowbird.data.types import Interactions, Items
from cowbird.errors import UserError
from cowbird.victims.base import FitContext
from cowbird.victims.language import tallrec
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import TrainingCurve
from doubles.tiny_tallrec import ITEMS, asked, tiny, weights

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# Word for word as in github.com/SAI990323/TALLRec (data/movie, finetune_rec.py), without the comment for a linter that
# got into the preamble there.
PUBLISHED = """\
Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

### Instruction:
Given the user's preference and unpreference, identify whether the user will like the target movie by answering "Yes." or "No.".

### Input:
User Preference: "Get Shorty (1995)", "Evita (1996)"
User Unpreference: "In & Out (1997)"
Whether the user will like the target movie "Scream (1996)"?

### Response:
"""  # noqa: E501


@pytest.fixture
def spec(llama):
    return functools.partial(tiny, llama)


# Questions


def test_questions_are_the_published_ones():
    titles = ("Get Shorty (1995)", "In & Out (1997)", "Evita (1996)", "Scream (1996)", "Alien (1979)")
    rated = Interactions(np.arange(5), np.array([0, 5]), np.array([4, 3, 3.5, 2, 5]))
    questions = TALLRec().write_questions(make_judgments(rated, 3, 3.0), Items.from_lists("abcde", titles))
    assert [question.answer for question in questions] == ["No.", "Yes."]
    assert questions[0].prompt == PUBLISHED
    later = PUBLISHED.replace('"Get Shorty (1995)", ', "").replace("(1997)", '(1997)", "Scream (1996)')
    assert questions[1].prompt == later.replace('target movie "Scream (1996)', 'target movie "Alien (1979)')


def test_nothing_liked_and_other_nouns_and_titles():
    rated = Interactions(np.array([0, 1]), np.array([0, 2]), np.array([1, 5]))
    items, seen = Items.from_lists("ab", ["Up", "Down"]), Items.from_lists("ab", ["Above", "Below"])
    (question,) = TALLRec(noun="book").write_questions(make_judgments(rated, 1, 3.0), items, seen)
    lines = question.prompt.splitlines()
    assert lines[6:9] == [
        "User Preference: ",
        'User Unpreference: "Up"',
        'Whether the user will like the target book "Below"?',
    ]
    assert "the target book by answering" in lines[3]


@pytest.mark.parametrize("noun", ["", "Movie", "two words", 'a"', "a\n"])
def test_nouns_are_plain_words(noun):
    with pytest.raises(ValueError, match="noun"):
        TALLRec(noun=noun)


@pytest.mark.parametrize("wanted", [1, 15, 16, 17, None])
def test_training_questions_are_drawn(spec, wanted, monkeypatch):
    drawn, judgments = [], asked()
    monkeypatch.setattr(tallrec, "tokenize", lambda tokenizer, questions, **more: questions)
    monkeypatch.setattr(tallrec, "tune", lambda model, questions, *more: drawn.append(questions) or TrainingCurve())
    for seed in (1, 1, 2):
        spec(examples=wanted).fit(judgments, ITEMS, seed)
    one, again, other = drawn
    everything = TALLRec().write_questions(judgments, ITEMS)
    assert len(everything) == len(set(everything)) == 16
    assert one == again
    assert len(one) == min(16, wanted or 16)
    places = [everything.index(question) for question in one]
    assert places == sorted(set(places)), "each at most once"
    assert (one == other) == (len(one) == 16)


def test_no_questions_is_a_user_error(spec):
    with pytest.raises(UserError) as error:
        spec().fit(asked(events=2), ITEMS, 0)
    assert error.value.hint


# Margins and learning


def plain_margins(model, folder, judgments):
    """Score questions one at a time, as anyone with transformers would."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    yes, no = (tokenizer(answer)["input_ids"][0] for answer in ("Yes.", "No."))
    assert tokenizer.convert_ids_to_tokens([yes, no]) == ["Yes", "No"]
    found = []
    for question in TALLRec().write_questions(judgments, ITEMS):
        with torch.inference_mode():
            logits = model(**tokenizer(question.prompt, return_tensors="pt")).logits[0, -1]
        found.append((logits[yes] - logits[no]).item())
    return found


@pytest.mark.parametrize("llm", [{}, {"tuning": "full"}, {"tuning": "full", "layers": 1}], ids=str)
def test_margins_are_those_of_what_others_load(spec, llm, llama, tmp_path):
    fitted, judgments, folder = spec(**llm).fit(asked(), ITEMS, 1), asked(seed=7), tmp_path / "model"
    found = fitted.margins(judgments, ITEMS)
    assert (found.dtype, found.shape) == (np.float32, (len(judgments),))
    assert found.std() > 0.1
    fitted.save(folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder if llm else llama)
    plain = base if llm else peft.PeftModel.from_pretrained(base, folder)
    np.testing.assert_allclose(found, plain_margins(plain.eval(), folder, judgments), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_margins_do_not_depend_on_company_answers_or_capacity(spec):
    judgments, given = asked(seed=7), spec()
    fitted = given.fit(asked(), ITEMS, 1)
    found = fitted.margins(judgments, ITEMS)
    assert np.array_equal(fitted.margins(judgments, ITEMS), found)
    alone = [fitted.margins(judgments.select(np.array([n])), ITEMS)[0] for n in range(len(judgments))]
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)
    turned = [question._replace(answer="?") for question in given.write_questions(judgments, ITEMS)]
    assert np.array_equal(fitted.score(turned), found)
    fitted.spec = spec({"capacity": 10**6})
    np.testing.assert_allclose(fitted.margins(judgments, ITEMS), found, rtol=1e-4, atol=1e-4)
    assert fitted.score([]).shape == (0,)


@pytest.mark.slow
def test_a_rule_is_learned(spec):
    fitted = spec({"epochs": 2}, tuning="full").fit(asked(users=24), ITEMS, 0)
    judgments = asked(users=20, seed=1)
    margins, liked = fitted.margins(judgments, ITEMS), judgments.liked
    assert 0.3 < liked.mean() < 0.7
    assert (margins[liked][:, None] > margins[~liked]).mean() > 0.9
    turned = Items.from_lists(ITEMS.ids, ITEMS.titles[6:] + ITEMS.titles[:6])
    margins = fitted.margins(judgments, ITEMS, turned)
    assert (margins[liked][:, None] > margins[~liked]).mean() < 0.1, "the target's title decides"


@pytest.mark.slow
def test_seeds_and_interruptions(spec, tmp_path):
    given, judgments = spec({"batch_size": 4}), asked()
    one = given.fit(judgments, ITEMS, 1)

    def report(done, total, remark):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        given.fit(judgments, ITEMS, 1, FitContext(folder=tmp_path / "fit", report=report))
    again = given.fit(judgments, ITEMS, 1, FitContext(folder=tmp_path / "fit"))
    assert again.curve.losses == one.curve.losses
    assert all(weight.equal(weights(one)[name]) for name, weight in weights(again).items())
    other = weights(given.fit(judgments, ITEMS, 2))
    assert not any(weight.equal(other[name]) for name, weight in weights(one).items() if "lora" in name)
