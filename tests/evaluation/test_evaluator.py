"""One predictor on the same data has one figure, whatever door the data came in by."""

import dataclasses
import pathlib

import numpy as np
import pytest

from lwmt_sionna.baselines import Hold, LocalAutoregression, PooledAutoregression, ZeroPredictor
from lwmt_sionna.data import (
    ChannelSequences,
    ClusterConfig,
    PlanarArray,
    add_noise,
    draw_clusters,
    read_paths,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
)
from lwmt_sionna.data.events import event_power
from lwmt_sionna.evaluation import (
    aligned_error,
    causal_forecast,
    draw_trial,
    evaluate,
    evaluate_paths,
    normalized_error,
    sgcs,
    to_db,
    zero_forcing_rates,
)
from lwmt_sionna.evaluation.grid import GridConfig, Regime, evaluate_cell
from lwmt_sionna.masking import HardwareConfig

PAST, FUTURE = 16, 5
DATA = pathlib.Path(__file__).parents[2] / "experiments" / "data"
PREDICTORS = {"hold": Hold(), "pooled_ar": PooledAutoregression(4), "zero": ZeroPredictor()}
ARRAY, FREQUENCIES = PlanarArray(1, 8), subcarrier_frequencies(8, 540e3)


@pytest.fixture
def paths(rng):
    return draw_clusters(24, PAST + FUTURE, 2.5e-3, rng, ClusterConfig(speed_kmh=(30.0, 30.0)))


def stacked(h):
    return np.stack([h.real, h.imag], axis=-1)


def by_key(points):
    return {(p["predictor"], p["horizon"], p["subset"]): p for p in points}


def test_every_door_gives_the_same_figure(paths):
    h = synthesize(paths, ARRAY, FREQUENCIES)
    truth = h[:, :PAST]
    history = add_noise(truth, 15.0, np.random.default_rng([0, 15]))
    scale = np.sqrt(np.mean(np.abs(truth) ** 2, axis=(1, 2, 3), dtype=np.float64))
    arrays = by_key(evaluate(PREDICTORS, history, h[:, PAST:], scale=scale))
    pairs = by_key(evaluate(PREDICTORS, stacked(history), stacked(h[:, PAST:]), scale=scale))
    stored = by_key(evaluate_paths(PREDICTORS, paths, ARRAY, FREQUENCIES, history_snr_db=15.0))
    config = GridConfig([Regime("unused")], num_ant=8, num_subcarriers=8)
    cell = by_key(evaluate_cell(PREDICTORS, paths, 15.0, config)["points"])
    # The grid has the causal ceiling besides.
    assert {key for key in cell if key[0] != "causal"} == set(stored) > set(arrays) == set(pairs)
    for key, point in arrays.items():
        for name, value in point.items():
            assert pairs[key][name] == stored[key][name] == value
            assert cell[key][name] == (
                pytest.approx(value, abs=6e-4) if isinstance(value, float) else value
            )
    # One SNR for all: the scale of what was measured gives the same figures.
    measured = by_key(evaluate(PREDICTORS, history, h[:, PAST:]))
    for key, point in arrays.items():
        assert measured[key]["nmse_pooled_db"] == pytest.approx(point["nmse_pooled_db"], abs=0.05)
        assert measured[key]["nmse_median_db"] == pytest.approx(point["nmse_median_db"], abs=1e-6)


HARDWARE = HardwareConfig(
    phase_jitter_deg=5.0,
    timing_jitter=5e-9,
    calibration_error_db=-15.0,
    quantization_bits=6,
    dropped=(9, -1),
    target="chains",
)


def test_histories_pass_the_hardware(paths):
    h = synthesize(paths, ARRAY, FREQUENCIES)
    rng = np.random.default_rng([3, 15])
    history, arrived = HARDWARE.impair(
        h[:, :PAST],
        FREQUENCIES,
        2.5e-3,
        3,
        estimate=lambda received: add_noise(received, 15.0, rng),
    )
    trial = draw_trial(paths, ARRAY, FREQUENCIES, history_snr_db=15.0, seed=3, hardware=HARDWARE)
    np.testing.assert_array_equal(trial.history, history)
    np.testing.assert_array_equal(trial.arrived, arrived)
    np.testing.assert_array_equal(trial.future, HARDWARE.targets(h[:, PAST:], PAST, 3))
    assert trial.labels["target"] == "chains"
    config = GridConfig([Regime("unused")], num_ant=8, num_subcarriers=8, hardware=HARDWARE, seed=3)
    cell = evaluate_cell(PREDICTORS, paths, 15.0, config)["points"]
    settings = {"history_snr_db": 15.0, "seed": 3, "hardware": HARDWARE}
    for one, two in zip(cell, evaluate_paths(PREDICTORS, paths, ARRAY, FREQUENCIES, **settings)):
        assert one["target"] == two["target"] == "chains"
        assert one["nmse_median_db"] == pytest.approx(two["nmse_median_db"], abs=6e-4)


def test_who_can_hear_of_lost_reports_does(paths):
    h = synthesize(paths, ARRAY, FREQUENCIES)
    told = []

    def listens(history, num_horizons, arrived=None):
        told.append(arrived)
        return Hold()(history, num_horizons)

    predictors = {
        **PREDICTORS,
        "listens": listens,
        "deaf": lambda history, n: np.repeat(history[:, -1:], n, axis=1),
    }
    found = []
    for known in (True, False):
        hardware = HardwareConfig(dropped=(-1,), dropped_known=known)
        history, arrived = hardware.impair(h[:, :PAST], FREQUENCIES, 2.5e-3)
        points = evaluate(predictors, history, h[:, PAST:], arrived=arrived)
        found.append({key: p["nmse_median_db"] for key, p in by_key(points).items()})
    np.testing.assert_array_equal(told[0][:, -1], False)
    assert told[1] is None
    known, unseen = found
    # Predictors of the package find what they are not told of.
    assert known["pooled_ar", 1, "all"] == unseen["pooled_ar", 1, "all"]
    assert known["pooled_ar", 1, "all"] < known["deaf", 1, "all"] - 10
    assert known["deaf", 1, "all"] == unseen["deaf", 1, "all"]


def test_a_predictor_for_another_array_is_refused(paths):
    with pytest.raises(ValueError, match=r"local_ar is made for another array.*\(2, 4, 1\)"):
        evaluate_paths(
            {"local_ar": LocalAutoregression()}, paths, PlanarArray(2, 4), FREQUENCIES,
            history_snr_db=15.0,
        )  # fmt: skip


def test_the_causal_ceiling_knows_all_but_births_and_deaths(paths):
    changes = [event_power(paths, PAST - 1, PAST + later) for later in range(FUTURE)]
    paths = paths.select(np.sum(changes, axis=0) == 0)
    assert paths.num_sequences >= 10
    born, dead = paths.valid.copy(), paths.valid.copy()
    strongest = paths.power[:, PAST].argmax(axis=1)
    born[np.arange(len(born)), :PAST, strongest] = False
    dead[np.arange(len(dead)), PAST:, strongest] = False
    alone = np.zeros_like(born)
    alone[np.arange(len(dead)), :, strongest] = True
    whole, lone = (
        synthesize(dataclasses.replace(paths, valid=valid), ARRAY, FREQUENCIES)[:, PAST:]
        for valid in (paths.valid, alone)
    )

    def foreseen(valid):
        changed = dataclasses.replace(paths, valid=valid)
        return causal_forecast(changed, ARRAY, FREQUENCIES, PAST, FUTURE)

    scale = np.abs(whole).max()
    np.testing.assert_allclose(foreseen(paths.valid), whole, atol=1e-6 * scale)
    np.testing.assert_allclose(foreseen(born), whole - lone, atol=1e-6 * scale)
    # These paths move straight on: what is kept on is what would have come, up to the slow turn of
    # its Doppler shift and direction.
    error, power = normalized_error(foreseen(dead)[:, 0], whole[:, 0])
    assert to_db(error.sum() / power.sum()) < -35


@pytest.mark.parametrize("name", ["30kmh_5ms", "120kmh_2p5ms"])
def test_the_causal_ceiling_of_traced_sequences(name):
    paths = read_paths(DATA / f"san_francisco_{name}.h5").select(slice(0, 100))
    paths = paths.select(~vanishing_mask(paths))
    array = PlanarArray(1, 16)
    ceiling = causal_forecast(paths, array, FREQUENCIES, PAST, FUTURE)
    truth = synthesize(paths, array, FREQUENCIES, snapshots=np.arange(PAST, PAST + FUTURE))
    for horizon in (1, 5):
        changed = event_power(paths, PAST - 1, PAST - 1 + horizon)
        error, power = normalized_error(ceiling[:, horizon - 1], truth[:, horizon - 1])
        ratio_db = to_db(error / power)
        assert np.sum(changed == 0) > 40
        assert ratio_db[changed == 0].max() < -50
        # Few paths are dead and born with little power; the sum of their amplitudes is what counts.
        assert np.median(ratio_db[changed > 0.01]) > -20


def test_channels_alone_have_no_causal_ceiling(paths):
    h = synthesize(paths, ARRAY, FREQUENCIES)
    channels = ChannelSequences(h, 2.5e-3, 3.5e9, 540e3, (1, 8, 1), "hall")
    with pytest.raises(ValueError, match="expected stored paths"):
        causal_forecast(channels, ARRAY, FREQUENCIES, PAST, FUTURE)


def test_figures_by_hand(rng):
    shape = (9, 3, 4, 6)
    truth = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    wrong = truth + rng.uniform(0, 1, (9, 1, 1, 1)) * (1 + 0.5j)
    history = np.ones((9, 2, 4, 6), np.complex64)
    mask = np.arange(9) < 6
    points = evaluate(
        {"some": lambda history, num_horizons: wrong[:, :num_horizons]},
        history, truth, scale=np.arange(1.0, 10.0), subsets={"few": mask}, link_snr_db=10.0,
    )  # fmt: skip
    assert [p["horizon"] for p in points] == [1, 2, 3]
    guess, truth = wrong[:6, 1].astype(np.complex64), truth[:6, 1]
    error = np.sum(np.abs(guess - truth) ** 2, axis=(1, 2))
    power = np.sum(np.abs(truth) ** 2, axis=(1, 2))
    weight = np.arange(1.0, 7.0) ** -2
    expected = {
        "nmse_pooled_db": to_db(np.sum(weight * error) / np.sum(weight * power)),
        "nmse_mean_db": to_db(np.mean(error / power)),
        "nmse_median_db": to_db(np.median(error / power)),
        "nmse_q90_db": to_db(np.quantile(error / power, 0.9)),
        "nmse_aligned_median_db": to_db(np.median(aligned_error(guess, truth) / power)),
        "sgcs": sgcs(guess, truth).mean(),
        "sum_rate": zero_forcing_rates(guess, truth, 10.0).mean(),
        "share": 6 / 9,
        "num_sequences": 6,
    }
    for name, value in expected.items():
        assert points[1][name] == pytest.approx(value, rel=1e-5), name


def test_a_common_phase_and_delay_do_not_count(rng):
    """Whatever the phase and the delay: between bins, negative, half the range."""
    shape = (6, 8, 32)
    h = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    tau = np.array([0.0, 0.013, 0.1234, -0.2, 0.5, 0.03125])[:, None, None]
    turned = h * np.exp(1j * (0.7 + 2 * np.pi * np.arange(32) * tau))
    power = np.sum(np.abs(h) ** 2, axis=(1, 2))
    assert (aligned_error(turned, h) < 1e-9 * power).all()
    assert (normalized_error(turned, h)[0] > 0.1 * power).all()
    np.testing.assert_allclose(aligned_error(0 * h, h), power)
    # The best phase of all: no other pair of phase and delay on a fine grid does better.
    other = 0.7 * turned + rng.standard_normal(shape)
    found = aligned_error(other, h)
    ramps = np.exp(2j * np.pi * np.arange(32) * np.linspace(0, 1, 2000)[:, None])
    r = np.sum(np.conj(h) * other, axis=1)
    best = power + np.sum(np.abs(other) ** 2, axis=(1, 2)) - 2 * np.abs(r @ ramps.T).max(axis=1)
    assert (found <= best * (1 + 1e-9)).all() and (found > best * (1 - 1e-3)).all()


def test_a_keras_model_is_judged_as_it_is():
    import keras

    class LastOne(keras.Model):
        num_horizons = 2

        def call(self, history):
            return keras.ops.repeat(history[:, -1:], 2, axis=1)

    history = np.ones((3, 4, 2, 2), np.complex64) * np.arange(1, 4).reshape(3, 1, 1, 1)
    points = evaluate({"mine": LastOne()}, history, 2 * history[:, :2])
    assert [p["nmse_median_db"] for p in points] == pytest.approx([to_db(0.25)] * 2)


@pytest.mark.parametrize(
    ("history", "future", "message"),
    [
        (np.zeros((2, 4, 3, 3)), np.zeros((2, 1, 3, 3), complex), r"history.dtype=float64"),
        (np.zeros((2, 4, 3, 3), complex), np.zeros((3, 1, 3, 3), complex), "same sequences"),
        (np.zeros((0, 4, 3, 3), complex), np.zeros((0, 1, 3, 3), complex), "at least one"),
        (np.full((2, 4, 3, 3), np.nan + 0j), np.zeros((2, 1, 3, 3), complex), "history holds NaN"),
        (np.zeros((2, 4, 3, 3), complex), np.full((2, 1, 3, 3), np.inf + 0j), "future holds NaN"),
    ],
)
def test_wrong_arrays_are_refused(history, future, message):
    with pytest.raises(ValueError, match=message):
        evaluate({"hold": Hold()}, history, future)


def test_what_is_no_prediction_is_refused():
    h = np.ones((2, 4, 3, 3), complex)
    for wrong, message in (
        (lambda history, n: history[:, :1], "must return channels of shape"),
        (lambda history, n: np.abs(history[:, :n]), "'float64|float32'|dtype=float"),
        (lambda history, n: history[:, :n] * np.nan, "mine holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate({"mine": wrong}, h, h[:, :2])


def test_stored_channels_are_judged_as_the_paths_that_they_come_from(paths):
    h = synthesize(paths, PlanarArray(2, 4), FREQUENCIES)
    stored = ChannelSequences(
        h, paths.sampling_period, paths.carrier_frequency, 540e3, (2, 4, 1), "made up", paths.speed
    )
    settings = {"history_snr_db": 15.0, "num_horizons": FUTURE}
    own = by_key(evaluate_paths(PREDICTORS, stored, **settings))
    traced = by_key(evaluate_paths(PREDICTORS, paths, PlanarArray(2, 4), FREQUENCIES, **settings))
    assert own.keys() == {key for key in traced if key[2] == "all"}
    for key, point in own.items():
        assert point == traced[key] | {"scene": "made up"}
    # The array and the grid of the file, named or not; no others.
    named = draw_trial(stored, PlanarArray(2, 4), FREQUENCIES, **settings)
    np.testing.assert_array_equal(named.history, draw_trial(stored, **settings).history)
    for array, frequencies, message in (
        (PlanarArray(1, 8), None, r"polarisations \(2, 4, 1\).*array.shape=\(1, 8, 1\)"),
        (None, 1.1 * FREQUENCIES, "8 of them 540000 Hz apart"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_trial(stored, array, frequencies, **settings)
    with pytest.raises(ValueError, match="local_ar is made for another array"):
        evaluate_paths({"local_ar": LocalAutoregression()}, stored, **settings)
    with pytest.raises(ValueError, match="need an array"):
        draw_trial(paths, **settings)
    with pytest.raises(ValueError, match=r"at least 21 snapshots.*num_snapshots=20"):
        draw_trial(dataclasses.replace(stored, h=h[:, :20]), **settings)


def test_unknown_speeds_and_vanished_channels(paths):
    h = synthesize(paths, ARRAY, FREQUENCIES)
    h[3, 5] = 0
    stored = ChannelSequences(h, 2.5e-3, 3.5e9, 540e3, (1, 8, 1), "hall")
    trial = draw_trial(stored, history_snr_db=5.0)
    assert trial.labels["speed_kmh"] is None and trial.labels["normalized_doppler"] is None
    assert trial.labels["num_vanishing"] == 1 and len(trial.history) == paths.num_sequences - 1
    assert list(trial.subsets) == ["all"] and trial.groups.tolist() == [0] * len(trial.history)
