"""Wiener prediction with a known or an estimated Doppler spectrum."""

import numpy as np

from lwmt_sionna.baselines.bins import BinPredictor, pool

__all__ = ["SpectralWiener", "WienerPredictor", "jakes_autocorrelation", "wiener_forecast"]

_TINY = 1e-30


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
    _GRID = np.concatenate([np.linspace(0.002, 0.1, 15), np.linspace(0.12, 1.2, 55)])

    def __init__(self, normalized_doppler=None, noise_factor=1.0, denoise_radius=None, **kwargs):
        super().__init__(denoise_radius=denoise_radius, **kwargs)
        if normalized_doppler is not None and not normalized_doppler >= 0:
            raise ValueError(
                "normalized_doppler must not be negative. Received: "
                f"normalized_doppler={normalized_doppler}"
            )
        if not noise_factor > 0:
            raise ValueError(
                f"noise_factor must be positive. Received: noise_factor={noise_factor}"
            )
        self.normalized_doppler = None if normalized_doppler is None else float(normalized_doppler)
        self.noise_factor = float(noise_factor)

    def extrapolate(self, x, noise, chosen, num_horizons):
        num_snapshots = x.shape[1]
        samples = np.moveaxis(x, 1, -1).reshape(-1, num_snapshots)[chosen]
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
        best = int(np.argmin([self._cost(f, samples, power, floor) for f in self._GRID]))
        around = self._GRID[max(best - 1, 0)], self._GRID[min(best + 1, len(self._GRID) - 1)]
        finer = np.linspace(*around, 9)
        return finer[int(np.argmin([self._cost(f, samples, power, floor) for f in finer]))]

    def _cost(self, doppler, samples, power, floor):
        """Negative logarithm of the likelihood."""
        matrix = _toeplitz(jakes_autocorrelation(doppler, samples.shape[1]))
        values, vectors = np.linalg.eigh(matrix)
        variance = power[:, None] * np.maximum(values, 0.0) + floor[:, None]
        energy = np.abs(samples @ vectors.conj()) ** 2
        return np.sum(np.log(variance) + energy / variance)


class SpectralWiener(BinPredictor):
    r"""Wiener prediction with a Doppler spectrum of its own for every bin.

    The spectrum on a fine grid maximises the likelihood of the bin and its neighbours (sparse
    Bayesian learning: a covariance $\sigma^2 I + E \Gamma E^H$ whose non-negative powers $\Gamma$
    are found by MacKay's fixed point). Prediction is the conditional mean under that covariance.

    Args:
        num_frequencies: Points of the Doppler grid.
        num_iterations: Steps of the fixed point.
        noise_factor: Noise that is assumed, over the measured noise power; denoised bins hold less.
        pool_weight: Weight of a neighbouring bin along an axis.
        **kwargs: Arguments of `BinPredictor`.

    Reference:
        Wipf and Rao 2007, An empirical Bayesian strategy for solving the simultaneous sparse
        approximation problem (IEEE TSP 55); Tipping 2001, Sparse Bayesian learning and the
        relevance vector machine (JMLR 1).
    """

    name = "spectral_wiener"

    def __init__(
        self,
        num_frequencies=64,
        num_iterations=20,
        noise_factor=0.1,
        pool_weight=0.5,
        denoise_radius=3,
        significance=0.5,
        **kwargs,
    ):
        super().__init__(denoise_radius=denoise_radius, significance=significance, **kwargs)
        for name, value in (
            ("num_frequencies", num_frequencies),
            ("num_iterations", num_iterations),
            ("noise_factor", noise_factor),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive. Received: {name}={value}")
        self.num_frequencies = int(num_frequencies)
        self.num_iterations = int(num_iterations)
        self.noise_factor = float(noise_factor)
        self.pool_weight = float(pool_weight)

    def extrapolate(self, x, noise, chosen, num_horizons):
        num_snapshots = x.shape[1]
        sample = np.empty((*x[:, 0].shape, num_snapshots, num_snapshots), np.complex128)
        for i in range(num_snapshots):
            for j in range(i, num_snapshots):
                sample[..., i, j] = pool(x[:, i] * x[:, j].conj(), self.pool_weight)
                sample[..., j, i] = sample[..., i, j].conj()
        # The pool's own power does not matter: it is brought to that of the bin.
        sample = sample.reshape(-1, num_snapshots, num_snapshots)[chosen]
        samples = np.moveaxis(x, 1, -1).reshape(-1, num_snapshots)[chosen]
        power = np.mean(np.abs(samples) ** 2, axis=1)
        pooled = np.trace(sample, axis1=1, axis2=2).real / num_snapshots
        sample *= (power / np.maximum(pooled, _TINY))[:, None, None]
        floor = self.noise_factor * noise[chosen // (x.shape[2] * x.shape[3])]
        future = np.empty((len(chosen), num_horizons), np.complex128)
        for begin in range(0, len(chosen), 512):  # what fits the caches
            part = slice(begin, begin + 512)
            future[part] = self._forecast(sample[part], samples[part], floor[part], num_horizons)
        return future

    def _forecast(self, sample, samples, floor, num_horizons):
        num_snapshots = samples.shape[1]
        frequencies = np.arange(self.num_frequencies) / self.num_frequencies
        basis = np.exp(2j * np.pi * np.arange(num_snapshots)[:, None] * frequencies)
        eye = np.eye(num_snapshots)
        spectrum = np.einsum("tg,ntg->ng", basis.conj(), sample @ basis).real
        spectrum = np.maximum(spectrum, 0) / num_snapshots**2 + _TINY
        spectrum /= self.num_frequencies / num_snapshots
        for _ in range(self.num_iterations):
            covariance = (spectrum[:, None, :] * basis) @ basis.conj().T
            covariance += floor[:, None, None] * eye
            filtered = np.linalg.solve(
                covariance, np.broadcast_to(basis, (len(sample), *basis.shape))
            )
            evidence = np.einsum(
                "tng,tng->ng", *(np.moveaxis(v, 1, 0) for v in (filtered.conj(), sample @ filtered))
            ).real
            expected = np.einsum("tg,ntg->ng", basis.conj(), filtered).real
            spectrum = spectrum * evidence / np.maximum(expected, _TINY)
        covariance = (spectrum[:, None, :] * basis) @ basis.conj().T + floor[:, None, None] * eye
        whitened = np.linalg.solve(covariance, samples[..., None])[..., 0]
        weights = spectrum * (whitened @ basis.conj())
        ahead = np.arange(num_snapshots, num_snapshots + num_horizons)
        return weights @ np.exp(2j * np.pi * frequencies[:, None] * ahead)


def jakes_autocorrelation(normalized_doppler, num_lags):
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


def wiener_forecast(samples, correlation, noise_ratio, num_horizons):
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


def _toeplitz(correlation):
    """Hermitian matrix with element (i, j) = E[x[i] conj(x[j])]."""
    index = np.arange(len(correlation))
    lag = index[:, None] - index[None, :]
    values = np.asarray(correlation)[np.abs(lag)]
    return np.where(lag >= 0, values, values.conj())
