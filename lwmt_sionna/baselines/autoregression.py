"""Linear prediction, pooled over a channel or local in the angle-delay domain."""

import keras
import numpy as np

from lwmt_sionna.baselines.base import CompiledPredictor, Predictor
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import burg_coefficients, denoise, extrapolate

__all__ = ["DenoisedAutoregression", "LocalAutoregression", "PooledAutoregression"]


class PooledAutoregression(Predictor):
    """One autoregressive model per sequence, estimated from all antennas and subcarriers.

    Regularised least squares over the sequence's own history, forecasts iterated.

    Args:
        order: Number of coefficients.
        ridge: Regularisation relative to the mean power of the regressors.
    """

    name = "pooled_ar"

    def __init__(self, order=8, ridge=1e-3):
        _check_order(order)
        self.order = int(order)
        self.ridge = float(ridge)

    def predict(self, history, num_horizons):
        order, num_snapshots = self.order, history.shape[1]
        _check_length(order, num_snapshots)
        samples = history.reshape(len(history), num_snapshots, -1).astype(np.complex128)
        # b batch, j and k lag, t time, s sample
        lags = np.stack([samples[:, order - k : num_snapshots - k] for k in range(order + 1)])
        table = np.einsum("jbts,kbts->bjk", lags.conj(), lags)
        normal = table[:, 1:, 1:]
        load = self.ridge * np.trace(normal, axis1=1, axis2=2).real / order + 1e-30
        normal = normal + load[:, None, None] * np.eye(order)
        coefficients = np.linalg.solve(normal, table[:, 1:, :1])[..., 0]
        recent = [history[:, -1 - k] for k in range(order)]
        futures = []
        for _ in range(num_horizons):
            future = sum(coefficients[:, k, None, None] * value for k, value in enumerate(recent))
            futures.append(future)
            recent = [future, *recent[:-1]]
        return np.stack(futures, axis=1)


class LocalAutoregression(CompiledPredictor):
    """One autoregressive model per angle-delay bin, estimated from the 3 x 3 bins around it.

    A resolved path is one tone in a few neighbouring bins, so a few coefficients describe it. Needs
    no training.

    Args:
        order: Number of coefficients.
        pool_weight: Weight of a neighbouring bin along an axis.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        batch_size: Sequences per call.
    """

    name = "local_ar"
    _denoise_radius = None

    def __init__(
        self,
        order=6,
        pool_weight=1.0,
        array_shape=None,
        batch_size=32,
    ):
        super().__init__(batch_size)
        _check_order(order)
        self.order = int(order)
        self.pool_weight = float(pool_weight)
        self.array_shape = array_shape

    def predict(self, history, num_horizons):
        _check_length(self.order, history.shape[1])
        return super().predict(history, num_horizons)

    def make_model(self, num_horizons):
        return LinearPredictionModel(self, num_horizons)


class DenoisedAutoregression(LocalAutoregression):
    """Local linear prediction by Burg's method on bins denoised with their neighbours.

    The strongest training-free predictor here. `lwmt_sionna.ChannelPredictor` starts from the same
    with order 6 and radius 2, which is faster.

    Args:
        order: Number of coefficients.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        pool_weight: Weight of a neighbouring bin along an axis.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        batch_size: Sequences per call.
    """

    name = "denoised_ar"

    def __init__(self, order=7, denoise_radius=3, pool_weight=0.5, array_shape=None, batch_size=32):
        super().__init__(
            order=order, pool_weight=pool_weight, array_shape=array_shape, batch_size=batch_size
        )
        self._denoise_radius = int(denoise_radius)


class LinearPredictionModel(keras.Model):
    def __init__(self, settings, num_horizons):
        super().__init__()
        self.settings = settings
        self.num_horizons = num_horizons

    def call(self, history):
        settings = self.settings
        # Powers of a bin far below 1e-20 would drown in the guards against division by zero.
        scale = keras.ops.max(keras.ops.abs(history), axis=(1, 2, 3, 4), keepdims=True)
        scale = keras.ops.where(scale > 0, scale, keras.ops.ones_like(scale))
        x = angle_delay_transform(history / scale, settings.array_shape)
        if settings._denoise_radius is not None:
            x = denoise(x, radius=settings._denoise_radius)
        coefficients = burg_coefficients(x, settings.order, settings.pool_weight)[-1]
        future = extrapolate(x, coefficients, self.num_horizons)
        return inverse_angle_delay_transform(future, settings.array_shape) * scale


def _check_order(order):
    if int(order) != order or order < 1:
        raise ValueError(f"order must be a positive integer. Received: order={order}")


def _check_length(order, num_snapshots):
    if num_snapshots <= order:
        raise ValueError(
            f"The history must be longer than the order. Received: num_snapshots={num_snapshots}, "
            f"order={order}"
        )
