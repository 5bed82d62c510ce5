"""Angle-delay patches and tokens."""

from keras import ops

from lwmt_sionna.ops.complex import is_complex
from lwmt_sionna.typing import Tensor

__all__ = ["patchify", "token_grid", "unpatchify"]


def token_grid(shape: tuple[int, int, int], patch: tuple[int, int]) -> tuple[int, int, int]:
    """Number of snapshots, patches in angle and patches in delay.

    Args:
        shape: Number of snapshots, angle bins and delay bins.
        patch: Bins per patch in angle and delay. Patches that hang over the edge count.

    Returns:
        Three integers.
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
    """Inverse of `patchify`.

    Args:
        tokens: `[batch, tokens, patch[0] * patch[1] * channels]`.
        shape: Number of snapshots, angle bins and delay bins.
        patch: Bins per patch in angle and delay.

    Returns:
        `[batch, time, angle, delay, channels]`, without what hangs over the edge.
    """
    grid = token_grid(shape, patch)
    channels = tokens.shape[-1] // (patch[0] * patch[1])
    x = ops.reshape(tokens, (-1, *grid, patch[0], patch[1] * channels))
    x = ops.transpose(x, (0, 1, 2, 4, 3, 5))
    x = ops.reshape(x, (-1, grid[0], grid[1] * patch[0], grid[2] * patch[1], channels))
    return x[:, :, : shape[1], : shape[2]]
