"""Classical predictors, bin by bin in the angle-delay domain, in NumPy: Kalman, Prony, Wiener."""

import abc
import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from lwmt_sionna.baselines.base import (
    Predictor,
    as_complex,
    as_pairs,
    as_shape,
    batch_shape,
    require,
)
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import denoise, noise_power
from lwmt_sionna.typing import Array, ArrayLike

_TINY = 1e-30
# Least values of settings that several predictors have; those of integers are integers.
_LEAST = {"batch_size": 1, "order": 1, "ridge": 0.0, "significance": 0.0, "tolerance": 0.0}


@dataclasses.dataclass(eq=False)
class BinPredictor(Predictor):
    """Continues the bins of the angle-delay domain, each from itself and its neighbours.

    Where subclasses have them, `order` is the number of coefficients of their linear prediction,
    `ridge` the regularisation relative to the mean power of its regressors, and `pool_weight` the
    weight of a neighbouring bin along an axis, see `pool`.

    Args:
        denoise_radius: Arm of the denoising cross in bins, see
            `lwmt_sionna.ops.linear_prediction.denoise`; `None` to work on the bins as they are.
        significance: Mean power over the noise power from which a bin is continued; the others are
            taken for noise and predicted to be zero.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        batch_size: Sequences per step.
    """

    _: dataclasses.KW_ONLY
    denoise_radius: int | None = 3
    significance: float = 0.1
    array_shape: tuple[int, int, int] | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_settings(self)
        self.array_shape = as_shape(self.array_shape)

    def predict(self, history: Array, num_horizons: int) -> Array:
        check_length(getattr(self, "order", 0), history.shape[1])
        future = np.zeros((len(history), num_horizons, *history.shape[2:]), np.complex64)
        for begin in range(0, len(history), self.batch_size):
            part = slice(begin, begin + self.batch_size)
            scale = np.abs(history[part]).max(axis=(1, 2, 3), keepdims=True)
            scale = np.where(scale > 0, scale, 1.0)
            # Batches of constant size: one compiled program serves all.
            size = batch_shape(len(scale), self.batch_size)
            padded = as_pairs(history[part] / scale)
            padded = np.pad(padded, [(0, size - len(scale))] + [(0, 0)] * 4, mode="edge")
            kept = _bins(self.denoise_radius, self.array_shape, padded.shape, padded.tobytes())
            clean, noise = (x[: len(scale)] for x in kept)
            power = np.mean(np.abs(clean) ** 2, axis=1)
            chosen = np.flatnonzero(power > self.significance * noise[:, None, None])
            bins = self.extrapolate(clean, noise, chosen, num_horizons)
            flat = np.zeros((num_horizons, power.size), np.complex64)
            flat[:, chosen] = bins.T
            shaped = flat.reshape(num_horizons, *power.shape).swapaxes(0, 1)
            h = inverse_angle_delay_transform(
                keras.ops.convert_to_tensor(as_pairs(shaped)), self.array_shape
            )
            future[part] = as_complex(keras.ops.convert_to_numpy(h)) * scale
        return future

    @abc.abstractmethod
    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        """Continues the chosen bins: complex `[len(chosen), num_horizons]`.

        Args:
            x: complex128 `[batch, num_snapshots, num_angle, num_delay]`, denoised if so configured.
            noise: Noise power per bin before denoising, float64 `[batch]`.
            chosen: Flat indices into (batch, angle, delay).
            num_horizons: Snapshots to predict.
        """


def check_settings(predictor: Any) -> None:
    """Refuses settings that are impossible in whatever predictor has them, by name."""
    for name, least in _LEAST.items():
        value = getattr(predictor, name, least)
        if isinstance(least, int):
            require(name, value, int(value) == value and value >= least, "a positive integer")
        else:
            require(name, value, value >= least, "not negative")


def check_length(order: int, num_snapshots: int) -> None:
    """Refuses a history that is not longer than the order of what continues it."""
    if num_snapshots <= order:
        raise ValueError(
            "The history must be longer than the order. Received: "
            f"num_snapshots={num_snapshots}, order={order}"
        )


# Denoising is most of the work, and several predictors start from the same.
@functools.lru_cache(maxsize=4)
def _bins(radius, array_shape, shape, history):
    """Bins, complex128 and denoised where asked for, and their noise power, of a batch's bytes."""
    history = np.frombuffer(history, np.float32).reshape(shape)
    clean, noise = _to_bins(radius, array_shape, shape[1:]).predict_on_batch(history)
    found = as_complex(clean).astype(np.complex128), np.asarray(noise, np.float64)
    for array in found:
        array.flags.writeable = False
    return found


@functools.lru_cache(maxsize=16)
def _to_bins(radius, array_shape, shape):
    """Model from histories to (denoised) bins and their noise power, compiled once for all.

    One for each shape `[time, num_ant, num_subcarriers, 2]` of histories: TensorFlow forgets axes
    that differ from call to call.
    """

    class ToBins(keras.Model):
        def call(self, history):
            x = angle_delay_transform(history, array_shape)
            noise = noise_power(x)
            return (x if radius is None else denoise(x, radius=radius)), noise

    model = ToBins()
    model.compile(jit_compile=keras.backend.backend() != "torch")
    return model


def pool(x: Array, weight: float) -> Array:
    """Weighted sum over the 3 x 3 bins around each bin of `[..., angle, delay]`, cyclic.

    `weight` is that of a neighbouring bin along an axis; diagonal neighbours have its square.
    """
    if weight == 0:
        return x
    for axis in (-2, -1):
        x = x + weight * (np.roll(x, 1, axis=axis) + np.roll(x, -1, axis=axis))
    return x


def lag_covariance(x: Array, size: int, pool_weight: float = 0.0) -> Array:
    """Covariance of windows of `size` successive snapshots around every bin, pooled as `pool` does.

    Element (i, j) is the sum over windows of `x[t + i] conj(x[t + j])`; the time-reversed,
    conjugated windows count as well. `x`: complex `[batch, num_snapshots, num_angle, num_delay]`;
    the result: complex `[batch, num_angle, num_delay, size, size]`, Hermitian.
    """
    count = x.shape[1] - size + 1
    covariance = np.empty((*x.shape[:1], *x.shape[2:], size, size), dtype=np.complex128)
    for i in range(size):
        for j in range(i, size):
            product = np.sum(x[:, i : i + count] * x[:, j : j + count].conj(), axis=1)
            covariance[..., i, j] = pool(product, pool_weight)
            covariance[..., j, i] = covariance[..., i, j].conj()
    return covariance + covariance[..., ::-1, ::-1].conj()


def chosen_covariance(x: Array, chosen: Array, size: int, pool_weight: float) -> Array:
    """`lag_covariance` of some bins, complex `[len(chosen), size, size]`.

    `chosen` holds flat indices into (batch, angle, delay).
    """
    return lag_covariance(x, size, pool_weight=pool_weight).reshape(-1, size, size)[chosen]


def chosen_snapshots(x: Array, chosen: Array) -> Array:
    """Some bins over time, complex `[len(chosen), num_snapshots]`: see `chosen_covariance`."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])[chosen]


def prediction_coefficients(covariance: Array, ridge: float = 0.0) -> Array:
    """Coefficients of the linear prediction of the last snapshot of a window from the others.

    Complex `[n, order]`, the nearest lag first, from a covariance `[n, order + 1, order + 1]` (see
    `lag_covariance`); `ridge` is relative to its mean diagonal.
    """
    normal, target = normal_equations(covariance)
    order = normal.shape[-1]
    load = ridge * np.trace(normal, axis1=1, axis2=2).real / order + _TINY
    normal = normal + load[:, None, None] * np.eye(order)
    return np.linalg.solve(normal, target[..., None])[..., 0]


def normal_equations(covariance: Array) -> tuple[Array, Array]:
    """Matrix `[n, order, order]` and right side `[n, order]` for `prediction_coefficients`."""
    order = covariance.shape[-1] - 1
    # conj(x[t - i]) x[t - j] is element (order - j, order - i) of the covariance.
    lags = order - np.arange(1, order + 1)
    return covariance[:, lags[None, :], lags[:, None]], covariance[:, order, lags]


def clamp_poles(coefficients: Array, radius: float) -> tuple[Array, Array]:
    """Moves the poles of linear predictions into a disc; their frequencies stay.

    Returns the new coefficients and the poles, complex `[n, order]` both, as the coefficients are:
    the nearest lag first.
    """
    order = coefficients.shape[1]
    poles = np.linalg.eigvals(companion(coefficients))
    modulus = np.abs(poles)
    poles = poles * np.minimum(1.0, radius / np.maximum(modulus, _TINY))
    polynomial = np.zeros((len(coefficients), order + 1), np.complex128)
    polynomial[:, 0] = 1.0
    for k in range(order):
        polynomial[:, 1 : k + 2] -= poles[:, k : k + 1] * polynomial[:, : k + 1].copy()
    clamped = np.where(
        (modulus > radius).any(axis=1, keepdims=True), -polynomial[:, 1:], coefficients
    )
    return clamped, poles


def clamped_coefficients(predictor: Any, x: Array, chosen: Array) -> Array:
    """Coefficients `[n, order]` by a predictor's order, pooling and ridge, poles in its radius."""
    covariance = chosen_covariance(x, chosen, predictor.order + 1, predictor.pool_weight)
    coefficients = prediction_coefficients(covariance, predictor.ridge)
    return clamp_poles(coefficients, predictor.radius)[0]


def companion(coefficients: Array) -> Array:
    """Transition `[n, order, order]` of the last snapshots of processes, the latest first."""
    order = coefficients.shape[1]
    transition = np.zeros((len(coefficients), order, order), np.complex128)
    transition[:, 0] = coefficients
    transition[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    return transition


@dataclasses.dataclass(eq=False)
class KalmanPredictor(BinPredictor):
    """Vector Kalman filter over the last snapshots of every bin.

    The state is the vector of a bin's last `order` snapshots, which follows an autoregressive model
    and is seen in white noise. In the angle-delay domain the bins of a channel are close to
    uncorrelated, so the filter of the whole array falls apart into one of each bin. Coefficients
    come from the modified covariance method over the bin and its neighbours, poles are drawn
    inside the unit circle, and the driving noise is what gives the model the bin's own power.

    Args:
        radius: Largest modulus of a pole, below 1: how long a path stays coherent.
        noise_factor: Measurement noise that the filter assumes, over the measured noise power;
            denoised bins hold less. The others are those of `BinPredictor`.

    Reference:
        Kim, Kim and Choi 2021, Massive MIMO channel prediction: Kalman filtering vs. machine
        learning (IEEE TCOM 69); Baddour and Beaulieu 2005, Autoregressive modeling for fading
        channel simulation, for the model.
    """

    name = "kalman"

    order: int = 4
    ridge: float = 1e-4
    radius: float = 0.999
    noise_factor: float = 0.1
    pool_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require("radius", self.radius, 0 < self.radius < 1, "in (0, 1)")
        require("noise_factor", self.noise_factor, self.noise_factor >= 0, "not negative")

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        coefficients = clamped_coefficients(self, x, chosen)
        samples = chosen_snapshots(x, chosen)
        floor = self.noise_factor * noise[chosen // (x.shape[2] * x.shape[3])]
        power = np.mean(np.abs(samples) ** 2, axis=1)
        power = np.maximum(power - floor, 1e-2 * power + _TINY)
        return kalman_forecast(samples, coefficients, power, floor, num_horizons)


def kalman_forecast(
    samples: Array, coefficients: Array, power: Array, noise: Array, num_horizons: int
) -> Array:
    """Filters noisy samples of stationary autoregressive processes and forecasts them.

    The conditional means, given that the model is true: complex `[n, num_horizons]`, of samples
    complex `[n, num_snapshots]`, coefficients as in `autoregressive_covariance`, and the powers of
    processes and measurement noise, float `[n]`.
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
    """Stationary covariance of the last snapshots of autoregressive processes of a power `[n]`.

    Returns complex `[n, order, order]`, element (i, j) = E[x[t - i] conj(x[t - j])], and the power
    of the driving noise, float `[n]`. Coefficients: complex `[n, order]`, the nearest lag first,
    poles inside the unit circle.

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


@dataclasses.dataclass(eq=False)
class PronyPredictor(BinPredictor):
    """Prony-based angular-delay domain prediction (PAD), regularised by rank.

    Every bin is a sum of a few complex exponentials. A linear prediction of high order, solved in
    the principal subspace of the bin's own windows and those of its neighbours, gives the poles;
    the ones of largest modulus are taken for paths and drawn back to the unit circle; amplitudes
    follow by regularised least squares over the whole history and continue with their poles.

    Args:
        rank: Largest number of exponentials per bin.
        tolerance: Eigenvalues below this share of the largest are left out.
        ridge: Regularisation of the amplitudes relative to the number of snapshots. The others are
            those of `BinPredictor`.

    Reference:
        Yin, Wang, Liu and Debbah 2020, Addressing the curse of mobility in massive MIMO with
        Prony-based angular-delay domain channel predictions (IEEE JSAC 38); Tufts and Kumaresan
        1982, Estimation of frequencies of multiple sinusoids (Proc. IEEE 70), for the rank.
    """

    name = "prony"

    order: int = 8
    rank: int = 3
    tolerance: float = 1e-3
    ridge: float = 1e-3
    pool_weight: float = 0.5
    _: dataclasses.KW_ONLY
    significance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        good = 1 <= self.rank <= self.order
        require("rank", self.rank, good, f"between 1 and order={self.order}")

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        num_snapshots = x.shape[1]
        covariance = chosen_covariance(x, chosen, self.order + 1, self.pool_weight)
        poles, is_path = prony_poles(covariance, self.rank, self.tolerance)
        samples = chosen_snapshots(x, chosen)
        # Time counts from the first snapshot: powers of poles within the circle stay bounded.
        instants = np.arange(num_snapshots)
        basis = poles[:, None, :] ** instants[None, :, None] * is_path[:, None, :]
        gram = np.einsum("nti,ntj->nij", basis.conj(), basis)
        load = self.ridge * num_snapshots + ~is_path
        gram = gram + load[:, :, None] * np.eye(self.rank)
        amplitudes = np.linalg.solve(
            gram, np.einsum("nti,nt->ni", basis.conj(), samples)[..., None]
        )
        ahead = np.arange(num_snapshots, num_snapshots + num_horizons)
        future = poles[:, None, :] ** ahead[None, :, None] * is_path[:, None, :]
        return np.einsum("nhi,ni->nh", future, amplitudes[..., 0])


def prony_poles(covariance: Array, rank: int, tolerance: float = 0.0) -> tuple[Array, Array]:
    """Poles of the exponentials in windows of snapshots.

    Returns complex `[n, rank]`, of modulus 1 at most, the largest first, and which of them count,
    bool `[n, rank]`: eigenvalues of the covariance `[n, order + 1, order + 1]` (see
    `lag_covariance`) below the share `tolerance` of the largest are left out.
    """
    normal, target = normal_equations(covariance)
    values, vectors = np.linalg.eigh(normal)
    values, vectors = values[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    kept = values > np.maximum(tolerance * values[:, :1], _TINY)
    inverse = np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)
    projected = np.einsum("nij,ni->nj", vectors.conj(), target) * inverse
    coefficients = np.einsum("nij,nj->ni", vectors, projected)
    poles = clamp_poles(coefficients, 1.0)[1]
    sorted_by_modulus = np.argsort(-np.abs(poles), axis=1)
    poles = np.take_along_axis(poles, sorted_by_modulus, axis=1)[:, :rank]
    is_path = np.arange(rank)[None] < kept.sum(axis=1)[:, None]
    return np.where(is_path, poles, 1.0), is_path


# Doppler shifts that the Wiener predictor tries, and the bins that it tries them on.
_GRID = np.concatenate([np.linspace(0.002, 0.1, 15), np.linspace(0.12, 1.2, 55)])
_NUM_LOUDEST = 64


@dataclasses.dataclass(eq=False)
class WienerPredictor(BinPredictor):
    r"""Linear minimum mean square error prediction with Jakes' Doppler spectrum.

    Every bin is a stationary process of autocorrelation $p J_0(2 \pi f k)$ in white noise, with the
    bin's own power $p$ and one normalised maximum Doppler shift $f$ for all: known (from the
    user's speed), or the most likely one given all bins.

    Args:
        normalized_doppler: Maximum Doppler shift times the sampling period, known; `None` to
            estimate it per sequence.
        noise_factor: Noise that the filter assumes, over the measured noise power; denoised bins
            hold less. The others are those of `BinPredictor`.

    Reference:
        Clarke 1968, A statistical theory of mobile-radio reception, for the spectrum; Duel-Hallen
        2007, Fading channel prediction for mobile radio adaptive transmission systems, for the
        predictor.
    """

    name = "wiener"

    normalized_doppler: float | None = None
    noise_factor: float = 1.0
    _: dataclasses.KW_ONLY
    denoise_radius: int | None = None
    significance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        doppler = self.normalized_doppler
        require("normalized_doppler", doppler, doppler is None or doppler >= 0, "not negative")
        require("noise_factor", self.noise_factor, self.noise_factor > 0, "positive")

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
        loudest = np.argsort(-power / floor)[:_NUM_LOUDEST]
        samples, power, floor = samples[loudest], power[loudest], floor[loudest]
        best = int(np.argmin(_costs(_grid_eigen(samples.shape[1]), samples, power, floor)))
        around = _GRID[max(best - 1, 0)], _GRID[min(best + 1, len(_GRID) - 1)]
        finer = np.linspace(*around, 9)
        eigen = _jakes_eigen(finer, samples.shape[1])
        return finer[int(np.argmin(_costs(eigen, samples, power, floor)))]


def jakes_autocorrelation(normalized_doppler: float, num_lags: int) -> Array:
    r"""Autocorrelation of Jakes' spectrum, $J_0(2 \pi f k)$ for lags k = 0, 1, ... `[num_lags]`."""
    # The mean over directions of arrival; exact to rounding while f * num_lags stays below 60.
    directions = 2 * np.pi * (np.arange(512) + 0.5) / 512
    phase = 2 * np.pi * normalized_doppler * np.arange(num_lags)
    return np.mean(np.cos(phase[:, None] * np.sin(directions)), axis=1)


def wiener_forecast(
    samples: Array, correlation: ArrayLike, noise_ratio: Array, num_horizons: int
) -> Array:
    """Best linear forecast, complex `[n, num_horizons]`, of a stationary process in white noise.

    Args:
        samples: complex `[n, num_snapshots]`, noisy.
        correlation: Autocorrelation `E[x[t + k] conj(x[t])]` of the process over its power for lags
            0 to `num_snapshots + num_horizons - 1`.
        noise_ratio: Noise power over the process's power, float `[n]`.
        num_horizons: Snapshots to predict.
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
