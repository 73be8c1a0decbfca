"""Scenarios: what serves the users, where tuning starts, whose prompts, and which items the platform knows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cowbird.attacks.prompt_enhanced import PromptEnhanced
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.defenses.none import NoDefense
from cowbird.experiments.scenarios import Direct, FineTune, Pretrain, PromptTune, PromptTuneFull
from cowbird.experiments.store import ModelStore
from cowbird.experiments.tasks.ranking.provider import Deployment, ProviderTraining
from cowbird.rng import derive_seed, stream, torch_stream
from cowbird.victims.base import Prompt
from cowbird.victims.sequential.base import SequentialRecommender
from cowbird.victims.sequential.prompting import ProfileVocabulary, PromptGenerator
from cowbird.victims.sequential.sasrec import SASRec

pytestmark = pytest.mark.slow

CPU, SEED, PLATFORM, SHORT = torch.device("cpu"), 7, 11, 6
VICTIM = SASRec(hidden=8, max_length=6, epochs=2, batch_size=16, learning_rate=0.01, precision="float32")
OWN = Prompt(attributes=("age",), length=2)
"""The attack's prompts, other than any scenario's."""
ATTACK = PromptEnhanced(
    targets=TargetItems(count=3),
    group=UserGroup(attribute="gender", value="F"),
    prompt=OWN,
    prompt_epochs=2,
    epochs=2,
)
STILL = {"epochs": 1, "learning_rate": 1e-12}
"""A fit that learns next to nothing shows where it began."""


@pytest.fixture(scope="module")
def parts():
    data = Synthetic(users=40, items=24, events_per_user=10, categories=4).load()
    return Split(cold_fraction=0.3, max_cold_events=SHORT).apply(data, 0)


class Bench:
    """A provider and a platform, with models kept in a folder of their own."""

    def __init__(self, folder, parts, attack=None):
        self.parts, clean = parts, parts.pretrain.training()
        self.store = ModelStore(folder, CPU, "", lambda *told: None, pytest.fail)
        common = {"store": self.store, "victim": VICTIM, "parts": parts, "seed": SEED, "short_events": SHORT}
        common |= {"defense_label": "none", "defense": NoDefense()}
        self.provider = honest = ProviderTraining(label="clean", attack=None, planted=clean, **common)
        if attack:
            planted = attack.poison(clean, stream(SEED, "attack")).data
            self.provider = ProviderTraining(label="bad", attack=attack, planted=planted, honest=honest, **common)

    def serve(self, scenario):
        users = scenario.select_users(self.parts)
        name = f"{self.provider.name}+{scenario.title()}"
        return scenario.serve(self.provider, Deployment(self.store, name, users, PLATFORM))

    def fitted(self, part=""):
        """List the models that were fitted (not loaded), by a part of their names."""
        return [name for name in self.store.seconds if part in name]


@pytest.fixture(params=[None, ATTACK], ids=["clean", "attacked"])
def bench(request, parts, tmp_path):
    return Bench(tmp_path, parts, request.param)


@pytest.fixture
def fits(monkeypatch):
    """List the fits, as (spec, data, seed, start)."""
    calls, fit = [], SequentialRecommender.fit

    def spy(self, data, validation, seed, context=None, start=None):
        calls.append((self, data, seed, start))
        return fit(self, data, validation, seed, context, start)

    monkeypatch.setattr(SequentialRecommender, "fit", spy)
    return calls


def weights(model, prompts=None):
    """Return the weights of a model: all, or those (not) of its prompts."""
    state = model.network.state_dict()
    return {name: state[name].clone() for name in state if prompts in (None, name.startswith("prompt."))}


def same(a, b, **close):
    if a.keys() != b.keys():
        return False
    return all(torch.allclose(a[name], b[name], **close) if close else a[name].equal(b[name]) for name in a)


# Without tuning


def test_pretrain_serves_what_was_trained(bench):
    served = bench.serve(Pretrain(name="pretrain"))
    assert served is bench.provider.get_model()
    assert served.prompt == (OWN if bench.provider.attack else None)
    assert Pretrain(name="pretrain").select_users(bench.parts) is bench.parts.pretrain


def test_direct_serves_bare(bench):
    served = bench.serve(Direct(name="direct"))
    assert served.prompt is None
    assert same(weights(served), weights(bench.provider.get_model(), prompts=False))
    assert not bench.fitted("@prompts-")
    assert not bench.fitted("+direct")
    assert Direct(name="direct").select_users(bench.parts) is bench.parts.downstream


def test_direct_serves_with_the_provider_s_prompts(bench):
    served, model = bench.serve(Direct(name="direct", prompts="provided")), bench.provider.get_model()
    assert same(weights(served, prompts=False), weights(model, prompts=False))
    assert not bench.fitted("+direct")
    if bench.provider.attack:
        assert served is model, "an attack that trains with prompts hands over those"
        assert not bench.fitted("@prompts-")
    else:
        assert served.prompt == Prompt()
        assert len(bench.fitted("clean+none@prompts-")) == 1


def test_learned_prompts_are_shared(parts, tmp_path, fits):
    """However a platform tunes, the provider's prompts are the same, and made once, also by a run that goes on."""
    bench = Bench(tmp_path, parts)
    asking = [
        Direct(name="direct", prompts="provided"),
        PromptTune(name="prompt-tune", prompts="provided", learning_rate=0.1, epochs=3),
        PromptTuneFull(name="prompt-tune-full", prompts="provided", epochs=2, patience=1),
    ]
    for scenario in asking:
        bench.serve(scenario)
    (folder,) = bench.fitted("@prompts-")
    other = Prompt(attributes=("gender",))
    assert bench.serve(Direct(name="direct", prompts="provided", prompt=other)).prompt == other
    bench.serve(PromptTune(name="prompt-tune", label="other", prompts="provided", prompt=other))
    assert len(bench.fitted("@prompts-")) == 2
    spec, _, seed, _ = next(call for call in fits if call[0].trained == "prompts")
    changes = {"prompt": Prompt(), "trained": "prompts", **PromptTune(name="prompt-tune").make_recipe()}
    assert spec == VICTIM.with_training(**changes)
    assert seed == derive_seed(SEED, "provider", folder.partition("@")[2])
    again = Bench(tmp_path, parts)
    for scenario in asking:
        assert same(weights(again.serve(scenario)), weights(bench.serve(scenario)))
    assert again.fitted() == []


def test_the_provider_learns_prompts_on_short_clean_histories(bench, fits):
    bench.serve(Direct(name="direct", prompts="provided"))
    (found,) = [call for call in fits if call[0].trained == "prompts"]
    _, data, seed, start = found
    short = bench.parts.pretrain.shorten(SHORT).training()
    assert np.array_equal(data.label, short.interactions.item)
    assert np.array_equal(data.interactions.item, short.interactions.item)
    assert data.interactions.lengths.max() == SHORT - 2 < bench.parts.pretrain.training().interactions.lengths.max()
    assert data.negative is None
    assert data.users.ids == bench.parts.pretrain.users.ids
    assert seed not in (SEED, PLATFORM, derive_seed(SEED, "platform"))
    honest = bench.provider.honest or bench.provider
    assert same(weights(start), weights(honest.get_model())), (
        "prompts are learned for the clean model, or the one served"
    )


# Tuning


def test_fine_tuning_starts_bare_on_the_platform_s_users(bench, fits):
    model = bench.provider.get_model()
    scenario = FineTune(name="fine-tune", learning_rate=3e-3, epochs=4, patience=None, batch_size=9)
    fits.clear()
    served = bench.serve(scenario)
    ((spec, data, seed, start),) = fits
    changes = {"learning_rate": 3e-3, "epochs": 4, "patience": None, "batch_size": 9, "validate_every": 1}
    assert spec == served.spec == VICTIM.with_training(warmup_steps=0, schedule="constant", **changes)
    assert (data.users.ids, seed) == (bench.parts.downstream.users.ids, PLATFORM)
    assert np.array_equal(data.label, bench.parts.downstream.training().interactions.item)
    assert same(weights(start), weights(model, prompts=False))
    assert not same(weights(served), weights(start))
    assert bench.fitted("+fine-tune") == [f"{bench.provider.name}+fine-tune"]


@pytest.mark.parametrize("prompts", ["fresh", "provided"])
def test_prompt_tuning_leaves_the_model_alone(bench, prompts, fits):
    scenario = PromptTune(name="prompt-tune", prompts=prompts, learning_rate=0.02, epochs=3)
    before = weights(bench.provider.get_model(), prompts=False)
    served = bench.serve(scenario)
    assert same(weights(served, prompts=False), before), "bit for bit"
    assert same(weights(bench.provider.get_model(), prompts=False), before)
    spec, data, seed, start = fits[-1]
    assert (spec.trained, spec.learning_rate, spec.epochs, spec.prompt_learning_rate) == ("prompts", 0.02, 3, None)
    assert (data.users.ids, seed) == (bench.parts.downstream.users.ids, PLATFORM)
    assert (start.prompt is None) == (prompts == "fresh")
    assert not same(weights(served, prompts=True), weights(start, prompts=True))


@pytest.mark.parametrize("prompts", ["fresh", "provided"])
def test_full_prompt_tuning_changes_both(bench, prompts, fits):
    scenario = PromptTuneFull(name="prompt-tune-full", prompts=prompts, learning_rate=0.01, epochs=2, batch_size=4)
    served = bench.serve(scenario)
    spec, _, seed, start = fits[-1]
    assert (spec.trained, spec.learning_rate, spec.prompt_learning_rate, seed) == ("all", 0.01, 1e-3, PLATFORM)
    for part in (True, False):
        before, after = (weights(model, prompts=part) for model in (start, served))
        assert all(not after[name].equal(before[name]) for name in before)


@pytest.mark.parametrize("kind", [PromptTune, PromptTuneFull])
def test_whose_prompts(bench, kind):
    """Provided prompts are the attack's own, whatever the scenario says; else they are as the scenario says."""
    scenarios = {"fresh": Prompt(attributes=("gender",), length=3), "provided": Prompt(attributes=("gender",))}
    name, rate = kind.model_fields["name"].annotation.__args__[0], {"prompt_learning_rate": 1e-12}
    for prompts, prompt in scenarios.items():
        more = rate if kind is PromptTuneFull else {}
        served = bench.serve(kind(name=name, label=prompts, prompts=prompts, prompt=prompt, **STILL, **more))
        own = prompts == "provided" and bench.provider.attack
        assert served.prompt == (OWN if own else prompt)
        if prompts == "provided":
            (folder,) = bench.fitted("@prompts")
            spec = VICTIM.with_prompts(served.prompt, trained="prompts")
            handed = (
                bench.provider.get_model() if own else spec.load(bench.store.folder / folder / "model.safetensors", CPU)
            )
            assert same(weights(served), weights(handed), rtol=0, atol=1e-6), "tuning starts from what was handed over"


def test_fresh_prompts_are_the_platform_s_own(parts, tmp_path, fits):
    bench = Bench(tmp_path, parts)
    served = bench.serve(PromptTune(name="prompt-tune", **STILL))
    drawn = {}
    for seed in (PLATFORM, SEED):
        generator = PromptGenerator(ProfileVocabulary.of(parts.pretrain.users, Prompt()), 8, 2, 1)
        table = bench.provider.get_model().network.item.weight[:-1]
        generator.reset(torch_stream(seed, "prompt"), parts.downstream.training(), table)
        drawn[seed] = {f"prompt.{name}": tensor for name, tensor in generator.state_dict().items()}
    assert same(weights(served, prompts=True), drawn[PLATFORM], rtol=0, atol=1e-6)
    assert not same(weights(served, prompts=True), drawn[SEED], rtol=0, atol=0.1)
    bench.serve(PromptTune(name="prompt-tune", label="provided", prompts="provided"))
    model, fresh, provided, tuned = (seed for _, _, seed, _ in fits)
    assert (model, fresh, tuned) == (SEED, PLATFORM, PLATFORM)
    assert provided not in (SEED, PLATFORM)


# Items that the platform does not share

DOWNSTREAM = [
    Direct(name="direct", item_overlap=0.5),
    Direct(name="direct", prompts="provided", item_overlap=0.5),
    FineTune(name="fine-tune", item_overlap=0.5, **STILL),
    PromptTune(name="prompt-tune", item_overlap=0.5, **STILL),
    PromptTune(name="prompt-tune", prompts="provided", item_overlap=0.5, **STILL),
    PromptTuneFull(name="prompt-tune-full", item_overlap=0.5, prompt_learning_rate=1e-12, **STILL),
]


@given(st.integers(1, 300), st.floats(0.001, 1), st.integers(0, 2**40))
def test_which_items_are_absent(items, overlap, seed):
    found = Direct(name="direct", item_overlap=overlap).draw_absent(items, seed)
    assert len(found) == round((1 - overlap) * items)
    assert (np.diff(found) > 0).all()
    assert not len(found) or 0 <= found[0] <= found[-1] < items
    for other in DOWNSTREAM:
        same_overlap = other.model_copy(update={"item_overlap": overlap, "label": "x"})
        assert np.array_equal(same_overlap.draw_absent(items, seed), found), "the scenario does not decide"


def test_absent_items_follow_from_the_seed():
    found = [Direct(name="direct", item_overlap=0.5).draw_absent(200, seed).tolist() for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    for scenario in (Direct(name="direct"), Pretrain(name="pretrain"), FineTune(name="fine-tune")):
        assert scenario.draw_absent(200, 1).tolist() == []


@pytest.mark.parametrize("scenario", DOWNSTREAM, ids=lambda s: f"{s.name}-{getattr(s, 'prompts', '')}")
def test_new_items_stand_in_the_places_of_absent_ones(bench, scenario):
    shared, cut = (
        bench.serve(scenario.model_copy(update={"item_overlap": overlap, "label": f"{overlap}"}))
        for overlap in (1, 0.5)
    )
    absent = scenario.draw_absent(24, PLATFORM)
    before, after = (model.network.item.weight.detach() for model in (shared, cut))
    close = {"rtol": 0, "atol": 1e-6}
    changed = ~torch.isclose(before, after, **close).all(dim=1)
    assert changed.nonzero()[:, 0].tolist() == absent.tolist()
    old = weights(bench.provider.get_model())["item.weight"]
    generator = torch_stream(PLATFORM, "new items")
    assert torch.allclose(
        after[absent], bench.provider.get_model().forget(absent, generator).network.item.weight[absent], **close
    )
    rest = np.setdiff1d(np.arange(25), absent)
    assert torch.allclose(after[rest], old[rest], **close)
    if isinstance(scenario, Direct):
        assert after[rest].equal(old[rest])
        assert same(*({k: v for k, v in weights(m).items() if k != "item.weight"} for m in (shared, cut)))
