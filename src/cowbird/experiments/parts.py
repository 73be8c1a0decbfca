"""The plug-ins of a spec, each under the label that result rows know it by."""

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from cowbird.attacks.base import Attack
from cowbird.data.sources.base import Source
from cowbird.defenses.base import Defense
from cowbird.experiments.scenarios import LABEL_PATTERN, MAX_LABEL_LENGTH
from cowbird.victims.base import Victim


class SpecPart(BaseModel):
    """One plug-in of a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """The plug-in's name; or a dotted path, which needs `--allow-plugins`."""
    label: str = Field(default="", pattern=LABEL_PATTERN + "|^$", max_length=MAX_LABEL_LENGTH)
    """Name in result rows; the plug-in's own if empty. Two of a kind need different labels."""

    def title(self) -> str:
        """Return the name used in result rows."""
        return self.label or self.name


class DatasetPart(SpecPart):
    """The dataset."""

    options: SerializeAsAny[Source]


class VictimPart(SpecPart):
    """One victim."""

    options: SerializeAsAny[Victim]


class AttackPart(SpecPart):
    """One attack."""

    options: SerializeAsAny[Attack]


class DefensePart(SpecPart):
    """One defense."""

    options: SerializeAsAny[Defense]
