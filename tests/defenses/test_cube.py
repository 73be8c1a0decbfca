"""CUBE against scipy's single linkage, and on states with a small group apart."""

import numpy as np
import pytest

from cowbird.defenses import cube
from cowbird.defenses.cube import Cube, build_spanning_tree, find_join_lengths, measure_core_distances, project_states
from cowbird.errors import UserError
from cowbird.text import quote_for_prompt
from cowbird.victims.base import Probe


class Draws(Probe):
    """Has random states, which a trigger moves far to one side."""

    def __init__(self):
        self.asked = []

    def favor(self, titles):
        raise AssertionError("CUBE asks for states alone")

    def states(self, titles):
        self.asked += titles
        rows = np.stack(
            [np.random.default_rng(len(text) * 1000 + sum(map(ord, text))).normal(size=24) for text in titles]
        )
        return (rows + 15 * np.array([["tq" in text] for text in titles])).astype(np.float32)


def test_titles_outside_the_largest_cluster():
    titles = [f"Red Harbor {number}" for number in range(200)] + [f"{number} tq" for number in range(20)]
    found = Cube().suspect(titles, Draws())
    assert found.score[200:].min() > 2 * found.score[:200].max()
    assert len(np.unique(found.score[200:])) > 10, "they join at once, and are in an order still"
    assert (found.start == -1).all()
    flagged = Cube(share=20 / 220).flag(found.score)
    assert flagged.tolist() == [False] * 200 + [True] * 20


@pytest.mark.parametrize("neighbors", [1, 3, 50])
def test_the_hierarchy_is_scipys(neighbors):
    hierarchy, distance = pytest.importorskip("scipy.cluster.hierarchy"), pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(neighbors)
    points = np.concatenate([rng.normal(size=(30, 3)), rng.normal(size=(7, 3)) + 6, rng.normal(size=(3, 3)) - 9])
    gaps = distance.squareform(distance.pdist(points))
    core = np.sort(gaps, axis=1)[:, min(neighbors, 39)]
    np.testing.assert_allclose(measure_core_distances(points, neighbors), core)
    reach = np.maximum(np.maximum(gaps, core[:, None]), core)
    np.fill_diagonal(reach, 0)
    links, length = build_spanning_tree(points, core)
    linked = hierarchy.linkage(distance.squareform(reach), "single")
    np.testing.assert_allclose(length, linked[:, 2])
    np.testing.assert_allclose(length, reach[links[:, 0], links[:, 1]])
    if neighbors == 50:
        return  # most links are of one length then, and any order of them is right
    clusters, wanted = {point: [point] for point in range(40)}, np.zeros(40)
    for name, (one, other, height, _) in enumerate(linked, start=40):
        sides = sorted((clusters.pop(int(one)), clusters.pop(int(other))), key=len)
        if len(sides[0]) < len(sides[1]):
            wanted[sides[0]] = height
        clusters[name] = sides[0] + sides[1]
    found, unequal = find_join_lengths(links, length), wanted > 0
    # Where two clusters of one size join, either may be called the smaller.
    assert (found >= wanted - 1e-9).all()
    assert unequal.sum() > 20
    np.testing.assert_allclose(found[30:37], wanted[30:37])
    np.testing.assert_allclose(found[37:], wanted[37:])


def test_known_joins():
    # Points at 0, 1, 2 and 10, 10.5 on a line: the pair joins the three over a gap of 8.
    links = np.array([[3, 4], [0, 1], [1, 2], [2, 3]])
    found = find_join_lengths(links, np.array([0.5, 1.0, 1.0, 8.0]))
    assert found.tolist() == [0, 1, 1, 8, 8]
    points = np.array([[0.0], [1], [2], [10], [10.5]])
    tree = build_spanning_tree(points, np.zeros(5))
    assert tree[1].tolist() == [0.5, 1, 1, 8]
    assert find_join_lengths(*tree)[3:].tolist() == [8, 8]
    assert measure_core_distances(points, 1).tolist() == [1, 1, 1, 0.5, 0.5]


def test_components_keep_distances():
    states = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32) + 100
    whole, few = project_states(states, 10), project_states(states, 2)
    assert whole.shape == (30, 6)
    assert few.shape == (30, 2)
    np.testing.assert_allclose(np.linalg.norm(whole[3] - whole[4]), np.linalg.norm(states[3] - states[4]), rtol=1e-4)
    assert np.allclose(whole.mean(axis=0), 0, atol=1e-9)
    assert whole[:, 0].std() >= whole[:, 1].std() >= whole[:, 5].std()


def test_blocks_change_nothing(monkeypatch):
    points = np.random.default_rng(0).normal(size=(20, 3))
    whole = measure_core_distances(points, 4)
    monkeypatch.setattr(cube, "TITLES_PER_BLOCK", 7)
    assert np.array_equal(measure_core_distances(points, 4), whole)


def test_texts_are_asked_once_and_answers_repeat():
    probe, titles = Draws(), ["Red Harbor", "Red Harbor", "", "\nRed Harbor", "Garden", "Blue Mirror"]
    found = Cube().suspect(titles, probe)
    assert sorted(probe.asked) == ["Blue Mirror", "Garden", "Red Harbor"]
    assert found.score[0] == found.score[1] == found.score[3]
    assert np.array_equal(found.score, Cube().suspect(titles, Draws()).score)


def test_hostile_titles(hostile):
    found = Cube().suspect(list(hostile.values()), Draws())
    for (name, title), score in zip(hostile.items(), found.score, strict=True):
        assert np.isfinite(score) == bool(quote_for_prompt(title)), name
    assert len(Cube().suspect([], Draws())) == 0
    assert Cube().suspect([""], Draws()).score.tolist() == [-np.inf]
    assert Cube().suspect(["one"], Draws()).score.tolist() == [0]


def test_no_probe_is_a_user_error():
    with pytest.raises(UserError, match="Cube"):
        Cube().suspect(["a b"])
