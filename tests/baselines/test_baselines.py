"""Baselines on channels whose future is known."""

import numpy as np
import pytest

from lwmt_sionna import baselines


def single_path(doppler=0.13, num_snapshots=21):
    """One path on the bins of a 16 x 16 grid, complex64 `[1, time, 16, 16]`."""
    index = np.arange(16)
    h = np.outer(np.exp(2j * np.pi * 3 * index / 16), np.exp(-2j * np.pi * 5 * index / 16))
    phase = np.exp(2j * np.pi * doppler * np.arange(num_snapshots))
    return (phase[:, None, None] * h)[None].astype(np.complex64)


def error_db(guess, truth):
    return 10 * np.log10(np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2))


ALL = {
    "zero": baselines.ZeroPredictor,
    "hold": baselines.Hold,
    "pooled_ar": baselines.PooledAutoregression,
    "local_ar": baselines.LocalAutoregression,
    "denoised_ar": baselines.DenoisedAutoregression,
}


@pytest.mark.parametrize("name", ALL)
def test_one_interface(rng, name):
    shape = (3, 16, 8, 8)
    history = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    predictor = ALL[name]()
    future = predictor(history, 4)
    assert future.shape == (3, 4, 8, 8) and future.dtype == np.complex64
    assert np.isfinite(future).all()
    # Scale equivariance, at the path gains of real channels too.
    factor = np.complex64(2e-6j)
    np.testing.assert_allclose(predictor(factor * history, 4) / factor, future, atol=2e-3)
    # Shorter horizons are the first of longer ones.
    np.testing.assert_allclose(predictor(history, 2), future[:, :2], atol=2e-4)


def test_hold_is_exact_at_zero_speed():
    h = single_path(doppler=0.0)
    np.testing.assert_array_equal(baselines.Hold()(h[:, :16], 5), h[:, 16:])


@pytest.mark.parametrize("name", ["pooled_ar", "local_ar", "denoised_ar"])
def test_linear_prediction_follows_a_noiseless_path(name):
    h = single_path()
    assert error_db(ALL[name]()(h[:, :16], 5), h[:, 16:]) < -35


def test_denoising_helps(rng):
    h = np.concatenate([single_path(d) for d in np.linspace(-0.4, 0.4, 8)])
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    history = (h + noise * np.sqrt(10**-1.5 / 2))[:, :16].astype(np.complex64)
    plain = error_db(baselines.LocalAutoregression()(history, 1), h[:, 16:17])
    denoised = error_db(baselines.DenoisedAutoregression()(history, 1), h[:, 16:17])
    assert denoised < plain - 3


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (np.zeros((2, 16, 4), np.complex64), "num_snapshots"),
        (np.zeros((2, 16, 4, 4)), "complex"),
        (np.full((1, 16, 4, 4), np.nan, np.complex64), "NaN"),
    ],
)
def test_wrong_histories_are_refused(history, message):
    with pytest.raises(ValueError, match=message):
        baselines.Hold()(history, 1)


def test_order_must_fit_the_history():
    with pytest.raises(ValueError, match="order=5"):
        baselines.LocalAutoregression(order=5)(np.zeros((1, 5, 4, 4), np.complex64), 1)
