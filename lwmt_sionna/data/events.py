"""Path births and deaths, told from the stored paths.

A path that is born or dies between the last measured snapshot and the target cannot be foreseen
from measurements alone. Every figure is therefore given with and without such sequences.
"""

import numpy as np

_SPEED_OF_LIGHT = 299_792_458.0
# A path may be the continuation of another if its delay is where that one's Doppler shift leads, up
# to the curvature over a few metres of motion, and its departure direction is close.
_DELAY_TOLERANCE = 0.3 / _SPEED_OF_LIGHT
_ANGLE_TOLERANCE = np.deg2rad(3.0)
EVENT_THRESHOLD_DB = -20.0


def event_power(paths, last, target):
    """Power of the paths born or dead between two snapshots, relative to the channel's power.

    A path continues when the other snapshot holds one with the same interactions and objects
    (`path_key`), at the delay to which its Doppler shift leads (within 0.3 m) and in nearly the
    same direction of departure (within 3 degrees).

    Args:
        paths: `PathSequences`.
        last: Index of the last measured snapshot.
        target: Index of the snapshot to be predicted.

    Returns:
        float64 `[num_sequences]`: power of the unmatched paths of both snapshots over the larger
        of both snapshots' powers; 1 where both are empty.
    """
    power = paths.power.astype(np.float64)
    elapsed = (target - last) * paths.sampling_period
    same = paths.path_key[:, last, :, None] == paths.path_key[:, target, None, :]
    same &= paths.valid[:, last, :, None] & paths.valid[:, target, None, :]
    # The Doppler shift is -f_c times the rate of change of the delay; the mean of both ends makes
    # the forecast exact up to the third order of the motion.
    rate = -(paths.doppler[:, last, :, None] + paths.doppler[:, target, None, :]) / 2
    forecast = paths.tau[:, last, :, None] + rate / paths.carrier_frequency * elapsed
    same &= np.abs(forecast - paths.tau[:, target, None, :]) < _DELAY_TOLERANCE
    for name in ("theta_t", "phi_t"):
        angle = getattr(paths, name)
        turn = angle[:, last, :, None] - angle[:, target, None, :]
        same &= np.abs(np.angle(np.exp(1j * turn))) < _ANGLE_TOLERANCE
    dead = np.sum(power[:, last] * ~same.any(axis=2), axis=-1)
    born = np.sum(power[:, target] * ~same.any(axis=1), axis=-1)
    total = np.maximum(power[:, last].sum(-1), power[:, target].sum(-1))
    return np.where(total > 0, (dead + born) / np.where(total > 0, total, 1.0), 1.0)


def event_mask(paths, last, target, threshold_db=EVENT_THRESHOLD_DB):
    """Whether paths of notable power are born or die between two snapshots.

    Args:
        paths: `PathSequences`.
        last: Index of the last measured snapshot.
        target: Index of the snapshot to be predicted.
        threshold_db: Power of the born and dead paths, relative to the channel's, from which it
            counts as an event.

    Returns:
        bool `[num_sequences]`.
    """
    return event_power(paths, last, target) > 10.0 ** (threshold_db / 10.0)
