"""What cities are made of: streets of houses, trees, cars, places for base stations, parameters."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np

from lwmt_sionna.rt.cities.solids import ellipsoid, extrude, quad
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

__all__ = [
    "City",
    "CityConfig",
    "clip_polygon",
    "inset",
    "row_stations",
    "shortest_side",
    "without_short_sides",
]

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
        """Notes a base station on a mast 3 m over a roof, 0.8 m from its corner.

        Args:
            corner: `(x, y)` of a corner of the roof in metres.
            centre: `(x, y)` of the roof's middle, towards which to step back.
            roof: Height of the roof in metres.
        """
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
    """Cuts a street front into houses.

    Args:
        length: Length of the front in metres.
        width: `(smallest, largest)` width of a house in metres.
        rng: `numpy.random.Generator`.

    Returns:
        float64 `[num_houses + 1]`, from 0 to `length`.
    """
    count = max(1, round(length / rng.uniform(*width)))
    share = rng.uniform(*width, count)
    return np.concatenate([[0.0], np.cumsum(share) * length / share.sum()])


def clip_polygon(polygon: ArrayLike, normal: ArrayLike, offset: float) -> Array:
    """The part of a convex polygon where `normal . p <= offset`.

    Args:
        polygon: Corners, counter-clockwise, float `[num_corners, 2]`.
        normal: float `[2]`.
        offset: float.

    Returns:
        float64 `[num_left, 2]`, perhaps empty.
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

    Args:
        polygon: Corners, counter-clockwise, float `[num_corners, 2]`.
        margin: Metres.

    Returns:
        float64 `[num_corners, 2]`, corner by corner, or `None` where the margin leaves no inside.
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
    """A convex polygon with corners taken away until every side is long enough.

    Args:
        polygon: Corners, float `[num_corners, 2]`.
        least: Metres.

    Returns:
        float64 `[num_left, 2]`, or `None` where fewer than three corners would be left.
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
        """Lays the city out.

        Returns:
            `City`.
        """
        city = City()
        self._lay_out(city, np.random.default_rng(self.seed))
        return city

    def _lay_out(self, city, rng):
        raise NotImplementedError

    def _facade(self, rng):
        return self.facades[rng.integers(len(self.facades))]
