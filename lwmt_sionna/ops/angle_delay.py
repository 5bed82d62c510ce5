"""The unitary transform between antennas and subcarriers, and angles and delays."""

import functools
import math

import numpy as np
from keras import ops

from lwmt_sionna.typing import Array, Tensor

__all__ = [
    "angle_delay_transform",
    "block_form",
    "check_array_shape",
    "delay_bins",
    "dft_matrix",
    "inverse_angle_delay_transform",
    "strongest_path",
]

# Grid in which the strongest path is sought, over that of the transform, and snapshots for it.
_FINER, _LAST = 8, 4


def angle_delay_transform(
    x: Tensor,
    array_shape: tuple[int, int, int] | None = None,
    num_delay: int | None = None,
    first_delay: int = 0,
) -> Tensor:
    r"""Moves channels from the antenna-subcarrier to the angle-delay domain.

    $$X[m, l] = \frac{1}{\sqrt{M K}} \sum_{i, k} x[i, k] e^{-j 2 \pi i m / M} e^{+j 2 \pi k l / K}$$

    A path of delay $\tau$ that leaves a half-wavelength array at an angle whose sine along the
    array is $u$ peaks in angle bin $M u / 2$ (modulo $M$) and in delay bin $\tau B$ (modulo $K$)
    where $B$ is the bandwidth. Over planar arrays the angular sum runs along columns and rows of
    each polarisation; polarisations stay apart. In Sionna's frame that is the bin $N_c u_y / 2$
    along the columns, $u_y$ being the direction's component along y, and $-N_r u_z / 2$ along the
    rows, which are numbered downwards.

    Args:
        x: Real `[..., num_ant, num_subcarriers, 2]`, (real, imaginary) last. Antennas in the order
            of Sionna's `PlanarArray`: polarisation, column, row.
        array_shape: Number of rows, columns and polarisations. Defaults to one row.
        num_delay: Delay bins to keep. Defaults to all. The transform is unitary only with all of
            them; fewer drop the power that lies elsewhere.
        first_delay: First delay bin kept; below 0 for bins before delay 0, where paths of small
            delay leak to. Only with `num_delay`.

    Returns:
        Real `[..., num_ant, num_delay, 2]`: angle bins (polarisation, column, row) and delay bins.

    Raises:
        ValueError: If the shapes do not fit, or there are fewer delay bins than are to be kept.
    """
    num_ant, num_subcarriers = _check(x)
    angular = _angular_block(check_array_shape(array_shape, num_ant), False)
    return _apply(x, angular, _delay_block(num_subcarriers, num_delay, first_delay, False))


def inverse_angle_delay_transform(
    x: Tensor,
    array_shape: tuple[int, int, int] | None = None,
    num_subcarriers: int | None = None,
    first_delay: int = 0,
) -> Tensor:
    """Inverse of `angle_delay_transform`; it is unitary, so its adjoint as well.

    Args:
        x: Real `[..., num_ant, num_delay, 2]`: angle and delay bins.
        array_shape: As given to `angle_delay_transform`.
        num_subcarriers: Number of subcarriers, where delay bins were dropped: those count as zero.
            Defaults to the number of delay bins.
        first_delay: As given to `angle_delay_transform`.

    Returns:
        Real `[..., num_ant, num_subcarriers, 2]`: antennas and subcarriers.
    """
    num_ant, num_delay = _check(x)
    if num_subcarriers is None:
        num_subcarriers = num_delay
    angular = _angular_block(check_array_shape(array_shape, num_ant), True)
    return _apply(x, angular, _delay_block(num_subcarriers, num_delay, first_delay, True))


def strongest_path(x: Tensor) -> Tensor:
    """Delay and direction of the strongest path of a line of antennas, in the last four snapshots.

    Args:
        x: Real `[batch, time, num_ant, num_subcarriers, 2]`, antennas half a wavelength apart.

    Returns:
        float32 `[batch, 2]`: the delay times the bandwidth, from 0 to the number of subcarriers,
        and the sine of the angle along the antennas, from -1 to 1; to an eighth of a bin.
    """
    num_ant, num_subcarriers = _check(x)
    # Where the power of a user is that of noise in every bin, any will do.
    fine = _apply(ops.cast(x[:, -_LAST:], "float32"), *_fine_blocks(num_ant, num_subcarriers))
    power = ops.sum(ops.square(fine), axis=(1, -1))
    place = ops.argmax(ops.reshape(power, (-1, power.shape[1] * power.shape[2])), axis=-1)
    angle = ops.cast(ops.floor_divide(place, power.shape[2]), "float32") / power.shape[1]
    delay = ops.cast(ops.mod(place, power.shape[2]), "float32") / _FINER
    # Turns from one antenna to the next, from -1/2 to 1/2, are half of the sine.
    sine = 2.0 * (angle - ops.cast(angle >= 0.5, "float32"))
    return ops.stack([delay, sine], axis=-1)


def delay_bins(num_subcarriers: int, num_delay: int | None = None, first_delay: int = 0) -> Array:
    """Indices of the delay bins that are kept, int `[num_delay]`."""
    num_delay = num_subcarriers if num_delay is None else num_delay
    if not 0 < num_delay <= num_subcarriers:
        raise ValueError(
            "`num_delay` must be positive and at most the number of subcarriers. Received: "
            f"num_delay={num_delay}, num_subcarriers={num_subcarriers}"
        )
    return np.arange(first_delay, first_delay + num_delay) % num_subcarriers


def check_array_shape(
    array_shape: tuple[int, int, int] | None, num_ant: int
) -> tuple[int, int, int]:
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


def _check(x):
    if len(x.shape) < 3 or x.shape[-1] != 2:
        raise ValueError(
            "Expected a real tensor [..., num_ant, num_subcarriers, 2], (real, imaginary) last. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    return x.shape[-3], x.shape[-2]


def _apply(x, angular, delay):
    """Left product with the angular matrix, right product with that of the delays."""
    num_ant, num_inputs, num_outputs = x.shape[-3], x.shape[-2], delay.shape[1] // 2
    num_angles = angular.shape[1] // 2
    # Two real products for one complex one: [re, im] times the 2 x 2 block form of the matrix.
    y = ops.matmul(
        ops.reshape(x, (*_leading(x), num_ant, num_inputs * 2)),
        ops.convert_to_tensor(delay, dtype=x.dtype),
    )
    y = ops.reshape(y, (*_leading(x), num_ant, num_outputs, 2))
    y = ops.transpose(y, (*range(len(y.shape) - 3), -2, -3, -1))
    y = ops.matmul(
        ops.reshape(y, (*_leading(x), num_outputs, num_ant * 2)),
        ops.convert_to_tensor(angular, dtype=x.dtype),
    )
    y = ops.reshape(y, (*_leading(x), num_outputs, num_angles, 2))
    return ops.transpose(y, (*range(len(y.shape) - 3), -2, -3, -1))


def _leading(x):
    """Leading axes for a reshape; at most one of them may be unknown."""
    return tuple(-1 if n is None else n for n in x.shape[:-3])


def dft_matrix(size: int) -> Array:
    """Unitary matrix of the discrete Fourier transform, complex128 `[size, size]`."""
    index = np.arange(size)
    return np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size)


@functools.lru_cache(maxsize=64)
def _angular_block(array_shape, inverse):
    num_rows, num_cols, num_polarizations = array_shape
    one = np.kron(dft_matrix(num_cols), dft_matrix(num_rows))
    matrix = np.kron(np.eye(num_polarizations), one)
    return block_form(matrix.conj() if inverse else matrix.T)


@functools.lru_cache(maxsize=64)
def _delay_block(num_subcarriers, num_delay, first_delay, inverse):
    kept = delay_bins(num_subcarriers, num_delay, first_delay)
    matrix = dft_matrix(num_subcarriers)
    return block_form(matrix[kept] if inverse else matrix.conj()[:, kept])


@functools.lru_cache(maxsize=8)
def _fine_blocks(num_ant, num_subcarriers):
    """Matrices of `_apply` for angles and delays an eighth of a bin apart."""

    def turns(size, sign):
        return np.exp(
            sign
            * 2j
            * np.pi
            * np.outer(np.arange(size), np.arange(_FINER * size))
            / (_FINER * size)
        )

    return block_form(turns(num_ant, -1)), block_form(turns(num_subcarriers, 1))


def block_form(matrix: Array) -> Array:
    """Real matrix that maps interleaved (re, im) rows as right multiplication by `matrix` does."""
    size, length = matrix.shape
    block = np.empty((size, 2, length, 2))
    block[:, 0, :, 0] = block[:, 1, :, 1] = matrix.real
    block[:, 0, :, 1], block[:, 1, :, 0] = matrix.imag, -matrix.imag
    return block.reshape(2 * size, 2 * length)
