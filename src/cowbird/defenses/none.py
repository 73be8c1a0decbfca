"""No defense: the row that every other defense is compared with."""

from cowbird.defenses.base import Defense


class NoDefense(Defense):
    """Leaves data and model as they are: the row other defenses are compared with."""
