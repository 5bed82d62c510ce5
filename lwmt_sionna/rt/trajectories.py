"""Trajectories of users: straight, along streets, between waypoints, around circles, from files.

Users of one call share a clock. What is sampled is a window of a longer trip, so that snapshots
see users that accelerate, slow down in turns, and stand.
"""

import dataclasses

import numpy as np

from lwmt_sionna.rt.motion import Tracks
from lwmt_sionna.rt.navigation import free_space, is_free_way
from lwmt_sionna.rt.routes import Drive, Route, offset_polyline, simplify_polyline
from lwmt_sionna.rt.scenes import drop_to_ground
from lwmt_sionna.rt.straight import sample_straight_tracks
from lwmt_sionna.rt.track_files import read_trips, windows_of_trips

__all__ = ["KINDS", "REGIMES", "TrajectoryConfig", "sample_straight_tracks", "sample_tracks"]

KINDS = ("straight", "street", "random_waypoint", "circular", "file")
_MAX_TRIES = 60
_CLOSEST_WAYPOINT = 4.0


@dataclasses.dataclass(frozen=True)
class Regime:
    """How a kind of user moves.

    Attributes:
        acceleration: Largest increase of speed, metres per second squared.
        deceleration: Largest decrease of speed, metres per second squared.
        lateral_acceleration: Largest speed squared times curvature, metres per second squared.
        turn_radius: Radius of the arcs around corners in metres.
        clearance: Distance kept from walls to both sides in metres.
        cell: Side of the cells of the map for finding ways, metres.
        stop_spacing: Mean distance between stops along streets in metres.
        stop_duration: Shortest and longest stop in seconds.
        trip: Shortest and longest trip along streets in metres.
    """

    acceleration: float
    deceleration: float
    lateral_acceleration: float
    turn_radius: float
    clearance: float
    cell: float
    stop_spacing: float
    stop_duration: tuple
    trip: tuple


REGIMES = {
    "pedestrian": Regime(
        acceleration=0.8,
        deceleration=1.0,
        lateral_acceleration=1.0,
        turn_radius=1.0,
        clearance=0.5,
        cell=1.0,
        stop_spacing=60.0,
        stop_duration=(2.0, 15.0),
        trip=(20.0, 150.0),
    ),
    "vehicular": Regime(
        acceleration=2.0,
        deceleration=2.5,
        lateral_acceleration=2.5,
        turn_radius=8.0,
        clearance=1.2,
        cell=2.0,
        stop_spacing=150.0,
        stop_duration=(2.0, 20.0),
        trip=(60.0, 400.0),
    ),
}


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """How users move; which speeds they have is said elsewhere.

    Attributes:
        kind: "straight" (lines at constant speed), "street" (along the middle of streets, rounded
            corners, stops), "random_waypoint" (straight between random places, a pause at each),
            "circular", or "file".
        regime: "pedestrian" or "vehicular": accelerations, turns and clearances, see `REGIMES`.
        file: Path of a CSV or NumPy file, for the kind "file"; see `read_trips`.
        radius: Smallest and largest radius of circles in metres; larger ones are taken where the
            speed asks for them.
        lane: Metres to the right of the middle of a street.
        slowest_kmh: Windows with a smaller mean speed are drawn again; zero keeps users that stand.
        user_height: Height of the users above the ground in metres.
    """

    kind: str = "straight"
    regime: str = "vehicular"
    file: str = ""
    radius: tuple = (5.0, 30.0)
    lane: float = 0.0
    slowest_kmh: float = 0.5
    user_height: float = 1.5

    def __post_init__(self):
        object.__setattr__(self, "radius", tuple(float(r) for r in self.radius))
        for name, choices in (("kind", KINDS), ("regime", tuple(REGIMES))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}. Received: "
                    f"{name}={getattr(self, name)!r}"
                )
        if (self.kind == "file") != bool(self.file):
            raise ValueError(
                "The kind 'file', and no other, wants a file. Received: "
                f"kind={self.kind!r}, file={self.file!r}"
            )
        if len(self.radius) != 2 or not 0 < self.radius[0] <= self.radius[1]:
            raise ValueError(
                "radius must be (smallest, largest) with 0 < smallest <= largest. Received: "
                f"radius={self.radius}"
            )
        for name in ("slowest_kmh", "user_height"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"{name} must be at least 0. Received: {name}={getattr(self, name)}"
                )


def sample_tracks(
    loaded,
    rng,
    config,
    *,
    num_tracks,
    num_snapshots,
    speed,
    sampling_period,
    centre,
    min_distance=15.0,
    max_distance=200.0,
):
    """Draws users that move at the same time around a base station.

    Every place of every user lies over open ground, and no way crosses a wall: rays are cast
    against the scene. Velocities follow from the positions.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        rng: `numpy.random.Generator`.
        config: `TrajectoryConfig`.
        num_tracks: Number of users.
        num_snapshots: Number of snapshots.
        speed: Cruising speed in metres per second: a float, or float `[num_tracks]`. Trips from
            files have their own.
        sampling_period: Time between snapshots in seconds.
        centre: Horizontal position of the base station in metres, `(x, y)`.
        min_distance: Inner radius in metres of the ring that users start in.
        max_distance: Outer radius in metres. Trips may lead out of the ring; those from files are
            not held to it.

    Returns:
        `lwmt_sionna.rt.motion.Tracks`.

    Raises:
        ValueError: If there is too little open ground, or a trip of the file leaves it.
    """
    if config.kind == "straight":
        return sample_straight_tracks(
            loaded,
            rng,
            num_tracks=num_tracks,
            num_snapshots=num_snapshots,
            speed=speed,
            sampling_period=sampling_period,
            centre=centre,
            min_distance=min_distance,
            max_distance=max_distance,
            user_height=config.user_height,
        )
    time = sampling_period * np.arange(num_snapshots)
    slowest = config.slowest_kmh / 3.6
    if config.kind == "file":
        trips = read_trips(config.file)
        position = windows_of_trips(
            loaded, rng, trips, time, num_tracks, slowest, config.user_height
        )
        return Tracks(position, sampling_period)
    regime = REGIMES[config.regime]
    reach = float(max_distance) + (regime.trip[1] / 2 if config.kind == "street" else 50.0)
    space = free_space(
        loaded, tuple(map(float, centre[:2])), reach, regime.cell, regime.clearance + 0.3
    )
    ring = (np.asarray(centre, dtype=np.float64)[:2], min_distance, max_distance)
    draw = {"street": _street, "random_waypoint": _waypoints, "circular": _circle}[config.kind]
    position = np.empty((num_tracks, num_snapshots, 3))
    for track, pace in enumerate(np.broadcast_to(np.asarray(speed, float), (num_tracks,))):
        for _ in range(_MAX_TRIES):
            xy = draw(loaded, rng, config, regime, space, ring, float(pace), time)
            if xy is None:
                continue
            mean = np.linalg.norm(np.diff(xy, axis=0), axis=1).sum() / max(time[-1], 1e-12)
            if num_snapshots > 1 and mean < slowest:
                continue
            height, is_ground = drop_to_ground(loaded, xy)
            if is_ground.all():
                position[track] = np.column_stack([xy, height + config.user_height])
                break
        else:
            raise ValueError(
                f"In {_MAX_TRIES} tries no trajectory of the kind was found around the base "
                f"station. Received: scene={loaded.name}, kind={config.kind}, "
                f"regime={config.regime}, centre={tuple(centre)}, speed={pace:.1f} m/s"
            )
    return Tracks(position, sampling_period)


def street_trip(loaded, rng, config, regime, space, ring, pace, duration):
    """A trip along streets of at least a duration, or `None` where the try fails.

    Returns:
        Tuple of a `Route` and a `Drive`.
    """
    start = space.draw(rng, *ring, least_area=regime.trip[0] * 2 * regime.clearance)
    if start is None:
        return None
    least = max(regime.trip[0], 1.2 * pace * duration)
    wanted = rng.uniform(least, max(regime.trip[1], 1.2 * least))
    cost, way = space.ways(start, 3.0 * wanted)
    # Ways along the middle of streets cost up to twice their length.
    goals = np.argwhere(np.isfinite(cost) & (cost > wanted) & (cost < 1.5 * wanted))
    if not len(goals):
        goals = np.argwhere(np.isfinite(cost) & (cost > least))
    if not len(goals):
        return None
    points = simplify_polyline(way(goals[rng.integers(len(goals))]), 1.5 * regime.cell)
    if config.lane:
        points = offset_polyline(points, -config.lane)
    route = Route(points, regime.turn_radius)
    if route.length < pace * duration:
        return None
    trace = route.position(np.linspace(0.0, route.length, max(2, int(route.length / 0.5))))
    if not is_free_way(loaded, trace, config.user_height, regime.clearance):
        return None
    stops = _stops(rng, route.length, regime)
    drive = Drive.plan(
        route,
        pace,
        acceleration=regime.acceleration,
        deceleration=regime.deceleration,
        lateral_acceleration=regime.lateral_acceleration,
        stops=stops,
        rolling=True,
    )
    return route, drive


def _stops(rng, length, regime):
    count = rng.poisson(length / regime.stop_spacing)
    places = np.sort(rng.uniform(0.1 * length, 0.9 * length, count))
    return [(float(place), float(rng.uniform(*regime.stop_duration))) for place in places]


def _street(loaded, rng, config, regime, space, ring, pace, time):
    trip = street_trip(loaded, rng, config, regime, space, ring, pace, time[-1])
    return None if trip is None else _window(rng, *trip, time)


def _window(rng, route, drive, time):
    """Positions in a window of a trip, or `None` where the trip is too short."""
    spare = drive.duration - time[-1]
    return route.position(drive.at(rng.uniform(0.0, spare) + time)) if spare >= 0 else None


def _waypoints(loaded, rng, config, regime, space, ring, pace, time):
    start = space.draw(rng, *ring)
    if start is None:
        return None
    points = [space.ground.centres[tuple(start)] + _jitter(rng, regime)]
    # Enough legs for the window, whatever share of the trip it takes.
    least = max(2.0 * pace * time[-1], 3 * _CLOSEST_WAYPOINT)
    length = 0.0
    for _ in range(_MAX_TRIES):
        if length >= least and len(points) > 2:
            break
        goal = space.draw(rng, points[-1], _CLOSEST_WAYPOINT, 60.0)
        if goal is None:
            return None
        place = space.ground.centres[tuple(goal)] + _jitter(rng, regime)
        leg = np.array([points[-1], place])
        if space.is_clear(*leg) and is_free_way(loaded, leg, config.user_height, regime.clearance):
            points.append(place)
            length += float(np.linalg.norm(leg[1] - leg[0]))
    else:
        return None
    route = Route(points)
    corners = np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))
    drive = Drive.plan(
        route,
        pace,
        acceleration=regime.acceleration,
        deceleration=regime.deceleration,
        lateral_acceleration=regime.lateral_acceleration,
        stops=[(float(place), float(rng.uniform(*regime.stop_duration))) for place in corners],
    )
    return _window(rng, route, drive, time)


def _jitter(rng, regime):
    # Places are not confined to the centres of cells; clearances are checked where they are.
    return rng.uniform(-0.3, 0.3, 2) * regime.cell


def _circle(loaded, rng, config, regime, space, ring, pace, time):
    start = space.draw(rng, *ring)
    if start is None:
        return None
    least = max(config.radius[0], pace**2 / regime.lateral_acceleration)
    radius = rng.uniform(least, max(config.radius[1], least))
    angle = rng.uniform(0.0, 2 * np.pi)
    centre = space.ground.centres[tuple(start)] - radius * np.array([np.cos(angle), np.sin(angle)])
    length = max(pace * time[-1], 1e-6)
    route = Route.circle(centre, radius, angle, length, clockwise=bool(rng.integers(2)))
    passed = route.position(np.linspace(0.0, min(length, 2 * np.pi * radius), 200))
    if not is_free_way(loaded, passed, config.user_height, regime.clearance):
        return None
    return route.position(pace * time)
