"""A sample of a catalogue's titles that depends on nothing but which titles there are.

Those with the smallest hash of their text are kept, so neither the order of the rows nor how often a title stands there
changes the sample, and a seller can't choose to be left out without changing the title itself.
"""

import hashlib
import heapq
from collections.abc import Iterable

from cowbird.text import replace_surrogates

MAX_SAMPLED_LENGTH = 4_000
"""Characters of a title that may be in a sample; longer ones are judged, but say nothing of what is usual."""


class TitleSample:
    """The different titles with the smallest hashes, in bounded memory.

    Args:
        most: How many are kept at most.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.complete = True
        """Whether the sample holds all titles that it was shown."""
        self._kept: dict[str, int] = {}
        self._highest: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def highest(self) -> int | None:
        """The hash above which a title is not kept; `None` while there is room."""
        return -self._highest[0][0] if self._kept and len(self._kept) == self.most else None

    def merge(self, titles: Iterable[str], complete: bool) -> None:
        """Take in the sample of a part of the catalogue.

        Args:
            titles: What it kept.
            complete: Whether that is all that it was shown.
        """
        self.add(titles)
        self.complete = self.complete and complete

    def add(self, titles: Iterable[str]) -> None:
        """Show titles to the sample; empty ones are passed over."""
        for title in titles:
            if not title or title in self._kept:
                continue
            if len(title) > MAX_SAMPLED_LENGTH:
                self.complete = False
                continue
            rank = hash_title(title)
            if len(self._kept) < self.most:
                self._kept[title] = rank
                heapq.heappush(self._highest, (-rank, title))
                continue
            self.complete = False
            if rank < -self._highest[0][0]:
                _, out = heapq.heapreplace(self._highest, (-rank, title))
                del self._kept[out]
                self._kept[title] = rank

    def list_titles(self) -> list[str]:
        """Return the sample, smallest hash first."""
        return sorted(self._kept, key=lambda title: (self._kept[title], title))


def hash_title(title: str) -> int:
    """Return a number of 64 bits that a title's text alone decides."""
    text = replace_surrogates(title).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
