"""Processes that kill themselves at a named step, as often as a test likes.

They are forked from one server that has imported what is slow, and has computed nothing.
"""

import functools
import importlib
import multiprocessing
import os
import pathlib
import signal
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]


def draw_steps(steps, count, seed):
    """Random steps, as (name, number of the call), from the largest number by name."""
    rng = np.random.default_rng(seed)
    every = [(name, n + 1) for name, most in steps.items() for n in range(most)]
    return [every[i] for i in sorted(rng.choice(len(every), count, replace=False))]


def killed_run(step, number, function, *arguments):
    """Runs `function` in a process that is killed with -9 when a step is reached.

    Args:
        step: Whose call it is, `module:name` or `module:Class.name`.
        number: Which of its calls, from one; it is not begun.
        function: Of a module that can be imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills", "tensorflow", function.__module__])
    target, args = _run, (step, number, function.__module__, function.__name__, arguments)
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


def evaluate_predictions(*arguments):
    """The script that judges predictors."""
    from tests.experiments.scripts import script

    script("prediction_eval.py").main(list(arguments))


def sweep_link(config, folder, workers):
    """A sweep of the link."""
    from lwmt_sionna.link import LinkEvalConfig, evaluate_link

    os.chdir(pathlib.Path(config).parent)
    evaluate_link(LinkEvalConfig.from_toml(config), folder, progress=False, workers=workers)


def train_model(kind, settings, folder):
    """A training or pretraining, by the name of its configuration."""
    from lwmt_sionna import training

    training.train(getattr(training, kind).from_dict(settings), folder, verbose=0)


def _run(step, number, module, name, arguments):
    sys.path.insert(0, str(ROOT))
    owner, _, path = step.partition(":")
    *parts, called = path.split(".")
    owner = functools.reduce(getattr, parts, importlib.import_module(owner))
    original, calls = getattr(owner, called), []

    def killed(*args, **options):
        calls.append(called)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    setattr(owner, called, killed)
    getattr(importlib.import_module(module), name)(*arguments)
