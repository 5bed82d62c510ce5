"""The angle-delay transform against NumPy and plane waves."""

import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna.data import PlanarArray, subcarrier_frequencies
from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    inverse_angle_delay_transform,
    strongest_path,
)


def stacked(h):
    return np.stack([h.real, h.imag], axis=-1).astype(np.float32)


def as_complex(x):
    x = ops.convert_to_numpy(x)
    return x[..., 0] + 1j * x[..., 1]


@pytest.mark.parametrize(("num_ant", "num_subcarriers"), [(32, 32), (7, 13), (1, 5), (16, 64)])
def test_equals_the_discrete_fourier_transform(rng, num_ant, num_subcarriers):
    shape = (2, 3, num_ant, num_subcarriers)
    h = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    expected = np.fft.ifft(np.fft.fft(h, axis=-2, norm="ortho"), axis=-1, norm="ortho")
    x = angle_delay_transform(stacked(h))
    np.testing.assert_allclose(as_complex(x), expected, atol=2e-5)
    np.testing.assert_allclose(as_complex(inverse_angle_delay_transform(x)), h, atol=2e-5)
    # Unitary: powers are kept.
    np.testing.assert_allclose(np.sum(np.square(np.asarray(x))), np.sum(np.abs(h) ** 2), rtol=1e-5)


def test_plane_wave_lies_in_the_bin_that_theory_names():
    array = PlanarArray(1, 32)
    frequencies = subcarrier_frequencies(32, 540e3)
    bandwidth = 32 * 540e3
    angle_bin, delay_bin = 5, 9
    # sin of the azimuth that puts 5 turns of phase over the array
    phi = np.arcsin(angle_bin / 16)
    wave = array.response(np.pi / 2, phi)
    ramp = np.exp(-2j * np.pi * frequencies * delay_bin / bandwidth)
    x = as_complex(angle_delay_transform(stacked(np.outer(wave, ramp)[None])))[0]
    peak = np.unravel_index(np.argmax(np.abs(x)), x.shape)
    assert peak == (angle_bin, delay_bin)
    np.testing.assert_allclose(np.abs(x[peak]) ** 2, 32 * 32, rtol=1e-4)


def test_planar_dual_polarised_wave_lies_in_one_bin_per_polarisation():
    array = PlanarArray(4, 8, polarization="VH")
    theta, phi = np.arccos(-2 / 2 * 0.5), np.arcsin(2 / 4 / np.sin(np.arccos(-0.5)))
    wave = np.concatenate([array.response(theta, phi), 0.5 * array.response(theta, phi)])
    x = as_complex(angle_delay_transform(stacked(wave[None, :, None]), array_shape=(4, 8, 2)))
    power = np.abs(x[0, :, 0]).reshape(2, 8, 4) ** 2
    assert np.sort(power[0].ravel())[-2] < 1e-6 * power[0].max()
    np.testing.assert_allclose(power[1].max() / power[0].max(), 0.25, rtol=1e-4)


@pytest.mark.parametrize("array_shape", [(1, 24, 1), (4, 6, 1), (1, 12, 2), (4, 3, 2), (2, 12, 1)])
def test_is_unitary_and_inverts_exactly(rng, array_shape):
    """In float32 to 1e-6 of the norm, for linear, planar and dual-polarised arrays."""
    shape = (2, 5, 24, 18)
    h = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    rows, cols, pols = array_shape
    planes = h.reshape(2, 5, pols, cols, rows, 18)
    expected = np.fft.fft2(planes, axes=(3, 4), norm="ortho").reshape(shape)
    expected = np.fft.ifft(expected, axis=-1, norm="ortho")
    x = angle_delay_transform(stacked(h), array_shape)
    norm = np.linalg.norm(h)
    assert np.linalg.norm(as_complex(x) - expected) < 1e-6 * norm
    assert abs(np.linalg.norm(as_complex(x)) / norm - 1) < 1e-6
    back = as_complex(inverse_angle_delay_transform(x, array_shape))
    assert np.linalg.norm(back - h) < 1e-6 * norm
    if keras.backend.backend() == "tensorflow":  # the others compute in float32 only
        double = np.stack([h.real, h.imag], axis=-1)
        exact = angle_delay_transform(double, array_shape)
        assert np.linalg.norm(as_complex(exact) - expected) < 1e-14 * norm


@pytest.mark.parametrize("first_delay", [0, -2, 3])
def test_truncated_delays_are_a_part_of_all(rng, first_delay):
    h = rng.standard_normal((2, 6, 16)) + 1j * rng.standard_normal((2, 6, 16))
    whole = as_complex(angle_delay_transform(stacked(h)))
    part = angle_delay_transform(stacked(h), num_delay=7, first_delay=first_delay)
    kept = np.arange(first_delay, first_delay + 7) % 16
    np.testing.assert_allclose(as_complex(part), whole[..., kept], atol=1e-6)
    # What was dropped counts as zero on the way back, and what was kept is kept.
    back = inverse_angle_delay_transform(part, num_subcarriers=16, first_delay=first_delay)
    again = as_complex(angle_delay_transform(back))
    np.testing.assert_allclose(again[..., kept], whole[..., kept], atol=1e-5)
    assert np.abs(np.delete(again, kept, axis=-1)).max() < 1e-5
    with pytest.raises(ValueError, match="num_delay=17, num_subcarriers=16"):
        angle_delay_transform(stacked(h), num_delay=17)


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 4, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x\.shape"):
        angle_delay_transform(np.zeros(shape, np.float32))


def test_array_shape_must_match_the_antennas():
    with pytest.raises(ValueError, match="num_ant=12"):
        angle_delay_transform(np.zeros((1, 12, 4, 2), np.float32), array_shape=(4, 4, 1))


@pytest.mark.parametrize(("sine", "delay"), [(0.4, 3.2), (-0.97, 0.0), (0.0, 11.6), (-0.23, 7.51)])
def test_the_strongest_path_of_the_last_snapshots_is_found(rng, sine, delay):
    frequencies = subcarrier_frequencies(12, 540e3)

    def wave(sine, delay):
        ramp = np.exp(-2j * np.pi * frequencies * delay / (12 * 540e3))
        return np.outer(PlanarArray(num_cols=16).response(np.pi / 2, np.arcsin(sine)), ramp)

    turns = np.exp(2j * np.pi * rng.random((3, 6, 1, 1)))
    h = wave(sine, delay) * turns + 0.5 * wave(0.7, 5.0)
    h[:, :2] = 9.0 * wave(-0.6, 9.0)  # what was before
    h += 0.1 * rng.standard_normal(h.shape)
    found = ops.convert_to_numpy(strongest_path(stacked(h)))
    assert found.shape == (3, 2) and found.dtype == np.float32
    # An eighth of a bin apart, and a little of the other path.
    np.testing.assert_allclose((found[:, 0] - delay + 6) % 12, 6.0, atol=0.2)
    np.testing.assert_allclose(found[:, 1], sine, atol=0.02)
