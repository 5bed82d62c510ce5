"""Births and deaths of paths that a solver makes and the geometry does not."""

import numpy as np

from lwmt_sionna.data.continuity import match_paths, snapshot_paths

__all__ = ["unexplained_events"]

# Two solves give the delay of one path up to the rounding of float32 and of its mirrors: 3 mm.
_SAME_DELAY = 1e-11


def unexplained_events(paths, reference, threshold_db=-40.0):
    """Snapshots in which a path appears or disappears though the reference has it before and after.

    The reference knows, for every snapshot, the paths that geometry allows among all candidates
    that were ever found along the track. A path of it that lives on from one snapshot to the next,
    but that the judged sequences have in one of the two only, was born or died by the solver.

    Args:
        paths: `PathSequences` to judge.
        reference: `PathSequences` of the same users at the same places.
        threshold_db: Power of a path, relative to that of the channel, from which it counts.

    Returns:
        bool `[num_sequences, num_snapshots - 1]`: whether the step to the next snapshot has one.

    Raises:
        ValueError: If the two are not of the same users and snapshots.
    """
    if paths.position.shape != reference.position.shape or not np.allclose(
        paths.position, reference.position, atol=1e-3
    ):
        raise ValueError(
            "paths and reference must hold the same users at the same places. Received: "
            f"position.shape={paths.position.shape} and {reference.position.shape}"
        )
    found = _found(paths, reference)
    power = reference.power.astype(np.float64)
    total = power.sum(axis=-1, keepdims=True)
    notable = power > total * 10.0 ** (threshold_db / 10.0)
    result = np.zeros((paths.num_sequences, paths.num_snapshots - 1), dtype=bool)
    for snapshot in range(paths.num_snapshots - 1):
        pair = match_paths(
            snapshot_paths(reference, snapshot),
            snapshot_paths(reference, snapshot + 1),
            reference.sampling_period,
            reference.carrier_frequency,
        )
        lives_on = pair >= 0
        place = np.where(lives_on, pair, 0)
        later = np.take_along_axis(found[:, snapshot + 1], place, axis=1)
        odd = lives_on & notable[:, snapshot] & (found[:, snapshot] != later)
        result[:, snapshot] = odd.any(axis=1)
    return result


def _found(paths, reference):
    """Which of the reference's paths the other sequences have in the same snapshot."""
    found = np.zeros(reference.valid.shape, dtype=bool)
    for sequence in range(paths.num_sequences):
        one, other = paths.select([sequence]), reference.select([sequence])
        same = np.abs(one.tau[0, :, :, None] - other.tau[0, :, None, :]) < _SAME_DELAY
        same &= one.path_key[0, :, :, None] == other.path_key[0, :, None, :]
        same &= one.valid[0, :, :, None] & other.valid[0, :, None, :]
        found[sequence] = same.any(axis=1)
    return found
