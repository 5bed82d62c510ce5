"""Small systems of linear equations, very many at once.

XLA factorises one matrix after the other: for it, a step of elimination is one wide operation over
all systems, and steps are a loop of the graph. PyTorch has no loop but Python's, and factorises all
systems in one call. Without pivoting, systems must be definite.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.typing import Tensor

__all__ = [
    "conjugate_gradients",
    "invert_positive",
    "solve_hermitian",
    "solve_positive",
    "solve_squared",
]

_TINY = 1e-20


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """Solutions of positive definite systems `[..., n, n]` and `[..., n]`."""
    if keras.backend.backend() == "torch":
        return ops.solve(matrix, right[..., None])[..., 0]
    size = matrix.shape[-1]
    eye = ops.convert_to_tensor(np.eye(size, dtype="float32"))
    rows = ops.concatenate([matrix, right[..., None]], axis=-1)
    for i in range(size):
        pivot = rows[..., i : i + 1, :] / rows[..., i : i + 1, i : i + 1]
        others = rows[..., i : i + 1] - eye[:, i : i + 1]
        rows = rows - others * pivot
    return rows[..., -1]


def invert_positive(matrix: Tensor) -> Tensor:
    """Inverses of symmetric positive definite matrices `[batch, size, size]`, pivot by pivot."""
    if keras.backend.backend() == "torch":
        return ops.inv(matrix)
    size = matrix.shape[-1]

    def sweep(k, m):
        unit = ops.cast(ops.equal(ops.arange(size), k), m.dtype)
        row, column = ops.take(m, k, axis=1), ops.take(m, k, axis=2) * (1 - unit)
        row = (row * (1 - unit) + unit) / ops.take(row, k, axis=1)[:, None]
        kept = m * (1 - unit)[:, None] * (1 - unit)
        return kept + (unit - column)[..., None] * row[:, None]

    return ops.fori_loop(0, size, sweep, matrix)


def solve_hermitian(matrix: ComplexPair, right: ComplexPair) -> ComplexPair:
    """Solutions of positive definite complex systems, systems last: `[n, n, ...]`, `[n, ...]`."""
    if keras.backend.backend() == "torch":
        import torch

        systems = torch.complex(*matrix).movedim((0, 1), (-2, -1))
        x = torch.linalg.solve(systems, torch.complex(*right).movedim(0, -1)).movedim(-1, 0)
        return ComplexPair(x.real, x.imag)
    inverse = _swept(matrix)
    return _applied(inverse, right)


def solve_squared(matrix: ComplexPair, right: ComplexPair) -> ComplexPair:
    """Solutions of $M M^H x = v$ without the product, which would lose precision.

    Args:
        matrix: `ComplexPair` of `[n, n, ...]`: positive definite, or of definite real or imaginary
            part, as regularised covariances are.
        right: `ComplexPair` of `[n, ...]`.

    Returns:
        `ComplexPair`, shape as `right`.
    """
    if keras.backend.backend() == "torch":
        return _solve_squared_by_factors(matrix, right)
    inverse = _swept(matrix)
    v = _applied(inverse, right)
    return inverse.conj().times(v.map(lambda m: m[:, None])).map(lambda m: ops.sum(m, axis=0))


def _applied(matrix, x):
    """Products of `[n, n, ...]` and `[n, ...]`."""
    return matrix.times(x.map(lambda m: m[None])).map(lambda m: ops.sum(m, axis=1))


def _solve_squared_by_factors(matrix, right):
    """See `solve_squared`: a third of the work of an inverse."""
    import torch

    axes = tuple(range(2, matrix.re.ndim))
    systems = torch.complex(*matrix.map(lambda m: m.permute(*axes, 0, 1)))
    v = torch.complex(*right.map(lambda m: m.expand(len(m), *matrix.re.shape[2:])))
    v = v.movedim(0, -1)[..., None]
    factors = torch.linalg.lu_factor(systems)
    x = torch.linalg.lu_solve(*factors, v)
    x = torch.linalg.lu_solve(*factors, x, adjoint=True)[..., 0].movedim(-1, 0)
    return ComplexPair(x.real, x.imag)


def _swept(matrix):
    """Inverses of `[n, n, ...]`: sweeps of one pivot after the other, systems last."""
    size = matrix.re.shape[0]
    axes = (1,) * (len(matrix.re.shape) - 2)

    def cross(m, k):
        """The row and the column of a pivot."""
        return [m.map(lambda z, axis=axis: ops.take(z, k, axis=axis)) for axis in (0, 1)]

    def sweep(k, state):
        # The cross of the next pivot goes with the state: read from it, that would be copied first.
        state, row, column = (ComplexPair(*state[i : i + 2]) for i in (0, 2, 4))
        along = ops.cast(ops.equal(ops.arange(size), k), state.re.dtype)
        along = ops.reshape(along, (size, *axes))
        pivot = row.map(lambda m: ops.take(m, k, axis=0))
        reciprocal = pivot.conj().scaled(1.0 / pivot.power())
        # Row and column of the pivot are replaced: row k becomes r / p, column k becomes -c / p.
        kept = (1 - along)[:, None] * (1 - along)[None]
        column = ComplexPair(column.re * (1 - along) - along, column.im * (1 - along))
        row = ComplexPair(row.re * (1 - along) + along, row.im * (1 - along))
        row = row.times(reciprocal.map(lambda m: m[None]))
        update = column.map(lambda m: m[:, None]).times(row.map(lambda m: m[None]))
        swept = state.map(lambda m: m * kept).minus(update)
        row, column = cross(swept, ops.minimum(k + 1, size - 1))
        return (*swept, *row, *column)

    row, column = cross(matrix, 0)
    return ComplexPair(*ops.fori_loop(0, size, sweep, (*matrix, *row, *column))[:2])


def conjugate_gradients(
    matrix: Tensor | Callable[[Tensor], Tensor], right: Tensor, num_steps: int
) -> Tensor:
    """Approximate solution of positive definite systems `[B, n, n]`, `[B, n]`.

    A matrix may be given as a function that multiplies `[B, n]` by it. Damped steps need no more,
    and factorisations are slow where XLA compiles them for a CPU.
    """
    multiply = matrix if callable(matrix) else functools.partial(_image, matrix)

    def iterate(_, state):
        solution, rest, direction, power = state
        image = multiply(direction)
        curvature = ops.sum(direction * image, axis=-1, keepdims=True)
        length = power / (curvature + _TINY)
        solution = solution + length * direction
        rest = rest - length * image
        new_power = ops.sum(rest * rest, axis=-1, keepdims=True)
        return solution, rest, rest + new_power / (power + _TINY) * direction, new_power

    power = ops.sum(right * right, axis=-1, keepdims=True)
    state = (ops.zeros_like(right), right, right, power)
    return ops.fori_loop(0, num_steps, iterate, state)[0]


def _image(matrix, x):
    """Products of symmetric matrices with vectors: rows are ten times as fast on PyTorch."""
    if keras.backend.backend() == "torch":
        return ops.matmul(x[..., None, :], matrix)[..., 0, :]
    return ops.matmul(matrix, x[..., None])[..., 0]
