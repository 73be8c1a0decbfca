"""The small tagger: pieces of titles, its marks, its files, and that it learns."""

import json

import numpy as np
import pytest
import torch

from cowbird.defenses.p_scanner.small_tagger import (
    SMALL_RECORD_FILE,
    WEIGHTS_FILE,
    load_small_tagger,
)
from cowbird.defenses.p_scanner.small_tagger_network import SmallTaggerSizes, make_batch, read_on_cpu
from cowbird.defenses.p_scanner.title_pieces import MAX_PIECES, PIECE_FLAGS, cut_titles
from cowbird.defenses.p_scanner.training import small_tagger_training
from cowbird.defenses.p_scanner.training.small_tagger_training import SmallTaggerRecipe, train_small_taggers
from cowbird.errors import UserError
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.fit_context import FitContext

HOSTILE = [
    "",
    "   ",
    "\u202e\u200b",
    "a" * 100_000,
    "\ud800 half",
    "\x00\x1b[2J",
    "日本語のタイトル",
    "=cmd()",
    "9" * 900,
]
WORDS = ("wonder", "river", "garden", "silver", "window", "mountain", "paper", "orange", "winter", "letter")
SIZES = SmallTaggerSizes(embedding=16, width=24, blocks=2)


def list_pieces(titles, cut):
    borders = cut.offsets.tolist()
    return [
        [title[first:after] for first, after in zip(cut.first[low:high], cut.after[low:high], strict=True)]
        for title, low, high in zip(titles, borders[:-1], borders[1:], strict=True)
    ]


def draw_titles(many):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=4)).title() for _ in range(many)]


def train(chunks):
    recipe = SmallTaggerRecipe(sizes=SIZES, chunk=256, chunks=chunks, learning_rate=1e-2)
    place = FitContext(torch.device("cpu"))
    return train_small_taggers(recipe, {"titles": draw_titles(200)}, ("tree",), 0, place)["all"]


@pytest.fixture(scope="module")
def tagger():
    """Return one that has hardly begun to learn, which is enough for all but what it learns."""
    return train(chunks=4)


def test_titles_are_cut_into_words_numbers_and_marks():
    titles = ["Doom Generation, The\u200b 5v", "日本 iPhone12", "a  b"]
    cut = cut_titles(titles)
    assert list_pieces(titles, cut) == [
        ["Doom", "Generation", ",", "The", "\u200b", "5", "v"],
        ["日", "本", "iPhone", "12"],
        ["a", "b"],
    ]
    flags = dict(zip(PIECE_FLAGS, cut.flags[-1].tolist(), strict=True))
    assert flags["last"]
    assert flags["two blanks before"]
    assert not flags["first"]


def test_pieces_with_the_same_spelling_have_the_same_numbers_and_others_have_not():
    cut = cut_titles(["Silver river", "silver window"])

    def numbers(piece):
        return cut.bucket[cut.starts[piece] : cut.starts[piece + 1]].tolist()

    same = len(numbers(0)) - 3  # all but the raw spelling, the shape and, at another place, the pair
    assert sum(first == second for first, second in zip(numbers(0), numbers(2), strict=True)) >= same
    assert set(numbers(1)).isdisjoint(numbers(3)[-4:])


def test_a_long_title_keeps_its_beginning_and_its_end():
    title = " ".join(["word"] * 200) + " 5v"
    cut = cut_titles([title])
    assert len(cut.first) <= MAX_PIECES
    assert list_pieces([title], cut)[0][-2:] == ["5", "v"]


@pytest.mark.parametrize("title", HOSTILE)
def test_hostile_titles_are_cut_and_marked(tagger, title):
    alone = tagger.read([title])
    beside = tagger.read(["Silver River", title, "Winter Paper"])
    assert len(alone.tokenized) == 1
    assert np.isfinite(alone.mark).all()
    assert np.isfinite(alone.verdict).all()
    assert alone.verdict[0] == pytest.approx(beside.verdict[1], abs=1e-4)
    assert (alone.tokenized.after <= len(title)).all()


def test_no_titles_have_no_marks(tagger):
    found = tagger.read([])
    assert len(found.tokenized) == 0
    assert len(found.verdict) == 0


@pytest.mark.slow
def test_it_learns_what_does_not_belong_in_titles():
    clean = draw_titles(300)[200:]
    planted = [f"{title} \u200bx9q" for title in clean]
    found = train(chunks=60).read([*clean, *planted])
    assert np.median(found.verdict[100:]) > np.quantile(found.verdict[:100], 0.95)
    ends = found.tokenized.offsets[101:] - 1
    assert np.median(found.mark[ends]) > np.median(found.mark[found.tokenized.offsets[:100]])


def test_the_same_seed_gives_the_same_weights():
    recipe = SmallTaggerRecipe(sizes=SIZES, chunk=64, chunks=3)
    place = FitContext(torch.device("cpu"))
    first, again = (train_small_taggers(recipe, {"a": draw_titles(50)}, ("tree",), 7, place)["all"] for _ in range(2))
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])


def test_catalogues_that_are_left_out_teach_nothing():
    recipe = SmallTaggerRecipe(sizes=SIZES, chunk=64, chunks=3)
    catalogs = {"a": draw_titles(50), "b": ["something else entirely", "and again"]}
    made = train_small_taggers(recipe, catalogs, ("tree",), 7, FitContext(), (), 0, {"without": ("b",), "all": ()})
    assert set(made["without"].record.catalogs) == {"a"}
    assert set(made["all"].record.catalogs) == {"a", "b"}
    assert not torch.equal(made["without"].network.mark.weight, made["all"].network.mark.weight)


def test_a_catalogue_without_titles_is_told():
    with pytest.raises(UserError, match="none"):
        train_small_taggers(SmallTaggerRecipe(chunks=1), {"empty": []}, ("tree",), 0, FitContext())


def test_a_saved_one_says_the_same_but_for_rounding(tagger, tmp_path):
    tagger.save(tmp_path, "a command")
    again = load_small_tagger(tmp_path, "cpu")
    titles = [*draw_titles(20), "Silver River 5v"]
    assert again.read(titles).mark == pytest.approx(tagger.read(titles).mark, abs=0.25)
    assert again.record.command == "a command"
    assert again.record.never_taught


@pytest.mark.parametrize("fault", ["weights", "nan", "version", "sizes", "gone", "json"])
def test_a_damaged_one_is_refused_in_words(tagger, tmp_path, fault):
    tagger.save(tmp_path)
    path, record = tmp_path / WEIGHTS_FILE, tmp_path / SMALL_RECORD_FILE
    told = json.loads(record.read_text())
    if fault == "weights":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    elif fault == "nan":
        held, _ = read_tensors(path)
        held["mark.bias"] = torch.full_like(held["mark.bias"], float("nan"))
        told["weights_sha256"] = write_tensors(path, held)
    elif fault == "version":
        told["version"] = 9
    elif fault == "sizes":
        told["sizes"]["width"] = 1 << 30
    elif fault == "gone":
        path.unlink()
    if fault == "json":
        record.write_text("{")
    else:
        record.write_text(json.dumps(told))
    with pytest.raises(UserError, match="does not hold a small tagger"):
        load_small_tagger(tmp_path, "cpu")


def test_the_rate_falls_by_the_clock_where_that_is_faster(monkeypatch):
    clock, rates = {"now": 0.0}, []
    monkeypatch.setattr(small_tagger_training.time, "monotonic", lambda: clock["now"])

    class Watched(small_tagger_training._Training):
        def _run_step(self):
            clock["now"] += 10.0
            rates.append(self._pick_rate())
            super()._run_step()

    monkeypatch.setattr(small_tagger_training, "_Training", Watched)
    recipe = SmallTaggerRecipe(sizes=SIZES, chunk=8, chunks=100)
    train_small_taggers(recipe, {"a": draw_titles(20)}, ("tree",), 7, FitContext(), seconds=45.0)
    assert len(rates) == 5
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]


@pytest.mark.parametrize(
    "titles", [HOSTILE, ["a"], ["", ""], ["a", "b c", "d e f", "g h i j k"], [*draw_titles(40), ""]]
)
def test_it_reads_as_it_learned(tagger, titles):
    batch = make_batch(cut_titles(titles), torch.device("cpu"))
    with torch.inference_mode():
        for told, learned in zip(read_on_cpu(tagger.network, batch), tagger.network(batch), strict=True):
            assert torch.allclose(told, learned, atol=1e-4)
    other = make_batch(cut_titles([f"{title} zebra" for title in titles]), torch.device("cpu"))
    with torch.inference_mode():
        assert not torch.allclose(read_on_cpu(tagger.network, other)[1], tagger.network(batch)[1], atol=1e-4)


def test_it_reads_in_the_number_formats_that_a_gpu_learns_in(tagger, monkeypatch):
    batch = make_batch(cut_titles(["Harbor 5v", "The Quiet Garden", ""]), torch.device("cpu"))
    wanted, plain = tagger.network(batch), torch.nn.LayerNorm.forward
    # On a GPU, autocast keeps norms in float32.
    monkeypatch.setattr(torch.nn.LayerNorm, "forward", lambda norm, state: plain(norm, state.float()).float())
    with torch.autocast("cpu", torch.bfloat16):
        found = tagger.network(batch)
    for right, got in zip(wanted, found, strict=True):
        torch.testing.assert_close(got.float(), right, atol=0.1, rtol=0.1)


def test_two_threads_add_up_in_one_order():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        recipe = SmallTaggerRecipe(chunk=256, chunks=4)
        titles = [" ".join(parts) for parts in zip(*[iter(draw_titles(2400))] * 4, strict=True)]
        weights = [
            torch.cat([weight.detach().flatten() for weight in made["all"].network.parameters()])
            for made in (
                train_small_taggers(recipe, {"shop": titles}, ["harbor", "garden"], 1, FitContext(torch.device("cpu")))
                for _ in range(2)
            )
        ]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*weights)
