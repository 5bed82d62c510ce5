"""Where the tasks of a sweep are computed: in local processes or on a Dask cluster.

Each executor takes tasks and yields results as they come. What is not yielded yet is what a killed
run loses: one task, or one per process.
"""

import functools
import logging
import multiprocessing
import os
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

__all__ = ["in_processes", "on_dask"]

logger = logging.getLogger(__name__)

# The workbench of this process, and the configuration that it was made from. A Dask worker may
# have several threads; a workbench serves one at a time.
_bench = None, None
_lock = threading.Lock()


def in_processes(config, num_processes):
    """Computes tasks in processes of their own on this machine.

    Args:
        config: `LinkEvalConfig`, from which every process builds channels, policies and links.
        num_processes: int.

    Returns:
        Callable for `run_sweep`'s `execute`.
    """
    if num_processes < 1:
        raise ValueError(f"There must be a process. Received: num_processes={num_processes}")

    def execute(tasks):
        # TensorFlow does not survive a fork.
        context = multiprocessing.get_context("spawn")
        threads = max(1, (os.cpu_count() or 1) // num_processes)
        with ProcessPoolExecutor(
            min(num_processes, max(1, len(tasks))), context, _prepare, (threads,)
        ) as pool:
            waiting = iter(tasks)
            # Few tasks are handed out ahead: an interrupted sweep ends soon.
            running = {}
            for _ in range(2 * num_processes):
                _submit(pool, running, waiting, config)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    task = running.pop(future)
                    _submit(pool, running, waiting, config)
                    yield task, future.result()

    return execute


def _submit(pool, running, waiting, config):
    task = next(waiting, None)
    if task is not None:
        running[pool.submit(_compute, config, task)] = task


def _prepare(threads):
    """Sets up a process of the pool before it imports TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    # A killed parent cannot tell its children to stop: they watch it.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent):
    parent.join()
    os._exit(1)


def on_dask(config, address):
    """Computes tasks on the workers of a Dask cluster.

    Workers need this package, TensorFlow and Sionna, and the data files under the same paths.

    Args:
        config: `LinkEvalConfig`, from which every worker builds channels, policies and links.
        address: str, of the scheduler, such as `"tcp://10.0.0.1:8786"`.

    Returns:
        Callable for `run_sweep`'s `execute`.

    Raises:
        ValueError: no scheduler answers there.
    """
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"No Dask scheduler answers: {error}. Received: dask={address!r}"
        ) from error

    def execute(tasks):
        with client:
            compute = functools.partial(_compute, config)
            # The order is kept as priority: neighbours share channels and predictions.
            futures = client.map(compute, tasks, pure=False, retries=2)
            by_key = {future.key: task for future, task in zip(futures, tasks)}
            done = as_completed(futures, loop=client.loop, with_results=True)
            for future, result in done:
                yield by_key[future.key], result

    return execute


def _compute(config, task):
    """Result of a task in a process that may not have computed one before."""
    global _bench
    with _lock:
        if _bench[0] != config:
            from lwmt_sionna.link.evaluation import make_bench

            _bench = config, make_bench(config)
        return _bench[1].compute(task)
