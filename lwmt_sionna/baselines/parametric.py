"""Prediction by the paths behind the channel."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.baselines.base import CompiledPredictor, as_shape, require
from lwmt_sionna.baselines.bins import check_length
from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    check_array_shape,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.linear_prediction import burg_coefficients, denoise, extrapolate
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.typing import Array, Tensor


class PathPredictor(CompiledPredictor):
    """Resolves the history into moving paths and continues each of them.

    See `lwmt_sionna.ops.path_fit`. Reports that repeat the one before, number by number, are taken
    for lost and filled first: no path jumps back and forth.

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
        self.array_shape = as_shape(array_shape)
        self.settings = settings

    def predict(self, history: Array, num_horizons: int) -> Array:
        check_array_shape(self.array_shape, history.shape[2])
        check_length(self.residual_order, history.shape[1])
        return super().predict(history, num_horizons)

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
        shape, order = self.settings.array_shape, self.settings.residual_order
        settings = {**self.settings.settings, "array_shape": shape}
        fit = PathFit(*history.shape[1:4], **settings)
        future, residual = fit.continued(history / scale, self.num_horizons)
        if order:
            rest = denoise(angle_delay_transform(residual, shape), radius=3)
            rest = extrapolate(rest, burg_coefficients(rest, [order])[0], self.num_horizons)
            future = future + inverse_angle_delay_transform(rest, shape)
        return future * scale
