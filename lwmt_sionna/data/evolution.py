"""Paths at instants that were not traced, and stored sequences at other periods and speeds."""

import dataclasses

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.continuity import match_paths
from lwmt_sionna.data.paths import PATH_FIELDS
from lwmt_sionna.data.synthesis import subcarrier_frequencies

__all__ = ["evolve", "evolve_between", "extrapolation_error", "interpolate", "retime"]

_ANGLES = ("theta_t", "phi_t", "theta_r", "phi_r")
_LABELS = ("path_key", "interactions")
# Delays of one path forecast from both ends differ by far less than a wavelength over the distances
# bridged here; two paths whose forecasts differ by more are not joined.
_TOLERANCE_WAVELENGTHS = 0.125
# The channel by which seams are judged: a line of 32 antennas over 17 MHz.
_PROBE = (PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))


def evolve_between(before, after, elapsed, fractions, carrier_frequency):
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


def extrapolation_error(before, after, elapsed, carrier_frequency, orientation=(0.0, 0.0, 0.0)):
    """What evolving paths by their Doppler shifts alone misses after a while.

    The channel between one user antenna and a line of 32 half-wavelength spaced antennas, over 32
    subcarriers 540 kHz apart, is evolved from the earlier paths with constant Doppler shifts and
    compared with that of the later paths.

    Args:
        before: Dictionary of arrays of the earlier snapshots, first axes
            `[num_intervals, num_before]`.
        after: The same of the later snapshots, `[num_intervals, num_after]`.
        elapsed: Time in between in seconds, float `[num_intervals]`.
        carrier_frequency: Hertz.
        orientation: Yaw, pitch and roll of the array in radians.

    Returns:
        float64 `[num_intervals]`: squared error over the power of the later channel; NaN where that
        has no power.
    """
    lag = np.asarray(elapsed, dtype=np.float64)[:, None, None]
    forecast = _shift(_with_plain_gain(before, carrier_frequency), lag, carrier_frequency)
    forecast["valid"] = before["valid"][:, None]
    forecast = _with_carrier_phase(forecast, carrier_frequency)
    guess = _channel({name: value[:, 0] for name, value in forecast.items()}, orientation)
    truth = _channel(after, orientation)
    power = np.sum(np.abs(truth) ** 2, axis=(1, 2, 3))
    error = np.sum(np.abs(guess - truth) ** 2, axis=(1, 2, 3))
    return np.where(power > 0, error / np.where(power > 0, power, 1.0), np.nan)


def retime(paths, sampling_period):
    """The same places, met at another pace.

    Paths depend on where the user is, not on when: 120 km/h with a snapshot every 2.5 ms and 60
    km/h with one every 5 ms are the same channels. Speeds, velocities and Doppler shifts scale with
    the inverse of the period; the normalised Doppler shift stays.

    Args:
        paths: `PathSequences`.
        sampling_period: Time between snapshots in seconds.

    Returns:
        `PathSequences`.
    """
    if not sampling_period > 0:
        raise ValueError(
            f"sampling_period must be positive. Received: sampling_period={sampling_period}"
        )
    factor = paths.sampling_period / sampling_period
    return dataclasses.replace(
        paths,
        sampling_period=float(sampling_period),
        speed=paths.speed * factor,
        velocity=paths.velocity * factor,
        doppler=paths.doppler * factor,
        time=paths.time / factor,
    )


def evolve(paths, num_snapshots, sampling_period, snapshot=0, speed_factor=1.0):
    """Continues single snapshots for as long as wanted, by their Doppler shifts.

    Every path keeps its directions; its phase and delay move as its Doppler shift says, which is
    exact for a plane wave and off by the curvature after metres. One traced snapshot so gives
    sequences of any length, period and speed, without births and deaths.

    Args:
        paths: `PathSequences`.
        num_snapshots: Snapshots of the new sequences.
        sampling_period: Time between them in seconds.
        snapshot: Index of the snapshot to start from, one for all or integer `[num_sequences]`.
        speed_factor: New speed over the stored one, one for all or float `[num_sequences]`.

    Returns:
        `PathSequences` without labels that only tracing gives; columns that hold no path are gone.
    """
    if num_snapshots < 1 or not sampling_period > 0:
        raise ValueError(
            "num_snapshots and sampling_period must be positive. Received: "
            f"num_snapshots={num_snapshots}, sampling_period={sampling_period}"
        )
    rows = np.arange(paths.num_sequences)
    chosen = np.broadcast_to(np.asarray(snapshot), rows.shape)
    factor = np.broadcast_to(np.asarray(speed_factor, np.float64), rows.shape)
    first = {name: getattr(paths, name)[rows, chosen] for name in PATH_FIELDS}
    # The strongest columns first; what no sequence fills is left out.
    order = np.argsort(~first["valid"], axis=1, kind="stable")
    width = max(1, int(first["valid"].sum(axis=1).max(initial=0)))
    order = order[:, :width]
    first = {
        name: np.take_along_axis(
            value, order.reshape(*order.shape, *(1,) * (value.ndim - 2)), axis=1
        )
        for name, value in first.items()
    }
    time = np.arange(num_snapshots) * float(sampling_period)
    doppler = first["doppler"].astype(np.float64) * factor[:, None]
    repeated = {
        name: np.repeat(value[:, None], num_snapshots, axis=1) for name, value in first.items()
    }
    turn = np.exp(2j * np.pi * doppler[:, None] * time[:, None])
    repeated["a"] = repeated["a"] * turn[..., None, None]
    delay = first["tau"][:, None] - doppler[:, None] / paths.carrier_frequency * time[:, None]
    repeated["tau"] = np.where(repeated["valid"], delay, repeated["tau"])
    repeated["doppler"] = np.repeat(doppler[:, None], num_snapshots, axis=1)
    velocity = paths.velocity[rows, chosen] * factor[:, None]
    position = paths.position[rows, chosen][:, None] + velocity[:, None] * time[:, None]
    return dataclasses.replace(
        paths,
        **repeated,
        velocity=np.repeat(velocity[:, None], num_snapshots, axis=1),
        position=position,
        speed=paths.speed * factor,
        sampling_period=float(sampling_period),
        time=None,
        traced=None,
        seam_error=None,
        interactions=None,
    )


def interpolate(paths, factor, num_snapshots):
    """Snapshots between the stored ones: the same motion, met more often.

    See `evolve_between`: paths that two stored snapshots share are followed by delay, Doppler
    shift and phase at both ends; a birth or death is put in the middle. With `retime`, one trace at
    30 km/h every 5 ms so serves 30 km/h every 2.5 ms and 3 km/h every 5 ms.

    Args:
        paths: `PathSequences`.
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
    names = [n for n in dict.fromkeys((*PATH_FIELDS, *_LABELS)) if getattr(paths, n) is not None]
    fractions = np.broadcast_to(
        np.arange(1, factor) / factor, (paths.num_sequences, max(0, factor - 1))
    )
    elapsed = np.full(paths.num_sequences, paths.sampling_period)
    width = 2 * paths.num_paths
    parts = {name: [] for name in names}
    for interval in range(num_intervals + 1):
        before = {name: getattr(paths, name)[:, interval] for name in names}
        for name, value in before.items():
            room = [(0, 0), (0, width - paths.num_paths)] + [(0, 0)] * (value.ndim - 2)
            fill = -1.0 if name == "tau" else 0
            parts[name].append(np.pad(value, room, constant_values=fill)[:, None])
        if interval == num_intervals or factor == 1:
            continue
        after = {name: getattr(paths, name)[:, interval + 1] for name in names}
        between = evolve_between(before, after, elapsed, fractions, paths.carrier_frequency)
        for name in names:
            parts[name].append(between[name])
    joined = {n: np.concatenate(v, axis=1)[:, :num_snapshots] for n, v in parts.items()}
    place = np.arange(num_snapshots) / factor
    near, rest = place.astype(int), (place % 1.0)[None, :, None]
    later = np.minimum(near + 1, paths.num_snapshots - 1)
    position = paths.position[:, near] * (1 - rest) + paths.position[:, later] * rest
    traced = paths.traced[:, near] & (rest[..., 0] == 0)
    return dataclasses.replace(
        paths,
        **_without_gaps(joined),
        position=position,
        velocity=paths.velocity[:, near],
        sampling_period=paths.sampling_period / factor,
        time=paths.time[:, :1] + np.arange(num_snapshots) * (paths.sampling_period / factor),
        traced=traced,
        seam_error=None,
    )


def _without_gaps(fields):
    """Valid paths first, and as many columns as the fullest snapshot needs."""
    order = np.argsort(~fields["valid"], axis=2, kind="stable")
    order = order[:, :, : max(1, int(fields["valid"].sum(axis=2).max(initial=0)))]
    return {
        name: np.take_along_axis(value, order.reshape(*order.shape, *(1,) * (value.ndim - 3)), 2)
        for name, value in fields.items()
    }


def _with_plain_gain(paths, carrier_frequency):
    """Gains without the phase of the delay, which alone turns quickly."""
    turns = carrier_frequency * np.where(paths["valid"], paths["tau"], 0.0).astype(np.float64)
    phase = np.exp(2j * np.pi * (turns % 1.0))
    return paths | {"a": paths["a"] * phase[..., None, None], "turns": turns}


def _with_carrier_phase(paths, carrier_frequency):
    paths = dict(paths)
    phase = np.exp(-2j * np.pi * (paths.pop("turns") % 1.0))
    valid = paths["valid"]
    paths["a"] = np.where(valid[..., None, None], paths["a"] * phase[..., None, None], 0).astype(
        np.complex64
    )
    for name in ("tau", "doppler", *_ANGLES):
        empty = -1.0 if name == "tau" else 0.0
        paths[name] = np.where(valid, paths[name], empty).astype(np.float32)
    for name in _LABELS:
        if name in paths:
            paths[name] = np.where(valid, paths[name], 0).astype(np.uint32)
    return paths


def _shift(paths, lag, carrier_frequency):
    """Every path moved in time by `lag` with its own Doppler shift; no `valid` yet."""
    moved = {
        name: np.broadcast_to(value[:, None], (len(value), lag.shape[1], *value.shape[1:]))
        for name, value in paths.items()
        if name != "valid"
    }
    turns = moved["turns"] - moved["doppler"] * lag
    return moved | {"turns": turns, "tau": turns / carrier_frequency}


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
