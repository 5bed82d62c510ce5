"""Blocks of flat planes, on which the shift kernel works."""

import math

import keras
from keras import ops

from lwmt_sionna.ops.attention_plan import ShiftPlan, Sweep, shift_plan

__all__ = ["BY_ROW_HEAD_DIM", "LOWEST", "Blocks", "Keys", "inner"]

# Finite: see `lwmt_sionna.ops.attention`.
LOWEST = -(2.0**100)

# Elements of the queries of one block: with keys, values and weights about 1 MB in float32, so that
# two cores work in their own caches.
BLOCK_ELEMENTS = 70_000

# From this head size on, unrolling all offsets of a window at once compiles too slowly.
BY_ROW_HEAD_DIM = 12


class Blocks:
    """Sizes of the blocks of a call, and the way between tokens and blocks."""

    def __init__(self, query, neighborhood, grid):
        _, self.num_heads, self.num_tokens, self.head_dim = query.shape
        self.grid = grid
        self.dtype = keras.backend.standardize_dtype(query.dtype)
        by_row = self.head_dim >= BY_ROW_HEAD_DIM
        one_head = self.head_dim * grid[1] * grid[2]
        limit = BLOCK_ELEMENTS
        self.heads = max(
            heads
            for heads in range(1, self.num_heads + 1)
            if self.num_heads % heads == 0 and (heads == 1 or heads * one_head <= limit)
        )
        chunk = min(grid[0], max(1, limit // (self.heads * one_head)))
        self.num_chunks = math.ceil(grid[0] / chunk)
        self.chunk = math.ceil(grid[0] / self.num_chunks)
        self.num_chunks = math.ceil(grid[0] / self.chunk)
        self.plan: ShiftPlan = shift_plan(neighborhood, grid, self.chunk, by_row)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the queries of a block."""
        return (self.chunk, self.heads, self.head_dim, self.plan.size)

    def planes(self, tensor, margin: int, extra: int):
        """Tokens to planes.

        Args:
            tensor: `[batch, num_heads, num_tokens, channels]`.
            margin: Zeros before and after each plane.
            extra: Planes of zeros after the last snapshot.

        Returns:
            `[batch * num_heads / heads, num_snapshots + extra, heads, channels, elements]`.
        """
        num_snapshots, num_angle, num_delay = self.grid
        channels = tensor.shape[-1]
        tensor = ops.reshape(
            tensor, (-1, self.heads, num_snapshots, num_angle, num_delay, channels)
        )
        tensor = ops.transpose(tensor, (0, 2, 1, 5, 3, 4))
        gap = self.plan.row - num_delay
        tensor = ops.pad(tensor, [[0, 0], [0, extra], [0, 0], [0, 0], [0, 0], [0, gap]])
        tensor = ops.reshape(
            tensor, (-1, num_snapshots + extra, self.heads, channels, self.plan.size)
        )
        return ops.pad(tensor, [[0, 0]] * 4 + [[margin, margin]]) if margin else tensor

    def split(self, tensor, margin: int = 0):
        """Tokens to blocks `[num_blocks, chunk, heads, channels, elements]`."""
        extra = self.num_chunks * self.chunk - self.grid[0]
        tensor = self.planes(tensor, margin, extra)
        return ops.reshape(tensor, (-1, self.chunk, *tensor.shape[2:]))

    def merge(self, tensor):
        """Blocks without a margin to tokens."""
        channels = tensor.shape[3]
        tensor = ops.reshape(
            tensor, (-1, self.num_chunks * self.chunk, self.heads, channels, self.plan.size)
        )
        return self.merge_planes(tensor[:, : self.grid[0]])

    def merge_planes(self, tensor):
        """Planes `[..., num_snapshots, heads, channels, elements]` to tokens."""
        num_snapshots, num_angle, num_delay = self.grid
        channels = tensor.shape[3]
        tensor = ops.reshape(
            tensor, (-1, num_snapshots, self.heads, channels, num_angle, self.plan.row)
        )
        tensor = ops.transpose(tensor[..., :num_delay], (0, 2, 1, 4, 5, 3))
        return ops.reshape(tensor, (-1, self.num_heads, self.num_tokens, channels))


class Keys:
    """Keys, values and bias of the steps of a sweep."""

    def __init__(self, blocks: Blocks, key, value, halo: int):
        self.blocks = blocks
        self.halo = halo
        self.num_planes = blocks.grid[0] + 1
        self.key, self.value = (
            ops.reshape(planes, (-1, *planes.shape[2:]))
            for planes in (blocks.planes(tensor, halo, 1) for tensor in (key, value))
        )
        self.bias = ops.convert_to_tensor(blocks.plan.bias(halo, LOWEST), dtype=blocks.dtype)

    def window(self, sweep: Sweep, chunk, group, margin: int):
        """A function from a step to its keys, values and bias."""
        blocks = self.blocks
        planes, starts = (ops.convert_to_tensor(t) for t in (sweep.planes, sweep.starts))
        length = blocks.plan.size + 2 * margin + 2 * sweep.reach
        shift = self.halo - blocks.plan.halo - margin

        def load(step):
            source = planes[chunk, step]
            start = starts[chunk, step] + shift
            rows = source + group * self.num_planes
            shape = (blocks.chunk, blocks.heads, blocks.head_dim, length)
            return (
                ops.slice(ops.take(self.key, rows, axis=0), (0, 0, 0, start), shape),
                ops.slice(ops.take(self.value, rows, axis=0), (0, 0, 0, start), shape),
                ops.slice(ops.take(self.bias, source, axis=0), (0, start), (blocks.chunk, length))[
                    :, None
                ],
            )

        return load


def inner(left, right, offset: int, length: int, start: int = 0):
    """Inner product over channels of a plane and a plane shifted by an offset."""
    total = None
    for channel in range(left.shape[2]):
        term = (
            left[:, :, channel, start : start + length]
            * right[:, :, channel, offset : offset + length]
        )
        total = term if total is None else total + term
    return total
