"""Generation of mobility sequences: a list of shards, done anywhere, that a killed run resumes."""

import dataclasses
import functools
import logging
import math
import pathlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from lwmt_sionna import data
from lwmt_sionna.data.paths import (
    OPTIONAL_FIELDS,
    PATH_FIELDS,
    PathSequences,
    blank_absent,
    compact_paths,
    concatenate,
)
from lwmt_sionna.rt.motion.ground import Ring
from lwmt_sionna.rt.motion.trajectories import (
    Clock,
    TrajectoryConfig,
    sample_moving_objects,
    sample_tracks,
)
from lwmt_sionna.rt.scenes.files import read_scene_xml, resolve_scene
from lwmt_sionna.rt.tracing.engine import TRACER, drjit
from lwmt_sionna.rt.tracing.loading import Scattering, load_scene
from lwmt_sionna.rt.tracing.sequences import trace_tracks
from lwmt_sionna.rt.tracing.solver import TracingConfig, trace_scattered
from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    NonNegative,
    Positive,
    PositiveInt,
    PositiveInterval,
)
from lwmt_sionna.runs.parallel import progress_bar, run_tasks
from lwmt_sionna.runs.records import package_versions, sha256, usable_cores
from lwmt_sionna.runs.store import RunFolder, Store
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

_KMH = 1.0 / 3.6
_PER_PATH = sorted(
    name for name, (_, axes) in (PATH_FIELDS | OPTIONAL_FIELDS).items() if "P" in axes
)
# Of a user with diffuse scattering: paths in each snapshot, and their share of the power.
_COUNTS = ("num_scattered", "scattered_share")
# Packages that decide what is traced.
_DECIDING = ("lwmt_sionna", "sionna-rt", "mitsuba", "drjit", "numpy")
# A scene holds one set of devices and one pose of its objects: threads of a process take turns.
_lock = threading.Lock()

Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class DiffuseConfig(Config):
    """Diffuse scattering, and the array and band of the channel that it is summed up in.

    Attributes:
        samples_per_source: Rays shot by the base station for the scattered paths.
        max_depth: Largest number of interactions of a scattered path.
        array: `PlanarArray` of the base station; its polarisation is that of the tracing.
        num_subcarriers: Number of subcarriers.
        subcarrier_spacing: Hertz.
    """

    samples_per_source: PositiveInt = 200_000
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2
    array: data.PlanarArray = dataclasses.field(default_factory=data.PlanarArray)
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: Positive = 540e3


@dataclasses.dataclass(frozen=True)
class GenerationConfig(Config):
    """What to trace: one scene, its base stations, and users that move through it.

    Attributes:
        scene: Name of a scene, or path of its XML file, see `resolve_scene`.
        base_stations: Positions in metres, tuple of `(x, y, z)`. Sequences take turns, whatever the
            size of a shard.
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
        base_station_orientations: Where the base stations look: yaw, pitch and roll in radians, one
            triple for each. A yaw of pi / 2 looks along y, a positive pitch downwards. By default
            all look along x.
        scattering: `Scattering` of the scene's materials by name, and of all others as `all`; see
            `load_scene`. Without `diffuse` it only weakens what is mirrored.
        diffuse: `DiffuseConfig`, or `None`. Scattered paths are thousands for each snapshot: with
            it, what is stored are `ChannelSequences`, the channel of all paths, specular and
            scattered. The same configuration without it stores the specular paths of the same
            tracks.
    """

    scene: str
    base_stations: Annotated[tuple[Triple, ...], FILLED]
    num_sequences: PositiveInt
    speed_kmh: PositiveInterval = (3.0, 120.0)
    sampling_period: Positive = 2.5e-3
    num_snapshots: PositiveInt = 21
    carrier_frequency: Positive = 3.5e9
    min_distance: NonNegative = 15.0
    max_distance: Positive = 200.0
    tracks_per_solve: PositiveInt = 12
    shard_size: PositiveInt = 60
    seed: int = 1
    tracing: TracingConfig = dataclasses.field(default_factory=TracingConfig)
    trajectory: TrajectoryConfig = dataclasses.field(default_factory=TrajectoryConfig)
    moving_objects: tuple[str, ...] = ()
    moving_speed_kmh: PositiveInterval = (20.0, 50.0)
    base_station_orientations: tuple[Triple, ...] = ()
    scattering: dict[str, Scattering] = dataclasses.field(default_factory=dict)
    diffuse: DiffuseConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.base_station_orientations) not in (0, len(self.base_stations)):
            raise ValueError(
                "base_station_orientations: expected one for each base station, or none. Received: "
                f"{len(self.base_station_orientations)} for {len(self.base_stations)} base stations"
            )
        if self.min_distance >= self.max_distance:
            raise ValueError(
                "min_distance: expected less than max_distance. Received: "
                f"min_distance={self.min_distance}, max_distance={self.max_distance}"
            )
        if self.diffuse is None:
            return
        if self.moving_objects:
            raise ValueError(
                "diffuse: expected no moving_objects, on which scattering points would be drawn "
                f"anew in every snapshot. Received: moving_objects={self.moving_objects}"
            )
        if self.diffuse.array.polarization != self.tracing.base_station_polarization:
            raise ValueError(
                "[diffuse.array] polarization: expected that of the tracing, "
                f"{self.tracing.base_station_polarization}. Received: "
                f"polarization={self.diffuse.array.polarization}"
            )

    @property
    def orientations(self) -> tuple[Triple, ...]:
        """Yaw, pitch and roll of every base station in radians."""
        return self.base_station_orientations or ((0.0, 0.0, 0.0),) * len(self.base_stations)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a data set is made from: everything that is read.

    Attributes:
        config: `GenerationConfig`.
        scene_sha256: SHA-256 of the scene's files.
        trips_sha256: SHA-256 of the file of trips; empty where there is none.
        tracer: Release of Sionna RT, and whether its path solver is the deterministic one.
    """

    config: GenerationConfig
    scene_sha256: str
    trips_sha256: str
    tracer: str

    @classmethod
    def of(cls, config: GenerationConfig) -> "Claim":
        """The claim of a configuration, with the files as they are now."""
        scene = read_scene_xml(resolve_scene(config.scene).path).digest()
        trips = sha256(config.trajectory.file) if config.trajectory.file else ""
        return cls(config, scene, trips, TRACER)

    def to_dict(self) -> dict[str, Any]:
        """The claim as JSON-compatible values, for the metadata of files."""
        return {**dataclasses.asdict(self), "config": self.config.to_dict()}

    def key(self, shard: int) -> dict[str, Any]:
        """What a shard depends on, JSON-compatible."""
        return {**self.to_dict(), "shard": shard}


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

    def __str__(self) -> str:
        minutes = self.seconds / 60
        duration = f"{minutes:.0f} min" if minutes >= 2 else f"{self.seconds:.0f} s"
        return (
            f"{self.num_sequences} sequences of {self.num_snapshots // max(self.num_sequences, 1)} "
            f"snapshots to trace: about {duration}, {self.bytes / 1e6:.1f} MB in all"
        )


def generate(
    config: GenerationConfig,
    path: PathLike,
    *,
    workers: int = 1,
    dask: str | None = None,
    progress: bool = True,
    announce: Callable[[Estimate], object] | None = None,
) -> PathSequences | data.ChannelSequences:
    """Traces a data set, or goes on with one.

    Shards are traced one by one, by local processes or by the workers of a Dask cluster, and joined
    at the end. A run that was killed loses the shards that were being traced. Where the scene or
    the trips have changed since, everything is traced anew; with another release of Sionna RT it is
    refused, for what two of them trace is never joined. Tracks out of coverage are drawn again;
    tracks whose channel vanishes in some snapshots are kept and counted.

    Args:
        path: Path of the HDF5 file to write. A finished file of the same configuration is kept.
        workers: Number of local processes.
        dask: Address of a Dask scheduler whose workers trace in place of local processes.
        progress: Whether to draw a progress bar, on terminals and in notebooks.
        announce: Callable that is given an `Estimate` before the first shard is traced. Estimating
            takes the time of two small solves.

    Returns:
        What was written: `ChannelSequences` where there is diffuse scattering. Where the scene lies
        far off the origin of its coordinates, positions are those less `metadata["origin"]`.

    Raises:
        ValueError: If a file or shards of another configuration or tracer lie at the target, or a
            worker reads other files than this process.
    """
    path = pathlib.Path(path)
    claim = Claim.of(config)
    folder = path.with_name(f"{path.name}.shards")
    if path.is_file():
        sequences = data.read_sequences(path)
        if _is_made_from(claim, path, sequences.metadata):
            logger.info("%s is complete already", path)
            shutil.rmtree(folder, ignore_errors=True)
            return sequences
    with RunFolder(folder, {**config.to_dict(), "tracer": claim.tracer}):
        for leftover in path.parent.glob(f".tmp-*-{path.name}"):
            leftover.unlink(missing_ok=True)
        shards = _trace_shards(claim, Store(folder), workers, dask, progress, announce)
        _finish(claim, path, shards)
        shutil.rmtree(folder)
    return data.read_sequences(path)


def _write(path, sequences):
    write = data.write_paths if isinstance(sequences, PathSequences) else data.write_channels
    write(path, sequences)


def _is_made_from(claim, path, metadata):
    """Whether a finished file is this data set; another configuration or tracer is an error."""
    try:
        config = GenerationConfig.from_dict(metadata.get("config"))
    except ValueError:
        config = None
    if config != claim.config:
        raise ValueError(
            "The file holds sequences of another configuration; remove it or choose another name. "
            f"Received: path={path}"
        )
    if data.tracer_of(metadata) != claim.tracer:
        raise ValueError(
            "The file holds sequences of the same configuration by another tracer; remove it or "
            f"choose another name. Received: path={path}, traced by {data.tracer_of(metadata)}, "
            f"here {claim.tracer}"
        )
    # Files from before trips were hashed do not say from which ones they are.
    known = {"trips_sha256": "", **metadata}
    if all(known.get(name) == getattr(claim, name) for name in ("scene_sha256", "trips_sha256")):
        return True
    logger.warning("%s: traced anew, for the scene or the trips have changed", path)
    return False


def _trace_shards(claim, store, workers, dask, progress, announce):
    """Paths of the files of all shards, in order; those that are there are not traced again."""
    config = claim.config
    kept = {index: store.get_file(claim.key(index)) for index in range(num_shards(config))}
    files = {index: found[0] for index, found in kept.items() if found is not None}
    missing = [index for index in kept if index not in files]
    options = {"workers": workers, "dask": dask, "initializer": None}
    if workers > 1 and dask is None:
        options["initializer"] = functools.partial(_share_cores, workers)
    if missing and announce is not None:
        announce(estimate(config, missing, **options))
    # A worker has another working directory.
    trace = functools.partial(_trace_shard, dataclasses.replace(claim, config=_absolute(config)))
    with progress_bar(
        unit="seq",
        total=config.num_sequences,
        initial=config.num_sequences - sum(_shard_size(config, index) for index in missing),
        desc=f"tracing {config.scene}",
        show=None if progress else False,
    ) as bar:
        for place, sequences in run_tasks(trace, missing, **options):
            index = missing[place]
            write = functools.partial(_write, sequences=sequences)
            files[index] = store.put_file(claim.key(index), write, ".h5", name=f"{index:05d}")
            bar.update(sequences.num_sequences)
    return [files[index] for index in kept]


def _finish(claim, path, shards):
    drawn = kept = vanishing = 0
    parts = []
    for shard in shards:
        part = data.read_sequences(shard)
        drawn += part.metadata["num_drawn"]
        kept += part.num_sequences
        vanishing += int(data.vanishing_mask(part).sum())
        parts += [part] if isinstance(part, data.ChannelSequences) else []
    versions = package_versions()
    metadata = {
        **part.metadata,
        **claim.to_dict(),
        "versions": {name: versions.get(name) for name in _DECIDING},
        "num_drawn": drawn,
        "num_out_of_coverage": drawn - kept,
        "num_vanishing": vanishing,
    }
    if parts:
        counts = {name: np.concatenate([p.metadata[name] for p in parts]) for name in _COUNTS}
        metadata |= {name: np.mean(value) for name, value in counts.items()}
        data.write_channels(path, data.join_channels(parts, metadata))
    else:
        data.merge_paths(path, shards, metadata)


def _absolute(config):
    """The configuration with paths that mean the same on every machine with the same files."""
    trips = str(pathlib.Path(config.trajectory.file).resolve()) if config.trajectory.file else ""
    trajectory = dataclasses.replace(config.trajectory, file=trips)
    return dataclasses.replace(
        config, scene=resolve_scene(config.scene).portable, trajectory=trajectory
    )


def estimate(
    config: GenerationConfig,
    shards: Sequence[int] | None = None,
    *,
    workers: int = 1,
    dask: str | None = None,
    initializer: Callable[[], object] | None = None,
) -> Estimate:
    """Estimates time and size of a run from two small solves, the first of which warms up.

    Of some shards, or of all; the others are arguments of `run_tasks`. On a cluster its first
    worker is asked, and the time is that of one worker for all shards.
    """
    shards = range(num_shards(config)) if shards is None else shards
    remaining = sum(_shard_size(config, index) for index in shards)
    measure = functools.partial(_measure, _absolute(config))
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


def num_shards(config: GenerationConfig) -> int:
    """Number of shards of a configuration."""
    return math.ceil(config.num_sequences / config.shard_size)


def _shard_size(config, index):
    return min(config.shard_size, config.num_sequences - index * config.shard_size)


def _share_cores(workers):
    """Gives each of several processes its share of the cores."""
    drjit.set_thread_count(max(1, usable_cores() // workers))


def _trace_shard(claim, index):
    """A shard, traced where the files are those that the claim is about."""
    here = Claim.of(claim.config)
    if here.tracer != claim.tracer:
        raise ValueError(
            "The worker traces otherwise than the process that asked it. Received: "
            f"host={socket.gethostname()}, {here.tracer} there, {claim.tracer} here"
        )
    if here != claim:
        raise ValueError(
            "The worker reads another scene or other trips than the process that asked it. "
            f"Received: host={socket.gethostname()}, scene={claim.config.scene}, "
            f"file={claim.config.trajectory.file!r}"
        )
    return trace_shard(claim.config, index)


def _measure(config, index):
    """Seconds of one sequence, and stored bytes of one and of none."""
    # One base station, one solve.
    config = dataclasses.replace(
        config, base_stations=config.base_stations[:1], base_station_orientations=()
    )
    size = min(config.tracks_per_solve, config.num_sequences)
    trace_shard(config, index, size)
    start = time.perf_counter()
    sequences = trace_shard(config, index, size)
    seconds = (time.perf_counter() - start) / size
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        # HDF5 adds tens of kilobytes to a file of any length; both files have them.
        for count in (size, size // 2):
            file = pathlib.Path(folder) / f"{count}.h5"
            _write(file, sequences.select(slice(0, count)))
            sizes.append(file.stat().st_size)
    each = (sizes[0] - sizes[1]) / (size - size // 2)
    return seconds, each, max(0.0, sizes[0] - size * each)


def trace_shard(
    config: GenerationConfig, index: int, size: int | None = None
) -> PathSequences | data.ChannelSequences:
    """Traces one shard; the same one whoever does it, and whatever was traced before.

    Args:
        index: Number of the shard, which chooses its random stream.
        size: Number of sequences; that of the configuration if `None`.

    Returns:
        `PathSequences`, or `ChannelSequences` where there is diffuse scattering, whose metadata
        holds the number of tracks drawn, `num_drawn`, and the `origin` of a scene that was moved.

    Raises:
        ValueError: If hardly any track is reached by a path.
    """
    size = _shard_size(config, index) if size is None else size
    with _lock:
        digest = read_scene_xml(resolve_scene(config.scene).path).digest()
        scattering = tuple(sorted(config.scattering.items()))
        loaded = _loaded(config.scene, config.carrier_frequency, scattering, digest)
        return _draw_and_trace(loaded, config, index, size)


@functools.lru_cache(maxsize=1)
def _loaded(scene, carrier_frequency, scattering, digest):
    return load_scene(scene, carrier_frequency, scattering=dict(scattering))


def _draw_and_trace(loaded, config, index, size):
    # One generator per shard: a shard comes out the same whether or not others were resumed.
    rng = np.random.default_rng([config.seed, index])
    turns = (index * config.shard_size + np.arange(size)) % len(config.base_stations)
    kept, drawn, batch = {}, 0, 0
    for station in dict.fromkeys(turns.tolist()):
        slots = np.flatnonzero(turns == station).tolist()
        most = drawn + 20 * len(slots) + 100
        while slots:
            if drawn > most:
                raise ValueError(
                    "Hardly any track around the base station is reached by a path. Received: "
                    f"scene={config.scene}, base_station={config.base_stations[station]}"
                )
            tracks, moving = _draw(loaded, rng, config, config.base_stations[station])
            traced = trace_tracks(
                loaded,
                config.base_stations[station],
                config.orientations[station],
                tracks,
                config.tracing,
                moving=moving,
            )
            # Users drawn together move at the same time; nobody else does.
            duration = np.ceil(config.num_snapshots * config.sampling_period)
            labels = {
                "position": tracks.position - loaded.origin,
                "velocity": tracks.velocity,
                "speed": tracks.speed,
                "time": np.tile(
                    (index * 1_000 + batch) * duration + tracks.time, (len(tracks.speed), 1)
                ),
                "bs_index": np.full(len(tracks.speed), station),
            }
            for track in range(config.tracks_per_solve):
                if not slots:
                    break
                drawn += 1
                if not traced["valid"][track].any():
                    continue
                slot = slots.pop(0)
                number = config.seed * 1_000_000 + index * config.shard_size + slot
                own = {name: value[track][None] for name, value in labels.items()}
                own["trajectory_id"] = np.array([number])
                one = {name: value[track][None] for name, value in traced.items()}
                kept[slot] = _compact(one | own, config, loaded)
                if config.diffuse is not None:
                    kept[slot] = _scatter(kept[slot], own, tracks, track, config, loaded)
            batch += 1
    sequences = [kept[slot] for slot in sorted(kept)]
    origin = {"origin": list(loaded.origin)} if any(loaded.origin) else {}
    metadata = {"num_drawn": drawn, "tracer": TRACER, **origin}
    if config.diffuse is not None:
        for name in _COUNTS:
            metadata[name] = [each.metadata[name] for each in sequences]
        return data.join_channels(sequences, metadata)
    return dataclasses.replace(concatenate(sequences), metadata=metadata)


def _scatter(paths, labels, tracks, track, config, loaded):
    """The channel of one user: of the specular paths, and of all that are scattered."""
    diffuse = config.diffuse
    station = paths.bs_index.item()
    scattered = trace_scattered(
        loaded,
        config.base_stations[station],
        config.orientations[station],
        tracks.position[track],
        tracks.velocity[track],
        config.tracing,
        samples_per_source=diffuse.samples_per_source,
        max_depth=diffuse.max_depth,
    )
    one = {name: value[None] for name, value in scattered.items()}
    # The weak ones are many: no floor.
    field = _compact(one | labels, config, loaded, floor_db=-np.inf)
    frequencies = data.subcarrier_frequencies(diffuse.num_subcarriers, diffuse.subcarrier_spacing)
    specular, rest = (data.synthesize(each, diffuse.array, frequencies) for each in (paths, field))
    power = [np.mean(np.abs(h) ** 2, dtype=np.float64) for h in (specular, rest)]
    return data.ChannelSequences(
        specular + rest,
        config.sampling_period,
        config.carrier_frequency,
        diffuse.subcarrier_spacing,
        diffuse.array.shape,
        origin=f"{paths.scene}, specular paths and diffuse scattering, by Sionna RT",
        speed=paths.speed,
        sequence_id=paths.trajectory_id,
        bs_index=paths.bs_index,
        metadata=dict(zip(_COUNTS, [field.valid.sum(-1).mean(), power[1] / sum(power)])),
    )


def _draw(loaded, rng, config, station):
    """Users, and objects that move at the same time."""
    clock = Clock(config.num_snapshots, config.sampling_period)
    tracks = sample_tracks(
        loaded,
        rng,
        config.trajectory,
        speed=rng.uniform(*config.speed_kmh, config.tracks_per_solve) * _KMH,
        num_tracks=config.tracks_per_solve,
        clock=clock,
        ring=Ring(station, config.min_distance, config.max_distance),
    )
    if not config.moving_objects:
        return tracks, ()
    moving = sample_moving_objects(
        loaded,
        rng,
        config.moving_objects,
        speed=rng.uniform(*config.moving_speed_kmh, len(config.moving_objects)) * _KMH,
        clock=clock,
        ring=Ring(station, 0.0, config.max_distance),
        tracks=tracks,
    )
    return tracks, moving


def _compact(one, config, loaded, floor_db=None):
    """Drops paths far below the strongest of the track; sorts the others by power."""
    floor_db = config.tracing.power_floor_db if floor_db is None else floor_db
    power = np.sum(np.abs(one["a"]) ** 2, axis=(-2, -1)) * one["valid"]
    floor = power.max(initial=0.0) * 10.0 ** (floor_db / 10.0)
    one["valid"] = one["valid"] & (power > floor)
    per_path = {name: one.pop(name) for name in _PER_PATH if name in one}
    return PathSequences(
        **blank_absent(compact_paths(per_path, rank=-power)),
        **one,
        bs_position=loaded.local(config.base_stations),
        bs_orientation=np.array(config.orientations),
        sampling_period=config.sampling_period,
        carrier_frequency=config.carrier_frequency,
        scene=loaded.name,
    )
