"""Every layer and model keeps the contract that `layer_checks` spells out.

On the backend of this process; and on JAX where an interpreter has it: this one, or the one that
LWMT_JAX_PYTHON names, which needs keras, pytest and hypothesis too.
"""

import importlib.util
import inspect
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from lwmt_sionna import layers, models
from lwmt_sionna.models import LogNormalizedError
from tests.layer_checks import check_layer

ROOT = pathlib.Path(__file__).resolve().parents[1]
NEIGHBORHOOD = {"window": (1, 1), "corridor": (1, 1), "time_offsets": (-1, 1)}
WITH_CLASS = {**NEIGHBORHOOD, "class_token": True}
GRID = (3, 4, 2)
BACKBONE = {
    "width": 12,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2,
    "patch": (2, 3),
    "neighborhood": NEIGHBORHOOD,
}


def random(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def backbone(**overrides):
    """A function from the dtype policy to a backbone."""
    return lambda policy: models.LWMTBackbone(**{**BACKBONE, **overrides}, dtype=policy)


TOKENS, CHANNEL = random(2, 24, 12), random(2, 3, 6, 5, 2)
MASK = np.arange(2 * 18).reshape(2, 18) % 3 == 0

CASES = {
    "transform": (layers.AngleDelayTransform, {"array_shape": (2, 3, 1)}, CHANNEL, CHANNEL.shape),
    "transform-truncated": (
        layers.AngleDelayTransform,
        {"num_delay": 3, "first_delay": -1},
        CHANNEL,
        (2, 3, 6, 3, 2),
    ),
    "inverse": (layers.InverseAngleDelayTransform, {}, CHANNEL, CHANNEL.shape),
    "inverse-truncated": (
        layers.InverseAngleDelayTransform,
        {"num_subcarriers": 9, "first_delay": -1},
        CHANNEL,
        (2, 3, 6, 9, 2),
    ),
    "attention": (
        layers.SparseSpatioTemporalAttention,
        {"num_heads": 3, "neighborhood": NEIGHBORHOOD, "grid": GRID, "routing": "topk"},
        TOKENS,
        TOKENS.shape,
    ),
    "block": (
        layers.EncoderBlock,
        {"num_heads": 2, "neighborhood": NEIGHBORHOOD, "dropout": 0.1},
        TOKENS,
        TOKENS.shape,
    ),
    "factored": (layers.FactoredPositionEncoding, {"num_frequencies": 3}, TOKENS, TOKENS.shape),
    "readout": (layers.Readout, {"units": 3, "num_answers": 2}, random(2, 4, 3, 7), (2, 2, 3)),
    "angle-readout": (
        layers.AngleReadout,
        {"num_angles": 4, "units": 8, "num_answers": 2},
        random(2, 4, 3, 7),
        (2, 2, 8),
    ),
    "learned": (layers.LearnedPositionEncoding, {"grid": GRID}, TOKENS, TOKENS.shape),
    "backbone": (models.LWMTBackbone, BACKBONE, CHANNEL, (2, 18, 12)),
    "backbone-rotary": (
        models.LWMTBackbone,
        {**BACKBONE, "position": "rotary_grid", "neighborhood": WITH_CLASS},
        CHANNEL,
        (2, 19, 12),
    ),
    "masked": (
        models.MaskedChannelModel,
        {"backbone": backbone()},
        {"channel": CHANNEL, "mask": MASK},
        CHANNEL.shape,
    ),
    "masked-published": (
        models.MaskedChannelModel,
        {
            "backbone": backbone(
                position="learned",
                position_grid=(3, 3, 2),
                masking="zero",
                neighborhood=WITH_CLASS,
            )
        },
        {"channel": CHANNEL, "mask": MASK},
        CHANNEL.shape,
    ),
    "encoder": (
        models.ChannelEncoder,
        {"backbone": backbone(), "per": "snapshot", "num_delay": 4},
        CHANNEL,
        (2, 3, 12),
    ),
    "task": (
        models.TaskModel,
        {
            "backbone": backbone(neighborhood=WITH_CLASS),
            "head": lambda policy: layers.Readout(3, 2, dtype=policy),
            "loss": "mse",
            "metrics": ["mae"],
        },
        CHANNEL,
        (2, 2, 3),
    ),
    "estimator": (
        models.ChannelEstimator,
        {"backbone": backbone()},
        {"h": CHANNEL, "mask": np.arange(2 * 90).reshape(2, 3, 6, 5) % 4 > 0},
        CHANNEL.shape,
    ),
    "predictor": (
        models.ChannelPredictor,
        {
            "backbone": backbone(),
            "num_horizons": 2,
            "experts": ((4, 1), (6, 2)),
            "context": 2,
            "denoise_radius": 1,
        },
        random(2, 6, 6, 5, 2),
        (2, 2, 6, 5, 2),
    ),
}
CALLS = {"block": {"grid": GRID}, "factored": {"grid": GRID}, "learned": {"grid": GRID}}
OPTIONS = {
    **{
        name: {"mixed_output": None, "wrong_inputs": False}  # any leading axes will do
        for name in CASES
        if name.startswith(("transform", "inverse"))
    },
    "backbone": {"idle_weights": ["mask_embedding"]},
    "backbone-rotary": {"idle_weights": ["mask_embedding"]},
    "encoder": {"float32_parts": ["transform"], "idle_weights": ["mask_embedding"]},
    "task": {"float32_parts": ["transform"], "idle_weights": ["mask_embedding"]},
    "estimator": {
        "float32_parts": ["transform", "head", "pilots"],
        "idle_weights": ["mask_embedding"],
        "mixed_output": None,
        "tolerance": 1e-4,
    },
    "predictor": {"float32_parts": ["transform", "head"], "mixed_output": None, "tolerance": 1e-4},
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_contract(name, tmp_path):
    cls, arguments, inputs, output_shape = CASES[name]
    check_layer(
        cls,
        arguments,
        inputs,
        output_shape,
        tmp_path,
        call_arguments=CALLS.get(name),
        **OPTIONS.get(name, {}),
    )


def test_every_layer_and_model_is_checked():
    classes = {
        value
        for room in (layers, models)
        for value in vars(room).values()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    }
    # The refiner is a part of the predictor, and checked with it. What tasks have beside their base
    # are settings, which `test_tasks` saves and reads.
    tasks = {models.BeamPredictor, models.LineOfSightClassifier, models.Localizer}
    tasks |= {models.BackboneTask}
    assert classes - {models.Refiner} - tasks == {case[0] for case in CASES.values()}


def test_loss_round_trip():
    loss = LogNormalizedError(floor=1e-3)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, LogNormalizedError)
    assert again.get_config() == loss.get_config()


@pytest.mark.slow
def test_contracts_hold_on_jax():
    if keras.backend.backend() == "jax":
        pytest.skip("this process runs on JAX already")
    python = os.environ.get("LWMT_JAX_PYTHON")
    if importlib.util.find_spec("jax") is not None:
        python = sys.executable
    if python is None:
        pytest.skip("JAX is not installed, and LWMT_JAX_PYTHON names no interpreter with it")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", pathlib.Path(__file__)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout.splitlines()[-1]
