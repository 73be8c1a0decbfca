"""Tidy rows: one measurement a row, with its interval and what it rests on.

Rows without a seed are about all seeds: either their users taken together, or (`…_over_seeds`) the mean of the seeds'
values with a t interval.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cowbird.errors import UserError
from cowbird.experiments.measures import MEASURES, OVER_SEEDS, Measure
from cowbird.files import read_plain_text, write_text
from cowbird.metrics.intervals import Interval, measure_spread

NO_K = 0
"""The cut-off of measurements that have none."""


class Row(BaseModel):
    """One measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiment: str
    """Name of the experiment."""
    dataset: str
    """Name of the dataset."""
    victim: str
    """Label of the victim."""
    attack: str
    """Label of the attack; `none` for the clean model's accuracy over all users, and for what a defense flags in the
    clean catalogue."""
    defense: str
    """Label of the defense."""
    scenario: str
    """Label of the scenario; `none` for what a defense flags, which comes before any."""
    group: str
    """Whose measurement: `target` users, `other` users, or `all`. Of victims that answer questions: `all` of them, or
    the kind of trigger in a title: `trigger` is the attack's own, `unseen` the same on items that training never met,
    `near-…` others, `none` no trigger."""
    metric: str
    """What was measured: the name of a measure (`cowbird.experiments.measures`)."""
    k: int
    """Cut-off."""
    seed: int | None
    """Seed, or `None` for all seeds together."""
    value: float | None
    """The measurement; `None` if there was nothing to measure."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end of the 95 % interval; `None` if there is none (a lower bound)."""
    n: int
    """How much it rests on: users, (user, target) pairs for exposures, questions, or seeds."""


class RowLabels(BaseModel):
    """The part of a row that one piece of evidence shares."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    dataset: str
    victim: str
    attack: str
    defense: str
    scenario: str
    seed: int | None

    def make_row(self, group: str, measure: Measure, found: Interval, k: int = NO_K) -> Row:
        """Make one row.

        Args:
            group: Whose measurement it is.
            measure: What was measured.
            found: What was found.
            k: The cut-off.
        """
        value, low, high, n = found.value, found.low, found.high, found.n
        return Row(**self.model_dump(), group=group, metric=measure.name, k=k, value=value, low=low, high=high, n=n)


def summarize_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return the spread over seeds of every measurement that has two seeds or more.

    The t interval of a share, such as an ASR of 0.99, is cut off at 0 and 1.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.value is not None and row.seed is not None:
            key = (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k)
            groups.setdefault(key, []).append(row)
    found: list[Row] = []
    for members in groups.values():
        if len(members) > 1:
            found_spread = measure_spread([row.value for row in members if row.value is not None])
            measure = MEASURES[members[0].metric]
            low, high = measure.clip_interval(found_spread.low, found_spread.high)
            found.append(
                members[0].model_copy(
                    update={
                        "seed": None,
                        "metric": measure[OVER_SEEDS].name,
                        "value": found_spread.value,
                        "low": low,
                        "high": high,
                        "n": len(members),
                    }
                )
            )
    return found


def drop_duplicates(rows: Iterable[Row]) -> list[Row]:
    """Drop the repeated rows of the clean model (each attack of a group brings them), keeping the first."""
    kept: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.victim, row.attack, row.defense, row.scenario, row.group, row.metric, row.k, row.seed)
        kept.setdefault(key, row)
    return list(kept.values())


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically."""
    # The fields are plain values, in their order, so nothing is to be dumped first.
    write_text(path, "".join([json.dumps(row.__dict__) + "\n" for row in rows]))


def read_results(path: Path) -> list[Row]:
    """Read what `write_results` wrote.

    Raises:
        UserError: If the file is missing or a line is not a row; says which.
    """
    try:
        lines = read_plain_text(path, None).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' can't be read: {error}.", "Give a results.jsonl.") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValueError:
            raise UserError(f"Line {number} of '{path}' is not a result row.", "Was the file edited?") from None
    return rows


def to_csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV (labels are checked by the spec, so no cell can start a formula)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row.model_dump())
    return text.getvalue()
