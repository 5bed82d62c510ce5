"""Fine-tuning: what starts where, what is trained, and one small run through both tasks."""

import dataclasses

import keras
import numpy as np
import pytest

from lwmt_sionna.data import write_paths
from lwmt_sionna.models import ChannelPredictor, LWMTBackbone, MaskedChannelModel
from lwmt_sionna.ops import RandomNeighborhood
from lwmt_sionna.training import FinetuneConfig, ModelConfig, OptimizationConfig, finetune
from lwmt_sionna.training.finetuning import as_predictor, build_finetuned
from lwmt_sionna.training.reconstruction import CONDITIONS, draw_views, reconstruction_points
from tests import mirrors

MODEL = ModelConfig(width=8, depth=1, num_heads=1, patch=(2, 2))


def config(**settings):
    options = {
        "data": ("none.h5",),
        "num_ant": 4,
        "num_subcarriers": 4,
        "num_history": 8,
        "num_horizons": 2,
        "context": 3,
        "experts": ((8, 2),),
        "pool": 12,
        "test_share": 0.2,
        "model": MODEL,
        "optimization": OptimizationConfig(
            steps=6, batch_size=4, checkpoint_every=3, log_every=1, ema_momentum=0.5
        ),
    }
    return FinetuneConfig(**(options | settings))


@pytest.fixture
def pretrained(tmp_path):
    model = MaskedChannelModel(MODEL.build_backbone(6), local_scale=True)
    model.build(None)
    model.save_to_preset(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.variables]


@pytest.mark.parametrize("task", ["predictor", "direct"])
@pytest.mark.parametrize("mode", ["full", "frozen", "lora"])
def test_modes_start_from_the_pretrained_weights(pretrained, task, mode):
    start = LWMTBackbone.from_preset(pretrained)
    model = build_finetuned(config(init=str(pretrained), mode=mode, task=task))
    assert isinstance(model, MaskedChannelModel if task == "direct" else ChannelPredictor)
    for name in ("qkv", "proj"):
        got, want = (getattr(b.blocks[0].attention, name).kernel for b in (model.backbone, start))
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(got), keras.ops.convert_to_numpy(want)
        )
    trained = {id(v) for v in model.trainable_variables}
    inside = [v for v in model.backbone.variables if id(v) in trained]
    if mode == "full":
        assert len(inside) == len(model.backbone.variables)
    elif mode == "frozen":
        assert not inside and model.trainable_variables
    else:
        assert inside and all("lora" in v.path for v in inside)


def test_from_scratch_the_backbone_is_another(pretrained):
    start = LWMTBackbone.from_preset(pretrained)
    model = build_finetuned(config())
    difference = keras.ops.convert_to_numpy(model.backbone.embed.kernel - start.embed.kernel)
    assert np.abs(difference).max() > 1e-3


def test_an_untrained_predictor_is_linear_prediction_whatever_it_starts_from(pretrained, rng):
    h = rng.standard_normal((2, 8, 4, 4, 2)).astype(np.float32)
    scratch = build_finetuned(config())
    tuned = build_finetuned(config(init=str(pretrained), mode="full"))
    np.testing.assert_allclose(np.asarray(scratch(h)), np.asarray(tuned(h)), rtol=1e-4, atol=1e-5)


def test_attentions_have_equal_weights_and_other_neighbours():
    models = {
        name: build_finetuned(config(model=dataclasses.replace(MODEL, attention=name)))
        for name in ("ssta", "dense", "random")
    }
    assert len({m.count_params() for m in models.values()}) == 1
    grid = (5, 4, 4)
    tables = {n: m.backbone.neighborhood.table(grid)[1].sum(axis=1) for n, m in models.items()}
    assert (tables["dense"] == 80).all()
    np.testing.assert_array_equal(tables["random"], tables["ssta"])
    assert isinstance(models["random"].backbone.neighborhood, RandomNeighborhood)
    for first, second in zip(weights(models["ssta"]), weights(models["random"]), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("task", ["predictor", "direct"])
def test_a_small_run(tmp_path, rng, task):
    paths = mirrors.sequences(rng, num_sequences=20, num_snapshots=10)
    write_paths(tmp_path / "few.h5", paths)
    settings = config(data=(str(tmp_path / "few.h5"),), task=task, label_share=0.5)
    model, outcome = finetune(settings, tmp_path / "run", verbose=0)
    assert outcome["num_training"] == 7 and outcome["num_validation"] == 2
    assert [row["step"] for row in outcome["history"]] == list(range(1, 7))
    assert outcome["best_step"] in (3, 6)
    prediction = as_predictor(model, settings)(rng.standard_normal((2, 8, 4, 4, 2)).astype("f4"))
    assert prediction.shape == (2, 2, 4, 4, 2) and np.isfinite(np.asarray(prediction)).all()
    if task == "predictor":
        return  # the same loop, and seconds of compiling
    # Started again, the run is found finished, with the weights of its best step.
    again, same = finetune(settings, tmp_path / "run", verbose=0)
    assert same["validation_loss_db"] == outcome["validation_loss_db"]
    for got, want in zip(weights(again), weights(model), strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="another configuration"):
        finetune(dataclasses.replace(settings, seed=9), tmp_path / "run", verbose=0)


def test_wrong_configurations(pretrained):
    with pytest.raises(ValueError, match="mode=full"):
        config(mode="full")
    with pytest.raises(ValueError, match="label_share=0"):
        config(label_share=0)
    with pytest.raises(ValueError, match="task=other"):
        config(task="other")
    other = dataclasses.replace(MODEL, width=4)
    with pytest.raises(ValueError, match="width=8"):
        build_finetuned(config(init=str(pretrained), mode="full", model=other))
    wide = dataclasses.replace(MODEL, window=(2, 2))
    with pytest.raises(ValueError, match="another neighbourhood"):
        build_finetuned(config(init=str(pretrained), mode="full", model=wide))


def test_reconstruction_of_a_perfect_model_is_perfect(rng, monkeypatch):
    """The errors count the wanted tokens alone, in their own scale."""
    model = MaskedChannelModel(MODEL.build_backbone(8))
    model.build(None)
    h = rng.standard_normal((6, 8, 4, 4, 2)).view(np.complex128)[..., 0].astype(np.complex64)
    chosen = {name: CONDITIONS[name] for name in ("occlusion", "subcarrier_comb")}
    views = draw_views(h, chosen, MODEL.patch, seed=1)
    again = draw_views(h, chosen, MODEL.patch, seed=1)
    np.testing.assert_array_equal(views["occlusion"]["observed"], again["occlusion"]["observed"])
    queue = [views[name]["target"] for name in chosen]
    monkeypatch.setattr(model, "predict_on_batch", lambda x: 0.9 * queue.pop(0))
    for point in reconstruction_points(model, views, batch_size=6):
        assert point["nmse_pooled_db"] == pytest.approx(-20.0, abs=0.1)
        assert point["num_sequences"] == 6
