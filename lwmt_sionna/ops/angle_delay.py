"""The unitary transform between antennas and subcarriers, and angles and delays."""

import functools
import math

import numpy as np
from keras import ops

__all__ = ["angle_delay_transform", "inverse_angle_delay_transform"]


def angle_delay_transform(x, array_shape=None):
    r"""Moves channels from the antenna-subcarrier to the angle-delay domain.

    $$X[m, l] = \frac{1}{\sqrt{M K}} \sum_{i, k} x[i, k] e^{-j 2 \pi i m / M} e^{+j 2 \pi k l / K}$$

    A path of delay $\tau$ that leaves a half-wavelength array at an angle whose sine along the
    array is $u$ peaks in angle bin $M u / 2$ (modulo $M$) and in delay bin $\tau B$ (modulo $K$)
    where $B$ is the bandwidth. Over planar arrays the angular sum runs along columns and rows of
    each polarisation; polarisations stay apart.

    Args:
        x: Real `[..., num_ant, num_subcarriers, 2]`, (real, imaginary) last. Antennas in the order
            of Sionna's `PlanarArray`: polarisation, column, row.
        array_shape: Number of rows, columns and polarisations. Defaults to one row.

    Returns:
        Real `[..., num_ant, num_subcarriers, 2]`: angle bins (polarisation, column, row) and delay
        bins.
    """
    return _transform(x, array_shape, inverse=False)


def inverse_angle_delay_transform(x, array_shape=None):
    """Inverse of `angle_delay_transform`; it is unitary, so its adjoint as well.

    Args:
        x: Real `[..., num_ant, num_subcarriers, 2]`: angle and delay bins.
        array_shape: Number of rows, columns and polarisations. Defaults to one row.

    Returns:
        Real `[..., num_ant, num_subcarriers, 2]`: antennas and subcarriers.
    """
    return _transform(x, array_shape, inverse=True)


def check_array_shape(array_shape, num_ant):
    """Returns `(num_rows, num_cols, num_polarizations)` for an axis of `num_ant` antennas."""
    if array_shape is None:
        return (1, num_ant, 1)
    shape = tuple(int(n) for n in array_shape)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != num_ant:
        raise ValueError(
            "`array_shape` must be three positive integers (rows, columns, polarisations) whose "
            f"product is the number of antennas. Received: array_shape={array_shape}, "
            f"num_ant={num_ant}"
        )
    return shape


def _transform(x, array_shape, inverse):
    if len(x.shape) < 3 or x.shape[-1] != 2:
        raise ValueError(
            "Expected a real tensor [..., num_ant, num_subcarriers, 2], (real, imaginary) last. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    num_ant, num_subcarriers = x.shape[-3], x.shape[-2]
    angular = _angular_matrix(check_array_shape(array_shape, num_ant))
    delay = _dft_matrix(num_subcarriers).conj()
    if inverse:
        angular, delay = angular.conj().T, delay.conj()
    # Two real products for one complex one: [re, im] times the 2 x 2 block form of the matrix.
    y = ops.matmul(
        ops.reshape(x, (*_leading(x), num_ant, num_subcarriers * 2)),
        ops.convert_to_tensor(_block_form(delay), dtype=x.dtype),
    )
    y = ops.reshape(y, (*_leading(x), num_ant, num_subcarriers, 2))
    y = ops.transpose(y, (*range(len(y.shape) - 3), -2, -3, -1))
    y = ops.matmul(
        ops.reshape(y, (*_leading(x), num_subcarriers, num_ant * 2)),
        ops.convert_to_tensor(_block_form(angular.T), dtype=x.dtype),
    )
    y = ops.reshape(y, (*_leading(x), num_subcarriers, num_ant, 2))
    return ops.transpose(y, (*range(len(y.shape) - 3), -2, -3, -1))


def _leading(x):
    """Leading axes for a reshape; at most one of them may be unknown."""
    return tuple(-1 if n is None else n for n in x.shape[:-3])


def _dft_matrix(size):
    index = np.arange(size)
    return np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size)


def _angular_matrix(array_shape):
    num_rows, num_cols, num_polarizations = array_shape
    one = np.kron(_dft_matrix(num_cols), _dft_matrix(num_rows))
    return np.kron(np.eye(num_polarizations), one)


def _block_form(matrix):
    """Real matrix that maps interleaved (re, im) rows as right multiplication by `matrix` does."""
    return _cached_block_form(matrix.tobytes(), matrix.shape)


@functools.lru_cache(maxsize=64)
def _cached_block_form(data, shape):
    matrix = np.frombuffer(data, dtype=np.complex128).reshape(shape)
    block = np.empty((shape[0], 2, shape[1], 2))
    block[:, 0, :, 0] = block[:, 1, :, 1] = matrix.real
    block[:, 0, :, 1], block[:, 1, :, 0] = matrix.imag, -matrix.imag
    return block.reshape(2 * shape[0], 2 * shape[1])
