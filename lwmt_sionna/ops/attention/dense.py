"""The dense kernel: all pairs of tokens, masked; and the softmax that it shares with others."""

import functools

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.attention.neighborhood import Neighborhood
from lwmt_sionna.ops.attention.routing import LOWEST, keep_top_k
from lwmt_sionna.typing import Array, Tensor

__all__ = ["accumulator", "attend_dense", "dense_mask", "normalize"]


def attend_dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Array | None = None,
    num_keys: int | None = None,
) -> Tensor:
    """Attention of every query over all keys that a mask leaves; shapes as in `attend_gather`.

    `mask` is bool `[num_queries, num_tokens]`, true where a query sees a key; None for all.
    """
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    weights = normalize(scores, mask, num_keys)
    return ops.matmul(ops.cast(weights, value.dtype), value)


def normalize(scores: Tensor, mask: Array | None, num_keys: int | None) -> Tensor:
    """Softmax over the last axis of the unmasked (and routed) scores, in float32 at least."""
    scores = ops.cast(scores, accumulator(scores.dtype))
    if mask is not None:
        scores = ops.where(ops.convert_to_tensor(mask), scores, ops.cast(LOWEST, scores.dtype))
    if num_keys is not None:
        scores = keep_top_k(scores, num_keys)
    if scores.shape[-1] == 1:  # which `ops.softmax` warns of
        return 0 * scores + 1
    return ops.softmax(scores, axis=-1)


def accumulator(dtype: str) -> str:
    """Type in which scores of `dtype` are added up."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


@functools.lru_cache(maxsize=8)
def dense_mask(neighborhood: Neighborhood, grid: tuple[int, int, int]) -> Array:
    """Which token sees which, bool `[num_tokens, num_tokens]`, class token included."""
    indices, mask = neighborhood.table(grid)
    num_tokens = len(indices)
    dense = np.zeros((num_tokens, num_tokens), dtype=bool)
    rows = np.broadcast_to(np.arange(num_tokens)[:, None], indices.shape)
    dense[rows[mask], indices[mask]] = True
    if neighborhood.class_token:
        dense = np.pad(dense, (0, 1), constant_values=True)
        dense[-1, -1] = False
    return dense
