"""Trajectories of users: straight, along streets, between waypoints, around circles, from files.

Users of one call share a clock. What is sampled is a window of a longer trip, so that snapshots
see users that accelerate, slow down in turns, and stand. Cars drive along streets like users.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lwmt_sionna.rt.motion.ground import Ring, Terrain, free_space, is_free_way
from lwmt_sionna.rt.motion.routes import Drive, Route, offset_polyline, simplify_polyline
from lwmt_sionna.rt.motion.trips import read_trips, windows_of_trips
from lwmt_sionna.runs.configuration import Config, NonNegative, PositiveInterval
from lwmt_sionna.typing import Array, ArrayLike, Random

_MAX_TRIES = 60
_MAX_ROUNDS = 200
_CLOSEST_WAYPOINT = 4.0
# Metres kept free around straight tracks, and around objects that move.
_CLEARANCE = 0.5
_GAP = 1.0
# Of objects that move: metres to the right of the middle of a street, metres per second.
_LANE = 1.75
_SLOWEST = 1.0


@dataclasses.dataclass(frozen=True)
class Clock:
    """Instants that all who move together share.

    Attributes:
        num_snapshots: Number of snapshots.
        sampling_period: Time between snapshots in seconds.
    """

    num_snapshots: int
    sampling_period: float

    @property
    def time(self) -> Array:
        """Instants of the snapshots in seconds, float64 `[num_snapshots]`, from zero."""
        return self.sampling_period * np.arange(self.num_snapshots)


def derive_velocity(position: ArrayLike, sampling_period: float) -> Array:
    """Velocities of sampled positions: central differences, of second order at both ends too.

    float64 in metres per second, of the shape of the positions in metres `[..., num_snapshots, 3]`,
    a period in seconds apart; zero for a single snapshot.
    """
    position = np.asarray(position, dtype=np.float64)
    num_snapshots = position.shape[-2]
    if num_snapshots == 1:
        return np.zeros_like(position)
    order = 2 if num_snapshots > 2 else 1
    return np.gradient(position, sampling_period, axis=-2, edge_order=order)


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Users that move at the same time: snapshot `t` is the same instant for all of them.

    Attributes:
        position: float64 `[num_tracks, num_snapshots, 3]`, metres.
        sampling_period: Time between snapshots in seconds.
    """

    position: Array
    sampling_period: float

    def __post_init__(self) -> None:
        position = np.asarray(self.position, dtype=np.float64)
        object.__setattr__(self, "position", position)
        if position.ndim != 3 or position.shape[-1] != 3 or not np.isfinite(position).all():
            raise ValueError(
                "position must be finite and of shape [num_tracks, num_snapshots, 3]. Received: "
                f"position.shape={position.shape}"
            )
        if not self.sampling_period > 0:
            raise ValueError(
                "sampling_period must be positive. Received: "
                f"sampling_period={self.sampling_period}"
            )

    @property
    def time(self) -> Array:
        """Instants of the snapshots in seconds, float64 `[num_snapshots]`, from zero."""
        return self.sampling_period * np.arange(self.position.shape[1])

    @property
    def velocity(self) -> Array:
        """Metres per second, float64 `[num_tracks, num_snapshots, 3]`, from the positions."""
        return derive_velocity(self.position, self.sampling_period)

    @property
    def speed(self) -> Array:
        """Mean speed along each track in metres per second, float64 `[num_tracks]`."""
        if self.position.shape[1] == 1:
            return np.zeros(len(self.position))
        step = np.linalg.norm(np.diff(self.position, axis=1), axis=-1)
        return step.mean(axis=1) / self.sampling_period


@dataclasses.dataclass(frozen=True)
class MovingObject:
    """An object of the scene that moves, such as a car, on the clock of the users.

    Attributes:
        name: Name of the object in `Scene.objects` of Sionna RT. The scene has to be loaded so that
            the object is not merged with others (`load_scene` keeps cars apart).
        position: float64 `[num_snapshots, 3]`, metres. Centre of the object's bounding box, which
            is what `SceneObject.position` of Sionna RT means.
        orientation: float64 `[num_snapshots]`, radians. Rotation about the vertical axis through
            that centre, counter-clockwise from above and relative to the pose that the scene's
            file gives the object: the first angle of `SceneObject.orientation`.
    """

    name: str
    position: Array
    orientation: Array

    def __post_init__(self) -> None:
        position = np.asarray(self.position, dtype=np.float64)
        orientation = np.asarray(self.orientation, dtype=np.float64)
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "orientation", orientation)
        if position.ndim != 2 or position.shape[1] != 3 or orientation.shape != position.shape[:1]:
            raise ValueError(
                "position must be of shape [num_snapshots, 3] and orientation of shape "
                f"[num_snapshots]. Received: name={self.name}, position.shape={position.shape}, "
                f"orientation.shape={orientation.shape}"
            )

    def velocity(self, sampling_period: float) -> Array:
        """Velocities in metres per second, float64 `[num_snapshots, 3]`: see `derive_velocity`."""
        return derive_velocity(self.position, sampling_period)


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
    stop_duration: tuple[float, float]
    trip: tuple[float, float]


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
class TrajectoryConfig(Config):
    """How users move; which speeds they have is said elsewhere.

    Attributes:
        kind: "straight" (lines at constant speed), "street" (along the middle of streets, rounded
            corners, stops), "random_waypoint" (straight between random places, a pause at each),
            "circular", or "file".
        regime: "pedestrian" or "vehicular": accelerations, turns and clearances, see `REGIMES`.
        file: Path of a file of trips, for the kind "file"; see `read_trips`.
        origin: Of trips in degrees: latitude and longitude of the scene's origin.
        crs: Of trips in degrees: the map coordinates of the scene; see `local_metres`.
        radius: Smallest and largest radius of circles in metres; larger ones are taken where the
            speed asks for them.
        lane: Metres to the right of the middle of a street.
        slowest_kmh: Windows with a smaller mean speed are drawn again; zero keeps users that stand.
        user_height: Height of the users above the ground in metres.
    """

    kind: Literal["straight", "street", "random_waypoint", "circular", "file"] = "straight"
    regime: Literal["pedestrian", "vehicular"] = "vehicular"
    file: str = ""
    origin: tuple[float, float] | None = None
    crs: str = ""
    radius: PositiveInterval = (5.0, 30.0)
    lane: float = 0.0
    slowest_kmh: NonNegative = 0.5
    user_height: NonNegative = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind == "file") != bool(self.file):
            raise ValueError(
                "The kind 'file', and no other, wants a file. Received: "
                f"kind={self.kind!r}, file={self.file!r}"
            )
        if self.kind != "file" and (self.origin is not None or self.crs):
            raise ValueError(
                "origin and crs are of trips from files. Received: "
                f"kind={self.kind!r}, origin={self.origin}, crs={self.crs!r}"
            )


def sample_tracks(
    terrain: Terrain,
    rng: Random,
    config: TrajectoryConfig,
    *,
    num_tracks: int,
    clock: Clock,
    speed: ArrayLike,
    ring: Ring,
) -> Tracks:
    """Draws users that move at the same time around a base station.

    Every place of every user lies over open ground, and no way crosses a wall: rays are cast
    against the scene. Velocities follow from the positions.

    Args:
        terrain: `Terrain`, such as `load_scene` returns.
        num_tracks: Number of users.
        clock: `Clock` that the users share.
        speed: Cruising speed in metres per second: a float, or float `[num_tracks]`. Trips from
            files have their own.
        ring: `Ring` that users start in. Trips may lead out of it; those from files are not held
            to it.

    Raises:
        ValueError: If there is too little open ground, or a trip of the file leaves it.
    """
    users: dict[str, Any] = {"num_tracks": num_tracks, "user_height": config.user_height}
    if config.kind == "straight":
        return sample_straight_tracks(terrain, rng, clock=clock, speed=speed, ring=ring, **users)
    time = clock.time
    slowest = config.slowest_kmh / 3.6
    if config.kind == "file":
        trips = read_trips(config.file, config.origin, config.crs)
        position = windows_of_trips(terrain, rng, trips, time, slowest=slowest, **users)
        return Tracks(position, clock.sampling_period)
    regime = REGIMES[config.regime]
    reach = ring.max_distance + (regime.trip[1] / 2 if config.kind == "street" else 50.0)
    space = _space_around(terrain, ring, reach, regime)
    draw = {"street": _street, "random_waypoint": _waypoints, "circular": _circle}[config.kind]
    position = np.empty((num_tracks, clock.num_snapshots, 3))
    for track, pace in enumerate(np.broadcast_to(np.asarray(speed, float), (num_tracks,))):
        for _ in range(_MAX_TRIES):
            xy = draw(terrain, rng, config, regime, space, ring, float(pace), time)
            if xy is None:
                continue
            mean = np.linalg.norm(np.diff(xy, axis=0), axis=1).sum() / max(time[-1], 1e-12)
            if clock.num_snapshots > 1 and mean < slowest:
                continue
            height, is_ground = terrain.drop_to_ground(xy)
            if is_ground.all():
                position[track] = np.column_stack([xy, height + config.user_height])
                break
        else:
            raise ValueError(
                f"In {_MAX_TRIES} tries no trajectory of the kind was found around the base "
                f"station. Received: scene={terrain.name}, kind={config.kind}, "
                f"regime={config.regime}, centre={ring.centre}, speed={pace:.1f} m/s"
            )
    return Tracks(position, clock.sampling_period)


def _space_around(terrain, ring, reach, regime):
    return free_space(terrain, ring.centre, reach, regime.cell, regime.clearance + 0.3)


def sample_straight_tracks(
    terrain: Terrain,
    rng: Random,
    *,
    num_tracks: int,
    clock: Clock,
    speed: ArrayLike,
    ring: Ring,
    user_height: float = 1.5,
) -> Tracks:
    """Draws straight outdoor tracks at constant speed around a base station.

    Start points are uniform over the open ground of a ring, directions uniform over the circle. A
    track is taken when its whole length, and half a metre beyond both ends and to both sides, lies
    over open ground and crosses no surface. Users keep `user_height` above the ground, sloping
    ground included.

    The arguments are those of `sample_tracks`.

    Raises:
        ValueError: If the ring holds too little open ground to find the tracks.
    """
    speed = np.broadcast_to(np.asarray(speed, dtype=np.float64), (num_tracks,))
    duration = (clock.num_snapshots - 1) * clock.sampling_period
    start = np.full((num_tracks, 3), np.nan)
    stop = np.full((num_tracks, 3), np.nan)
    open_slots = np.arange(num_tracks)
    for _ in range(_MAX_ROUNDS):
        # Every slot keeps the speed drawn for it, so rejection does not favour slow users.
        radius = np.sqrt(rng.uniform(ring.min_distance**2, ring.max_distance**2, open_slots.size))
        azimuth, heading = rng.uniform(0.0, 2 * np.pi, (2, open_slots.size))
        first = np.array(ring.centre) + radius[:, None] * _unit(azimuth)
        last = first + (speed[open_slots] * duration)[:, None] * _unit(heading)
        first, last, free = _place(terrain, first, last, _unit(heading), user_height)
        start[open_slots[free]] = first[free]
        stop[open_slots[free]] = last[free]
        open_slots = open_slots[~free]
        if open_slots.size == 0:
            break
    else:
        raise ValueError(
            "Too little open ground around the base station for the requested tracks. Received: "
            f"scene={terrain.name}, centre={ring.centre}, max_distance={ring.max_distance}, found "
            f"{num_tracks - open_slots.size} of num_tracks={num_tracks}"
        )
    progress = np.linspace(0.0, 1.0, clock.num_snapshots)[None, :, None]
    position = start[:, None] + progress * (stop - start)[:, None]
    return Tracks(position, clock.sampling_period)


def _unit(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _place(terrain, first, last, heading, user_height):
    """Lifts tracks to user height; tells which of them stay over open, unobstructed ground."""
    along = _CLEARANCE * heading
    across = _CLEARANCE * np.stack([-heading[:, 1], heading[:, 0]], axis=-1)
    free = np.ones(len(first), dtype=bool)
    heights = []
    for point in (first, last, first - along, last + along, (first + last) / 2):
        for offset in (0.0, across, -across):
            height, is_ground = terrain.drop_to_ground(point + offset)
            free &= is_ground
            heights.append(height)
    first = np.column_stack([first, heights[0] + user_height])
    last = np.column_stack([last, heights[3] + user_height])
    for offset in (0.0, across, -across):
        lateral = np.column_stack([np.broadcast_to(offset, along.shape), np.zeros(len(along))])
        ahead = np.column_stack([along, np.zeros(len(along))])
        free &= terrain.segment_is_free(first - ahead + lateral, last + ahead + lateral)
    return first, last, free


def _street_trip(terrain, rng, config, regime, space, ring, pace, duration):
    """`Route` and `Drive` of a trip along streets of at least a duration, or `None`."""
    start = space.draw(rng, ring, least_area=regime.trip[0] * 2 * regime.clearance)
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
    if not is_free_way(terrain, trace, config.user_height, regime.clearance):
        return None
    stops = _stops(rng, route.length, regime)
    return route, _drive(route, pace, regime, stops, rolling=True)


def _drive(route, pace, regime, stops, rolling=False):
    return Drive.plan(
        route,
        pace,
        acceleration=regime.acceleration,
        deceleration=regime.deceleration,
        lateral_acceleration=regime.lateral_acceleration,
        stops=stops,
        rolling=rolling,
    )


def _stops(rng, length, regime):
    count = rng.poisson(length / regime.stop_spacing)
    places = np.sort(rng.uniform(0.1 * length, 0.9 * length, count))
    return [(float(place), float(rng.uniform(*regime.stop_duration))) for place in places]


def _street(terrain, rng, config, regime, space, ring, pace, time):
    trip = _street_trip(terrain, rng, config, regime, space, ring, pace, time[-1])
    return None if trip is None else _window(rng, *trip, time)


def _window(rng, route, drive, time):
    """Positions in a window of a trip, or `None` where the trip is too short."""
    spare = drive.duration - time[-1]
    return route.position(drive.at(rng.uniform(0.0, spare) + time)) if spare >= 0 else None


def _waypoints(terrain, rng, config, regime, space, ring, pace, time):
    start = space.draw(rng, ring)
    if start is None:
        return None
    points = [space.ground.centres[tuple(start)] + _jitter(rng, regime)]
    # Enough legs for the window, whatever share of the trip it takes.
    least = max(2.0 * pace * time[-1], 3 * _CLOSEST_WAYPOINT)
    length = 0.0
    for _ in range(_MAX_TRIES):
        if length >= least and len(points) > 2:
            break
        goal = space.draw(rng, Ring(points[-1], _CLOSEST_WAYPOINT, 60.0))
        if goal is None:
            return None
        place = space.ground.centres[tuple(goal)] + _jitter(rng, regime)
        leg = np.array([points[-1], place])
        if space.is_clear(*leg) and is_free_way(terrain, leg, config.user_height, regime.clearance):
            points.append(place)
            length += float(np.linalg.norm(leg[1] - leg[0]))
    else:
        return None
    route = Route(points)
    corners = np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))
    stops = [(float(place), float(rng.uniform(*regime.stop_duration))) for place in corners]
    return _window(rng, route, _drive(route, pace, regime, stops), time)


def _jitter(rng, regime):
    # Places are not confined to the centres of cells; clearances are checked where they are.
    return rng.uniform(-0.3, 0.3, 2) * regime.cell


def _circle(terrain, rng, config, regime, space, ring, pace, time):
    start = space.draw(rng, ring)
    if start is None:
        return None
    least = max(config.radius[0], pace**2 / regime.lateral_acceleration)
    radius = rng.uniform(least, max(config.radius[1], least))
    angle = rng.uniform(0.0, 2 * np.pi)
    centre = space.ground.centres[tuple(start)] - radius * np.array([np.cos(angle), np.sin(angle)])
    length = max(pace * time[-1], 1e-6)
    route = Route.circle(centre, radius, angle, length, clockwise=bool(rng.integers(2)))
    passed = route.position(np.linspace(0.0, min(length, 2 * np.pi * radius), 200))
    if not is_free_way(terrain, passed, config.user_height, regime.clearance):
        return None
    return route.position(pace * time)


def sample_moving_objects(
    terrain: Terrain,
    rng: Random,
    names: Sequence[str],
    *,
    clock: Clock,
    speed: ArrayLike,
    ring: Ring,
    tracks: Tracks | None = None,
) -> list[MovingObject]:
    """Lets objects drive along streets, each in the lane on its right.

    An object leaves its place in the scene's file for a trip of its own, keeps its height over the
    ground, and turns its longer side along the street (which of its ends is the front, a mesh does
    not tell). No two of them, and none and a user, come nearer than a metre. Trips slower than a
    metre per second are drawn again.

    Args:
        terrain: As the clock, the cruising speeds and the ring where trips begin: see
            `sample_tracks`.
        names: Names of objects of the scene, such as some of `terrain.cars`.
        tracks: `Tracks` of users on the same clock to keep away from, or `None`.

    Raises:
        ValueError: If an object is none of the scene, or the streets have no room for all of them.
    """
    unknown = sorted(set(names) - set(terrain.objects))
    if unknown or len(set(names)) != len(names):
        raise ValueError(
            "names must be different objects of the scene, such as "
            f"{', '.join(terrain.cars[:8]) or 'none of this one'}. Received: {', '.join(names)}"
        )
    regime = REGIMES["vehicular"]
    config = TrajectoryConfig(kind="street", lane=_LANE)
    space = _space_around(terrain, ring, ring.max_distance + regime.trip[1] / 2, regime)
    time = clock.time
    taken = [] if tracks is None else [(track[:, :2], 0.0) for track in tracks.position]
    moving: list[MovingObject] = []
    for name, pace in zip(names, np.broadcast_to(np.asarray(speed, float), (len(names),))):
        middle, bottom, half_length, parked = _pose(terrain, name)
        ride = _ride_height(terrain, middle, bottom)
        for _ in range(_MAX_TRIES):
            trip = _street_trip(terrain, rng, config, regime, space, ring, float(pace), time[-1])
            if trip is None or trip[1].duration < time[-1]:
                continue
            route, drive = trip
            along = drive.at(rng.uniform(0.0, drive.duration - time[-1]) + time)
            xy = route.position(along)
            if along[-1] - along[0] < _SLOWEST * time[-1]:
                continue
            gaps = [np.linalg.norm(xy - way, axis=1).min() - size for way, size in taken]
            if min(gaps, default=np.inf) < half_length + _GAP:
                continue
            height, is_ground = terrain.drop_to_ground(xy)
            if is_ground.all():
                break
        else:
            raise ValueError(
                f"The streets have no room for the moving objects. Received: scene={terrain.name}, "
                f"names={', '.join(names)}, found {len(moving)} of them a way"
            )
        taken.append((xy, half_length))
        position = np.column_stack([xy, height + ride])
        moving.append(MovingObject(name, position, np.unwrap(route.heading(along)) - parked))
    return moving


def _ride_height(terrain, middle, bottom):
    """Height of an object's centre over the ground that it stands on."""
    under = np.array([[middle[0], middle[1], bottom - 1e-2]])
    fall = float(terrain.cast_rays(under, [[0.0, 0.0, -1.0]])[0][0])
    # Where nothing lies below, the object itself reaches the ground.
    return middle[2] - bottom + (fall + 1e-2 if np.isfinite(fall) else 0.0)


def _pose(terrain, name):
    """Centre of the bounding box, its lower height, half the length, heading of the longer side."""
    vertices = terrain.vertices_of(name)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    flat = vertices[:, :2] - vertices[:, :2].mean(axis=0)
    _, axes = np.linalg.eigh(flat.T @ flat)
    longest = axes[:, -1]
    half_length = float(np.max(np.abs((vertices[:, :2] - middle[:2]) @ longest)))
    return middle, vertices[:, 2].min(), half_length, float(np.arctan2(longest[1], longest[0]))
