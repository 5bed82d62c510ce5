"""Kalman prediction with an autoregressive state per angle-delay bin."""

from typing import Any

import numpy as np

from lwmt_sionna.baselines.base import require
from lwmt_sionna.baselines.bins import (
    BinPredictor,
    chosen_covariance,
    chosen_snapshots,
    clamp_poles,
    companion,
    prediction_coefficients,
)
from lwmt_sionna.typing import Array

__all__ = ["KalmanPredictor", "autoregressive_covariance", "kalman_forecast"]

_TINY = 1e-30


class KalmanPredictor(BinPredictor):
    """Vector Kalman filter over the last snapshots of every bin.

    The state is the vector of a bin's last `order` snapshots, which follows an autoregressive model
    and is seen in white noise. In the angle-delay domain the bins of a channel are close to
    uncorrelated, so the filter of the whole array falls apart into one of each bin. Coefficients
    come from the modified covariance method over the bin and its neighbours, poles are drawn
    inside the unit circle, and the driving noise is what gives the model the bin's own power.

    Args:
        order: Order of the autoregressive model.
        ridge: Regularisation of the coefficients relative to the mean power of the regressors.
        radius: Largest modulus of a pole, below 1: how long a path stays coherent.
        noise_factor: Measurement noise that the filter assumes, over the measured noise power;
            denoised bins hold less.
        pool_weight: Weight of a neighbouring bin along an axis.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Kim, Kim and Choi 2021, Massive MIMO channel prediction: Kalman filtering vs. machine
        learning (IEEE TCOM 69); Baddour and Beaulieu 2005, Autoregressive modeling for fading
        channel simulation, for the model.
    """

    name = "kalman"

    def __init__(
        self,
        order: int = 4,
        ridge: float = 1e-4,
        radius: float = 0.999,
        noise_factor: float = 0.1,
        pool_weight: float = 0.5,
        denoise_radius: int | None = 3,
        significance: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(denoise_radius=denoise_radius, significance=significance, **kwargs)
        require("order", order, int(order) == order and order >= 1, "a positive integer")
        require("radius", radius, 0 < radius < 1, "in (0, 1)")
        for name, value in (("ridge", ridge), ("noise_factor", noise_factor)):
            require(name, value, value >= 0, "not negative")
        self.order = int(order)
        self.ridge = float(ridge)
        self.radius = float(radius)
        self.noise_factor = float(noise_factor)
        self.pool_weight = float(pool_weight)

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        covariance = chosen_covariance(x, chosen, self.order + 1, self.pool_weight)
        coefficients = prediction_coefficients(covariance, self.ridge)
        coefficients = clamp_poles(coefficients, self.radius)[0]
        samples = chosen_snapshots(x, chosen)
        floor = self.noise_factor * noise[chosen // (x.shape[2] * x.shape[3])]
        power = np.mean(np.abs(samples) ** 2, axis=1)
        power = np.maximum(power - floor, 1e-2 * power + _TINY)
        return kalman_forecast(samples, coefficients, power, floor, num_horizons)


def kalman_forecast(
    samples: Array, coefficients: Array, power: Array, noise: Array, num_horizons: int
) -> Array:
    """Filters noisy samples of stationary autoregressive processes and forecasts them.

    Args:
        samples: complex `[n, num_snapshots]`.
        coefficients: complex `[n, order]`, the nearest lag first, poles inside the unit circle.
        power: Power of the processes, float `[n]`.
        noise: Power of the measurement noise, float `[n]`.
        num_horizons: Snapshots to predict.

    Returns:
        complex `[n, num_horizons]`: the conditional means, given that the model is true.
    """
    order = coefficients.shape[1]
    covariance, driving = autoregressive_covariance(coefficients, power)
    transition = companion(coefficients)
    adjoint = transition.conj().swapaxes(1, 2)
    state = np.zeros((len(samples), order), np.complex128)
    for instant in range(samples.shape[1]):
        if instant:
            state = np.einsum("nij,nj->ni", transition, state)
            covariance = transition @ covariance @ adjoint
            covariance[:, 0, 0] += driving
        gain = covariance[:, :, 0] / (covariance[:, 0, 0].real + noise + _TINY)[:, None]
        state = state + gain * (samples[:, instant] - state[:, 0])[:, None]
        covariance = covariance - gain[:, :, None] * covariance[:, None, 0, :]
        # Rounding must not make it lose its symmetry.
        covariance = (covariance + covariance.conj().swapaxes(1, 2)) / 2
    futures = []
    for _ in range(num_horizons):
        state = np.einsum("nij,nj->ni", transition, state)
        futures.append(state[:, 0])
    return np.stack(futures, axis=1)


def autoregressive_covariance(coefficients: Array, power: Array) -> tuple[Array, Array]:
    """Stationary covariance of the last snapshots of autoregressive processes.

    Args:
        coefficients: complex `[n, order]`, the nearest lag first, poles inside the unit circle.
        power: Power of the processes, float `[n]`.

    Returns:
        Tuple of the covariance, complex `[n, order, order]`, element (i, j) = E[x[t - i]
        conj(x[t - j])], and the power of the driving noise, float `[n]`.

    Reference:
        Levinson 1947; Marple 1987, Digital Spectral Analysis with Applications, section 3.8.1
        (step-down).
    """
    order = coefficients.shape[1]
    # Levinson's recursion backwards: the predictors of all lower orders and their reflections.
    predictors: list[Array] = [coefficients]
    reflections: list[Array] = []
    for m in range(order, 0, -1):
        last = predictors[0]
        k = last[:, m - 1 : m]
        reflections.insert(0, k)
        shorter = last[:, : m - 1] + k * last[:, m - 2 :: -1][:, : m - 1].conj()
        predictors.insert(0, shorter / np.maximum(1 - np.abs(k) ** 2, _TINY))
    # And forwards: lags of a process of unit power, and the errors of its predictors.
    lags, error = [np.ones((len(coefficients), 1), np.complex128)], 1.0
    for m, k in enumerate(reflections, start=1):
        near = predictors[m - 1] * np.concatenate(lags[:0:-1], axis=1) if m > 1 else 0.0 * k
        lags.append(near.sum(axis=1, keepdims=True) + k * error)
        error = error * (1 - np.abs(k) ** 2)
    lags = np.concatenate(lags, axis=1)
    # Element (i, j) is that of lag j - i; negative ones are conjugate.
    distance = np.subtract.outer(np.arange(order), np.arange(order))
    covariance = lags[:, np.abs(distance)]
    covariance = np.where(distance > 0, covariance.conj(), covariance)
    return covariance * power[:, None, None], np.asarray(error)[:, 0] * power
