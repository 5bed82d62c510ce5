"""The bench: every predictor in every world, by its errors and by what it does to the link."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import keras
import msgspec
import numpy as np

from lwmt_sionna.baselines import (
    CLASSICAL,
    ModelPredictor,
    PerfectCsi,
    told_arrived,
    tuned_baselines,
    tuned_settings,
)
from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    PlanarArray,
    read_sequences,
    vanishing_mask,
)
from lwmt_sionna.evaluation import (
    causal_forecast,
    evaluate,
    normalized_error,
    paired_difference,
    to_db,
    verdict,
)
from lwmt_sionna.link.csi.drops import DropConfig, DropFactory
from lwmt_sionna.link.csi.policies import CsiPolicy
from lwmt_sionna.link.csi.sounding import SoundingConfig
from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.link.sweep.points import SweepConfig
from lwmt_sionna.link.sweep.run import run_sweep, share_cores
from lwmt_sionna.link.sweep.summary import recovered_share
from lwmt_sionna.masking import HardwareConfig
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.models.presets import DEFAULT_PRESET, load_preset, preset_digest, preset_folder
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import FILLED, Config, NonNegativeInt, PositiveInt
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar, run_tasks
from lwmt_sionna.runs.shipped import find
from lwmt_sionna.runs.store import RunFolder, Store
from lwmt_sionna.typing import Array, PathLike

Sequences: TypeAlias = PathSequences | ChannelSequences
Kind: TypeAlias = Literal["training_free", "preset", "untrained_start", "ceiling"]
_START = " (untrained)"
_NUM_HISTORY = 16
_SUBSETS = ("all", "event_free")
# Predictions that know the future have no error at all; decibels need one.
_FLOOR = 1e-20
# What the link says of a predictor.
_LINKED = tuple(
    name + end
    for name in ("goodput", "sum_rate")
    for end in ("", "_difference", "_difference_low", "_difference_high", "_verdict")
)
# Schemes that users are served with: 16-QAM 0.33 to 64-QAM 0.93.
_MCS = (10, 16, 19, 22, 25, 27, 28)
# How they are chosen: the best one of each policy for all, with which hold fares best.
_ADAPTATION = "fixed"


@dataclasses.dataclass(frozen=True)
class World(Config):
    """Channels that a predictor may meet, and how a base station comes to know them.

    Attributes:
        name: Unique name.
        group: Kind of world.
        data: HDF5 file of paths or of channels.
        draw: TOML file of a `Tr38901Config` that is drawn, in place of `data`.
        array: Array of the base station, for paths and for channels that are drawn; that of the
            file, or the usual line, if left out.
        max_similarity: Largest similarity of the directions of users that are served together, see
            `DropConfig`: 1 where all users have the same, as those of one clustered delay line.
        sounding: `SoundingConfig`.
        hardware: `HardwareConfig`.
    """

    name: str
    group: Literal["specular", "diffuse", "tr38901", "hardware", "sounding", "array"]
    data: str | None = None
    draw: str | None = None
    array: PlanarArray | None = None
    max_similarity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    sounding: SoundingConfig = dataclasses.field(default_factory=SoundingConfig)
    hardware: HardwareConfig = dataclasses.field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.draw is None):
            raise ValueError(
                f"World {self.name!r}: expected either data or draw. Received: data={self.data}, "
                f"draw={self.draw}"
            )


@dataclasses.dataclass(frozen=True)
class WorldsConfig(Config):
    """What is judged, and where.

    Attributes:
        worlds: Tables of `World`.
        baselines: Training-free predictors by name; all of them if empty.
        presets: Names or folders of presets. Each is judged untrained as well, which tells the
            network's own share.
        history_snr_db: SNR of the measured histories in decibels.
        num_sequences: Sequences of each world at most, spread over its file.
        horizons: Snapshots ahead that are judged.
        link_snr_db: SNR of the link in decibels.
        seed: Seed of noise, hardware, users, bits.
    """

    worlds: Annotated[tuple[World, ...], FILLED]
    baselines: tuple[str, ...] = ()
    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    history_snr_db: Annotated[tuple[float, ...], FILLED] = (5.0, 15.0, 25.0)
    num_sequences: Annotated[int, msgspec.Meta(ge=8)] = 128
    horizons: Annotated[tuple[PositiveInt, ...], FILLED] = (1, 5)
    link_snr_db: float = 20.0
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [world.name for world in self.worlds]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"worlds: expected different names. Received: name={twice!r} twice")
        unknown = sorted(set(self.baselines) - set(CLASSICAL))
        if unknown:
            raise ValueError(
                f"baselines: expected some of {', '.join(CLASSICAL)}. Received: {unknown[0]!r}"
            )
        for preset in self.presets:
            preset_folder(preset)

    @property
    def num_snapshots(self) -> int:
        """Snapshots of a sequence that are used."""
        return _NUM_HISTORY + max(self.horizons)


class Judged(NamedTuple):
    """A predictor of a world.

    Attributes:
        forecast: complex64 `[num_sequences, num_horizons, num_ant, num_subcarriers]`.
        kind: What it is.
    """

    forecast: Array
    kind: Kind


def load_world(world: World, config: WorldsConfig) -> Sequences:
    """The sequences of a world that are judged.

    Args:
        world: `World` with `data`.
        config: `WorldsConfig`.

    Returns:
        `PathSequences` or `ChannelSequences`; those whose channel vanishes are left out.

    Raises:
        ValueError: If they are too few or too short. The message names the file.
    """
    sequences = read_sequences(pathlib.Path(world.data or ""))
    if sequences.num_snapshots < config.num_snapshots:
        raise ValueError(
            f"{world.name}: expected at least {config.num_snapshots} snapshots. Received: "
            f"data={world.data}, num_snapshots={sequences.num_snapshots}"
        )
    if isinstance(sequences, PathSequences):
        sequences = sequences.select(~vanishing_mask(sequences))
    count = min(config.num_sequences, sequences.num_sequences)
    return sequences.select(np.linspace(0, sequences.num_sequences - 1, count).round().astype(int))


def world_file(world: World, folder: PathLike) -> pathlib.Path:
    """The file of a world, drawn where it is drawn and not yet there.

    Args:
        world: `World`.
        folder: Folder that keeps what is drawn.

    Returns:
        `pathlib.Path`.
    """
    if world.draw is None:
        return find(world.data or "")
    from lwmt_sionna.link.phy.tr38901 import Tr38901Config, generate_channels

    overrides = {} if world.array is None else {"array": dataclasses.asdict(world.array)}
    drawn = Tr38901Config.from_toml(world.draw, overrides)
    path = pathlib.Path(folder) / f"{world.name}.h5"
    generate_channels(drawn, path, progress=False)
    return path


def evaluate_world(
    world: World,
    sequences: Sequences,
    config: WorldsConfig,
    history_snr_db: float,
    store: Store | None = None,
) -> list[dict[str, Any]]:
    """Judges all predictors in one world at one SNR of the histories.

    Every predictor meets the same measured histories, and every policy the same users, bits and
    noise. Errors are those of all sequences; the link serves groups of them.

    Args:
        world: `World`.
        sequences: What `load_world` returned.
        config: `WorldsConfig`.
        history_snr_db: SNR of the histories in decibels.
        store: `Store` of forecasts: another predictor then costs its own forecasts alone.

    Returns:
        Points of `evaluate` with `world`, `group`, `kind` and `seed`; those of the subset `all`
        have what the link says of the predictor as a policy too: `goodput`, `recovered_goodput` and
        the paired differences to the best training-free policy. Points of presets have differences
        of their errors to the best of all others besides (`nmse_median_others_difference_db`).
    """
    factory = _drops(world, sequences, config, history_snr_db)
    trial = factory.trial(max(config.horizons))
    subsets = {name: trial.subsets[name] for name in _SUBSETS if name in trial.subsets}
    trial = trial._replace(subsets=subsets)
    judged = _forecasts(factory, trial, config, history_snr_db, Store() if store is None else store)
    points = evaluate(
        {name: functools.partial(_answer, each.forecast) for name, each in judged.items()},
        trial.history,
        trial.future,
        scale=trial.scale,
        subsets=trial.subsets,
        arrived=trial.arrived,
    )
    compared = _compare(judged, trial)
    linked = _link(factory, judged, config)
    rows = []
    for point in points:
        if point["horizon"] in config.horizons:
            name = point["predictor"]
            row = {
                "world": world.name, "group": world.group, "kind": judged[name].kind,
                "history_snr_db": history_snr_db, "seed": config.seed, **point,
                **compared[name, point["horizon"], point["subset"]],
            }  # fmt: skip
            if point["subset"] == "all":
                row |= linked[point["horizon"], name]
            rows.append(row)
    return rows


def evaluate_worlds(
    config: WorldsConfig,
    workdir: PathLike,
    *,
    workers: int = 1,
    dask: str | None = None,
    progress: bool | None = None,
) -> tuple[list[dict[str, Any]], dict[str, PathLike]]:
    """Judges all predictors in all worlds; finished cells are not computed again.

    Args:
        config: `WorldsConfig`.
        workdir: Folder of finished cells, of forecasts and of the channels that are drawn.
        workers: Processes on this machine.
        dask: Address of a Dask scheduler; its workers need the files under the same paths.
        progress: Whether to show a bar; where somebody looks if `None`.

    Returns:
        Tuple of the points of `evaluate_world` and of the files that were read, by name.

    Raises:
        ValueError: If a world's file is missing, damaged or does not fit.
    """
    presets = {pathlib.Path(name).name: preset_folder(name) for name in config.presets}
    missing = [w for w in config.worlds if w.data is not None and not find(w.data).is_file()]
    if missing:
        raise ValueError(
            f"world {missing[0].name!r} ({len(missing)} in all): there is no file here. "
            f"Received: data={missing[0].data}"
        )
    with RunFolder(workdir) as folder:
        drawn = folder.path / "channels"
        files = {}
        for world in progress_bar(config.worlds, unit="world", desc="channels", show=progress):
            files[world.name] = world_file(world, drawn).resolve()
        config = dataclasses.replace(config, presets=tuple(map(str, presets.values())))
        settings = {
            name: value
            for name, value in config.to_dict().items()
            if name not in ("worlds", "presets", "history_snr_db")
        }
        common = {
            "code": code_digest(__name__),
            "settings": settings,
            "presets": {name: preset_digest(path) for name, path in presets.items()},
        }
        sums = {name: records.sha256(path) for name, path in files.items()}
        # By SNR: what is compiled for one serves all worlds.
        cells = [
            _Cell(world, str(files[world.name]), sums[world.name], snr)
            for snr in config.history_snr_db
            for world in config.worlds
        ]
        keys = [
            {**common, "world": c.world.to_dict(), "data": c.sha256, "snr": c.snr} for c in cells
        ]
        found = [folder.store.get(key) for key in keys]
        waiting = [place for place, rows in enumerate(found) if rows is None]
        execute = run_tasks(
            functools.partial(_compute, config, folder.path / "forecasts"),
            [cells[place] for place in waiting],
            workers=workers,
            dask=dask,
            initializer=functools.partial(share_cores, workers),
        )
        kept = len(cells) - len(waiting)
        with progress_bar(
            unit="cell", total=len(cells), initial=kept, desc="worlds", show=progress
        ) as bar:
            for number, rows in execute:
                place = waiting[number]
                label = f"{cells[place].world.name}, {cells[place].snr:g} dB"
                folder.store.put(keys[place], rows, label)
                found[place] = rows
                bar.set_postfix_str(label)
                bar.update()
    inputs: dict[str, PathLike] = {**files, **{f"preset_{n}": p for n, p in presets.items()}}
    return [row for rows in found for row in rows], inputs


class _Cell(NamedTuple):
    """One world at one SNR of the histories, and the file as it was when the run began."""

    world: World
    file: str
    sha256: str
    snr: float


def _compute(config, forecasts, cell):
    if records.sha256(cell.file) != cell.sha256:
        raise ValueError(
            f"world {cell.world.name!r}: the file is another one than the process that asks has. "
            f"Received: {cell.file}"
        )
    world = dataclasses.replace(cell.world, data=cell.file, draw=None)
    try:
        sequences = load_world(world, config)
        return evaluate_world(world, sequences, config, cell.snr, Store(forecasts))
    except ValueError as error:
        raise ValueError(f"world {world.name!r} at {cell.snr:g} dB: {error}") from error


def _drops(world, sequences, config, history_snr_db):
    array = PlanarArray() if world.array is None else world.array
    downlink = DownlinkConfig(
        num_antennas=array.num_ant, num_rows=array.num_rows, polarization=array.polarization
    )
    drops = DropConfig(
        history_snr_db=history_snr_db, max_similarity=world.max_similarity, seed=config.seed
    )
    return DropFactory(
        sequences, downlink, drops, world.sounding, world.name, hardware=world.hardware
    )


def _forecasts(factory, trial, config, history_snr_db, store):
    """`Judged` by name."""
    horizons = max(config.horizons)
    array_shape = _array_shape(factory.downlink.array.shape)
    seen = hashlib.sha256(trial.history.tobytes() + trial.arrived.tobytes()).hexdigest()
    common = {"histories": seen, "num_horizons": horizons, "array_shape": array_shape}
    presets = {preset: _preset(preset, array_shape) for preset in config.presets}
    for preset, predictor in presets.items():
        own = getattr(predictor.model, "predictor", predictor.model).num_horizons
        if horizons > own:
            raise ValueError(
                f"horizons: the preset {pathlib.Path(preset).name!r} predicts {own} snapshots. "
                f"Received: horizons={config.horizons}"
            )
    judged = {}
    for name in config.baselines or CLASSICAL:
        predictor = _baseline(name, history_snr_db, array_shape)
        settings = tuned_settings(name, history_snr_db)
        code = code_digest(type(predictor).__module__)
        key = {**common, "predictor": name, "settings": settings, "code": code}
        predict = functools.partial(_predict, predictor, trial, horizons)
        judged[name] = Judged(store.compute(key, predict, name), "training_free")
    for preset, predictor in presets.items():
        name = pathlib.Path(preset).name
        with_start = isinstance(predictor.model, _WithStart)
        model = predictor.model.predictor if with_start else predictor.model
        # What fills lost reports in front of a model is the predictor's.
        modules = {type(part).__module__ for part in (predictor, model)}
        code = code_digest(*sorted(modules), load_preset.__module__)
        key = {**common, "preset": preset_digest(preset), "code": code}
        predict = functools.partial(_predict, predictor, trial, predictor.model.num_horizons)
        both = store.compute(key, predict, name)
        judged[name] = Judged(both[:, :horizons], "preset")
        if with_start:
            start = both[:, predictor.model.num_horizons // 2 :][:, :horizons]
            judged[name + _START] = Judged(start, "untrained_start")
    noisy = PerfectCsi(trial.future, history_snr_db, config.seed + 1).future
    ceilings = {"perfect": trial.future, "noisy_perfect": noisy}
    if isinstance(trial.sequences, PathSequences):
        array, frequencies = factory.downlink.array, factory.channels.frequencies
        foreseen = causal_forecast(trial.sequences, array, frequencies, _NUM_HISTORY, horizons)
        ceilings["causal"] = factory.hardware.targets(foreseen, _NUM_HISTORY, config.seed)
    return judged | {name: Judged(value, "ceiling") for name, value in ceilings.items()}


def _compare(judged, trial):
    """Differences to the best training-free predictor, sequence by sequence, by where it is.

    Of presets those to the best of all others, too, other presets among them.
    """
    columns = {}
    for index, (subset, mask) in itertools.product(
        range(trial.future.shape[1]), trial.subsets.items()
    ):
        truth = trial.future[:, index]
        chosen = mask[index] & np.any(truth, axis=(1, 2))
        if not chosen.any():
            continue
        errors = {}
        for name, each in judged.items():
            pair = normalized_error(each.forecast[:, index], truth, trial.scale)
            errors[name] = np.stack(pair, axis=-1)[chosen]
        free = [name for name, each in judged.items() if each.kind == "training_free"]
        # Windows of one trajectory are not independent.
        clusters = trial.sequences.trajectory_id[chosen]
        presets = [name for name, each in judged.items() if each.kind == "preset"]
        for name in errors:
            found = _differences(name, errors, free, clusters)
            if name in presets:
                others = [*free, *(rival for rival in presets if rival != name)]
                found |= _differences(name, errors, others, clusters, "_others")
            columns[name, index + 1, subset] = found
    return columns


def _differences(name, errors, rivals, clusters, told=""):
    """Columns of the differences of one predictor to the best of its rivals, figure by figure."""
    ratios = {n: to_db(np.maximum(e[:, 0] / e[:, 1], _FLOOR)) for n, e in errors.items()}
    best = min(rivals, key=lambda rival: np.median(ratios[rival]))
    found = {"median": paired_difference(ratios[name], ratios[best], clusters, statistic="median")}
    best = min(rivals, key=lambda rival: errors[rival][:, 0].sum())
    found["pooled"] = paired_difference(errors[name], errors[best], clusters, statistic="pooled_db")
    columns = {}
    for figure, (difference, low, high) in found.items():
        start = f"nmse_{figure}{told}_difference_db"
        columns |= {start: difference, f"{start}_low": low, f"{start}_high": high}
        columns[f"nmse_{figure}{told}_verdict"] = verdict(low, high, lower_is_better=True)
    return columns


def _predict(predictor, trial, num_horizons):
    return predictor(trial.history, num_horizons, **told_arrived(predictor, trial.arrived))


def _array_shape(shape):
    """The shape of an array as predictors take it: `None` for a line."""
    return None if shape == (1, shape[1], 1) else tuple(shape)


# Programs are compiled once in a process, whatever the worlds.
@functools.cache
def _baseline(name, history_snr_db, array_shape):
    return tuned_baselines(history_snr_db, [name], array_shape)[name]


@functools.cache
def _preset(preset, array_shape):
    """A preset with its untrained start."""
    model = load_preset(preset, array_shape=array_shape)
    if isinstance(model, ChannelPredictor):
        model = _WithStart(model)
    return ModelPredictor(model, pathlib.Path(preset).name)


class _WithStart(keras.Model):
    """A predictor's horizons, then those of its untrained start, for the price of one."""

    def __init__(self, predictor: ChannelPredictor) -> None:
        super().__init__(name="with_start")
        self.predictor = predictor
        self.num_horizons = 2 * predictor.num_horizons

    def call(self, history, arrived=None):
        frame, past, arrived = self.predictor.frame(history, arrived)
        features = self.predictor.physics(past, history.shape[3], arrived)
        start = features.start
        both = keras.ops.concatenate([start + self.predictor.refiner(features), start], axis=1)
        return frame.back(both, history.shape[3])


def _answer(forecast, history, num_horizons):
    return forecast[:, :num_horizons]


class _KnownCsi(CsiPolicy):
    """What a predictor said of all sequences, as a policy for the users among them."""

    def __init__(self, name: str, forecast: Array) -> None:
        super().__init__(name)
        self.forecast = forecast

    def for_regime(self, factory: DropFactory) -> "_KnownCsi":
        scaled = self.forecast[factory.users] / factory.rms[..., None, None, None]
        return _KnownCsi(self.name, scaled)

    def __call__(self, history: Array, horizon: int, target: Array | None = None) -> Array:
        return self.forecast[:, :, horizon - 1]


def _link(factory, judged, config):
    """Columns of the link by horizon and predictor."""
    sweep = SweepConfig(
        horizons=config.horizons, link_snr_db=(config.link_snr_db,), mcs=_MCS,
        decoding="information", seed=config.seed,
    )  # fmt: skip
    policies = [_KnownCsi(name, each.forecast) for name, each in judged.items()]
    rows = run_sweep([factory], policies, sweep, progress=False).goodput
    rows = [row for row in rows if row["adaptation"] == _ADAPTATION]
    shares = recovered_share(rows, "goodput")
    return {
        (row["horizon"], row["policy"]): {
            "num_drops": row["num_drops"],
            "recovered_goodput": share,
            **{name: row[name] for name in _LINKED},
        }
        for row, share in zip(rows, shares)
    }
