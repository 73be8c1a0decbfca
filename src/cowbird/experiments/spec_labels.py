"""Labels of the specs that ship: somebody may take one for the name of an attack, since results are told by labels."""

import tomllib
from pathlib import Path
from typing import Any


def find_shipped_spec(name: str) -> Path:
    """Return the path of a spec that ships with Cowbird, such as `demo`."""
    inside = Path(__file__).parent / "shipped" / f"{name}.toml"
    return inside if inside.exists() else Path(__file__).parents[3] / "experiments" / f"{name}.toml"


def explain_label(kind: str, name: str) -> str:
    """Return what a name stands for if a shipped spec has it as a label, in a sentence; otherwise nothing.

    Args:
        kind: What is named, such as `attack`.
        name: The name.
    """
    for path in sorted(find_shipped_spec("demo").parent.glob("*.toml")):
        parts: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8")).get(f"{kind}s", [])
        for part in parts:
            if part.get("label") == name:
                return (
                    f"'{name}' is a label of the spec {path.stem}: there it stands for the {kind} {part['name']} with "
                    f'fields of its own. Write name = "{part["name"]}".'
                )
    return ""
