"""The tasks of a sweep in other processes, here or on a Dask cluster.

What is not yielded yet is what a killed run loses: one task per process.
"""

import functools
import os
import threading

from lwmt_sionna.runs.parallel import run_tasks

__all__ = ["in_workers"]

# The workbench of this process, and the configuration that it was made from. A Dask worker may
# have several threads; a workbench serves one at a time.
_bench = None, None
_lock = threading.Lock()


def in_workers(config, workers=1, dask=None):
    """Computes tasks in processes of their own.

    Workers of a cluster need this package, TensorFlow and Sionna, and the data files under the
    same paths.

    Args:
        config: `LinkEvalConfig`, from which every process builds channels, policies and links.
        workers: int, processes on this machine.
        dask: str or None, address of a Dask scheduler, such as `"tcp://10.0.0.1:8786"`, whose
            workers compute in place of local processes.

    Returns:
        Callable for `run_sweep`'s `execute`; it raises what `runs.parallel.run_tasks` raises.
    """
    if workers < 1:
        raise ValueError(f"There must be a worker. Received: workers={workers}")

    def execute(tasks):
        results = run_tasks(
            functools.partial(_compute, config),
            tasks,
            workers=workers,
            dask=dask,
            initializer=functools.partial(_share_cores, workers),
        )
        for place, result in results:
            yield tasks[place], result

    return execute


def _share_cores(workers):
    """Sets up a process before it imports TensorFlow."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"


def _compute(config, task):
    """Result of a task in a process that may not have computed one before."""
    global _bench
    with _lock:
        if _bench[0] != config:
            from lwmt_sionna.link.sweep.run import make_bench

            _bench = config, make_bench(config)
        return _bench[1].compute(task)
