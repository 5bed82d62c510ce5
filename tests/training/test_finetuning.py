"""Fine-tuning: what starts where, what is trained, and one small run through both tasks."""

import dataclasses

import keras
import numpy as np
import pytest

from lwmt_sionna.data import ChannelSequences, write_paths
from lwmt_sionna.models import ChannelPredictor, LWMTBackbone, MaskedChannelModel
from lwmt_sionna.ops import RandomNeighborhood
from lwmt_sionna.training import ModelConfig, as_predictor, train
from lwmt_sionna.training.studies import CONDITIONS, draw_views, reconstruction_points
from tests import mirrors
from tests.training.small import predictor_config

MODEL = ModelConfig(
    width=8, depth=1, num_heads=1, patch=(2, 2), position="rotary_grid", local_motion=True
)


def config(data="none.h5", **settings):
    options = {
        "experts": ((8, 2),),
        "context": 3,
        "pool": 12,
        "test_share": 0.2,
        "validation_share": 0.1,
        "split_seed": 1,
        "steps": 6,
        "checkpoint_every": 3,
        "log_every": 1,
        "ema_momentum": 0.5,
        "decay_vectors": False,
        **dataclasses.asdict(MODEL),
    }
    return predictor_config([data], **(options | settings))


@pytest.fixture
def pretrained(tmp_path):
    model = MaskedChannelModel(MODEL.build_backbone(6), local_scale=True, local_motion=True)
    model.build(None)
    # As it is after its errors were measured.
    model.compile(optimizer=None)
    model.save_to_preset(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.variables]


@pytest.mark.parametrize("kind", ["predictor", "direct"])
@pytest.mark.parametrize("mode", ["full", "frozen", "lora"])
def test_modes_start_from_the_pretrained_weights(pretrained, kind, mode):
    start = LWMTBackbone.from_preset(pretrained)
    model = config(init=str(pretrained), mode=mode, kind=kind).build()
    assert isinstance(model, MaskedChannelModel if kind == "direct" else ChannelPredictor)
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
    model = config().build()
    difference = keras.ops.convert_to_numpy(model.backbone.embed.kernel - start.embed.kernel)
    assert np.abs(difference).max() > 1e-3


@pytest.mark.usefixtures("eagerly")
def test_an_untrained_predictor_is_linear_prediction_whatever_it_starts_from(pretrained, rng):
    h = rng.standard_normal((2, 8, 4, 4, 2)).astype(np.float32)
    scratch = config().build()
    tuned = config(init=str(pretrained)).build()
    np.testing.assert_allclose(np.asarray(scratch(h)), np.asarray(tuned(h)), rtol=1e-4, atol=1e-5)


def test_attentions_have_equal_weights_and_other_neighbours():
    models = {name: config(attention=name).build() for name in ("ssta", "dense", "random")}
    assert len({m.count_params() for m in models.values()}) == 1
    grid = (5, 4, 4)
    tables = {n: m.backbone.neighborhood.table(grid)[1].sum(axis=1) for n, m in models.items()}
    assert (tables["dense"] == 80).all()
    np.testing.assert_array_equal(tables["random"], tables["ssta"])
    assert isinstance(models["random"].backbone.neighborhood, RandomNeighborhood)
    for first, second in zip(weights(models["ssta"]), weights(models["random"]), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["predictor", "direct"])
def test_a_small_run(tmp_path, rng, kind):
    paths = mirrors.sequences(rng, num_sequences=20, num_snapshots=10)
    write_paths(tmp_path / "few.h5", paths)
    settings = config(tmp_path / "few.h5", kind=kind, label_share=0.5)
    model, outcome = train(settings, tmp_path / "run", verbose=0)
    assert list(outcome["sequences"].values()) == [{"training": 7, "validation": 2}]
    assert [row["step"] for row in outcome["history"]] == list(range(1, 7))
    assert outcome["best_step"] in (0, 3, 6)
    prediction = as_predictor(model, settings)(rng.standard_normal((2, 8, 4, 4, 2)).astype("f4"))
    assert prediction.shape == (2, 2, 4, 4, 2) and np.isfinite(np.asarray(prediction)).all()


@pytest.mark.parametrize("shipped", ["paths", "small"])
def test_the_architecture_is_that_of_the_preset(shipped):
    """Whatever the configuration says of width, patches and experts."""
    start = ChannelPredictor.from_preset(shipped)
    for mode in ("full", "frozen", "lora"):
        model = config(init=shipped, mode=mode).build()
        assert (model.physics, model.num_horizons) == (start.physics, start.num_horizons)
        assert model.backbone.width == 64 and model.trainable_variables
    with pytest.raises(ValueError, match="kind direct"):
        config(init=shipped, kind="direct").build()


@pytest.mark.slow
def test_the_preset_paths_is_fine_tuned(tmp_path, rng):
    """Its five horizons and sixteen snapshots come with it."""
    paths = mirrors.sequences(rng, num_sequences=10, num_snapshots=21)
    write_paths(tmp_path / "few.h5", paths)
    settings = config(
        tmp_path / "few.h5", init="paths", num_history=16, num_ant=8, num_subcarriers=8, steps=1,
        pool=4, checkpoint_every=1,
    )  # fmt: skip
    model, outcome = train(settings, tmp_path / "run", verbose=0)
    assert model.physics.num_paths == 24
    assert outcome["validation_loss_db"] <= outcome["validation_loss_untrained_db"]


def test_wrong_configurations(tmp_path):
    with pytest.raises(ValueError, match="mode=frozen"):
        config(mode="frozen")
    for name, value in (("label_share", 0), ("kind", "other"), ("context", 9), ("width", 8.5)):
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            config(**{name: value})
    with pytest.raises(ValueError, match="nonsense"):
        config(nonsense=1)
    contestant = config().contestant("gru")
    contestant.build().save_to_preset(tmp_path)
    frozen = dataclasses.replace(contestant, init=str(tmp_path), mode="frozen")
    with pytest.raises(ValueError, match="with a backbone"):
        frozen.build()


def test_settings_stand_in_tables_or_without():
    flat = config()
    assert type(flat).from_dict(flat.to_dict()) == flat


def test_reconstruction_of_a_perfect_model_is_perfect(rng, monkeypatch):
    """The errors count the wanted tokens alone, in their own scale."""
    model = MaskedChannelModel(MODEL.build_backbone(8))
    model.build(None)
    h = rng.standard_normal((6, 8, 4, 4, 2)).view(np.complex128)[..., 0].astype(np.complex64)
    chosen = {name: CONDITIONS[name] for name in ("occlusion", "subcarrier_comb")}
    channels = ChannelSequences(h, 1e-3, 3.5e9, 30e3, (1, 4, 1), "stored")
    views = draw_views(channels, (8, 4, 4), 1e6, chosen, MODEL.patch, seed=1)
    again = draw_views(channels, (8, 4, 4), 1e6, chosen, MODEL.patch, seed=1)
    np.testing.assert_array_equal(views["occlusion"]["observed"], again["occlusion"]["observed"])
    queue = [views[name]["target"] for name in chosen]
    monkeypatch.setattr(model, "predict_on_batch", lambda x: 0.9 * queue.pop(0))
    for point in reconstruction_points(model, views, batch_size=6):
        assert point["nmse_pooled_db"] == pytest.approx(-20.0, abs=0.1)
        assert point["num_sequences"] == 6
