"""How visible changes of any texts are."""

import pandas as pd
import polars as pl
import pytest

import cowbird
from cowbird.errors import UserError


def test_characters_are_compared_without_a_model():
    found = cowbird.compare_texts(["Heat", "Alien", None, "x"], ["Heat 5v", "Alien\u200b", "Brazil", "x"])
    assert found.columns[:4] == ["before", "after", "edits", "relative_edits"]
    assert found["edits"].to_list() == [3, 1, None, 0]
    assert found["relative_edits"].to_list() == [3 / 7, 1 / 6, None, 0]
    assert found["added_format"].to_list() == [0, 1, None, 0]
    assert "perplexity_ratio" not in found.columns


def test_frames_will_do():
    before, after = pl.DataFrame({"name": ["Heat"]}), pd.DataFrame({"name": ["Heаt"]})
    found = cowbird.compare_texts(before, after, text_column="name")
    assert found["added_mixed_words"].to_list() == [1]


def test_different_numbers_of_texts_are_answered_in_words():
    with pytest.raises(UserError, match="2 texts before and 1 after"):
        cowbird.compare_texts(["a", "b"], ["a"])
    with pytest.raises(UserError, match="single text"):
        cowbird.compare_texts("a", "b")
