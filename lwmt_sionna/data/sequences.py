"""Noisy histories and their scale."""

import numpy as np


def add_noise(h, snr_db, rng):
    """Adds white noise, as an uplink estimate would have it.

    Args:
        h: True history, complex `[batch, time, antenna, subcarrier]`.
        snr_db: Pilot signal-to-noise ratio in decibels, float or float `[batch]`, relative to the
            mean power of each sequence's history.
        rng: `numpy.random.Generator`.

    Returns:
        complex64, shape as `h`.
    """
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True)
    snr = 10.0 ** (np.reshape(np.asarray(snr_db, dtype=np.float64), (-1, 1, 1, 1)) / 10.0)
    deviation = np.sqrt(power / snr / 2.0).astype(np.float32)
    noise = rng.standard_normal((*h.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return (h + deviation * noise).astype(np.complex64)


def history_scale(history):
    """Root mean square of each noisy history; nothing of the future enters.

    Args:
        history: complex `[batch, time, antenna, subcarrier]`.

    Returns:
        float32 `[batch, 1, 1, 1]`, 1 where a history is all zero.
    """
    rms = np.sqrt(np.mean(np.abs(history) ** 2, axis=(1, 2, 3), keepdims=True, dtype=np.float64))
    return np.where(rms > 0, rms, 1.0).astype(np.float32)


def vanishing_mask(paths):
    """Sequences whose channel vanishes (has no path) in at least one snapshot.

    Args:
        paths: `PathSequences`.

    Returns:
        bool `[num_sequences]`.
    """
    return (~paths.valid.any(axis=-1)).any(axis=-1)
