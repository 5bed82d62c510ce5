"""The phase that a patch of the angle-delay plane has in common, and how fast it turns."""

from keras import ops

from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.patches import patchify, token_grid, unpatchify
from lwmt_sionna.typing import Tensor

__all__ = ["local_motion"]


def local_motion(x: Tensor, patch: tuple[int, int], visible: Tensor | None = None) -> ComplexPair:
    r"""Phase and Doppler shift of every patch over its visible snapshots.

    With $x_{t,b}$ the bins of a patch, the turn per snapshot is the angle of $\sum_t \sum_b x_{t+1,
    b} \bar x_{t, b}$ over pairs of visible snapshots (the pulse-pair estimate of the mean Doppler
    shift), and the phase is that of the strongest of the bins' means after turning back. A patch
    with one path stands still when it is turned back by both.

    Args:
        x: Angle-delay domain, real `[batch, time, angle, delay, 2]`.
        patch: Bins per patch in angle and delay.
        visible: Real `[batch, num_tokens]`, 1 where a token is visible and 0 elsewhere; all of them
            if left out. Hidden tokens have no influence. Without a pair of visible neighbours in
            time a patch is taken to stand still.

    Returns:
        `ComplexPair` of `[batch, time, angle, delay]`, of magnitude one, and without gradient: the
        motion. Its conjugate turns `x` back.
    """
    x = ops.stop_gradient(ops.cast(x, "float32"))
    num_snapshots, num_angle, num_delay = x.shape[1:4]
    grid = token_grid((num_snapshots, num_angle, num_delay), patch)
    tokens = patchify(x, patch)
    if visible is not None:
        tokens = tokens * ops.cast(visible, "float32")[..., None]
    tokens = ops.reshape(tokens, (-1, num_snapshots, grid[1] * grid[2], patch[0] * patch[1], 2))
    tokens = ComplexPair.from_stacked(tokens)
    re, im = tokens.re, tokens.im
    product_re = ops.sum(re[:, 1:] * re[:, :-1] + im[:, 1:] * im[:, :-1], axis=(1, 3))
    product_im = ops.sum(im[:, 1:] * re[:, :-1] - re[:, 1:] * im[:, :-1], axis=(1, 3))
    rate = _angle(product_re, product_im)
    time = ops.reshape(ops.arange(num_snapshots, dtype="float32"), (1, -1, 1))
    phase = rate[:, None] * time
    turn = ComplexPair(ops.cos(phase)[..., None], -ops.sin(phase)[..., None])
    still = tokens.times(turn)
    mean_re, mean_im = ops.sum(still.re, axis=1), ops.sum(still.im, axis=1)
    weight = ops.square(mean_re) + ops.square(mean_im)
    offset = _angle(ops.sum(weight * mean_re, axis=-1), ops.sum(weight * mean_im, axis=-1))
    phase = phase + offset[:, None]
    spread = ops.reshape(phase, (-1, grid[0] * grid[1] * grid[2], 1))
    spread = ops.tile(spread, (1, 1, patch[0] * patch[1]))
    phase = unpatchify(spread, (num_snapshots, num_angle, num_delay), patch)[..., 0]
    return ComplexPair(ops.cos(phase), ops.sin(phase))


def _angle(re, im):
    """Angle of complex numbers, zero for zero."""
    nothing = ops.equal(ops.abs(re) + ops.abs(im), 0.0)
    return ops.arctan2(im, ops.where(nothing, ops.ones_like(re), re))
