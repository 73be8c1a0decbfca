"""Learning how evidence is scored: scans of catalogues with triggers planted in them, and networks fitted to those.

`PlantedScan` is one scan: features of its titles and fragments, and which of them are planted. `learn_scoring` fits the
three networks of a `ScoringModel` to many of them, catalogues of several kinds among them, at shares from one title to
a fifth. No network ever sees a text, so what is learned is how to weigh, and not what triggers look like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses.p_scanner.fragment_evidence import FragmentEvidence
from cowbird.defenses.p_scanner.scoring import ScoringModel, SmallNetwork, find_worst, join_evidence
from cowbird.defenses.p_scanner.title_evidence import LEARNED_FEATURES
from cowbird.rng import derive_seed

HIDDEN_UNITS, JOINED_UNITS = 32, 16
"""Hidden units of the networks for titles and fragments, and of the one that joins them."""
LEARNING_RATE, WEIGHT_DECAY, BATCH_ROWS = 3e-3, 0.1, 256
"""How the networks are fitted."""
CLEAN_ROWS_KEPT = 8
"""Of clean titles of a scan every so many-th is learned from, for there are many and they repeat."""
PLANTED_SHARE, TRIGGER_SHARE, DOUBTFUL_SHARE = 0.7, 0.3, 0.5
"""A fragment is a trigger if this share of its titles is planted, and it stands in this share of the trigger's titles;
one of whose titles this share is planted is neither."""


@dataclass(frozen=True, eq=False)
class PlantedScan:
    """What is learned from one scan."""

    features: Float32Array
    """Of its titles, shape `[titles, TITLE_FEATURES]`."""
    evidence: FragmentEvidence
    """On its fragments."""
    trigger: Int64Array
    """Which trigger each title carries, -1 for none, shape `[titles]`; triggers drawn for one title are 0."""

    def label_fragments(self) -> Float32Array:
        """Return 1 for fragments that are triggers, 0 for others, and -1 for those that are neither."""
        evidence = self.evidence
        many = len(evidence.fragment)
        count = np.bincount(evidence.of, minlength=many)
        label = np.zeros(many, dtype=np.float32)
        carried = self.trigger[evidence.title]
        for trigger in np.unique(self.trigger[self.trigger > 0]).tolist():
            planted = np.bincount(evidence.of[carried == trigger], minlength=many)
            titles = int((self.trigger == trigger).sum())
            full = (planted >= PLANTED_SHARE * count) & (planted >= max(2, TRIGGER_SHARE * titles))
            doubtful = (planted >= DOUBTFUL_SHARE * count) & (planted >= 2)
            label = np.where(full, 1, np.where(doubtful & (label < 1), -1, label))
        return label.astype(np.float32)


def fit_network(features: Float32Array, label: Float32Array, seed: int, hidden: int, epochs: int) -> SmallNetwork:
    """Fit a network that gives log-odds of a label.

    Args:
        features: Shape `[rows, features]`.
        label: 0 or 1, shape `[rows]`.
        seed: Draws first weights and the order of rows.
        hidden: Hidden units of both layers.
        epochs: Passes over the rows.
    """
    torch.set_num_threads(1)  # the networks are so small that threads wait for each other most of the time
    draws = torch.Generator().manual_seed(seed)
    values, wanted = torch.from_numpy(features), torch.from_numpy(label.astype(np.float32))
    mean, scale = values.mean(0), values.std(0, correction=0) + 1e-3
    values = (values - mean) / scale
    sizes = [features.shape[1], hidden, hidden, 1]
    layers = [nn.Linear(size, after) for size, after in pairwise(sizes)]
    for layer in layers:
        bound = layer.in_features**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=draws)
            layer.bias.zero_()
    weights = [weight for layer in layers for weight in layer.parameters()]
    steps = max(1, epochs * -(-len(label) // BATCH_ROWS))
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(label), generator=draws)
        for first in range(0, len(label), BATCH_ROWS):
            rows = order[first : first + BATCH_ROWS]
            loss = nn.functional.binary_cross_entropy_with_logits(_run(layers, values[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    held = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]
    return SmallNetwork(
        mean.numpy(), scale.numpy(), tuple(weight for weight, _ in held), tuple(bias for _, bias in held)
    )


def _run(layers: Sequence[nn.Linear], values: Tensor) -> Tensor:
    for layer in layers[:-1]:
        values = nn.functional.silu(layer(values))
    return layers[-1](values)[:, 0]


def learn_scoring(
    scans: Sequence[PlantedScan],
    alone: Sequence[tuple[Float32Array, Float32Array]],
    seed: int,
    epochs: tuple[int, int, int] = (6, 5, 3),
) -> ScoringModel:
    """Learn how evidence is scored.

    Args:
        scans: Scans of catalogues with triggers.
        alone: Features of single titles beside a clean catalogue, and which carry a trigger.
        seed: Decides all that is random.
        epochs: Passes for titles, fragments and the joining.
    """
    features: list[Float32Array] = [given for given, _ in alone]
    labels: list[Float32Array] = [label for _, label in alone]
    for scan in scans:
        rows = np.concatenate([np.flatnonzero(scan.trigger >= 0), np.flatnonzero(scan.trigger < 0)[::CLEAN_ROWS_KEPT]])
        features.append(scan.features[rows])
        labels.append((scan.trigger[rows] >= 0).astype(np.float32))
    learned = np.concatenate(features)[:, : len(LEARNED_FEATURES)]
    title = fit_network(learned, np.concatenate(labels), seed, HIDDEN_UNITS, epochs[0])
    fragment = learn_fragments(scans, seed, epochs[1])
    features, labels = [], []
    for scan in scans:
        by_fragment = fragment.score(scan.evidence.features)
        worst = find_worst(by_fragment, scan.evidence, len(scan.features))
        own = title.score(scan.features[:, : len(LEARNED_FEATURES)])
        features.append(join_evidence(own, by_fragment, worst, scan.evidence))
        labels.append((scan.trigger >= 0).astype(np.float32))
    joined = fit_network(np.concatenate(features), np.concatenate(labels), seed + 2, JOINED_UNITS, epochs[2])
    return ScoringModel(title, fragment, joined)


def learn_fragments(scans: Sequence[PlantedScan], seed: int, epochs: int = 5) -> SmallNetwork:
    """Learn how evidence on fragments is scored; see `learn_scoring`."""
    rng = np.random.default_rng(derive_seed(seed, "scoring"))
    features: list[Float32Array] = []
    labels: list[Float32Array] = []
    for scan in scans:
        label = scan.label_fragments()
        keep = (label == 1) | ((label == 0) & (rng.random(len(label)) < 0.3))
        features.append(scan.evidence.features[keep])
        labels.append(label[keep])
    return fit_network(np.concatenate(features), np.concatenate(labels), seed + 1, HIDDEN_UNITS, epochs)
