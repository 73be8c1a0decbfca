"""Bandwagon attack: fake users whose profiles hold popular items (Burke et al., 2005; O'Mahony et al., 2005).

Popular items tie the fake users to many real ones, so that the targets appear among what many people like.
"""

import numpy as np
from pydantic import Field

from cowbird.attacks.fake_users import FakeUsers
from cowbird.data.types import Int32Array, TrainingData


class Bandwagon(FakeUsers):
    """Fake users who interact with popular items, some random ones, and the targets."""

    popular: float = Field(default=0.05, gt=0, le=1)
    """Share of the catalogue that counts as popular, most interactions first, rounded up."""
    popular_share: float = Field(default=0.5, ge=0, le=1)
    """Probability that a filler item is a popular one; the others are random."""

    def draw_filler(self, data: TrainingData, count: int, rng: np.random.Generator) -> Int32Array:
        """Draw popular and random items."""
        events = np.bincount(data.interactions.item, minlength=len(data.items))
        ranked = np.argsort(-events, kind="stable")[: int(np.ceil(self.popular * len(data.items)))]
        random = rng.integers(0, len(data.items), count)
        return np.where(rng.random(count) < self.popular_share, rng.choice(ranked, count), random).astype(np.int32)
