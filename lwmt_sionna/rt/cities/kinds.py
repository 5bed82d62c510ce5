"""Kinds of cities, each from a few parameters and a seed.

The same parameters give the same city, byte by byte. NumPy alone; nothing is traced here.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from lwmt_sionna.rt.cities.parts import (
    CityConfig,
    Material,
    Range,
    Size,
    clip_polygon,
    extrude,
    house,
    inset,
    ring,
    row,
    row_stations,
    shortest_side,
    without_short_sides,
)
from lwmt_sionna.rt.scenes.files import write_scene
from lwmt_sionna.runs.configuration import (
    FILLED,
    NonNegative,
    NonNegativeInt,
    PositiveInt,
    read_toml,
)
from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.typing import Array, PathLike


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
    house_width: Range = (10.0, 24.0)
    height: Range = (11.0, 22.0)
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
    house_width: Range = (16.0, 40.0)
    height: Range = (12.0, 80.0)
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
    height: Range = (9.0, 19.0)
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
    building_length: Range = (25.0, 65.0)
    building_width: Range = (13.0, 22.0)
    height: Range = (7.0, 26.0)
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
    eaves: Range = (3.5, 6.5)
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
    """The configuration of a city from a TOML file or a dictionary.

    Args:
        source: Path of a TOML file, or dict: `kind`, a key of `CITIES`, and attributes of its
            class. An unknown key is an error.

    Returns:
        An instance of one of `CITIES`' classes.

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
