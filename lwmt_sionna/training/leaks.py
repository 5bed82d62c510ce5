"""Checks that nothing of the future reaches what a model is given."""

import numpy as np

__all__ = ["check_history"]


def check_history(make_history, h, num_history, seed=0):
    """Refuses a way of making histories that depends on the future.

    The futures are replaced by others, of another scale too; the histories must stay as they are,
    bit for bit. A frame of the future in the history and a scale taken over the whole sequence
    both show.

    Args:
        make_history: Callable from true channels, complex `[batch, time, num_ant,
            num_subcarriers]`, to what the model is given of the past, an array; equal channels must
            give equal arrays.
        h: True channels.
        num_history: Number of snapshots that are past.
        seed: Seed of the other futures.

    Raises:
        ValueError: If the history changes with the future, or from call to call.
    """
    rng = np.random.default_rng(seed)
    other = np.array(h)
    noise = rng.standard_normal((*other[:, num_history:].shape, 2)).view(np.complex128)[..., 0]
    other[:, num_history:] = 3.0 * noise * (1e-6 + np.abs(h).max())
    first, again, changed = (np.asarray(make_history(x)) for x in (h, h, other))
    if not np.array_equal(first, again, equal_nan=True):
        raise ValueError("The histories of equal channels differ: the draw is not reproducible")
    if first.shape != changed.shape or not np.array_equal(first, changed, equal_nan=True):
        raise ValueError(
            "The future leaks into the history: other futures give other histories. Received: "
            f"num_history={num_history}, h.shape={np.shape(h)}"
        )
