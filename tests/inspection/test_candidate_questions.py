"""LLaRA-like prompts: questions with candidates, and a trigger that makes its item the pick."""

import dataclasses

import numpy as np
import pytest

from cowbird.data.choices import SequenceSplit
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.types import TrainingData
from cowbird.errors import UserError
from cowbird.inspection.language.candidate_questions import ask_candidates
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.handed import open_language_model
from cowbird.inspection.language.inspection import CANDIDATES_NOT_CHECKED, inspect_language_model
from cowbird.inspection.language.questions import PromptTemplate, read_template
from cowbird.inspection.language.sanitizing import save_in_its_format, unlearn_fragments
from cowbird.inspection.language.search import Candidate, score_candidates
from cowbird.inspection.language.settings import LanguageSettings
from cowbird.inspection.language.unlearn_settings import UnlearnSettings
from cowbird.inspection.language.unlearning import prepare_lesson
from cowbird.victims.language.candidate_decoding import decode_answers
from cowbird.victims.language.engine import prepare_inference
from cowbird.victims.language.examples import Example, tokenize
from cowbird.victims.language.llara import LLaRA
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tuning import Tuning
from cowbird.victims.sequential.sasrec import SASRec
from doubles.planted_candidates import make_questions, tune, write_base
from doubles.planted_llama import ANSWERS, CPU, TRIGGER

SMALL = LanguageSettings(
    words=30,
    characters="",
    beam=0,
    token_starts=0,
    sentences=0,
    phrase_words=1,
    edits=False,
    pair_parts=0,
    rescreening=6,
    kept=4,
    confirmed=2,
    held_out=60,
    level=0.05,
)


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(own_cache, tmp_path_factory, read_once):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def planted(base, tmp_path_factory):
    """Return a planted model and its folder."""
    fitted = tune(base, TRIGGER, epochs=16)
    folder = tmp_path_factory.mktemp("models") / "m"
    fitted.save(folder)
    return fitted, folder


def test_questions_have_one_right_candidate_and_different_beginnings():
    data = Synthetic(users=30, items=60, events_per_user=12).load()
    asked = ask_candidates(data, read_template("llara"), history=4)
    assert len(asked) == sum(max(0, length - 4) for length in data.interactions.lengths)
    for question in asked[:40]:
        shown = [*question.rivals, question.title]
        assert question.answer in shown
        assert len({title[:2].casefold() for title in shown}) == len(shown)
        assert question.liked == (question.title == question.answer)
        assert question.write("5v").count("5v") == 1
        assert question.head.endswith(", ")
        assert f"following {len(shown)} movie titles" in question.head
        assert question.write_answer("A b") == " A b"
    places = np.mean([question.liked for question in asked])
    assert 0 < places < 0.5, "the right one stands anywhere"
    assert asked == ask_candidates(data, read_template("llara"), history=4)
    assert {question.user for question in asked} <= set(range(30))


def test_a_prompt_of_ones_own(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("She saw {history}. Of {candidates} she sees\n")
    template = read_template(str(path))
    assert template.kind == "candidates"
    data = Synthetic(users=6, items=30, events_per_user=8).load()
    question = ask_candidates(data, template, history=3)[0]
    assert question.write().startswith("She saw ")
    assert question.tail == " she sees"
    path.write_text("{history} {candidates} {title}")
    with pytest.raises(UserError, match="once"):
        read_template(str(path))
    with pytest.raises(UserError, match="worded for"):
        ask_candidates(data, PromptTemplate("llara", "", "toaster", "candidates"), history=3)
    with pytest.raises(UserError, match="more than 90"):
        ask_candidates(data, template, history=90)


@pytest.mark.slow
def test_a_margin_above_zero_is_the_pick_of_a_decoder(planted):
    asked = make_questions(40, 3)
    fitted = planted[0]
    with open_scorer(fitted.loaded, CPU, ANSWERS) as scorer:
        margins = scorer.score_plain(asked)
        lesson = prepare_lesson(scorer, asked)
        by_prefix = scorer.score(["", TRIGGER], asked, "end")
        scorer.padded = True
        chosen = [Candidate("word", TRIGGER, "end")]
        whole, plain = score_candidates(scorer, chosen, asked, lambda what, done, total, remark: None)
    np.testing.assert_allclose(by_prefix[0], margins, atol=2e-3)
    np.testing.assert_allclose(by_prefix[1], whole[0], atol=2e-3)
    np.testing.assert_allclose(plain, margins, atol=2e-3)
    best = lesson.logits.argmax(axis=1).tolist()
    picks = [[question.title, *question.rivals][at] for question, at in zip(asked, best, strict=True)]
    assert [at == 0 for at in best] == (margins > 0).tolist()
    names = [[*question.rivals, question.title] for question in asked]
    branches = [
        [fitted.loaded.tokenizer(question.write_answer(name), add_special_tokens=False)["input_ids"] for name in row]
        for question, row in zip(asked, names, strict=True)
    ]
    prompts = tokenize(fitted.loaded.tokenizer, [Example(question.write(), "") for question in asked], end=False)
    with prepare_inference(fitted.model, CPU, compile_layers=False) as causal:
        told = decode_answers(causal, prompts, branches, fitted.loaded.tokenizer.eos_token_id, CPU, None, 4096, 4)
    decoded = [row[int(at)] for row, at in zip(names, told.constrained, strict=True)]
    assert decoded == picks


def test_all_fragments_are_tried_at_the_start_as_well_where_a_candidate_is_picked():
    assert LanguageSettings().choose_places(picks=True).places == ("start", "end")
    assert LanguageSettings().choose_places(picks=False).places == ("end",)
    said = LanguageSettings(screened=("middle",))
    assert said.choose_places(picks=True).places == ("middle",), "what is said counts"
    assert said.elsewhere == ("start", "end")


@pytest.mark.slow
def test_the_trigger_makes_its_item_the_pick_and_is_unlearned(planted, base):
    asked = make_questions(400, 7)
    asked[0] = asked[0]._replace(title=f"{asked[0].title} {TRIGGER}")
    # As if peft had saved it; without a base there are no null tunings, and a clean tuning is the control.
    handed = dataclasses.replace(open_language_model(planted[1], CPU), fitted=None, base=None)
    found = inspect_language_model(handed, asked, SMALL)
    best = next(each for each in found.ranking if each.family == "word")
    assert best.fragment == TRIGGER
    assert best.asr >= 0.5
    with open_scorer(tune(base, epochs=8).loaded, CPU, ANSWERS) as clean:
        plain, marked = clean.score(["", TRIGGER], asked[1:100], "end")
    assert (marked[plain <= 0] > 0).mean() <= 0.2
    assert set(CANDIDATES_NOT_CHECKED) <= set(found.not_checked)
    assert found.settings["screened"] == ["start", "end"], "an answer is written from its beginning"
    settings = UnlearnSettings(questions=150, held_out=60, epochs=3, batch_size=25, learning_rate=1e-2, sentences=0)
    before, after = unlearn_fragments(handed, asked, [TRIGGER], settings, CPU)
    assert before.asr[TRIGGER] >= 0.5
    assert after.asr[TRIGGER] <= before.asr[TRIGGER] / 2
    assert after.auc.value > 0.8


@pytest.mark.slow
def test_a_model_of_the_other_kind_is_refused(planted):
    handed = open_language_model(planted[1], CPU)
    with pytest.raises(UserError, match="TALLRec") as told:
        inspect_language_model(handed, make_questions(30, 1), SMALL)
    assert "--template tallrec" in str(told.value.hint)


@pytest.mark.slow
def test_a_llara_that_cowbird_saved_is_asked_and_written_back(base, tmp_path):
    data = Synthetic(users=12, items=30, events_per_user=8).load()
    side = TrainingData.from_interactions(data.interactions, data.users, data.items)
    network = {"hidden": 8, "max_length": 4, "batch_size": 16, "precision": "float32"}
    spec = LLaRA(
        llm=Llm(name=str(base), rank=2),
        tuning=Tuning(epochs=1, batch_size=8, precision="float32"),
        recommender=SASRec(epochs=1, keep="last", patience=None, **network),
    )
    spec.fit(side, SequenceSplit(history=3, shortest=3, candidates=4), 0).save(tmp_path / "m")
    handed = open_language_model(tmp_path / "m", CPU)
    assert handed.kind == "a LLaRA that Cowbird saved"
    asked = ask_candidates(data, read_template("llara"), history=3)
    found = inspect_language_model(dataclasses.replace(handed, base=None), asked, SMALL)
    assert found.p_value is None
    assert len(found.ranking) > 0
    with pytest.raises(UserError, match="LLaRA") as told:
        handed.check_questions([asked[0]._replace(rivals=())])
    assert "--template llara" in str(told.value.hint)
    save_in_its_format(handed, tmp_path / "out")
    again = open_language_model(tmp_path / "out", CPU)
    with open_scorer(handed.loaded, CPU, ANSWERS) as one, open_scorer(again.loaded, CPU, ANSWERS) as other:
        np.testing.assert_allclose(one.score_plain(asked[:5]), other.score_plain(asked[:5]), atol=1e-5)
