"""What an attack that knows a defense settles before it plants: searched once in a cell, and kept.

The attacker's copy of the defense is fitted once to the clean catalogue, with a seed that is not the defender's. What
was settled is kept in the cell's folder, so that a killed cell goes on with the very same attack, also where the copy
would not be the same to the bit if it were fitted again.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cowbird.attacks.base import Adaptive, SuspicionScorer
from cowbird.data.types import Float32Array, TrainingData
from cowbird.defenses.titles import Suspicion, TitleDefense
from cowbird.experiments.spec import AttackPart, Spec
from cowbird.files import hash_texts, write_text
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
        self.spec, self.seed, self.folder, self.warn = spec, seed, folder, warn
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
        path = self.folder / f"{attack.title()}.json"
        found = self._read_settled(path, attack.options, training)
        if found is None:
            began = time.perf_counter()
            suspect = self._copy_defense(attack.options.knows, training.items.titles)
            found = attack.options.settle(training, suspect, stream(self.seed, "attack"))
            told = {"settled": found.model_dump(mode="json"), "sha256": _hash_search(attack.options, found, training)}
            write_text(path, json.dumps(told, indent=1))
            self.seconds[f"{attack.title()}@search"] = round(time.perf_counter() - began, 2)
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

    def _read_settled(self, path: Path, attack: Adaptive, training: TrainingData) -> Adaptive | None:
        if not path.exists():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found = type(attack).model_validate(told["settled"])
            if told["sha256"] == _hash_search(attack, found, training):
                return found
            self.warn(f"'{path}' is damaged or of another catalogue. Searching again.")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            self.warn(f"'{path}' is damaged: {reason}. Searching again.")
        return None


def _make_suspect(judge: Callable[[Sequence[str]], Suspicion]) -> SuspicionScorer:
    def suspect(titles: Sequence[str]) -> Float32Array:
        return judge(titles).score

    return suspect


def _hash_search(attack: Adaptive, found: Adaptive, training: TrainingData) -> str:
    """Return the hash of an attack, what it settled, and the catalogue it did that for."""
    return hash_texts([attack.model_dump_json(), found.model_dump_json(), *training.items.titles])
