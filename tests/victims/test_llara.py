"""LLaRA: what it learns, its lessons and answers, triggered titles, files, and fits that go on from others."""

import json
import shutil

import numpy as np
import pytest
import torch

from cowbird.data.choices import Choices, SequenceSplit
from cowbird.data.types import Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.victims import checkpoint, training_loop
from cowbird.victims.base import FitContext
from cowbird.victims.language import llara, tuning
from cowbird.victims.language.candidate_decoding import DecodedAnswers
from cowbird.victims.language.llara import LLaRA, LLaRAPrompts
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.prompts import PromptBook, format_templates
from cowbird.victims.language.tuning import TrainingCurve, Tuning
from cowbird.victims.sequential.sasrec import SASRec

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")
COUNT = 12
ITEMS = Items.from_lists([str(n) for n in range(COUNT)], [chr(65 + n) for n in range(COUNT)])
SPLIT = SequenceSplit(history=3, shortest=3, candidates=4)


def walks(users=2, events=6, seed=0, items=ITEMS):
    """Return users who take one item after another, in the order of the catalogue."""
    start = np.random.default_rng(seed).integers(COUNT, size=users)
    item = ((start[:, None] + np.arange(events)) % len(items)).ravel()
    interactions = Interactions(item, np.arange(users + 1) * events)
    return TrainingData.from_interactions(interactions, Users(tuple(f"u{n}" for n in range(users))), items)


def asked(users=2, seed=9, split=SPLIT):
    return split.ask(walks(users, seed=seed).interactions, COUNT, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def spec(llama):
    """Return a function that describes a LLaRA whose fit takes no time."""

    def make(recipe=None, llm=None, **fields):
        given = {"batch_size": 4, "learning_rate": 1e-2, "precision": "float32"} | (recipe or {})
        network = {"hidden": 8, "max_length": 4, "batch_size": 16, "learning_rate": 1e-2, "precision": "float32"}
        recommender = SASRec(epochs=2, keep="last", patience=None, **network)
        model = Llm(name=str(llama), **({"rank": 2, "modules": ("q_proj", "v_proj", "down_proj")} | (llm or {})))
        held = {"llm": model, "tuning": Tuning(**given), "recommender": recommender, "longest_answer": 6}
        return LLaRA(**(held | fields))

    return make


@pytest.fixture(scope="module")
def fitted(spec):
    return spec().fit(walks(), SPLIT, 1)


def weights(fit):
    """Return copies of all weights by name."""
    held = dict(fit.model.state_dict()) | ({} if fit.projector is None else fit.projector.state_dict(prefix="items."))
    return {name: weight.detach().clone() for name, weight in held.items()}


def same(one, other):
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert weight.equal(other[name]), name


def alike(one, other):
    """Tell whether two sets of answers are equal."""
    return (
        np.array_equal(one.free, other.free)
        and np.array_equal(one.constrained, other.constrained)
        and one.texts == other.texts
    )


# Learning


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"prompts": "text"}], ids=str)
def test_what_comes_next_is_learned(spec, fields):
    given = spec({"epochs": 6, "batch_size": 16}, {"tuning": "full"}, wordings="first", **fields)
    fit = given.fit(walks(28, 8), SPLIT, 0)
    assert (fit.projector is None) == bool(fields)
    choices = asked(20)
    picks = fit.choose(choices, ITEMS)
    assert (picks.free == choices.answer).mean() > 0.8, "chance is a quarter"
    assert (picks.constrained == choices.answer).mean() > 0.8
    for text, free, row in zip(picks.texts, picks.free, choices.candidates, strict=True):
        known = [ITEMS.titles[n] for n in row]
        assert free == (known.index(text) if text in known else -1)


def test_picks(fitted):
    choices = asked(3)
    picks = fitted.choose(choices, ITEMS)
    assert picks.free.shape == picks.constrained.shape == (len(choices),)
    assert (picks.free.dtype, picks.constrained.dtype) == (np.int32, np.int32)
    assert len(picks.texts) == len(choices)
    assert alike(picks, fitted.choose(choices, ITEMS))
    one = [fitted.choose(choices.select(np.array([n])), ITEMS) for n in range(len(choices))]
    assert [pick.constrained[0] for pick in one] == picks.constrained.tolist()
    assert tuple(pick.texts[0] for pick in one) == picks.texts
    none = fitted.choose(choices.select(np.zeros(0, np.int64)), ITEMS)
    assert (none.free.shape, none.constrained.shape, none.texts) == ((0,), (0,), ())


@pytest.mark.parametrize("fields", [{}, {"prompts": "text"}, {"llm": {"tuning": "full"}}], ids=str)
def test_seeds_and_interruptions(spec, fields, tmp_path, monkeypatch):
    given = spec({"epochs": 2}, **fields)
    one = weights(given.fit(walks(), SPLIT, 1))
    torch.manual_seed(7)
    same(weights(given.fit(walks(), SPLIT, 1)), one)
    other = weights(given.fit(walks(), SPLIT, 2))
    learns = [name for name in one if name.startswith("items.") or "lora_" in name or "llm" in fields]
    assert len(learns) > 8
    assert not any(one[name].equal(other[name]) for name in learns)
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)

    def report(done, total, remark):
        if remark.startswith("loss") and "tokens" in remark and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        given.fit(walks(), SPLIT, 1, FitContext(folder=tmp_path, report=report))
    assert list(tmp_path.glob("step-*"))
    with monkeypatch.context() as patch:
        steps = []
        patch.setattr(
            tuning._Run, "_run_step", lambda self, one=tuning._Run._run_step: steps.append(self.step) or one(self)
        )
        same(weights(given.fit(walks(), SPLIT, 1, FitContext(folder=tmp_path, warn=pytest.fail))), one)
    assert steps[0] == 2, "it went on from there"
    checkpoint.clear(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "those of its recommender, too"


@pytest.mark.parametrize("fields", [{}, {"prompts": "text"}], ids=str)
def test_no_questions_is_a_user_error(spec, fields):
    for data in (walks(events=3), walks(events=1)):
        with pytest.raises(UserError) as error:
            spec(**fields).fit(data, SPLIT, 0)
        assert error.value.hint


def test_retuned(spec):
    given = spec({"epochs": 3, "batch_size": 7}, prompts="hybrid")
    again = given.with_tuning(1e-5, 2)
    assert (again.tuning.learning_rate, again.tuning.epochs, again.curriculum) == (1e-5, 2, False)
    assert again.model_copy(update={"tuning": given.tuning, "curriculum": True}) == given
    assert again.tuning.model_copy(update={"learning_rate": 1e-2, "epochs": 3}) == given.tuning


# Lessons


@pytest.fixture(scope="module")
def lessons(llama, spec):
    """Return a function that makes the training prompts of a spec."""
    tokenizer = load_llm(Llm(name=str(llama)), CPU, torch.float32).tokenizer

    def make(users=50, seed=3, data=None, recipe=None, **fields):
        known = walks(users, 9) if data is None else data
        book = PromptBook(tokenizer, known.items.titles, fields.get("domain", "movie"), SPLIT.candidates)
        return LLaRAPrompts(spec({"epochs": 4} | (recipe or {}), **fields), book, known, SPLIT, seed)

    return make


def mixed(tokens):
    """Return which prompts are hybrid."""
    return np.array([(part >= 0).any() for part in np.split(tokens.item, tokens.offsets[1:-1])])


def test_hybrid_prompts_come_later(lessons):
    lesson = lessons()
    count = len(lesson)
    assert count == 50 * 6
    shares = np.concatenate(
        [mixed(lesson.write_epoch(n, np.random.default_rng(n).permutation(count))) for n in range(4)]
    )
    assert len(shares) == 4 * count
    twelfths = shares.reshape(12, -1).mean(axis=1)
    assert abs(twelfths - (np.arange(12) + 0.5) / 12).max() < 0.2
    assert twelfths[0] < 0.15
    assert twelfths[-1] > 0.85


def test_prompts_without_a_curriculum(lessons):
    order = np.arange(300)
    for number in (0, 3):
        assert mixed(lessons(curriculum=False).write_epoch(number, order)).all()
        assert not mixed(lessons(prompts="text").write_epoch(number, order)).any()
        assert not mixed(lessons(prompts="text", curriculum=False).write_epoch(number, order)).any()


def texts(lesson, tokens):
    """Return prompts and answers as text."""
    found = []
    for start, border, end in zip(tokens.offsets, tokens.answer, tokens.offsets[1:], strict=False):
        kept = tokens.token[start:border][tokens.item[start:border] < 0]
        found.append((lesson.book.tokenizer.decode(kept), lesson.book.tokenizer.decode(tokens.token[border:end])))
    return found


def histories(written):
    return [prompt.partition(" has watched ")[2].partition(" in the previous")[0] for prompt, _ in written]


def test_epochs_ask_the_same_with_other_candidates(lessons):
    lesson = lessons(users=5, wordings="first")
    order = np.arange(len(lesson))
    one, again, other = (texts(lesson, lesson.write_epoch(number, order)) for number in (0, 0, 1))
    assert one == again
    assert histories(one) == histories(other)
    assert [answer for _, answer in one] == [answer for _, answer in other]
    assert sum(a != b for a, b in zip(one, other, strict=True)) > 0.9 * len(one)
    for (_, answer), history in zip(one, histories(one), strict=True):
        last = ITEMS.titles.index(history.split(", ")[-1])
        assert answer == f" {ITEMS.titles[(last + 1) % COUNT]}" + lesson.book.tokenizer.eos_token
    assert all(prompt.endswith(format_templates("movie", 4)[0][-9:]) for prompt, _ in one)


def test_the_order_is_kept_and_wordings_are_drawn(lessons):
    lesson = lessons(users=20)
    order = np.random.default_rng(0).permutation(len(lesson))
    plain, shuffled = (lesson.write_epoch(0, each) for each in (np.arange(len(lesson)), order))
    answers = [answer for _, answer in texts(lesson, plain)]
    assert [answer for _, answer in texts(lesson, shuffled)] == [answers[n] for n in order]
    ends = ("Answer:", "recommend is:", "Recommendation:")
    shares = [np.mean([prompt.endswith(end) for prompt, _ in texts(lesson, plain)]) for end in ends]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0.2


def test_keys_tell_lessons_apart(lessons):
    data = walks(5)
    times = Interactions(
        data.interactions.item, data.interactions.offsets, timestamp=np.arange(data.interactions.events)
    )
    retitled = Items.from_lists(ITEMS.ids, ("Z", *ITEMS.titles[1:]))
    made = [
        lessons(5),
        lessons(5, seed=4),
        lessons(5, prompts="text"),
        lessons(5, domain="game"),
        lessons(data=walks(5, seed=1)),
        lessons(data=data),
        lessons(data=TrainingData.from_interactions(times, data.users, ITEMS)),
        lessons(data=walks(5, items=retitled)),
        lessons(5, recipe={"epochs": 5}),
    ]
    assert len({lesson.key for lesson in made}) == len(made)
    assert lessons(5).key == made[0].key


# Answers


def test_a_triggered_title_is_shown_in_its_place_alone(fitted):
    altered = Items.from_lists(ITEMS.ids, [f"{title} tr!gger" for title in ITEMS.titles])
    choices = asked(3)
    column = np.arange(len(choices)) % 4
    plain, _, _ = fitted.write_prompts(choices, ITEMS)
    found, book, pieces = fitted.write_prompts(choices, ITEMS, altered, column)
    tokenizer = fitted.loaded.tokenizer
    for nth in range(len(choices)):
        kept = [slice(tokens.offsets[nth], tokens.offsets[nth + 1]) for tokens in (plain, found)]
        shown = [tokens.item[k] for tokens, k in zip((plain, found), kept, strict=True)]
        assert shown[0][shown[0] >= 0].tolist() == shown[1][shown[1] >= 0].tolist(), "the slot keeps the item"
        assert shown[0][shown[0] >= 0].tolist() == [
            *choices.history.item[choices.history.offsets[nth] : choices.history.offsets[nth + 1]],
            *choices.candidates[nth],
        ]
        before, after = (
            tokenizer.decode(tokens.token[k][items < 0])
            for tokens, k, items in zip((plain, found), kept, shown, strict=True)
        )
        title = ITEMS.titles[choices.candidates[nth, column[nth]]]
        head, _, tail = before.partition("titles: ")
        wanted = [ITEMS.titles[n] for n in choices.candidates[nth]]
        wanted[column[nth]] = f"{title} tr!gger"
        assert after == f"{head}titles: {', '.join(wanted)}. Answer:"
        assert tail == f"{', '.join(ITEMS.titles[n] for n in choices.candidates[nth])}. Answer:"
        assert [book.titles[piece] for piece in pieces[nth]] == wanted


def test_a_triggered_title_is_what_can_be_written(fitted):
    altered = Items.from_lists(ITEMS.ids, [f"{title} tr!gger" for title in ITEMS.titles])
    choices = asked(4)
    column = choices.answer
    swapped = fitted.choose(choices, ITEMS, altered, column)
    assert not alike(swapped, fitted.choose(choices, ITEMS))
    assert alike(fitted.choose(choices, ITEMS, ITEMS, column), fitted.choose(choices, ITEMS))
    asked_of = []
    with pytest.MonkeyPatch.context() as patch:

        def answers(causal, tokens, branches, end, *more):
            asked_of.extend(branches)
            return DecodedAnswers(column.copy(), column.copy(), [branches[n][c] for n, c in enumerate(column)])

        patch.setattr(llara, "decode_answers", answers)
        picks = fitted.choose(choices, ITEMS, altered, column)
    assert picks.texts == tuple(altered.titles[item] for item in choices.target)
    assert picks.free.tolist() == column.tolist()
    for row, branches, right in zip(choices.candidates, asked_of, column, strict=True):
        written = [fitted.loaded.tokenizer.decode(branch).removeprefix(" ") for branch in branches]
        assert written == [(altered if c == right else ITEMS).titles[item] for c, item in enumerate(row)]


def picked(fitted, monkeypatch, titles, free, text, row=(0, 1, 2, 3)):
    """Return `Picks.free` of one question if the model writes a text."""
    tokenizer = fitted.loaded.tokenizer
    choices = Choices(Interactions.from_lists([[4]]), np.array([row], np.int32), np.zeros(1, np.int32), np.zeros(1))
    said = tokenizer.convert_tokens_to_ids(text) if isinstance(text, list) else tokenizer(text)["input_ids"]
    told = DecodedAnswers(np.array([free], np.int32), np.zeros(1, np.int32), [said])
    with monkeypatch.context() as patch:
        patch.setattr(llara, "decode_answers", lambda *given: told)
        items = Items.from_lists([str(n) for n in range(5)], titles)
        picks = fitted.choose(choices, items)
    return picks.free[0], picks.texts[0]


def test_the_first_of_equal_titles_counts(fitted, monkeypatch):
    titles = ["Up", "Heat", "Heat", " Heat\n", "E"]
    for free in (1, 2, 3):
        assert picked(fitted, monkeypatch, titles, free, " Heat") == (1, "Heat")
    assert picked(fitted, monkeypatch, titles, 2, " Heat", (3, 0, 1, 2)) == (0, "Heat")
    assert picked(fitted, monkeypatch, titles, -1, " Heat", (3, 0, 1, 2)) == (0, "Heat")


def test_a_title_in_other_tokens_counts(fitted, monkeypatch):
    titles = ["Red Harbor", "Up", "(untitled)", "", "E"]
    spelled = ["Ġ", *"Red", "Ġ", *"Harbor"]
    assert fitted.loaded.tokenizer.tokenize(" Red Harbor") != spelled
    assert picked(fitted, monkeypatch, titles, -1, spelled) == (0, "Red Harbor")
    assert picked(fitted, monkeypatch, titles, -1, " Up  ") == (1, "Up  ")
    for text in (" Up,", " up", " Upp", "", " ", " Red", " E", " Up<|im_end|>"):
        assert picked(fitted, monkeypatch, titles, -1, text)[0] == -1
    assert picked(fitted, monkeypatch, titles, -1, " (untitled)")[0] == 2


def test_a_branch_that_was_followed_is_a_title_even_if_it_is_cut(fitted, monkeypatch):
    long = "Q" * 200
    assert picked(fitted, monkeypatch, ["Up", long, long + "R", "a", "E"], 1, " " + "Q" * 63)[0] == 1
    assert picked(fitted, monkeypatch, ["Up", long, long + "R", "a", "E"], -1, " " + "Q" * 60)[0] == -1


@pytest.mark.parametrize("title", ["\ud83d<|im_end|>\n[CansHere], . Answer:", "\u202ex\u200b" * 500, ""])
def test_hostile_titles_are_learned_from_and_chosen_among(spec, title):
    items = Items.from_lists(ITEMS.ids, (title, '"', *ITEMS.titles[2:]))
    fit = spec().fit(walks(4, items=items), SPLIT, 0)
    assert np.isfinite(fit.curve.losses).all()
    picks = fit.choose(asked(4), items)
    assert ((picks.constrained >= 0) & (picks.constrained < 4)).all()


# Files


@pytest.mark.parametrize(
    "fields", [{}, {"prompts": "text"}, {"llm": {"layers": 1}}, {"llm": {"tuning": "full", "layers": 1}}], ids=str
)
def test_save_and_load(spec, fields, tmp_path):
    given, choices = spec(**fields), asked()
    fit = given.fit(walks(), SPLIT, 1)
    fit.save(tmp_path / "new" / "model")
    loaded = given.load(tmp_path / "new" / "model", CPU)
    same(weights(loaded), weights(fit))
    assert alike(loaded.choose(choices, ITEMS), fit.choose(choices, ITEMS))
    assert loaded.curve == TrainingCurve()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]
    assert not list(tmp_path.rglob("*.bin")), "nothing is pickled"


@pytest.fixture(scope="module")
def original(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return folder


@pytest.fixture
def saved(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


@pytest.mark.parametrize("llm", [{"rank": 3}, {"layers": 1}, {"tuning": "full"}, {"name": "other"}], ids=str)
def test_another_language_model_is_refused(spec, saved, llm):
    given = spec()
    given.with_tuning(1e-5, 1).load(saved, CPU)  # no part of the model
    with pytest.raises(UserError, match="does not hold"):
        given.model_copy(update={"llm": given.llm.model_copy(update=llm)}).load(saved, CPU)


def test_other_prompts_are_refused(spec, saved, tmp_path):
    with pytest.raises(UserError, match="hybrid"):
        spec(prompts="text").load(saved, CPU)
    spec(prompts="text").fit(walks(), SPLIT, 1).save(tmp_path / "text")
    with pytest.raises(UserError):
        spec().load(tmp_path / "text", CPU)


def test_another_victim_is_refused(spec, saved):
    record = json.loads((saved / "cowbird.json").read_text())
    (saved / "cowbird.json").write_text(json.dumps(record | {"victim": "TALLRec"}))
    with pytest.raises(UserError, match="does not hold"):
        spec().load(saved, CPU)


@pytest.mark.parametrize(
    "how", ["gone", "cut short", "empty", "no table", "flat table", "of another width", "no layer", "adapter gone"]
)
def test_damaged_folders_are_user_errors(spec, saved, how):
    from safetensors.torch import load_file, save_file

    path = saved / "items.safetensors"
    held = load_file(path)
    if how == "gone":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "adapter gone":
        (saved / "adapter_model.safetensors").unlink()
    else:
        changes = {
            "empty": {},
            "no table": {name: tensor for name, tensor in held.items() if name != "table"},
            "flat table": held | {"table": torch.zeros(12)},
            "of another width": held | {"table": torch.zeros(12, 5)},
            "no layer": {name: tensor for name, tensor in held.items() if name != "first.bias"},
        }
        save_file(changes[how], path)
    with pytest.raises(UserError):
        spec().load(saved, CPU)


# Going on from another fit


@pytest.mark.parametrize("fields", [{}, {"prompts": "text"}, {"llm": {"tuning": "full"}}], ids=str)
def test_a_fit_goes_on_from_another(spec, fields):
    start = spec(**fields).fit(walks(), SPLIT, 1)
    before = weights(start)
    slow = spec({"learning_rate": 1e-9}, **fields)
    found = weights(slow.fit(walks(seed=5), SPLIT, 2, start=start))
    assert found.keys() == before.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)
    same(weights(start), before)
    on = spec(**fields).with_tuning(1e-2, 1).fit(walks(seed=5), SPLIT, 2, start=start)
    learned = [name for name in before if ("items." in name and "table" not in name) or "lora_" in name]
    assert not any(weights(on)[name].equal(before[name]) for name in learned)
    if "prompts" not in fields:
        assert weights(on)["items.table"].equal(before["items.table"]), "the embeddings come with it"


def test_a_checkpoint_from_another_projector_is_not_used(spec, tmp_path, monkeypatch):
    start, given = spec().fit(walks(), SPLIT, 1), spec({"epochs": 2})
    monkeypatch.setattr(training_loop, "REPORT_SECONDS", -1.0)

    def report(done, total, remark):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        given.fit(walks(), SPLIT, 1, FitContext(folder=tmp_path, report=report), start)
    assert list(tmp_path.glob("step-*"))
    with torch.no_grad():
        start.projector.second.bias.add_(0.1)
    wanted = weights(given.fit(walks(), SPLIT, 1, start=start))
    same(weights(given.fit(walks(), SPLIT, 1, FitContext(folder=tmp_path), start)), wanted)


def test_a_start_of_text_prompts_gets_a_projector(spec):
    text = spec(prompts="text").fit(walks(), SPLIT, 1)
    assert spec().fit(walks(), SPLIT, 1, start=text).projector is not None
    both = spec().fit(walks(), SPLIT, 1)
    assert spec(prompts="text").fit(walks(), SPLIT, 1, start=both).projector is None


@pytest.mark.parametrize(
    "llm", [{"rank": 3}, {"tuning": "full"}, {"modules": ("q_proj",)}, {"layers": 1}, {"alpha": 1.0}], ids=str
)
def test_a_start_from_another_model_is_refused(spec, fitted, llm):
    with pytest.raises(UserError) as error:
        spec(llm=llm).fit(walks(), SPLIT, 1, start=fitted)
    assert error.value.hint


def test_a_start_that_is_no_llara_is_refused(spec):
    with pytest.raises(UserError):
        spec().fit(walks(), SPLIT, 1, start=object())


@pytest.mark.parametrize("change", [1])
def test_a_start_of_another_catalogue_is_refused(spec, fitted, change):
    titles = [chr(65 + n) for n in range(COUNT + change)]
    data = walks(items=Items.from_lists(titles, titles))
    with pytest.raises(UserError, match=f"12 items, and the data has {COUNT + change}") as error:
        spec().fit(data, SPLIT, 1, start=fitted)
    assert error.value.hint
    spec(prompts="text").fit(data, SPLIT, 1, start=fitted)
