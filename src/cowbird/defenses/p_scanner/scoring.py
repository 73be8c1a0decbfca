"""Log-odds from evidence: three small networks, learned once on triggers planted in catalogues of several kinds.

One says of a title's own features (`title_evidence`) how likely a trigger is, one of a recurring fragment's features
(`fragment_evidence`), and one joins both for a title: its own log-odds, those of its most suspicious fragment, and how
often that stands in the catalogue. They have a few thousand weights, which travel with the package, and know of no
catalogue: all numbers that they are given are shares, ranks and log-odds. `scoring_training` learns them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.fragment_evidence import FRAGMENT_FEATURES, FragmentEvidence
from cowbird.defenses.p_scanner.title_evidence import LEARNED_FEATURES
from cowbird.errors import UserError
from cowbird.files import hash_file
from cowbird.storage import read_tensors, write_tensors

READY_SCORING = Path(__file__).parent / "ready_tagger" / "scoring.safetensors"
"""The weights that come with the package."""
READY_SMALL_SCORING = Path(__file__).parent / "ready_small_tagger" / "scoring.safetensors"
"""The same, learned from marks of small taggers."""
READY_SMALL_SCORING_SHA256 = "fbd96b5d22c7506061ec866a36b51bdee65a134648a76c08e59c193a1a8adedb"
READY_SCORING_SHA256 = "fad659c2ec8acde7185644471c8d379dc1082144b990f0093c49dab6034ff634"
SCORING_VERSION = "1"
JOINED_FEATURES = (
    "log-odds of the title",
    "log-odds of its worst fragment",
    "count of that",
    "share of that",
    "growth of that",
    "whether a reference is known",
    "whether there is one",
    "the higher of both log-odds",
)
"""What the last network is given."""
MAX_LOG_ODDS, NO_FRAGMENT = 12.0, -12.0
SUSPECTED_LOG_ODDS, MAX_SHARE_SUSPECTED = 0.0, 0.5
"""Titles with a fragment above these log-odds do not say what is usual in their catalogue, up to this share of them."""
LEAST_FRAGMENT, FRAGMENT_WEIGHT, FRAGMENT_WEIGHT_BESIDE = -6.0, 0.5, 0.2
"""How much of a fragment's log-odds is added to what the last network says: all above the first number, so weighed
without a reference and beside one. That network learned from single titles and shares alike, with a reference and
without, and weighs a fragment too low, above all where nothing tells what is new."""
TRICK_LOG_ODDS = 8.0
"""What is added to the score of a title with a character that nobody sees (`title_evidence.find_tricks`). The networks
learned from catalogues of some 1,500 titles: in one of 300 nothing is rare enough for them, and they take a hidden
character for less suspicious than two words that meet by chance."""
LEAST_RARITY, RARE_WEIGHTS = 4.6, (1.5, 0.5)
"""From which rarity on `RARE_FEATURES` are evidence (4.6 stands for one title in 100), and how much of what is above is
added to a title's score, for spelling and for capitals."""
_LAYERS = 3


@dataclass(frozen=True, eq=False)
class SmallNetwork:
    """A network with two hidden layers."""

    mean: Float32Array
    """Of each feature, shape `[features]`."""
    scale: Float32Array
    """Standard deviation of each."""
    weights: tuple[Float32Array, ...]
    """Of each layer, shape `[out, in]`."""
    biases: tuple[Float32Array, ...]
    """Of each layer, shape `[out]`."""

    def score(self, features: Float32Array) -> Float32Array:
        """Return log-odds, shape `[rows]`. In float64, so that rows beside a row do not change its last digits."""
        values = (features.astype(np.float64) - self.mean) / self.scale
        for nth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = values @ weight.T + bias
            if nth + 1 < len(self.weights):
                values = values / (1 + np.exp(-np.clip(values, -60, 60)))
        return values[:, 0].astype(np.float32)


class JoinedScores(NamedTuple):
    """What titles come to, each array of the shape `[titles]`."""

    score: Float32Array
    """Log-odds of each title, all evidence joined."""
    alone: Float32Array
    """By the title's own features."""
    fragment: Float32Array
    """Of its most suspicious fragment; `NO_FRAGMENT` where none recurs."""
    worst: Int64Array
    """Which fragment that is, a place in the evidence, or -1."""


@dataclass(frozen=True, eq=False)
class ScoringModel:
    """The three networks."""

    title: SmallNetwork
    """Judges `LEARNED_FEATURES`."""
    fragment: SmallNetwork
    """Judges `FRAGMENT_FEATURES`."""
    joined: SmallNetwork
    """Judges `JOINED_FEATURES`."""
    weighs_rare: bool = True
    """Whether rare spelling and capitals add to a title's score (`weigh_rare`). Not with the small tagger that ships:
    there they hide more triggers than they find."""
    weighs_shapes: bool = True
    """Whether shapes of words that far more titles have than a reference's add to a title's score (`shape_drift`)."""
    weighs_beside: bool = True
    """Whether fragments add to a title's score beside a reference, too. Not with the small tagger that ships: that was
    not measured."""

    @property
    def weight_beside(self) -> float:
        """How much of a fragment's log-odds is added beside a reference that sets thresholds."""
        return FRAGMENT_WEIGHT_BESIDE if self.weighs_beside else 0.0

    def score_titles(
        self, features: Float32Array, evidence: FragmentEvidence, by_fragment: Float32Array | None = None
    ) -> JoinedScores:
        """Return what titles come to.

        Args:
            features: Of each title, shape `[titles, TITLE_FEATURES]`.
            evidence: Of the catalogue that they are.
            by_fragment: Log-odds of its fragments, if they are known (`fragment_verdicts.judge_fragments`).
        """
        by_fragment = self.fragment.score(evidence.features) if by_fragment is None else by_fragment
        worst = find_worst(by_fragment, evidence, len(features))
        alone = self.score_alone(features)
        joined = join_evidence(alone, by_fragment, worst, evidence)
        score = self.score_beside(features, by_fragment, worst, evidence)
        return JoinedScores(score, alone, joined[:, 1], worst)

    def score_alone(self, features: Float32Array) -> Float32Array:
        """Return the log-odds of titles by their own features, shape `[titles]`.

        Args:
            features: Of each title, shape `[titles, TITLE_FEATURES]`.
        """
        return self.title.score(features[:, : len(LEARNED_FEATURES)]) + self.weigh_rare(features)

    def weigh_rare(self, features: Float32Array) -> Float32Array:
        """Return what rare spelling and capitals add to the score of titles, shape `[titles]`.

        Args:
            features: Of each title, shape `[titles, TITLE_FEATURES]`.
        """
        if not self.weighs_rare:
            return np.zeros(len(features), dtype=np.float32)
        above = np.maximum(features[:, len(LEARNED_FEATURES) :] - LEAST_RARITY, 0)
        return (above @ np.array(RARE_WEIGHTS)).astype(np.float32)

    def score_beside(
        self, features: Float32Array, by_fragment: Float32Array, worst: Int64Array, evidence: FragmentEvidence
    ) -> Float32Array:
        """Return the score of titles by their own features and their most suspicious fragments, shape `[titles]`."""
        learned = self.title.score(features[:, : len(LEARNED_FEATURES)])
        return self.join(learned, by_fragment, worst, evidence) + self.weigh_rare(features)

    def join(
        self, alone: Float32Array, by_fragment: Float32Array, worst: Int64Array, evidence: FragmentEvidence
    ) -> Float32Array:
        """Return the score of titles, shape `[titles]`; a title without a fragment has that of its own features.

        The last network has learned from catalogues in which each title shares something with others. The log-odds of a
        title's fragment are added to what it says; see `weigh_fragments`.
        """
        given = join_evidence(alone, by_fragment, worst, evidence)
        known = given[:, JOINED_FEATURES.index("whether a reference is known")] > 0
        added = np.where(known, weigh_fragments(given[:, 1], self.weight_beside), weigh_fragments(given[:, 1]))
        return (np.where(worst >= 0, self.joined.score(given), alone) + added).astype(np.float32)

    def save(self, path: Path, about: Mapping[str, str]) -> str:
        """Write the weights, and return the file's hash."""
        held = {
            f"{name}.{part}": torch.from_numpy(np.ascontiguousarray(values))
            for name in ("title", "fragment", "joined")
            for part, values in _name_parts(getattr(self, name)).items()
        }
        return write_tensors(path, held, {"cowbird": SCORING_VERSION} | dict(about))


def _name_parts(network: SmallNetwork) -> dict[str, Float32Array]:
    layers = {f"weight{nth}": weight for nth, weight in enumerate(network.weights)}
    layers |= {f"bias{nth}": bias for nth, bias in enumerate(network.biases)}
    return {"mean": network.mean, "scale": network.scale} | layers


def weigh_fragments(log_odds: Float32Array, weight: float = FRAGMENT_WEIGHT) -> Float32Array:
    """Return what the worst fragment of each title adds to its score, shape `[titles]`."""
    above = np.maximum(np.minimum(log_odds, MAX_LOG_ODDS) - LEAST_FRAGMENT, 0)
    return (weight * above).astype(np.float32)


def weigh_tricks(tricks: NDArray[np.bool_]) -> Float32Array:
    """Return what is added to the score of each title, shape `[titles]`; see `title_evidence.find_tricks`."""
    return np.where(tricks, np.float32(TRICK_LOG_ODDS), np.float32(0))


def find_worst(by_fragment: Float32Array, evidence: FragmentEvidence, titles: int) -> Int64Array:
    """Return the fragment with the highest log-odds of each title, -1 where there is none, shape `[titles]`."""
    worst = np.full(titles, -1, dtype=np.int64)
    order = np.argsort(by_fragment[evidence.of], kind="stable")
    worst[evidence.title[order]] = evidence.of[order]
    return worst


def choose_trusted(by_fragment: Float32Array, evidence: FragmentEvidence, titles: int) -> NDArray[np.bool_]:
    """Return which titles of a catalogue say what is usual there: those without a suspicious fragment.

    A catalogue may be flooded with triggers, and would then make them look usual. Shape `[titles]`.
    """
    worst = find_worst(by_fragment, evidence, titles)
    score = np.where(worst >= 0, by_fragment[worst] if len(by_fragment) else NO_FRAGMENT, NO_FRAGMENT)
    bar = max(SUSPECTED_LOG_ODDS, float(np.quantile(score, 1 - MAX_SHARE_SUSPECTED))) if titles else 0.0
    return score <= bar


def join_evidence(
    alone: Float32Array, by_fragment: Float32Array, worst: Int64Array, evidence: FragmentEvidence
) -> Float32Array:
    """Return what the last network is given, shape `[titles, JOINED_FEATURES]`."""
    joined = np.zeros((len(alone), len(JOINED_FEATURES)), dtype=np.float32)
    some = worst >= 0
    joined[:, 0] = np.clip(alone, -MAX_LOG_ODDS, MAX_LOG_ODDS)
    joined[:, 1] = NO_FRAGMENT
    joined[some, 1] = np.clip(by_fragment[worst[some]], -MAX_LOG_ODDS, MAX_LOG_ODDS)
    places = [FRAGMENT_FEATURES.index(name) for name in ("count", "share", "growth of its share")]
    joined[some, 2:5] = evidence.features[worst[some]][:, places]
    joined[some, 5] = evidence.features[worst[some], FRAGMENT_FEATURES.index("whether a reference is known")]
    joined[:, 6] = some
    joined[:, 7] = joined[:, :2].max(axis=1)
    return joined


def load_scoring(path: Path = READY_SCORING) -> ScoringModel:
    """Read what `ScoringModel.save` wrote.

    Raises:
        UserError: If the file is damaged or of another version.
    """
    known = {READY_SCORING: READY_SCORING_SHA256, READY_SMALL_SCORING: READY_SMALL_SCORING_SHA256}.get(path)
    if known is not None and hash_file(path) != known:
        raise UserError(f"'{path}' is damaged: its SHA-256 is not the known one.", "Install Cowbird anew.")
    held, about = read_tensors(path)
    inputs = {"title": len(LEARNED_FEATURES), "fragment": len(FRAGMENT_FEATURES), "joined": len(JOINED_FEATURES)}
    try:
        if about.get("cowbird") != SCORING_VERSION:
            raise ValueError(f"its version is {about.get('cowbird')}, and this is {SCORING_VERSION}")
        made = {name: _read_network(name, {key: value.numpy() for key, value in held.items()}) for name in inputs}
        for name, many in inputs.items():
            if made[name].mean.shape != (many,):
                raise ValueError(f"its network '{name}' does not take {many} features")
    except (KeyError, ValueError) as error:
        raise UserError(f"'{path}' does not hold scoring weights: {error}.", "Install Cowbird anew.") from None
    large = path != READY_SMALL_SCORING
    return ScoringModel(made["title"], made["fragment"], made["joined"], weighs_rare=large, weighs_beside=large)


def _read_network(name: str, held: Mapping[str, Float32Array]) -> SmallNetwork:
    parts = {key.removeprefix(f"{name}."): value for key, value in held.items() if key.startswith(f"{name}.")}
    if not all(np.isfinite(value).all() for value in parts.values()):
        raise ValueError("its weights are not finite")
    weights = tuple(parts[f"weight{nth}"] for nth in range(_LAYERS))
    return SmallNetwork(parts["mean"], parts["scale"], weights, tuple(parts[f"bias{nth}"] for nth in range(_LAYERS)))
