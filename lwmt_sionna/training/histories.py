"""Sequences for training: histories and futures, noise, augmentation, and the physics in front."""

from typing import Any, TypeAlias

import keras
import numpy as np

from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    add_noise,
    read_sequences,
    split_by_trajectory,
    take_trajectories,
    true_channels,
    vanishing_mask,
)
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.training.configuration import DataConfig
from lwmt_sionna.typing import Array, Random

__all__ = [
    "PredictionDataset",
    "augment_channels",
    "draw_histories",
    "load_tracks",
    "stack_complex",
    "synthesize_tracks",
]

# Sequences whose physics is computed at a time.
_BLOCK = 32


Tracks: TypeAlias = list[PathSequences | ChannelSequences]


def load_tracks(data: DataConfig, seed: int) -> dict[str, Tracks]:
    """Reads the sequences of all files and splits them by trajectory.

    Sequences whose channel vanishes in a snapshot are left out.

    Args:
        data: `DataConfig`.
        seed: Seed of the splits, where the configuration has none.

    Returns:
        Dictionary of three lists of `PathSequences` or `ChannelSequences`, one per file:
        `"training"` (the label share of them), `"validation"` and `"test"` (empty without a
        `test_share`).

    Raises:
        ValueError: If a file has too few trajectories to be split.
    """
    parts: dict[str, Tracks] = {"training": [], "validation": [], "test": []}
    for name in data.files:
        sequences = read_sequences(name)
        rest = sequences.select(~vanishing_mask(sequences))
        split_seed = seed if data.split_seed is None else data.split_seed
        if data.test_share > 0:
            rest, test = split_by_trajectory(rest, data.test_share, split_seed)
            parts["test"].append(test)
            split_seed += 1
        training, validation = split_by_trajectory(rest, data.validation_share, split_seed)
        parts["training"].append(take_trajectories(training, data.label_share, split_seed + 1))
        parts["validation"].append(validation)
    return parts


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
    length = data.num_history + num_horizons
    for track in tracks:
        if track.num_snapshots < length:
            raise ValueError(
                f"The sequences are too short: expected at least {length} snapshots. Received: "
                f"scene={track.scene}, num_snapshots={track.num_snapshots}"
            )
    snapshots = np.arange(length)
    return np.concatenate(
        [true_channels(track, data.array, data.frequencies, snapshots) for track in tracks]
    )


def draw_histories(
    h: Array, data: DataConfig, seed: int | list[int], augment: bool
) -> tuple[Array, Array]:
    """Draws noisy histories and clean futures from true channels.

    Augmentation applies what leaves the physics of an array of half wavelengths unchanged: a common
    phase, a shift of all angles (a phase ramp over antennas), of all delays (over subcarriers) and
    of all Doppler shifts (over snapshots), and the reversal of time.

    Args:
        h: True channels, complex64 `[batch, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        data: `DataConfig`.
        seed: Seed, an integer or a sequence of them.
        augment: Whether to augment.

    Returns:
        Tuple of the history and the future, real `[batch, time, num_ant, num_subcarriers, 2]`,
        both scaled by the root mean square of the true history, so that one sequence weighs as
        much as another.
    """
    rng = np.random.default_rng(seed)
    if augment:
        h = augment_channels(h, rng)
    past = h[:, : data.num_history]
    history = add_noise(past, rng.uniform(*data.history_snr_db, len(h)), rng)
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), keepdims=True))
    return stack_complex(history / scale), stack_complex(h[:, data.num_history :] / scale)


class PredictionDataset(keras.utils.PyDataset):
    """Batches of what the network sees and should predict, in the angle-delay domain.

    The physics in front of the network has no weights, so it is computed once, for every draw of
    noise and augmentation, and kept in memory (about 0.3 MB per draw).

    The order of a pass depends on the seed and the epoch only, so a resumed training sees what the
    uninterrupted one would have seen.

    Args:
        physics: Compiled `Physics`.
        h: True channels, complex64 `[num_sequences, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        data: `DataConfig`.
        batch_size: Sequences per batch.
        seed: Seed of the draws and of the order.
        num_draws: Draws of noise and augmentation per sequence, shuffled; 0 for one draw without
            augmentation, in order.
    """

    def __init__(
        self,
        physics: "Physics",
        h: Array,
        data: DataConfig,
        batch_size: int,
        seed: int,
        num_draws: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.shuffled = num_draws > 0
        self.epoch = 0
        parts = []
        blocks = [
            (d, begin) for d in range(max(1, num_draws)) for begin in range(0, len(h), _BLOCK)
        ]
        for draw, begin in progress_bar(blocks, desc="linear prediction", unit="batch"):
            key = [seed, int(self.shuffled), draw, begin]
            drawn = draw_histories(h[begin : begin + _BLOCK], data, key, self.shuffled)
            count = len(drawn[0])
            padding = [(0, _BLOCK - count)] + [(0, 0)] * 4
            outputs = physics.predict_on_batch(tuple(np.pad(x, padding, "edge") for x in drawn))
            parts.append({name: np.asarray(value)[:count] for name, value in outputs.items()})
        self.features = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        self.targets = self.features.pop("target")

    def __len__(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, Array], Array]:
        order = np.arange(len(self.targets))
        if self.shuffled:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        # The last batch wraps around: one shape, one compiled program.
        begin = index * self.batch_size
        rows = order[np.arange(begin, begin + self.batch_size) % len(order)]
        return {n: value[rows] for n, value in self.features.items()}, self.targets[rows]


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

    def call(self, inputs: tuple[Any, Any]) -> dict[str, Any]:
        """See the class."""
        history, future = inputs
        frame, past = self.predictor.frame(history)
        return {**self.predictor.features(past), "target": frame.into(future)}


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


def stack_complex(h: Array) -> Array:
    """Complex64 `[...]` as real float32 `[..., 2]`."""
    return np.ascontiguousarray(h).view(np.float32).reshape(*h.shape, 2)
