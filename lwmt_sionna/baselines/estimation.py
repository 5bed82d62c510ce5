"""Channel estimation from sparse pilots without a network: interpolation, pursuit, true statistics.

Pilots are noisy samples of complex channels `[num_sequences, num_snapshots, num_ant,
num_subcarriers]`; a mask, bool of the same shape, is true where there is none.
"""

import numpy as np

from lwmt_sionna.data import PathSequences, PlanarArray
from lwmt_sionna.data.synthesis import element_gains
from lwmt_sionna.typing import Array, ArrayLike

__all__ = ["interpolate_pilots", "path_lmmse", "pursue_paths"]

# Atoms for each resolution cell of an axis, and how often the grid is halved around a peak.
_OVERSAMPLING, _HALVINGS = 2, 5
# Peak of the periodogram of white noise over its power, exceeded in one of a hundred windows.
_THRESHOLD = 14.0
_RIDGE = 1e-6


def interpolate_pilots(h: Array, mask: Array) -> Array:
    """Interpolates linearly between pilots: along subcarriers where there are any, then over time.

    What lies beyond the outermost pilots is held.

    Args:
        h: complex; what it holds where there is no pilot has no effect.
        mask: The same for all sequences and antennas: bool `[num_snapshots, num_subcarriers]`.

    Returns:
        complex64, shape as `h`.

    Raises:
        ValueError: If there is no pilot.
    """
    snapshots = np.flatnonzero(~mask.all(axis=1))
    if not snapshots.size:
        raise ValueError("Expected at least one pilot. Received: a mask that hides everything")
    rows = []
    for snapshot in snapshots:
        pilots = np.flatnonzero(~mask[snapshot])
        weights = _hats(np.arange(mask.shape[1]), pilots)
        rows.append(h[:, snapshot][..., pilots] @ weights.astype(np.float32))
    weights = _hats(np.arange(mask.shape[0]), snapshots).astype(np.float32)
    # p snapshot with pilots, t snapshot
    return np.einsum("psmk,pt->stmk", np.stack(rows), weights).astype(np.complex64)


def _hats(places, knots):
    """Weights of linear interpolation, `[num_knots, num_places]`."""
    return np.stack([np.interp(places, knots, row) for row in np.eye(len(knots))])


def pursue_paths(h: Array, mask: Array, num_paths: int = 24) -> Array:
    r"""Resolves each sequence into plane waves by orthogonal matching pursuit, and sums them up.

    A wave is $\exp j(\omega_t t + \omega_m m + \omega_k k)$ over snapshots, antennas of a line and
    subcarriers. The largest peak of the residual on the pilots, refined off the grid, is added, and
    all amplitudes are fitted again, until the residual has no peak above its own noise.

    Args:
        h: See `interpolate_pilots`.
        mask: See `interpolate_pilots`.
        num_paths: Waves at most.

    Returns:
        complex64, shape as `h`.

    Reference:
        Pati, Rezaiifar and Krishnaprasad 1993, Orthogonal matching pursuit: recursive function
        approximation with applications to wavelet decomposition (Asilomar 27).
    """
    known = np.broadcast_to(~mask[:, None, :], h.shape[1:])
    return np.stack([_pursue(y, known, num_paths) for y in h])


def _pursue(y, known, num_paths):
    grid = [np.arange(size) for size in y.shape]
    sizes = [1 << int(np.ceil(np.log2(_OVERSAMPLING * size))) for size in y.shape]
    seen, count = y[known], known.sum()
    columns, waves, amplitude = [], [], np.zeros(0, complex)
    residual = np.where(known, y, 0)
    for _ in range(num_paths):
        spectrum = np.abs(np.fft.fftn(residual, sizes, axes=(0, 1, 2))) ** 2 / count
        peak = np.unravel_index(np.argmax(spectrum), spectrum.shape)
        # White noise has an exponential periodogram, whose median is that times ln 2.
        noise = np.median(spectrum) / np.log(2)
        if spectrum[peak] <= _THRESHOLD * noise:
            break
        turns = _refined(residual, [p / n for p, n in zip(peak, sizes)], sizes)
        waves.append([np.exp(2j * np.pi * turn * axis) for turn, axis in zip(turns, grid)])
        columns.append(_superpose(waves[-1:], [1.0])[known])
        matrix = np.stack(columns, axis=1)
        normal = matrix.conj().T @ matrix + _RIDGE * count * np.eye(len(columns))
        amplitude = np.linalg.solve(normal, matrix.conj().T @ seen)
        residual = np.zeros_like(residual)
        residual[known] = seen - matrix @ amplitude
    return _superpose(waves, amplitude, y.shape).astype(np.complex64)


def _refined(residual, turns, sizes):
    """A peak off the grid: axis by axis the best of three points, whose distance is halved."""
    steps = [0.5 / size for size in sizes]
    for _ in range(_HALVINGS):
        for axis in range(3):
            tried = turns[axis] + steps[axis] * np.array([-1.0, 0.0, 1.0])
            partial = residual
            # The other axes first, the last of them first: one line is left.
            for other in (2, 1, 0):
                if other != axis:
                    line = np.exp(-2j * np.pi * turns[other] * np.arange(residual.shape[other]))
                    partial = np.tensordot(partial, line, axes=(other, 0))
            lines = np.exp(-2j * np.pi * tried[:, None] * np.arange(residual.shape[axis]))
            turns[axis] = tried[np.argmax(np.abs(lines @ partial))]
            steps[axis] /= 2
    return turns


def _superpose(waves, amplitude, shape=None):
    if not len(waves):
        return np.zeros(shape, complex)
    t, m, k = (np.stack(parts) for parts in zip(*waves))
    # p wave
    return np.einsum("p,pt,pm,pk->tmk", np.asarray(amplitude), t, m, k, optimize=True)


def path_lmmse(
    h: Array,
    mask: Array,
    paths: PathSequences,
    array: PlanarArray,
    frequencies: ArrayLike,
    noise: ArrayLike,
) -> Array:
    r"""Linear MMSE estimate with the true statistics of every user: a ceiling, not a contestant.

    Known are angles, delays and gains of all paths in every snapshot, but for one complex factor of
    unit power for each sequence of interactions, and the noise. With the waves $V$ of such paths,
    $V_p$ those of the pilots: $\hat h = V (V_p^H V_p + \sigma^2)^{-1} V_p^H y$.

    Args:
        h: See `interpolate_pilots`.
        mask: See `interpolate_pilots`.
        paths: The true `PathSequences`, of the snapshots of `h`.
        array: `PlanarArray` of the base station, of one polarisation.
        frequencies: Baseband frequencies of the subcarriers in hertz.
        noise: Power of the noise of every sequence, float `[num_sequences]`.

    Returns:
        complex64, shape as `h`.
    """
    known = np.broadcast_to(~mask[:, None, :], h.shape[1:]).ravel()
    gains = element_gains(paths, array, np.arange(paths.num_snapshots))[:, :, 0]
    turns = paths.tau[..., None].astype(np.float64) * np.asarray(frequencies, np.float64)
    estimates = []
    for index, y in enumerate(h):
        valid = paths.valid[index]
        keys, place = np.unique(paths.path_key[index][valid], return_inverse=True)
        waves = np.zeros((len(keys), *y.shape), np.complex64)
        for key, (snapshot, path) in zip(place, np.argwhere(valid)):
            ramp = np.exp(-2j * np.pi * turns[index, snapshot, path])
            waves[key, snapshot] += np.outer(gains[index, snapshot, path], ramp)
        waves = waves.reshape(len(keys), -1)
        at_pilots = waves[:, known]
        # q and r paths
        normal = (at_pilots.conj() @ at_pilots.T).astype(np.complex128)
        normal += float(noise[index]) * np.eye(len(keys))
        factors = np.linalg.solve(normal, at_pilots.conj() @ y.ravel()[known])
        estimates.append((factors @ waves).reshape(y.shape).astype(np.complex64))
    return np.stack(estimates)
