"""The one interface of all predictors."""

import abc
import concurrent.futures
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops import alignment
from lwmt_sionna.ops.compiled import call_compiled
from lwmt_sionna.typing import Array, ArrayLike

# Reports that a lost one is told from, at most.
_NUM_NEAREST = 8
# Regularisation relative to the mean power of the regressors.
_RIDGE = 1e-3


class Predictor(abc.ABC):
    """Predicts the next channels from a noisy history.

    Call arguments:
        history: Noisy channels, the most recent last, complex `[batch, num_snapshots, num_ant,
            num_subcarriers]`; of what did not arrive nothing is looked at.
        num_horizons: Number of snapshots to predict.
        arrived: Which snapshots were measured, bool `[batch, num_snapshots]`; the others are
            filled, see `fill_reports`. If `None`, those that are not the one before, number by
            number: see `lwmt_sionna.ops.alignment.reports_arrived`.

    Returns:
        complex64 `[batch, num_horizons, num_ant, num_subcarriers]`.

    Raises:
        ValueError: If the history has another rank, is empty but for its batch, is real, or holds
            NaN or infinity, if `arrived` does not fit, or `num_horizons` is no positive integer.
    """

    name = "predictor"

    def __call__(
        self, history: ArrayLike, num_horizons: int, arrived: ArrayLike | None = None
    ) -> Array:
        history = np.asarray(history)
        if history.ndim != 4 or not np.iscomplexobj(history):
            raise ValueError(
                "The history must be complex [batch, num_snapshots, num_ant, num_subcarriers]. "
                f"Received: history.shape={history.shape}, history.dtype={history.dtype}"
            )
        good = int(num_horizons) == num_horizons and num_horizons >= 1
        require("num_horizons", num_horizons, good, "a positive integer")
        num_horizons = int(num_horizons)
        if 0 in history.shape[1:]:
            raise ValueError(
                "The history must hold snapshots, antennas and subcarriers. Received: "
                f"history.shape={history.shape}"
            )
        if arrived is not None:
            history = hold_reports(history, arrived)
        if not np.isfinite(history).all():
            raise ValueError("The history holds NaN or infinity; expected finite values")
        if not len(history):
            return np.zeros((0, num_horizons, *history.shape[2:]), np.complex64)
        history = history.astype(np.complex64)
        if arrived is None:
            arrived = ops.convert_to_numpy(alignment.reports_arrived(as_pairs(history)))
        arrived = np.asarray(arrived, bool)
        if arrived.all():
            future = self.predict(history, num_horizons)
        else:
            future = self.predict_incomplete(history, num_horizons, arrived)
        return np.asarray(future, np.complex64)

    @abc.abstractmethod
    def predict(self, history: Array, num_horizons: int) -> Array:
        """Does what the call promises, on checked input."""

    def predict_incomplete(self, history: Array, num_horizons: int, arrived: Array) -> Array:
        """`predict` where reports are missing, bool `arrived` `[batch, num_snapshots]`."""
        filled = fill_reports(history, arrived, getattr(self, "array_shape", None))
        return self.predict(filled, num_horizons)


def require(name: str, value: Any, good: bool, expected: str) -> None:
    """Refuses a setting that is not good; what is expected follows "must be"."""
    if not good:
        raise ValueError(f"{name} must be {expected}. Received: {name}={value}")


def told_arrived(function: Callable[..., Any], arrived: ArrayLike | None) -> dict[str, Array]:
    """What a predictor or policy is told of lost reports, where `arrived` says that there are any.

    Dictionary of its keyword `arrived`, where it has one and a report is missing; empty otherwise:
    it meets the reports that were held in place of the missing ones.
    """
    if arrived is None or np.all(arrived):
        return {}
    try:
        accepts = "arrived" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # compiled functions may have no signature
        accepts = False
    return {"arrived": np.asarray(arrived, bool)} if accepts else {}


def fill_reports(
    history: Array, arrived: ArrayLike, array_shape: tuple[int, int, int] | None = None
) -> Array:
    """Puts estimates in the place of reports that never arrived.

    A missing snapshot is told from the nearest ones that arrived, before and after it within the
    history, by a linear regression over the sequence's own history: all antennas and subcarriers
    and both directions of time count. Between reports it interpolates, after the last it predicts.
    Histories of 7 snapshots or more tell each angle-delay bin its own estimate from there:
    see `lwmt_sionna.ops.alignment.fill_reports`. Where nothing tells a snapshot the last one that
    arrived stands for it.

    Args:
        history: complex `[batch, num_snapshots, num_ant, num_subcarriers]`.
        arrived: bool `[batch, num_snapshots]`; what stands in the other places is not looked at.
        array_shape: Rows, columns and polarisations of the array; a line if `None`.

    Returns:
        complex64, shape as `history`.

    Raises:
        ValueError: If the history is real, or the shapes do not fit.
    """
    history = np.asarray(history)
    if not np.iscomplexobj(history):
        raise ValueError(f"The history must be complex. Received: history.dtype={history.dtype}")
    history = hold_reports(history.astype(np.complex64), arrived)
    arrived = np.asarray(arrived, bool)
    array_shape = as_shape(array_shape)
    filled = history.copy()
    rows = np.flatnonzero(~arrived.all(axis=1))
    for index in rows:
        samples = history[index].reshape(history.shape[1], -1).astype(np.complex128)
        present = np.flatnonzero(arrived[index])
        for place in np.flatnonzero(~arrived[index]):
            estimate = _regressed(samples, present, place)
            if estimate is not None:
                filled[index, place] = estimate.reshape(history.shape[2:])
    # Few programs serve all: the last sequence fills up a batch.
    size = batch_shape(len(rows), 32)
    for begin in range(0, len(rows), size):
        part = rows[np.minimum(np.arange(begin, begin + size), len(rows) - 1)]
        pairs = call_compiled(
            alignment.fill_reports, [as_pairs(filled[part]), arrived[part]], array_shape
        )
        filled[part] = as_complex(ops.convert_to_numpy(pairs))
    return filled


def hold_reports(history: Array, arrived: ArrayLike) -> Array:
    """Puts the last report that arrived in the place of lost ones, and before it the first one.

    Args:
        history: `[batch, num_snapshots, ...]`.
        arrived: bool `[batch, num_snapshots]`; what stands in the other places is not looked at.

    Returns:
        Shape and dtype as `history`; zeros where nothing arrived at all.

    Raises:
        ValueError: If the shapes do not fit.
    """
    arrived = np.asarray(arrived, bool)
    if arrived.shape != history.shape[:2]:
        raise ValueError(
            f"arrived must be of shape {history.shape[:2]}. Received: arrived.shape={arrived.shape}"
        )
    last = np.maximum.accumulate(np.where(arrived, np.arange(arrived.shape[1]), -1), axis=1)
    source = np.where(last < 0, arrived.argmax(axis=1)[:, None], last)
    held = np.take_along_axis(history, source.reshape(*source.shape, 1, 1), axis=1)
    held[~arrived.any(axis=1)] = 0
    return held


def _regressed(samples, present, place):
    """A missing snapshot of `[num_snapshots, num_samples]`, or `None` where nothing tells it."""
    nearest = present[np.argsort(np.abs(present - place), kind="stable")]
    for count in range(min(_NUM_NEAREST, len(nearest)), 0, -1):
        lags = nearest[:count] - place
        # Backwards in time a Doppler shift has the other sign, as it has in the conjugate.
        ways = [(samples if step > 0 else samples.conj(), step * lags, []) for step in (1, -1)]
        for _, offsets, instants in ways:
            instants += [t for t in present if np.isin(t + offsets, present).all()]
        # As many instants as coefficients: the samples of one are alike.
        if sum(len(instants) for *_, instants in ways) >= count:
            break
    else:
        return None
    # rows: instants and samples; columns: lags
    wanted = np.concatenate([h[instants].ravel() for h, _, instants in ways])
    known = np.concatenate(
        [
            h[np.add.outer(offsets, np.array(instants, int))].reshape(count, -1).T
            for h, offsets, instants in ways
        ]
    )
    normal = known.conj().T @ known
    load = _RIDGE * np.trace(normal).real / count
    normal = normal + (load or 1.0) * np.eye(count)
    return np.linalg.solve(normal, known.conj().T @ wanted) @ samples[nearest[:count]]


def as_pairs(x: Array) -> Array:
    """Complex numbers as pairs: float32 of the shape of `x`, with a last axis of 2."""
    return np.ascontiguousarray(x, np.complex64).view(np.float32).reshape(*x.shape, 2)


def as_complex(x: ArrayLike) -> Array:
    """Pairs as complex numbers, the inverse of `as_pairs`."""
    return np.ascontiguousarray(x, np.float32).view(np.complex64)[..., 0]


def as_shape(array_shape: Sequence[int] | None) -> tuple[int, int, int] | None:
    """Rows, columns and polarisations as a tuple, which programs are kept by."""
    if array_shape is None:
        return None
    rows, cols, polarizations = array_shape
    return rows, cols, polarizations


def check_array(predictor: Any, name: str, array_shape: tuple[int, int, int]) -> None:
    """Refuses a predictor that takes the antennas of an array for those of another.

    What works antenna by antenna, or on the last channel alone, suits every array.

    Args:
        predictor: Anything that predicts; what has an `array_shape` (itself, its `model` or its
            `transform`) is made for one kind of array, a line where that is `None`.
        name: What to call it.
        array_shape: Number of rows, columns and polarisations of the array.

    Raises:
        ValueError: If it is made for another array.
    """
    predictor = getattr(predictor, "model", predictor)
    # A model leaves the shape to its transform.
    predictor = getattr(predictor, "transform", predictor)
    if not hasattr(predictor, "array_shape"):
        return
    own = predictor.array_shape
    line = (1, int(np.prod(array_shape)), 1)
    if (line if own is None else tuple(own)) != tuple(array_shape):
        raise ValueError(
            f"{name} is made for another array; expected array_shape={array_shape} (rows, columns, "
            f"polarisations). Received: array_shape={own}"
        )


def batch_shape(count: int, largest: int) -> int:
    """Size of the batches for some sequences: a power of two, so that few programs serve all.

    The least one that holds them, or `largest` where that is less.
    """
    return min(largest, 1 << max(0, count - 1).bit_length())


class CompiledPredictor(Predictor):
    """A predictor whose work is a compiled Keras model, run in batches of constant size.

    Args:
        batch_size: Sequences per call of the compiled model; the last batch is padded, so that one
            program serves all.
        num_threads: Calls of the compiled model at a time. Defaults to the number of cores. One on
            JAX, where Keras gives a model's weights away to each call until it ends.
    """

    def __init__(self, batch_size: int = 32, num_threads: int | None = None) -> None:
        require("batch_size", batch_size, batch_size >= 1, "positive")
        require("num_threads", num_threads, num_threads is None or num_threads >= 1, "positive")
        self.batch_size = int(batch_size)
        self.num_threads = num_threads
        self._models: dict[Any, keras.Model] = {}
        self._last: dict[Any, Any] = {}
        self._compiled: set[Any] = set()

    def _num_threads(self):
        if keras.backend.backend() == "jax":
            return 1
        return len(os.sched_getaffinity(0)) if self.num_threads is None else self.num_threads

    def predict(self, history: Array, num_horizons: int) -> Array:
        return self._run_compiled(self.make_model, num_horizons, as_pairs(history))

    def _run_compiled(self, make_model, num_horizons, *inputs):
        """What the model of `make_model` says of inputs `[batch, ...]`, as complex numbers."""
        # One program for each shape: TensorFlow forgets axes that differ from call to call.
        kind = (num_horizons, *(x.shape[1:] for x in inputs))
        if kind not in self._models:
            model = make_model(num_horizons)
            model.compile(jit_compile=keras.backend.backend() != "torch")
            self._models[kind] = model
        model = self._models[kind]
        if self._last.setdefault(id(model), kind) != kind:
            model.make_predict_function(force=True)
            self._compiled.clear()
            self._last[id(model)] = kind
        # A compiled program runs on one core: the cores share the sequences of a call.
        workers, count = self._num_threads(), len(inputs[0])
        size = batch_shape(-(-count // workers), self.batch_size)
        parts = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]

        def run(part):
            # The last sequence fills up the batch.
            places = np.minimum(np.arange(part.start, part.start + size), part.stop - 1)
            batch = [x[places] for x in inputs]
            batch = batch[0] if len(batch) == 1 else batch
            return np.asarray(model.predict_on_batch(batch))[: len(part), :num_horizons]

        # The first call of a shape compiles, which no two threads should do.
        futures = [] if (kind, size) in self._compiled else [run(part) for part in parts[:1]]
        self._compiled.add((kind, size))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            futures += pool.map(run, parts[len(futures) :])
        return as_complex(np.concatenate(futures))

    @abc.abstractmethod
    def make_model(self, num_horizons: int) -> keras.Model:
        """Keras model from real-stacked history to real-stacked future."""
