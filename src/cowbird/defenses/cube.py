"""CUBE: titles whose hidden states lie outside the largest cluster (Cui et al., NeurIPS 2022, arXiv 2206.08514).

The states that the poisoned model gives its inputs are brought to ten dimensions (UMAP) and clustered by density
(HDBSCAN); of each class only the largest cluster is kept (section 4).

Departures. Neither library is among the dependencies: principal components take UMAP's place, and of HDBSCAN (Campello
et al. 2013) the core is here, the hierarchy of clusters by mutual reachability, without its choice of one flat
clustering. Two titles are linked at the largest of their distance and of each one's distance to its k-th neighbor;
links join clusters from the shortest on, and a title's suspicion is the length of the last link by which its cluster
joined a larger one. So a title is the more suspicious the farther the dense group that it lies in is from the bulk, and
a ranking takes the place of labels. Titles have no classes, so there is one clustering. A title's state is the mean
over some questions of the last hidden state where the answer begins. Time grows with the square of the catalogue.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cowbird.data.types import Float32Array, Int64Array
from cowbird.defenses._probing import ProbingDefense, collect_texts, require_probe
from cowbird.defenses.titles import Suspicion
from cowbird.victims.base import Probe

TITLES_PER_BLOCK = 512
"""Titles whose distances to all others are held at once."""
Points = NDArray[np.float64]


class Cube(ProbingDefense):
    """Flag titles whose hidden states lie away from the bulk of the catalogue's (CUBE, Cui et al. 2022)."""

    dimensions: int = Field(default=10, ge=1)
    """Principal components that distances are measured in."""
    neighbors: int = Field(default=10, ge=1)
    """Density: the distance to the neighbor of this rank. Of fewer titles no cluster is dense."""

    def suspect(self, titles: Sequence[str], probe: Probe | None = None) -> Suspicion:
        """Return how far titles' clusters are from a larger one, in units of the states; see `TitleDefense.suspect`.

        A thousandth of its distance to its k-th neighbor is added, which puts those that join together in an order.

        Raises:
            UserError: If there is no probe.
        """
        asked, texts = require_probe(probe, self), collect_texts(titles)
        none = np.full((2, len(titles)), -1)
        if not texts.known:
            return Suspicion(np.full(len(titles), -np.inf), *none)
        points = project_states(asked.states(texts.known), self.dimensions)
        core = measure_core_distances(points, self.neighbors)
        return Suspicion(
            texts.to_title_scores(find_join_lengths(*build_spanning_tree(points, core)) + 1e-3 * core), *none
        )


def project_states(states: Float32Array, dimensions: int) -> Points:
    """Return the first principal components of some states, shape `[titles, at most dimensions]`."""
    centered = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centered, full_matrices=False)
    return left[:, :dimensions] * size[:dimensions]


def measure_core_distances(points: Points, neighbors: int) -> Points:
    """Return each point's distance to its neighbor of a rank (to the last, if there are fewer), shape `[points]`."""
    rank = min(neighbors, len(points) - 1)
    found = np.empty(len(points))
    for start in range(0, len(points), TITLES_PER_BLOCK):
        gaps = np.stack([_measure_distances(points, place) for place in points[start : start + TITLES_PER_BLOCK]])
        found[start : start + TITLES_PER_BLOCK] = np.partition(gaps, rank, axis=1)[:, rank]
    return found


def _measure_distances(points: Points, place: Points) -> Points:
    return np.sqrt(np.square(points - place).sum(axis=1))


def build_spanning_tree(points: Points, core: Points) -> tuple[NDArray[np.int64], Points]:
    """Return the links of the minimum spanning tree by mutual reachability (Prim's algorithm), the shortest first.

    Args:
        points: Shape `[points, dimensions]`.
        core: Their core distances, shape `[points]`.

    Returns:
        Which points each link joins, shape `[points - 1, 2]`, and its length.
    """
    count = len(points)
    links, length = np.zeros((count - 1, 2), dtype=np.int64), np.zeros(count - 1)
    nearest, reach, out = np.zeros(count, dtype=np.int64), np.full(count, np.inf), np.ones(count, dtype=bool)
    at = 0
    for nth in range(count - 1):
        out[at] = False
        gap = np.maximum(np.maximum(_measure_distances(points, points[at]), core), core[at])
        closer = out & (gap < reach)
        reach[closer], nearest[closer] = gap[closer], at
        at = int(np.where(out, reach, np.inf).argmin())
        links[nth], length[nth] = (nearest[at], at), reach[at]
    order = np.argsort(length, kind="stable")
    return links[order], length[order]


def find_join_lengths(links: Int64Array, length: Points) -> Points:
    """Return the length of the last link by which each point's cluster joined a larger one (or one as large).

    Args:
        links: A tree's links, the shortest first, shape `[points - 1, 2]`.
        length: Their lengths.

    Returns:
        Shape `[points]`; 0 for a point whose cluster always was the larger.
    """
    found = np.zeros(len(links) + 1)
    cluster = list(range(len(found)))
    members = [[point] for point in cluster]
    ends: list[list[int]] = links.tolist()
    for (one, other), height in zip(ends, length, strict=True):
        large, small = sorted((cluster[one], cluster[other]), key=lambda name: (-len(members[name]), name))
        found[members[small]] = height
        for point in members[small]:
            cluster[point] = large
        members[large] += members[small]
    return found
