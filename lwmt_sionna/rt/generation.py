"""Generation of mobility sequences: a list of shards, done anywhere, that a killed run resumes."""

import dataclasses
import functools
import hashlib
import logging
import math
import os
import pathlib
import shutil
import tempfile
import time
from xml.etree import ElementTree

from tqdm import tqdm

from lwmt_sionna.data import merge_paths, read_paths, vanishing_mask, write_paths
from lwmt_sionna.rt.scene_names import resolve_scene
from lwmt_sionna.rt.tracing import TracingConfig
from lwmt_sionna.rt.trajectories import TrajectoryConfig
from lwmt_sionna.runs.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.runs.parallel import run_tasks
from lwmt_sionna.runs.records import sha256

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """What to trace: one scene, its base stations, and users that move through it.

    Attributes:
        scene: Name of a scene, or path of its XML file, see `resolve_scene`.
        base_stations: Positions in metres, tuple of `(x, y, z)`. Sequences take turns.
        num_sequences: Number of sequences to store.
        speed_kmh: Cruising speeds in km/h: `(lowest, highest)`, drawn uniformly.
        sampling_period: Time between snapshots in seconds.
        num_snapshots: Snapshots of each sequence.
        carrier_frequency: Hertz.
        min_distance: Smallest horizontal distance to the base station, in metres, at which trips
            begin.
        max_distance: Largest one, in metres. Sequences of the kinds that lead somewhere are windows
            of their trips and may lie beyond.
        tracks_per_solve: Tracks traced together.
        shard_size: Sequences stored per shard; a killed run loses at most one shard.
        seed: Seed of the trajectories.
        tracing: `TracingConfig`.
        trajectory: `TrajectoryConfig`; straight lines by default.
        moving_objects: Names of objects of the scene that drive along its streets, such as some of
            its cars; every snapshot is then a solve of its own.
        moving_speed_kmh: Their cruising speeds in km/h: `(lowest, highest)`, drawn uniformly.
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
    tracks_per_solve: int = 12
    shard_size: int = 60
    seed: int = 1
    tracing: TracingConfig = dataclasses.field(default_factory=TracingConfig)
    trajectory: TrajectoryConfig = dataclasses.field(default_factory=TrajectoryConfig)
    moving_objects: tuple = ()
    moving_speed_kmh: tuple = (20.0, 50.0)

    def __post_init__(self):
        stations = tuple(tuple(float(c) for c in p) for p in self.base_stations)
        object.__setattr__(self, "base_stations", stations)
        object.__setattr__(self, "moving_objects", tuple(self.moving_objects))
        for name in ("speed_kmh", "moving_speed_kmh"):
            value = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise ValueError(
                    f"{name} must be (lowest, highest) with 0 < lowest <= highest. Received: "
                    f"{name}={value}"
                )
        if not stations or any(len(p) != 3 for p in stations):
            raise ValueError(
                "base_stations must hold (x, y, z) positions. Received: "
                f"base_stations={self.base_stations}"
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


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a data set is made from; shards of different claims are never mixed.

    Attributes:
        config: `GenerationConfig`.
        scene_sha256: SHA-256 of the scene's files.
    """

    config: GenerationConfig
    scene_sha256: str

    @classmethod
    def of(cls, config):
        """The claim of a configuration, with the scene as it is now."""
        return cls(config, _digest_scene(resolve_scene(config.scene).path))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_sequences: Sequences that are still to be traced.
        num_snapshots: Their snapshots.
        seconds: Time, on all workers together where they are local.
        bytes: Size of the finished file.
    """

    num_sequences: int
    num_snapshots: int
    seconds: float
    bytes: float

    def __str__(self):
        minutes = self.seconds / 60
        duration = f"{minutes:.0f} min" if minutes >= 2 else f"{self.seconds:.0f} s"
        return (
            f"{self.num_sequences} sequences of {self.num_snapshots // max(self.num_sequences, 1)} "
            f"snapshots to trace: about {duration}, {self.bytes / 1e6:.1f} MB in all"
        )


def generate(config, path, *, workers=1, dask=None, progress=True, announce=None):
    """Traces the sequences of a configuration into one HDF5 file.

    Shards are independent of each other and of who traces them. Finished ones are kept beside the
    target (`PATH.shards/`) until the file is complete; a run that was killed goes on with those
    that are missing. Tracks that no path ever reaches are counted as out of coverage and replaced;
    tracks whose channel vanishes in some snapshots are kept and counted.

    Args:
        config: `GenerationConfig`.
        path: Path of the HDF5 file to write. A finished file of the same configuration is kept.
        workers: Number of local processes.
        dask: Address of a Dask scheduler whose workers trace in place of local processes.
        progress: Whether to draw a progress bar (on terminals only).
        announce: Callable that is given an `Estimate` before the first shard is traced. Estimating
            takes the time of two small solves.

    Returns:
        The `PathSequences` written.

    Raises:
        ValueError: If a file or shards of another configuration lie at the target.
    """
    path = pathlib.Path(path)
    folder = path.with_name(path.name + ".shards")
    claim = Claim.of(config)
    if path.is_file():
        paths = read_paths(path)
        if any(paths.metadata.get(name) != value for name, value in to_json(claim).items()):
            raise ValueError(
                "The file holds sequences of another configuration or scene; remove it or choose "
                f"another name. Received: path={path}"
            )
        logger.info("%s is complete already", path)
        shutil.rmtree(folder, ignore_errors=True)
        return paths
    claim_folder(folder, claim)
    for leftover in (*folder.glob(".tmp-*"), *path.parent.glob(f".tmp-*-{path.name}")):
        leftover.unlink(missing_ok=True)
    shards = [folder / f"{index:05d}.h5" for index in range(num_shards(config))]
    missing = [index for index, shard in enumerate(shards) if not _is_whole(shard)]
    options = {"workers": workers, "dask": dask, "initializer": None}
    if workers > 1 and dask is None:
        options["initializer"] = functools.partial(_share_cores, workers)
    if missing and announce is not None:
        announce(estimate(config, missing, **options))
    with tqdm(
        total=config.num_sequences,
        initial=config.num_sequences - sum(shard_size(config, index) for index in missing),
        unit="seq",
        desc=f"tracing {config.scene}",
        disable=None if progress else True,
    ) as bar:
        trace = functools.partial(_trace_shard, config)
        for place, paths in run_tasks(trace, missing, **options):
            write_paths(shards[missing[place]], paths)
            bar.update(paths.num_sequences)
    _finish(claim, path, shards)
    shutil.rmtree(folder)
    return read_paths(path)


def estimate(config, shards=None, *, workers=1, dask=None, initializer=None):
    """Estimates time and size of a run from two small solves, the first of which warms up.

    Args:
        config: `GenerationConfig`.
        shards: Indices of the shards to be traced; all of them if `None`.
        workers: Number of local processes.
        dask: Address of a Dask scheduler, whose first worker is asked.
        initializer: See `run_tasks`.

    Returns:
        `Estimate`. On a cluster its time is that of one worker for all shards.
    """
    shards = range(num_shards(config)) if shards is None else shards
    remaining = sum(shard_size(config, index) for index in shards)
    measure = functools.partial(_measure, config)
    # The processes of the run itself measure, not this one, which would keep a scene for nothing.
    [(_, (seconds, size, empty))] = run_tasks(
        measure, [shards[0]], workers=min(workers, 2), dask=dask, initializer=initializer
    )
    parallel = 1 if dask is not None else min(workers, len(shards))
    return Estimate(
        num_sequences=remaining,
        num_snapshots=remaining * config.num_snapshots,
        seconds=seconds * remaining / parallel,
        bytes=empty + size * config.num_sequences,
    )


def num_shards(config):
    """Number of shards of a configuration."""
    return math.ceil(config.num_sequences / config.shard_size)


def shard_size(config, index):
    """Number of sequences of one shard."""
    return min(config.shard_size, config.num_sequences - index * config.shard_size)


def _digest_scene(path):
    """SHA-256 of a scene's XML file and of the meshes that it names."""
    digest = hashlib.sha256(path.read_bytes())
    for entry in ElementTree.parse(path).getroot().iter("string"):
        mesh = path.parent / entry.get("value", "")
        if entry.get("name") == "filename" and mesh.is_file():
            digest.update(f"{entry.get('value')} {sha256(mesh)}".encode())
    return digest.hexdigest()


def _is_whole(shard):
    if not shard.is_file():
        return False
    try:
        read_paths(shard)
    except ValueError as error:
        logger.warning("a shard is traced again: %s", error)
        return False
    return True


def _finish(claim, path, shards):
    drawn = kept = vanishing = 0
    for shard in shards:
        part = read_paths(shard)
        drawn += part.metadata["num_drawn"]
        kept += part.num_sequences
        vanishing += int(vanishing_mask(part).sum())
    metadata = {
        **to_json(claim),
        "num_drawn": drawn,
        "num_out_of_coverage": drawn - kept,
        "num_vanishing": vanishing,
    }
    merge_paths(path, shards, metadata)


def _share_cores(workers):
    """Gives each of several processes its share of the cores."""
    from lwmt_sionna.rt._sionna import drjit

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    drjit.set_thread_count(max(1, cores // workers))


def _trace_shard(config, index):
    from lwmt_sionna.rt.shards import trace_shard

    return trace_shard(config, index, shard_size(config, index))


def _measure(config, index):
    """Seconds of one sequence, and stored bytes of one and of none."""
    from lwmt_sionna.rt.shards import trace_shard

    size = min(config.tracks_per_solve, config.num_sequences)
    trace_shard(config, index, size)
    start = time.perf_counter()
    paths = trace_shard(config, index, size)
    seconds = (time.perf_counter() - start) / size
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        # HDF5 adds tens of kilobytes to a file of any length; both files have them.
        for count in (size, size // 2):
            file = pathlib.Path(folder) / f"{count}.h5"
            write_paths(file, paths.select(slice(0, count)))
            sizes.append(file.stat().st_size)
    each = (sizes[0] - sizes[1]) / (size - size // 2)
    return seconds, each, max(0.0, sizes[0] - size * each)
