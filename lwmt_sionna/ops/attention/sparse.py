"""Sparse spatio-temporal attention: one meaning, several kernels, and the choice between them."""

import math

import keras
from keras import ops

from lwmt_sionna.ops.attention.neighborhood import Neighborhood, check_grid
from lwmt_sionna.ops.attention.routing import (
    EnergyRouting,
    TopKRouting,
    get_routing,
    narrow,
    select_bins,
    widen,
)
from lwmt_sionna.ops.attention.shift import BY_ROW_HEAD_DIM, attend_shift, unrolled_offsets
from lwmt_sionna.ops.attention.tables import attend_dense, attend_gather, dense_mask
from lwmt_sionna.ops.compiled import call_compiled, on_accelerator
from lwmt_sionna.typing import Tensor

__all__ = ["KERNELS", "select_kernel", "sparse_attention"]

KERNELS = ("auto", "dense", "gather", "shift")

# Below this a dense masked product costs little, and compiles fastest.
MIN_SPARSE_TOKENS = 512

# The shift kernel spells out every offset; beyond this many it would compile for minutes.
MAX_UNROLLED_OFFSETS = 128


def sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    *,
    routing: TopKRouting | EnergyRouting | str | dict | None = None,
    kernel: str = "auto",
    energy: Tensor | None = None,
) -> Tensor:
    r"""Attention of every token of an angle-delay-time grid over its neighbourhood.

    $$o_n = \sum_{m \in \mathcal{N}(n)} \mathrm{softmax}_m(q_n^\top k_m / \sqrt{d}) \, v_m$$

    All kernels compute this; they differ in time and memory only. Scores are normalised in float32
    at least, whatever the type of the inputs. Sparse kernels run compiled, in an eager call too.

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
            query) and `"shift"` (shifted planes; the fastest where it is compiled, for
            neighbourhoods that are the same for all tokens but for the edges). See
            `select_kernel`.
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
    if value.shape[0] == 0:
        return value
    if isinstance(routing, EnergyRouting):
        return _attend_energy(query, key, value, neighborhood, grid, routing, kernel, energy)
    if kernel == "auto":
        kernel = select_kernel(neighborhood, grid, query.shape[-1], routing)
    if kernel not in KERNELS:
        raise ValueError(f"`kernel` must be one of {KERNELS}. Received: kernel={kernel!r}")
    query = query * ops.cast(query.shape[-1] ** -0.5, query.dtype)

    num_keys = None
    if routing is not None:
        candidates = neighborhood.num_neighbors(grid) + int(neighborhood.class_token)
        if neighborhood.class_token:
            candidates = max(candidates, num_tokens - 1)
        num_keys = routing.num_keys(candidates)

    if kernel == "dense":
        return attend_dense(query, key, value, dense_mask(neighborhood, grid), num_keys)
    if kernel == "shift" and not _can_shift(neighborhood, routing):
        raise ValueError(
            "The shift kernel needs a neighbourhood without dilation in other snapshots or with "
            "edge='drop', and no class token where scores are routed. "
            f"Received: neighborhood={neighborhood}, routing={routing}"
        )
    settings = (kernel, neighborhood, grid, num_keys)
    if math.prod(grid) < MIN_SPARSE_TOKENS:
        return _attend(query, key, value, settings)
    return call_compiled(_attend, [query, key, value], settings)


def _attend(query, key, value, settings):
    kernel, neighborhood, grid, num_keys = settings
    attend = {"gather": attend_gather, "shift": attend_shift}[kernel]
    if not neighborhood.class_token:
        return attend(query, key, value, neighborhood, grid, num_keys)
    # The class token is one more key for every token, and one dense row of its own.
    class_query, *class_token = (tensor[:, :, -1:] for tensor in (query, key, value))
    query, key, value = (tensor[:, :, :-1] for tensor in (query, key, value))
    outputs = attend(query, key, value, neighborhood, grid, num_keys, class_token)
    class_row = attend_dense(class_query, key, value, None, num_keys)
    return ops.concatenate([outputs, class_row], axis=2)


def _attend_energy(query, key, value, neighborhood, grid, routing, kernel, energy):
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
    )
    return widen(output, bins, grid)


def select_kernel(
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    head_dim: int,
    routing: TopKRouting | None = None,
) -> str:
    """The kernel that `kernel="auto"` stands for.

    - below 512 tokens, where the neighbourhood is more than half of them, and with heads of 12 or
      more, which the shift kernel takes row by row, from a ninth on: `"dense"`;
    - where the neighbourhood differs from token to token by more than the edges of the grid
      (dilation with clamped edges), and where a class token takes part in routing: `"gather"`;
    - where the neighbourhood is most of the grid, so that its offsets are too many to spell out:
      `"gather"`, or `"dense"` if it holds more than an eighth of all tokens;
    - on PyTorch, which does not compile: the same;
    - on an accelerator with JAX, which compiles `"shift"` for minutes: the same, but `"dense"` up
      from a sixteenth;
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
    num_neighbors = neighborhood.num_neighbors(grid)
    by_row = head_dim >= BY_ROW_HEAD_DIM
    if num_tokens < MIN_SPARSE_TOKENS or (9 if by_row else 2) * num_neighbors > num_tokens:
        return "dense"
    accelerated = on_accelerator()
    if (
        keras.backend.backend() != "torch"
        and not accelerated
        and _can_shift(neighborhood, routing)
        and unrolled_offsets(neighborhood, grid, by_row) <= MAX_UNROLLED_OFFSETS
    ):
        return "shift"
    most = (16 if accelerated else 8) * num_neighbors
    return "dense" if most > num_tokens else "gather"


def _can_shift(neighborhood, routing):
    # A class token would compete with the neighbours for the kept scores.
    return neighborhood.translation_invariant and not (
        neighborhood.class_token and isinstance(routing, TopKRouting)
    )
