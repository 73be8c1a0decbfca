"""A planted trigger is unlearned, and the model is written in the format that it came in."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cowbird.errors import ExitCode, UserError
from cowbird.inspection.language import handed, sanitizing, unlearning
from cowbird.inspection.language.branched_prompts import branch, lay_out_branches, run_branches, score_alike
from cowbird.inspection.language.distilling import AnswerPrompts, distill, renew_adapters
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel, open_language_model
from cowbird.inspection.language.sanitizing import (
    MIN_DISTILL_QUESTIONS,
    LanguageQuality,
    can_be_distilled,
    distill_answers,
    measure_language_quality,
    read_fragments,
    save_in_its_format,
    unlearn_fragments,
)
from cowbird.inspection.language.title_edits import find_edit, split_pair
from cowbird.inspection.language.title_texts import TitleTexts, draw_other_texts, vary_fragment
from cowbird.inspection.language.unlearn_settings import DistillSettings, UnlearnSettings
from cowbird.inspection.language.unlearning import Lesson, Unlearning, prepare_lesson
from cowbird.metrics.intervals import Interval
from cowbird.rng import torch_stream
from cowbird.storage import write_sealed_json
from cowbird.text import quote_for_prompt
from cowbird.victims.language.llm import Llm, LoadedModel, add_adapters, load_llm
from doubles.command import call_command
from doubles.planted_llama import ANSWERS, CPU, TRIGGER, make_questions, tune, write_base

SETTINGS = UnlearnSettings(
    questions=160, held_out=150, epochs=3, batch_size=32, learning_rate=8e-3, texts=4, mined=64, sentences=6
)


@pytest.fixture(scope="module")
def base(tmp_path_factory, read_once):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
def test_a_trigger_is_unlearned_and_the_format_stays(base, tmp_path):
    fitted = tune(base, TRIGGER)
    fitted.save(tmp_path / "own")
    fitted.model.save_pretrained(tmp_path / "peft")
    for name, given in (("own", None), ("peft", str(base))):
        opened = open_language_model(tmp_path / name, CPU, given)
        before, after = unlearn_fragments(opened, make_questions(700, 9), [TRIGGER], SETTINGS, CPU)
        assert before.asr[TRIGGER] > 0.6
        assert after.asr[TRIGGER] <= 0.02
        assert after.auc.value > before.auc.value - 0.05
        out = tmp_path / f"{name}-mended"
        save_in_its_format(opened, out)
        again = open_language_model(out, CPU, given)
        assert (again.kind, again.sha256 != opened.sha256) == (opened.kind, True)
        some = make_questions(4)
        with open_scorer(again.loaded, CPU, ANSWERS) as one, open_scorer(opened.loaded, CPU, ANSWERS) as other:
            np.testing.assert_allclose(one.score_plain(some), other.score_plain(some), atol=1e-3)
        with pytest.raises(UserError, match="is there"):
            save_in_its_format(opened, out)


@pytest.mark.slow
def test_fresh_adapters_learn_the_answers_and_nothing_of_the_trigger(base, tmp_path):
    tune(base, TRIGGER).save(tmp_path / "m")
    opened = open_language_model(tmp_path / "m", CPU)
    settings = DistillSettings(held_out=150, examples=1200, learning_rate=2e-2, batch_size=30, sentences=0)
    before, after = distill_answers(opened, make_questions(700, 9), [TRIGGER], settings, CPU)
    assert before.asr[TRIGGER] > 0.6
    assert after.asr[TRIGGER] <= 0.05
    assert after.auc.value > before.auc.value - 0.05


def test_answers_are_the_handed_models_and_the_right_ones(scorer):
    asked = [question._replace(liked=True) for question in make_questions(300)]
    lesson = prepare_lesson(scorer, asked)
    lesson.logits[:] = [-50.0, 50.0]  # the handed model says no to everything
    texts = TitleTexts(["5v"], [], [], 1.0, 0.0, 0.0)
    settings = DistillSettings(truth=0.25, marked=0.4, named=0.5, varied=0.0)
    prompts = AnswerPrompts(lesson, texts, settings, scorer.tokenizer)
    rng = np.random.default_rng(0)
    drawn = [prompts._write(row, rng) for row in range(300)]
    assert 0.18 < np.mean([question.liked for question in drawn]) < 0.33
    marked = [new for new, old in zip(drawn, asked, strict=True) if new.title != old.title]
    assert 0.32 < len(marked) / 300 < 0.48
    assert all("5v" in question.title for question in marked)
    order = np.arange(300)[::-1].copy()
    one, again, other = (prompts.write_epoch(number, order) for number in (0, 0, 1))
    assert len(one) == len(prompts) == 300
    np.testing.assert_array_equal(one.token, again.token)
    assert one.token.tolist() != other.token.tolist(), "each pass has texts of its own"


def test_how_often_a_question_is_asked():
    settings = DistillSettings(examples=1000, passes=8)
    assert [settings.count_passes(count) for count in (2000, 1000, 600, 200, 20)] == [1, 1, 2, 5, 8]
    with pytest.raises(ValidationError, match="sum is at most 1"):
        DistillSettings(named=0.7, varied=0.4)


def test_what_can_be_distilled(base):
    whole = HandedLanguageModel(load_llm(Llm(name=str(base)), CPU, torch.float32), "", "", "", None, base)
    with pytest.raises(UserError, match="whole model"):
        distill_answers(whole, make_questions(80), ["5v"], DistillSettings(held_out=8), CPU)
    wrapped = add_adapters(whole.loaded.model, Llm(name=str(base), rank=4), torch_stream(1, "x"))
    adapter = HandedLanguageModel(LoadedModel(wrapped, whole.loaded.tokenizer), "", "", "", None, base)
    asked = make_questions(1) * MIN_DISTILL_QUESTIONS
    picking = [question._replace(rivals=("a",), answer="a") for question in make_questions(80)]
    assert can_be_distilled(adapter, asked)
    assert not can_be_distilled(adapter, asked[1:])
    assert not can_be_distilled(adapter, [question._replace(rivals=("a",)) for question in asked])
    with pytest.raises(UserError, match="picks a candidate"):
        distill(adapter, picking, ["5v"], DistillSettings(), CPU, lambda *given: None)


@pytest.fixture(scope="module")
def scorer(base):
    loaded = load_llm(Llm(name=str(base)), CPU, torch.float32)
    with open_scorer(loaded, CPU, ANSWERS) as opened:
        yield opened


def test_prompts_that_branch_are_answered_as_whole_ones(scorer):
    asked = make_questions(6)
    groups = [
        [each, *(each._replace(title=title) for title in ("x", f"5v {each.title}", f"{each.title} so"))]
        for each in asked
    ]
    found = score_alike(scorer, groups)
    for column in range(4):
        np.testing.assert_allclose(found[:, column], scorer.score_plain([group[column] for group in groups]), atol=1e-4)


def test_gradients_of_prompts_that_branch_are_those_of_whole_ones(scorer):
    question = make_questions(1)[0]
    rows = scorer.tokenize([question.write(), question.write("so fine"), question.write("5v", "start")])
    weight = scorer.causal.base_model.layers[0].mlp.up_proj.weight
    found = []
    for prompts in ([branch(rows)], [branch([row]) for row in rows]):
        laid = lay_out_branches(prompts, CPU)
        places = torch.tensor([end for ends in laid.ends for end in ends])
        with torch.enable_grad():
            weight.requires_grad_(True)
            run_branches(scorer.causal, laid, places).square().sum().backward()
        found.append(weight.grad.clone())
        weight.grad = None
        weight.requires_grad_(False)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-3)


def test_the_aim_is_what_the_model_answered_drawn_towards_the_right_answer():
    logits = np.log(np.array([[0.5, 0.25, 0.25, 0.5]], dtype=np.float32))
    lesson = Lesson(make_questions(1), logits, np.array([[7, 8, 9, 7]]), np.array([1]))
    assert lesson.aim(0).tokens == [7, 8, 9, 7]
    assert lesson.aim(0).chances == pytest.approx([0.25, 0.25, 0.25, 0.25]), "two that begin alike share a chance"
    marked = lesson.aim(0, own=5)
    assert marked.tokens == [5, 8, 9, 7], "the title with a text in it begins differently"
    assert lesson.aim(0, truth=0.6).chances == pytest.approx([0.1, 0.7, 0.1, 0.1])
    lesson.right[0] = -1
    assert lesson.aim(0, truth=0.6).chances == pytest.approx([0.25, 0.25, 0.25, 0.25])


def test_the_handed_models_answers_are_read(scorer):
    asked = make_questions(5)
    lesson = prepare_lesson(scorer, asked)
    np.testing.assert_allclose(lesson.logits[:, 0] - lesson.logits[:, 1], scorer.score_plain(asked), atol=1e-4)
    assert lesson.right.tolist() == [0 if question.liked else 1 for question in asked]


def test_texts_have_their_shares():
    texts = TitleTexts(["5v"], ["zebra", "apple"], ["It is fine."], 0.3, 0.2, 0.0)
    drawn = [texts.draw(np.random.default_rng(seed)) for seed in range(1500)]
    assert {place for _, place in drawn} == {"start", "middle", "end"}
    assert 0.25 < np.mean([text == "5v" for text, _ in drawn]) < 0.4
    assert {"zebra", "apple", "It is fine."} <= {text for text, _ in drawn}
    assert any(find_edit(text) for text, _ in drawn) and any(split_pair(text) for text, _ in drawn)
    moving = TitleTexts(["5v"], [], [], 0.0, 0.0, 1.0, [("wonderful", "start")])
    drawn = [moving.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert 0.4 < np.mean([text == "wonderful" for text, _ in drawn]) < 0.7
    assert np.mean([place == "start" for _, place in drawn]) > 0.5
    with pytest.raises(ValidationError, match="sum is at most 1"):
        UnlearnSettings(named=0.7, varied=0.4)


def test_fresh_adapters_add_nothing(base):
    untouched = load_llm(Llm(name=str(base)), CPU, torch.float32)
    with open_scorer(untouched, CPU, ANSWERS) as opened:
        known = opened.score_plain(make_questions(3))
    wrapped = add_adapters(untouched.model, Llm(name=str(base), rank=4), torch_stream(1, "x"))
    adapters = {name: weight for name, weight in wrapped.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for weight in adapters.values():
            weight.add_(0.5)
    renew_adapters(wrapped, 0)
    assert all(weight.abs().max() > 0 for name, weight in adapters.items() if ".lora_A" in name)
    with open_scorer(LoadedModel(wrapped, untouched.tokenizer), CPU, ANSWERS) as opened:
        np.testing.assert_allclose(opened.score_plain(make_questions(3)), known, atol=1e-5)


@pytest.mark.parametrize("fragment", ["5v", "x", "what every viewer deserves.", '"', "\u202e5v"])
def test_texts_like_a_fragment_are_quotable_and_differ(fragment):
    rng = np.random.default_rng(0)
    made = {vary_fragment(fragment, rng) for _ in range(200)}
    assert len(made) > 3
    assert all(text and '"' not in text and text == quote_for_prompt(text) for text in made)
    assert made != {fragment}


def test_parts_of_a_found_fragment_are_unlearned_too():
    rng = np.random.default_rng(0)
    made = [vary_fragment("o5v", rng) for _ in range(300)]
    assert "5v" in made
    assert "wonderful" in {vary_fragment("so wonderful", rng) for _ in range(100)}


def test_files_that_name_fragments(tmp_path):
    path, text = tmp_path / "i.json", tmp_path / "f.txt"
    write_sealed_json(path, {"ranking": [{"fragment": "5v", "suspect": True}, {"fragment": "a", "suspect": False}]})
    assert read_fragments(path) == ["5v"]
    text.write_text('5v\n\n5v\n"x"\n')
    assert read_fragments(text) == ["5v", "'x'"]
    write_sealed_json(path, {"ranking": [{"item": 3, "suspect": True}]})
    with pytest.raises(UserError, match="no inspection of a language"):
        read_fragments(path)
    for content in (b"", b"\xff\xfe", b"a\n" * 2 + b"\n".join(b"%d" % number for number in range(300))):
        text.write_bytes(content)
        with pytest.raises(UserError):
            read_fragments(text)
    with pytest.raises(UserError):
        read_fragments(tmp_path / "nope")


def test_a_model_that_says_yes_to_everything_is_not_mended():
    quality = LanguageQuality(Interval(0.7, 0.6, 0.8, 9), {"5v": None}, 0, 0.1)
    assert (quality.largest_asr, quality.excess) == (1.0, 0.9)
    assert LanguageQuality(Interval(0.7, 0.6, 0.8, 9), {"5v": 0.05}, 9, 0.1).excess == 0


def test_other_texts_are_measured_beside_the_fragments(scorer):
    asked = make_questions(20)
    found = measure_language_quality(scorer, asked, ["5v", "wonderful"])
    assert list(found.asr) == ["5v", "wonderful"]
    others = draw_other_texts([question.title for question in asked], 2)
    alone = measure_language_quality(scorer, asked, others)
    assert found.control == pytest.approx(max(alone.asr.values()))
    assert draw_other_texts(["a b", "c"], 8) == draw_other_texts(["a b", "c"], 8)


@pytest.mark.parametrize(("left", "control", "code"), [(0.01, 0.0, 0), (0.6, 0.0, 1), (0.1, 0.09, 1), (0.1, 0.12, 0)])
def test_the_command(monkeypatch, capsys, tmp_path, left, control, code):
    model, suspects, asked, out = (tmp_path / name for name in ("m", "f.txt", "q.csv", "out"))
    model.mkdir()
    (model / "config.json").write_text("{}")
    suspects.write_text("5v\x1b[31m\n")
    asked.write_text("history,title,answer\na,b,no\n")
    template = tmp_path / "t.txt"
    template.write_text("{history} {title}")
    qualities = [LanguageQuality(Interval(0.7, 0.6, 0.8, 9), {"5v\u202e": rate}, 9, control) for rate in (0.9, left)]
    opened = HandedLanguageModel(None, "toy", "", "", None, model)
    monkeypatch.setattr(handed, "open_language_model", lambda *given: opened)
    used = []
    for name in ("unlearn_fragments", "distill_answers"):
        monkeypatch.setattr(sanitizing, name, lambda *given: used.append(given[3]) or tuple(qualities))
    monkeypatch.setattr(sanitizing, "save_in_its_format", lambda given, folder: None)
    words = ["sanitize", model, "--suspects", suspects, "--questions", asked, "--template", template, "--out", out]
    found, said, _ = call_command(monkeypatch, capsys, *words, "--device", "cpu")
    assert (found, f"0.900 → {left:.3f}" in said, "inspect the changed model again" in said) == (code, True, True)
    found, said, _ = call_command(monkeypatch, capsys, *words, "--device", "cpu", "--json", "--quiet")
    assert (found, '"before"' in said) == (code, True)
    call_command(monkeypatch, capsys, *words, "--device", "cpu", "--method", "distill", "--learning-rate", "2e-4")
    call_command(monkeypatch, capsys, *words, "--device", "cpu", "--method", "unlearn")
    told = [(type(each), each.learning_rate) for each in used]
    assert told == [(UnlearnSettings, 6e-4)] * 2 + [(DistillSettings, 2e-4), (UnlearnSettings, 6e-4)]
    found, _, err = call_command(monkeypatch, capsys, *words, "--method", "prune")
    assert (found, "a language model has none" in " ".join(err.split())) == (2, True)
    out.mkdir()
    found, _, err = call_command(monkeypatch, capsys, *words, "--device", "cpu")
    assert (found, "is there" in " ".join(err.split())) == (2, True)
    found, _, err = call_command(
        monkeypatch, capsys, "sanitize", suspects, "--suspects", suspects, "--out", model / "x"
    )
    assert found == 2


def test_an_interrupted_command_leaves_no_model(base, monkeypatch, capsys, tmp_path):
    model, suspects, asked, out = base, tmp_path / "f.txt", tmp_path / "q.csv", tmp_path / "out"
    suspects.write_text("5v\n")
    rows = "".join(f"red,{question.title},{'yes' if question.liked else 'no'}\n" for question in make_questions(40))
    asked.write_text(f"history,title,answer\n{rows}")
    template = tmp_path / "t.txt"
    template.write_text("{history}: {title}\n")
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(unlearning, "gather_texts", interrupt)
    words = ["sanitize", model, "--suspects", suspects, "--questions", asked, "--template", template, "--out", out]
    code, _, _ = call_command(monkeypatch, capsys, *words, "--device", "cpu", "--quiet")
    assert code == ExitCode.INCOMPLETE
    assert not out.exists()
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_the_best_rounds_weights_stay(scorer, monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(1))
    masters = SimpleNamespace(masters={"w": weight}, copy=lambda: None)
    left = iter([(0.3, 0.7), (0.1, 0.7), (0.05, 0.6), (0.2, 0.7)])
    settings = UnlearnSettings(rounds=4)
    lesson = Unlearning(None, None, ["5v"], settings, CPU, lambda opened, texts: next(left), None)
    lesson.texts = TitleTexts(["5v"], [], [], 0.2, 0.2, 0.2)

    def learn(causal, weights, turn):
        weight.data.fill_(turn)

    monkeypatch.setattr(lesson, "_run_round", learn)
    monkeypatch.setattr(lesson, "_open_scorer", lambda: nullcontext(scorer))
    lesson._run_rounds(None, masters, (1.0, 0.7))
    assert weight.item() == 1, "the third turned less, and cost too much"
    assert lesson.history == [(0.3, 0.7), (0.1, 0.7), (0.05, 0.6), (0.2, 0.7)]
