"""Planted leaks are caught, and honest preparations pass."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import ClusterConfig, add_noise, draw_clusters
from lwmt_sionna.evaluation.leaks import (
    check_causal,
    check_held_out,
    other_histories,
    shuffled_histories,
)

PAST = 6


@pytest.fixture
def h(rng):
    shape = (4, 9, 3, 5)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def noisy(h):
    return add_noise(h[:, :PAST], 15.0, np.random.default_rng(0))


def test_an_honest_history_passes(h):
    check_causal(noisy, h, PAST)
    check_causal(lambda x: (noisy(x), np.abs(noisy(x)).mean(axis=(1, 2, 3))), h, PAST)


def future_frame(h):
    history = noisy(h)
    history[:, 2] = h[:, PAST]
    return history


def scale_from_the_future(h):
    return noisy(h) / np.sqrt(np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True))


def noise_from_the_future(h):
    return add_noise(h, 15.0, np.random.default_rng(0))[:, :PAST]


def one_snapshot_too_many(h):
    return h[:, 1 : PAST + 1]


def scale_of_all(h):
    return noisy(h), np.max(np.abs(h), axis=(1, 2, 3))


@pytest.mark.parametrize(
    "leak",
    [
        future_frame, scale_from_the_future, noise_from_the_future, one_snapshot_too_many,
        scale_of_all,
    ],
)  # fmt: skip
def test_planted_leaks_are_caught(h, leak):
    with pytest.raises(ValueError, match="depends on the future"):
        check_causal(leak, h, PAST)


def test_a_shared_trajectory_is_caught(rng):
    paths = draw_clusters(6, 3, 1e-3, rng, ClusterConfig())
    training, evaluation = paths.select([0, 1, 2]), paths.select([3, 4, 5])
    distance = check_held_out([training], evaluation)
    assert 0 < distance < np.inf
    with pytest.raises(ValueError, match=r"trajectory_id=\[2\]"):
        check_held_out([training], paths.select([2, 4]))
    elsewhere = dataclasses.replace(evaluation, scene="elsewhere")
    assert check_held_out([training], elsewhere) == np.inf


def test_controls(h):
    shuffled = shuffled_histories(h, seed=3)
    assert not np.array_equal(shuffled, h)
    key = np.sort(np.abs(h).sum(axis=(2, 3)), axis=1)
    np.testing.assert_allclose(np.sort(np.abs(shuffled).sum(axis=(2, 3)), axis=1), key)
    assert not (other_histories(h) == h).all(axis=(1, 2, 3)).any()
    with pytest.raises(ValueError, match="two sequences"):
        other_histories(h[:1])
