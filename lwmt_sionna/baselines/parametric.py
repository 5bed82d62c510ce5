"""Prediction by the paths behind the channel."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.baselines.base import CompiledPredictor, require
from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    check_array_shape,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.linear_prediction import burg_coefficients, denoise, extrapolate
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.typing import Tensor


class PathPredictor(CompiledPredictor):
    """Resolves the history into moving paths and continues each of them.

    See `lwmt_sionna.ops.path_fit`, which knows lines of antennas. Of other arrays every row, or
    every column where those are longer, of each polarisation is a line by itself.

    Args:
        residual_order: Order of the local linear prediction, on denoised bins, that continues what
            the paths leave; 0 leaves it out.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        batch_size: Sequences per call.
        **settings: Arguments of `PathFit` but for the shape.
    """

    name = "path_fit"

    def __init__(
        self,
        residual_order: int = 0,
        array_shape: tuple[int, int, int] | None = None,
        batch_size: int = 16,
        **settings: Any,
    ) -> None:
        super().__init__(batch_size)
        good = int(residual_order) == residual_order and residual_order >= 0
        require("residual_order", residual_order, good, "an integer, not negative")
        PathFit(16, 8, 8, **settings)  # a wrong setting is told at once
        self.residual_order = int(residual_order)
        self.array_shape = array_shape
        self.settings = settings

    def make_model(self, num_horizons: int) -> keras.Model:
        return PathModel(self, num_horizons)


class PathModel(keras.Model):
    def __init__(self, settings: PathPredictor, num_horizons: int) -> None:
        super().__init__()
        self.settings, self.num_horizons = settings, num_horizons

    def call(self, history: Tensor) -> Tensor:
        square = 2.0 * ops.mean(ops.square(history), axis=(1, 2, 3, 4), keepdims=True)
        scale = ops.sqrt(square)
        scale = ops.where(scale > 0, scale, ops.ones_like(scale))
        array_shape = self.settings.array_shape
        rows, cols, polarizations = check_array_shape(array_shape, history.shape[2])
        if min(rows, cols) == polarizations == 1:
            return self._continue(history / scale) * scale
        # b batch, t time, p polarisation, c column, r row, k subcarrier, 2 real and imaginary
        x = history / scale
        x = ops.reshape(x, (-1, x.shape[1], polarizations, cols, rows, *x.shape[3:]))
        order = (0, 2, 4, 1, 3, 5, 6) if cols >= rows else (0, 2, 3, 1, 4, 5, 6)
        lines = ops.transpose(x, order)
        future = self._continue(ops.reshape(lines, (-1, *lines.shape[3:])))
        future = ops.reshape(future, (-1, *lines.shape[1:3], *future.shape[1:]))
        back = [order.index(axis) for axis in range(7)]
        future = ops.transpose(future, back)
        return ops.reshape(future, (-1, self.num_horizons, *history.shape[2:])) * scale

    def _continue(self, x):
        # A fit tells directions from two antennas, delays from two subcarriers: one stands twice.
        num_ant, num_subcarriers = x.shape[2:4]
        x = ops.tile(x, (1, 1, 1 + (num_ant == 1), 1 + (num_subcarriers == 1), 1))
        fit = PathFit(*x.shape[1:4], **self.settings.settings)
        future, residual = fit.continued(x, self.num_horizons)
        if self.settings.residual_order:
            rest = denoise(angle_delay_transform(residual), radius=3)
            taps = burg_coefficients(rest, self.settings.residual_order)[-1]
            rest = extrapolate(rest, taps, self.num_horizons)
            future = future + inverse_angle_delay_transform(rest)
        return future[:, :, :num_ant, :num_subcarriers]
