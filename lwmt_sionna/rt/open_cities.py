"""Cities of detached buildings on open ground: campus, suburb."""

import dataclasses
from typing import ClassVar

import numpy as np

from lwmt_sionna.rt.city_base import CityConfig
from lwmt_sionna.rt.meshes import extrude, house

__all__ = ["Campus", "Suburb"]


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

    size: tuple = (340.0, 300.0)
    buildings: int = 16
    building_length: tuple = (25.0, 65.0)
    building_width: tuple = (13.0, 22.0)
    height: tuple = (7.0, 26.0)
    road_width: float = 10.0
    trees: int = 90
    lawn: str = "medium_dry_ground"

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

    blocks: tuple = (3, 4)
    facades: tuple = ("brick", "wood")
    lots: int = 4
    lot_size: tuple = (22.0, 30.0)
    road_width: float = 9.0
    eaves: tuple = (3.5, 6.5)
    trees_per_lot: int = 1
    lawn: str = "medium_dry_ground"

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


def _cross_ground(city, reach, half_road, road, lawn):
    """Two crossing roads and the four lawns between them."""
    x, y = reach
    h = half_road
    corners = [((-x, -y), (-h, -h)), ((h, -y), (x, -h)), ((-x, h), (-h, y)), ((h, h), (x, y))]
    city.add_ground(corners, material=lawn)
    strips = [((-x, -h), (x, h)), ((-h, -y), (h, -h)), ((-h, h), (h, y))]
    city.add_ground(strips, name="road", material=road)
