"""Where tokens are, and how attention is told by rotations."""

import math

import numpy as np
from keras import ops

from lwmt_sionna.typing import Array, Tensor

__all__ = ["flat_rotation", "grid_rotation", "rotate", "token_coordinates"]

# Longest period of rotations by coordinates, in units of these.
_MAX_PERIOD = 128.0


def token_coordinates(
    grid: tuple[int, int, int],
    *,
    patch: tuple[int, int] = (1, 1),
    time_origin: int = 0,
    units: tuple[float, float, float] | None = None,
    sampling_period: Tensor | None = None,
    bandwidth: Tensor | None = None,
    num_angle: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of the tokens of a grid along time, angle and delay.

    Without `units`, they count snapshots and patches. With units they are physical: snapshots lie
    `sampling_period` apart, angle bins 2 over the number of antennas (the sine of the angle at a
    half-wavelength array; bins of its upper half are negative sines), delay bins one over the
    bandwidth; so that one path has one place, whatever the sampling, array and band.

    Args:
        grid: Number of snapshots, angle patches and delay patches.
        patch: Bins per patch in angle and delay.
        time_origin: Index of the snapshot that counts as time 0.
        units: What counts as 1: seconds between snapshots, sine of the angle, seconds of delay.
        sampling_period: Time between snapshots in seconds, a number or a tensor `[batch]`.
        bandwidth: Bandwidth in hertz that the subcarriers span, a number or a tensor `[batch]`.
        num_angle: Number of angle bins. Defaults to that of the patches.

    Returns:
        Three coordinates, float64 `[size]` each, or tensors `[batch, size]` where the period or the
        bandwidth is a tensor.

    Raises:
        ValueError: If units are given without a period or a bandwidth, or the other way round.
    """
    indices = [np.arange(size, dtype=np.float64) for size in grid]
    indices[0] -= time_origin
    if units is None:
        if sampling_period is not None or bandwidth is not None:
            raise ValueError(
                "`sampling_period` and `bandwidth` move tokens only where positions are physical: "
                "give the model `position_units`. Received: "
                f"sampling_period={sampling_period}, bandwidth={bandwidth}"
            )
        return tuple(indices)
    if sampling_period is None or bandwidth is None:
        raise ValueError(
            "Physical positions need `sampling_period` (seconds) and `bandwidth` (hertz), or "
            "beside channels, `subcarrier_spacing`. Received: "
            f"sampling_period={sampling_period}, bandwidth={bandwidth}"
        )
    num_angle = grid[1] * patch[0] if num_angle is None else num_angle
    angle = indices[1] * patch[0]
    angle = np.where(2 * angle >= num_angle, angle - num_angle, angle)
    return (
        _scaled(indices[0] / units[0], sampling_period, "sampling_period"),
        angle * (2.0 / num_angle / units[1]),
        _scaled(indices[2] * (patch[1] / units[2]), bandwidth, "bandwidth", inverse=True),
    )


def flat_rotation(
    grid: tuple[int, int, int],
    head_dim: int,
    *,
    base: float = 10_000.0,
    class_token: bool = False,
) -> Array:
    r"""Rotations of queries and keys by the flat index of their token, as published.

    Pair $i$ of the token with flat index $n$ is turned by $n \, \text{base}^{-i / (d / 2)}$, where
    $d$ is the size of a head, even. Float64 `[num_tokens, head_dim / 2, 2]`, (cosine, sine) last;
    see `rotate`.
    """
    half = _half(head_dim)
    index = np.arange(math.prod(grid) + int(class_token))
    phase = index[:, None] * base ** (-np.arange(half) / half)
    return np.stack([np.cos(phase), np.sin(phase)], axis=-1)


def grid_rotation(
    coordinates: tuple[Tensor, Tensor, Tensor],
    num_heads: int,
    head_dim: int,
    *,
    class_token: bool = False,
) -> Tensor:
    """Rotations of queries and keys by the time, angle and delay of their token.

    The pairs of all heads take the axes in turn, and per axis frequencies from one radian per unit
    down to one turn per 128, spaced geometrically: scores see differences of coordinates
    alone, so any grid will do. A class token is not turned.

    Args:
        coordinates: What `token_coordinates` returns.
        num_heads: Number of heads.
        head_dim: Size of a head, even.
        class_token: Whether a class token follows the last token.

    Returns:
        `[num_heads, num_tokens, head_dim / 2, 2]`, (cosine, sine) last, with a leading batch axis
        where a coordinate has one; see `rotate`.
    """
    half = _half(head_dim)
    pairs = np.arange(num_heads * half)
    rounds = max(-(-len(pairs) // 3) - 1, 1)
    frequency = (2 * math.pi / _MAX_PERIOD) ** ((pairs // 3) / rounds)
    static = all(isinstance(coordinate, np.ndarray) for coordinate in coordinates)
    lib, leading = (np, ()) if static else (ops, (-1,))
    total = 0.0
    for axis, coordinate in enumerate(coordinates):
        shape = [1, 1, 1, 1]
        shape[axis] = coordinate.shape[-1]
        own = frequency * (pairs % 3 == axis)
        if not static:
            coordinate = ops.convert_to_tensor(coordinate, dtype="float32")
            own = ops.convert_to_tensor(own.astype("float32"))
        total = total + lib.reshape(coordinate, (*leading, *shape)) * own
    num_tokens = math.prod(coordinate.shape[-1] for coordinate in coordinates)
    phase = lib.reshape(total, (*leading, num_tokens, num_heads, half))
    phase = lib.swapaxes(phase, -3, -2)
    if class_token:
        phase = lib.pad(phase, [(0, 0)] * (len(phase.shape) - 2) + [(0, 1), (0, 0)])
    return lib.stack([lib.cos(phase), lib.sin(phase)], axis=-1)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns the interleaved pairs of queries or keys `[batch, num_heads, num_tokens, head_dim]`.

    `rotation` holds (cosine, sine) of every pair, broadcast against `[batch, num_heads, num_tokens,
    head_dim / 2, 2]`.
    """
    pairs = ops.reshape(x, (-1, *x.shape[1:3], x.shape[3] // 2, 2))
    rotation = ops.cast(rotation, x.dtype)
    cosine, sine = rotation[..., 0], rotation[..., 1]
    first, second = pairs[..., 0], pairs[..., 1]
    turned = ops.stack(
        [first * cosine - second * sine, first * sine + second * cosine],
        axis=-1,
    )
    return ops.reshape(turned, (-1, *x.shape[1:]))


def _half(head_dim):
    if head_dim % 2:
        raise ValueError(f"Rotary positions need an even `head_dim`. Received: head_dim={head_dim}")
    return head_dim // 2


def _scaled(index, factor, name, inverse=False):
    """`index` times (or over) a positive number or a tensor `[batch]`."""
    if isinstance(factor, (int, float, np.number)):
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(f"`{name}` must be positive. Received: {name}={factor}")
        return index / factor if inverse else index * factor
    factor = ops.reshape(ops.convert_to_tensor(factor), (-1, 1))
    index = ops.convert_to_tensor(index.astype("float32"), dtype=factor.dtype)
    return index / factor if inverse else index * factor
