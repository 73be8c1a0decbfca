"""Shapes that many more titles have than titles from before had: evidence on triggers that differ from title to title.

Of each shape (`word_shapes`) and each way to write a known word otherwise (`spelling`) it is known how many titles of a
reference have it, and how many of those that are judged together. If far more have it than the reference lets expect,
most of them have it for another reason than titles had before. A share may have jumped by chance. So what the reference
lets expect is the highest number that chance explains (`bound_expected`), and a shape's log-odds compare the titles
above that number with it. The highest ones of a title's shapes are added to its score (`ShapeDrift.weigh`). A trigger
has several shapes, and honest titles share some of them. So a shape is judged by the titles alone that have no stronger
one (`find_drift`).

A catalogue changes honestly, too: a new season, another mix of languages. Then many shapes drift, and not a few. How
much shapes spread around what is expected, over what chance explains, widens the bound (`measure_spread`), as genomic
control does (Devlin and Roeder 1999, Biometrics 55).

Titles that calibrate a scan are compared with others of the reference in the same way, so thresholds know what chance
adds. Without a reference nothing is expected, and nothing added.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array, concat_ranges
from cowbird.defenses.p_scanner.spelling import SPELLINGS
from cowbird.defenses.p_scanner.title_evidence import CatalogProfile
from cowbird.defenses.p_scanner.title_sample import hash_title
from cowbird.defenses.p_scanner.title_spelling import find_spellings
from cowbird.defenses.p_scanner.title_traits import TitleTraits
from cowbird.defenses.p_scanner.title_words import NumberedSets, reduce_runs

CHANCE = 4.0
"""Square of the normal quantile that bounds what chance explains; one shape in 44 passes it, and few by so much that
its log-odds count."""
SPREAD_POWER = 2
"""To which power the spread of all shapes widens that square."""
MIN_EXPECTED, MIN_SHAPES_COMPARED = 5.0, 20
"""Titles that are expected with a shape from which it tells of the spread; such shapes from which there is one."""
USUAL_SPREAD = 0.4549
"""Median of the square of a standard normal number."""
LEAST_ODDS, MAX_ODDS = -1.0, 2.0
"""Log-odds from which a jump counts, and where they are cut."""
JUMP_WEIGHT = 5.0
"""How much of a shape's log-odds above the least is added to a title's score."""
MAX_JUMPS = 64
"""Shapes that may jump; of more, the strongest ones."""
MAX_SHARE_JUMPED = 0.5
"""Share of the titles above which a shape tells of another catalogue, and not of a trigger."""
SPELLING = "spelling"
"""The kind of shapes that are ways to write a known word otherwise."""


class ShapeJump(NamedTuple):
    """A shape that far more titles have than is expected."""

    added: float
    """What it adds to a title's score."""
    seen: int
    """Titles that have it, of those that are judged together."""
    before: int
    """Titles of the reference that have it."""


class WeighedShapes(NamedTuple):
    """What their shapes add to the score of titles, each array of the shape `[titles]`."""

    added: Float32Array
    """What is added."""
    shape: Int64Array
    """The shape that adds most, a place in `ShapeDrift.jumps`; -1 for none."""


@dataclass(frozen=True, eq=False)
class ShapeDrift:
    """Shapes whose share has jumped."""

    jumps: Mapping[str, ShapeJump] = field(default_factory=dict[str, ShapeJump])
    """They, by name, the strongest first."""
    titles: int = 0
    """Titles that were judged together."""
    reference: int = 0
    """Titles of the reference."""

    def weigh(self, traits: TitleTraits, rows: Int64Array, profile: CatalogProfile) -> WeighedShapes:
        """Return what their shapes add to the score of titles.

        Args:
            traits: Titles, among them those that are scored.
            rows: Which are scored.
            profile: What is usual in the reference.
        """
        sets, none = traits.shapes, len(self.jumps)
        if not none:
            return WeighedShapes(np.zeros(len(rows), dtype=np.float32), np.full(len(rows), -1, dtype=np.int64))
        place = {name: nth for nth, name in enumerate(self.jumps)}
        of_shape = np.array([place.get(name, none) for name in sets.names], dtype=np.int64)
        number, sizes = _take_shapes(sets, rows)
        strongest = reduce_runs(np.minimum.reduceat, of_shape[number], np.cumsum(sizes) - sizes, sizes, none)
        of_way = np.array([place.get(name, none) for name in name_spellings()], dtype=np.int64)
        if of_way.min() < none:
            met = find_spellings(traits.words.cut, rows, profile.words, profile.spelling, 0)
            strongest = np.minimum(strongest, np.where(met, of_way, none).min(axis=1))
        worth = np.array([*(jump.added for jump in self.jumps.values()), 0.0], dtype=np.float32)
        return WeighedShapes(worth[strongest], np.where(strongest < none, strongest, -1))


NO_DRIFT = ShapeDrift()
"""Nothing has jumped, or nothing is known from before."""


def name_spellings() -> list[str]:
    """Return the names of ways to write a known word otherwise, as shapes."""
    return [f"{SPELLING}\t{way}" for way in SPELLINGS]


def find_drift(traits: TitleTraits, rows: Int64Array, profile: CatalogProfile, known: Int64Array) -> ShapeDrift:
    """Find the shapes that far more titles have than is expected.

    Args:
        traits: Titles, among them those that are judged together.
        rows: Which are.
        profile: What is usual in the reference.
        known: In how many titles of the reference each of the titles' shapes stands, shape `[traits.shapes.names]`.
    """
    if not len(rows) or not profile.size:
        return NO_DRIFT
    names, (number, sizes) = traits.shapes.names, _take_shapes(traits.shapes, rows)
    owner = np.repeat(np.arange(len(rows)), sizes)
    met, way = np.nonzero(find_spellings(traits.words.cut, rows, profile.words, profile.spelling, 0))
    owner, number = np.concatenate([owner, met]), np.concatenate([number, len(names) + way])
    names, known = [*names, *name_spellings()], np.concatenate([known, profile.spellings])
    seen = np.bincount(number, minlength=len(names))
    spread = measure_spread(seen, len(rows), known, profile.size)
    expected = bound_expected(len(rows), known, profile.size, spread)
    jumps: dict[str, ShapeJump] = {}
    left = seen
    while len(jumps) < MAX_JUMPS:
        added = np.where(seen <= MAX_SHARE_JUMPED * len(rows), weigh_jumps(left, expected), 0)
        if not added.any():
            break
        worst = int(added.argmax())
        jumps[names[worst]] = ShapeJump(float(added[worst]), int(seen[worst]), int(known[worst]))
        explained = np.zeros(len(rows), dtype=np.bool_)
        explained[owner[number == worst]] = True
        others = ~explained[owner]
        owner, number = owner[others], number[others]
        left = np.bincount(number, minlength=len(names))
    return ShapeDrift(jumps, len(rows), profile.size)


def count_shapes(sets: NumberedSets, rows: Int64Array) -> Int64Array:
    """Return in how many of some titles each shape stands, shape `[sets.names]`."""
    return np.bincount(_take_shapes(sets, rows)[0], minlength=len(sets.names))


def count_known_shapes(sets: NumberedSets, counts: Mapping[int, int]) -> Int64Array:
    """Return in how many titles of a reference each shape stands, shape `[sets.names]`.

    Args:
        sets: Shapes of other titles.
        counts: The reference's, by `hash_title` of their names.
    """
    found = (counts.get(hash_title(name), 0) for name in sets.names)
    return np.fromiter(found, np.int64, len(sets.names))


def _take_shapes(sets: NumberedSets, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the shapes of some titles, one title behind another, and how many each has."""
    sizes = sets.offsets[rows + 1] - sets.offsets[rows]
    return sets.number[concat_ranges(sets.offsets[rows], sizes)], sizes


def weigh_jumps(seen: Int64Array, expected: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what each shape adds to the score of a title that has it; 0 for one that has not jumped.

    Args:
        seen: How many titles have it that no stronger jump explains.
        expected: How many have it at most by chance.
    """
    above = np.maximum(seen - expected, 0)
    with np.errstate(divide="ignore"):
        odds = np.clip(np.log(above / expected), LEAST_ODDS, MAX_ODDS) - LEAST_ODDS
    return JUMP_WEIGHT * odds


def bound_expected(titles: int, known: Int64Array, reference: int, spread: float) -> NDArray[np.floating]:
    """Return how many titles have each shape at most, if only chance makes their share another than the reference's.

    The count that differs from the reference's by so many standard errors of the difference of both, as Wilson's
    interval (1927) takes them at the bound itself; the reference has half a title more.

    Args:
        titles: How many there are.
        known: How many of the reference have each shape.
        reference: How many titles that has.
        spread: How much shapes spread beside what chance explains.
    """
    chance, ratio = CHANCE * spread**SPREAD_POWER, titles / reference
    expected = (known + 0.5) * ratio
    return expected + chance / 2 + np.sqrt(chance * (expected * (1 + ratio) + chance / 4))


def measure_spread(seen: Int64Array, titles: int, known: Int64Array, reference: int) -> float:
    """Return how much shapes spread around what is expected, as a multiple of what chance explains; 1 at least."""
    expected = known / reference * titles
    often = expected >= MIN_EXPECTED
    if often.sum() < MIN_SHAPES_COMPARED:
        return 1.0
    squares = (seen[often] - expected[often]) ** 2 / (expected[often] * (1 + titles / reference))
    return max(1.0, float(np.median(squares)) / USUAL_SPREAD)
