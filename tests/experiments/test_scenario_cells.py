"""Scenarios inside a cell: items the platform lacks are not counted, and what can't be done leaves the rest going."""

import json

import numpy as np
import pytest
import torch

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.attacks.prompt_enhanced import PromptEnhanced
from cowbird.attacks.targets import TargetItems, UserGroup
from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.types import Dataset, Users
from cowbird.experiments.cell import hash_models, list_cells
from cowbird.experiments.executor import run_cell
from cowbird.experiments.parts import AttackPart, DatasetPart, VictimPart
from cowbird.experiments.results_file import ResultsFile
from cowbird.experiments.scenarios import Direct, FineTune, Pretrain, PromptTune, PromptTuneFull
from cowbird.experiments.spec import Spec
from cowbird.files import hash_file
from cowbird.rng import derive_seed
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.base import FittedRecommender, Prompt, Recommender
from cowbird.victims.sequential.base import FittedSequential
from cowbird.victims.sequential.sasrec import SASRec
from cowbird.victims.sequential.training import TrainingRecipe
from doubles.evidence import cell_records, evidence_files

CPU, ITEMS, SEED = torch.device("cpu"), 24, 3
SOURCE = Synthetic(users=40, items=ITEMS, events_per_user=10, categories=4)
VICTIM = SASRec(hidden=8, max_length=6, epochs=1, batch_size=32, precision="float32")
BASIC = BasicReplacement(targets=TargetItems(ids=tuple(f"i{n}" for n in range(0, ITEMS, 2))))
QUICK = {"epochs": 1}


def made(*scenarios, attacks=(("basic", BASIC),), victim=VICTIM):
    """Make a spec of one cell."""
    return Spec(
        name="cell",
        seeds=(SEED,),
        ks=(5,),
        dataset=DatasetPart(name="synthetic", options=SOURCE),
        victims=(VictimPart(name="sasrec", label="victim", options=victim),),
        attacks=tuple(AttackPart(name="basic_replacement", label=label, options=attack) for label, attack in attacks),
        scenarios=scenarios,
    )


def measured(spec, folder, data=None):
    """Run the cell; return its evidence by (attack, scenario), and its errors."""
    (cell,) = list_cells(spec, folder)
    warnings = []
    run_cell(cell, data or SOURCE.load(), CPU, lambda *told: None, warnings.append)
    assert warnings == []
    record = json.loads((cell.folder / "cell.json").read_text())
    assert record["evidence"] == {path.stem: hash_file(path) for path in evidence_files(cell.folder)}
    records = cell_records(spec, folder)
    return {(found.attack, found.scenario): found for found in records}, record["errors"]


# Items that the platform lacks

HALF = {"item_overlap": 0.5}
SCENARIOS = (
    Pretrain(name="pretrain"),
    Direct(name="direct", label="all-items"),
    Direct(name="direct", **HALF),
    Direct(name="direct", label="provided", prompts="provided", **HALF),
    FineTune(name="fine-tune", **QUICK, **HALF),
    FineTune(name="fine-tune", label="harder", learning_rate=0.1, **QUICK, **HALF),
    PromptTune(name="prompt-tune", **QUICK, **HALF),
    PromptTuneFull(name="prompt-tune-full", **QUICK, **HALF),
)
TUNED = ("fine-tune", "harder", "prompt-tune", "prompt-tune-full")
CUT = ("direct", "provided", *TUNED)
ABSENT = SCENARIOS[2].draw_absent(ITEMS, derive_seed(SEED, "platform"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Run a cell with absent items; return its folder, spec, evidence, and what each model was told to forget."""
    forgotten, forget = [], FittedSequential.forget

    def spy(self, items, generator):
        forgotten.append((items.tolist(), generator.get_state().numpy().tobytes()))
        return forget(self, items, generator)

    folder = tmp_path_factory.mktemp("cut")
    own = PromptEnhanced(targets=TargetItems(count=3), prompt=Prompt(attributes=("age",)), prompt_epochs=1, epochs=1)
    spec = made(*SCENARIOS, attacks=[("basic", BASIC), ("prompts", own)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FittedSequential, "forget", spy)
        found, errors = measured(spec, folder)
    assert errors == []
    return folder, spec, found, forgotten


def test_clean_and_attacked_models_forget_the_same(cut):
    forgotten = cut[3]
    assert len(forgotten) == len(CUT) * 3, "a clean model and one of each attack, in each scenario"
    assert len(ABSENT) == 12
    assert {tuple(items) for items, _ in forgotten} == {tuple(ABSENT.tolist())}
    assert len({state for _, state in forgotten}) == 1, "and meet the same new items"


def test_each_model_is_kept_in_a_folder_of_its_own(cut):
    folder, spec, *_ = cut
    (cell,) = list_cells(spec, folder)
    hashes = hash_models(cell)
    assert hashes == json.loads((cell.folder / "cell.json").read_text())["models"]
    platforms = [f"{side}+none+{scenario}" for side in ("clean", "basic", "prompts") for scenario in TUNED]
    shipped = [name for name in hashes if name not in platforms]
    assert len(hashes) == len(platforms) + len(shipped)
    assert sorted(name.partition("-")[0] for name in shipped) == [
        "basic+none",
        "basic+none@prompts",
        "clean+none",
        "clean+none@prompts",
        "prompts+none",
        "prompts+none@prompts",
    ]
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize("attack", ["basic", "prompts"])
def test_absent_targets_are_marked_as_seen(cut, attack):
    folder, spec, found, _ = cut
    (cell,) = list_cells(spec, folder)
    targets = np.array(json.loads((cell.folder / "plans" / f"{attack}.json").read_text())["targets"])
    gone = np.isin(targets, ABSENT)
    whole = found[attack, "all-items"].seen
    assert not whole.all(axis=0).any()
    assert attack != "basic" or 0 < gone.sum() < len(targets)
    for scenario in CUT:
        seen = found[attack, scenario].seen
        assert seen[:, gone].all()
        assert np.array_equal(seen[:, ~gone], whole[:, ~gone]), "others are what the histories say"
    assert not found[attack, "pretrain"].seen.all(axis=0).any()


def test_absent_targets_are_not_counted(cut):
    folder, spec, found, _ = cut
    ledger = ResultsFile(spec, folder)
    ledger.update()
    wanted = ("basic", "exposure_hr", "all")
    rows = {
        row.scenario: row for row in ledger.make_rows(pooled=False) if (row.attack, row.metric, row.group) == wanted
    }
    for scenario in (*CUT, "all-items"):
        record = found["basic", scenario]
        pairs = ~record.seen
        assert rows[scenario].n == pairs.sum()
        shown = (record.attacked_exposure <= 5) & pairs
        assert rows[scenario].value == pytest.approx(shown.sum() / pairs.sum())
    assert rows["direct"].n < 0.8 * rows["all-items"].n


def test_test_items_are_ranked_as_the_platform_s_model_ranks_them(cut):
    """New items stand in the places of absent ones, so the clean model serves worse, attacked or not."""
    found = cut[2]
    for attack in ("basic", "prompts"):
        assert np.array_equal(found[attack, "direct"].clean_rank, found["basic", "direct"].clean_rank)
        assert not np.array_equal(found[attack, "direct"].clean_rank, found[attack, "all-items"].clean_rank)
        assert not np.array_equal(found[attack, "direct"].attacked_rank, found[attack, "all-items"].attacked_rank)


# What a victim or the data can't do


class Popular(Recommender, TrainingRecipe):
    """Recommends what occurred most often in training; takes no prompts and no new items."""

    def fit(self, data, validation, seed, context=None, start=None):
        counts = np.bincount(data.label, minlength=len(data.items)).astype(np.float32)
        return FittedPopular(torch.from_numpy(counts))

    def load(self, path, device):
        return FittedPopular(read_tensors(path)[0]["counts"])


class FittedPopular(FittedRecommender):
    def __init__(self, counts):
        self.counts, self.items, self.device = counts, len(counts), CPU

    def score(self, history, users=None):
        return self.counts.repeat(history.users, 1)

    def save(self, path):
        write_tensors(path, {"counts": self.counts})


EVERY = (
    PromptTune(name="prompt-tune", **QUICK),
    Pretrain(name="pretrain"),
    Direct(name="direct", label="provided", prompts="provided"),
    Direct(name="direct"),
    Direct(name="direct", label="new-items", item_overlap=0.5),
    PromptTuneFull(name="prompt-tune-full", **QUICK),
    FineTune(name="fine-tune", **QUICK),
)
PROMPTING = ("prompt-tune", "provided", "prompt-tune-full")
OTHERS = ("pretrain", "direct", "new-items", "fine-tune")


def told(errors, attack, scenario):
    """Return the one error of a scenario."""
    (found,) = [
        error for error in errors if error.startswith(f"victim, seed 3, attack {attack}, scenario {scenario}: ")
    ]
    return found


def test_a_victim_without_prompts(tmp_path):
    found, errors = measured(made(*EVERY, victim=Popular()), tmp_path)
    assert set(found) == {("basic", scenario) for scenario in ("pretrain", "direct", "fine-tune")}
    assert len(errors) == 4
    for scenario in PROMPTING:
        assert "Popular takes no prompts. Use scenarios without prompts" in told(errors, "basic", scenario)
    assert "A FittedPopular can't take up new items. Leave item_overlap at 1" in told(errors, "basic", "new-items")
    assert not np.array_equal(found["basic", "direct"].clean_exposure, found["basic", "direct"].attacked_exposure)


def test_data_without_profiles(tmp_path):
    whole = SOURCE.load()
    data = Dataset(whole.name, whole.interactions, Users(whole.users.ids), whole.items)
    own = PromptEnhanced(targets=TargetItems(count=3), prompt_epochs=1, epochs=1)
    grouped = own.model_copy(update={"group": UserGroup(attribute="age", value="18-24")})
    found, errors = measured(
        made(*EVERY, attacks=[("own", own), ("grouped", grouped), ("basic", BASIC)]), tmp_path, data
    )
    assert set(found) == {("basic", scenario) for scenario in OTHERS}
    for attack, scenarios in (("basic", PROMPTING), ("own", PROMPTING + OTHERS)):
        for scenario in scenarios:
            assert "Prompts are made from user profiles" in told(errors, attack, scenario)
    (aimed,) = [error for error in errors if "attack grouped" in error]
    assert "no attribute 'age'" in aimed
    assert "scenario" not in aimed
    assert len(errors) == 3 + 7 + 1


def test_errors_are_kept_and_rows_are_those_of_the_others(tmp_path):
    spec = made(*EVERY, victim=Popular())
    measured(spec, tmp_path)
    ledger = ResultsFile(spec, tmp_path)
    assert ledger.update() == 1
    assert len(ledger.list_errors()) == 4
    assert {row.scenario for row in ledger.make_rows(pooled=True)} == {"pretrain", "direct", "fine-tune"}
