"""The bench of worlds."""

import dataclasses
import itertools

import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone
from lwmt_sionna.data import write_paths
from lwmt_sionna.evaluation.intervals import VERDICTS
from lwmt_sionna.link.sweep import worlds
from lwmt_sionna.link.sweep.table import format_worlds, world_points
from lwmt_sionna.link.sweep.worlds import World, WorldsConfig, evaluate_worlds
from lwmt_sionna.masking import HardwareConfig
from tests.link.channels import make_paths


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("worlds") / "synthetic.h5"
    write_paths(path, make_paths(num_sequences=24, num_snapshots=21, num_stations=2))
    return str(path)


@pytest.fixture(scope="module")
def config(data):
    jitter = HardwareConfig(timing_jitter=10e-9)
    return WorldsConfig(
        worlds=(
            World("clean", "specular", data),
            World("jitter", "hardware", data, hardware=jitter),
        ),
        baselines=("hold", "aligned_hold", "pooled_ar"),
        presets=(),
        history_snr_db=(15.0,),
        num_sequences=24,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("worlds") / "work"


@pytest.fixture(scope="module")
def points(config, folder):
    return evaluate_worlds(config, folder)[0]


def find(points, world, predictor, horizon=1, subset="all"):
    key = {"world": world, "predictor": predictor, "horizon": horizon, "subset": subset}
    (found,) = (p for p in points if key.items() <= p.items())
    return found


def test_every_predictor_has_a_point_in_every_cell(points):
    cells = {(p["world"], p["horizon"], p["subset"]) for p in points}
    assert cells == {(w, h, s) for w in ("clean", "jitter") for h in (1, 5)
                     for s in ("all", "event_free")}  # fmt: skip
    kinds = dict.fromkeys(("hold", "aligned_hold", "pooled_ar"), "training_free")
    kinds |= dict.fromkeys(("perfect", "noisy_perfect", "causal"), "ceiling")
    for cell in cells:
        found = [p for p in points if (p["world"], p["horizon"], p["subset"]) == cell]
        assert {p["predictor"]: p["kind"] for p in found} == kinds


def test_figures_are_those_of_the_channels(points):
    """Synthetic paths are never born: the causal ceiling is the truth, and hold loses most."""
    for horizon in (1, 5):
        causal = find(points, "clean", "causal", horizon)
        assert causal["nmse_median_db"] < -50
        assert causal["recovered_goodput"] == pytest.approx(1.0, abs=0.01)
        assert find(points, "clean", "hold", horizon)["recovered_goodput"] == 0.0
    clean, jitter = (find(points, world, "pooled_ar") for world in ("clean", "jitter"))
    assert jitter["nmse_median_db"] > clean["nmse_median_db"] + 3
    # A common delay is no error of the channel for a precoder.
    assert jitter["nmse_aligned_median_db"] < jitter["nmse_median_db"]


def test_differences_are_to_the_best_training_free_predictor(points):
    for world in ("clean", "jitter"):
        names = ("hold", "aligned_hold", "pooled_ar")
        found = {name: find(points, world, name) for name in names}
        best = min(found.values(), key=lambda p: p["nmse_median_db"])
        for point in found.values():
            gap = point["nmse_median_db"] - best["nmse_median_db"]
            assert point["nmse_median_difference_db"] == pytest.approx(gap, abs=0.01)
            low, high = (point[f"nmse_median_difference_db_{end}"] for end in ("low", "high"))
            assert low <= gap <= high
            assert point["nmse_median_verdict"] in VERDICTS
            assert point["goodput_verdict"] in VERDICTS
        assert find(points, world, "perfect")["nmse_pooled_verdict"] == "better"
        assert find(points, world, "hold")["sum_rate_verdict"] == "worse"


@pytest.mark.usefixtures("eagerly")
def test_presets_are_compared_with_each_other_too(config, folder, tmp_path):
    for name, expert in (("near", (16, 2)), ("far", (4, 1))):
        backbone = LWMTBackbone(width=8, depth=1, num_heads=2, patch=(8, 8))
        model = ChannelPredictor(backbone, experts=[expert], context=2)
        model.build(None)
        model.save_to_preset(tmp_path / name)
    more = dataclasses.replace(
        config, worlds=config.worlds[:1], baselines=("hold",),
        presets=(str(tmp_path / "near"), str(tmp_path / "far")),
    )  # fmt: skip
    found = evaluate_worlds(more, folder)[0]
    names = {"hold", "near", "far"}
    for horizon in (1, 5):
        cell = {name: find(found, "clean", name, horizon) for name in names}
        for name, figure in itertools.product(("near", "far"), ("median", "pooled")):
            own, *others = (cell[n][f"nmse_{figure}_db"] for n in (name, *(names - {name})))
            start = f"nmse_{figure}_others_difference_db"
            # The median of an even number is a mean of two, of decibels here and of ratios there.
            assert cell[name][start] == pytest.approx(own - min(others), abs=0.2)
            assert cell[name][f"{start}_low"] <= cell[name][start] <= cell[name][f"{start}_high"]
        assert "nmse_median_others_difference_db" not in cell["hold"]


@pytest.mark.usefixtures("eagerly")
def test_horizons_that_a_preset_does_not_predict_are_refused(config, tmp_path):
    backbone = LWMTBackbone(width=8, depth=1, num_heads=2, patch=(8, 8))
    model = ChannelPredictor(backbone, 3, experts=[(4, 1)], context=2)
    model.build(None)
    model.save_to_preset(tmp_path / "near")
    short = dataclasses.replace(
        config, worlds=config.worlds[:1], baselines=("hold",), presets=(str(tmp_path / "near"),)
    )
    with pytest.raises(ValueError, match=r"preset 'near' predicts 3 snapshots.*horizons=\(1, 5\)"):
        evaluate_worlds(short, tmp_path / "work")


def test_finished_cells_are_not_computed_again(config, folder, points, monkeypatch):
    monkeypatch.setattr(worlds, "evaluate_world", None)
    assert evaluate_worlds(config, folder)[0] == points


def test_what_changes_a_world_computes_it_anew(config, folder, points, monkeypatch):
    asked = []

    def evaluate_world(world, sequences, config, history_snr_db, store):
        asked.append(world.name)
        return []

    monkeypatch.setattr(worlds, "evaluate_world", evaluate_world)
    clean, jitter = config.worlds
    other = dataclasses.replace(jitter, hardware=HardwareConfig(timing_jitter=3e-9))
    evaluate_worlds(dataclasses.replace(config, worlds=(clean, other)), folder)
    assert asked == ["jitter"]


def test_another_predictor_costs_its_own_forecasts_alone(config, folder, points, monkeypatch):
    asked = []

    def told_arrived(predictor, arrived):
        asked.append(predictor.name)
        return {}

    monkeypatch.setattr(worlds, "told_arrived", told_arrived)
    more = dataclasses.replace(config, baselines=(*config.baselines, "zero"))
    found = evaluate_worlds(more, folder)[0]
    assert set(asked) == {"zero"}
    for before in points:
        after = find(found, *(before[k] for k in ("world", "predictor", "horizon", "subset")))
        assert after["nmse_median_db"] == before["nmse_median_db"]
        assert after.get("sum_rate") == before.get("sum_rate")


def test_table_has_a_line_per_world_and_horizon(points, config):
    record = {"points": points, "config": config.to_dict()}
    text = format_worlds(record)
    lines = [line for line in text.splitlines() if line.startswith(("clean", "jitter"))]
    assert [line.split()[:2] for line in lines] == [
        ["clean", "1"], ["jitter", "1"], ["clean", "5"], ["jitter", "5"],
    ]  # fmt: skip
    best = world_points(record, 15.0, 1)["clean"]["pooled_ar"]
    assert f"{best['nmse_median_db']:.1f} pooled_ar" in lines[0]


def test_tr38901_is_drawn_once(tmp_path):
    toml = tmp_path / "cdl.toml"
    toml.write_text('model = "CDL-A"\ndelay_spread = 1e-7\nnum_sequences = 8\n')
    array = {"num_rows": 2, "num_cols": 2, "polarization": "cross"}
    world = World.from_dict({"name": "cdl", "group": "array", "draw": str(toml), "array": array})
    path = worlds.world_file(world, tmp_path / "channels")
    before = path.read_bytes()
    assert worlds.world_file(world, tmp_path / "channels") == path
    assert path.read_bytes() == before
    config = WorldsConfig((world,), num_sequences=8)
    found = worlds.load_world(dataclasses.replace(world, data=str(path), draw=None), config)
    assert found.h.shape == (8, 21, 8, 32)
    assert found.array_shape == (2, 2, 2)
    assert np.isfinite(found.h).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worlds": []}, "worlds"),
        ({"worlds": [("a", "x.h5"), ("a", "x.h5")]}, "different names. Received: name='a' twice"),
        ({"baselines": ["kallman"]}, "Received: 'kallman'"),
        ({"presets": ["tall"]}, "preset=tall"),
        ({"worlds": [("a", None)]}, "either data or draw"),
    ],
)
def test_wrong_settings_are_told_at_once(change, message):
    change = {"worlds": [("a", "x.h5")], **change}
    change["worlds"] = [
        {"name": name, "group": "specular", "data": data} for name, data in change["worlds"]
    ]
    with pytest.raises(ValueError, match=message):
        WorldsConfig.from_dict(change)


def test_a_missing_file_is_told_before_the_work(config, tmp_path):
    lost = World("lost", "diffuse", "nowhere/lost.h5")
    config = dataclasses.replace(config, worlds=(*config.worlds, lost))
    with pytest.raises(ValueError, match=r"world 'lost'.*nowhere/lost\.h5"):
        evaluate_worlds(config, tmp_path / "work")
