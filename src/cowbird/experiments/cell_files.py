"""What the files of a cell are called, and the part of its record that says what was planted."""

from pydantic import BaseModel, ConfigDict

EVIDENCE_FOLDER = "evidence"
"""Where a cell keeps what was measured: a file for each attack, defense and scenario."""


class PlantedSummary(BaseModel):
    """What one attack planted in one cell."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    sha256: str
    """Hash of the plan, whose file is `plans/ATTACK.json`."""
    rows: int
    """Poisoned rows."""
    budget: int
    """How many rows the attack was allowed."""
    share_of_labels: float
    """Poisoned rows over all labels of the training data."""
    targets: tuple[str, ...]
    """Ids of the target items."""
    target_titles: tuple[str, ...]
    """Their titles, as the source writes them (untrusted text)."""


def name_evidence(attack: str, defense: str, scenario: str) -> str:
    """Return the name of the file that holds what was measured in a place."""
    return f"{attack}+{defense}+{scenario}"


def name_detections(attack: str, defense: str) -> str:
    """Return the name of the file that holds what a defense flags."""
    return f"{attack}+{defense}@titles"
