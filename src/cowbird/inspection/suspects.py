"""Reads which items are suspects: from an inspection, or from a list that somebody wrote."""

from collections.abc import Sequence
from pathlib import Path

from cowbird.errors import UserError
from cowbird.storage import read_sealed_json


def read_suspects(path: Path, item_ids: Sequence[str], items: int) -> list[int]:
    """Read the numbers of suspects: of an inspection's JSON file, or of a text file with an id a line.

    Args:
        path: The file.
        item_ids: The ids of the model's items; empty if none are known, and the file holds numbers.
        items: How many items the model has.

    Raises:
        UserError: If it can't be read, names no item, or one that the model doesn't have.
    """
    if path.suffix == ".json":
        record = read_sealed_json(path, "Inspect the model again.")
        try:
            found = [int(row["item"]) for row in record["ranking"] if row["suspect"]]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"'{path}' is no inspection.", "Give what cowbird inspect --out wrote.") from None
    else:
        place = {item: number for number, item in enumerate(item_ids)}
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            found = [place[line] if item_ids else int(line) for line in lines]
        except (OSError, UnicodeDecodeError):
            raise UserError(f"'{path}' should hold an item's id a line, and it can't be read.") from None
        except (KeyError, ValueError) as error:
            raise UserError(f"The model has no item {str(error)[:80]}.", "Give ids as the logs have them.") from None
    if not found:
        raise UserError(f"'{path}' names no suspect.", "Give a text file with an item's id a line to choose yourself.")
    if not 0 <= min(found) <= max(found) < items:
        raise UserError(f"'{path}' names an item that the model doesn't have.", "Was another model inspected?")
    return sorted(set(found))
