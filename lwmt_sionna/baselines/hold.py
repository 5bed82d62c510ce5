"""Predictors that repeat the last channel, or nothing."""

import numpy as np

from lwmt_sionna.baselines.base import Predictor

__all__ = ["Hold", "PhaseAlignedHold", "ZeroPredictor"]


class Hold(Predictor):
    """Repeats the last measured channel: what a base station without a predictor does."""

    name = "hold"

    def predict(self, history, num_horizons):
        return np.repeat(history[:, -1:], num_horizons, axis=1)


class PhaseAlignedHold(Predictor):
    r"""Repeats the last channel, turned and scaled by what its own past shows for that age.

    One complex factor per sequence and horizon, $c_h = \langle x_{t-h}, x_t \rangle /
    \|x_{t-h}\|^2$
    over the history: the linear estimate from one snapshot, whose normalised error is
    $1 - |\rho_h|^2$ with the channel's correlation $\rho_h$ at that lag. A common rotation, as a
    line of sight or an oscillator gives, costs it nothing.
    """

    name = "aligned_hold"

    def predict(self, history, num_horizons):
        num_snapshots = history.shape[1]
        if num_snapshots <= num_horizons:
            raise ValueError(
                "The history must be longer than the horizon. Received: "
                f"num_snapshots={num_snapshots}, num_horizons={num_horizons}"
            )
        x = history.reshape(len(history), num_snapshots, -1).astype(np.complex128)
        futures = []
        for horizon in range(1, num_horizons + 1):
            past, now = x[:, :-horizon], x[:, horizon:]
            product = np.sum(past.conj() * now, axis=(1, 2))
            power = np.sum(np.abs(past) ** 2, axis=(1, 2))
            factor = product / np.where(power > 0, power, 1.0)
            futures.append(factor[:, None, None] * history[:, -1])
        return np.stack(futures, axis=1)


class ZeroPredictor(Predictor):
    """Predicts nothing: a normalised error of 0 dB by definition."""

    name = "zero"

    def predict(self, history, num_horizons):
        shape = (history.shape[0], num_horizons, *history.shape[2:])
        return np.zeros(shape, np.complex64)
