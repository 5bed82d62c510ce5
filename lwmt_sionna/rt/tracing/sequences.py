"""Paths along tracks: which positions shoot rays, which are traced, which evolve in between.

Objects of the scene may move on the clock of the users.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lwmt_sionna.data.evolution import evolve_between, extrapolation_error
from lwmt_sionna.data.paths import SPEED_OF_LIGHT, blank_absent, widen_paths
from lwmt_sionna.rt.motion.trajectories import MovingObject, Tracks
from lwmt_sionna.rt.tracing.engine import drjit, mitsuba
from lwmt_sionna.rt.tracing.loading import LoadedScene
from lwmt_sionna.rt.tracing.solver import TracingConfig, trace_positions
from lwmt_sionna.typing import Array, ArrayLike


def trace_tracks(
    loaded: LoadedScene,
    base_station_position: ArrayLike,
    base_station_orientation: ArrayLike,
    tracks: Tracks,
    config: TracingConfig | None = None,
    *,
    moving: Sequence[MovingObject] = (),
) -> dict[str, Array]:
    """Traces users along their tracks.

    In a still scene all traced snapshots share one solve. Objects that move make every traced
    snapshot a solve of its own, with the users as its receivers.

    Args:
        base_station_position: As its orientation, see `trace_positions`.
        moving: Sequence of `MovingObject` on the same clock.

    Returns:
        dict of arrays as `trace_positions` returns them, with first axes
        `[num_tracks, num_snapshots, num_paths]`, and of `traced` (bool) and `seam_error` (float32),
        `[num_tracks, num_snapshots]`; see `PathSequences`.

    Raises:
        ValueError: If an object that moves is not in the scene, or is given for another number of
            snapshots.
    """
    config = TracingConfig() if config is None else config
    position, velocity = tracks.position, tracks.velocity
    station = (base_station_position, base_station_orientation)
    carrier = float(np.array(loaded.scene.frequency).item())
    gap = config.retrace_wavelengths * SPEED_OF_LIGHT / carrier
    with moving_scene(loaded, moving, position.shape[1], tracks.sampling_period) as pose:
        if moving:
            # One clock: what is traced is traced for all, as often as the fastest needs it.
            travelled = np.stack([_travelled(m.position[None])[0] for m in moving])
            travelled = np.concatenate([_travelled(position), travelled])
            traced = np.broadcast_to(choose_traced(travelled, gap), position.shape[:2])
            paths = _trace_snapshots(loaded, station, position, velocity, traced, config, pose)
        else:
            traced = np.stack([choose_traced(row[None], gap) for row in _travelled(position)])
            paths = _trace_together(loaded, station, position, velocity, traced, config)
    period = tracks.sampling_period
    seam_error = _seam_errors(paths, traced, period, carrier, base_station_orientation)
    paths = _fill_in(paths, traced, period, carrier)
    return paths | {"traced": traced.copy(), "seam_error": seam_error}


@contextlib.contextmanager
def moving_scene(
    loaded: LoadedScene,
    moving: Sequence[MovingObject],
    num_snapshots: int,
    sampling_period: float,
) -> Iterator[Callable[[int], None]]:
    """Moves objects of a scene, and puts them back at the end.

    All objects are moved at once: each of Sionna RT's own setters rebuilds the scene.

    Args:
        moving: Sequence of `MovingObject`.
        num_snapshots: Number of snapshots for which poses are needed.
        sampling_period: Time between snapshots in seconds; sets the objects' velocities, which
            shift the frequency of the paths they reflect.

    Yields:
        A function of the index of a snapshot that poses all objects.

    Raises:
        ValueError: If an object is not in the scene, or its poses are of another number.
    """
    scene = loaded.scene
    for item in moving:
        if item.name not in scene.objects:
            raise ValueError(
                "There is no such object in the scene (small ones may have been merged when it was "
                f"loaded). Its objects are {', '.join(list(scene.objects)[:20])}. Received: "
                f"name={item.name}, scene={loaded.name}"
            )
        if len(item.position) != num_snapshots:
            raise ValueError(
                f"An object's poses must be given for all {num_snapshots} snapshots. Received: "
                f"name={item.name}, {len(item.position)} positions"
            )
    keys = [f"{scene.objects[item.name].mi_mesh.id()}.vertex_positions" for item in moving]
    rest = [np.array(scene.mi_scene_params[key]).reshape(-1, 3).astype(np.float64) for key in keys]
    # What Sionna RT calls an object's position.
    centre = [(corners.min(axis=0) + corners.max(axis=0)) / 2 for corners in rest]
    goals = [loaded.local(item.position) for item in moving]
    velocity = [item.velocity(sampling_period) for item in moving]

    def write(corners):
        for key, value in zip(keys, corners, strict=True):
            scene.mi_scene_params[key] = mitsuba.Float(value.astype(np.float32).ravel())
        scene.mi_scene_params.update()
        scene.scene_geometry_updated()

    def pose(snapshot):
        corners = []
        for item, points, middle, goal, pace in zip(moving, rest, centre, goals, velocity):
            turn = item.orientation[snapshot]
            cosine, sine = np.cos(turn), np.sin(turn)
            rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
            corners.append((points - middle) @ rotation.T + goal[snapshot])
            scene.objects[item.name].velocity = [float(v) for v in pace[snapshot]]
        write(corners)

    try:
        yield pose
    finally:
        if moving:
            write(rest)
            for item in moving:
                scene.objects[item.name].velocity = [0.0, 0.0, 0.0]
            drjit.eval()


def choose_traced(travelled: Array, gap: float) -> Array:
    """Snapshots to trace so that nobody travels further than `gap` in between.

    Args:
        travelled: Metres since the start, float `[num_movers, num_snapshots]`.
        gap: Metres; every snapshot is traced if zero.

    Returns:
        bool `[num_snapshots]`; first and last are traced.
    """
    num_snapshots = travelled.shape[1]
    if gap == 0 or num_snapshots < 3:
        return np.ones(num_snapshots, dtype=bool)
    chosen = np.zeros(num_snapshots, dtype=bool)
    last = 0
    chosen[0] = chosen[-1] = True
    for snapshot in range(1, num_snapshots - 1):
        if (travelled[:, snapshot + 1] - travelled[:, last]).max() > gap:
            chosen[snapshot] = True
            last = snapshot
    return chosen


def choose_shooters(travelled: Array, spacing: float) -> tuple[Array, Array]:
    """Positions of a track that rays are shot for, and who tests what they find.

    Args:
        travelled: Metres since the start, float `[num_positions]`.
        spacing: Metres of track for each shooter.

    Returns:
        Tuple of the indices of the shooters, integer `[num_shooters]`, and bool
        `[num_positions, num_shooters]`: the nearest shooter and its two neighbours.
    """
    length = travelled[-1]
    count = max(1, int(np.ceil(length / spacing)))
    centres = (np.arange(count) + 0.5) / count * length
    nearest = np.abs(travelled[:, None] - centres).argmin(axis=0)
    shooters = np.unique(nearest)
    own = np.abs(travelled[:, None] - travelled[shooters]).argmin(axis=1)
    return shooters, np.abs(own[:, None] - np.arange(len(shooters))) <= 1


def _travelled(position):
    step = np.linalg.norm(np.diff(position, axis=-2), axis=-1)
    return np.concatenate([np.zeros((*step.shape[:-1], 1)), np.cumsum(step, axis=-1)], axis=-1)


def _trace_together(loaded, station, position, velocity, traced, config):
    """One solve for the traced snapshots of all tracks."""
    from scipy.linalg import block_diag

    track, snapshot = np.nonzero(traced)
    shooters, listens = None, None
    if config.candidate_spacing > 0:
        shooters, heard, offset = [], [], 0
        for row, chosen in zip(position, traced, strict=True):
            own, hears = choose_shooters(_travelled(row[chosen][None])[0], config.candidate_spacing)
            shooters.append(own + offset)
            heard.append(hears)
            offset += int(chosen.sum())
        shooters, listens = np.concatenate(shooters), block_diag(*heard)
    flat = trace_positions(
        loaded,
        *station,
        position[track, snapshot],
        velocity[track, snapshot],
        config,
        shooters=shooters,
        listens=listens,
    )
    return _spread(flat, track, snapshot, traced.shape)


def _trace_snapshots(loaded, station, position, velocity, traced, config, pose):
    """One solve for every traced snapshot, the objects in their places."""
    parts = []
    instants = np.nonzero(traced[0])[0]
    for snapshot in instants:
        pose(snapshot)
        parts.append(
            trace_positions(loaded, *station, position[:, snapshot], velocity[:, snapshot], config)
        )
    num_paths = max(part["valid"].shape[1] for part in parts)
    parts = [widen_paths(part, num_paths, axis=1) for part in parts]
    flat = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    track = np.tile(np.arange(len(position)), len(instants))
    return _spread(flat, track, np.repeat(instants, len(position)), traced.shape)


def _spread(flat, track, snapshot, shape):
    """From one row per traced position to tracks and snapshots; the others hold no path."""
    result = {}
    for name, value in flat.items():
        result[name] = np.zeros((*shape, *value.shape[1:]), dtype=value.dtype)
        result[name][track, snapshot] = value
    return blank_absent(result)


def _intervals(traced):
    """Track, first and last snapshot of every interval between neighbouring traced snapshots."""
    found = [
        (track, first, last)
        for track, row in enumerate(traced)
        for first, last in zip(np.nonzero(row)[0][:-1], np.nonzero(row)[0][1:], strict=True)
        if last - first > 1
    ]
    return np.array(found, dtype=int).reshape(-1, 3).T


def _seam_errors(paths, traced, period, carrier, orientation):
    result = np.full(traced.shape, np.nan, dtype=np.float32)
    track, first, last = _intervals(traced)
    if track.size and paths["valid"].shape[2]:
        before, after = _at(paths, track, first), _at(paths, track, last)
        elapsed = (last - first) * period
        result[track, last] = extrapolation_error(before, after, elapsed, carrier, orientation)
    return result


def _fill_in(paths, traced, period, carrier):
    """Evolved paths where nothing was traced."""
    track, first, last = _intervals(traced)
    if not track.size or not paths["valid"].shape[2]:
        return paths
    width = paths["valid"].shape[2]
    filled = widen_paths(paths, 2 * width)
    for length in np.unique(last - first):
        rows = last - first == length
        before, after = _at(paths, track[rows], first[rows]), _at(paths, track[rows], last[rows])
        steps = np.arange(1, length)
        fractions = np.broadcast_to(steps / length, (int(rows.sum()), length - 1))
        between = evolve_between(
            before, after, np.full(int(rows.sum()), length * period), fractions, carrier
        )
        for name, value in between.items():
            filled[name][track[rows][:, None], first[rows][:, None] + steps] = value
    return filled


def _at(paths, track, snapshot):
    return {name: value[track, snapshot] for name, value in paths.items()}
