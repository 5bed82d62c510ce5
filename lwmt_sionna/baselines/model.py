"""Trained models behind the interface of the baselines."""

import keras

from lwmt_sionna.baselines.base import CompiledPredictor
from lwmt_sionna.models import ChannelPredictor
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.typing import PathLike

__all__ = ["ModelPredictor"]


class ModelPredictor(CompiledPredictor):
    """A `ChannelPredictor`, a neural baseline, or any Keras model with the same call.

    Args:
        model: Name or folder of a preset, or a Keras model that maps real `[batch, time, num_ant,
            num_subcarriers, 2]` to as many horizons as it predicts.
        name: Name in tables.
        batch_size: Sequences per call.
        num_threads: See `CompiledPredictor`.
    """

    def __init__(
        self,
        model: keras.Model | PathLike,
        name: str = "model",
        batch_size: int = 32,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_threads)
        self.name = name
        self.model = model if isinstance(model, keras.Model) else _load(model)

    def make_model(self, num_horizons: int) -> keras.Model:
        trained = getattr(self.model, "num_horizons", None)
        if trained is not None and num_horizons > trained:
            raise ValueError(
                f"The model predicts {trained} snapshots. Received: num_horizons={num_horizons}"
            )
        return self.model


def _load(preset):
    """A channel predictor or one of its contestants; anything else is refused."""
    model = load_preset(preset)
    return model if hasattr(model, "num_horizons") else ChannelPredictor.from_preset(preset)
