"""Training of the neural baselines: the model's data, histories, loss and steps."""

import dataclasses
import logging
import pathlib

import keras

from lwmt_sionna.baselines.neural import (
    ConvolutionalPredictor,
    FactoredBackbone,
    RecurrentPredictor,
)
from lwmt_sionna.configuration import claim_folder
from lwmt_sionna.models import ChannelPredictor, LogNormalizedError, LWMTBackbone
from lwmt_sionna.ops import Neighborhood, RandomNeighborhood
from lwmt_sionna.training import PredictionDataset, build_predictor, load_training_data

logger = logging.getLogger(__name__)

__all__ = ["KINDS", "build_baseline", "train_baseline"]

KINDS = ("gru", "conv", "dense", "factored", "random", "sparse")


def build_baseline(kind, config):
    """Builds an untrained neural baseline.

    Args:
        kind: `"gru"`, residual on the last snapshot; `"conv"`, three-dimensional convolutions on
            linear prediction; or the model with other attention, of the same tokens, width, depth
            and number of weights: `"dense"`, all tokens; `"factored"`, space and time in turns;
            `"random"`, as many neighbours as the model's, drawn at random; `"sparse"`, the model
            itself.
        config: `lwmt_sionna.training.TrainConfig`.

    Returns:
        A built Keras model, called like a `ChannelPredictor`.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    keras.utils.set_random_seed(config.seed)
    shape = (None, config.num_history, config.num_ant, config.num_subcarriers, 2)
    if kind in ("gru", "conv"):
        options = {"num_horizons": config.num_horizons, "name": "predictor"}
        if kind == "gru":
            model = RecurrentPredictor(start="hold", patch=config.patch, **options)
        else:
            model = ConvolutionalPredictor(
                start="linear", denoise_radius=config.denoise_radius, **options
            )
        model.build(shape)
        return model
    model = build_predictor(config)
    if kind == "sparse":
        return model
    outer, inner = model.get_config(), model.backbone.get_config()
    neighborhood = model.backbone.neighborhood
    make = LWMTBackbone
    if kind == "dense":
        tokens = config.context + config.num_horizons
        whole = max(config.num_ant, config.num_subcarriers)
        neighborhood = Neighborhood(
            window=(-1, -1),
            time_offsets=tuple(o for o in range(1 - tokens, tokens) if o),
            corridor=(whole, whole),
            drift=(0.0, 0.0),
            leakage=(whole, whole),
            class_token=neighborhood.class_token,
        )
    elif kind == "random":
        fields = {f.name: getattr(neighborhood, f.name) for f in dataclasses.fields(neighborhood)}
        neighborhood = RandomNeighborhood(**fields, seed=config.seed)
    else:
        make = FactoredBackbone
    keras.utils.set_random_seed(config.seed)
    outer["backbone"] = make.from_config(inner | {"neighborhood": neighborhood})
    model = ChannelPredictor.from_config(outer)
    model.build(shape)
    return model


def train_baseline(kind, config, workdir, *, verbose="auto"):
    """Trains a neural baseline; resumes where an earlier run in the same folder stopped.

    Args:
        kind: See `build_baseline`.
        config: `lwmt_sionna.training.TrainConfig`.
        workdir: Folder for backups, checkpoints and logs.
        verbose: See `keras.Model.fit`.

    Returns:
        Tuple of the trained model (weights of the best validation loss) and a dictionary of counts
        and losses.

    Raises:
        ValueError: If the kind is unknown or the folder holds a training of another configuration.
    """
    workdir = pathlib.Path(workdir)
    model = build_baseline(kind, config)
    claim_folder(workdir, config)
    training, validation, counts = load_training_data(config)
    dataset = PredictionDataset(model, training, config, augment=True)
    held_out = PredictionDataset(model, validation, config, augment=False)
    part = _Trainable(model)
    steps = config.epochs * len(dataset)
    warmup = max(1, int(config.warmup_share * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    part.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=config.weight_decay, global_clipnorm=1.0
        ),
        loss=LogNormalizedError(),
        jit_compile=keras.backend.backend() != "torch",
    )
    untrained = float(part.evaluate(held_out, verbose=0))
    best = workdir / "best.weights.h5"
    part.fit(
        dataset,
        validation_data=held_out,
        epochs=config.epochs,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, _: setattr(dataset, "epoch", epoch)
            ),
            keras.callbacks.BackupAndRestore(str(workdir / "backup")),
            keras.callbacks.ModelCheckpoint(
                str(best), monitor="val_loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.CSVLogger(str(workdir / "history.csv"), append=True),
            keras.callbacks.TerminateOnNaN(),
        ],
        verbose=verbose,
    )
    part.load_weights(best)
    return model, {
        "sequences": counts,
        "validation_loss_db": float(part.evaluate(held_out, verbose=0)),
        "validation_loss_untrained_db": untrained,
    }


class _Trainable(keras.Model):
    """From features to prediction: what has weights."""

    def __init__(self, predictor):
        super().__init__(name="refinement")
        self.predictor = predictor

    def build(self, input_shape):
        self.built = True

    def call(self, features, training=None):
        correction = self.predictor.refine(features, training=training)
        return features["forecasts"][:, -1] + correction
