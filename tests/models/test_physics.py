"""What a predictor that resolves paths starts from."""

import keras
import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone, Neighborhood

NUM_SNAPSHOTS, NUM_HORIZONS = 12, 3


def waves(rng, batch=3, num_paths=3, noise=0.03, size=8):
    """Noisy histories of steady plane waves, and what follows without noise."""
    t, m, k = np.meshgrid(
        np.arange(NUM_SNAPSHOTS + NUM_HORIZONS), np.arange(size), np.arange(size), indexing="ij"
    )
    h = 0
    for path in range(num_paths):
        shape = (batch, 1, 1, 1)
        # Apart in Doppler shift, anywhere in angle and delay.
        turns = rng.uniform(0.2, 0.8, shape) / num_paths + path / num_paths
        turns = turns * t + rng.uniform(size=shape) * m + rng.uniform(size=shape) * k
        h = h + 0.7**path * np.exp(2j * np.pi * (turns + rng.uniform(size=shape)))
    history = h[:, :NUM_SNAPSHOTS]
    disturbed = history + noise * (
        rng.standard_normal(history.shape) + 1j * rng.standard_normal(history.shape)
    )
    return disturbed.astype(np.complex64), h[:, NUM_SNAPSHOTS:].astype(np.complex64)


def make_predictor(**settings):
    backbone = LWMTBackbone(
        width=8,
        depth=1,
        num_heads=2,
        patch=(4, 4),
        neighborhood=Neighborhood(window=1, corridor=(1, 1), time_offsets=(-1, 1)),
    )
    options = {"num_horizons": NUM_HORIZONS, "context": 3, "experts": ((8, 2), (12, 4))}
    return ChannelPredictor(backbone, **(options | settings))


@pytest.fixture(scope="module")
def predict():
    """A compiled predictor of up to four paths."""
    model = make_predictor(num_paths=4)
    model.build((None, NUM_SNAPSHOTS, 8, 8, 2))
    model.compile(jit_compile=keras.backend.backend() != "torch")
    return lambda h: np.asarray(model.predict_on_batch(h))


def error_db(found, expected):
    return 10 * np.log10(np.sum(np.abs(found - expected) ** 2) / np.sum(np.abs(expected) ** 2))


def test_resolved_paths_are_continued(predict, rng):
    """Bins by themselves, which see a part of the history each, reach -20 dB here."""
    history, future = waves(rng)
    assert error_db(predict(history), future) < -30


def test_scale_and_phase_pass_through(predict, rng):
    history, _ = waves(rng)
    factor = 1e-6 * np.exp(2j)
    reference = predict(history)
    assert error_db(predict((factor * history).astype(np.complex64)) / factor, reference) < -50


def test_links_are_apart(predict, rng):
    history, _ = waves(rng)
    broken = history.copy()
    broken[0] = np.nan
    broken[1] = 0
    found = predict(broken)
    assert np.isnan(found[0]).all()
    assert not found[1].any()
    np.testing.assert_array_equal(found[2], predict(history)[2])


def test_features_name_the_paths_last(rng):
    model = make_predictor(num_paths=1)
    history, _ = waves(rng, batch=1, num_paths=1, noise=0.3)
    x = model.transform(np.stack([history.real, history.imag], axis=-1))
    features = {name: np.asarray(value) for name, value in model.features(x).items()}
    assert features["forecasts"].shape == (1, 3, NUM_HORIZONS, 8, 8, 2)
    assert features["misfit"].shape == (1, 8, 8, 3)
    # The path explains what there is: its continuation is the last forecast, and little is left.
    power = np.square(features["forecasts"]).sum(axis=(0, 2, 3, 4, 5))
    assert power[-1] > 100 * power[:-1].max()
    assert features["misfit"][..., -1].mean() == pytest.approx(features["noise"][0], rel=0.3)
    assert features["noise"][0] == pytest.approx(2 * 0.3**2, rel=0.3)


def test_round_trip(tmp_path):
    """Predictions of a preset that was read again: `tests/models/test_models.py`."""
    model = make_predictor(num_paths=1, whole_experts=((10, 2),))
    model.build((None, NUM_SNAPSHOTS, 8, 8, 2))
    model.save_to_preset(tmp_path / "preset")
    again = ChannelPredictor.from_preset(tmp_path / "preset")
    assert again.physics == model.physics and again.physics.num_paths == 1
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "settings", [{"num_paths": -1}, {"array_shape": (2, 4, 1)}, {"num_delay": 4}]
)
def test_what_cannot_be_resolved_is_refused(settings):
    with pytest.raises(ValueError, match="num_paths"):
        make_predictor(**({"num_paths": 4} | settings))


def test_predictions_of_the_whole_history_are_offered_as_differences(rng):
    """The gate of one at 1 replaces the paths by what linear prediction alone forecasts."""
    history, _ = waves(rng, batch=1)
    model = make_predictor(num_paths=4, whole_experts=((10, 2),))
    alone = make_predictor(experts=((10, 2),))
    both = []
    for predictor in (model, alone):
        predictor.build((None, NUM_SNAPSHOTS, 8, 8, 2))
        x = np.stack([history.real, history.imag], axis=-1).astype("float32")
        features = predictor.features(predictor.transform(keras.ops.convert_to_tensor(x)))
        both.append({n: keras.ops.convert_to_numpy(v) for n, v in features.items()})
    forecasts = both[0]["forecasts"]
    # Two experts on what the paths leave, one on the whole history, the paths themselves.
    assert forecasts.shape[1] == 4 and both[0]["misfit"].shape[-1] == 5
    restored = forecasts[:, 2] + forecasts[:, 3]
    expected = both[1]["forecasts"][:, 0]
    # They take the noise from what the paths leave, the other from all bins.
    error = np.sum((restored - expected) ** 2) / np.sum(expected**2)
    assert error < 1e-2
    copy = ChannelPredictor.from_config(model.get_config())
    assert copy.physics.whole_experts == ((10, 2),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whole_experts": ((10, 2),)}, "need `num_paths`.*num_paths=0"),
        ({"num_paths": 2, "whole_experts": ((2, 2),)}, r"0 < order < window.*whole_experts=\(\(2"),
        ({"experts": ()}, r"experts=\(\)"),
    ],
)
def test_impossible_experts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_predictor(**settings)
