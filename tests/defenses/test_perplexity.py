"""The perplexity filter against transformers run on one title at a time."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.defenses.perplexity import Perplexity
from cowbird.text import quote_for_prompt
from cowbird.victims.language import perplexity
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.perplexity import measure_token_losses, read_titles

TITLES = [
    "Red Harbor",
    "x",
    "Am\u00e9lie 5v",
    "The Engine at Night " * 4,
    "",
    "Quiet \x01\x02 xq#z7",
    "Red Harbor",
    "\U0001f525",
]


@pytest.fixture(scope="module")
def made(llama):
    return lambda **fields: Perplexity(llm=Llm(name=str(llama)), device="cpu", **fields)


def test_whole_titles(made, plainly):
    found = made().suspect(TITLES)
    expected = [plainly(quote_for_prompt(title))[0].mean() if title else -np.inf for title in TITLES]
    np.testing.assert_allclose(found.score, expected, rtol=1e-5)
    assert (found.start == -1).all()
    assert (found.end == -1).all()


@pytest.mark.parametrize("window", [1, 3, 1000])
def test_windows(made, plainly, window):
    found = made(window=window).suspect(TITLES)
    for nth, title in enumerate(TITLES):
        if not title:
            assert (found.score[nth], found.start[nth], found.end[nth]) == (-np.inf, -1, -1)
            continue
        loss, places = plainly(quote_for_prompt(title))
        width = min(window, len(loss))
        each = [loss[at : at + width].mean() for at in range(len(loss) - width + 1)]
        at = int(np.argmax(each))
        assert found.score[nth] == pytest.approx(each[at], rel=1e-5)
        if title.isprintable():  # quotable as it is
            inside = title[places[at][0] : places[at + width - 1][1]]
            span = title[found.start[nth] : found.end[nth]]
            assert span == inside.strip()


def test_spans_are_those_of_the_raw_title(made):
    whole = made(window=1000).suspect(["\n\n Quiet \x01\x02\x03 Harbor\t"])
    assert (whole.start[0], whole.end[0]) == (3, 19)


def test_tokens_are_those_that_are_read_elsewhere(llama, hostile, monkeypatch):
    loaded = load_llm(Llm(name=str(llama)), torch.device("cpu"), torch.float32)
    titles, told = [*TITLES, *hostile.values()], []
    loss, offsets = measure_token_losses(loaded, titles, 300, lambda *args: told.append(args))
    reading = read_titles(loaded, titles)
    assert np.diff(offsets).tolist() == reading.tokens.tolist()
    assert told[-1] == (len(titles), len(titles), "titles")
    for nth in np.flatnonzero(reading.measured):
        assert loss[offsets[nth] : offsets[nth + 1]].mean() == pytest.approx(reading.loss[nth], rel=1e-4)
    monkeypatch.setattr(perplexity, "LOSS_CHUNK_TOKENS", 7)
    np.testing.assert_allclose(measure_token_losses(loaded, titles, 10**6)[0], loss, rtol=1e-3, atol=1e-4)
    assert [len(part) for part in measure_token_losses(loaded, [])] == [0, 1]


def test_strip_needs_a_window(made):
    with pytest.raises(ValidationError, match="set window"):
        made(action="strip")
    items = Items.from_lists("ab", ["Red Harbor", "Blue Garden \u2588\u2588"])
    data = TrainingData.from_interactions(Interactions.from_lists([[0, 1]]), Users(("u",)), items)
    cleaned = made(action="strip", window=2, threshold=0).clean(data)
    assert cleaned.items.titles != items.titles
    assert all(cleaned.items.titles)


@pytest.mark.parametrize("window", [None, 4])
def test_hostile_titles(made, hostile, window):
    found = made(window=window).suspect(list(hostile.values()))
    for (name, title), score, start, end in zip(hostile.items(), found.score, found.start, found.end, strict=True):
        assert np.isfinite(score) == bool(quote_for_prompt(title)), name
        assert end <= len(title), name
        assert (start >= 0) == bool(window and quote_for_prompt(title)), name
