"""What predictors are measured by: nothing, the last channel, and the channel itself."""

import numpy as np

from lwmt_sionna.baselines.base import Predictor
from lwmt_sionna.typing import Array, ArrayLike


class ZeroPredictor(Predictor):
    """Predicts nothing: a normalised error of 0 dB by definition."""

    name = "zero"

    def predict(self, history: Array, num_horizons: int) -> Array:
        shape = (history.shape[0], num_horizons, *history.shape[2:])
        return np.zeros(shape, np.complex64)


class Hold(Predictor):
    """Repeats the last measured channel: what a base station without a predictor does."""

    name = "hold"

    def predict(self, history: Array, num_horizons: int) -> Array:
        return np.repeat(history[:, -1:], num_horizons, axis=1)

    def predict_incomplete(self, history: Array, num_horizons: int, arrived: Array) -> Array:
        """The last report that arrived, which stands for those lost since: nothing is filled."""
        return self.predict(history, num_horizons)


class PhaseAlignedHold(Predictor):
    r"""Repeats the last channel, turned and scaled by what its own past shows for that age.

    One complex factor per sequence and horizon, $c_h = \langle x_{t-h}, x_t \rangle /
    \|x_{t-h}\|^2$
    over the history: the linear estimate from one snapshot, whose normalised error is
    $1 - |\rho_h|^2$ with the channel's correlation $\rho_h$ at that lag. A common rotation, as a
    line of sight or an oscillator gives, costs it nothing.
    """

    name = "aligned_hold"

    def predict(self, history: Array, num_horizons: int) -> Array:
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


class PerfectCsi(Predictor):
    """Knows the future of the sequences it was given: a ceiling for rates and block errors.

    Args:
        future: True channels, complex `[batch, num_horizons, num_ant, num_subcarriers]`, of the
            sequences whose histories it will be called with, in the same order.
        history_snr_db: Pilot SNR in decibels at which the future is measured, relative to the mean
            power of each channel: noisy perfect CSI. The channel itself if `None`.
        seed: Seed of that noise.
    """

    name = "perfect"

    def __init__(
        self, future: ArrayLike, history_snr_db: float | None = None, seed: int = 0
    ) -> None:
        future = np.asarray(future)
        if future.ndim != 4 or not np.iscomplexobj(future):
            raise ValueError(
                "The future must be complex [batch, num_horizons, num_ant, num_subcarriers]. "
                f"Received: future.shape={future.shape}, future.dtype={future.dtype}"
            )
        if history_snr_db is not None:
            self.name = "noisy_perfect"
            rng = np.random.default_rng(seed)
            power = np.mean(np.abs(future) ** 2, axis=(2, 3), keepdims=True)
            noise = rng.standard_normal((*future.shape, 2)).view(np.complex128)[..., 0]
            future = future + noise * np.sqrt(power / 2 * 10 ** (-history_snr_db / 10))
        self.future = future.astype(np.complex64)

    def predict(self, history: Array, num_horizons: int) -> Array:
        expected = (len(history), *history.shape[2:])
        known = (len(self.future), *self.future.shape[2:])
        if expected != known or num_horizons > self.future.shape[1]:
            raise ValueError(
                "The known future is of other sequences or too short. Received: "
                f"history.shape={history.shape}, num_horizons={num_horizons}, "
                f"future.shape={self.future.shape}"
            )
        return self.future[:, :num_horizons]
