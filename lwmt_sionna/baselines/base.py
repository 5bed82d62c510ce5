"""The one interface of all predictors."""

import abc
import concurrent.futures
import os

import keras
import numpy as np

__all__ = ["CompiledPredictor", "Predictor", "batch_shape"]


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

    def __call__(self, history, num_horizons):
        history = np.asarray(history)
        if history.ndim != 4 or not np.iscomplexobj(history):
            raise ValueError(
                "The history must be complex [batch, num_snapshots, num_ant, num_subcarriers]. "
                f"Received: history.shape={history.shape}, history.dtype={history.dtype}"
            )
        if num_horizons < 1:
            raise ValueError(
                f"num_horizons must be positive. Received: num_horizons={num_horizons}"
            )
        if not np.isfinite(history).all():
            raise ValueError("The history holds NaN or infinity; expected finite values")
        return np.asarray(self.predict(history.astype(np.complex64), num_horizons), np.complex64)

    @abc.abstractmethod
    def predict(self, history, num_horizons):
        """Does what the call promises, on checked input."""


def batch_shape(count, largest):
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

    def __init__(self, batch_size=32, num_threads=None):
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive. Received: batch_size={batch_size}")
        self.batch_size = int(batch_size)
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads must be positive. Received: num_threads={num_threads}")
        self.num_threads = num_threads
        self._models = {}
        self._compiled = set()

    def _num_threads(self):
        return len(os.sched_getaffinity(0)) if self.num_threads is None else self.num_threads

    def predict(self, history, num_horizons):
        if num_horizons not in self._models:
            model = self.make_model(num_horizons)
            model.compile(jit_compile=keras.backend.backend() != "torch")
            self._models[num_horizons] = model
        model = self._models[num_horizons]
        stacked = np.ascontiguousarray(history).view(np.float32).reshape(*history.shape, 2)
        # A compiled program runs on one core: the cores share the sequences of a call.
        workers = self._num_threads()
        size = batch_shape(-(-len(stacked) // workers), self.batch_size)
        parts = [stacked[begin : begin + size] for begin in range(0, len(stacked), size)]

        def run(part):
            padded = np.pad(part, [(0, size - len(part))] + [(0, 0)] * 4, mode="edge")
            return np.asarray(model.predict_on_batch(padded))[: len(part), :num_horizons]

        # The first call of a shape compiles, which no two threads should do.
        shape = (num_horizons, size, *stacked.shape[1:])
        futures = [] if shape in self._compiled else [run(part) for part in parts[:1]]
        self._compiled.add(shape)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            futures += pool.map(run, parts[len(futures) :])
        if not futures:
            return np.zeros((0, num_horizons, *history.shape[2:]), np.complex64)
        future = np.ascontiguousarray(np.concatenate(futures), dtype=np.float32)
        return future.view(np.complex64)[..., 0]

    @abc.abstractmethod
    def make_model(self, num_horizons):
        """Keras model from real-stacked history to real-stacked future."""
