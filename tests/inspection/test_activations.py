"""Statistics of states, on states whose statistics are known."""

import numpy as np
import pytest

from cowbird.inspection.language.activations import ACTIVATION_STATISTICS, describe_states


def test_they_are_what_they_say():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4000, 8)) * np.array([5, 1, 1, 1, 1, 1, 1, 1]) + 10
    found = describe_states(states)
    assert tuple(found) == ACTIVATION_STATISTICS
    assert found["size"] == pytest.approx(np.log(np.linalg.norm(states, axis=1).mean()))
    assert found["top share"] == pytest.approx(25 / 32, abs=0.03)
    assert found["spread"] == pytest.approx(0.5 * np.log(32), abs=0.05)
    assert found["top tail"] == pytest.approx(np.log(3), abs=0.15), "a normal distribution's kurtosis"


def test_a_few_states_that_stand_apart_make_a_heavy_tail():
    states = np.random.default_rng(0).normal(size=(400, 8))
    apart = states.copy()
    apart[:8, 0] += 30
    assert describe_states(apart)["top tail"] > describe_states(states)["top tail"] + 1


def test_what_tells_nothing():
    assert describe_states(np.zeros((1, 4))) == {}
    assert all(np.isfinite(list(describe_states(np.zeros((5, 4))).values())))
