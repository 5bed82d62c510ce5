"""One shard of a data set: tracks are drawn, traced and packed."""

import dataclasses
import functools
import threading

import numpy as np

from lwmt_sionna.data.paths import OPTIONAL_FIELDS, PATH_FIELDS, PathSequences, concatenate
from lwmt_sionna.rt.scenes import load_scene
from lwmt_sionna.rt.sequences import trace_tracks
from lwmt_sionna.rt.traffic import sample_moving_objects
from lwmt_sionna.rt.trajectories import sample_tracks

__all__ = ["trace_shard"]

_KMH = 1.0 / 3.6
_PER_PATH = sorted(
    name
    for name, (_, axes) in (PATH_FIELDS | OPTIONAL_FIELDS).items()
    if "P" in axes and name != "valid"
)
# A scene holds one set of devices and one pose of its objects: threads of a process take turns.
_lock = threading.Lock()


def trace_shard(config, index, size):
    """Traces one shard; the same one whoever does it, and whatever was traced before.

    Args:
        config: `lwmt_sionna.rt.GenerationConfig`.
        index: Number of the shard, which chooses its random stream and base station.
        size: Number of sequences.

    Returns:
        `PathSequences` whose metadata holds the number of tracks drawn, `num_drawn`.

    Raises:
        ValueError: If hardly any track is reached by a path.
    """
    with _lock:
        return _trace_shard(_loaded(config.scene, config.carrier_frequency), config, index, size)


@functools.lru_cache(maxsize=1)
def _loaded(scene, carrier_frequency):
    return load_scene(scene, carrier_frequency)


def _trace_shard(loaded, config, index, size):
    # One generator per shard: a shard comes out the same whether or not others were resumed.
    rng = np.random.default_rng([config.seed, index])
    station_index = index % len(config.base_stations)
    station = config.base_stations[station_index]
    kept, drawn, batch = [], 0, 0
    while len(kept) < size:
        if drawn > 20 * size + 100:
            raise ValueError(
                "Hardly any track around the base station is reached by a path. Received: "
                f"scene={config.scene}, base_station={station}"
            )
        tracks, moving = _draw(loaded, rng, config, station)
        traced = trace_tracks(
            loaded, station, (0.0, 0.0, 0.0), tracks, config.tracing, moving=moving
        )
        # Users drawn together move at the same time; nobody else does.
        clock = (index * 1_000 + batch) * np.ceil(config.num_snapshots * config.sampling_period)
        for track in range(config.tracks_per_solve):
            if len(kept) == size:
                break
            drawn += 1
            if not traced["valid"][track].any():
                continue
            one = {name: value[track][None] for name, value in traced.items()}
            one |= {
                "position": tracks.position[track][None],
                "velocity": tracks.velocity[track][None],
                "speed": tracks.speed[track : track + 1],
                "time": clock + tracks.time[None],
                "trajectory_id": np.array(
                    [config.seed * 1_000_000 + index * config.shard_size + len(kept)]
                ),
                "bs_index": np.array([station_index]),
            }
            kept.append(_compact(one, config, loaded.name))
        batch += 1
    paths = concatenate(kept)
    return dataclasses.replace(paths, metadata={"num_drawn": drawn})


def _draw(loaded, rng, config, station):
    """Users, and objects that move at the same time."""
    speed = rng.uniform(*config.speed_kmh, config.tracks_per_solve) * _KMH
    tracks = sample_tracks(
        loaded,
        rng,
        config.trajectory,
        num_tracks=config.tracks_per_solve,
        num_snapshots=config.num_snapshots,
        speed=speed,
        sampling_period=config.sampling_period,
        centre=station[:2],
        min_distance=config.min_distance,
        max_distance=config.max_distance,
    )
    if not config.moving_objects:
        return tracks, ()
    pace = rng.uniform(*config.moving_speed_kmh, len(config.moving_objects)) * _KMH
    moving = sample_moving_objects(
        loaded,
        rng,
        config.moving_objects,
        num_snapshots=config.num_snapshots,
        sampling_period=config.sampling_period,
        speed=pace,
        centre=station[:2],
        max_distance=config.max_distance,
        tracks=tracks,
    )
    return tracks, moving


def _compact(one, config, scene):
    """Drops paths far below the strongest of the track; sorts the others by power."""
    power = np.sum(np.abs(one["a"]) ** 2, axis=(-2, -1)) * one["valid"]
    floor = power.max() * 10.0 ** (config.tracing.power_floor_db / 10.0)
    keep = one.pop("valid") & (power > floor)
    order = np.argsort(np.where(keep, -power, np.inf), axis=-1, kind="stable")
    order = order[..., : max(1, keep.sum(-1).max())]
    kept = np.take_along_axis(keep, order, 2)
    packed = {"valid": kept}
    for name in (name for name in _PER_PATH if name in one):
        value = one.pop(name)
        picked = np.take_along_axis(value, order.reshape(order.shape + (1,) * (value.ndim - 3)), 2)
        mask = kept.reshape(kept.shape + (1,) * (value.ndim - 3))
        packed[name] = np.where(mask, picked, -1.0 if name == "tau" else 0)
    return PathSequences(
        **packed,
        **one,
        bs_position=np.array(config.base_stations),
        bs_orientation=np.zeros((len(config.base_stations), 3)),
        sampling_period=config.sampling_period,
        carrier_frequency=config.carrier_frequency,
        scene=scene,
    )
