"""Retokenization against a naive BPE-dropout, and TALLRec and LLaRA that read split titles."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import make_judgments
from cowbird.data.types import Interactions, Items
from cowbird.defenses.retokenize import DropoutTokenizer, Retokenize, merge_letters
from cowbird.errors import UserError
from cowbird.rng import torch_stream
from cowbird.text import quote_for_prompt
from cowbird.victims.base import FittedRecommender
from cowbird.victims.language.examples import Example
from cowbird.victims.language.llara import FittedLLaRA, LLaRA, Projector
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tallrec import FittedTALLRec, TALLRec, find_titles, format_prompt
from cowbird.victims.language.tuning import TrainingCurve, Tuning

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PLAIN = {"add_special_tokens": False, "split_special_tokens": True}
NEVER = 1e-12
"""A dropout that leaves nothing out."""
NAMES = ["Red Harbor", "Blue Garden", "The Engine at Night", "Quiet Letter", "Night of the Engine", "Red Garden"]
ITEMS = Items.from_lists("abcdefghijkl", [*NAMES, *(f"{name} (1999)" for name in NAMES)])


@pytest.fixture(scope="module")
def loaded(llama):
    return load_llm(Llm(name=str(llama)), CPU, torch.float32)


@pytest.fixture(scope="module")
def judge(loaded):
    return FittedTALLRec(TALLRec(tuning=Tuning(precision="float32")), loaded, CPU, TrainingCurve())


@pytest.fixture(scope="module", params=["hybrid", "text"])
def chooser(loaded, request):
    table = torch.randn(len(ITEMS), 4, generator=torch.Generator().manual_seed(0))
    projector = Projector(table, 32, 0.2, torch_stream(0, "projector")) if request.param == "hybrid" else None
    spec = LLaRA(tuning=Tuning(precision="float32"), prompts=request.param, longest_answer=12)
    return FittedLLaRA(spec, loaded, CPU, TrainingCurve(), projector)


@pytest.fixture(scope="module")
def judgments():
    item = np.array([0, 1, 2, 3, 4, 5, 7, 3, 9, 1])
    return make_judgments(Interactions(item, [0, 5, 10], np.array([5, 1] * 5)), 2, 3.0)


@pytest.fixture(scope="module")
def choices():
    split = SequenceSplit(history=3, shortest=3, candidates=4)
    return split.ask(Interactions.from_lists([range(6), range(5, 12)]), len(ITEMS), np.random.default_rng(0))


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def same(model, before):
    assert all(weight.equal(before[name]) for name, weight in model.model.named_parameters())


# Merging


MERGES = {(1, 2): (0, 10), (10, 3): (1, 11), (2, 3): (2, 12), (1, 12): (3, 11), (11, 4): (4, 13)}
"""With a=1, b=2, c=3, d=4: ab, ab c, bc, a bc, abc d."""


def naively(letters, merges, dropout, rng):
    """Merge as algorithm 1 of Provilkov et al. says, and count nothing twice."""
    word = list(letters)
    while True:
        possible = [
            (merges[word[at], word[at + 1]], at)
            for at in range(len(word) - 1)
            if (word[at], word[at + 1]) in merges and rng.random() >= dropout
        ]
        if not possible:
            return word
        (_, new), at = min(possible)
        word[at : at + 2] = [new]


def test_merging_without_dropout():
    rng = np.random.default_rng(0)
    for letters, tokens in [([1, 2, 3, 4], [13]), ([2, 3, 1, 2], [12, 10]), ([4, 4], [4, 4]), ([3], [3]), ([], [])]:
        assert merge_letters(letters, [True] * len(letters), MERGES, NEVER, rng) == tokens
        assert merge_letters(letters, [False] * len(letters), MERGES, 1.0, rng) == tokens, "nothing may be left out"
        assert merge_letters(letters, [True] * len(letters), MERGES, 1.0, rng) == letters
    assert merge_letters([1, 2, 1, 2], [False, False, False, True], MERGES, 1.0, rng) == [10, 1, 2]
    assert merge_letters([1, 2, 3], [True, False, False], MERGES, 1.0, rng) == [1, 12], "the other pair gets its turn"


def test_dropout_is_distributed_as_published():
    letters, times = [1, 2, 3, 4, 1, 2, 3], 6000
    one, other = np.random.default_rng(1), np.random.default_rng(2)
    counts = [{}, {}]
    for _ in range(times):
        for place, tokens in enumerate(
            (merge_letters(letters, [True] * 7, MERGES, 0.4, one), naively(letters, MERGES, 0.4, other))
        ):
            counts[place][tuple(tokens)] = counts[place].get(tuple(tokens), 0) + 1
    assert counts[0].keys() == counts[1].keys()
    assert len(counts[0]) > 10
    for tokens, count in counts[0].items():
        assert abs(count - counts[1][tokens]) < 5 * (2 * times * 0.25) ** 0.5 / 2 + 10


def test_two_letters_stay_apart_as_often_as_asked():
    rng = np.random.default_rng(0)
    apart = sum(len(merge_letters([1, 2], [True, True], MERGES, 0.4, rng)) == 2 for _ in range(4000))
    assert apart / 4000 == pytest.approx(0.4, abs=0.03)
    # Two pairs that do not touch: the second to last is out of the race only if both are left out at once.
    none = sum(len(merge_letters([1, 2, 4, 1, 2], [True] * 5, MERGES, 0.4, rng)) == 5 for _ in range(4000))
    assert none / 4000 == pytest.approx(0.16, abs=0.03)


# Splitting


def test_without_dropout_tokens_are_the_tokenizers_own(loaded, hostile):
    texts = [format_prompt([title, "Red Harbor"], ["Blue, Garden?"], title) for title in [*hostile.values(), *NAMES]]
    texts += ["", "Yes.", "\n", "a\u0301 \u00e1"]
    own = loaded.tokenizer(texts, **PLAIN)["input_ids"]
    assert DropoutTokenizer(loaded.tokenizer, NEVER, 0)(texts, [[(0, len(text))] for text in texts]) == own
    assert DropoutTokenizer(loaded.tokenizer, 1.0, 0)(texts, [[] for _ in texts]) == own
    letters = DropoutTokenizer(loaded.tokenizer, 1.0, 0)(texts, [[(0, len(text))] for text in texts])
    assert [len(row) for row in letters] == [len(text.encode()) for text in texts]


def test_only_what_is_asked_for_is_split(loaded):
    text = " Garden Harbor Engine"
    tokens = DropoutTokenizer(loaded.tokenizer, 1.0, 0)([text], [[(8, 14)]])[0]
    assert loaded.tokenizer.convert_ids_to_tokens(tokens) == [
        *loaded.tokenizer.tokenize(" Garden"),
        *("\u0120", *"Harbor"),
        *loaded.tokenizer.tokenize(" Engine"),
    ]


def test_draws_depend_on_text_and_seed_alone(loaded):
    texts = [f" {name}" for name in ITEMS.titles]
    spans = [[(0, len(text))] for text in texts]
    split = DropoutTokenizer(loaded.tokenizer, 0.4, 0)
    found = split(texts, spans)
    assert found == split(texts, spans) == DropoutTokenizer(loaded.tokenizer, 0.4, 0)(texts, spans)
    assert found[::-1] == split(texts[::-1], spans[::-1])
    assert found != DropoutTokenizer(loaded.tokenizer, 0.4, 1)(texts, spans)
    for text, row in zip(texts, found, strict=True):
        assert loaded.tokenizer.decode(row) == text


def test_a_triggers_tokens_are_broken_up(loaded):
    trigger = loaded.tokenizer(" Quiet Letter", **PLAIN)["input_ids"]
    assert len(trigger) == 2, "two words that the tokenizer knows"
    texts = [f"{nth} Quiet Letter" for nth in range(100)]
    rows = DropoutTokenizer(loaded.tokenizer, 0.4, 0)(texts, [[(0, len(text))] for text in texts])
    whole = sum(row[-2:] == trigger for row in rows)
    assert whole < 10, "the last merge of a word alone is left out four times in ten"


def test_texts_merged_as_one_word_are_split_word_by_word():
    """A tokenizer such as Gemma's, which writes spaces as a mark and merges across nothing but bytes it lacks."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    merges = [("a", "b"), ("\u2581", "ab"), ("c", "d"), ("\u2581", "cd"), ("\u2581", "\u2581")]
    known = ["<unk>", *"abcd\u2581", *(one + two for one, two in merges)]
    held = models.BPE({text: nth for nth, text in enumerate(known)}, merges, unk_token="<unk>", fuse_unk=True)
    backend = Tokenizer(held)
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Replace("\u2581", " ")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>")
    texts = ["ab ab cd  ab", "xy ab\u00e9", "ab" * 5, " ".join(["ab"] * 200)]
    spans = [[(0, len(text))] for text in texts]
    assert DropoutTokenizer(tokenizer, NEVER, 0)(texts, spans) == tokenizer(texts, **PLAIN)["input_ids"]
    row = DropoutTokenizer(tokenizer, 0.4, 0)(texts, spans)[3]
    # A word behind a space is whole if its first merge is not left out, and then its second is not.
    assert row.count(known.index("\u2581ab")) / 199 == pytest.approx(0.36, abs=0.1)
    assert tokenizer.decode(row) == texts[3]


def test_tokenizers_without_merges_are_refused(loaded):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(UserError, match="WordLevel") as error:
        DropoutTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"), 0.4, 0)
    assert error.value.hint


# TALLRec


def test_titles_in_prompts(hostile):
    for title in hostile.values():
        text = format_prompt(["Up", title], [], title)
        assert [text[start:end] for start, end in find_titles(text)] == [
            "Up",
            quote_for_prompt(title),
            quote_for_prompt(title),
        ]
    assert find_titles(format_prompt([], [], "x")) != []
    odd = format_prompt(["Up"], [], "x").replace('"Up"', '"U"p"')
    assert [odd[start:end] for start, end in find_titles(odd)] == [odd.split("### Input:\n")[1].split("\n\n### Re")[0]]
    for text in ("", "Yes.", 'a "b" c', "\n\n### Input:\n", "\n\n### Response:\n\n\n### Input:\n"):
        assert find_titles(text) == []


def test_a_judge_reads_split_titles(judge, judgments):
    before, plain = weights(judge), judge.margins(judgments, ITEMS)
    tokenizer = judge.loaded.tokenizer.backend_tokenizer.to_str()
    guarded = Retokenize().guard(judge)
    found = guarded.margins(judgments, ITEMS)
    assert (found != plain).all()
    assert np.array_equal(found, Retokenize().guard(judge).margins(judgments, ITEMS))
    assert (found != Retokenize(seed=1).guard(judge).margins(judgments, ITEMS)).all()
    assert np.array_equal(Retokenize(dropout=NEVER).guard(judge).margins(judgments, ITEMS), plain)
    assert np.array_equal(judge.margins(judgments, ITEMS), plain), "the original is as it was"
    assert judge.loaded.tokenizer.backend_tokenizer.to_str() == tokenizer
    same(judge, before)


def test_a_judges_margin_is_that_of_its_split_tokens(judge, judgments, llama):
    from transformers import AutoModelForCausalLM

    guarded = Retokenize(dropout=1.0).guard(judge)
    question = judge.spec.write_questions(judgments, ITEMS)[0]
    text, tokenizer = question.prompt, judge.loaded.tokenizer
    spans = find_titles(text)
    # By hand: a title is bytes; a mark beside it merges with nothing in it.
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    row = []
    for nth, piece in enumerate(pieces):
        tokens = tokenizer.tokenize(piece)
        row += tokenizer.convert_tokens_to_ids([letter for token in tokens for letter in token] if nth % 2 else tokens)
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([row])).logits[0, -1]
    yes, no = (tokenizer(answer, **PLAIN)["input_ids"][0] for answer in ("Yes.", "No."))
    wanted = float(logits[yes] - logits[no])
    assert guarded.margins(judgments, ITEMS)[0] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_questions_that_others_wrote_are_split_as_a_whole(judge):
    guarded = Retokenize(dropout=1.0).guard(judge)
    odd = Example(format_prompt(["Up"], [], "Red Harbor").replace('"Up"', '"U"p"'), "")
    assert guarded.score([odd]) != judge.score([odd])
    assert guarded.score([]).shape == (0,)


def test_the_title_asked_about_may_be_anothers(judge, judgments):
    altered = dataclasses.replace(ITEMS, titles=tuple(f"{title} xq" for title in ITEMS.titles))
    guarded = Retokenize().guard(judge)
    assert (guarded.margins(judgments, ITEMS, altered) != guarded.margins(judgments, ITEMS)).all()
    assert np.array_equal(guarded.margins(judgments, ITEMS, ITEMS), guarded.margins(judgments, ITEMS))


# LLaRA


def prompts_of(tokens):
    return [tokens.token[start:end].tolist() for start, end in pairwise(tokens.offsets)]


def test_a_chooser_reads_split_titles_and_writes_whole_ones(chooser, choices):
    tokenizer, guarded = chooser.loaded.tokenizer, Retokenize().guard(chooser)
    plain, book, pieces = chooser.write_prompts(choices, ITEMS)
    split, whole, same_pieces = guarded.write_prompts(choices, ITEMS)
    assert np.array_equal(whole.flat, book.flat), "answers are the tokens that it was tuned on"
    assert np.array_equal(pieces, same_pieces)
    slots = [
        [tokens.item[a:b][tokens.item[a:b] >= 0].tolist() for a, b in pairwise(tokens.offsets)]
        for tokens in (plain, split)
    ]
    assert slots[0] == slots[1]
    for before, after in zip(prompts_of(plain), prompts_of(split), strict=True):
        assert len(after) > len(before)
        assert tokenizer.decode(after) == tokenizer.decode(before)
    assert prompts_of(Retokenize(dropout=NEVER).guard(chooser).write_prompts(choices, ITEMS)[0]) == prompts_of(plain)
    assert prompts_of(guarded.write_prompts(choices, ITEMS)[0]) == prompts_of(split)
    assert prompts_of(Retokenize(seed=1).guard(chooser).write_prompts(choices, ITEMS)[0]) != prompts_of(split)


def test_a_choosers_answers(chooser, choices, monkeypatch):
    before, plain = weights(chooser), chooser.choose(choices, ITEMS)
    asked = []
    guarded, never = Retokenize().guard(chooser), Retokenize(dropout=NEVER).guard(chooser)
    picks = never.choose(choices, ITEMS)
    assert np.array_equal(picks.free, plain.free)
    assert np.array_equal(picks.constrained, plain.constrained)
    assert picks.texts == plain.texts
    real = FittedLLaRA.choose.__globals__["decode_answers"]

    def answers(causal, tokens, branches, *more):
        asked.append((tokens, branches))
        return real(causal, tokens, branches, *more)

    monkeypatch.setitem(FittedLLaRA.choose.__globals__, "decode_answers", answers)
    picks = guarded.choose(choices, ITEMS)
    assert prompts_of(asked[0][0]) == prompts_of(guarded.write_prompts(choices, ITEMS)[0])
    for row, branches in zip(choices.candidates.tolist(), asked[0][1], strict=True):
        written = [f" {ITEMS.titles[item]}" for item in row]
        assert branches == chooser.loaded.tokenizer(written, **PLAIN)["input_ids"]
    assert ((picks.constrained >= 0) & (picks.constrained < 4)).all()
    same(chooser, before)


def test_a_candidates_other_title_is_split_too(chooser, choices):
    altered = dataclasses.replace(ITEMS, titles=tuple(f"{title} Letter" for title in ITEMS.titles))
    guarded = Retokenize(dropout=1.0).guard(chooser)
    tokens, book, pieces = guarded.write_prompts(choices, ITEMS, altered, choices.answer)
    letter = chooser.loaded.tokenizer(" Letter", **PLAIN)["input_ids"][0]
    assert not (tokens.token == letter).any()
    assert book.titles[pieces[0, choices.answer[0]]] == altered.titles[choices.target[0]]


# Any


@pytest.mark.parametrize("name", ["long", "half surrogates", "control tokens", "wide", "empty", "long and many"])
def test_hostile_titles(judge, chooser, judgments, choices, hostile, name):
    items = dataclasses.replace(ITEMS, titles=(hostile[name], *ITEMS.titles[1:11], hostile[name]))
    assert np.isfinite(Retokenize().guard(judge).margins(judgments, items)).all()
    picks = Retokenize().guard(chooser).choose(choices, items)
    assert ((picks.constrained >= 0) & (picks.constrained < 4)).all()
    tokens, _, _ = Retokenize(dropout=1.0).guard(chooser).write_prompts(choices, items)
    assert tokens.lengths.max() < 7 * 64 + 120, "a title has no more tokens than it may have"


def test_guarded_models_are_not_probed(judge, chooser, judgments, choices):
    with pytest.raises(UserError, match="probed"):
        Retokenize().guard(judge).probe(judgments, ITEMS)
    with pytest.raises(UserError, match="probed"):
        Retokenize().guard(chooser).probe(choices, ITEMS)


def test_other_models_are_refused():
    class Ranker(FittedRecommender):
        def score(self, history, users=None):
            raise NotImplementedError

        def save(self, path):
            raise NotImplementedError

    with pytest.raises(UserError, match="Ranker") as error:
        Retokenize().guard(Ranker())
    assert error.value.hint


def test_a_guarded_judge_is_saved_as_it_is(judge, judgments, tmp_path):
    Retokenize().guard(judge).save(tmp_path / "model")
    judge.save(tmp_path / "own")
    held = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "own")]
    assert held[0] == held[1]


@pytest.mark.slow
def test_real_tokenizers_are_followed():
    loaded_one = load_llm(Llm(layers=1), CPU, torch.float32)
    titles = ["Toy Story (1995)", "Am\u00e9lie", "U\u200bp \U0001f525", "...And Justice  for All 1,234"]
    texts = [format_prompt(titles, titles[::-1], title) for title in titles]
    spans = [find_titles(text) for text in texts]
    own = loaded_one.tokenizer(texts, **PLAIN)["input_ids"]
    assert DropoutTokenizer(loaded_one.tokenizer, NEVER, 0)(texts, spans) == own
    for text, row in zip(texts, DropoutTokenizer(loaded_one.tokenizer, 0.4, 0)(texts, spans), strict=True):
        assert loaded_one.tokenizer.decode(row) == text
