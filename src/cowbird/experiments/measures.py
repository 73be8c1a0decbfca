"""What result rows measure: each measure is declared once, with its name, unit, title and meaning.

What ships is declared in `cowbird.experiments.shipped_measures`; a task of somebody else declares its own at the top of
its file. Everything else follows from the declaration: how a value is printed, what a table's column is called, and
which bounds an interval over seeds has. `MEASURES` holds all that are declared;
`cowbird.experiments.tasks.list_measures` imports every task first.

A family, such as `auc`, `auc_clean` and `auc_lost`, is one declaration with variants:

    AUC = declare_measure("auc", "share", "AUC", "Area under the ROC curve.", CLEAN, LOST)
    AUC.name, AUC[CLEAN].name, AUC[LOST].unit  # "auc", "auc_clean", "difference"
"""

from dataclasses import dataclass, replace
from typing import Literal

Unit = Literal["share", "difference", "ratio", "relative change", "count"]
"""What a value is: a share lies between 0 and 1, a difference is of two shares, a ratio is of two values, a relative
change is a ratio less 1, a count is a whole number."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How one measure follows from another."""

    suffix: str
    """What its name has after the other's."""
    title: str
    """Its title, with `{}` for the other's."""
    doc: str
    """Its meaning, with `{}` for the other's."""
    unit: Unit | None = None
    """Its unit; `None` if it is the other's."""


CLEAN = Variant("_clean", "{}, clean", "{} Of the clean model.")
CHANGE = Variant(
    "_change", "{} change", "{} Relative change of the attacked model against the clean one.", "relative change"
)
DIFFERENCE = Variant("_difference", "{} difference", "{} Attacked less clean model.", "difference")
EXCESS = Variant(
    "_excess", "{} left", "{} Attacked and defended model, less the clean model without a defense.", "difference"
)
LOST = Variant(
    "_lost", "{} lost", "{} Clean model without a defense, less the attacked and defended one.", "difference"
)
LOWER_BOUND = Variant(
    "_lower_bound", "{}, at least", "{} A lower bound: the denominator was zero, and its upper 95 % limit stands in."
)
OVER_SEEDS = Variant("_over_seeds", "{}, over seeds", "{} Mean over seeds, with a t interval.")
"""Every measure has this variant."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a row measures."""

    name: str
    """The row's `metric`."""
    unit: Unit
    """What its value is."""
    title: str
    """What a table's column is called."""
    doc: str
    """What it means, in whole sentences."""
    digits: int = 3
    """Decimals of a share or a difference."""
    variants: tuple[Variant, ...] = ()
    """The measures that are declared with it."""
    lower_bound: bool = False
    """Whether the value is merely a lower bound."""
    over_seeds: bool = False
    """Whether it is a mean over seeds."""

    def __getitem__(self, variant: Variant | None) -> "Measure":
        """Return a variant of the measure; for `None` the measure itself.

        Raises:
            KeyError: If it was not declared.
        """
        return self if variant is None else MEASURES[self.name + variant.suffix]

    def clip_interval(self, low: float | None, high: float | None) -> tuple[float | None, float | None]:
        """Return the ends of an interval within the bounds of the unit: those of a share are 0 and 1."""
        if low is None or high is None or self.unit != "share":
            return low, high
        return max(low, 0.0), min(high, 1.0)

    def format_value(self, value: float) -> str:
        """Return a value as a table shows it."""
        match self.unit:
            case "relative change":
                return f"{value:+.1%}"
            case "count":
                return f"{value:,.1f}".removesuffix(".0")
            case "ratio":
                return f"{'≥' * self.lower_bound}{value:.{0 if value >= 100 else 1}f}×"
            case "difference":
                return f"{value:+.{self.digits}f}"
            case "share":
                return f"{value:.{self.digits}f}"


@dataclass(frozen=True)
class TaskSummary:
    """What the table at the end of a run shows."""

    accuracy: tuple[Measure, ...]
    """What is measured without an attack in mind, clean → attacked model. The first tells whose rows are the task's."""
    attack: tuple[Measure, ...]
    """What the attack is measured by: a line for each group that has a row of one of them."""
    groups: tuple[str, ...]
    """Groups that tell what a defense left of the attack; of these the first that there is."""
    note: str
    """What is to be known about the table, in whole sentences."""
    lift: tuple[Measure, ...] = ()
    """The attack's measure over the clean model's, if the table shows that."""
    change: Measure | None = None
    """Relative change of an accuracy, if the table shows that."""
    by_cutoff: bool = False
    """Whether its measures have a cut-off."""


MEASURES: dict[str, Measure] = {}
"""All measures that were declared, by name, in the order of their declaration."""


def declare_measure(name: str, unit: Unit, title: str, doc: str, *variants: Variant, digits: int = 3) -> Measure:
    """Declare a measure and its variants, each of them also over seeds.

    Args:
        name: The `metric` of its rows.
        unit: What its value is.
        title: What a table's column is called.
        doc: What it means, in whole sentences.
        variants: Which other measures follow from it.
        digits: Decimals of a share or a difference.

    Raises:
        ValueError: If another measure has a name that this one or a variant would have.
    """
    measure = Measure(name, unit, title, doc, digits, (*variants, OVER_SEEDS))
    family = [measure, *(_derive(measure, variant) for variant in variants)]
    for one in [*family, *(_derive(one, OVER_SEEDS) for one in family)]:
        if MEASURES.setdefault(one.name, one) != one:
            raise ValueError(f"two measures are called {one.name!r}")
    return measure


def _derive(measure: Measure, variant: Variant) -> Measure:
    return replace(
        measure,
        name=measure.name + variant.suffix,
        unit=variant.unit or measure.unit,
        title=variant.title.format(measure.title),
        doc=variant.doc.format(measure.doc),
        variants=(OVER_SEEDS,),
        lower_bound=measure.lower_bound or variant is LOWER_BOUND,
        over_seeds=variant is OVER_SEEDS,
    )


def find_measure(name: str) -> Measure | None:
    """Return the measure of a row's `metric`; `None` if nothing that was imported declares it."""
    return MEASURES.get(name)
