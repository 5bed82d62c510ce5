"""Training of channel predictors on stored path sequences, from scratch."""

import dataclasses
import logging
import pathlib
from typing import NamedTuple

import keras

from lwmt_sionna.models import ChannelPredictor, LogNormalizedError, LWMTBackbone
from lwmt_sionna.ops import EnergyRouting, Neighborhood
from lwmt_sionna.runs.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.training.prediction_data import (
    PredictionDataset,
    compile_physics,
    load_training_data,
)

logger = logging.getLogger(__name__)

__all__ = ["Refinement", "TrainConfig", "TrainingData", "build_predictor", "prepare", "train"]


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
        whole_experts: Pairs (window, order) of the linear predictions of the whole history beside
            the paths.
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
    whole_experts: tuple = ()
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


class Refinement(keras.Model):
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
        whole_experts=config.whole_experts,
        name="predictor",
    )
    shape = (None, config.num_history, config.num_ant, config.num_subcarriers, 2)
    predictor.build(shape)
    return predictor


class TrainingData(NamedTuple):
    """What a training learns from and is judged by: see `prepare`.

    Attributes:
        training: `PredictionDataset` with augmentation.
        validation: `PredictionDataset` without.
        counts: Dictionary of the numbers of sequences.
    """

    training: PredictionDataset
    validation: PredictionDataset
    counts: dict


def prepare(config, build=build_predictor):
    """Draws the histories of a training and computes the physics in front of the network.

    Args:
        config: `TrainConfig`.
        build: See `train`; models of one physics may share the data of any of them.

    Returns:
        `TrainingData`.
    """
    training, validation, counts = load_training_data(config)
    logger.info("%d training and %d validation sequences", len(training), len(validation))
    predictor = build(config)
    physics = compile_physics(predictor)
    return TrainingData(
        PredictionDataset(predictor, training, config, True, physics),
        PredictionDataset(predictor, validation, config, False, physics),
        counts,
    )


def train(config, workdir, *, build=build_predictor, data=None, verbose="auto"):
    """Trains a predictor; resumes where an earlier run in the same folder stopped.

    Args:
        config: `TrainConfig`.
        workdir: Folder for backups, checkpoints and logs.
        build: Callable from the configuration to a built, untrained predictor, for models with the
            `transform`, `features` and `refine` of a `ChannelPredictor`.
        data: `TrainingData` of this configuration, if it has been prepared already for another
            model of the same physics.
        verbose: See `keras.Model.fit`.

    Returns:
        Tuple of the trained predictor (weights of the best validation loss) and a
        dictionary of counts and losses.

    Raises:
        ValueError: If the folder holds a training of another configuration.
    """
    workdir = pathlib.Path(workdir)
    claim_folder(workdir, config)
    data = prepare(config, build) if data is None else data
    dataset, held_out, counts = data
    predictor = build(config)
    refinement = Refinement(predictor)
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
        jit_compile=keras.backend.backend() != "torch" and getattr(predictor, "train_by_xla", True),
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
