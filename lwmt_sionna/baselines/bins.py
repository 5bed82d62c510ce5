"""Classical predictors that work bin by bin in the angle-delay domain, in NumPy."""

import abc
import functools

import keras
import numpy as np

from lwmt_sionna.baselines.base import Predictor, batch_shape
from lwmt_sionna.ops.angle_delay import check_array_shape
from lwmt_sionna.ops.linear_prediction import denoise

__all__ = [
    "BinPredictor",
    "chosen_covariance",
    "chosen_snapshots",
    "from_bins",
    "lag_covariance",
    "noise_power",
    "pool",
    "to_bins",
]

_TINY = 1e-30


def to_bins(h, array_shape=None):
    """Unitary transform to angle and delay bins, as `lwmt_sionna.ops.angle_delay_transform`.

    Args:
        h: complex `[..., num_ant, num_subcarriers]`.
        array_shape: Number of rows, columns and polarisations; a linear array if `None`.

    Returns:
        complex, shape as `h`.
    """
    rows, cols, polarizations = check_array_shape(array_shape, h.shape[-2])
    x = h.reshape(*h.shape[:-2], polarizations, cols, rows, h.shape[-1])
    x = np.fft.fft2(x, axes=(-3, -2), norm="ortho")
    return np.fft.ifft(x, axis=-1, norm="ortho").reshape(h.shape)


def from_bins(x, array_shape=None):
    """Inverse of `to_bins`."""
    rows, cols, polarizations = check_array_shape(array_shape, x.shape[-2])
    h = x.reshape(*x.shape[:-2], polarizations, cols, rows, x.shape[-1])
    h = np.fft.ifft2(h, axes=(-3, -2), norm="ortho")
    return np.fft.fft(h, axis=-1, norm="ortho").reshape(x.shape)


def pool(x, weight, axes=(-2, -1)):
    """Weighted sum over the 3 x 3 bins around each bin, cyclic.

    Args:
        x: Array whose `axes` are angle and delay bins.
        weight: Weight of a neighbouring bin along an axis; diagonal neighbours have its square.
        axes: The two axes of the bins.

    Returns:
        Shape as `x`.
    """
    if weight == 0:
        return x
    for axis in axes:
        x = x + weight * (np.roll(x, 1, axis=axis) + np.roll(x, -1, axis=axis))
    return x


def noise_power(x):
    """Noise power per bin, from the bins that hold little else.

    The same estimate as `lwmt_sionna.ops.linear_prediction.noise_power`: the lower quartile of the
    bins' mean powers over time, corrected for the bias of a quantile (Wilson and Hilferty 1931).

    Args:
        x: complex `[batch, num_snapshots, num_angle, num_delay]`.

    Returns:
        float64 `[batch]`; at least -120 dB of the mean power.
    """
    num_snapshots = x.shape[1]
    power = np.mean(np.abs(x) ** 2, axis=1, dtype=np.float64).reshape(len(x), -1)
    bias = (1 - 1 / (9 * num_snapshots) - 0.67449 / (3 * np.sqrt(num_snapshots))) ** 3
    ordered = np.sort(power, axis=1)
    quantile = ordered[:, int(0.25 * (power.shape[1] - 1))]
    return np.maximum(quantile / bias, 1e-12 * power.mean(axis=1) + _TINY)


def lag_covariance(x, size, forward_backward=True, pool_weight=0.0):
    """Covariance of windows of successive snapshots around every bin.

    Element (i, j) is the sum over windows of `x[t + i] conj(x[t + j])`; with `forward_backward` the
    time-reversed, conjugated windows count as well.

    Args:
        x: complex `[batch, num_snapshots, num_angle, num_delay]`.
        size: Snapshots per window.
        forward_backward: Whether reversed windows take part.
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
    if forward_backward:
        covariance = covariance + covariance[..., ::-1, ::-1].conj()
    return covariance


def chosen_covariance(x, chosen, size, pool_weight):
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


def chosen_snapshots(x, chosen):
    """Some bins over time, complex `[len(chosen), num_snapshots]`: see `chosen_covariance`."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])[chosen]


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

    def __init__(self, denoise_radius=None, significance=0.0, array_shape=None, batch_size=32):
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive. Received: batch_size={batch_size}")
        if significance < 0:
            raise ValueError(
                f"significance must not be negative. Received: significance={significance}"
            )
        self.denoise_radius = None if denoise_radius is None else int(denoise_radius)
        self.significance = float(significance)
        self.array_shape = array_shape
        self.batch_size = int(batch_size)

    def predict(self, history, num_horizons):
        self.check_length(history.shape[1])
        future = np.zeros((len(history), num_horizons, *history.shape[2:]), np.complex64)
        for begin in range(0, len(history), self.batch_size):
            part = slice(begin, begin + self.batch_size)
            scale = np.abs(history[part]).max(axis=(1, 2, 3), keepdims=True)
            scale = np.where(scale > 0, scale, 1.0)
            x = to_bins(history[part] / scale, self.array_shape)
            noise = noise_power(x)
            clean = x
            if self.denoise_radius is not None:
                clean = _denoise(x, self.denoise_radius, self.batch_size)
            clean = clean.astype(np.complex128)
            power = np.mean(np.abs(clean) ** 2, axis=1)
            chosen = np.flatnonzero(power > self.significance * noise[:, None, None])
            bins = self.extrapolate(clean, noise, chosen, num_horizons)
            flat = np.zeros((num_horizons, clean[:, 0].size), np.complex128)
            flat[:, chosen] = bins.T
            shaped = flat.reshape(num_horizons, *clean[:, 0].shape).swapaxes(0, 1)
            future[part] = from_bins(shaped, self.array_shape) * scale
        return future

    def check_length(self, num_snapshots):
        """Refuses a history that is too short: not longer than the order, where there is one."""
        order = getattr(self, "order", 0)
        if num_snapshots <= order:
            raise ValueError(
                "The history must be longer than the order. Received: "
                f"num_snapshots={num_snapshots}, order={order}"
            )

    @abc.abstractmethod
    def extrapolate(self, x, noise, chosen, num_horizons):
        """Continues the chosen bins.

        Args:
            x: complex128 `[batch, num_snapshots, num_angle, num_delay]`, denoised if so configured.
            noise: Noise power per bin before denoising, float64 `[batch]`.
            chosen: Flat indices into (batch, angle, delay).
            num_horizons: Snapshots to predict.

        Returns:
            complex `[len(chosen), num_horizons]`.
        """


@functools.lru_cache(maxsize=8)
def _denoiser(radius):
    """The denoising of `lwmt_sionna.ops`, compiled once for all predictors."""

    class Denoise(keras.Model):
        def call(self, x):
            return denoise(x, radius=radius)

    model = Denoise()
    model.compile(jit_compile=keras.backend.backend() != "torch")
    return model


def _denoise(x, radius, batch_size):
    """Denoised bins, in batches of constant size: one compiled program serves all."""
    stacked = np.ascontiguousarray(x, np.complex64).view(np.float32).reshape(*x.shape, 2)
    room = batch_shape(len(x), batch_size) - len(x)
    padded = np.pad(stacked, [(0, room)] + [(0, 0)] * 4, mode="edge")
    clean = np.ascontiguousarray(_denoiser(radius).predict_on_batch(padded)[: len(x)])
    return clean.view(np.complex64)[..., 0]
