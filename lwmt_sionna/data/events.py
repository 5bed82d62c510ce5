"""Path births and deaths, told from the stored paths.

A path that is born or dies between the last measured snapshot and the target cannot be foreseen
from measurements alone. Every figure is therefore given with and without such sequences.
"""

import numpy as np

from lwmt_sionna.data.continuity import may_continue, snapshot_paths

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
    same = may_continue(
        snapshot_paths(paths, last),
        snapshot_paths(paths, target),
        elapsed,
        paths.carrier_frequency,
    )
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
