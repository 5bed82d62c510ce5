"""Cities built from a few parameters and a seed, and what they are made of. NumPy alone.

The same parameters give the same city, byte by byte; nothing is traced here. Solids share vertices
between their faces and wind counter-clockwise seen from outside. Both matter: Sionna RT finds
diffracting edges by the vertices that two faces share.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from lwmt_sionna.rt.scenes.files import MeshObject, write_scene
from lwmt_sionna.rt.scenes.meshes import Mesh, join
from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveInterval,
    read_toml,
)
from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.typing import Array, ArrayLike, PathLike, Random

_MAST = 3.0
_EDGE = 0.8


class City:
    """Collects the parts of a city; buildings of one material become one object.

    Attributes:
        base_stations: list of `(x, y, z)` in metres, places for base stations.
    """

    def __init__(self) -> None:
        self.base_stations: list[tuple[float, ...]] = []
        self._grounds: list[tuple[str, str, Mesh]] = []
        self._buildings: dict[str, list[Mesh]] = {}
        self._cars: list[Mesh] = []
        self._trunks: list[Mesh] = []
        self._crowns: list[Mesh] = []

    @property
    def objects(self) -> list[MeshObject]:
        """list of `MeshObject`: grounds, buildings by material, trees, cars."""
        objects = [MeshObject(*ground) for ground in self._grounds]
        for material, solids in sorted(self._buildings.items()):
            objects.append(MeshObject(f"buildings_{material}", material, join(solids)))
        if self._trunks:
            objects.append(MeshObject("trunks", "wood", join(self._trunks)))
            objects.append(MeshObject("crowns", "foliage", join(self._crowns)))
        for index, body in enumerate(self._cars):
            objects.append(MeshObject(f"car_{index + 1}", "metal", body))
        return objects

    @property
    def num_buildings(self) -> int:
        """Number of closed buildings (a row of houses wall to wall is one)."""
        return sum(len(solids) for solids in self._buildings.values())

    def add_ground(
        self,
        rectangles: Sequence[tuple[ArrayLike, ArrayLike]],
        name: str = "ground",
        material: str = "concrete",
    ) -> None:
        """Adds level ground at height zero: rectangles `(lower, upper)` that do not overlap."""
        mesh = join([quad(lower, upper) for lower, upper in rectangles])
        self._grounds.append((name, material, mesh))

    def add_building(self, mesh: Mesh, material: str) -> None:
        """Adds a closed solid that stands on the ground."""
        self._buildings.setdefault(material, []).append(mesh)

    def add_car(self, place: Sequence[float], heading: float) -> None:
        """Parks a car at `(x, y)` in metres, its front towards `heading` in radians."""
        self._cars.append(_car().moved((*place, 0.0), heading))

    def add_trees(
        self,
        places: Sequence[ArrayLike],
        rng: Random,
        height: tuple[float, float] = (6.0, 11.0),
    ) -> None:
        """Plants trees at `(x, y)` places; heights in metres are drawn from the range."""
        for place in places:
            self._plant(place, rng.uniform(*height), rng)

    def _plant(self, place, height, rng):
        """A tree: a hexagonal trunk, and a crown of twenty faces in which it ends."""
        radius = 0.25 * height * rng.uniform(0.8, 1.2)
        half = 0.35 * height
        angle = np.arange(6) * np.pi / 3
        girth = 0.025 * height
        hexagon = np.asarray(place) + girth * np.column_stack([np.cos(angle), np.sin(angle)])
        self._trunks.append(extrude(hexagon, 0.0, height - 1.5 * half))
        crown = ellipsoid((0.0, 0.0, height - half), (radius, radius, half))
        self._crowns.append(crown.moved((*place, 0.0), rng.uniform(0, 2 * np.pi)))

    def add_mast(self, place: Sequence[float], height: float) -> None:
        """Notes a base station on a pole of its own at `(x, y)`, `height` metres up."""
        self.base_stations.append((*(round(float(c), 2) for c in place), round(float(height), 2)))

    def add_roof_mast(self, corner: ArrayLike, centre: ArrayLike, roof: float) -> None:
        """Notes a base station on a mast 3 m over a roof, 0.8 m from its corner to its centre."""
        corner, centre = np.asarray(corner, float), np.asarray(centre, float)
        back = (centre - corner) / np.linalg.norm(centre - corner)
        self.add_mast(corner + _EDGE * back, roof + _MAST)


def _car():
    """A car of 4.4 x 1.8 x 1.5 m on the ground, centred on the origin, its front towards +x."""
    profile = [[-2.2, 0.3], [2.2, 0.3], [2.2, 0.9], [0.7, 1.5], [-1.6, 1.5], [-2.2, 1.0]]
    solid = extrude(profile, -0.9, 0.9)
    # From (length, height, width) to (x, y, z): the width runs towards -y, which keeps winding.
    vertices = solid.vertices[:, [0, 2, 1]] * np.array([1.0, -1.0, 1.0])
    return Mesh(vertices, solid.faces)


def row_stations(length: float, width: tuple[float, float], rng: Random) -> Array:
    """Ends of the houses along a street front in metres, float64 `[num_houses + 1]`, from 0.

    `width` is the `(smallest, largest)` width of a house in metres.
    """
    count = max(1, round(length / rng.uniform(*width)))
    share = rng.uniform(*width, count)
    return np.concatenate([[0.0], np.cumsum(share) * length / share.sum()])


def clip_polygon(polygon: ArrayLike, normal: ArrayLike, offset: float) -> Array:
    """The part `[num_left, 2]`, perhaps empty, of a convex polygon where `normal . p <= offset`.

    The corners `[num_corners, 2]` go counter-clockwise.
    """
    polygon = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    over = polygon @ np.asarray(normal, dtype=np.float64) - offset
    kept = []
    for k in range(len(polygon)):
        after = (k + 1) % len(polygon)
        if over[k] <= 0:
            kept.append(polygon[k])
        if (over[k] < 0 < over[after]) or (over[after] < 0 < over[k]):
            share = over[k] / (over[k] - over[after])
            kept.append(polygon[k] + share * (polygon[after] - polygon[k]))
    return np.array(kept).reshape(-1, 2)


def inset(polygon: ArrayLike, margin: float) -> Array | None:
    """A convex polygon with every side moved inwards; sides that vanish stay as tiny ones.

    Corner by corner as they are, counter-clockwise `[num_corners, 2]` in metres; `None` where the
    margin leaves no inside.
    """
    polygon = np.asarray(polygon, dtype=np.float64)
    side = np.roll(polygon, -1, axis=0) - polygon
    normal = np.column_stack([side[:, 1], -side[:, 0]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    offset = np.sum(normal * polygon, axis=1) - margin
    before = np.roll(np.arange(len(polygon)), 1)
    corners = np.array(
        [
            np.linalg.solve(normal[[k, before[k]]], offset[[k, before[k]]])
            for k in range(len(polygon))
        ]
    )
    # Every moved corner has to lie inside of all the moved sides.
    return corners if np.all(corners @ normal.T <= offset + 1e-6) else None


def shortest_side(polygon: Array) -> float:
    """Length of the shortest side of a polygon in metres."""
    return np.linalg.norm(np.roll(polygon, -1, axis=0) - polygon, axis=1).min()


def without_short_sides(polygon: ArrayLike, least: float) -> Array | None:
    """A convex polygon with corners taken away until every side is long enough, in metres.

    `None` where fewer than three corners would be left.
    """
    polygon = np.asarray(polygon, dtype=np.float64)
    while len(polygon) >= 3:
        side = np.linalg.norm(np.roll(polygon, -1, axis=0) - polygon, axis=1)
        if side.min() >= least:
            return polygon
        polygon = np.delete(polygon, np.argmin(side), axis=0)
    return None


# Extents along x and y, metres.
Size = tuple[Positive, Positive]
Material = Literal[
    "brick", "concrete", "foliage", "glass", "marble", "medium_dry_ground", "metal", "wood"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CityConfig(Config):
    """What all cities share.

    Attributes:
        kind: Key of `CITIES`.
        seed: Seed of everything random.
        facades: Materials to draw a building's from, keys of `MATERIALS`.
        ground: Material of streets and squares.
        margin: Open ground beyond the outermost buildings in metres.
    """

    KIND: ClassVar[str] = ""

    kind: str = ""
    seed: NonNegativeInt = 1
    facades: Annotated[tuple[Material, ...], FILLED] = ("brick", "concrete", "glass", "marble")
    ground: Material = "concrete"
    margin: NonNegative = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("", self.KIND):
            raise ValueError(f"kind: expected {self.KIND!r}. Received: kind={self.kind!r}")
        object.__setattr__(self, "kind", self.KIND)

    def layout(self) -> City:
        """Lays the city out."""
        city = City()
        self._lay_out(city, np.random.default_rng(self.seed))
        return city

    def _lay_out(self, city, rng):
        raise NotImplementedError

    def _facade(self, rng):
        return self.facades[rng.integers(len(self.facades))]


def quad(lower: ArrayLike, upper: ArrayLike, height: float = 0.0) -> Mesh:
    """Horizontal rectangle that looks up, between two corners `(x, y)` in metres."""
    (x0, y0), (x1, y1) = np.asarray(lower), np.asarray(upper)
    corners = [[x0, y0, height], [x1, y0, height], [x1, y1, height], [x0, y1, height]]
    return Mesh(corners, [[0, 1, 2], [0, 2, 3]])


def extrude(polygon: ArrayLike, bottom: float, top: float) -> Mesh:
    """Upright prism over a convex polygon `[num_corners, 2]`, counter-clockwise, in metres."""
    polygon = np.asarray(polygon, dtype=np.float64)
    n = len(polygon)
    vertices = np.concatenate([np.column_stack([polygon, np.full(n, z)]) for z in (bottom, top)])
    here, after = np.arange(n), (np.arange(n) + 1) % n
    fan = np.column_stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)])
    faces = [
        np.column_stack([here, after, after + n]),
        np.column_stack([here, after + n, here + n]),
        fan + n,
        fan[:, ::-1],
    ]
    return Mesh(vertices, np.concatenate(faces))


def box(lower: ArrayLike, upper: ArrayLike) -> Mesh:
    """Axis-aligned box between two corners, each float `[3]`, metres."""
    (x0, y0, z0), (x1, y1, z1) = np.asarray(lower), np.asarray(upper)
    return extrude([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], z0, z1)


def ring(outer: ArrayLike, inner: ArrayLike, bottom: float, top: float) -> Mesh:
    """Upright prism with a courtyard, both `[num_corners, 2]`, counter-clockwise, in metres.

    The courtyard has as many corners, in the same order.
    """
    outer, inner = np.asarray(outer), np.asarray(inner)
    n = len(outer)
    layers = [(outer, bottom), (outer, top), (inner, top), (inner, bottom)]
    vertices = np.concatenate([np.column_stack([p, np.full(n, z)]) for p, z in layers])
    here, after = np.arange(n), (np.arange(n) + 1) % n
    faces = []
    for layer in range(4):
        low, high = layer * n, (layer + 1) % 4 * n
        faces.append(np.column_stack([here + low, after + low, after + high]))
        faces.append(np.column_stack([here + low, after + high, here + high]))
    return Mesh(vertices, np.concatenate(faces))


def row(stations: ArrayLike, heights: ArrayLike, depth: float) -> Mesh:
    """Houses wall to wall along x, one closed surface whose facade has no seams.

    Were they boxes side by side, every seam of the facade would count as two diffracting edges.
    `stations` are the ends of the houses in metres, ascending, `[num_houses + 1]`, `heights`
    `[num_houses]`; `depth` is the extent along y, from 0.
    """
    stations, heights = np.asarray(stations), np.asarray(heights, dtype=np.float64)
    left = np.concatenate([[0.0], heights])
    right = np.concatenate([heights, [0.0]])
    levels = [sorted({0.0, a, b}) for a, b in zip(left, right)]
    offsets = np.cumsum([0, *(len(each) for each in levels)])
    front = np.array([[x, 0.0, z] for x, each in zip(stations, levels) for z in each])
    back = front + np.array([0.0, depth, 0.0])
    behind = len(front)
    faces = []

    def side(low, high):
        """Strip between two chains of vertices that climb, seen from the side of `low`."""
        i = j = 0
        while i < len(low) - 1 or j < len(high) - 1:
            climb_low = j == len(high) - 1 or (
                i < len(low) - 1 and front[low[i + 1], 2] <= front[high[j + 1], 2]
            )
            third = low[i + 1] if climb_low else high[j + 1]
            triangle = [low[i], high[j], third]
            faces.append(triangle)
            faces.append([behind + triangle[1], behind + triangle[0], behind + triangle[2]])
            i, j = (i + 1, j) if climb_low else (i, j + 1)

    def wall(first, second):
        """Rectangle from an edge of the front to the back; an edge that climbs looks to -x."""
        faces.append([first, second, second + behind])
        faces.append([first, second + behind, first + behind])

    for house, height in enumerate(heights):
        begin, end = levels[house], levels[house + 1]
        low = [offsets[house] + k for k, z in enumerate(begin) if z <= height]
        high = [offsets[house + 1] + k for k, z in enumerate(end) if z <= height]
        side(low, high)
        wall(low[-1], high[-1])  # the roof
        wall(high[0], low[0])  # the floor
    for station, each in enumerate(levels):
        base = offsets[station]
        for k in range(len(each) - 1):
            if each[k] >= min(left[station], right[station]):
                ends = (base + k, base + k + 1)
                wall(*(ends if right[station] > left[station] else ends[::-1]))
    return Mesh(np.concatenate([front, back]), faces)


def house(length: float, width: float, eaves: float, ridge: float) -> Mesh:
    """Detached house with a gable roof along x, centred on the origin and standing on z = 0 [m]."""
    y, z = np.array(
        [[-width / 2, 0], [width / 2, 0], [width / 2, eaves], [0, ridge], [-width / 2, eaves]]
    ).T
    gable = np.column_stack([y, z])
    solid = extrude(gable, -length / 2, length / 2)
    # The prism's polygon lies in (y, z) and its height along x: a cyclic exchange keeps winding.
    return Mesh(solid.vertices[:, [2, 0, 1]], solid.faces)


def ellipsoid(centre: ArrayLike, radii: ArrayLike) -> Mesh:
    """Icosahedron stretched to radii around a centre, each `[3]` in metres: the crown of a tree."""
    angle = np.arange(5) * 2 * np.pi / 5
    z = 1 / np.sqrt(5)
    upper = np.column_stack([2 * z * np.cos(angle), 2 * z * np.sin(angle), np.full(5, z)])
    half = angle + np.pi / 5
    lower = np.column_stack([2 * z * np.cos(half), 2 * z * np.sin(half), np.full(5, -z)])
    vertices = np.concatenate([[[0.0, 0.0, 1.0]], upper, lower, [[0.0, 0.0, -1.0]]])
    faces = []
    for k in range(5):
        a, b = 1 + k, 1 + (k + 1) % 5
        c, d = 6 + k, 6 + (k + 1) % 5
        faces += [[0, a, b], [a, c, b], [b, c, d], [11, d, c]]
    return Mesh(vertices * np.asarray(radii) + np.asarray(centre), faces)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreetCanyon(CityConfig):
    """A street between two closed rows of houses, with cross streets, cars and trees.

    Attributes:
        length: Length of the street along x in metres.
        street_width: Distance of the facades in metres.
        cross_streets: Number of cross streets.
        cross_width: Their width in metres.
        depth: Depth of the houses in metres.
        house_width: Widths of the houses in metres, a range.
        height: Heights of the houses in metres, a range.
        cars: Number of parked cars.
        tree_spacing: Distance of street trees in metres; 0 plants none.
    """

    KIND: ClassVar[str] = "street_canyon"

    length: NonNegative = 240.0
    street_width: NonNegative = 18.0
    cross_streets: NonNegativeInt = 2
    cross_width: NonNegative = 12.0
    depth: NonNegative = 14.0
    house_width: PositiveInterval = (10.0, 24.0)
    height: PositiveInterval = (11.0, 22.0)
    cars: NonNegativeInt = 0
    tree_spacing: NonNegative = 0.0

    def _lay_out(self, city, rng):
        front = (self.length - self.cross_streets * self.cross_width) / (self.cross_streets + 1)
        if front < self.house_width[0]:
            raise ValueError(
                "The cross streets leave no room for houses. Received: "
                f"length={self.length}, cross_streets={self.cross_streets}, "
                f"cross_width={self.cross_width}"
            )
        starts = -self.length / 2 + np.arange(self.cross_streets + 1) * (front + self.cross_width)
        half = self.street_width / 2
        reach = (self.length / 2 + self.margin, half + self.depth + self.margin)
        city.add_ground([((-reach[0], -reach[1]), reach)], material=self.ground)
        for side in (-1, 1):
            for start in starts:
                stations = row_stations(front, self.house_width, rng)
                heights = np.round(rng.uniform(*self.height, len(stations) - 1), 1)
                shift = half if side > 0 else -half - self.depth
                solid = row(stations, heights, self.depth).moved((start, shift, 0.0))
                city.add_building(solid, self._facade(rng))
                if start == starts[len(starts) // 2]:
                    corner = (start, side * half)
                    centre = (start + 10.0, side * (half + self.depth))
                    city.add_roof_mast(corner, centre, heights[0])
        for start in starts[1:]:
            city.add_mast((start - self.cross_width - 1.0, half - 1.0), 8.0)
        curb = half - 3.0
        slots = np.arange(-self.length / 2 + 8.0, self.length / 2 - 8.0, 6.5)
        open_slots = slots[[not self._on_crossing(x, starts, front, 4.0) for x in slots]]
        places = [(x, side * curb) for x in open_slots for side in (-1, 1)]
        for x, y in _some_of(places, self.cars, rng):
            city.add_car((x + rng.uniform(-0.5, 0.5), y), np.pi if y > 0 else 0.0)
        if self.tree_spacing > 0:
            line = np.arange(-self.length / 2 + 5.0, self.length / 2 - 5.0, self.tree_spacing)
            line = line[[not self._on_crossing(x, starts, front, 3.0) for x in line]]
            # Between the pavement and the parked cars.
            places = [(x, side * (half - 4.8)) for x in line for side in (-1, 1)]
            city.add_trees(places, rng, height=(5.0, 7.5))

    @staticmethod
    def _on_crossing(x: float, starts: Array, front: float, clearance: float) -> bool:
        return not any(s + clearance <= x <= s + front - clearance for s in starts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManhattanGrid(CityConfig):
    """Rectangular blocks of houses wall to wall, of random heights.

    Attributes:
        blocks: Number of blocks along x and y.
        block_size: Extent of a block along x and y in metres.
        street_widths: Width of the streets that part blocks along x (avenues) and along y.
        house_width: Widths of the houses in metres, a range.
        height: Heights of the houses in metres, a range; low houses are the more frequent ones.
        cars: Number of cars parked along the streets in x.
    """

    KIND: ClassVar[str] = "manhattan_grid"

    blocks: tuple[PositiveInt, PositiveInt] = (5, 4)
    block_size: Size = (80.0, 50.0)
    street_widths: Size = (24.0, 16.0)
    house_width: PositiveInterval = (16.0, 40.0)
    height: PositiveInterval = (12.0, 80.0)
    cars: NonNegativeInt = 0

    def _lay_out(self, city, rng):
        blocks, block = np.array(self.blocks, dtype=int), np.array(self.block_size)
        street = np.array(self.street_widths)
        pitch = block + street
        extent = blocks * pitch - street
        reach = extent / 2 + self.margin
        city.add_ground([(-reach, reach)], material=self.ground)
        lows = [-extent / 2 + pitch * (i, j) for i in range(blocks[0]) for j in range(blocks[1])]
        middle = sorted(range(len(lows)), key=lambda k: np.abs(lows[k] + block / 2).sum())[:3]
        for index, low in enumerate(lows):
            stations = row_stations(block[0], self.house_width, rng)
            share = rng.beta(1.2, 3.0, len(stations) - 1)
            heights = np.round(self.height[0] + np.ptp(self.height) * share, 1)
            solid = row(stations, heights, block[1]).moved((*low, 0.0))
            city.add_building(solid, self._facade(rng))
            if index in middle:
                city.add_roof_mast(low, low + block / 2, heights[0])
            if index == middle[0]:
                city.add_mast(low - 1.0, 10.0)
        places = [
            (x, low[1] - 1.6)
            for low in lows
            if low[1] > lows[0][1]
            for x in np.arange(low[0] + 6.0, low[0] + block[0] - 6.0, 7.0)
        ]
        for place in _some_of(places, self.cars, rng):
            city.add_car(place, np.pi)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OldTown(CityConfig):
    """Crooked narrow streets between irregular blocks, some with courtyards, around a square.

    Blocks are the Voronoi cells of a jittered grid of points, narrowed by half a street.

    Attributes:
        size: Extent along x and y in metres.
        spacing: Distance of the points in metres, about that of the streets.
        jitter: Largest shift of a point, as a share of `spacing`.
        street_width: Width of the streets in metres.
        height: Heights of the blocks in metres, a range.
        courtyard_share: Share of the blocks with a courtyard.
        courtyard_depth: Depth of the houses around a courtyard in metres.
    """

    KIND: ClassVar[str] = "old_town"

    size: Size = (320.0, 280.0)
    spacing: NonNegative = 48.0
    jitter: NonNegative = 0.3
    street_width: NonNegative = 9.0
    height: PositiveInterval = (9.0, 19.0)
    courtyard_share: NonNegative = 0.5
    courtyard_depth: NonNegative = 9.0

    def _lay_out(self, city, rng):
        half = np.array(self.size) / 2
        reach = half + self.margin
        city.add_ground([(-reach, reach)], material=self.ground)
        counts = np.maximum(np.round(2 * half / self.spacing).astype(int), 2)
        step = 2 * half / counts
        grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 2)
        sites = -half + (grid + 0.5) * step
        sites = sites + self.jitter * step * rng.uniform(-1, 1, sites.shape)
        square = int(np.argmin(np.linalg.norm(sites, axis=1)))
        masts = []
        for index, site in enumerate(sites):
            cell = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
            for other in np.delete(sites, index, axis=0):
                away = other - site
                cell = clip_polygon(cell, away, away @ (site + other) / 2)
            block = inset(cell, self.street_width / 2)
            block = None if block is None else without_short_sides(block, 4.0)
            height = round(rng.uniform(*self.height), 1)
            has_court = rng.uniform() < self.courtyard_share
            facade = self._facade(rng)
            if index == square or block is None:
                continue
            court = inset(block, self.courtyard_depth) if has_court else None
            if court is None or shortest_side(court) < 4.0:
                solid = extrude(block, 0.0, height)
            else:
                solid = ring(block, court, 0.0, height)
            city.add_building(solid, facade)
            nearest = block[np.argmin(np.linalg.norm(block - sites[square], axis=1))]
            masts.append((np.linalg.norm(nearest - sites[square]), nearest, block, height))
        city.add_mast(sites[square], 10.0)
        for _, corner, block, height in sorted(masts, key=lambda mast: mast[0])[:3]:
            city.add_roof_mast(corner, block.mean(axis=0), height)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Campus(CityConfig):
    """Detached buildings of any orientation on open ground, with groups of trees and two roads.

    Attributes:
        size: Extent along x and y in metres.
        buildings: Number of buildings.
        building_length: Lengths of the buildings in metres, a range.
        building_width: Widths of the buildings in metres, a range.
        height: Heights of the buildings in metres, a range.
        road_width: Width of the two roads that cross in the middle, in metres.
        trees: Number of trees.
        lawn: Material between the roads.
    """

    KIND: ClassVar[str] = "campus"

    size: Size = (340.0, 300.0)
    buildings: NonNegativeInt = 16
    building_length: PositiveInterval = (25.0, 65.0)
    building_width: PositiveInterval = (13.0, 22.0)
    height: PositiveInterval = (7.0, 26.0)
    road_width: NonNegative = 10.0
    trees: NonNegativeInt = 90
    lawn: Material = "medium_dry_ground"

    def _lay_out(self, city, rng):
        half = np.array(self.size) / 2
        _cross_ground(city, half + self.margin, self.road_width / 2, self.ground, self.lawn)
        taken = []
        for _ in range(200 * self.buildings):
            if len(taken) == self.buildings:
                break
            length, width = rng.uniform(*self.building_length), rng.uniform(*self.building_width)
            reach = np.hypot(length, width) / 2
            place = rng.uniform(-1, 1, 2) * (half - reach)
            yaw = rng.integers(12) * np.pi / 12
            height = round(rng.uniform(*self.height), 1)
            if np.abs(place).min() < reach + self.road_width / 2 + 3.0:
                continue
            if any(np.linalg.norm(place - p) < reach + r + 8.0 for p, r in taken):
                continue
            taken.append((place, reach))
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2)
            turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
            outline = corners @ turn + place
            city.add_building(extrude(outline, 0.0, height), self._facade(rng))
            if len(taken) <= 3:
                corner = outline[np.argmin(np.linalg.norm(outline, axis=1))]
                city.add_roof_mast(corner, place, height)
        else:
            raise ValueError(
                "The campus has no room for the buildings. Received: "
                f"size={self.size}, buildings={self.buildings}"
            )
        city.add_mast((self.road_width / 2 + 2.0, self.road_width / 2 + 2.0), 12.0)
        groups = rng.uniform(-1, 1, (max(1, self.trees // 8), 2)) * half
        places = []
        for _ in range(100 * self.trees):
            if len(places) == self.trees:
                break
            place = groups[rng.integers(len(groups))] + rng.normal(0, 9.0, 2)
            if np.any(np.abs(place) > half) or np.abs(place).min() < self.road_width / 2 + 4.0:
                continue
            if any(np.linalg.norm(place - p) < r + 3.5 for p, r in taken):
                continue
            if any(np.linalg.norm(place - p) < 4.0 for p in places):
                continue
            places.append(place)
        if places:
            city.add_trees(places, rng)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suburb(CityConfig):
    """Detached houses with gable roofs on lots along parallel roads, with gardens and trees.

    Attributes:
        blocks: Number of blocks along x and y.
        lots: Lots along one side of a block; every block has two rows of them.
        lot_size: Smallest and largest side of a lot in metres: along the road, away from it.
        road_width: Width of the roads in metres.
        eaves: Heights of the eaves in metres, a range.
        trees_per_lot: Trees in each garden.
        lawn: Material of the gardens.
    """

    KIND: ClassVar[str] = "suburb"

    blocks: tuple[PositiveInt, PositiveInt] = (3, 4)
    facades: Annotated[tuple[Material, ...], FILLED] = ("brick", "wood")
    lots: PositiveInt = 4
    lot_size: Size = (22.0, 30.0)
    road_width: NonNegative = 9.0
    eaves: PositiveInterval = (3.5, 6.5)
    trees_per_lot: NonNegativeInt = 1
    lawn: Material = "medium_dry_ground"

    def _lay_out(self, city, rng):
        along, deep = self.lot_size
        block = np.array([self.lots * along, 2 * deep])
        pitch = block + self.road_width
        counts = np.array(self.blocks, dtype=int)
        extent = counts * pitch + self.road_width
        lows = [
            -extent / 2 + self.road_width + pitch * (i, j)
            for j in range(counts[1])
            for i in range(counts[0])
        ]
        city.add_ground([(low, low + block) for low in lows], material=self.lawn)
        x, y = -extent / 2
        strips = [
            ((x, y + j * pitch[1]), (x + extent[0], y + j * pitch[1] + self.road_width))
            for j in range(counts[1] + 1)
        ]
        for j in range(counts[1]):
            floor = y + j * pitch[1] + self.road_width
            for i in range(counts[0] + 1):
                left = x + i * pitch[0]
                strips.append(((left, floor), (left + self.road_width, floor + block[1])))
        city.add_ground(strips, name="road", material=self.ground)
        places = []
        for low in lows:
            for lot in range(2 * self.lots):
                column, side = lot % self.lots, lot // self.lots
                centre = low + np.array([(column + 0.5) * along, (side + 0.5) * deep])
                # Houses stand nearer to the road than to the back of the garden.
                place = centre + rng.uniform(-1.5, 1.5, 2) + (0.0, 4.0 * (2 * side - 1))
                length, width = rng.uniform(9.0, 14.0), rng.uniform(7.5, 9.5)
                eaves = round(rng.uniform(*self.eaves), 1)
                solid = house(length, width, eaves, eaves + 0.4 * width)
                yaw = rng.integers(2) * np.pi / 2 + rng.normal(0, 0.03)
                city.add_building(solid.moved((*place, 0.0), yaw), self._facade(rng))
                for _ in range(self.trees_per_lot):
                    back = np.array([rng.uniform(-0.35, 0.35) * along, 0.36 * deep])
                    places.append(centre + back * (1, 1 - 2 * side))
        if places:
            city.add_trees(places, rng, height=(5.0, 10.0))
        crossing = np.array([x, y]) + (counts // 2) * pitch + self.road_width
        city.add_mast(crossing + 1.0, 15.0)
        city.add_mast(crossing + np.array([pitch[0] - self.road_width - 1.0, 1.0]), 10.0)
        city.add_mast(crossing - np.array([1.0 + self.road_width, pitch[1] + 1.0]), 12.0)


def _some_of(places, cars, rng):
    """Places for parked cars, drawn without order from those that there are."""
    if cars > len(places):
        raise ValueError(
            f"The streets have room for {len(places)} parked cars. Received: cars={cars}"
        )
    return [places[index] for index in np.sort(rng.permutation(len(places))[:cars])]


def _cross_ground(city, reach, half_road, road, lawn):
    """Two crossing roads and the four lawns between them."""
    x, y = reach
    h = half_road
    corners = [((-x, -y), (-h, -h)), ((h, -y), (x, -h)), ((-x, h), (-h, y)), ((h, h), (x, y))]
    city.add_ground(corners, material=lawn)
    strips = [((-x, -h), (x, h)), ((-h, -y), (h, -h)), ((-h, h), (h, y))]
    city.add_ground(strips, name="road", material=road)


CITIES: dict[str, type[CityConfig]] = {
    each.KIND: each for each in (StreetCanyon, ManhattanGrid, OldTown, Campus, Suburb)
}


def city_config(source: PathLike | Mapping[str, Any]) -> CityConfig:
    """The configuration of a city, one of `CITIES`' classes, from a TOML file or a dictionary.

    It holds `kind`, a key of `CITIES`, and attributes of its class.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the kind or an attribute is unknown or out of range.
    """
    values = dict(source) if isinstance(source, Mapping) else read_toml(source)
    try:
        kind = values.get("kind")
        if kind not in CITIES:
            raise ValueError(f"kind: expected one of {', '.join(CITIES)}. Received: kind={kind!r}")
        return CITIES[kind].from_dict(values)
    except ValueError as error:
        raise error if isinstance(source, Mapping) else ValueError(f"{source}: {error}") from error


def build_city(config: CityConfig, folder: PathLike) -> dict[str, Any]:
    """Builds a city: `scene.xml`, `meshes/*.ply` and `city.json` with what was built.

    Args:
        config: An instance of one of `CITIES`' classes.
        folder: Path of the scene's folder; made if missing.

    Returns:
        dict, the content of `city.json`: `config`, `base_stations` (metres), `cars` (names of
        objects that may move), `num_buildings`, `num_faces`, `materials`, `extent` (metres).
    """
    city = config.layout()
    objects = city.objects
    write_scene(folder, objects)
    bounds = np.array([each.mesh.bounds for each in objects])
    extent = bounds[:, 1].max(axis=0) - bounds[:, 0].min(axis=0)
    facts = {
        "config": config.to_dict(),
        "base_stations": [list(place) for place in city.base_stations],
        "cars": [each.name for each in objects if each.name.startswith("car_")],
        "num_buildings": city.num_buildings,
        "num_faces": sum(len(each.mesh.faces) for each in objects),
        "materials": sorted({each.material for each in objects}),
        "extent": np.round(extent, 1).tolist(),
    }
    with atomic_path(pathlib.Path(folder) / "city.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts
