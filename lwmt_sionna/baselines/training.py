"""Training of the neural baselines: the model's data, histories, loss and steps."""

import dataclasses
import functools

import keras

from lwmt_sionna.baselines.neural import (
    ConvolutionalPredictor,
    FactoredBackbone,
    RecurrentPredictor,
)
from lwmt_sionna.models import ChannelPredictor, LWMTBackbone
from lwmt_sionna.ops import Neighborhood, RandomNeighborhood
from lwmt_sionna.training import build_predictor, train

__all__ = ["ATTENTIONS", "KINDS", "build_baseline", "train_baseline"]

# The model and its likes with other attention: one physics in front, so they share their data.
ATTENTIONS = ("sparse", "dense", "factored", "random")
KINDS = ("gru", "conv", *ATTENTIONS)


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


def train_baseline(kind, config, workdir, *, data=None, verbose="auto"):
    """Trains a neural baseline; resumes where an earlier run in the same folder stopped.

    Args:
        kind: See `build_baseline`.
        config: `lwmt_sionna.training.TrainConfig`.
        workdir: Folder for backups, checkpoints and logs.
        data: What `lwmt_sionna.training.prepare` returned for another kind of `ATTENTIONS`.
        verbose: See `keras.Model.fit`.

    Returns:
        Tuple of the trained model (weights of the best validation loss) and a dictionary of counts
        and losses.

    Raises:
        ValueError: If the kind is unknown or the folder holds a training of another configuration.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    build = functools.partial(build_baseline, kind)
    return train(config, workdir, build=build, data=data, verbose=verbose)
