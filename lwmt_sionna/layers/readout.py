"""Reading answers from a grid of features."""

import math
from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.layers.position import FactoredPositionEncoding
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["AngleReadout", "Readout", "beams_to_patches"]

# Channels of a readout, and the averages that share them.
_HIDDEN, _HEADS = 64, 4
# Beams fainter than this, over the strongest, are all as unlikely; and what counts as no power.
_FAINTEST, _TINY = 1e-3, 1e-30


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


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class AngleReadout(PlainErrors, keras.layers.Layer):
    """Reads scores of beams from angle-delay features, alike for all angles.

    Of a line of antennas half a wavelength apart, patches of angles and beams of `dft_codebook`,
    for any number of beams and at any carrier, are the same directions: every patch answers for
    its own beams, from averages over its delays, whose weights the features tell, and from those of
    its neighbours. What is learned of one direction holds for all others. Untrained, all beams are
    alike, or as likely as is known beforehand.

    Args:
        num_angles: Patches in angle.
        units: Beams; a multiple of the patches in angle.
        num_answers: Number of answers, one for each snapshot that is asked for.
        with_prior: Whether the last `num_answers * units / num_angles` features of a patch tell its
            beams beforehand, answer by answer, the same for all delays: logarithms of odds, such as
            those of `beams_to_patches`. They are added to the scores, times a factor that is one at
            first.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: `[batch, num_angles, delay, width]`, as `TaskModel` has them.

    Returns:
        `[batch, num_answers, units]`.

    Example:

    >>> AngleReadout(8, units=64, num_answers=6)(keras.random.normal((8, 8, 16, 65))).shape
    TensorShape([8, 6, 64])
    """

    def __init__(
        self,
        num_angles: int,
        units: int,
        num_answers: int = 1,
        with_prior: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_angles < 1 or units < 1 or units % num_angles or num_answers < 1:
            raise ValueError(
                "Every patch of angles answers for as many beams: `units` must be a multiple of "
                "`num_angles`, and `num_answers` positive. Received: "
                f"num_angles={num_angles}, units={units}, num_answers={num_answers}"
            )
        self.num_angles, self.units, self.num_answers = num_angles, units, num_answers
        self.with_prior = bool(with_prior)
        dtype, zeros = self.dtype_policy, {"kernel_initializer": "zeros"}
        dense = keras.layers.Dense
        self.values = dense(_HIDDEN, activation="gelu", name="values", dtype=dtype)
        self.scores = dense(_HEADS, use_bias=False, name="scores", dtype=dtype, **zeros)
        self.mix = dense(_HIDDEN, activation="gelu", name="mix", dtype=dtype)
        each = num_answers * (units // num_angles)
        self.answers = dense(each, name="answers", dtype=dtype, **zeros)

    def build(self, features_shape: Shape) -> None:
        for layer in (self.values, self.scores):
            layer.build((None, None, None, features_shape[-1]))
        self.mix.build((None, None, 3 * _HIDDEN))
        self.answers.build((None, None, _HIDDEN))
        if self.with_prior:
            self.trust = self.add_weight(
                shape=(self.num_answers, 1), initializer="ones", name="trust"
            )

    def call(self, features: Tensor) -> Tensor:
        least = self.answers.units if self.with_prior else 1
        shape = tuple(features.shape)
        if len(shape) != 4 or shape[1] != self.num_angles or shape[3] < least:
            raise ValueError(
                f"Expected features [batch, {self.num_angles}, delay, width], width {least} or "
                f"more. Received: features.shape={shape}"
            )
        num_angles, num_delays = features.shape[1:3]
        values = self.values(features)
        values = ops.reshape(values, (-1, num_angles, num_delays, _HEADS, _HIDDEN // _HEADS))
        weights = ops.softmax(self.scores(features), axis=2)
        # b batch, a angle, d delay, h head, c channel of a head
        read = ops.einsum("badh,badhc->bahc", weights, values)
        read = ops.reshape(read, (-1, num_angles, _HIDDEN))
        # Angles go round.
        around = [ops.roll(read, shift, axis=1) for shift in (1, 0, -1)]
        scores = self.answers(self.mix(ops.concatenate(around, axis=-1)))
        own = (-1, num_angles, self.num_answers, self.units // num_angles)
        scores = ops.reshape(scores, own)
        if self.with_prior:
            scores = scores + self.trust * ops.reshape(features[:, :, 0, -least:], own)
        scores = ops.reshape(
            ops.transpose(scores, (0, 2, 1, 3)), (-1, self.num_answers, self.units)
        )
        # The first bin looks straight ahead, the first beam all the way to one side.
        return ops.roll(scores, self.units // 2, axis=-1)

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return (features_shape[0], self.num_answers, self.units)

    def get_config(self) -> dict[str, Any]:
        names = ("num_angles", "units", "num_answers", "with_prior")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def beams_to_patches(power: Tensor, num_angles: int) -> Tensor:
    """What powers of beams tell an `AngleReadout` beforehand: logarithms over the strongest.

    Args:
        power: `[batch, num_answers, units]`, in the order of `dft_codebook`.
        num_angles: Patches in angle.

    Returns:
        `[batch, num_angles, 1, num_answers * units / num_angles]`.
    """
    num_answers, units = power.shape[1:]
    strongest = ops.max(power, axis=-1, keepdims=True)
    odds = ops.log(power / ops.maximum(strongest, _TINY) + _FAINTEST)
    odds = ops.roll(odds, -(units // 2), axis=-1)
    odds = ops.reshape(odds, (-1, num_answers, num_angles, units // num_angles))
    size = num_answers * (units // num_angles)
    return ops.reshape(ops.transpose(odds, (0, 2, 1, 3)), (-1, num_angles, 1, size))
