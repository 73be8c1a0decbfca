"""The recipes of the taggers that ship say what their records say."""

import json
from pathlib import Path

import pytest

from cowbird.defenses.p_scanner.small_tagger import READY_SMALL_TAGGER, SMALL_RECORD_FILE, SmallTaggerRecord
from cowbird.defenses.p_scanner.tagger import READY_TAGGER, read_tagger_record
from cowbird.files import hash_texts
from cowbird.scanning.training_recipe import read_training_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_shipped_small_tagger_has_this_recipe():
    record = SmallTaggerRecord.model_validate_json((READY_SMALL_TAGGER / SMALL_RECORD_FILE).read_text())
    recipe = read_training_recipe(RECIPES / "small_tagger.toml")
    made = recipe.small.model_dump(mode="json")
    assert (recipe.kind, recipe.seed, recipe.small.sizes) == ("small", record.seed, record.sizes)
    assert {name: made[name] for name in record.recipe} == record.recipe
    assert {name: each.sha256 for name, each in recipe.lists.items() if each.taught} == record.titles_sha256
    assert [name for name, each in recipe.lists.items() if each.taught] == list(record.catalogs)
    assert all(each.source and each.license for each in (*recipe.lists.values(), *recipe.held_out.values()))


def test_the_shipped_tagger_has_this_recipe():
    record = read_tagger_record(READY_TAGGER)
    recipe = read_training_recipe(RECIPES / "tagger.toml")
    made = recipe.llm.model_dump(mode="json")
    assert (recipe.kind, recipe.seed, recipe.llm.llm) == ("llm", record.seed, record.llm)
    assert record.steps is not None
    steps = record.recipe["chunk"] // record.recipe["batch_size"]  # of a chunk; a clock ended it in the last one
    assert {name: made[name] for name in record.recipe} == record.recipe | {"chunks": -(-record.steps // steps)}
    assert {name: each.sha256 for name, each in recipe.lists.items()} == record.titles_sha256
    assert list(recipe.lists) == list(record.catalogs)
    assert all(each.source and each.license for each in recipe.lists.values())


@pytest.mark.slow
def test_the_made_up_products_are_made_again_to_the_byte(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES.parent / "benchmarks"))
    import product_titles

    monkeypatch.setattr("sys.argv", ["", "--titles", "12000", "--seed", "0", "--out", str(tmp_path / "products.json")])
    product_titles.main()
    made = json.loads((tmp_path / "products.json").read_text())
    for name in ("tagger.toml", "small_tagger.toml"):
        assert hash_texts(made) == read_training_recipe(RECIPES / name).lists["products"].sha256
