import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird.attacks.basic_replacement import BasicReplacement
from cowbird.errors import UserError
from cowbird.inspection.inspection import InspectionSettings
from cowbird.inspection.null_models import NullSettings
from cowbird.inspection.zoo.folder import ZooStep, order_fairly
from cowbird.inspection.zoo.recipe import ZooRecipe, read_recipe
from cowbird.inspection.zoo.run import Zoo
from cowbird.inspection.zoo.scoring import ScoredModel, read_zoo, score_zoo
from cowbird.rng import stream
from cowbird.storage import read_sealed_json, write_sealed_json
from doubles.command import call_command

ROOT = Path(__file__).parents[2]
RECIPE = """
seed = 1
clean = 2
platforms = 1

[dataset]
name = "synthetic"
users = 60
items = 40
events_per_user = 8

[[victims]]
name = "gru4rec"
hidden = 8
epochs = 1

[[plants]]
attack = "basic_replacement"
label = "group"
group = "always"
rate = [0.5, 0.5]
targets = [1, 2]
strata = [[0.0, 1.0]]
count = 1

[[plants]]
attack = "bandwagon"
count = 1
held_out = true
strata = [[0.0, 1.0]]
targets = [1, 2]
rate = [0.2, 0.2]
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def make_model(number, p, targets=0, found=0, exposure=None, kind="clean"):
    clean_exposure = 0.0001 if targets else None
    return ScoredModel(
        f"m{number:03d}", kind, False, "sasrec", 0, p, 1 / p, 0.1, targets, found, exposure, clean_exposure
    )


def test_scores_by_hand():
    clean = [make_model(number, p) for number, p in enumerate((0.9, 0.5, 0.04, 0.3))]
    planted = [
        make_model(10, 0.001, 4, 4, 0.5, "global"),
        make_model(11, 0.02, 2, 1, 0.01, "global"),
        make_model(12, 0.6, 2, 0, 0.0, "group"),
    ]
    scores = score_zoo([*clean, *planted])
    assert [row["accused"] for row in scores["accused"]] == [0, 0, 0, 1, 1, 1]
    assert scores["planted"]["all"]["all"]["auroc"]["value"] == pytest.approx((4 + 4 + 1) / 12)
    working = scores["planted"]["global"]["working"]
    assert (working["models"], working["found_at_0.01"], working["found_at_0.05"]) == (2, 1, 2)
    assert working["targets_found"] == 0.75
    assert scores["planted"]["global"]["lift of 20 or more"]["models"] == 2
    assert "working" not in scores["planted"]["group"]
    assert scores["roc"][0] == [0, 0] and scores["roc"][-1] == [1, 1]
    for missing in (clean, planted):
        with pytest.raises(UserError, match="one kind is missing"):
            score_zoo(missing)


def test_a_recipe_decides_everything(recipe_file):
    recipe = read_recipe(recipe_file)
    models = recipe.list_models()
    assert models == read_recipe(recipe_file).list_models()
    assert sorted(str(model.plant) for model in models) == ["0", "1", "None", "None"]
    assert len({model.seed for model in models}) == 4
    users = recipe.load_data().users
    one, again = (recipe.plants[0].draw(users, stream(3, "draw")) for _ in range(2))
    assert one == again and isinstance(one, BasicReplacement)
    assert one.scope == "group" and one.group is not None and 1 <= one.targets.count <= 2


@pytest.mark.parametrize("name", ["rankers_ml1m", "rankers_ml100k"])
def test_shipped_recipes_can_be_read(name):
    recipe = read_recipe(ROOT / "benchmarks" / "zoo" / f"{name}.toml")
    assert recipe.name == name and recipe.make_victims()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("clean = 2", "clean = 0", "clean"),
        ("clean = 2", "clean = [", "not TOML"),
        ("clean = 2", "clean = 2\nunknown = 1", "unknown"),
        ('name = "gru4rec"', 'name = "tallrec"', "hidden"),
        ('name = "gru4rec"', 'name = "nothing"', "nothing"),
        ("hidden = 8", "hidden = 1", "hidden"),
        ('attack = "bandwagon"', 'attack = "nothing"', "nothing"),
        ('label = "group"', 'label = "../../evil"', "label"),
        ('label = "group"', 'label = "\\u001b[31mred"', "label"),
        ("seed = 1", 'seed = 1\nname = "a/b"', "name"),
    ],
)
def test_wrong_recipes_are_refused(monkeypatch, capsys, recipe_file, tmp_path, old, new, said):
    recipe_file.write_text(RECIPE.replace(old, new))
    code, _, err = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", tmp_path / "zoo", "--device", "cpu")
    assert code == 2 and said in " ".join(err.split())


@pytest.mark.parametrize("out", ["recipe.toml", "file", "file/x", "file/x/y"])
def test_a_file_is_no_place_for_a_zoo(monkeypatch, capsys, recipe_file, tmp_path, out):
    (tmp_path / "file").write_text("mine")
    code, said, err = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", tmp_path / out, "--device", "cpu")
    assert (code, said) == (2, "")
    assert "is a file" in " ".join(err.split()) and "Traceback" not in err
    assert (recipe_file.read_text(), (tmp_path / "file").read_text()) == (RECIPE, "mine")


def test_what_is_no_text_is_no_recipe(monkeypatch, capsys, recipe_file, tmp_path):
    recipe_file.write_bytes(bytes(range(256)))
    code, _, err = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", tmp_path / "zoo")
    assert code == 2 and "no text in UTF-8" in " ".join(err.split()) and "Check the path" not in err
    code, _, err = call_command(monkeypatch, capsys, "zoo", tmp_path / "none.toml", "--out", tmp_path / "zoo")
    assert code == 2 and "No such file" in " ".join(err.split())


def test_a_folder_of_another_recipe_is_left_alone(recipe_file, tmp_path):
    recipe = read_recipe(recipe_file)
    Zoo(recipe, tmp_path / "zoo", torch.device("cpu"))
    other = ZooRecipe.model_validate(recipe.model_dump() | {"seed": 2})
    with pytest.raises(UserError, match="another recipe"):
        Zoo(other, tmp_path / "zoo", torch.device("cpu"))
    with pytest.raises(UserError, match="holds no zoo"):
        read_zoo(tmp_path / "zoo")


@pytest.mark.slow
def test_a_zoo_from_recipe_to_scores(recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "zoo"
    settings = InspectionSettings(histories=100, nulls=NullSettings(count=3, epochs=1))
    zoo = Zoo(read_recipe(recipe_file), out, torch.device("cpu"), settings)
    told = []
    zoo.work([ZooStep.make], lambda *args: told.append(args))
    assert told[-1][:3] == ("models", 4, 4)
    answers = [read_sealed_json(path) for path in sorted((out / "answers").glob("*.json"))]
    assert sorted(answer["kind"] for answer in answers) == ["bandwagon", "clean", "clean", "group"]
    for answer in answers:
        assert (answer["exposure"] is None) == (not answer["targets"])
    for path in (out / "models").iterdir():
        assert b"basic_replacement" not in path.read_bytes() and path.stem.startswith("m00")
    before = {path: path.read_bytes() for path in sorted((out / "models").iterdir())}
    (out / "answers" / "m001.json").unlink()
    zoo.work([ZooStep.make], lambda *args: None)
    assert {path: path.read_bytes() for path in sorted((out / "models").iterdir())} == before, "made again, the same"
    with pytest.raises(UserError, match="no model is inspected"):
        read_zoo(out)
    for part in ((1, 2), (2, 2)):
        zoo.work([ZooStep.inspect], lambda *args: None, part)
        assert len(read_zoo(out)) == 2 * part[0], "what is not inspected yet is left out"
    accuse_first(out, {answer["kind"]: number for number, answer in enumerate(answers)}["group"])
    zoo.work([ZooStep.sanitize], lambda *args: None, keep_models=False)
    assert not list((out / "models").iterdir())
    assert len(list((out / "times").iterdir())) >= 12
    code, said, _ = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", out, "--only", "score", "--json")
    scores = json.loads(said)
    assert code == 0 and scores == read_sealed_json(out / "scores.json")
    assert len(scores["models"]) == 4 and scores["clean"]["models"] == 2
    code, said, _ = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", out, "--only", "score")
    assert code == 0 and "Clean models accused" in said
    assert np.isfinite(scores["clean"]["ndcg@10"])
    assert set(scores["by victim"]) == {"gru4rec"}
    for method in ("reinit", "unlearn", "prune"):
        assert scores["sanitized"][method]["models"] == 1
    assert scores["sanitized"]["reinit"]["good"]["value"] in (0.0, 1.0)
    code, said, _ = call_command(
        monkeypatch, capsys, "zoo", recipe_file, "--out", out, "--part", "2/4", "--only", "inspect", "--device", "cpu"
    )
    assert (code, said) == (0, "")


def accuse_first(out, number):
    """Write into an inspection that its first item is a suspect."""
    path = out / "inspections" / f"m{number:03d}.json"
    record = read_sealed_json(path)
    for row in record["ranking"]:
        row["suspect"] = row["rank"] == 1
    write_sealed_json(path, record)


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/2/3", "1/99999999", "-1/2"])
def test_parts_that_are_none(monkeypatch, capsys, recipe_file, tmp_path, part):
    code, _, err = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", tmp_path / "zoo", f"--part={part}")
    assert (code, "should look like 2/8" in err) == (2, True)


@pytest.mark.parametrize("name", ["rankers_ml1m", "rankers_ml100k"])
def test_every_beginning_of_the_work_holds_all_kinds_in_their_shares(name):
    models = read_recipe(ROOT / "benchmarks" / "zoo" / f"{name}.toml").list_models()
    ordered = order_fairly(models)
    assert sorted(model.number for model in ordered) == [model.number for model in models]
    share = sum(model.plant is None for model in models) / len(models)
    for count in range(10, len(models)):
        clean = sum(model.plant is None for model in ordered[:count])
        assert abs(clean - share * count) <= 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sanitize", "--only", "make"), "--only make leaves out what --sanitize asks for"),
        (("--part", "1/2", "--only", "score"), "--part is for making and inspecting"),
    ],
)
def test_options_that_contradict_each_other(monkeypatch, capsys, recipe_file, tmp_path, words, said):
    code, _, err = call_command(monkeypatch, capsys, "zoo", recipe_file, "--out", tmp_path / "zoo", *words)
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "zoo").exists()
