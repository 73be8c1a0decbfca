"""ONION against transformers run on one text at a time."""

import numpy as np
import pytest

from cowbird.defenses import onion
from cowbird.defenses.onion import Onion
from cowbird.text import quote_for_prompt
from cowbird.victims.language.llm import Llm

TITLES = ["Red Harbor", "Garden", "Blue Garden xq at Night", "Blue Garden xq at Night", "", "cf The Engine", "a  b\tc"]


@pytest.fixture(scope="module")
def defense(llama):
    return Onion(llm=Llm(name=str(llama)), device="cpu")


def test_known_answers(defense, plainly):
    def perplexity(text):
        return np.exp(plainly(text)[0].mean())

    found = defense.suspect(TITLES)
    for nth, title in enumerate(TITLES):
        words = quote_for_prompt(title).split(" ") if "  " not in title else ["a", "b", "c"]
        if len(words) < 2:
            assert (found.score[nth], found.start[nth], found.end[nth]) == (-np.inf, -1, -1)
            continue
        rests = [" ".join(words[:at] + words[at + 1 :]) for at in range(len(words))]
        if "  " in title:  # white space that belongs to no removed word stays
            rests = ["b c", "a c", "a  b"]
        falls = [perplexity(quote_for_prompt(title)) - perplexity(rest) for rest in rests]
        assert found.score[nth] == pytest.approx(max(falls), rel=1e-4, abs=1e-2)
        assert title[found.start[nth] : found.end[nth]] == words[int(np.argmax(falls))]


def test_every_text_is_read_once(defense, monkeypatch):
    read = []
    token_losses = onion.measure_token_losses

    def noted(loaded, texts):
        read.extend(texts)
        return token_losses(loaded, texts)

    monkeypatch.setattr(onion, "measure_token_losses", noted)
    defense.suspect(["a b", "a b", "b", "b a", "\na b", "a a b"])
    assert sorted(read) == sorted({"a b", "b", "a", "b a", "a a b", "a a"})


def test_spans_are_those_of_the_raw_title(defense):
    found = defense.suspect(["\n\x00 Red \x01\x02 Harbor"])
    assert (found.start[0], found.end[0]) in {(3, 6), (10, 16)}


def test_hostile_titles(defense, hostile):
    found = defense.suspect(list(hostile.values()))
    for (name, title), score, start, end in zip(hostile.items(), found.score, found.start, found.end, strict=True):
        assert np.isfinite(score) == (len(quote_for_prompt(title).split()) > 1) == (start >= 0), name
        assert not any(letter.isspace() for letter in title[max(start, 0) : max(end, 0)]), name


@pytest.mark.slow
def test_smollm2_points_at_nonsense():
    titles = ["The Godfather Part (1972)", "Toy Story xq#z7 (1995)"]
    found = Onion(device="cpu").suspect(titles)
    assert found.score[0] < found.score[1]
    assert titles[1][found.start[1] : found.end[1]] == "xq#z7"
