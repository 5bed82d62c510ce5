"""Paths at instants that were not traced, and stored sequences at other periods and speeds."""

import dataclasses

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.events import match_paths
from lwmt_sionna.data.paths import (
    OPTIONAL_FIELDS,
    PATH_FIELDS,
    PathSequences,
    blank_absent,
    compact_paths,
    concatenate,
    widen_paths,
)
from lwmt_sionna.data.synthesis import subcarrier_frequencies
from lwmt_sionna.typing import Array, ArrayLike

_ANGLES = ("theta_t", "phi_t", "theta_r", "phi_r")
_LABELS = ("path_key", "interactions")
# Delays of one path forecast from both ends differ by far less than a wavelength over the distances
# bridged here; two paths whose forecasts differ by more are not joined.
_TOLERANCE_WAVELENGTHS = 0.125
# Steps of a replay need not make a stored one to the last digit. Tracks that are held at a time.
_TOLERANCE_PARTS = 1e-4
_CHUNK = 100
# The channel by which seams are judged: a line of 32 antennas over 17 MHz.
_PROBE = (PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))


def evolve_between(
    before: dict[str, Array],
    after: dict[str, Array],
    elapsed: ArrayLike,
    fractions: ArrayLike,
    carrier_frequency: float,
) -> dict[str, Array]:
    """Paths at instants between two traced snapshots.

    A path seen at both ends has the delay of the cubic polynomial that both delays and both Doppler
    shifts determine, and the phase of that delay; gain (without the phase of the delay) and angles
    change linearly. A path seen at one end only keeps gain, angles and Doppler shift up to the
    middle of the interval: its birth or death is put there.

    Args:
        before: Dictionary of arrays of the earlier snapshots, as `trace_positions` returns them,
            first axes `[num_intervals, num_before]`.
        after: The same of the later snapshots, `[num_intervals, num_after]`.
        elapsed: Length of the intervals in seconds, float `[num_intervals]`.
        fractions: Instants as fractions of the intervals, in (0, 1), float
            `[num_intervals, num_instants]`.
        carrier_frequency: Hertz.

    Returns:
        Dictionary like `before`, first axes
        `[num_intervals, num_instants, num_before + num_after]`.
    """
    tolerance = _TOLERANCE_WAVELENGTHS / carrier_frequency
    pair = match_paths(before, after, elapsed, carrier_frequency, tolerance)
    joined = pair >= 0
    taken = np.zeros(after["valid"].shape, dtype=bool)
    rows, columns = np.nonzero(joined)
    taken[rows, pair[rows, columns]] = True
    before = _with_plain_gain(before, carrier_frequency)
    after = _with_plain_gain(after, carrier_frequency)
    place = np.where(joined, pair, 0)
    mate = {
        name: np.take_along_axis(value, place.reshape(*place.shape, *(1,) * (value.ndim - 2)), 1)
        for name, value in after.items()
    }
    elapsed = np.asarray(elapsed, dtype=np.float64)[:, None, None]
    at = np.asarray(fractions, dtype=np.float64)[:, :, None]
    kept = _interpolate(before, mate, joined, at, elapsed, carrier_frequency)
    kept["valid"] = before["valid"][:, None] & (joined[:, None] | (at < 0.5))
    born = _shift(after, (at - 1.0) * elapsed, carrier_frequency)
    born["valid"] = (after["valid"] & ~taken)[:, None] & (at >= 0.5)
    result = {name: np.concatenate([kept[name], born[name]], axis=2) for name in kept}
    return _with_carrier_phase(result, carrier_frequency)


def extrapolation_error(
    before: dict[str, Array],
    after: dict[str, Array],
    elapsed: ArrayLike,
    carrier_frequency: float,
    orientation: ArrayLike = (0.0, 0.0, 0.0),
) -> Array:
    """What evolving paths by their Doppler shifts alone misses after a while.

    The channel between one user antenna and a line of 32 half-wavelength spaced antennas, over 32
    subcarriers 540 kHz apart, is evolved from the earlier paths with constant Doppler shifts and
    compared with that of the later paths.

    The arguments are those of `evolve_between`, and yaw, pitch and roll of the array in radians.

    Returns:
        float64 `[num_intervals]`: squared error over the power of the later channel; NaN where that
        has no power.
    """
    lag = np.asarray(elapsed, dtype=np.float64)[:, None, None]
    forecast = _continued(before, lag, carrier_frequency)
    guess = _channel({name: value[:, 0] for name, value in forecast.items()}, orientation)
    truth = _channel(after, orientation)
    power = np.sum(np.abs(truth) ** 2, axis=(1, 2, 3))
    error = np.sum(np.abs(guess - truth) ** 2, axis=(1, 2, 3))
    return np.where(power > 0, error / np.where(power > 0, power, 1.0), np.nan)


def retime(paths: PathSequences, sampling_period: float) -> PathSequences:
    """The same places, met at another pace.

    Paths depend on where the user is, not on when: 120 km/h with a snapshot every 2.5 ms and 60
    km/h with one every 5 ms are the same channels. Speeds, velocities and Doppler shifts scale with
    the inverse of the period; the normalised Doppler shift stays.

    Args:
        sampling_period: Time between snapshots in seconds.
    """
    _check_positive(sampling_period=sampling_period)
    factor = paths.sampling_period / sampling_period
    return dataclasses.replace(
        paths,
        sampling_period=float(sampling_period),
        speed=paths.speed * factor,
        velocity=paths.velocity * factor,
        doppler=paths.doppler * factor,
        time=paths.time / factor,
    )


def replay(
    paths: PathSequences,
    speed_factor: float,
    sampling_period: float,
    num_snapshots: int | None = None,
) -> PathSequences:
    """The same tracks, passed at another speed and measured at another period.

    A user who moves `n` times less far from one snapshot to the next needs `n - 1` snapshots
    between each two stored ones: `interpolate` and then `retime`. Over the 4 cm from one snapshot
    to the next at 30 km/h and 5 ms even extrapolation from one end alone is off by no more than
    some -49 dB.

    Args:
        speed_factor: New speed over the stored one.
        sampling_period: New time between snapshots in seconds.
        num_snapshots: Snapshots to keep; as many as there were, or as there are now if those are
            fewer, when `None`.

    Returns:
        `PathSequences`; `traced` says which snapshots were stored.

    Raises:
        ValueError: If the way from one snapshot to the next is no whole part of the stored one.
    """
    _check_positive(speed_factor=speed_factor, sampling_period=sampling_period)
    parts = paths.sampling_period / (speed_factor * sampling_period)
    num_parts = round(parts)
    if num_parts < 1 or abs(parts - num_parts) > _TOLERANCE_PARTS * parts:
        raise ValueError(
            "Users must move a whole part of what they moved from one stored snapshot to the next. "
            f"Received: speed_factor={speed_factor}, sampling_period={sampling_period}, where "
            f"{parts:.4g} steps make a stored one of {paths.sampling_period} s"
        )
    most = num_parts * (paths.num_snapshots - 1) + 1
    num_snapshots = min(paths.num_snapshots, most) if num_snapshots is None else num_snapshots
    if not 1 <= num_snapshots <= most:
        raise ValueError(
            f"These tracks have room for 1 to {most} snapshots. "
            f"Received: num_snapshots={num_snapshots}"
        )
    return retime(interpolate(paths, num_parts, num_snapshots), sampling_period)


def evolve(
    paths: PathSequences,
    num_snapshots: int,
    sampling_period: float,
    snapshot: ArrayLike = 0,
    speed_factor: ArrayLike = 1.0,
) -> PathSequences:
    """Continues single snapshots for as long as wanted, by their Doppler shifts.

    Every path keeps its directions; its phase and delay move as its Doppler shift says, which is
    exact for a plane wave and off by the curvature after metres. One traced snapshot so gives
    sequences of any length, period and speed, without births and deaths.

    Args:
        num_snapshots: Snapshots of the new sequences.
        sampling_period: Time between them in seconds.
        snapshot: Index of the snapshot to start from, one for all or integer `[num_sequences]`.
        speed_factor: New speed over the stored one, one for all or float `[num_sequences]`.

    Returns:
        `PathSequences` without labels that only tracing gives; columns that hold no path are gone.
    """
    _check_positive(num_snapshots=num_snapshots, sampling_period=sampling_period)
    rows = np.arange(paths.num_sequences)
    chosen = np.broadcast_to(np.asarray(snapshot), rows.shape)
    factor = np.broadcast_to(np.asarray(speed_factor, np.float64), rows.shape)
    first = {name: getattr(paths, name)[rows, chosen] for name in PATH_FIELDS}
    first = compact_paths(first, axis=1)
    time = np.arange(num_snapshots) * float(sampling_period)
    first["doppler"] = first["doppler"].astype(np.float64) * factor[:, None]
    velocity = paths.velocity[rows, chosen] * factor[:, None]
    position = paths.position[rows, chosen][:, None] + velocity[:, None] * time[:, None]
    return dataclasses.replace(
        paths,
        **_continued(first, time[None, :, None], paths.carrier_frequency),
        velocity=np.repeat(velocity[:, None], num_snapshots, axis=1),
        position=position,
        speed=paths.speed * factor,
        sampling_period=float(sampling_period),
        time=None,
        traced=None,
        seam_error=None,
        interactions=None,
    )


def interpolate(paths: PathSequences, factor: int, num_snapshots: int) -> PathSequences:
    """Snapshots between the stored ones: the same motion, met more often.

    See `evolve_between`: paths that two stored snapshots share are followed by delay, Doppler
    shift and phase at both ends; a birth or death is put in the middle. With `retime`, one trace at
    30 km/h every 5 ms so serves 30 km/h every 2.5 ms and 3 km/h every 5 ms.

    Args:
        factor: New snapshots per stored one, an integer.
        num_snapshots: Snapshots of the new sequences, the first of which is the first stored one.

    Returns:
        `PathSequences` with a period shorter by `factor`; `traced` tells the stored snapshots.

    Raises:
        ValueError: If the stored sequences are too short.
    """
    if int(factor) != factor or factor < 1 or num_snapshots < 1:
        raise ValueError(
            "factor and num_snapshots must be positive integers. Received: "
            f"factor={factor}, num_snapshots={num_snapshots}"
        )
    factor = int(factor)
    num_intervals = -(-(num_snapshots - 1) // factor)
    if paths.num_snapshots < num_intervals + 1:
        raise ValueError(
            f"Expected at least {num_intervals + 1} stored snapshots. Received: "
            f"paths.num_snapshots={paths.num_snapshots}, factor={factor}, "
            f"num_snapshots={num_snapshots}"
        )
    chunks = [
        _interpolate_tracks(paths.select(slice(begin, begin + _CHUNK)), factor, num_snapshots)
        for begin in range(0, max(1, paths.num_sequences), _CHUNK)
    ]
    return chunks[0] if len(chunks) == 1 else concatenate(chunks)


def _check_positive(**settings):
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive. Received: {name}={value}")


def _interpolate_tracks(paths, factor, num_snapshots):
    num_intervals = -(-(num_snapshots - 1) // factor)
    names = [n for n in dict.fromkeys((*PATH_FIELDS, *_LABELS)) if getattr(paths, n) is not None]
    stored = {name: getattr(paths, name)[:, : num_intervals + 1] for name in names}
    shape = (paths.num_sequences, num_intervals * factor + 1, 2 * paths.num_paths)
    dense = {n: np.zeros((*shape, *x.shape[3:]), x.dtype) for n, x in stored.items()}
    for name, value in widen_paths(stored, shape[2]).items():
        dense[name][:, ::factor] = value
    for interval in range(num_intervals if factor > 1 else 0):
        between = evolve_between(
            {name: value[:, interval] for name, value in stored.items()},
            {name: value[:, interval + 1] for name, value in stored.items()},
            np.full(paths.num_sequences, paths.sampling_period),
            np.broadcast_to(np.arange(1, factor) / factor, (paths.num_sequences, factor - 1)),
            paths.carrier_frequency,
        )
        first = interval * factor + 1
        for name in names:
            dense[name][:, first : first + factor - 1] = between[name]
    place = np.arange(num_snapshots) / factor
    near, share = place.astype(int), place % 1.0
    later = np.minimum(near + 1, paths.num_snapshots - 1)

    def between_stored(values):
        weight = share.reshape(-1, *(1,) * (values.ndim - 2))
        return values[:, near] * (1 - weight) + values[:, later] * weight

    return dataclasses.replace(
        paths,
        **compact_paths({name: x[:, :num_snapshots] for name, x in dense.items()}),
        **{n: between_stored(getattr(paths, n)) for n in ("position", "velocity", "time")},
        sampling_period=paths.sampling_period / factor,
        traced=paths.traced[:, near] & (share == 0),
        seam_error=None,
    )


def _with_plain_gain(paths, carrier_frequency):
    """Gains without the phase of the delay, which alone turns quickly."""
    turns = carrier_frequency * np.where(paths["valid"], paths["tau"], 0.0).astype(np.float64)
    phase = np.exp(2j * np.pi * (turns % 1.0))
    return paths | {"a": paths["a"] * phase[..., None, None], "turns": turns}


def _with_carrier_phase(paths, carrier_frequency):
    paths = dict(paths)
    phase = np.exp(-2j * np.pi * (paths.pop("turns") % 1.0))
    paths["a"] = paths["a"] * phase[..., None, None]
    types = {**PATH_FIELDS, **OPTIONAL_FIELDS}
    return blank_absent({name: value.astype(types[name][0]) for name, value in paths.items()})


def _shift(paths, lag, carrier_frequency):
    """Every path moved in time by `lag` with its own Doppler shift; no `valid` yet."""
    moved = {
        name: np.broadcast_to(value[:, None], (len(value), lag.shape[1], *value.shape[1:]))
        for name, value in paths.items()
        if name != "valid"
    }
    turns = moved["turns"] - moved["doppler"] * lag
    return moved | {"turns": turns, "tau": turns / carrier_frequency}


def _continued(paths, lag, carrier_frequency):
    """Every path after the time `lag`, with the phase that its own Doppler shift leads to."""
    moved = _shift(_with_plain_gain(paths, carrier_frequency), lag, carrier_frequency)
    moved["valid"] = np.broadcast_to(paths["valid"][:, None], moved["tau"].shape)
    return _with_carrier_phase(moved, carrier_frequency)


def _interpolate(before, mate, joined, at, elapsed, carrier_frequency):
    alone = _shift(before, at * elapsed, carrier_frequency)
    # Cubic Hermite polynomial in carrier turns; minus the Doppler shift is its derivative.
    first, last = before["turns"][:, None], mate["turns"][:, None]
    slope, end_slope = (-p["doppler"][:, None].astype(np.float64) * elapsed for p in (before, mate))
    rise = last - first
    square, cube = 3 * rise - 2 * slope - end_slope, slope + end_slope - 2 * rise
    turns = first + at * (slope + at * (square + at * cube))
    rate = (slope + at * (2 * square + 3 * at * cube)) / elapsed
    shape = at[..., None, None]
    both = {
        "a": before["a"][:, None] * (1 - shape) + mate["a"][:, None] * shape,
        "turns": turns,
        "tau": turns / carrier_frequency,
        "doppler": -rate,
    }
    for name in _ANGLES:
        turn = mate[name][:, None].astype(np.float64) - before[name][:, None]
        turn = (turn + np.pi) % (2 * np.pi) - np.pi
        value = before[name][:, None] + at * turn
        both[name] = (value + np.pi) % (2 * np.pi) - np.pi if "phi" in name else value
    for name, value in both.items():
        mask = joined[:, None].reshape(len(joined), 1, -1, *(1,) * (value.ndim - 3))
        both[name] = np.where(mask, value, alone[name])
    return alone | both


def _channel(paths, orientation):
    array, frequencies = _PROBE
    response = array.response(paths["theta_t"], paths["phi_t"], orientation)
    tau = np.where(paths["valid"], paths["tau"], 0.0).astype(np.float64)
    ramp = np.exp(-2j * np.pi * tau[..., None] * frequencies)
    gain = paths["a"][..., 0, :] * paths["valid"][..., None]
    # n interval, p path, q polarisation, m element, k subcarrier
    return np.einsum("npq,npm,npk->nqmk", gain, response, ramp, optimize=True)
