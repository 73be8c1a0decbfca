"""Remake `requirements-lock.txt`: what `make setup` installs, each at one version and with the hashes of its files.

pip chooses the versions, as `pyproject.toml` and `constraints.txt` say. uv adds the SHA-256 of each file that the index
has of them, so the lock serves other systems and later Pythons too. torch is left out: which build of it is right
depends on the machine, and each build has another hash.

    make lock
"""

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK_FILE = ROOT / "requirements-lock.txt"
EXTRAS = ("agent", "dev", "docs", "llm", "serve")
"""The extras of `pyproject.toml` that are locked: all that `make setup` installs."""
PYTHON = (3, 11)
"""The Python that versions are chosen for: the oldest one that is supported."""
TORCH = "torch==2.13.0"
"""What is left out, and what `make setup` installs by itself."""
UV = "uv==0.13.9"
"""What adds the hashes."""
HEADER = """\
# What `make setup` installs, with the SHA-256 of every file of each version: pip refuses any other file.
# Made by `make lock` from pyproject.toml and constraints.txt; edit those and not this file.
# torch is not here. `make setup` installs exactly 2.13.0 from wherever pip is configured, and each build of it, for a
# processor or a GPU, has a hash of its own.
"""


def read_requirements(pyproject: dict[str, Any]) -> list[str]:
    """Return what the package, its build and the locked extras ask for, as they are written."""
    project = pyproject["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return sorted({*project["dependencies"], *pyproject["build-system"]["requires"], *extras})


def choose_versions(python: Path, wanted: list[str], folder: Path) -> list[str]:
    """Return `name==version` of everything that pip would install, without torch."""
    report = folder / "report.json"
    run(python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary", ":all:",
        "--constraint", ROOT / "constraints.txt", "--report", report, TORCH, *wanted)  # fmt: skip
    found = [each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
    # What a torch for GPUs brings along belongs to that build.
    return [
        f"{each['name'].lower()}=={each['version']}"
        for each in found
        if not each["name"].lower().startswith(("torch", "triton", "nvidia-", "cuda-"))
    ]


def add_hashes(python: Path, chosen: list[str], folder: Path) -> str:
    """Return the lines of the lock: each package with the hashes of all files of its version."""
    pins, made = folder / "pins.in", folder / "lock.txt"
    pins.write_text("\n".join(sorted(chosen)) + "\n", encoding="utf-8")
    run(python, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-deps", "--generate-hashes",
        "--no-header", "--no-annotate", "--python-version", platform.python_version(), pins, "-o", made)  # fmt: skip
    return made.read_text(encoding="utf-8")


def run(*words: str | Path) -> None:
    """Run a command, whose output is shown; end with its exit code if that is not 0."""
    done = subprocess.run([str(word) for word in words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> None:
    """Write the lock."""
    if sys.version_info[:2] != PYTHON:
        raise SystemExit(f"Versions are chosen for Python {PYTHON[0]}.{PYTHON[1]}: make lock PYTHON=python3.11")
    wanted = read_requirements(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="cowbird-lock-") as made:
        folder = Path(made)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)
        lines = add_hashes(python, choose_versions(python, wanted, folder), folder)
    partial = LOCK_FILE.with_suffix(".partial")
    partial.write_text(HEADER + lines, encoding="utf-8")
    partial.replace(LOCK_FILE)
    print(f"{LOCK_FILE.name}: {lines.count('==')} packages")


if __name__ == "__main__":
    main()
