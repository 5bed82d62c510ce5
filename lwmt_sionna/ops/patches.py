"""Angle-delay patches: tokens, and the phase and Doppler shift that a patch has in common."""

from keras import ops

from lwmt_sionna.ops.complex import ComplexPair, is_complex, phasor
from lwmt_sionna.typing import Tensor

__all__ = ["local_motion", "patchify", "token_grid", "unpatchify"]


def token_grid(shape: tuple[int, int, int], patch: tuple[int, int]) -> tuple[int, int, int]:
    """Number of snapshots, patches in angle and in delay; those that hang over the edge count.

    `shape` holds snapshots, angle bins and delay bins, `patch` bins in angle and delay.
    """
    num_snapshots, num_angle, num_delay = shape
    return (num_snapshots, -(-num_angle // patch[0]), -(-num_delay // patch[1]))


def patchify(x: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cuts every snapshot into patches.

    Args:
        x: `[batch, time, angle, delay, channels]`.
        patch: Bins per patch in angle and delay. Where patches do not tile the bins, those that
            hang over the edge are filled with zeros.

    Returns:
        `[batch, tokens, patch[0] * patch[1] * channels]`: tokens time-major, then angle, then
        delay; a patch is flattened angle-row, delay-column, channel last.

    Raises:
        ValueError: If `x` is anything else.
    """
    if len(x.shape) != 5 or is_complex(x):
        raise ValueError(
            "Expected real [batch, time, angle, delay, channels] in the angle-delay domain. "
            f"Received: x.shape={tuple(x.shape)}, x.dtype={x.dtype}"
        )
    num_snapshots, num_angle, num_delay, channels = x.shape[1:]
    grid = token_grid((num_snapshots, num_angle, num_delay), patch)
    missing = (grid[1] * patch[0] - num_angle, grid[2] * patch[1] - num_delay)
    if any(missing):
        x = ops.pad(x, [[0, 0], [0, 0], [0, missing[0]], [0, missing[1]], [0, 0]])
    x = ops.reshape(x, (-1, num_snapshots, grid[1], patch[0], grid[2], patch[1] * channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5))
    return ops.reshape(x, (-1, grid[0] * grid[1] * grid[2], patch[0] * patch[1] * channels))


def unpatchify(tokens: Tensor, shape: tuple[int, int, int], patch: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`: `[batch, time, angle, delay, channels]`, without overhanging bins.

    `shape` holds the number of snapshots, angle bins and delay bins.
    """
    grid = token_grid(shape, patch)
    channels = tokens.shape[-1] // (patch[0] * patch[1])
    x = ops.reshape(tokens, (-1, *grid, patch[0], patch[1] * channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5))
    x = ops.reshape(x, (-1, grid[0], grid[1] * patch[0], grid[2] * patch[1], channels))
    return x[:, :, : shape[1], : shape[2]]


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
    still = tokens.times(phasor(-phase).map(lambda z: z[..., None]))
    mean_re, mean_im = ops.sum(still.re, axis=1), ops.sum(still.im, axis=1)
    weight = ops.square(mean_re) + ops.square(mean_im)
    offset = _angle(ops.sum(weight * mean_re, axis=-1), ops.sum(weight * mean_im, axis=-1))
    phase = phase + offset[:, None]
    spread = ops.reshape(phase, (-1, grid[0] * grid[1] * grid[2], 1))
    spread = ops.tile(spread, (1, 1, patch[0] * patch[1]))
    phase = unpatchify(spread, (num_snapshots, num_angle, num_delay), patch)[..., 0]
    return phasor(phase)


def _angle(re, im):
    """Angle of complex numbers, zero for zero."""
    nothing = ops.equal(ops.abs(re) + ops.abs(im), 0.0)
    return ops.arctan2(im, ops.where(nothing, ops.ones_like(re), re))
