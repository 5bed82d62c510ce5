"""Lists of independent tasks: in this process, in local processes, or on a Dask cluster.

And the bar that shows how far they are.
"""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 1.0
_ANSWER_SECONDS = 20


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    workers: int = 1,
    dask: str | None = None,
    initializer: Callable[[], object] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Runs a function on every task and yields the results as they come.

    Args:
        function: Callable of one task. For processes and clusters it, the tasks and the results
            must be picklable, and the workers must have the same package installed.
        tasks: Sequence of tasks, hashable or not.
        workers: Number of local processes; 1 computes in this process.
        dask: Address of a Dask scheduler, such as "tcp://10.0.0.1:8786", or `None`. Needs the
            package `distributed`.
        initializer: Callable without arguments that each local process runs first.

    Yields:
        Tuples of a task's place in `tasks` and its result, in the order of completion.

    Raises:
        ValueError: If `workers` is less than 1, or no scheduler answers at the address.
        ChildProcessError: If a local process ends abruptly, as for want of memory.
        ConnectionError: If the cluster is lost: its scheduler, or workers again and again.
        Exception: Whatever the function raises; tasks that have not begun are cancelled.
    """
    if workers < 1:
        raise ValueError(f"There must be a worker. Received: workers={workers}")
    tasks = list(tasks)
    if not tasks:
        return
    if dask is not None:
        yield from _on_cluster(function, tasks, dask)
    elif workers == 1:
        for place, task in enumerate(tasks):
            yield place, function(task)
    else:
        yield from _in_processes(function, tasks, workers, initializer)


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    desc: str | None = None,
    show: bool | None = None,
) -> Any:
    """A progress bar on terminals and in notebooks, and nowhere else. Says what a run keeps.

    Args:
        iterable: What to go through, if the bar is to go along with it.
        total: How many there are, those of before included; the length of `iterable` if `None`.
        initial: How many were finished before.
        show: Whether to show a bar; where somebody looks if `None`. Others are those of tqdm.
    """
    from tqdm import tqdm

    if initial:
        whole = "" if total is None else f" of {total}"
        logger.info("kept from before: %d%s (%s)", initial, whole, unit)
    # In a notebook stderr is no terminal, and tqdm would hide.
    notebook = type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
    watched = notebook or sys.stderr.isatty()
    return tqdm(
        iterable,
        desc,
        total,
        unit=unit,
        initial=initial,
        disable=not (watched if show is None else show),
    )


def _in_processes(function, tasks, workers, initializer):
    executor = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(tasks)),
        # A forked child inherits the threads' locks of Dr.Jit and TensorFlow without the threads.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(), initializer),
    )
    try:
        places = {executor.submit(function, task): place for place, task in enumerate(tasks)}
        for future in concurrent.futures.as_completed(places):
            yield places.pop(future), future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ChildProcessError(
            f"A worker process ended abruptly; {workers} may need more memory than there is. What "
            "was finished is kept: start again with fewer workers."
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent, initializer):
    # A parent that is killed cannot end its workers, and they would wait for work for ever.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with(parent):
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _on_cluster(function, tasks, address):
    from distributed import Client, as_completed
    from distributed.scheduler import KilledWorker

    try:
        client = Client(address, timeout=_ANSWER_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(f"No Dask scheduler answers. Received: dask={address}") from error
    # What the function itself raises on a worker is raised here as well, and may be an OSError.
    lost, raised = None, None
    with _quiet("asyncio", "distributed", "tornado"), client:
        try:
            futures = client.map(function, tasks, pure=False)
            places = {future.key: place for place, future in enumerate(futures)}
            for future in as_completed(futures):
                if future.status == "error" and not isinstance(future.exception(), KilledWorker):
                    raised = future.exception()
                    break
                yield places[future.key], future.result()
        except (OSError, TimeoutError, KilledWorker, concurrent.futures.CancelledError) as error:
            lost = error
    if raised is not None:
        raise raised
    if lost is not None:
        raise ConnectionError(
            "The Dask cluster was lost: its scheduler ended, or a worker ended with one task again "
            "and again. What was finished is kept: start again once the cluster is back. Received: "
            f"dask={address}"
        ) from lost


@contextlib.contextmanager
def _quiet(*names):
    """Lets libraries say nothing but the worst: they tell a loss in hundreds of lines."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] in names and isinstance(logger, logging.Logger)
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
