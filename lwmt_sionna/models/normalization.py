"""Scale and phase: taken out of a history before the network, and put back after it."""

from keras import ops

from lwmt_sionna.ops.complex import ComplexPair

__all__ = ["common_phasor", "turn", "unit_power"]


def unit_power(x):
    """Scales every sequence to a mean power of one per complex number.

    Args:
        x: Real `[batch, time, num_ant, num_subcarriers, 2]`.

    Returns:
        Tuple of the scaled sequences, float32, and their scale `[batch, 1, 1, 1, 1]` of the type of
        `x`; sequences of zeros stay as they are and have the scale zero.
    """
    axes = (1, 2, 3, 4)
    # The peak first: squares of weak channels leave the range of float32.
    peak = ops.max(ops.abs(x), axis=axes, keepdims=True)
    unit = ops.cast(x / ops.where(peak > 0, peak, ops.ones_like(peak)), "float32")
    rms = ops.sqrt(2.0 * ops.mean(ops.square(unit), axis=axes, keepdims=True))
    return unit / ops.where(rms > 0, rms, ops.ones_like(rms)), peak * ops.cast(rms, x.dtype)


def common_phasor(x):
    r"""The phase that most of the power of a snapshot has.

    That of $\sum_b |x_b|^2 x_b$: a common phase of all bins turns it by as much, so that networks
    can work on snapshots turned back by it and need not know that all phases are alike.

    Args:
        x: Real `[batch, 1, angle, delay, 2]`.

    Returns:
        `ComplexPair` of `[batch, 1, 1, 1]`, of magnitude one.
    """
    weighted = x * ops.sum(ops.square(x), axis=-1, keepdims=True)
    total = ops.sum(weighted, axis=(1, 2, 3), keepdims=True)
    magnitude = ops.sqrt(ops.sum(ops.square(total), axis=-1))
    total = ComplexPair.from_stacked(total)
    present = magnitude > 0
    magnitude = ops.where(present, magnitude, ops.ones_like(magnitude))
    return ComplexPair(
        ops.where(present, total.re / magnitude, ops.ones_like(magnitude)), total.im / magnitude
    )


def turn(x, phasor):
    """Product of real `[batch, time, angle, delay, 2]` with a `ComplexPair`."""
    return ComplexPair.from_stacked(x).times(phasor).stacked()
