import numpy as np
import pytest
from keras import ops

from lwmt_sionna.link.phy.line import compiled
from lwmt_sionna.link.phy.processing import dominant_rows, effective_channel, rzf_precoder


def complex_normal(rng, shape):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] / np.sqrt(2)


def smooth_channel(rng, num_subcarriers, num_user_antennas, num_antennas, num_taps=2):
    taps = complex_normal(rng, (num_user_antennas, num_antennas, num_taps))
    ramp = np.exp(-2j * np.pi * np.outer(np.arange(num_taps), np.arange(num_subcarriers)) / 64)
    return np.moveaxis(taps @ ramp, -1, 0).astype(np.complex64)


@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 1, 4), (2, 2, 8), (4, 2, 8), (3, 3, 5)])
@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_dominant_rows_are_those_of_the_singular_value_decomposition(rng, shape, mode):
    num_user_antennas, num_rows, num_antennas = shape
    h = complex_normal(rng, (6, num_user_antennas, num_antennas))
    rows = compiled(dominant_rows, mode)(ops.convert_to_tensor(h), num_rows).numpy()
    assert rows.shape == (6, num_rows, num_antennas)
    _, values, right = np.linalg.svd(h)
    np.testing.assert_allclose(
        np.linalg.norm(rows, axis=-1), values[:, :num_rows], rtol=1e-4, atol=1e-5
    )
    overlap = np.abs(np.sum(rows.conj() * right[:, :num_rows], axis=-1))
    np.testing.assert_allclose(overlap, values[:, :num_rows], rtol=1e-3)


def test_one_user_radiates_along_its_right_singular_vectors(rng):
    h = complex_normal(rng, (5, 3, 8))
    g = rzf_precoder(dominant_rows(h, 2), 0.3).numpy()
    _, _, right = np.linalg.svd(h)
    expected = right[:, :2].conj().swapaxes(-1, -2) / np.sqrt(2)
    overlap = np.abs(np.sum(g.conj() * expected, axis=-2))
    np.testing.assert_allclose(overlap, 0.5, rtol=1e-3)


def test_effective_channel_of_eigenmodes_is_as_smooth_as_the_channel(rng):
    """Pilots are interpolated between subcarriers: singular vectors must not turn at random."""
    h = smooth_channel(rng, 64, 4, 16)
    g = rzf_precoder(dominant_rows(h, 2), 0.1).numpy()
    h_eff = h @ g
    step = np.linalg.norm(np.diff(h_eff, axis=0), axis=(1, 2))
    own_step = np.linalg.norm(np.diff(h, axis=0), axis=(1, 2)) / np.linalg.norm(h, axis=(1, 2))[1:]
    assert np.all(step / np.linalg.norm(h_eff, axis=(1, 2))[1:] < 3 * own_step.max())


def test_precoder_formula_and_power(rng):
    rows = complex_normal(rng, (3, 4, 8))
    alpha = np.array([0.1, 1.0, 10.0], np.float32)
    g = rzf_precoder(rows, alpha).numpy()
    for h, a, result in zip(rows.astype(np.complex128), alpha, g):
        expected = h.conj().T @ np.linalg.inv(h @ h.conj().T + a * np.eye(4))
        expected /= 2 * np.linalg.norm(expected, axis=0)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
        assert np.sum(np.abs(result) ** 2) == pytest.approx(1.0, rel=1e-5)


def test_a_silent_row_radiates_nothing(rng):
    rows = complex_normal(rng, (2, 3, 8))
    rows[:, 1] = 0
    g = rzf_precoder(rows, 0.1).numpy()
    assert not g[..., 1].any() and np.isfinite(g).all()
    np.testing.assert_allclose(np.linalg.norm(g[..., [0, 2]], axis=-2) ** 2, 1 / 3, rtol=1e-5)


def test_zero_forcing_leaves_no_interference(rng):
    rows = complex_normal(rng, (1, 4, 8))
    h = np.broadcast_to(rows[0][None, :, None, :, None], (1, 4, 2, 8, 1))
    h_eff = effective_channel(h, rzf_precoder(rows, 1e-6)[:, None][:, :1]).numpy()
    assert h_eff.shape == (1, 4, 2, 1, 4)
    off = h_eff[0, :, 0, 0] * (1 - np.eye(4))
    assert np.abs(off).max() < 1e-4 * np.abs(h_eff).max()
