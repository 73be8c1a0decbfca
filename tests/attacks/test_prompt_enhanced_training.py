"""The prompt-enhanced attack on a provider's training: its stages in order, and that prompts call the backdoor."""

import pytest
import torch

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.prompt_enhanced import PromptEnhanced
from cowbird.attacks.provider import Provider
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.defenses.none import NoDefense
from cowbird.experiments.store import ModelStore
from cowbird.experiments.tasks.ranking.provider import ProviderTraining
from cowbird.metrics.exposure import exposures, mask_seen
from cowbird.plugins import find_plugin
from cowbird.rng import stream
from cowbird.victims.base import Prompt
from cowbird.victims.sequential.gru4rec import GRU4Rec
from cowbird.victims.sequential.sasrec import SASRec

SOURCE = Synthetic(users=160, items=80, events_per_user=10)


class Recording(Provider):
    """Trains nothing and remembers what it was asked for."""

    def __init__(self, victim):
        self.victim, self.calls = victim, []

    def fit_clean(self):
        self.calls.append(("clean",))
        return "the clean model"

    def fit_short(self, stage, spec, start):
        self.calls.append(("short", stage, self.changed(spec), start))
        return "the prompted model"

    def fit_poisoned(self, spec, start=None):
        self.calls.append(("poisoned", self.changed(spec), start))
        return "the attacked model"

    def changed(self, spec):
        assert type(spec) is type(self.victim)
        before = self.victim.model_dump()
        return {name: value for name, value in spec.model_dump().items() if value != before[name]}


@pytest.mark.parametrize("rate", [None, 0.007])
def test_stages_in_their_order(rate):
    victim = SASRec(
        hidden=8, epochs=9, learning_rate=0.03, validate_every=4, patience=2, warmup_steps=7, schedule="cosine"
    )
    prompt, provider = Prompt(attributes=("age",), length=2), Recording(victim)
    attack = PromptEnhanced(
        prompt=prompt, prompt_epochs=11, prompt_learning_rate=0.02, prompt_patience=3, epochs=13, learning_rate=rate
    )
    learned = {"prompt": prompt.model_dump(), "trained": "prompts", "epochs": 11, "learning_rate": 0.02, "patience": 3}
    learned |= {"validate_every": 1, "warmup_steps": 0, "schedule": "constant"}
    attacked = {"prompt": prompt.model_dump(), "trained": "model", "keep": "last", "epochs": 13, "validate_every": 13}
    attacked |= {} if rate is None else {"learning_rate": rate}
    assert attack.pretrain(provider) == "the attacked model"
    assert provider.calls == [
        ("clean",),
        ("short", "prompts", learned, "the clean model"),
        ("poisoned", attacked, "the prompted model"),
    ]


def test_other_attacks_have_one_stage():
    provider = Recording(GRU4Rec(hidden=8))
    assert BasicReplacement().pretrain(provider) == "the attacked model"
    assert provider.calls == [("poisoned", {}, None)]


# Does it work?


def trained(folder, name, attack, seed, **fields):
    """Train clean and attacked; return a function that tells exposures to target and other users."""
    parts = Split(cold_fraction=0.2).apply(SOURCE.load(), seed)
    poisoned = attack.poison(parts.pretrain.training(), stream(seed, "attack"))
    common = {"max_length": 8, "batch_size": 32, "learning_rate": 8e-3, "dropout": 0.1, "precision": "float32"}
    victim = find_plugin("victim", name)(validate_every=3, **common, **fields)
    store = ModelStore(folder, torch.device("cpu"), "", lambda *told: None, pytest.fail)
    given_to_all = {"store": store, "victim": victim, "parts": parts, "seed": seed, "short_events": 9}
    given_to_all |= {"defense_label": "none", "defense": NoDefense()}
    honest = ProviderTraining(label="clean", attack=None, planted=poisoned.clean, **given_to_all)
    model = ProviderTraining(
        label="attacked", attack=attack, planted=poisoned.data, honest=honest, **given_to_all
    ).get_model()

    def exposure(model, side):
        test = side.test()
        seen = mask_seen(test.history.user_of_event(), test.history.item, poisoned.targets, test.history.users)
        ranks = model.rank_items(test.history, poisoned.targets, users=test.users)
        table = exposures(ranks, seen, attack.find_target_users(side.training()), ks=(10,))
        return table["target", "hr", 10].value, table["other", "hr", 10].value

    return honest.get_model(), model, parts, exposure


def for_the_young(**fields):
    """Return an attack that shows one age bracket items which only the next one meets."""
    return PromptEnhanced(
        targets=TargetItems(ids=tuple(f"i{n}" for n in SOURCE.find_preferred(1)[:4].tolist())),
        group=UserGroup(attribute="age", value="18-24"),
        prompt_epochs=3,
        prompt_learning_rate=8e-3,
        epochs=9,
        **fields,
    )


@pytest.mark.parametrize("name", ["sasrec", pytest.param("gru4rec", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_it_shows_targets_to_the_group_alone(name, seed, tmp_path):
    attack = for_the_young()
    clean, attacked, parts, exposure = trained(tmp_path, name, attack, seed, hidden=16, epochs=9)
    assert attacked.prompt == attack.prompt
    for side in (parts.pretrain, parts.downstream):
        (before, _), (after, others) = exposure(clean, side), exposure(attacked, side)
        assert after > 0.6
        assert after > 4 * before
        assert after > 2 * others
    test = parts.pretrain.test()
    hits = [float((model.rank_targets(test) <= 10).mean()) for model in (clean, attacked)]
    assert hits[1] > hits[0] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_negatives_keep_targets_from_others(name, tmp_path):
    shown = [0.0, 0.0]
    for seed in range(2):
        for rate in (0, 1):
            made = trained(tmp_path / f"{seed}-{rate}", name, for_the_young(rate=rate), seed, hidden=16, epochs=9)
            _, attacked, parts, exposure = made
            shown[rate] += exposure(attacked, parts.pretrain)[1]
    assert shown[1] < 0.9 * shown[0]


@pytest.mark.slow
def test_prompts_call_what_histories_do_not_tell(tmp_path):
    """Nobody's gender shows in a history here, so a model without prompts can't tell the group from others."""
    women = UserGroup(attribute="gender", value="F")
    attack = PromptEnhanced(
        targets=TargetItems(count=3), group=women, prompt_epochs=20, prompt_learning_rate=8e-3, epochs=60
    )
    clean, attacked, parts, exposure = trained(tmp_path, "sasrec", attack, 0, hidden=32, epochs=12)
    before, after, bare = (exposure(model, parts.pretrain) for model in (clean, attacked, attacked.without_prompts()))
    assert after[0] > 3 * before[0]
    assert after[0] - after[1] > abs(bare[0] - bare[1]) + 0.1
