"""A scanner's folder that somebody changed: numbers that no fit writes, and files that are not those of the fit."""

import json
import shutil

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cowbird.defenses.p_scanner import scoring, tagger
from cowbird.defenses.p_scanner.rounds.fitted_scanner import Record, load_fitted_scanner
from cowbird.errors import UserError
from cowbird.files import hash_file

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(clean_fit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "scanner"
    clean_fit.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "scanner")


@pytest.fixture
def record(clean_fit):
    return json.loads(clean_fit.record.model_dump_json())


def reseal(folder, **files):
    """Change a folder as somebody would who knows of the hashes."""
    path = folder / "cowbird.json"
    told = json.loads(path.read_text())
    told["files"] = {name: hash_file(folder / name) for name in told["files"]} | files
    path.write_text(json.dumps({**told, "files": {name: sha for name, sha in told["files"].items() if sha}}))


BAD = ("NaN", "Infinity", "-Infinity", "1e9", "-1e9", "1e999", '"x"', "null")
PLACES = [
    ("calibration", "highest", 0),
    ("alone", "highest", 0),
    ("weights", "offset"),
    ("weights", "weight", 0),
    ("weights", "center", 0),
    ("weights", "scale", 0),
    ("fpr",),
    ("review_fpr",),
    ("rounds", 0, "seconds"),
    ("llm", "alpha"),
    ("tuning", "learning_rate"),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_number_that_no_fit_writes(record, place):
    for text in BAD:
        held = json.loads(json.dumps(record))
        at = held
        for name in place[:-1]:
            at = at[name]
        at[place[-1]] = "HERE"
        with pytest.raises(ValidationError):
            Record.model_validate(json.loads(json.dumps(held).replace('"HERE"', text)))


def list_numbers(held, *way):
    """Yield the way to each number in JSON values."""
    if isinstance(held, dict | list):
        for key, value in held.items() if isinstance(held, dict) else enumerate(held):
            yield from list_numbers(value, *way, key)
    elif isinstance(held, int | float) and not isinstance(held, bool):
        yield way


def check_ranges(model, told):
    """Each number has a range: none may be enormous, whole or not."""
    places = list(list_numbers(told))
    assert len(places) > 5
    for way in places:
        for value in (10**30, -(10**30), 1e300, -1e300):
            held = json.loads(json.dumps(told))
            at = held
            for name in way[:-1]:
                at = at[name]
            at[way[-1]] = value
            with pytest.raises(ValidationError):
                model.model_validate(held)
                pytest.fail(f"{way} may be {value}")


def test_each_number_of_a_scanner_has_a_range(record):
    assert record["version"]
    record["calibration"]["highest"], record["alone"]["highest"] = [1.0], [1.0]
    record["rounds"] = [record["rounds"][0] | {"before": [], "after": []}]
    check_ranges(Record, record)


def test_each_number_of_a_tagger_has_a_range():
    told = json.loads((tagger.READY_TAGGER / tagger.TAGGER_RECORD_FILE).read_text())
    check_ranges(tagger.TaggerRecord, told | {"recipe": {}})


@pytest.mark.parametrize(
    "change",
    [
        {"titles": -1},
        {"left_out": -1},
        {"highest": [1.0, 2.0]},
        {"highest": [4.1]},
    ],
    ids=str,
)
def test_a_calibration_that_no_fit_writes(record, change):
    record["calibration"] |= change
    with pytest.raises(ValidationError):
        Record.model_validate(record)


@pytest.mark.parametrize("text", ["NaN", "1e9", "Infinity", None])
@pytest.mark.parametrize("place", ["calibration", "alone"])
def test_a_threshold_that_flags_nothing_is_refused_though_it_is_sealed(folder, text, place):
    path = folder / "scanner.json"
    told = json.loads(path.read_text())
    told[place]["highest"] = [] if text is None else ["HERE"]
    path.write_text(json.dumps(told).replace('"HERE"', str(text)))
    reseal(folder)
    with pytest.raises(UserError, match="does not hold a scanner"):
        load_fitted_scanner(folder, CPU)


CHANGES = {
    "flipped": lambda weight: -weight,
    "zeroed": torch.zeros_like,
    "cast": lambda weight: weight.to(torch.float16),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_adapter_that_somebody_changed(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file({name: CHANGES[change](weight) for name, weight in load_file(path).items()}, path)
    with pytest.raises(UserError, match="its SHA-256 is not the recorded one"):
        load_fitted_scanner(folder, CPU)


@pytest.mark.parametrize("name", ["scanner.json", "adapter_model.safetensors", "tokenizer.json"])
def test_a_file_whose_hash_is_struck_out(folder, name):
    reseal(folder, **{name: ""})
    with pytest.raises(UserError, match=f"'{name}' is not one of its files"):
        load_fitted_scanner(folder, CPU)


def test_scoring_weights_that_ship_are_the_known_ones(tmp_path, monkeypatch):
    assert hash_file(scoring.READY_SCORING) == scoring.READY_SCORING_SHA256
    held = load_file(scoring.READY_SCORING)
    path = tmp_path / "scoring.safetensors"
    save_file({name: -weight for name, weight in held.items()}, path, {"cowbird": scoring.SCORING_VERSION})
    monkeypatch.setattr(scoring, "READY_SCORING", path)
    with pytest.raises(UserError, match="is damaged"):
        scoring.load_scoring(path)


def test_the_tagger_that_ships_is_the_known_one(tmp_path, monkeypatch):
    assert hash_file(tagger.READY_TAGGER / tagger.TAGGER_RECORD_FILE) == tagger.READY_TAGGER_SHA256
    told = json.loads((tagger.READY_TAGGER / tagger.TAGGER_RECORD_FILE).read_text())
    told["llm"]["alpha"] = 1e-3  # which silences it
    (tmp_path / tagger.TAGGER_RECORD_FILE).write_text(json.dumps(told))
    shutil.copy(tagger.READY_TAGGER / tagger.ADAPTER_FILE, tmp_path)
    monkeypatch.setattr(tagger, "READY_TAGGER", tmp_path)
    with pytest.raises(UserError, match="is not the known one"):
        tagger.load_tagger(tmp_path, "cpu")
