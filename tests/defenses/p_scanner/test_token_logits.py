"""Reading: where tokens stand in raw titles, borders, labels, and marks against plain transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cowbird.defenses.p_scanner import token_logits as reader
from cowbird.defenses.p_scanner.rounds.training_data import label_tokens
from cowbird.defenses.p_scanner.token_logits import (
    HEAD_CHARACTERS,
    TAIL_CHARACTERS,
    clip_title,
    find_answer_words,
    read_logits,
    tokenize_titles,
)
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.language.examples import IGNORED_LABEL
from cowbird.victims.language.llm import Llm, load_reader

CPU = torch.device("cpu")
TITLES = ["Red Harbor", "", "The Quiet Engine of Night", "\u6700 \U0001f525", "Letter " * 100, "x\ud800", "a" * 400]


def plain(loaded, text):
    return loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def rows(made):
    return [slice(a, b) for a, b in zip(made.offsets[:-1], made.offsets[1:], strict=True)]


def test_what_is_shown():
    assert (HEAD_CHARACTERS, TAIL_CHARACTERS) == (300, 120)
    assert clip_title("x" * 420) == "x" * 420
    assert clip_title("a" * 300 + "b" * 30 + "c" * 120) == "a" * 300 + "c" * 120
    assert quote_for_prompt("x" * 290 + " trigger " + "y" * 900) in clip_title("x" * 290 + " trigger " + "y" * 900)
    assert clip_title("a\ud83d\udd25\udfff") == "a" + "\N{REPLACEMENT CHARACTER}" * 3


hostile_text = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["<|im_end|>", "\ud83d x", "  a  ", "\u200b" * 7, "e\u0301" * 30]
)


@settings(max_examples=60)
@given(st.lists(hostile_text, max_size=5))
def test_tokens_know_their_characters(loaded, titles):
    made = tokenize_titles(loaded.tokenizer, titles)
    assert len(made) == len(titles)
    for title, row in zip(titles, rows(made), strict=True):
        first, after = made.first[row], made.after[row]
        assert made.token[row].tolist() == plain(loaded, clip_title(title))
        assert (after > first).all()
        covered = np.zeros(len(title), dtype=int)
        for a, b in zip(first, after, strict=True):
            covered[a:b] += 1
        assert covered.all(), "every character is some token's"
        assert (np.diff(first) >= 0).all()
        assert not len(after) or after.max() == len(title)


@pytest.mark.parametrize("seed", range(25))
def test_tokens_know_their_characters_in_long_titles(loaded, seed):
    rng = np.random.default_rng(seed)
    title = " ".join(rng.choice(["Red", "Harbor", "Garden", "at", "Quiet"], 120))[: int(rng.integers(410, 550))]
    made = tokenize_titles(loaded.tokenizer, [title, "Red"])
    row = rows(made)[0]
    assert 60 < row.stop < reader.MAX_TOKENS_READ
    gap = max(0, len(title) - HEAD_CHARACTERS - TAIL_CHARACTERS)
    for token, a, b in zip(made.token[row], made.first[row], made.after[row], strict=True):
        written = loaded.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if a < HEAD_CHARACTERS < b and gap:  # it begins in the one part and ends in the other
            assert b > HEAD_CHARACTERS + gap
            assert written == title[a:HEAD_CHARACTERS] + title[HEAD_CHARACTERS + gap : b]
        else:
            assert written == title[a:b]
    assert made.after[row][-1] == len(title)
    assert made.first[rows(made)[1]][0] == 0, "a long title moves nothing in the next"


def test_titles_of_many_tokens_keep_beginning_and_end(loaded, monkeypatch):
    title = "\U0001f525" * 300  # four bytes each, all tokens of their own
    whole = plain(loaded, title)
    assert tokenize_titles(loaded.tokenizer, [title]).token.tolist() == whole, "no byte of what is shown is left out"
    monkeypatch.setattr(reader, "MAX_TOKENS_READ", 256)
    made = tokenize_titles(loaded.tokenizer, [title])
    assert made.token.tolist() == whole[:192] + whole[-64:]
    assert (made.first[0], made.after[-1]) == (0, 300)
    assert (made.after - made.first == 1).all()


def test_a_title_stands_on_its_page_between_borders(loaded):
    made = tokenize_titles(loaded.tokenizer, ["Red Harbor", ""])
    eos, red = loaded.tokenizer.eos_token_id, plain(loaded, "Red Harbor")
    many = len(red)
    assert made.tokens.token.tolist() == [eos, *red, eos, eos, eos]
    assert made.tokens.offsets.tolist() == [0, many + 2, many + 4]
    assert made.tokens.answer.tolist() == [1, many + 3]
    assert made.tokens.both_ways
    assert made.offsets.tolist() == [0, many, many]


def test_labels_are_those_of_characters(loaded):
    titles = ["Red zq Harbor", "Blue Garden", "", "zq"]
    made = tokenize_titles(loaded.tokenizer, titles)
    start, end = np.array([4, -1, -1, 0], dtype=np.int32), np.array([6, -1, -1, 2], dtype=np.int32)
    found = label_tokens(made, start, end, (7, 9))
    assert found.among == (7, 9)
    for nth, row in enumerate(rows(made)):
        label = found.label[found.offsets[nth] : found.offsets[nth + 1]]
        begin = found.answer[nth] - found.offsets[nth]
        assert (begin, label[0]) == (1, IGNORED_LABEL)
        places = zip(made.first[row], made.after[row], strict=True)
        inside = [start[nth] >= 0 and any(start[nth] <= at < end[nth] for at in range(a, b)) for a, b in places]
        assert label[1:].tolist() == [0 if start[nth] >= 0 else 1] + [0 if hit else 1 for hit in inside]
    assert 0 in found.label[: found.offsets[1]]


def test_words_for_yes_and_no(loaded):
    yes, no = find_answer_words(loaded.tokenizer)
    assert (yes, no) == (plain(loaded, " Yes")[-1], plain(loaded, " No")[-1])

    class Alike:
        def __call__(self, text, **given):
            return {"input_ids": [1, 2]}

    with pytest.raises(UserError, match="yes and no"):
        find_answer_words(Alike())


@pytest.mark.parametrize("capacity", [1, 150, 4096])
def test_marks_are_those_of_plain_transformers(loaded, llama, capacity):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager").eval()
    told = []
    marks = read_logits(loaded, TITLES, CPU, capacity, lambda *given: told.append(given))
    eos, (yes, no) = loaded.tokenizer.eos_token_id, find_answer_words(loaded.tokenizer)
    for nth, (title, row) in enumerate(zip(TITLES, rows(marks.tokenized), strict=True)):
        given = marks.tokenized.token[row].tolist()
        with torch.inference_mode():
            page = torch.tensor([[eos, *given, eos]])
            logits = model(page, attention_mask=torch.zeros(1, 1, page.shape[1], page.shape[1])).logits[0]
        odds = (logits[:, yes] - logits[:, no]).numpy()
        np.testing.assert_allclose(marks.mark[row], odds[1:-1], atol=1e-4, err_msg=title[:20])
        np.testing.assert_allclose(marks.verdict[nth], odds[0], atol=1e-4)
    assert (marks.mark.dtype, marks.verdict.dtype) == (np.float32, np.float32)
    assert marks.rows.tolist() == [
        nth for nth, row in enumerate(rows(marks.tokenized)) for _ in range(row.stop - row.start)
    ]
    assert told[-1] == (len(TITLES), len(TITLES), "titles")
    assert (len(told) == len(TITLES)) == (capacity == 1)


def test_nothing_to_read(loaded):
    marks = read_logits(loaded, [], CPU)
    assert (len(marks.mark), len(marks.verdict), len(marks.tokenized)) == (0, 0, 0)
    marks = read_logits(loaded, ["", ""], CPU)
    assert len(marks.mark) == 0
    assert marks.verdict[0] == pytest.approx(marks.verdict[1], abs=1e-5)


def test_hostile_titles_are_read(loaded, hostile):
    marks = read_logits(loaded, list(hostile.values()), CPU)
    assert np.isfinite(marks.mark).all()
    assert np.isfinite(marks.verdict).all()


@pytest.fixture(scope="module")
def coarse(llama):
    return load_reader(Llm(name=str(llama)), CPU, torch.bfloat16)


def test_with_bfloat16_rows_have_one_size_and_a_title_is_read_as_alone(coarse, monkeypatch):
    sizes, plain_states = [], reader.compute_hidden_states

    def watch(causal, row, places):
        sizes.append((row.token.shape[1], row.documents.bounds[-1], len(places)))
        return plain_states(causal, row, places)

    monkeypatch.setattr(reader, "compute_hidden_states", watch)
    titles = [f"Quiet Harbor {nth} of Night" for nth in range(40)] + ["", "x" * 380]
    together = read_logits(coarse, titles, CPU)
    assert len(sizes) > 1
    assert all(len(set(each)) == 1 and each[0] % reader.ROW_TOKENS == 0 for each in sizes)
    for row, title in enumerate(titles):
        alone = read_logits(coarse, [title], CPU)
        assert alone.verdict[0] == together.verdict[row]
        assert np.array_equal(alone.mark, together.mark[rows(together.tokenized)[row]])


def test_where_a_row_ends_does_not_show_in_a_verdict(coarse, monkeypatch):
    titles = [f"Garden {nth}" for nth in range(30)]
    filled = read_logits(coarse, titles, CPU).verdict
    monkeypatch.setattr(reader, "ROW_TOKENS", 1)
    unfilled = read_logits(coarse, titles, CPU).verdict
    assert np.allclose(filled, unfilled, atol=0.1)
