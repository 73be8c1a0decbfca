"""Random attack: fake users whose profiles are filled with random items (Lam and Riedl, WWW 2004)."""

import numpy as np

from cowbird.attacks.fake_users import FakeUsers
from cowbird.data.types import Int32Array, TrainingData


class RandomProfiles(FakeUsers):
    """Fake users who interact with random items and the targets."""

    def draw_filler(self, data: TrainingData, count: int, rng: np.random.Generator) -> Int32Array:
        """Draw from the whole catalogue."""
        return rng.integers(0, len(data.items), count, dtype=np.int32)
