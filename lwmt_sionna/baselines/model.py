"""Trained models behind the interface of all predictors.

Apart from it, so that kept results of predictors without training outlive changes of the models.
"""

import keras

from lwmt_sionna.baselines.base import CompiledPredictor, as_pairs, told_arrived
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.typing import Array, PathLike


class ModelPredictor(CompiledPredictor):
    """A `ChannelPredictor`, a neural baseline, or any Keras model with the same call.

    A model whose call has a keyword `arrived` is told of lost reports and fills them itself.

    Args:
        model: Name or folder of a preset, or a Keras model that maps real `[batch, time, num_ant,
            num_subcarriers, 2]` to as many horizons as it predicts.
        name: Name in tables.
        batch_size: Sequences per call.
        num_threads: See `CompiledPredictor`.
        array_shape: Rows, columns and polarisations of the array, for presets: see
            `ChannelPredictor.from_preset`.
    """

    def __init__(
        self,
        model: keras.Model | PathLike,
        name: str = "model",
        batch_size: int = 32,
        num_threads: int | None = None,
        array_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(batch_size, num_threads)
        self.name = name
        if isinstance(model, keras.Model) and array_shape is not None:
            raise ValueError(
                "`array_shape` is for presets: a model has its own. Received: "
                f"model={model.name}, array_shape={array_shape}"
            )
        self.model = model if isinstance(model, keras.Model) else _load(model, array_shape)

    def make_model(self, num_horizons: int) -> keras.Model:
        trained = getattr(self.model, "num_horizons", None)
        if trained is not None and num_horizons > trained:
            raise ValueError(
                f"The model predicts {trained} snapshots. Received: num_horizons={num_horizons}"
            )
        return self.model

    def predict_incomplete(self, history: Array, num_horizons: int, arrived: Array) -> Array:
        if not told_arrived(self.model.call, arrived):
            return super().predict_incomplete(history, num_horizons, arrived)
        return self._run_compiled(self._make_told, num_horizons, as_pairs(history), arrived)

    def _make_told(self, num_horizons):
        return _Told(self.make_model(num_horizons))


class _Told(keras.Model):
    """A model of one input, which takes what arrived as a second one."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="told")
        self.model = model

    def call(self, inputs):
        history, arrived = inputs
        return self.model(history, arrived=arrived)


def _load(preset, array_shape):
    """A channel predictor or one of its contestants; anything else is refused."""
    model = load_preset(preset, array_shape=array_shape)
    return model if hasattr(model, "num_horizons") else ChannelPredictor.from_preset(preset)
