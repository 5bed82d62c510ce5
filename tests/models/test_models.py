"""Backbone, masked model and predictor."""

import json

import keras
import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone, MaskedChannelModel, Neighborhood
from lwmt_sionna.baselines import DenoisedAutoregression, ModelPredictor
from lwmt_sionna.models import LogNormalizedError

NEIGHBORHOOD = Neighborhood(window=(1, 1), corridor=(1, 1), time_offsets=(-2, -1, 1, 2))
# What XLA compiles in seconds takes PyTorch's compiler minutes.
IS_XLA = keras.backend.backend() != "torch"


def make_backbone(**overrides):
    arguments = {
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch": (4, 4),
        "neighborhood": NEIGHBORHOOD,
    }
    return LWMTBackbone(**(arguments | overrides))


def make_predictor():
    model = ChannelPredictor(make_backbone(), num_horizons=3, context=3, experts=((8, 2), (16, 6)))
    model.build((None, 16, 8, 8, 2))
    return model


@pytest.fixture(scope="module")
def shared():
    """What it compiles serves the whole module."""
    return make_predictor()


@pytest.fixture
def predictor(shared):
    shared.head.kernel.assign(0 * shared.head.kernel)
    return shared


@pytest.fixture
def trained(shared):
    """A predictor whose head is not zero."""
    shared.head.kernel.assign(0.05 * keras.random.normal(shared.head.kernel.shape, seed=3))
    return shared


@pytest.fixture
def history(rng):
    shape = (2, 16, 8, 8)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def stacked(h):
    return np.stack([h.real, h.imag], axis=-1)


def test_backbone_runs_on_any_grid():
    backbone = make_backbone()
    assert backbone(np.zeros((1, 5, 8, 8, 2), np.float32)).shape == (1, 20, 16)
    count = backbone.count_params()
    assert backbone(np.zeros((2, 3, 16, 4, 2), np.float32)).shape == (2, 12, 16)
    # Patches that hang over the edge count.
    assert backbone(np.zeros((1, 2, 9, 7, 2), np.float32)).shape == (1, 12, 16)
    assert backbone.count_params() == count


def test_hidden_tokens_do_not_leak(rng):
    backbone = make_backbone()
    x = rng.standard_normal((1, 4, 8, 8, 2)).astype(np.float32)
    mask = np.zeros((1, 16), bool)
    mask[0, 5] = True
    changed = x.copy()
    # Token 5: snapshot 1, angle patch 0, delay patch 1
    changed[0, 1, :4, 4:] += 1.0
    np.testing.assert_array_equal(backbone(x, mask=mask), backbone(changed, mask=mask))
    assert np.abs(backbone(x) - backbone(changed)).max() > 1e-3


def test_masked_model_learns_and_round_trips(rng, tmp_path):
    model = MaskedChannelModel(make_backbone())
    x = rng.standard_normal((8, 4, 8, 8, 2)).astype(np.float32)
    x[:, 1:] = x[:, :1]
    mask = rng.uniform(size=(8, 16)) < 0.4
    inputs = {"channel": x, "mask": mask}
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=IS_XLA)
    losses = model.fit(inputs, x, epochs=25, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(inputs), model(inputs), atol=1e-5)


def test_untrained_predictor_is_denoised_linear_prediction(predictor, history):
    expected = DenoisedAutoregression(order=6, denoise_radius=2)(history, 3)
    np.testing.assert_allclose(predictor(history), expected, atol=1e-3)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_predictor_finds_the_lost_reports_that_it_is_not_told_of(rng, aligned):
    config = {**make_predictor().get_config(), "aligned": aligned}
    model = ChannelPredictor.from_config(config)
    model.run_eagerly = True
    tone = np.exp(2j * np.pi * 0.1 * np.arange(16))[:, None, None]
    noise = rng.standard_normal((2, 16, 8, 8, 2)) @ [0.01, 0.01j]
    history = tone * np.exp(2j * np.pi * 0.2 * np.arange(8))[:, None] + noise
    held = history.copy()
    held[:, 12] = held[:, 11]
    arrived = np.ones((2, 16), bool)
    arrived[:, 12] = False
    held = held.astype(np.complex64)
    predicted, told = (
        keras.ops.convert_to_numpy(model(held, **options)) for options in ({}, {"arrived": arrived})
    )
    np.testing.assert_allclose(predicted, told, atol=1e-5)
    truth = history[:, -1:] * np.exp(2j * np.pi * 0.1 * np.arange(1, 4))[:, None, None]
    assert np.mean(np.abs(predicted - truth) ** 2) < 0.01
    del config["aligned"]  # as presets of earlier versions have it
    assert not ChannelPredictor.from_config(config).aligned


def test_forms_of_input_agree(trained, history):
    reference = np.asarray(trained(history))
    np.testing.assert_allclose(trained(stacked(history)), stacked(reference), atol=1e-5)
    # [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, time, num_subcarriers]
    sionna = np.moveaxis(history, 1, 2)[None, :, None, None]
    future = np.asarray(trained(sionna))
    assert future.shape == (1, 2, 1, 1, 8, 3, 8)
    np.testing.assert_allclose(np.moveaxis(future[0, :, 0, 0], 2, 1), reference, atol=1e-5)
    np.testing.assert_allclose(
        ModelPredictor(trained, batch_size=2)(history, 2), reference[:, :2], atol=1e-4
    )


@pytest.mark.usefixtures("eagerly")
def test_a_model_trained_at_one_grid_runs_at_another(trained, rng):
    shape = (1, 20, 16, 4)
    other = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    assert trained(other).shape == (1, 3, 16, 4)


def test_predictor_trains_under_compilation(rng):
    predictor = make_predictor()
    x = rng.standard_normal((8, 16, 8, 8, 2)).astype(np.float32)
    predictor.compile(
        optimizer=keras.optimizers.Adam(1e-2), loss=LogNormalizedError(), jit_compile=IS_XLA
    )
    target = 0.3 * np.repeat(x[:, -1:], 3, axis=1)
    losses = predictor.fit(x, target, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    unused = [w.path for w in predictor.trainable_weights if not np.isfinite(w).all()]
    assert not unused


def test_preset_round_trip(trained, history, tmp_path):
    trained.save_to_preset(tmp_path / "preset", metadata={"note": 1}, readme="# A preset")
    again = ChannelPredictor.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(again(history), trained(history), atol=1e-6)
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert metadata["num_parameters"] == trained.count_params()
    trained.save(tmp_path / "model.keras")
    whole = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(whole(history), trained(history), atol=1e-6)


def test_presets_that_are_missing_or_damaged_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="preset=nonsense"):
        ChannelPredictor.from_preset("nonsense")
    trained.save_to_preset(tmp_path / "preset")
    weights = tmp_path / "preset" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        ChannelPredictor.from_preset(tmp_path / "preset")
    weights.unlink()
    with pytest.raises(ValueError, match="no weights"):
        ChannelPredictor.from_preset(tmp_path / "preset")
