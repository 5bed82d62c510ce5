"""What no predictor can beat: the channel itself."""

import numpy as np

from lwmt_sionna.baselines.base import Predictor

__all__ = ["PerfectCsi"]


class PerfectCsi(Predictor):
    """Knows the future of the sequences it was given: a ceiling for rates and block errors.

    Args:
        future: True channels, complex `[batch, num_horizons, num_ant, num_subcarriers]`, of the
            sequences whose histories it will be called with, in the same order.
        snr_db: Pilot SNR in decibels at which the future is measured, relative to the mean power of
            each channel: noisy perfect CSI. The channel itself if `None`.
        seed: Seed of that noise.
    """

    name = "perfect"

    def __init__(self, future, snr_db=None, seed=0):
        future = np.asarray(future)
        if future.ndim != 4 or not np.iscomplexobj(future):
            raise ValueError(
                "The future must be complex [batch, num_horizons, num_ant, num_subcarriers]. "
                f"Received: future.shape={future.shape}, future.dtype={future.dtype}"
            )
        if snr_db is not None:
            self.name = "noisy_perfect"
            rng = np.random.default_rng(seed)
            power = np.mean(np.abs(future) ** 2, axis=(2, 3), keepdims=True)
            noise = rng.standard_normal((*future.shape, 2)).view(np.complex128)[..., 0]
            future = future + noise * np.sqrt(power / 2 * 10 ** (-snr_db / 10))
        self.future = future.astype(np.complex64)

    def predict(self, history, num_horizons):
        expected = (len(history), *history.shape[2:])
        known = (len(self.future), *self.future.shape[2:])
        if expected != known or num_horizons > self.future.shape[1]:
            raise ValueError(
                "The known future is of other sequences or too short. Received: "
                f"history.shape={history.shape}, num_horizons={num_horizons}, "
                f"future.shape={self.future.shape}"
            )
        return self.future[:, :num_horizons]
