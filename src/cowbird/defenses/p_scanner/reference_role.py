"""What a reference can say of a catalogue, by the sizes of both.

Titles that are judged together share fragments, and score otherwise than single ones. How clean titles score so, and
how that changes with the size of a batch, shows in halves of the reference and in quarters of it. It is extrapolated to
a batch as large as the reference, and holds about for one twice as large. Beside a larger catalogue, or where quarters
are no batches, thresholds from the reference are wrong in both directions: so the catalogue's own titles set them.

A reference of which not even halves are batches tells next to nothing of what is new. Of a fragment that a dozen titles
in 800 share, one is expected in a reference of 60, and none is no surprise. So the catalogue is judged as without a
reference, and the few titles are counted among its own.
"""

from enum import Enum

from cowbird.defenses.p_scanner.inventory import MIN_BATCH_TITLES

MIN_TITLES_HALVED, MIN_TITLES_QUARTERED = 2 * MIN_BATCH_TITLES, 4 * MIN_BATCH_TITLES
"""Titles from which halves of a reference are batches, and quarters."""
MAX_TIMES_LARGER = 2
"""How many times as large as its reference a catalogue may be, for the reference to set thresholds."""


class ReferenceRole(Enum):
    """What a reference does for a catalogue."""

    SETS_THRESHOLDS = "sets thresholds"
    """It says what is usual and what is new, and sets thresholds."""
    SAYS_WHAT_IS_NEW = "says what is new"
    """It says what is usual and what is new; the catalogue's own titles set thresholds."""
    TOO_SMALL = "too small"
    """It says neither, or there is none: the catalogue is judged as without a reference."""


def choose_role(reference: int, together: int) -> ReferenceRole:
    """Return what so many titles of a reference do for so many that are judged together.

    Args:
        reference: Titles of the reference, 0 for none.
        together: Titles of the catalogue; of fewer than `MIN_BATCH_TITLES` each is judged by itself.
    """
    if reference and (together <= reference or together < MIN_BATCH_TITLES):
        return ReferenceRole.SETS_THRESHOLDS
    if reference < MIN_TITLES_HALVED:
        return ReferenceRole.TOO_SMALL
    if reference < count_reference_needed(together):
        return ReferenceRole.SAYS_WHAT_IS_NEW
    return ReferenceRole.SETS_THRESHOLDS


def count_reference_needed(together: int) -> int:
    """Return of how many titles a reference sets thresholds for so many that are judged together."""
    return min(together, max(MIN_TITLES_QUARTERED, -(-together // MAX_TIMES_LARGER)))
