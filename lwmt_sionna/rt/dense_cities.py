"""Cities of closed streets: street canyon, Manhattan grid, old town."""

import dataclasses
from typing import ClassVar

import numpy as np

from lwmt_sionna.rt.city_base import CityConfig
from lwmt_sionna.rt.city_parts import (
    clip_polygon,
    inset,
    row_stations,
    shortest_side,
    without_short_sides,
)
from lwmt_sionna.rt.meshes import extrude, ring, row

__all__ = ["ManhattanGrid", "OldTown", "StreetCanyon"]


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

    length: float = 240.0
    street_width: float = 18.0
    cross_streets: int = 2
    cross_width: float = 12.0
    depth: float = 14.0
    house_width: tuple = (10.0, 24.0)
    height: tuple = (11.0, 22.0)
    cars: int = 0
    tree_spacing: float = 0.0

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
        if self.cars > len(places):
            raise ValueError(
                f"The street has room for {len(places)} parked cars. Received: cars={self.cars}"
            )
        for index in np.sort(rng.permutation(len(places))[: self.cars]):
            x, y = places[index]
            city.add_car((x + rng.uniform(-0.5, 0.5), y), np.pi if y > 0 else 0.0)
        if self.tree_spacing > 0:
            line = np.arange(-self.length / 2 + 5.0, self.length / 2 - 5.0, self.tree_spacing)
            line = line[[not self._on_crossing(x, starts, front, 3.0) for x in line]]
            # Between the pavement and the parked cars.
            places = [(x, side * (half - 4.8)) for x in line for side in (-1, 1)]
            city.add_trees(places, rng, height=(5.0, 7.5))

    @staticmethod
    def _on_crossing(x, starts, front, clearance):
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

    blocks: tuple = (5, 4)
    block_size: tuple = (80.0, 50.0)
    street_widths: tuple = (24.0, 16.0)
    house_width: tuple = (16.0, 40.0)
    height: tuple = (12.0, 80.0)
    cars: int = 0

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
        if self.cars > len(places):
            raise ValueError(
                f"The streets have room for {len(places)} parked cars. Received: cars={self.cars}"
            )
        for index in np.sort(rng.permutation(len(places))[: self.cars]):
            city.add_car(places[index], np.pi)


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

    size: tuple = (320.0, 280.0)
    spacing: float = 48.0
    jitter: float = 0.3
    street_width: float = 9.0
    height: tuple = (9.0, 19.0)
    courtyard_share: float = 0.5
    courtyard_depth: float = 9.0

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
