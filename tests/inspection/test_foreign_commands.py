"""`cowbird inspect`, `sanitize` and `survive` on checkpoints of other libraries, and on files that are none."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird.inspection import inspection
from cowbird.inspection.opening import open_model
from cowbird.storage import read_sealed_json
from cowbird.victims.loaders.opening import CheckpointOptions
from doubles.command import call_command
from inspection.conftest import ToyModel

CHECKPOINTS = Path(__file__).parents[1] / "foreign" / "checkpoints"
FILES = sorted(CHECKPOINTS.glob("*.[pc]*[hlt]"))
ITEMS = 12
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


@pytest.fixture
def logs(tmp_path):
    """Return a log of forty users, and the ids of the models' items."""
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    rows += [f"u{user},i{item},{at}" for user in range(40) for at, item in enumerate(rng.permutation(ITEMS)[:8])]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "items.txt").write_text("\n".join(f"i{number}" for number in range(ITEMS)) + "\n")
    return "--logs", tmp_path / "log.csv", "--items", tmp_path / "items.txt"


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call a command on a CPU; null models are toys."""

    class Honest(ToyModel):
        def __init__(self, seed):
            super().__init__(seed)
            self.items = ITEMS

        def score(self, histories):
            return np.stack([super(Honest, self).score([history])[0, :ITEMS] for history in histories])

    def make(users, shape, settings, probes, seed, device, report, workers=1):
        return [inspection.ask_probes(Honest(100 + number), probes) for number in range(settings.count)]

    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inspection, "fit_null_models", make)

    def run(*words):
        return call_command(monkeypatch, capsys, *words, "--device", "cpu")

    return run


def choose_settings(file):
    """Return what a file does not tell."""
    return () if "gru4rec" in file.name else ("--set", "heads=2")


@every_file
def test_a_checkpoint_is_inspected(call, logs, file, tmp_path):
    out = tmp_path / "found.json"
    words = ("inspect", file, *choose_settings(file), "--histories", 200)
    code, said, _ = call(*words)
    assert (code, "No verdict" in said) == (3, True), "without logs there is no verdict"
    code, said, _ = call(*words, *logs, "--out", out)
    record = read_sealed_json(out)
    assert code == (1 if record["p_value"] <= record["level"] else 0)
    assert record["model"].partition(" ")[0].lower() == file.name.partition("_")[0]
    assert (record["items"], record["ranking"][0]["id"][0]) == (ITEMS, "i")


@pytest.mark.slow
@every_file
def test_a_checkpoint_is_sanitized_in_its_own_format(call, logs, file, tmp_path):
    suspects, out = tmp_path / "suspects.txt", tmp_path / f"mended{file.suffix}"
    suspects.write_text("i4\n")
    words = ("sanitize", file, *choose_settings(file), *logs, "--suspects", suspects, "--out", out, "--rounds", 1)
    code, said, _ = call(*words, "--json", "--quiet")
    record = json.loads(said)
    assert code in (0, 1) and 4 in record["suspects"]
    options = CheckpointOptions(settings=dict([word.split("=") for word in choose_settings(file)[1:]]))
    before, after = (open_model(path, torch.device("cpu"), options).model for path in (file, out))
    changed = [
        number
        for number in range(ITEMS)
        if not torch.equal(before.list_item_tables()[0][number], after.list_item_tables()[0][number])
    ]
    assert changed == record["suspects"]
    code, _, err = call(*words[:-4], "--out", file, "--rounds", 1)
    assert (code, "MODEL reads that file" in " ".join(err.split())) == (2, True)


@pytest.mark.slow
@every_file
def test_fine_tuning_of_a_checkpoint_is_replayed(call, logs, file, tmp_path):
    suspects, kept = tmp_path / "suspects.txt", file.read_bytes()
    suspects.write_text("i4\ni5\n")
    words = ("survive", file, *choose_settings(file), *logs, "--suspects", suspects, "--rate", 1e-3, "--epochs", 1)
    code, said, _ = call(*words, "--json", "--quiet")
    assert code == 0 and json.loads(said)
    assert file.read_bytes() == kept


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, harm):
        self.harm = harm

    def __reduce__(self):
        return os.mkdir, (str(self.harm),)


HOSTILE = {
    "pickle": lambda path, harm: path.write_bytes(pickle.dumps(Bomb(harm))),
    "torch pickle": lambda path, harm: torch.save({"state_dict": Bomb(harm)}, path),
    "cut short": lambda path, harm: path.write_bytes(FILES[0].read_bytes()[:-200]),
    "header of a gigabyte": lambda path, harm: path.write_bytes((1 << 30).to_bytes(8, "little") + b"{}"),
    "text": lambda path, harm: path.write_text("\x1b[31mhello\u202e"),
    "dangling link": lambda path, harm: path.symlink_to(harm / "nowhere"),
    "folder": lambda path, harm: path.mkdir(),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", ["inspect", "sanitize", "survive"])
def test_what_is_no_checkpoint_is_refused_in_words(call, logs, tmp_path, command, kind):
    model, harm, suspects, out = (tmp_path / name for name in ("m.pth", "harm", "s.txt", "out.pth"))
    HOSTILE[kind](model, harm)
    suspects.write_text("i4\n")
    more = {"inspect": (), "sanitize": ("--suspects", suspects, "--out", out), "survive": ("--suspects", suspects)}
    code, said, err = call(command, model, *logs, *more[command])
    assert code == 2 and "Error" in err and "Traceback" not in err and "\x1b[31m" not in err
    assert not harm.exists() and not out.exists()
    assert said == ""


def test_suspects_that_the_model_does_not_have(call, logs, tmp_path):
    suspects, out = tmp_path / "s.txt", tmp_path / "out.pth"
    file = CHECKPOINTS / "recbole_gru4rec.pth"
    for text, told in (("i99\n", "no item"), ("", "names no suspect")):
        suspects.write_text(text)
        code, _, err = call("sanitize", file, *logs, "--suspects", suspects, "--out", out)
        assert (code, told in " ".join(err.split())) == (2, True)
        assert not out.exists()
