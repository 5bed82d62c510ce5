"""One training for all: steps, checkpoints, validation, callbacks, and what ends it early."""

import concurrent.futures
import csv
import itertools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from lwmt_sionna.models.presets import preset_digest, preset_folder
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.records import atomic_path, sha256
from lwmt_sionna.runs.store import RunFolder, Store
from lwmt_sionna.training.configuration import OptimizationConfig
from lwmt_sionna.training.optimization import DataParallel, averaged_weights
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

__all__ = [
    "Checkpoints",
    "Loop",
    "NotFiniteError",
    "OutputAsLoss",
    "Task",
    "Trained",
    "input_files",
    "train",
]

# Steps in a row whose loss is not finite after which a training stops.
_PATIENCE = 10
_LOG = "history.csv"
# Computed once, each piece under a key of its own.
_FEATURES = "features"
_COLUMNS = ("step", "loss", "validation_loss_db", "seconds")


class NotFiniteError(RuntimeError):
    """The loss stayed NaN or infinite."""


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class OutputAsLoss(keras.losses.Loss):
    """The loss of a model that computes it itself: the mean of its output, `[batch]`."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The output, whatever the target."""
        return y_pred


class Task(NamedTuple):
    """What a `Loop` does.

    Attributes:
        model: Keras model whose weights are kept.
        models: Dictionary of compiled Keras models, one per shape of batch, that share weights and
            the optimiser.
        optimizer: The built optimiser.
        draw_batch: Callable from the number of a step to the key of the model, its inputs and its
            targets. It must depend on the number alone.
        num_steps: Number of steps.
        epoch: Steps of a pass over the data: between checkpoints, where nothing else is configured.
        validate: Callable to the validation loss in decibels of the weights of the moment. Those of
            the best one are kept, the untrained ones included; without it, the last ones.
        facts: JSON-compatible dictionary that joins the outcome.
    """

    model: keras.Model
    models: dict[Any, keras.Model]
    optimizer: keras.optimizers.Optimizer
    draw_batch: Callable[[int], tuple[Any, Any, Any]]
    num_steps: int
    epoch: int
    validate: Callable[[], float] | None = None
    facts: dict[str, Any] | None = None


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        model: The model, with the weights that are kept.
        outcome: Dictionary: what the task says of itself (numbers of sequences, of parameters),
            `"history"`, a list of dictionaries of the logged steps, and where there is a
            validation, its losses in decibels before training, at its best and at the end
            (`"validation_loss_untrained_db"`, `"validation_loss_db"`,
            `"validation_loss_last_db"`), and `"best_step"`, 0 if the untrained weights were best.
    """

    model: keras.Model
    outcome: dict[str, Any]


class Trainable(Protocol):
    """A configuration that can be trained: `TrainConfig` and `PretrainConfig`."""

    @property
    def optimization(self) -> OptimizationConfig:
        """Steps, batches and learning rates."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON has them."""

    def inputs(self) -> list[str]:
        """Paths of the files, and names of the presets, that are read."""

    def build(self) -> keras.Model:
        """The model, with the weights that it starts from."""

    def prepare(
        self, model: keras.Model, devices: DataParallel, data: Any, folder: pathlib.Path
    ) -> Task:
        """What is to be done with the model; what it computes for that is kept in the folder."""


def train(
    config: Trainable,
    workdir: PathLike,
    *,
    data: Any = None,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    num_devices: int = 1,
    stop: bool = False,
    verbose: int | str = "auto",
) -> Trained:
    """Trains a model, from scratch or from a preset; goes on where an earlier run stopped.

    A run that was killed ends with the weights of one that was not. A training that has ended is
    not trained again.

    Args:
        config: `TrainConfig` for a predictor, `PretrainConfig` for a masked channel model.
        workdir: Folder for checkpoints and the log, of this configuration and its files alone.
        data: What the training is done on, if it has been made already: `load_data` of the same
            configuration, or of one with the same physics, or `load_scenes`.
        callbacks: Keras callbacks; an epoch is what lies between two checkpoints. What they
            remember is not part of the checkpoints.
        num_devices: Number of devices that share every batch.
        stop: End the training at the last checkpoint that the folder holds, without a further step.
        verbose: 0 for no progress bar.

    Raises:
        ValueError: If the folder holds a training of another configuration or other files, another
            run works in it, the data leaks, or there is no checkpoint to stop at.
        NotFiniteError: See `Loop.run`.
    """
    devices = DataParallel(num_devices)
    claim = {"config": config.to_dict(), "inputs": {n: _input_digest(n) for n in config.inputs()}}
    with RunFolder(workdir, claim, ignore=(_LOG, _FEATURES, "tensorboard")) as folder:
        with devices.scope():
            model = config.build()
        checkpoints = Checkpoints(folder.store)
        state = checkpoints.restore(len(model.variables))
        if state is not None and state.notes["finished"]:
            logger.info("%s: finished already, after %d steps", folder.path, state.notes["step"])
        elif stop:
            if state is None:
                raise ValueError(f"There is no checkpoint to stop at. Received: folder={workdir}")
            logger.info("%s: ends here, after %d steps", folder.path, state.notes["step"])
            state.notes["finished"] = True
            checkpoints.save(state)
        else:
            with devices.scope():
                task = config.prepare(model, devices, data, folder.path / _FEATURES)
            loop = Loop(task, config.optimization, checkpoints, devices, folder.path / _LOG)
            state = loop.run(state, callbacks, verbose)
        _assign(model.variables, state.kept, folder.path)
    return Trained(model, state.notes["outcome"])


class State(NamedTuple):
    """Where a training is: see `Checkpoints`.

    Attributes:
        arrays: All that decides the next step.
        kept: Weights of the model that are kept if the training ends here.
        notes: JSON-compatible dictionary: `"step"`, `"finished"`, and `"outcome"`.
    """

    arrays: list[np.ndarray]
    kept: list[np.ndarray]
    notes: dict[str, Any]


class Checkpoints:
    """The last two checkpoints of a training, of which the newest undamaged one counts.

    Args:
        store: `lwmt_sionna.runs.store.Store`.
    """

    _KEYS = ({"checkpoint": 0}, {"checkpoint": 1})

    def __init__(self, store: Store) -> None:
        self.store = store
        self._next = 0

    def save(self, state: State) -> None:
        """Writes a checkpoint in place of the older one."""

        def write(path):
            with path.open("wb") as file:
                np.savez(file, *state.arrays, *state.kept)

        label = f"checkpoint, step {state.notes['step']}"
        self.store.put_file(self._KEYS[self._next], write, ".npz", state.notes, label)
        self._next = 1 - self._next

    def restore(self, num_kept: int) -> State | None:
        """The newest undamaged checkpoint of a model of so many variables, or None."""
        found = [self.store.get_file(key) for key in self._KEYS]
        steps = [-1 if piece is None else piece[1]["step"] for piece in found]
        newest = int(np.argmax(steps))
        self._next = 1 - newest
        piece = found[newest]
        if piece is None:
            return None
        path, notes = piece
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[f"arr_{index}"] for index in range(len(file.files))]
        return State(arrays[:-num_kept], arrays[-num_kept:], notes)


class Loop:
    """Trains until all steps are done, or a callback ends it.

    A checkpoint holds everything that decides the next step: weights, moments and moving averages
    of the optimiser, the state of random generators, the best weights so far, and the number of the
    step, from which the batch and the progress of the curriculum follow.

    Args:
        task: `Task`.
        config: `OptimizationConfig`.
        checkpoints: `Checkpoints`.
        devices: `DataParallel`; one device by default.
        log: Path of a CSV file of losses.
    """

    def __init__(
        self,
        task: Task,
        config: OptimizationConfig,
        checkpoints: Checkpoints,
        devices: DataParallel | None = None,
        log: pathlib.Path | None = None,
    ) -> None:
        self.task = task
        self.checkpoints = checkpoints
        self.devices = DataParallel() if devices is None else devices
        self.log = log
        self.variables = _state_variables(task)
        self.interval = config.checkpoint_every or task.epoch
        self.log_every = config.log_every or self.interval
        self.step, self.last_good, self.failures = 0, 0, 0
        self.losses: list[float] = []
        self.kept: list[np.ndarray] = []
        self.outcome = {**(task.facts or {}), "history": []}
        self.ready: set[Any] = set()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "batches")
        self._batches: dict[int, concurrent.futures.Future[Any]] = {}

    def run(
        self,
        state: State | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> State:
        """Takes all steps that remain.

        Args:
            state: `State` to go on from.
            callbacks: See `train`.
            verbose: 0 for no progress bar.

        Returns:
            `State` of the end.

        Raises:
            NotFiniteError: If the loss is not finite in many steps in a row. The last checkpoint,
                written before, stays.
        """
        self._begin(state)
        model = next(iter(self.task.models.values()))
        model.stop_training = False
        epochs = -(-self.task.num_steps // self.interval)
        hooks = keras.callbacks.CallbackList(
            list(callbacks), model=model, epochs=epochs, steps=self.interval, verbose=0
        )
        bar = progress_bar(
            total=self.task.num_steps, initial=self.step, unit="step",
            show=False if verbose == 0 else None,
        )  # fmt: skip
        began = time.perf_counter()
        hooks.on_train_begin()
        finished = False
        with bar:
            while state is None or not finished:
                epoch, place = divmod(self.step, self.interval)
                if place == 0:
                    hooks.on_epoch_begin(epoch)
                hooks.on_train_batch_begin(place)
                loss = self._take_step()
                hooks.on_train_batch_end(place, {"loss": loss})
                bar.update()
                done = self.step == self.task.num_steps
                due = done or self.step % self.interval == 0
                if not due and self.step % self.log_every:
                    continue
                row = {"step": self.step, "loss": float(np.mean(self.losses or [math.nan]))}
                self.losses = []
                if due:
                    row |= self._validate()
                    logs = {"loss": row["loss"]}
                    if "validation_loss_db" in row:
                        logs["val_loss"] = row["validation_loss_db"]
                    hooks.on_epoch_end(epoch, logs)
                    finished = done or model.stop_training
                row["seconds"] = round(time.perf_counter() - began, 2)
                self._write_row(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}")
                if due and (finished or self.failures == 0):
                    state = self._save(finished)
        hooks.on_train_end()
        if self.outcome.get("best_step") == 0:
            logger.warning(
                "training made nothing better: the validation loss was %.3f dB before it and "
                "%.3f dB at its end; the weights of the start are kept",
                self.outcome["validation_loss_untrained_db"],
                self.outcome["validation_loss_last_db"],
            )
        return state

    def _begin(self, state):
        if state is None:
            self.kept = _arrays(self.task.model.variables)
            if self.task.validate is not None:
                loss = self.task.validate()
                logger.info("validation loss before training: %.3f dB", loss)
                self.outcome |= {
                    "validation_loss_untrained_db": loss,
                    "validation_loss_db": loss,
                    "best_step": 0,
                }
        else:
            _assign(self.variables, state.arrays, self.checkpoints.store.folder)
            self.kept = state.kept
            self.outcome = state.notes["outcome"]
            self.step = self.last_good = state.notes["step"]
        if self.log is not None:
            # Rows beyond the checkpoint are computed again, and would appear twice.
            with atomic_path(self.log) as temporary, temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, _COLUMNS)
                writer.writeheader()
                writer.writerows(self.outcome["history"])

    def _batch(self):
        """The batch of this step; that of the next one is drawn while this one is worked on."""
        for step in (self.step, self.step + 1):
            if step not in self._batches and step < self.task.num_steps:
                self._batches[step] = self._worker.submit(self.task.draw_batch, step)
        return self._batches.pop(self.step).result()

    def _take_step(self):
        key, x, y = self._batch()
        model = self.task.models[key]
        if key not in self.ready:
            self.devices.prepare(model, x, y)
            self.ready.add(key)
        logs = model.train_on_batch(self.devices.share(x), self.devices.share(y), return_dict=True)
        loss = float(logs["loss"])
        self.step += 1
        if math.isfinite(loss):
            self.failures = 0
            self.losses.append(loss)
            return loss
        self.failures += 1
        logger.warning("step %d: the loss is %s; the step changes nothing", self.step, loss)
        if self.failures >= _PATIENCE:
            raise NotFiniteError(
                f"The loss was not finite in {self.failures} steps in a row, the last of them step "
                f"{self.step}. The last good checkpoint is that of step {self.last_good} in "
                f"{self.checkpoints.store.folder}; lower the learning rate or raise the precision."
            )
        return loss

    def _validate(self):
        with averaged_weights(self.task.optimizer):
            if self.task.validate is None:
                self.kept = _arrays(self.task.model.variables)
                return {}
            loss = self.task.validate()
            if loss < self.outcome["validation_loss_db"]:
                self.outcome |= {"validation_loss_db": loss, "best_step": self.step}
                self.kept = _arrays(self.task.model.variables)
        self.outcome["validation_loss_last_db"] = loss
        logger.info("step %d: validation %.3f dB", self.step, loss)
        return {"validation_loss_db": loss}

    def _save(self, finished):
        arrays = _arrays(self.variables)
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
            raise NotFiniteError(
                f"A weight is not finite after step {self.step}. The last good checkpoint is that "
                f"of step {self.last_good} in {self.checkpoints.store.folder}."
            )
        notes = {"step": self.step, "finished": bool(finished), "outcome": self.outcome}
        state = State(arrays, self.kept, notes)
        self.checkpoints.save(state)
        self.last_good = self.step
        return state

    def _write_row(self, row):
        self.outcome["history"].append(row)
        if self.log is not None:
            with self.log.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, _COLUMNS).writerow(row)


def _state_variables(task):
    """All variables that decide what comes next, each once, in a fixed order."""
    inner = getattr(task.optimizer, "inner_optimizer", None)
    groups = [model.variables for model in task.models.values()] + [task.optimizer.variables]
    if inner is not None:
        groups.append(inner.variables)
    return list({id(v): v for v in itertools.chain.from_iterable(groups)}.values())


def _arrays(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def _assign(variables, arrays, folder):
    if [tuple(a.shape) for a in arrays] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            "The checkpoint is of another model; remove the folder or choose another one. "
            f"Received: folder={folder}"
        )
    for variable, value in zip(variables, arrays, strict=True):
        variable.assign(value)


def input_files(config: Trainable) -> dict[str, pathlib.Path]:
    """What a training reads, as records take it: files, and folders of presets, by name."""
    return {pathlib.Path(name).stem: _input_path(name) for name in config.inputs()}


def _input_path(name):
    path = pathlib.Path(name)
    return path if path.is_file() else preset_folder(name)


def _input_digest(name):
    """SHA-256 of a file, or of a preset."""
    path = _input_path(name)
    return sha256(path) if path.is_file() else preset_digest(path)
