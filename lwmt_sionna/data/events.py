"""Which path of one snapshot continues which of another, and what follows: births and deaths.

A path that is born or dies between the last measured snapshot and the target cannot be foreseen
from measurements alone. Every figure is therefore given with and without such sequences.
"""

import numpy as np

from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences
from lwmt_sionna.typing import Array, ArrayLike

# A path may be the continuation of another if its delay is where that one's Doppler shift leads, up
# to the curvature over a few metres of motion, and its departure direction is close.
_DELAY_TOLERANCE = 0.3 / SPEED_OF_LIGHT
_ANGLE_TOLERANCE = np.deg2rad(3.0)
_EVENT_THRESHOLD_DB = -20.0
# Two solves give the delay of one path up to the rounding of float32 and of its mirrors: 3 mm.
_SAME_DELAY = 1e-11
_FIELDS = ("path_key", "valid", "tau", "doppler", "theta_t", "phi_t")


def snapshot_paths(paths: PathSequences, snapshot: int) -> dict[str, Array]:
    """What tells paths apart at a snapshot, `[num_sequences, num_paths]`: see `may_continue`."""
    return {name: getattr(paths, name)[:, snapshot] for name in _FIELDS}


def may_continue(
    before: dict[str, Array],
    after: dict[str, Array],
    elapsed: ArrayLike,
    carrier_frequency: float,
) -> Array:
    """Whether a later path can be the continuation of an earlier one.

    It can when it has the same interactions and objects (`path_key`), the delay to which the
    Doppler shifts lead (within 0.3 m), and nearly the same direction of departure (within 3
    degrees). The Doppler shift is -f_c times the rate of change of the delay; the mean of both ends
    makes the forecast exact up to the third order of the motion.

    Args:
        before: Dictionary of arrays of the earlier snapshot, each `[num_sequences, num_before]`;
            see `snapshot_paths`.
        after: The same of the later snapshot, `[num_sequences, num_after]`.
        elapsed: Time between them in seconds, float or float `[num_sequences]`.
        carrier_frequency: Hertz.

    Returns:
        bool `[num_sequences, num_before, num_after]`.
    """
    return np.isfinite(_cost(before, after, elapsed, carrier_frequency, _DELAY_TOLERANCE))


def match_paths(
    before: dict[str, Array],
    after: dict[str, Array],
    elapsed: ArrayLike,
    carrier_frequency: float,
    delay_tolerance: float = _DELAY_TOLERANCE,
) -> Array:
    """Pairs each path with the one that continues it: mutual best in delay.

    Args:
        before: Dictionary of arrays of the earlier snapshot, each `[num_sequences, num_before]`,
            as `may_continue` takes them.
        after: The same of the later snapshot, `[num_sequences, num_after]`.
        elapsed: Time between them in seconds, float or float `[num_sequences]`.
        carrier_frequency: Hertz.
        delay_tolerance: Largest difference from the foreseen delay in seconds.

    Returns:
        Integer `[num_sequences, num_before]`: index of the later path that continues each earlier
        one, -1 where none does. No later path is named twice.
    """
    cost = _cost(before, after, elapsed, carrier_frequency, delay_tolerance)
    if not cost.size:
        return np.full(cost.shape[:2], -1)
    onward = cost.argmin(axis=2)
    backward = cost.argmin(axis=1)
    found = np.take_along_axis(backward, onward, 1) == np.arange(cost.shape[1])
    found &= np.isfinite(np.take_along_axis(cost, onward[..., None], 2)[..., 0])
    return np.where(found, onward, -1)


def event_power(paths: PathSequences, last: int, target: int) -> Array:
    """Power of the paths born or dead between two snapshots, relative to the channel's power.

    A path continues when the other snapshot holds one that `may_continue` it.

    Args:
        last: Index of the last measured snapshot.
        target: Index of the snapshot to be predicted.

    Returns:
        float64 `[num_sequences]`: power of the unmatched paths of both snapshots over the larger
        of both snapshots' powers; 1 where both are empty.
    """
    power = paths.power.astype(np.float64)
    elapsed = (target - last) * paths.sampling_period
    before, after = (snapshot_paths(paths, snapshot) for snapshot in (last, target))
    same = may_continue(before, after, elapsed, paths.carrier_frequency)
    dead = np.sum(power[:, last] * ~same.any(axis=2), axis=-1)
    born = np.sum(power[:, target] * ~same.any(axis=1), axis=-1)
    total = np.maximum(power[:, last].sum(-1), power[:, target].sum(-1))
    return np.where(total > 0, (dead + born) / np.where(total > 0, total, 1.0), 1.0)


def event_mask(
    paths: PathSequences, last: int, target: int, threshold_db: float = _EVENT_THRESHOLD_DB
) -> Array:
    """Whether paths of notable power are born or die between two snapshots.

    Args:
        last: Index of the last measured snapshot.
        target: Index of the snapshot to be predicted.
        threshold_db: Power of the born and dead paths, relative to the channel's, from which it
            counts as an event.

    Returns:
        bool `[num_sequences]`.
    """
    return event_power(paths, last, target) > 10.0 ** (threshold_db / 10.0)


def unexplained_events(
    paths: PathSequences, reference: PathSequences, threshold_db: float = -40.0
) -> Array:
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
    step, carrier = reference.sampling_period, reference.carrier_frequency
    for snapshot in range(paths.num_snapshots - 1):
        before, after = (snapshot_paths(reference, snapshot + end) for end in (0, 1))
        pair = match_paths(before, after, step, carrier)
        lives_on = pair >= 0
        place = np.where(lives_on, pair, 0)
        later = np.take_along_axis(found[:, snapshot + 1], place, axis=1)
        odd = lives_on & notable[:, snapshot] & (found[:, snapshot] != later)
        result[:, snapshot] = odd.any(axis=1)
    return result


def _cost(before, after, elapsed, carrier_frequency, delay_tolerance):
    """Mismatch of the delays in seconds, infinite for paths that are not the same."""
    # Few pairs have the same interactions: everything else is computed for those alone.
    row, first, second = np.nonzero(
        (before["path_key"][:, :, None] == after["path_key"][:, None, :])
        & before["valid"][:, :, None]
        & after["valid"][:, None, :]
    )
    early = {name: before[name][row, first] for name in _FIELDS[2:]}
    late = {name: after[name][row, second] for name in _FIELDS[2:]}
    elapsed = np.broadcast_to(elapsed, len(before["valid"]))[row]
    shift = (early["doppler"].astype(np.float64) + late["doppler"]) / 2
    mismatch = np.abs(early["tau"] - shift / carrier_frequency * elapsed - late["tau"])
    same = mismatch < delay_tolerance
    for name in ("theta_t", "phi_t"):
        turn = early[name] - late[name]
        same &= np.abs((turn + np.pi) % (2 * np.pi) - np.pi) < _ANGLE_TOLERANCE
    cost = np.full((*before["valid"].shape, after["valid"].shape[1]), np.inf)
    cost[row[same], first[same], second[same]] = mismatch[same]
    return cost


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
