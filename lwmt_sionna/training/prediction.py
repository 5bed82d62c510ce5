"""Predictors: what they are built of, what they start from, and how they learn."""

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from lwmt_sionna.data import read_channels
from lwmt_sionna.data.channels import CHANNEL_SCHEMA
from lwmt_sionna.data.container import read_schema
from lwmt_sionna.evaluation.leaks import check_causal
from lwmt_sionna.models import (
    ChannelPredictor,
    LogNormalizedError,
    LWMTBackbone,
    MaskedChannelModel,
)
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.runs.configuration import Config, NonNegativeInt
from lwmt_sionna.runs.records import sha256
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.configuration import (
    DataConfig,
    ModelConfig,
    OptimizationConfig,
    PredictorConfig,
)
from lwmt_sionna.training.contestants import (
    ConvolutionalPredictor,
    RecurrentPredictor,
    RefiningPredictor,
)
from lwmt_sionna.training.histories import (
    Features,
    PredictionDataset,
    World,
    draw_histories,
    load_tracks,
    synthesize_tracks,
)
from lwmt_sionna.training.loop import Task
from lwmt_sionna.training.optimization import DataParallel, build_optimizer
from lwmt_sionna.typing import Array, PathLike, Tensor

logger = logging.getLogger(__name__)

__all__ = [
    "CONTESTANTS",
    "DirectPredictor",
    "PredictionData",
    "TrainConfig",
    "as_predictor",
    "load_data",
]

# The model and its likes with other attention, which share the physics in front, and two others.
CONTESTANTS = ("sparse", "dense", "factored", "random", "gru", "conv")
_LORA_RANK = 4


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """Everything that decides the outcome of the training of a predictor.

    In a TOML file the settings stand in tables `[data]`, `[model]`, `[predictor]` and
    `[optimization]`, or without them: no name stands in two tables.

    Attributes:
        data: `DataConfig`, or the list of its files alone.
        model: `ModelConfig`, the backbone.
        predictor: `PredictorConfig`, the rest of it.
        optimization: `OptimizationConfig`.
        init: Folder or name of the preset to start from; empty to train from scratch. Its
            architecture takes the place of the configured one: for a predictor that of `model` and
            `predictor`, for a pretrained backbone that of `model`.
        mode: What is trained after `init`: `"full"`, all weights; `"frozen"`, all but the
            backbone's; or `"lora"`, in the backbone corrections of low rank.
        seed: Seed of weights, order, noise and augmentation.
    """

    data: DataConfig
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    predictor: PredictorConfig = dataclasses.field(default_factory=PredictorConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    init: str = ""
    mode: Literal["full", "frozen", "lora"] = "full"
    seed: NonNegativeInt = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode != "full" and not self.init:
            raise ValueError(
                "init: expected the preset that the mode starts from. Received: "
                f"mode={self.mode}, init=''"
            )
        context, num_history = self.predictor.context, self.data.num_history
        if context > num_history:
            raise ValueError(
                "context: expected at most num_history. Received: "
                f"context={context}, num_history={num_history}"
            )
        data = self.data
        several = data.hardware or data.more_rows or data.small_arrays or data.bandwidth
        if self.predictor.kind == "direct" and several:
            raise ValueError(
                "kind direct: expected one array, one band and no hardware. Received: "
                f"more_rows={data.more_rows}, small_arrays={data.small_arrays}, "
                f"bandwidth={data.bandwidth}, hardware={data.hardware}"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Makes a configuration of a dictionary: see `Config.from_dict`.

        Args:
            values: Dictionary with the tables, or with what belongs into them.

        Returns:
            `TrainConfig`.
        """
        values = dict(values)
        if isinstance(values.get("data"), list | tuple):
            values["data"] = {"files": values["data"]}
        for name, table in _TABLES.items():
            inner = {field.name for field in dataclasses.fields(table)} & set(values)
            if inner and isinstance(values.get(name, {}), dict):
                values[name] = values.get(name, {}) | {key: values.pop(key) for key in inner}
        return super().from_dict(values)

    def contestant(self, name: str) -> Self:
        """The same training of another model.

        Args:
            name: One of `CONTESTANTS`: `"sparse"`, the model itself; the model with other
                attention, of the same tokens, width, depth and number of weights: `"dense"`, all
                tokens, `"factored"`, space and time in turns, `"random"`, as many neighbours as the
                model's, drawn at random; `"gru"`, a recurrent network on the last snapshot; or
                `"conv"`, three-dimensional convolutions on linear prediction.

        Returns:
            `TrainConfig`.

        Raises:
            ValueError: If the name is unknown.
        """
        if name not in CONTESTANTS:
            raise ValueError(
                f"name: expected one of {', '.join(CONTESTANTS)}. Received: name={name!r}"
            )
        values = self.to_dict()
        if name in ("gru", "conv"):
            values["predictor"]["kind"] = name
        else:
            values["model"]["attention"] = "ssta" if name == "sparse" else name
        return type(self).from_dict(values)

    @property
    def array_shape(self) -> tuple[int, int, int] | None:
        """Rows, columns and polarisations of the array; `None` for a line."""
        shape = self.data.array.shape
        return None if shape == (1, self.data.num_ant, 1) else shape

    def on_files(self) -> Self:
        """The same training on the array and the subcarriers of the first of its files of channels.

        Returns:
            `TrainConfig`, equal to this one where a file holds paths.

        Raises:
            ValueError: If a file is damaged, or holds neither.
        """
        if any(read_schema(name) != CHANNEL_SCHEMA for name in self.data.files):
            return self
        channels = read_channels(self.data.files[0])
        array = channels.array
        data = dataclasses.replace(
            self.data,
            num_ant=array.num_ant,
            num_rows=array.num_rows,
            polarization=array.polarization,
            num_subcarriers=channels.h.shape[3],
            subcarrier_spacing=channels.subcarrier_spacing,
        )
        return dataclasses.replace(self, data=data)

    @property
    def data_seed(self) -> int:
        """Seed of splits and draws."""
        return self.seed if self.data.split_seed is None else self.data.split_seed

    def inputs(self) -> list[str]:
        """Paths of the files, and names of the presets, that a training reads."""
        files = [*self.data.files, *self.data.validation_files]
        return [*files, self.init] if self.init else files

    def build(self) -> keras.Model:
        """Builds the model to be trained, with the weights it starts from.

        Returns:
            `ChannelPredictor`, a contestant or, for the kind `"direct"`, `MaskedChannelModel`.

        Raises:
            ValueError: If the preset holds no model of this kind.
        """
        keras.utils.set_random_seed(self.seed)
        start = None
        if self.init:
            start = load_preset(self.init, keras.Model, dtype=self.optimization.precision)
            # A backbone alone takes angles as they come.
            if hasattr(start, "transform") and self.array_shape is not None:
                start = load_preset(
                    self.init, keras.Model, True, self.optimization.precision, self.array_shape
                )
            logger.info("the architecture is that of %s, a %s", self.init, type(start).__name__)
        model = _BUILDERS[self.predictor.kind](self, start)
        if self.mode == "full":
            return model
        if not hasattr(model, "backbone"):
            raise ValueError(
                f"mode {self.mode}: expected a model with a backbone. Received: init={self.init}, "
                f"a {type(model).__name__}"
            )
        if self.mode == "frozen":
            model.backbone.freeze()
        else:
            model.backbone.enable_lora(_LORA_RANK)
        return model

    def prepare(
        self,
        model: keras.Model,
        devices: DataParallel,
        data: "PredictionData | None" = None,
        folder: PathLike | None = None,
    ) -> Task:
        """Makes ready what a training needs: see `lwmt_sionna.training.train`.

        Args:
            model: What `build` returns.
            devices: `DataParallel`.
            data: What `load_data` returns, if it has been called already.
            folder: Where it keeps what it computes, if not.

        Returns:
            `Task`.
        """
        settings = self.optimization
        data = load_data(self, model, folder) if data is None else data
        prepare = _prepare_direct if self.predictor.kind == "direct" else _prepare_refinement
        learners, draw_batch, validate, epoch = prepare(self, model, data)
        num_steps = settings.num_steps(epoch)
        optimizer = build_optimizer(settings, model.trainable_variables, num_steps)
        for learner in learners.values():
            learner.build(None)
            learner.compile(
                optimizer=optimizer,
                loss=LogNormalizedError(),
                jit_compile=devices.jit_compile and getattr(model, "train_by_xla", True),
                auto_scale_loss=False,
            )
        return Task(
            model=model,
            models=learners,
            optimizer=optimizer,
            draw_batch=draw_batch,
            num_steps=num_steps,
            epoch=epoch,
            validate=validate,
            facts={
                "sequences": data.counts,
                "num_trained_parameters": sum(
                    math.prod(v.shape) for v in model.trainable_variables
                ),
            },
        )


_TABLES = {
    "data": DataConfig,
    "model": ModelConfig,
    "predictor": PredictorConfig,
    "optimization": OptimizationConfig,
}


class PredictionData(NamedTuple):
    """What a predictor learns from and is judged by: see `load_data`.

    Attributes:
        training: `PredictionDataset`, each pass in another order; for the kind `"direct"` true
            channels, complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`.
        validation: `PredictionDataset` without augmentation, in order; true channels.
        counts: Dictionary of the numbers of sequences, by scene.
    """

    training: PredictionDataset | Array
    validation: PredictionDataset | Array
    counts: dict[str, dict[str, int]]


def load_data(
    config: TrainConfig, model: keras.Model | None = None, folder: PathLike | None = None
) -> PredictionData:
    """Draws the histories of a training and computes the physics in front of the network.

    Args:
        config: `TrainConfig`.
        model: The model, if it has been built already; models of one physics may share the data of
            any of them.
        folder: Folder of what is computed, which goes on where an earlier call was killed; several
            trainings may share it. In memory if left out.

    Returns:
        `PredictionData`.

    Raises:
        ValueError: If the sequences are too short, stored channels of another size, or histories
            depend on the future.
    """
    model = config.build() if model is None else model
    data, seed = config.data, config.data_seed
    num_horizons = getattr(model, "num_horizons", config.predictor.num_horizons)
    tracks = load_tracks(data, config.seed, num_horizons)
    counts: dict[str, dict[str, int]] = {}
    for part in ("training", "validation"):
        for track in tracks[part]:
            count = counts.setdefault(track.scene, {"training": 0, "validation": 0})
            count[part] += track.num_sequences
    num_training = sum(track.num_sequences for track in tracks["training"])
    logger.info("%d training sequences in %d scenes", num_training, len(counts))
    if config.predictor.kind == "direct":
        training, validation = (
            synthesize_tracks(tracks[n], data, num_horizons) for n in ("training", "validation")
        )
        check_causal(
            lambda h: draw_histories(h, data, seed, False)[0], training[:8], data.num_history
        )
        return PredictionData(training, validation, counts)
    num_draws = data.num_draws
    if data.pool is not None:
        num_draws = max(1, round(data.pool / num_training))
    files = {name: sha256(name) for name in (*data.files, *data.validation_files)}
    # Clusters follow the files.
    trained = [files[name] for name in data.files] + [f"{data.clusters} clusters"]
    held_out = [files[name] for name in data.validation_files or data.files]
    features = Features(model, data, seed, None if folder is None else Store(folder))
    worlds = [World(*each, num_draws) for each in zip(tracks["training"], trained)]
    worlds[0].check_causal(data, features.length, seed)
    apart = [World(*each) for each in zip(tracks["validation"], held_out)]
    size = config.optimization.batch_size
    return PredictionData(
        PredictionDataset(features.compute(worlds), size, config.seed),
        PredictionDataset(features.compute(apart), size),
        counts,
    )


def as_predictor(model: keras.Model, config: TrainConfig) -> keras.Model:
    """The trained model as a Keras model from real histories to real futures.

    Args:
        model: What `train` returns.
        config: `TrainConfig`.

    Returns:
        Keras model: see `lwmt_sionna.baselines.ModelPredictor`.
    """
    if config.predictor.kind == "direct":
        return DirectPredictor(model, config.predictor.num_horizons, config.predictor.context)
    return model


class Refinement(keras.Model):
    """The part of a predictor with weights, from features to prediction.

    Args:
        predictor: Model with the `features` and `refine` of a `ChannelPredictor`.

    Call arguments:
        features: Dictionary: see `ChannelPredictor.features`.
        training: Whether the call is part of training.

    Returns:
        Real `[batch, horizon, angle, delay, 2]`, angle-delay domain.
    """

    def __init__(self, predictor: keras.Model) -> None:
        super().__init__(name="refinement")
        self.predictor = predictor

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, features: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """See the class."""
        correction = self.predictor.refine(features, training=training)
        return features["forecasts"][:, -1] + correction


class DirectPredictor(keras.Model):
    """Reads the future out of a masked channel model whose last snapshots are hidden.

    Args:
        model: `MaskedChannelModel`.
        num_horizons: Snapshots to predict.
        context: Most recent snapshots that the model sees.

    Call arguments:
        history: Noisy channels, real `[batch, time, num_ant, num_subcarriers, 2]`.

    Returns:
        Real `[batch, num_horizons, num_ant, num_subcarriers, 2]`.
    """

    def __init__(self, model: MaskedChannelModel, num_horizons: int, context: int) -> None:
        super().__init__(name="direct_predictor", autocast=False)
        self.model = model
        self.num_horizons = int(num_horizons)
        self.context = int(context)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, history: Tensor) -> Tensor:
        """See the class."""
        if history.shape[1] < self.context:
            raise ValueError(
                f"The history must have at least {self.context} snapshots. Received: "
                f"history.shape={tuple(history.shape)}"
            )
        scaled, scale = unit_power(history[:, -self.context :])
        seen = angle_delay_transform(scaled)
        channel = ops.pad(seen, [[0, 0], [0, self.num_horizons], [0, 0], [0, 0], [0, 0]])
        grid = self.model.backbone.grid(channel.shape[1:4])
        tokens = ops.arange(grid[0] * grid[1] * grid[2])
        hidden = ops.greater_equal(tokens, self.context * grid[1] * grid[2])
        hidden = ops.broadcast_to(hidden[None], (ops.shape(channel)[0], hidden.shape[0]))
        whole = self.model({"channel": channel, "mask": hidden})
        future = ops.cast(whole[:, self.context :], "float32")
        return inverse_angle_delay_transform(future) * scale


def build_masked(config: Any, max_snapshots: int) -> MaskedChannelModel:
    """Builds an untrained masked channel model, from the global seed of Keras.

    Args:
        config: `TrainConfig` or `PretrainConfig`.
        max_snapshots: Longest sequence.

    Returns:
        `MaskedChannelModel`, built.
    """
    precision = config.optimization.precision
    backbone = config.model.build_backbone(max_snapshots, config.seed, precision)
    backbone.build((None, None, None, None, 2))
    model = MaskedChannelModel(
        backbone,
        local_scale=True,
        local_motion=config.model.local_motion,
        dtype=precision,
        name="masked_channel_model",
    )
    model.build(None)
    return model


def _build_direct(config, start):
    if start is None:
        return build_masked(config, config.predictor.context + config.predictor.num_horizons)
    return _check_start(config, start, MaskedChannelModel)


def _build_predictor(config, start):
    settings = config.predictor
    if isinstance(start, ChannelPredictor | RefiningPredictor):
        return start
    if start is None:
        length = settings.context + settings.num_horizons
        backbone = config.model.build_backbone(length, config.seed, config.optimization.precision)
    else:
        backbone = start if isinstance(start, LWMTBackbone) else start.backbone
    model = ChannelPredictor(
        backbone,
        num_horizons=settings.num_horizons,
        experts=settings.experts,
        context=settings.context,
        denoise_radius=settings.denoise_radius,
        num_paths=settings.num_paths,
        whole_experts=settings.whole_experts,
        least_squares=settings.least_squares,
        backtest=settings.backtest,
        aligned=settings.aligned,
        local_motion=getattr(start, "local_motion", config.model.local_motion),
        array_shape=config.array_shape,
        name="predictor",
    )
    model.build(_history_shape(config))
    if start is not None:
        # What the backbone has not seen before comes in from nothing, so that its tokens are
        # those it knows: normalised patches, and the mask embedding for what is ahead.
        for layer in (model.observed_features, model.forecast_features, model.level_features):
            for variable in layer.weights:
                variable.assign(np.zeros(variable.shape))
    return model


def _build_contestant(config, start):
    settings = config.predictor
    make = RecurrentPredictor if settings.kind == "gru" else ConvolutionalPredictor
    if start is not None:
        return _check_start(config, start, make)
    own: dict[str, Any]
    if settings.kind == "gru":
        own = {"start": "hold", "patch": config.model.patch}
    else:
        own = {"start": "linear", "denoise_radius": settings.denoise_radius}
    own["array_shape"] = config.array_shape
    model = make(num_horizons=settings.num_horizons, name="predictor", **own)
    model.build(_history_shape(config))
    return model


def _check_start(config, start, expected):
    if not isinstance(start, expected):
        raise ValueError(
            f"kind {config.predictor.kind}: expected a preset of a {expected.__name__}. Received: "
            f"init={config.init}, a {type(start).__name__}"
        )
    return start


def _history_shape(config):
    return (None, config.data.num_history, config.data.num_ant, config.data.num_subcarriers, 2)


_BUILDERS: dict[str, Callable[[TrainConfig, Any], keras.Model]] = {
    "predictor": _build_predictor,
    "direct": _build_direct,
    "gru": _build_contestant,
    "conv": _build_contestant,
}


def _prepare_refinement(config, model, data):
    """The network behind the physics, whose features have been computed, for every size."""
    training, epoch = data.training, len(data.training)
    held_out = data.validation.by_size()
    learners = {size: Refinement(model) for size in training.by_size() | held_out}

    def draw_batch(step):
        training.epoch, index = divmod(step, epoch)
        features, target = training[index]
        return target.shape[2:4], features, target

    def validate():
        losses = [learners[size].evaluate(own, verbose=0) for size, own in held_out.items()]
        return float(np.average(losses, weights=[len(own) for own in held_out.values()]))

    return learners, draw_batch, validate, epoch


def _prepare_direct(config, model, data):
    """Masked modelling whose hidden tokens are the future."""
    learner, size, h = as_predictor(model, config), config.optimization.batch_size, data.training

    def draw_batch(step):
        rows = np.random.default_rng([config.seed, 3, step]).integers(len(h), size=size)
        key = [config.seed, 4, step]
        return learner.name, *draw_histories(h[rows], config.data, key, augment=True)

    # The last batch wraps around: one shape, one compiled program.
    rows = np.arange(-(-len(data.validation) // size) * size) % len(data.validation)
    held_out = draw_histories(data.validation[rows], config.data, [config.data_seed, 5], False)

    def validate():
        return float(learner.evaluate(*held_out, batch_size=size, verbose=0))

    return {learner.name: learner}, draw_batch, validate, -(-len(h) // size)
