"""Predictors that the model is held against, all behind one call: history in, future out."""

from lwmt_sionna.baselines.autoregression import (
    DenoisedAutoregression,
    LocalAutoregression,
    PooledAutoregression,
)
from lwmt_sionna.baselines.base import Predictor
from lwmt_sionna.baselines.hold import Hold, ZeroPredictor
from lwmt_sionna.baselines.model import ModelPredictor

__all__ = [
    "DenoisedAutoregression",
    "Hold",
    "LocalAutoregression",
    "ModelPredictor",
    "PooledAutoregression",
    "Predictor",
    "ZeroPredictor",
]
