"""Cars that drive: objects of the scene that move on the clock of the users."""

import numpy as np

from lwmt_sionna.rt.motion import MovingObject
from lwmt_sionna.rt.navigation import free_space
from lwmt_sionna.rt.scenes import cast_rays, drop_to_ground
from lwmt_sionna.rt.trajectories import REGIMES, TrajectoryConfig, street_trip

__all__ = ["sample_moving_objects"]

_MAX_TRIES = 40
_LANE = 1.75


def sample_moving_objects(
    loaded,
    rng,
    names,
    *,
    num_snapshots,
    sampling_period,
    speed,
    centre,
    max_distance=150.0,
    tracks=None,
    gap=1.0,
    slowest=1.0,
):
    """Lets objects drive along streets, each in the lane on its right.

    An object leaves its place in the scene's file for a trip of its own, keeps its height over the
    ground, and turns its longer side along the street (which of its ends is the front, a mesh does
    not tell). No two of them, and none and a user, come nearer than `gap`.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        rng: `numpy.random.Generator`.
        names: Names of objects of the scene, such as some of `loaded.cars`.
        num_snapshots: Number of snapshots.
        sampling_period: Time between snapshots in seconds.
        speed: Cruising speed in metres per second: a float, or float `[num_objects]`.
        centre: `(x, y)` in metres around which to drive.
        max_distance: Largest distance in metres of the places where trips begin.
        tracks: `Tracks` of users on the same clock to keep away from, or `None`.
        gap: Metres left free around an object.
        slowest: Trips that are slower than this on average, in metres per second, are drawn again;
            zero keeps objects that stand at a stop all the time.

    Returns:
        list of `lwmt_sionna.rt.motion.MovingObject`.

    Raises:
        ValueError: If an object is none of the scene, or the streets have no room for all of them.
    """
    unknown = sorted(set(names) - set(loaded.scene.objects))
    if unknown or len(set(names)) != len(names):
        raise ValueError(
            "names must be different objects of the scene, such as "
            f"{', '.join(loaded.cars[:8]) or 'none of this one'}. Received: {', '.join(names)}"
        )
    regime = REGIMES["vehicular"]
    config = TrajectoryConfig(kind="street", lane=_LANE)
    space = free_space(
        loaded,
        tuple(map(float, centre[:2])),
        float(max_distance) + regime.trip[1] / 2,
        regime.cell,
        regime.clearance + 0.3,
    )
    ring = (np.asarray(centre, dtype=np.float64)[:2], 0.0, max_distance)
    time = sampling_period * np.arange(num_snapshots)
    taken = [] if tracks is None else [(track[:, :2], 0.0) for track in tracks.position]
    moving = []
    for name, pace in zip(names, np.broadcast_to(np.asarray(speed, float), (len(names),))):
        middle, bottom, half_length, parked = _pose(loaded, name)
        ride = _ride_height(loaded, middle, bottom)
        for _ in range(_MAX_TRIES):
            trip = street_trip(loaded, rng, config, regime, space, ring, float(pace), time[-1])
            if trip is None or trip[1].duration < time[-1]:
                continue
            route, drive = trip
            along = drive.at(rng.uniform(0.0, drive.duration - time[-1]) + time)
            xy = route.position(along)
            if along[-1] - along[0] < slowest * time[-1]:
                continue
            if any(_nearest(xy, other) < half_length + size + gap for other, size in taken):
                continue
            height, is_ground = drop_to_ground(loaded, xy)
            if is_ground.all():
                break
        else:
            raise ValueError(
                f"The streets have no room for the moving objects. Received: scene={loaded.name}, "
                f"names={', '.join(names)}, found {len(moving)} of them a way"
            )
        taken.append((xy, half_length))
        position = np.column_stack([xy, height + ride])
        moving.append(MovingObject(name, position, np.unwrap(route.heading(along)) - parked))
    return moving


def _ride_height(loaded, middle, bottom):
    """Height of an object's centre over the ground that it stands on."""
    under = np.array([[middle[0], middle[1], bottom - 1e-2]])
    fall = float(cast_rays(loaded, under, [[0.0, 0.0, -1.0]])[0][0])
    # Where nothing lies below, the object itself reaches the ground.
    return middle[2] - bottom + (fall + 1e-2 if np.isfinite(fall) else 0.0)


def _pose(loaded, name):
    """Centre of the bounding box, its lower height, half the length, heading of the longer side."""
    mesh = loaded.scene.objects[name].mi_mesh
    vertices = np.array(mesh.vertex_positions_buffer(), dtype=np.float64).reshape(-1, 3)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    flat = vertices[:, :2] - vertices[:, :2].mean(axis=0)
    _, axes = np.linalg.eigh(flat.T @ flat)
    longest = axes[:, -1]
    half_length = float(np.max(np.abs((vertices[:, :2] - middle[:2]) @ longest)))
    return middle, vertices[:, 2].min(), half_length, float(np.arctan2(longest[1], longest[0]))


def _nearest(first, second):
    return np.linalg.norm(first - second, axis=1).min()
