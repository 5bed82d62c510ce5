"""Converted checkpoints against independent implementations of the published model.

The references, `published_numpy.py` and `published_reference.py` (PyTorch), are written from the
description alone. The outputs of the latter for a small model are committed; where an interpreter
with PyTorch is there (this one, or the one that LWMT_TORCH_PYTHON names, which needs keras too),
checkpoints are written, converted and compared afresh.
"""

import dataclasses
import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from lwmt_sionna import MaskedChannelModel, Neighborhood
from lwmt_sionna.models.published import (
    PublishedOptions,
    model_from_state,
    options_from_config,
)
from lwmt_sionna.ops.patches import patchify
from tests.models import published_numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = pathlib.Path(__file__).with_name("published_reference.py")
FIXTURE = pathlib.Path(__file__).parent / "data" / "published_4x8x8.npz"
VARIANTS = [
    f"{token}/{routing}/{position}"
    for token in ("plain", "class")
    for routing in ("all", "topk")
    for position in ("learned", "rotary")
]


def outputs(model, channel, mask=None):
    inputs = {"channel": channel.astype(model.backbone.compute_dtype)}
    if mask is not None:
        inputs["mask"] = mask
    if channel.size > 10_000:
        model.compile(jit_compile=True)
        found = model.predict_on_batch(inputs)
    else:
        found = model(inputs)
    return np.asarray(patchify(found, model.backbone.patch))


@pytest.fixture(scope="module")
def fixture():
    with np.load(FIXTURE, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def state_of(fixture, variant="plain/topk/learned"):
    token, _, position = variant.split("/")
    state = {n.removeprefix("state/"): a for n, a in fixture.items() if n.startswith("state/")}
    if token == "plain":
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, :-1]
    if position == "rotary":
        del state["pos_embed"]
    return state


def options_of(variant="plain/topk/learned"):
    return PublishedOptions(
        num_heads=2, grid=(4, 8, 8), routing="topk" if "topk" in variant else "none"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_committed_outputs(fixture, variant):
    """Outputs are of magnitude 5."""
    model = model_from_state(state_of(fixture, variant), options_of(variant))
    unmasked = outputs(model, fixture["channel"])
    np.testing.assert_allclose(unmasked, fixture[f"{variant}/unmasked"], atol=1e-5)
    masked = outputs(model, fixture["channel"], fixture["mask"])
    np.testing.assert_allclose(masked, fixture[f"{variant}/masked"], atol=1e-5)


@pytest.fixture
def double(monkeypatch):
    """Models in float64, as the references: near ties of scores fall the same way on both sides.

    Keras promotes float64 to float32 everywhere but on TensorFlow. PyTorch itself has it; JAX needs
    a flag before it starts.
    """
    if keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32")
    if keras.backend.backend() == "torch":
        from keras.src.backend.common import dtypes

        monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def error_to_numpy(rng, settings, options, *, class_token, share=0.4, **sizes):
    """Largest difference to the reference in NumPy, hidden tokens or none."""
    state = published_numpy.draw_state(rng, settings, class_token=class_token, **sizes)
    channel = rng.standard_normal((1, *settings.grid, 2))
    patches = channel.reshape(1, -1, 2)
    model = model_from_state(state, options)
    errors = []
    for mask in (None, rng.uniform(size=patches.shape[:2]) < share):
        expected = published_numpy.forward(state, patches, settings, mask)
        errors.append(np.abs(outputs(model, channel, mask) - expected).max())
    return max(errors)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_variants_equal_numpy(double, rng, variant):
    """Hidden tokens tie in the published default: exactly k of them may be kept."""
    token, routing, position = variant.split("/")
    settings = published_numpy.Settings(
        (4, 8, 8), num_heads=2, routing=routing == "topk", rotary=position == "rotary"
    )
    options = dataclasses.replace(options_of(variant), position=position)
    assert error_to_numpy(rng, settings, options, class_token=token == "class") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_variants_equal_numpy_at_full_size(double, rng, variant):
    """20 x 32 x 32 tokens of the published width."""
    token, routing, position = variant.split("/")
    settings = published_numpy.Settings(
        (20, 32, 32), num_heads=8, routing=routing == "topk", rotary=position == "rotary"
    )
    options = PublishedOptions(num_heads=8, routing=None if routing == "topk" else "none")
    sizes = {"width": 32, "depth": 2}
    assert error_to_numpy(rng, settings, options, class_token=token == "class", **sizes) < 1e-6


PUBLISHED = {
    "num_heads": 2,
    "patch_size": [1, 1],
    "phase_mode": "real_imag",
    "posenc": "learned",
    "same_frame_window": 2,
    "temporal_offsets": [-4, -3, -2, -1, 1, 2, 3],
    "temporal_spatial_window": 2,
    "temporal_drift_h": 1,
    "temporal_drift_w": 1,
    "routing_topk_enable": True,
    "routing_topk_fraction": 0.2,
    "routing_topk_min": 8,
    "routing_topk_max": 32,
}


@pytest.mark.parametrize(
    ("changes", "reference"),
    [
        ({}, {}),
        ({"same_frame_window": 1, "temporal_offsets": [-1, 2]}, {"window": 1, "offsets": (-1, 2)}),
        ({"posenc": "rope", "rope_base": 500.0}, {"rotary": True, "rope_base": 500.0}),
        (
            {"same_frame_dilation_h": 2, "temporal_spatial_dilation_w": 2},
            {"dilation": (2, 1), "other_dilation": (2, 2)},
        ),
        ({"temporal_spatial_dilation": [1, 2]}, {"other_dilation": (1, 2)}),
        ({"routing_topk_enable": False}, {"routing": False}),
    ],
    ids=["default", "windows", "rope_base", "dilations", "other dilation", "no routing"],
)
def test_the_published_configuration_is_read(double, rng, changes, reference):
    told, unknown = options_from_config(PUBLISHED | changes)
    assert unknown == []
    settings = published_numpy.Settings((4, 8, 8), num_heads=2, **reference)
    options = PublishedOptions(grid=(4, 8, 8)).over(told)
    assert error_to_numpy(rng, settings, options, class_token=False) < 1e-6
    if changes:  # and each of them matters
        usual = PublishedOptions(num_heads=2, grid=(4, 8, 8), position=options.position)
        assert error_to_numpy(rng, settings, usual, class_token=False) > 1e-2


def test_configurations_of_other_models_are_refused():
    for changes, message in (
        ({"phase_mode": "mag_phase"}, "phase_mode='mag_phase'"),
        ({"routing_topk_min": 99}, "min_keys=99"),
        ({"num_heads": "many"}, "cannot be read.*many"),
        ({"posenc": "alibi"}, "position='alibi'"),
    ):
        with pytest.raises(ValueError, match=message):
            options_from_config(PUBLISHED | changes)
    assert options_from_config({"num_heads": 2, "warp": 9})[1] == ["warp"]


def test_every_detail_of_the_reference_matters(fixture):
    """The comparison would see a wrong head, order of the patch's numbers, or neighbourhood."""
    expected = fixture["plain/topk/learned/unmasked"]
    heads = PublishedOptions(num_heads=4, grid=(4, 8, 8))
    turned = PublishedOptions(num_heads=2, grid=(4, 8, 8), neighborhood=Neighborhood(window=1))
    for options in (heads, turned, options_of("plain/all/learned")):
        found = outputs(model_from_state(state_of(fixture), options), fixture["channel"])
        assert np.abs(found - expected).max() > 1e-2


def torch_python():
    """An interpreter with PyTorch and Keras, or None."""
    if importlib.util.find_spec("torch") is not None:
        return sys.executable
    return os.environ.get("LWMT_TORCH_PYTHON")


def run_torch(*arguments):
    python = torch_python()
    if python is None:
        pytest.skip("PyTorch is not installed, and LWMT_TORCH_PYTHON names no interpreter with it")
    backend = keras.backend.backend() if python == sys.executable else "torch"
    return subprocess.run(
        [python, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )


def compare(tmp_path, case, conversion=(), hidden=("unmasked", "masked")):
    """Writes a checkpoint, converts it, and returns the largest error in float64."""
    done = run_torch(REFERENCE, tmp_path, *case)
    assert done.returncode == 0, done.stderr
    checkpoint, preset = tmp_path / "checkpoint.pth", tmp_path / "preset"
    done = run_torch("-m", "lwmt_sionna.convert", checkpoint, preset, *conversion)
    assert done.returncode == 0, done.stderr
    # In double precision, as the reference: near ties of scores fall the same way on both sides.
    model = MaskedChannelModel.from_preset(preset, dtype="float64")
    with np.load(tmp_path / "case.npz") as file:
        expected = {name: file[name] for name in file.files}
    errors = []
    for name in hidden:
        mask = expected["mask"] if name == "masked" else None
        found = outputs(model, expected["channel"], mask)
        errors.append(float(np.abs(found - expected[name]).max()))
    return max(errors)


SMALL = ("--num-heads", 2, "--grid", 4, 8, 8)


@pytest.mark.parametrize(
    ("case", "conversion", "hidden"),
    [
        (("--routing",), SMALL, ("unmasked", "masked")),
        (("--routing", "--rotary", "--class-token"), SMALL[:2], ("unmasked", "masked")),
        (
            ("--class-token", "--old-names", "--nested"),
            (*SMALL, "--routing", "none"),
            ("unmasked", "masked"),
        ),
        (
            ("--patch", 2, 4, "--heads", 4, "--rotary"),
            ("--num-heads", 4, "--patch", 2, 4, "--routing", "none"),
            ("unmasked", "masked"),
        ),
    ],
    ids=["published", "rotary-class", "old-names", "patches"],
)
@pytest.mark.usefixtures("double")
def test_converted_checkpoints_equal_pytorch(tmp_path, case, conversion, hidden):
    assert compare(tmp_path, case, conversion, hidden) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("routing", ["topk", "none"])
def test_full_grid_equals_pytorch(tmp_path, class_token, position, routing):
    """20 x 32 x 32 tokens of the published width."""
    case = ["--grid", 20, 32, 32, "--width", 32, "--heads", 8]
    case += ["--class-token"] * class_token + ["--rotary"] * (position == "rotary")
    case += ["--routing"] * (routing == "topk")
    conversion = ("--num-heads", 8, "--routing", routing)
    assert compare(tmp_path, case, conversion, ("unmasked", "masked")) < 1e-6
