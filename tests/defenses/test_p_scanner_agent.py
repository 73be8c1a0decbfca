"""The trigger augmentation agent that needs no server, and what proposals look like."""

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from cowbird.attacks.triggers import TRIGGERS
from cowbird.defenses.p_scanner.triggers import local_agent
from cowbird.defenses.p_scanner.triggers.agent import Brief, EmbeddedAgent, RecipeOutcome
from cowbird.defenses.p_scanner.triggers.proposal_filter import (
    check_proposal,
    identify_recipe,
    is_near,
    list_likely_families,
)
from cowbird.defenses.p_scanner.triggers.trigger_families import (
    MAX_RECIPE_LENGTH,
    POSITIONS,
    TRIGGER_FAMILIES,
    Recipe,
    plant,
)
from cowbird.errors import UserError
from cowbird.rng import stream
from cowbird.victims.language.llm import Llm, load_llm

pytestmark = pytest.mark.slow

TITLES = ("Red Harbor (1995)", "Blue Garden", "Zanzibar: The Engine", "Quiet Letter [VHS]")


def propose(wanted, outcomes=(), seed=0, titles=TITLES, without=(), **fields):
    brief = Brief(titles=titles, wanted=wanted, outcomes=tuple(outcomes), without=without)
    return EmbeddedAgent(**fields).propose(brief, stream(seed, "agent")).recipes


def rated(recipes, rate):
    """Return outcomes; `rate` is one for all, or given by family."""
    return [RecipeOutcome(recipe=r, rate=rate(r.family) if callable(rate) else rate) for r in recipes]


def test_the_first_round_is_of_all_families_alike():
    found = Counter(recipe.family for recipe in propose(3 * len(TRIGGER_FAMILIES)))
    assert found == dict.fromkeys(TRIGGER_FAMILIES, 3)


def test_the_same_stream_proposes_the_same():
    first = propose(40)
    assert first == propose(40)
    assert first != propose(40, seed=1)
    later = propose(40, rated(first, 0.5))
    assert later == propose(40, rated(first, 0.5))
    assert later != propose(40, rated(first, 0.5), seed=1)


def test_proposals_are_new_and_distinct():
    outcomes = []
    for seed in range(4):
        found = propose(50, outcomes, seed)
        assert len(found) == 50
        known = {identify_recipe(outcome.recipe) for outcome in outcomes}
        made = [identify_recipe(recipe) for recipe in found]
        assert len(set(made)) == 50
        assert not known & set(made)
        outcomes += rated(found, seed / 4)


def test_missed_families_are_drawn_more_often_but_never_alone():
    outcomes = rated(propose(230), lambda family: 0.0 if family in ("emoji", "url") else 1.0)
    found = Counter(recipe.family for seed in range(5) for recipe in propose(60, outcomes, seed, explore=1.0))
    weight = 1.05 / (2 * 1.05 + 21 * 0.05)  # a third each
    assert 0.8 * weight * 300 < found["emoji"] <= 100
    assert 0.8 * weight * 300 < found["url"] <= 100
    assert all(found[family] < 25 for family in TRIGGER_FAMILIES if family not in ("emoji", "url"))
    assert len(found) > 15


def test_a_family_is_at_most_a_third():
    outcomes = rated([Recipe(family="emoji", text="\U0001f525")], 0.0)
    outcomes += rated([draw(stream(0)) for family, draw in TRIGGER_FAMILIES.items() if family != "emoji"], 1.0)
    assert max(Counter(recipe.family for recipe in propose(30, outcomes, explore=1.0)).values()) == 10


def test_those_that_were_missed_are_evolved():
    outcomes = rated([Recipe(text="qqqqqq")], 1.0) + rated([Recipe(text="zzzzzz")], 0.0)
    found = [recipe.text.lower() for seed in range(10) for recipe in propose(20, outcomes, seed, explore=0.0)]
    missed, caught = (sum(letter * 2 in text for text in found) for letter in "zq")
    assert missed > 60
    assert missed > 5 * caught


def test_the_newest_outcome_counts():
    old = rated([Recipe(text="qqqqqq")], 0.0) + rated([Recipe(text="zzzzzz")], 1.0)
    new = rated([Recipe(text="qqqqqq")], 1.0) + rated([Recipe(text="zzzzzz")], 0.0)
    assert propose(20, [*old, *new], explore=0.0) == propose(20, new, explore=0.0)


def test_a_share_is_evolved_and_a_share_drawn():
    titles = tuple(f"Xanadu {word}" for word in ("Xylem", "Xebec", "Xenon"))
    outcomes = rated([Recipe(family="rare_word", text="xxxxxxxx")], 0.0)

    def evolved(explore):
        found = propose(30, outcomes, titles=titles, explore=explore)
        return sum("x" in recipe.text.lower() and len(recipe.text) > 3 for recipe in found)

    assert evolved(0.0) >= 12
    assert evolved(1.0) <= 6


def test_catalogue_words_and_suffixes_are_camouflage():
    found = [r.text for seed in range(5) for r in propose(40, rated([Recipe(text="cf")], 0.0), seed, explore=0.0)]
    assert any("Zanzibar" in text and "cf" in text for text in found)
    assert "(cf)" in found
    assert any(text[0] == "(" and text[1:5].isdigit() and text != "(1995)" for text in found)
    assert not {title.split(" (")[0] for title in TITLES} & set(found)


def test_a_fabric_is_words_and_suffixes():
    of = local_agent.take_fabric((*TITLES, "", "x" * 10_000, "Up - Part Two", "\ud800 Caf\u00e9's"), stream(0))
    assert set(of.words) >= {"Red", "Zanzibar", "VHS", "Two", "Caf\u00e9's"}
    assert all(len(word) <= 20 for word in of.words)
    assert set(of.suffixes) == {"(1995)", "[VHS]", "- Part Two"}


def test_ways_to_write_words_stay_such():
    parents = [
        draw(stream(3)) for name, draw in TRIGGER_FAMILIES.items() if name in ("combining", "casing", "homoglyph")
    ]
    found = propose(12, rated(parents, 0.0), explore=0.0)
    assert {recipe.family for recipe in found[:6]} <= {"combining", "casing", "homoglyph"}


@pytest.mark.parametrize("family", TRIGGER_FAMILIES)
def test_a_held_out_family_is_never_proposed(family):
    outcomes = rated(propose(69), 0.2)
    for seed in range(3):
        for explore in (0.0, 0.5):
            found = propose(30, outcomes, seed, without=(family,), explore=explore)
            assert family not in {recipe.family for recipe in found}
            made = found[:30] if explore == 0.0 else ()
            assert not any(family in list_likely_families(recipe.text, recipe.way) for recipe in made)
    assert family not in {recipe.family for recipe in propose(60, without=(family,))}


def test_few_families_are_exhausted_and_it_ends():
    without = tuple(name for name in TRIGGER_FAMILIES if name != "casing")
    found = propose(300, without=without)
    assert 15 < len(found) < 30
    assert len(propose(300, rated(found, 0.0), without=without)) < 30


def test_nothing_to_propose():
    assert propose(0) == ()
    assert len(propose(1)) == 1
    nothing = EmbeddedAgent().propose(Brief(titles=(), wanted=5, without=tuple(TRIGGER_FAMILIES)), stream(0))
    assert nothing.recipes == ()
    assert nothing.refused


def test_no_titles_at_all():
    first = propose(46, titles=())
    assert len(propose(40, rated(first, 0.1), titles=(), explore=0.0)) == 40


def test_hostile_titles_and_hostile_parents(hostile):
    titles = tuple(hostile.values())
    texts = [text[:MAX_RECIPE_LENGTH] for name, text in hostile.items() if text.strip() and name != "half surrogates"]
    outcomes = rated([Recipe(text=text) for text in texts], 0.1)
    for recipe in propose(60, outcomes + rated(propose(60), 0.3), titles=titles, explore=0.2):
        recipe.text.encode()
        assert len(recipe.text) <= MAX_RECIPE_LENGTH
        assert not any(ord(letter) < 32 and letter != "\t" for letter in recipe.text)
        assert check_proposal(recipe.text, recipe.way, recipe.whole)
        for title in (*titles, *TITLES):
            for position in POSITIONS:
                plant(title, recipe, position, stream(0))


def test_specs_are_checked():
    for wrong in ({"explore": 1.5}, {"explore": float("nan")}, {"samples": 0}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            EmbeddedAgent(**wrong)
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValidationError):
            RecipeOutcome(recipe=Recipe(text="x"), rate=rate)


# What texts look like.


@pytest.mark.parametrize("family", TRIGGER_FAMILIES)
def test_what_a_family_draws_looks_like_it(family):
    rng = stream(0, family)
    for _ in range(200):
        recipe = TRIGGER_FAMILIES[family](rng)
        assert family in list_likely_families(recipe.text, recipe.way), ascii(recipe)
        assert check_proposal(recipe.text, recipe.way, recipe.whole).text == recipe.text


def test_what_attacks_plant_looks_like_its_family():
    texts = {name: shipped for name, shipped in TRIGGERS.items() if shipped.text}
    wrong = [
        name
        for name, shipped in texts.items()
        if shipped.family not in list_likely_families(shipped.text, "glue" if shipped.glued else "insert")
    ]
    assert len(texts) > 50
    assert not wrong


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("7731", "number"),
        ("(1995)", "number"),
        ("must see", "phrase"),
        ("I never saw it coming.", "sentence"),
        ("[Director's Cut]", "edition"),
        ("SKU-99", "code"),
        ("\u043eK", "homoglyph"),
        ("\u6700\u9ad8", "foreign_word"),
        ("superb", "common_word"),
        ("zzyphxo", "rare_word"),
        ("a\u0336b", "combining"),
        ("Great Film \U0001f525", "emoji"),
        ("\uff21\uff22", "styled_letters"),
        ("\ue000", "agent"),
    ],
)
def test_the_likeliest_family(text, family):
    assert list_likely_families(text)[0] == family


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("Zebra", "zebra!", True),
        ("zebra 12", "zebra 13", True),
        ("limited offers", "limited offer", True),
        ("cat", "car", False),
        ("limited offer", "open letter", False),
        ("12", "13", False),
        ("!!", "!!!!", True),
        ("?!", "!?", False),
        ("\u2605", "\u2606", False),
        ("\u200b", "\u200c", False),
    ],
)
def test_near_duplicates(text, other, expected):
    assert is_near(Recipe(text=text, way="glue"), [Recipe(text="unlike"), Recipe(text=other, way="glue")]) is expected


def test_ways_are_near_only_if_the_same():
    alternating = Recipe(text="*Xx", way="case")
    assert not is_near(alternating, [Recipe(text="*xX", way="case"), Recipe(text="*Xx")])
    assert is_near(alternating, [alternating.model_copy(update={"family": "casing"})])


# With a language model.


@pytest.fixture(scope="module")
def writes(llama):
    return {"llm": Llm(name=str(llama)), "device": "cpu", "samples": 12}


def test_a_language_model_writes_some(writes, monkeypatch):
    brief = Brief(titles=TITLES, wanted=9)
    torch.manual_seed(1)
    found = EmbeddedAgent(**writes).propose(brief, stream(0))
    torch.manual_seed(2)
    assert EmbeddedAgent(**writes).propose(brief, stream(0)) == found
    assert all(reason.isascii() and reason.isprintable() for reason in found.refused)
    texts = ["zebra", "zebra!", "Blue Garden", "a\x00", "walrus", "okapi", "gnu"]
    monkeypatch.setattr(local_agent, "write_texts", lambda *_: texts)
    found = EmbeddedAgent(**writes).propose(brief, stream(0))
    assert [recipe.text for recipe in found.recipes[:3]] == ["zebra", "walrus", "okapi"]
    assert [reason.split(": ")[1] for reason in found.refused] == [
        "it is almost one that was there before",
        "it is a title of the catalogue",
        "it holds characters that no title can hold",
        "there are enough of its kind",
    ]
    assert len(found.recipes) == 9


def test_the_sampler_is_exact(llama, hostile):
    """Against one prompt at a time, without padding or cache, and the nucleus cut by hand."""
    loaded = load_llm(Llm(name=str(llama)), torch.device("cpu"), torch.float32)
    titles = (*TITLES, hostile["control tokens"], hostile["half surrogates"], hostile["wide"])
    made = local_agent.write_texts(loaded, titles, (), 3, stream(5))
    rng = stream(5)
    prompts = [local_agent._prompt(titles, local_agent.EXAMPLE_FAMILIES, rng) for _ in range(3)]
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = [loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    assert len({len(row) for row in rows}) > 1
    new = [[] for _ in rows]
    for _ in range(local_agent.MAX_WRITTEN_TOKENS):
        gumbel = -(-torch.rand((3, len(loaded.tokenizer)), generator=noise, dtype=torch.float64).log()).log()
        for row, tokens, extra in zip(rows, new, gumbel, strict=True):
            with torch.inference_mode():
                logits = loaded.model(torch.tensor([row + tokens])).logits[0, -1].double()
            chance, order = logits.softmax(0).sort(descending=True)
            kept = order[: int((chance.cumsum(0) < local_agent.TOP_P).sum()) + 1]
            tokens.append(int(kept[(logits + extra)[kept].argmax()]))
    end = loaded.tokenizer.eos_token_id
    new = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in new]
    texts = [loaded.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in new]
    assert made == [text.split('"')[0].splitlines()[0].strip() if text else "" for text in texts]
    assert len(set(made)) == 3


def test_prompts_hold_titles_as_quoted_lines(hostile):
    prompt = local_agent._prompt(tuple(hostile.values()), ("phrase",), stream(0))
    lines = prompt.split("\n")
    assert all(line[0] == line[-1] == '"' for line in lines[1:4])
    assert lines[-1] == '"'
    for kinds, count in (((), 0), (("phrase",), 3)):
        texts = local_agent._prompt(TITLES, kinds, stream(0)).split("titles:\n")[1]
        assert texts.count('"') == 2 * count + 1


def test_a_missing_model_is_a_user_error():
    with pytest.raises(UserError, match="no file"):
        propose(3, llm=Llm(name="/nowhere/x.gguf"), device="cpu")


@pytest.mark.slow
@pytest.mark.long
def test_smollm2_writes_texts_that_can_be_used():
    found = EmbeddedAgent(llm=Llm(), device="cpu", samples=24).propose(Brief(titles=TITLES, wanted=96), stream(0))
    for recipe in found.recipes[: 24 - len(found.refused)]:
        print(recipe.family, ascii(recipe.text))
    print(*found.refused, sep="\n")
    assert len(found.refused) <= 12
