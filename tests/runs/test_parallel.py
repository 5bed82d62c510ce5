"""Task lists, without ray tracing."""

import io
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lwmt_sionna.runs.parallel import progress_bar, run_tasks

ROOT = pathlib.Path(__file__).resolve().parents[2]


def square(task):
    return task * task


def fail_at_three(task):
    if task == 3:
        raise ValueError("three is refused")
    return task


def vanish_at_two(task):
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(workers):
    results = dict(run_tasks(square, [3, 1, 4, 1, 5], workers=workers))
    assert results == {0: 9, 1: 1, 2: 16, 3: 1, 4: 25}
    assert list(run_tasks(square, [], workers=workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised(workers):
    with pytest.raises(ValueError, match="three is refused"):
        list(run_tasks(fail_at_three, range(6), workers=workers))


def test_a_process_that_vanishes_is_told():
    with pytest.raises(ChildProcessError, match="fewer workers"):
        list(run_tasks(vanish_at_two, range(6), workers=2))


def test_a_missing_scheduler_is_told(monkeypatch):
    pytest.importorskip("distributed")
    import distributed

    def refuse(address, timeout):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(ValueError, match=r"dask=tcp://127\.0\.0\.1:1"):
        list(run_tasks(square, [1], dask="tcp://127.0.0.1:1"))


class Cluster:
    """A scheduler and a worker in processes of their own."""

    def __init__(self, folder):
        self.note = folder / "scheduler.json"
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
        shared = ("--scheduler-file", self.note, "--dashboard-address", ":0")
        commands = {
            "scheduler": ("--port", 0, *shared),
            "worker": ("--nthreads", 1, "--no-nanny", *shared),
        }
        self.processes = {
            name: subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *map(str, options)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, options in commands.items()
        }

    def address(self):
        wait_for(self.note.exists)
        return json.loads(self.note.read_text())["address"]

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    (tmp_path / "on_cluster.py").write_text(
        "import time\ndef work(task):\n    time.sleep(task)\n    return task\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cluster = Cluster(tmp_path)
    yield cluster
    for name in cluster.processes:
        cluster.kill(name)


def test_a_lost_scheduler_is_told_and_what_was_finished_is_kept(cluster):
    import on_cluster

    address = cluster.address()
    finished = []
    with pytest.raises(ConnectionError, match=f"cluster was lost.*dask={address}"):
        # The second task waits for longer than any machine takes to note the loss.
        for place, result in run_tasks(on_cluster.work, [0, 600], dask=address):
            finished.append((place, result))
            cluster.kill("scheduler")
    assert finished == [(0, 0)]


def test_workers_end_with_the_process_that_started_them(tmp_path):
    program = f"""
import os, pathlib, sys, time
sys.path.insert(0, {str(tmp_path)!r})
from lwmt_sionna.runs.parallel import run_tasks
import sleeper
if __name__ == "__main__":
    list(run_tasks(sleeper.sleep, [0, 1], workers=2))
"""
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "def sleep(task):\n"
        "    note = pathlib.Path(__file__).parent / f'{task}.pid'\n"
        "    note.with_suffix('.new').write_text(str(os.getpid()))\n"
        "    note.with_suffix('.new').rename(note)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "main.py").write_text(program)
    process = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    notes = [tmp_path / "0.pid", tmp_path / "1.pid"]
    wait_for(lambda: all(note.exists() for note in notes))
    workers = [int(note.read_text()) for note in notes]
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))


class Terminal(io.StringIO):
    def isatty(self):
        return True


# Jupyter's stderr is an `ipykernel.iostream.OutStream`, and no terminal.
Notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})


@pytest.mark.parametrize(
    ("stream", "show", "shown"),
    [
        (Terminal, None, True),
        (Notebook, None, True),
        (io.StringIO, None, False),
        (Terminal, False, False),
        (io.StringIO, True, True),
    ],
)
def test_bars_show_where_somebody_looks(monkeypatch, stream, show, shown):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert list(progress_bar([1, 2, 3], unit="case", show=show)) == [1, 2, 3]
    assert ("3/3" in stderr.getvalue()) is shown


def test_a_resumed_run_says_what_it_keeps(caplog):
    with caplog.at_level(logging.INFO, "lwmt_sionna"):
        progress_bar(unit="shard", total=10, initial=4).close()
    assert caplog.messages == ["kept from before: 4 of 10 (shard)"]


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie waits for its new parent to take note of it; it does nothing any more.
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
