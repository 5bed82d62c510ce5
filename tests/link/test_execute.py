"""The same sweep in one process, in several, on Dask, and killed."""

import dataclasses
import json
import os
import pathlib
import site
import sys

import pytest

from lwmt_sionna.data import write_paths
from lwmt_sionna.link import LinkEvalConfig, evaluate_link
from tests import kills
from tests.link.channels import make_paths

REPOSITORY = pathlib.Path(__file__).parents[2]
CONFIG = """
data = ["fast.h5"]
policies = ["perfect", "hold"]
[downlink]
num_users = 2
num_antennas = 8
num_subcarriers = 16
pilot_groups = [[2], [11]]
num_iterations = 8
[drops]
num_drops = 6
max_similarity = 1.0
[sweep]
horizons = [1, 2]
link_snr_db = [-3.0, 3.0]
mcs = [4, 13]
compile = "eager"
"""
COUNTS = ("regime", "horizon", "policy", "mcs", "link_snr_db", "num_blocks", "num_block_errors")


def counts(record):
    return [tuple(point[name] for name in COUNTS) for point in record["points"]]


def labels(folder):
    return {json.loads(path.read_text())["label"] for path in folder.glob("pieces/[!.]*.json")}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder with data and configuration, and the record of one process."""
    folder = tmp_path_factory.mktemp("sweep")
    paths = make_paths(num_sequences=16, speed_kmh=60.0, sampling_period=1e-3)
    write_paths(folder / "fast.h5", paths)
    (folder / "config.toml").write_text(CONFIG)
    before = pathlib.Path.cwd()
    os.chdir(folder)
    config = LinkEvalConfig.from_toml("config.toml")
    yield folder, config, evaluate_link(config, folder / "one", progress=False)
    os.chdir(before)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_dask_workers_give_the_same_counts_or_say_that_they_cannot(sweep, monkeypatch, workers):
    distributed = pytest.importorskip("distributed")
    Client, LocalCluster = distributed.Client, distributed.LocalCluster

    folder, config, expected = sweep
    # A policy of one's own that is another one on the workers.
    here, there = folder / "here", folder / "there"
    for place, sign in ((here, ""), (there, "-")):
        place.mkdir(exist_ok=True)
        (place / "held.py").write_text(f"def hold(history, n):\n    return {sign}history[:, -n:]\n")
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, env=environment
    ) as cluster:
        address = cluster.scheduler_address
        record = evaluate_link(config, folder / f"dask_{workers}", progress=False, dask=address)
        with Client(address) as client:
            client.run(site.addsitedir, str(there))
        monkeypatch.syspath_prepend(str(here))
        with pytest.raises(ValueError, match=r"A worker has other files.*another policy for"):
            evaluate_link(
                dataclasses.replace(config, policies=("held:hold",)),
                folder / f"other_{workers}",
                progress=False,
                dask=address,
            )
    sys.modules.pop("held")
    assert counts(record) == counts(expected)
    assert record["goodput"] == expected["goodput"]


@pytest.mark.slow
def test_two_processes_give_the_same_counts(sweep):
    folder, config, expected = sweep
    record = evaluate_link(config, folder / "two", progress=False, workers=2)
    assert counts(record) == counts(expected)


def check_killed(sweep, folder, step, call, workers=1):
    """A sweep that is killed at a step ends as one that was not."""
    home, config, expected = sweep
    arguments = str(home / "config.toml"), str(folder), workers
    assert kills.killed_run(step, call, kills.sweep_link, *arguments), (step, call)
    kept = labels(folder)
    assert kept <= labels(home / "one")
    record = evaluate_link(config, folder, progress=False)
    assert counts(record) == counts(expected), (step, call)
    assert labels(folder) == labels(home / "one")
    assert not list(folder.rglob(".tmp-*"))
    return kept


def test_a_killed_sweep_loses_the_point_it_was_at(sweep, tmp_path):
    kept = check_killed(sweep, tmp_path, "lwmt_sionna.link.sweep.points:Bench.compute", 6)
    assert len(kept) == 5


# Points computed (by the process itself), kept, and files that get their names.
STEPS = {
    "lwmt_sionna.link.sweep.points:Bench.compute": 8,
    "lwmt_sionna.runs.store:Store.put": 8,
    "lwmt_sionna.runs.records:os.replace": 8,
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_six_killed_sweeps_end_as_one_that_was_not(sweep, tmp_path, workers):
    """Killed at random steps, alone and with processes of its own."""
    steps = dict(STEPS)
    if workers > 1:
        # Points are computed elsewhere.
        del steps["lwmt_sionna.link.sweep.points:Bench.compute"]
    for number, (step, call) in enumerate(kills.draw_steps(steps, 6, seed=workers)):
        check_killed(sweep, tmp_path / str(number), step, call, workers)


def test_wrong_places(sweep):
    folder, config, _ = sweep
    with pytest.raises(ValueError, match="workers=0"):
        evaluate_link(config, folder / "wrong", progress=False, workers=0)
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_link(config, folder / "wrong", progress=False, dask="nowhere")
