"""Which path of one snapshot continues which path of another."""

import numpy as np

SPEED_OF_LIGHT = 299_792_458.0
# A path may be the continuation of another if its delay is where that one's Doppler shift leads, up
# to the curvature over a few metres of motion, and its departure direction is close.
DELAY_TOLERANCE = 0.3 / SPEED_OF_LIGHT
ANGLE_TOLERANCE = np.deg2rad(3.0)
_FIELDS = ("path_key", "valid", "tau", "doppler", "theta_t", "phi_t")


def snapshot_paths(paths, snapshot):
    """What tells paths apart, at one snapshot.

    Args:
        paths: `PathSequences`.
        snapshot: Index of the snapshot.

    Returns:
        Dictionary of arrays `[num_sequences, num_paths]`, for `may_continue`.
    """
    return {name: getattr(paths, name)[:, snapshot] for name in _FIELDS}


def may_continue(before, after, elapsed, carrier_frequency, delay_tolerance=DELAY_TOLERANCE):
    """Whether a later path can be the continuation of an earlier one.

    It can when it has the same interactions and objects (`path_key`), the delay to which the
    Doppler shifts lead (within `delay_tolerance`), and nearly the same direction of departure
    (within 3 degrees). The Doppler shift is -f_c times the rate of change of the delay; the mean of
    both ends makes the forecast exact up to the third order of the motion.

    Args:
        before: Dictionary of arrays of the earlier snapshot, each `[num_sequences, num_before]`;
            see `snapshot_paths`.
        after: The same of the later snapshot, `[num_sequences, num_after]`.
        elapsed: Time between them in seconds, float or float `[num_sequences]`.
        carrier_frequency: Hertz.
        delay_tolerance: Seconds.

    Returns:
        bool `[num_sequences, num_before, num_after]`.
    """
    return np.isfinite(_cost(before, after, elapsed, carrier_frequency, delay_tolerance))


def match_paths(before, after, elapsed, carrier_frequency, delay_tolerance=DELAY_TOLERANCE):
    """Pairs each path with the one that continues it: mutual best in delay.

    Args:
        before: As in `may_continue`.
        after: As in `may_continue`.
        elapsed: As in `may_continue`.
        carrier_frequency: Hertz.
        delay_tolerance: Seconds.

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


def _cost(before, after, elapsed, carrier_frequency, delay_tolerance):
    """Mismatch of the delays in seconds, infinite for paths that are not the same."""
    # Few pairs have the same interactions: everything else is computed for those alone.
    row, first, second = np.nonzero(
        (before["path_key"][:, :, None] == after["path_key"][:, None, :])
        & before["valid"][:, :, None]
        & after["valid"][:, None, :]
    )
    early = {name: before[name][row, first] for name in ("tau", "doppler", "theta_t", "phi_t")}
    late = {name: after[name][row, second] for name in ("tau", "doppler", "theta_t", "phi_t")}
    elapsed = np.broadcast_to(elapsed, len(before["valid"]))[row]
    shift = (early["doppler"].astype(np.float64) + late["doppler"]) / 2
    mismatch = np.abs(early["tau"] - shift / carrier_frequency * elapsed - late["tau"])
    same = mismatch < delay_tolerance
    for name in ("theta_t", "phi_t"):
        turn = early[name] - late[name]
        same &= np.abs((turn + np.pi) % (2 * np.pi) - np.pi) < ANGLE_TOLERANCE
    cost = np.full((*before["valid"].shape, after["valid"].shape[1]), np.inf)
    cost[row[same], first[same], second[same]] = mismatch[same]
    return cost
