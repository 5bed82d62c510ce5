"""Masked channel modelling: pretraining of a backbone by the physics-informed curriculum."""

import dataclasses
import logging
import pathlib

import keras
import numpy as np

from lwmt_sionna.data import ClusterConfig
from lwmt_sionna.masking import Curriculum
from lwmt_sionna.models import MaskedChannelModel
from lwmt_sionna.models.losses import token_error
from lwmt_sionna.runs.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.training.architecture import ModelConfig
from lwmt_sionna.training.devices import DataParallel
from lwmt_sionna.training.loop import OutputAsLoss, run_steps
from lwmt_sionna.training.optimization import (
    OptimizationConfig,
    averaged_weights,
    build_optimizer,
)
from lwmt_sionna.training.sources import ChannelPool, SourceConfig

logger = logging.getLogger(__name__)

__all__ = ["MaskedTraining", "PretrainConfig", "build_masked_model", "compile_masked", "pretrain"]

LOSSES = ("ratio", "log")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the outcome of a pretraining.

    Attributes:
        source: `SourceConfig`: scenes, clusters, grids, bands, periods.
        clusters: `lwmt_sionna.data.ClusterConfig`: the random clusters.
        model: `ModelConfig`: the backbone.
        optimization: `OptimizationConfig`: steps and optimiser.
        curriculum: `Curriculum`: masks, impairments and their schedule.
        loss: `"ratio"`, error over power of the tokens that are asked for, or `"log"`, its
            logarithm, in which hard sequences weigh as much as easy ones.
        power_floor: Share of the mean power of all tokens that each of them has at least in that
            ratio.
        seed: Seed of weights, data, masks and impairments.
    """

    source: SourceConfig
    clusters: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    curriculum: Curriculum = dataclasses.field(default_factory=Curriculum)
    loss: str = "log"
    power_floor: float = 0.05
    seed: int = 1

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {LOSSES}. Received: loss={self.loss}")
        if not 0 <= self.power_floor < 1:
            raise ValueError(
                f"power_floor must lie in [0, 1). Received: power_floor={self.power_floor}"
            )

    @classmethod
    def from_toml(cls, path, overrides=None):
        """Reads a configuration with tables `[source]`, `[clusters]`, `[model]`, `[optimization]`
        and `[curriculum]` from a TOML file; an unknown key is an error."""
        return from_toml(
            cls,
            path,
            overrides=overrides,
            source=SourceConfig,
            clusters=ClusterConfig,
            model=ModelConfig,
            optimization=OptimizationConfig,
            curriculum=Curriculum,
        )

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return to_json(self)

    def ablated(self, without=(), only=()):
        """The configuration with another curriculum.

        Args:
            without: Names of masks and impairments to leave out.
            only: Names of the masks to keep, if not all; impairments stay.

        Returns:
            `PretrainConfig`.

        Raises:
            ValueError: If a name is not part of the curriculum.
        """
        curriculum = self.curriculum
        if only:
            unknown = sorted(set(only) - set(curriculum.masks))
            if unknown:
                raise ValueError(
                    f"The curriculum has no such masks; expected some of "
                    f"{', '.join(curriculum.masks)}. Received: {', '.join(unknown)}"
                )
            curriculum = curriculum.only(*only)
        if without:
            curriculum = curriculum.without(*without)
        return dataclasses.replace(self, curriculum=curriculum)


class MaskedTraining(keras.Model):
    """Draws a view of true channels by the curriculum and measures the reconstruction.

    Masks and impairments are drawn inside of the compiled step, from a generator whose state is
    part of the checkpoints.

    Args:
        model: `MaskedChannelModel`.
        curriculum: `Curriculum`.
        seed_generator: `keras.random.SeedGenerator`.
        loss: See `PretrainConfig`.
        power_floor: See `PretrainConfig`.

    Call arguments:
        inputs: Dictionary of `h`, true channels, real `[batch, num_snapshots, num_ant,
            num_subcarriers, 2]`, and `progress` of the training in [0, 1], `[batch]`, the same for
            all.

    Returns:
        Loss of every sequence, float32 `[batch]`.
    """

    def __init__(self, model, curriculum, seed_generator, loss="log", power_floor=0.05):
        super().__init__(name="masked_training", autocast=False)
        self.model = model
        self.curriculum = curriculum
        self.seed_generator = seed_generator
        self.loss_kind = loss
        self.power_floor = power_floor

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, training=None):
        patch = self.model.backbone.patch
        view = self.curriculum.view(
            inputs["h"], self.seed_generator, keras.ops.max(inputs["progress"]), patch
        )
        view = {name: keras.ops.stop_gradient(value) for name, value in view.items()}
        seen = {"channel": view["observed"], "mask": view["hidden"]}
        guess = self.model(seen, training=training)
        ratio = token_error(view["target"], guess, view["wanted"], patch, self.power_floor)
        if self.loss_kind == "ratio":
            return ratio
        return 10.0 / 2.302585093 * keras.ops.log(ratio + 1e-4)


def build_masked_model(config, max_snapshots=None):
    """Builds the untrained model of a configuration.

    Args:
        config: `PretrainConfig`, or any with `model`, `optimization` and `seed`.
        max_snapshots: Longest sequence; that of the grids by default.

    Returns:
        `MaskedChannelModel`, built.
    """
    keras.utils.set_random_seed(config.seed)
    if max_snapshots is None:
        max_snapshots = max(grid[0] for grid in config.source.grids)
    precision = config.optimization.precision
    backbone = config.model.build_backbone(max_snapshots, config.seed, precision)
    model = MaskedChannelModel(
        backbone,
        local_scale=config.model.local_scale,
        local_motion=config.model.local_motion,
        dtype=precision,
        name="masked_channel_model",
    )
    model.build(None)
    return model


def compile_masked(model, grids, curriculum, optimizer, config, jit_compile=True):
    """Compiles one training model per grid; all share weights, optimiser and random generator.

    Args:
        model: `MaskedChannelModel`.
        grids: Shapes of the batches; a batch of another shape would be another program.
        curriculum: `Curriculum`.
        optimizer: Built Keras optimiser.
        config: Configuration with `loss`, `power_floor` and `seed`.
        jit_compile: See `DataParallel.jit_compile`.

    Returns:
        Dictionary from grid to compiled `MaskedTraining`.
    """
    generator = keras.random.SeedGenerator(config.seed)
    models = {}
    for grid in grids:
        training = MaskedTraining(model, curriculum, generator, config.loss, config.power_floor)
        training.build(None)
        training.compile(
            optimizer=optimizer,
            loss=OutputAsLoss(),
            jit_compile=jit_compile,
            auto_scale_loss=False,
        )
        models[grid] = training
    return models


def pretrain(config, workdir, *, num_devices=1, scenes=None, verbose="auto"):
    """Pretrains a model; goes on where an earlier run in the same folder stopped.

    Args:
        config: `PretrainConfig`.
        workdir: Folder for checkpoints and the log.
        num_devices: Number of devices that share every batch.
        scenes: Training `PathSequences`, if they have been read already: see `load_scenes`.
        verbose: 0 for no progress bar.

    Returns:
        Tuple of the trained `MaskedChannelModel`, with the moving average of its weights, and the
        losses, a list of dictionaries.

    Raises:
        ValueError: If the folder holds a training of another configuration.
        NotFiniteError: See `run_steps`.
    """
    workdir = pathlib.Path(workdir)
    claim_folder(workdir, config)
    devices = DataParallel(num_devices)
    settings = config.optimization
    pool = ChannelPool(config.source, config.seed, settings.batch_size, config.clusters, scenes)
    with devices.scope():
        model = build_masked_model(config)
        optimizer = build_optimizer(settings, model.trainable_variables)
        models = compile_masked(
            model, config.source.grids, config.curriculum, optimizer, config, devices.jit_compile
        )

    def draw_batch(step):
        grid, h = pool.draw(step)
        progress = np.full(len(h), step / settings.steps, np.float32)
        return grid, {"h": h, "progress": progress}, np.zeros(len(h), np.float32)

    _, history = run_steps(
        models, optimizer, draw_batch, settings, workdir, devices=devices, verbose=verbose
    )
    with averaged_weights(optimizer):
        weights = [keras.ops.convert_to_numpy(v) for v in model.variables]
    for variable, value in zip(model.variables, weights, strict=True):
        variable.assign(value)
    return model, history
