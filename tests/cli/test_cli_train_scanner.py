"""`cowbird train-scanner`: a tagger from lists of titles, used by a scan; each failure ends with its code."""

import json
import os
from pathlib import Path

import numpy as np
import polars
import pytest
import torch

from cowbird.defenses.p_scanner.small_tagger import load_small_tagger
from cowbird.defenses.p_scanner.training import small_tagger_training
from cowbird.errors import ExitCode
from cowbird.files import hash_texts
from cowbird.storage import read_sealed_json
from cowbird.victims import training_loop
from defenses.conftest import llama  # noqa: F401
from doubles.command import call_command

WORDS = ("silver", "river", "garden", "winter", "paper", "orange", "window", "mountain", "letter", "stone", "cloud")
RECIPE = """
kind = "small"
seed = 3
words = "words.txt"
[lists.shop]
path = "shop.csv"
source = "made up | here"
license = "CC0"
[lists.games]
path = "games.csv"
text_column = "name"
[held_out.books]
path = "books.csv"
[small]
sizes = { embedding = 4, width = 8, blocks = 1 }
chunk = 64
chunks = 12
families = ["character", "plain_word"]
"""


def draw_titles(many, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=4, replace=False)).title() for _ in range(many)]


@pytest.fixture
def folder(tmp_path):
    for nth, (name, column) in enumerate((("shop", "title"), ("games", "name"), ("books", "title"))):
        polars.DataFrame({column: draw_titles(80, nth)}).write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "words.txt").write_text("\n".join(f"{word}{end}" for word in WORDS for end in ("", "s", "ing")))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    return lambda *words: call_command(monkeypatch, capsys, *words, "--device", "cpu")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_recipe_gives_a_tagger_that_a_scan_uses(call, folder):
    code, said, err = call("train-scanner", folder / "recipe.toml", "--out", folder / "tagger", "--json")
    assert code == ExitCode.CLEAN, err
    told = json.loads(said)
    assert set(told["titles"]) == {"shop", "games"}
    (asked,) = told["evaluation"]
    assert asked["list"] == "books"
    assert asked["families"] == read_sealed_json(folder / "tagger" / "evaluation.json")[0]["families"]
    assert asked["families"][0]["recall"] <= asked["families"][-1]["recall"], "worst first"
    record = load_small_tagger(folder / "tagger").record
    assert record.recipe["families"] == ["character", "plain_word"]
    card = (folder / "tagger" / "MODEL_CARD.md").read_text()
    assert record.titles_sha256["shop"] in card
    assert "made up \\| here | CC0" in card
    assert not (folder / "tagger.partial").exists()
    polars.DataFrame({"title": [*draw_titles(120, 5), "Silver River \u200b"]}).write_csv(folder / "items.csv")
    code, _, err = call("scan", folder / "items.csv", "--tagger", folder / "tagger", "--out", folder / "found.csv")
    assert code in (ExitCode.CLEAN, ExitCode.FINDINGS), err
    assert polars.read_csv(folder / "found.csv").height == 121


@pytest.mark.slow
def test_a_list_is_the_one_whose_hash_the_recipe_names(call, folder):
    """The hash is of what is learned from, in order; of several lists that are others all are named."""
    path = folder / "recipe.toml"
    drawn = {name: list(dict.fromkeys(draw_titles(80, nth))) for nth, name in enumerate(("shop", "games", "books"))}
    shared = {
        title
        for name, titles in drawn.items()
        for title in titles
        if any(title in other for known, other in drawn.items() if known != name)
    }
    left = {
        name: [title for title in titles if name == "books" or title not in shared] for name, titles in drawn.items()
    }
    hashes = {name: hash_texts(titles) for name, titles in left.items()}
    named = RECIPE
    for name, digest in hashes.items():
        named = named.replace(f'path = "{name}.csv"', f'path = "{name}.csv"\nsha256 = "{digest}"')
    path.write_text(named)
    code, _, err = call("train-scanner", path, "--out", folder / "tagger")
    assert code == ExitCode.CLEAN, err
    path.write_text(named.replace(hashes["games"], "0" * 64).replace(hashes["shop"], "1" * 64))
    code, _, err = call("train-scanner", path, "--out", folder / "other")
    told = " ".join(err.split())
    assert code == ExitCode.ERROR
    assert (
        f"'shop' is not the one that the recipe names: {len(left['shop'])} titles with the hash {hashes['shop']}"
        in told
    )
    assert f"{'1' * 64} was expected. Neither are these: games." in told
    assert "leave 'sha256' out" in told
    path.write_text(named.replace(hashes["books"], "0" * 64))
    code, _, err = call("train-scanner", path, "--out", folder / "other")
    assert (code, "'books' is not the one" in err) == (ExitCode.ERROR, True)
    path.write_text(named.replace(hashes["books"], "abc"))
    code, _, err = call("train-scanner", path, "--out", folder / "other")
    assert (code, "held_out.books.sha256" in err) == (ExitCode.ERROR, True)
    assert not (folder / "other").exists()


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_bytes(call, folder, monkeypatch):
    assert call("train-scanner", folder / "recipe.toml", "--out", folder / "whole")[0] == ExitCode.CLEAN
    step, words = training_loop.TrainingLoop._report_and_save, ("train-scanner", folder / "recipe.toml", "--out")

    def interrupt(self):
        step(self)
        if self.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", interrupt)
    code, _, err = call(*words, folder / "tagger")
    assert code == ExitCode.INCOMPLETE
    assert "--resume" in err
    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", step)
    code, _, err = call(*words, folder / "tagger")
    assert (code, "unfinished" in err) == (ExitCode.ERROR, True)
    first = []
    monkeypatch.setattr(training_loop.TrainingLoop, "_check_resumed", lambda self: first.append(self.step))
    assert call(*words, folder / "tagger", "--resume")[0] == ExitCode.CLEAN
    assert first == [5], "it went on from where it stopped"
    assert contents(folder / "tagger") == contents(folder / "whole")
    code, said, _ = call(*words, folder / "tagger", "--resume")
    assert (code, "nothing was done" in " ".join(said.split())) == (ExitCode.CLEAN, True)


@pytest.mark.slow
def test_adapters_of_a_language_model_are_trained_and_tuned(call, folder, monkeypatch, llama):  # noqa: F811
    table = f"[llm]\nllm = {{ name = {json.dumps(str(llama))}, rank = 2, alpha = 4.0 }}\nbatch_size = 4\n"
    table += "chunk = 16\nchunks = 2\ncompiled = false\ncapacity = 512\n"
    (folder / "recipe.toml").write_text(
        RECIPE[: RECIPE.index("[small]")].replace('"small"', '"llm"').replace('words = "words.txt"', "") + table
    )
    words = ("train-scanner", folder / "recipe.toml", "--out")
    code, _, err = call(*words, folder / "whole")
    assert code == ExitCode.CLEAN, err
    step = training_loop.TrainingLoop._report_and_save

    def interrupt(self):
        step(self)
        if self.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", interrupt)
    assert call(*words, folder / "tagger")[0] == ExitCode.INCOMPLETE
    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", step)
    assert call(*words, folder / "tagger", "--resume")[0] == ExitCode.CLEAN
    assert contents(folder / "tagger") == contents(folder / "whole")
    polars.DataFrame({"title": draw_titles(120, 5)}).write_csv(folder / "items.csv")
    more = ("--tagger", folder / "tagger", "--tune", "--steps", "2")
    code, _, err = call("fit-scanner", folder / "items.csv", "--out", folder / "made", *more)
    assert code == ExitCode.CLEAN, err
    assert (
        contents(folder / "made" / "tagger")["adapter.safetensors"]
        != contents(folder / "tagger")["adapter.safetensors"]
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "small"', 'kind = "huge"', "kind"),
        ("seed = 3", "seed = [", "should be TOML"),
        ("seed = 3", "sead = 3", "not known"),
        ('path = "shop.csv"', 'path = "gone.csv"', "gone.csv"),
        ('path = "books.csv"', 'path = "shop.csv"', "No title of the list 'shop' is left"),
        ("[held_out.books]", "[held_out.shop]", "both learned from and held out"),
        ('words = "words.txt"', 'words = "gone.txt"', "gone.txt"),
        ('["character", "plain_word"]', '["nothing"]', "no families nothing"),
        ("[small]", "[llm]\nchunk = 8\n[small]", "is for kind = 'llm'"),
        ("chunks = 12", "chunks = 0", "1 or more"),
        (RECIPE[RECIPE.index("[small]") :], "", "words are for kind = 'small'"),
    ],
)
def test_what_is_no_recipe_is_told(call, folder, old, new, said):
    kind = '"llm"' if "words are" in said else '"small"'
    (folder / "recipe.toml").write_text(RECIPE.replace(old, new).replace('"small"', kind))
    code, out, err = call("train-scanner", folder / "recipe.toml", "--out", folder / "tagger")
    assert code == ExitCode.ERROR
    assert "".join(said.split()) in "".join(err.split()), err
    assert "Traceback" not in out + err
    assert not (folder / "tagger").exists()


@pytest.mark.slow
def test_a_folder_in_use_and_another_recipe_are_refused(call, folder):
    words = ("train-scanner", folder / "recipe.toml", "--out", folder / "tagger")
    assert call("train-scanner", folder / "gone.toml", "--out", folder / "tagger")[0] == ExitCode.ERROR
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("notes")
    assert call(*words[:3], folder / "taken")[0] == ExitCode.ERROR
    assert call(*words)[0] == ExitCode.CLEAN
    (folder / "recipe.toml").write_text(RECIPE.replace("seed = 3", "seed = 4"))
    code, _, err = call(*words, "--resume")
    assert (code, "other titles or with other options" in " ".join(err.split())) == (ExitCode.ERROR, True)


def test_a_folder_that_holds_no_tagger_is_told(call, folder):
    polars.DataFrame({"title": draw_titles(120, 5)}).write_csv(folder / "items.csv")
    for wrong in (folder, folder / "gone"):
        code, _, err = call("scan", folder / "items.csv", "--tagger", wrong, "--out", folder / "found.csv")
        assert code == ExitCode.ERROR
        assert "tagger" in err


@pytest.mark.slow
def test_rows_of_lists_that_cannot_be_read_are_counted(call, folder):
    with (folder / "shop.csv").open("a") as file:
        file.write("Red River,more\n" * 12)
    code, said, _ = call("train-scanner", folder / "recipe.toml", "--out", folder / "made")
    assert code == ExitCode.INCOMPLETE
    assert "Not used of the list 'shop', because they can't be read: 12 rows." in " ".join(said.split())
    words = ("train-scanner", folder / "recipe.toml", "--out", folder / "made", "--resume", "--json", "--quiet")
    (told,) = json.loads(call(*words)[1])["unread"]
    assert (told["list"], told["count"], told["rows"][0]) == ("shop", 12, 81)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link", "large"])
def test_a_recipe_that_is_no_file_is_refused(call, tmp_path, kind):
    recipe = Path("/dev/null") if kind == "device" else tmp_path / "recipe.toml"
    if kind == "folder":
        recipe.mkdir()
    elif kind == "pipe":
        os.mkfifo(recipe)
    elif kind == "link":
        recipe.symlink_to(recipe)
    elif kind == "large":
        recipe.write_bytes(b"#" * (1 << 21))
    code, _, err = call("train-scanner", recipe, "--out", tmp_path / "made")
    assert code == ExitCode.ERROR
    assert "can't be read" in " ".join(err.split())
    assert "cowbird train-scanner RECIPE.toml" in " ".join(err.split())
    assert not (tmp_path / "made").exists()


def test_a_learning_rate_that_is_too_high_is_named(call, folder):
    recipe = folder / "recipe.toml"
    recipe.write_text(f"{RECIPE}learning_rate = 1e30\n")
    code, _, err = call("train-scanner", recipe, "--out", folder / "made")
    assert code == ExitCode.ERROR
    assert "learning_rate" in err and "1000" in err


@pytest.mark.parametrize("wrong", ["loss", "weights"])
def test_a_training_that_goes_astray_names_the_learning_rate_and_leaves_nothing(call, folder, monkeypatch, wrong):
    teach = small_tagger_training._teach

    def spoil(pupils, *more):
        teach(pupils, *more)
        for pupil in pupils:
            with torch.no_grad():
                (pupil.loss if wrong == "loss" else pupil.network.table.weight).fill_(np.nan)

    monkeypatch.setattr(small_tagger_training, "_teach", spoil)
    code, _, err = call("train-scanner", folder / "recipe.toml", "--out", folder / "made")
    assert code == ExitCode.ERROR
    assert "The training has gone astray" in " ".join(err.split())
    assert "Lower the learning rate: learning_rate is" in " ".join(err.split())
    assert not [path for path in folder.iterdir() if path.name.startswith("made")]
