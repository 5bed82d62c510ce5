"""Data sets: shards, resumption after a kill, workers, estimates."""

import dataclasses
import functools
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import (
    PlanarArray,
    check_file,
    read_paths,
    subcarrier_frequencies,
    synthesize,
    write_paths,
)
from lwmt_sionna.runs.store import RunFolder, Store

pytestmark = pytest.mark.rt

FREQUENCIES = subcarrier_frequencies(32, 540e3)
# Relative errors of channels that uninterrupted runs may have to each other: float32 delays turn
# phases by milliradians, and chance decides which of several wedges at one place is kept.
REPEATABILITY = 5e-3
SHARD = 4


@pytest.fixture(scope="module")
def config():
    from lwmt_sionna.rt import GenerationConfig, TracingConfig

    return GenerationConfig(
        scene="simple_street_canyon",
        base_stations=((-20.0, 3.0, 15.0), (15.0, -3.0, 12.0)),
        num_sequences=5 * SHARD + 2,
        num_snapshots=5,
        shard_size=SHARD,
        tracks_per_solve=4,
        max_distance=60.0,
        tracing=TracingConfig(samples_per_source=50_000),
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The data set, traced without interruption in this process."""
    from lwmt_sionna.rt import generate

    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    generate(config, path, progress=False)
    return path


def run_program(config, path, workers=1, kill_at_shard=None):
    """Starts a process that generates `path`, and returns once it is about to trace.

    With `kill_at_shard` it is killed by signal 9 while it writes that shard, counted from one: the
    temporary file is there, its name is not.
    """
    program = f"""
import os
import pathlib
import signal
from lwmt_sionna.rt import GenerationConfig, generate
if __name__ == "__main__":
    config = GenerationConfig.from_dict({config.to_dict()!r})
    replace, written = os.replace, []

    def replace_or_die(source, target):
        target = pathlib.Path(target)
        if target.suffix == ".h5" and not target.name.startswith(".tmp-"):
            written.append(target)
            if len(written) == {kill_at_shard!r}:
                os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    print("begins", flush=True)
    path = pathlib.Path({str(path)!r})
    generate(config, path, workers={workers}, progress=False)
"""
    file = path.with_name(f"{path.name}.py")
    file.write_text(program)
    process = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True)
    assert "begins" in process.stdout.readline()
    return process


def shards_of(path):
    return sorted(p.name for p in path.with_name(f"{path.name}.shards").glob("[0-9]*.h5"))


def errors_by_shard(path, reference):
    """Relative errors of the channels, after checking that all else is the same."""
    one, other = read_paths(path), read_paths(reference)
    assert check_file(path) == []
    for name in ("position", "velocity", "time", "trajectory_id", "bs_index", "traced"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.metadata == other.metadata
    errors = []
    for begin in range(0, one.num_sequences, SHARD):
        parts = [p.select(slice(begin, begin + SHARD)) for p in (one, other)]
        assert parts[0].valid.sum() == parts[1].valid.sum()
        h, h_ref = (synthesize(part, PlanarArray(), FREQUENCIES) for part in parts)
        errors.append(np.linalg.norm(h - h_ref) / np.linalg.norm(h_ref))
    return np.array(errors)


def test_a_run_that_is_killed_resumes(config, whole, tmp_path):
    from lwmt_sionna.rt import generate

    path = tmp_path / "killed.h5"
    # Every run dies while it writes its second shard, so that each leaves one more.
    for number in (1, 2):
        process = run_program(config, path, kill_at_shard=2)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert shards_of(path) == [f"{index:05d}.h5" for index in range(number)]
        assert len(list(tmp_path.glob("killed.h5.shards/.tmp-*"))) == 1
    generate(config, path, progress=False)
    assert errors_by_shard(path, whole).max() < REPEATABILITY
    assert sorted(p.name for p in tmp_path.glob("killed.h5*")) == ["killed.h5", "killed.h5.py"]


@pytest.mark.slow
def test_ten_kills_at_random_shards(config, whole, tmp_path, rng):
    """Kills of runs of their own, of one process and of two; prints what was measured."""
    from lwmt_sionna.rt import generate

    for number, at in enumerate(rng.integers(1, 7, 10)):
        path = tmp_path / f"killed_{number}.h5"
        workers = 1 + number % 2
        process = run_program(config, path, workers, kill_at_shard=int(at))
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert len(shards_of(path)) == at - 1
        generate(config, path, progress=False)
        errors = errors_by_shard(path, whole)
        print(f"{workers} workers, killed at shard {at}: {describe(errors)}")
        assert errors.max() < REPEATABILITY


def describe(errors):
    return f"relative error {np.median(errors):.1e} (median shard), {np.max(errors):.1e} (largest)"


def test_two_dask_workers_trace_the_same_data_set(config, whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    from lwmt_sionna.rt import generate

    said = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        path = tmp_path / "dask.h5"
        generate(config, path, dask=cluster.scheduler_address, progress=False, announce=said.append)
    assert errors_by_shard(path, whole).max() < REPEATABILITY
    [estimate] = said
    assert estimate.num_sequences == config.num_sequences
    assert estimate.seconds > 0
    # The estimate is for the file that came out.
    assert 0.3 < estimate.bytes / path.stat().st_size < 3


def test_damaged_shards_are_traced_again_and_others_are_not(config, whole, tmp_path):
    from lwmt_sionna.rt import generate
    from lwmt_sionna.rt.tracing.generation import Claim

    folder = tmp_path / "p.h5.shards"
    store, claim = Store(folder), Claim.of(config)
    paths = read_paths(whole)
    for index in (0, 2, 3):
        part = paths.select(slice(SHARD * index, SHARD * (index + 1)))
        # Shard 0 is told from one that is traced again by a mark.
        notes = {"num_drawn": 1000 if index == 0 else 0, "tracer": claim.tracer}
        part = dataclasses.replace(part, metadata=notes)
        write = functools.partial(write_paths, paths=part)
        store.put_file(claim.key(index), write, ".h5", name=f"{index:05d}")
    damaged = folder / "00003.h5"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    (folder / ".tmp-0123-00001.h5").write_bytes(b"left over")
    again = generate(config, tmp_path / "p.h5", progress=False)
    assert again.metadata["num_drawn"] > 1000
    np.testing.assert_array_equal(again.position, paths.position)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5"]


def test_a_finished_file_is_kept_and_another_configuration_refused(config, whole, tmp_path):
    from lwmt_sionna.rt import generate

    path = tmp_path / "p.h5"
    path.write_bytes(whole.read_bytes())
    stamp = path.stat().st_mtime_ns
    generate(config, path, progress=False)
    assert path.stat().st_mtime_ns == stamp
    other = dataclasses.replace(config, seed=5)
    with pytest.raises(ValueError, match="another configuration"):
        generate(other, path, progress=False)
    with RunFolder(tmp_path / "q.h5.shards", config.to_dict()) as folder:
        (folder.path / "00000.h5").write_bytes(b"finished")
    with pytest.raises(ValueError, match="another configuration"):
        generate(other, tmp_path / "q.h5", progress=False)


def test_files_of_earlier_versions_are_kept(config, whole, tmp_path):
    """Their metadata knows nothing of orientations, of hashed trips, and of other tracers."""
    from lwmt_sionna.rt import generate
    from lwmt_sionna.rt.tracing.engine import DETERMINISTIC, TRACER

    paths = read_paths(whole)
    unknown = ("trips_sha256", "tracer")
    old = {key: value for key, value in paths.metadata.items() if key not in unknown}
    old["config"] = {k: v for k, v in old["config"].items() if k != "base_station_orientations"}
    write_paths(tmp_path / "old.h5", dataclasses.replace(paths, metadata=old))
    stamp = (tmp_path / "old.h5").stat().st_mtime_ns
    if DETERMINISTIC:
        words = f"old.h5, traced by sionna-rt 1.2.2, here {TRACER}"
        with pytest.raises(ValueError, match=words):
            generate(config, tmp_path / "old.h5", progress=False)
    else:
        generate(config, tmp_path / "old.h5", progress=False)
    assert (tmp_path / "old.h5").stat().st_mtime_ns == stamp


def test_data_of_two_tracers_never_mix(config, whole, tmp_path, monkeypatch):
    """Neither in a finished file, nor in a resumed run, nor in files that are joined."""
    from lwmt_sionna import data
    from lwmt_sionna.rt import generate
    from lwmt_sionna.rt.tracing import generation

    paths = read_paths(whole)
    here = generation.TRACER
    assert paths.metadata["tracer"] == here
    with RunFolder(tmp_path / "q.h5.shards", {**config.to_dict(), "tracer": here}) as folder:
        (folder.path / "00000.h5").write_bytes(b"finished")
    path = tmp_path / "whole.h5"
    path.write_bytes(whole.read_bytes())
    monkeypatch.setattr(generation, "TRACER", "sionna-rt 3.0")
    with pytest.raises(ValueError, match=f"traced by {here}, here sionna-rt 3.0"):
        generate(config, path, progress=False)
    with pytest.raises(ValueError, match=rf"tracer \({here} there, sionna-rt 3.0 here\)"):
        generate(config, tmp_path / "q.h5", progress=False)
    claim = dataclasses.replace(generation.Claim.of(config), tracer=here)
    with pytest.raises(ValueError, match=f"sionna-rt 3.0 there, {here} here"):
        generation._trace_shard(claim, 0)
    other = dataclasses.replace(paths, metadata={**paths.metadata, "tracer": "sionna-rt 3.0"})
    write_paths(tmp_path / "other.h5", other)
    words = "differ in what traced them.*sionna-rt 3.0"
    with pytest.raises(ValueError, match=words):
        data.concatenate([paths, other])
    with pytest.raises(ValueError, match=words):
        data.merge_paths(tmp_path / "both.h5", [whole, tmp_path / "other.h5"], {})
    assert not (tmp_path / "both.h5").exists()


def test_labels_of_generated_sequences(whole, config):
    paths = read_paths(whole)
    assert check_file(whole) == []
    assert len(np.unique(paths.trajectory_id)) == paths.num_sequences
    assert paths.bs_index.tolist() == [index % 2 for index in range(22)]
    # Strongest path first.
    power = np.where(paths.valid, paths.power, 0.0)
    assert (np.diff(power, axis=-1) <= 0).all()
    # Users traced in one solve move at the same time, those of different solves do not.
    starts = paths.time[:, 0]
    assert len(np.unique(starts)) >= 6
    assert paths.num_interactions[paths.valid].max() <= config.tracing.max_depth
    direct = np.any(paths.valid & (paths.interactions == 0), axis=-1)
    np.testing.assert_array_equal(paths.line_of_sight, direct)
    assert direct.any()
    assert pathlib.Path(whole).read_bytes().startswith(b"lwmt_sionna.paths 1.1")


def test_another_scene_of_the_same_name_is_told(tmp_path, config):
    from lwmt_sionna.rt.cities import build_city, city_config
    from lwmt_sionna.rt.tracing.generation import Claim

    claims = []
    for seed in (1, 2):
        build_city(city_config({"kind": "street_canyon", "seed": seed}), tmp_path / "town")
        own = dataclasses.replace(config, scene=str(tmp_path / "town" / "scene.xml"))
        claims.append(Claim.of(own))
    assert claims[0].config == claims[1].config and claims[0] != claims[1]
    assert claims[1] == Claim.of(own)


def test_cars_that_drive_are_traced_snapshot_by_snapshot(config, tmp_path):
    from lwmt_sionna.rt import TrajectoryConfig, generate, load_scene

    cars = load_scene("simple_street_canyon_with_cars", config.carrier_frequency).cars
    small = dataclasses.replace(
        config,
        scene="simple_street_canyon_with_cars",
        num_sequences=4,
        num_snapshots=3,
        moving_objects=cars[:2],
        speed_kmh=(2.0, 6.0),
        trajectory=TrajectoryConfig(regime="pedestrian"),
        tracing=dataclasses.replace(config.tracing, samples_per_source=20_000, diffraction=False),
    )
    paths = generate(small, tmp_path / "cars.h5", progress=False)
    assert check_file(tmp_path / "cars.h5") == []
    # Users on foot shift what stands by less than 20 Hz; cars shift what they reflect by more.
    assert np.abs(paths.doppler[paths.valid]).max() < 2 * 50 / 3.6 * 3.5e9 / 3e8 + 20
    assert paths.metadata["config"]["moving_objects"] == list(cars[:2])
    with pytest.raises(ValueError, match="moving_speed_kmh"):
        dataclasses.replace(small, moving_speed_kmh=(50.0, 20.0))
