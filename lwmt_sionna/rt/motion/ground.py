"""What motion asks of a scene: open ground seen from above, and ways through it. NumPy alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from lwmt_sionna.typing import Array, ArrayLike, Random

_CHECK_STEP = 0.5
_CROWDING = 4.0


class Terrain(Protocol):
    """A scene as those who move through it see it; `load_scene` gives one."""

    @property
    def name(self) -> str:
        """Name of the scene."""

    @property
    def bounds(self) -> tuple[Array, Array]:
        """`(lower, upper)` corners of the scene, each float `[3]`, in metres."""

    def drop_to_ground(self, xy: ArrayLike) -> tuple[Array, Array]:
        """Height of what is met from above, and whether that is open ground, each `[num_points]`"""

    def segment_is_free(self, start: ArrayLike, stop: ArrayLike) -> Array:
        """Whether straight segments cross no surface, bool `[num_segments]`."""

    def cast_rays(self, origin: ArrayLike, direction: ArrayLike) -> tuple[Array, Array]:
        """Distance to what rays meet first, infinite for nothing, and the identifier of that."""

    def vertices_of(self, name: str) -> Array:
        """Corners of an object of the scene in metres, float64 `[num_vertices, 3]`."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects of the scene."""

    @property
    def cars(self) -> tuple[str, ...]:
        """Names of the objects that may move."""


@dataclasses.dataclass(frozen=True)
class Ring:
    """Where users start: between two distances of a base station.

    Attributes:
        centre: `(x, y)` of the base station in metres; a height after it is not used.
        min_distance: Inner radius in metres.
        max_distance: Outer radius in metres.
    """

    centre: tuple[float, ...]
    min_distance: float = 15.0
    max_distance: float = 200.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", tuple(float(c) for c in self.centre[:2]))


@dataclasses.dataclass(frozen=True)
class GroundMap:
    """A raster of square cells over a scene.

    Attributes:
        origin: float64 `[2]`, `(x, y)` of the centre of cell `[0, 0]` in metres.
        cell: Side of a cell in metres.
        height: float64 `[num_x, num_y]`, metres, of what a look from above meets first; NaN where
            there is nothing.
        is_open: bool `[num_x, num_y]`, whether that is open ground.
    """

    origin: Array
    cell: float
    height: Array
    is_open: Array

    @property
    def centres(self) -> Array:
        """`(x, y)` of all cells in metres, float64 `[num_x, num_y, 2]`."""
        index = np.stack(np.indices(self.is_open.shape), axis=-1)
        return self.origin + self.cell * index

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """`(left, right, bottom, top)` in metres, as `imshow` takes it."""
        lower = self.origin - self.cell / 2
        upper = lower + self.cell * np.array(self.is_open.shape)
        return (float(lower[0]), float(upper[0]), float(lower[1]), float(upper[1]))

    def cells_of(self, xy: ArrayLike) -> Array:
        """Indices of the cells that points lie in, clipped to the map, int64 `[..., 2]`."""
        index = np.round((np.asarray(xy, dtype=np.float64) - self.origin) / self.cell)
        return np.clip(index.astype(np.int64), 0, np.array(self.is_open.shape) - 1)


def ground_map(
    terrain: Terrain,
    cell: float,
    *,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
) -> GroundMap:
    """Looks down on a scene cell by cell, from `(x, y)` to `(x, y)` in metres.

    The part of that rectangle that lies within the scene, all of it by default; `cell` is the side
    of a cell in metres.
    """
    if not cell > 0:
        raise ValueError(f"cell must be positive. Received: cell={cell}")
    low, high = (np.asarray(corner[:2], dtype=np.float64) for corner in terrain.bounds)
    low = low if lower is None else np.maximum(low, lower)
    high = high if upper is None else np.minimum(high, upper)
    counts = np.maximum(np.floor((high - low) / cell).astype(int), 1)
    origin = low + (high - low - cell * (counts - 1)) / 2
    index = np.stack(np.indices(counts), axis=-1)
    height, is_open = terrain.drop_to_ground((origin + cell * index).reshape(-1, 2))
    return GroundMap(origin, float(cell), height.reshape(counts), is_open.reshape(counts))


@dataclasses.dataclass(frozen=True)
class FreeSpace:
    """Cells of a map that keep a distance from everything but open ground.

    Attributes:
        ground: `GroundMap`.
        clearance: float64 `[num_x, num_y]`, metres to the nearest cell that is not open ground.
        free: bool `[num_x, num_y]`, whether users may be there.
        region: int64 `[num_x, num_y]`, number of the connected region, zero where not free.
    """

    ground: GroundMap
    clearance: Array
    free: Array
    region: Array

    def draw(self, rng: Random, ring: Ring, least_area: float = 0.0) -> Array | None:
        """Draws a free cell in a ring, uniformly: indices, int64 `[2]`, or `None` if there is none.

        Its connected region has `least_area` square metres at least, which keeps out of courtyards.
        """
        cells, places, areas = self._free_cells
        off = np.linalg.norm(places - np.array(ring.centre), axis=-1)
        chosen = np.flatnonzero(
            (off >= ring.min_distance) & (off <= ring.max_distance) & (areas >= least_area)
        )
        return cells[chosen[rng.integers(len(chosen))]] if len(chosen) else None

    def is_clear(self, start: ArrayLike, stop: ArrayLike) -> bool:
        """Whether all cells that a straight line passes are free, a first look without rays."""
        start, stop = np.asarray(start), np.asarray(stop)
        count = int(np.ceil(np.linalg.norm(stop - start) / (0.5 * self.ground.cell))) + 1
        share = np.linspace(0.0, 1.0, count)[:, None]
        cells = self.ground.cells_of(start + share * (stop - start))
        return bool(self.free[tuple(cells.T)].all())

    @functools.cached_property
    def _free_cells(self):
        """Indices of the free cells, their places, and the areas of their regions."""
        sizes = np.bincount(self.region.ravel()) * self.ground.cell**2
        cells = np.argwhere(self.free)
        return cells, self.ground.centres[self.free], sizes[self.region[self.free]]

    def ways(self, cell: ArrayLike, reach: float) -> tuple[Array, Callable[[ArrayLike], Array]]:
        """Shortest ways from a cell along the middle of streets.

        A step costs its length, and more the nearer it is to a wall; `reach` is the largest cost of
        a way. Returns the cost of the way to every cell in metres, float64 `[num_x, num_y]`,
        infinite where none leads, and a function from the indices of a cell to the points of the
        way there, `[num_points, 2]`.
        """
        from scipy.sparse.csgraph import dijkstra

        graph, number = self._graph
        source = number[tuple(np.asarray(cell))]
        cost, before = dijkstra(graph, indices=source, return_predecessors=True, limit=reach)
        table = np.full(self.free.shape, np.inf)
        table[self.free] = cost
        centres = self.ground.centres[self.free]

        def way(target):
            node, chain = number[tuple(np.asarray(target))], []
            while node >= 0:
                chain.append(node)
                node = before[node]
            return centres[chain[::-1]]

        return table, way

    @functools.cached_property
    def _graph(self):
        from scipy.sparse import coo_matrix

        number = np.full(self.free.shape, -1, dtype=np.int64)
        number[self.free] = np.arange(self.free.sum())
        # Next to a wall a metre costs five, in the middle of a street hardly more than one.
        weight = 1.0 + _CROWDING * np.exp(-self.clearance / 3.0)
        rows, columns, costs = [], [], []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            here = (slice(0, -1 if dx else None), slice(0, -1) if dy > 0 else slice(-dy, None))
            there = (slice(dx, None), slice(dy, None) if dy >= 0 else slice(0, dy))
            both = self.free[here] & self.free[there]
            if dx and dy:
                # No cutting of corners.
                both &= self.free[here[0], there[1]] & self.free[there[0], here[1]]
            rows.append(number[here][both])
            columns.append(number[there][both])
            costs.append(
                self.ground.cell * np.hypot(dx, dy) * (weight[here][both] + weight[there][both]) / 2
            )
        rows, columns, costs = map(np.concatenate, (rows, columns, costs))
        count = int(self.free.sum())
        half = coo_matrix((costs, (rows, columns)), shape=(count, count))
        return (half + half.T).tocsr(), number


@functools.lru_cache(maxsize=4)
def free_space(
    terrain: Terrain, centre: tuple[float, float], radius: float, cell: float, clearance: float
) -> FreeSpace:
    """Free space in the square of half a side `radius` around a point of a scene, in metres.

    `cell` is the side of a cell, `clearance` the distance to keep from everything but open ground.
    """
    from scipy.ndimage import distance_transform_edt, label

    lower, upper = np.array(centre) - radius, np.array(centre) + radius
    ground = ground_map(terrain, cell, lower=lower, upper=upper)
    # Beyond the map there is no ground either.
    padded = np.pad(ground.is_open, 1)
    # A cell is as far from a wall as its centre is, less half a cell.
    distance = distance_transform_edt(padded)[1:-1, 1:-1] * cell - cell / 2
    free = ground.is_open & (distance >= clearance)
    return FreeSpace(ground, np.maximum(distance, 0.0), free, label(free)[0])


def is_free_way(terrain: Terrain, points: ArrayLike, user_height: float, clearance: float) -> bool:
    """Whether a way `[num_points, 2]` lies over open ground and crosses no surface.

    Rays look down at points half a metre apart, and along the way at the height of the users; to
    both sides `clearance` metres are kept.
    """
    points = np.asarray(points, dtype=np.float64)
    points = points[np.concatenate([[True], np.any(np.diff(points, axis=0) != 0, axis=1)])]
    if len(points) < 2:
        points = np.repeat(points, 2, axis=0) + np.array([[0.0, 0.0], [1e-3, 0.0]])
    points = _resampled(points)
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    across = np.column_stack([-along[:, 1], along[:, 0]])
    for offset in (0.0, clearance, -clearance):
        shifted = points + offset * across
        height, is_ground = terrain.drop_to_ground(shifted)
        if not is_ground.all():
            return False
        eye = np.column_stack([shifted, height + user_height])
        if not terrain.segment_is_free(eye[:-1], eye[1:]).all():
            return False
    return True


def _resampled(points):
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = max(2, int(np.ceil(length[-1] / _CHECK_STEP)) + 1)
    grid = np.union1d(length, np.linspace(0.0, length[-1], count))
    return np.column_stack([np.interp(grid, length, points[:, k]) for k in range(2)])
