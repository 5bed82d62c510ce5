"""Null subcarriers: from the effective ones of a grid to a band without holes, and back."""

import functools
import itertools

import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import block_form
from lwmt_sionna.typing import ArrayLike, Tensor

__all__ = ["check_subcarriers", "fill_nulls", "restore_nulls"]

# Interpolation presumes delays up to this share of the longest one that the spacing can tell apart,
# and subcarriers that are this much above the noise.
_DELAY_SHARE = 0.5
_NOISE = 1e-3


def check_subcarriers(subcarriers: ArrayLike, num_subcarriers: int) -> tuple[int, ...]:
    """Indices of the effective subcarriers as a tuple, ascending.

    They are indices into the resource grid, such as Sionna's
    `ResourceGrid.effective_subcarrier_ind`; the channel has `num_subcarriers`: all of the grid, or
    the effective ones.

    Raises:
        ValueError: If they are not at least two different indices, ascending, that fit.
    """
    indices = tuple(int(index) for index in np.asarray(subcarriers).reshape(-1))
    ascending = all(a < b for a, b in itertools.pairwise(indices))
    fits = num_subcarriers == len(indices) or (indices and indices[-1] < num_subcarriers)
    if len(indices) < 2 or not ascending or indices[0] < 0 or not fits:
        raise ValueError(
            "`subcarriers` must be at least two ascending indices of effective subcarriers, below "
            f"the {num_subcarriers} subcarriers of the channel or as many as those. Received: "
            f"subcarriers={indices}"
        )
    return indices


def fill_nulls(x: Tensor, subcarriers: tuple[int, ...]) -> Tensor:
    """Cuts out the band from the first to the last effective subcarrier and fills its nulls.

    Nulls inside of the band (such as the one at DC) are estimated linearly from the effective
    subcarriers, with least mean squared error for delays that are uniform over half of the range
    that the subcarrier spacing can tell apart. Effective subcarriers stay as they are, and what the
    others hold has no effect. Real `[..., num_subcarriers, 2]`, all or the effective ones, to
    `[..., band, 2]`; `subcarriers` is what `check_subcarriers` returns.
    """
    num_known, band = len(subcarriers), subcarriers[-1] + 1 - subcarriers[0]
    if x.shape[-2] > num_known:
        x = ops.take(x, np.asarray(subcarriers), axis=-2)
    if band == num_known:
        return x
    matrix = ops.convert_to_tensor(_fill_matrix(subcarriers), dtype=x.dtype)
    leading = tuple(-1 if n is None else n for n in x.shape[:-2])
    filled = ops.matmul(ops.reshape(x, (*leading, 2 * num_known)), matrix)
    return ops.reshape(filled, (*leading, band, 2))


def restore_nulls(x: Tensor, subcarriers: tuple[int, ...], num_subcarriers: int) -> Tensor:
    """Puts a band `[..., band, 2]` back to its place: real `[..., num_subcarriers, 2]`.

    `num_subcarriers` counts all of the grid, or the effective ones. Nulls outside of the band
    repeat its first or last subcarrier.
    """
    if num_subcarriers == len(subcarriers):
        place = np.asarray(subcarriers)
    else:
        place = np.clip(np.arange(num_subcarriers), subcarriers[0], subcarriers[-1])
    return ops.take(x, place - subcarriers[0], axis=-2)


@functools.lru_cache(maxsize=16)
def _fill_matrix(subcarriers):
    """Real matrix `[2 * num_known, 2 * band]` on interleaved (re, im)."""
    band = np.arange(subcarriers[0], subcarriers[-1] + 1)
    known = np.asarray(subcarriers)
    missing = np.setdiff1d(band, known)

    def correlation(left, right):
        turns = _DELAY_SHARE * (left[:, None] - right[None])
        return np.sinc(turns) * np.exp(-1j * np.pi * turns)

    loaded = correlation(known, known) + _NOISE * np.eye(len(known))
    matrix = np.zeros((len(known), len(band)), dtype=np.complex128)
    matrix[np.arange(len(known)), known - band[0]] = 1.0
    matrix[:, missing - band[0]] = np.linalg.solve(loaded.T, correlation(missing, known).T)
    return block_form(matrix)
