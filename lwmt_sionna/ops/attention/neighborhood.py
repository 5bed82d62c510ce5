"""Neighbourhoods of the angle-delay-time grid: which tokens a token may attend to."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from lwmt_sionna.typing import Array

__all__ = ["Neighborhood", "RandomNeighborhood", "check_grid", "get_neighborhood"]

_CACHED_TABLES = 16


@dataclasses.dataclass(frozen=True)
class Neighborhood:
    r"""The tokens that a token of an angle-delay-time grid may attend to.

    A propagation path is a small blob in the angle-delay plane that stays put or drifts slowly. A
    token at snapshot $t$, angle bin $a$, delay bin $d$ therefore attends to

    - its own snapshot: the bins within `window` of $(a, d)$, itself included;
    - each snapshot $t + \Delta$ with $\Delta$ in `time_offsets`: the bins within a corridor around
      $(a, d)$ that widens with the time distance, of half-width
      $\min(\text{corridor}, \text{leakage} + \mathrm{round}(|\Delta| \cdot \text{drift}))$.

    Snapshots outside the sequence are left out. The object does not depend on the grid: the same
    neighbourhood serves any number of snapshots, angles and delays.

    Args:
        window: Half-widths (angle, delay) in bins in the own snapshot. A value below 0 means the
            whole axis, so `(-1, -1)` is the whole snapshot. One integer stands for both axes.
        time_offsets: Snapshot offsets, without 0 and without repetition.
        corridor: Largest half-widths (angle, delay) in bins in other snapshots.
        drift: Bins per snapshot (angle, delay) by which the corridor widens.
        leakage: Bins (angle, delay) of the corridor that do not depend on the time distance: the
            leakage of the transform.
        causal: Whether offsets above 0 are dropped.
        dilation: Keeps only the offsets (angle, delay) within the window that are multiples of it.
        corridor_dilation: The same for the corridor in other snapshots. Defaults to `dilation`.
        edge: What happens to the bins of *other* snapshots that lie outside of the grid: `"clamp"`
            moves them to the edge and counts repeated bins once, `"drop"` leaves them out. Both
            are the same without dilation. Those of the own snapshot are always left out.
        class_token: Whether a class token follows the last token. It attends to all tokens but
            itself, and all tokens attend to it.

    Example:

    >>> neighborhood = Neighborhood.published()
    >>> indices, mask = neighborhood.table((20, 32, 32))
    >>> indices.shape
    (20480, 168)

    Reference:
        [LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel Representation
        Learning](https://arxiv.org/abs/2603.10024)
    """

    window: tuple[int, int] = (2, 2)
    time_offsets: tuple[int, ...] = (-4, -3, -2, -1, 1, 2, 3)
    corridor: tuple[int, int] = (2, 2)
    drift: tuple[float, float] = (1.0, 1.0)
    leakage: tuple[int, int] = (0, 0)
    causal: bool = False
    dilation: tuple[int, int] = (1, 1)
    corridor_dilation: tuple[int, int] | None = None
    edge: str = "clamp"
    class_token: bool = False

    def __post_init__(self) -> None:
        if self.corridor_dilation is None:
            object.__setattr__(self, "corridor_dilation", self.dilation)
        for name, lowest in (
            ("window", None),
            ("corridor", 0),
            ("leakage", 0),
            ("dilation", 1),
            ("corridor_dilation", 1),
        ):
            pair = _pair(name, getattr(self, name), int)
            if lowest is not None and min(pair) < lowest:
                raise ValueError(f"`{name}` must be at least {lowest}. Received: {name}={pair}")
            if name == "window":
                pair = tuple(max(width, -1) for width in pair)
            object.__setattr__(self, name, pair)
        drift = _pair("drift", self.drift, float)
        if not all(math.isfinite(value) and value >= 0 for value in drift):
            raise ValueError(f"`drift` must be finite and not negative. Received: drift={drift}")
        object.__setattr__(self, "drift", drift)
        try:
            offsets = tuple(int(offset) for offset in self.time_offsets)
        except TypeError as error:
            raise ValueError(
                "`time_offsets` must be a sequence of integers. "
                f"Received: time_offsets={self.time_offsets}"
            ) from error
        if 0 in offsets or len(set(offsets)) != len(offsets):
            raise ValueError(
                "`time_offsets` must not hold 0 (the own snapshot has `window`) and must not "
                f"repeat. Received: time_offsets={offsets}"
            )
        object.__setattr__(self, "time_offsets", offsets)
        if self.edge not in ("drop", "clamp"):
            raise ValueError(f"`edge` must be 'drop' or 'clamp'. Received: edge={self.edge!r}")
        for name in ("causal", "class_token"):
            object.__setattr__(self, name, bool(getattr(self, name)))

    @classmethod
    def published(cls, **overrides: Any) -> "Neighborhood":
        """The neighbourhood of the published LWM-Temporal configuration: at most 168 tokens."""
        return cls(**overrides)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-serialisable values."""
        config = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in config.items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Neighborhood":
        """Neighbourhood from the output of `get_config`; an unknown key is an error."""
        if config.get("kind") == "random":
            rest = {name: value for name, value in config.items() if name != "kind"}
            return RandomNeighborhood.from_config(rest)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise ValueError(
                f"Unknown keys in the configuration of a neighbourhood. Expected some of "
                f"{sorted(known)}. Received: {unknown}"
            )
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.items()
        }
        return cls(**settings)

    @property
    def effective_time_offsets(self) -> tuple[int, ...]:
        """Time offsets in ascending order with those dropped that causality forbids."""
        return tuple(sorted(o for o in self.time_offsets if not (self.causal and o > 0)))

    @property
    def translation_invariant(self) -> bool:
        """Whether all tokens have the same neighbours but for those outside of the grid."""
        straight = self.edge == "drop" or self.corridor_dilation == (1, 1)
        return straight or not self.effective_time_offsets

    def half_widths(self, time_offset: int) -> tuple[int, int]:
        """Half-widths (angle, delay) in bins at a time offset; below 0 means the whole axis."""
        if time_offset == 0:
            return self.window
        angle, delay = (
            min(widest, margin + math.floor(abs(time_offset) * rate + 0.5))
            for widest, margin, rate in zip(self.corridor, self.leakage, self.drift, strict=True)
        )
        return angle, delay

    def dilation_at(self, time_offset: int) -> tuple[int, int]:
        """Steps (angle, delay) of the offsets at a time offset."""
        return self.corridor_dilation if time_offset and self.corridor_dilation else self.dilation

    def table(self, grid: tuple[int, int, int]) -> tuple[Array, Array]:
        """Neighbour table of a grid, without the class token. It is computed once per grid.

        Args:
            grid: Number of snapshots, angle bins and delay bins. Tokens are time-major, then angle,
                then delay.

        Returns:
            `(indices, mask)`: int32 and bool `[num_tokens, num_neighbors]`, read-only. Row `n`
            holds the neighbours of token `n`, own snapshot first. Entries where `mask` is False
            fill the row up to the largest neighbourhood in the grid.
        """
        return _table(self, check_grid(grid))

    def num_neighbors(self, grid: tuple[int, int, int]) -> int:
        """Number of neighbours (without the class token) of the best-connected token of a grid."""
        return self.table(grid)[0].shape[1]


@dataclasses.dataclass(frozen=True)
class RandomNeighborhood(Neighborhood):
    """As many neighbours as a `Neighborhood` gives each token, but drawn at random from the grid.

    Every token attends to itself and, in place of its other neighbours, to as many tokens drawn
    without repetition; where `causal`, from its own and earlier snapshots. What attention gains
    over it is what the choice of neighbours is worth, at equal cost.

    Args:
        seed: Seed of the draw.
        **kwargs: Arguments of `Neighborhood`, which decide the numbers of neighbours.
    """

    seed: int = 0

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-serialisable values, marked by `"kind"`."""
        return {"kind": "random", **super().get_config()}

    @property
    def translation_invariant(self) -> bool:
        """False: every token has neighbours of its own."""
        return False

    def table(self, grid: tuple[int, int, int]) -> tuple[Array, Array]:
        """Neighbour table of a grid: see `Neighborhood.table`."""
        return _random_table(self, check_grid(grid))


def get_neighborhood(neighborhood: Neighborhood | dict[str, Any] | None) -> Neighborhood:
    """Neighbourhood from itself, its configuration, or None: the published one."""
    if neighborhood is None:
        return Neighborhood.published()
    if isinstance(neighborhood, dict):
        return Neighborhood.from_config(neighborhood)
    return neighborhood


def check_grid(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """The grid as a tuple of three positive integers.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        sizes = tuple(int(size) for size in grid)
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != 3 or min(sizes) < 1 or any(a != b for a, b in zip(sizes, grid, strict=True)):
        raise ValueError(
            "`grid` must be three positive integers (num_snapshots, num_angle, num_delay). "
            f"Received: grid={grid}"
        )
    return sizes


def _pair(name: str, value: Any, kind: type) -> tuple:
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or any(isinstance(v, (str, bool)) or kind(v) != v for v in values):
        raise ValueError(
            f"`{name}` must be one {kind.__name__} or two (angle, delay). Received: {name}={value}"
        )
    return tuple(kind(v) for v in values)


def _axis_neighbors(size: int, half_width: int, dilation: int, clamp: bool) -> tuple[Array, Array]:
    """Neighbours along one axis: int and bool `[size, num_offsets]`, each neighbour once."""
    reach = size - 1 if half_width < 0 else half_width
    if not clamp:
        reach = min(reach, size - 1)
    reach //= dilation
    offsets = dilation * np.arange(-reach, reach + 1)
    bins = np.arange(size)[:, None] + offsets
    if clamp:
        bins = np.clip(bins, 0, size - 1)
        # Offsets ascend, so bins clamped to the same edge are next to each other.
        mask = np.ones(bins.shape, dtype=bool)
        mask[:, 1:] = bins[:, 1:] != bins[:, :-1]
    else:
        mask = (bins >= 0) & (bins < size)
    return np.where(mask, bins, 0), mask


@functools.lru_cache(maxsize=_CACHED_TABLES)
def _table(neighborhood: Neighborhood, grid: tuple[int, int, int]) -> tuple[Array, Array]:
    num_snapshots, num_angle, num_delay = grid
    snapshots = np.arange(num_snapshots)
    indices, masks = [], []
    for time_offset in (0, *neighborhood.effective_time_offsets):
        if abs(time_offset) >= num_snapshots:
            continue
        clamp = neighborhood.edge == "clamp" and time_offset != 0
        widths = neighborhood.half_widths(time_offset)
        (angles, angle_mask), (delays, delay_mask) = (
            _axis_neighbors(size, width, dilation, clamp)
            for size, width, dilation in zip(
                grid[1:], widths, neighborhood.dilation_at(time_offset), strict=True
            )
        )
        plane = angles[:, None, :, None] * num_delay + delays[None, :, None, :]
        plane_mask = angle_mask[:, None, :, None] & delay_mask[None, :, None, :]
        plane = plane.reshape(1, num_angle * num_delay, -1)
        plane_mask = plane_mask.reshape(plane.shape)
        target = snapshots + time_offset
        inside = ((target >= 0) & (target < num_snapshots))[:, None, None]
        indices.append((plane + target[:, None, None] * plane.shape[1]) * inside)
        masks.append(plane_mask & inside)
    indices = np.concatenate(indices, axis=2).reshape(math.prod(grid), -1)
    masks = np.concatenate(masks, axis=2).reshape(indices.shape)

    # Small grids leave every row with holes: the table is as wide as its fullest row.
    width = int(masks.sum(axis=1).max())
    if width < masks.shape[1]:
        rows, columns = np.nonzero(masks)
        slots = (np.cumsum(masks, axis=1) - 1)[rows, columns]
        compact = np.zeros((len(indices), width), dtype=np.int32)
        compact[rows, slots] = indices[rows, columns]
        masks = np.arange(width) < masks.sum(axis=1, keepdims=True)
        indices = compact
    indices = np.where(masks, indices, 0).astype(np.int32)
    indices.flags.writeable = False
    masks.flags.writeable = False
    return indices, masks


@functools.lru_cache(maxsize=_CACHED_TABLES)
def _random_table(
    neighborhood: RandomNeighborhood, grid: tuple[int, int, int]
) -> tuple[Array, Array]:
    shape = {f.name: getattr(neighborhood, f.name) for f in dataclasses.fields(Neighborhood)}
    _, mask = Neighborhood(**shape).table(grid)
    num_bins = grid[1] * grid[2]
    rng = np.random.default_rng(neighborhood.seed)
    indices = np.zeros(mask.shape, dtype=np.int32)
    for token, count in enumerate(mask.sum(axis=1)):
        last = token // num_bins + 1 if neighborhood.causal else grid[0]
        # One of the others: those from the token on move up by one.
        others = rng.choice(last * num_bins - 1, size=count - 1, replace=False, shuffle=False)
        indices[token, 0] = token
        indices[token, 1:count] = others + (others >= token)
    mask = np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True)
    indices = np.where(mask, indices, 0).astype(np.int32)
    indices.flags.writeable = False
    mask.flags.writeable = False
    return indices, mask
