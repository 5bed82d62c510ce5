"""Coordinates of tokens and rotary positions."""

import numpy as np
import pytest
from keras import ops

from lwmt_sionna.ops.positions import flat_rotation, grid_rotation, rotate, token_coordinates

UNITS = (2.5e-3, 2 / 32, 1 / 17.28e6)


def heads(rng, num_tokens, num_heads=2, head_dim=6):
    return rng.standard_normal((3, num_heads, num_tokens, head_dim)).astype(np.float32)


def scores(query, key, rotation):
    query, key = (ops.convert_to_numpy(rotate(x, rotation)) for x in (query, key))
    return np.einsum("bhnd,bhmd->bhnm", query, key)


def test_flat_rotation_multiplies_complex_numbers(rng):
    """Interleaved pairs are complex numbers; pair i of token n is turned by n base^(-i/(d/2))."""
    grid, head_dim = (2, 3, 4), 6
    x = heads(rng, 25, head_dim=head_dim)
    turned = ops.convert_to_numpy(rotate(x, flat_rotation(grid, head_dim, class_token=True)))
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    expected = pairs * np.exp(1j * np.arange(25)[:, None] * 10_000.0 ** (-np.arange(3) / 3))
    np.testing.assert_allclose(turned[..., 0::2], expected.real, atol=1e-5)
    np.testing.assert_allclose(turned[..., 1::2], expected.imag, atol=1e-5)


def test_scores_see_differences_of_places_alone(rng):
    grid = (3, 4, 5)
    query, key = heads(rng, 60), heads(rng, 60)
    coordinates = token_coordinates(grid)
    moved = tuple(c + shift for c, shift in zip(coordinates, (2.0, -7.0, 31.0), strict=True))
    near = scores(query, key, grid_rotation(coordinates, 2, 6))
    far = scores(query, key, grid_rotation(moved, 2, 6))
    np.testing.assert_allclose(near, far, atol=1e-4)
    # Each axis matters.
    for axis in range(3):
        stretched = list(coordinates)
        stretched[axis] = 2 * coordinates[axis]
        other = scores(query, key, grid_rotation(stretched, 2, 6))
        assert np.abs(other - near).max() > 0.1


def test_class_token_is_not_turned():
    rotation = grid_rotation(token_coordinates((2, 2, 2)), 1, 6, class_token=True)
    np.testing.assert_array_equal(rotation[0, -1], [[1, 0]] * 3)


def test_physical_coordinates_of_one_path_agree_across_samplings():
    """20 ms, sine 0.5 and 0.5 microseconds lie in different bins and at one place."""
    fine = token_coordinates((32, 64, 64), units=UNITS, sampling_period=1.25e-3, bandwidth=32e6)
    coarse = token_coordinates((8, 16, 16), units=UNITS, sampling_period=5e-3, bandwidth=8e6)
    for axis, (i, j) in enumerate(((16, 4), (16, 4), (16, 4))):
        np.testing.assert_allclose(fine[axis][i], coarse[axis][j])
    assert fine[1][-1] == -1.0 * (2 / 64) / UNITS[1]


def test_tensors_of_periods_equal_numbers():
    periods = np.array([1e-3, 5e-3], np.float32)
    many = token_coordinates((4, 2, 2), units=UNITS, sampling_period=periods, bandwidth=17e6)
    for row, period in enumerate(periods):
        one = token_coordinates((4, 2, 2), units=UNITS, sampling_period=period, bandwidth=17e6)
        np.testing.assert_allclose(ops.convert_to_numpy(many[0])[row], one[0], rtol=1e-6)
        np.testing.assert_allclose(
            ops.convert_to_numpy(grid_rotation(many, 2, 6))[row],
            grid_rotation(one, 2, 6),
            atol=1e-5,
        )


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="sampling_period=None"):
        token_coordinates((1, 2, 2), units=UNITS, bandwidth=1e6)
    with pytest.raises(ValueError, match="bandwidth=0"):
        token_coordinates((1, 2, 2), units=UNITS, sampling_period=1.0, bandwidth=0)
    with pytest.raises(ValueError, match="position_units"):
        token_coordinates((1, 2, 2), sampling_period=1e-3)
    with pytest.raises(ValueError, match="head_dim=5"):
        flat_rotation((1, 2, 2), 5)
