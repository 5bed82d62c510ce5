"""Splits that keep trajectories apart."""

from typing import TypeVar

import numpy as np

from lwmt_sionna.data.channels import ChannelSequences
from lwmt_sionna.data.paths import PathSequences
from lwmt_sionna.typing import Array

Sequences = TypeVar("Sequences", bound=PathSequences | ChannelSequences)


def split_by_trajectory(
    paths: Sequences, validation_share: float, seed: int
) -> tuple[Sequences, Sequences]:
    """Splits the sequences of a scene by trajectory, never by frame.

    Args:
        paths: `PathSequences` or `ChannelSequences`.
        validation_share: Share of the trajectories that is held out, in (0, 1).
        seed: Seed of the draw.

    Returns:
        Tuple `(training, validation)` of the same kind.

    Raises:
        ValueError: If the share cannot be, or there is one trajectory alone.
    """
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share must lie in (0, 1). Received: validation_share={validation_share}"
        )
    trajectories = np.unique(paths.trajectory_id)
    if len(trajectories) < 2:
        raise ValueError(
            "A split needs two trajectories at least. Received: "
            f"scene={paths.scene}, num_sequences={paths.num_sequences}"
        )
    order = np.random.default_rng(seed).permutation(trajectories)
    held_out = order[: max(1, round(validation_share * len(order)))]
    is_held_out = np.isin(paths.trajectory_id, held_out)
    training, validation = paths.select(~is_held_out), paths.select(is_held_out)
    check_disjoint(training, validation)
    return training, validation  # type: ignore[return-value]


def take_trajectories(paths: Sequences, share: float, seed: int) -> Sequences:
    """Keeps the sequences of a share of the trajectories.

    Smaller shares are part of larger ones with the same seed.

    Args:
        paths: `PathSequences` or `ChannelSequences`.
        share: Share of the trajectories to keep, in (0, 1]; at least one is kept.
        seed: Seed of the draw.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1]. Received: share={share}")
    order = np.random.default_rng(seed).permutation(np.unique(paths.trajectory_id))
    kept = order[: max(1, round(share * len(order)))]
    return paths.select(np.isin(paths.trajectory_id, kept))  # type: ignore[return-value]


def check_disjoint(
    training: PathSequences | ChannelSequences, evaluation: PathSequences | ChannelSequences
) -> None:
    """Refuses a split in which a trajectory serves both sides.

    Paths of a scene are told by their trajectories. Channels know none: they are told by their
    first snapshots.

    Raises:
        ValueError: If both are from the same scene and share a trajectory, or share channels.
    """
    kinds = {type(training), type(evaluation)}
    if isinstance(training, ChannelSequences) and isinstance(evaluation, ChannelSequences):
        known = {h.tobytes() for h in training.h[:, 0]}
        shared = evaluation.sequence_id[[h.tobytes() in known for h in evaluation.h[:, 0]]]
    elif len(kinds) > 1 or training.scene != evaluation.scene:
        return
    else:
        shared = np.intersect1d(training.trajectory_id, evaluation.trajectory_id)
    if shared.size:
        raise ValueError(
            "Training and evaluation share trajectories. Received: "
            f"scene={training.scene}, trajectory_id={shared[:10].tolist()}"
        )


def track_distance(
    training: PathSequences | ChannelSequences, evaluation: PathSequences | ChannelSequences
) -> Array:
    """Distance from each evaluated trajectory to the nearest training trajectory.

    float64 `[evaluation.num_sequences]`, metres between the nearest of the start, middle and end
    points; infinite for another scene, and for channels, which know no places.
    """
    known = isinstance(training, PathSequences) and isinstance(evaluation, PathSequences)
    if not known or training.scene != evaluation.scene:
        return np.full(evaluation.num_sequences, np.inf)
    train, test = _anchors(training), _anchors(evaluation)
    nearest = np.empty(len(test))
    for index, anchors in enumerate(test):
        offsets = train.reshape(-1, 3)[:, None] - anchors[None]
        nearest[index] = np.sqrt((offsets**2).sum(-1).min())
    return nearest


def _anchors(paths):
    middle = paths.num_snapshots // 2
    return paths.position[:, [0, middle, -1]].astype(np.float64)
