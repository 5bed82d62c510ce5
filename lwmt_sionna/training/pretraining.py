"""Masked channel modelling: pretraining of a backbone by the physics-informed curriculum."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np

from lwmt_sionna.data import ClusterConfig
from lwmt_sionna.masking import Curriculum
from lwmt_sionna.models import MaskedChannelModel
from lwmt_sionna.models.losses import token_error
from lwmt_sionna.runs.configuration import Config, NonNegativeInt
from lwmt_sionna.training.configuration import ModelConfig, OptimizationConfig, Portion
from lwmt_sionna.training.loop import OutputAsLoss, Task
from lwmt_sionna.training.optimization import DataParallel, build_optimizer
from lwmt_sionna.training.prediction import build_masked
from lwmt_sionna.training.sources import ChannelPool, Scenes, SourceConfig
from lwmt_sionna.typing import PathLike, Tensor

__all__ = ["MaskedTraining", "PretrainConfig"]


@dataclasses.dataclass(frozen=True)
class PretrainConfig(Config):
    """Everything that decides the outcome of a pretraining.

    Attributes:
        source: `SourceConfig`: scenes, clusters, grids, bands, periods.
        clusters: `lwmt_sionna.data.ClusterConfig`: the random clusters.
        model: `ModelConfig`: the backbone.
        optimization: `OptimizationConfig`: steps and optimiser; a pass over the data is a pool.
        curriculum: `Curriculum`: masks, impairments and their schedule.
        power_floor: Share of the mean power of all tokens that each of them has at least in the
            loss, the logarithm of error over power of the tokens that are asked for.
        seed: Seed of weights, data, masks and impairments.
    """

    source: SourceConfig
    clusters: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    curriculum: Curriculum = dataclasses.field(default_factory=Curriculum)
    power_floor: Portion = 0.05
    seed: NonNegativeInt = 1

    def ablated(self, without: Sequence[str] = (), only: Sequence[str] = ()) -> Self:
        """The configuration with another curriculum.

        Args:
            without: Names of masks and impairments to leave out.
            only: Names of the masks to keep, if not all; impairments stay.

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

    def inputs(self) -> list[str]:
        """Paths of the files that a training reads."""
        return list(self.source.data)

    def build(self) -> MaskedChannelModel:
        """Builds the untrained model."""
        keras.utils.set_random_seed(self.seed)
        return build_masked(self, max(grid[0] for grid in self.source.grids))

    def prepare(
        self,
        model: MaskedChannelModel,
        devices: DataParallel,
        data: Scenes | None = None,
        folder: PathLike | None = None,
    ) -> Task:
        """Makes ready what a training needs: see `lwmt_sionna.training.train`.

        One training model is compiled per grid; all share weights, optimiser and random generator.
        `data` are training sequences, if they have been read already: see `load_scenes`. Nothing
        is kept in the folder.
        """
        settings = self.optimization
        epoch = self.source.pool_steps
        num_steps = settings.num_steps(epoch)
        pool = ChannelPool(self.source, self.seed, settings.batch_size, self.clusters, data)
        optimizer = build_optimizer(settings, model.trainable_variables, num_steps)
        generator = keras.random.SeedGenerator(self.seed)
        models = {}
        for grid in self.source.grids:
            models[grid] = MaskedTraining(model, self.curriculum, generator, self.power_floor)
            models[grid].build(None)
            models[grid].compile(
                optimizer=optimizer,
                loss=OutputAsLoss(),
                jit_compile=devices.jit_compile,
                auto_scale_loss=False,
            )

        def draw_batch(step):
            grid, channels = pool.draw(step)
            count = len(channels.h)
            progress = np.full(count, step / num_steps, np.float32)
            inputs = {**channels._asdict(), "progress": progress}
            return grid, inputs, np.zeros(count, np.float32)

        return Task(
            model=model,
            models=models,
            optimizer=optimizer,
            draw_batch=draw_batch,
            num_steps=num_steps,
            epoch=epoch,
        )


class MaskedTraining(keras.Model):
    """Draws a view of true channels by the curriculum and measures the reconstruction.

    Masks and impairments are drawn inside of the compiled step, from a generator whose state is
    part of the checkpoints.

    Args:
        model: `MaskedChannelModel`.
        curriculum: `Curriculum`.
        seed_generator: `keras.random.SeedGenerator`.
        power_floor: See `PretrainConfig`.

    Call arguments:
        inputs: Dictionary of `h`, true channels, real `[batch, num_snapshots, num_ant,
            num_subcarriers, 2]`, their `sampling_period` and `bandwidth`, `[batch]`, and `progress`
            of the training in [0, 1], `[batch]`, the same for all.

    Returns:
        Loss of every sequence, float32 `[batch]`.
    """

    def __init__(
        self,
        model: MaskedChannelModel,
        curriculum: Curriculum,
        seed_generator: keras.random.SeedGenerator,
        power_floor: float = 0.05,
    ) -> None:
        super().__init__(name="masked_training", autocast=False)
        self.model = model
        self.curriculum = curriculum
        self.seed_generator = seed_generator
        self.power_floor = power_floor

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """See the class."""
        patch = self.model.backbone.patch
        view = self.curriculum.view(
            inputs["h"], self.seed_generator, keras.ops.max(inputs["progress"]), patch
        )
        view = {name: keras.ops.stop_gradient(value) for name, value in view.items()}
        seen = {"channel": view["observed"], "mask": view["hidden"]}
        if self.model.backbone.position_units is not None:
            seen |= {name: inputs[name] for name in ("sampling_period", "bandwidth")}
        guess = self.model(seen, training=training)
        ratio = token_error(view["target"], guess, view["wanted"], patch, self.power_floor)
        return 10.0 / 2.302585093 * keras.ops.log(ratio + 1e-4)
