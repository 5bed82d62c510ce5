"""Stored tracks at other speeds: snapshots between those that were traced."""

import dataclasses

import numpy as np

from lwmt_sionna.data.evolution import evolve_between
from lwmt_sionna.data.paths import PATH_FIELDS, concatenate

__all__ = ["replay"]

_CHUNK = 100
_FILL = {"tau": -1.0}
_TOLERANCE = 1e-4


def replay(paths, speed_factor, sampling_period, num_snapshots=None):
    """The same tracks, passed at another speed and measured at another period.

    Paths depend on where a user is, not on when. A user who moves `n` times less far from one
    snapshot to the next needs `n - 1` snapshots between each two stored ones: paths seen at both
    ends are interpolated by delays and Doppler shifts, births and deaths lie in the middle (see
    `evolve_between`). Over the 4 cm from one snapshot to the next at 30 km/h and 5 ms even
    extrapolation from one end alone is off by no more than some -49 dB.

    Args:
        paths: `PathSequences`.
        speed_factor: New speed over the stored one.
        sampling_period: New time between snapshots in seconds.
        num_snapshots: Snapshots to keep; as many as there were, or as there are now if those are
            fewer, when `None`.

    Returns:
        `PathSequences`; `traced` says which snapshots were stored.

    Raises:
        ValueError: If the way from one snapshot to the next is no whole part of the stored one.
    """
    for name, value in (("speed_factor", speed_factor), ("sampling_period", sampling_period)):
        if not value > 0:
            raise ValueError(f"{name} must be positive. Received: {name}={value}")
    parts = paths.sampling_period / (speed_factor * sampling_period)
    num_parts = round(parts)
    if num_parts < 1 or abs(parts - num_parts) > _TOLERANCE * parts:
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
    chunks = [
        _replay(paths.select(slice(first, first + _CHUNK)), num_parts, num_snapshots)
        for first in range(0, paths.num_sequences, _CHUNK)
    ]
    refined = concatenate(chunks)
    return dataclasses.replace(
        refined,
        sampling_period=float(sampling_period),
        speed=refined.speed * speed_factor,
        velocity=refined.velocity * speed_factor,
        doppler=refined.doppler * speed_factor,
        time=refined.time / speed_factor,
    )


def _replay(paths, num_parts, num_snapshots):
    """Snapshots between the stored ones, at the stored speed."""
    num_intervals = -(-(num_snapshots - 1) // num_parts)
    ends = np.arange(num_intervals)
    fields = list(PATH_FIELDS)
    if paths.interactions is not None:
        fields.append("interactions")
    shape = paths.num_sequences, num_intervals * num_parts + 1
    arrays = {name: getattr(paths, name) for name in fields}
    refined = {
        name: np.full((*shape, 2 * paths.num_paths, *x.shape[3:]), _FILL.get(name, 0), x.dtype)
        for name, x in arrays.items()
    }
    for name, x in arrays.items():
        refined[name][:, ::num_parts, : paths.num_paths] = x[:, : num_intervals + 1]
    if num_parts > 1 and num_intervals:

        def at(snapshots):
            return {n: x[:, snapshots].reshape(-1, *x.shape[2:]) for n, x in arrays.items()}

        size = paths.num_sequences * num_intervals
        steps = np.arange(1, num_parts)
        between = evolve_between(
            at(ends),
            at(ends + 1),
            np.full(size, paths.sampling_period),
            np.broadcast_to(steps / num_parts, (size, num_parts - 1)),
            paths.carrier_frequency,
        )
        places = (ends[:, None] * num_parts + steps).ravel()
        for name in fields:
            value = between[name].reshape(
                paths.num_sequences, len(places), *refined[name].shape[2:]
            )
            refined[name][:, places] = value
    refined = _compact({name: x[:, :num_snapshots] for name, x in refined.items()})
    traced = np.zeros((paths.num_sequences, num_snapshots), bool)
    stored = np.arange(0, num_snapshots, num_parts)
    traced[:, stored] = paths.traced[:, : len(stored)]
    return dataclasses.replace(
        paths,
        **{name: refined[name] for name in PATH_FIELDS},
        **{
            name: _at(getattr(paths, name), num_parts, num_snapshots)
            for name in ("position", "velocity", "time")
        },
        traced=traced,
        seam_error=None,
        interactions=refined.get("interactions"),
    )


def _compact(arrays):
    """Paths first, and no more columns than the fullest snapshot needs."""
    order = np.argsort(~arrays["valid"], axis=2, kind="stable")
    order = order[:, :, : max(1, arrays["valid"].sum(axis=2).max(initial=0))]
    return {
        name: np.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 3)), axis=2)
        for name, x in arrays.items()
    }


def _at(values, num_parts, num_snapshots):
    """Values along the second axis at the new snapshots, linear between the stored ones."""
    at = np.arange(num_snapshots) / num_parts
    left = np.minimum(at.astype(int), values.shape[1] - 1)
    right = np.minimum(left + 1, values.shape[1] - 1)
    share = (at - left).reshape(-1, *(1,) * (values.ndim - 2))
    return values[:, left] * (1 - share) + values[:, right] * share
