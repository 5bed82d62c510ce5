r"""The shift kernel: neighbourhoods as shifts of flat planes, without tables of tokens.

All tokens of a grid have the same neighbours but for those outside of the grid, so the score of all
queries of a snapshot with their neighbour at one offset is an elementwise product of two shifted
planes. Nothing is gathered or scattered, and the compiler turns each offset into one vectorised
loop. The kernel walks over blocks of heads and snapshots that fit the cache of a core, and over the
key planes of each; the softmax is accumulated along the way as in flash attention. The backward
pass walks the same way, recomputes the weights from the saved normaliser, and shifts them back to
the keys. Neither pass ever stores the scores of more than one block.

What keeps the compiled loops fast on a CPU (XLA compiles a loop to vector instructions only if its
innermost axis is long and its addresses do not depend on what a loop carries):

- planes are flat, so the innermost axis is a whole plane;
- what a step reads at a place that depends on the step is loaded one step ahead, and what it adds
  at such a place is added one step later, so that no indexing is fused into arithmetic;
- what many channels share ends in an operation that the compiler deems too expensive to repeat (the
  exponential of the weights, the division of their gradients).
"""

from keras import ops

from lwmt_sionna.ops.attention_blocks import LOWEST, Blocks, Keys, inner
from lwmt_sionna.ops.neighborhood import Neighborhood

__all__ = ["attend_shift"]


def attend_shift(
    query,
    key,
    value,
    neighborhood: Neighborhood,
    grid: tuple[int, int, int],
    num_keys: int | None = None,
):
    """Attention over a translation-invariant neighbourhood, and its log-normaliser.

    Args:
        query: Scaled queries `[batch, num_heads, num_tokens, head_dim]`, float32 or float64,
            without a class token.
        key: Same shape.
        value: Same shape.
        neighborhood: A translation-invariant neighbourhood.
        grid: Number of snapshots, angle bins and delay bins.
        num_keys: How many of its highest scores a query keeps; None for all.

    Returns:
        `(output, normaliser)`: `[batch, num_heads, num_tokens, head_dim]` and
        `[batch, num_heads, num_tokens]`, the logarithm of the sum of the exponentials of the scores
        of each query.
    """
    blocks = Blocks(query, neighborhood, grid)

    @ops.custom_gradient
    def attend(query, key, value):
        threshold = None if num_keys is None else _thresholds(blocks, query, key, num_keys)
        output, peak, total = _forward(blocks, query, key, value, threshold)
        normalizer = peak + ops.log(total)
        packed = blocks.merge(ops.concatenate([output, normalizer[..., None, :]], axis=-2))

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            d_output = blocks.split(upstream)
            # Every score moves the normaliser by its weight, and the output by its value's
            # distance from the output.
            delta = ops.sum(d_output[..., :-1, :] * output, axis=-2) - d_output[..., -1, :]
            return _backward(
                blocks, query, key, value, peak, total, threshold, d_output[..., :-1, :], delta
            )

        return packed, gradient

    packed = attend(query, key, value)
    return packed[..., :-1], packed[..., -1]


def _add_up(terms):
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _thresholds(blocks: Blocks, query, key, num_keys: int):
    """Lowest score that each query keeps, `[num_blocks, chunk, heads, size]`.

    Bisection on the number of scores above a level, which needs neither a sort nor the scores in
    memory. It ends closer to the score than numbers of the precision can tell apart.
    """
    plan, size = blocks.plan, blocks.plan.size
    queries = blocks.split(query)
    keys = Keys(blocks, key, key, plan.halo)
    counts = [ops.convert_to_tensor(sweep.counts) for sweep in plan.sweeps]
    zeros = ops.zeros((blocks.chunk, blocks.heads, size), dtype=blocks.dtype)
    num_halvings = 52 if blocks.dtype == "float64" else 26

    def block(index, thresholds):
        group, chunk = index // blocks.num_chunks, index % blocks.num_chunks
        own = ops.slice(queries, (index, 0, 0, 0, 0), (1, *blocks.shape))[0]

        def visit(update, state):
            for sweep, count in zip(plan.sweeps, counts, strict=True):
                load = keys.window(sweep, chunk, group, 0)

                def step(i, carry, sweep=sweep, load=load):
                    (k, _, bias), state = carry
                    following = load(i + 1)
                    for o in sweep.offsets:
                        state = update(state, inner(own, k, o, size), bias[..., o : o + size])
                    return following, state

                state = ops.fori_loop(0, count[chunk], step, (load(0), state))[1]
            return state

        def widen(state, score, bias):
            lowest, highest, candidates = state
            return (
                ops.minimum(lowest, score - bias),
                ops.maximum(highest, score + bias),
                candidates + ops.cast(bias == 0, blocks.dtype),
            )

        low, high, candidates = visit(widen, (zeros - LOWEST, zeros + LOWEST, zeros))
        wanted = ops.minimum(candidates, float(num_keys))

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2

            def tally(found, score, bias):
                return found + ops.cast(score + bias >= middle, blocks.dtype)

            enough = visit(tally, zeros) >= wanted
            return ops.where(enough, middle, low), ops.where(enough, high, middle)

        low, _ = ops.fori_loop(0, num_halvings, halve, (low, high))
        return ops.slice_update(thresholds, (index, 0, 0, 0), low[None])

    thresholds = ops.zeros_like(queries[:, :, :, 0])
    return ops.fori_loop(0, ops.shape(queries)[0], block, thresholds)


def _forward(blocks: Blocks, query, key, value, threshold):
    """Outputs in blocks; highest score and sum of exponentials of each query.

    Outputs are `[num_blocks, chunk, heads, head_dim, size]`, the others lack `head_dim`.
    """
    plan, size = blocks.plan, blocks.plan.size
    queries = blocks.split(query)
    keys = Keys(blocks, key, value, plan.halo)
    counts = [ops.convert_to_tensor(sweep.counts) for sweep in plan.sweeps]
    plane_shape = (blocks.chunk, blocks.heads, size)

    def block(index, outputs):
        group, chunk = index // blocks.num_chunks, index % blocks.num_chunks
        own = ops.slice(queries, (index, 0, 0, 0, 0), (1, *blocks.shape))[0]
        if threshold is not None:
            floor = ops.slice(threshold, (index, 0, 0, 0), (1, *plane_shape))[0]
        state = (
            ops.full(plane_shape, LOWEST, dtype=blocks.dtype),
            ops.zeros(plane_shape, dtype=blocks.dtype),
            ops.zeros(blocks.shape, dtype=blocks.dtype),
        )
        for sweep, count in zip(plan.sweeps, counts, strict=True):
            load = keys.window(sweep, chunk, group, 0)

            # The keys of the next step are loaded while this one is worked on. Loading them where
            # they are used would have the compiler fuse the indexing into the arithmetic, which
            # then no longer vectorises.
            def step(i, carry, sweep=sweep, load=load):
                (k, v, bias), (highest, total, output) = carry
                following = load(i + 1)
                scores = [inner(own, k, o, size) + bias[..., o : o + size] for o in sweep.offsets]
                if threshold is not None:
                    scores = [ops.where(score >= floor, score, LOWEST) for score in scores]
                peak = highest
                for score in scores:
                    peak = ops.maximum(peak, score)
                weights = [ops.exp(score - peak) for score in scores]
                decay = ops.exp(highest - peak)
                total = _add_up([total * decay, *weights])
                output = _add_up(
                    [
                        output * decay[:, :, None],
                        *(
                            w[:, :, None] * v[..., o : o + size]
                            for w, o in zip(weights, sweep.offsets, strict=True)
                        ),
                    ]
                )
                return following, (peak, total, output)

            state = ops.fori_loop(0, count[chunk], step, (load(0), state))[1]
        highest, total, output = state
        packed = ops.concatenate(
            [output / total[:, :, None], highest[:, :, None], total[:, :, None]], axis=2
        )
        return ops.slice_update(outputs, (index, 0, 0, 0, 0), packed[None])

    outputs = ops.zeros_like(queries)
    outputs = ops.concatenate([outputs, outputs[:, :, :, :1], outputs[:, :, :, :1]], axis=3)
    outputs = ops.fori_loop(0, ops.shape(queries)[0], block, outputs)
    return outputs[..., :-2, :], outputs[..., -2, :], outputs[..., -1, :]


def _backward(blocks: Blocks, query, key, value, peak, total, threshold, d_output, delta):
    """Gradients of query, key and value, as tokens."""
    plan, size = blocks.plan, blocks.plan.size
    widest = plan.margin
    queries = blocks.split(query, widest)
    margins = [[widest, widest]]
    d_outputs = ops.pad(d_output, [[0, 0]] * 4 + margins)
    peak = ops.pad(peak, [[0, 0]] * 3 + margins)
    total = ops.pad(total, [[0, 0]] * 3 + margins, constant_values=1.0)
    delta = ops.pad(delta, [[0, 0]] * 3 + margins)
    if threshold is not None:
        threshold = ops.pad(threshold, [[0, 0]] * 3 + margins)
    keys = Keys(blocks, key, value, plan.halo + widest)
    counts = [ops.convert_to_tensor(sweep.counts) for sweep in plan.sweeps]
    overhang = plan.overhang
    length = size + 2 * widest

    def block(index, carry):
        d_queries, d_key, d_value = carry
        group, chunk = index // blocks.num_chunks, index % blocks.num_chunks
        shape = (1, *blocks.shape[:-1], length)
        own, d_own = (
            ops.slice(tensor, (index, 0, 0, 0, 0), shape)[0] for tensor in (queries, d_outputs)
        )
        shape = (1, blocks.chunk, blocks.heads, length)
        own_peak, own_total, own_delta = (
            ops.slice(tensor, (index, 0, 0, 0), shape)[0] for tensor in (peak, total, delta)
        )
        d_scaled = d_own / own_total[:, :, None]
        if threshold is not None:
            own_floor = ops.slice(threshold, (index, 0, 0, 0), shape)[0]
        d_query = ops.zeros(blocks.shape, dtype=blocks.dtype)
        for sweep, count in zip(plan.sweeps, counts, strict=True):
            load = keys.window(sweep, chunk, group, sweep.margin)
            planes, starts = (ops.convert_to_tensor(t) for t in (sweep.planes, sweep.starts))

            def step(i, carry, sweep=sweep, load=load, planes=planes, starts=starts):
                (k, v, bias), d_query, d_key, d_value = carry
                following = load(i + 1)
                margin, offsets = sweep.margin, sweep.offsets
                wide, skip = size + 2 * margin, widest - margin
                norm, divisor, shift = (
                    t[..., skip : skip + wide] for t in (own_peak, own_total, own_delta)
                )
                scores = [inner(own, k, o, wide, skip) + bias[..., o : o + wide] for o in offsets]
                if threshold is not None:
                    floor = own_floor[..., skip : skip + wide]
                    scores = [ops.where(score >= floor, score, LOWEST) for score in scores]
                # Without the division by the total, which `d_scaled` and `d_scores` make up for.
                weights = [ops.exp(score - norm) for score in scores]
                d_scores = [
                    w * (inner(d_own, v, o, wide, skip) - shift) / divisor
                    for w, o in zip(weights, offsets, strict=True)
                ]
                d_query = _add_up(
                    [
                        d_query,
                        *(
                            d[:, :, None, margin : margin + size]
                            * k[..., margin + o : margin + o + size]
                            for d, o in zip(d_scores, offsets, strict=True)
                        ),
                    ]
                )
                # What the keys of this step receive: the queries shifted back.
                touched = size + 2 * sweep.slack
                back = [2 * sweep.reach - o for o in offsets]
                to_key, to_value = (
                    _add_up(
                        factor[:, :, None, b : b + touched]
                        * source[..., skip + b : skip + b + touched]
                        for factor, b in zip(factors, back, strict=True)
                    )
                    for factors, source in ((d_scores, own), (weights, d_scaled))
                )
                first = starts[chunk, i] - plan.halo + sweep.reach - sweep.slack + overhang
                for t in range(blocks.chunk):
                    place = (planes[chunk, i, t] + group * keys.num_planes, 0, 0, first)
                    d_key, d_value = (
                        ops.slice_update(
                            total,
                            place,
                            ops.slice(total, place, (1, *blocks.shape[1:3], touched))
                            + part[t : t + 1],
                        )
                        for total, part in ((d_key, to_key), (d_value, to_value))
                    )
                return following, d_query, d_key, d_value

            _, d_query, d_key, d_value = ops.fori_loop(
                0, count[chunk], step, (load(0), d_query, d_key, d_value)
            )
        return (
            ops.slice_update(d_queries, (index, 0, 0, 0, 0), d_query[None]),
            d_key,
            d_value,
        )

    d_keys = ops.zeros_like(keys.key)[..., : size + 2 * overhang]
    missing = size + 2 * overhang - d_keys.shape[-1]
    if missing > 0:
        d_keys = ops.pad(d_keys, [[0, 0]] * 3 + [[0, missing]])
    d_queries = ops.zeros_like(queries)[..., :size]
    d_queries, d_key, d_value = ops.fori_loop(
        0, ops.shape(queries)[0], block, (d_queries, d_keys, d_keys)
    )
    d_key, d_value = (
        blocks.merge_planes(
            ops.reshape(total, (-1, keys.num_planes, *total.shape[1:]))[
                :, :-1, ..., overhang : overhang + size
            ]
        )
        for total in (d_key, d_value)
    )
    return blocks.merge(d_queries), d_key, d_value
