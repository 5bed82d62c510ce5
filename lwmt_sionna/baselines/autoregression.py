"""Linear prediction: pooled over a channel, local in the angle-delay domain, direct, clamped."""

import dataclasses

import keras
import numpy as np

from lwmt_sionna.baselines.base import CompiledPredictor, Predictor, as_shape, require
from lwmt_sionna.baselines.bins import (
    BinPredictor,
    check_length,
    check_settings,
    chosen_snapshots,
    clamped_coefficients,
    pool,
)
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import burg_coefficients, denoise, extrapolate
from lwmt_sionna.typing import Array, Tensor

_TINY = 1e-30


class PooledAutoregression(Predictor):
    """One autoregressive model per sequence, estimated from all antennas and subcarriers.

    Regularised least squares over the sequence's own history, forecasts iterated.

    Args:
        order: Number of coefficients.
        ridge: Regularisation relative to the mean power of the regressors.
    """

    name = "pooled_ar"

    def __init__(self, order: int = 8, ridge: float = 1e-3) -> None:
        self.order, self.ridge = order, ridge
        check_settings(self)

    def predict(self, history: Array, num_horizons: int) -> Array:
        order, num_snapshots = self.order, history.shape[1]
        check_length(order, num_snapshots)
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
    no training. Burg's method bounds the forecasts. Settings are those of `BinPredictor`.
    """

    name = "local_ar"
    _denoise_radius: int | None = None

    def __init__(
        self,
        order: int = 6,
        pool_weight: float = 1.0,
        array_shape: tuple[int, int, int] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(batch_size)
        self.order, self.pool_weight = order, pool_weight
        self.array_shape = as_shape(array_shape)
        check_settings(self)

    def predict(self, history: Array, num_horizons: int) -> Array:
        check_length(self.order, history.shape[1])
        return super().predict(history, num_horizons)

    def make_model(self, num_horizons: int) -> keras.Model:
        return LinearPredictionModel(self, num_horizons)


class DenoisedAutoregression(LocalAutoregression):
    """Local linear prediction by Burg's method on bins denoised with their neighbours.

    The strongest training-free predictor here. `lwmt_sionna.ChannelPredictor` starts from the same
    with order 6 and radius 2, which is faster. Settings are those of `BinPredictor`.
    """

    name = "denoised_ar"

    def __init__(
        self,
        order: int = 7,
        denoise_radius: int = 3,
        pool_weight: float = 0.5,
        array_shape: tuple[int, int, int] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(order, pool_weight, array_shape, batch_size)
        self._denoise_radius = int(denoise_radius)


@dataclasses.dataclass(eq=False)
class DirectAutoregression(BinPredictor):
    """One regression per horizon and bin, in place of iterating a one-step model.

    Ridge regression of `x[t + h]` on the last `order` snapshots, over the sequence's own history
    and the 3 x 3 bins around; the time-reversed, conjugated history counts as well. Settings are
    those of `BinPredictor`.

    Reference:
        Marcellino, Stock and Watson 2006, A comparison of direct and iterated multistep AR methods.
    """

    name = "direct_ar"

    order: int = 4
    ridge: float = 3e-3
    pool_weight: float = 1.0

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        order, num_snapshots = self.order, x.shape[1]
        mirrored = x[:, ::-1].conj()
        recent = chosen_snapshots(x, chosen)[:, : -1 - order : -1]
        futures = []
        for horizon in range(1, num_horizons + 1):
            # The farthest horizons leave few equations; as many as coefficients stay.
            lags = min(order, max(1, (num_snapshots - horizon + 1) // 2))
            first, last = lags - 1, num_snapshots - horizon
            if last <= first:
                raise ValueError(
                    "The history is too short for this horizon. Received: "
                    f"num_snapshots={num_snapshots}, num_horizons={num_horizons}"
                )
            normal = np.empty((len(chosen), lags, lags), np.complex128)
            target = np.empty((len(chosen), lags), np.complex128)
            for i in range(lags):
                for j in range(i, lags):
                    normal[:, i, j] = self._product(x, mirrored, chosen, (first, last), i, j)
                    normal[:, j, i] = normal[:, i, j].conj()
                target[:, i] = self._product(x, mirrored, chosen, (first, last), i, -horizon)
            load = self.ridge * np.trace(normal, axis1=1, axis2=2).real / lags + _TINY
            normal += load[:, None, None] * np.eye(lags)
            coefficients = np.linalg.solve(normal, target[..., None])[..., 0]
            futures.append(np.sum(coefficients * recent[:, :lags], axis=1))
        return np.stack(futures, axis=1)

    def _product(self, x, mirrored, chosen, span, i, j):
        """Pooled sum over `t` in a span of `conj(x[t - i]) x[t - j]`, both directions of time."""
        first, last = span
        total = sum(
            np.sum(y[:, first - i : last - i].conj() * y[:, first - j : last - j], axis=1)
            for y in (x, mirrored)
        )
        return pool(total, self.pool_weight).reshape(-1)[chosen]


@dataclasses.dataclass(eq=False)
class ClampedAutoregression(BinPredictor):
    """Least-squares linear prediction whose poles are drawn back to the unit circle.

    The covariance method is exact for as many noiseless tones as its order, but its iterated
    forecasts grow without bound where a pole lies outside of the unit circle. Here every pole keeps
    its frequency and gets at most the given radius.

    Args:
        radius: Largest modulus of a pole. The others are those of `BinPredictor`.

    Reference:
        Marple 1987, Digital Spectral Analysis with Applications, section 8.5 (modified covariance
        method).
    """

    name = "clamped_ar"

    order: int = 6
    ridge: float = 1e-4
    radius: float = 1.0
    pool_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require("radius", self.radius, 0 < self.radius <= 2, "in (0, 2]")

    def extrapolate(self, x: Array, noise: Array, chosen: Array, num_horizons: int) -> Array:
        coefficients = clamped_coefficients(self, x, chosen)
        recent = chosen_snapshots(x, chosen)[:, : -1 - self.order : -1]
        futures = []
        for _ in range(num_horizons):
            futures.append(np.sum(coefficients * recent, axis=1))
            recent = np.concatenate([futures[-1][:, None], recent[:, :-1]], axis=1)
        return np.stack(futures, axis=1)


class LinearPredictionModel(keras.Model):
    def __init__(self, settings: LocalAutoregression, num_horizons: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_horizons = num_horizons

    def call(self, history: Tensor) -> Tensor:
        settings = self.settings
        # Powers of a bin far below 1e-20 would drown in the guards against division by zero.
        scale = keras.ops.max(keras.ops.abs(history), axis=(1, 2, 3, 4), keepdims=True)
        scale = keras.ops.where(scale > 0, scale, keras.ops.ones_like(scale))
        x = angle_delay_transform(history / scale, settings.array_shape)
        if settings._denoise_radius is not None:
            x = denoise(x, radius=settings._denoise_radius)
        coefficients = burg_coefficients(x, [settings.order], settings.pool_weight)[0]
        future = extrapolate(x, coefficients, self.num_horizons)
        return inverse_angle_delay_transform(future, settings.array_shape) * scale
