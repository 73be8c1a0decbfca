"""What came of the inspection of a ranking model: the verdict in words, and the items that stand out."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cowbird.errors import ExitCode
from cowbird.storage import write_sealed_json

SCHEMA_VERSION = 2
"""Version of the JSON file."""


@dataclass(frozen=True)
class RankedItem:
    """An item of the ranking."""

    rank: int
    """1 is the most suspicious."""
    item: int
    """Its number in the model."""
    id: str
    """Its id; its number, if no ids are known."""
    title: str
    """Its title, as the logs have it: anybody's text."""
    suspect: bool
    """Whether it stands out farther than honest models' items do at the level."""
    score: float
    """Sum of the scores on all kinds of histories, in standard deviations."""
    scores: dict[str, float]
    """Score on each kind of histories."""
    shown: dict[str, int]
    """Times it was among the first ten, by kind of histories."""
    expected: dict[str, float]
    """Times that null models show it on average."""
    stands: dict[str, float]
    """Its usual rank, by kind of histories: the geometric mean."""
    stands_expected: dict[str, float]
    """Its usual rank in null models."""


@dataclass(frozen=True)
class Inspection:
    """What came of an inspection."""

    model: str
    """What the model is, in words."""
    sha256: str
    """SHA-256 of its file."""
    items: int
    """Size of its catalogue."""
    logs_sha256: str
    """SHA-256 of the logs; empty if none were given."""
    level: float
    """Share of honest models that may be accused."""
    statistic: float
    """The largest score of an item."""
    p_value: float | None
    """How often an honest model would show one as large; `None` without logs."""
    null_statistics: list[float]
    """The statistics of the null models."""
    threshold: float | None
    """Score from which an item is a suspect; `None` without logs."""
    ranking: list[RankedItem]
    """Items, most suspicious first."""
    checked: dict[str, str]
    """What was asked, by kind of histories, in words."""
    alone: dict[str, dict[str, Any]]
    """Of each kind of histories and each statistic beside them: the largest score of an item, and the null models'."""
    not_checked: list[str]
    """What was not looked for."""
    assumptions: list[str]
    """What the p-value rests on."""
    settings: dict[str, Any]
    """The settings, and the null models' shape."""

    @property
    def suspects(self) -> list[RankedItem]:
        """The items that stand out."""
        return [item for item in self.ranking if item.suspect]

    def write_verdict(self) -> str:
        """Return the verdict in words."""
        asked = ", ".join(self.checked)
        if self.p_value is None:
            return (
                f"No verdict: without logs there is nothing to hold the model against. The items below are shown most "
                f"often after histories that nobody has ({asked})."
            )
        p = format_p_value(self.p_value)
        if self.p_value <= self.level:
            count = len(self.suspects)
            items = "1 item stands" if count == 1 else f"{count} items stand"
            return (
                f"{items} out. An honest model lifts an item so far beyond the platform's own habits with {p}, if the "
                f"assumptions hold. A planted item is one explanation; data that is unlike your logs is another."
            )
        return (
            f"Nothing stands out at the level {self.level:g} ({p}) on these histories: {asked}. A backdoor that they "
            f"don't show is not ruled out."
        )

    def choose_exit_code(self) -> ExitCode:
        """Return what a process should end with: suspects, none, or nothing to hold the model against."""
        if self.p_value is None:
            return ExitCode.INCOMPLETE
        return ExitCode.FINDINGS if self.p_value <= self.level else ExitCode.CLEAN

    def to_record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema_version": SCHEMA_VERSION, "verdict": self.write_verdict(), **dataclasses.asdict(self)}

    def write(self, path: Path) -> None:
        """Write the JSON file, sealed and atomically."""
        write_sealed_json(path, self.to_record())


def format_p_value(p: float) -> str:
    """Return a p-value as it is printed, such as `p = 0.03`."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
