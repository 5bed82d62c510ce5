"""Complex numbers as pairs of real tensors, and the border to complex tensors."""

from typing import Any, NamedTuple

import keras
from keras import ops

__all__ = ["ComplexPair", "inverse_edges", "is_complex", "solve", "to_complex", "to_stacked"]


class ComplexPair(NamedTuple):
    """Real and imaginary part of a complex tensor, two real tensors of one shape."""

    re: Any
    im: Any

    @classmethod
    def from_stacked(cls, x):
        """Splits a real tensor `[..., 2]`, (real, imaginary) last."""
        return cls(x[..., 0], x[..., 1])

    def stacked(self):
        """Joins both parts in a last axis of 2."""
        return ops.stack([self.re, self.im], axis=-1)

    def map(self, function):
        """Applies a real-linear function (a slice, a sum, a roll) to both parts."""
        return ComplexPair(function(self.re), function(self.im))

    def conj(self):
        """Complex conjugate."""
        return ComplexPair(self.re, -self.im)

    def times(self, other):
        """Product with another pair."""
        return ComplexPair(
            self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re
        )

    def plus(self, other):
        """Sum with another pair."""
        return ComplexPair(self.re + other.re, self.im + other.im)

    def minus(self, other):
        """Difference to another pair."""
        return ComplexPair(self.re - other.re, self.im - other.im)

    def scaled(self, factor):
        """Product with a real tensor or number."""
        return ComplexPair(self.re * factor, self.im * factor)

    def power(self):
        """Squared magnitude, real."""
        return self.re * self.re + self.im * self.im


def is_complex(x):
    """Whether a tensor or array is complex."""
    return "complex" in keras.backend.standardize_dtype(x.dtype)


def to_stacked(x):
    """Complex `[...]` to real `[..., 2]`, (real, imaginary) last, of the same precision."""
    return ops.stack([ops.real(x), ops.imag(x)], axis=-1)


def to_complex(x):
    """Real `[..., 2]`, (real, imaginary) last, to complex `[...]` of the same precision."""
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        # `ops.view_as_complex` makes complex64 of everything.
        return ops.cast(x[..., 0], "complex128") + 1j * ops.cast(x[..., 1], "complex128")
    return ops.view_as_complex(x)


def solve(matrix, rhs):
    """Solves many small complex systems at once by Gauss-Jordan elimination without pivoting.

    The system axes come first, so that every step is one wide operation over all systems, and the
    steps are a loop of the graph: compiled once, nothing is computed twice. Without pivoting the
    matrices must be positive definite, or have a definite real or imaginary part, as regularised
    covariances have.

    Args:
        matrix: `ComplexPair` of `[size, size, ...]`.
        rhs: `ComplexPair` of `[size, ...]`.

    Returns:
        `ComplexPair` of `[size, ...]`.
    """
    size = matrix.re.shape[0]
    system = [ops.concatenate([m, r[:, None]], axis=1) for m, r in zip(matrix, rhs, strict=True)]
    axes = (1,) * (len(system[0].shape) - 2)

    def eliminate(k, state):
        state = ComplexPair(*state)
        is_pivot = ops.cast(ops.equal(ops.arange(size), k), state.re.dtype)
        row = state.map(lambda m: ops.take(m, k, axis=0))
        pivot = row.map(lambda m: ops.take(m, k, axis=0))
        row = row.times(pivot.conj().scaled(1.0 / pivot.power()).map(lambda m: m[None]))
        column = state.map(lambda m: ops.take(m, k, axis=1)[:, None])
        # The pivot's own row becomes the normalised row: row k minus (column k - e_k) * row.
        unit = ops.reshape(is_pivot, (size, 1, *axes))
        column = ComplexPair(column.re - unit, column.im)
        normalised = row.map(lambda m: m[None])
        kept = ComplexPair(state.re * (1 - unit), state.im * (1 - unit))
        kept = kept.plus(normalised.scaled(unit))
        others = ComplexPair(column.re * (1 - unit), column.im * (1 - unit))
        updated = kept.minus(others.times(normalised))
        return updated.re, updated.im

    solved = ops.fori_loop(0, size, eliminate, tuple(system))
    return ComplexPair(solved[0][:, size], solved[1][:, size])


def inverse_edges(matrix):
    """First column and first row of the inverses of many small complex matrices.

    Sweeps all pivots but the first, which leaves the products of the inverse of that block with the
    first row and column; the inverse's own follow from the Schur complement. No pivoting: see
    `solve`.

    Args:
        matrix: `ComplexPair` of `[size, size, ...]`.

    Returns:
        Tuple of two `ComplexPair` of `[size, ...]`: column and row.
    """
    size = matrix.re.shape[0]
    axes = (1,) * (len(matrix.re.shape) - 2)

    def sweep(k, state):
        state = ComplexPair(*state)
        unit = ops.cast(ops.equal(ops.arange(size), k), state.re.dtype)
        row = state.map(lambda m: ops.take(m, k, axis=0))
        column = state.map(lambda m: ops.take(m, k, axis=1))
        pivot = row.map(lambda m: ops.take(m, k, axis=0))
        inverse = pivot.conj().scaled(1.0 / pivot.power())
        # Row and column of the pivot are replaced: row k becomes r / p, column k becomes -c / p.
        along = ops.reshape(unit, (size, *axes))
        kept = (1 - along)[:, None] * (1 - along)[None]
        column = ComplexPair(column.re * (1 - along) - along, column.im * (1 - along))
        row = ComplexPair(row.re * (1 - along) + along, row.im * (1 - along))
        row = row.times(inverse.map(lambda m: m[None]))
        update = column.map(lambda m: m[:, None]).times(row.map(lambda m: m[None]))
        return state.re * kept - update.re, state.im * kept - update.im

    swept = ComplexPair(*ops.fori_loop(1, size, sweep, tuple(matrix)))
    schur = swept.map(lambda m: m[:1, 0])
    inverse = schur.conj().scaled(1.0 / schur.power())
    column = swept.map(lambda m: m[1:, 0]).times(inverse)
    row = swept.map(lambda m: m[0, 1:]).times(inverse)
    return (
        ComplexPair(*(ops.concatenate([i, -c]) for i, c in zip(inverse, column, strict=True))),
        ComplexPair(*(ops.concatenate([i, r]) for i, r in zip(inverse, row, strict=True))),
    )
