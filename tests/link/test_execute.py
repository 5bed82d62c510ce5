"""The same sweep in one process, in several, on Dask, and killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lwmt_sionna.data import write_paths
from lwmt_sionna.link import LinkEvalConfig, evaluate_link
from lwmt_sionna.link.sweep.execute import in_workers
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
snr_db = [-3.0, 3.0]
mcs = [4, 13]
compile = "eager"
"""
COUNTS = ("regime", "horizon", "policy", "mcs", "snr_db", "num_blocks", "num_block_errors")


def counts(record):
    return [tuple(point[name] for name in COUNTS) for point in record["points"]]


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


def test_two_dask_workers_give_the_same_counts(sweep):
    from distributed import LocalCluster

    folder, config, expected = sweep
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, env=environment
    ) as cluster:
        address = cluster.scheduler_address
        record = evaluate_link(config, folder / "dask", progress=False, dask=address)
    assert counts(record) == counts(expected)
    assert record["goodput"] == expected["goodput"]


@pytest.mark.slow
def test_two_processes_give_the_same_counts(sweep):
    folder, config, expected = sweep
    record = evaluate_link(config, folder / "two", progress=False, workers=2)
    assert counts(record) == counts(expected)


def test_a_killed_sweep_loses_at_most_one_point(sweep):
    folder, config, expected = sweep
    whole = [json.loads(line) for line in (folder / "one" / "points.jsonl").open()]
    store = folder / "killed" / "points.jsonl"
    script = REPOSITORY / "experiments" / "link_level_eval.py"
    process = subprocess.Popen(
        [sys.executable, script, "--config", "config.toml", "--out", "killed", "--quiet"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if store.is_file() and store.read_text().count("\n") >= 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    text = store.read_text()
    kept = [json.loads(line) for line in text.splitlines() if line.endswith("}}")]
    # What was finished is there, in order; what is missing is one point that was being computed.
    assert 5 <= len(kept) < len(whole)
    assert [entry["label"] for entry in kept] == [e["label"] for e in whole[: len(kept)]]

    record = evaluate_link(config, folder / "killed", progress=False)
    assert counts(record) == counts(expected)
    lines = [line for line in store.read_text().splitlines() if line.endswith("}}")]
    assert len(lines) == len(whole)


def test_wrong_places(sweep):
    _, config, _ = sweep
    with pytest.raises(ValueError, match="workers=0"):
        in_workers(config, 0)
    with pytest.raises(ValueError, match="nowhere"):
        list(in_workers(config, dask="nowhere")([None]))
