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
def model():
    """A predictor of up to four paths."""
    model = make_predictor(num_paths=4)
    model.build((None, NUM_SNAPSHOTS, 8, 8, 2))
    return model


@pytest.fixture(scope="module")
def predict(model, tmp_path_factory):
    """Predictions of what was saved and read again: the tests ask a preset."""
    folder = tmp_path_factory.mktemp("preset")
    model.save_to_preset(folder)
    again = ChannelPredictor.from_preset(folder)
    assert again.physics == model.physics and again.physics.num_paths == 4
    for found, saved in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, saved)
    again.compile(jit_compile=keras.backend.backend() != "torch")
    return lambda h: np.asarray(again.predict_on_batch(h))


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


@pytest.mark.usefixtures("eagerly")
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


@pytest.mark.slow
def test_a_preset_predicts_as_the_model_that_was_saved(predict, model, rng):
    history, _ = waves(rng)
    model.run_eagerly = True  # one call is not worth a program
    assert error_db(predict(history), np.asarray(model(history))) < -60


@pytest.mark.usefixtures("eagerly")
def test_paths_are_resolved_over_a_planar_array(rng):
    """Rows, columns and polarisations are the array's: taken for a line, few paths are found."""
    t, p, c, r, k = np.ogrid[: NUM_SNAPSHOTS + NUM_HORIZONS, :2, :2, :4, :8]
    h = 0
    for gains, doppler in (([1.0, 0.5j], 0.13), ([-0.2, 0.8], -0.24)):
        a, b, d = rng.uniform(size=3)
        turns = doppler * t + a * c + b * r + d * k
        h = h + np.array(gains)[p] * np.exp(2j * np.pi * turns)
    h = h.reshape(1, len(t), 16, 8)
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    history = (h + 0.05 * noise)[:, :NUM_SNAPSHOTS]
    errors = []
    for shape in ((4, 2, 2), (1, 16, 1)):
        model = make_predictor(num_paths=2, array_shape=shape)
        copy = ChannelPredictor.from_config(model.get_config())
        assert copy.physics == model.physics and copy.physics.array_shape == shape
        start = features_of(model, history)["forecasts"][:, -1]
        target = keras.ops.convert_to_numpy(model.transform(stacked(h[:, NUM_SNAPSHOTS:])))
        errors.append(error_db(start, target))
    assert errors[0] < -30 and errors[1] > -10


@pytest.mark.usefixtures("eagerly")
def test_paths_are_resolved_where_delays_are_truncated(rng):
    """Steady paths of small delays in a wide band: better than linear prediction of the bins."""
    t, m, k = np.ogrid[: NUM_SNAPSHOTS + NUM_HORIZONS, :8, :32]
    h = 0
    for doppler, delay in ((0.13, 2.3), (0.19, 4.6), (-0.24, 6.4)):
        turns = doppler * t + rng.uniform() * m - delay / 32 * k + rng.uniform()
        h = h + np.exp(2j * np.pi * turns)[None]
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    history = (h + 0.2 * noise)[:, :NUM_SNAPSHOTS]
    errors = []
    for settings in ({"num_paths": 8}, {}):
        model = make_predictor(**settings, num_delay=12, first_delay=-2, backtest=3)
        start = features_of(model, history)["forecasts"][:, -1]
        target = keras.ops.convert_to_numpy(model.transform(stacked(h[:, NUM_SNAPSHOTS:])))
        errors.append(error_db(start, target))
    assert errors[0] < errors[1] - 3


@pytest.mark.usefixtures("eagerly")
def test_twelve_horizons_with_paths_and_a_backtest(rng):
    t, m, k = np.ogrid[: NUM_SNAPSHOTS + 12, :8, :8]
    h = np.exp(2j * np.pi * (0.11 * t + 0.2 * m - 0.3 * k))[None]
    h = h + 0.5 * np.exp(2j * np.pi * (-0.23 * t - 0.4 * m + 0.1 * k))[None]
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    history = (h + 0.05 * noise)[:, :NUM_SNAPSHOTS]
    model = make_predictor(num_paths=2, num_horizons=12, backtest=3)
    found = keras.ops.convert_to_numpy(model(stacked(history)))
    assert found.shape == (1, 12, 8, 8, 2)
    found, future = found[..., 0] + 1j * found[..., 1], h[:, NUM_SNAPSHOTS:]
    assert max(error_db(found[:, i], future[:, i]) for i in range(12)) < -20


@pytest.mark.usefixtures("eagerly")
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
    model = make_predictor(num_paths=4, whole_experts=((10, 2),), least_squares=((10, 3),))
    assert ChannelPredictor.from_config(model.get_config()).physics == model.physics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whole_experts": ((10, 2),)}, "need `num_paths`.*num_paths=0"),
        ({"least_squares": ((10, 2),)}, r"need `num_paths`.*least_squares=\(\(10, 2\),\)"),
        ({"num_paths": 2, "whole_experts": ((2, 2),)}, r"0 < order < window.*whole_experts=\(\(2"),
        ({"experts": ()}, r"experts=\(\)"),
        ({"num_paths": -1}, "num_paths=-1"),
    ],
)
def test_impossible_experts_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_predictor(**settings)


def stacked(h):
    """Complex or stacked channels as a real tensor with a last axis of 2."""
    h = np.asarray(keras.ops.convert_to_numpy(h))
    if np.iscomplexobj(h):
        h = np.stack([h.real, h.imag], axis=-1).astype("float32")
    return keras.ops.convert_to_tensor(h)


def features_of(predictor, history):
    """`Physics` of complex histories, as arrays."""
    found = predictor.features(predictor.transform(stacked(history)), history.shape[3])
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("num_paths", [0, 1])
def test_a_backtest_says_by_what_experts_differ_from_their_mix(rng, num_paths):
    history, future = waves(rng, batch=2, num_paths=1, noise=0.1)
    settings = {"num_paths": num_paths}
    if num_paths:
        settings |= {"experts": ((10, 2),), "whole_experts": ((10, 4),)}
        settings |= {"least_squares": ((10, 3),)}
    plain = features_of(make_predictor(**settings), history)
    mixed = features_of(make_predictor(**settings, backtest=2), history)
    *differences, start = np.moveaxis(mixed["forecasts"], 1, 0)
    experts = [start + difference for difference in differences]
    assert len(experts) == 2 + 2 * num_paths
    if num_paths:
        # Linear predictions of what the path leaves go on top of it.
        *others, path = np.moveaxis(plain["forecasts"], 1, 0)
        expected = [path, *(path + other for other in others)]
    else:
        expected = list(np.moveaxis(plain["forecasts"], 1, 0))
    for found, wanted in zip(experts, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert mixed["misfit"].shape[-1] == len(experts) + bool(num_paths)
    np.testing.assert_array_equal(mixed["observed"], plain["observed"])
    target = keras.ops.convert_to_numpy(make_predictor().transform(stacked(future)))
    errors = [error_db(expert, target) for expert in experts]
    # Two held-out snapshots of four patches tell the better one, not the best weights.
    assert error_db(start, target) < min(errors) + 2.0


def test_a_backtest_needs_snapshots():
    model = make_predictor(backtest=2)
    assert model.physics.shortest == 7
    assert ChannelPredictor.from_config(model.get_config()).physics == model.physics
    with pytest.raises(ValueError, match="backtest=-1"):
        make_predictor(backtest=-1)


@pytest.mark.usefixtures("eagerly")
def test_high_orders_are_cut_to_a_short_history(rng):
    """Eleven coefficients need twelve snapshots: of these twelve, three are held out."""
    history, _ = waves(rng, batch=2)
    high, cut = (make_predictor(experts=((16, n), (8, 2)), backtest=3) for n in (11, 8))
    assert high.physics.shortest == cut.physics.shortest == NUM_SNAPSHOTS
    found, expected = (features_of(model, history)["misfit"] for model in (high, cut))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_untrained_is_the_start(rng):
    history, _ = waves(rng, batch=2)
    model = make_predictor(backtest=2)
    start = np.moveaxis(features_of(model, history)["forecasts"], 1, 0)[-1]
    predicted = keras.ops.convert_to_numpy(model.transform(stacked(model(stacked(history)))))
    # A predictor takes scale and phase out, which the mix does not see.
    np.testing.assert_allclose(predicted, start, atol=1e-3)


def test_a_wrong_network_hardly_spoils_what_held_out_snapshots_confirm(rng):
    """What it does is in proportion to what the experts miss there."""
    model = make_predictor(backtest=2)
    model.build((None, NUM_SNAPSHOTS, 8, 8, 2))
    right = rng.standard_normal(model.head.kernel.shape)
    t, m, k = np.ogrid[: NUM_SNAPSHOTS + NUM_HORIZONS, :8, :8]
    h = np.exp(2j * np.pi * (0.13 * t + 2 / 8 * m + 3 / 8 * k))[None]
    disturbance = rng.standard_normal((NUM_SNAPSHOTS, 8, 8))
    spoiled = []
    for noise in (0.1, 0.001):
        history = stacked(h[:, :NUM_SNAPSHOTS] + noise * disturbance)
        model.head.kernel.assign(0.0 * right)
        start = model(history)
        model.head.kernel.assign(0.3 * right)
        spoiled.append(float(keras.ops.mean(keras.ops.square(model(history) - start))))
    assert 0 < spoiled[1] < 0.01 * spoiled[0], spoiled
