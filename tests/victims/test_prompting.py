"""Prompts: what they read of profiles, what the networks make of them, and files. Training is in another file."""

import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from cowbird.data.types import Attribute, Interactions, Items, TrainingData, Users
from cowbird.errors import UserError
from cowbird.plugins import find_plugin
from cowbird.victims.base import Prompt
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.noise import Noise
from cowbird.victims.sequential.prompting import ProfileVocabulary, PromptGenerator
from rankers import RANKERS

CPU = torch.device("cpu")
QUIET = Noise(0.0, CPU)
every_victim = pytest.mark.parametrize("name", RANKERS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def users(**columns):
    """Build users from lists of values, or from attributes made already."""
    made = {k: v if isinstance(v, Attribute) else Attribute.from_values(v) for k, v in columns.items()}
    return Users(tuple(f"u{n}" for n in range(len(next(iter(made.values())).codes))), made)


PEOPLE = users(age=["old", "young", "old", None], gender=["f", "f", "m", "m"])
HISTORIES = [[3], [1, 2, 3, 4, 5, 6, 7], [9, 8], [5, 5, 5, 5]]


def longest(name):
    """Return a prefix length that the victim takes, above 1 if it can be."""
    return find_plugin("victim", name)().build(3).longest_prefix or 2


def loud(spec, items=30, seed=0):
    """Return a model with weights large enough that every input matters."""
    network = spec.make_network(items, ProfileVocabulary.of(PEOPLE, spec.prompt) if spec.prompt else None)
    network.reset(rng(seed))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_((20 if name.startswith("prompt.") else 10) if parameter.dim() > 1 else 1)
    return FittedSequential(spec, network, items, CPU)


# The vocabulary


def test_attributes_of_many_values_are_left_out_unless_named():
    many = [f"{n:03}" for n in range(101)]
    given = users(zip=many, age=[*many[:100], None], gender=["f"] * 101)
    labels = ProfileVocabulary.of(given, Prompt()).labels
    assert labels == {"age": tuple(many[:100]), "gender": ("f",)}
    named = ProfileVocabulary.of(given, Prompt(attributes=("gender", "zip")))
    assert list(named.labels) == ["gender", "zip"], "in the order asked for"
    assert named.count_embeddings() == [2, 102]


def test_attributes_that_are_not_there():
    many = users(zip=map(str, range(101)))
    wrong = [(PEOPLE, Prompt(attributes=("shoe",))), (many, Prompt()), (Users(("u0", "u1")), Prompt())]
    for given, prompt in wrong:
        with pytest.raises(UserError) as error:
            ProfileVocabulary.of(given, prompt)
        assert error.value.hint
    with pytest.raises(UserError, match="age"):
        ProfileVocabulary.of(PEOPLE, Prompt()).encode_users(users(gender=["f"]))


def test_rows_by_hand():
    """Values in another order, a value that nobody knows, missing ones, and an attribute that is not read."""
    vocabulary = ProfileVocabulary({"age": ("old", "young"), "gender": ("f", "m", "x")})
    assert vocabulary.count_embeddings() == [3, 4]
    given = users(
        zip=["1"] * 4,
        gender=Attribute(np.array([0, 1, 0, -1]), ("m", "f")),
        age=Attribute(np.array([2, 0, -1, 1]), ("young", "unknown", "old")),
    )
    found = vocabulary.encode_users(given)
    assert found.tolist() == [[0, 3 + 1], [1, 3 + 0], [2, 3 + 1], [2, 3 + 3]]
    assert found.dtype == np.int64


# The generator


def generated():
    histories = [[0, 1, 1], [2], [3, 4], [5]]
    given = users(age=Attribute(np.array([0, 1, 0, -1]), ("old", "young", "nobody")), gender=["m", "m", "f", "f"])
    data = TrainingData.from_interactions(Interactions.from_lists(histories), given, Items.from_lists("abcdefg"))
    return data, torch.randn(7, 4, generator=rng(9)), PromptGenerator(ProfileVocabulary.of(given, Prompt()), 4, 2, 3)


def test_values_start_at_the_mean_item_of_their_users():
    data, table, generator = generated()
    generator.reset(rng(), data, table)
    everything = [0, 1, 1, 2, 3, 4, 5]
    old, young, nobody, no_age = [0, 1, 1, 3, 4], [2], everything, [5]
    female, male, no_gender = [3, 4, 5], [0, 1, 1, 2], everything
    wanted = [table[events].mean(dim=0) for events in (old, young, nobody, no_age, female, male, no_gender)]
    torch.testing.assert_close(generator.value.weight.data, torch.stack(wanted))


def test_the_mlp_is_drawn_from_the_generator_given():
    data, table, generator = generated()
    drawn, state = [], torch.get_rng_state()
    for seed in (1, 1, 2):
        generator.reset(rng(seed), data, table)
        drawn.append({name: tensor.clone() for name, tensor in generator.state_dict().items()})
    one, again, other = drawn
    assert all(one[name].equal(again[name]) for name in one)
    assert torch.get_rng_state().equal(state)
    for layer, inputs in (("widen", 2 * 4), ("narrow", 4)):
        weight = one[f"{layer}.weight"]
        assert not weight.equal(other[f"{layer}.weight"])
        assert 0.8 * inputs**-0.5 < weight.abs().max() <= inputs**-0.5
        assert one[f"{layer}.bias"].eq(0).all()


def test_prefixes_by_hand():
    data, table, generator = generated()
    generator.reset(rng(), data, table)
    value, widen, narrow = (x.weight.data for x in (generator.value, generator.widen, generator.narrow))
    found = generator(torch.tensor([[1, 4], [3, 6]]))
    assert found.shape == (2, 2, 3, 4)
    for rows, prefix in zip([(1, 4), (3, 6)], found, strict=True):
        wide = widen @ torch.cat([value[row] for row in rows])
        wide = wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2)))
        torch.testing.assert_close(prefix.flatten(), narrow @ wide)


# The networks


@every_victim
def test_a_prefix_reaches_every_position_and_nothing_looks_ahead(name, tiny):
    network = loud(tiny(name, max_length=7).with_prompts(Prompt(length=longest(name)))).network
    item = torch.randint(30, (5, 7), generator=rng(1))
    one, other = (torch.tensor([pair]).expand(5, 2) for pair in ([0, 3], [1, 3]))
    with torch.inference_mode():
        before = network.encode(item, QUIET, one)
        for changed in (network.encode(item, QUIET, other), network(item, QUIET)):
            assert (changed - before).abs().amax(dim=2).min() > 1e-3
        padded = torch.cat([item[:, :4], torch.full((5, 3), 30)], dim=1)
        shorter = network.encode(padded, QUIET, one)[:, :4]
        torch.testing.assert_close(shorter, before[:, :4], rtol=0, atol=1e-6)
        for place in range(7):
            later = item.clone()
            later[:, place] = (later[:, place] + 11) % 30
            after = network.encode(later, QUIET, one)
            torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
            assert (after - before)[:, place:].abs().amax(dim=2).min() > 1e-5


@every_victim
def test_a_users_scores_depend_on_the_own_profile_alone(name, tiny):
    fitted = loud(tiny(name).with_prompts(Prompt(length=longest(name))))
    together = fitted.score(Interactions.from_lists(HISTORIES), PEOPLE)
    alone = [
        fitted.score(Interactions.from_lists([row]), PEOPLE.take(np.array([n]))) for n, row in enumerate(HISTORIES)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)
    turned = fitted.score(Interactions.from_lists(HISTORIES), PEOPLE.take(np.array([2, 1, 0, 3])))
    assert (turned - together).abs().amax(dim=1).gt(1e-3).tolist() == [True, False, True, False]
    every = fitted.recommend(Interactions.from_lists(HISTORIES), 5, PEOPLE)
    assert every[2].tolist() == fitted.recommend(Interactions.from_lists([[9, 8]]), 5, PEOPLE.take([2]))[0].tolist()


def naive_block(block, x, prefix):
    """Compute one block for one sequence in loops over heads, with all positions in plain sight."""
    seen = torch.cat([prefix, x])
    count, hidden = seen.shape
    query, key, value = block.project(block.attention_norm(seen)).chunk(3, dim=1)
    mask = torch.ones(count, count, dtype=torch.bool).triu(1)
    heads, width = [], hidden // block.heads
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        grown = (query[:, part] @ key[:, part].T / math.sqrt(width)).exp().masked_fill(mask, 0)
        heads.append(grown / grown.sum(dim=1, keepdim=True) @ value[:, part])
    x = x + block.merge(torch.cat(heads, dim=1))[len(prefix) :]
    return x + block.narrow(F.relu(block.widen(block.feed_norm(x))))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("length", [1, 2])
def test_sasrec_attends_to_prefix_and_sequence(layers, length, tiny):
    network = loud(tiny("sasrec", layers=layers, max_length=5).with_prompts(Prompt(length=length))).network.double()
    item, rows = torch.randint(30, (3, 5), generator=rng(2)), torch.tensor([[0, 3], [1, 4], [2, 5]])
    prefix = torch.randn(3, layers, length, 8, generator=rng(3), dtype=torch.float64)
    for given, found in (
        (prefix, network(item, QUIET, prefix)),
        (network.prompt(rows), network.encode(item, QUIET, rows)),
    ):
        for n in range(3):
            x = network.item.weight[item[n]] + network.position.weight
            for layer, block in enumerate(network.blocks):
                x = naive_block(block, x, given[n, layer])
            torch.testing.assert_close(found[n], network.norm(x))


@pytest.mark.parametrize("layers", [1, 2])
def test_gru4rec_starts_from_the_prefix(layers, tiny):
    network = loud(tiny("gru4rec", layers=layers).with_prompts(Prompt())).network
    item, rows = torch.randint(30, (3, 4), generator=rng(2)), torch.tensor([[0, 3], [1, 4], [2, 5]])
    gru = nn.GRU(8, 8, layers, batch_first=True)
    gru.load_state_dict(network.recur.state_dict())
    prefix = torch.randn(3, layers, 1, 8, generator=rng(3))
    for given, found in (
        (prefix, network(item, QUIET, prefix)),
        (network.prompt(rows), network.encode(item, QUIET, rows)),
    ):
        first = torch.stack([given[:, layer, 0] for layer in range(layers)])
        states, _ = gru(network.item.weight[item], first)
        torch.testing.assert_close(found, network.norm(network.merge(states)))


# Scores, files


@every_victim
def test_save_and_load(name, tiny, tmp_path):
    spec, path = tiny(name).with_prompts(Prompt(length=longest(name))), tmp_path / "model.safetensors"
    fitted, history = loud(spec), Interactions.from_lists(HISTORIES)
    fitted.save(path)
    loaded, wanted = spec.load(path, CPU), fitted.score(history, PEOPLE)
    assert loaded.score(history, PEOPLE).equal(wanted)
    renumbered = {
        name: Attribute(np.where(column.codes < 0, -1, 2 - column.codes), ("never seen", *column.labels[::-1]))
        for name, column in reversed(PEOPLE.attributes.items())
    }
    assert loaded.score(history, Users(PEOPLE.ids, renumbered)).equal(wanted), "values are known by their labels"
    spec.with_training(trained="prompts", prompt_learning_rate=0.5, keep="last").load(path, CPU)  # no part of the model


@every_victim
def test_a_file_of_other_prompts_is_a_user_error(name, tiny, tmp_path):
    plain, path = tiny(name), tmp_path / "model.safetensors"
    specs = [plain, *(plain.with_prompts(p) for p in (Prompt(), Prompt(attributes=("age",)), Prompt(length=2)))]
    for spec in specs[: 4 if longest(name) > 1 else 3]:
        loud(spec).save(path)
        spec.load(path, CPU)
        for other in specs:
            if other != spec:
                with pytest.raises(UserError, match="does not hold"):
                    other.load(path, CPU)


@every_victim
@pytest.mark.parametrize("profile", [None, {}, {"age": ["old"]}, {"age": 5}, "age", {"age": ["old", "young", "x"]}])
def test_damaged_labels_are_a_user_error(name, profile, tiny, tmp_path):
    spec, path = tiny(name).with_prompts(Prompt(attributes=("age",))), tmp_path / "model.safetensors"
    loud(spec).save(path)
    with safetensors.safe_open(path, framework="pt") as opened:
        record = json.loads(opened.metadata()["cowbird"]) | {"profile": profile}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"cowbird": json.dumps(record)})
    with pytest.raises(UserError, match="does not hold"):
        spec.load(path, CPU)


@every_victim
def test_prompts_need_profiles_and_the_bare_model_needs_none(name, tiny, tmp_path):
    fitted, history = loud(tiny(name).with_prompts(Prompt())), Interactions.from_lists(HISTORIES)
    for given in (None, users(age=["old"] * 4)):
        with pytest.raises(UserError) as error:
            fitted.score(history, given)
        assert error.value.hint
    bare = fitted.without_prompts()
    wanted = bare.score(history)
    assert bare.without_prompts() is bare
    assert bare.spec == tiny(name)
    assert bare.score(history, PEOPLE).equal(wanted), "profiles are not read"
    assert not torch.allclose(fitted.score(history, PEOPLE), wanted, atol=1e-3)
    assert fitted.network.prompt is not None, "the prompted model is left alone"
    bare.save(tmp_path / "bare")
    assert tiny(name).load(tmp_path / "bare", CPU).score(history).equal(wanted)
