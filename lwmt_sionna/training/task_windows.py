"""Windows of traced sequences as the tasks see them: histories, labels, and features kept on disk.

Everything that a contestant may look at is computed once for each block of windows and kept: the
embeddings of a pretrained backbone, in half precision, and what needs none.
"""

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, NamedTuple

import keras
import numpy as np

from lwmt_sionna.baselines import ModelPredictor
from lwmt_sionna.baselines.estimation import interpolate_pilots, path_lmmse, pursue_paths
from lwmt_sionna.baselines.tasks import angle_power, delay_angle_profile, sight_features
from lwmt_sionna.data import (
    PathSequences,
    PlanarArray,
    add_noise,
    beam_power,
    check_same_tracks,
    dft_codebook,
    read_paths,
    sparse_mask,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
)
from lwmt_sionna.layers import AngleDelayTransform
from lwmt_sionna.models import ChannelEstimator, MaskedChannelModel, TaskModel
from lwmt_sionna.models.channel_estimator import HeadSums
from lwmt_sionna.models.normalization import Frame, unit_power
from lwmt_sionna.models.presets import load_preset, preset_digest
from lwmt_sionna.ops.angle_delay import strongest_path
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import FILLED, Config, Interval, Positive, PositiveInt
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.shipped import find
from lwmt_sionna.runs.store import Store
from lwmt_sionna.typing import Array, PathLike

__all__ = ["REFERENCE_DB", "LabelFile", "WindowConfig", "Windows", "load_windows"]

# Windows of a piece, and of a call of the backbone.
_PIECE, _BATCH = 200, 20
# Power gain from which levels count, as in the tasks; and what powers of features are told beside.
REFERENCE_DB = -100.0
# Of the features without a backbone.
_PATCH = (4, 4)
_FAINTEST, _TINY = 1e-4, 1e-30
# Subcarriers from one pilot to the next.
_COMB = 4
# Estimates that learn nothing.
_ESTIMATES = ("linear", "pursuit", "lmmse")


@dataclasses.dataclass(frozen=True)
class LabelFile(Config):
    """A file of paths to learn and to judge tasks on.

    Attributes:
        data: HDF5 file of paths, of the carrier that the tasks see.
        beams: HDF5 file of the same tracks at the carrier of the beams; `data` itself if None.
    """

    data: str
    beams: str | None = None


@dataclasses.dataclass(frozen=True)
class WindowConfig(Config):
    """Windows, and what is measured of them.

    Attributes:
        files: Tuple of `LabelFile`, of one scene.
        num_history: Snapshots of a window.
        num_starts: Windows of a sequence, one snapshot apart. Tests, beams and pilots have the
            first one alone: only there is what follows known.
        horizon: Snapshots ahead at which beams are asked for, besides now.
        predictor: Preset of the channel predictor that foresees the directions of the beams.
        num_ant: Antennas of the base station, in a line, at the carrier of the data.
        num_beams: Antennas in a line at the carrier of the beams, and beams of its codebook.
        num_subcarriers: Number of subcarriers.
        subcarrier_spacing: Hertz.
        history_snr_db: SNR of the histories in decibels, drawn for each window.
        pilot_snr_db: SNR of the sparse pilots in decibels.
        test_share: Share of the trajectories that are for tests.
        limit: Sequences of each file at most.
    """

    files: Annotated[tuple[LabelFile, ...], FILLED]
    num_history: PositiveInt = 16
    num_starts: PositiveInt = 6
    horizon: PositiveInt = 5
    predictor: str = "universal"
    num_ant: PositiveInt = 32
    num_beams: PositiveInt = 64
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: Positive = 540e3
    history_snr_db: Interval = (0.0, 20.0)
    pilot_snr_db: float = 10.0
    test_share: Positive = 1 / 6
    limit: PositiveInt | None = None

    @property
    def frequencies(self) -> Array:
        """Baseband frequencies of the subcarriers in hertz."""
        return subcarrier_frequencies(self.num_subcarriers, self.subcarrier_spacing)

    @property
    def pilot_mask(self) -> Array:
        """True where there is no pilot, bool `[num_history, num_subcarriers]`."""
        return sparse_mask(self.num_history, self.num_subcarriers, _COMB)


class Windows(NamedTuple):
    """What is known of all windows, row by row: labels, and what contestants look at.

    The first windows of sequences come first; rows of one sequence share its trajectory.

    Attributes:
        trajectory: int64 `[num_windows]`.
        is_test: bool `[num_windows]`: first windows of trajectories that nothing is learned from.
        is_training: bool `[num_windows]`: windows of the other trajectories.
        is_first: bool `[num_windows]`.
        sight: Whether the base station is in sight in the last snapshot, bool `[num_windows]`.
        position: Last position from the base station in metres, float32 `[num_windows, 2]`.
        station: Base station that serves, int64 `[num_windows]`.
        speed: Of the user, km/h, float32 `[num_windows]`.
        beam_power: Power of each beam now and ahead, float32 `[num_first, 2, num_beams]`.
        embeddings: float16 `[num_windows, angle, delay, 2 * width + 1]`: see `TaskModel`, with
            `reference_db=-100`.
        patches: float16 `[num_windows, angle, delay, channels]`: the same patches without backbone:
            the last snapshot and the mean power of the bins, both over their level, and that level.
        level_db: Mean power gain of the history, float32 `[num_windows]`.
        by_hand: float32 `[num_windows, num_features]`: see `sight_features`.
        profile: float16 `[num_windows, num_ant * num_subcarriers]`: see `delay_angle_profile`.
        strongest: Delay and direction of the strongest path: see `strongest_path`, float32
            `[num_windows, 2]`.
        angle_power: Power in the directions of the beams, of the history and as foreseen ahead,
            float32 `[num_first, 2, num_beams]`.
        embedded_pilots: `HeadSums` of the embeddings, of the first windows.
        pilots: `HeadSums` of the patches alone.
        estimates: Normalised errors of estimates without labels, by name, float `[num_tests]`.
        scene: Name of the scene.

    What was not asked for is None.
    """

    trajectory: Array
    is_test: Array
    is_training: Array
    is_first: Array
    sight: Array
    position: Array
    station: Array
    speed: Array
    beam_power: Array
    scene: str
    embeddings: Any = None
    patches: Any = None
    level_db: Any = None
    by_hand: Any = None
    profile: Any = None
    strongest: Any = None
    angle_power: Any = None
    embedded_pilots: Any = None
    pilots: Any = None
    estimates: Any = None


class _Sequences(NamedTuple):
    """A file: paths of both carriers, which ones are for tests, and what it was read from."""

    paths: PathSequences
    beams: PathSequences
    is_test: Array
    number: int
    digest: str


def load_windows(
    config: WindowConfig,
    preset: PathLike,
    store: Store,
    progress: Callable[[list[Any]], Iterator[Any]] = iter,
    works: Collection[str] | None = None,
) -> Windows:
    """Windows of all files; what a killed run has finished is not computed again.

    Args:
        config: `WindowConfig`.
        preset: Name or folder of a `MaskedChannelModel` preset.
        store: `Store` with a folder.
        progress: Function that goes through a list, such as a progress bar.
        works: Which of `"look"`, `"directions"`, `"estimates"`, `"embeddings"` and `"sums"` are
            done; all if None.

    Raises:
        ValueError: If files are missing, of different scenes, or too short.
    """
    files = [_read(config, file, number) for number, file in enumerate(config.files)]
    if len({(file.paths.scene, file.paths.carrier_frequency) for file in files}) > 1:
        raise ValueError(
            "files: expected one scene and carrier. Received: "
            f"{[(f.paths.scene, f.paths.carrier_frequency) for f in files]}"
        )
    models = functools.cache(functools.partial(_load, preset))
    # What heads learn by is no matter of windows, nor is how many starts there are of one's own.
    names = {field.name for field in dataclasses.fields(WindowConfig)}
    names -= {"files", "limit", "num_starts", "test_share"}
    settings = {name: value for name, value in config.to_dict().items() if name in names}
    common = {"settings": settings, "code": code_digest(__name__)}
    told = {"preset": preset_digest(preset)}
    pieces = [
        (start, file, slice(begin, begin + _PIECE))
        for start in range(config.num_starts)
        for file in files
        for begin in range(0, file.paths.num_sequences, _PIECE)
    ]
    rows: list[dict[str, Array]] = []
    for start, file, part in progress(pieces):
        own = {"start": start, "part": [part.start, part.stop], "file": file.number}
        # Which sequences are left does not follow from the file alone.
        rows_of = [file.paths.trajectory_id[part], file.is_test[part]]
        taken = [hashlib.sha256(x.tobytes()).hexdigest() for x in rows_of]
        key = common | own | {"data": file.digest, "taken": taken}
        row = _labels(config, file, start, part)
        for name, work in _WORKS.items():
            if (work.first and start) or (works is not None and name not in works):
                continue
            known = key | {"work": name} | (told if work.trained else {})
            row |= _kept(store, known, functools.partial(work.compute, config, file, own, models))
        rows.append(row)
    first = rows[: sum(1 for start, _, _ in pieces if start == 0)]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[-1]}
    joined |= {
        name: np.concatenate([row[name] for row in first]) for name in set(first[0]) - set(joined)
    }
    return _collect(joined, files[0].paths.scene)


def _collect(joined, scene):
    sums = {
        field: HeadSums(*(joined.pop(f"{field}_{name}") for name in HeadSums._fields))
        for field in ("embedded_pilots", "pilots")
        if f"{field}_gram" in joined
    }
    tests = joined["is_test"][joined["is_first"]]
    estimates = {name: joined.pop(name)[tests] for name in _ESTIMATES if name in joined}
    return Windows(**joined, **sums, estimates=estimates or None, scene=scene)


def _read(config, file, number):
    names = [file.data, file.data if file.beams is None else file.beams]
    paths, beams = (read_paths(find(name)) for name in names)
    check_same_tracks(paths, beams)
    needed = config.num_history + max(config.num_starts - 1, config.horizon)
    if paths.num_snapshots < needed:
        raise ValueError(
            f"{file.data}: expected sequences of {needed} snapshots at least. Received: "
            f"num_snapshots={paths.num_snapshots}"
        )
    kept = np.flatnonzero(~(vanishing_mask(paths) | vanishing_mask(beams)))[: config.limit]
    paths, beams = paths.select(kept), beams.select(kept)
    _, test = split_by_trajectory(paths, config.test_share, seed=0)
    is_test = np.isin(paths.trajectory_id, test.trajectory_id)
    return _Sequences(paths, beams, is_test, number, records.sha256(find(file.data)))


def _labels(config, file, start, part):
    paths, last = file.paths.select(part), start + config.num_history - 1
    place = paths.position[:, last] - paths.bs_position[paths.bs_index]
    row = {
        "trajectory": paths.trajectory_id,
        "is_test": file.is_test[part] & (start == 0),
        "is_training": ~file.is_test[part],
        "is_first": np.full(paths.num_sequences, start == 0),
        "sight": paths.line_of_sight[:, last],
        "position": place[:, :2].astype(np.float32),
        "station": paths.bs_index,
        "speed": np.float32(3.6) * np.linalg.norm(paths.velocity[:, last], axis=-1),
    }
    if start == 0:
        array = PlanarArray(num_cols=config.num_beams)
        asked = [last, last + config.horizon]
        h = synthesize(file.beams.select(part), array, config.frequencies, snapshots=asked)
        row["beam_power"] = beam_power(h, dft_codebook(array))
    return row


def _history(config, file, own):
    """Noisy histories of a piece, the same for all contestants."""
    paths = file.paths.select(slice(*own["part"]))
    snapshots = np.arange(own["start"], own["start"] + config.num_history)
    h = synthesize(paths, _array(config), config.frequencies, snapshots=snapshots)
    rng = np.random.default_rng([file.number, own["start"], own["part"][0]])
    return add_noise(h, rng.uniform(*config.history_snr_db, len(h)), rng)


def _array(config):
    return PlanarArray(num_cols=config.num_ant)


def _physical(config, file, h, backbone):
    """What a model over a backbone is called with."""
    scales = {
        "sampling_period": file.paths.sampling_period,
        "subcarrier_spacing": config.subcarrier_spacing,
    }
    scales = {} if backbone.position_units is None else scales
    return {"h": h} | {name: np.full(len(h), value, np.float32) for name, value in scales.items()}


def _load(preset):
    """A task and an estimator over a preset, compiled once for all pieces."""
    model = load_preset(preset, MaskedChannelModel)
    task = TaskModel(model, keras.layers.Identity(), "mse", reference_db=REFERENCE_DB)
    return task, ChannelEstimator(model)


def _embed(config, file, own, models):
    h = _history(config, file, own)
    task, _ = models()
    # Batches of one size: one program serves all.
    short = -len(h) % _BATCH
    inputs = {
        name: np.concatenate([value, value[:1].repeat(short, axis=0)])
        for name, value in _physical(config, file, h, task.backbone).items()
    }
    return {"embeddings": task.embed(inputs, batch_size=_BATCH)[: len(h)].astype(np.float16)}


def _look(config, file, own, _):
    h = _history(config, file, own)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3))
    return {
        "patches": _patches(h, _PATCH, power).astype(np.float16),
        "level_db": (10 * np.log10(power + _TINY)).astype(np.float32),
        "by_hand": sight_features(h),
        "profile": delay_angle_profile(h).astype(np.float16),
        "strongest": np.concatenate(
            [_strongest(h[i : i + _BATCH]) for i in range(0, len(h), _BATCH)]
        ),
    }


def _strongest(h):
    x = keras.ops.convert_to_tensor(h.view(np.float32).reshape(*h.shape, 2))
    return keras.ops.convert_to_numpy(strongest_path(unit_power(x)[0]))


def _patches(h, patch, power):
    """Patches without a backbone: see `Windows`."""
    transform = AngleDelayTransform(dtype="float32")
    x = h.view(np.float32).reshape(*h.shape, 2)
    x = keras.ops.convert_to_numpy(Frame.of(keras.ops.convert_to_tensor(x), transform)[1])
    square = np.sum(x**2, axis=-1, keepdims=True).mean(axis=1, keepdims=True)
    last, bins = (np.asarray(patchify(v, patch)) for v in (x[:, -1:], square))
    own = bins.mean(axis=-1, keepdims=True)
    level = np.log2(own + _FAINTEST) + np.log2(power + _TINY)[:, None, None]
    level = level - 0.1 * REFERENCE_DB / np.log10(2)
    parts = last / np.sqrt(own + _TINY), bins / (own + _TINY), level
    flat = np.concatenate(parts, axis=-1)
    sides = (-(-x.shape[2] // patch[0]), -(-x.shape[3] // patch[1]))
    return flat.reshape(len(h), *sides, -1)


def _directions(config, file, own, _):
    h = _history(config, file, own)
    ahead = _predictor(config.predictor).predict(h, config.horizon)[:, -1:]
    powers = [angle_power(x, config.num_beams).mean(axis=1) for x in (h, ahead)]
    return {"angle_power": np.stack(powers, axis=1)}


@functools.lru_cache(maxsize=1)
def _predictor(preset):
    return ModelPredictor(preset)


def _pilots(config, file, own):
    """True channels with delays from the first path on, and what is measured: noisy pilots."""
    paths = file.paths.select(slice(*own["part"]))
    window = slice(0, config.num_history)
    first = np.where(paths.valid, paths.tau, np.inf)[:, window].min(axis=(1, 2))
    # As timing advance leaves them.
    paths = dataclasses.replace(paths, tau=paths.tau - first[:, None, None])
    snapshots = np.arange(config.num_history)
    h = synthesize(paths, _array(config), config.frequencies, snapshots=snapshots)
    rng = np.random.default_rng([file.number, own["part"][0], 1])
    return paths, h, add_noise(h, config.pilot_snr_db, rng)


def _estimate(config, file, own, _):
    """Estimates that learn nothing, of the tests; NaN elsewhere."""
    paths, h, y = _pilots(config, file, own)
    mask, chosen = config.pilot_mask, file.is_test[slice(*own["part"])]
    found = {name: np.full(len(h), np.nan) for name in _ESTIMATES}
    if not chosen.any():
        return found
    paths, h, y = paths.select(chosen), h[chosen], y[chosen]
    window = dataclasses.replace(
        paths,
        **{n: v[:, : config.num_history] for n, v in paths.arrays.items() if v.ndim > 1},
    )
    noise = np.mean(np.abs(h) ** 2, axis=(1, 2, 3)) * 10 ** (-0.1 * config.pilot_snr_db)
    guesses = {
        "linear": interpolate_pilots(y, mask),
        "pursuit": pursue_paths(y, mask),
        "lmmse": path_lmmse(y, mask, window, _array(config), config.frequencies, noise),
    }
    for name, guess in guesses.items():
        error, power = (np.sum(np.abs(v) ** 2, axis=(1, 2, 3)) for v in (guess - h, h))
        found[name][chosen] = error / power
    return found


def _sums(config, file, own, models):
    _, h, y = _pilots(config, file, own)
    _, estimator = models()
    parts: dict[str, list[Array]] = {}
    for begin in range(0, len(h), _BATCH):
        # The last window fills up the batch.
        rows = np.minimum(np.arange(begin, begin + _BATCH), len(h) - 1)
        inputs = _physical(config, file, y[rows], estimator.backbone)
        inputs["mask"] = np.broadcast_to(
            config.pilot_mask[:, None], (len(rows), y.shape[1], 1, y.shape[3])
        )
        inputs["start"] = keras.ops.convert_to_numpy(estimator.start(inputs))
        count = min(_BATCH, len(h) - begin)
        for field, embeddings in (("embedded_pilots", True), ("pilots", False)):
            sums = estimator.embed(inputs, h[rows], embeddings=embeddings)
            for name, value in sums._asdict().items():
                parts.setdefault(f"{field}_{name}", []).append(value[:count])
    return {name: np.concatenate(values) for name, values in parts.items()}


class _Work(NamedTuple):
    """How arrays of a piece are computed; whether of first windows alone, and by the preset."""

    compute: Callable[..., dict[str, Array]]
    first: bool = False
    trained: bool = False


_WORKS = {
    "look": _Work(_look),
    "directions": _Work(_directions, first=True),
    "estimates": _Work(_estimate, first=True),
    "embeddings": _Work(_embed, trained=True),
    "sums": _Work(_sums, first=True, trained=True),
}


def _kept(store, key, compute):
    """Arrays by name, from a file of the store or computed for one."""
    found = store.get_file(key)
    if found is None:
        arrays = compute()

        def write(path: pathlib.Path) -> None:
            content = io.BytesIO()
            np.savez(content, **arrays)
            path.write_bytes(content.getvalue())

        store.put_file(key, write, ".npz", label=key["work"])
        return arrays
    with np.load(found[0]) as file:
        return dict(file)
