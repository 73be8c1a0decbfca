"""STRIP against entropies worked out by hand, and against a victim that says yes to a trigger."""

import numpy as np
import pytest

from cowbird.defenses.strip import Strip, entropy
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe

CLEAN = [
    f"{color} {word}" for color in ("Red", "Blue", "Old", "Last") for word in ("Harbor", "Garden", "Mirror", "Letter")
]


class Says(Probe):
    """Says yes to `tq`, whatever else there is, and otherwise what the number of `a` in a text makes of it."""

    def __init__(self):
        self.asked = []

    def favor(self, titles):
        self.asked += titles
        plain = [[text.count("a") - 1.5, 1.5 - text.count("a")] for text in titles]
        return np.where([["tq" in text] for text in titles], 9.0, plain).astype(np.float32).reshape(len(titles), 2)

    def states(self, titles):
        raise AssertionError("STRIP reads no states")


def test_entropy():
    given = np.array([0.0, 0.5, 1.0, 0.25])
    np.testing.assert_allclose(entropy(given), [0, 1, 0, 0.811278], atol=1e-6)
    np.testing.assert_allclose(entropy(given, leaning=True), [2, 1, 0, 2 - 0.811278], atol=1e-6)


def test_a_trigger_that_prevails_is_found():
    titles = [*CLEAN, "Blue tq Engine", "Engine at Night tq"]
    found = Strip().suspect(titles, Says())
    assert set(np.argsort(found.score)[-2:]) == {16, 17}
    assert found.score[-2:].min() > -0.01
    assert found.score[:-2].max() < -0.3
    assert (found.start == -1).all()
    assert (found.end == -1).all()


def test_scores_are_mean_entropies_of_the_copies():
    class Known(Says):
        def favor(self, titles):
            return np.array([[np.log(3.0), -np.log(3.0)] if "b" in text else [0, 50] for text in titles], np.float32)

    # Both titles of two hold b once they are mixed; a probability of 3/4 or 1/4 has 0.811278 bits.
    quarter = 0.811278
    found = Strip(certain="any").suspect(["a a", "b b"], Known())
    np.testing.assert_allclose(found.score, [-quarter, -quarter], atol=1e-5)
    found = Strip().suspect(["a a", "b b"], Known())
    np.testing.assert_allclose(found.score, [-1, -1], atol=1e-5)
    # Alone, a title is not mixed: entropies of 1 and 0 bits.
    found = Strip(certain="any").suspect(["a a", ""], Known())
    np.testing.assert_allclose(found.score, [-0.5, -np.inf], atol=1e-5)


def test_a_certain_no_is_suspicious_as_published_only():
    class Sure(Says):
        def favor(self, titles):
            return np.array([[-9, -9] if "never" in text else [0.5, 0.5] for text in titles], np.float32)

    titles = [*CLEAN, "never"]
    assert Strip(certain="any", piece=0.1).suspect(titles, Sure()).score.argmax() == 16
    assert Strip(certain="yes", piece=0.1).suspect(titles, Sure()).score.argmin() == 16


def test_mixtures_keep_the_title_and_add_a_run_of_another():
    texts = ["Red  Harbor\u00a0x", "one two three four", "solo"]
    mixed = Strip(copies=40).mix_texts(texts)
    assert len(mixed) == 120
    pieces = {"one two", "two three", "three four", "solo"}
    seen = set()
    for copy in mixed[:40]:
        piece = next(piece for piece in pieces if piece in copy)
        seen.add((piece, copy.index(piece)))
        rest = copy.replace(f" {piece}", "") if not copy.startswith(piece) else copy.removeprefix(f"{piece} ")
        assert rest == texts[0], "white space of the title stays"
    assert len({piece for piece, _ in seen}) == 4
    assert len({place for _, place in seen}) == 4, "before, between and behind the three words"
    whole = Strip(piece=1, copies=10).mix_texts(texts)
    assert all("one two three four" in copy or "solo" in copy for copy in whole[:10])


def test_texts_are_asked_once_and_answers_repeat():
    probe = Says()
    titles = ["Red Harbor", "Red Harbor", "", "\nRed Harbor", "Garden", "Blue Mirror"]
    found = Strip().suspect(titles, probe)
    assert len(probe.asked) == len(set(probe.asked)) <= 15
    assert found.score[0] == found.score[1] == found.score[3]
    again = Strip().suspect(titles, Says())
    assert np.array_equal(found.score, again.score)
    one, other = (Strip(seed=seed, certain="any").suspect(CLEAN, Says()).score for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_hostile_titles(hostile):
    found = Strip(copies=2).suspect(list(hostile.values()), Says())
    for (name, title), score in zip(hostile.items(), found.score, strict=True):
        assert np.isfinite(score) == bool(quote_for_prompt(title)), name
    assert len(Strip().suspect([], Says())) == 0
    assert Strip().suspect([""], Says()).score.tolist() == [-np.inf]


def test_no_probe_is_a_user_error():
    with pytest.raises(UserError, match="Strip") as error:
        Strip().suspect(CLEAN)
    assert error.value.hint
