"""The angle-delay transform against NumPy and plane waves."""

import numpy as np
import pytest
from keras import ops

from lwmt_sionna.data import PlanarArray, subcarrier_frequencies
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform


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
    np.testing.assert_allclose(np.sum(np.square(x)), np.sum(np.abs(h) ** 2), rtol=1e-5)


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


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 4, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x\.shape"):
        angle_delay_transform(np.zeros(shape, np.float32))


def test_array_shape_must_match_the_antennas():
    with pytest.raises(ValueError, match="num_ant=12"):
        angle_delay_transform(np.zeros((1, 12, 4, 2), np.float32), array_shape=(4, 4, 1))
