"""Saving without custom objects, freezing, and low-rank adaptation."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna import ChannelPredictor, LWMTBackbone, MaskedChannelModel, Neighborhood

ROOT = pathlib.Path(__file__).resolve().parents[2]
MASK = np.arange(36).reshape(2, 18) % 3 == 0


@pytest.fixture
def model():
    backbone = LWMTBackbone(
        width=8,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        patch=(2, 3),
        neighborhood=Neighborhood(window=1, corridor=1, class_token=True),
    )
    model = MaskedChannelModel(backbone)
    model.build(None)
    return model


@pytest.fixture
def batch(rng):
    channel = rng.standard_normal((2, 3, 6, 5, 2)).astype(np.float32)
    return {"channel": channel, "mask": MASK}


def train(model, batch):
    """One step; names of the weights that it changed."""
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    before = {w.path: ops.convert_to_numpy(w) for w in model.weights}
    model.train_on_batch(batch, batch["channel"])
    return {w.path for w in model.weights if np.any(before[w.path] != ops.convert_to_numpy(w))}


def test_keras_file_needs_no_custom_objects(model, batch, tmp_path):
    """A process that has imported the package reads it."""
    path = tmp_path / "model.keras"
    model(batch)
    model.save(path)
    np.savez(tmp_path / "x.npz", **batch)
    program = (
        "import keras, lwmt_sionna.models, numpy as np\n"
        f"model = keras.saving.load_model({str(path)!r})\n"
        f"x = dict(np.load({str(tmp_path / 'x.npz')!r}))\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, keras.ops.convert_to_numpy(model(x)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), keras.ops.convert_to_numpy(model(batch)), atol=1e-6
    )


def test_frozen_backbone_stays_frozen_when_saved(model, batch, tmp_path):
    model.backbone.trainable = False
    assert {path.split("/")[-2] for path in train(model, batch)} == {"head"}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [w.path.split("/")[-2] for w in again.trainable_weights] == ["head", "head"]


@pytest.mark.parametrize(("num_blocks", "moved"), [(0, 3), (2, 1), (3, 0)])
def test_layer_wise_freezing(model, batch, num_blocks, moved):
    model.backbone.freeze(num_blocks)
    changed = train(model, batch)
    blocks = {part for path in changed for part in path.split("/") if part.startswith("block_")}
    assert blocks == {f"block_{i}" for i in range(3 - moved, 3)}
    for part in ("embed", "position", "mask_embedding", "class_token"):
        assert not any(part in path for path in changed)
    assert any("/norm/" in path for path in changed)
    assert any("/head/" in path for path in changed)


def test_freezing_all(model, batch):
    model.backbone.freeze()
    assert all("/head/" in path for path in train(model, batch))


def test_low_rank_adaptation(model, batch, tmp_path):
    plain = model.count_params()
    before = ops.convert_to_numpy(model(batch))
    model.backbone.enable_lora(rank=2, targets=("qkv", "contract"))
    np.testing.assert_allclose(model(batch), before, atol=1e-6)
    names = {w.path.split("/")[-1] for w in model.backbone.trainable_weights}
    assert names == {"lora_kernel_a", "lora_kernel_b"}
    assert len(model.backbone.trainable_weights) == 3 * 2 * 2
    changed = train(model, batch) | train(model, batch)
    assert all("lora" in path or "/head/" in path for path in changed)
    assert sum("lora" in path for path in changed) == 12
    # Saving merges: a plain model with the same outputs and its old size.
    after = ops.convert_to_numpy(model(batch))
    assert np.abs(after - before).max() > 1e-3
    model.save_to_preset(tmp_path / "preset")
    again = MaskedChannelModel.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(again(batch), after, atol=1e-5)
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert again.count_params() == metadata["num_parameters"] == plain
    model.save(tmp_path / "model.keras")
    whole = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(whole(batch), after, atol=1e-5)
    with pytest.raises(ValueError, match="already"):
        model.backbone.enable_lora()
    again.backbone.enable_lora()


def test_blocks_in_one_loop_are_adapted_alike(model, batch):
    """Stacking weights for a loop keeps corrections and frozen weights in their places."""
    config = model.backbone.get_config() | {"block_loop": "rematerialize"}
    looped = MaskedChannelModel(LWMTBackbone.from_config(config))
    looped.build(None)
    looped.set_weights(model.get_weights())
    for one in (model, looped):
        one.backbone.enable_lora(rank=2)
        one.backbone.blocks[0].expand.lora_kernel_b.assign(np.ones((2, 16)))
    for name in ("qkv", "proj"):
        for left, right in zip(model.backbone.blocks, looped.backbone.blocks, strict=True):
            kernel = getattr(left.attention, name).lora_kernel_a
            getattr(right.attention, name).lora_kernel_a.assign(kernel)
    for left, right in zip(model.backbone.blocks, looped.backbone.blocks, strict=True):
        for part in ("expand", "contract"):
            getattr(right, part).lora_kernel_a.assign(getattr(left, part).lora_kernel_a)
    np.testing.assert_allclose(looped(batch), model(batch), atol=1e-5)
    changed = train(looped, batch) | train(looped, batch)
    assert sum("lora" in path for path in changed) == 3 * 4 * 2
    assert all("lora" in path or "/head/" in path for path in changed)


def test_a_predictor_is_adapted_through_its_backbone():
    predictor = ChannelPredictor.from_preset("testing", load_weights=False)
    predictor.backbone.enable_lora(rank=1)
    own = {part for w in predictor.trainable_weights for part in w.path.split("/")}
    assert {"head", "observed_features", "forecast_features", "level_features"} <= own
    assert not any(w.path.endswith("/kernel") for w in predictor.backbone.trainable_weights)


def test_wrong_arguments_are_named(model):
    with pytest.raises(ValueError, match="num_blocks=4"):
        model.backbone.freeze(4)
    with pytest.raises(ValueError, match="rank=0"):
        model.backbone.enable_lora(0)
    with pytest.raises(ValueError, match="targets"):
        model.backbone.enable_lora(targets=("head",))
    with pytest.raises(ValueError, match="no weights yet"):
        LWMTBackbone(depth=1).freeze()
