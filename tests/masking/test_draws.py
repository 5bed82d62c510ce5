"""The hashed random numbers are as good as masks and noise need them."""

import keras
import numpy as np
import pytest

from lwmt_sionna.masking.draws import Draws

SHAPE = (400, 50, 50)


def test_uniform_numbers_are_uniform():
    u = np.asarray(Draws(3).uniform(SHAPE))
    assert u.min() >= 0 and u.max() < 1
    counts = np.histogram(u, bins=1000, range=(0, 1))[0]
    expected = u.size / 1000
    # chi-square of 999 degrees of freedom, five standard deviations
    assert abs(np.sum((counts - expected) ** 2) / expected - 999) < 5 * np.sqrt(2 * 999)


def test_normal_numbers_are_normal():
    z = np.asarray(Draws(3).normal(SHAPE))
    bound = 5 / np.sqrt(z.size)
    assert abs(z.mean()) < bound
    assert abs(z.var() - 1) < bound * np.sqrt(2)
    assert abs(np.mean(z**3)) < bound * np.sqrt(15)
    assert abs(np.mean(z**4) - 3) < bound * np.sqrt(96)
    assert 4.5 < np.abs(z).max() < 6.5


def test_numbers_do_not_depend_on_each_other():
    draws = Draws(3)
    first, second = (np.asarray(draws.normal(SHAPE)) for _ in range(2))
    neighbour = np.asarray(Draws(4).normal(SHAPE))
    bound = 5 / np.sqrt(first.size)
    assert abs(np.mean(first * second)) < bound
    assert abs(np.mean(first * neighbour)) < bound
    for axis in range(3):
        for distance in (1, 2, 16):
            assert abs(np.mean(first * np.roll(first, distance, axis=axis))) < bound
    assert abs(np.mean(first**2 * np.roll(first, 1, axis=2) ** 2) - 1) < 5 * bound


def test_a_smaller_batch_has_the_same_rows():
    """The last, smaller batch of a pass is drawn like the others."""
    np.testing.assert_array_equal(Draws(3).uniform((2, 4)), Draws(3).uniform((5, 4))[:2])


def test_integers_and_indices():
    draws = Draws(1)
    values = np.asarray(draws.integers(5000, 8, 3))
    assert set(values) == {3, 4, 5, 6, 7, 8}
    assert set(np.asarray(draws.integers(500, 8, 3, severity=0.4))) == {6, 7, 8}
    size = keras.ops.convert_to_tensor(np.full(5000, 3.0, np.float32))
    assert set(np.asarray(draws.index(size))) == {0, 1, 2}


@pytest.mark.parametrize("seed", [None, 1.5, True, "a"])
def test_wrong_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed="):
        Draws(seed)
