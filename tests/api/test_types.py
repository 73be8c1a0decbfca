"""Someone else's script that uses the public API passes strict type checkers, and the wheel says that it is typed."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cowbird

SOURCE = Path(cowbird.__file__).parents[1]
SCRIPT = """
from pathlib import Path

import cowbird
import polars as pl


def poison(events: pl.DataFrame) -> pl.DataFrame:
    data: cowbird.TrainingData = cowbird.make_dataset(events).to_training_data()
    attack = cowbird.find_plugin("attack", "badrec")()
    made: cowbird.PoisonedData = attack.poison(data, seed=1)
    return made.to_frames().interactions


def scan(folder: Path | str, frame: pl.DataFrame) -> pl.DataFrame:
    scanner: cowbird.FittedScanner | cowbird.CalibratedScanner = cowbird.load_scanner(folder, device="cpu")
    more: pl.DataFrame = scanner.scan(["a title", None])
    return pl.concat([scanner.scan(frame, text_column="name"), more])


def fit(titles: list[str]) -> cowbird.FittedScanner:
    return cowbird.PoisonScanner(rounds=1).fit(titles, device="auto")


def run() -> pl.DataFrame:
    results: cowbird.Results = cowbird.run("demo", "runs/demo", seeds=[0], progress=False)
    rates: list[float | None] = [row.value for row in results.rows]
    scores = cowbird.metrics.ranking_metrics([1, 2, 3], ks=[10])
    print(rates, scores[0].value, cowbird.compare_texts(["a"], ["b"])["edits"], cowbird.__version__)
    try:
        return cowbird.Experiment.from_file("mine.toml").run("runs/mine").to_polars()
    except cowbird.UserError as error:
        print(error.hint)
        raise
"""
WRONG = (
    SCRIPT
    + """

def misname_device() -> None:
    cowbird.load_scanner("x", device=3)


def mistake_table() -> int:
    return cowbird.load_scanner("x").scan(["a"])
"""
)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Return a function that writes a script in a folder of its own."""

    def write(text):
        path = tmp_path_factory.mktemp("outside") / "script.py"
        path.write_text(text)
        (path.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
        return path

    return write


def check(command, path):
    env = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.run([*command, path.name], cwd=path.parent, env=env, capture_output=True, text=True, check=False)


MYPY = [sys.executable, "-m", "mypy", "--strict"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]


@pytest.mark.slow
@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_a_script_of_somebody_else_is_typed(script, command):
    pytest.importorskip(command[2])
    found = check(command, script(SCRIPT))
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_a_mistake_in_it_is_seen(script, command):
    pytest.importorskip(command[2])
    found = check(command, script(WRONG))
    assert found.returncode == 1
    assert "device" in found.stdout
    assert "DataFrame" in found.stdout


@pytest.mark.slow
def test_the_wheel_says_that_it_is_typed(tmp_path):
    pytest.importorskip("hatchling")
    root = Path(__file__).parents[2]
    for name in ("src", "experiments"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in root.iterdir():
        if path.suffix in (".toml", ".md", ".txt") or path.name in ("LICENSE", "hatch_build.py"):
            shutil.copy(path, tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "made"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "cowbird/py.typed" in names
    assert "cowbird/api/experiments.py" in names
