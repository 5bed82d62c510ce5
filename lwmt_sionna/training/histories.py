"""Sequences for training: histories and futures, noise, augmentation, and the physics in front."""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    PlanarArray,
    add_noise,
    check_disjoint,
    draw_clusters,
    read_sequences,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    take_trajectories,
    true_channels,
    vanishing_mask,
)
from lwmt_sionna.evaluation.leaks import check_causal
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.configuration import DataConfig
from lwmt_sionna.typing import Array, ArrayLike, Random

__all__ = [
    "Features",
    "PredictionDataset",
    "World",
    "augment_channels",
    "draw_histories",
    "load_tracks",
    "stack_complex",
    "switch_channels",
    "synthesize_tracks",
]

# Sequences whose physics is computed at a time, and kept together: some 20 MB.
_BLOCK = 32
_PIECE = 128
# Share of the pieces that are draws of a small array, where there are such.
_SMALL_SHARE = 0.2
# Sequences in a row that meet the hardware of one base station.
_USERS = 4
# Time between snapshots of clusters in seconds; their speeds reach from none to an aliased one.
_CLUSTER_PERIOD = 2.5e-3
# Lowest and highest power of what appears or vanishes over that of the rest, in decibels.
_SWITCHED_DB = (-10.0, 25.0)
# Largest number that is kept, in half precision.
_LARGEST = 6e4
# What says nothing about physics in the configuration of a model.
_NO_PHYSICS = ("backbone", "dtype", "local_motion", "name", "trainable")
# What says nothing about one draw in the configuration of data.
_NO_DRAWS = ("files", "validation_files", "clusters", "num_draws", "pool")


Tracks: TypeAlias = list[PathSequences | ChannelSequences]


def load_tracks(data: DataConfig, seed: int, num_horizons: int = 0) -> dict[str, Tracks]:
    """Reads the sequences of all files and splits them by trajectory.

    Sequences whose channel vanishes in a snapshot are left out.

    Args:
        data: `DataConfig`.
        seed: Seed of the splits, where the configuration has none.
        num_horizons: Snapshots after the history, of clusters that are drawn.

    Returns:
        Dictionary of three lists of `PathSequences` or `ChannelSequences`, one per file and, at the
        end, one of clusters: `"training"` (the label share of them), `"validation"` and `"test"`
        (empty without a `test_share`).

    Raises:
        ValueError: If a file has too few trajectories to be split, or serves both sides.
    """
    parts: dict[str, Tracks] = {"training": [], "validation": [], "test": []}
    for name in data.files:
        training = _read(name)
        split_seed = seed if data.split_seed is None else data.split_seed
        if data.test_share > 0:
            training, test = split_by_trajectory(training, data.test_share, split_seed)
            parts["test"].append(test)
            split_seed += 1
        if not data.validation_files:
            training, held_out = split_by_trajectory(training, data.validation_share, split_seed)
            parts["validation"].append(held_out)
        parts["training"].append(take_trajectories(training, data.label_share, split_seed + 1))
    for name in data.validation_files:
        parts["validation"].append(_read(name))
        for track in parts["training"]:
            check_disjoint(track, parts["validation"][-1])
    if data.clusters:
        rng = np.random.default_rng([seed if data.split_seed is None else data.split_seed, 6])
        length = data.num_history + num_horizons
        parts["training"].append(draw_clusters(data.clusters, length, _CLUSTER_PERIOD, rng))
    return parts


def _read(name):
    sequences = read_sequences(name)
    return sequences.select(~vanishing_mask(sequences))


def synthesize_tracks(tracks: Tracks, data: DataConfig, num_horizons: int) -> Array:
    """The channels of sequences on the grid of a configuration.

    Args:
        tracks: List of `PathSequences`, or of `ChannelSequences` of that grid.
        data: `DataConfig`.
        num_horizons: Snapshots after the history.

    Returns:
        complex64 `[num_sequences, num_history + num_horizons, num_ant, num_subcarriers]`.

    Raises:
        ValueError: If the sequences are too short, or stored channels of another grid.
    """
    snapshots = np.arange(data.num_history + num_horizons)
    for track in tracks:
        _check_length(track, len(snapshots))
    return np.concatenate(
        [true_channels(track, data.array, data.frequencies, snapshots) for track in tracks]
    )


def _check_length(track, length):
    if track.num_snapshots < length:
        raise ValueError(
            f"The sequences are too short: expected at least {length} snapshots. Received: "
            f"scene={track.scene}, num_snapshots={track.num_snapshots}"
        )


def draw_histories(
    h: Array,
    data: DataConfig,
    seed: int | list[int],
    augment: bool,
    frequencies: ArrayLike | None = None,
    sampling_period: float = 0.0,
) -> tuple[Array, Array]:
    """Draws noisy, impaired histories and clean futures from true channels.

    Augmentation applies what leaves the physics of an array of half wavelengths unchanged: a common
    phase, a shift of all angles (a phase ramp over antennas), of all delays (over subcarriers) and
    of all Doppler shifts (over snapshots), and the reversal of time. To some, others are added that
    appear or vanish.

    Args:
        h: True channels, complex64 `[batch, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        data: `DataConfig`.
        seed: Seed, an integer or a sequence of them.
        augment: Whether to augment.
        frequencies: Baseband frequencies in hertz, float `[num_subcarriers]`, for the hardware.
        sampling_period: Time between snapshots in seconds, for the hardware.

    Returns:
        Tuple of the history and the future, real `[batch, time, num_ant, num_subcarriers, 2]`,
        both scaled by the root mean square of the true history, so that one sequence weighs as
        much as another. Of antennas out of calibration, the future is that through the same ones.
    """
    rng = np.random.default_rng(seed)
    if augment:
        h = augment_channels(h, rng, data.doppler_shift)
        if data.switched:
            h = switch_channels(h, rng, data.switched, data.num_history)
    past, future = h[:, : data.num_history], h[:, data.num_history :]
    history_snr_db = rng.uniform(*data.history_snr_db, len(h))
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), keepdims=True))
    if data.hardware is None:
        history = add_noise(past, history_snr_db, rng)
    else:
        history, future = np.empty_like(past), np.array(future)
        for first in range(0, len(h), _USERS):
            some = slice(first, first + _USERS)
            hardware, key = data.hardware.draw(rng), int(rng.integers(2**31))
            noisy = functools.partial(add_noise, history_snr_db=history_snr_db[some], rng=rng)
            history[some] = hardware.impair(
                past[some], frequencies, sampling_period, key, estimate=noisy
            ).h
            future[some] = hardware.targets(future[some], data.num_history, key)
    return stack_complex(history / scale), stack_complex(future / scale)


class World(NamedTuple):
    """Sequences, and how often each of them is drawn.

    Attributes:
        sequences: `PathSequences` or `ChannelSequences`.
        origin: What tells the sequences from those of other files: a digest of theirs.
        num_draws: Draws of noise, hardware and augmentation per sequence, and of array and band
            where there are several; 0 for one draw without augmentation.
    """

    sequences: PathSequences | ChannelSequences
    origin: str
    num_draws: int = 0

    @property
    def size(self) -> int:
        """Number of draws."""
        return self.sequences.num_sequences * max(1, self.num_draws)

    def channels(
        self,
        rows: Array,
        data: DataConfig,
        length: int,
        rng: Random,
        num_ant: int | None = None,
    ) -> tuple[Array, Array, tuple[int, int, int] | None]:
        """True channels of some sequences, their frequencies and the shape of their array.

        Args:
            rows: Indices of the sequences.
            data: `DataConfig`.
            length: Snapshots of each.
            rng: `numpy.random.Generator` of the array and the band of paths.
            num_ant: Antennas of a line, for paths and for what is stored of a longer one, whose
                first ones are taken; as configured, or as stored, if left out.

        Raises:
            ValueError: If the sequences are too short, or stored channels of another size.
        """
        sequences, size = self.sequences, (data.num_ant, data.num_subcarriers)
        _check_length(sequences, length)
        if isinstance(sequences, PathSequences):
            array, spacing = data.arrays[rng.integers(len(data.arrays))], data.subcarrier_spacing
            if num_ant is not None:
                array = PlanarArray.of(num_ant, 1, data.polarization)
            if data.bandwidth is not None:
                spacing = np.exp(rng.uniform(*np.log(data.bandwidth))) / data.num_subcarriers
            frequencies = subcarrier_frequencies(data.num_subcarriers, spacing)
            chosen = sequences.select(rows)
            h = synthesize(chosen, array, frequencies, snapshots=np.arange(length))
        else:
            array, frequencies = sequences.array, sequences.frequencies
            if sequences.h.shape[2:] != size:
                raise ValueError(
                    f"Stored channels must have {size[0]} antennas and {size[1]} subcarriers, as "
                    f"is configured. Received: h.shape={sequences.h.shape}, "
                    f"scene={sequences.scene}"
                )
            h = sequences.h[rows, :length]
        is_line = array.shape == (1, array.num_ant, 1)
        return h[:, :, :num_ant] if is_line else h, frequencies, None if is_line else array.shape

    def draw(
        self, begin: int, data: DataConfig, length: int, seed: int
    ) -> tuple[Array, Array, tuple[int, int, int] | None]:
        """What `draw_histories` makes of a block of draws, and the shape of their array.

        Args:
            begin: Number of the first draw.
            data: `DataConfig`.
            length: Snapshots of a sequence.
            seed: Seed of all draws.
        """
        key = [seed, int(self.num_draws > 0), begin]
        rows = np.arange(begin, min(begin + _BLOCK, self.size)) % self.sequences.num_sequences
        rng, num_ant = np.random.default_rng([*key, 1]), None
        if data.small_arrays and self.num_draws:
            # One size for all that is kept together.
            own = np.random.default_rng([seed, begin // _PIECE, zlib.crc32(self.origin.encode())])
            num_ant = own.choice(data.small_arrays) if own.uniform() < _SMALL_SHARE else None
        h, frequencies, shape = self.channels(rows, data, length, rng, num_ant)
        period = float(self.sequences.sampling_period)
        return *draw_histories(h, data, key, key[1] > 0, frequencies, period), shape

    def check_causal(self, data: DataConfig, length: int, seed: int) -> None:
        """Raises ValueError if a history depends on its future."""
        rows = np.arange(min(8, self.sequences.num_sequences))
        h, frequencies, _ = self.channels(rows, data, length, np.random.default_rng(seed))
        period = float(self.sequences.sampling_period)
        check_causal(
            lambda x: draw_histories(x, data, seed, False, frequencies, period)[0],
            h,
            data.num_history,
        )


class PredictionDataset(keras.utils.PyDataset):
    """Batches of what the network sees and should predict, in the angle-delay domain.

    A batch is of channels of one size. The order of a pass depends on the seed and the epoch only,
    so a resumed training sees what the uninterrupted one would have seen.

    Args:
        pieces: What `Features.compute` returns.
        batch_size: Sequences per batch.
        seed: Seed of the order; as they come if left out.
    """

    def __init__(self, pieces: list[Array], batch_size: int, seed: int | None = None) -> None:
        super().__init__()
        self.pieces = pieces
        self.ends = np.cumsum([len(piece) for piece in pieces])
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        # Draws of each size, and the size and the number of every batch.
        spans = [np.arange(end - len(p), end) for p, end in zip(pieces, self.ends, strict=True)]
        self.draws = {
            size: np.concatenate([spans[place] for place in places])
            for size, places in self._sizes().items()
        }
        self.batches = [
            (size, number)
            for size, draws in self.draws.items()
            for number in range(-(-len(draws) // batch_size))
        ]

    def _sizes(self):
        """Which pieces are of which size."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for place, piece in enumerate(self.pieces):
            sizes.setdefault(piece["target"].shape[2:4], []).append(place)
        return sizes

    def by_size(self) -> "dict[tuple[int, int], PredictionDataset]":
        """Datasets of channels of one size each, by the numbers of angle and delay bins."""
        return {
            size: type(self)([self.pieces[place] for place in places], self.batch_size, self.seed)
            for size, places in self._sizes().items()
        }

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[dict[str, Array], Array]:
        shuffle: Callable[[Array], Array] = np.asarray
        if self.seed is not None:
            shuffle = np.random.default_rng([self.seed, self.epoch]).permutation
        draws = {size: shuffle(each) for size, each in self.draws.items()}
        size, number = self.batches[shuffle(np.arange(len(self)))[index]]
        # The last batch of a size wraps around: one shape, one compiled program.
        begin, own = number * self.batch_size, draws[size]
        rows = own[np.arange(begin, begin + self.batch_size) % len(own)]
        homes = np.searchsorted(self.ends, rows, side="right")
        batch = np.empty(self.batch_size, self.pieces[homes[0]].dtype)
        for place, (piece, row) in enumerate(zip(homes, rows, strict=True)):
            batch[place] = self.pieces[piece][row - self.ends[piece]]
        features = {name: batch[name].astype(np.float32) for name in batch.dtype.names or ()}
        return features, features.pop("target")


class Features:
    """What the physics in front of a network says of draws, with what is to be predicted.

    Physics has no weights: it is computed once for every draw and kept, channels in half precision,
    some 0.2 MB a draw.

    Args:
        model: `ChannelPredictor`, or a contestant.
        data: `DataConfig`.
        seed: Seed of the draws.
        store: `lwmt_sionna.runs.store.Store` in which to keep what is computed, and to look for
            what has been; in memory if left out.
    """

    def __init__(
        self, model: keras.Model, data: DataConfig, seed: int, store: Store | None = None
    ) -> None:
        self.model, self.data, self.seed, self.store = model, data, seed, store
        self.length = data.num_history + model.num_horizons
        # What is compiled for one array and number of antennas serves all worlds.
        self._physics: dict[Any, Physics] = {}

    def compute(self, worlds: list[World]) -> list[Array]:
        """Features and targets of all draws.

        Args:
            worlds: List of `World`.

        Returns:
            List of structured arrays of one record per draw, some draws of one world in each.
        """
        config, data = self.model.get_config(), self.data.to_dict()
        common = {
            "code": code_digest(__name__, type(self.model).__module__),
            "physics": {n: value for n, value in config.items() if n not in _NO_PHYSICS},
            "data": {n: value for n, value in data.items() if n not in _NO_DRAWS},
            "seed": self.seed,
        }
        pieces = []
        with progress_bar(
            total=sum(world.size for world in worlds), desc="physics", unit="sequence"
        ) as bar:
            for world in worlds:
                where = {"origin": world.origin, "augmented": world.num_draws > 0}
                for begin in range(0, world.size, _PIECE):
                    end = min(begin + _PIECE, world.size)
                    key = {**common, **where, "draws": [begin, end]}
                    piece = self._load(key)
                    pieces.append(self._make(world, begin, end, key) if piece is None else piece)
                    bar.update(end - begin)
        return pieces

    def _load(self, key):
        kept = None if self.store is None else self.store.get_file(key)
        return None if kept is None else np.load(kept[0], mmap_mode="r")

    def _make(self, world, begin, end, key):
        firsts = range(begin, end, _BLOCK)
        drawn = [world.draw(first, self.data, self.length, self.seed) for first in firsts]
        piece = np.concatenate([self._records(*each) for each in drawn])
        if self.store is None:
            return piece

        def write(path):
            with path.open("wb") as file:
                np.save(file, piece)

        return np.load(self.store.put_file(key, write, ".npy"), mmap_mode="r")

    def _records(self, history, future, array_shape):
        """Records of the features and targets of a block."""
        kind = array_shape, history.shape[2]
        if kind not in self._physics:
            self._physics[kind] = Physics(_on_array(self.model, array_shape))
        count = len(history)
        padding = [(0, _BLOCK - count)] + [(0, 0)] * 4
        inputs = tuple(np.pad(x, padding, "edge") for x in (history, future))
        outputs = self._physics[kind].predict_on_batch(inputs)
        outputs = {name: np.asarray(value)[:count] for name, value in outputs.items()}
        # Powers span more than half precision does; channels of unit power do not.
        kinds = {n: np.float16 if v.ndim > 4 else np.float32 for n, v in outputs.items()}
        records = np.empty(count, [(n, kinds[n], v.shape[1:]) for n, v in outputs.items()])
        for name, value in outputs.items():
            records[name] = np.clip(value, -_LARGEST, _LARGEST)
        return records


def _on_array(model, array_shape):
    """The model with the physics of another array; its network, which is not used, is another."""
    config = model.get_config()
    shape = config["array_shape"]
    if (None if shape is None else tuple(shape)) == array_shape:
        return model
    return type(model).from_config({**config, "array_shape": array_shape})


class Physics(keras.Model):
    """The part of a predictor without weights, with the target in the same domain and scale.

    Args:
        predictor: `ChannelPredictor`, or a contestant.

    Call arguments:
        inputs: Tuple of history and future, real `[batch, time, num_ant, num_subcarriers, 2]`.

    Returns:
        Dictionary of the features of the network and its `target`.
    """

    def __init__(self, predictor: keras.Model) -> None:
        super().__init__(name="physics")
        self.predictor = predictor
        self.compile(jit_compile=keras.backend.backend() != "torch")

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, inputs: tuple[Any, Any]) -> dict[str, Any]:
        """See the class."""
        history, future = inputs
        frame, past, arrived = self.predictor.frame(history)
        features = self.predictor.features(past, history.shape[3], arrived)
        return {**features, "target": frame.into(future)}


def augment_channels(h: Array, rng: Random, doppler: float = 0.5) -> Array:
    """Draws another channel of the same physics: see `draw_histories`.

    Args:
        h: Channels, complex64 `[batch, num_snapshots, num_ant, num_subcarriers]`.
        rng: `numpy.random.Generator`.
        doppler: Largest shift of all Doppler shifts, in turns per snapshot; 0.5 is all there is.

    Returns:
        complex64, shape as `h`.
    """
    num_sequences, num_snapshots, num_ant, num_subcarriers = h.shape
    ramp = np.exp(2j * np.pi * rng.uniform(size=(num_sequences, 1, 1, 1)))
    for axis, size in enumerate((num_snapshots, num_ant, num_subcarriers)):
        reach = doppler if axis == 0 else 0.5
        slope = rng.uniform(-reach, reach, size=(num_sequences, 1, 1, 1))
        shape = [1, 1, 1, 1]
        shape[axis + 1] = size
        ramp = ramp * np.exp(2j * np.pi * slope * np.arange(size).reshape(shape))
    h = h * ramp.astype(np.complex64)
    reverse = rng.uniform(size=num_sequences) < 0.5
    h[reverse] = h[reverse, ::-1].conj()
    return h


def switch_channels(h: Array, rng: Random, share: float, num_history: int) -> Array:
    """Adds to some channels another one that appears or vanishes within the history.

    Channels are sums over paths: the sum of two is one of both their paths, and half of these are
    born or die together, as where a user turns a corner.

    Args:
        h: Channels, complex64 `[batch, num_snapshots, num_ant, num_subcarriers]`.
        rng: `numpy.random.Generator`.
        share: Share of the channels that another is added to.
        num_history: Snapshots of history; in the first and after the last nothing is switched.

    Returns:
        complex64, shape as `h`.
    """
    count, num_snapshots = h.shape[:2]
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3))
    other = np.roll(np.arange(count), 1)
    gain = 10.0 ** (rng.uniform(*_SWITCHED_DB, count) / 10.0)
    gain *= power / np.where(power > 0, power, np.inf)[other]
    late = np.arange(num_snapshots) >= rng.integers(1, num_history, (count, 1))
    there = late == (rng.uniform(size=(count, 1)) < 0.5)
    there &= rng.uniform(size=(count, 1)) < share
    amplitude = np.sqrt(gain)[:, None] * there
    return h + amplitude[..., None, None].astype(np.float32) * h[other]


def stack_complex(h: Array) -> Array:
    """Complex64 `[...]` as real float32 `[..., 2]`."""
    return np.ascontiguousarray(h).view(np.float32).reshape(*h.shape, 2)
