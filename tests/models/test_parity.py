"""Converted checkpoints against an independent PyTorch implementation of the published model.

The reference is `published_reference.py`, written from the description alone. Its outputs for a
small model are committed; where an interpreter with PyTorch is there (this one, or the one that
LWMT_TORCH_PYTHON names, which needs keras too), checkpoints are written, converted and compared
afresh.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from lwmt_sionna import MaskedChannelModel, Neighborhood
from lwmt_sionna.models.published import PublishedOptions, model_from_state
from lwmt_sionna.ops.patches import patchify

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCE = pathlib.Path(__file__).with_name("published_reference.py")
FIXTURE = pathlib.Path(__file__).parent / "data" / "published_4x8x8.npz"
VARIANTS = [
    f"{token}/{routing}/{position}"
    for token in ("plain", "class")
    for routing in ("all", "topk")
    for position in ("learned", "rotary")
]


# Hidden tokens without a position are alike, so their scores tie, and it matters how many of them
# routing keeps.
TIES = ("plain/topk/learned", "class/topk/learned")


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
        num_heads=2, grid=(4, 8, 8), routing="topk" if "topk" in variant else None
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_committed_outputs(fixture, variant):
    """Outputs are of magnitude 5."""
    model = model_from_state(state_of(fixture, variant), options_of(variant))
    unmasked = outputs(model, fixture["channel"])
    np.testing.assert_allclose(unmasked, fixture[f"{variant}/unmasked"], atol=1e-5)
    if variant not in TIES:
        masked = outputs(model, fixture["channel"], fixture["mask"])
        np.testing.assert_allclose(masked, fixture[f"{variant}/masked"], atol=1e-5)


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
        (("--routing",), SMALL, ("unmasked",)),
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
def test_converted_checkpoints_equal_pytorch(tmp_path, case, conversion, hidden):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("float64 needs TensorFlow")
    assert compare(tmp_path, case, conversion, hidden) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("routing", ["topk", "none"])
def test_full_grid_equals_pytorch(tmp_path, class_token, position, routing):
    """20 x 32 x 32 tokens of the published width."""
    case = ["--grid", 20, 32, 32, "--width", 32, "--heads", 8]
    case += ["--class-token"] * class_token + ["--rotary"] * (position == "rotary")
    case += ["--routing"] * (routing == "topk")
    hidden = ["unmasked", "masked"]
    if position == "learned" and routing == "topk":
        hidden.remove("masked")
    error = compare(tmp_path, case, ("--routing", routing), hidden)
    print(f"class token {class_token}, {position}, {routing}: largest error {error:.1e}")
    assert error < 1e-5
