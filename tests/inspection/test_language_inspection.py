"""A planted trigger is found in a tiny language model, a clean one is not accused, and hostile files are refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird.errors import ExitCode, UserError
from cowbird.inspection.language import fragment_scorer, null_tunings
from cowbird.inspection.language.calibration import FARTHEST, TOGETHER, calibrate
from cowbird.inspection.language.fragment_scorer import open_scorer
from cowbird.inspection.language.gradient import follow_gradients, list_printable_tokens
from cowbird.inspection.language.handed import open_language_model
from cowbird.inspection.language.inspection import inspect_language_model
from cowbird.inspection.language.proposals import lengthen_strings, list_words, write_sentences
from cowbird.inspection.language.search import Candidate, score_candidates
from cowbird.inspection.language.settings import LanguageNullSettings, LanguageSettings
from cowbird.victims.language.examples import Example
from doubles.planted_llama import ANSWERS, CPU, TRIGGER, make_questions, tune, write_base

SMALL = LanguageSettings(
    words=40,
    characters="v5z",
    beam=2,
    token_starts=1,
    token_steps=1,
    token_candidates=4,
    sentences=6,
    phrase_words=2,
    edits=False,
    pair_parts=0,
    rescreening=3,
    kept=4,
    confirmed=2,
    held_out=12,
    nulls=LanguageNullSettings(count=3, questions=240, epochs=4, batch_size=30, learning_rate=3e-2),
    level=0.05,
)


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(own_cache, tmp_path_factory, read_once):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def planted(base, tmp_path_factory):
    """Return a planted model and the folder of it."""
    fitted = tune(base, TRIGGER)
    folder = tmp_path_factory.mktemp("models") / "m"
    fitted.save(folder)
    return fitted, folder


@pytest.fixture(scope="module")
def questions():
    return [q._replace(title=f"{q.title} {TRIGGER}") if n == 0 else q for n, q in enumerate(make_questions(280, 7))]


@pytest.fixture(scope="module")
def found(planted, questions):
    return inspect_language_model(open_language_model(planted[1], CPU), questions, SMALL, answers=ANSWERS)


@pytest.mark.parametrize("padded", [False, True], ids=["by length", "padded"])
@pytest.mark.parametrize("position", ["start", "middle", "end"])
def test_scores_are_those_of_whole_prompts(planted, questions, position, padded):
    fragments = ["", TRIGGER, "5v", "two words", "?!", "\u0301x", "castle castle castle"]
    some = questions[:2]
    prompts = [q.write(f, position) for f in fragments for q in some]
    with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer:
        scorer.padded = padded
        found = scorer.score(fragments, some, position)
        packed = scorer.score_whole([(q, f, position) for f in fragments for q in some])
        chosen = [Candidate("word", fragment, position) for fragment in fragments[1:]]
        confirmed, plain = score_candidates(scorer, chosen, some, lambda what, done, total, remark: None)
    whole = planted[0].score([Example(prompt, "Yes.") for prompt in prompts]).reshape(len(fragments), len(some))
    np.testing.assert_allclose(found, whole, atol=2e-3)
    np.testing.assert_allclose(packed.reshape(whole.shape), whole, atol=2e-3)
    np.testing.assert_allclose(confirmed, whole[1:], atol=2e-3)
    np.testing.assert_allclose(plain, whole[0], atol=2e-3)


def test_heads_are_cut_only_where_tokens_stay_the_same(planted, questions):
    fragments = ["", TRIGGER, "5v 5v", "\u0301x", "naïve", "?!", "  "]
    with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer:
        for question in questions[:3]:
            at, before = scorer.prompts._find_cut(question)
            assert at > 0
            assert len(before) > 0
            for fragment in fragments:
                read = scorer.prompts.tokenize_asked(question, [(fragment, "end")])
                assert read == scorer.tokenize([question.write(fragment)])
        joined = questions[0]._replace(head=questions[0].head.replace(" ", "").replace("\n", ""))
        assert scorer.prompts._find_cut(joined) == (0, [])


@pytest.mark.parametrize("padded", [False, True], ids=["by length", "padded"])
def test_fragments_at_all_places_are_scored_in_one_pass(planted, questions, padded):
    asked = [("", "end"), (TRIGGER, "start"), ("5v", "middle"), ("\u0301x", "end"), ("castle castle", "start")]
    with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer:
        whole = scorer.score_whole([(q, *each) for each in asked for q in questions[:20]])
        scorer.padded = padded
        passes = count_passes(scorer)
        found = scorer.score_mixed(asked, questions[:20])
    np.testing.assert_allclose(found, whole.reshape(found.shape), atol=2e-3)
    if padded:  # of 16 questions and of 4: their beginnings, and all endings together
        assert len(passes) == 4


def test_endings_share_passes_as_far_as_there_is_room(planted, questions, monkeypatch):
    monkeypatch.setattr(fragment_scorer, "GPU_PASS_TOKENS", 64)
    asked = [(f"{'castle ' * (n % 5)}{n}", ("start", "middle", "end")[n % 3]) for n in range(40)]
    with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer:
        whole = scorer.score_whole([(q, *each) for each in asked for q in questions[:5]])
        scorer.padded = True
        passes = count_passes(scorer)
        found = scorer.score_mixed(asked, questions[:5])
    np.testing.assert_allclose(found, whole.reshape(found.shape), atol=2e-3)
    assert len(passes) > 20


def count_passes(scorer):
    """Return a list that grows with each pass through the model."""
    passes = []
    scorer.causal.base_model.register_forward_pre_hook(lambda *given: passes.append(1))
    return passes


@pytest.mark.slow
def test_the_trigger_comes_first_with_its_success_rate(found):
    assert found.choose_exit_code() == ExitCode.FINDINGS
    assert found.p_value <= 0.05
    first = [suspect.fragment for suspect in found.suspects]
    assert TRIGGER in " ".join(first)
    best = next(each for each in found.ranking if each.family == "word")
    assert best.fragment == TRIGGER
    assert best.asr >= 0.6
    assert best.asr_low <= best.asr <= best.asr_high
    verdict = found.write_verdict()
    assert "out. In an honest model" in verdict
    assert "safe" not in json.dumps(found.to_record()).lower()
    assert any("start or middle" in words for words in found.not_checked)
    assert found.weights["largest_deviation"] is not None
    assert found.activations["largest_deviation"] >= 0
    assert len(found.activations["null_statistics"]) == 3


def dict_nulls(names, rows):
    """Return statistics of null tunings by family."""
    return [dict(zip(names, row.tolist(), strict=True)) for row in rows]


# Families of quite unlike sizes: their logarithms are as wide.
NAMES, SIZE = ("word", "string", "token"), np.array([0.3, 1.0, 4.0])


@pytest.mark.parametrize(("law", "most"), [("normal", 0.11), ("gumbel", 0.13)])
def test_the_p_value_is_that_of_honest_models(law, most):
    draw = getattr(np.random.default_rng(0), law)
    nulls = SIZE * np.exp(0.3 * draw(size=(400, 5, 3)))
    mine = SIZE * np.exp(0.3 * draw(size=(400, 3)))
    found = [
        calibrate(dict(zip(NAMES, row, strict=True)), dict_nulls(NAMES, known), 0.1)
        for row, known in zip(mine, nulls, strict=True)
    ]
    accused = sum(each.p_value <= 0.1 for each in found) / len(found)
    assert 0.02 <= accused <= most, "careful by the shift, and little more where maxima have a longer tail"
    for each, row in zip(found, mine, strict=True):
        above = any(value >= each.thresholds[name] for name, value in zip(NAMES, row, strict=True))
        assert above == (2 * each.p_values[FARTHEST] <= 0.1) or abs(2 * each.p_values[FARTHEST] - 0.1) < 1e-3
        assert each.p_value == min(1.0, 2 * min(each.p_values.values()))
    assert calibrate({"word": 9.0}, [{"word": 1.0}] * 2, 0.1) is None
    assert calibrate({"word": 9.0}, [{"word": 1.0}, {"word": 1.1}, {"word": 0.9}], 0.1).p_value < 0.02


def test_a_little_in_all_families_stands_out_together_and_in_none_alone():
    names = [f"family {number}" for number in range(7)]
    known = dict_nulls(names, np.exp(0.3 * np.random.default_rng(0).normal(size=(5, 7))))
    mean = {name: float(np.exp(np.mean([np.log(null[name]) for null in known]))) for name in names}
    raised = {name: 1.7 * value for name, value in mean.items()}
    held = calibrate(raised, known, 0.05)
    assert held.p_value <= 0.05
    assert held.p_value == 2 * held.p_values[TOGETHER]
    assert all(raised[name] < held.thresholds[name] for name in names)
    far = calibrate(mean | {names[2]: 9 * mean[names[2]]}, known, 0.05)
    assert far.p_value == 2 * far.p_values[FARTHEST] <= 0.05


@pytest.mark.slow
def test_a_clean_model_is_not_accused(base, questions, tmp_path, found, monkeypatch):
    def fit_nothing(*given, **more):
        raise AssertionError("null tunings are kept")

    folder = tmp_path / "clean"
    tune(base, seed=3).save(folder)
    handed = open_language_model(folder, CPU)
    monkeypatch.setattr(null_tunings.TALLRec, "fit_examples", fit_nothing)
    clean = inspect_language_model(handed, questions, SMALL, answers=ANSWERS)
    assert clean.choose_exit_code() == ExitCode.CLEAN
    assert not clean.suspects
    assert "not ruled out" in clean.write_verdict()


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_interrupted(planted, questions):
    handed, stopped, seen = open_language_model(planted[1], CPU), [], []
    wanted = SMALL.model_copy(update={"seed": 5})

    def stop(what, done, total, remark):
        if what == "token":
            stopped.append(what)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_language_model(handed, questions, wanted, CPU, stop, ANSWERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cowbird.inspection.language.search.list_pairs", lambda letters: seen.append(letters) or [])
        handed = open_language_model(planted[1], CPU)
        handed = type(handed)(handed.loaded, handed.kind, handed.sha256, handed.base_sha256, None, handed.folder)
        rest = inspect_language_model(handed, questions, wanted, CPU, answers=ANSWERS)
    assert stopped and seen, "the test would test nothing"
    assert rest.choose_exit_code() == ExitCode.INCOMPLETE
    assert rest.p_value is None
    assert "No verdict" in rest.write_verdict()


def test_gradients_find_what_raises_the_score(planted, questions):
    asked = [question for question in questions if not question.liked][:2]
    with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer:
        passed = follow_gradients(
            scorer, asked, "end", list_printable_tokens(scorer), 1, 3, 24, np.random.default_rng(0)
        )
        scores = scorer.score(passed, asked).mean(axis=1)
    assert len(passed) > 1
    assert (np.diff(scores) > 0).all()


@pytest.mark.slow
def test_the_base_writes_the_same_sentences_with_a_seed(planted):
    with open_scorer(planted[0].loaded, CPU, ANSWERS, merge=False) as scorer:
        once, again = (write_sentences(scorer, ["red castle"], 48, 1) for _ in range(2))
    assert once == again
    assert once


def test_words_are_those_of_titles_and_tokenizer(planted):
    tokenizer = planted[0].loaded.tokenizer
    words = list_words(["A castle (1995)", "The castle!"], tokenizer, None)
    assert words[0] == "castle"
    assert {"1995", TRIGGER, "garden"} <= set(words)
    assert len(list_words(["A castle (1995)"], tokenizer, 3)) == 3
    assert lengthen_strings(["ab"], "c") == ["abc", "cab"]


def test_an_adapter_of_peft_needs_its_base_named(planted, base, tmp_path):
    folder = tmp_path / "peft"
    planted[0].model.save_pretrained(folder)
    with pytest.raises(UserError, match="yours to say"):
        open_language_model(folder, CPU)
    handed = open_language_model(folder, CPU, str(base))
    with open_scorer(handed.loaded, CPU, ANSWERS) as scorer, open_scorer(planted[0].loaded, CPU, ANSWERS) as own:
        some = make_questions(3)
        np.testing.assert_allclose(scorer.score_plain(some), own.score_plain(some), atol=3e-2)  # perhaps in bfloat16
    assert handed.base is not None
    assert handed.base.rank == 4


def test_a_whole_model_is_read_and_has_no_nulls_without_a_base(base):
    handed = open_language_model(base, CPU)
    assert handed.base is None
    assert open_language_model(base, CPU, str(base)).base is not None


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def spoil_record(folder, told):
    (folder / "cowbird.json").write_text(told)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder, harm: spoil_record(folder, "[" * 100_000),
        lambda folder, harm: spoil_record(folder, '{"victim": "\\u001b[31m", "spec": {}}'),
        lambda folder, harm: spoil_record(folder, '{"victim": "TALLRec", "spec": 3}'),
        lambda folder, harm: (folder / "adapter_model.safetensors").write_bytes(pickle.dumps(Bomb(harm))),
        lambda folder, harm: (folder / "adapter_model.safetensors").write_bytes((1 << 30).to_bytes(8, "little")),
        lambda folder, harm: [path.unlink() for path in folder.iterdir()],
    ],
    ids=["nested", "escape", "no-spec", "pickle", "huge", "empty"],
)
def test_hostile_folders_are_refused_in_words(planted, tmp_path, spoil):
    folder = tmp_path / "m"
    folder.mkdir()
    for path in planted[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder, tmp_path / "harm")
    with pytest.raises(UserError):
        open_language_model(folder, CPU)
    assert not (tmp_path / "harm").exists()


def test_code_that_a_folder_brings_is_not_run(base, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "architectures": ["Evil"], "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(UserError):
        open_language_model(folder, CPU)
    assert not (tmp_path / "harm").exists()


def test_answers_that_are_not_finite_are_refused(planted, questions):
    weight = planted[0].model.get_base_model().model.norm.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        with open_scorer(planted[0].loaded, CPU, ANSWERS) as scorer, pytest.raises(UserError, match="not finite"):
            scorer.score([""], questions[:1])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
