"""Predictors that assume nothing."""

import numpy as np

from lwmt_sionna.baselines.base import Predictor

__all__ = ["Hold", "ZeroPredictor"]


class Hold(Predictor):
    """Repeats the last measured channel: what a base station without a predictor does."""

    name = "hold"

    def predict(self, history, num_horizons):
        return np.repeat(history[:, -1:], num_horizons, axis=1)


class ZeroPredictor(Predictor):
    """Predicts nothing: a normalised error of 0 dB by definition."""

    name = "zero"

    def predict(self, history, num_horizons):
        shape = (history.shape[0], num_horizons, *history.shape[2:])
        return np.zeros(shape, np.complex64)
