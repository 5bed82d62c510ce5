"""Straight lines over open ground at constant speed."""

import numpy as np

from lwmt_sionna.rt.motion import Tracks
from lwmt_sionna.rt.scenes import drop_to_ground, segment_is_free

_MAX_ROUNDS = 200


def sample_straight_tracks(
    loaded,
    rng,
    *,
    num_tracks,
    num_snapshots,
    speed,
    sampling_period,
    centre,
    min_distance=15.0,
    max_distance=200.0,
    user_height=1.5,
    clearance=0.5,
):
    """Draws straight outdoor tracks around a base station.

    Start points are uniform over the open ground of a ring, directions uniform over the circle. A
    track is taken when its whole length, and `clearance` metres beyond both ends and to both
    sides, lies over open ground and crosses no surface. Users keep `user_height` above the
    ground, sloping ground included.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        rng: `numpy.random.Generator`.
        num_tracks: Number of tracks.
        num_snapshots: Number of snapshots of each track.
        speed: Speed in metres per second: a float, or float `[num_tracks]`.
        sampling_period: Time between snapshots in seconds.
        centre: Horizontal position of the base station in metres, `(x, y)`.
        min_distance: Inner radius of the ring in metres.
        max_distance: Outer radius of the ring in metres.
        user_height: Height above ground in metres.
        clearance: Margin kept free around the track in metres.

    Returns:
        `lwmt_sionna.rt.motion.Tracks`.

    Raises:
        ValueError: If the ring holds too little open ground to find the tracks.
    """
    speed = np.broadcast_to(np.asarray(speed, dtype=np.float64), (num_tracks,))
    duration = (num_snapshots - 1) * sampling_period
    start = np.full((num_tracks, 3), np.nan)
    stop = np.full((num_tracks, 3), np.nan)
    open_slots = np.arange(num_tracks)
    for _ in range(_MAX_ROUNDS):
        # Every slot keeps the speed drawn for it, so rejection does not favour slow users.
        radius = np.sqrt(rng.uniform(min_distance**2, max_distance**2, open_slots.size))
        azimuth, heading = rng.uniform(0.0, 2 * np.pi, (2, open_slots.size))
        first = np.asarray(centre)[:2] + radius[:, None] * _unit(azimuth)
        last = first + (speed[open_slots] * duration)[:, None] * _unit(heading)
        first, last, free = _place(loaded, first, last, _unit(heading), user_height, clearance)
        start[open_slots[free]] = first[free]
        stop[open_slots[free]] = last[free]
        open_slots = open_slots[~free]
        if open_slots.size == 0:
            break
    else:
        raise ValueError(
            "Too little open ground around the base station for the requested tracks. Received: "
            f"scene={loaded.name}, centre={tuple(centre)}, max_distance={max_distance}, found "
            f"{num_tracks - open_slots.size} of num_tracks={num_tracks}"
        )
    progress = np.linspace(0.0, 1.0, num_snapshots)[None, :, None]
    position = start[:, None] + progress * (stop - start)[:, None]
    return Tracks(position, sampling_period)


def _unit(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _place(loaded, first, last, heading, user_height, clearance):
    """Lifts tracks to user height; tells which of them stay over open, unobstructed ground."""
    along = clearance * heading
    across = clearance * np.stack([-heading[:, 1], heading[:, 0]], axis=-1)
    free = np.ones(len(first), dtype=bool)
    heights = []
    for point in (first, last, first - along, last + along, (first + last) / 2):
        for offset in (0.0, across, -across):
            height, is_ground = drop_to_ground(loaded, point + offset)
            free &= is_ground
            heights.append(height)
    first = np.column_stack([first, heights[0] + user_height])
    last = np.column_stack([last, heights[3] + user_height])
    for offset in (0.0, across, -across):
        lateral = np.column_stack([np.broadcast_to(offset, along.shape), np.zeros(len(along))])
        ahead = np.column_stack([along, np.zeros(len(along))])
        free &= segment_is_free(loaded, first - ahead + lateral, last + ahead + lateral)
    return first, last, free
