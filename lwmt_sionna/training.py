"""Training of channel predictors on stored path sequences."""

import dataclasses
import logging
import pathlib

import keras
import numpy as np
from tqdm import tqdm

from lwmt_sionna.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.data import (
    PlanarArray,
    add_noise,
    read_paths,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
)
from lwmt_sionna.models import ChannelPredictor, LogNormalizedError, LWMTBackbone
from lwmt_sionna.ops import EnergyRouting, Neighborhood

logger = logging.getLogger(__name__)

__all__ = [
    "PredictionDataset",
    "TrainConfig",
    "build_predictor",
    "draw_histories",
    "load_training_data",
    "train",
]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training.

    Attributes:
        data: Paths of the HDF5 files of path sequences, one per scene.
        validation_share: Share of the trajectories of every file that is held out.
        num_ant: Antennas of the linear array.
        num_subcarriers: Subcarriers of the CSI grid.
        subcarrier_spacing: Distance of the subcarriers in hertz.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        snr_db: Lowest and highest pilot SNR of the histories in decibels, drawn uniformly.
        width: Width of the tokens.
        depth: Number of encoder blocks.
        num_heads: Heads per block.
        mlp_ratio: Hidden units of the perceptrons over the width.
        patch: Bins per patch in angle and delay.
        context: Most recent snapshots that the network sees.
        experts: Pairs (window, order) of the linear predictions.
        denoise_radius: Arm of the denoising cross in bins.
        num_paths: Largest number of paths to resolve; 0 for linear prediction alone.
        window: Half-widths of the neighbourhood in the own snapshot, in patches.
        corridor: Half-widths in other snapshots, in patches.
        time_offsets: Offsets of the other snapshots.
        drift: Patches per snapshot by which the corridor widens.
        leakage: Patches of the corridor that do not depend on the time distance.
        kept_patches: Angle and delay patches, those with most energy, that the network works on;
            all of them if left out. See `EnergyRouting`.
        kernel: Kernel of the attention; decides time and memory only.
        num_draws: Draws of noise and augmentation per training sequence.
        epochs: Passes over all draws of the training sequences.
        batch_size: Sequences per step.
        learning_rate: Peak of the learning rate; cosine decay to zero after a linear warm-up.
        warmup_share: Share of the steps spent on the warm-up.
        weight_decay: Decoupled weight decay.
        seed: Seed of weights, order, noise and augmentation.
    """

    data: tuple
    validation_share: float = 0.1
    num_ant: int = 32
    num_subcarriers: int = 32
    subcarrier_spacing: float = 540e3
    num_history: int = 16
    num_horizons: int = 5
    snr_db: tuple = (0.0, 30.0)
    width: int = 64
    depth: int = 2
    num_heads: int = 4
    mlp_ratio: float = 2
    patch: tuple = (4, 4)
    context: int = 4
    experts: tuple = ((6, 2), (10, 4), (16, 2), (16, 4), (16, 6))
    denoise_radius: int = 2
    num_paths: int = 0
    window: tuple = (1, 1)
    corridor: tuple = (1, 1)
    time_offsets: tuple = (-4, -3, -2, -1, 1, 2, 3, 4)
    drift: tuple = (0.0, 0.0)
    leakage: tuple = (1, 1)
    kept_patches: tuple = ()
    kernel: str = "auto"
    num_draws: int = 4
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup_share: float = 0.05
    weight_decay: float = 1e-2
    seed: int = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if not self.data:
            raise ValueError("data must name at least one file. Received: data=()")
        for name in ("epochs", "batch_size", "num_history", "num_horizons", "context"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {name}={value}")
        if len(self.kept_patches) not in (0, 2):
            raise ValueError(
                "kept_patches must be two numbers (angle, delay) or empty. Received: "
                f"kept_patches={self.kept_patches}"
            )
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db must be (lowest, highest). Received: snr_db={self.snr_db}")

    @classmethod
    def from_toml(cls, path):
        """Reads a configuration from a TOML file; an unknown key is an error."""
        return from_toml(cls, path)

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return to_json(self)


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
        h = _augment(h, rng)
    past = h[:, : config.num_history]
    history = add_noise(past, rng.uniform(*config.snr_db, len(h)), rng)
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), keepdims=True))
    return _stacked(history / scale), _stacked(h[:, config.num_history :] / scale)


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
        **kwargs: Arguments of `keras.utils.PyDataset`.
    """

    def __init__(self, predictor, h, config, augment, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.augment = augment
        self.epoch = 0
        physics = _Physics(predictor)
        physics.compile(jit_compile=keras.backend.backend() != "torch")
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


class _Physics(keras.Model):
    """The part of a predictor without weights, with the target in the same domain and scale."""

    def __init__(self, predictor):
        super().__init__(name="physics")
        self.predictor = predictor

    def call(self, inputs):
        history, future = inputs
        square = 2.0 * keras.ops.mean(keras.ops.square(history), axis=(1, 2, 3, 4), keepdims=True)
        scale = keras.ops.sqrt(square)
        features = self.predictor.features(self.predictor.transform(history / scale))
        return {**features, "target": self.predictor.transform(future / scale)}


class _Refinement(keras.Model):
    """The part of a predictor with weights, from features to prediction."""

    def __init__(self, predictor):
        super().__init__(name="refinement")
        self.predictor = predictor

    def build(self, input_shape):
        self.built = True

    def call(self, features, training=None):
        correction = self.predictor.refine(features, training=training)
        return features["forecasts"][:, -1] + correction


class _EpochSetter(keras.callbacks.Callback):
    """Tells the dataset which epoch it serves, also after a resume."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.epoch = epoch


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


def build_predictor(config):
    """Builds the untrained predictor of a configuration."""
    keras.utils.set_random_seed(config.seed)
    neighborhood = Neighborhood(
        window=config.window,
        time_offsets=config.time_offsets,
        corridor=config.corridor,
        drift=config.drift,
        leakage=config.leakage,
    )
    backbone = LWMTBackbone(
        width=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        patch=config.patch,
        neighborhood=neighborhood,
        routing=EnergyRouting(*config.kept_patches) if config.kept_patches else None,
        kernel=config.kernel,
        name="backbone",
    )
    predictor = ChannelPredictor(
        backbone,
        num_horizons=config.num_horizons,
        experts=config.experts,
        context=config.context,
        denoise_radius=config.denoise_radius,
        num_paths=config.num_paths,
        name="predictor",
    )
    shape = (None, config.num_history, config.num_ant, config.num_subcarriers, 2)
    predictor.build(shape)
    return predictor


def train(config, workdir, *, verbose="auto"):
    """Trains a predictor; resumes where an earlier run in the same folder stopped.

    Args:
        config: `TrainConfig`.
        workdir: Folder for backups, checkpoints and logs.
        verbose: See `keras.Model.fit`.

    Returns:
        Tuple of the trained `ChannelPredictor` (weights of the best validation loss) and a
        dictionary of counts and losses.

    Raises:
        ValueError: If the folder holds a training of another configuration.
    """
    workdir = pathlib.Path(workdir)
    claim_folder(workdir, config)
    training, validation, counts = load_training_data(config)
    logger.info("%d training and %d validation sequences", len(training), len(validation))
    predictor = build_predictor(config)
    dataset = PredictionDataset(predictor, training, config, augment=True)
    held_out = PredictionDataset(predictor, validation, config, augment=False)
    refinement = _Refinement(predictor)
    steps = config.epochs * len(dataset)
    warmup = max(1, int(config.warmup_share * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    refinement.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=config.weight_decay, global_clipnorm=1.0
        ),
        loss=LogNormalizedError(),
        jit_compile=keras.backend.backend() != "torch",
    )
    untrained = float(refinement.evaluate(held_out, verbose=0))
    logger.info("validation loss of linear prediction alone: %.2f dB", untrained)
    best = workdir / "best.weights.h5"
    callbacks = [
        _EpochSetter(dataset),
        keras.callbacks.BackupAndRestore(str(workdir / "backup")),
        keras.callbacks.ModelCheckpoint(
            str(best), monitor="val_loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.CSVLogger(str(workdir / "history.csv"), append=True),
        keras.callbacks.TerminateOnNaN(),
    ]
    if keras.backend.backend() == "tensorflow":
        callbacks.append(keras.callbacks.TensorBoard(str(workdir / "tensorboard")))
    refinement.fit(
        dataset,
        validation_data=held_out,
        epochs=config.epochs,
        callbacks=callbacks,
        verbose=verbose,
    )
    refinement.load_weights(best)
    trained = float(refinement.evaluate(held_out, verbose=0))
    return predictor, {
        "sequences": counts,
        "validation_loss_db": trained,
        "validation_loss_untrained_db": untrained,
    }


def _augment(h, rng):
    num_sequences, num_snapshots, num_ant, num_subcarriers = h.shape
    ramp = np.exp(2j * np.pi * rng.uniform(size=(num_sequences, 1, 1, 1)))
    for axis, size in enumerate((num_snapshots, num_ant, num_subcarriers)):
        slope = rng.uniform(size=(num_sequences, 1, 1, 1))
        shape = [1, 1, 1, 1]
        shape[axis + 1] = size
        ramp = ramp * np.exp(2j * np.pi * slope * np.arange(size).reshape(shape))
    h = h * ramp.astype(np.complex64)
    reverse = rng.uniform(size=num_sequences) < 0.5
    h[reverse] = h[reverse, ::-1].conj()
    return h


def _stacked(h):
    return np.ascontiguousarray(h).view(np.float32).reshape(*h.shape, 2)
