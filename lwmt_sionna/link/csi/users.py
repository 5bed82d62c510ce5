"""Which users a base station serves together, told from what it has measured."""

import numpy as np

from lwmt_sionna.typing import Array, Random


def admitted(history: Array, min_last_db: float) -> Array:
    """Users that are still heard: no scheduler serves one that has gone behind a house.

    Args:
        history: complex `[num_users, num_snapshots, num_antennas, num_subcarriers]`, measured.
        min_last_db: float, least power of the last snapshot relative to the mean over the history
            [dB].

    Returns:
        bool `[num_users]`.
    """
    power = np.mean(np.abs(history) ** 2, axis=(2, 3))
    return power[:, -1] >= 10 ** (min_last_db / 10) * power.mean(axis=1)


def spatial_similarity(history: Array) -> Array:
    """Similarity of the users' spatial covariance matrices.

    `tr(R_i R_j) / (|R_i| |R_j|)` with Frobenius norms: 1 for users that share all directions, 0 for
    users that share none.

    Args:
        history: complex `[num_users, num_snapshots, num_antennas, num_subcarriers]`, measured.

    Returns:
        float `[num_users, num_users]`.
    """
    # u user, t snapshot, a and b antennas, f subcarrier
    h = history.transpose(0, 2, 1, 3).reshape(len(history), history.shape[2], -1)
    covariance = h @ h.conj().transpose(0, 2, 1)
    flat = covariance.reshape(len(history), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.where(norm > 0, norm, 1)
    return np.abs(flat @ flat.conj().T)


def group_users(
    candidates: Array,
    trajectory_id: Array,
    bs_index: Array,
    similarity: Array,
    num_users: int,
    max_similarity: float,
    rng: Random,
) -> Array:
    """Groups of users for one base station each; every trajectory serves at most once.

    Greedy, in random order: a group takes the next user that is not too similar to any of its
    members. Users that no group could take are left over.

    Args:
        candidates: int `[num_candidates]`, indices of sequences.
        trajectory_id: int `[num_sequences]`.
        bs_index: int `[num_sequences]`.
        similarity: float `[num_sequences, num_sequences]`.
        num_users: int, users of a group.
        max_similarity: float, largest similarity within a group.
        rng: `numpy.random.Generator`.

    Returns:
        int `[num_groups, num_users]`, in random order.
    """
    candidates = rng.permutation(candidates)
    # Of the windows of a trajectory the first in random order.
    _, first = np.unique(trajectory_id[candidates], return_index=True)
    candidates = candidates[np.sort(first)]
    groups = []
    for station in np.unique(bs_index[candidates]):
        waiting = [user for user in candidates if bs_index[user] == station]
        while len(waiting) >= num_users:
            group = [waiting.pop(0)]
            for user in list(waiting):
                if len(group) == num_users:
                    break
                if np.all(similarity[user, group] <= max_similarity):
                    group.append(user)
                    waiting.remove(user)
            if len(group) == num_users:
                groups.append(group)
    groups = np.array(groups, int).reshape(-1, num_users)
    return groups[rng.permutation(len(groups))]
