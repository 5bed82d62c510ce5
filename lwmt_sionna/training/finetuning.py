"""Fine-tuning of pretrained backbones to channel prediction, and the same from scratch."""

import dataclasses
import logging
import math
import pathlib

import keras
import numpy as np

from lwmt_sionna.data import (
    read_paths,
    split_by_trajectory,
    take_trajectories,
    vanishing_mask,
)
from lwmt_sionna.evaluation.leaks import check_causal
from lwmt_sionna.models import ChannelPredictor, LogNormalizedError, MaskedChannelModel
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.runs.configuration import claim_folder, from_toml, to_json
from lwmt_sionna.training.architecture import ModelConfig
from lwmt_sionna.training.checkpoints import Checkpoints
from lwmt_sionna.training.devices import DataParallel
from lwmt_sionna.training.direct import DirectPredictor
from lwmt_sionna.training.loop import run_steps
from lwmt_sionna.training.optimization import (
    OptimizationConfig,
    averaged_weights,
    build_optimizer,
)
from lwmt_sionna.training.prediction_data import (
    PredictionDataset,
    compile_physics,
    draw_histories,
)
from lwmt_sionna.training.predictor import Refinement, TrainConfig
from lwmt_sionna.training.pretraining import build_masked_model
from lwmt_sionna.training.sources import synthesize_grid

logger = logging.getLogger(__name__)

__all__ = ["FinetuneConfig", "as_predictor", "build_finetuned", "finetune", "load_tracks"]

MODES = ("scratch", "full", "frozen", "lora")
TASKS = ("predictor", "direct")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides the outcome of a fine-tuning.

    Attributes:
        data: Paths of the HDF5 files of path sequences.
        init: Folder or name of the preset to start from, a `MaskedChannelModel` or a
            `ChannelPredictor`; empty for mode "scratch".
        mode: `"scratch"`; `"full"`, all weights are trained; `"frozen"`, the backbone stays as it
            is; or `"lora"`, the backbone gets corrections of low rank.
        task: `"predictor"`, a `ChannelPredictor` with its linear predictions in front; or
            `"direct"`, a `MaskedChannelModel` whose last snapshots are hidden, without physics.
        label_share: Share of the training trajectories that is used.
        test_share: Share of the trajectories of every file that is kept for the test.
        validation_share: Share of the others on which the weights to keep are chosen.
        split_seed: Seed of all splits, the same for all contestants.
        num_ant: Antennas of the linear array.
        num_subcarriers: Subcarriers.
        bandwidth: Bandwidth that they span, in hertz.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        snr_db: Lowest and highest pilot SNR of the histories in decibels, drawn uniformly.
        context: Most recent snapshots that the network sees.
        experts: See `ChannelPredictor`.
        denoise_radius: See `ChannelPredictor`.
        lora_rank: Rank of the corrections of mode "lora".
        pool: Draws of noise and augmentation over all training sequences, the same for all label
            shares.
        model: `ModelConfig`, the backbone.
        optimization: `OptimizationConfig`.
        seed: Seed of weights, order, noise and augmentation.
    """

    data: tuple
    init: str = ""
    mode: str = "scratch"
    task: str = "predictor"
    label_share: float = 1.0
    test_share: float = 0.2
    validation_share: float = 0.1
    split_seed: int = 1
    num_ant: int = 16
    num_subcarriers: int = 16
    bandwidth: float = 17.28e6
    num_history: int = 16
    num_horizons: int = 5
    snr_db: tuple = (0.0, 30.0)
    context: int = 4
    experts: tuple = ((6, 2), (10, 4), (16, 2), (16, 4), (16, 6))
    denoise_radius: int = 2
    lora_rank: int = 4
    pool: int = 2000
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    seed: int = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        for name, known in (("mode", MODES), ("task", TASKS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {known}. Received: {name}={getattr(self, name)}"
                )
        if (self.mode == "scratch") != (not self.init):
            raise ValueError(
                "init belongs to the modes full, frozen and lora, which need it. Received: "
                f"mode={self.mode}, init={self.init!r}"
            )
        if not self.data:
            raise ValueError("data must name at least one file. Received: data=()")
        if not 0 < self.label_share <= 1:
            raise ValueError(
                f"label_share must lie in (0, 1]. Received: label_share={self.label_share}"
            )
        if not 0 < self.context <= self.num_history:
            raise ValueError(
                "context must lie between 1 and num_history. Received: "
                f"context={self.context}, num_history={self.num_history}"
            )
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db must be (lowest, highest). Received: snr_db={self.snr_db}")

    @classmethod
    def from_toml(cls, path, overrides=None):
        """Reads a configuration with tables `[model]` and `[optimization]` from a TOML file; an
        unknown key is an error."""
        return from_toml(
            cls, path, overrides=overrides, model=ModelConfig, optimization=OptimizationConfig
        )

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return to_json(self)

    def for_histories(self, num_draws=1):
        """The `TrainConfig` by which histories are drawn."""
        return TrainConfig(
            data=self.data,
            num_ant=self.num_ant,
            num_subcarriers=self.num_subcarriers,
            num_history=self.num_history,
            num_horizons=self.num_horizons,
            snr_db=self.snr_db,
            num_draws=num_draws,
            batch_size=self.optimization.batch_size,
            seed=self.seed,
        )


def load_tracks(config):
    """Reads the sequences and splits them by trajectory.

    Args:
        config: `FinetuneConfig`.

    Returns:
        Dictionary of three lists of `PathSequences`, one per file: `"training"` (the label share of
        them), `"validation"` and `"test"`.
    """
    parts = {"training": [], "validation": [], "test": []}
    for name in config.data:
        paths = read_paths(name)
        paths = paths.select(~vanishing_mask(paths))
        rest, test = split_by_trajectory(paths, config.test_share, config.split_seed)
        training, validation = split_by_trajectory(
            rest, config.validation_share, config.split_seed + 1
        )
        training = take_trajectories(training, config.label_share, config.split_seed + 2)
        for key, part in zip(parts, (training, validation, test), strict=True):
            parts[key].append(part)
    return parts


def build_finetuned(config):
    """Builds the model to be trained, with the weights it starts from.

    Args:
        config: `FinetuneConfig`.

    Returns:
        `ChannelPredictor` or, for the task "direct", `MaskedChannelModel`.

    Raises:
        ValueError: If the preset holds another architecture than the configuration names.
    """
    keras.utils.set_random_seed(config.seed)
    precision = config.optimization.precision
    length = config.context + config.num_horizons
    start = load_preset(config.init, keras.Model, dtype=precision) if config.init else None
    if start is not None:
        _check_architecture(start.backbone, config, length)
    if config.task == "direct":
        if start is None:
            model = build_masked_model(config, length)
        elif isinstance(start, MaskedChannelModel):
            model = start
        else:
            raise ValueError(
                "The task direct starts from a MaskedChannelModel. Received: "
                f"init={config.init}, a {type(start).__name__}"
            )
    elif isinstance(start, ChannelPredictor):
        model = start
        if (model.num_horizons, model.context) != (config.num_horizons, config.context):
            raise ValueError(
                "The preset predicts another number of snapshots or from another context. "
                f"Received: init={config.init}, num_horizons={model.num_horizons}, "
                f"context={model.context}"
            )
    else:
        backbone = None if start is None else start.backbone
        model = _build_predictor(config, backbone, length, precision)
    if config.mode == "frozen":
        model.backbone.freeze()
    elif config.mode == "lora":
        model.backbone.enable_lora(config.lora_rank)
    return model


def _build_predictor(config, backbone, length, precision):
    pretrained = backbone is not None
    if not pretrained:
        backbone = config.model.build_backbone(length, config.seed, precision)
    model = ChannelPredictor(
        backbone,
        num_horizons=config.num_horizons,
        experts=config.experts,
        context=config.context,
        denoise_radius=config.denoise_radius,
        local_motion=config.model.local_motion,
        name="predictor",
    )
    model.build((None, config.num_history, config.num_ant, config.num_subcarriers, 2))
    if pretrained:
        # What the backbone has not seen before comes in from nothing, so that its tokens are
        # those it knows: normalised patches, and the mask embedding for what is ahead.
        for layer in (model.observed_features, model.forecast_features, model.level_features):
            for variable in layer.weights:
                variable.assign(keras.ops.zeros_like(variable))
    return model


def _check_architecture(backbone, config, length):
    expected = config.model
    for name in ("width", "depth", "num_heads", "patch"):
        if getattr(backbone, name) != getattr(expected, name):
            raise ValueError(
                f"The preset has another {name} than the configuration: expected "
                f"{getattr(expected, name)}. Received: init={config.init}, "
                f"{name}={getattr(backbone, name)}"
            )
    # A dense neighbourhood grows with the sequences it was made for.
    if expected.attention != "dense" and backbone.neighborhood != expected.neighborhood(
        length, getattr(backbone.neighborhood, "seed", 0)
    ):
        raise ValueError(
            "The preset has another neighbourhood than the configuration. Received: "
            f"init={config.init}, neighborhood={backbone.neighborhood}"
        )


def finetune(config, workdir, *, tracks=None, num_devices=1, verbose="auto"):
    """Trains a predictor; goes on where an earlier run in the same folder stopped.

    The weights that are kept are the moving averages with the best validation loss among those at
    the checkpoints.

    Args:
        config: `FinetuneConfig`.
        workdir: Folder for checkpoints and the log.
        tracks: What `load_tracks` returns, if it has been called already.
        num_devices: Number of devices that share every batch.
        verbose: 0 for no progress bar.

    Returns:
        Tuple of the trained model (see `build_finetuned`) and a dictionary: numbers of sequences
        and of trained parameters, validation losses in decibels before training, at its best and
        at its end, the best step, and the losses.

    Raises:
        ValueError: If the folder holds a training of another configuration, or the data leaks.
        NotFiniteError: See `run_steps`.
    """
    workdir = pathlib.Path(workdir)
    claim_folder(workdir, config)
    settings = config.optimization
    tracks = load_tracks(config) if tracks is None else tracks
    length = config.num_history + config.num_horizons
    h = {
        name: np.concatenate(
            [
                synthesize_grid(
                    part, (length, config.num_ant, config.num_subcarriers), config.bandwidth
                )
                for part in tracks[name]
            ]
        )
        for name in ("training", "validation")
    }
    devices = DataParallel(num_devices)
    with devices.scope():
        model = build_finetuned(config)
        optimizer = build_optimizer(settings, model.trainable_variables)
        prepare = _prepare_direct if config.task == "direct" else _prepare_predictor
        models, draw_batch, validate = prepare(model, optimizer, h, config, devices.jit_compile)
    best = Checkpoints(workdir / "best", keep=1)
    untrained = validate()

    def on_checkpoint(step, notes):
        with averaged_weights(optimizer):
            loss = validate()
            if loss < notes.get("best_loss", math.inf):
                notes |= {"best_loss": loss, "best_step": step}
                best.save(step, [keras.ops.convert_to_numpy(v) for v in model.variables], notes)
        notes["last_loss"] = loss
        logger.info("step %d: validation %.3f dB", step, loss)

    notes, history = run_steps(
        models, optimizer, draw_batch, settings, workdir, devices=devices,
        on_checkpoint=on_checkpoint, verbose=verbose,
    )  # fmt: skip
    _, arrays, _ = best.restore()
    for variable, value in zip(model.variables, arrays, strict=True):
        variable.assign(value)
    return model, {
        "num_training": len(h["training"]),
        "num_validation": len(h["validation"]),
        "num_trained_parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "validation_loss_untrained_db": untrained,
        "validation_loss_db": notes["best_loss"],
        "validation_loss_last_db": notes["last_loss"],
        "best_step": notes["best_step"],
        "history": history,
    }


def _prepare_predictor(model, optimizer, h, config, jit_compile):
    """The network behind the physics, whose features are computed once."""
    num_draws = max(1, round(config.pool / len(h["training"])))
    settings = config.for_histories(num_draws)
    check_causal(
        lambda channels: draw_histories(channels, settings, config.seed, False)[0],
        h["training"][:8],
        config.num_history,
    )
    physics = compile_physics(model)
    dataset = PredictionDataset(model, h["training"], settings, True, physics)
    settings = config.for_histories()
    held_out = PredictionDataset(model, h["validation"], settings, False, physics)
    refinement = Refinement(model)
    refinement.build(None)
    refinement.compile(
        optimizer=optimizer,
        loss=LogNormalizedError(),
        jit_compile=jit_compile,
        auto_scale_loss=False,
    )

    def draw_batch(step):
        dataset.epoch, index = divmod(step, len(dataset))
        return "refinement", *dataset[index]

    return (
        {"refinement": refinement},
        draw_batch,
        lambda: float(refinement.evaluate(held_out, verbose=0)),
    )


def _prepare_direct(model, optimizer, h, config, jit_compile):
    """Masked modelling whose hidden tokens are the future."""
    settings = config.for_histories()
    check_causal(
        lambda channels: draw_histories(channels, settings, config.seed, False)[0],
        h["training"][:8],
        config.num_history,
    )
    training = as_predictor(model, config)
    training.build(None)
    training.compile(
        optimizer=optimizer,
        loss=LogNormalizedError(),
        jit_compile=jit_compile,
        auto_scale_loss=False,
    )
    size = config.optimization.batch_size

    def draw_batch(step):
        rows = np.random.default_rng([config.seed, 3, step]).integers(len(h["training"]), size=size)
        seed = [config.seed, 4, step]
        return "direct", *draw_histories(h["training"][rows], settings, seed, augment=True)

    # The last batch wraps around: one shape, one compiled program.
    rows = np.arange(-(-len(h["validation"]) // size) * size) % len(h["validation"])
    held_out = draw_histories(h["validation"][rows], settings, [config.split_seed, 5], False)

    def validate():
        return float(training.evaluate(*held_out, batch_size=size, verbose=0))

    return {"direct": training}, draw_batch, validate


def as_predictor(model, config):
    """The trained model as a Keras model from real histories to real futures.

    Args:
        model: What `finetune` returns.
        config: `FinetuneConfig`.

    Returns:
        Keras model: see `lwmt_sionna.baselines.ModelPredictor`.
    """
    if config.task == "direct":
        return DirectPredictor(model, config.num_horizons, config.context)
    return model
