r"""The shift kernel: neighbourhoods as shifts of flat planes, without tables of tokens.

All tokens of a grid have the same neighbours but for those outside of the grid, so the score of all
queries of a snapshot with their neighbour at one offset is an elementwise product of two shifted
planes. Nothing is gathered or scattered, and the compiler turns each offset into one vectorised
loop. The kernel walks over blocks of heads and snapshots that fit the cache of a core, and over the
key planes of each; the softmax is accumulated along the way as in flash attention. The backward
pass takes the same walk, recomputes the weights from the saved normaliser, and shifts them back to
the keys; so does the search for the scores that routing keeps. No pass ever stores the scores of
more than one block.

What keeps the compiled loops fast on a CPU (XLA compiles a loop to vector instructions only if its
innermost axis is long and its addresses do not depend on what a loop carries):

- planes are flat, so the innermost axis is a whole plane;
- what a step reads at a place that depends on the step is loaded one step ahead, and what it adds
  at such a place is added one step later, so that no indexing is fused into arithmetic;
- what many channels share ends in an operation that the compiler deems too expensive to repeat (the
  exponential of the weights, the division of their gradients).
"""

import dataclasses
import functools
import math

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.attention.neighborhood import Neighborhood
from lwmt_sionna.ops.attention.routing import LOWEST
from lwmt_sionna.ops.attention.tables import accumulator
from lwmt_sionna.typing import Array, Tensor

__all__ = ["ShiftPlan", "Sweep", "attend_shift", "shift_plan", "unrolled_offsets"]

# Elements of the queries of one block: with keys, values and weights about 1 MB in float32, so that
# two cores work in their own caches.
BLOCK_ELEMENTS = 70_000

# From this head size on, unrolling all offsets of a window at once compiles too slowly.
BY_ROW_HEAD_DIM = 12


def attend_shift(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    num_keys: int | None = None,
    class_token: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Attention over the neighbours of each token, with the arguments of `attend_gather`.

    The neighbourhood must be translation-invariant, and scores are not routed beside a class token.
    """
    dtype = value.dtype
    query, key, value = (ops.cast(t, accumulator(t.dtype)) for t in (query, key, value))
    blocks = _Blocks(query, neighborhood, grid)

    @ops.custom_gradient
    def attend(query, key, value):
        routed = None if num_keys is None else _kept_scores(blocks, query, key, num_keys)
        output, peak, total = _forward(blocks, query, key, value, routed)
        normalizer = peak + ops.log(total)
        packed = blocks.merge(ops.concatenate([output, normalizer[..., None, :]], axis=-2))

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            d_output = blocks.split(upstream)
            # Every score moves the normaliser by its weight, and the output by its value's
            # distance from the output.
            delta = ops.sum(d_output[..., :-1, :] * output, axis=-2) - d_output[..., -1, :]
            known = (peak, total, delta)
            return _backward(blocks, query, key, value, d_output[..., :-1, :], known, routed)

        return packed, gradient

    packed = attend(query, key, value)
    output, normalizer = packed[..., :-1], packed[..., -1]
    if class_token is not None:
        class_key, class_value = (ops.cast(t, query.dtype) for t in class_token)
        class_score = ops.sum(query * class_key, axis=-1)
        share = ops.sigmoid(normalizer - class_score)[..., None]
        output = share * output + (1 - share) * class_value
    return ops.cast(output, dtype)


def _kept_scores(blocks, query, key, num_keys):
    """Which scores each query keeps.

    Bisection on the number of scores above a level, which needs neither a sort nor the scores in
    memory. It ends at a few units in the last place around the lowest kept score: what lies there
    is a tie.

    Returns:
        `[num_blocks, chunk, heads, 3, size]`: the lowest score that ties, the lowest above all
        ties, and what is added to scores that tie.
    """
    size = blocks.plan.size
    queries = blocks.split(query)
    keys = _Keys(blocks, key, key, blocks.plan.halo)
    zeros = ops.zeros((blocks.chunk, blocks.heads, size), dtype=blocks.dtype)
    digits = np.finfo(blocks.dtype).nmant + 1

    def block(index, kept):
        own = _take(queries, index)

        def tour(update, state):
            def visit(sweep, loaded, place, state):
                k, _, bias = loaded
                for o in sweep.offsets:
                    state = update(state, _inner(own, k, o, size), bias[..., o : o + size])
                return state

            return keys.walk(index, visit, state)

        def widen(state, score, bias):
            lowest, highest, candidates = state
            return (
                ops.minimum(lowest, score - bias),
                ops.maximum(highest, score + bias),
                candidates + ops.cast(bias == 0, blocks.dtype),
            )

        def count_above(*levels):
            def tally(counts, score, bias):
                found = (ops.cast(score + bias >= level, blocks.dtype) for level in levels)
                return tuple(n + more for n, more in zip(counts, found, strict=True))

            return tour(tally, (zeros,) * len(levels))

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            enough = count_above(middle)[0] >= wanted
            return ops.where(enough, middle, low), ops.where(enough, high, middle)

        low, high, candidates = tour(widen, (zeros - LOWEST, zeros + LOWEST, zeros))
        wanted = ops.minimum(candidates, float(num_keys))
        # What the same score may differ by from pass to pass, in which compilers order sums anew.
        margin = 2.0 ** (2 - digits) * ops.maximum(ops.abs(low), ops.abs(high))
        low, high = ops.fori_loop(0, digits, halve, (low, high))
        low, high = low - margin, high + margin
        above, kept_at_all = count_above(high, low)
        # A place without candidates has nothing to share.
        share = ops.maximum(wanted - above, 1.0) / ops.maximum(kept_at_all - above, 1.0)
        return _put(kept, index, ops.stack([low, high, ops.log(share)], axis=2))

    kept = ops.zeros_like(queries[:, :, :, :1]) + ops.zeros((3, 1), dtype=blocks.dtype)
    return ops.fori_loop(0, ops.shape(queries)[0], block, kept)


def _forward(blocks, query, key, value, routed):
    """Outputs in blocks; highest score and sum of exponentials of each query.

    Outputs are `[num_blocks, chunk, heads, head_dim, size]`, the others lack `head_dim`.
    """
    size = blocks.plan.size
    queries = blocks.split(query)
    keys = _Keys(blocks, key, value, blocks.plan.halo)
    plane = (blocks.chunk, blocks.heads, size)

    def block(index, outputs):
        own = _take(queries, index)
        kept = None if routed is None else _take(routed, index)

        def visit(sweep, loaded, place, state):
            k, v, bias = loaded
            highest, total, output = state
            scores = [
                _route(_inner(own, k, o, size) + bias[..., o : o + size], kept)
                for o in sweep.offsets
            ]
            peak = highest
            for score in scores:
                peak = ops.maximum(peak, score)
            weights = [ops.exp(score - peak) for score in scores]
            decay = ops.exp(highest - peak)
            total = _add_up([total * decay, *weights])
            parts = (
                w[:, :, None] * v[..., o : o + size]
                for w, o in zip(weights, sweep.offsets, strict=True)
            )
            return peak, total, _add_up([output * decay[:, :, None], *parts])

        state = (
            ops.full(plane, LOWEST, dtype=blocks.dtype),
            ops.zeros(plane, dtype=blocks.dtype),
            ops.zeros(blocks.shape, dtype=blocks.dtype),
        )
        highest, total, output = keys.walk(index, visit, state)
        packed = [output / total[:, :, None], highest[:, :, None], total[:, :, None]]
        return _put(outputs, index, ops.concatenate(packed, axis=2))

    outputs = ops.zeros_like(queries)
    outputs = ops.concatenate([outputs, outputs[:, :, :, :1], outputs[:, :, :, :1]], axis=3)
    outputs = ops.fori_loop(0, ops.shape(queries)[0], block, outputs)
    return outputs[..., :-2, :], outputs[..., -2, :], outputs[..., -1, :]


def _backward(blocks, query, key, value, d_output, known, routed):
    """Gradients of query, key and value, as tokens.

    `known` is, of each query, the highest score, the sum of exponentials, and the inner product of
    the output with its gradient (less the gradient of the normaliser).
    """
    size = blocks.plan.size
    # Queries around a plane share keys with it; those beyond the plane are zeros.
    widest, overhang = blocks.plan.margin, blocks.plan.overhang
    queries = blocks.split(query, widest)
    d_outputs, *known = (
        ops.pad(t, [[0, 0]] * (len(t.shape) - 1) + [[widest, widest]], constant_values=filler)
        for t, filler in zip((d_output, *known), (0.0, 0.0, 1.0, 0.0), strict=True)
    )
    if routed is not None:
        routed = ops.pad(routed, [[0, 0]] * 4 + [[widest, widest]])
    keys = _Keys(blocks, key, value, blocks.plan.halo + widest)

    def block(index, carry):
        d_queries, d_key, d_value = carry
        own, d_own = _take(queries, index), _take(d_outputs, index)
        peak, total, delta = (_take(tensor, index) for tensor in known)
        d_scaled = d_own / total[:, :, None]
        kept = None if routed is None else _take(routed, index)

        def visit(sweep, loaded, place, state):
            k, v, bias = loaded
            d_query, d_key, d_value = state
            margin, offsets = sweep.margin, sweep.offsets
            wide, skip = size + 2 * margin, widest - margin

            def near(tensor):
                return tensor[..., skip : skip + wide]

            scores = [
                _route(
                    _inner(own, k, o, wide, skip) + bias[..., o : o + wide],
                    None if kept is None else near(kept),
                )
                for o in offsets
            ]
            # Without the division by the total, which `d_scaled` and `d_scores` make up for.
            weights = [ops.exp(score - near(peak)) for score in scores]
            d_scores = [
                w * (_inner(d_own, v, o, wide, skip) - near(delta)) / near(total)
                for w, o in zip(weights, offsets, strict=True)
            ]
            parts = (
                d[:, :, None, margin : margin + size] * k[..., margin + o : margin + o + size]
                for d, o in zip(d_scores, offsets, strict=True)
            )
            d_query = _add_up([d_query, *parts])
            # What the keys of this step receive: the queries shifted back.
            touched = size + 2 * sweep.slack
            back = [2 * sweep.reach - o for o in offsets]
            to_key, to_value = (
                _add_up(
                    factor[:, :, None, b : b + touched] * source[..., skip + b : skip + b + touched]
                    for factor, b in zip(factors, back, strict=True)
                )
                for factors, source in ((d_scores, own), (weights, d_scaled))
            )
            planes, start = place
            first = start - blocks.plan.halo + sweep.reach - sweep.slack + overhang
            for t in range(blocks.chunk):
                corner = (planes[t], 0, 0, first)
                d_key, d_value = (
                    ops.slice_update(
                        sums,
                        corner,
                        ops.slice(sums, corner, (1, *blocks.shape[1:3], touched)) + part[t : t + 1],
                    )
                    for sums, part in ((d_key, to_key), (d_value, to_value))
                )
            return d_query, d_key, d_value

        zeros = ops.zeros(blocks.shape, dtype=blocks.dtype)
        d_query, *d_tables = keys.walk(index, visit, (zeros, d_key, d_value), wide=True)
        return (_put(d_queries, index, d_query), *d_tables)

    d_tables = ops.zeros_like(keys.key)[..., : size + 2 * overhang]
    missing = size + 2 * overhang - d_tables.shape[-1]
    if missing > 0:
        d_tables = ops.pad(d_tables, [[0, 0]] * 3 + [[0, missing]])
    d_queries = ops.zeros_like(queries)[..., :size]
    d_query, *d_tables = ops.fori_loop(
        0, ops.shape(queries)[0], block, (d_queries, d_tables, d_tables)
    )
    d_tables = (ops.reshape(t, (-1, keys.num_planes, *t.shape[1:])) for t in d_tables)
    d_key, d_value = (
        blocks.merge_planes(t[:, :-1, ..., overhang : overhang + size]) for t in d_tables
    )
    return blocks.merge(d_query), d_key, d_value


class _Blocks:
    """Sizes of the blocks of a call, and the way between tokens and blocks."""

    def __init__(
        self, query: Tensor, neighborhood: Neighborhood, grid: tuple[int, int, int]
    ) -> None:
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
        self.plan = shift_plan(neighborhood, grid, self.chunk, by_row)

    @property
    def shape(self):
        """Shape of the queries of a block."""
        return (self.chunk, self.heads, self.head_dim, self.plan.size)

    def planes(self, tensor, margin, extra):
        """Tokens `[batch, num_heads, num_tokens, channels]` to planes.

        They are `[batch * num_heads / heads, num_snapshots + extra, heads, channels, elements]`:
        `extra` planes of zeros after the last snapshot, `margin` zeros before and after each plane.
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

    def split(self, tensor, margin=0):
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


class _Keys:
    """Keys, values and bias of all planes, and the walk of a block of queries along them."""

    def __init__(self, blocks: _Blocks, key: Tensor, value: Tensor, halo: int) -> None:
        self.blocks = blocks
        self.halo = halo
        self.num_planes = blocks.grid[0] + 1
        self.key, self.value = (
            ops.reshape(planes, (-1, *planes.shape[2:]))
            for planes in (blocks.planes(tensor, halo, 1) for tensor in (key, value))
        )
        self.bias = ops.convert_to_tensor(blocks.plan.bias(halo, LOWEST), dtype=blocks.dtype)

    def walk(self, index, visit, state, wide=False):
        """Leads a block of queries past all key planes that it sees; returns the last state.

        `visit` is a function of the sweep, what is seen in a step (keys, values and bias), where it
        lies (planes of the keys and start in them) and the state; it returns the next state.
        `wide`: whether to see what the queries in the sweep's margin see, too.
        """
        group, chunk = index // self.blocks.num_chunks, index % self.blocks.num_chunks
        for sweep in self.blocks.plan.sweeps:
            planes, starts, counts = (
                ops.convert_to_tensor(t) for t in (sweep.planes, sweep.starts, sweep.counts)
            )
            margin = sweep.margin if wide else 0
            length = self.blocks.plan.size + 2 * margin + 2 * sweep.reach
            shift = self.halo - self.blocks.plan.halo - margin

            def load(i, planes=planes, starts=starts, length=length, shift=shift):
                start = starts[chunk, i] + shift
                source = planes[chunk, i]
                rows = source + group * self.num_planes
                shape = (*self.blocks.shape[:3], length)
                key, value = (
                    ops.slice(ops.take(tensor, rows, axis=0), (0, 0, 0, start), shape)
                    for tensor in (self.key, self.value)
                )
                bias = ops.take(self.bias, source, axis=0)
                bias = ops.slice(bias, (0, start), (self.blocks.chunk, length))
                return key, value, bias[:, None]

            # The keys of the next step are loaded while this one is worked on. Loading them where
            # they are used would have the compiler fuse the indexing into the arithmetic, which
            # then no longer vectorises.
            def step(i, carry, sweep=sweep, load=load, planes=planes, starts=starts):
                loaded, state = carry
                following = load(i + 1)
                place = planes[chunk, i] + group * self.num_planes, starts[chunk, i]
                return following, visit(sweep, loaded, place, state)

            state = ops.fori_loop(0, counts[chunk], step, (load(0), state))[1]
        return state


def _route(score, kept):
    """Scores that routing keeps, as `_kept_scores` tells, and `LOWEST` in place of others."""
    if kept is None:
        return score
    low, high, share = kept[:, :, 0], kept[:, :, 1], kept[:, :, 2]
    return ops.where(score >= high, score, ops.where(score >= low, score + share, LOWEST))


def _add_up(terms):
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _take(tensor, index):
    """Entry `index` of the first axis."""
    start = (index, *(0,) * (len(tensor.shape) - 1))
    return ops.slice(tensor, start, (1, *tensor.shape[1:]))[0]


def _put(tensor, index, entry):
    """The tensor with another entry at `index` of the first axis."""
    return ops.slice_update(tensor, (index, *(0,) * (len(tensor.shape) - 1)), entry[None])


def _inner(left, right, offset, length, start=0):
    """Inner product over channels of a plane and a plane shifted by an offset."""
    planes = left[..., start : start + length], right[..., offset : offset + length]
    channels = zip(*(ops.unstack(plane, axis=2) for plane in planes), strict=True)
    return _add_up(one * other for one, other in channels)


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Steps that share one set of unrolled offsets.

    A step of a chunk of snapshots looks at one key plane per snapshot, through a window of the flat
    plane. The key of query `n` at offset `o` is element `start + n + o` of the plane with its halo.

    Attributes:
        offsets: Offsets into the window, at least 0.
        reach: Half the span of the offsets: the centre of the window.
        slack: Elements by which the keys that a step touches hang over its window's centre.
        planes: int32 `[num_chunks, num_steps + 1, chunk]`, the key plane of each snapshot;
            `num_snapshots` is a plane without keys. The last step is never taken.
        starts: int32 `[num_chunks, num_steps + 1]`.
        counts: int32 `[num_chunks]`, steps that have any key.
    """

    offsets: tuple[int, ...]
    reach: int
    slack: int
    planes: Array
    starts: Array
    counts: Array

    @property
    def margin(self) -> int:
        """Queries before and after the plane that can share a key with it."""
        return self.reach + self.slack


@dataclasses.dataclass(frozen=True, eq=False)
class ShiftPlan:
    """Geometry of flat planes and the sweeps over them.

    The delay bins of all angles of a snapshot lie behind each other in one flat plane, with as many
    unused elements after each angle as the window is wide: a neighbour in angle and delay is then a
    constant shift, and a shift over the edge of the grid lands on an unused element.

    Attributes:
        grid: Number of snapshots, angle bins and delay bins.
        row: Elements from one angle to the next.
        halo: Elements before and after a plane that the shifts may touch.
        sweeps: What to add up.
    """

    grid: tuple[int, int, int]
    row: int
    halo: int
    sweeps: tuple[Sweep, ...]

    @property
    def size(self) -> int:
        """Elements of a plane without its halo."""
        return self.grid[1] * self.row

    @property
    def margin(self) -> int:
        """Queries before and after the plane that can share a key with it, in any sweep."""
        return max(sweep.margin for sweep in self.sweeps)

    @property
    def overhang(self) -> int:
        """Elements by which gradients of keys may hang over a plane."""
        return max(
            int(np.abs(sweep.starts - self.halo + sweep.reach).max()) + sweep.slack
            for sweep in self.sweeps
        )

    def bias(self, halo: int, lowest: float) -> Array:
        """`[num_snapshots + 1, 2 * halo + size]`: 0 where there is a key, else `lowest`."""
        num_snapshots, num_angle, num_delay = self.grid
        planes = np.full((num_snapshots + 1, num_angle, self.row), lowest)
        planes[:num_snapshots, :, :num_delay] = 0
        planes = planes.reshape(num_snapshots + 1, self.size)
        return np.pad(planes, ((0, 0), (halo, halo)), constant_values=lowest)


def _steps(neighborhood: Neighborhood, grid: tuple[int, int, int]) -> dict:
    """Angle steps and delay steps of a window -> the time offsets that have this window."""
    classes: dict[tuple, list[int]] = {}
    for time_offset in (0, *neighborhood.effective_time_offsets):
        if abs(time_offset) >= grid[0]:
            continue
        axes = []
        widths = neighborhood.half_widths(time_offset)
        dilations = neighborhood.dilation_at(time_offset)
        for size, width, dilation in zip(grid[1:], widths, dilations, strict=True):
            reach = (size - 1 if width < 0 else min(width, size - 1)) // dilation
            axes.append(tuple(dilation * step for step in range(-reach, reach + 1)))
        classes.setdefault(tuple(axes), []).append(time_offset)
    return classes


def unrolled_offsets(neighborhood: Neighborhood, grid: tuple[int, int, int], by_row: bool) -> int:
    """Number of offsets that a kernel for this plan spells out: what its compile time follows."""
    return sum(
        len(delays) * (1 if by_row else len(angles))
        for angles, delays in _steps(neighborhood, grid)
    )


@functools.lru_cache(maxsize=32)
def shift_plan(
    neighborhood: Neighborhood, grid: tuple[int, int, int], chunk: int, by_row: bool
) -> ShiftPlan:
    """The plan of a translation-invariant neighbourhood on a grid.

    `chunk` snapshots are worked on at a time. A step covers one angle offset (`by_row`), or all of
    them: fewer offsets to compile against fewer steps.
    """
    num_snapshots = grid[0]
    classes = _steps(neighborhood, grid)
    row = grid[2] + max(delays[-1] for _, delays in classes)
    halo = max(angles[-1] * row + delays[-1] for angles, delays in classes)
    num_chunks = math.ceil(num_snapshots / chunk)
    queries = np.arange(num_chunks * chunk).reshape(num_chunks, chunk)
    sweeps = []
    for (angles, delays), time_offsets in classes.items():
        if by_row:
            reach, slack = delays[-1], delays[-1]
            offsets = tuple(reach + delay for delay in delays)
            centres = [angle * row for angle in angles]
        else:
            reach, slack = angles[-1] * row + delays[-1], 0
            offsets = tuple(reach + angle * row + delay for angle in angles for delay in delays)
            centres = [0]
        planes, starts, counts = [], [], []
        num_steps = len(time_offsets) * len(centres)
        for chunk_queries in queries:
            chosen = []
            for time_offset in time_offsets:
                keys = chunk_queries + time_offset
                real = (keys >= 0) & (keys < num_snapshots) & (chunk_queries < num_snapshots)
                keys = np.where(real, keys, num_snapshots)
                if real.any():
                    chosen += [(keys, halo - reach + centre) for centre in centres]
            counts.append(len(chosen))
            idle = (np.full(chunk, num_snapshots), halo - reach)
            chosen += [idle] * (num_steps + 1 - len(chosen))
            planes.append([keys for keys, _ in chosen])
            starts.append([start for _, start in chosen])
        sweeps.append(
            Sweep(
                offsets,
                reach,
                slack,
                np.array(planes, np.int32),
                np.array(starts, np.int32),
                np.array(counts, np.int32),
            )
        )
    return ShiftPlan(grid, row, halo, tuple(sweeps))
