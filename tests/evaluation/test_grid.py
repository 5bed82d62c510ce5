"""The evaluation's own arithmetic, on channels whose figures are known."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from lwmt_sionna.baselines import (
    CLASSICAL,
    Hold,
    KalmanPredictor,
    ModelPredictor,
    PerfectCsi,
    PooledAutoregression,
    ZeroPredictor,
    tuned_baselines,
)
from lwmt_sionna.baselines.base import Predictor
from lwmt_sionna.data import (
    ChannelSequences,
    ClusterConfig,
    PlanarArray,
    concatenate,
    draw_clusters,
    subcarrier_frequencies,
    synthesize,
    write_channels,
    write_paths,
)
from lwmt_sionna.evaluation import draw_trial, evaluate, figures, grid, zero_forcing_rates
from lwmt_sionna.evaluation.grid import (
    GridConfig,
    Regime,
    evaluate_cell,
    load_regime,
    run_grid,
)
from lwmt_sionna.evaluation.table import best_classical, format_points
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.runs import records
from lwmt_sionna.runs.store import Store
from tests import kills

SMALL = {
    "num_ant": 4,
    "num_subcarriers": 4,
    "presets": (),
    "baselines": ("zero", "hold", "pooled_ar"),
    "history_snr_db": (15.0,),
}


@pytest.fixture
def paths(rng):
    return draw_clusters(24, 21, 2.5e-3, rng, ClusterConfig(speed_kmh=(30.0, 30.0)))


@pytest.fixture
def file(paths, tmp_path):
    write_paths(tmp_path / "some.h5", paths)
    return str(tmp_path / "some.h5")


class Cheat(Predictor):
    """Knows the future of the sequences in their order: what a leak would look like."""

    name = "cheat"

    def __init__(self, future):
        self.future = future

    def predict(self, history, num_horizons):
        return self.future[:, :num_horizons]


def test_a_cell_reports_what_is_known(paths):
    config = GridConfig([Regime("unused")], **SMALL)
    predictors = {"zero": ZeroPredictor(), "hold": Hold(), "pooled_ar": PooledAutoregression(4)}
    gone = paths.valid.copy()
    gone[[3, 20], 7] = False
    paths = concatenate([paths, dataclasses.replace(paths, valid=gone).select([3, 20])])
    result = evaluate_cell(predictors, paths, 15.0, config, controls=True)
    records.check_points(result["points"])
    by = {(p["predictor"], p["horizon"], p["subset"]): p for p in result["points"]}
    for point in result["points"]:
        assert point["normalized_doppler"] == pytest.approx(0.2432, abs=1e-3)
        assert point["num_vanishing"] == 2
    for horizon in range(1, 6):
        assert by["zero", horizon, "all"]["nmse_pooled_db"] == 0.0
        free, events = (by.get(("hold", horizon, s)) for s in ("event_free", "events"))
        total = sum(p["num_sequences"] for p in (free, events) if p is not None)
        assert total == by["hold", horizon, "all"]["num_sequences"] == 24
    # Ceilings bound the rates; perfect CSI is the best.
    rates = {
        (r["predictor"], r["horizon"], r["link_snr_db"]): r["sum_rate"] for r in result["rates"]
    }
    for horizon in (1, 5):
        assert rates["perfect", horizon, 20.0] == max(
            rates[name, horizon, 20.0] for name in ("perfect", "noisy_perfect", "hold", "zero")
        )
    # Without births and deaths nothing is beyond foresight.
    free = by["causal", 5, "event_free"]["nmse_median_db"]
    assert free < -50 or by["causal", 5, "event_free"]["share"] < 1
    assert rates["hold", 5, 20.0] < rates["causal", 5, 20.0] <= rates["perfect", 5, 20.0]
    assert rates["zero", 1, 20.0] == 0.0
    best = best_classical(result["points"], ("hold", "pooled_ar"))
    assert {p["predictor"] for p in best.values()} == {"pooled_ar"} and len(best) == 5
    # Nobody predicts from somebody else's history, and nothing but hold survives disorder.
    controls = {(c["predictor"], c["control"]): c["nmse_median_db"] for c in result["controls"]}
    assert controls["pooled_ar", "other"] > -1
    assert controls["pooled_ar", "shuffled"] > by["pooled_ar", 1, "all"]["nmse_median_db"] + 5


def test_the_control_shows_a_cheat(paths):
    h = synthesize(paths, PlanarArray(1, 4), subcarrier_frequencies(4, 540e3))
    config = GridConfig([Regime("unused")], **SMALL)
    result = evaluate_cell({"cheat": Cheat(h[:, 16:])}, paths, 15.0, config, controls=True)
    other = {c["control"]: c["nmse_median_db"] for c in result["controls"]}["other"]
    assert other < -3  # with honest predictors it lies above 0 dB


def test_regimes_are_derived(file, paths):
    config = GridConfig([Regime(file)], **SMALL, limit=10)
    same = load_regime(Regime(file), config)
    assert same.num_sequences == 10
    slower = load_regime(Regime(file, interpolate=10, sampling_period=2.5e-3), config)
    assert slower.sampling_period == 2.5e-3
    np.testing.assert_allclose(slower.speed, paths.speed[:10] / 10, rtol=1e-5)
    with pytest.raises(ValueError, match="too short"):
        load_regime(Regime(file), GridConfig([Regime(file)], **{**SMALL, "num_history": 60}))


def test_a_file_of_channels_is_a_regime_on_its_own_array(file, paths, tmp_path):
    """Beside one of paths, whose array is the configured one; what is unknown is told as such."""
    array = PlanarArray(2, 3)
    stored = ChannelSequences(
        synthesize(paths, array, subcarrier_frequencies(5, 1e6)), 2.5e-3, 3.5e9, 1e6, array.shape,
        "hall",
    )  # fmt: skip
    write_channels(tmp_path / "channels.h5", stored)
    hall = str(tmp_path / "channels.h5")
    names = ("hold", "pooled_ar")
    config = GridConfig([Regime(file), Regime(hall)], **{**SMALL, "baselines": names})
    regimes = [(regime, load_regime(regime, config)) for regime in config.regimes]
    result, _, _ = run_grid(config, regimes, Store(tmp_path / "work"))
    own = [point for point in result["points"] if point["scene"] == "hall"]
    assert {point["subset"] for point in own} == {"all"} and own[0]["speed_kmh"] is None
    h = stored.h[:, 16:]
    predictors = tuned_baselines(15.0, names, array.shape)
    trial = draw_trial(stored, history_snr_db=15.0)
    expected = evaluate(predictors, trial.history, h, scale=trial.scale)
    for point, reference in zip(own, expected, strict=True):
        assert point["nmse_median_db"] == pytest.approx(reference["nmse_median_db"], abs=6e-4)
    # Tables and figures tell all sequences where events are unknown.
    best = best_classical(result["points"], CLASSICAL)
    assert {(key[0], point["subset"]) for key, point in best.items()} == {
        ("hall", "all"), (paths.scene, "event_free"),
    }  # fmt: skip
    text = format_points(result["points"])
    assert "hall, speed unknown, CSI every 2.5 ms" in text and "h=1 all" in text
    figures.plot_prediction_errors({"points": result["points"]}, tmp_path / "errors.png")
    with pytest.raises(ValueError, match=r"channels.h5.*met as they are.*interpolate=2"):
        load_regime(Regime(hall, interpolate=2), config)
    # What was trained on is told by the channels themselves.
    again = dataclasses.replace(config, regimes=[Regime(hall)], training=[hall])
    with pytest.raises(ValueError, match="share trajectories"):
        run_grid(again, [(again.regimes[0], stored)], Store(tmp_path / "work"))


def test_a_killed_run_loses_one_cell(file, tmp_path, monkeypatch):
    config = GridConfig(
        [Regime(file, controls=True)], **{**SMALL, "history_snr_db": (5.0, 15.0)}, limit=8
    )
    regimes = [(r, load_regime(r, config)) for r in config.regimes]
    store = Store(tmp_path / "cells")
    whole, inputs, parameters = run_grid(config, regimes, store)
    assert len(list(store.folder.iterdir())) == 2 and parameters == {} and "some" in inputs
    next(iter(store.folder.iterdir())).unlink()
    computed = []
    original = grid.evaluate_cell
    monkeypatch.setattr(
        grid,
        "evaluate_cell",
        lambda *args, **kwargs: computed.append(args[2]) or original(*args, **kwargs),
    )
    again, _, _ = run_grid(config, regimes, Store(tmp_path / "cells"))
    assert len(computed) == 1
    for name in ("points", "rates", "sequences", "controls"):
        assert again[name] == json.loads(json.dumps(whole[name]))
    # Other scenes are far, other tracks of the same scene are measured, the same ones refused.
    elsewhere = tmp_path / "elsewhere.h5"
    write_paths(elsewhere, dataclasses.replace(regimes[0][1], scene="elsewhere"))
    far = GridConfig(
        config.regimes, **{**SMALL, "history_snr_db": (5.0,)}, training=[str(elsewhere)]
    )
    assert [s["nearest_training_m"] for s in run_grid(far, regimes, store)[0]["splits"]] == [None]
    leaky = GridConfig([Regime(file)], **SMALL, training=[file])
    with pytest.raises(ValueError, match="share trajectories"):
        run_grid(leaky, regimes, store)


def one_path(shape, rng, num_sequences=3):
    """Sequences that planar arrays resolve: one path each, at angles between the bins.

    Returns the stored paths and their channels by antenna, in the order of Sionna's arrays.
    """
    num_rows, num_cols, num_pols = shape
    alone = ClusterConfig(
        num_clusters=(1, 1), num_rays=(1, 1), speed_kmh=(30.0, 30.0), birth_rate=0.0
    )
    paths = draw_clusters(num_sequences, 21, 2.5e-3, rng, alone)
    if num_pols == 2:
        # The second polarisation has the path's gain turned and halved.
        paths = dataclasses.replace(paths, a=np.concatenate([paths.a, 0.5j * paths.a], axis=-1))
    frequencies = 540e3 * (np.arange(8) - 4)
    phase = -2 * np.pi * paths.tau[..., None] * frequencies
    y = 0.5 * (np.arange(num_cols) - (num_cols - 1) / 2)
    z = 0.5 * ((num_rows - 1) / 2 - np.arange(num_rows))
    across = np.sin(paths.theta_t) * np.sin(paths.phi_t)
    turn = across[..., None, None] * y[:, None] + np.cos(paths.theta_t)[..., None, None] * z
    gain = (paths.a[..., 0, :] * paths.valid[..., None])[..., None, None, None]
    turns = np.exp(2j * np.pi * turn)[:, :, :, None, :, :, None]
    h = (gain * turns * np.exp(1j * phase)[:, :, :, None, None, None]).sum(axis=2)
    return paths, h.reshape(num_sequences, 21, -1, 8)


@pytest.mark.parametrize(
    ("shape", "names", "presets"),
    [
        ((4, 4, 1), ("hold", "kalman"), ()),
        ((2, 4, 2), ("hold", "local_ar"), ()),
        pytest.param((4, 4, 1), tuple(CLASSICAL), ("small",), marks=pytest.mark.slow),
        pytest.param((2, 4, 2), tuple(CLASSICAL), ("small",), marks=pytest.mark.slow),
    ],
)
def test_the_shape_of_the_array_reaches_every_predictor(tmp_path, rng, shape, names, presets):
    """Each predicts what it predicts when it is told the shape, and no longer that of a line."""
    paths, h = one_path(shape, rng)
    write_paths(tmp_path / "one.h5", paths)
    config = GridConfig(
        [Regime(str(tmp_path / "one.h5"))],
        num_ant=16, num_rows=shape[0], polarization="V" if shape[2] == 1 else "VH",
        num_subcarriers=8, history_snr_db=(25.0,), presets=presets,
        baselines=names,
    )  # fmt: skip
    assert config.array.shape == shape
    regimes = [(r, load_regime(r, config)) for r in config.regimes]
    trial = draw_trial(paths, config.array, subcarrier_frequencies(8, 540e3), history_snr_db=25.0)
    np.testing.assert_allclose(trial.future, h[:, 16:], rtol=1e-3, atol=1e-4 * np.abs(h).max())
    points = run_grid(config, regimes, Store())[0]["points"]
    found = {
        p["predictor"]: p["nmse_pooled_db"]
        for p in points
        if (p["horizon"], p["subset"]) == (1, "all") and p["predictor"] != "causal"
    }
    assert list(found) == [*names, *presets]

    def errors(array_shape):
        told = tuned_baselines(25.0, names, array_shape)
        told |= {name: ModelPredictor(name, array_shape=array_shape) for name in presets}
        points = evaluate(told, trial.history, trial.future, scale=trial.scale)
        return {p["predictor"]: p["nmse_pooled_db"] for p in points if p["horizon"] == 1}

    right, line = errors(shape), errors(None)
    for name, error in found.items():
        assert error == pytest.approx(right[name], abs=2e-3), name
    deaf = {name for name in found if abs(line[name] - right[name]) < 0.01}
    assert deaf == {"zero", "hold", "aligned_hold", "pooled_ar"} & set(names)


def test_what_cannot_use_the_shape_of_the_array_is_refused(file, paths):
    planar = {**SMALL, "num_ant": 8, "num_rows": 2}
    config = GridConfig([Regime(file)], **planar)
    for predictor in (KalmanPredictor(), ChannelPredictor.from_preset("small")):
        with pytest.raises(ValueError, match=r"mine is made for another.*\(2, 4, 1\)"):
            evaluate_cell({"mine": predictor}, paths, 15.0, config)
    dual = GridConfig([Regime(file)], **planar, polarization="VH")
    with pytest.raises(ValueError, match=r"some\.h5.*polarisations.*expected 1.*VH"):
        load_regime(dual.regimes[0], dual)


# Cells that are judged, pieces kept, and files that get their names (claims and records too).
STEPS = {
    "lwmt_sionna.evaluation.grid:evaluate_cell": 4,
    "lwmt_sionna.runs.store:Store.put": 4,
    "lwmt_sionna.runs.records:os.replace": 5,
}


@pytest.mark.slow
def test_ten_killed_evaluations_end_as_one_that_was_not(file, tmp_path):
    """The script, killed at random steps: the record it ends with is the uninterrupted one."""

    def arguments(name):
        return (
            "--data", file, "--baselines", "zero", "hold", "pooled_ar", "--num-ant", "4",
            "--num-subcarriers", "4", "--history-snr", "5", "10", "15", "25", "--preset",
            "--workdir", str(tmp_path / name), "--out", str(tmp_path / f"{name}.json"),
        )  # fmt: skip

    kills.evaluate_predictions(*arguments("whole"))
    whole = records.read_record(tmp_path / "whole.json")
    for number, (step, call) in enumerate(kills.draw_steps(STEPS, 10, seed=1)):
        name = f"killed_{number}"
        assert kills.killed_run(step, call, kills.evaluate_predictions, *arguments(name)), step
        kills.evaluate_predictions(*arguments(name))
        resumed = records.read_record(tmp_path / f"{name}.json")
        for part in ("points", "rates", "sequences", "best_classical", "inputs"):
            assert resumed[part] == whole[part], (step, call, part)
        assert not list((tmp_path / name).rglob(".tmp-*"))


def test_figures_show_the_points(file, tmp_path, monkeypatch):
    config = GridConfig([Regime(file)], **SMALL)
    regimes = [(r, load_regime(r, config)) for r in config.regimes]
    result, _, _ = run_grid(config, regimes, Store())
    record = {
        **result,
        "config": config.to_dict(),
        "num_parameters": {"pooled_ar": 1},
        "best_classical": [
            {"by": "nmse_median_db", **p}
            for p in best_classical(result["points"], ("hold",)).values()
        ],
    }
    drawn = []
    original = figures.panels

    @contextlib.contextmanager
    def watched(*args, **options):
        with original(*args, **options) as grid:
            yield grid
            drawn.append({x.get_label(): x.get_xydata() for x in grid.ravel()[0].get_lines()})

    monkeypatch.setattr(figures, "panels", watched)
    path = tmp_path / "figure.png"
    figures.plot_prediction_errors(record, path, subset="all")
    figures.plot_sum_rates(record, path)
    figures.plot_error_scatter(record, path)
    chosen = [p for p in result["points"] if (p["predictor"], p["subset"]) == ("hold", "all")]
    expected = [(p["horizon"], p["nmse_median_db"]) for p in chosen]
    np.testing.assert_allclose(drawn[0]["hold"], expected)
    chosen = [p for p in result["rates"] if (p["predictor"], p["horizon"]) == ("perfect", 5)]
    expected = [(p["link_snr_db"], p["sum_rate"]) for p in chosen]
    np.testing.assert_allclose(drawn[1]["perfect CSI"], expected)
    dots = sum(len(xy) for label, xy in drawn[2].items() if len(xy) != 2 or xy[0, 0] != xy[0, 1])
    assert dots == 24 and path.is_file()
    with pytest.raises(ValueError, match="history_snr_db=3"):
        figures.plot_prediction_errors(record, path, history_snr_db=3.0)
    with pytest.raises(ValueError, match="no model"):
        figures.plot_error_scatter({**record, "num_parameters": {}}, path)
    text = format_points(result["points"])
    assert "clusters, 30 km/h, CSI every 2.5 ms, history SNR 15 dB" in text
    assert "h=5 event-free" in text and text.count("pooled_ar") == 1


def test_rates_of_orthogonal_users():
    """Users that share nothing: no interference, each gets a quarter of the power."""
    h = np.zeros((4, 8, 2), complex)
    for user in range(4):
        h[user, 2 * user] = 2.0
    rates = zero_forcing_rates(h, h, 10.0)
    assert rates == pytest.approx([4 * np.log2(1 + 10 * 4 / 4)])
    # A base station that believes in turned channels sends everything to the wrong user.
    assert zero_forcing_rates(h[[1, 2, 3, 0]], h, 10.0)[0] < 1e-6
    assert PerfectCsi(h[:, None])(h[:, None].repeat(3, 1), 1).shape == (4, 1, 8, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"regimes": []}, "at least 1"),
        ({"regimes": [{"data": "x"}], "history_snr_db": [np.nan]}, "finite"),
        ({"regimes": [{"data": "x"}], "num_ant": True}, "num_ant=True"),
        ({"regimes": [{"data": "x", "interpolate": 0}]}, "interpolate=0"),
        ({"regimes": [{"data": "x"}], "subsets": ["best"]}, "best"),
        ({"regimes": [{"data": "x"}], "num_horizons": 0}, "num_horizons=0"),
        ({"regimes": [{"data": "x"}], "limit": -1}, "limit=-1"),
        ({"regimes": [{"data": "x"}], "num_rows": 5}, "num_rows=5"),
        ({"regimes": [{"data": "x"}], "num_ant": 1, "polarization": "VH"}, "polarization=VH"),
    ],
)
def test_wrong_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        GridConfig(**values)
