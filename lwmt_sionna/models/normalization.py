"""Scale and phase: taken out of a history before a network, and put back after it."""

from typing import NamedTuple

import keras
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.ops.angle_delay import inverse_angle_delay_transform
from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.typing import Tensor

__all__ = ["Frame", "turn", "unit_power"]

_AXES = (1, 2, 3, 4)


class Frame(NamedTuple):
    """What makes a history one of unit power and of a common phase of zero, in angle and delay.

    Networks work on what `into` gives; they then need not know that all magnitudes and phases are
    alike, and a complex factor of the history is one of the prediction.

    Attributes:
        transform: `AngleDelayTransform`.
        peak: Largest real or imaginary part, `[batch, 1, 1, 1, 1]` of the type of the history.
        rms: Root mean square per complex number over the peak, same shape; float32 at least.
        phasor: `ComplexPair` of `[batch, 1, 1, 1]`, of magnitude one.
    """

    transform: AngleDelayTransform
    peak: Tensor
    rms: Tensor
    phasor: ComplexPair

    @classmethod
    def of(cls, history: Tensor, transform: AngleDelayTransform) -> tuple["Frame", Tensor]:
        """Frame of a history `[batch, time, num_ant, num_subcarriers, 2]`, and the history in it.

        The latter is float32 `[batch, time, angle, delay, 2]`.
        """
        peak, rms, unit = _scale(history)
        x = transform(unit)
        phasor = _common_phasor(x[:, -1:])
        return cls(transform, peak, rms, phasor), turn(x, phasor.conj())

    def into(self, h: Tensor) -> Tensor:
        """Channels `[batch, ..., num_ant, num_subcarriers, 2]` in the frame, float32."""
        x = self.transform(ops.cast(_over(_over(h, self.peak), self.rms), "float32"))
        return turn(x, self.phasor.conj())

    def back(self, x: Tensor, num_subcarriers: int) -> Tensor:
        """Channels of the type of the history from float32 `[batch, time, angle, delay, 2]`.

        A history of zeros has no scale; its future is zero as well.
        """
        shape, first = self.transform.array_shape, self.transform.first_delay
        h = inverse_angle_delay_transform(turn(x, self.phasor), shape, num_subcarriers, first)
        return ops.cast(h, self.peak.dtype) * (self.peak * ops.cast(self.rms, self.peak.dtype))


def unit_power(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scales `[batch, time, num_ant, num_subcarriers, 2]` to power one per complex number.

    Returns the scaled sequences, float32, and their scale `[batch, 1, 1, 1, 1]` of the type of `x`;
    sequences of zeros stay as they are and have the scale zero.
    """
    peak, rms, unit = _scale(x)
    return unit, peak * ops.cast(rms, x.dtype)


def turn(x: Tensor, phasor: ComplexPair) -> Tensor:
    """Product of real `[batch, time, angle, delay, 2]` with a `ComplexPair`."""
    return ComplexPair.from_stacked(x).times(phasor).stacked()


def _scale(x):
    """Peaks, root mean squares over them, and the sequences of unit power."""
    # The peak first: squares of weak channels leave the range of float32.
    peak = ops.max(ops.abs(x), axis=_AXES, keepdims=True)
    unit = _over(x, peak)
    rms = ops.sqrt(2.0 * ops.mean(ops.square(unit), axis=_AXES, keepdims=True))
    return peak, rms, ops.cast(_over(unit, rms), "float32")


def _over(x, scale):
    """Quotient, float32 at least; what is over zero stays as it is."""
    quotient = x / ops.where(ops.equal(scale, 0.0), ops.ones_like(scale), scale)
    double = keras.backend.standardize_dtype(quotient.dtype) == "float64"
    return quotient if double else ops.cast(quotient, "float32")


def _common_phasor(x):
    r"""Phase `[batch, 1, 1, 1]` of most of the power of a snapshot `[batch, 1, angle, delay, 2]`.

    That of $\sum_b |x_b|^2 x_b$: a common phase of all bins turns it by as much.
    """
    weighted = x * ops.sum(ops.square(x), axis=-1, keepdims=True)
    total = ops.sum(weighted, axis=(1, 2, 3), keepdims=True)
    magnitude = ops.sqrt(ops.sum(ops.square(total), axis=-1))
    total = ComplexPair.from_stacked(total)
    present = magnitude > 0
    magnitude = ops.where(present, magnitude, ops.ones_like(magnitude))
    return ComplexPair(
        ops.where(present, total.re / magnitude, ops.ones_like(magnitude)), total.im / magnitude
    )
