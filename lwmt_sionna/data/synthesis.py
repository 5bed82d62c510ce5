"""From propagation paths to channels, for any array and band."""

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.paths import PathSequences
from lwmt_sionna.typing import Array, ArrayLike, Random

_CHUNK_BYTES = 2**28


def subcarrier_frequencies(num_subcarriers: int, subcarrier_spacing: float) -> Array:
    """Baseband frequencies of the subcarriers, centred as in Sionna's OFDM.

    Args:
        num_subcarriers: Number of subcarriers.
        subcarrier_spacing: Distance of the subcarriers in hertz.

    Returns:
        float64 `[num_subcarriers]`, hertz: `(-n/2, ..., n/2 - 1) * spacing` for even `n`,
        `(-(n-1)/2, ..., (n-1)/2) * spacing` for odd `n`.
    """
    if num_subcarriers < 1 or subcarrier_spacing <= 0:
        raise ValueError(
            "num_subcarriers and subcarrier_spacing must be positive. Received: "
            f"num_subcarriers={num_subcarriers}, subcarrier_spacing={subcarrier_spacing}"
        )
    return (np.arange(num_subcarriers) - num_subcarriers // 2) * float(subcarrier_spacing)


def synthesize(
    paths: PathSequences,
    array: PlanarArray,
    frequencies: ArrayLike,
    times: ArrayLike | None = None,
    snapshots: ArrayLike | None = None,
    user_polarization: int = 0,
) -> Array:
    """Channel frequency responses between one user antenna and an array at the base station.

    `h[m, k] = sum_p a_p exp(j 2 pi d_m . k_p) exp(-j 2 pi f_k tau_p) exp(j 2 pi nu_p t)`, with
    element `m` at `d_m` wavelengths, departure direction `k_p`, subcarrier frequency `f_k` and
    Doppler shift `nu_p`. Equals `Paths.cfr` of Sionna RT with `normalize_delays=False`.

    Args:
        array: `PlanarArray` of the base station.
        frequencies: Baseband frequencies in hertz, float `[num_subcarriers]`.
        times: Instants relative to each snapshot in seconds, float `[num_times]`; paths evolve to
            them by their Doppler shifts. `None` means the snapshot itself, without that axis.
        snapshots: Index of the snapshots to synthesise; all of them if `None`.
        user_polarization: Index of the user's polarisation.

    Returns:
        complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`, or
        `[num_sequences, num_snapshots, num_times, num_ant, num_subcarriers]` if `times` is given.

    Raises:
        ValueError: If the array's polarisations are not those the paths were traced with.
    """
    check_polarization(paths, array)
    frequencies = np.asarray(frequencies, dtype=np.float64)
    chosen = np.arange(paths.num_snapshots) if snapshots is None else np.atleast_1d(snapshots)
    instants = np.zeros(1) if times is None else np.asarray(times, dtype=np.float64)
    shape = (paths.num_sequences, chosen.size, instants.size, array.num_ant, frequencies.size)
    h = np.empty(shape, dtype=np.complex64)
    per_path = array.num_ant * instants.size + frequencies.size
    # Thousands of paths, as of diffuse scattering, let no more than some snapshots in.
    most = max(1, _CHUNK_BYTES // (16 * max(paths.num_paths, 1) * per_path))
    step = max(1, most // max(chosen.size, 1))
    for begin in range(0, paths.num_sequences, step):
        part = slice(begin, begin + step)
        for first in range(0, chosen.size, most):
            some = slice(first, first + most)
            h[part, some] = _synthesize(
                paths, part, array, frequencies, instants, chosen[some], user_polarization
            )
    return h[:, :, 0] if times is None else h


def element_gains(paths: PathSequences, array: PlanarArray, snapshots: ArrayLike) -> Array:
    """Gain of every path between every pair of antennas, at the carrier.

    Args:
        array: `PlanarArray` of the base station.
        snapshots: Indices of the snapshots, integer `[num_chosen]`.

    Returns:
        complex64 `[num_sequences, num_chosen, num_user_pol, num_paths, num_ant]`; zero where there
        is no path.

    Raises:
        ValueError: If the array's polarisations are not those the paths were traced with.
    """
    check_polarization(paths, array)
    index = (slice(None), np.atleast_1d(snapshots))
    gain = paths.a[index] * paths.valid[index][..., None, None]
    response = _responses(paths, index, array)
    # s sequence, t snapshot, p path, r and q polarisations, m element
    gains = np.einsum("stprq,stpm->strpqm", gain, response)
    return gains.reshape(*gains.shape[:4], array.num_ant)


def add_noise(h: Array, history_snr_db: ArrayLike, rng: Random) -> Array:
    """Adds white noise, as an uplink estimate would have it.

    Args:
        h: True history, complex `[batch, time, antenna, subcarrier]`.
        history_snr_db: Pilot signal-to-noise ratio in decibels, float or float `[batch]`, relative
            to the mean power of each sequence's history.

    Returns:
        complex64, shape as `h`.
    """
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True)
    snr = 10.0 ** (np.reshape(np.asarray(history_snr_db, np.float64), (-1, 1, 1, 1)) / 10.0)
    deviation = np.sqrt(power / snr / 2.0).astype(np.float32)
    return (h + deviation * complex_normal(rng, h.shape)).astype(np.complex64)


def sparse_mask(num_snapshots: int, num_subcarriers: int, comb: int) -> Array:
    """Where sparse pilots leave holes.

    Every snapshot has a pilot on every `comb`-th subcarrier. The first one goes round in
    bit-reversed order, 0, 2, 1, 3 for a comb of four: pilots on a lattice, as of an offset that
    grows by one, could not tell delays from Doppler shifts. Two offsets in turn are a lattice, too;
    a comb of two has those of four, modulo two.

    Args:
        num_snapshots: Number of snapshots.
        num_subcarriers: Number of subcarriers.
        comb: Subcarriers from one pilot to the next, a power of two.

    Returns:
        True where there is no pilot, bool `[num_snapshots, num_subcarriers]`.

    Raises:
        ValueError: If the comb is none.
    """
    if comb < 1 or comb & (comb - 1):
        raise ValueError(f"comb: expected a power of two. Received: comb={comb}")
    offsets = np.zeros(1, int)
    while len(offsets) < max(comb, 4):
        offsets = np.concatenate([2 * offsets, 2 * offsets + 1])
    places = np.arange(num_subcarriers)
    return places % comb != np.resize(offsets, num_snapshots)[:, None] % comb


def complex_normal(rng: Random, shape: tuple[int, ...]) -> Array:
    """Normal numbers, complex64, whose real and imaginary parts have unit variance each."""
    return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]


def history_scale(history: Array) -> Array:
    """Root mean square of each noisy history; nothing of the future enters.

    Args:
        history: complex `[batch, time, antenna, subcarrier]`.

    Returns:
        float32 `[batch, 1, 1, 1]`, 1 where a history is all zero.
    """
    rms = np.sqrt(np.mean(np.abs(history) ** 2, axis=(1, 2, 3), keepdims=True, dtype=np.float64))
    return np.where(rms > 0, rms, 1.0).astype(np.float32)


def check_polarization(paths: PathSequences, array: PlanarArray) -> None:
    """Refuses an array with other polarisations than those the paths were traced with."""
    if paths.a.shape[-1] != array.num_polarizations:
        raise ValueError(
            "The paths were traced with another number of polarisations than the array has: "
            f"expected {paths.a.shape[-1]}. Received: polarization={array.polarization}"
        )


def _responses(paths, index, array):
    theta, phi = paths.theta_t[index], paths.phi_t[index]
    response = np.empty((*theta.shape, array.num_rows * array.num_cols), dtype=np.complex64)
    serving = paths.bs_index[index[0]]
    for station in np.unique(serving):
        rows = serving == station
        turns = array.turns(theta[rows], phi[rows], paths.bs_orientation[station])
        response[rows] = _phasor(turns)
    return response


def _phasor(turns):
    """`exp(2 pi j turns)`, complex64: sine and cosine in float32 take a tenth of the time."""
    angle = (2 * np.pi * (turns - np.round(turns))).astype(np.float32)
    result = np.empty(angle.shape, np.complex64)
    result.real, result.imag = np.cos(angle), np.sin(angle)
    return result


def _synthesize(paths, part, array, frequencies, instants, chosen, user_polarization):
    index = (part, chosen)
    valid = paths.valid[index]
    tau = np.where(valid, paths.tau[index], 0.0).astype(np.float64)
    gain = paths.a[index][..., user_polarization, :] * valid[..., None]
    response = _responses(paths, index, array)
    doppler = paths.doppler[index].astype(np.float64)
    evolution = _phasor(doppler[:, :, None] * instants[:, None])
    ramp = _phasor(-tau[..., None] * frequencies)
    # s sequence, t snapshot, i instant, p path, q polarisation, m element
    evolved = np.einsum("stpq,stip->stiqp", gain, evolution)
    weight = np.einsum("stiqp,stpm->stiqmp", evolved, response)
    weight = weight.reshape(*weight.shape[:3], array.num_ant, -1)
    return weight @ ramp[:, :, None]
