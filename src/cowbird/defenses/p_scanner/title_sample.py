"""A sample of a catalogue's titles that depends on nothing but which titles there are.

Those with the smallest hash of their text are kept, so neither the order of the rows nor how often a title stands there
changes the sample, and a seller can't choose to be left out without changing the title itself.
"""

import hashlib
import heapq
from collections.abc import Iterable

from cowbird.text import replace_surrogates

HASHES = 1 << 64
"""How many different hashes of titles there are (`hash_title`)."""
MAX_SAMPLED_LENGTH = 4_000
"""Characters of a title that may be in a sample; longer ones are judged, but say nothing of what is usual."""
MAX_SAMPLED_CHARACTERS = 4_000_000
"""Characters of all titles of a sample: 200 a title, if there are 20,000. It bounds what is learned from them."""


class TitleSample:
    """The different titles with the smallest hashes, in bounded memory.

    Args:
        most: How many are kept at most.
        most_characters: How many characters they have at most.
    """

    def __init__(self, most: int, most_characters: int = MAX_SAMPLED_CHARACTERS) -> None:
        self.most, self.most_characters = most, most_characters
        self.complete = True
        """Whether the sample holds all titles that it was shown."""
        self.bound = HASHES
        """Titles with a hash from here on are left out; it falls when the sample is full."""
        self._kept: dict[str, int] = {}
        self._highest: list[tuple[int, str]] = []
        self._characters = 0

    def __len__(self) -> int:
        return len(self._kept)

    def merge(self, titles: Iterable[str], complete: bool, bound: int) -> None:
        """Take in the sample of a part of the catalogue.

        Args:
            titles: What it kept.
            complete: Whether that is all that it was shown.
            bound: Its bound. What lies above can't be kept here, for the part would have left out what lies below.
        """
        self.add(titles)
        self.complete = self.complete and complete
        self.bound = min(self.bound, bound)
        while self._highest and -self._highest[0][0] >= self.bound:
            self._drop_highest()

    def add(self, titles: Iterable[str]) -> None:
        """Show titles to the sample; empty ones are passed over."""
        kept = self._kept
        for title in titles:
            if not title or title in kept:
                continue
            rank = hash_title(title) if len(title) <= MAX_SAMPLED_LENGTH else self.bound
            if rank >= self.bound:
                self.complete = False
                continue
            self._kept[title] = rank
            heapq.heappush(self._highest, (-rank, title))
            self._characters += len(title)
            while len(self._kept) > self.most or self._characters > self.most_characters:
                self.bound = self._drop_highest()

    def _drop_highest(self) -> int:
        """Leave out the title with the highest hash, and return that."""
        rank, title = heapq.heappop(self._highest)
        del self._kept[title]
        self._characters -= len(title)
        self.complete = False
        return -rank

    @property
    def whole(self) -> bool:
        """Whether no title was left out but those that are too long."""
        return self.bound == HASHES

    def count_titles(self) -> int:
        """Return how many different titles the sample was shown; of more than it keeps, an estimate by their hashes."""
        return len(self) if self.whole else max(len(self), round(len(self) * HASHES / (self.bound + 1)))

    def list_titles(self) -> list[str]:
        """Return the sample, smallest hash first."""
        return sorted(self._kept, key=lambda title: (self._kept[title], title))


def hash_title(title: str) -> int:
    """Return a number of 64 bits that a title's text alone decides."""
    text = replace_surrogates(title).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
