"""The lock of `make setup`: whole, hashed, in step with what `pyproject.toml` and `constraints.txt` ask for."""

import importlib.util
import re
import tomllib

import pytest

from doubles.blocks import REPOSITORY

requirements = pytest.importorskip("packaging.requirements")
utils = pytest.importorskip("packaging.utils")
TABLE = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (REPOSITORY / "requirements-lock.txt").read_text(encoding="utf-8")
REMAKE = "run `make lock`"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lock_tool", REPOSITORY / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_pins(text):
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {utils.canonicalize_name(name): version for name, version in found}


def test_the_lock_has_what_setup_installs(tool):
    locked = read_pins(LOCK)
    for line in tool.read_requirements(TABLE):
        wanted = requirements.Requirement(line)
        name = utils.canonicalize_name(wanted.name)
        if name != "torch" and (wanted.marker is None or wanted.marker.evaluate()):
            assert name in locked, f"{name} is asked for and not locked: {REMAKE}"
            assert locked[name] in wanted.specifier, f"{name} {locked[name]} is locked, {line} is asked for: {REMAKE}"


def test_the_lock_has_the_versions_of_the_constraints():
    locked = read_pins(LOCK)
    asked = read_pins((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    other = {name: version for name, version in asked.items() if name in locked and locked[name] != version}
    assert other == {}, REMAKE


def test_each_package_is_one_version_with_hashes_and_nothing_says_where_it_comes_from():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    assert len(entries) > 50
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.]+(?: ; [^-]+)?(?:\s+--hash=sha256:[0-9a-f]{64})+", entry.strip()), entry
    assert "://" not in LOCK
    assert "torch" not in read_pins(LOCK), "its builds differ, and so do their hashes"


def test_the_build_backend_is_the_locked_one():
    (backend,) = TABLE["build-system"]["requires"]
    assert backend == f"hatchling=={read_pins(LOCK)['hatchling']}", REMAKE


def test_setup_refuses_what_has_no_hash():
    rules = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in rules.splitlines() if line.lstrip("\t@").startswith("$(PIP)")]
    free = [line for line in installs if "--require-hashes" not in line and "--no-deps" not in line]
    assert [re.sub(r"\s+", " ", line).strip() for line in free] == [
        "$(PIP) --constraint constraints.txt torch==2.13.0 $(TORCH_OPTIONS)"
    ]
    assert "--no-build-isolation" in rules, "the build backend comes from the lock"


def test_what_torch_brings_for_gpus_is_not_locked(tool, monkeypatch, tmp_path):
    (tmp_path / "report.json").write_text(
        '{"install": [{"metadata": {"name": "Torch", "version": "2"}}, {"metadata": {"name": "Typer", "version": "1"}},'
        ' {"metadata": {"name": "nvidia-nccl", "version": "3"}}]}'
    )
    monkeypatch.setattr(tool, "run", lambda *words: None)
    assert tool.choose_versions(tmp_path / "python", [], tmp_path) == ["typer==1"]


def test_another_python_is_told_which_one_chooses(tool, monkeypatch):
    monkeypatch.setattr(tool.sys, "version_info", (3, 13, 0))
    with pytest.raises(SystemExit, match=r"make lock PYTHON=python3\.11"):
        tool.main()
