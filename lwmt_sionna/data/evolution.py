"""Other periods, speeds and lengths of stored sequences."""

import dataclasses

import numpy as np

from lwmt_sionna.data.paths import PATH_FIELDS

__all__ = ["evolve", "retime"]


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
