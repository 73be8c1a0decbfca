"""What an attack that knows a defense settles before it plants: searched once in a cell, and kept.

The attacker's copy of the defense is fitted once to the clean catalogue, with a seed that is not the defender's. What
was settled is kept in the cell's folder, so that a killed cell goes on with the very same attack, also where the copy
would not be the same to the bit if it were fitted again.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cowbird.attacks.base import Adaptive, SuspicionScorer
from cowbird.data.types import Float32Array, TrainingData
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.experiments.parts import AttackPart
from cowbird.experiments.spec import Spec
from cowbird.experiments.store import SealedStore, hash_parts
from cowbird.files import read_plain_text, write_text
from cowbird.rng import derive_seed, stream


class AdaptiveAttacks:
    """Tells attacks of the defenses that they know.

    Args:
        spec: The experiment.
        seed: The cell's seed.
        folder: Where what attacks settled is kept.
        warn: Told of damage that was worked around.
    """

    def __init__(self, spec: Spec, seed: int, folder: Path, warn: Callable[[str], None]) -> None:
        self.spec, self.seed = spec, seed
        self._kept = SealedStore(folder, warn, "of another catalogue", "Searching again.")
        self.seconds: dict[str, float] = {}
        """How long each search took, the fit of the attacker's copy included."""
        self._copies: dict[str, SuspicionScorer] = {}

    def settle(self, attack: AttackPart, training: TrainingData) -> AttackPart:
        """Return an attack as it will be planted: what an adaptive one leaves open is settled, others are as they are.

        Args:
            attack: An attack of the spec.
            training: Clean training data.

        Raises:
            UserError: If the attack does not fit the data, or the copy of the defense can't be made.
        """
        if not isinstance(attack.options, Adaptive):
            return attack
        options = attack.options
        label, origin = attack.title(), hash_parts(options.model_dump_json(), training.items.titles)

        def search() -> Adaptive:
            began = time.perf_counter()
            suspect = self._copy_defense(options.knows, training.items.titles)
            found = options.settle(training, suspect, stream(self.seed, "attack"))
            self.seconds[f"{label}@search"] = round(time.perf_counter() - began, 2)
            return found

        found = self._kept.make(
            f"{label}.json",
            origin,
            lambda path: type(options).model_validate_json(read_plain_text(path)),
            search,
            lambda path, settled: write_text(path, settled.model_dump_json(indent=1)),
        )
        return attack.model_copy(update={"options": found})

    def _copy_defense(self, label: str, titles: Sequence[str]) -> SuspicionScorer:
        """Return the attacker's copy of a defense, made once."""
        if label not in self._copies:
            (defense,) = (part.options for part in self.spec.defenses if part.title() == label)
            assert isinstance(defense, TitleDefense)
            self._copies[label] = _make_suspect(
                defense.make_adversary_copy(titles, derive_seed(self.seed, "adversary", label))
            )
        return self._copies[label]


def _make_suspect(judge: Callable[[Sequence[str]], Suspicion]) -> SuspicionScorer:
    def suspect(titles: Sequence[str]) -> Float32Array:
        return judge(titles).score

    return suspect
