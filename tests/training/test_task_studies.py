"""The study of the tasks: nested labels, apart from tests, kept when finished."""

import dataclasses
import functools

import keras
import numpy as np
import pytest

from lwmt_sionna.baselines.tasks import angle_power
from lwmt_sionna.data import ClusterConfig, draw_clusters, write_paths
from lwmt_sionna.models import (
    BeamPredictor,
    LineOfSightClassifier,
    LWMTBackbone,
    MaskedChannelModel,
    TaskModel,
)
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.figures import plot_embeddings, plot_tasks
from lwmt_sionna.training.task_studies import (
    METRICS,
    TaskStudyConfig,
    area_under_curve,
    draw_labels,
    evaluate_tasks,
    head_features,
)
from lwmt_sionna.training.task_windows import Windows, load_windows
from lwmt_sionna.training.teaching import TeachConfig, teach_sight

SMALL = {
    "num_history": 8, "num_starts": 2, "horizon": 1, "num_ant": 8, "num_beams": 8,
    "num_subcarriers": 8, "test_share": 0.25, "num_labels": [6, 60], "seeds": [1], "steps": 20,
    "predictor": "small",
}  # fmt: skip


def write_files(folder):
    """Two files of one scene whose trajectories differ, and the first one at another carrier."""
    names = []
    for seed, carrier, name in ((1, 3.5e9, "a"), (2, 3.5e9, "b"), (1, 28e9, "beams")):
        rng = np.random.default_rng(seed)
        config = ClusterConfig(birth_rate=0.0, line_of_sight=0.5)
        paths = draw_clusters(20, 9, 5e-3, rng, config, carrier)
        paths = dataclasses.replace(paths, trajectory_id=100 * seed + np.arange(20))
        names.append(str(folder / f"{name}.h5"))
        write_paths(names[-1], paths)
    return [{"data": names[0], "beams": names[2]}, {"data": names[1]}]


def write_preset(folder):
    units = {"position": "rotary_grid", "position_units": (5e-3, 1.0, 1e-7)}
    backbone = LWMTBackbone(width=8, depth=1, num_heads=2, patch=(4, 4), **units)
    model = MaskedChannelModel(backbone, local_scale=True, local_motion=True)
    model.build()
    model.save_to_preset(folder)
    taught = LineOfSightClassifier(model)
    taught.build()
    taught.save_to_preset(folder / "sight")
    return folder


@functools.cache
def study(folder):
    preset = write_preset(folder / "preset")
    told = {"files": write_files(folder), "sight": str(preset / "sight")}
    return TaskStudyConfig.from_dict(SMALL | told), preset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


def test_labels_are_nested_and_of_as_many_trajectories_as_possible():
    trajectory = np.repeat(np.arange(10), 3)
    order = draw_labels(trajectory, seed=1)
    np.testing.assert_array_equal(np.sort(order), np.arange(30))
    for begin in (0, 10, 20):
        assert len(set(trajectory[order[begin : begin + 10]])) == 10
    np.testing.assert_array_equal(order, draw_labels(trajectory, seed=1))
    assert (order != draw_labels(trajectory, seed=2)).any()


def test_area_under_the_curve_is_the_share_of_ordered_pairs(rng):
    scores, labels = rng.integers(0, 5, 40), rng.random(40) < 0.4
    ahead = np.subtract.outer(scores[labels], scores[~labels])
    expected = np.mean((ahead > 0) + 0.5 * (ahead == 0))
    assert area_under_curve(scores, labels) == pytest.approx(expected)
    assert np.isnan(area_under_curve(scores, np.ones(40, bool)))


def test_heads_see_what_their_tasks_see(rng):
    backbone = LWMTBackbone(width=8, depth=1, num_heads=2, patch=(4, 4))
    whole = TaskModel(backbone, keras.layers.Identity(), "mse", reference_db=-100.0)
    h, ahead = (
        (parts.astype(np.float32).view(np.complex64)[..., 0])
        for parts in rng.standard_normal((2, 3, 4, 8, 8, 2))
    )
    # Users at different distances: levels are told, or not, in one unit.
    h = h * np.float32([1e-4, 1e-5, 1e-6])[:, None, None, None]
    known = dict.fromkeys(Windows._fields) | {
        "embeddings": whole.embed(h),
        "level_db": 10 * np.log10(np.mean(np.abs(h) ** 2, axis=(1, 2, 3))),
        "angle_power": np.stack(
            [angle_power(h, 8).mean(axis=1), angle_power(ahead, 8)[:, 0]], axis=1
        ),
    }
    windows = Windows(**known)
    for task, model, x in (
        ("line_of_sight", LineOfSightClassifier(backbone), h),
        (
            "beam",
            BeamPredictor(backbone, num_beams=8, num_horizons=1, num_angles=2),
            {"h": h, "predicted": 1e-5 * ahead[:, :1]},
        ),
    ):
        found = head_features(windows, task, np.arange(3))
        np.testing.assert_allclose(found, model.embed(x), atol=2e-3)


@pytest.mark.slow
def test_windows_keep_trajectories_apart(folder):
    config, preset = study(folder)
    store = Store(folder / "windows")
    windows = load_windows(config, preset, store)
    assert len(windows.trajectory) == 2 * 2 * 20 and windows.is_first.sum() == 2 * 20
    tests, training = (
        set(windows.trajectory[chosen]) for chosen in (windows.is_test, windows.is_training)
    )
    assert len(tests) == 10 and len(training) == 30 and not tests & training
    # One window for each trajectory of the tests, six of which nobody learns from.
    assert windows.is_test.sum() == 10 and (windows.is_test <= windows.is_first).all()
    assert windows.embeddings.dtype == np.float16
    for name in ("linear", "pursuit", "lmmse"):
        assert np.isfinite(windows.estimates[name]).all()
    assert (windows.estimates["lmmse"] < 0.1).all()
    # Nothing is computed again, whatever would be needed for it is gone.
    kept = load_windows(config, preset, _Full(folder / "windows"))
    for name in ("embeddings", "patches", "profile", "angle_power", "beam_power"):
        np.testing.assert_array_equal(getattr(windows, name), getattr(kept, name))
    np.testing.assert_array_equal(windows.pilots.error, kept.pilots.error)


class _Full(Store):
    def put_file(self, key, *_, **__):
        raise AssertionError(key["work"])


@pytest.mark.slow
def test_a_study_judges_all_contestants_once(folder, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    config, preset = study(folder)
    points, comparisons, places, inputs = evaluate_tasks(config, preset, folder / "work")
    with pytest.raises(ValueError, match="over the same backbone"):
        evaluate_tasks(dataclasses.replace(config, sight="sight"), preset, folder / "work")
    alone = dataclasses.replace(config, sight="", tasks=["position"], num_labels=[6])
    found = evaluate_tasks(alone, preset, folder / "work")
    assert {p["model"] for p in found.points} == {"base", "scratch", "geometry", "neighbors"}
    assert "preset_sight" not in found.inputs
    assert set(inputs) == {"a", "b", "beams", "preset_base", "preset_sight", "preset_small"}
    for task, metrics in METRICS.items():
        mine = [p for p in points if p["task"] == task]
        assert {p["metric"] for p in mine} == set(metrics)
        # More labels than there are stand for all of them.
        everything = 30 if task in ("beam", "estimation") else 60
        heads = ["base", "taught"] if task in ("line_of_sight", "position") else ["base"]
        for model in heads:
            assert {p["num_labels"] for p in mine if p["model"] == model} == {6, everything}
    assert all(p["num_test"] == 10 for p in points)
    told = [p for p in points if p["value"] is not None]
    assert all(p["low"] <= p["value"] <= p["high"] for p in told if p["metric"] == "accuracy")
    against = {(c["task"], c["num_labels"], c["against"]) for c in comparisons}
    assert ("line_of_sight", 6, "ten_times_labels") in against
    assert ("position", 60, "best_other") in against
    assert not any(c["rival"] in ("lmmse", "taught") for c in comparisons)
    assert len(places) == 40 and {p["sight"] for p in places} == {False, True}
    record = {"points": points, "embedding_map": places}
    for draw in (plot_tasks, plot_embeddings):
        draw(record, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000
    # A second run reads what the first one has kept.
    monkeypatch.setattr(keras.Sequential, "fit", None)
    assert evaluate_tasks(config, preset, folder / "work").points == points


@pytest.mark.slow
def test_sight_is_taught_in_several_cities(folder):
    config, preset = study(folder)
    names = ("num_history", "num_ant", "num_beams", "num_subcarriers", "predictor", "horizon")
    settings = {name: SMALL[name] for name in names} | {"num_starts": 1, "steps": 200}
    config = TeachConfig.from_dict(
        settings | {"files": [dataclasses.asdict(f) for f in config.files]}
    )
    task, points = teach_sight(config, preset, Store(folder / "taught"))
    assert [p["num_training"] + p["num_held"] for p in points] == [20, 20]
    # Of so few users little is learned, but something.
    assert any(np.abs(np.asarray(w)).max() > 0 for w in task.head.answers.weights)
    assert np.mean([p["accuracy"] for p in points]) > 0.5
