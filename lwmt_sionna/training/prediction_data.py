"""Sequences for training: histories and futures, noise, augmentation, and the physics in front."""

import keras
import numpy as np
from tqdm import tqdm

from lwmt_sionna.data import (
    PlanarArray,
    add_noise,
    read_paths,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
)
from lwmt_sionna.models.normalization import Frame

__all__ = [
    "PredictionDataset",
    "augment_channels",
    "compile_physics",
    "draw_histories",
    "load_training_data",
    "stack_complex",
]


def draw_histories(h, config, seed, augment):
    """Draws noisy histories and clean futures from true channels.

    Augmentation applies what leaves the physics of an array of half wavelengths unchanged: a common
    phase, a shift of all angles (a phase ramp over antennas), of all delays (over subcarriers) and
    of all Doppler shifts (over snapshots), and the reversal of time.

    Args:
        h: True channels, complex64 `[batch, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        config: `TrainConfig`.
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
    past = h[:, : config.num_history]
    history = add_noise(past, rng.uniform(*config.snr_db, len(h)), rng)
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), keepdims=True))
    return stack_complex(history / scale), stack_complex(h[:, config.num_history :] / scale)


class PredictionDataset(keras.utils.PyDataset):
    """Batches of what the network sees and should predict, in the angle-delay domain.

    The physics in front of the network has no weights, so it is computed once, for `num_draws`
    draws of noise and augmentation per sequence, and kept in memory (about 0.3 MB per draw).

    The order of a pass depends on the seed and the epoch only, so a resumed training sees what the
    uninterrupted one would have seen.

    Args:
        predictor: `ChannelPredictor`, for its physics.
        h: True channels, complex64 `[num_sequences, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        config: `TrainConfig`.
        augment: Whether to augment and shuffle; without, there is one draw.
        physics: What `compile_physics` returns, so that several data sets share one program.
        **kwargs: Arguments of `keras.utils.PyDataset`.
    """

    def __init__(self, predictor, h, config, augment, physics=None, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.augment = augment
        self.epoch = 0
        physics = compile_physics(predictor) if physics is None else physics
        parts = []
        size = 32
        draws = range(config.num_draws if augment else 1)
        blocks = [(draw, begin) for draw in draws for begin in range(0, len(h), size)]
        for draw, begin in tqdm(blocks, desc="linear prediction", unit="batch", disable=None):
            seed = [config.seed, int(augment), draw, begin]
            history, future = draw_histories(h[begin : begin + size], config, seed, augment)
            count = len(history)
            padding = [(0, size - count)] + [(0, 0)] * 4
            inputs = (np.pad(history, padding, mode="edge"), np.pad(future, padding, mode="edge"))
            outputs = physics.predict_on_batch(inputs)
            parts.append({name: np.asarray(value)[:count] for name, value in outputs.items()})
        self.features = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        self.targets = self.features.pop("target")

    def __len__(self):
        return -(-len(self.targets) // self.config.batch_size)

    def __getitem__(self, index):
        size = self.config.batch_size
        order = np.arange(len(self.targets))
        if self.augment:
            order = np.random.default_rng([self.config.seed, self.epoch]).permutation(order)
        # The last batch wraps around: one shape, one compiled program.
        rows = order[np.arange(index * size, (index + 1) * size) % len(order)]
        return {n: value[rows] for n, value in self.features.items()}, self.targets[rows]


def compile_physics(predictor):
    """Compiles the part of a predictor without weights.

    Args:
        predictor: `ChannelPredictor`.

    Returns:
        Keras model from history and future to the features and the target of the network.
    """
    physics = _Physics(predictor)
    physics.compile(jit_compile=keras.backend.backend() != "torch")
    return physics


class _Physics(keras.Model):
    """The part of a predictor without weights, with the target in the same domain and scale."""

    def __init__(self, predictor):
        super().__init__(name="physics")
        self.predictor = predictor

    def call(self, inputs):
        history, future = inputs
        frame, past = Frame.of(history, self.predictor.transform)
        return {**self.predictor.features(past), "target": frame.into(future)}


def load_training_data(config):
    """Synthesises the channels of all files, split by trajectory.

    Args:
        config: `TrainConfig`.

    Returns:
        Tuple of the training and validation channels, complex64 `[num_sequences, num_history +
        num_horizons, num_ant, num_subcarriers]`, and a dictionary of counts.
    """
    array = PlanarArray(1, config.num_ant)
    frequencies = subcarrier_frequencies(config.num_subcarriers, config.subcarrier_spacing)
    length = config.num_history + config.num_horizons
    training, validation, counts = [], [], {}
    for name in config.data:
        paths = read_paths(name)
        if paths.num_snapshots < length:
            raise ValueError(
                f"The sequences are too short: expected at least {length} snapshots. Received: "
                f"path={name}, num_snapshots={paths.num_snapshots}"
            )
        vanishing = vanishing_mask(paths)
        parts = split_by_trajectory(
            paths.select(~vanishing), config.validation_share, seed=config.seed
        )
        for part, target in zip(parts, (training, validation), strict=True):
            target.append(synthesize(part, array, frequencies, snapshots=np.arange(length)))
        counts[paths.scene] = {
            "training": parts[0].num_sequences,
            "validation": parts[1].num_sequences,
            "left_out_vanishing": int(vanishing.sum()),
        }
    return np.concatenate(training), np.concatenate(validation), counts


def augment_channels(h, rng, doppler=0.5):
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


def stack_complex(h):
    """Complex64 `[...]` as real float32 `[..., 2]`."""
    return np.ascontiguousarray(h).view(np.float32).reshape(*h.shape, 2)
