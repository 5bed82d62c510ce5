"""Wiener prediction with a known or an estimated Doppler spectrum."""

import functools
from typing import Any

import numpy as np

from lwmt_sionna.baselines.base import require
from lwmt_sionna.baselines.bins import BinPredictor, chosen_snapshots
from lwmt_sionna.typing import Array, ArrayLike

__all__ = ["WienerPredictor", "jakes_autocorrelation", "wiener_forecast"]

_TINY = 1e-30
_GRID = np.concatenate([np.linspace(0.002, 0.1, 15), np.linspace(0.12, 1.2, 55)])


class WienerPredictor(BinPredictor):
    r"""Linear minimum mean square error prediction with Jakes' Doppler spectrum.

    Every bin is a stationary process of autocorrelation $p J_0(2 \pi f k)$ in white noise, with the
    bin's own power $p$ and one normalised maximum Doppler shift $f$ for all: known (from the
    user's speed), or the most likely one given all bins.

    Args:
        normalized_doppler: Maximum Doppler shift times the sampling period, known; `None` to
            estimate it per sequence.
        noise_factor: Noise that the filter assumes, over the measured noise power; denoised bins
            hold less.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Clarke 1968, A statistical theory of mobile-radio reception, for the spectrum; Duel-Hallen
        2007, Fading channel prediction for mobile radio adaptive transmission systems, for the
        predictor.
    """

    name = "wiener"
    _NUM_BINS = 64

    def __init__(
        self,
        normalized_doppler: float | None = None,
        noise_factor: float = 1.0,
        denoise_radius: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(denoise_radius=denoise_radius, **kwargs)
        known = normalized_doppler is None or normalized_doppler >= 0
        require("normalized_doppler", normalized_doppler, known, "not negative")
        require("noise_factor", noise_factor, noise_factor > 0, "positive")
        self.normalized_doppler = None if normalized_doppler is None else float(normalized_doppler)
        self.noise_factor = float(noise_factor)

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        num_snapshots = x.shape[1]
        samples = chosen_snapshots(x, chosen)
        owner = chosen // (x.shape[2] * x.shape[3])
        floor = self.noise_factor * noise[owner]
        power = np.mean(np.abs(samples) ** 2, axis=1)
        power = np.maximum(power - floor, 1e-3 * floor + _TINY)
        future = np.empty((len(chosen), num_horizons), np.complex128)
        for sequence in range(len(x)):
            mine = owner == sequence
            if not mine.any():
                continue
            doppler = self.normalized_doppler
            if doppler is None:
                doppler = self._most_likely(samples[mine], power[mine], floor[mine])
            correlation = jakes_autocorrelation(doppler, num_snapshots + num_horizons)
            future[mine] = wiener_forecast(
                samples[mine], correlation, floor[mine] / power[mine], num_horizons
            )
        return future

    def _most_likely(self, samples, power, floor):
        # Bins that hold little but noise tell nothing, and cost as much.
        loudest = np.argsort(-power / floor)[: self._NUM_BINS]
        samples, power, floor = samples[loudest], power[loudest], floor[loudest]
        best = int(np.argmin(_costs(_grid_eigen(samples.shape[1]), samples, power, floor)))
        around = _GRID[max(best - 1, 0)], _GRID[min(best + 1, len(_GRID) - 1)]
        finer = np.linspace(*around, 9)
        eigen = _jakes_eigen(finer, samples.shape[1])
        return finer[int(np.argmin(_costs(eigen, samples, power, floor)))]


def jakes_autocorrelation(normalized_doppler: float, num_lags: int) -> Array:
    r"""Autocorrelation of Jakes' spectrum, $J_0(2 \pi f k)$ for lags k = 0, 1, ...

    Args:
        normalized_doppler: Maximum Doppler shift times the sampling period.
        num_lags: Number of lags.

    Returns:
        float64 `[num_lags]`.
    """
    # The mean over directions of arrival; exact to rounding while f * num_lags stays below 60.
    directions = 2 * np.pi * (np.arange(512) + 0.5) / 512
    phase = 2 * np.pi * normalized_doppler * np.arange(num_lags)
    return np.mean(np.cos(phase[:, None] * np.sin(directions)), axis=1)


def wiener_forecast(
    samples: Array, correlation: ArrayLike, noise_ratio: Array, num_horizons: int
) -> Array:
    """Best linear forecast of a stationary process in white noise.

    Args:
        samples: complex `[n, num_snapshots]`, noisy.
        correlation: Autocorrelation `E[x[t + k] conj(x[t])]` of the process over its power for lags
            0 to `num_snapshots + num_horizons - 1`, `[num_lags]`.
        noise_ratio: Noise power over the process's power, float `[n]`.
        num_horizons: Snapshots to predict.

    Returns:
        complex `[n, num_horizons]`.
    """
    num_snapshots = samples.shape[1]
    values, vectors = np.linalg.eigh(_toeplitz(np.asarray(correlation)[:num_snapshots]))
    ahead = np.arange(1, num_horizons + 1)[:, None] + num_snapshots - 1 - np.arange(num_snapshots)
    cross = np.asarray(correlation)[ahead] @ vectors
    filtered = (samples @ vectors.conj()) / (np.maximum(values, 0.0) + noise_ratio[:, None])
    return filtered @ cross.T


def _costs(eigen, samples, power, floor):
    """Negative logarithm of the likelihood of every spectrum."""
    values, vectors = eigen
    variance = power[:, None] * values[:, None] + floor[:, None]
    energy = np.matmul(samples.real, vectors) ** 2 + np.matmul(samples.imag, vectors) ** 2
    return np.sum(np.log(variance) + energy / variance, axis=(1, 2))


@functools.lru_cache(maxsize=4)
def _grid_eigen(num_snapshots):
    return _jakes_eigen(_GRID, num_snapshots)


def _jakes_eigen(dopplers, num_snapshots):
    """Eigenvalues `[n, num_snapshots]` and eigenvectors of the covariances of spectra."""
    matrices = [_toeplitz(jakes_autocorrelation(f, num_snapshots)) for f in dopplers]
    values, vectors = np.linalg.eigh(np.stack(matrices))
    return np.maximum(values, 0.0), vectors


def _toeplitz(correlation):
    """Hermitian matrix with element (i, j) = E[x[i] conj(x[j])]."""
    index = np.arange(len(correlation))
    lag = index[:, None] - index[None, :]
    values = np.asarray(correlation)[np.abs(lag)]
    return np.where(lag >= 0, values, values.conj())
