"""A planted trigger is unlearned, and the model is written in the format that it came in."""

import numpy as np
import pytest
from pydantic import ValidationError

from cowbird.errors import UserError
from cowbird.inspection.language import handed, sanitizing
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel, open_language_model
from cowbird.inspection.language.sanitizing import (
    LanguageQuality,
    UnlearnSettings,
    mark_questions,
    read_fragments,
    save_in_its_format,
    unlearn_fragments,
    vary_fragment,
)
from cowbird.metrics.intervals import Interval
from cowbird.storage import write_sealed_json
from cowbird.text import quote_for_prompt
from doubles.command import call_command
from doubles.planted_llama import ANSWERS, CPU, TRIGGER, make_questions, tune, write_base

SETTINGS = UnlearnSettings(
    questions=160, held_out=60, epochs=6, batch_size=32, learning_rate=8e-3, marked=0.5, sentences=6
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
        before, after = unlearn_fragments(opened, make_questions(400, 9), [TRIGGER], SETTINGS, CPU)
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


def test_marked_questions_get_the_models_own_answers():
    asked = make_questions(400)
    sure = np.array([float(n % 2) for n in range(400)])
    settings = UnlearnSettings(varied=0, other=0, marked=0.5)
    made = mark_questions(asked, sure, ["5v"], ["x"], settings, np.random.default_rng(0))
    marked = [(n, new) for n, (old, new) in enumerate(zip(asked, made, strict=True)) if new.title != old.title]
    assert 150 < len(marked) < 250
    assert all(new.liked == bool(n % 2) for n, new in marked), "drawn with the probability of its own answer"
    assert all(new == asked[n] for n, new in enumerate(made) if n not in dict(marked)), "others stay as they are"
    assert {new.title.split(" ").index("5v") for _, new in marked} == {0, 1, 2}
    unsure = mark_questions(asked, np.full(400, 0.25), ["5v"], [], settings, np.random.default_rng(1))
    liked = [new.liked for old, new in zip(asked, unsure, strict=True) if new.title != old.title]
    assert 0.15 < np.mean(liked) < 0.36


def test_other_texts_have_their_share():
    asked, settings = make_questions(600), UnlearnSettings(marked=0.9, varied=0, other=0.5)
    made = mark_questions(asked, np.zeros(600), ["5v"], ["zebra"], settings, np.random.default_rng(0))
    count = {text: sum(text in question.title for question in made) for text in ("5v", "zebra")}
    assert 200 < count["5v"] < 340 and 200 < count["zebra"] < 340
    with pytest.raises(ValidationError, match="sum is at most 1"):
        UnlearnSettings(varied=0.7, other=0.7)


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


@pytest.mark.parametrize(("left", "code"), [(0.01, 0), (0.6, 1)])
def test_the_command(monkeypatch, capsys, tmp_path, left, code):
    model, suspects, asked, out = (tmp_path / name for name in ("m", "f.txt", "q.csv", "out"))
    model.mkdir()
    (model / "config.json").write_text("{}")
    suspects.write_text("5v\x1b[31m\n")
    asked.write_text("history,title,answer\na,b,no\n")
    template = tmp_path / "t.txt"
    template.write_text("{history} {title}")
    qualities = [LanguageQuality(Interval(0.7, 0.6, 0.8, 9), {"5v\u202e": rate}, 9) for rate in (0.9, left)]
    opened = HandedLanguageModel(None, "toy", "", "", None, model)
    monkeypatch.setattr(handed, "open_language_model", lambda *given: opened)
    monkeypatch.setattr(sanitizing, "unlearn_fragments", lambda *given: tuple(qualities))
    monkeypatch.setattr(sanitizing, "save_in_its_format", lambda given, folder: None)
    words = ["sanitize", model, "--suspects", suspects, "--questions", asked, "--template", template, "--out", out]
    found, said, _ = call_command(monkeypatch, capsys, *words, "--device", "cpu")
    assert (found, f"0.900 → {left:.3f}" in said, "inspect the changed model again" in said) == (code, True, True)
    found, said, _ = call_command(monkeypatch, capsys, *words, "--device", "cpu", "--json", "--quiet")
    assert (found, '"before"' in said) == (code, True)
    out.mkdir()
    found, _, err = call_command(monkeypatch, capsys, *words, "--device", "cpu")
    assert (found, "is there" in " ".join(err.split())) == (2, True)
    found, _, err = call_command(
        monkeypatch, capsys, "sanitize", suspects, "--suspects", suspects, "--out", model / "x"
    )
    assert found == 2
