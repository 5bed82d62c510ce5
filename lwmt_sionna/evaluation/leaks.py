"""Checks that an evaluation is one: nothing of the future, nothing of the training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lwmt_sionna.data import ChannelSequences, PathSequences, check_disjoint, track_distance
from lwmt_sionna.typing import Array


def check_causal(measure: Callable[[Array], Any], h: Array, num_history: int) -> None:
    """Refuses a preparation of histories that knows anything of the future.

    The preparation runs twice, on sequences that differ after the history only. Whatever it makes
    of them must agree to the last bit: a future snapshot among the history, or a scale taken from
    the whole sequence, does not.

    Args:
        measure: Callable from true channels, complex `[batch, num_snapshots, num_ant,
            num_subcarriers]`, to histories (an array, or a tuple of them); as deterministic as a
            seed makes it.
        h: True channels, complex `[batch, num_snapshots, num_ant, num_subcarriers]`.
        num_history: Snapshots of history.

    Raises:
        ValueError: If the outcomes differ, or differ from call to call.
    """
    other = h.copy()
    # Neither the power nor the shape of what comes stays.
    other[:, num_history:] = 3.0 * other[::-1, :num_history][:, -1:].conj() + 1.0
    before, again, after = (
        value if isinstance(value, tuple) else (value,)
        for value in (measure(h), measure(h), measure(other))
    )
    if not all(np.array_equal(one, two) for one, two in zip(before, again, strict=True)):
        raise ValueError("The histories of equal channels differ: the draw is not reproducible")
    for place, (one, two) in enumerate(zip(before, after, strict=True)):
        if not np.array_equal(one, two):
            changed = np.flatnonzero(np.any(np.asarray(one != two), axis=tuple(range(1, one.ndim))))
            raise ValueError(
                "The history depends on the future. Received: output "
                f"{place} of measure changed in sequences {changed[:10].tolist()}"
            )


def check_held_out(
    training: Sequence[PathSequences | ChannelSequences],
    evaluation: PathSequences | ChannelSequences,
) -> float:
    """Refuses an evaluation on what was trained on, and measures how far it is.

    Returns:
        Distance in metres from the nearest evaluated track to the nearest training track; infinite
        where no scene is shared, and for channels, which know no places.

    Raises:
        ValueError: If a trajectory serves both: see `lwmt_sionna.data.check_disjoint`.
    """
    nearest = np.inf
    for paths in training:
        check_disjoint(paths, evaluation)
        nearest = min(nearest, float(track_distance(paths, evaluation).min()))
    return nearest


def shuffled_histories(history: Array, seed: int = 0) -> Array:
    """A control: the snapshots of every history in random order, the same for all.

    What a predictor loses is what it takes from the order of time. Hold and the like lose nothing
    that they had. Complex `[batch, num_snapshots, num_ant, num_subcarriers]`, as the result; the
    order that the seed draws is never the true one.
    """
    rng = np.random.default_rng(seed)
    order = np.arange(history.shape[1])
    while len(order) > 1 and np.array_equal(order, np.sort(order)):
        order = rng.permutation(order)
    return history[:, order]


def other_histories(history: Array) -> Array:
    """A control: every sequence is predicted from the history of the next one.

    Nothing can be won: an error below that of predicting zero shows a leak of the targets. Complex
    `[batch, num_snapshots, num_ant, num_subcarriers]`, as the result; at least two sequences.
    """
    if len(history) < 2:
        raise ValueError(f"Expected at least two sequences. Received: {len(history)}")
    return np.roll(history, 1, axis=0)
