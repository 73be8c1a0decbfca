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


MYPY = [sys.executable, "-m", "mypy", "--strict"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]


@pytest.mark.slow
@pytest.mark.parametrize("command", [pytest.param(MYPY, marks=pytest.mark.long), PYRIGHT], ids=["mypy", "pyright"])
def test_a_script_of_somebody_else_is_typed_and_a_mistake_is_seen(command, tmp_path):
    pytest.importorskip(command[2])
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    env = os.environ | {"PYTHONPATH": str(SOURCE)}
    words = [*command, "right.py", "wrong.py"]
    found = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    errors = [line for line in found.stdout.splitlines() if "error:" in line]
    assert found.returncode == 1
    assert not [line for line in errors if "wrong.py" not in line], found.stdout + found.stderr
    assert "device" in found.stdout
    assert any("DataFrame" in line for line in errors)


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
