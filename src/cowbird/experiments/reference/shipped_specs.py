"""The specs that ship with Cowbird, by name."""

import tomllib
from pathlib import Path

from cowbird.errors import UserError
from cowbird.experiments.spec_labels import find_shipped_spec

SHIPPED_PREFIX = "shipped:"
"""What stands before the name of a shipped spec where a file of that name lies in the way."""


def list_shipped_specs() -> dict[str, str]:
    """Return the names of the specs that ship, sorted, with what each is for."""
    return {path.stem: str(tomllib.loads(path.read_text("utf-8")).get("description", "")) for path in _list_files()}


def _list_files() -> list[Path]:
    return sorted(find_shipped_spec("demo").parent.glob("*.toml"))


def find_spec(name: str) -> Path:
    """Return the file of a spec that is named by its path, or by the name of one that ships.

    Args:
        name: A path; or the name of a shipped spec, also as `shipped:NAME`.

    Raises:
        UserError: If there is neither, or both a file here and a shipped spec could be meant.
    """
    known = [path.stem for path in _list_files()]
    bare = name.removeprefix(SHIPPED_PREFIX)
    if bare != name:
        if bare not in known:
            raise UserError(f"There is no shipped spec '{bare}'.", f"Shipped specs: {', '.join(known)}.")
        return find_shipped_spec(bare)
    path = Path(name)
    if name not in known:
        if not path.suffix and not path.exists() and path.name == name:
            raise UserError(
                f"There is no shipped spec '{name}', and no file of that name.",
                f"Shipped specs: {', '.join(known)}. Or give the path of a TOML file.",
            )
        return path
    shipped = find_shipped_spec(name)
    for file in (path, Path(f"{name}.toml")):
        if file.is_file() and not file.samefile(shipped):
            raise UserError(
                f"'{name}' may be the spec that ships with Cowbird, or the file '{file}' in this folder.",
                f"Write {SHIPPED_PREFIX}{name} for the first, or ./{file} for the second.",
            )
    return shipped
