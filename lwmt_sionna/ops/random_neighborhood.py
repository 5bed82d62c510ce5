"""A neighbourhood without physics: the control for the one with it."""

import dataclasses
import functools

import numpy as np

from lwmt_sionna.ops.neighborhood import Neighborhood, check_grid

__all__ = ["RandomNeighborhood"]


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

    def get_config(self):
        """Constructor arguments as JSON-serialisable values, marked by `"kind"`."""
        return {"kind": "random", **super().get_config()}

    @property
    def translation_invariant(self):
        """False: every token has neighbours of its own."""
        return False

    def table(self, grid):
        """Neighbour table of a grid: see `Neighborhood.table`."""
        return _random_table(self, check_grid(grid))


@functools.lru_cache(maxsize=16)
def _random_table(neighborhood, grid):
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
