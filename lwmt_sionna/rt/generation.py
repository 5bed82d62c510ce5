"""Generation of mobility sequences: shards that a killed run resumes."""

import dataclasses
import logging
import pathlib
import shutil

import numpy as np
from tqdm import tqdm

from lwmt_sionna.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.data import PathSequences, concatenate, read_paths, vanishing_mask, write_paths
from lwmt_sionna.data.paths import OPTIONAL_FIELDS, PATH_FIELDS
from lwmt_sionna.rt.scenes import load_scene
from lwmt_sionna.rt.tracing import TracingConfig, trace_positions
from lwmt_sionna.rt.trajectories import TrajectoryConfig, sample_tracks

logger = logging.getLogger(__name__)

_KMH = 1.0 / 3.6


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """What to trace: one scene, its base stations, and users that move through it.

    Attributes:
        scene: Name of a built-in scene, or path of a scene's XML file.
        base_stations: Positions in metres, tuple of `(x, y, z)`. Sequences take turns.
        num_sequences: Number of sequences to store.
        speed_kmh: Cruising speeds in km/h: `(lowest, highest)`, drawn uniformly.
        sampling_period: Time between snapshots in seconds.
        num_snapshots: Snapshots of each sequence.
        carrier_frequency: Hertz.
        min_distance: Smallest horizontal distance to the base station in metres.
        max_distance: Largest horizontal distance in metres.
        tracks_per_solve: Tracks traced together.
        shard_size: Sequences stored per shard; a killed run loses at most one shard.
        seed: Seed of the trajectories.
        tracing: `TracingConfig`.
        trajectory: `TrajectoryConfig`; straight lines by default.
    """

    scene: str
    base_stations: tuple
    num_sequences: int
    speed_kmh: tuple = (3.0, 120.0)
    sampling_period: float = 2.5e-3
    num_snapshots: int = 21
    carrier_frequency: float = 3.5e9
    min_distance: float = 15.0
    max_distance: float = 200.0
    tracks_per_solve: int = 6
    shard_size: int = 60
    seed: int = 1
    tracing: TracingConfig = dataclasses.field(default_factory=TracingConfig)
    trajectory: TrajectoryConfig = dataclasses.field(default_factory=TrajectoryConfig)

    def __post_init__(self):
        stations = tuple(tuple(float(c) for c in p) for p in self.base_stations)
        object.__setattr__(self, "base_stations", stations)
        object.__setattr__(self, "speed_kmh", tuple(float(v) for v in self.speed_kmh))
        if not stations or any(len(p) != 3 for p in stations):
            raise ValueError(
                "base_stations must hold (x, y, z) positions. Received: "
                f"base_stations={self.base_stations}"
            )
        if len(self.speed_kmh) != 2 or not 0 < self.speed_kmh[0] <= self.speed_kmh[1]:
            raise ValueError(
                "speed_kmh must be (lowest, highest) with 0 < lowest <= highest. Received: "
                f"speed_kmh={self.speed_kmh}"
            )
        for name in ("num_sequences", "num_snapshots", "tracks_per_solve", "shard_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {name}={value}")
        if not self.sampling_period > 0:
            raise ValueError(
                "sampling_period must be positive. Received: "
                f"sampling_period={self.sampling_period}"
            )

    @classmethod
    def from_toml(cls, path):
        """Reads a configuration; an unknown key is an error.

        Args:
            path: Path of a TOML file whose keys are the attributes, with tables `tracing` and
                `trajectory`.
        """
        return from_toml(cls, path, tracing=TracingConfig, trajectory=TrajectoryConfig)

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return to_json(self)


def generate(config, path, *, progress=True):
    """Traces the sequences of a configuration into one HDF5 file.

    Finished shards are kept beside the target (`PATH.shards/`) until the file is complete; a run
    that was killed goes on with the first missing shard. Tracks that no path ever reaches are
    counted as out of coverage and replaced; tracks whose channel vanishes in some snapshots are
    kept and counted.

    Args:
        config: `GenerationConfig`.
        path: Path of the HDF5 file to write.
        progress: Whether to draw a progress bar (on terminals only).

    Returns:
        The `PathSequences` written.

    Raises:
        ValueError: If shards of another configuration lie beside the target.
    """
    path = pathlib.Path(path)
    folder = path.with_name(path.name + ".shards")
    claim_folder(folder, config)
    sizes = _shard_sizes(config)
    loaded = None
    shards = []
    with tqdm(
        total=config.num_sequences,
        unit="seq",
        desc=f"tracing {config.scene}",
        disable=None if progress else True,
    ) as bar:
        for index, size in enumerate(sizes):
            shard = folder / f"{index:05d}.h5"
            if not shard.is_file():
                if loaded is None:
                    loaded = load_scene(config.scene, config.carrier_frequency)
                write_paths(shard, _trace_shard(loaded, config, index, size, bar))
            else:
                bar.update(size)
            shards.append(shard)
    parts = [read_paths(shard) for shard in shards]
    paths = concatenate(parts)
    drawn = sum(part.metadata["num_drawn"] for part in parts)
    metadata = {
        "config": config.to_dict(),
        "num_drawn": drawn,
        "num_out_of_coverage": drawn - paths.num_sequences,
        "num_vanishing": int(vanishing_mask(paths).sum()),
    }
    paths = dataclasses.replace(paths, metadata=metadata)
    write_paths(path, paths)
    shutil.rmtree(folder)
    return paths


def _shard_sizes(config):
    full, rest = divmod(config.num_sequences, config.shard_size)
    return [config.shard_size] * full + ([rest] if rest else [])


def _trace_shard(loaded, config, index, size, bar):
    # One generator per shard: a shard comes out the same whether or not others were resumed.
    rng = np.random.default_rng([config.seed, index])
    station_index = index % len(config.base_stations)
    station = config.base_stations[station_index]
    kept, drawn = [], 0
    while len(kept) < size:
        if drawn > 20 * size + 100:
            raise ValueError(
                "Hardly any track around the base station is reached by a path. Received: "
                f"scene={config.scene}, base_station={station}"
            )
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
        traced = trace_positions(
            loaded,
            station,
            (0.0, 0.0, 0.0),
            tracks.position.reshape(-1, 3),
            tracks.velocity.reshape(-1, 3),
            config.tracing,
        )
        for track in range(config.tracks_per_solve):
            if len(kept) == size:
                break
            drawn += 1
            rows = slice(track * config.num_snapshots, (track + 1) * config.num_snapshots)
            one = {name: value[rows][None] for name, value in traced.items()}
            if not one["valid"].any():
                continue
            one |= {
                "position": tracks.position[track][None],
                "velocity": tracks.velocity[track][None],
                "speed": tracks.speed[track : track + 1],
                "trajectory_id": np.array(
                    [config.seed * 1_000_000 + index * config.shard_size + len(kept)]
                ),
                "bs_index": np.array([station_index]),
            }
            kept.append(_compact(one, config, loaded.name))
            bar.update(1)
    paths = concatenate(kept)
    return dataclasses.replace(paths, metadata={"num_drawn": drawn})


def _compact(one, config, scene):
    """Drops paths far below the strongest of the track, and packs the rest to the front."""
    power = np.sum(np.abs(one["a"]) ** 2, axis=(-2, -1)) * one["valid"]
    floor = power.max() * 10.0 ** (config.tracing.power_floor_db / 10.0)
    keep = one["valid"] & (power > floor)
    order = np.argsort(~keep, axis=-1, kind="stable")[..., : max(1, keep.sum(-1).max())]
    packed = {}
    per_path = {name for name, (_, axes) in (PATH_FIELDS | OPTIONAL_FIELDS).items() if "P" in axes}
    for name in sorted(per_path & set(one) - {"valid"}):
        value = one.pop(name)
        picked = np.take_along_axis(value, order.reshape(order.shape + (1,) * (value.ndim - 3)), 2)
        keep_picked = np.take_along_axis(keep, order, 2)
        mask = keep_picked.reshape(keep_picked.shape + (1,) * (value.ndim - 3))
        packed[name] = np.where(mask, picked, -1.0 if name == "tau" else 0)
    packed["valid"] = np.take_along_axis(keep, order, 2)
    one.pop("valid")
    return PathSequences(
        **packed,
        **one,
        bs_position=np.array(config.base_stations),
        bs_orientation=np.zeros((len(config.base_stations), 3)),
        sampling_period=config.sampling_period,
        carrier_frequency=config.carrier_frequency,
        scene=scene,
    )
