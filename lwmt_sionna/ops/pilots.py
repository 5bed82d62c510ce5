"""Sparse pilots: from what is measured here and there to a whole channel.

Axes: B batch, P paths, T snapshots, Q polarisations, M antennas of each, K subcarriers. Real
tensors, (re, im) as `ComplexPair`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import check_array_shape
from lwmt_sionna.ops.compiled import call_compiled, map_rows, repeat_rows, where_rows
from lwmt_sionna.ops.complex import ComplexPair, phasor
from lwmt_sionna.ops.linear_algebra import conjugate_gradients
from lwmt_sionna.ops.path_fit import (
    largest_peaks,
    normal_matrix,
    project,
    raised_threshold,
    spectrum,
    superpose,
)
from lwmt_sionna.ops.pilot_filter import filter_pilots
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["estimate_from_pilots"]

# Paths at most, and from how many on scattering may be too rich for them; the share of the pilots
# that is held out then.
_NUM_PATHS, _MANY_PATHS, _HELD_OUT = 24, 12, 0.25
# Share of the sequences in which white noise is taken for a path, and points of the search grid per
# resolution cell and axis.
_FALSE_PATHS, _OVERSAMPLING = 0.01, 2
# Aliases look alike to pilots: of them, short delays and slow paths are likelier. Logarithms of the
# odds per bin; delays before the reference, in the last part of the axis, are leakage.
_PER_DELAY, _PER_EARLY_DELAY, _PER_DOPPLER, _EARLY = 0.01, 0.1, 0.02, 0.15
# Snapshots after which the varying part of an amplitude is forgotten, and its variance over that of
# the lasting part: at first, at least and at most.
_MEMORY, _FIRST_RATIO, _LEAST_RATIO, _MOST_RATIO = 8.0, 0.3, 0.01, 10.0
# Steps of a new path alone, of all paths at the end, and of conjugate gradients for frequencies and
# for amplitudes.
_NUM_ALONE, _NUM_FINAL, _NUM_INNER, _NUM_AMPLITUDES = 3, 6, 24, 48
# Longest step of a frequency in bins, and its damping.
_LONGEST, _DAMPING = 0.3, 1e-2
# Least variances over the power of the pilots.
_LEAST_NOISE, _FAINTEST = 1e-6, 1e-9
_TINY = 1e-20


def estimate_from_pilots(
    h: Tensor, mask: Tensor, array_shape: tuple[int, int, int] | None = None
) -> Tensor:
    r"""Estimates channels from noisy pilots as a sum of paths whose amplitudes vary.

    With Doppler shift $\omega_p$, direction $\mu_p$ and delay $\tau_p$ of path $p$,

    $$h_{tmk} = \sum_p (a_p + b_{pt}) \exp j(\omega_p t + \mu_p m - \tau_p k),$$

    over snapshots $t$, antennas $m$ and subcarriers $k$. Of the amplitude, $a_p$ lasts; $b_{pt}$ is
    a Gaussian process of some snapshots' memory: paths are born, fade and bend. They are found one
    by one as the largest peak of the residual (matching pursuit); after each, the amplitudes of all
    of them are estimated again, by the linear minimum mean-square error estimate whose variances
    the last one told. At the end all frequencies are improved together (Gauss-Newton).

    Delays count from the reference of the receiver, as timing advance leaves them: between combs
    `n` apart in all snapshots, those beyond `1 / n` of all are taken for shorter ones.

    Args:
        h: Real `[batch, time, num_ant, num_subcarriers, 2]`, not far from unit power.
        mask: True where there is no pilot, bool `[batch, time, num_ant, num_subcarriers]`, or of
            size 1 along the antennas where all have the same, which is quicker. What `h` holds
            there has no effect.
        array_shape: Rows, columns and polarisations of the array, each polarisation with amplitudes
            of its own; a linear array if left out.

    Returns:
        Real, shape as `h`, without gradient; zero without any pilot.

    Reference:
        Mamandipoor, Ramasamy and Madhow 2016, Newtonized orthogonal matching pursuit: frequency
        estimation over the continuum (IEEE TSP 64).
    """
    known = ops.logical_not(ops.cast(mask, "bool"))[..., None]
    y = ops.where(known, h, ops.zeros_like(h))
    settings = check_array_shape(array_shape, h.shape[2])
    return ops.stop_gradient(call_compiled(_estimate, [y, ops.cast(known, y.dtype)], settings))


def _estimate(y, known, array_shape):
    pursuit = _Pursuit(tuple(y.shape[1:4]), array_shape)

    def with_filter(y, known, state, resolved):
        """Weighs paths and filter by the pilots that are held out."""
        held = known * _tensor(_held_out(y.shape[1], y.shape[3]))
        seen = known - held
        both = ops.concatenate([known, seen], axis=0)
        both = filter_pilots(ops.tile(y, (2, 1, 1, 1, 1)) * both[..., None], both, array_shape)
        filtered, without = ops.split(both, 2, axis=0)
        paths = pursuit.refitted(y, seen, state)
        error, way = ((z - paths) * held[..., None] for z in (y, without))
        square = _total(way * way) + _TINY
        share = _total(way * error) / square
        # Of its square, what noise makes of it is taken away: none is left where paths are enough.
        count = _total(held[..., None]) * (y.shape[2] // held.shape[2]) + _TINY
        noise = _total(error * error) / (2.0 * count * square)
        share = ops.clip(share - noise / ops.maximum(share, _TINY), 0.0, 1.0)
        return resolved + share * (filtered - resolved)

    def one(y, known):
        state = pursuit(y, known)
        resolved = pursuit.channel(state)
        rich = ops.sum(ops.cast(state.lasting > 0, "float32"), axis=1) >= _MANY_PATHS
        h = ops.cond(
            ops.any(rich), lambda: with_filter(y, known, state, resolved), lambda: resolved
        )
        return (where_rows(rich, h, resolved),)

    return map_rows(one, (y, known[..., 0]), [tuple(y.shape[1:])])[0]


@functools.lru_cache(maxsize=16)
def _held_out(num_snapshots, num_subcarriers):
    """Which pilots tell how good an estimate from the others is, `[time, 1, num_subcarriers]`."""
    drawn = np.random.default_rng(0).uniform(size=(num_snapshots, 1, num_subcarriers))
    return (drawn < _HELD_OUT).astype("float32")


class _State(NamedTuple):
    """The paths of a batch, and what they leave.

    Attributes:
        turns: Frequencies along time, axes of the array and subcarriers in bins, `[B, P, axes]`.
        lasting: Variance of the lasting part of an amplitude, `[B, P]`; zero where no path is.
        varying: Variance of the varying part, `[B, P]`.
        re: Real part of what the paths leave of the pilots, `[B, T, Q * M, K]`.
        im: Imaginary part.
        amplitude_re: Real part of the amplitudes, `[B, T, Q, P]`.
        amplitude_im: Imaginary part.
    """

    turns: Tensor
    lasting: Tensor
    varying: Tensor
    re: Tensor
    im: Tensor
    amplitude_re: Tensor
    amplitude_im: Tensor

    @property
    def residual(self) -> ComplexPair:
        return ComplexPair(self.re, self.im)

    @property
    def amplitude(self) -> ComplexPair:
        return ComplexPair(self.amplitude_re, self.amplitude_im)


class _Pilots(NamedTuple):
    """What is measured.

    Attributes:
        re: Real part of the pilots, zero elsewhere, `[B, T, Q * M, K]`.
        im: Imaginary part.
        known: 1 where a pilot is, `[B, T, Q * M or 1, K]`.
        count: Number of pilots, `[B]`.
    """

    re: Tensor
    im: Tensor
    known: Tensor
    count: Tensor

    @property
    def y(self) -> ComplexPair:
        return ComplexPair(self.re, self.im)

    def mean_power(self, x: ComplexPair) -> Tensor:
        """Power of what is zero beside the pilots, over their number, `[B]`."""
        return ops.sum(x.power(), axis=(1, 2, 3)) / self.count

    def left_by(self, wave: ComplexPair, y: ComplexPair) -> ComplexPair:
        """What a channel leaves of `y` on the pilots."""
        return y.minus(wave).map(lambda z: z * self.known)


class _Pursuit:
    """Pursuit in sequences of one shape."""

    def __init__(self, shape: Shape, array_shape: tuple[int, int, int]) -> None:
        rows, cols, self.num_pols = array_shape
        line = min(rows, cols) == 1
        self.sizes = (shape[0], *((rows * cols,) if line else (cols, rows)), shape[2])
        self.num_each, self.num_ant = rows * cols, shape[1]
        self.grid = tuple(_OVERSAMPLING * size if size > 1 else 1 for size in self.sizes)
        # Peak of the residual's periodogram over its mean power.
        rare = math.log(math.prod(self.sizes) / _FALSE_PATHS)
        self.threshold = raised_threshold(rare, self.num_pols)
        # A frequency of one bin turns once along its axis.
        t, *across, k = (
            2 * np.pi * (np.arange(size) - (size - 1) / 2) / size for size in self.sizes
        )
        antennas = np.stack([axis.reshape(-1) for axis in np.meshgrid(*across, indexing="ij")])
        self.axes = tuple(axis.astype("float32") for axis in (t, antennas, k))
        lag = np.abs(np.subtract.outer(np.arange(shape[0]), np.arange(shape[0])))
        # What varies is white noise through this.
        self.colour = np.linalg.cholesky(np.exp(-lag / _MEMORY)).astype("float32")

    def __call__(self, y: Tensor, known: Tensor) -> _State:
        """Paths in `[B, T, Q * M, K, 2]`, zero beside the pilots, which `known` tells."""
        pilots = self._pilots(y, known)
        re, im = pilots.y
        path = ops.tile(0.0 * re[:, 0, 0, :1], (1, _NUM_PATHS))
        turns = ops.tile(path[..., None], (1, 1, len(self.sizes)))
        amplitude = ops.tile(path[:, None, None], (1, self.sizes[0], self.num_pols, 1))
        start = _State(turns, path, path, re, im, amplitude, amplitude)

        def pursue(given, index, final, *values):
            pilots, state = _Pilots(*given), _State(*values)
            looking = ops.logical_and(ops.equal(final, 0), index < _NUM_PATHS)
            found, *values = ops.cond(
                ops.any(looking),
                lambda: self._with_next(pilots, state, index, looking),
                lambda: (looking, *state),
            )
            state = _State(*values)
            # Whoever finds nothing any more improves what there is.
            moved = ops.cond(
                ops.all(found), lambda: state.turns, lambda: self._moved(pilots, state)
            )
            state = state._replace(turns=where_rows(found, state.turns, moved))
            final = final + ops.cast(ops.logical_not(found), "int32")
            return (index + 1, final, *self._fitted(pilots, state))

        def working(index, final, *values):
            return final < _NUM_FINAL

        none = ops.zeros_like(path[:, 0], dtype="int32")
        return _State(*repeat_rows(pursue, working, tuple(pilots), (none, none, *start))[2:])

    def channel(self, state: _State) -> Tensor:
        """The sum of the paths, `[B, T, Q * M, K, 2]`."""
        return self._superposed(state.turns, state.amplitude).stacked()

    def refitted(self, y: Tensor, known: Tensor, state: _State) -> Tensor:
        """The same, with the amplitudes that some of the pilots tell."""
        pilots = self._pilots(y * known[..., None], known)
        residual = state.residual.map(lambda z: z * known)
        state = state._replace(re=residual.re, im=residual.im)
        return self.channel(self._fitted(pilots, state))

    def _pilots(self, y, known):
        count = ops.sum(known, axis=(1, 2, 3)) * (self.num_ant // known.shape[2])
        return _Pilots(*ComplexPair.from_stacked(y), known, ops.maximum(count, 1.0))

    def _waves(self, turns, amplitude):
        """Factors over antennas, amplitudes in them, `[B, T, P, Q * M]`, and subcarriers."""
        t, *antennas, k = map(_tensor, (self.axes[0], *self.axes[1], self.axes[2]))
        over_m = sum(turns[:, :, 1 + i, None] * axis for i, axis in enumerate(antennas))
        phase = turns[:, :, 0, None, None] * t[:, None] + over_m[:, :, None]
        # [B, P, T, M] -> [B, T, P, 1, M]
        phase = ops.swapaxes(phase, 1, 2)[..., None, :]
        own = amplitude.map(lambda z: ops.swapaxes(z, 2, 3)[..., None])
        u = own.times(phasor(phase))
        u = u.map(lambda z: ops.reshape(z, (-1, *z.shape[1:3], self.num_ant)))
        over_k = turns[:, None, :, -1, None] * k
        return u, phasor(over_k)

    def _superposed(self, turns, amplitude):
        """Channels of paths, `[B, T, Q * M, K]`."""
        return superpose(*self._waves(turns, amplitude))

    def _with_next(self, pilots, state, index, looking):
        """Whether there is another path, bool `[B]`, and the state with it."""
        residual = state.residual
        shape = (-1, self.sizes[0], self.num_pols, *self.sizes[1:])
        split = residual.map(lambda z: ops.moveaxis(ops.reshape(z, shape), 2, 1))
        split = split.map(lambda z: ops.reshape(z, (-1, *self.sizes)))
        power = spectrum(split, self.grid).power()
        power = ops.sum(ops.reshape(power, (-1, self.num_pols, *power.shape[1:])), axis=1)
        likely = power * _tensor(_odds(self.grid))
        frequencies, heights = largest_peaks(likely, self.grid, 1, _OVERSAMPLING)
        noise = pilots.mean_power(residual)
        # The first peak is the best guess whatever it is: the noise decides how much of it to take.
        least = ops.where(index > 0, self.threshold, 0.0) * noise * pilots.count
        found = ops.logical_and(looking, heights[:, 0] > least)
        turns = frequencies * _tensor(self.sizes)
        for _ in range(_NUM_ALONE):
            amplitude = self._alone(pilots, residual, turns)
            turns = turns + self._step(pilots, residual, turns, amplitude)
        amplitude = self._alone(pilots, residual, turns)
        varying = self._varying(pilots, residual, turns, amplitude, noise)
        left = pilots.left_by(self._superposed(turns, amplitude), residual)
        residual = (where_rows(found, *both) for both in zip(left, residual, strict=True))
        place = ops.equal(_tensor(np.arange(_NUM_PATHS)), ops.cast(index, "float32")[:, None])
        place = ops.cast(ops.logical_and(place, found[:, None]), "float32")
        variance = ops.mean(amplitude.power(), axis=(1, 2))
        turns = state.turns + place[..., None] * turns
        lasting, varying = state.lasting + place * variance, state.varying + place * varying
        return found, *_State(turns, lasting, varying, *residual, *state.amplitude)

    def _varying(self, pilots, residual, turns, amplitude, noise):
        """Variance over the snapshots of the amplitude of a path alone, `[B, 1]`.

        A path of few snapshots that were taken for steady would leave the most of it behind, which
        its aliases in delay explain as well.
        """
        known = pilots.known
        count = ops.maximum(ops.sum(known, axis=(2, 3)) * (self.num_each / known.shape[2]), 1.0)
        inner = self._by_pol(project(residual, *self._waves(turns, self._unit(1))))
        power = ops.sum(inner.power() / count[:, :, None, None], axis=(1, 2))
        power = power / (self.num_pols * ops.sum(count, axis=1, keepdims=True))
        lasting = ops.mean(amplitude.power(), axis=(1, 2))
        noisy = noise * self.sizes[0] * self.num_pols / pilots.count
        return ops.maximum(power - lasting - noisy[:, None], _FIRST_RATIO * lasting)

    def _alone(self, pilots, residual, turns):
        """Amplitude of a path alone that is the same in all snapshots, `[B, T, Q, 1]`."""
        inner = self._by_pol(project(residual, *self._waves(turns, self._unit(1))))
        share = self.num_pols / pilots.count[:, None, None, None]
        inner = inner.map(lambda z: ops.sum(z, axis=1, keepdims=True) * share)
        return inner.map(lambda z: ops.tile(z, (1, self.sizes[0], 1, 1)))

    def _unit(self, count):
        shape = (1, self.sizes[0], self.num_pols, count)
        return ComplexPair(ops.ones(shape), ops.zeros(shape))

    def _by_pol(self, inner):
        """Sums over the antennas of each polarisation of what `project` gives: `[B, T, Q, P]`."""
        shape = (-1, *inner.re.shape[1:3], self.num_pols, self.num_each)
        sums = inner.map(lambda z: ops.sum(ops.reshape(z, shape), axis=-1))
        return sums.map(lambda z: ops.swapaxes(z, 2, 3))

    def _moved(self, pilots, state):
        step = self._step(pilots, state.residual, state.turns, state.amplitude)
        return state.turns + step

    def _step(self, pilots, residual, turns, amplitude):
        """A damped Gauss-Newton step of all frequencies in bins, `[B, P, axes]`."""
        t, *antennas, k = map(_tensor, (self.axes[0], *self.axes[1], self.axes[2]))
        u, v = self._waves(turns, amplitude)
        count, axes = u.re.shape[2], len(self.sizes)
        # [B, T, P, Q * M]: as they are, and by the subcarriers.
        flat, by_k = (
            project(residual, u, v.map(lambda z, w=w: z * w)).im[..., 0] for w in (1.0, k)
        )
        sums = [flat * t[:, None, None]]
        sums += [flat * ops.tile(axis, (self.num_pols,)) for axis in antennas]
        gradient = ops.stack([ops.sum(z, axis=(1, 3)) for z in (*sums, by_k)], axis=-1)
        # Where antennas have pilots of their own, as if each had its share of all.
        share = ops.sqrt(ops.mean(pilots.known, axis=2))[:, :, None]
        normal = normal_matrix(u, v.map(lambda z: z * share), self.num_pols, *self.axes)
        # Of the parameters of paths, these stand behind amplitudes and phases.
        first, each = 2 * self.num_pols, normal.shape[1] // count
        own = slice(first, first + axes)
        normal = ops.reshape(normal, (-1, count, each, count, each))[:, :, own, :, own]
        normal = ops.reshape(normal, (-1, count * axes, count * axes))
        eye = _tensor(np.eye(count * axes))
        diagonal = ops.sum(normal * eye, axis=-1)
        # Paths that are not there stay, and so does what has no axis.
        load = _DAMPING * diagonal + 1e-6 * ops.max(diagonal, axis=-1, keepdims=True) + _TINY
        unit = 1.0 / ops.sqrt(diagonal + load)
        matrix = (normal + load[..., None] * eye) * unit[..., None] * unit[:, None]
        right = ops.reshape(gradient, (-1, count * axes)) * unit
        step = conjugate_gradients(matrix, right, _NUM_INNER) * unit
        return ops.clip(ops.reshape(step, (-1, count, axes)), -_LONGEST, _LONGEST)

    def _fitted(self, pilots, state):
        """The state with the best amplitudes of its paths, and what these tell of variances."""
        u, v = self._waves(state.turns, self._unit(_NUM_PATHS))
        power = pilots.mean_power(pilots.y)
        noise = ops.maximum(pilots.mean_power(state.residual), _LEAST_NOISE * power) + _TINY
        gram = self._gram(u, v, pilots.known)
        scales = ops.sqrt(state.lasting), ops.sqrt(state.varying)
        inner = self._by_pol(project(pilots.y, u, v))
        right = self._to_parts(ops.concatenate(inner, axis=-1), scales)

        def image(parts):
            x = ops.matmul(gram, self._to_amplitudes(parts, scales)[..., None])[..., 0]
            return self._to_parts(x, scales) + noise[:, None] * parts

        x = self._to_amplitudes(conjugate_gradients(image, right, _NUM_AMPLITUDES), scales)
        amplitude = ComplexPair(x[..., :_NUM_PATHS], x[..., _NUM_PATHS:])
        residual = pilots.left_by(self._superposed(state.turns, amplitude), pilots.y)
        mean = amplitude.map(lambda z: ops.mean(z, axis=1))
        lasting = ops.mean(mean.power(), axis=1)
        total = ops.maximum(ops.mean(amplitude.power(), axis=(1, 2)), _FAINTEST * power[:, None])
        ratio = ops.clip(total / (lasting + _TINY) - 1.0, _LEAST_RATIO, _MOST_RATIO)
        lasting = ops.cast(state.lasting > 0, "float32") * total / (1.0 + ratio)
        return _State(state.turns, lasting, ratio * lasting, *residual, *amplitude)

    def _gram(self, u, v, known):
        """Inner products of waves on the pilots, a real matrix `[B, T, Q, 2 P, 2 P]`."""
        over_k = _products(v.map(lambda z: z[:, :, None]), known[:, :, :, None])
        shape = (-1, *u.re.shape[1:3], self.num_pols, self.num_each)
        u = u.map(lambda z: ops.transpose(ops.reshape(z, shape), (0, 1, 3, 2, 4)))
        if known.shape[2] == 1:
            product = _products(u, 1.0).times(over_k)
        else:
            # Antenna by antenna, [B, T, Q, M, P, P].
            u = u.map(lambda z: ops.swapaxes(z, 3, 4)[..., None])
            shape = (-1, *u.re.shape[1:4], *over_k.re.shape[3:])
            over_k = over_k.map(lambda z: ops.reshape(z, shape))
            product = _products(u, 1.0).times(over_k).map(lambda z: ops.sum(z, axis=3))
        rows = ((product.re, -product.im), (product.im, product.re))
        return ops.concatenate([ops.concatenate(row, axis=-1) for row in rows], axis=-2)

    def _to_amplitudes(self, parts, scales):
        """Amplitudes `[B, T, Q, 2 P]` of white parts `[B, (1 + T) * Q * 2 P]`, lasting first."""
        parts = ops.reshape(parts, (-1, 1 + self.sizes[0], self.num_pols, 2 * _NUM_PATHS))
        lasting, varying = (ops.tile(z, (1, 2))[:, None, None] for z in scales)
        coloured = ops.einsum("ts,bsqp->btqp", _tensor(self.colour), parts[:, 1:])
        return lasting * parts[:, :1] + varying * coloured

    def _to_parts(self, x, scales):
        """The adjoint of `_to_amplitudes`."""
        lasting, varying = (ops.tile(z, (1, 2))[:, None, None] for z in scales)
        white = ops.einsum("ts,btqp->bsqp", _tensor(self.colour), varying * x)
        parts = ops.concatenate([lasting * ops.sum(x, axis=1, keepdims=True), white], axis=1)
        return ops.reshape(parts, (-1, (1 + self.sizes[0]) * self.num_pols * 2 * _NUM_PATHS))


def _total(x):
    return ops.sum(x, axis=(1, 2, 3, 4), keepdims=True)


def _tensor(array):
    """A constant as a tensor: PyTorch does not compute with arrays of NumPy."""
    return ops.convert_to_tensor(array, dtype="float32")


def _products(wave, weight):
    """Weighted inner products of all rows `[..., P, N]`: `ComplexPair` of `[..., P, P]`."""
    left = ops.concatenate([wave.re * weight, wave.im * weight], axis=-1)
    right = ComplexPair(
        ops.concatenate([wave.re, wave.im], axis=-1), ops.concatenate([wave.im, -wave.re], axis=-1)
    )
    return right.map(lambda z: ops.matmul(left, ops.swapaxes(z, -1, -2)))


@functools.lru_cache(maxsize=16)
def _odds(grid):
    """How likely frequencies are beforehand, `[1, grid[0], points in space]`."""
    doppler = np.abs(np.fft.fftfreq(grid[0])) * grid[0] / _OVERSAMPLING
    size = grid[-1]
    # A delay turns subcarriers backwards.
    delay = (-np.arange(size)) % size
    early = delay > (1 - _EARLY) * size
    cost = np.where(early, _PER_EARLY_DELAY * (size - delay), _PER_DELAY * delay) / _OVERSAMPLING
    odds = np.exp(-np.add.outer(_PER_DOPPLER * doppler, cost)).astype("float32")
    return np.repeat(odds[:, None], math.prod(grid[1:-1]), axis=1).reshape(1, grid[0], -1)
