"""The loop of all trainings: steps, checkpoints, log, and what happens when a loss is no number."""

import csv
import logging
import math
import os
import pathlib
import time

import keras
import numpy as np
from tqdm import tqdm

from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.training.checkpoints import Checkpoints
from lwmt_sionna.training.devices import DataParallel

logger = logging.getLogger(__name__)

__all__ = ["NotFiniteError", "OutputAsLoss", "run_steps"]


class NotFiniteError(RuntimeError):
    """The loss stayed NaN or infinite."""


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class OutputAsLoss(keras.losses.Loss):
    """The loss of a model that computes it itself: the mean of its output, `[batch]`."""

    def call(self, y_true, y_pred):
        return y_pred


def run_steps(
    models, optimizer, draw_batch, config, workdir, *, devices=None, on_checkpoint=None,
    verbose="auto",
):  # fmt: skip
    """Trains until all steps are done; goes on where an earlier run in the folder stopped.

    What comes back from a checkpoint is everything that decides the next step: weights, moments and
    moving averages of the optimiser, the state of random generators, and the number of the step,
    from which the batch and the progress of the curriculum follow. A run that was killed therefore
    ends with the losses of one that was not.

    Args:
        models: Dictionary of compiled Keras models, one per shape of batch, that share weights and
            the optimiser.
        optimizer: The built optimiser.
        draw_batch: Callable from the number of a step to the key of the model, its inputs and its
            targets. It must depend on the number alone.
        config: `OptimizationConfig`.
        workdir: Folder for checkpoints and `history.csv`.
        devices: `DataParallel`; one device by default.
        on_checkpoint: Callable `(step, notes)` after every checkpoint interval, before the
            checkpoint is written; what it puts into the dictionary `notes` comes back with it.
        verbose: 0 for no progress bar.

    Returns:
        Tuple of the notes and the loss of every logged step, a list of dictionaries.

    Raises:
        NotFiniteError: If the loss is not finite for `config.patience` steps in a row. The last
            checkpoint, written before, stays.
    """
    workdir = pathlib.Path(workdir)
    devices = DataParallel() if devices is None else devices
    checkpoints = Checkpoints(workdir / "checkpoints")
    variables = _state(models, optimizer)
    step, notes, history = 0, {}, []
    restored = checkpoints.restore()
    if restored is not None:
        step, arrays, notes = restored
        _assign(variables, arrays, workdir)
        logger.info("going on at step %d of %d", step, config.steps)
    log = workdir / "history.csv"
    # Rows beyond the checkpoint are computed again, and would appear twice.
    history = [row for row in _read_rows(log) if row["step"] <= step]
    _write_rows(log, history)
    losses, failures, last_good, prepared = [], 0, step, set()
    bar = tqdm(
        total=config.steps, initial=step, unit="step", disable=True if verbose == 0 else None
    )
    began = time.perf_counter()
    while step < config.steps:
        key, x, y = draw_batch(step)
        if key not in prepared:
            devices.prepare(models[key], x, y)
            prepared.add(key)
        logs = models[key].train_on_batch(devices.share(x), devices.share(y), return_dict=True)
        loss = float(logs["loss"])
        step += 1
        bar.update()
        if math.isfinite(loss):
            failures = 0
            losses.append(loss)
        else:
            failures += 1
            logger.warning("step %d: the loss is %s; the step changes nothing", step, loss)
            if failures >= config.patience:
                raise NotFiniteError(
                    f"The loss was not finite in {failures} steps in a row, the last of them step "
                    f"{step}. The last good checkpoint is that of step {last_good} in "
                    f"{checkpoints.folder}; lower the learning rate or raise the precision."
                )
        due = step % config.checkpoint_every == 0 or step == config.steps
        if step % config.log_every == 0 or due:
            row = {
                "step": step,
                "loss": float(np.mean(losses)) if losses else math.nan,
                "seconds": round(time.perf_counter() - began, 2),
            }
            losses = []
            history.append(row)
            _append_row(log, row)
            bar.set_postfix(loss=f"{row['loss']:.4f}")
        if due and failures == 0:
            if on_checkpoint is not None:
                on_checkpoint(step, notes)
            arrays = [keras.ops.convert_to_numpy(v) for v in variables]
            if all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
                checkpoints.save(step, arrays, notes)
                last_good = step
            else:
                raise NotFiniteError(
                    f"A weight is not finite after step {step}. The last good checkpoint is that "
                    f"of step {last_good} in {checkpoints.folder}."
                )
    bar.close()
    return notes, history


def _state(models, optimizer):
    """All variables that decide what comes next, each once, in a fixed order."""
    inner = getattr(optimizer, "inner_optimizer", None)
    groups = [model.variables for model in models.values()] + [optimizer.variables]
    if inner is not None:
        groups.append(inner.variables)
    seen, variables = set(), []
    for variable in (v for group in groups for v in group):
        if id(variable) not in seen:
            seen.add(id(variable))
            variables.append(variable)
    return variables


def _assign(variables, arrays, workdir):
    shapes = [tuple(a.shape) for a in arrays]
    expected = [tuple(v.shape) for v in variables]
    if shapes != expected:
        raise ValueError(
            "The checkpoint is of another model; remove the folder or choose another one. "
            f"Received: workdir={workdir}"
        )
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)


def _read_rows(path):
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    complete = [row for row in rows if all(row.get(k) for k in ("step", "loss", "seconds"))]
    return [
        {"step": int(r["step"]), "loss": float(r["loss"]), "seconds": float(r["seconds"])}
        for r in complete
    ]


def _write_rows(path, rows):
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("step", "loss", "seconds"))
        writer.writeheader()
        writer.writerows(rows)


def _append_row(path, row):
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, tuple(row)).writerow(row)
        file.flush()
        os.fsync(file.fileno())
