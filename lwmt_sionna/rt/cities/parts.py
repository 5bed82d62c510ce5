"""What cities are made of: solids, streets of houses, trees, cars, places for base stations.

Solids share vertices between their faces and wind counter-clockwise seen from outside. Both matter:
Sionna RT finds diffracting edges by the vertices that two faces share.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np

from lwmt_sionna.rt.scenes.files import MeshObject
from lwmt_sionna.rt.scenes.meshes import Mesh, join
from lwmt_sionna.runs.configuration import (
    FILLED,
    ORDERED,
    Config,
    NonNegative,
    NonNegativeInt,
    Positive,
)
from lwmt_sionna.typing import Array, ArrayLike, Random

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


# Smallest and largest, metres; extents along x and y, metres.
Range = Annotated[tuple[Positive, Positive], ORDERED]
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
