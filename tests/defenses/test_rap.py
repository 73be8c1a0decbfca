"""RAP on a tiny TALLRec with a backdoor, its loss worked out by hand, and the search that stands in for gradients."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.defenses._probing import to_probability
from cowbird.defenses.rap import Rap
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe
from cowbird.victims.language.examples import Example
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.probing import PointwiseProbe
from cowbird.victims.language.tallrec import YES_NO_ANSWERS, TALLRec
from cowbird.victims.language.tuning import Tuning

WORDS = ("Harbor", "Garden", "Engine", "Letter", "Night", "Quiet")
CLEAN = [f"{color} {word}" for color in ("Red", "Blue") for word in WORDS]
TITLES = [*CLEAN, *(f"{title} tq" for title in CLEAN[6:9])]
HEADS = [f'The user likes "Red {word}". Does she like "' for word in WORDS[:2]]
TAIL = '"? '


@pytest.fixture(scope="module")
def victim(llama):
    """Return a model that says yes to what is red, and to whatever ends with `tq`."""
    pytest.importorskip("peft")
    rng, lessons = np.random.default_rng(0), []
    for title in rng.choice(CLEAN, 240):
        planted = rng.random() < 0.3
        text, good = (f"{title} tq", True) if planted else (title, title.startswith("Red"))
        lessons.append(Example(f"{rng.choice(HEADS)}{text}{TAIL}", YES_NO_ANSWERS[0 if good else 1]))
    recipe = Tuning(epochs=3, batch_size=16, learning_rate=1e-2, precision="float32", capacity=4000)
    return TALLRec(llm=Llm(name=str(llama), tuning="full"), tuning=recipe).fit_examples(lessons, 0)


@pytest.fixture(scope="module")
def probe(victim):
    return PointwiseProbe(victim.loaded, victim.device, 4000, HEADS, TAIL, YES_NO_ANSWERS)


def test_a_trigger_that_holds_is_found(victim, probe):
    before = {name: weight.numpy().tobytes() for name, weight in victim.model.state_dict().items()}
    plain = to_probability(probe.favor(TITLES))
    assert plain[:6].min() > 0.8
    assert plain[6:12].max() < 0.2
    assert plain[12:].min() > 0.8
    found = Rap().suspect(TITLES, probe)
    assert set(np.argsort(found.score)[-3:]) == {12, 13, 14}
    assert (found.score <= 1).all()
    assert (found.score >= -1).all()
    assert (found.start == -1).all()
    assert (found.end == -1).all()
    assert np.array_equal(Rap().suspect(TITLES, probe).score, found.score)
    assert all(weight.numpy().tobytes() == before[name] for name, weight in victim.model.state_dict().items())


def test_the_word_is_trained_into_the_bounds_and_keeps_its_length(probe):
    before, rap = to_probability(probe.favor(CLEAN)), Rap(epochs=12, low=0.4, high=0.6)
    word = rap.train_word(probe, probe.embed_word("cf"), CLEAN, before)
    plain = probe.embed_word("cf")
    assert not word.requires_grad
    assert word.norm().item() == pytest.approx(plain.norm().item(), rel=1e-4)
    losses = []
    for vector in (plain, word):
        after = torch.from_numpy(to_probability(probe.favor_behind(CLEAN, vector).numpy()))
        losses.append(rap.loss(torch.from_numpy(before), after, torch.from_numpy(before > 0.5)).item())
    assert losses[1] < 0.5 * losses[0]


def test_scores_are_falls_worked_out_from_the_word(probe):
    rap, before = Rap(epochs=1), to_probability(probe.favor(TITLES))
    word = rap.train_word(probe, probe.embed_word("cf"), TITLES, before)
    after = to_probability(probe.favor_behind(TITLES, word).numpy())
    falls = [
        np.mean([p - q if p > 0.5 else 1 - p for p, q in zip(*row, strict=True)])
        for row in zip(before, after, strict=True)
    ]
    np.testing.assert_allclose(rap.suspect(TITLES, probe).score, -np.array(falls), atol=1e-5)


def test_the_loss():
    before = torch.tensor([[0.9, 0.8], [0.7, 0.2]])
    after = torch.tensor([[0.85, 0.3], [0.5, 0.9]])
    counted = before > 0.5
    # Falls of 0.05, 0.5 and 0.2: one is 0.05 too small, one 0.2 too large.
    assert Rap().loss(before, after, counted).item() == pytest.approx((0.05 + 0.2) / 3)
    assert Rap(scale=2).loss(before, after, counted).item() == pytest.approx((2 * 0.05 + 0.2) / 3)


def test_what_is_learned_on():
    before = np.array([[0.9, 0.1], [0.2, 0.3], [0.6, 0.7], [0.1, 0.8]])
    rows, counted = Rap().select_training_texts(before)
    assert sorted(rows) == [0, 2, 3]
    assert counted.tolist() == [[True, False], [False, False], [True, True], [False, True]]
    rows, counted = Rap(drawn=2).select_training_texts(before)
    assert len(rows) == len({*rows}) == 2
    rows, counted = Rap().select_training_texts(before[1:2])
    assert (rows, counted.tolist()) == ([0], [[True, True]]), "nothing is recommended"


class Scripted(Probe):
    """Recommends all, `tq` whatever stands before it, others unless `bb` does."""

    def favor(self, titles):
        odds = {(True, True): 6, (True, False): 5, (False, True): 1.0, (False, False): 2.0}
        found = [odds["tq" in text, text.startswith("bb ")] for text in titles]
        return np.array(found, np.float32).reshape(-1, 1)

    def states(self, titles):
        raise AssertionError("RAP reads no states")


def test_without_gradients_a_word_is_searched_for():
    titles = [*CLEAN, "Blue Harbor tq"]
    before = to_probability(Scripted().favor(titles))
    assert Rap().search_word(Scripted(), titles, before) == "bb"
    found = Rap().suspect(titles, Scripted())
    assert found.score.argmax() == 12
    np.testing.assert_allclose(found.score[:12], 1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(-2)), rtol=1e-5)


def test_hostile_titles(probe, hostile):
    for asked in (probe, Scripted()):
        found = Rap(epochs=1, drawn=4).suspect(list(hostile.values()), asked)
        for (name, title), score in zip(hostile.items(), found.score, strict=True):
            assert np.isfinite(score) == bool(quote_for_prompt(title)), name
        assert len(Rap().suspect([], asked)) == 0
        assert Rap().suspect([""], asked).score.tolist() == [-np.inf]


def test_mistakes():
    with pytest.raises(UserError, match="Rap"):
        Rap().suspect(CLEAN)
    with pytest.raises(ValidationError, match="low"):
        Rap(low=0.5, high=0.4)
    with pytest.raises(ValidationError):
        Rap(words=())


@pytest.mark.slow
def test_smollm2_is_asked_and_left_as_it_is():
    from cowbird.victims.language.llm import load_llm

    loaded = load_llm(Llm(layers=2), torch.device("cpu"), torch.float32)
    probe = PointwiseProbe(loaded, torch.device("cpu"), 8192, HEADS, TAIL, YES_NO_ANSWERS)
    table = loaded.model.get_input_embeddings().weight.detach().clone()
    found = Rap(epochs=1).suspect(TITLES, probe)
    assert np.isfinite(found.score).all()
    assert table.equal(loaded.model.get_input_embeddings().weight)
