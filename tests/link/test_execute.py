"""The same sweep in one process, in several, on Dask, and killed."""

import dataclasses
import json
import os
import pathlib
import signal
import site
import subprocess
import sys
import textwrap

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
# The same run, which ends abruptly when a function is called for the sixth time.
KILLED = """
    import os, signal
    from lwmt_sionna.link import LinkEvalConfig, evaluate_link
    from lwmt_sionna.link.sweep.points import Bench
    from lwmt_sionna.runs.store import Store

    owner, name = {step}
    function, calls = getattr(owner, name), []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    setattr(owner, name, killed)
    evaluate_link(LinkEvalConfig.from_toml("config.toml"), "killed_{number}", progress=False)
"""


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


def test_two_dask_workers_give_the_same_counts_or_say_that_they_cannot(sweep, monkeypatch):
    from distributed import Client, LocalCluster

    folder, config, expected = sweep
    # A policy of one's own that is another one on the workers.
    here, there = folder / "here", folder / "there"
    for place, sign in ((here, ""), (there, "-")):
        place.mkdir()
        (place / "held.py").write_text(f"def hold(history, n):\n    return {sign}history[:, -n:]\n")
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, env=environment
    ) as cluster:
        address = cluster.scheduler_address
        record = evaluate_link(config, folder / "dask", progress=False, dask=address)
        with Client(address) as client:
            client.run(site.addsitedir, str(there))
        monkeypatch.syspath_prepend(str(here))
        with pytest.raises(ValueError, match=r"A worker has other files.*another policy for"):
            evaluate_link(
                dataclasses.replace(config, policies=("held:hold",)),
                folder / "other",
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


@pytest.mark.parametrize(
    ("number", "step"),
    [(0, '(Bench, "compute")'), (1, '(Store, "put")'), (2, '(os, "replace")')],
)
def test_a_killed_sweep_loses_the_point_it_was_at(sweep, number, step):
    """Killed while a point is computed, before it is kept, and before its file has its name."""
    folder, config, expected = sweep
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED).format(step=step, number=number)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    killed = folder / f"killed_{number}"
    kept = labels(killed)
    assert len(kept) == 5 and kept < labels(folder / "one")
    record = evaluate_link(config, killed, progress=False)
    assert counts(record) == counts(expected)
    assert labels(killed) == labels(folder / "one")
    assert not list(killed.rglob(".tmp-*"))


# Points computed (by the process itself), kept, and files that get their names.
STEPS = {
    "lwmt_sionna.link.sweep.points:Bench.compute": 8,
    "lwmt_sionna.runs.store:Store.put": 8,
    "lwmt_sionna.runs.records:os.replace": 8,
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_six_killed_sweeps_end_as_one_that_was_not(sweep, workers):
    """Killed at random steps, alone and with processes of its own."""
    folder, config, expected = sweep
    steps = dict(STEPS)
    if workers > 1:
        # Points are computed elsewhere.
        del steps["lwmt_sionna.link.sweep.points:Bench.compute"]
    for number, (step, call) in enumerate(kills.draw_steps(steps, 6, seed=workers)):
        killed = folder / f"random_{workers}_{number}"
        arguments = str(folder / "config.toml"), str(killed), workers
        assert kills.killed_run(step, call, kills.sweep_link, *arguments), step
        record = evaluate_link(config, killed, progress=False)
        assert counts(record) == counts(expected), (step, call)
        assert labels(killed) == labels(folder / "one")
        assert not list(killed.rglob(".tmp-*"))


def test_wrong_places(sweep):
    folder, config, _ = sweep
    with pytest.raises(ValueError, match="workers=0"):
        evaluate_link(config, folder / "wrong", progress=False, workers=0)
    with pytest.raises(ValueError, match="nowhere"):
        evaluate_link(config, folder / "wrong", progress=False, dask="nowhere")
