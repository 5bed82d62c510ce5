"""Sums of separable plane waves and what a fit to them needs, on `ComplexPair`s.

Axes: B batch, P paths, T snapshots, M antennas, K subcarriers.
"""

import functools
import itertools
import math

import numpy as np
from keras import ops

from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.typing import Array, Tensor

__all__ = [
    "PHASE_TERMS",
    "conjugate_gradients",
    "largest_peaks",
    "normal_matrix",
    "presence_windows",
    "project",
    "spectrum",
    "superpose",
]

_TINY = 1e-20
# Terms of a phase: powers of (t, m, k) and the factor in front.
PHASE_TERMS = (
    (0, 0, 0, 1.0),
    (1, 0, 0, 1.0),
    (0, 1, 0, 1.0),
    (0, 0, 1, 1.0),
    (2, 0, 0, 0.5),
    (1, 1, 0, 1.0),
    (1, 0, 1, 1.0),
)
# Powers of (m, k) in the products of two derivatives.
_POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


def conjugate_gradients(matrix: Tensor, right: Tensor, num_steps: int) -> Tensor:
    """Approximate solution of positive definite systems `[B, n, n]`, `[B, n]`.

    Damped steps need no more, and factorisations are slow where XLA compiles them for a CPU.
    """

    def iterate(_, state):
        solution, rest, direction, power = state
        image = ops.matmul(matrix, direction[..., None])[..., 0]
        curvature = ops.sum(direction * image, axis=-1, keepdims=True)
        length = power / (curvature + _TINY)
        solution = solution + length * direction
        rest = rest - length * image
        new_power = ops.sum(rest * rest, axis=-1, keepdims=True)
        return solution, rest, rest + new_power / (power + _TINY) * direction, new_power

    power = ops.sum(right * right, axis=-1, keepdims=True)
    state = (ops.zeros_like(right), right, right, power)
    return ops.fori_loop(0, num_steps, iterate, state)[0]


def superpose(u: ComplexPair, v: ComplexPair) -> ComplexPair:
    """Sum over paths of the outer products of `[B, T, P, M]` and `[B, T, P, K]`: `[B, T, M, K]`."""
    left = ops.concatenate([u.re, u.im], axis=2)
    left = ops.transpose(left, (0, 1, 3, 2))
    return ComplexPair(
        ops.matmul(left, ops.concatenate([v.re, -v.im], axis=2)),
        ops.matmul(left, ops.concatenate([v.im, v.re], axis=2)),
    )


def project(residual: ComplexPair, u: ComplexPair, v: ComplexPair) -> ComplexPair:
    """`conj(u[m]) sum_k r[m, k] conj(v[k])` for every path: `[B, T, P, M, 1]`."""
    both = ops.concatenate([residual.re, residual.im], axis=3)
    turned = ops.concatenate([residual.im, -residual.re], axis=3)
    wave = ops.concatenate([v.re, v.im], axis=3)
    wave = ops.transpose(wave, (0, 1, 3, 2))
    inner = ComplexPair(ops.matmul(both, wave), ops.matmul(turned, wave))
    inner = inner.map(lambda z: ops.transpose(z, (0, 1, 3, 2)))
    return u.conj().times(inner).map(lambda z: z[..., None])


def normal_matrix(u: ComplexPair, v: ComplexPair, t: Array, m: Array, k: Array) -> Tensor:
    """Inner products of the derivatives of all waves by all parameters.

    Args:
        u: `ComplexPair` of `[B, T, P, M]`, with amplitudes.
        v: `ComplexPair` of `[B, T, P, K]`.
        t: Coordinates of the snapshots.
        m: Coordinates of the antennas.
        k: Coordinates of the subcarriers.

    Returns:
        Real `[B, P * parameters, P * parameters]`; the parameters are the logarithm of the
        amplitude and the factors of `PHASE_TERMS`.
    """
    count, size = u.re.shape[2], 1 + len(PHASE_TERMS)
    over_m, over_k = _moment_grams(u, m), _moment_grams(v, k)
    products = [over_m[b].times(over_k[c]) for b, c in _POWERS]
    products = ops.stack([part for z in products for part in z], axis=2)
    products = ops.reshape(products, (-1, len(t), 2 * len(_POWERS) * count * count))
    moments = ops.matmul(np.stack([t**a for a in range(5)]), products)
    moments = ops.reshape(moments, (-1, 5 * 2 * len(_POWERS), count * count))
    table = ops.matmul(_normal_table(), moments)
    table = ops.reshape(table, (-1, size, size, count, count))
    return ops.reshape(ops.transpose(table, (0, 3, 1, 4, 2)), (-1, count * size, count * size))


@functools.cache
def _normal_table():
    """Inner products of derivatives as combinations of moments `[t power, (m, k) powers, re/im]`.

    The derivative by the logarithm of the amplitude is real, those by the phases are imaginary.
    """
    terms = [(0, 0, 0, 1.0), *PHASE_TERMS]
    table = np.zeros((len(terms), len(terms), 5, len(_POWERS), 2), "float32")
    for i, (a, b, c, one) in enumerate(terms):
        for j, (d, e, f, other) in enumerate(terms):
            mixed = (i == 0) != (j == 0)
            sign = -1.0 if i == 0 and mixed else 1.0
            place = a + d, _POWERS.index((b + e, c + f)), int(mixed)
            table[(i, j, *place)] = sign * one * other
    return table.reshape(len(terms) ** 2, -1)


def _moment_grams(u, m):
    """`sum_m conj(u[p, m]) m^b u[q, m]` for b = 0, 1, 2: a list of `[B, T, P, P]`."""
    count = u.re.shape[2]
    left = ops.concatenate([u.re, u.im], axis=3)
    right = ops.concatenate([left, ops.concatenate([u.im, -u.re], axis=3)], axis=2)
    right = ops.transpose(right, (0, 1, 3, 2))
    both = [ops.matmul(left * np.tile(m**b, 2), right) for b in range(3)]
    return [ComplexPair(z[..., :count], z[..., count:]) for z in both]


def spectrum(residual: ComplexPair, sizes: tuple[int, int, int]) -> ComplexPair:
    """Zero-padded discrete Fourier transform over all three axes.

    Args:
        residual: `ComplexPair` of `[B, T, M, K]`.
        sizes: Points in Doppler shift, angle and delay.

    Returns:
        `ComplexPair` of `[B, sizes[0], sizes[1] * sizes[2]]`.
    """
    num_snapshots, num_ant, num_subcarriers = residual.re.shape[1:]
    pad = [[0, 0], [0, 0], [0, sizes[1] - num_ant], [0, sizes[2] - num_subcarriers]]
    plane = ComplexPair(*ops.fft2(tuple(ops.pad(part, pad) for part in residual)))
    plane = plane.map(lambda v: ops.reshape(v, (-1, num_snapshots, sizes[1] * sizes[2])))
    cosine, sine = _dft(sizes[0], num_snapshots)
    return ComplexPair(
        ops.matmul(cosine, plane.re) + ops.matmul(sine, plane.im),
        ops.matmul(cosine, plane.im) - ops.matmul(sine, plane.re),
    )


def largest_peaks(
    power: Tensor, sizes: tuple[int, int, int], num_peaks: int, reach: int
) -> tuple[Tensor, Tensor]:
    """The largest peaks that lie apart from each other in angle or delay.

    Args:
        power: Periodogram, `[B, sizes[0], sizes[1] * sizes[2]]`.
        sizes: Points in Doppler shift, angle and delay.
        num_peaks: Number of peaks.
        reach: Points in angle and delay around a peak in which no other is looked for.

    Returns:
        Tuple of the frequencies in cycles per sample, `[B, num_peaks, 3]`, in [-0.5, 0.5), and
        the heights, `[B, num_peaks]`, the largest first.
    """
    bins = np.arange(sizes[1] * sizes[2], dtype="int32")
    # The plane of angle and delay, each point with its strongest Doppler shift.
    plane = ops.max(power, axis=1)
    frequencies, heights = [], []
    for _ in range(num_peaks):
        place = ops.cast(ops.argmax(plane, axis=1), "int32")
        heights.append(ops.max(plane, axis=1))
        column = ops.take_along_axis(power, place[:, None, None], axis=2)[..., 0]
        index = ops.argmax(column, axis=1), place // sizes[2], place % sizes[2]
        turns = [ops.cast(i, "float32") / size for i, size in zip(index, sizes, strict=True)]
        frequencies.append(ops.stack([turn - ops.floor(turn + 0.5) for turn in turns], axis=-1))
        near = 1.0
        for i, size, own in zip(
            index[1:], sizes[1:], (bins // sizes[2], bins % sizes[2]), strict=True
        ):
            distance = ops.abs(ops.convert_to_tensor(own)[None] - i[:, None])
            distance = ops.minimum(distance, size - distance)
            near = near * ops.cast(distance <= reach, "float32")
        plane = plane * (1.0 - near)
    return ops.stack(frequencies, axis=1), ops.stack(heights, axis=1)


def presence_windows(num_snapshots: int, shortest: int, penalty: float) -> tuple[Array, Array]:
    """Spans of snapshots in which a path may be present, and what each costs.

    Args:
        num_snapshots: Snapshots of the history.
        shortest: Fewest snapshots of a span.
        penalty: Cost of a birth or death within the history; infinity for the whole span alone.

    Returns:
        Tuple of float32 `[num_windows, num_snapshots]` of 0 and 1, and the costs, float32
        `[num_windows]`.
    """
    place = np.arange(num_snapshots)
    windows, costs = [], []
    for first, last in itertools.combinations(range(num_snapshots + 1), 2):
        events = (first > 0) + (last < num_snapshots)
        if last - first >= shortest and (events == 0 or math.isfinite(penalty)):
            windows.append((place >= first) & (place < last))
            costs.append(events * penalty if events else 0.0)
    return np.array(windows, "float32"), np.array(costs, "float32")


@functools.lru_cache(maxsize=16)
def _dft(size, length):
    """Cosine and sine of a zero-padded discrete Fourier transform, `[size, length]`."""
    phase = 2 * np.pi * np.outer(np.arange(size), np.arange(length)) / size
    return np.cos(phase).astype("float32"), np.sin(phase).astype("float32")
