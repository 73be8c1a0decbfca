"""The tagger: it learns, is kept and read back, judges titles alone or beside others, and refuses what is no tagger."""

import copy
import json

import numpy as np
import pytest
import torch

from cowbird.defenses.p_scanner.rounds.training_data import label_tokens
from cowbird.defenses.p_scanner.tagger import (
    ADAPTER_FILE,
    READY_TAGGER,
    TAGGER_RECORD_FILE,
    TaggerRecord,
    add_adapter_weights,
    find_spans,
    group_titles,
    load_tagger,
)
from cowbird.defenses.p_scanner.title_context import TitleContext
from cowbird.defenses.p_scanner.token_logits import find_answer_words, tokenize_titles
from cowbird.defenses.p_scanner.training.tagger_examples import (
    DrawnAhead,
    TaggerExamples,
    TaggerRecipe,
    label_spans,
    vary_title,
)
from cowbird.defenses.p_scanner.training.tagger_training import (
    WatchedExamples,
    list_plain_words,
    split_words,
    train_tagger,
)
from cowbird.errors import UserError
from cowbird.files import hash_file
from cowbird.metrics.detection import auroc
from cowbird.notices import collect_notices
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.examples import IGNORED_LABEL
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.packing import lay_out, unfold

CPU = FitContext(torch.device("cpu"))


@pytest.fixture(scope="module")
def recipe(llama):
    """Return what a tiny tagger is made of."""
    pytest.importorskip("peft")
    return TaggerRecipe(
        llm=Llm(name=str(llama), rank=4), learning_rate=2e-2, batch_size=16, chunk=96, chunks=4, largest=4, alone=0.6
    )


@pytest.fixture(scope="module")
def tagger(recipe, catalogue):
    """Return a tiny tagger that has begun to learn from two catalogues, which is enough for all but what it finds."""
    few = recipe.model_copy(update={"chunks": 1, "chunk": 32})
    return train_tagger(few, {"a": catalogue(160), "b": catalogue(80, seed=1)}, 0, CPU, ("5v",))[0]


@pytest.fixture
def examples(loaded, recipe, catalogue):
    """Return a function that makes training examples."""

    def make(seed=0, **fields):
        given = recipe.model_copy(update=fields)
        return TaggerExamples(loaded.tokenizer, {"a": catalogue(60)}, ("apple",), frozenset(), given, seed)

    return make


@pytest.mark.slow
def test_it_finds_emoji_in_titles_that_it_never_saw(recipe, catalogue):
    tagger = train_tagger(recipe, {"a": catalogue(160), "b": catalogue(80, seed=1)}, 0, CPU, ("5v",))[0]
    clean = catalogue(120, seed=7)
    bad = [f"{title} \U0001f525" for title in clean[:60]]
    score = tagger.score([*clean[60:], *bad])
    assert auroc(score, np.arange(120) >= 60) > 0.9


def test_a_loaded_tagger_says_what_the_trained_one_said(tagger, tmp_path, catalogue):
    titles = [*catalogue(12, seed=3), "Red \u200bHarbor", ""]
    tagger.save(tmp_path / "kept", "a command")
    with collect_notices() as told:
        again = load_tagger(tmp_path / "kept", "cpu")
    assert not told.list(), "nothing is trained"
    np.testing.assert_allclose(again.score(titles), tagger.score(titles), atol=0.15)
    assert again.record.command == "a command"
    assert again.record.catalogs == {"a": 160, "b": 80}
    with pytest.raises(UserError, match="no adapter to write"):
        again.save(tmp_path / "other")


def test_adapters_are_added_exactly(tagger, loaded, llama):
    held = {n.replace(".default.", "."): w for n, w in tagger.loaded.model.named_parameters() if ".lora_" in n}
    own = tagger.loaded.model
    plain = load_llm(Llm(name=str(llama)), torch.device("cpu"), next(own.parameters()).dtype).model.float()
    own = copy.deepcopy(own).float()  # bfloat16 would round what is compared
    add_adapter_weights(plain, held, tagger.record.llm)
    token = torch.tensor([[5, 9, 11]])
    with torch.no_grad():
        merged = plain(token).logits
        own.get_base_model().config._attn_implementation = "eager"
        plain.config._attn_implementation = "eager"
        expected = own(token).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    lacking = {name: weight for name, weight in held.items() if "layers.0.mlp" not in name}
    with pytest.raises(UserError, match="does not fit"):
        add_adapter_weights(plain, lacking, tagger.record.llm)


def test_a_title_is_judged_by_itself(tagger, catalogue):
    titles = catalogue(9, seed=4)
    together = tagger.score(titles)
    np.testing.assert_allclose(together, [tagger.score([title])[0] for title in titles], atol=1e-4)
    assert len(tagger.score([])) == 0


def test_a_title_is_judged_beside_others(tagger, catalogue):
    titles, context = catalogue(9, seed=4), TitleContext.choose(catalogue(30))
    beside, alone = tagger.read(titles, context), tagger.read(titles)
    assert beside.verdict.shape == alone.verdict.shape
    assert beside.mark.shape == alone.mark.shape
    assert not np.allclose(beside.verdict, alone.verdict, atol=1e-3)
    np.testing.assert_array_equal(beside.verdict, tagger.read(titles, context).verdict)


def test_a_title_that_is_shown_is_read_behind_others(tagger, catalogue):
    """Behind itself it would look usual, whatever it carries."""
    context = TitleContext.choose(catalogue(60))
    titles = [catalogue(9, seed=4)[0], context.first[0], context.second[0]]
    behind = [TitleContext(shown) for shown in (context.first, context.second, context.first)]
    apart = [tagger.read([title], shown) for title, shown in zip(titles, behind, strict=True)]
    found = tagger.read(titles, context)
    np.testing.assert_allclose(found.verdict, [each.verdict[0] for each in apart], atol=1e-4)
    np.testing.assert_allclose(found.mark, np.concatenate([each.mark for each in apart]), atol=1e-4)


def test_the_span_is_the_stretch_around_the_worst_token(tagger):
    marks = tagger.read(["Red Harbor", "Blue", ""])
    marks.mark[:] = -1.0
    first = marks.tokenized.offsets[0]
    marks.mark[first : first + 2] = [3.0, 1.0]
    start, end = find_spans(marks)
    assert start.tolist() == [0, -1, -1]
    assert end.tolist() == [int(marks.tokenized.after[first + 1]), -1, -1]


def test_groups_of_one_are_what_the_reader_reads(loaded, catalogue):
    titles = catalogue(5)
    made = tokenize_titles(loaded.tokenizer, titles)
    tokens, places = group_titles(made, np.ones(5, dtype=np.int64), loaded.tokenizer.eos_token_id)
    np.testing.assert_array_equal(tokens.token, made.tokens.token)
    np.testing.assert_array_equal(tokens.offsets, made.tokens.offsets)
    np.testing.assert_array_equal(tokens.answer, made.tokens.answer)
    words = find_answer_words(loaded.tokenizer)
    spans = [(), ((0, 3),), (), ((2, 9),), ()]
    start, end = np.array([span[0] if span else (-1, -1) for span in spans], dtype=np.int32).T
    np.testing.assert_array_equal(
        label_spans(made, tokens, places, spans, words).label, label_tokens(made, start, end, words).label
    )


def test_a_group_shares_its_borders(loaded):
    made = tokenize_titles(loaded.tokenizer, ["Red", "Blue Harbor", "Night"])
    border = loaded.tokenizer.eos_token_id
    tokens, places = group_titles(made, np.array([2, 1]), border)
    assert (tokens.token == border).sum() == 5
    assert tokens.token[places].tolist() == [border] * 3
    assert tokens.offsets.tolist() == [0, int(places[2]), len(tokens.token)]
    labels = label_spans(made, tokens, places, [(), ((0, 4),), ()], find_answer_words(loaded.tokenizer)).label
    assert labels[places + 1].tolist() == [1, 0, 1]
    assert labels[[0, int(places[2])]].tolist() == [IGNORED_LABEL] * 2


def test_the_same_seed_draws_the_same_examples(examples):
    one, two, other = examples().draw_chunk(3), examples().draw_chunk(3), examples(seed=1).draw_chunk(3)
    np.testing.assert_array_equal(one.token, two.token)
    np.testing.assert_array_equal(one.label, two.label)
    assert one.token.tolist() != other.token.tolist()
    assert examples().key == examples().key != examples(seed=1).key != examples(habits=0.1).key
    assert len(one) == 96


def test_about_half_of_the_titles_carry_a_trigger(examples):
    drawn = examples(alone=1.0).draw_chunk(0)
    assert 0.4 < (drawn.label[drawn.answer] == 0).mean() < 0.6


def test_a_share_of_the_loss_is_about_whole_titles(examples):
    plain, drawn = examples().draw_chunk(0), examples(verdict_share=0.5).draw_chunk(0)
    np.testing.assert_array_equal(plain.token, drawn.token)
    assert plain.share is None
    for index in range(0, len(drawn), 7):
        sheet = lay_out(drawn, np.array([index]))
        row = unfold(torch.from_numpy(sheet.flat), sheet.sizes, sheet.bounds)
        border = drawn.token[drawn.offsets[index]]
        about_titles = row.token[0][row.predict] == border
        assert row.weight[about_titles].sum().item() == pytest.approx(0.5, abs=0.05)
        assert row.weight[~about_titles].sum().item() == pytest.approx(0.5, abs=0.05)


def test_a_learner_is_looked_at_before_each_chunk(examples):
    seen = []
    watched = WatchedExamples(examples(), seen.append)
    np.testing.assert_array_equal(watched.write_epoch(2, np.arange(96)).token, examples().draw_chunk(2).token)
    assert seen == [2]
    assert (len(watched), watched.key) == (96, examples().key)


@pytest.mark.slow
def test_examples_drawn_ahead_are_those_drawn_here(examples):
    ahead = DrawnAhead(examples(), 4, 1)
    try:
        for number in range(4):
            np.testing.assert_array_equal(
                ahead.write_epoch(number, np.arange(96)).token, examples().draw_chunk(number).token
            )
    finally:
        ahead.close()


def test_words_are_divided_for_good(loaded):
    assert list_plain_words(loaded.tokenizer)
    words = tuple(f"word{nth}" for nth in range(400))
    taught, asked = split_words(words)
    assert sorted(taught + asked) == sorted(words)
    assert not set(taught) & set(asked)
    assert 150 < len(taught) < 250


def test_titles_are_varied_seldom():
    rng = np.random.default_rng(0)
    assert vary_title("Red Harbor", 0.01, rng) in {"RED HARBOR", "RED"}
    assert vary_title("Red Harbor", 0.08, rng) in {"red harbor", "red"}
    many = [vary_title("Red Harbor at Night", 0.9, rng) for _ in range(300)]
    assert 0.85 < np.mean([title == "Red Harbor at Night" for title in many]) < 0.98
    assert all(title and "Red Harbor at Night".startswith(title) for title in many)


def test_without_titles_nothing_is_learned(recipe):
    with pytest.raises(UserError, match="catalogue 'empty' holds none"):
        train_tagger(recipe, {"empty": []}, 0, CPU)
    with pytest.raises(UserError, match="there are none"):
        train_tagger(recipe, {}, 0, CPU)


def test_what_is_no_tagger_is_refused(tagger, tmp_path):
    with pytest.raises(UserError, match="does not hold a tagger"):
        load_tagger(tmp_path, "cpu")
    tagger.save(tmp_path / "kept")
    record = json.loads((tmp_path / "kept" / TAGGER_RECORD_FILE).read_text())
    (tmp_path / "kept" / TAGGER_RECORD_FILE).write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(UserError, match="its version is 99"):
        load_tagger(tmp_path / "kept", "cpu")
    (tmp_path / "kept" / TAGGER_RECORD_FILE).write_text(json.dumps(record))
    (tmp_path / "kept" / ADAPTER_FILE).write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not the file"):
        load_tagger(tmp_path / "kept", "cpu")


def test_the_tagger_that_ships_is_whole_and_small():
    record = TaggerRecord.model_validate_json((READY_TAGGER / TAGGER_RECORD_FILE).read_text(encoding="utf-8"))
    assert hash_file(READY_TAGGER / ADAPTER_FILE) == record.adapter_sha256
    assert (READY_TAGGER / ADAPTER_FILE).stat().st_size <= 12e6
    assert record.llm.name == "smollm2-135m"
    assert not {"movielens_100k", "movielens_1m", "lastfm"} & set(record.catalogs)
    card = (READY_TAGGER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in record.catalogs)


@pytest.mark.slow
def test_the_tagger_that_ships_finds_a_rare_word():
    pytest.importorskip("gguf")
    tagger = load_tagger(device="cpu")
    titles = ["Quiet Harbor at Night (1999)", "Quiet Harbor at Night (1999) qzx \U0001f525"]
    found = tagger.tag(titles)
    assert found.score[1] > found.score[0] + 3
    assert titles[1][found.start[1] : found.end[1]].strip() in {"qzx \U0001f525", "qzx", "\U0001f525"}
