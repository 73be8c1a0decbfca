"""A scorer that costs nothing, so that a scan's time and memory are those of reading, findings and writing alone."""

from collections.abc import Sequence

import numpy as np

from cowbird.scanning.verdicts import FlaggedSuspicion


class Nothing:
    """A scorer that looks at nothing but a title's end."""

    key = "nothing"

    def scan(self, titles: Sequence[str]) -> FlaggedSuspicion:
        """Flag titles that end in 000."""
        flagged = np.array([title.endswith("000") for title in titles])
        none = np.full(len(titles), -1, dtype=np.int32)
        return FlaggedSuspicion(flagged.astype(np.float32), none, none, flagged)
