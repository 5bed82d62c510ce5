"""Losses and metrics on stacked (real, imaginary) channels."""

import keras
from keras import ops

__all__ = ["LogNormalizedError", "normalized_mean_squared_error"]


def normalized_mean_squared_error(y_true, y_pred):
    """Squared error over power, per sequence and snapshot.

    Args:
        y_true: True channels, real `[batch, time, antenna, subcarrier, 2]`.
        y_pred: Predicted channels, same shape.

    Returns:
        Real `[batch, time]`.
    """
    error = ops.sum(ops.square(y_pred - y_true), axis=(-3, -2, -1))
    power = ops.sum(ops.square(y_true), axis=(-3, -2, -1))
    return error / (power + 1e-12)


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class LogNormalizedError(keras.losses.Loss):
    """Mean of the logarithm of the normalised error: its value in decibels.

    Few sequences in which a path is born or dies rule a mean of ratios; their logarithms weigh as
    much as those of all others.

    Args:
        floor: Normalised error below which nothing more is gained.
        **kwargs: Arguments of `keras.losses.Loss`.
    """

    def __init__(self, floor=1e-4, name="log_normalized_error", **kwargs):
        super().__init__(name=name, **kwargs)
        self.floor = float(floor)

    def call(self, y_true, y_pred):
        ratio = normalized_mean_squared_error(y_true, y_pred)
        return 10.0 / 2.302585093 * ops.mean(ops.log(ratio + self.floor), axis=-1)

    def get_config(self):
        return {**super().get_config(), "floor": self.floor}
