"""Exact paths from a base station to users among plane mirrors, without a ray tracer."""

import numpy as np

from lwmt_sionna.data import PathSequences

CARRIER = 3.5e9
LIGHT = 299_792_458.0
WAVELENGTH = LIGHT / CARRIER
BASE_STATION = np.array([0.0, 0.0, 20.0])
# Planes x = c or y = c that mirror the base station, and the share of amplitude they reflect.
MIRRORS = ((0, -30.0, 0.5), (0, 90.0, 0.4j), (1, 25.0, -0.6), (1, -40.0, 0.3))


def trace(position, velocity, keep=None):
    """Paths of all positions: the line of sight and one reflection from every mirror.

    Args:
        position: Metres, `[..., 3]`.
        velocity: Metres per second, `[..., 3]`.
        keep: Callable from the index of a path and the position to whether the path exists.

    Returns:
        Dictionary of arrays with a last axis of five paths, as `trace_positions` has it.
    """
    position, velocity = np.asarray(position, float), np.asarray(velocity, float)
    sources, gains = [BASE_STATION], [1.0]
    for axis, place, gain in MIRRORS:
        image = BASE_STATION.copy()
        image[axis] = 2 * place - image[axis]
        sources.append(image)
        gains.append(gain)
    offset = position[..., None, :] - np.array(sources)
    distance = np.linalg.norm(offset, axis=-1)
    arrival = -offset / distance[..., None]
    departure = -arrival
    for index, (axis, _, _) in enumerate(MIRRORS):
        departure[..., index + 1, axis] *= -1
    gain = WAVELENGTH / (4 * np.pi * distance) * np.array(gains)
    tau = distance / LIGHT
    valid = np.ones(tau.shape, bool)
    if keep is not None:
        valid = np.stack([keep(index, position) for index in range(len(sources))], axis=-1)
    kinds = np.array([0, 1, 1, 1, 1], np.uint32)
    arrays = {
        "a": (gain * np.exp(-2j * np.pi * CARRIER * tau))[..., None, None],
        "tau": tau,
        "theta_t": np.arccos(departure[..., 2]),
        "phi_t": np.arctan2(departure[..., 1], departure[..., 0]),
        "theta_r": np.arccos(arrival[..., 2]),
        "phi_r": np.arctan2(arrival[..., 1], arrival[..., 0]),
        "doppler": np.sum(arrival * velocity[..., None, :], axis=-1) / WAVELENGTH,
        "path_key": np.broadcast_to(np.array([0, 11, 12, 13, 14], np.uint32), tau.shape),
        "interactions": np.broadcast_to(kinds, tau.shape),
    }
    mask = {"a": valid[..., None, None]}
    arrays = {name: np.where(mask.get(name, valid), value, 0) for name, value in arrays.items()}
    arrays["tau"] = np.where(valid, arrays["tau"], -1.0)
    return arrays | {"valid": valid}


def straight(rng, num_sequences, num_snapshots, speed, period):
    """Positions and velocities of straight tracks around (40, 0)."""
    heading = rng.uniform(-np.pi, np.pi, num_sequences)
    velocity = speed * np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=-1)
    start = np.column_stack(
        [rng.uniform(20, 60, num_sequences), rng.uniform(-15, 15, num_sequences)]
    )
    start = np.column_stack([start, np.full(num_sequences, 1.5)])
    time = period * np.arange(num_snapshots)
    position = start[:, None] + time[:, None] * velocity[:, None]
    return position, np.repeat(velocity[:, None], num_snapshots, axis=1)


def sequences(rng, num_sequences=6, num_snapshots=8, speed=30 / 3.6, period=2.5e-3, **labels):
    """`PathSequences` of users on straight tracks among the mirrors."""
    position, velocity = straight(rng, num_sequences, num_snapshots, speed, period)
    return PathSequences(
        **trace(position, velocity),
        position=position,
        velocity=velocity,
        speed=np.linalg.norm(velocity[:, 0], axis=-1),
        trajectory_id=np.arange(num_sequences),
        bs_index=np.zeros(num_sequences, int),
        bs_position=BASE_STATION,
        bs_orientation=(0.0, 0.0, 0.0),
        sampling_period=period,
        carrier_frequency=CARRIER,
        scene="mirrors",
        **labels,
    )
