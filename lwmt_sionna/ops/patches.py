"""Angle-delay patches and tokens."""

from keras import ops

__all__ = ["patchify", "token_grid", "unpatchify"]


def token_grid(shape, patch):
    """Number of snapshots, patches in angle and patches in delay.

    Args:
        shape: Number of snapshots, angle bins and delay bins.
        patch: Bins per patch in angle and delay.

    Returns:
        Three integers.

    Raises:
        ValueError: If the patches do not tile the bins.
    """
    num_snapshots, num_angle, num_delay = shape
    if num_angle % patch[0] or num_delay % patch[1]:
        raise ValueError(
            "Patches must tile the angle and delay bins. Received: "
            f"patch={tuple(patch)}, num_angle={num_angle}, num_delay={num_delay}"
        )
    return (num_snapshots, num_angle // patch[0], num_delay // patch[1])


def patchify(x, patch):
    """Cuts every snapshot into patches.

    Args:
        x: `[batch, time, angle, delay, channels]`.
        patch: Bins per patch in angle and delay.

    Returns:
        `[batch, tokens, patch[0] * patch[1] * channels]`: tokens time-major, then angle, then
        delay; a patch is flattened angle-row, delay-column, channel last.
    """
    num_snapshots, num_angle, num_delay, channels = x.shape[1:]
    grid = token_grid((num_snapshots, num_angle, num_delay), patch)
    x = ops.reshape(x, (-1, num_snapshots, grid[1], patch[0], grid[2], patch[1] * channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5))
    return ops.reshape(x, (-1, grid[0] * grid[1] * grid[2], patch[0] * patch[1] * channels))


def unpatchify(tokens, grid, patch):
    """Inverse of `patchify`.

    Args:
        tokens: `[batch, tokens, patch[0] * patch[1] * channels]`.
        grid: Number of snapshots, patches in angle and patches in delay.
        patch: Bins per patch in angle and delay.

    Returns:
        `[batch, time, angle, delay, channels]`.
    """
    channels = tokens.shape[-1] // (patch[0] * patch[1])
    x = ops.reshape(tokens, (-1, *grid, patch[0], patch[1] * channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5))
    return ops.reshape(x, (-1, grid[0], grid[1] * patch[0], grid[2] * patch[1], channels))
