"""Index arithmetic of the shift kernel, in NumPy."""

import dataclasses
import functools
import math

import numpy as np

from lwmt_sionna.ops.attention.neighborhood import Neighborhood
from lwmt_sionna.typing import Array

__all__ = ["ShiftPlan", "Sweep", "shift_plan", "unrolled_offsets"]


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Steps that share one set of unrolled offsets.

    A step of a chunk of snapshots looks at one key plane per snapshot, through a window of the flat
    plane. The key of query `n` at offset `o` is element `start + n + o` of the plane with its halo.

    Attributes:
        offsets: Offsets into the window, at least 0.
        reach: Half the span of the offsets: the centre of the window.
        slack: Elements by which the keys that a step touches hang over its window's centre.
        planes: int32 `[num_chunks, num_steps + 1, chunk]`, the key plane of each snapshot;
            `num_snapshots` is a plane without keys. The last step is never taken.
        starts: int32 `[num_chunks, num_steps + 1]`.
        counts: int32 `[num_chunks]`, steps that have any key.
    """

    offsets: tuple[int, ...]
    reach: int
    slack: int
    planes: Array
    starts: Array
    counts: Array

    @property
    def margin(self) -> int:
        """Queries before and after the plane that can share a key with it."""
        return self.reach + self.slack


@dataclasses.dataclass(frozen=True, eq=False)
class ShiftPlan:
    """Geometry of flat planes and the sweeps over them.

    The delay bins of all angles of a snapshot lie behind each other in one flat plane, with as many
    unused elements after each angle as the window is wide: a neighbour in angle and delay is then a
    constant shift, and a shift over the edge of the grid lands on an unused element.

    Attributes:
        grid: Number of snapshots, angle bins and delay bins.
        row: Elements from one angle to the next.
        halo: Elements before and after a plane that the shifts may touch.
        sweeps: What to add up.
    """

    grid: tuple[int, int, int]
    row: int
    halo: int
    sweeps: tuple[Sweep, ...]

    @property
    def size(self) -> int:
        """Elements of a plane without its halo."""
        return self.grid[1] * self.row

    @property
    def margin(self) -> int:
        """Queries before and after the plane that can share a key with it, in any sweep."""
        return max(sweep.margin for sweep in self.sweeps)

    @property
    def overhang(self) -> int:
        """Elements by which gradients of keys may hang over a plane."""
        return max(
            int(np.abs(sweep.starts - self.halo + sweep.reach).max()) + sweep.slack
            for sweep in self.sweeps
        )

    def bias(self, halo: int, lowest: float) -> Array:
        """`[num_snapshots + 1, 2 * halo + size]`: 0 where there is a key, else `lowest`."""
        num_snapshots, num_angle, num_delay = self.grid
        planes = np.full((num_snapshots + 1, num_angle, self.row), lowest)
        planes[:num_snapshots, :, :num_delay] = 0
        planes = planes.reshape(num_snapshots + 1, self.size)
        return np.pad(planes, ((0, 0), (halo, halo)), constant_values=lowest)


def _steps(neighborhood: Neighborhood, grid: tuple[int, int, int]) -> dict:
    """Angle steps and delay steps of a window -> the time offsets that have this window."""
    classes: dict[tuple, list[int]] = {}
    for time_offset in (0, *neighborhood.effective_time_offsets):
        if abs(time_offset) >= grid[0]:
            continue
        axes = []
        widths = neighborhood.half_widths(time_offset)
        dilations = neighborhood.dilation_at(time_offset)
        for size, width, dilation in zip(grid[1:], widths, dilations, strict=True):
            reach = (size - 1 if width < 0 else min(width, size - 1)) // dilation
            axes.append(tuple(dilation * step for step in range(-reach, reach + 1)))
        classes.setdefault(tuple(axes), []).append(time_offset)
    return classes


def unrolled_offsets(neighborhood: Neighborhood, grid: tuple[int, int, int], by_row: bool) -> int:
    """Number of offsets that a kernel for this plan spells out: what its compile time follows."""
    return sum(
        len(delays) * (1 if by_row else len(angles))
        for angles, delays in _steps(neighborhood, grid)
    )


@functools.lru_cache(maxsize=32)
def shift_plan(
    neighborhood: Neighborhood, grid: tuple[int, int, int], chunk: int, by_row: bool
) -> ShiftPlan:
    """The plan of a neighbourhood on a grid.

    Args:
        neighborhood: A translation-invariant neighbourhood.
        grid: Number of snapshots, angle bins and delay bins.
        chunk: Snapshots that are worked on at a time.
        by_row: Whether a step covers one angle offset, or all of them: fewer offsets to compile
            against fewer steps.

    Returns:
        The plan.
    """
    num_snapshots = grid[0]
    classes = _steps(neighborhood, grid)
    row = grid[2] + max(delays[-1] for _, delays in classes)
    halo = max(angles[-1] * row + delays[-1] for angles, delays in classes)
    num_chunks = math.ceil(num_snapshots / chunk)
    queries = np.arange(num_chunks * chunk).reshape(num_chunks, chunk)
    sweeps = []
    for (angles, delays), time_offsets in classes.items():
        if by_row:
            reach, slack = delays[-1], delays[-1]
            offsets = tuple(reach + delay for delay in delays)
            centres = [angle * row for angle in angles]
        else:
            reach, slack = angles[-1] * row + delays[-1], 0
            offsets = tuple(reach + angle * row + delay for angle in angles for delay in delays)
            centres = [0]
        planes, starts, counts = [], [], []
        num_steps = len(time_offsets) * len(centres)
        for chunk_queries in queries:
            chosen = []
            for time_offset in time_offsets:
                keys = chunk_queries + time_offset
                real = (keys >= 0) & (keys < num_snapshots) & (chunk_queries < num_snapshots)
                keys = np.where(real, keys, num_snapshots)
                if real.any():
                    chosen += [(keys, halo - reach + centre) for centre in centres]
            counts.append(len(chosen))
            idle = (np.full(chunk, num_snapshots), halo - reach)
            chosen += [idle] * (num_steps + 1 - len(chosen))
            planes.append([keys for keys, _ in chosen])
            starts.append([start for _, start in chosen])
        sweeps.append(
            Sweep(
                offsets,
                reach,
                slack,
                np.array(planes, np.int32),
                np.array(starts, np.int32),
                np.array(counts, np.int32),
            )
        )
    return ShiftPlan(grid, row, halo, tuple(sweeps))
