"""Kernels over tables of neighbours: dense, all pairs masked; gather, the keys of each query.

Both take any neighbourhood. The compiler fuses the look-ups of the gather kernel into the sums over
channels and over neighbours, so that copies of keys and values are never stored. Tables are
invertible: the queries that see a key are known beforehand, so that gradients of keys and values
are look-ups as well, where automatic differentiation would scatter. The backward pass recomputes
the weights.
"""

import functools

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.attention.neighborhood import Neighborhood
from lwmt_sionna.ops.attention.routing import LOWEST, keep_top_k
from lwmt_sionna.typing import Array, Tensor

__all__ = [
    "accumulator",
    "attend_dense",
    "attend_gather",
    "dense_mask",
    "inverse_table",
    "normalize",
]


def attend_gather(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    num_keys: int | None = None,
    class_token: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Attention over the neighbours of each token, and the class token where there is one.

    Args:
        query: Scaled queries `[batch, num_heads, num_tokens, head_dim]`, without a class token.
        key: Same shape.
        value: Same shape.
        neighborhood: The tokens that a token attends to.
        grid: Number of snapshots, angle bins and delay bins.
        num_keys: How many of its highest scores a query keeps; None for all.
        class_token: Key and value `[batch, num_heads, 1, head_dim]` that all queries see besides.

    Returns:
        `[batch, num_heads, num_tokens, head_dim]`.
    """
    indices, mask = neighborhood.table(grid)
    sources, slots, inverse_mask = inverse_table(neighborhood, grid)
    num_tokens, width = indices.shape
    with_class = class_token is not None
    if with_class:
        mask = np.pad(mask, [[0, 0], [0, 1]], constant_values=True)

    def weigh(query, key, class_key=None):
        scores = ops.sum(query[:, :, :, None] * ops.take(key, indices, axis=2), axis=-1)
        if with_class:
            scores = ops.concatenate([scores, ops.sum(query * class_key, -1, keepdims=True)], -1)
        weights = normalize(scores, mask, num_keys)
        return ops.cast(weights, query.dtype)

    def mix(weights, table, values):
        """Sum over neighbours of weights times the values they are found at."""
        return ops.sum(weights[..., None] * ops.take(values, table, axis=2), axis=-2)

    def invert(weights):
        """Weights of each key for the queries that see it: `[batch, heads, tokens, inverse]`."""
        flat = ops.reshape(weights, (-1, weights.shape[1], num_tokens * width))
        found = ops.take(flat, sources * width + slots, axis=2)
        return found * ops.cast(ops.convert_to_tensor(inverse_mask), found.dtype)

    @ops.custom_gradient
    def attend(query, key, value, *far_token):
        weights = weigh(query, key, *far_token[:1])
        output = mix(weights[..., :width], indices, value)
        if with_class:
            output = output + weights[..., width:] * far_token[1]

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            weights = weigh(query, key, *far_token[:1])
            near = weights[..., :width]
            d_weights = ops.sum(upstream[:, :, :, None] * ops.take(value, indices, axis=2), axis=-1)
            # What all weights of a query share: a softmax does not see it.
            shared = ops.sum(near * d_weights, axis=-1, keepdims=True)
            if with_class:
                far = weights[..., width:]
                d_far = ops.sum(upstream * far_token[1], axis=-1, keepdims=True)
                shared = shared + far * d_far
            d_scores = near * (d_weights - shared)
            d_query = mix(d_scores, indices, key)
            gradients = [
                mix(invert(d_scores), sources, query),
                mix(invert(near), sources, upstream),
            ]
            if with_class:
                d_score = far * (d_far - shared)
                d_query = d_query + d_score * far_token[0]
                gradients += [
                    ops.sum(d_score * query, axis=2, keepdims=True),
                    ops.sum(far * upstream, axis=2, keepdims=True),
                ]
            return (d_query, *gradients)

        return output, gradient

    return attend(query, key, value, *(() if class_token is None else class_token))


@functools.lru_cache(maxsize=8)
def inverse_table(
    neighborhood: Neighborhood, grid: tuple[int, int, int]
) -> tuple[Array, Array, Array]:
    """Which queries see each key, and in which column of their row of `Neighborhood.table`.

    Returns `(sources, slots, mask)`: int32, int32 and bool `[num_tokens, most_queries_of_a_key]`;
    entries where `mask` is False are 0.
    """
    indices, mask = neighborhood.table(grid)
    num_tokens = len(indices)
    rows, columns = np.nonzero(mask)
    seen = indices[rows, columns]
    order = np.argsort(seen, kind="stable")
    seen, rows, columns = seen[order], rows[order], columns[order]
    starts = np.searchsorted(seen, np.arange(num_tokens + 1))
    place = np.arange(len(seen)) - starts[seen]
    shape = (num_tokens, int(np.diff(starts).max()))
    sources, slots = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    inverse_mask = np.zeros(shape, bool)
    sources[seen, place], slots[seen, place], inverse_mask[seen, place] = rows, columns, True
    return sources, slots, inverse_mask


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
    if keras.backend.backend() == "torch" and num_keys is None:
        # Fused there; elsewhere the compiler does it.
        by_token = (ops.swapaxes(x, 1, 2) for x in (query, key, value))
        return ops.swapaxes(ops.dot_product_attention(*by_token, mask=mask, scale=1.0), 1, 2)
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
