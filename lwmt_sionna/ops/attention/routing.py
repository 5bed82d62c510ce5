"""Routing: which of its neighbours a token spends its attention on."""

import dataclasses
import math
from typing import Any

from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = [
    "LOWEST",
    "EnergyRouting",
    "TopKRouting",
    "get_routing",
    "keep_top_k",
    "narrow",
    "select_bins",
    "widen",
]

# The score of what a query does not see. Finite, so that a row that is masked in one place and
# rescued in another never turns to NaN, and far enough below any score that its exponential is
# exactly zero. A power of two is the same number in every precision.
LOWEST = -(2.0**100)


@dataclasses.dataclass(frozen=True)
class TopKRouting:
    r"""Each token and head keeps its highest scores and drops the others before the softmax.

    Of `num_candidates` neighbours, `min(max_keys, max(min_keys, floor(fraction * num_candidates)))`
    are kept, as in the published LWM-Temporal. Where several neighbours tie for the last places,
    each of them gets its share of these: of $k$ places, $a$ go to higher scores, and the $n$ scores
    that tie get $\log((k - a) / n)$ added. Hidden tokens are the same vector in the first block of
    the published masking, and which of them are kept then does not matter, but how many does.

    Args:
        fraction: Kept fraction of the candidates.
        min_keys: Fewest kept keys.
        max_keys: Most kept keys.
    """

    fraction: float = 0.2
    min_keys: int = 8
    max_keys: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1]. Received: fraction={self.fraction}")
        if not 1 <= self.min_keys <= self.max_keys:
            raise ValueError(
                "`min_keys` must be at least 1 and at most `max_keys`. "
                f"Received: min_keys={self.min_keys}, max_keys={self.max_keys}"
            )

    def num_keys(self, num_candidates: int) -> int:
        """Number of keys kept of a neighbour table of width `num_candidates`."""
        wanted = max(self.min_keys, int(self.fraction * num_candidates))
        return min(self.max_keys, wanted, num_candidates)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-serialisable values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TopKRouting":
        """Routing from the output of `get_config`."""
        return cls(**config)


@dataclasses.dataclass(frozen=True)
class EnergyRouting:
    """Attention works on the angles and delays that carry the energy of a sample, and on no others.

    Of each sample, the `num_angle` angle bins and the `num_delay` delay bins with the highest
    energy over all snapshots are kept. Attention runs on the smaller grid that they span, in their
    order: a token attends to the nearest *kept* bins. Tokens outside receive zero, so that in a
    residual block they pass unchanged but for the bias of the projection. The choice is made before
    any score is computed and holds for all snapshots, those to be predicted included.

    Args:
        num_angle: Angle bins kept.
        num_delay: Delay bins kept.
    """

    num_angle: int = 16
    num_delay: int = 16

    def __post_init__(self) -> None:
        if min(self.num_angle, self.num_delay) < 1:
            raise ValueError(
                "`num_angle` and `num_delay` must be positive. "
                f"Received: num_angle={self.num_angle}, num_delay={self.num_delay}"
            )

    def reduced_grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        """The grid that attention works on."""
        return (grid[0], min(self.num_angle, grid[1]), min(self.num_delay, grid[2]))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-serialisable values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EnergyRouting":
        """Routing from the output of `get_config`."""
        return cls(**config)


def get_routing(
    routing: "TopKRouting | EnergyRouting | str | dict | None",
) -> TopKRouting | EnergyRouting | None:
    """Routing from an object, its name (`"topk"`, `"energy"`), its configuration or None."""
    if routing is None or isinstance(routing, (TopKRouting, EnergyRouting)):
        return routing
    if routing == "topk":
        return TopKRouting()
    if routing == "energy":
        return EnergyRouting()
    if isinstance(routing, dict):
        kind = EnergyRouting if "num_angle" in routing else TopKRouting
        return kind.from_config(routing)
    raise ValueError(
        "`routing` must be None, 'topk', 'energy', a `TopKRouting`, an `EnergyRouting` or the "
        f"config of one. Received: routing={routing!r}"
    )


def select_bins(
    energy: Tensor, grid: tuple[int, int, int], routing: EnergyRouting, dtype: str
) -> tuple[Tensor, Tensor]:
    """One-hot rows of the angle and delay bins with the highest energy, which carry no gradient.

    `energy` is `[batch, num_tokens]`, not negative. Returns `[batch, kept, num_angle]` and `[batch,
    kept, num_delay]`, in ascending order of the bin.
    """
    energy = ops.reshape(ops.stop_gradient(energy), (-1, *grid))
    _, *kept = routing.reduced_grid(grid)
    matrices = []
    # Over snapshots, and over the delays of each angle or the angles of each delay.
    for others, count in zip(((1, 3), (1, 2)), kept, strict=True):
        marginal = ops.sum(energy, axis=others)
        bins = ops.sort(ops.top_k(marginal, count, sorted=False)[1], axis=-1)
        matrices.append(ops.one_hot(bins, marginal.shape[-1], dtype=dtype))
    return tuple(matrices)


def narrow(tokens: Tensor, bins: tuple[Tensor, Tensor], grid: tuple[int, int, int]) -> Tensor:
    """Tokens `[batch, num_heads, num_kept, channels]` of the bins that `select_bins` chose.

    Products with one-hot rows move tokens exactly, and their gradients are such products. A class
    token at the end stays.
    """
    angles, delays = bins
    num_tokens, (heads, channels) = math.prod(grid), (tokens.shape[1], tokens.shape[3])
    planes = ops.reshape(tokens[:, :, :num_tokens], (-1, heads, *grid, channels))
    planes = ops.einsum("bhtadc,bxa->bhtxdc", planes, angles)
    planes = ops.einsum("bhtxdc,byd->bhtxyc", planes, delays)
    kept = grid[0] * angles.shape[1] * delays.shape[1]
    planes = ops.reshape(planes, (-1, heads, kept, channels))
    return ops.concatenate([planes, tokens[:, :, num_tokens:]], axis=2)


def widen(tokens: Tensor, bins: tuple[Tensor, Tensor], grid: tuple[int, int, int]) -> Tensor:
    """Tokens back in their places, zeros elsewhere: the transpose of `narrow`."""
    angles, delays = bins
    reduced = (grid[0], angles.shape[1], delays.shape[1])
    kept, (heads, channels) = math.prod(reduced), (tokens.shape[1], tokens.shape[3])
    planes = ops.reshape(tokens[:, :, :kept], (-1, heads, *reduced, channels))
    planes = ops.einsum("bhtxyc,byd->bhtxdc", planes, delays)
    planes = ops.einsum("bhtxdc,bxa->bhtadc", planes, angles)
    planes = ops.reshape(planes, (-1, heads, math.prod(grid), channels))
    return ops.concatenate([planes, tokens[:, :, kept:]], axis=2)


def keep_top_k(scores: Tensor, num_keys: int) -> Tensor:
    """Leaves the `num_keys` highest scores of the last axis, and `LOWEST` elsewhere.

    The choice carries no gradient. Scores that tie for the last places share them: see
    `TopKRouting`.
    """
    if num_keys >= scores.shape[-1]:
        return scores
    fixed = ops.stop_gradient(scores)
    lowest_kept = ops.top_k(fixed, num_keys, sorted=True)[0][..., -1:]
    above, tied = fixed > lowest_kept, ops.equal(fixed, lowest_kept)
    num_above, num_tied = (
        ops.sum(ops.cast(found, scores.dtype), axis=-1, keepdims=True) for found in (above, tied)
    )
    shared = scores + ops.log((num_keys - num_above) / num_tied)
    return ops.where(above, scores, ops.where(tied, shared, ops.cast(LOWEST, scores.dtype)))
