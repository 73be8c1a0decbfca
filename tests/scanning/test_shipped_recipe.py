"""The recipe of the small tagger that ships says what its record says."""

from pathlib import Path

from cowbird.defenses.p_scanner.small_tagger import READY_SMALL_TAGGER, SMALL_RECORD_FILE, SmallTaggerRecord
from cowbird.scanning.training_recipe import read_training_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "small_tagger.toml"


def test_the_shipped_small_tagger_has_this_recipe():
    record = SmallTaggerRecord.model_validate_json((READY_SMALL_TAGGER / SMALL_RECORD_FILE).read_text())
    recipe = read_training_recipe(RECIPE)
    made = recipe.small.model_dump(mode="json")
    assert (recipe.kind, recipe.seed, recipe.small.sizes) == ("small", record.seed, record.sizes)
    assert {name: made[name] for name in record.recipe} == record.recipe
    assert [name for name, each in recipe.lists.items() if each.taught] == list(record.catalogs)
    assert all(each.source and each.license for each in (*recipe.lists.values(), *recipe.held_out.values()))
