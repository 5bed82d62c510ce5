"""Denoising and linear prediction on tones whose continuation is known."""

import numpy as np
import pytest
from keras import ops

from lwmt_sionna.baselines.bins import lag_covariance, prediction_coefficients
from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    least_squares_coefficients,
    noise_power,
)


def tones(rng, num_tones, num_snapshots, grid=(8, 8)):
    """Tones of equal Doppler in all bins, complex `[1, time, angle, delay]`."""
    doppler = np.linspace(-0.35, 0.3, num_tones)
    amplitude = rng.standard_normal((num_tones, *grid)) + 1j * rng.standard_normal(
        (num_tones, *grid)
    )
    phase = np.exp(2j * np.pi * doppler[:, None] * np.arange(num_snapshots))
    return np.einsum("nt,nad->tad", phase, amplitude)[None]


def stacked(x):
    return np.stack([x.real, x.imag], axis=-1).astype(np.float32)


def as_complex(x):
    x = ops.convert_to_numpy(x)
    return x[..., 0] + 1j * x[..., 1]


def relative_error(guess, truth):
    return np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2)


def test_burg_follows_a_tone_and_stays_bounded(rng):
    x = tones(rng, 1, 216)
    orders = range(1, 7)
    fitted = burg_coefficients(stacked(x[:, :16]), orders)
    for order, coefficients in zip(orders, fitted, strict=True):
        forecast = as_complex(extrapolate(stacked(x[:, :16]), coefficients, 5))
        assert relative_error(forecast, x[:, 16:21]) < 1e-4, order
    noise = rng.standard_normal((1, 16, 8, 8)) + 1j * rng.standard_normal((1, 16, 8, 8))
    last = burg_coefficients(stacked(noise), [6])[0]
    forecast = as_complex(extrapolate(stacked(noise), last, 200))
    # Reflection coefficients inside the unit circle: far forecasts of noise die out.
    assert np.abs(forecast[:, -1]).max() < np.abs(forecast[:, 0]).max()


def test_burg_equals_a_plain_recursion(rng):
    x = rng.standard_normal((12, 1, 1)) + 1j * rng.standard_normal((12, 1, 1))
    forward = backward = x[:, 0, 0]
    taps = np.array([1.0 + 0j])
    for _ in range(4):
        ahead, behind = forward[1:], backward[:-1]
        power = np.sum(np.abs(ahead) ** 2 + np.abs(behind) ** 2)
        k = -2 * np.sum(ahead * behind.conj()) / power
        forward, backward = ahead + k * behind, behind + np.conj(k) * ahead
        taps = np.append(taps, 0) + k * np.append(taps, 0)[::-1].conj()
    # One bin: pooling over its own cyclic neighbours leaves ratios as they are.
    ours = burg_coefficients(stacked(x[None]), [4], pool_weight=0.0)[0]
    ours = np.array([as_complex(c.stacked())[0, 0, 0] for c in ours])
    np.testing.assert_allclose(ours, -taps[1:], atol=1e-5)


@pytest.mark.parametrize(("grid", "weight"), [((1, 1), 0.0), ((6, 4), 0.5)])
def test_least_squares_are_those_of_the_normal_equations(grid, weight, rng):
    x = rng.standard_normal((2, 12, *grid)) + 1j * rng.standard_normal((2, 12, *grid))
    ours = least_squares_coefficients(stacked(x), 4, weight)
    ours = np.stack([as_complex(c.stacked()) for c in ours], axis=-1)
    covariance = lag_covariance(x, 5, weight).reshape(-1, 5, 5)
    expected = prediction_coefficients(covariance, 1e-4).reshape(2, *grid, 4)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_least_squares_tell_tones_apart_that_burg_does_not(rng):
    x = tones(rng, 4, 21)
    past, future = stacked(x[:, :16]), x[:, 16:]
    errors = [
        relative_error(as_complex(extrapolate(past, coefficients, 5)), future)
        for coefficients in (least_squares_coefficients(past, 4), burg_coefficients(past, [4])[0])
    ]
    assert errors[0] < 1e-5 < 1e-3 < errors[1]


def test_empty_bins_have_a_future_of_zeros(rng):
    """Half of the grid is empty, and sees nothing of its neighbours."""
    x = tones(rng, 1, 16)
    x[..., 4:] = 0.0
    taps = least_squares_coefficients(stacked(x), 3, pool_weight=0.0)
    forecast = as_complex(extrapolate(stacked(x), taps, 2, bounded=True))
    assert np.all(forecast[..., 4:] == 0.0)
    np.testing.assert_array_less(0.5, np.abs(forecast[..., :4]) / np.abs(x[:, -2:, ..., :4]))


def test_forecasts_may_be_bounded(rng):
    x = stacked(tones(rng, 1, 8))
    growth = ops.full((1, 8, 8), 1.3)
    free, bounded = (
        as_complex(extrapolate(x, [ComplexPair(growth, 0 * growth)], 4, bounded))
        for bounded in (False, True)
    )
    most = 2 * np.abs(as_complex(x)).max(axis=1)
    np.testing.assert_allclose(np.abs(bounded[:, -1]), most, rtol=1e-4)
    np.testing.assert_allclose(np.angle(bounded), np.angle(free), atol=1e-4)
    assert np.all(np.abs(free[:, -1]) > 1.2 * most)


# Two blocks of delays, of which the last repeats one; in one block the cross wraps around.
@pytest.mark.parametrize("num_delay", [10, 53])
@pytest.mark.parametrize(("num_snapshots", "radius"), [(16, 1), (16, 4), (6, 2)])
def test_denoising_is_the_same_by_bins_and_by_snapshots(rng, num_snapshots, radius, num_delay):
    """Against the formula in double precision, on both sides of what is cheaper."""
    grid = (8, num_delay)
    x = rng.standard_normal((num_snapshots, *grid, 2)).astype(np.float32)
    x[..., 0] += 5.0 * tones(rng, 1, num_snapshots, grid)[0].real
    z = x[..., 0] + 1j * x[..., 1]
    arms = range(-radius, radius + 1)
    rows = {(i % 8, 0) for i in arms}
    cross = [(0, 0), *sorted((rows | {(0, j % num_delay) for j in arms}) - {(0, 0)})]
    level = 1.5 * (1 + np.sqrt(len(cross) / num_snapshots)) ** 2
    expected = np.empty_like(z)
    for place in np.ndindex(grid):
        near = np.stack([z[:, (place[0] + i) % 8, (place[1] + j) % num_delay] for i, j in cross])
        values, vectors = np.linalg.eigh(near @ near.conj().T / num_snapshots)
        kept = values**2 / (values**2 + level**2)
        expected[:, place[0], place[1]] = (vectors * kept)[0] @ (vectors.conj().T @ near)
    ours = as_complex(denoise(x[None], radius=radius, noise=ops.ones(1)))[0]
    np.testing.assert_allclose(ours, expected, atol=2e-4)


def leaking_path(num_snapshots=16, grid=32, snr_db=10.0, rng=None):
    """One path between the bins, with noise: complex `[1, time, angle, delay]` twice."""
    index = np.arange(grid)
    wave = np.exp(2j * np.pi * 7.4 * index / grid)
    ramp = np.exp(-2j * np.pi * 11.3 * index / grid)
    time = np.exp(2j * np.pi * 0.21 * np.arange(num_snapshots))
    h = time[:, None, None] * np.outer(wave, ramp)
    x = np.fft.ifft(np.fft.fft(h, axis=1, norm="ortho"), axis=2, norm="ortho")[None]
    deviation = np.sqrt(10 ** (-snr_db / 10) / 2)
    noise = rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)
    return x, x + deviation * noise


def test_noise_power_is_found_beside_a_path(rng):
    _, noisy = leaking_path(snr_db=15.0, rng=rng)
    estimate = float(noise_power(stacked(noisy))[0])
    # The leakage of the path reaches every bin and lifts the estimate a little.
    assert abs(10 * np.log10(estimate) + 15.0) < 1.2


def test_denoising_removes_most_of_the_noise_and_keeps_the_path(rng):
    clean, noisy = leaking_path(snr_db=15.0, rng=rng)
    after = as_complex(denoise(stacked(noisy)))
    before = relative_error(noisy, clean)
    assert 10 * np.log10(relative_error(after, clean) / before) < -8
    # Without noise hardly anything is taken away.
    assert relative_error(as_complex(denoise(stacked(clean))), clean) < 1e-4


@pytest.mark.parametrize("radius", [1, 4])
def test_less_noise_than_single_precision_tells_is_taken_for_as_much(rng, radius):
    clean, _ = leaking_path(rng=rng)
    clean = stacked(20.0 * clean)
    floor = 1e-6 * np.mean(np.sum(clean**2, axis=-1), keepdims=True).reshape(1)
    least = as_complex(denoise(clean, radius=radius, noise=ops.convert_to_tensor(floor)))
    for noise in (0.0, 1e-30, 1e-14):
        found = as_complex(denoise(clean, radius=radius, noise=noise * ops.ones(1)))
        np.testing.assert_allclose(found, least, atol=1e-5 * np.abs(clean).max())


def test_denoising_works_on_grids_smaller_than_its_cross(rng):
    x = rng.standard_normal((2, 8, 3, 1, 2)).astype(np.float32)
    assert denoise(x, radius=2).shape == (2, 8, 3, 1, 2)


def test_everything_scales_with_the_history(rng):
    _, noisy = leaking_path(snr_db=15.0, rng=rng)
    factor = 3e-4 * np.exp(0.7j)
    small = as_complex(denoise(stacked(factor * noisy)))
    large = as_complex(denoise(stacked(noisy)))
    assert relative_error(small, factor * large) < 1e-6


def test_order_must_be_shorter_than_the_history():
    for fit, order in ((burg_coefficients, (2, 4)), (least_squares_coefficients, 4)):
        with pytest.raises(ValueError, match="order=4"):
            fit(np.zeros((1, 4, 2, 2, 2), np.float32), order)
