"""Baselines on signals whose best prediction is known."""

import pathlib

import numpy as np
import pytest

from lwmt_sionna import baselines
from lwmt_sionna.baselines.base import as_complex, as_pairs
from lwmt_sionna.baselines.bins import (
    autoregressive_covariance,
    clamp_poles,
    jakes_autocorrelation,
    kalman_forecast,
    lag_covariance,
    pool,
    prediction_coefficients,
    prony_poles,
    wiener_forecast,
)
from lwmt_sionna.data import PlanarArray, read_paths, subcarrier_frequencies
from lwmt_sionna.evaluation import draw_trial, normalized_error, to_db

DATA = pathlib.Path(__file__).parents[2] / "experiments" / "data"


def complex_normal(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def from_bins(x):
    from lwmt_sionna.ops.angle_delay import inverse_angle_delay_transform

    return as_complex(inverse_angle_delay_transform(as_pairs(x)))


def error_db(guess, truth):
    return 10 * np.log10(np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2))


def tones_per_bin(rng, num_tones, num_snapshots=21):
    """As many tones with Doppler shifts of their own in every bin of an 8 x 8 grid."""
    shape = (2, 1, 8, 8)
    x = 0
    for index in range(num_tones):
        # apart from each other, so that few snapshots tell them
        doppler = (index + rng.uniform(0.2, 0.8, shape)) / num_tones - 0.5
        gain = complex_normal(rng, *shape) + 1.0
        x = x + gain * np.exp(2j * np.pi * doppler * np.arange(num_snapshots)[:, None, None])
    return from_bins(x).astype(np.complex64)


EXACT = {
    "clamped": lambda order: baselines.ClampedAutoregression(
        order=order, ridge=0.0, pool_weight=0.0, denoise_radius=None, significance=0.0
    ),
    "direct": lambda order: baselines.DirectAutoregression(
        order=order, ridge=1e-9, pool_weight=0.0, denoise_radius=None, significance=0.0
    ),
    "prony": lambda order: baselines.PronyPredictor(
        order=order, rank=order // 2, tolerance=0.0, ridge=0.0, pool_weight=0.0,
        denoise_radius=None, significance=0.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "bound"), [("clamped", -70), ("direct", -60), ("prony", -70)])
@pytest.mark.parametrize("num_tones", [1, 3])
def test_order_2m_is_exact_on_m_tones_per_bin(rng, name, bound, num_tones):
    h = tones_per_bin(rng, num_tones)
    predictor = EXACT[name](2 * num_tones)
    assert error_db(predictor(h[:, :16], 3), h[:, 16:19]) < bound


def test_perfect_csi_has_no_error(rng):
    h = complex_normal(rng, 40, 21, 4, 4).astype(np.complex64)
    np.testing.assert_array_equal(baselines.PerfectCsi(h[:, 16:])(h[:, :16], 3), h[:, 16:19])
    noisy = baselines.PerfectCsi(h[:, 16:], history_snr_db=15.0)
    assert noisy.name == "noisy_perfect"
    assert error_db(noisy(h[:, :16], 5), h[:, 16:]) == pytest.approx(-15, abs=0.3)
    with pytest.raises(ValueError, match="other sequences"):
        noisy(h[:5, :16], 3)


def test_order_must_suffice(rng):
    """The same signals defeat an order below the number of tones: the test above can fail."""
    h = tones_per_bin(rng, 3)
    assert error_db(EXACT["clamped"](2)(h[:, :16], 3), h[:, 16:19]) > -20


def test_aligned_hold_follows_a_common_rotation(rng):
    h = complex_normal(rng, 3, 1, 4, 4) * np.exp(0.7j * np.arange(21))[:, None, None]
    h = h.astype(np.complex64)
    assert error_db(baselines.PhaseAlignedHold()(h[:, :16], 5), h[:, 16:]) < -100


def test_error_of_the_aligned_hold_is_one_minus_correlation_squared(rng):
    """A first-order process: correlation a ** h at horizon h."""
    a, num_snapshots = 0.95 * np.exp(0.9j), 2005
    h = np.empty((1, num_snapshots, 8, 8), np.complex128)
    h[:, 0] = complex_normal(rng, 1, 8, 8)
    for t in range(1, num_snapshots):
        h[:, t] = a * h[:, t - 1] + np.sqrt(1 - abs(a) ** 2) * complex_normal(rng, 1, 8, 8)
    errors, powers = np.zeros(5), np.zeros(5)
    predictor = baselines.PhaseAlignedHold()
    for begin in range(1000, 2000, 10):  # long histories: the factor itself is known
        guess = predictor(h[:, begin - 1000 : begin].astype(np.complex64), 5)[0]
        truth = h[0, begin : begin + 5]
        errors += np.sum(np.abs(guess - truth) ** 2, axis=(1, 2))
        powers += np.sum(np.abs(truth) ** 2, axis=(1, 2))
    expected = 1 - abs(a) ** (2 * np.arange(1, 6))
    np.testing.assert_allclose(errors / powers, expected, rtol=0.1)


def autoregressive(rng, num, order, radius=0.95):
    """Coefficients of random stable models, complex `[num, order]`."""
    coefficients = complex_normal(rng, num, order)
    return clamp_poles(coefficients, radius)[0]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_kalman_is_wiener(rng, order):
    """Given the same process and noise, both are the conditional mean, snapshot by snapshot."""
    num, num_snapshots, horizons = 20, 16, 5
    coefficients = autoregressive(rng, num, order)
    power, noise = rng.uniform(0.5, 2.0, num), rng.uniform(0.01, 1.0, num)
    samples = complex_normal(rng, num, num_snapshots)
    kalman = kalman_forecast(samples, coefficients, power, noise, horizons)
    covariance, _ = autoregressive_covariance(coefficients, power)
    for index in range(num):
        # E[x[t + k] conj(x[t])]: known for lags below the order, then by recursion.
        lags = list(covariance[index, 0, :order] / power[index])
        while len(lags) < num_snapshots + horizons:
            past = [
                lags[len(lags) - 1 - k]
                if len(lags) - 1 - k >= 0
                else np.conj(lags[k + 1 - len(lags)])
                for k in range(order)
            ]
            lags.append(np.sum(coefficients[index] * past))
        wiener = wiener_forecast(
            samples[index : index + 1],
            np.array(lags),
            noise[index : index + 1] / power[index],
            horizons,
        )
        np.testing.assert_allclose(kalman[index : index + 1], wiener, atol=1e-9)


def test_stationary_covariance(rng):
    coefficients = autoregressive(rng, 3, 3, radius=0.9)
    covariance, driving = autoregressive_covariance(coefficients, np.array([1.0, 2.0, 0.5]))
    np.testing.assert_allclose(covariance[:, 0, 0], [1.0, 2.0, 0.5])
    np.testing.assert_allclose(covariance, covariance.conj().swapaxes(1, 2), atol=1e-12)
    transition = np.zeros((3, 3, 3), complex)
    transition[:, 0], transition[:, 1, 0], transition[:, 2, 1] = coefficients, 1, 1
    next_one = transition @ covariance @ transition.conj().swapaxes(1, 2)
    next_one[:, 0, 0] += driving
    np.testing.assert_allclose(next_one, covariance, atol=1e-12)


def test_wiener_meets_its_own_error(rng):
    """On processes of the assumed kind the error is the one that theory gives."""
    doppler, num_snapshots, noise = 0.1, 16, 0.05
    lags = jakes_autocorrelation(doppler, num_snapshots + 2)
    index = np.arange(num_snapshots + 1)
    full = lags[np.abs(index[:, None] - index)]
    x = (
        complex_normal(rng, 20_000, num_snapshots + 1)
        @ np.linalg.cholesky(full + 1e-9 * np.eye(17)).T
    )
    y = x[:, :-1] + np.sqrt(noise) * complex_normal(rng, 20_000, num_snapshots)
    guess = wiener_forecast(y, lags, np.full(len(y), noise), 1)[:, 0]
    measured = np.mean(np.abs(guess - x[:, -1]) ** 2)
    cross = full[-1, :-1]
    expected = 1 - cross @ np.linalg.solve(full[:-1, :-1] + noise * np.eye(16), cross)
    assert measured == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("doppler", [0.02, 0.11, 0.37])
def test_wiener_finds_the_width_of_the_spectrum(rng, doppler):
    """Bins of many waves from all directions: the estimate is as good as the truth."""
    waves = 60
    direction = rng.uniform(0, 2 * np.pi, (2, 1, 8, 16, waves))
    time = np.arange(21)[:, None, None, None]
    phase = 2 * np.pi * (doppler * np.cos(direction) * time + rng.uniform(size=direction.shape))
    x = np.exp(1j * phase).sum(-1)
    x[..., 6:] = 0  # as in a channel, most bins hold noise alone
    h = from_bins(x).astype(np.complex64)
    noisy = h + np.sqrt(0.01 * np.mean(np.abs(h) ** 2)) * complex_normal(rng, *h.shape)
    known = baselines.WienerPredictor(normalized_doppler=doppler)
    estimated = baselines.WienerPredictor()
    errors = [error_db(p(noisy[:, :16], 1), h[:, 16:17]) for p in (known, estimated)]
    assert errors[1] < errors[0] + 0.5
    lags = jakes_autocorrelation(doppler, 17)
    matrix = lags[np.abs(np.arange(16)[:, None] - np.arange(16))] + 0.01 * 6 / 16 * np.eye(16)
    expected = 1 - lags[:0:-1] @ np.linalg.solve(matrix, lags[:0:-1])
    assert errors[0] == pytest.approx(10 * np.log10(expected), abs=1.0)


def test_bessel_function():
    scipy_special = pytest.importorskip("scipy.special")
    lags = np.arange(30)
    np.testing.assert_allclose(
        jakes_autocorrelation(0.97, 30), scipy_special.j0(2 * np.pi * 0.97 * lags), atol=1e-12
    )


def frequency_bound(snr, num_snapshots):
    """Cramer-Rao bound of a tone's frequency, cycles per snapshot squared (Rife and Boorstyn)."""
    return 6 / ((2 * np.pi) ** 2 * snr * num_snapshots * (num_snapshots**2 - 1))


def test_prony_finds_doppler_shifts_near_the_bound(rng):
    num, num_snapshots, snr = 3000, 16, 10.0
    doppler = rng.uniform(-0.4, 0.4, num)
    x = np.exp(2j * np.pi * doppler * np.arange(num_snapshots)[:, None])
    x = x + complex_normal(rng, *x.shape) / np.sqrt(snr)
    covariance = lag_covariance(x[None, :, :, None], 12)[0, :, 0]
    poles, is_path = prony_poles(covariance, 1)
    assert is_path.all()
    error = np.mean((np.angle(poles[:, 0]) / (2 * np.pi) - doppler) ** 2)
    ratio = error / frequency_bound(snr, num_snapshots)
    assert 0.8 < ratio < 2.0  # 3 dB


def test_poles_are_drawn_to_the_circle(rng):
    poles = np.array([[1.5 * np.exp(0.4j), 0.5 * np.exp(-1.0j)]])
    coefficients = np.stack([poles.sum(1), -poles.prod(1)], axis=1)
    clamped, found = clamp_poles(coefficients, 1.0)
    np.testing.assert_allclose(sorted(np.abs(found[0])), [0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(np.angle(found[0]).max(), 0.4)
    np.testing.assert_allclose(clamped[0], [found[0].sum(), -found[0].prod()])
    inside = coefficients * [[0.5, 0.25]]
    np.testing.assert_array_equal(clamp_poles(inside, 1.0)[0], inside)


def test_coefficients_of_a_window(rng):
    """Against least squares on the explicit windows."""
    x = complex_normal(rng, 1, 12, 1, 1)
    covariance = lag_covariance(x, 4)[0, 0]
    both = x[0, :, 0, 0], x[0, ::-1, 0, 0].conj()
    rows = np.stack([series[t : t + 3][::-1] for series in both for t in range(9)])
    targets = np.concatenate([series[3:] for series in both])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    np.testing.assert_allclose(prediction_coefficients(covariance)[0], expected, atol=1e-10)


def test_pool(rng):
    plane = rng.standard_normal((3, 4))
    assert pool(plane, 0.5)[0, 0] == pytest.approx(
        plane[0, 0]
        + 0.5 * (plane[1, 0] + plane[-1, 0] + plane[0, 1] + plane[0, -1])
        + 0.25 * (plane[1, 1] + plane[1, -1] + plane[-1, 1] + plane[-1, -1])
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baselines.DirectAutoregression(order=0), "order=0"),
        (lambda: baselines.ClampedAutoregression(radius=0.0), "radius=0"),
        (lambda: baselines.PronyPredictor(rank=9, order=8), "rank=9"),
        (lambda: baselines.WienerPredictor(normalized_doppler=-1.0), "normalized_doppler=-1"),
        (lambda: baselines.WienerPredictor(noise_factor=0.0), "noise_factor=0"),
        (lambda: baselines.PerfectCsi(np.ones((1, 5, 4, 4))), "float64"),
        (lambda: baselines.KalmanPredictor(radius=1.0), "radius=1"),
        (lambda: baselines.PathPredictor(threshold=0.0), "threshold=0"),
        (lambda: baselines.PathPredictor(residual_order=-1), "residual_order=-1"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "predictor",
    [
        baselines.DirectAutoregression(order=7, denoise_radius=None),
        baselines.ClampedAutoregression(order=7, denoise_radius=None),
        baselines.PronyPredictor(order=7, denoise_radius=None),
        baselines.KalmanPredictor(order=7, denoise_radius=None),
        baselines.PhaseAlignedHold(),
    ],
    ids=lambda p: p.name,
)
def test_histories_must_be_long_enough(predictor):
    with pytest.raises(ValueError, match="num_snapshots="):
        predictor(np.ones((1, 5, 4, 4), np.complex64), 6)


@pytest.mark.parametrize("name", baselines.CLASSICAL)
def test_a_report_that_repeats_the_one_before_is_found_and_filled(name, rng):
    t, m, k = np.ogrid[:21, :8, :8]
    rays = [(1.0, 0.11, 0.13, 0.29), (0.6j, -0.07, 0.61, 0.83)]
    waves = [a * np.exp(2j * np.pi * (f * t + u * m - v * k)) for a, f, u, v in rays]
    h = sum(waves) + 0.03 * complex_normal(rng, 2, 21, 8, 8)
    held, arrived = h.copy(), np.ones((2, 16), bool)
    for user, place in enumerate((10, 15)):
        held[user, place] = held[user, place - 1]
        arrived[user, place] = False
    predictor = baselines.tuned_baselines(25.0, [name])[name]
    future = predictor(held[:, :16], 3)
    np.testing.assert_array_equal(future, predictor(held[:, :16], 3, arrived=arrived))
    if name == "hold":  # which foresees nothing
        np.testing.assert_array_equal(future, np.repeat(held[:, 15:16].astype(np.complex64), 3, 1))
        return
    # What is filled in costs no more than what noise does.
    whole = predictor(h[:, :16], 3)
    assert np.abs(future - whole).max() < 0.2 * np.abs(h).max()


def test_births_are_found_while_other_paths_are_yet_to_be():
    """In streets leakage of other paths is much of what a window leaves, and tells nothing."""
    paths = read_paths(DATA / "san_francisco_30kmh_5ms.h5").select(slice(0, 32))
    frequencies = subcarrier_frequencies(32, 540e3)
    trial = draw_trial(paths, PlanarArray(1, 32), frequencies, history_snr_db=15.0)
    future = baselines.PathPredictor(num_paths=24)(trial.history, 1)
    error, power = normalized_error(future[:, 0], trial.future[:, 0])
    foreseeable = trial.subsets["event_free"][0]
    assert np.quantile(to_db(error / power)[foreseeable], 0.9) < -15
