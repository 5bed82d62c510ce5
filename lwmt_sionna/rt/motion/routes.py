"""Routes over a map and how they are driven: rounded corners, acceleration, stops."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from lwmt_sionna.typing import Array, ArrayLike

_STEP = 0.1


class Route:
    """A path in the plane, made of straight pieces and arcs that join without a kink.

    Args:
        points: Corners in metres, float `[num_points, 2]`, at least two.
        turn_radius: Radius in metres of the arcs that round the corners; smaller where a corner
            leaves no room for it, so that neighbouring arcs never overlap. Zero keeps the corners.

    Raises:
        ValueError: If there are fewer than two different points.
    """

    def __init__(self, points: ArrayLike, turn_radius: float = 0.0) -> None:
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(
                f"points must be finite and of shape [num_points, 2]. Received: {points.shape}"
            )
        points = points[np.concatenate([[True], np.any(np.diff(points, axis=0) != 0, axis=1)])]
        if len(points) < 2:
            raise ValueError("A route needs at least two different points. Received: points=1")
        # Rows of (start along the route, x, y, heading, curvature).
        self._pieces: list[tuple[float, ...]] = []
        self.length = 0.0
        legs = np.diff(points, axis=0)
        lengths = np.linalg.norm(legs, axis=1)
        headings = np.arctan2(legs[:, 1], legs[:, 0])
        trim = 0.0
        for leg in range(len(legs)):
            turn = cut = 0.0
            if leg + 1 < len(legs) and turn_radius > 0:
                turn = (headings[leg + 1] - headings[leg] + np.pi) % (2 * np.pi) - np.pi
                room = 0.49 * min(lengths[leg], lengths[leg + 1])
                # About-turns cannot be rounded within the corner.
                if 1e-6 < abs(turn) < 0.95 * np.pi:
                    cut = min(turn_radius * np.tan(abs(turn) / 2), room)
            forward = np.array([np.cos(headings[leg]), np.sin(headings[leg])])
            self._append(
                points[leg] + trim * forward, headings[leg], 0.0, lengths[leg] - trim - cut
            )
            if cut > 0:
                radius = cut / np.tan(abs(turn) / 2)
                corner = points[leg + 1] - cut * forward
                self._append(corner, headings[leg], np.sign(turn) / radius, radius * abs(turn))
            trim = cut

    @classmethod
    def circle(
        cls, centre: ArrayLike, radius: float, start: float, length: float, clockwise: bool = False
    ) -> Self:
        """A route of a length around a circle, in metres.

        `start` is the angle of the first point seen from the centre in radians.
        """
        route = cls.__new__(cls)
        route._pieces, route.length = [], 0.0
        sign = -1.0 if clockwise else 1.0
        point = np.asarray(centre) + radius * np.array([np.cos(start), np.sin(start)])
        route._append(point, start + sign * np.pi / 2, sign / radius, length)
        return route

    def _append(self, point, heading, curvature, length):
        if length > 0:
            self._pieces.append((self.length, *point, heading, curvature))
            self.length += float(length)

    def position(self, distance: ArrayLike) -> Array:
        """Points after metres along the route, clipped to it: float64 `[..., 2]`, metres."""
        x, y, heading, curvature, along = self._at(distance)
        bent = curvature != 0
        radius = 1.0 / np.where(bent, curvature, 1.0)
        later = heading + curvature * along
        dx = np.where(bent, radius * (np.sin(later) - np.sin(heading)), along * np.cos(heading))
        dy = np.where(bent, radius * (np.cos(heading) - np.cos(later)), along * np.sin(heading))
        return np.stack([x + dx, y + dy], axis=-1)

    def heading(self, distance: ArrayLike) -> Array:
        """Direction of travel in radians, counter-clockwise from x, float64 `[...]`."""
        _, _, heading, curvature, along = self._at(distance)
        return heading + curvature * along

    def curvature(self, distance: ArrayLike) -> Array:
        """Inverse radius of the route in 1/m, positive to the left, float64 `[...]`."""
        return self._at(distance)[3]

    def _at(self, distance):
        distance = np.clip(np.asarray(distance, dtype=np.float64), 0.0, self.length)
        table = np.array(self._pieces)
        piece = np.clip(np.searchsorted(table[:, 0], distance, side="right") - 1, 0, None)
        start, x, y, heading, curvature = np.moveaxis(table[piece], -1, 0)
        return x, y, heading, curvature, distance - start


@dataclasses.dataclass(frozen=True)
class Drive:
    """How a route is passed: the distance covered at every instant.

    Between the knots the acceleration is constant, so distance and speed are continuous.

    Attributes:
        time: Knots in seconds, float64 `[num_knots]`, ascending from zero.
        distance: Metres along the route at the knots, float64 `[num_knots]`.
        speed: Metres per second at the knots, float64 `[num_knots]`.
    """

    time: Array
    distance: Array
    speed: Array

    @classmethod
    def plan(
        cls,
        route: Route,
        cruise: float,
        *,
        acceleration: float,
        deceleration: float,
        lateral_acceleration: float,
        stops: Sequence[tuple[float, float]] = (),
        rolling: bool = False,
    ) -> Self:
        """The fastest drive within the limits.

        Args:
            cruise: Largest speed in metres per second.
            acceleration: Largest increase of speed in metres per second squared.
            deceleration: Largest decrease of speed in metres per second squared.
            lateral_acceleration: Largest speed squared times curvature in metres per second
                squared; it slows the drive in arcs.
            stops: Pairs of a place along the route in metres and a duration in seconds.
            rolling: Whether the drive begins and ends at full speed and not at rest.
        """
        if min(cruise, acceleration, deceleration, lateral_acceleration) <= 0:
            raise ValueError(
                "Speed and accelerations must be positive. Received: "
                f"cruise={cruise}, acceleration={acceleration}, deceleration={deceleration}, "
                f"lateral_acceleration={lateral_acceleration}"
            )
        stops = sorted((min(max(place, 0.0), route.length), pause) for place, pause in stops)
        count = max(2, int(np.ceil(route.length / _STEP)) + 1)
        grid = np.union1d(np.linspace(0.0, route.length, count), [place for place, _ in stops])
        bend = np.abs(route.curvature((grid[1:] + grid[:-1]) / 2))
        # Limits hold on whole cells; a knot obeys both of its cells.
        cell = np.minimum(cruise**2, lateral_acceleration / np.maximum(bend, 1e-9))
        square = np.minimum(np.append(cell, cell[-1]), np.insert(cell, 0, cell[0]))
        if not rolling:
            square[[0, -1]] = 0.0
        square[np.isin(grid, [place for place, _ in stops])] = 0.0
        step = np.diff(grid)
        for k in range(len(step)):
            square[k + 1] = min(square[k + 1], square[k] + 2 * acceleration * step[k])
        for k in range(len(step) - 1, -1, -1):
            square[k] = min(square[k], square[k + 1] + 2 * deceleration * step[k])
        speed = np.sqrt(square)
        # Two neighbouring knots at rest would never be passed; creep there.
        passing = np.maximum(speed[1:] + speed[:-1], 1e-3)
        time = np.concatenate([[0.0], np.cumsum(2 * step / passing)])
        for place, pause in stops:
            index = int(np.searchsorted(grid, place))
            # A knot before and after the pause; a later stop at the same place adds to it.
            time = np.concatenate([time[: index + 1], time[index:] + pause])
            grid = np.insert(grid, index, grid[index])
            speed = np.insert(speed, index, speed[index])
        return cls(time, grid, speed)

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return float(self.time[-1])

    def at(self, time: ArrayLike) -> Array:
        """Metres along the route at instants in seconds `[...]`, clipped to the drive: float64."""
        time = np.clip(np.asarray(time, dtype=np.float64), 0.0, self.duration)
        knot = np.clip(np.searchsorted(self.time, time, side="right") - 1, 0, len(self.time) - 2)
        span = self.time[knot + 1] - self.time[knot]
        after = time - self.time[knot]
        rise = self.speed[knot + 1] - self.speed[knot]
        rate = np.divide(rise, span, out=np.zeros_like(span), where=span > 0)
        covered = self.distance[knot] + self.speed[knot] * after + rate * after**2 / 2
        return np.minimum(covered, self.distance[knot + 1])


def simplify_polyline(points: ArrayLike, tolerance: float) -> Array:
    """Drops points of a polyline that lie within a tolerance of it (Douglas and Peucker, 1973).

    `[num_points, 2]` in metres; the first and last point stay.
    """
    points = np.asarray(points, dtype=np.float64)
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    open_spans = [(0, len(points) - 1)]
    while open_spans:
        first, last = open_spans.pop()
        if last - first < 2:
            continue
        along = points[last] - points[first]
        between = points[first + 1 : last] - points[first]
        length = np.linalg.norm(along)
        if length > 0:
            share = np.clip(between @ along / length**2, 0.0, 1.0)
            between = between - share[:, None] * along
        off = np.linalg.norm(between, axis=1)
        worst = int(np.argmax(off))
        if off[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            open_spans += [(first, middle), (middle, last)]
    return points[keep]


def offset_polyline(points: ArrayLike, offset: float) -> Array:
    """A polyline `[num_points, 2]` shifted to one side, such as to a lane, in metres.

    Positive offsets go to the left of the direction of travel.
    """
    points = np.asarray(points, dtype=np.float64)
    legs = np.diff(points, axis=0)
    legs /= np.linalg.norm(legs, axis=1, keepdims=True)
    left = np.column_stack([-legs[:, 1], legs[:, 0]])
    before, after = np.concatenate([left[:1], left]), np.concatenate([left, left[-1:]])
    # At a corner the shift of both legs is kept; sharp corners are cut off.
    total = before + after
    size = np.maximum(np.sum(total**2, axis=1, keepdims=True), 1.0)
    return points + 2 * offset * total / size
