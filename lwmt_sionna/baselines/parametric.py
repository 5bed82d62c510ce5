"""Prediction by the paths behind the channel."""

import keras
from keras import ops

from lwmt_sionna.baselines.base import CompiledPredictor
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import burg_coefficients, denoise, extrapolate
from lwmt_sionna.ops.path_fit import PathFit

__all__ = ["PathPredictor"]


class PathPredictor(CompiledPredictor):
    """Resolves the history into moving paths and continues each of them.

    See `lwmt_sionna.ops.path_fit`. Linear arrays only.

    Args:
        residual_order: Order of the local linear prediction, on denoised bins, that continues what
            the paths leave; 0 leaves it out.
        batch_size: Sequences per call.
        **settings: Arguments of `PathFit` but for the shape.
    """

    name = "path_fit"

    def __init__(self, residual_order=0, batch_size=16, **settings):
        super().__init__(batch_size)
        if int(residual_order) != residual_order or residual_order < 0:
            raise ValueError(
                f"residual_order must not be negative. Received: residual_order={residual_order}"
            )
        PathFit(16, 8, 8, **settings)  # a wrong setting is told at once
        self.residual_order = int(residual_order)
        self.settings = settings

    def make_model(self, num_horizons):
        return PathModel(num_horizons, self.residual_order, self.settings)


class PathModel(keras.Model):
    def __init__(self, num_horizons, residual_order, settings):
        super().__init__()
        self.num_horizons = num_horizons
        self.residual_order = residual_order
        self.settings = settings

    def call(self, history):
        square = 2.0 * ops.mean(ops.square(history), axis=(1, 2, 3, 4), keepdims=True)
        scale = ops.sqrt(square)
        scale = ops.where(scale > 0, scale, ops.ones_like(scale))
        fit = PathFit(*history.shape[1:4], **self.settings)
        future, residual = fit.continued(history / scale, self.num_horizons)
        if self.residual_order:
            x = denoise(angle_delay_transform(residual), radius=3)
            taps = burg_coefficients(x, self.residual_order)[-1]
            rest = extrapolate(x, taps, self.num_horizons)
            future = future + inverse_angle_delay_transform(rest)
        return future * scale
