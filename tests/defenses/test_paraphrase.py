"""Paraphrased titles: what is written, what of it is used and kept, and models that read it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cowbird.data.choices import SequenceSplit
from cowbird.data.judgments import make_judgments
from cowbird.data.types import Interactions, Items
from cowbird.defenses import _rewriting
from cowbird.defenses._rewriting import (
    REWRITE_EXAMPLE,
    RewriteCounts,
    Rewriter,
    TitleWriter,
    make_frame,
    validate_answer,
)
from cowbird.defenses.paraphrase import Paraphrase
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.base import FittedCandidate, FittedPointwise, FittedRecommender, Picks
from cowbird.victims.language import llara
from cowbird.victims.language.candidate_decoding import DecodedAnswers
from cowbird.victims.language.llara import FittedLLaRA, LLaRA
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tallrec import FittedTALLRec, TALLRec
from cowbird.victims.language.tuning import TrainingCurve, Tuning

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
NAMES = ["Red Harbor", "Blue Garden", "The Engine at Night", "Quiet Letter", "Night of the Engine", "Red Garden"]
ITEMS = Items.from_lists("abcdefghijkl", [*NAMES, *(f"{name} (1999)" for name in NAMES)])
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def loaded(llama):
    return load_llm(Llm(name=str(llama)), CPU, torch.float32)


@pytest.fixture
def defense(llama):
    return Paraphrase(llm=Llm(name=str(llama)), device="cpu", longest=8)


@pytest.fixture
def rewriter(llama):
    """Return a function that makes a rewriter whose model is scripted, and a list of what that was asked."""

    def make(script, instruction="Again."):
        told = Rewriter(Llm(name=str(llama)), instruction, 8, "cpu")
        asked = []

        def write(titles):
            asked.append(list(titles))
            return [script(title) for title in titles]

        told.writer = write
        return told, asked

    return make


@pytest.fixture(scope="module")
def judgments():
    item = np.array([0, 1, 2, 3, 4, 5, 7, 3, 9, 1])
    return make_judgments(Interactions(item, [0, 5, 10], np.array([5, 1] * 5)), 2, 3.0)


@pytest.fixture(scope="module")
def choices():
    split = SequenceSplit(history=3, shortest=3, candidates=4)
    return split.ask(Interactions.from_lists([range(6), range(5, 12)]), len(ITEMS), np.random.default_rng(0))


def shout(titles):
    return [f"{title.upper()}!" for title in titles]


def retitled(items, change):
    return dataclasses.replace(items, titles=tuple(change(items.titles)))


# What is written


def test_answers_are_those_of_plain_generation(loaded, hostile):
    writer = TitleWriter(loaded, "Again.", 8)
    titles = [*NAMES, *(quote_for_prompt(title) for title in hostile.values() if len(title) < 100)]
    rows = [writer._tokenize(title) for title in titles]
    wanted = []
    for row in rows:
        ids = torch.tensor([[*writer.head, *row, *writer.tail]])
        with torch.inference_mode():
            found = loaded.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=8,
                do_sample=False,
                eos_token_id=sorted(writer.stops),
                pad_token_id=0,
            )
        wanted.append(found[0, ids.shape[1] :].tolist())
    shared = []
    real, writer._write = writer._write, lambda *given: shared.append((given[0], real(*given))) or shared[-1][1]
    answers = writer(titles)
    seen = {tuple(title): answer for group, written in shared for title, answer in zip(group, written, strict=True)}
    assert [seen[tuple(row)] for row in rows] == wanted
    assert answers == [writer._decode_answer(tokens) for tokens in wanted]
    assert writer([]) == []


def test_answers_end_with_their_line_or_quotation_mark(loaded):
    writer = TitleWriter(loaded, "Again.", 8)
    spell = loaded.tokenizer.convert_tokens_to_ids
    for ending, text in [('"', "Red"), ("\u010a", "Red"), ("<|im_end|>", "Red"), ("d", None)]:
        assert writer._decode_answer([*loaded.tokenizer("Red")["input_ids"], spell(ending)]) == text
    assert writer._decode_answer([spell('"')]) == ""


def test_room_is_each_titles_own(loaded):
    writer = TitleWriter(loaded, "Again.", 40)
    told = []
    writer._write = lambda titles, room, shared: told.extend(zip(titles, room, strict=True)) or [[0]] * len(titles)
    writer(["Red Harbor", "x" * 6, "x" * 300])
    assert [(len(title), room) for title, room in told] == [(2, 11), (6, 17), (300, 40)]


def test_long_titles_are_written_apart(loaded, monkeypatch):
    sizes = []
    writer = TitleWriter(loaded, "Again.", 4)
    writer._write = lambda titles, room, shared: sizes.append(len(titles)) or [[0]] * len(titles)
    writer(["Red"] * 20 + ["x" * 300] * 4)
    assert sizes == [24]
    sizes.clear()
    monkeypatch.setattr(_rewriting, "REWRITE_BATCH_TOKENS", 2 * (len(writer.head) + len(writer.tail) + 600))
    writer(["Red"] * 20 + ["x" * 300] * 4)
    assert sum(sizes) == 24
    assert sizes[-1] <= 2


def test_control_tokens_stand_in_the_frame_alone(loaded):
    tokenizer = loaded.tokenizer
    tokenizer.chat_template = TEMPLATE
    try:
        before, after = make_frame(tokenizer, "Again.")
        writer = TitleWriter(loaded, "Again.", 8)
    finally:
        tokenizer.chat_template = None
    assert before == (
        f'<|im_start|>system\nAgain.<|im_end|>\n<|im_start|>user\n"{REWRITE_EXAMPLE[0]}"<|im_end|>\n'
        f'<|im_start|>assistant\n"{REWRITE_EXAMPLE[1]}"<|im_end|>\n<|im_start|>user\n"'
    )
    assert after == '"<|im_end|>\n<|im_start|>assistant\n"'
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (writer.head.count(start), writer.head.count(end)) == (4, 3)
    assert (writer.tail.count(start), writer.tail.count(end)) == (1, 1)
    assert not {start, end} & set(writer._tokenize("<|im_end|> <|im_start|>assistant"))
    assert tokenizer.decode(writer.head) == before


def test_templates_without_instructions_and_none(loaded):
    tokenizer = loaded.tokenizer
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    tokenizer.chat_template = refuses
    try:
        before, after = make_frame(tokenizer, "Again.")
    finally:
        tokenizer.chat_template = None
    assert before.startswith(f'<|im_start|>user\nAgain.\n"{REWRITE_EXAMPLE[0]}"')
    assert after.endswith('assistant\n"')
    assert make_frame(tokenizer, "Again.") == (f'Again.\n"{REWRITE_EXAMPLE[0]}" -> "{REWRITE_EXAMPLE[1]}"\n"', '" -> "')
    assert "".join(make_frame(tokenizer, "A \ue000 b.")).startswith("A \ue000 b.")


# What is used of it


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        ("The Omen", "The Omen"),
        ("  The Omen ", "The Omen"),
        ("Amélie", "Amélie"),
        (None, None),
        ("", None),
        (" \t", None),
        ("a\nb", None),
        ("a\x00b", None),
        ("a\u2028b", None),
        ('a"b', None),
        ("x" * 301, None),
        ("x" * 300, "x" * 300),
        ("cut \ufffd", None),
        ("\ud83d", None),
        (REWRITE_EXAMPLE[1].upper(), None),
    ],
)
def test_answers_are_checked(answer, used):
    assert validate_answer("Omen, The", answer) == used


def test_what_the_title_holds_itself_may_be_written():
    assert validate_answer("half \ufffd", "Half \ufffd") == "Half \ufffd"
    assert validate_answer(REWRITE_EXAMPLE[1], REWRITE_EXAMPLE[1]) == REWRITE_EXAMPLE[1]


def test_each_title_is_written_once_and_counted(rewriter, hostile):
    told, asked = rewriter({"Omen, The": "The Omen", "Omen": "The Omen", "Up": "Up"}.get)
    titles = ["Omen, The", "Up", "Omen, The", "Omen", "", " \n", "Heat\n", " Up "]
    assert told(titles) == ["The Omen", "Up", "The Omen", "The Omen", "", " \n", "Heat\n", "Up"]
    assert asked == [["Up", "Omen", "Heat", "Omen, The"]]
    assert told.counts == RewriteCounts(titles=4, changed=2, refused=1, merged=1)
    assert told(titles[::-1])[-1] == "The Omen"
    assert len(asked) == 1
    assert told([]) == []
    told(list(hostile.values()))
    assert all(title == quote_for_prompt(title) != "" for title in asked[1])


def test_what_was_written_is_kept_on_disk(rewriter, tmp_path):
    first, asked = rewriter({"Omen, The": "The Omen"}.get)
    first(["Omen, The", "Up"])
    files = list((tmp_path / "cache").rglob("*.json"))
    assert [json.loads(path.read_text()) for path in files] == [{"Up": None, "Omen, The": "The Omen"}]
    again, unasked = rewriter(pytest.fail)
    assert again(["Up", "Omen, The"]) == ["Up", "The Omen"]
    assert not unasked
    assert again.counts == first.counts
    other, asked = rewriter(str.upper, "Loud.")
    assert other(["Up"]) == ["UP"]
    assert asked == [["Up"]]
    more, asked = rewriter(str.upper)
    assert more(["Up", "Heat"]) == ["Up", "HEAT"]
    assert asked == [["Heat"]]
    assert json.loads(files[0].read_text()) == {"Up": None, "Omen, The": "The Omen", "Heat": "HEAT"}


@pytest.mark.parametrize("held", ["", "[]", "{", '{"Up": 3}', '{"Up": "a\\nb"}', '{"Up": "\\ud800"}', b"\xff\xfe"])
def test_damaged_files_are_made_anew(rewriter, held):
    told, asked = rewriter(str.upper)
    told.path.parent.mkdir(parents=True)
    told.path.write_bytes(held if isinstance(held, bytes) else held.encode())
    assert told(["Up"]) == ["UP"]
    assert asked == [["Up"]]


def test_other_weights_have_another_file(llama, tmp_path):
    import shutil

    copied = shutil.copytree(llama, tmp_path / "copied")
    names = [Rewriter(Llm(name=str(copied)), "a", 8, "cpu").path.name]
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    names.append(Rewriter(Llm(name=str(copied)), "a", 8, "cpu").path.name)
    names += [Rewriter(llm, "a", 8, "cpu").path.name for llm in (Llm(name="some/hub"), Llm(name="some/hub", layers=1))]
    names += [Rewriter(Llm(name="some/hub"), text, room, "cpu").path.name for text, room in (("a", 9), ("b", 8))]
    assert len(set(names)) == len(names)


# Models that read it


class Words(FittedPointwise):
    """Remembers what it was shown."""

    def margins(self, judgments, items, asked=None):
        self.shown = items.titles, None if asked is None else asked.titles
        return np.zeros(len(judgments), dtype=np.float32)

    def save(self, folder):
        folder.mkdir()


def test_a_judge_is_shown_what_was_rewritten(judgments):
    words = Words()
    words.with_rewritten_titles(shout).margins(judgments, ITEMS)
    used = {*judgments.history.item.tolist(), *judgments.target.tolist()}
    assert words.shown == (
        tuple(f"{title.upper()}!" if item in used else title for item, title in enumerate(ITEMS.titles)),
        None,
    )
    words.with_rewritten_titles(shout).margins(judgments, ITEMS, ITEMS)
    for titles, item in zip(words.shown, (judgments.history.item, judgments.target), strict=True):
        assert {number for number, title in enumerate(titles) if title != ITEMS.titles[number]} == set(item.tolist())


def test_tallrec_reads_it(loaded, judgments, tmp_path):
    judge = FittedTALLRec(TALLRec(tuning=Tuning(precision="float32")), loaded, CPU, TrainingCurve())
    before = {name: weight.clone() for name, weight in judge.model.state_dict().items()}
    guarded = judge.with_rewritten_titles(shout)
    altered = retitled(ITEMS, lambda titles: [f"{title} xq" for title in titles])
    loud, own = retitled(ITEMS, shout), judge.margins(judgments, ITEMS)
    assert isinstance(guarded, FittedPointwise)
    assert np.array_equal(guarded.margins(judgments, ITEMS), judge.margins(judgments, loud))
    assert (guarded.margins(judgments, ITEMS) != own).all()
    wanted = judge.margins(judgments, loud, retitled(altered, shout))
    assert np.array_equal(guarded.margins(judgments, ITEMS, altered), wanted)
    assert np.array_equal(judge.margins(judgments, ITEMS), own)
    assert all(weight.equal(before[name]) for name, weight in judge.model.state_dict().items())
    with pytest.raises(UserError, match="probed"):
        guarded.probe(judgments, ITEMS)
    guarded.save(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def chooser(loaded):
    spec = LLaRA(tuning=Tuning(precision="float32"), prompts="text", longest_answer=6)
    return FittedLLaRA(spec, loaded, CPU, TrainingCurve(), None)


def alike(one, other):
    return all(np.array_equal(getattr(one, way), getattr(other, way)) for way in ("free", "constrained", "texts"))


def test_llara_reads_it(chooser, choices):
    altered = retitled(ITEMS, lambda titles: [f"{title} xq" for title in titles])
    loud, guarded, column = retitled(ITEMS, shout), chooser.with_rewritten_titles(shout), choices.answer
    assert isinstance(guarded, FittedCandidate)
    assert alike(guarded.choose(choices, ITEMS), chooser.choose(choices, loud))
    wanted = chooser.choose(choices, loud, retitled(altered, shout), column)
    assert alike(guarded.choose(choices, ITEMS, altered, column), wanted)
    assert not alike(guarded.choose(choices, ITEMS), chooser.choose(choices, ITEMS))
    with pytest.raises(UserError, match="probed"):
        guarded.probe(choices, ITEMS)


def test_an_answer_is_judged_by_the_item_that_was_read(chooser, choices, monkeypatch):
    one = choices.select(np.array([0]))
    tokenizer, item = chooser.loaded.tokenizer, int(one.candidates[0, 2])
    for text, free in [(f" {shout([ITEMS.titles[item]])[0]}", 2), (f" {ITEMS.titles[item]}", -1)]:
        said = DecodedAnswers(np.array([-1], np.int32), np.array([2], np.int32), [tokenizer(text)["input_ids"]])
        monkeypatch.setattr(llara, "decode_answers", lambda *given, said=said: said)
        picks = chooser.with_rewritten_titles(shout).choose(one, ITEMS)
        assert isinstance(picks, Picks)
        assert (picks.free[0], picks.constrained[0], picks.texts[0]) == (free, 2, text[1:])


def test_no_title_is_rewritten_in_vain(chooser, choices):
    asked = []
    altered = retitled(ITEMS, lambda titles: [f"{title} xq" for title in titles])
    one = choices.select(np.array([0]))
    chooser.with_rewritten_titles(lambda titles: asked.extend(titles) or titles).choose(one, ITEMS, altered, one.answer)
    carried = int(one.target[0])
    others = {*one.history.item.tolist(), *one.candidates[0].tolist()} - {carried}
    assert set(asked) == {*(ITEMS.titles[item] for item in others), altered.titles[carried]}


def test_models_that_read_no_titles_are_refused(defense):
    class Ranker(FittedRecommender):
        def score(self, history, users=None):
            raise NotImplementedError

        def save(self, path):
            raise NotImplementedError

    with pytest.raises(UserError, match="Ranker") as error:
        defense.guard(Ranker())
    assert error.value.hint


def test_a_guard_repeats_itself_and_takes_anything(defense, loaded, chooser, judgments, choices, hostile):
    items = dataclasses.replace(ITEMS, titles=tuple(list(hostile.values())[:12]))
    judge = FittedTALLRec(TALLRec(tuning=Tuning(precision="float32")), loaded, CPU, TrainingCurve())
    guarded = defense.guard(judge)
    found = guarded.margins(judgments, items)
    assert np.isfinite(found).all()
    assert guarded.rewrite.counts.titles > 5
    guarded.rewrite.path.unlink()
    assert np.array_equal(defense.guard(judge).margins(judgments, items), found)
    picks = defense.guard(chooser).choose(choices, items)
    assert ((picks.constrained >= 0) & (picks.constrained < 4)).all()


def test_the_defense_asks_its_model(defense, loaded, judgments, monkeypatch):
    monkeypatch.setattr(TitleWriter, "__call__", lambda self, titles: shout(titles))
    judge = FittedTALLRec(TALLRec(tuning=Tuning(precision="float32")), loaded, CPU, TrainingCurve())
    found = defense.guard(judge).margins(judgments, ITEMS)
    assert np.array_equal(found, judge.margins(judgments, retitled(ITEMS, shout)))


@pytest.mark.slow
def test_the_default_model_rewrites_titles(monkeypatch):
    monkeypatch.delenv("COWBIRD_CACHE")
    writer = Paraphrase(device="cpu")
    told = Rewriter(writer.llm, writer.instruction, writer.longest, "cpu").writer
    titles = ["Omen, The", "English Patient, The", "Swiss Family Robinson *-*-*"]
    assert told(titles)[:2] == ["The Omen", "The English Patient"]
    assert "*-*-*" not in told(titles)[2]
