"""Training of channel predictors on stored path sequences."""

import dataclasses
import json
import logging
import pathlib
import tomllib

import keras
import numpy as np

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
from lwmt_sionna.ops import Neighborhood

logger = logging.getLogger(__name__)

__all__ = ["PredictionDataset", "TrainConfig", "build_predictor", "load_training_data", "train"]


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
        orders: Orders of linear prediction.
        denoise_radius: Arm of the denoising cross in bins.
        window: Half-widths of the neighbourhood in the own snapshot, in patches.
        corridor: Half-widths in other snapshots, in patches.
        time_offsets: Offsets of the other snapshots.
        drift: Patches per snapshot by which the corridor widens.
        leakage: Patches of the corridor that do not depend on the time distance.
        kernel: Kernel of the attention; decides time and memory only.
        epochs: Passes over the training sequences.
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
    orders: tuple = (2, 4, 6)
    denoise_radius: int = 2
    window: tuple = (1, 1)
    corridor: tuple = (1, 1)
    time_offsets: tuple = (-4, -3, -2, -1, 1, 2, 3, 4)
    drift: tuple = (0.0, 0.0)
    leakage: tuple = (1, 1)
    kernel: str = "auto"
    epochs: int = 20
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
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db must be (lowest, highest). Received: snr_db={self.snr_db}")

    @classmethod
    def from_toml(cls, path):
        """Reads a configuration from a TOML file; an unknown key is an error."""
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no configuration here. Received: path={path}")
        with path.open("rb") as file:
            values = tomllib.load(file)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"Unknown keys in {path}; expected {', '.join(sorted(known))}. Received: "
                f"{', '.join(unknown)}"
            )
        return cls(**values)

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


class PredictionDataset(keras.utils.PyDataset):
    """Batches of noisy histories and clean futures, new noise and augmentation every epoch.

    Augmentation applies what leaves the physics of an array of half wavelengths unchanged: a common
    phase, a shift of all angles (a phase ramp over antennas), of all delays (over subcarriers) and
    of all Doppler shifts (over snapshots), and the reversal of time.

    A batch depends on the seed, the epoch and its index only, so a resumed training sees what the
    uninterrupted one would have seen.

    Args:
        h: True channels, complex64 `[num_sequences, num_history + num_horizons, num_ant,
            num_subcarriers]`.
        config: `TrainConfig`.
        augment: Whether to shuffle and augment.
        **kwargs: Arguments of `keras.utils.PyDataset`.
    """

    def __init__(self, h, config, augment, **kwargs):
        super().__init__(**kwargs)
        self.h = h
        self.config = config
        self.augment = augment
        self.epoch = 0

    def __len__(self):
        return max(1, len(self.h) // self.config.batch_size)

    def __getitem__(self, index):
        config = self.config
        epoch = self.epoch if self.augment else 0
        rng = np.random.default_rng([config.seed, int(self.augment), epoch, index])
        order = np.arange(len(self.h))
        if self.augment:
            order = np.random.default_rng([config.seed, epoch]).permutation(order)
        # The last, smaller batch of the validation joins the one before: shapes stay few.
        h = self.h[order[index * config.batch_size :][: config.batch_size]]
        if self.augment:
            h = _augment(h, rng)
        past = h[:, : config.num_history]
        snr_db = rng.uniform(*config.snr_db, len(h))
        # The target is scaled like the true history: one sequence weighs as much as another.
        scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), keepdims=True))
        history = add_noise(past, snr_db, rng) / scale
        return _stacked(history), _stacked(h[:, config.num_history :] / scale)


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
        kernel=config.kernel,
        name="backbone",
    )
    predictor = ChannelPredictor(
        backbone,
        num_horizons=config.num_horizons,
        orders=config.orders,
        context=config.context,
        denoise_radius=config.denoise_radius,
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
    workdir.mkdir(parents=True, exist_ok=True)
    _claim(workdir, config)
    training, validation, counts = load_training_data(config)
    logger.info("%d training and %d validation sequences", len(training), len(validation))
    predictor = build_predictor(config)
    dataset = PredictionDataset(training, config, augment=True)
    held_out = PredictionDataset(validation, config, augment=False)
    steps = config.epochs * len(dataset)
    warmup = max(1, int(config.warmup_share * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    predictor.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=config.weight_decay, global_clipnorm=1.0
        ),
        loss=LogNormalizedError(),
        jit_compile=True,
    )
    untrained = float(predictor.evaluate(held_out, verbose=0))
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
    predictor.fit(
        dataset,
        validation_data=held_out,
        epochs=config.epochs,
        callbacks=callbacks,
        verbose=verbose,
    )
    predictor.load_weights(best)
    trained = float(predictor.evaluate(held_out, verbose=0))
    return predictor, {
        "sequences": counts,
        "validation_loss_db": trained,
        "validation_loss_untrained_db": untrained,
    }


def _claim(workdir, config):
    note = workdir / "config.json"
    if note.is_file():
        if json.loads(note.read_text()) != config.to_dict():
            raise ValueError(
                "The folder holds a training of another configuration; choose another one or "
                f"remove it. Received: workdir={workdir}"
            )
        return
    partial = note.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_dict(), indent=1))
    partial.replace(note)


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
