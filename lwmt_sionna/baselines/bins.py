"""What classical predictors share that work bin by bin in the angle-delay domain, in NumPy."""

import abc
import functools
from typing import Any

import keras
import numpy as np

from lwmt_sionna.baselines.base import Predictor, as_complex, as_pairs, batch_shape, require
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import denoise, noise_power
from lwmt_sionna.typing import Array

__all__ = [
    "BinPredictor",
    "chosen_covariance",
    "chosen_snapshots",
    "clamp_poles",
    "companion",
    "lag_covariance",
    "normal_equations",
    "pool",
    "prediction_coefficients",
]

_TINY = 1e-30


class BinPredictor(Predictor):
    """Continues the bins of the angle-delay domain, each from itself and its neighbours.

    Args:
        denoise_radius: Arm of the denoising cross in bins, see
            `lwmt_sionna.ops.linear_prediction.denoise`; `None` to work on the bins as they are.
        significance: Mean power over the noise power from which a bin is continued; the others are
            taken for noise and predicted to be zero.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        batch_size: Sequences per step.
    """

    def __init__(
        self,
        denoise_radius: int | None = None,
        significance: float = 0.0,
        array_shape: tuple[int, int, int] | None = None,
        batch_size: int = 32,
    ) -> None:
        require("batch_size", batch_size, batch_size >= 1, "positive")
        require("significance", significance, significance >= 0, "not negative")
        self.denoise_radius = None if denoise_radius is None else int(denoise_radius)
        self.significance = float(significance)
        self.array_shape: Any = None if array_shape is None else tuple(array_shape)
        self.batch_size = int(batch_size)

    def predict(self, history: Array, num_horizons: int) -> Array:
        self.check_length(history.shape[1])
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

    def check_length(self, num_snapshots: int) -> None:
        """Refuses a history that is too short: not longer than the order, where there is one."""
        order = getattr(self, "order", 0)
        if num_snapshots <= order:
            raise ValueError(
                "The history must be longer than the order. Received: "
                f"num_snapshots={num_snapshots}, order={order}"
            )

    @abc.abstractmethod
    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        """Continues the chosen bins.

        Args:
            x: complex128 `[batch, num_snapshots, num_angle, num_delay]`, denoised if so configured.
            noise: Noise power per bin before denoising, float64 `[batch]`.
            chosen: Flat indices into (batch, angle, delay).
            num_horizons: Snapshots to predict.

        Returns:
            complex `[len(chosen), num_horizons]`.
        """


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
    """Weighted sum over the 3 x 3 bins around each bin, cyclic.

    Args:
        x: Array whose last two axes are angle and delay bins.
        weight: Weight of a neighbouring bin along an axis; diagonal neighbours have its square.
        axes: The two axes of the bins.

    Returns:
        Shape as `x`.
    """
    if weight == 0:
        return x
    for axis in (-2, -1):
        x = x + weight * (np.roll(x, 1, axis=axis) + np.roll(x, -1, axis=axis))
    return x


def lag_covariance(x: Array, size: int, pool_weight: float = 0.0) -> Array:
    """Covariance of windows of successive snapshots around every bin.

    Element (i, j) is the sum over windows of `x[t + i] conj(x[t + j])`; the time-reversed,
    conjugated windows count as well.

    Args:
        x: complex `[batch, num_snapshots, num_angle, num_delay]`.
        size: Snapshots per window.
        pool_weight: See `pool`.

    Returns:
        complex `[batch, num_angle, num_delay, size, size]`, Hermitian.
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
    """Covariances of windows around some bins, see `lag_covariance`.

    Args:
        x: complex `[batch, num_snapshots, num_angle, num_delay]`.
        chosen: Flat indices into (batch, angle, delay).
        size: Snapshots per window.
        pool_weight: See `pool`.

    Returns:
        complex `[len(chosen), size, size]`.
    """
    return lag_covariance(x, size, pool_weight=pool_weight).reshape(-1, size, size)[chosen]


def chosen_snapshots(x: Array, chosen: Array) -> Array:
    """Some bins over time, complex `[len(chosen), num_snapshots]`: see `chosen_covariance`."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])[chosen]


def prediction_coefficients(covariance: Array, ridge: float = 0.0) -> Array:
    """Coefficients of the linear prediction of the last snapshot of a window from the others.

    Args:
        covariance: complex `[n, order + 1, order + 1]`, see `lag_covariance`.
        ridge: Regularisation relative to the mean diagonal.

    Returns:
        complex `[n, order]`, the nearest lag first.
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

    Args:
        coefficients: complex `[n, order]`, the nearest lag first.
        radius: Largest modulus.

    Returns:
        Tuple of the new coefficients and the poles, complex `[n, order]` both.
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


def companion(coefficients: Array) -> Array:
    """Transition `[n, order, order]` of the last snapshots of processes, the latest first."""
    order = coefficients.shape[1]
    transition = np.zeros((len(coefficients), order, order), np.complex128)
    transition[:, 0] = coefficients
    transition[:, np.arange(1, order), np.arange(order - 1)] = 1.0
    return transition
