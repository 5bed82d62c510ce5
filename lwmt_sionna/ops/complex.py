"""Complex numbers as pairs of real tensors, and the border to complex tensors."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import keras
from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = ["ComplexPair", "is_complex", "phasor", "to_complex", "to_stacked"]

# A full turn as a number of few bits, of which multiples are exact, and the rest.
_TURN = 6.28125
_TURN_REST = 2 * math.pi - _TURN
# Terms of the Taylor series of both functions, up to a quarter of a turn: 6e-8.
_NUM_TERMS = 7


class ComplexPair(NamedTuple):
    """Real and imaginary part of a complex tensor, two real tensors of one shape."""

    re: Tensor
    im: Tensor

    @classmethod
    def from_stacked(cls, x: Tensor) -> Self:
        """Splits a real tensor or array `[..., 2]`, (real, imaginary) last."""
        # PyTorch does not multiply an array by a tensor.
        return cls(*ops.unstack(ops.convert_to_tensor(x), axis=-1))

    def stacked(self) -> Tensor:
        """Joins both parts in a last axis of 2."""
        return ops.stack([self.re, self.im], axis=-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "ComplexPair":
        """Applies a real-linear function (a slice, a sum, a roll) to both parts."""
        return ComplexPair(function(self.re), function(self.im))

    def conj(self) -> "ComplexPair":
        """Complex conjugate."""
        return ComplexPair(self.re, -self.im)

    def times(self, other: "ComplexPair") -> "ComplexPair":
        """Product with another pair."""
        return ComplexPair(
            self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re
        )

    def plus(self, other: "ComplexPair") -> "ComplexPair":
        """Sum with another pair."""
        return ComplexPair(self.re + other.re, self.im + other.im)

    def minus(self, other: "ComplexPair") -> "ComplexPair":
        """Difference to another pair."""
        return ComplexPair(self.re - other.re, self.im - other.im)

    def scaled(self, factor: Tensor) -> "ComplexPair":
        """Product with a real tensor or number."""
        return ComplexPair(self.re * factor, self.im * factor)

    def power(self) -> Tensor:
        """Squared magnitude, real."""
        return self.re * self.re + self.im * self.im


def phasor(phase: Tensor) -> ComplexPair:
    """Complex exponential of a phase in radians: its cosine and sine.

    XLA computes these for processors one by one, in 15 times the time of a polynomial.
    """
    dtype = keras.backend.standardize_dtype(phase.dtype)
    if keras.backend.backend() == "torch" or dtype != "float32":
        return ComplexPair(ops.cos(phase), ops.sin(phase))
    turns = ops.round(phase * (0.5 / math.pi))
    half = 0.5 * ((phase - turns * _TURN) - turns * _TURN_REST)
    square = -half * half
    cosine, sine = (
        _horner([1 / math.factorial(2 * n + odd) for n in range(_NUM_TERMS)], square)
        for odd in (0, 1)
    )
    sine = half * sine
    return ComplexPair(1.0 - 2.0 * sine * sine, 2.0 * sine * cosine)


def _horner(coefficients, x):
    *rest, value = coefficients
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value


def is_complex(x: Tensor) -> bool:
    """Whether a tensor or array is complex."""
    return "complex" in keras.backend.standardize_dtype(x.dtype)


def to_stacked(x: Tensor) -> Tensor:
    """Complex `[...]` to real `[..., 2]`, (real, imaginary) last, of the same precision."""
    return ops.stack([ops.real(x), ops.imag(x)], axis=-1)


def to_complex(x: Tensor) -> Tensor:
    """Real `[..., 2]`, (real, imaginary) last, to complex `[...]` of the same precision."""
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        # `ops.view_as_complex` makes complex64 of everything.
        return ops.cast(x[..., 0], "complex128") + 1j * ops.cast(x[..., 1], "complex128")
    return ops.view_as_complex(x)
