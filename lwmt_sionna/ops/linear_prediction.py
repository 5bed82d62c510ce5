"""Denoising and linear prediction of angle-delay bins from their own neighbourhood.

A resolved propagation path is one tone in a few neighbouring bins: its Doppler shift is the same in
all of them, and its leakage spreads along the two axes of the transform. Both facts are used here
without any training: bins are denoised within the span of what their neighbours share, and the
coefficients of linear prediction are estimated from a pool of bins.

All functions take real tensors `[batch, time, angle, delay, 2]`, (real, imaginary) last, and treat
both bin axes as cyclic, which the discrete Fourier transform makes them.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from lwmt_sionna.ops.compiled import map_rows, piece
from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.linear_algebra import solve_hermitian, solve_squared
from lwmt_sionna.typing import Tensor

__all__ = [
    "burg_coefficients",
    "denoise",
    "extrapolate",
    "least_squares_coefficients",
    "noise_power",
    "prediction_error",
]

_TINY = 1e-20
# Threshold of denoising over the edge of the noise eigenvalues.
_SHARPNESS = 1.5
# Quantile of the bins' powers that serves as the noise power, and the standard normal's quantile of
# the same probability.
_QUANTILE, _NORMAL_QUANTILE = 0.25, -0.67449
# Histories cleaner than this are treated as if they had this signal-to-noise ratio, so that the
# covariances stay within the range of float32.
_NOISE_FLOOR = 1e-6
# Delays that are denoised at a time.
_BLOCK = 32
# What is added to the normal equations of least squares, over the mean of their diagonal.
_RIDGE = 1e-4
# Least value that is added: what is empty must have an inverse whose square float32 still holds.
_LEAST_LOAD = 1e-18
# Largest power of a bounded forecast over the largest one of the history: tones beat.
_GROWTH = 4.0


def noise_power(x: Tensor) -> Tensor:
    """Noise power per bin, from the bins that hold little else.

    Most bins of a channel hold no path. The lower quartile of the bins' mean powers over time is
    therefore noise; it is corrected for the bias that a quantile of a mean of exponential variables
    has (Wilson and Hilferty 1931).

    Args:
        x: History in the angle-delay domain, real `[batch, time, angle, delay, 2]`.

    Returns:
        Real `[batch]`; at least -60 dB of the mean power.
    """
    num_snapshots = x.shape[1]
    power = ops.mean(ops.sum(ops.square(x), axis=-1), axis=1)
    power = ops.reshape(power, (-1, power.shape[1] * power.shape[2]))
    bias = (1 - 1 / (9 * num_snapshots) + _NORMAL_QUANTILE / (3 * math.sqrt(num_snapshots))) ** 3
    ordered = ops.sort(power, axis=-1)
    quantile = ordered[:, int(_QUANTILE * (power.shape[1] - 1))]
    return ops.maximum(quantile / bias, _least_noise(x))


def _least_noise(x):
    """Noise power per bin, `[batch]`, below which covariances leave the range of float32."""
    return _NOISE_FLOOR * ops.mean(ops.sum(ops.square(x), axis=-1), axis=(1, 2, 3)) + _TINY


def denoise(x: Tensor, radius: int = 2, noise: Tensor | None = None) -> Tensor:
    r"""Keeps of every bin what it shares with the bins along its row and column.

    The covariance $S$ over time of a bin and its $n - 1$ neighbours on a cross (leakage of the
    transform runs along the axes) is split softly into signal and noise: the bin becomes the
    corresponding element of $S^2 (S^2 + c^2 I)^{-1} z$, which passes directions whose eigenvalue is
    far above $c$ and stops those below. $c$ is 1.5 times the largest eigenvalue that noise alone
    would show, $\sigma^2 (1 + \sqrt{n / T})^2$ (Marchenko and Pastur 1967).

    Args:
        x: Real `[batch, time, angle, delay, 2]`.
        radius: Arm length of the cross in bins. Its `4 * radius + 1` bins may not exceed the grid.
        noise: Noise power per bin, real `[batch]`; less than -60 dB of the mean power counts as
            that. Estimated by `noise_power` if `None`.

    Returns:
        Real, shape as `x`.
    """
    num_snapshots, *grid = x.shape[1:4]
    noise = noise_power(x) if noise is None else ops.maximum(noise, _least_noise(x))
    unit = 1.0 / ops.sqrt(noise)[:, None, None, None]
    z = ComplexPair.from_stacked(x).map(lambda m: m * unit)
    size = sum(min(2 * radius + 1, count) for count in grid) - 1
    threshold = _SHARPNESS * (1.0 + math.sqrt(size / num_snapshots)) ** 2
    # The same either way: what is inverted is as large as there are bins, or snapshots.
    by_bins = size**2 * (size + num_snapshots) < num_snapshots**2 * (num_snapshots + 3)
    noise_of = _noise_by_bins if by_bins else _noise_by_snapshots
    # A block of delays at a time, for whose systems the cache of a core has room.
    inside, around, place = _blocks(grid[1], radius)
    margin = (around.shape[1] - inside) // 2
    blocks = z.map(lambda m: _in_blocks(m, around))
    found = map_rows(
        lambda *own: noise_of(ComplexPair(*own).map(lambda m: m[0]), radius, threshold, margin),
        blocks,
        [(num_snapshots, grid[0], inside)] * 2,
        together=False,
    )
    found = ComplexPair(*found).map(lambda m: _from_blocks(m, place, len(around)))
    return z.minus(found).map(lambda m: m / unit).stacked()


@functools.lru_cache(maxsize=16)
def _blocks(num_delay, radius):
    """Blocks of about `_BLOCK` delays, all of one width; the last may repeat some.

    Returns how many delays each has, which these are with `radius` more on either side (none,
    where there is one block), int32 `[blocks, delays]`, and the place of every delay in all blocks.
    """
    count = max(1, round(num_delay / max(_BLOCK, 4 * radius)))
    inside = -(-num_delay // count)
    starts = np.minimum(np.arange(count) * inside, num_delay - inside)
    margin = radius if count > 1 else 0
    around = starts[:, None] + np.arange(-margin, inside + margin)
    delays = np.arange(num_delay)
    block = np.minimum(delays // inside, count - 1)
    place = block * inside + delays - starts[block]
    return inside, (around % num_delay).astype("int32"), place.astype("int32")


def _in_blocks(x, around):
    """`[batch, time, angle, delay]` as `[batch * blocks, time, angle, delays of a block]`."""
    if len(around) == 1:
        return x
    _, *sizes, _ = x.shape
    x = ops.reshape(ops.take(x, around.reshape(-1), axis=3), (-1, *sizes, *around.shape))
    return ops.reshape(ops.moveaxis(x, 3, 1), (-1, *sizes, around.shape[1]))


def _from_blocks(x, place, count):
    """The inverse of `_in_blocks`, of as many blocks."""
    if count == 1:
        return x
    _, *sizes, inside = x.shape
    x = ops.moveaxis(ops.reshape(x, (-1, count, *sizes, inside)), 1, 3)
    return ops.take(ops.reshape(x, (-1, *sizes, count * inside)), place, axis=3)


@piece
def _noise_by_snapshots(z, radius, threshold, margin):
    """What is no signal in `[time, angle, delay]`, in units of the noise, without the margins.

    A filter of a cross of bins $Z$ `[n, time]` that is a function of $Z Z^H$ is the same function
    of $Z^H Z$ on their snapshots, for which products of snapshots add up over the bins.
    """
    count = z.re.shape[0]
    rows, columns = np.tril_indices(count)
    left, right = (z.map(lambda m, i=i: ops.take(m, i, axis=0)) for i in (rows, columns))
    half = left.times(right.conj()).scaled(1.0 / count)
    half = half.map(lambda m: _without(_add_up(m, radius) - m, margin))
    return _stopped(_whole(half, count), z.map(lambda m: _without(m, margin)), threshold)


def _noise_by_bins(z, radius, threshold, margin):
    """The same from the covariance of the bins of every cross."""
    # A piece of its own: PyTorch would look every bin up again for each of its products.
    shape = tuple(_without(z.re, margin).shape)
    return _noise_of_centres(_crosses(z, radius, margin), shape, threshold)


def _without(x, margin):
    """All delays, the last axis, but those of the margins."""
    return x[..., margin : x.shape[-1] - margin]


@piece
def _crosses(z, radius, margin):
    """The bins of the cross around each bin, `[time, n, bins]`."""
    count, *grid = z.re.shape
    places = _shift_table(tuple(_cross(radius, *grid)), *grid)
    places = _without(places.reshape(-1, *grid), margin).reshape(len(places), -1)
    return z.map(lambda m: ops.take(ops.reshape(m, (count, -1)), places, axis=1))


@piece
def _noise_of_centres(near, shape, threshold):
    """What is no signal in the first of the bins `[time, n, bins]`, in the shape of the history."""
    size = near.re.shape[1]
    rows, columns = np.tril_indices(size)
    left, right = (near.map(lambda m, i=i: ops.take(m, i, axis=1)) for i in (rows, columns))
    half = left.times(right.conj()).map(lambda m: ops.mean(m, axis=0))
    centre = ops.zeros_like(near.re[0]) + ops.eye(size, 1, dtype="float32")
    weights = _stopped(
        _whole(half, size), ComplexPair(centre, ops.zeros_like(centre)), threshold
    ).conj()
    found = near.times(weights.map(lambda m: m[None])).map(lambda m: ops.sum(m, axis=1))
    return found.map(lambda m: ops.reshape(m, shape))


def _whole(half, size):
    """Hermitian matrices `[size, size, ...]` of their lower halves `[elements, ...]`."""
    rows, columns = np.tril_indices(size)
    element = np.zeros((size, size), "int32")
    element[rows, columns] = element[columns, rows] = np.arange(len(rows))
    sign = np.sign(np.subtract.outer(np.arange(size), np.arange(size))).astype("float32")
    shape = half.re.shape[1:]
    real, imaginary = half.map(
        lambda m: ops.reshape(ops.take(m, element.reshape(-1), axis=0), (size, size, *shape))
    )
    sign = ops.convert_to_tensor(sign.reshape(size, size, *(1,) * len(shape)))
    return ComplexPair(real, imaginary * sign)


def _stopped(matrix, v, level):
    r"""$c^2 (A^2 + c^2)^{-1} v$: what lies in directions of eigenvalues below the level $c$.

    Of Hermitian, non-negative $A$ `[n, n, ...]` and $v$ `[n, ...]`. Squaring $A$ would lose the
    precision that its factors $A \mp jc$ keep, which are adjoint.
    """
    size, axes = matrix.re.shape[0], (1,) * (len(matrix.re.shape) - 2)
    shift = (level * np.eye(size, dtype="float32")).reshape(size, size, *axes)
    shift = ops.convert_to_tensor(shift)
    factor = ComplexPair(matrix.re, matrix.im - shift)
    return solve_squared(factor, v).scaled(level**2)


def burg_coefficients(
    x: Tensor, orders: Sequence[int], pool_weight: float = 0.5
) -> list[list[ComplexPair]]:
    r"""Coefficients of linear prediction by Burg's method, pooled over the 3 x 3 bins around.

    Every stage $m$ picks the reflection coefficient that minimises the forward and backward
    prediction errors of the pool. Reflection coefficients stay inside the unit circle, so forecasts
    of any horizon are bounded (Burg 1975).

    Args:
        x: Real `[batch, time, angle, delay, 2]`.
        orders: Numbers of coefficients; the largest one takes the time.
        pool_weight: Weight of a neighbouring bin along an axis; diagonal neighbours have its
            square.

    Returns:
        List with one entry per order $m$: the coefficients `c_1 ... c_m` of `x[t] = c_1 x[t-1] +
        ... + c_m x[t-m]`, a list of `ComplexPair` of `[batch, angle, delay]`.
    """
    order = max(orders)
    _check_order(order, x)
    start = ComplexPair.from_stacked(x)
    # Prediction error filter 1, a_1, ..., a_order, and its state after every stage.
    taps = ops.zeros((order + 1, *_static(x[:, 0, ..., 0])), dtype=x.dtype)
    taps = taps + ops.zeros_like(x[:, 0, ..., 0])
    first = np.zeros((order + 1, 1, 1, 1), dtype="float32")
    first[0] = 1.0
    error_filter = ComplexPair(taps + ops.convert_to_tensor(first, dtype=x.dtype), taps)
    history = ops.zeros((len(orders), 1, 1, 1, 1), dtype=x.dtype) + taps[None]

    def stage(m, state):
        return _burg_stage(ops.convert_to_tensor(m), state, tuple(orders), pool_weight)

    state = (tuple(start), tuple(start), tuple(error_filter), (history, history))
    *_, kept = ops.fori_loop(0, order, stage, state)
    stages = zip(orders, *(ops.unstack(-part) for part in kept), strict=True)
    return [_pairs(*(ops.unstack(part) for part in stage))[1 : last + 1] for last, *stage in stages]


@piece
def _burg_stage(m, state, orders, pool_weight):
    """A stage of Burg's method from the state of the one before, with the taps of `orders`."""
    forward, backward, taps, kept = (ComplexPair(*pair) for pair in state)
    kind, order, num_snapshots = taps.re.dtype, max(orders), forward.re.shape[1]
    instants = ops.reshape(ops.arange(num_snapshots), (1, num_snapshots, 1, 1))
    places = ops.reshape(ops.arange(order + 1), (order + 1, 1, 1, 1))
    lasts = ops.convert_to_tensor(np.reshape(orders, (-1, 1, 1, 1, 1)), dtype="int32")
    behind = backward.map(lambda v: ops.roll(v, 1, axis=1))
    known = ops.cast(instants > m, kind)
    cross = forward.times(behind.conj()).map(lambda v: ops.sum(known * v, axis=1))
    power = ops.sum(known * (forward.power() + behind.power()), axis=1)
    cross = cross.map(lambda v: _pool(v, pool_weight))
    reflection = cross.scaled(-2.0 / (_pool(power, pool_weight) + _TINY))
    wide = reflection.map(lambda v: v[:, None])
    forward, backward = (
        forward.plus(wide.times(behind)),
        behind.plus(wide.conj().times(forward)),
    )
    # Levinson: a_i <- a_i + k conj(a_{m+1-i}), the reversal as a gather.
    mirror = ops.clip(m + 1 - ops.reshape(places, (-1,)), 0, order)
    inside = ops.cast(places <= m + 1, kind)
    reverse = taps.conj().map(lambda v: inside * ops.take(v, mirror, axis=0))
    taps = taps.plus(reflection.map(lambda v: v[None]).times(reverse))
    now = ops.cast(ops.equal(lasts, m + 1), kind)
    kept = ComplexPair(*(k + now * t[None] for k, t in zip(kept, taps, strict=True)))
    return tuple(tuple(pair) for pair in (forward, backward, taps, kept))


def least_squares_coefficients(
    x: Tensor, order: int, pool_weight: float = 0.25
) -> list[ComplexPair]:
    """Coefficients of linear prediction by least squares, pooled over the 3 x 3 bins around.

    Forward and backward errors count alike (the modified covariance method). Unlike Burg's, which
    pulls the tones of a short history apart, these are exact for as many of them as the order, and
    their forecasts have no bound: `extrapolate` can set one.

    Args:
        x: Real `[batch, time, angle, delay, 2]`.
        order: Number of coefficients.
        pool_weight: See `burg_coefficients`.

    Returns:
        List of `ComplexPair` of `[batch, angle, delay]`, as `burg_coefficients` has it.

    Reference:
        Marple 1987, Digital Spectral Analysis with Applications, section 8.5.
    """
    _check_order(order, x)
    _, num_snapshots, *grid, _ = x.shape
    count = num_snapshots - order
    eye = np.eye(order, dtype="float32")[..., None, None, None]

    def fit(own):
        z = ComplexPair.from_stacked(own).map(lambda m: ops.moveaxis(m, 1, 0))
        # [snapshot and the nearest lag first, window, batch, angle, delay]
        lags = z.map(lambda m: ops.stack([m[i : i + count] for i in range(order, -1, -1)]))
        left, right = lags.map(lambda m: m[:, None]), lags.map(lambda m: m[None])
        covariance = left.conj().times(right).map(lambda m: ops.sum(m, axis=2))
        # Windows that are reversed in time and conjugated count as well.
        covariance = covariance.plus(covariance.conj().map(lambda m: ops.flip(m, axis=(0, 1))))
        covariance = covariance.map(lambda m: _pool(m, pool_weight))
        normal = covariance.map(lambda m: m[1:, 1:])
        power = ops.sum(normal.re * ops.convert_to_tensor(eye), axis=(0, 1))
        load = (_RIDGE / order * power + _LEAST_LOAD) * ops.convert_to_tensor(eye)
        found = solve_hermitian(
            ComplexPair(normal.re + load, normal.im), covariance.map(lambda m: m[1:, 0])
        )
        return tuple(found.map(lambda m: ops.moveaxis(m, 0, 1)))

    found = map_rows(fit, (x,), [(order, *grid)] * 2)
    return _pairs(*(ops.unstack(part, axis=1) for part in found))


def extrapolate(
    x: Tensor, coefficients: list[ComplexPair], num_horizons: int, bounded: bool = False
) -> Tensor:
    """Continues a sequence by iterated linear prediction.

    Args:
        x: Real `[batch, time, angle, delay, 2]`.
        coefficients: List of `ComplexPair` of `[batch, angle, delay]`, the nearest lag first.
        num_horizons: Number of snapshots to continue.
        bounded: Whether no bin may have more than four times the power that it has had.

    Returns:
        Real `[batch, num_horizons, angle, delay, 2]`.
    """
    z = ComplexPair.from_stacked(x)
    recent = _pairs(*(ops.unstack(part, axis=1) for part in z))[: -1 - len(coefficients) : -1]
    most = _GROWTH * ops.max(z.power(), axis=1) if bounded else None
    forecasts = []
    for _ in range(num_horizons):
        forecast = ComplexPair(0.0, 0.0)
        for coefficient, value in zip(coefficients, recent, strict=True):
            forecast = forecast.plus(coefficient.times(value))
        if most is not None:
            square = forecast.power()
            forecast = forecast.scaled(ops.sqrt(ops.minimum(square, most) / (square + _TINY)))
        forecasts.append(forecast.stacked())
        recent = [forecast, *recent[:-1]]
    return ops.stack(forecasts, axis=1)


def prediction_error(x: Tensor, coefficients: list[ComplexPair], num_snapshots: int) -> Tensor:
    """Mean power `[batch, angle, delay]` of the one-step prediction errors over the last snapshots.

    As many as `num_snapshots`, at most `time - len(coefficients)`; see `extrapolate` for the rest.
    """
    z = ComplexPair.from_stacked(x)
    length = x.shape[1]
    begin = length - num_snapshots
    error = z.map(lambda m: m[:, begin:])
    for lag, coefficient in enumerate(coefficients, start=1):
        past = slice(begin - lag, length - lag)
        regressor = ComplexPair(z.re[:, past], z.im[:, past])
        error = error.minus(coefficient.map(lambda m: m[:, None]).times(regressor))
    return ops.mean(error.power(), axis=1)


def _add_up(x, radius):
    """Sums over the rows and over the columns of crosses, `[..., angle, delay]`."""
    along, across = (_band(radius, size) for size in x.shape[-2:])
    return ops.matmul(along, x) + ops.matmul(x, across)


@functools.lru_cache(maxsize=16)
def _band(radius, size):
    """Which of the bins of a cyclic axis are near which, float32 `[size, size]` of 0 and 1."""
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return (np.minimum(distance, size - distance) <= radius).astype("float32")


def _cross(radius, num_angle, num_delay):
    """Shifts of the bins on a cross, its centre first, without those a small grid wraps onto."""
    shifts, seen = [(0, 0)], {(0, 0)}
    for distance in range(1, radius + 1):
        for i, j in ((distance, 0), (-distance, 0), (0, distance), (0, -distance)):
            place = (i % num_angle, j % num_delay)
            if place not in seen:
                seen.add(place)
                shifts.append((i, j))
    return shifts


@functools.lru_cache(maxsize=16)
def _shift_table(shifts, num_angle, num_delay):
    """Flat index of the bin that lies at each shift from each bin, int32 `[size, bins]`."""
    angle, delay = np.meshgrid(np.arange(num_angle), np.arange(num_delay), indexing="ij")
    places = [((angle + i) % num_angle) * num_delay + (delay + j) % num_delay for i, j in shifts]
    return np.stack([place.ravel() for place in places]).astype(np.int32)


def _pairs(real, imaginary):
    return [ComplexPair(*parts) for parts in zip(real, imaginary, strict=True)]


def _check_order(order, x):
    if order >= x.shape[1]:
        raise ValueError(
            f"`order` must be smaller than the number of snapshots. Received: order={order}, "
            f"x.shape={tuple(x.shape)}"
        )


def _static(x):
    """Shape with 1 in place of unknown axes, for broadcasting."""
    return tuple(1 if n is None else n for n in x.shape)


def _pool(x, weight):
    """Weighted sum over the 3 x 3 bins around each bin of `[..., angle, delay]`, cyclic."""
    if weight == 0:
        return x
    for axis in (-2, -1):
        x = x + weight * (ops.roll(x, 1, axis=axis) + ops.roll(x, -1, axis=axis))
    return x
