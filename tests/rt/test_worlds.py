"""What a data set is made from: everything that is read; who serves whom, and where it looks."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.runs.store import Store
from tests.rt.towns import write_town

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
SPEED_OF_LIGHT = 299_792_458.0
STATIONS = ((0.0, -10.0, 25.0), (70.0, 0.0, 25.0), (-80.0, 0.0, 25.0))


@pytest.fixture
def town(tmp_path):
    return write_town(tmp_path / "town")


def configure(town, **settings):
    from lwmt_sionna.rt import GenerationConfig, TracingConfig

    values = {
        "scene": str(town),
        "base_stations": STATIONS[:1],
        "num_sequences": 4,
        "num_snapshots": 4,
        "sampling_period": 5e-3,
        "speed_kmh": (30.0, 30.0),
        "tracks_per_solve": 4,
        "shard_size": 2,
        "max_distance": 60.0,
        "tracing": TracingConfig(samples_per_source=5_000, max_depth=1, diffraction=False),
    }
    return GenerationConfig(**values | settings)


def write_trips(path, y):
    rows = [f"{t:.1f},{10 + 8 * t:.2f},{y},anna" for t in np.arange(0, 2, 0.1)]
    path.write_text("\n".join(["time,x,y,user", *rows]))


def run(config, path):
    from lwmt_sionna.rt import generate

    return generate(config, path, progress=False)


def places(paths):
    return np.unique(paths.position[..., 1]).tolist()


def test_trips_that_change_are_traced_anew(town, tmp_path, monkeypatch):
    from lwmt_sionna.rt import TrajectoryConfig

    trips = tmp_path / "trips.csv"
    config = configure(town, trajectory=TrajectoryConfig(kind="file", file=str(trips)))
    write_trips(trips, -30)
    assert places(run(config, tmp_path / "a.h5")) == [-30.0]
    write_trips(trips, -20)
    assert places(run(config, tmp_path / "a.h5")) == [-20.0]

    put, finished = Store.put_file, []

    def interrupted(self, *arguments, **options):
        if finished:
            raise KeyboardInterrupt
        finished.append(put(self, *arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "b.h5")
    assert finished[0].name == "00000.h5"
    write_trips(trips, -10)
    assert places(run(config, tmp_path / "b.h5")) == [-10.0]


def test_a_scene_that_changes_is_traced_anew_in_one_process(town, tmp_path):
    first = run(configure(town), tmp_path / "a.h5")
    write_town(town.parent, shapes=["ground"])
    second = run(configure(town), tmp_path / "a.h5")
    # One path to every place, and no reflection but that of the ground.
    assert second.valid.sum(axis=-1).max() <= 2 < first.valid.sum(axis=-1).max()
    assert second.metadata["scene_sha256"] != first.metadata["scene_sha256"]


def test_a_worker_with_another_scene_is_told(town, tmp_path, monkeypatch):
    from lwmt_sionna.rt.tracing import generation

    run_tasks = generation.run_tasks

    def elsewhere(function, tasks, **options):
        write_town(town.parent, shapes=["ground"])
        return run_tasks(function, tasks, **options)

    monkeypatch.setattr(generation, "run_tasks", elsewhere)
    with pytest.raises(ValueError, match=r"another scene.*host=.*scene\.xml"):
        run(configure(town), tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_paths_are_those_of_the_process_that_asks(town, tmp_path, monkeypatch):
    from lwmt_sionna.rt import TrajectoryConfig
    from lwmt_sionna.rt.tracing import generation

    write_trips(tmp_path / "trips.csv", -30)
    trajectory = TrajectoryConfig(kind="file", file="trips.csv")
    config = configure("town/scene.xml", trajectory=trajectory, num_sequences=2)
    run_tasks = generation.run_tasks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker").mkdir()

    def elsewhere(function, tasks, **options):
        monkeypatch.chdir(tmp_path / "worker")
        results = list(run_tasks(function, tasks, **options))
        monkeypatch.chdir(tmp_path)
        yield from results

    monkeypatch.setattr(generation, "run_tasks", elsewhere)
    paths = run(config, pathlib.Path("a.h5"))
    assert paths.metadata["config"]["scene"] == "town/scene.xml" and paths.scene == "town"


@pytest.mark.parametrize("shard_size", [2, 4, 60])
def test_base_stations_take_turns_whatever_the_size_of_a_shard(shard_size, town, tmp_path):
    config = configure(town, base_stations=STATIONS, num_sequences=9, shard_size=shard_size)
    paths = run(config, tmp_path / "a.h5")
    assert paths.bs_index.tolist() == [0, 1, 2] * 3
    distance = np.linalg.norm(
        paths.position[:, 0, :2] - paths.bs_position[paths.bs_index, :2], axis=-1
    )
    assert distance.max() < 61.0
    assert len(np.unique(paths.trajectory_id)) == 9


def test_a_sector_antenna_looks_where_it_is_told_to(town):
    from lwmt_sionna.rt import TracingConfig, load_scene, trace_positions

    loaded = load_scene(write_town(town.parent, shapes=["ground"]), CARRIER)
    station = np.array([0.0, 0.0, 25.0])
    position = np.array([[60, 0, 1.5], [-60, 0, 1.5], [0, 60, 1.5], [0, -60, 1.5]])
    config = TracingConfig(
        samples_per_source=5_000, base_station_pattern="tr38901", max_depth=1, diffraction=False
    )
    # Degrees of yaw, and which user is ahead and which behind.
    for yaw, ahead, behind in ((0.0, 0, 1), (180.0, 1, 0), (90.0, 2, 3)):
        orientation = (np.deg2rad(yaw), 0.0, 0.0)
        traced = trace_positions(loaded, station, orientation, position, 0 * position, config)
        direct = (traced["path_key"] == 0) & traced["valid"]
        gain = np.abs(traced["a"][direct][:, 0, 0])
        loss = SPEED_OF_LIGHT / CARRIER / 4 / np.pi / np.linalg.norm(position - station, axis=-1)
        over = 20 * np.log10(gain / loss)
        assert over[ahead] == pytest.approx(6.7, abs=0.1)
        assert over[behind] == pytest.approx(-22.0, abs=0.1)


def test_orientations_of_a_configuration_are_traced_and_stored(town, tmp_path):
    from lwmt_sionna.rt import GenerationConfig

    text = (
        f'scene = "{town}"\nbase_stations = [[0.0, 0.0, 25.0], [0.0, 0.0, 25.0]]\n'
        "base_station_orientations = [[0.0, 0.0, 0.0], [3.141592653589793, 0.0, 0.0]]\n"
        "num_sequences = 16\nnum_snapshots = 1\nmax_distance = 60.0\n"
        '[tracing]\nmax_depth = 0\ndiffraction = false\nbase_station_pattern = "tr38901"\n'
        "power_floor_db = -100.0\n"
    )
    (tmp_path / "sectors.toml").write_text(text)
    config = GenerationConfig.from_toml(tmp_path / "sectors.toml")
    paths = run(config, tmp_path / "a.h5")
    np.testing.assert_allclose(paths.bs_orientation, [[0, 0, 0], [np.pi, 0, 0]])
    away = paths.position[:, 0] - paths.bs_position[0]
    distance = np.linalg.norm(away, axis=-1)
    over = 20 * np.log10(np.abs(paths.a[:, 0, 0, 0, 0]) * 4 * np.pi * distance)
    over -= 20 * np.log10(SPEED_OF_LIGHT / CARRIER)
    # Towards where its sector looks.
    ahead = away[:, 0] / np.linalg.norm(away[:, :2], axis=-1) * np.where(paths.bs_index, -1, 1)
    assert (ahead > 0.7).any() and over[ahead > 0.7].min() > -10
    assert (ahead < -0.7).any() and over[ahead < -0.7].max() < -15
    with pytest.raises(ValueError, match="1 for 2 base stations"):
        dataclasses.replace(config, base_station_orientations=((0.0, 0.0, 0.0),))
    with pytest.raises(ValueError, match=r"min_distance=60\.0"):
        dataclasses.replace(config, min_distance=60.0)


def test_another_release_of_sionna_rt_is_refused(tmp_path):
    program = """
import importlib.metadata
from lwmt_sionna.runs import command_line
version = importlib.metadata.version
importlib.metadata.version = lambda name: "2.1.0" if name == "sionna-rt" else version(name)
def main(argv):
    from lwmt_sionna.rt import load_scene
command_line.run(main, [])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "sionna-rt 1.2.2 and 2.2.0" in line and "Received: sionna-rt 2.1.0" in line
    assert line.count("pip install") == 2


def test_a_full_disk_is_one_line(town, tmp_path):
    """A limit on the size of files stands for it."""
    config = configure(town)
    program = f"""
import resource
from lwmt_sionna.rt import GenerationConfig, generate
from lwmt_sionna.runs import command_line
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
config = GenerationConfig.from_dict({config.to_dict()!r})
command_line.run(lambda argv: generate(config, {str(tmp_path / "a.h5")!r}, progress=False), [])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "00000.h5" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "a.h5").exists() and not list(tmp_path.rglob("*.tmp-*"))
