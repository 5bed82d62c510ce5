"""Reading answers from a grid of features."""

import math
from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.layers.position import FactoredPositionEncoding
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["Readout"]

# Channels of a readout, and the averages that share them.
_HIDDEN, _HEADS = 64, 4


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class Readout(PlainErrors, keras.layers.Layer):
    """Reads answers from angle-delay features; each looks where it finds what it needs.

    Every feature gets a code of its place; every answer is read from averages over all places,
    whose weights the features tell. Any grid will do. Untrained, all answers are zero.

    Args:
        units: Numbers of an answer.
        num_answers: Number of answers; None for one, without an axis of its own.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: `[batch, angle, delay, width]`, as `TaskModel` has them.

    Returns:
        `[batch, num_answers, units]`, or `[batch, units]`.

    Example:

    >>> Readout(units=3)(keras.random.normal((8, 16, 16, 65))).shape
    TensorShape([8, 3])
    """

    def __init__(self, units: int = 1, num_answers: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        count = 1 if num_answers is None else num_answers
        if units < 1 or count < 1:
            raise ValueError(
                "`units` and `num_answers` must be positive. Received: "
                f"units={units}, num_answers={num_answers}"
            )
        self.units, self.num_answers = units, num_answers
        dtype, zeros = self.dtype_policy, {"kernel_initializer": "zeros"}
        dense = keras.layers.Dense
        self.place = FactoredPositionEncoding(name="place", dtype=dtype)
        self.values = dense(_HIDDEN, activation="gelu", name="values", dtype=dtype)
        # All places count alike at first; what all scores have in common has no effect.
        self.scores = dense(_HEADS * count, use_bias=False, name="scores", dtype=dtype, **zeros)
        self.mix = dense(_HIDDEN, activation="gelu", name="mix", dtype=dtype)
        self.answers = dense(units, name="answers", dtype=dtype, **zeros)

    def build(self, features_shape: Shape) -> None:
        for layer in (self.place, self.values, self.scores):
            layer.build((None, None, features_shape[-1]))
        for layer in (self.mix, self.answers):
            layer.build((None, None, _HIDDEN))

    def call(self, features: Tensor) -> Tensor:
        if len(features.shape) != 4:
            raise ValueError(
                "Expected features [batch, angle, delay, width]. Received: "
                f"features.shape={tuple(features.shape)}"
            )
        grid = (1, *features.shape[1:3])
        num_places = math.prod(grid)
        tokens = ops.reshape(features, (-1, num_places, features.shape[3]))
        tokens = self.place(tokens, grid=grid)
        values = ops.reshape(self.values(tokens), (-1, num_places, _HEADS, _HIDDEN // _HEADS))
        count = self.scores.units // _HEADS
        scores = ops.reshape(self.scores(tokens), (-1, num_places, count, _HEADS))
        # b batch, n place, q answer, h head, c channel of a head
        read = ops.einsum("bnqh,bnhc->bqhc", ops.softmax(scores, axis=1), values)
        answers = self.answers(self.mix(ops.reshape(read, (-1, count, _HIDDEN))))
        return answers[:, 0] if self.num_answers is None else answers

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        answers = () if self.num_answers is None else (self.num_answers,)
        return (features_shape[0], *answers, self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "num_answers": self.num_answers}
