r"""Resolving a channel sequence into moving paths, and continuing them.

Each path is a plane wave whose phase is quadratic in time,

$$a_q \exp j(\phi_q + \omega_t t + \omega_m m + \omega_k k + \tfrac12 \beta t^2 + \gamma t m +
\delta t k),$$

over snapshots $t$, antennas $m$ and subcarriers $k$, with an amplitude and a phase for each
polarisation $q$. Besides direction, delay and Doppler shift that is what motion over a few
wavelengths does to it: the Doppler shift changes ($\beta$), the direction drifts ($\gamma$) and so
does the delay ($\delta$). On planar arrays there are two such terms in $m$, one along the columns
and one along the rows. A path may be present in a part of the history only. All paths are fitted
together, to the noise: a resolved path is then known far better than any single bin of the
transform, which is what local linear prediction works on.

Axes: B batch, P paths, T snapshots, Q polarisations, M antennas of each, K subcarriers. Real
tensors, (re, im) as `ComplexPair`.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    check_array_shape,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.compiled import map_rows, piece, repeat_rows, where_rows
from lwmt_sionna.ops.complex import ComplexPair, phasor
from lwmt_sionna.ops.linear_algebra import conjugate_gradients
from lwmt_sionna.ops.linear_prediction import noise_power
from lwmt_sionna.typing import Array, Tensor

__all__ = [
    "PathFit",
    "Paths",
    "largest_peaks",
    "normal_matrix",
    "project",
    "raised_threshold",
    "spectrum",
    "superpose",
]

_TINY = 1e-20
# Points of the search grid per resolution cell and axis: with one, a path between points may lose
# 12 dB and stay unseen.
_OVERSAMPLING = 2
# Snapshots from which a path's Doppler shift counts, and the least share of the widths of drifts.
_SURE = 5
_SLOWEST = 0.05
# Least noise power over the power of the history. What a noiseless history leaves is rounding, and
# paths fitted to it turn on the last bit: the same channel in other units then has another future.
_FAINTEST = 1e-6
# Joint steps after each discovery and at the end, and conjugate gradient steps in each of them.
_NUM_STEPS, _NUM_FINAL_STEPS, _NUM_INNER_STEPS = 2, 4, 24
# Joint steps without the last snapshots, from the paths of all of them.
_NUM_BACK_STEPS = 4


class _Term(NamedTuple):
    """A derivative of a wave: by its phase or, real, by the logarithm of its amplitude.

    Power of time, axis of space (the delay is the last one), factor and polarisation, where only
    one of these is meant.
    """

    time: int
    axis: int | None = None
    factor: float = 1.0
    pol: int | None = None
    real: bool = False


def _phase_terms(num_pols, num_axes):
    """Terms of a phase, in the order of `Paths.phase`."""
    return (
        *(_Term(0, pol=pol) for pol in range(num_pols)),
        _Term(1),
        *(_Term(0, axis) for axis in range(num_axes)),
        _Term(2, factor=0.5),
        *(_Term(1, axis) for axis in range(num_axes)),
    )


class Paths(NamedTuple):
    """Fitted paths of a batch of sequences.

    Attributes:
        amplitude: `[batch, num_paths, num_pols]`; zero where there is no path.
        phase: Coefficients of the phase, `[batch, num_paths, num_terms]`, in coordinates that run
            from -1 to 1 over history, array and band: of each polarisation; of time; of columns,
            rows (where there are several of both; else of the antennas) and subcarriers; of half of
            the time squared; and of time by columns, rows and subcarriers. See `PathFit.doppler`
            for the Doppler shifts.
        window: Snapshots in which a path is present, `[batch, num_paths, num_snapshots]` of 0
            and 1.
    """

    amplitude: Tensor
    phase: Tensor
    window: Tensor


class PathFit:
    r"""Fits moving paths to noisy channel sequences of one shape.

    Paths are found one by one as the largest peak of the residual over angle, delay and Doppler
    shift (matching pursuit), refined off the grid, and after each discovery all paths are improved
    together by Levenberg and Marquardt's method on the exact likelihood. Drifts have a Gaussian
    prior around zero, so that weak paths stay straight. A path whose presence in a part of the
    history only is far more likely is confined to it.

    Args:
        num_snapshots: Snapshots of the history.
        num_ant: Antennas, in the order of `lwmt_sionna.ops.angle_delay`.
        num_subcarriers: Subcarriers.
        num_paths: Largest number of paths.
        num_peaks: Peaks of the residual that are tried at a time.
        threshold: Peak of the residual's periodogram over the noise power from which it is a path.
            Noise alone exceeds 14 in one of a hundred sequences of 16,384 samples.
        chirp: Standard deviation of the change of the Doppler phase, radians per snapshot squared.
        drift: Standard deviations of the drift in angle and delay, bins per snapshot.
        full_drift: Root mean square of the Doppler shifts, cycles per snapshot, from which on these
            hold. Slower paths bend less: drifts grow with the way per snapshot, chirps with its
            square.
        window_penalty: Log-likelihood that a birth or death within the history must win, and more
            than a second ray of the path's direction and delay does; infinity to let all paths
            last.
        shortest: Fewest snapshots of a path. Births in the last snapshots call for short ones: what
            lasts longer than the truth is imitated by several paths that cancel each other, and
            comes out large when continued.
        array_shape: Number of rows, columns and polarisations; a linear array if left out. Of the
            latter, paths have amplitudes and phases of their own, and all else in common.
        num_delay: Delay bins that channels are known in, and nothing outside of them, as
            `angle_delay_transform` keeps them; all if left out.
        first_delay: First of these bins.

    Reference:
        Mamandipoor, Ramasamy and Madhow 2016, Newtonized orthogonal matching pursuit: frequency
        estimation over the continuum (IEEE TSP 64); Fleury et al. 1999, Channel parameter
        estimation in mobile radio environments using the SAGE algorithm (IEEE JSAC 17).
    """

    def __init__(  # noqa: PLR0913 - settings, each with a default
        self,
        num_snapshots: int,
        num_ant: int,
        num_subcarriers: int,
        num_paths: int = 24,
        num_peaks: int = 3,
        threshold: float = 14.0,
        chirp: float = 2e-3,
        drift: tuple[float, float] = (1e-2, 2.5e-3),
        full_drift: float = 0.25,
        window_penalty: float = 14.0,
        shortest: int = 2,
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
    ) -> None:
        self.shape = (int(num_snapshots), int(num_ant), int(num_subcarriers))
        if self.shape[0] < 2 or min(self.shape) < 1:
            raise ValueError(
                "Expected at least two snapshots, an antenna and a subcarrier. Received: "
                f"num_snapshots={num_snapshots}, num_ant={num_ant}, "
                f"num_subcarriers={num_subcarriers}"
            )
        for name, count in (("num_paths", num_paths), ("num_peaks", num_peaks)):
            if int(count) != count or count < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {name}={count}")
        if len(drift) != 2:
            raise ValueError(f"drift must be that of angle and delay. Received: drift={drift}")
        for name, value in (
            ("threshold", threshold),
            ("chirp", chirp),
            ("drift", min(drift)),
            ("full_drift", full_drift),
            ("shortest", shortest),
            ("window_penalty", window_penalty),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive. Received: {name}={value}")
        self.array_shape = check_array_shape(array_shape, self.shape[1])
        rows, cols, self.num_pols = self.array_shape
        self.first_delay = int(first_delay)
        self.num_delay = None if num_delay == self.shape[2] else num_delay
        line = min(rows, cols) == 1
        self.sizes = (self.shape[0], *((rows * cols,) if line else (cols, rows)), self.shape[2])
        self.num_paths = int(num_paths)
        self.num_peaks = min(int(num_peaks), self.num_paths)
        self.threshold = raised_threshold(float(threshold), self.num_pols)
        self.shortest = min(int(shortest), self.shape[0])
        self.full_drift = float(full_drift)
        # Coordinates run from -1 to 1: all parameters are phases at the edges, of similar size.
        # Along an axis of one antenna or subcarrier nothing turns.
        self.half = tuple(max(1, size - 1) / 2 for size in self.sizes)
        t, *across, k = (
            np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1) for size in self.sizes
        )
        antennas = [grid.reshape(-1) for grid in np.meshgrid(*across, indexing="ij")]
        self.axes = tuple(np.asarray(axis, "float32") for axis in (t, antennas, k))
        num_axes = len(self.sizes) - 1
        self.terms = _phase_terms(self.num_pols, num_axes)
        bins = [drift[0]] * (num_axes - 1) + [drift[1]]
        half, *halves = self.half
        spread = [
            width * 2 * math.pi / size * half * other
            for width, size, other in zip(bins, self.sizes[1:], halves, strict=True)
        ]
        spread = np.array([chirp * half**2, *spread])
        straight = np.zeros(len(self.terms) - len(spread))
        self.precision = np.concatenate([straight, 1.0 / spread**2]).astype("float32")
        # Powers of the pace: drifts grow with the way per snapshot, chirps with its square.
        self.growth = np.concatenate([straight, [2], np.ones(num_axes)]).astype("float32")
        # Half a resolution cell per step at most.
        cell = np.pi * np.array(self.half) / np.array(self.sizes)
        limits = [math.pi / 2] * self.num_pols + [*cell] + [cell[0]] * (1 + num_axes)
        self.limits = np.array(limits, "float32")
        self.window_penalty = float(window_penalty)
        self.windows, self.penalties = presence_windows(
            self.shape[0], self.shortest, self.window_penalty
        )
        self.beats = second_rays(self.shape[0])

    def __call__(self, h: Tensor, noise: Tensor | None = None) -> tuple[Paths, Tensor]:
        """Fits paths.

        Args:
            h: Noisy channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
            noise: Noise power per sample, real `[batch]`. If `None`, it is estimated from what the
                paths found so far leave: leakage of strong paths must not pass for noise.

        Returns:
            Tuple of `Paths` and the residual, shape as `h`.
        """
        if tuple(h.shape[1:]) != (*self.shape, 2):
            raise ValueError(
                f"Expected [batch, {', '.join(map(str, self.shape))}, 2]. Received: "
                f"h.shape={tuple(h.shape)}"
            )
        y = ComplexPair.from_stacked(ops.cast(h, "float32"))
        if noise is None:
            level = _FAINTEST * ops.mean(y.power(), axis=(1, 2, 3))
        else:
            faintest = _FAINTEST * ops.mean(y.power(), axis=(1, 2, 3))
            level = ops.maximum(ops.cast(noise, "float32"), faintest)
        zero = 0.0 * y.re[:, 0, 0, :1]
        count = self.num_paths
        paths = Paths(
            ops.tile(zero[:, :, None], (1, count, self.num_pols)),
            ops.tile(zero[:, :, None], (1, count, len(self.terms))),
            1.0 + ops.tile(zero[:, :, None], (1, count, self.shape[0])),
        )

        def discover(y, residual, noise, paths):
            return self._add(y, paths, *self._peaks(residual, noise))

        def refine(given, index, final, *before):
            """Discovers and improves, and after the last discovery improves alone."""
            y, level = ComplexPair(*given[:2]), given[2]
            paths, residual = Paths(*before[:3]), ComplexPair(*before[3:])
            own = ops.maximum(self._noise(residual), level) if noise is None else level
            looking = ops.equal(final, 0)
            found, *state = ops.cond(
                ops.any(looking),
                lambda: discover(y, residual, own, paths),
                lambda: (ops.zeros_like(looking), *paths, *residual),
            )
            state = [where_rows(looking, *both) for both in zip(state, before, strict=True)]
            paths = self._confine(ComplexPair(*state[3:]), Paths(*state[:3]), own)
            num_steps = ops.where(looking, _NUM_STEPS, 1)
            paths, residual = self._improve(y, paths, own, num_steps)
            index = index + 1
            looking = ops.logical_and(looking, ops.logical_and(found, index < count))
            final = final + ops.cast(ops.logical_not(looking), "int32")
            return (index, final, *paths, *residual)

        def working(index, final, *state):
            return final <= _NUM_FINAL_STEPS

        # No cast: what is not finite would be any integer, and the loop might not end.
        start = ops.zeros_like(zero[:, 0], dtype="int32")
        state = repeat_rows(refine, working, (*y, level), (start, start, *paths, *y))
        return Paths(*state[2:5]), ComplexPair(*state[5:]).stacked()

    @piece
    def extrapolate(self, paths: Paths, num_horizons: int) -> Tensor:
        """Continues the paths that are present in the last snapshot.

        Real `[batch, num_horizons, num_ant, num_subcarriers, 2]`.
        """
        ahead = (np.arange(self.shape[0], self.shape[0] + num_horizons) - self.half[0]) / (
            self.half[0]
        )
        amplitude = paths.amplitude * paths.window[:, :, -1:]
        present = ops.ones_like(paths.window[:, :, :1]) * _tensor(np.ones(num_horizons))
        u, v = self._waves(Paths(amplitude, paths.phase, present), ahead.astype("float32"))
        return self._superpose(u, v).stacked()

    def continued(self, h: Tensor, num_horizons: int) -> tuple[Tensor, Tensor]:
        """Fits and continues, one sequence after the other: see the call and `extrapolate`.

        A sequence of few paths then does not wait for one of many, and its arrays fit the cache.
        Returns the future, real `[batch, num_horizons, num_ant, num_subcarriers, 2]`, and what the
        paths leave of the history.
        """

        def one(sample):
            paths, residual = self(sample)
            return self.extrapolate(paths, num_horizons), residual

        grid = (*self.shape[1:], 2)
        return map_rows(one, (h,), [(num_horizons, *grid), (self.shape[0], *grid)])

    def backtested(self, h: Tensor, num_horizons: int, num_held: int) -> tuple[Tensor, ...]:
        """Fits, continues, and tells the last snapshots from those before: see `continued`.

        The paths and their windows of presence stay, their parameters are fitted once more without
        the last `num_held` snapshots, and those that are born in these are left out. Paths that
        lie too close for their history, bend in another way than they are taken to, or stand for
        what jumps, come out wrong there as they do in the future. Returns what the last snapshots
        then look like beside the future and what the paths leave, real `[batch, num_held, num_ant,
        num_subcarriers, 2]`.
        """
        before = _tensor(np.arange(self.shape[0]) < self.shape[0] - num_held)

        def one(sample):
            paths, residual = self(sample)
            noise = self._noise(ComplexPair.from_stacked(residual))
            known = sample * before[:, None, None, None]
            past = Paths(paths.amplitude, paths.phase, paths.window * before)
            past, _ = self._improve(ComplexPair.from_stacked(known), past, noise, _NUM_BACK_STEPS)
            told = self._told(paths, past, num_held)
            return self.extrapolate(paths, num_horizons), residual, told

        times = (num_horizons, self.shape[0], num_held)
        return map_rows(one, (h,), [(time, *self.shape[1:], 2) for time in times])

    def doppler(self, paths: Paths) -> Tensor:
        """Doppler shifts amid the history in cycles per snapshot, `[batch, num_paths]`."""
        return paths.phase[..., self.num_pols] / (2 * math.pi * self.half[0])

    @piece
    def _told(self, paths, past, num_held):
        """The last snapshots by what paths are in the past."""
        seen = ops.cast(ops.any(past.window > 0, axis=-1), "float32")
        past = Paths(past.amplitude * seen[..., None], past.phase, paths.window)
        return self._superpose(*self._waves(past, self.axes[0])).stacked()[:, -num_held:]

    @piece
    def _add(self, y, paths, fresh, exists):
        """Whether there are new paths, these with the others, and the residual."""
        # They go to the next free places, as long as there are any.
        used = ops.sum(_active(paths), axis=-1, keepdims=True)
        place = ops.cast(used + ops.cumsum(exists, axis=-1) - exists, "int32")
        slots = ops.equal(place[..., None], np.arange(self.num_paths, dtype="int32"))
        slots = ops.cast(slots, "float32") * exists[..., None]
        found = ops.any(ops.sum(slots, axis=1) > 0, axis=-1)
        slots = ops.transpose(slots, (0, 2, 1))
        amplitude = paths.amplitude + ops.matmul(slots, fresh.amplitude)
        phase = paths.phase + ops.matmul(slots, fresh.phase)
        paths = Paths(amplitude, phase, paths.window)
        return found, *paths, *self._residual(y, paths)[0]

    @piece
    def _noise(self, residual):
        """Noise power per sample, from the bins of the residual that hold little."""
        return noise_power(self._bins(residual))

    def _bins(self, h):
        delays = self.num_delay, self.first_delay
        return angle_delay_transform(h.stacked(), self.array_shape, *delays)

    def _superpose(self, u, v):
        """The sum of all waves, as far as it lies in the delay bins that are known."""
        h = superpose(u, v)
        if self.num_delay is None:
            return h
        band = self.array_shape, self.shape[2], self.first_delay
        return ComplexPair.from_stacked(inverse_angle_delay_transform(self._bins(h), *band))

    def _waves(self, paths, t):
        """Factors over antennas (amplitude and window in it) and subcarriers, `[B, T, P, .]`."""
        antennas, k = self.axes[1], _tensor(self.axes[2])
        # [B, 1, P, 1] each: those of time, of every axis, of time squared, of time by every axis.
        turn, *c = ops.unstack(paths.phase[:, None, :, self.num_pols :, None], axis=3)
        flat, (chirp, *drift) = c[: len(antennas) + 1], c[len(antennas) + 1 :]
        t, squared = (_tensor(each)[None, :, None, None] for each in (t, t**2))
        own = paths.phase[:, None, :, : self.num_pols]
        over_m = self._to_antennas(own + turn * t + 0.5 * chirp * squared)
        for m, slope, bend in zip(antennas, flat, drift, strict=False):
            over_m = over_m + (slope + bend * t) * _tensor(np.tile(m, self.num_pols))
        over_k = (flat[-1] + drift[-1] * t) * k
        scale = paths.amplitude[:, None] * ops.transpose(paths.window, (0, 2, 1))[..., None]
        scale = self._to_antennas(scale)
        return phasor(over_m).scaled(scale), phasor(over_k)

    def _to_antennas(self, x):
        """`[B, T, P, Q]` for all antennas, `[B, T, P, Q * M]`, or as it is where Q is one."""
        return x if self.num_pols == 1 else ops.repeat(x, self.axes[1].shape[1], axis=-1)

    def _residual(self, y, paths):
        u, v = self._waves(paths, self.axes[0])
        return y.minus(self._superpose(u, v)), u, v

    def _cost(self, residual, paths, noise):
        """Twice the negative logarithm of the posterior, `[batch]`."""
        misfit = ops.sum(residual.power(), axis=(1, 2, 3)) / noise
        prior = ops.sum(ops.square(paths.phase) * self._precision(paths), axis=-1)
        return 2 * misfit + ops.sum(prior * _active(paths), axis=-1)

    def _precision(self, paths):
        """Precision of the prior of the phases, `[batch, 1, terms]`, by the paths' pace."""
        length = ops.sum(paths.window, axis=-1)
        weight = ops.sum(paths.amplitude, axis=-1) * length
        weight = weight * ops.cast(length >= min(_SURE, self.shape[0]), "float32")
        turns = self.doppler(paths)
        square = weight * ops.square(turns - ops.floor(turns + 0.5))
        square = ops.sum(square, axis=-1) / (ops.sum(weight, axis=-1) + _TINY)
        pace = ops.sqrt(square)[:, None, None] / self.full_drift
        width = pace ** _tensor(self.growth)
        return _tensor(self.precision) / ops.square(ops.clip(width, _SLOWEST, 1.0))

    def _peaks(self, residual, noise):
        """The largest peaks of the residual, refined, and which of them stand out of the noise.

        Both of `num_peaks`; the latter is float `[batch, num_peaks]` of 0 and 1.
        """
        start, exists = self._seek(residual)
        fresh, _ = self._improve(residual, start, noise, 3)
        power = ops.sum(ops.square(fresh.amplitude), axis=-1)
        ratio = math.prod(self.sizes) * power / noise[:, None]
        return fresh, exists * ops.cast(ratio > self.threshold, "float32")

    @piece
    def _seek(self, residual):
        """The largest peaks of the residual, and which of them are no side lobes."""
        sizes = tuple(_OVERSAMPLING * size if size > 1 else 1 for size in self.sizes)
        power = spectrum(self._by_pol(residual), sizes).power()
        if self.num_pols > 1:
            power = ops.sum(ops.reshape(power, (-1, self.num_pols, *power.shape[1:])), axis=1)
        frequencies, heights = largest_peaks(power, sizes, self.num_peaks, _OVERSAMPLING)
        strongest = heights[:, :1]
        # Side lobes of a peak between bins are 13 dB below it.
        exists = ops.cast(heights > 0.15 * strongest, "float32")
        phase = frequencies * _tensor(2 * math.pi * np.array(self.half, "float32"))
        phase = ops.pad(phase, [[0, 0], [0, 0], [self.num_pols, len(self.sizes)]])
        zero = 0.0 * strongest[..., None]
        window = 1.0 + zero * _tensor(np.ones((1, self.num_peaks, self.shape[0])))
        unit = 1.0 + zero * _tensor(np.ones((1, self.num_peaks, self.num_pols)))
        u, v = self._waves(Paths(unit, phase, window), self.axes[0])
        num_samples = math.prod(self.sizes)
        inner = self._sums(project(residual, u, v), (1, 3))
        inner = inner.scaled(1.0 / num_samples)
        start = Paths(ops.sqrt(inner.power() + _TINY), phase + self._turn(inner), window)
        return start, exists

    @piece
    def _confine(self, residual, paths, noise):
        """Gives every path the most likely window of presence.

        Two rays of one direction and delay beat: strong for a while, and again later. A path that
        lasts may therefore have a second ray, at the price of one birth; that it is another path
        is found later.
        """
        if len(self.windows) == 1:
            return paths
        unit = Paths(ops.ones_like(paths.amplitude), paths.phase, ops.ones_like(paths.window))
        course = project(residual, *self._waves(unit, self.axes[0]))
        # [batch, path, polarisation, time]; its own part is added back where it is present.
        course = self._sums(course, 3).map(lambda z: ops.transpose(z, (0, 2, 3, 1)))
        num_samples = math.prod(self.sizes[1:])
        own = num_samples * paths.amplitude[..., None] * paths.window[:, :, None]
        course = ComplexPair(course.re + own, course.im)
        length = _tensor(self.windows.sum(axis=1) * num_samples)
        total = course.map(lambda z: ops.matmul(z, self.windows.T))
        power = ops.sum(total.power(), axis=2) / length
        gain = power / noise[:, None, None] - _tensor(self.penalties)
        # What a second ray explains beside the path that lasts.
        beat = course.map(lambda z: ops.matmul(z, _tensor(self.beats.real)))
        turned = course.map(lambda z: ops.matmul(z, _tensor(self.beats.imag)))
        beat = ComplexPair(beat.re + turned.im, beat.im - turned.re)
        beat = ops.max(ops.sum(beat.power(), axis=2), axis=-1) / num_samples
        beat = ops.maximum(beat / noise[:, None] - self.window_penalty, 0.0)
        gain = gain + beat[..., None] * _tensor(self.windows.all(axis=1))
        # No `one_hot`: PyTorch reads numbers for it, which no compiled piece can.
        best = ops.cast(ops.argmax(gain, axis=-1), "int32")[..., None]
        best = ops.cast(ops.equal(best, np.arange(len(self.windows), dtype="int32")), "float32")
        window = ops.matmul(best, self.windows)
        moved = ops.any(ops.not_equal(window, paths.window), axis=-1)
        inner = total.map(lambda z: ops.sum(best[:, :, None] * z / length, axis=-1))
        changed = (ops.cast(moved, "float32") * _active(paths))[..., None]
        amplitude = ops.sqrt(inner.power() + _TINY)
        return Paths(
            paths.amplitude * (1 - changed) + changed * amplitude,
            paths.phase + changed * self._turn(inner),
            paths.window * (1 - changed) + changed * window,
        )

    def _by_pol(self, residual):
        """`[B, T, Q * M, K]` as `[B * Q, T, ..., K]` with the axes of the antennas."""
        num_pols, sizes = self.num_pols, self.sizes
        split = residual.map(lambda z: ops.reshape(z, (-1, sizes[0], num_pols, *sizes[1:])))
        if num_pols > 1:
            split = split.map(lambda z: ops.moveaxis(z, 2, 1))
        return split.map(lambda z: ops.reshape(z, (-1, *sizes)))

    def _sums(self, inner, axis):
        """Sums of what `project` gives, `[B, T, P, Q, M]`, over the antennas, and over time."""
        num_snapshots, count = inner.re.shape[1:3]
        flat = (-1, num_snapshots, count * self.num_pols, self.axes[1].shape[1])
        sums = inner.map(lambda z: ops.sum(ops.reshape(z, flat), axis=axis))
        lead = () if axis == (1, 3) else (num_snapshots,)
        return sums.map(lambda z: ops.reshape(z, (-1, *lead, count, self.num_pols)))

    def _turn(self, inner):
        """Coefficients of the phases of inner products `[B, P, Q]`."""
        pad = [[0, 0], [0, 0], [0, len(self.terms) - self.num_pols]]
        return ops.pad(ops.arctan2(inner.im, inner.re), pad)

    def _improve(self, y, paths, noise, num_steps):
        """Joint steps on all parameters; a step that does not help is taken back.

        `num_steps` is a number, or one of every sequence.
        """
        state = self._start(y, paths, noise)

        def attempt(index, state):
            # PyTorch compiles for a number, but not for a tensor, again and again.
            going = ops.logical_and(ops.ones_like(state[3], dtype="bool"), index < num_steps)
            return self._attempt(y, noise, going, state)

        state = ops.fori_loop(0, ops.max(num_steps, initial=0), attempt, state)
        return Paths(*state[:3]), ComplexPair(*state[5:7])

    @piece
    def _start(self, y, paths, noise):
        """Paths, their cost, the damping of a step, the residual and the waves.

        These are kept from step to step, for XLA would compute them anew wherever they are read.
        """
        residual, u, v = self._residual(y, paths)
        cost = self._cost(residual, paths, noise)
        return (*paths, cost, 1e-3 + 0.0 * noise, *residual, *u, *v)

    @piece
    def _attempt(self, y, noise, going, state):
        """What a step makes of what `_start` returns, for the sequences that are going."""
        paths = Paths(*state[:3])
        cost, damping, *fields = state[3:]
        trial = self._step(
            paths, *(ComplexPair(*fields[i : i + 2]) for i in (0, 2, 4)), noise, damping
        )
        trial_residual, u, v = self._residual(y, trial)
        trial_cost = self._cost(trial_residual, trial, noise)
        better = ops.logical_and(trial_cost < cost, going)
        damping = ops.clip(ops.where(better, 0.25 * damping, 10.0 * damping), 1e-5, 1e3)
        trial_fields = (*trial_residual, *u, *v)
        return (
            *(where_rows(better, *both) for both in zip(trial, paths, strict=True)),
            ops.where(better, trial_cost, cost),
            damping,
            *(where_rows(better, *both) for both in zip(trial_fields, fields, strict=True)),
        )

    def _step(self, paths, residual, u, v, noise, damping):
        """One damped Gauss-Newton step.

        What paths have outside of the known delay bins counts as if it were seen: a little, where
        steps are shorter for it, and never in the gradient.
        """
        count = paths.amplitude.shape[1]
        gradient = self._gradient(residual, u, v)
        normal = normal_matrix(u, v, self.num_pols, *self.axes)
        # Prior: precision of the drifts against the likelihood's 2 / noise.
        half_noise = 0.5 * noise[:, None, None]
        active = _active(paths)[..., None]
        precision = ops.pad(self._precision(paths), [[0, 0], [0, 0], [self.num_pols, 0]])
        parameters = ops.concatenate([0.0 * paths.amplitude, paths.phase], axis=-1)
        gradient = gradient - half_noise * precision * parameters * active
        num_parameters = self.num_pols + len(self.terms)
        size = count * num_parameters
        eye = _tensor(np.eye(size))
        diagonal = ops.sum(normal * eye, axis=-1)
        load = ops.reshape(half_noise * precision * active, (-1, size))
        level = ops.max(diagonal, axis=-1, keepdims=True) + _TINY
        idle = ops.reshape((1.0 - active) * _tensor(np.ones(num_parameters)), (-1, size))
        load = load + damping[:, None] * diagonal + 1e-6 * level + idle * level
        # Scaled to a unit diagonal.
        unit = 1.0 / ops.sqrt(diagonal + load)
        matrix = (normal + load[:, :, None] * eye) * unit[:, :, None] * unit[:, None, :]
        right = ops.reshape(gradient, (-1, size)) * unit
        solution = conjugate_gradients(matrix, right, _NUM_INNER_STEPS)
        change = ops.reshape(solution * unit, (-1, count, num_parameters))
        growth, turn = change[..., : self.num_pols], change[..., self.num_pols :]
        growth = ops.clip(growth, -0.5, 0.5)
        worst = ops.max(ops.abs(turn) / _tensor(self.limits), axis=-1, keepdims=True)
        turn = turn / ops.maximum(worst, 1.0)
        return Paths(paths.amplitude * ops.exp(growth), paths.phase + turn * active, paths.window)

    def _gradient(self, residual, u, v):
        """Inner products of the residual with the derivatives, `[B, P, parameters]`."""
        t, antennas, k = self.axes
        weights = np.concatenate([np.ones_like(antennas[:1]), antennas])
        by_k = [project(residual, u, v.map(lambda z, c=c: z * _tensor(k**c))) for c in range(2)]
        # [B, T, P, Q * M, 1] -> [B, T, P, Q, 1 and the coordinates of m], for each power of k
        flat = (-1, len(t), u.re.shape[2] * self.num_pols, len(antennas[0]))
        shape = (-1, len(t), u.re.shape[2], self.num_pols, len(weights))
        moments = [
            z.map(lambda w: ops.reshape(ops.matmul(ops.reshape(w, flat), weights.T), shape))
            for z in by_k
        ]
        imaginary = [ops.unstack(ops.sum(z.im, axis=3), axis=3) for z in moments]
        parts = []
        for term in self.terms[self.num_pols :]:
            by_delay = term.axis == len(antennas)
            place = 0 if term.axis is None or by_delay else 1 + term.axis
            weight = _tensor(term.factor * t[None, :, None] ** term.time)
            parts.append(ops.sum(imaginary[by_delay][place] * weight, axis=1))
        own = moments[0].map(lambda z: ops.sum(z[..., 0], axis=1))
        return ops.concatenate([own.re, own.im, ops.stack(parts, axis=-1)], axis=-1)


def raised_threshold(threshold: float, num_pols: int) -> float:
    """The power of `num_pols` bins together that noise exceeds as rarely as one bin `threshold`."""
    raised = threshold
    for _ in range(32):
        raised = threshold + math.log(sum(raised**i / math.factorial(i) for i in range(num_pols)))
    return raised


def _tensor(array):
    """A constant as a tensor: PyTorch does not compute with arrays of NumPy."""
    return ops.convert_to_tensor(array, dtype="float32")


def _active(paths):
    """Which paths there are, `[B, P]` of 0 and 1."""
    return ops.cast(ops.max(paths.amplitude, axis=-1) > 0, "float32")


def superpose(u: ComplexPair, v: ComplexPair) -> ComplexPair:
    """Sum over paths of the outer products of `[B, T, P, M]` and `[B, T, P, K]`: `[B, T, M, K]`."""
    left = u.map(lambda z: ops.transpose(z, (0, 1, 3, 2)))
    return ComplexPair(
        ops.matmul(left.re, v.re) - ops.matmul(left.im, v.im),
        ops.matmul(left.re, v.im) + ops.matmul(left.im, v.re),
    )


def project(residual: ComplexPair, u: ComplexPair, v: ComplexPair) -> ComplexPair:
    """`conj(u[m]) sum_k r[m, k] conj(v[k])` for every path: `[B, T, P, M, 1]`."""
    turned = residual.map(lambda z: ops.transpose(z, (0, 1, 3, 2)))
    inner = ComplexPair(
        ops.matmul(v.re, turned.re) + ops.matmul(v.im, turned.im),
        ops.matmul(v.re, turned.im) - ops.matmul(v.im, turned.re),
    )
    return u.conj().times(inner).map(lambda z: z[..., None])


def normal_matrix(
    u: ComplexPair, v: ComplexPair, num_pols: int, t: Array, antennas: Array, k: Array
) -> Tensor:
    """Inner products of the derivatives of all waves by all parameters.

    Real `[B, P * parameters, P * parameters]`; the parameters are the logarithms of the amplitudes
    and the coefficients of the phase. `u` `[B, T, P, Q * M]` (with amplitudes) and `v` `[B, T, P,
    K]` are the waves; `t`, `antennas` `[axes, M]` and `k` the coordinates of snapshots, antennas
    and subcarriers.
    """
    count, num_axes = u.re.shape[2], len(antennas) + 1
    pairs = _pairs(num_axes)
    # By which antenna axes and how often by the delay.
    powers = [tuple(axis for axis in pair if axis < len(antennas)) for pair in pairs]
    weights = {power: np.prod(antennas[list(power)], axis=0) for power in powers}
    over_k = _moment_grams(v, {c: k**c for c in range(3)})
    products = []
    for own in _split(u, num_pols):
        over_m = _moment_grams(own, weights)
        products += [
            over_m[power].times(over_k[len(pair) - len(power)])
            for pair, power in zip(pairs, powers, strict=True)
        ]
    products = ops.stack([part for z in products for part in z], axis=2)
    width = products.shape[2]
    products = ops.reshape(products, (-1, len(t), width * count * count))
    moments = ops.matmul(np.stack([t**a for a in range(5)]), products)
    if num_pols > 1:
        # Behind those of every polarisation, all of them together; then every one is of one kind.
        moments = ops.reshape(moments, (-1, 5, num_pols, width // num_pols * count * count))
        moments = ops.concatenate([moments, ops.sum(moments, axis=2, keepdims=True)], axis=2)
        width = width // num_pols * (num_pols + 1)
    moments = ops.reshape(moments, (-1, 5 * width, count, count))
    places, factors = _normal_table(num_pols, num_axes)
    size = len(places)
    table = ops.reshape(
        ops.take(moments, places.reshape(-1), axis=1), (-1, size, size, count, count)
    )
    table = ops.transpose(table, (0, 3, 1, 4, 2)) * _tensor(factors[:, None])
    return ops.reshape(table, (-1, count * size, count * size))


def _pairs(num_axes):
    """The axes of space by which the products of two derivatives may be: none, one or two."""
    pairs = itertools.combinations_with_replacement((None, *range(num_axes)), 2)
    return [tuple(axis for axis in pair if axis is not None) for pair in pairs]


@functools.cache
def _normal_table(num_pols, num_axes):
    """Inner products of derivatives as moments `[t power, pol, pair, re/im]`, by place and factor.

    The derivatives by the logarithms of the amplitudes are real, those by the phases imaginary. The
    last polarisation stands for all of them together.
    """
    phases, pairs = _phase_terms(num_pols, num_axes), _pairs(num_axes)
    terms = [*(term._replace(real=True) for term in phases[:num_pols]), *phases]
    kinds = (5, num_pols + (num_pols > 1), len(pairs), 2)
    places = np.zeros((len(terms), len(terms)), "int32")
    factors = np.zeros((len(terms), len(terms)), "float32")
    for i, one in enumerate(terms):
        for j, other in enumerate(terms):
            pair = tuple(sorted(t.axis for t in (one, other) if t.axis is not None))
            mixed = one.real != other.real
            sign = -1.0 if one.real and mixed else 1.0
            pols = {t.pol for t in (one, other) if t.pol is not None}
            if len(pols) < 2:
                place = one.time + other.time, min(pols, default=kinds[1] - 1)
                place = *place, pairs.index(pair), int(mixed)
                places[i, j] = np.ravel_multi_index(place, kinds)
                factors[i, j] = sign * one.factor * other.factor
    return places, factors


def _split(u, num_pols):
    """Waves of every polarisation, a list of `[B, T, P, M]`."""
    size = u.re.shape[3] // num_pols
    places = [slice(p * size, (p + 1) * size) for p in range(num_pols)]
    return [ComplexPair(*(z[..., place] for z in u)) for place in places]


def _moment_grams(u, weights):
    """`sum_m conj(u[p, m]) w[m] u[q, m]` for all weights: a dictionary of `[B, T, P, P]`."""
    count = u.re.shape[2]
    left = ops.concatenate([u.re, u.im], axis=3)
    right = ops.concatenate([left, ops.concatenate([u.im, -u.re], axis=3)], axis=2)
    right = ops.transpose(right, (0, 1, 3, 2))
    both = {key: ops.matmul(left * _tensor(np.tile(w, 2)), right) for key, w in weights.items()}
    return {key: ComplexPair(z[..., :count], z[..., count:]) for key, z in both.items()}


def spectrum(residual: ComplexPair, sizes: tuple[int, ...]) -> ComplexPair:
    """Zero-padded Fourier transform of `[B, T, ..., K]`, with all axes of space but one in one.

    `sizes` are the points in Doppler shift, angles and delay. `[B, sizes[0], points in space]`.
    """
    *outer, num_ant, num_subcarriers = residual.re.shape[1:]
    pad = [[0, 0]] * (1 + len(outer))
    pad += [[0, sizes[-2] - num_ant], [0, sizes[-1] - num_subcarriers]]
    plane = ComplexPair(*ops.fft2(tuple(ops.pad(part, pad) for part in residual)))
    width = sizes[-2] * sizes[-1]
    for length, size in zip(reversed(outer), reversed(sizes[:-2]), strict=True):
        # Both parts in one product: PyTorch pays for every array of this size.
        lines = ops.concatenate([ops.reshape(z, (-1, length, width)) for z in plane], axis=1)
        lines = ops.matmul(_dft(size, length), lines)
        plane = ComplexPair(lines[:, :size], lines[:, size:])
        width *= size
    return plane


def largest_peaks(
    power: Tensor, sizes: tuple[int, ...], num_peaks: int, reach: int
) -> tuple[Tensor, Tensor]:
    """The largest peaks that lie apart from each other in angle or delay.

    Args:
        power: Periodogram, `[B, sizes[0], points in space]`: see `spectrum`.
        sizes: Points in Doppler shift, angles and delay.
        num_peaks: Number of peaks.
        reach: Points in angle and delay around a peak in which no other is looked for.

    Returns:
        Frequencies in cycles per sample, `[B, num_peaks, axes]`, in [-0.5, 0.5), and heights, `[B,
        num_peaks]`, the largest first.
    """
    strides = [math.prod(sizes[i + 1 :]) for i in range(1, len(sizes))]
    bins = np.arange(math.prod(sizes[1:]), dtype="int32")
    # Every point in space with its strongest Doppler shift.
    plane = ops.max(power, axis=1)
    frequencies, heights = [], []
    for _ in range(num_peaks):
        place = ops.cast(ops.argmax(plane, axis=1), "int32")
        heights.append(ops.max(plane, axis=1))
        column = ops.take_along_axis(power, place[:, None, None], axis=2)[..., 0]
        space = zip(strides, sizes[1:], strict=True)
        index = ops.argmax(column, axis=1), *(place // a % size for a, size in space)
        turns = [ops.cast(i, "float32") / size for i, size in zip(index, sizes, strict=True)]
        frequencies.append(ops.stack([turn - ops.floor(turn + 0.5) for turn in turns], axis=-1))
        near = 1.0
        for i, a, size in zip(index[1:], strides, sizes[1:], strict=True):
            distance = ops.abs(ops.convert_to_tensor(bins // a % size)[None] - i[:, None])
            distance = ops.minimum(distance, size - distance)
            near = near * ops.cast(distance <= reach, "float32")
        plane = plane * (1.0 - near)
    return ops.stack(frequencies, axis=1), ops.stack(heights, axis=1)


def presence_windows(num_snapshots: int, shortest: int, penalty: float) -> tuple[Array, Array]:
    """Spans of snapshots in which a path may be present, and what each costs.

    Float32 `[num_windows, num_snapshots]` of 0 and 1, at least `shortest` long, and
    `[num_windows]`: a birth or death within the history costs `penalty`; infinity leaves the whole
    span alone.
    """
    place = np.arange(num_snapshots)
    windows, costs = [], []
    for first, last in itertools.combinations(range(num_snapshots + 1), 2):
        events = (first > 0) + (last < num_snapshots)
        if last - first >= shortest and (events == 0 or math.isfinite(penalty)):
            windows.append((place >= first) & (place < last))
            costs.append(events * penalty if events else 0.0)
    return np.array(windows, "float32"), np.array(costs, "float32")


def second_rays(num_snapshots: int) -> Array:
    """Tones over a history, less their mean, of unit power: complex64 `[num_snapshots, num_tones]`.

    From half a resolution cell apart from the constant on, in steps of a quarter.
    """
    turns = np.arange(2, 4 * num_snapshots - 1) / (4 * num_snapshots)
    tones = np.exp(2j * np.pi * np.outer(np.arange(num_snapshots), turns))
    tones -= tones.mean(axis=0)
    return (tones / np.linalg.norm(tones, axis=0)).astype("complex64")


@functools.lru_cache(maxsize=16)
def _dft(size, length):
    """Zero-padded discrete Fourier transform, real `[2 * size, 2 * length]`, real parts first."""
    phase = 2 * np.pi * np.outer(np.arange(size), np.arange(length)) / size
    cosine, sine = np.cos(phase), np.sin(phase)
    return np.block([[cosine, sine], [-sine, cosine]]).astype("float32")
