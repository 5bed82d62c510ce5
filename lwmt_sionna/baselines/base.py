"""The one interface of all predictors."""

import abc
import concurrent.futures
import os
from typing import Any

import keras
import numpy as np

from lwmt_sionna.typing import Array, ArrayLike

__all__ = [
    "CompiledPredictor",
    "Predictor",
    "as_complex",
    "as_pairs",
    "batch_shape",
    "check_array",
    "require",
]


class Predictor(abc.ABC):
    """Predicts the next channels from a noisy history.

    Call arguments:
        history: Noisy channels, the most recent last, complex `[batch, num_snapshots, num_ant,
            num_subcarriers]`.
        num_horizons: Number of snapshots to predict.

    Returns:
        complex64 `[batch, num_horizons, num_ant, num_subcarriers]`.

    Raises:
        ValueError: If the history has another rank, is real, or holds NaN or infinity.
    """

    name = "predictor"

    def __call__(self, history: ArrayLike, num_horizons: int) -> Array:
        history = np.asarray(history)
        if history.ndim != 4 or not np.iscomplexobj(history):
            raise ValueError(
                "The history must be complex [batch, num_snapshots, num_ant, num_subcarriers]. "
                f"Received: history.shape={history.shape}, history.dtype={history.dtype}"
            )
        require("num_horizons", num_horizons, num_horizons >= 1, "positive")
        if not np.isfinite(history).all():
            raise ValueError("The history holds NaN or infinity; expected finite values")
        if not len(history):
            return np.zeros((0, num_horizons, *history.shape[2:]), np.complex64)
        return np.asarray(self.predict(history.astype(np.complex64), num_horizons), np.complex64)

    @abc.abstractmethod
    def predict(self, history: Array, num_horizons: int) -> Array:
        """Does what the call promises, on checked input."""


def require(name: str, value: Any, good: bool, expected: str) -> None:
    """Refuses a setting that is not what is expected.

    Args:
        name: Name of the setting.
        value: What it is.
        good: Whether it is as expected.
        expected: What is expected, after "must be".

    Raises:
        ValueError: If it is not good.
    """
    if not good:
        raise ValueError(f"{name} must be {expected}. Received: {name}={value}")


def as_pairs(x: Array) -> Array:
    """Complex numbers as pairs: float32 of the shape of `x`, with a last axis of 2."""
    return np.ascontiguousarray(x, np.complex64).view(np.float32).reshape(*x.shape, 2)


def as_complex(x: ArrayLike) -> Array:
    """Pairs as complex numbers, the inverse of `as_pairs`."""
    return np.ascontiguousarray(x, np.float32).view(np.complex64)[..., 0]


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

    Args:
        count: Sequences at hand.
        largest: Largest batch.

    Returns:
        The least power of two that holds them, or `largest` where that is less.
    """
    return min(largest, 1 << max(0, count - 1).bit_length())


class CompiledPredictor(Predictor):
    """A predictor whose work is a compiled Keras model, run in batches of constant size.

    Args:
        batch_size: Sequences per call of the compiled model; the last batch is padded, so that one
            program serves all.
        num_threads: Calls of the compiled model at a time. Defaults to the number of cores.
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
        return len(os.sched_getaffinity(0)) if self.num_threads is None else self.num_threads

    def predict(self, history: Array, num_horizons: int) -> Array:
        # One program for each shape: TensorFlow forgets axes that differ from call to call.
        kind = (num_horizons, history.shape[1:])
        if kind not in self._models:
            model = self.make_model(num_horizons)
            model.compile(jit_compile=keras.backend.backend() != "torch")
            self._models[kind] = model
        model = self._models[kind]
        if self._last.setdefault(id(model), kind) != kind:
            model.make_predict_function(force=True)
            self._compiled.clear()
            self._last[id(model)] = kind
        stacked = as_pairs(history)
        # A compiled program runs on one core: the cores share the sequences of a call.
        workers = self._num_threads()
        size = batch_shape(-(-len(stacked) // workers), self.batch_size)
        parts = [stacked[begin : begin + size] for begin in range(0, len(stacked), size)]

        def run(part):
            padded = np.pad(part, [(0, size - len(part))] + [(0, 0)] * 4, mode="edge")
            return np.asarray(model.predict_on_batch(padded))[: len(part), :num_horizons]

        # The first call of a shape compiles, which no two threads should do.
        futures = [] if (kind, size) in self._compiled else [run(part) for part in parts[:1]]
        self._compiled.add((kind, size))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            futures += pool.map(run, parts[len(futures) :])
        return as_complex(np.concatenate(futures))

    @abc.abstractmethod
    def make_model(self, num_horizons: int) -> keras.Model:
        """Keras model from real-stacked history to real-stacked future."""
