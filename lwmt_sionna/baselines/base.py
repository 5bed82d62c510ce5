"""The one interface of all predictors."""

import abc

import keras
import numpy as np

__all__ = ["CompiledPredictor", "Predictor"]


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


class CompiledPredictor(Predictor):
    """A predictor whose work is a compiled Keras model, run in batches of constant size.

    Args:
        batch_size: Sequences per call of the compiled model; the last batch is padded, so that one
            program serves all.
    """

    def __init__(self, batch_size=32):
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive. Received: batch_size={batch_size}")
        self.batch_size = int(batch_size)
        self._models = {}

    def predict(self, history, num_horizons):
        if num_horizons not in self._models:
            model = self.make_model(num_horizons)
            model.compile(jit_compile=keras.backend.backend() != "torch")
            self._models[num_horizons] = model
        model = self._models[num_horizons]
        stacked = np.ascontiguousarray(history).view(np.float32).reshape(*history.shape, 2)
        size = min(self.batch_size, max(1, len(stacked)))
        futures = []
        for begin in range(0, len(stacked), size):
            part = stacked[begin : begin + size]
            padded = np.pad(part, [(0, size - len(part))] + [(0, 0)] * 4, mode="edge")
            futures.append(np.asarray(model.predict_on_batch(padded))[: len(part), :num_horizons])
        if not futures:
            return np.zeros((0, num_horizons, *history.shape[2:]), np.complex64)
        future = np.ascontiguousarray(np.concatenate(futures), dtype=np.float32)
        return future.view(np.complex64)[..., 0]

    @abc.abstractmethod
    def make_model(self, num_horizons):
        """Keras model from real-stacked history to real-stacked future."""
