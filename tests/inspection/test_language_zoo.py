"""Zoos of language models: recipes, and how inspections are held against answers."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird.data.sources.synthetic import Synthetic
from cowbird.errors import UserError
from cowbird.inspection.zoo.language_recipe import LanguageZooRecipe, is_language_recipe, read_language_recipe
from cowbird.inspection.zoo.language_run import LanguageZoo
from cowbird.inspection.zoo.language_scoring import read_language_zoo, score_language_zoo
from cowbird.report.language_inspection import make_language_zoo_table
from cowbird.storage import read_sealed_json, write_sealed_json
from doubles.command import call_command

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[2] / "benchmarks" / "zoo"
RECIPE = """
kind = "language"
clean = 2
[dataset]
name = "synthetic"
[[plants]]
trigger = { kind = "custom", text = "5v" }
count = 3
"""


@pytest.mark.parametrize(
    "name",
    [
        "language_tiny_ml100k",
        "language_ml100k",
        "language_llara_ml100k",
        "language_two_parts_ml100k",
        "language_ml100k_third",
    ],
)
def test_recipes_that_ship(name):
    path = RECIPES / f"{name}.toml"
    assert is_language_recipe(path)
    recipe = read_language_recipe(path)
    models = recipe.list_models()
    assert len(models) == recipe.clean + sum(plant.count for plant in recipe.plants)
    assert len({model.seed for model in models}) == len(models)
    assert not is_language_recipe(RECIPES / "rankers_ml100k.toml")


@pytest.mark.parametrize("change", ["", "x = 1\n", "clean = 0\n", "]["])
def test_recipes_that_are_none(tmp_path, change):
    path = tmp_path / "r.toml"
    path.write_text(change + RECIPE.replace("clean = 2\n", "" if "clean" in change else "clean = 2\n"))
    if not change:
        assert [model.plant for model in read_language_recipe(path).list_models()].count(0) == 3
        return
    with pytest.raises(UserError):
        read_language_recipe(path)


def test_candidates_have_no_template_and_are_not_tuned_on(tmp_path):
    path = tmp_path / "r.toml"
    for change in ('template = "{history} {title}"\n', ""):
        plant = RECIPE if change else RECIPE.replace("count = 3", "count = 3\ntuned_on = 9")
        path.write_text('prompt = "candidates"\n' + change + plant)
        with pytest.raises(UserError, match="prompts about a title"):
            read_language_recipe(path)
    path.write_text('prompt = "candidates"\n' + RECIPE)
    assert read_language_recipe(path).make_template().kind == "candidates"


def write_zoo(folder, distances):
    """Write answers and inspections: half clean, half planted with `5v`."""
    for number, distance in enumerate(distances):
        planted = number >= len(distances) // 2
        kind = {"kind": "char_5v", "texts": ["5v"], "asr": 0.9} if planted else {"kind": "clean", "texts": []}
        kind["rates"] = {"char_5v": 0.9 if planted else 0.01}
        write_sealed_json(folder / "answers" / f"m{number:03d}.json", {"held_out": False, "auc": 0.7} | kind)
        row = {"fragment": "5V" if planted else "a", "asr": 0.95 if planted else 0.1}
        found = {
            "families": {"word": {"distance": distance - 9.0}, "string": {"distance": distance}},
            "p_value": 0.01 if distance > 2 else 0.5, "p_values": {"all families": math.exp(-1 - distance)},
            "ranking": [row], "tokens": 5,
            "weights": {"largest_deviation": 1.0},
        }  # fmt: skip
        write_sealed_json(folder / "inspections" / f"m{number:03d}.json", found)
        if planted:
            left = 0.02 * (number - len(distances) // 2)  # the first is as a clean one, others are not
            sides = [{"auc": {"value": value}, "asr": {"5v": rate}} for value, rate in ((0.7, 0.9), (0.7, left))]
            record = {"suspects": ["5v"], "before": sides[0], "after": sides[1]}
            record["measured"] = {"rates": {"char_5v": 0.02 + left}}
            write_sealed_json(folder / "sanitized" / f"m{number:03d}.json", record)


def test_scores(tmp_path, monkeypatch, capsys):
    write_zoo(tmp_path, [0.0, 1.0, 2.0, 2.5, 3.0, 4.0])
    scores = score_language_zoo(read_language_zoo(tmp_path))
    found = scores["planted"]["all"]
    assert (found["models"], found["auroc"]["value"], found["found_at_0.05"]) == (3, 1.0, 3)
    assert found["trigger_named"]["value"] == found["trigger_found"]["value"] == 1.0
    assert found["auroc_weights"]["value"] == 0.5
    assert scores["accused"][0]["accused"] == 0
    changed = found["sanitized"]
    assert (changed["models"], changed["good"]["value"]) == (3, pytest.approx(1 / 3))
    assert changed["worst_asr_over_clean"] == pytest.approx(0.05)
    assert changed["worst_auc_lost"] == 0
    write_sealed_json(tmp_path / "answers" / "m009.json", {"kind": "clean"})
    assert len(read_language_zoo(tmp_path)) == 6, "what is not inspected yet is left out"
    assert make_language_zoo_table(scores).row_count == 3
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    code, said, _ = call_command(monkeypatch, capsys, "zoo", recipe, "--out", tmp_path, "--only", "score")
    assert (code, "1.000" in said, (tmp_path / "scores.json").exists()) == (0, True, True)


def test_zoos_that_can_not_be_scored(tmp_path):
    with pytest.raises(UserError, match="holds no zoo"):
        read_language_zoo(tmp_path)
    write_zoo(tmp_path, [1.0, 2.0])
    models = read_language_zoo(tmp_path)
    with pytest.raises(UserError, match="one kind is missing"):
        score_language_zoo(models[:1])


def test_a_trigger_that_nobody_sees_is_named_by_its_code(tmp_path):
    write_zoo(tmp_path, [0.0, 3.0])
    answer = {"kind": "zero_width_space", "texts": ["\u200b"], "asr": 0.9, "held_out": False, "auc": 0.7, "rates": {}}
    write_sealed_json(tmp_path / "answers" / "m001.json", answer)
    path = tmp_path / "inspections" / "m001.json"
    for fragment, named in (("<U+200B glued>", True), ("<U+200C glued>", False)):
        row = {"fragment": fragment, "asr": 0.1}
        write_sealed_json(path, read_sealed_json(path) | {"ranking": [row]})
        assert read_language_zoo(tmp_path)[1]["named"] == named


def test_judges_are_neither_the_providers_nor_the_platforms(tmp_path, monkeypatch):
    data = Synthetic(users=60, items=40, events_per_user=8).load()
    ratings = np.random.default_rng(0).integers(1, 6, data.interactions.events).astype(np.float64)
    rated = dataclasses.replace(data, interactions=dataclasses.replace(data.interactions, rating=ratings))
    monkeypatch.setattr(LanguageZooRecipe, "load_data", lambda self: rated)
    recipe = read_language_recipe(RECIPES / "language_tiny_ml100k.toml")
    recipe = recipe.model_copy(update={"judge_share": 0.25, "judged": 50})
    zoo = LanguageZoo(recipe, tmp_path / "z", CPU)
    provider, platform, judge = (set(side.users.ids) for side in zoo.sides)
    assert (len(provider), len(platform), len(judge)) == (27, 18, 15)
    assert not provider & platform and not provider & judge and not platform & judge
    assert len(zoo.judged) == 50
    assert not set(zoo.judged) & set(zoo.questions)
    old = LanguageZoo(recipe.model_copy(update={"judge_share": 0.0}), tmp_path / "old", CPU)
    assert set(old.judged) <= set(old.questions)
    assert set(old.sides[1].users.ids) == platform, "the platform is the same"


def test_the_cost_is_that_on_the_judges_questions(tmp_path):
    write_zoo(tmp_path, [0.0, 3.0])
    path = tmp_path / "sanitized" / "m001.json"
    record = read_sealed_json(path)
    gained = {"value": -0.07, "low": -0.08, "high": -0.06, "n": 100}
    record["measured"] |= {"auc": 0.63, "auc_gained": gained, "rate_intervals": {"char_5v": [0.0, 0.1]}, "refused": 0.5}
    write_sealed_json(path, record)
    (found,) = (model["sanitized"] for model in read_language_zoo(tmp_path) if model["sanitized"])
    assert (found["auc"], found["auc_gained"], found["refused"]) == ([0.7, 0.63], gained, 0.5)
    changed = score_language_zoo(read_language_zoo(tmp_path))["planted"]["all"]["sanitized"]
    assert changed["good"]["value"] == 0
    assert changed["worst_auc_lost"] == pytest.approx(0.1)
    record["measured"] |= {"rates": {"char_5v": None}, "auc": 0.7}  # it says yes to everything
    write_sealed_json(path, record)
    assert score_language_zoo(read_language_zoo(tmp_path))["planted"]["all"]["sanitized"]["good"]["value"] == 0
