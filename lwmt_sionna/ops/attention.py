"""Sparse spatio-temporal attention: one meaning, several kernels."""

import functools
import math

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.attention_blocks import BY_ROW_HEAD_DIM
from lwmt_sionna.ops.attention_gather import attend_gather
from lwmt_sionna.ops.attention_plan import is_translation_invariant, unrolled_offsets
from lwmt_sionna.ops.attention_routing import (
    EnergyRouting,
    TopKRouting,
    get_routing,
    keep_top_k,
    narrow,
    select_bins,
    widen,
)
from lwmt_sionna.ops.attention_shift import attend_shift
from lwmt_sionna.ops.neighborhood import Neighborhood, check_grid

__all__ = ["KERNELS", "select_kernel", "sparse_attention"]

KERNELS = ("auto", "dense", "gather", "tile", "shift")

# Below this a dense masked product costs little, and compiles fastest.
MIN_SPARSE_TOKENS = 512

# The shift kernel spells out every offset; beyond this many it would compile for minutes.
MAX_UNROLLED_OFFSETS = 128

# Finite, so that a row that is masked in one place and rescued in another never turns to NaN, and
# far enough below any score that its exponential is exactly zero. A power of two is the same number
# in every precision.
LOWEST = -(2.0**100)


def sparse_attention(
    query,
    key,
    value,
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    *,
    routing: TopKRouting | EnergyRouting | str | dict | None = None,
    kernel: str = "auto",
    scale: float | None = None,
    energy=None,
):
    r"""Attention of every token of an angle-delay-time grid over its neighbourhood.

    $$o_n = \sum_{m \in \mathcal{N}(n)} \mathrm{softmax}_m(s \, q_n^\top k_m) \, v_m$$

    All kernels compute this; they differ in time and memory only. Scores are normalised in float32
    at least, whatever the type of the inputs.

    Args:
        query: `[batch, num_heads, num_tokens, head_dim]`, tokens time-major, then angle, then
            delay, then the class token where the neighbourhood has one.
        key: Same shape as `query`.
        value: Same shape as `query`.
        neighborhood: The tokens that a token attends to.
        grid: Number of snapshots, angle bins and delay bins.
        routing: None; `"topk"` (as published) or a `TopKRouting`: each token and head thins out
            its scores; `"energy"` or an `EnergyRouting`: attention works only on the bins of a
            sample that carry energy, and costs that much less.
        kernel: `"auto"`, or one of `"dense"` (all pairs, masked), `"gather"` (the keys of each
            query), `"tile"` (the keys of each tile of queries) and `"shift"` (shifted planes;
            the fastest, for neighbourhoods that are the same for all tokens but for the edges).
            See `select_kernel`.
        scale: Factor of the scores. Defaults to `head_dim ** -0.5`.
        energy: Energy of the tokens without the class token, `[batch, num_tokens]`. Needed by
            energy routing alone.

    Returns:
        `[batch, num_heads, num_tokens, head_dim]` of the type of `value`.

    Raises:
        ValueError: If shapes, grid and neighbourhood do not fit together.

    Example:

    >>> query, key, value = keras.random.normal((3, 1, 8, 5 * 16 * 16, 4))
    >>> sparse_attention(query, key, value, Neighborhood.published(), (5, 16, 16)).shape
    TensorShape([1, 8, 1280, 4])
    """
    grid = check_grid(grid)
    routing = get_routing(routing)
    query, key, value = (ops.convert_to_tensor(tensor) for tensor in (query, key, value))
    num_tokens = math.prod(grid) + int(neighborhood.class_token)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if len(tensor.shape) != 4 or tensor.shape[2] not in (num_tokens, None):
            raise ValueError(
                f"`{name}` must be [batch, num_heads, num_tokens, head_dim] with {num_tokens} "
                f"tokens for grid {grid} {'with' if neighborhood.class_token else 'without'} a "
                f"class token. Received: {name}.shape={tuple(tensor.shape)}"
            )
    if isinstance(routing, EnergyRouting):
        return _attend_energy(query, key, value, neighborhood, grid, routing, kernel, scale, energy)
    if kernel == "auto":
        kernel = select_kernel(neighborhood, grid, query.shape[-1], routing)
    if kernel not in KERNELS:
        raise ValueError(f"`kernel` must be one of {KERNELS}. Received: kernel={kernel!r}")
    if scale is None:
        scale = query.shape[-1] ** -0.5
    query = query * ops.cast(scale, query.dtype)

    num_keys = None
    if routing is not None:
        candidates = neighborhood.num_neighbors(grid) + int(neighborhood.class_token)
        if neighborhood.class_token:
            candidates = max(candidates, num_tokens - 1)
        num_keys = routing.num_keys(candidates)

    if kernel == "dense":
        mask = _dense_mask(neighborhood, grid)
        return _attend_dense(query, key, value, ops.convert_to_tensor(mask), num_keys)
    if kernel == "shift" and not _can_shift(neighborhood, routing):
        raise ValueError(
            "The shift kernel needs a neighbourhood without dilation or with edge='drop', and no "
            "class token where scores are routed. "
            f"Received: neighborhood={neighborhood}, routing={routing}"
        )
    attend = {"gather": _attend_gather, "tile": _attend_tile, "shift": _attend_shift}[kernel]
    if not neighborhood.class_token:
        return attend(query, key, value, None, None, neighborhood, grid, num_keys)
    # The class token is one more key for every token, and one dense row of its own.
    tokens = attend(
        query[:, :, :-1],
        key[:, :, :-1],
        value[:, :, :-1],
        key[:, :, -1:],
        value[:, :, -1:],
        neighborhood,
        grid,
        num_keys,
    )
    class_row = _attend_dense(query[:, :, -1:], key[:, :, :-1], value[:, :, :-1], None, num_keys)
    return ops.concatenate([tokens, class_row], axis=2)


def _attend_energy(query, key, value, neighborhood, grid, routing, kernel, scale, energy):
    """Attention on the grid that the kept bins of each sample span."""
    if energy is None:
        raise ValueError(
            "Energy routing needs the `energy` of the tokens, [batch, num_tokens]. "
            "Received: energy=None"
        )
    bins = select_bins(ops.cast(energy, "float32"), grid, routing, value.dtype)
    output = sparse_attention(
        *(narrow(tensor, bins, grid) for tensor in (query, key, value)),
        neighborhood,
        routing.reduced_grid(grid),
        kernel=kernel,
        scale=scale,
    )
    return widen(output, bins, grid)


def select_kernel(
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    head_dim: int,
    routing: TopKRouting | None = None,
) -> str:
    """The kernel that `kernel="auto"` stands for.

    - below 512 tokens: `"dense"`;
    - where the neighbourhood differs from token to token by more than the edges of the grid
      (dilation with clamped edges), and where a class token takes part in routing: `"gather"`;
    - where the neighbourhood is most of the grid, so that its offsets are too many to spell out:
      `"gather"`, or `"dense"` if it holds more than an eighth of all tokens;
    - else `"shift"`.

    Args:
        neighborhood: The tokens that a token attends to.
        grid: Number of snapshots, angle bins and delay bins.
        head_dim: Size of a head.
        routing: How neighbours are thinned out.

    Returns:
        The name of the kernel.
    """
    num_tokens = math.prod(grid)
    if num_tokens < MIN_SPARSE_TOKENS:
        return "dense"
    by_row = head_dim >= BY_ROW_HEAD_DIM
    if (
        _can_shift(neighborhood, routing)
        and unrolled_offsets(neighborhood, grid, by_row) <= MAX_UNROLLED_OFFSETS
    ):
        return "shift"
    return "dense" if 8 * neighborhood.num_neighbors(grid) > num_tokens else "gather"


def _can_shift(neighborhood, routing) -> bool:
    # A class token would compete with the neighbours for the kept scores.
    return is_translation_invariant(neighborhood) and not (
        neighborhood.class_token and isinstance(routing, TopKRouting)
    )


def _normalize(scores, mask, num_keys: int | None):
    """Softmax over the last axis of the unmasked (and routed) scores, in float32 at least."""
    scores = ops.cast(scores, _accumulator(scores.dtype))
    if mask is not None:
        scores = ops.where(mask, scores, ops.cast(LOWEST, scores.dtype))
    if num_keys is not None:
        scores = keep_top_k(scores, num_keys, LOWEST)
    if scores.shape[-1] == 1:  # which `ops.softmax` warns of
        return 0 * scores + 1
    return ops.softmax(scores, axis=-1)


def _accumulator(dtype) -> str:
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def _attend_dense(query, key, value, mask, num_keys):
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    weights = _normalize(scores, mask, num_keys)
    return ops.matmul(ops.cast(weights, value.dtype), value)


def _attend_gather(query, key, value, class_key, class_value, neighborhood, grid, num_keys):
    return attend_gather(
        query, key, value, class_key, class_value, neighborhood, grid, _normalize, num_keys
    )


def _attend_tile(query, key, value, class_key, class_value, neighborhood, grid, num_keys):
    queries, keys, mask, inverse = _tile_tables(neighborhood, grid, _tile_shape(grid))
    query, key, value = (
        ops.take(query, queries, axis=2),
        ops.take(key, keys, axis=2),
        ops.take(value, keys, axis=2),
    )
    mask = ops.convert_to_tensor(mask)
    if class_key is not None:
        shape = (*ops.shape(key)[:3], 1, key.shape[-1])
        key, value = (
            ops.concatenate([tensor, ops.broadcast_to(extra[:, :, None], shape)], axis=3)
            for tensor, extra in ((key, class_key), (value, class_value))
        )
        mask = ops.pad(mask, [[0, 0], [0, 0], [0, 1]], constant_values=True)
    output = _attend_dense(query, key, value, mask, num_keys)
    num_tiles, tile_size = queries.shape
    output = ops.reshape(output, (*ops.shape(query)[:2], num_tiles * tile_size, value.shape[-1]))
    return ops.take(output, inverse, axis=2)


def _tile_shape(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    return (1, min(4, grid[1]), min(4, grid[2]))


def _attend_shift(query, key, value, class_key, class_value, neighborhood, grid, num_keys):
    dtype = value.dtype
    query, key, value = (ops.cast(t, _accumulator(t.dtype)) for t in (query, key, value))
    output, normalizer = attend_shift(query, key, value, neighborhood, grid, num_keys)
    if class_key is not None:
        class_score = ops.sum(query * ops.cast(class_key, query.dtype), axis=-1)
        share = ops.sigmoid(normalizer - class_score)[..., None]
        output = share * output + (1 - share) * ops.cast(class_value, query.dtype)
    return ops.cast(output, dtype)


@functools.lru_cache(maxsize=8)
def _dense_mask(neighborhood: Neighborhood, grid: tuple[int, int, int]) -> np.ndarray:
    indices, mask = neighborhood.table(grid)
    num_tokens = len(indices)
    dense = np.zeros((num_tokens, num_tokens), dtype=bool)
    rows = np.broadcast_to(np.arange(num_tokens)[:, None], indices.shape)
    dense[rows[mask], indices[mask]] = True
    if neighborhood.class_token:
        dense = np.pad(dense, (0, 1), constant_values=True)
        dense[-1, -1] = False
    return dense


@functools.lru_cache(maxsize=8)
def _tile_tables(
    neighborhood: Neighborhood, grid: tuple[int, int, int], tile: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries and keys of each tile, the mask between them, and the place of each token.

    Returns:
        `queries` `[num_tiles, tile_size]` (a tile that hangs over the edge repeats token 0), `keys`
        `[num_tiles, block]`, `mask` `[num_tiles, tile_size, block]`, `inverse` `[num_tokens]`.
    """
    indices, mask = neighborhood.table(grid)
    num_tokens = len(indices)
    counts = [-(-size // step) for size, step in zip(grid, tile, strict=True)]
    padded = np.full([count * step for count, step in zip(counts, tile, strict=True)], -1)
    padded[tuple(slice(size) for size in grid)] = np.arange(num_tokens).reshape(grid)
    queries = (
        padded.reshape(counts[0], tile[0], counts[1], tile[1], counts[2], tile[2])
        .transpose(0, 2, 4, 1, 3, 5)
        .reshape(math.prod(counts), math.prod(tile))
    )
    real = queries >= 0
    queries = np.where(real, queries, 0)
    inverse = np.zeros(num_tokens, dtype=np.int32)
    slots = np.arange(queries.size).reshape(queries.shape)
    inverse[queries[real]] = slots[real]

    tile_of_token = inverse // queries.shape[1]
    pairs = tile_of_token[:, None].astype(np.int64) * num_tokens + indices
    unique = np.unique(pairs[mask])
    owner, member = np.divmod(unique, num_tokens)
    starts = np.searchsorted(owner, np.arange(len(queries) + 1))
    columns = np.arange(len(unique)) - starts[owner]
    block = int(np.diff(starts).max())
    keys = np.zeros((len(queries), block), dtype=np.int32)
    keys[owner, columns] = member

    rows = np.broadcast_to(np.arange(num_tokens)[:, None], indices.shape)[mask]
    allowed = np.zeros((queries.size, block), dtype=bool)
    allowed[inverse[rows], columns[np.searchsorted(unique, pairs[mask])]] = True
    return (
        queries.astype(np.int32),
        keys,
        allowed.reshape(*queries.shape, block),
        inverse,
    )
