"""What is no motion in a history: lost reports, and one phase and one delay of each snapshot

An oscillator turns all antennas and subcarriers of a snapshot by one phase, a clock delays all of
them by one time, and a report that never arrived is the one before once more. None of this is
motion, and it hides the motion. All functions take channels before the transform, real `[batch,
time, num_ant, num_subcarriers, 2]`, (real, imaginary) last.
"""

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.compiled import map_rows, piece
from lwmt_sionna.ops.complex import ComplexPair, phasor
from lwmt_sionna.ops.linear_algebra import invert_positive
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.typing import Array, Tensor

__all__ = ["align", "fill_reports", "find_nuisances", "hold_reports", "reports_arrived", "restore"]

Shape3 = tuple[int, int, int]

# The strongest angle-delay bins, and the order of their linear prediction.
_NUM_BINS, _ORDER = 48, 5
# Weight in a bin's pool of the next one along an axis.
_POOL_WEIGHT = 0.5
_NUM_STEPS = 4
# Snapshots that phases and delays are told from, at least.
_SHORTEST = 10
# What is found counts from so many times the power of its own error on, and in full from twice
# that: channels without nuisances stay below, errors of 5 degrees are far above.
_THRESHOLD = 16.0
# How much more the first component of a random walk holds than the next three in the mean.
_WALK = 3.0
# Paths by which a history with nuisances and without them are compared, and how much more power
# they may leave without. True nuisances of 1 ns or 2 degrees come out level at 15 dB.
_NUM_PATHS, _MARGIN = 8, 1.005
# Steps towards what lost reports held, each half of the way of one report by itself.
_NUM_FILLS = 16
_TINY = 1e-20


def restore(h: Tensor, arrived: Tensor | None = None, array_shape: Shape3 | None = None) -> Tensor:
    """Fills lost reports and takes one phase and one delay out of each snapshot.

    Args:
        h: History, real `[batch, time, num_ant, num_subcarriers, 2]`; see `fill_reports`.
        arrived: Which reports arrived, bool `[batch, time]`. Told by `reports_arrived` if `None`.
        array_shape: See `angle_delay_transform`.

    Returns:
        Real, shape as `h`. Snapshots that arrived and have no nuisance are returned as they are.
    """
    arrived = reports_arrived(h) if arrived is None else arrived
    # What is filled in before the phases are known is nothing but a start.
    aligned = align(fill_reports(h, arrived, array_shape), array_shape)
    return fill_reports(aligned, arrived, array_shape)


def reports_arrived(h: Tensor) -> Tensor:
    """Which snapshots are not the one before, number by number.

    Noise makes two measurements of one channel differ. Where half of the snapshots or more repeat
    the one before, the channel stands still and is known without noise, and all of them arrived.
    So do zeros: nothing reaches the user, which is no report held over.

    Args:
        h: History, real `[batch, time, num_ant, num_subcarriers, 2]`.

    Returns:
        Bool `[batch, time]`.
    """
    new = ops.any(ops.not_equal(h[:, 1:], h[:, :-1]), axis=(2, 3, 4))
    standing = 2 * ops.sum(ops.cast(new, "int32"), axis=1, keepdims=True) < h.shape[1]
    silent = ops.logical_not(ops.any(ops.not_equal(h, 0), axis=(2, 3, 4)))
    new = ops.logical_or(ops.logical_or(new, standing), silent[:, 1:])
    return ops.concatenate([ops.ones_like(silent[:, :1]), new], axis=1)


def hold_reports(h: Tensor, arrived: Tensor) -> Tensor:
    """Puts the last report that arrived in the place of lost ones, and before it the first one.

    Args:
        h: History, `[batch, time, ...]`; what stands in the place of a lost report, NaN say, is
            not looked at.
        arrived: Which reports arrived, bool `[batch, time]`.

    Returns:
        Shape and dtype as `h`; zeros where nothing arrived at all.
    """
    num_snapshots = h.shape[1]
    at = ops.arange(num_snapshots)
    known = ops.cast(arrived, "bool")[:, None]
    # [batch, place, source]: the latest source up to the place, else the first one after it.
    past = at[None, :] <= at[:, None]
    near = ops.where(past, at[None, :] + num_snapshots, -at[None, :])
    source = ops.argmax(ops.where(known, near, -num_snapshots), axis=-1)
    some = ops.any(known, axis=-1)
    source, some = (
        ops.reshape(x, (-1, num_snapshots) + (1,) * (len(h.shape) - 2))
        for x in (source, ops.broadcast_to(some, ops.shape(source)))
    )
    held = ops.take_along_axis(h, source, axis=1)
    return ops.where(some, held, ops.zeros_like(held))


def fill_reports(h: Tensor, arrived: Tensor, array_shape: Shape3 | None = None) -> Tensor:
    """Puts in the place of lost reports what linear prediction, both ways of time, errs least with.

    Every angle-delay bin has coefficients of its own, Burg's, pooled over its neighbours, from
    those snapshots that arrived. Where no two in a row arrived, and in histories of fewer than 7
    snapshots, nothing tells them, and what stands in the place of lost reports stays.

    Args:
        h: History, real `[batch, time, num_ant, num_subcarriers, 2]`; what stands in the place of a
            lost report is where the search for it begins: see `hold_reports`.
        arrived: Which reports arrived, bool `[batch, time]`.
        array_shape: See `angle_delay_transform`.

    Returns:
        Real, shape and dtype as `h`; inside, all is float32 at least.
    """
    arrived = ops.cast(arrived, "bool")
    if h.shape[1] < _ORDER + 2:
        return h
    pairs = ops.any(ops.logical_and(arrived[:, 1:], arrived[:, :-1]), axis=1, keepdims=True)
    arrived = ops.logical_or(arrived, ops.logical_not(pairs))
    dtype = keras.backend.standardize_dtype(h.dtype)
    h = ops.cast(h, keras.backend.result_type(dtype, "float32"))

    def one(x, known):
        lost = ops.any(ops.logical_not(known))
        return (ops.cond(lost, lambda: _fill(x, known, array_shape), lambda: x),)

    # Those that are whole cost nothing; gradients pass what arrived.
    filled = map_rows(one, (h, arrived), [h.shape[1:]])[0]
    return ops.cast(ops.where(arrived[:, :, None, None, None], h, filled), dtype)


def align(h: Tensor, array_shape: Shape3 | None = None) -> Tensor:
    """Takes what `find_nuisances` finds out of a history, unless paths explain it better.

    A path that is born within the history, or one near half a turn per snapshot, may pass for
    phases or delays of all. Eight moving paths, which may be born and die (`PathFit`), then leave
    less of the history as it is.

    Args:
        h: History, real `[batch, time, num_ant, num_subcarriers, 2]`.
        array_shape: See `angle_delay_transform`.

    Returns:
        Real, shape as `h`.
    """
    h = ops.convert_to_tensor(h)
    if h.shape[1] < _SHORTEST:
        return h
    phase, delay = (ops.stop_gradient(value) for value in find_nuisances(h, array_shape))
    found = ops.any(ops.logical_or(ops.not_equal(phase, 0), ops.not_equal(delay, 0)), axis=1)
    angle = ops.cast(_angle(phase, delay, h.shape[3])[:, :, None], h.dtype)
    turned = ComplexPair.from_stacked(h).times(phasor(angle)).stacked()
    both = ops.concatenate([x / _peak(h) for x in (h, turned)])
    plain, aligned = ops.split(_left(both, ops.concatenate([found, found]), array_shape), 2)
    better = (aligned < _MARGIN * plain)[:, None, None, None, None]
    return ops.where(better, turned, h)


def _left(h, wanted, array_shape):
    """Mean power that a few paths leave, `[batch]`; zero where it is not wanted."""
    fit = PathFit(*h.shape[1:4], num_paths=_NUM_PATHS, array_shape=array_shape)

    def one(x, wanted):
        def left():
            return ops.mean(ops.square(fit(x)[1]), axis=(1, 2, 3, 4))

        return (ops.cond(ops.any(wanted), left, lambda: ops.zeros_like(x[:, 0, 0, 0, 0])),)

    return map_rows(one, (ops.cast(h, "float32"), wanted), [()])[0]


def find_nuisances(h: Tensor, array_shape: Shape3 | None = None) -> tuple[Tensor, Tensor]:
    r"""Phases and delays of snapshots that the motion of the channel does not explain.

    The strongest angle-delay bins $x_{tb}$ follow linear recurrences with coefficients of their own
    (Burg's, pooled over neighbours). Phases $\phi_t$ and delays $\tau_t$ are those of the least

    $$\sum_{r,b} w_{rb} \left| \sum_i u_{bi}\, x_{r+i,b}(\phi_{r+i}, \tau_{r+i}) \right|^2$$

    over rows $r$ both ways of time, found by Gauss-Newton steps between which the coefficients
    $u_b$ and the weights $w_{rb}$ are estimated again. The weights are those of Student's t: what
    is born or dies in a bin is an error that no phase explains. A straight line over time stays,
    for it is motion: a Doppler shift of all paths, a user who comes nearer. The inverse curvature
    tells the error of what is found; what is not well above it, and of the parabola what the finer
    components do not let expect, stays too.

    Args:
        h: History, real `[batch, time, num_ant, num_subcarriers, 2]`, of 10 snapshots or more.
        array_shape: See `angle_delay_transform`.

    Returns:
        Tuple of phases in radians and delays in samples (1 over the bandwidth), float32 `[batch,
        time]` each; zero where there are none.
    """
    h = ops.cast(h / _peak(h), "float32")
    seen, pool = _strongest(h, array_shape)
    start = ops.zeros((1, 2, h.shape[1] - 2), dtype="float32")
    start = start + ops.zeros_like(h[:, :1, :1, 0, 0])

    def step(_, state):
        return _improved(seen, pool, state[0])

    found, error = ops.fori_loop(0, _NUM_STEPS, step, (start, start))
    phase, delay = _over_time(found * _credible(found, error))
    return phase, delay


def _peak(h):
    """The largest number of a history, or one."""
    peak = ops.max(ops.abs(h), axis=(1, 2, 3, 4), keepdims=True)
    return ops.where(peak > 0, peak, ops.ones_like(peak))


@piece
def _improved(seen, pool, found):
    """Components `[batch, 2, component]` of phases and delays after a step, and their errors."""
    basis = ops.convert_to_tensor(_basis(found.shape[2] + 2))
    eye = ops.eye(2 * basis.shape[1], dtype="float32")
    shape = (-1, 2, basis.shape[1])
    phase, delay = _over_time(found)
    gradient, curvature = _errors(*_turned(seen, phase, delay), pool)
    gradient = ops.reshape(ops.matmul(gradient, basis), (-1, eye.shape[0]))
    # b batch, k and l phase or delay, t and s time, n and m component
    curvature = ops.einsum("bktls,tn,sm->bknlm", curvature, basis, basis)
    curvature = ops.reshape(curvature, (-1, *eye.shape))
    diagonal = ops.einsum("bnn->bn", curvature)
    load = 1e-4 * diagonal + 1e-6 * ops.mean(diagonal, axis=1, keepdims=True) + _TINY
    inverse = invert_positive(curvature + load[:, None] * eye)
    moved = ops.reshape(ops.einsum("bnm,bm->bn", inverse, gradient), shape)
    return found - moved, ops.reshape(ops.einsum("bnn->bn", inverse), shape)


def _over_time(found):
    """Phases and delays, `[batch, time]`, of components."""
    basis = ops.convert_to_tensor(_basis(found.shape[2] + 2))
    return ops.unstack(ops.matmul(found, ops.transpose(basis)), axis=1)


@piece
def _strongest(h, array_shape):
    """The strongest angle-delay bins, and how much each counts in the pool of each.

    The bins are the sums over subcarriers of a `ComplexPair` of `[batch, time, subcarrier, bin]`;
    pools are `[batch, bin, bin]`.
    """
    num_ant, num_subcarriers = h.shape[2:4]
    # One axis after the other: [batch, time, subcarrier, angle, 1, 2], then all of the grid.
    rows = ops.transpose(h, (0, 1, 3, 2, 4))[..., None, :]
    rows = angle_delay_transform(rows, array_shape)[..., 0, :]
    grid = angle_delay_transform(ops.transpose(rows, (0, 1, 3, 2, 4))[..., None, :, :])
    power = ops.reshape(ops.sum(ops.square(grid), axis=(1, 3, 5)), (-1, num_ant * num_subcarriers))
    size = min(_NUM_BINS, num_ant * num_subcarriers)
    chosen = ops.top_k(power, size, sorted=False)[1]
    angle, delay = chosen // num_subcarriers, chosen % num_subcarriers
    rows = ComplexPair.from_stacked(rows).map(
        lambda m: ops.take_along_axis(m, angle[:, None, None], axis=3)
    )
    tones = ComplexPair(*_tones(num_subcarriers)).map(
        lambda m: ops.transpose(ops.take(ops.convert_to_tensor(m), delay, axis=0), (0, 2, 1))
    )
    pool = 1.0
    for place, length in ((angle, num_ant), (delay, num_subcarriers)):
        apart = ops.abs(place[:, :, None] - place[:, None])
        apart = ops.minimum(apart, length - apart)
        pool = pool * ops.where(apart == 1, _POOL_WEIGHT, ops.where(apart == 0, 1.0, 0.0))
    return rows.times(tones.map(lambda m: m[:, None])), ops.cast(pool, "float32")


def _angle(phase, delay, num_subcarriers):
    """By what `[batch, time]` phases and delays are undone: `[batch, time, subcarrier]`."""
    return delay[..., None] * ops.convert_to_tensor(_ramp(num_subcarriers)) - phase[..., None]


def _turned(seen, phase, delay):
    """Bins `[batch, time, bin]` without phases and delays, and their derivatives by both."""
    ramp = ops.convert_to_tensor(_ramp(seen.re.shape[2]))
    angle = _angle(phase, delay, seen.re.shape[2])
    turn = phasor(angle)
    turn = ops.stack([*turn, *(ramp * part for part in turn)], axis=2)
    re, im = (ops.matmul(turn, part) for part in seen)
    x, slope = (
        ComplexPair(re[:, :, k] - im[:, :, k + 1], re[:, :, k + 1] + im[:, :, k]) for k in (0, 2)
    )
    return x, ComplexPair(x.im, -x.re), ComplexPair(-slope.im, slope.re)


def _errors(x, by_phase, by_delay, pool):
    """Gradient and curvature of half of the weighed squared errors of linear prediction.

    By phases and delays, `[batch, 2, time]` and `[batch, 2, time, 2, time]`.
    """
    rows, length = x.re.shape[1] - _ORDER, _ORDER + 1
    taps = _prediction_error_filter(x, functools.partial(ops.matmul, pool))
    taps = ComplexPair(*(ops.stack(parts, axis=1) for parts in zip(*_both_ways(taps))))
    window = np.add.outer(np.arange(rows), np.arange(length))
    # [batch, way, row, place, bin]
    terms, *slopes = (
        taps.map(lambda m: m[:, :, None]).times(
            value.map(lambda m: ops.take(m, window, axis=1)[:, None])
        )
        for value in (x, by_phase, by_delay)
    )
    error = terms.map(lambda m: ops.sum(m, axis=3))
    power = error.power()
    level = ops.mean(power, axis=(1, 2))[..., None]
    level = (ops.matmul(pool, level) / ops.sum(pool, axis=2, keepdims=True))[..., 0]
    level = level + 1e-6 * ops.mean(x.power(), axis=1) + _TINY
    weight = ops.sqrt(2.0 / (level[:, None, None] + power))

    def samples(pair):  # [batch, row, place, way, bin, part], weighed
        pair = pair.map(lambda m: m * weight[:, :, :, None])
        return ops.transpose(pair.stacked(), (0, 2, 3, 1, 4, 5))

    both = ops.stack([samples(slope) for slope in slopes], axis=2)
    both = ops.reshape(both, (-1, rows, 2 * length, 4 * weight.shape[3]))
    error = samples(error.map(lambda m: m[:, :, :, None]))
    error = ops.reshape(error, (-1, rows, 4 * weight.shape[3], 1))
    first = ops.reshape(ops.matmul(both, error), (-1, rows, 2, length))
    second = ops.matmul(both, ops.transpose(both, (0, 1, 3, 2)))
    second = ops.reshape(second, (-1, rows, 2, length, 2, length))
    gradient = curvature = 0.0
    for row in range(rows):
        room = (row, rows - 1 - row)
        gradient += ops.pad(first[:, row], ((0, 0), (0, 0), room))
        curvature += ops.pad(second[:, row], ((0, 0), (0, 0), room, (0, 0), room))
    return gradient, curvature


def _prediction_error_filter(
    x: ComplexPair, pool: Callable[[Tensor], Tensor], arrived: Tensor | None = None
) -> ComplexPair:
    """Burg's filter 1, a_1, ... of bins `[batch, time, bin]`: `[batch, tap, bin]`.

    `pool` sums `[batch, bin, 3]` over neighbours; of the rows of `arrived`, float `[batch, time]`,
    those count whose snapshots all arrived.
    """
    forward = backward = x
    one = ops.ones_like(x.re[:, :1])
    taps = ComplexPair(one, ops.zeros_like(one))
    whole = arrived
    for _ in range(_ORDER):
        ahead, behind = forward.map(lambda m: m[:, 1:]), backward.map(lambda m: m[:, :-1])
        cross, power = ahead.times(behind.conj()), ahead.power() + behind.power()
        total = ops.stack([*cross, power], axis=-1)
        if whole is not None and arrived is not None:
            whole = whole[:, 1:] * arrived[:, : total.shape[1]]
            total = total * whole[:, :, None, None]
        total = pool(ops.sum(total, axis=1))[:, None]
        reflection = ComplexPair(total[..., 0], total[..., 1]).scaled(
            -2.0 / (total[..., 2] + _TINY)
        )
        forward = ahead.plus(reflection.times(behind))
        backward = behind.plus(reflection.conj().times(ahead))
        taps = taps.map(lambda m: ops.pad(m, ((0, 0), (0, 1), (0, 0))))
        taps = taps.plus(reflection.times(taps.map(lambda m: ops.flip(m, axis=1)).conj()))
    return taps


def _both_ways(taps):
    """The filter as it stands over a row forwards in time, and backwards."""
    return taps.map(lambda m: ops.flip(m, axis=1)), taps.conj()


def _credible(found, error):
    """Share of components `[batch, 2, component]` that is neither error nor motion."""
    ratio = ops.mean(ops.square(found[..., 1:]) / error[..., 1:], axis=-1, keepdims=True)
    share = ops.clip(ratio / _THRESHOLD - 1.0, 0.0, 1.0)
    # Doppler shifts that change make a parabola as well.
    expected = _WALK * ops.mean(ops.square(found[..., 1:4]), axis=-1, keepdims=True)
    first = ops.minimum(expected / (ops.square(found[..., :1]) + _TINY), 1.0)
    return share * ops.concatenate([first, ops.ones_like(found[..., 1:])], axis=-1)


def _fill(h, arrived, array_shape):
    """See `fill_reports`."""
    peak = _peak(h)
    grid = angle_delay_transform(h / peak, array_shape)
    num_snapshots, *bins = grid.shape[1:4]
    x = ComplexPair.from_stacked(grid).map(
        lambda m: ops.reshape(m, (-1, num_snapshots, bins[0] * bins[1]))
    )
    known = ops.cast(arrived, h.dtype)

    def pool(values):
        values = ops.reshape(values, (-1, *bins, 3))
        for axis in (1, 2):
            near = ops.roll(values, 1, axis=axis) + ops.roll(values, -1, axis=axis)
            values = values + _POOL_WEIGHT * near
        return ops.reshape(values, (-1, bins[0] * bins[1], 3))

    squares = _squared(_prediction_error_filter(x, pool, known), num_snapshots)
    own = ops.einsum("bntt->btn", squares.re)
    pace = 0.5 * (1.0 - known)[..., None] / own

    def step(_, x):
        # n bin, s and t time
        gradient = squares.times(ComplexPair(*x).map(lambda m: ops.swapaxes(m, 1, 2)[:, :, None]))
        gradient = gradient.map(lambda m: ops.swapaxes(ops.sum(m, axis=3), 1, 2))
        return tuple(ComplexPair(*x).minus(gradient.scaled(pace)))

    x = ComplexPair(*ops.fori_loop(0, _NUM_FILLS, step, tuple(x)))
    filled = x.map(lambda m: ops.reshape(m, (-1, num_snapshots, *bins))).stacked()
    return peak * inverse_angle_delay_transform(filled, array_shape)


def _squared(taps, num_snapshots):
    """What the squared errors of a filter over all snapshots, both ways of time, are a form of.

    `ComplexPair` of `[batch, bin, time, time]` from taps `[batch, tap, bin]`.
    """
    rows = num_snapshots - _ORDER
    place = np.zeros((_ORDER + 1, rows, num_snapshots), "float32")
    for tap in range(_ORDER + 1):
        place[tap, np.arange(rows), np.arange(rows) + tap] = 1.0
    place = ops.convert_to_tensor(place.reshape(_ORDER + 1, -1))
    squares = ComplexPair(0.0, 0.0)
    for way in _both_ways(taps):
        re, im = way.map(
            lambda m: ops.reshape(
                ops.matmul(ops.swapaxes(m, 1, 2), place), (-1, m.shape[2], rows, num_snapshots)
            )
        )
        both = ops.concatenate([re, im], axis=2)
        turned = ops.concatenate([im, -re], axis=2)
        adjoint = ops.swapaxes(both, 2, 3)
        squares = squares.plus(ComplexPair(ops.matmul(adjoint, both), ops.matmul(adjoint, turned)))
    return squares


@functools.lru_cache(maxsize=16)
def _basis(num_snapshots: int) -> Array:
    """Orthonormal polynomials over time from the parabola on, `[time, component]`."""
    time = np.linspace(-1.0, 1.0, num_snapshots)
    legendre = np.polynomial.legendre.legvander(time, num_snapshots - 1)
    return np.linalg.qr(legendre)[0][:, 2:].astype("float32")


@functools.lru_cache(maxsize=16)
def _ramp(num_subcarriers: int) -> Array:
    """Radians per sample of delay on every subcarrier, zero in the middle."""
    index = np.arange(num_subcarriers) - (num_subcarriers - 1) / 2
    return (2 * math.pi / num_subcarriers * index).astype("float32")


@functools.lru_cache(maxsize=16)
def _tones(size: int) -> tuple[Array, Array]:
    """Real and imaginary part of the delay transform, `[delay, subcarrier]` each."""
    tones = np.exp(2j * np.pi / size * np.outer(np.arange(size), np.arange(size)))
    return tuple((part / math.sqrt(size)).astype("float32") for part in (tones.real, tones.imag))
