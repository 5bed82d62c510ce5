"""Losses and metrics of channels, complex or stacked (real, imaginary)."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.ops.complex import is_complex, to_stacked
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.typing import Tensor

__all__ = ["LogNormalizedError", "as_stacked", "normalized_mean_squared_error", "token_error"]


def token_error(
    y_true: Tensor, y_pred: Tensor, tokens: Tensor, patch: tuple[int, int], floor: float = 0.0
) -> Tensor:
    """Squared error of some tokens over their power, per sequence: float32 `[batch]`.

    Args:
        y_true: True channels, real `[batch, time, angle, delay, 2]`, angle-delay domain.
        y_pred: Reconstruction, same shape.
        tokens: The tokens that count, bool `[batch, num_tokens]`.
        patch: Bins per token in angle and delay.
        floor: Share of the mean power of all tokens that each counted token has at least: what is
            hidden may hold no path, and the ratio would then say nothing.
    """
    y_true, y_pred = (ops.cast(as_stacked(y), "float32") for y in (y_true, y_pred))
    counted = ops.cast(tokens, "float32")
    power = ops.sum(ops.square(patchify(y_true, patch)), axis=-1)
    error = ops.sum(ops.square(patchify(y_pred - y_true, patch)), axis=-1)
    least = floor * ops.sum(counted, axis=1) * ops.mean(power, axis=1)
    return ops.sum(counted * error, axis=1) / (ops.sum(counted * power, axis=1) + least + 1e-12)


def normalized_mean_squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Squared error over power, per sequence and snapshot.

    Args:
        y_true: True channels, real `[batch, time, antenna, subcarrier, 2]` or complex without the
            last axis.
        y_pred: Predicted channels, in either form.

    Returns:
        Real `[batch, time]`.
    """
    y_true, y_pred = as_stacked(y_true), as_stacked(y_pred)
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

    def __init__(
        self, floor: float = 1e-4, name: str = "log_normalized_error", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.floor = float(floor)

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        # Before Keras casts to the type of the loss, which has no imaginary part.
        return super().__call__(as_stacked(y_true), as_stacked(y_pred), sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        ratio = normalized_mean_squared_error(y_true, y_pred)
        return 10.0 / 2.302585093 * ops.mean(ops.log(ratio + self.floor), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "floor": self.floor}


def as_stacked(y: Tensor) -> Tensor:
    """Complex channels as real `[..., 2]`; real ones, and nothing, as they are."""
    if not hasattr(y, "dtype") or not is_complex(y):
        return y
    return to_stacked(ops.convert_to_tensor(y))
