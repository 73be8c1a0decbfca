"""A tiny experiment on made-up data, run once, and helpers to run it again."""

import shutil
import tomllib
from contextlib import contextmanager

import pytest

from cowbird.experiments.run import run
from cowbird.experiments.spec import parse_spec
from cowbird.experiments.tasks.ranking import rows
from cowbird.metrics import choice, exposure
from cowbird.metrics.intervals import bootstrap_sums
from doubles.evidence import evidence_files

TINY = """
name = "tiny"
seeds = [0, 1]
ks = [5, 10]
[dataset]
name = "synthetic"
users = 60
items = 40
events_per_user = 12
[split]
cold_fraction = 0.3
[[victims]]
name = "sasrec"
hidden = 16
layers = 1
epochs = 3
batch_size = 16
learning_rate = 0.02
[[attacks]]
name = "basic_replacement"
label = "women"
scope = "group"
group = { attribute = "gender", value = "F" }
targets = { count = 3 }
[[attacks]]
name = "basic_replacement"
label = "everyone"
targets = { count = 3 }
[[scenarios]]
name = "direct"
[[scenarios]]
name = "fine-tune"
epochs = 2
batch_size = 16
"""


@contextmanager
def resample_little():
    """Make rows quickly: what their intervals say is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (rows, exposure, choice):
            patch.setattr(module, "bootstrap_sums", lambda table, rng, *many: bootstrap_sums(table, rng, 20))
        yield


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """Make rows quickly in all tests of this folder."""
    with resample_little():
        yield


@pytest.fixture
def table():
    """The tables of the tiny spec, free to change."""
    return tomllib.loads(TINY)


@pytest.fixture(scope="session")
def tiny_toml():
    """The tiny spec as a file's text."""
    return TINY


@pytest.fixture(scope="session")
def tiny():
    """The tiny spec."""
    return parse_spec(tomllib.loads(TINY))


@pytest.fixture(scope="session")
def small():
    """One seed, one attack, both scenarios: the least that has every kind of step."""
    tables = tomllib.loads(TINY)
    tables["seeds"] = [3]
    del tables["attacks"][1]
    return parse_spec(tables)


def _contents(folder):
    """What must not depend on how a run was cut into pieces."""
    files = [folder / "results.jsonl", *folder.rglob("model.safetensors"), *evidence_files(folder)]
    files += folder.rglob("plans/*.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def contents():
    """Return the function that reads a run's lasting files."""
    return _contents


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory):
    """A finished run of the tiny spec: its folder and outcome. Copy it before changing it."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    with resample_little():
        return out, run(tiny, out, device="cpu")


@pytest.fixture(scope="session")
def small_run(small, tmp_path_factory):
    """A finished run of the small spec: its folder and outcome. Copy it before changing it."""
    out = tmp_path_factory.mktemp("small") / "run"
    with resample_little():
        return out, run(small, out, device="cpu")


@pytest.fixture
def small_copy(small_run, tmp_path):
    """A copy of the finished small run."""
    return shutil.copytree(small_run[0], tmp_path / "copy")
