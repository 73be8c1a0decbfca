"""Language models that come as assets (`cowbird.assets`): the GGUF file of each.

A large file may lie in several wheels, a part in each; the parts are joined in the cache and checked.
"""

from dataclasses import dataclass
from pathlib import Path

from cowbird.assets import ASSETS, find_file
from cowbird.errors import OutageError, UserError
from cowbird.files import hash_file, hash_unchanged_file, replace_atomically


@dataclass(frozen=True)
class EmbeddedModel:
    """A GGUF file that comes as an asset, whole or in parts."""

    file: str
    """Its name."""
    sha256: str
    """Its hash; another file is refused."""
    license: str = "unknown"
    """The license of the model in it, as model cards name it."""


EMBEDDED_MODELS = {
    "smollm2-135m": EmbeddedModel(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="apache-2.0",
    ),
    "gemma3-270m": EmbeddedModel(
        "gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", license="gemma"
    ),
}
"""The models by name, which is also that of their asset."""


def find_embedded_model(name: str, cache: Path) -> Path:
    """Return the GGUF file of an embedded model.

    Args:
        name: A key of `EMBEDDED_MODELS`.
        cache: Where parts are joined.

    Raises:
        UserError: If the asset is not here, or the joined file is not the known one.
    """
    model, ends = EMBEDDED_MODELS[name], [end for each in ASSETS[name].files.values() for end in each]
    if len(ends) == 1:
        return _check_known(name, find_file(name, ends[0]))
    whole = cache / "gguf" / model.file
    if whole.is_file() and hash_unchanged_file(whole) == model.sha256:
        return whole
    parts = [find_file(name, end) for end in ends]
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(whole) as partial:
            with partial.open("wb") as joined:
                for part in parts:
                    joined.write(part.read_bytes())
            if hash_file(partial) != model.sha256:
                raise UserError(
                    f"The parts of '{name}' do not make the known file.",
                    f"Uninstall its wheels ({', '.join(ASSETS[name].files)}) if they are installed, then fetch it: "
                    f"cowbird assets {name}.",
                )
    except OSError as error:
        raise OutageError(
            f"The cache '{whole.parent}' can't be written: {error.strerror}.", "Choose another with COWBIRD_CACHE."
        ) from None
    return whole


def _check_known(name: str, path: Path) -> Path:
    """Return a file of an asset, if it is the known one."""
    found, wanted = hash_unchanged_file(path), EMBEDDED_MODELS[name].sha256
    if found != wanted:
        raise UserError(
            f"'{path}' should have the SHA-256 {wanted}, and it has {found}: it is damaged, or is another file.",
            f"Uninstall its wheel ({', '.join(ASSETS[name].files)}) if it is installed, then fetch it: "
            f"cowbird assets {name}.",
        )
    return path
