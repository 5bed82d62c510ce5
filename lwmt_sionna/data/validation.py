"""Whether stored sequences are what they claim: units, numbers, phases, labels."""

import numpy as np

from lwmt_sionna.data.arrays import unit_vectors
from lwmt_sionna.data.events import match_paths, snapshot_paths
from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences
from lwmt_sionna.typing import Array

_CHUNK = 64
_EPS = float(np.finfo(np.float32).eps)
# Share of the power whose phase must follow the delay; what reflection itself turns stays below.
_COHERENCE = 0.9
# Longer than any path of a city: 300 km.
_LONGEST_DELAY = 1e-3


def validate(paths: PathSequences) -> list[str]:
    """Checks what sequences say of themselves against each other.

    Numbers are finite and in range; time stamps follow the sampling period; velocities and speeds
    follow the positions; a path in line of sight has the delay and direction of the geometry;
    Doppler shifts follow the delays, and phases too, from snapshot to snapshot; no sequence is
    stored twice.

    Returns:
        List of problems, each a sentence that names the first sequence concerned.
    """
    # Later checks compute with what the first one looks at.
    problems = check_values(paths)
    if problems:
        return problems
    for check in (_ranges, _labels, _motion, _line_of_sight, _phases):
        problems += check(paths)
    return problems


def check_values(paths: PathSequences) -> list[str]:
    """Checks what no sequences may hold, wherever they come from; `read_paths` does it.

    Numbers are finite, delays neither negative nor beyond a millisecond, and no
    trajectory stands twice for the same base station and time.

    Returns:
        List of problems, each a sentence that names the field and the first sequence concerned.
    """
    problems = []
    for name, value in paths.arrays.items():
        if value.dtype.kind in "fc" and name != "seam_error" and not np.isfinite(value).all():
            problems.append(f"{name} is not finite in {_first(~np.isfinite(value))}.")
    for name in ("bs_position", "bs_orientation"):
        if not np.isfinite(getattr(paths, name)).all():
            problems.append(f"{name} is not finite.")
    possible = ~paths.valid | ((paths.tau >= 0) & (paths.tau <= _LONGEST_DELAY))
    if not possible.all():
        problems.append(
            f"tau must lie between 0 and {_LONGEST_DELAY:g} s; it does not in {_first(~possible)}."
        )
    start = paths.time[:, 0] if paths.num_snapshots else np.zeros(paths.num_sequences)
    identity = np.column_stack([paths.trajectory_id, paths.bs_index, start])
    _, counts = np.unique(identity, axis=0, return_counts=True)
    if (counts > 1).any():
        problems.append(
            f"trajectory_id: {int((counts > 1).sum())} trajectories are stored more than once for "
            "the same base station and time."
        )
    return problems


def _first(mask: Array) -> str:
    """Names the first sequence that a mask `[num_sequences, ...]` marks, and how many it does."""
    marked = mask.reshape(len(mask), -1).any(axis=1)
    return f"sequence {int(np.argmax(marked))} (of {int(marked.sum())} such)"


def _ranges(paths):
    problems = []

    def require(name, good, expected):
        if not good.all():
            problems.append(f"{name} must be {expected}; it is not in {_first(~good)}.")

    valid, idle = paths.valid, ~paths.valid
    power = np.sum(np.abs(paths.a) ** 2, axis=(-2, -1))
    require("tau", idle | (paths.tau > 0), "positive where a path is valid")
    require("a", idle | (power > 0), "non-zero where a path is valid")
    require("a", valid | (power == 0), "zero where no path is valid")
    for name, low, high in (
        ("theta_t", 0.0, np.pi),
        ("theta_r", 0.0, np.pi),
        ("phi_t", -np.pi, np.pi),
        ("phi_r", -np.pi, np.pi),
    ):
        value = getattr(paths, name)
        inside = (value >= low - 1e-5) & (value <= high + 1e-5)
        require(name, idle | inside, f"between {low:.4g} and {high:.4g} rad")
    return problems


def _labels(paths):
    problems = []
    step = np.diff(paths.time, axis=1)
    wrong = np.abs(step - paths.sampling_period) > 1e-6 * paths.sampling_period + 1e-9
    if wrong.any():
        problems.append(f"time does not follow the sampling period in {_first(wrong)}.")
    if paths.interactions is not None:
        direct = (paths.interactions == 0) != (paths.path_key == 0)
        if (direct & paths.valid).any():
            problems.append(
                "interactions and path_key disagree on what is in line of sight in "
                f"{_first(direct & paths.valid)}."
            )
    if paths.seam_error is not None:
        seam = ~np.isnan(paths.seam_error)
        wrong = seam & ((paths.seam_error < 0) | ~paths.traced)
        if wrong.any():
            problems.append(
                f"seam_error must be a ratio and stand at traced snapshots; it is wrong in "
                f"{_first(wrong)}."
            )
    return problems


def _motion(paths):
    if paths.num_snapshots < 2:
        return []
    position = paths.position.astype(np.float64)
    # Positions are float32: their rounding over one period is what a velocity can be off by.
    rounding = 4 * _EPS * np.abs(position).max(initial=1.0) / paths.sampling_period
    step = np.linalg.norm(np.diff(position, axis=1), axis=-1) / paths.sampling_period
    order = 2 if paths.num_snapshots > 2 else 1
    derived = np.gradient(position, paths.sampling_period, axis=1, edge_order=order)
    problems = []
    allowed = 0.05 * step.max(axis=1, initial=0.0)[:, None] + rounding
    wrong = np.linalg.norm(derived - paths.velocity, axis=-1) > 2 * allowed
    if wrong.any():
        problems.append(f"velocity does not follow the positions in {_first(wrong)}.")
    wrong = np.abs(step.mean(axis=1) - paths.speed)[:, None] > allowed
    if wrong.any():
        problems.append(f"speed does not follow the positions in {_first(wrong)}.")
    return problems


def _line_of_sight(paths):
    direct = paths.valid & (paths.path_key == 0)
    if not direct.any():
        return []
    offset = paths.position - paths.bs_position[paths.bs_index][:, None]
    distance = np.linalg.norm(offset, axis=-1)
    problems = []
    late = paths.tau * SPEED_OF_LIGHT - distance[..., None]
    wrong = direct & (np.abs(late) > 0.02 + 1e-5 * distance[..., None])
    if wrong.any():
        problems.append(f"tau in line of sight is not the distance in {_first(wrong)}.")
    towards = unit_vectors(paths.theta_t, paths.phi_t)
    # One centimetre of position, and the rounding of the angles.
    miss = np.linalg.norm(towards * distance[..., None, None] - offset[:, :, None], axis=-1)
    wrong = direct & (miss > 0.02 + 1e-5 * distance[..., None])
    if wrong.any():
        problems.append(f"theta_t, phi_t in line of sight miss the user in {_first(wrong)}.")
    return problems


def _phases(paths):
    """Doppler shifts and phases against the change of the delays, over consecutive snapshots."""
    shift_off, shift_size, weights = [], [], []
    turned = total = 0.0
    carrier, period = paths.carrier_frequency, paths.sampling_period
    for begin in range(0, paths.num_sequences, _CHUNK):
        part = paths.select(slice(begin, begin + _CHUNK))
        for snapshot in range(part.num_snapshots - 1):
            before, after = snapshot_paths(part, snapshot), snapshot_paths(part, snapshot + 1)
            pair = match_paths(before, after, period, carrier)
            rows, columns = np.nonzero(pair >= 0)
            if not rows.size:
                continue
            onward = pair[rows, columns]
            delay = part.tau[rows, snapshot + 1, onward].astype(np.float64)
            delay -= part.tau[rows, snapshot, columns]
            shift = part.doppler[rows, snapshot, columns].astype(np.float64)
            shift = (shift + part.doppler[rows, snapshot + 1, onward]) / 2
            gain = part.a[rows, snapshot, columns].astype(np.complex128)
            turn = part.a[rows, snapshot + 1, onward] * np.conj(gain)
            turn *= np.exp(2j * np.pi * carrier * delay)[:, None, None]
            # float32 delays are rounded to this many hertz.
            rounding = 2 * _EPS * part.tau[rows, snapshot, columns] * carrier / period
            shift_off.append(np.abs(delay / period * carrier + shift) - rounding)
            shift_size.append(np.abs(shift))
            weight = np.abs(turn).sum(axis=(1, 2))
            weights.append(weight)
            turned += turn.sum()
            total += weight.sum()
    if not total > 0:
        return []
    problems = []
    weights = np.concatenate(weights)
    off = _weighted_median(np.concatenate(shift_off), weights)
    size = _weighted_median(np.concatenate(shift_size), weights)
    if off > 0.1 * size + 0.2:
        problems.append(
            f"doppler is off what the delays say by {off:.3g} Hz (median over paths, weighted by "
            f"power) where shifts are {size:.3g} Hz."
        )
    if abs(turned) / total < _COHERENCE:
        problems.append(
            f"The phases of a do not follow the delays: coherence {abs(turned) / total:.2f}; "
            f"expected at least {_COHERENCE}."
        )
    return problems


def _weighted_median(value, weight):
    order = np.argsort(value)
    cumulative = np.cumsum(weight[order])
    return float(value[order[np.searchsorted(cumulative, cumulative[-1] / 2)]])
