"""Trips of others: CSV, NumPy, tracks of GPX, floating car data of SUMO; in metres or degrees.

All become way points in the metres of a scene, from which windows are drawn.
"""

import csv
import dataclasses
import datetime
import functools
import pathlib
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np

from lwmt_sionna.data.array_files import ArrayReader
from lwmt_sionna.rt.motion.ground import Terrain
from lwmt_sionna.runs.shipped import how_to_install
from lwmt_sionna.typing import Array, ArrayLike, PathLike, Random

# Metres between places that are checked, windows drawn beyond those wanted.
_CHECK_STEP = 0.5
_SPARE_WINDOWS = 200
# A user for a day, ten times a second, has twenty megabytes.
_LARGEST_FILE = 2**28
_DEEPEST = 100
# Depth of <time> in <gpx><trk><trkseg><trkpt>.
_GPX_TIME = 5
# Of WGS 84: the longer half axis in metres, the squared eccentricity.
_AXIS = 6_378_137.0
_ECCENTRICITY = 0.00669437999014
# Metres from the origin, beyond which the plane is none, or degrees were taken for each other.
_FARTHEST = 1e5


@dataclasses.dataclass(frozen=True)
class Trip:
    """Way points of one user with their times.

    Attributes:
        name: What the file calls the user.
        time: Seconds, float64 `[num_points]`, ascending.
        position: Metres, float64 `[num_points, 2]`, or `[num_points, 3]` with heights of the
            antenna.
    """

    name: str
    time: Array
    position: Array

    def at(self, time: ArrayLike) -> Array:
        """Positions in metres, float64 `[num_times, 2 or 3]`, at instants in seconds `[num_times]`.

        Between way points each coordinate follows the monotone cubic of Fritsch and Butland
        (SIAM J. Sci. Stat. Comput. 5, 1984): velocities are continuous, and a user that stands in
        the file stands.
        """
        return self._curve(np.asarray(time, dtype=np.float64))

    @functools.cached_property
    def _curve(self):
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.time, self.position, axis=0)


def local_metres(
    latitude: ArrayLike,
    longitude: ArrayLike,
    origin: tuple[float, float] | None = None,
    crs: str = "",
) -> Array:
    """Places on the Earth in the metres of a scene, x to the east and y to the north.

    Without `crs` in the plane that touches the ellipsoid at the origin, where a place at the
    distance `d` is off by `d^3 / (6 R^2)` with the radius `R` of the Earth: 0.5 mm at 5 km.

    Args:
        latitude: Degrees of WGS 84, float `[...]`.
        longitude: Degrees, float `[...]`.
        origin: Latitude and longitude of the scene's origin in degrees.
        crs: Map coordinates that the scene is in, by any name that pyproj knows, such as
            "EPSG:32632" of UTM or a whole "+proj=tmerc ..."; less those of the origin, if given.

    Returns:
        float64 `[..., 2]`.

    Raises:
        ValueError: If neither origin nor crs is given, degrees or crs cannot be, or a place is
            more than 100 km from the origin.
        ImportError: If there is a crs and pyproj is not installed.

    Reference:
        National Imagery and Mapping Agency, "Department of Defense World Geodetic System 1984",
        TR8350.2, 2000, for the ellipsoid.

    Example:

    >>> local_metres(48.1374, 11.5755, origin=(48.1372, 11.5755)).round(2)
    array([ 0.  , 22.24])
    """
    if origin is None and not crs:
        raise ValueError(
            "Places in degrees need origin = [latitude, longitude] of the scene, or its crs. "
            f"Received: origin={origin}, crs={crs!r}"
        )
    places = np.stack(np.broadcast_arrays(latitude, longitude)).astype(np.float64)
    _check_degrees("latitude and longitude", *places)
    if origin is not None:
        _check_degrees("origin", *np.asarray(origin, np.float64))
    project = _map_projection(crs) if crs else _tangent_plane(origin)
    metres = project(*places)
    if not np.isfinite(metres).all():
        raise ValueError(f"The crs must have all of the places. Received: crs={crs!r}")
    if origin is not None:
        metres = metres - project(*np.asarray(origin, np.float64))
        farthest = np.linalg.norm(metres, axis=-1).max(initial=0.0)
        if farthest > _FARTHEST:
            raise ValueError(
                "Places must lie within 100 km of the origin; are latitude and longitude "
                f"exchanged, or metres? Received: origin={origin}, {farthest / 1e3:.0f} km away"
            )
    return metres


def _check_degrees(name, latitude, longitude):
    if not ((np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)).all():
        shown = [f"{np.min(each):g} to {np.max(each):g}" for each in (latitude, longitude)]
        raise ValueError(
            "Latitudes lie within 90 degrees, longitudes within 180. Received: "
            f"{name} of {shown[0]} and {shown[1]}"
        )


def _map_projection(crs):
    try:
        import pyproj
    except ImportError as error:
        raise ImportError(f"Map coordinates need pyproj: {how_to_install('maps')}") from error
    try:
        target = pyproj.CRS.from_user_input(crs)
        in_metres = target.is_projected and target.axis_info[0].unit_conversion_factor == 1.0
    except pyproj.exceptions.CRSError:
        in_metres = False
    if not in_metres:
        raise ValueError(
            "crs must be coordinates in metres that pyproj knows, such as 'EPSG:32632'. Received: "
            f"crs={crs!r}"
        )
    transformer = pyproj.Transformer.from_crs("EPSG:4326", target, always_xy=True)
    return lambda latitude, longitude: np.stack(transformer.transform(longitude, latitude), -1)


def _tangent_plane(origin):
    phi, lam = np.radians(origin)
    east = np.array([-np.sin(lam), np.cos(lam), 0.0])
    north = np.array([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    return lambda *place: _on_ellipsoid(*place) @ np.stack([east, north], axis=-1)


def _on_ellipsoid(latitude, longitude):
    """Geocentric metres `[..., 3]` of places in degrees."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    radius = _AXIS / np.sqrt(1.0 - _ECCENTRICITY * np.sin(phi) ** 2)
    around = radius * np.cos(phi)
    height = radius * (1.0 - _ECCENTRICITY) * np.sin(phi)
    return np.stack([around * np.cos(lam), around * np.sin(lam), height], axis=-1)


def read_trips(
    path: PathLike, origin: tuple[float, float] | None = None, crs: str = ""
) -> list[Trip]:
    """Reads trips.

    CSV: a header with the columns `time`, `x`, `y`, and perhaps `z` and `user`; one row per way
    point, in seconds and metres; in degrees, `lat` and `lon` take the places of `x` and `y`. NumPy
    (`.npz`): `time` float `[num_points]` and `position` float `[num_users, num_points, 2 or 3]` (or
    without the axis of users). GPX: each segment of a track is a trip. XML of SUMO's
    `--fcd-output`: vehicles, persons and containers; who leaves and comes back makes a new trip.
    Heights of GPX and SUMO are not those of antennas, and left out.

    Args:
        path: Path of the file.
        origin: Where the scene's origin lies, latitude and longitude in degrees. With it, or with a
            crs, what the file holds is in degrees (GPX always is; SUMO writes them with
            `--fcd-output.geo`), see `local_metres`.
        crs: Map coordinates of the scene.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If columns, elements or arrays are missing, a value is no number, or times do
            not ascend.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of trajectories here. Received: path={path}")
    if path.suffix not in (".csv", ".npz", *_XML):
        raise ValueError(f"Expected a file in .csv, .npz, .gpx or .xml. Received: path={path}")
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(
            f"A file of trips has at most {_LARGEST_FILE} bytes. Received: path={path}"
        )
    in_degrees = origin is not None or bool(crs)
    if path.suffix == ".npz":
        users = _read_npz(path, f"origin={origin}, crs={crs!r}" if in_degrees else "")
    else:
        users = _read_text(path, in_degrees)
    trips = []
    for name, (time, position) in users.items():
        if len(time) < 2 or np.any(np.diff(time) <= 0):
            raise ValueError(
                "The times of a user must ascend and be at least two. Received: "
                f"path={path}, user={name}"
            )
        if not (np.isfinite(time).all() and np.isfinite(position).all()):
            raise ValueError(f"Times and places must be finite. Received: path={path}, user={name}")
        if in_degrees:
            try:
                metres = local_metres(position[:, 0], position[:, 1], origin, crs)
            except ValueError as error:
                raise ValueError(f"{error}, path={path}, user={name}") from error
            position = np.concatenate([metres, position[:, 2:]], axis=1)
        trips.append(Trip(name, time, position))
    return trips


def _read_npz(path, projection):
    if projection:
        raise ValueError(f"Trips in .npz are in metres. Received: path={path}, {projection}")
    with ArrayReader() as reader:
        time, position = (reader.read(path, name) for name in ("time", "position"))
    if np.iscomplexobj(time) or np.iscomplexobj(position):
        raise ValueError(f"time and position must be real. Received: path={path}")
    # What is packed may be any number of times larger.
    if 8 * (time.size + position.size) > _LARGEST_FILE:
        raise ValueError(
            f"Trips have at most {_LARGEST_FILE} bytes when unpacked. Received: path={path}"
        )
    time, position = time.astype(np.float64), position.astype(np.float64)
    position = position[None] if position.ndim == 2 else position
    if (
        time.ndim != 1
        or position.ndim != 3
        or position.shape[1] != len(time)
        or position.shape[2] not in (2, 3)
    ):
        raise ValueError(
            "position must be of shape [num_users, num_points, 2 or 3]. Received: "
            f"path={path}, position.shape={position.shape}, time.shape={time.shape}"
        )
    return {str(index): (time, each) for index, each in enumerate(position)}


def _read_text(path, in_degrees):
    """Times and places by user: metres, or latitude and longitude."""
    try:
        if path.suffix in _XML:
            return _joined(_XML[path.suffix](path, in_degrees))
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _read_rows(csv.DictReader(file, skipinitialspace=True), in_degrees)
    except (csv.Error, ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{error}. Received: path={path}") from error


def _read_rows(reader, in_degrees):
    users: dict[str, list[list[float]]] = {}
    columns = reader.fieldnames or []
    first = ("lat", "lon") if in_degrees else ("x", "y")
    missing = [name for name in ("time", *first) if name not in columns]
    if missing:
        hint = "" if in_degrees or "lat" not in columns else "; trips in degrees need an origin"
        raise ValueError(
            f"Columns are missing: {', '.join(missing)}; expected time, {', '.join(first)}, and "
            f"perhaps z and user, not {', '.join(columns)[:80]}{hint}"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"Columns appear twice: {', '.join(twice)[:80]}")
    axes = ("time", *first, "z") if "z" in columns else ("time", *first)
    for row in reader:
        try:
            values = [float(row[name]) for name in axes]
        except (TypeError, ValueError) as error:
            raise ValueError(f"A value is no number in line {reader.line_num}: {error}") from error
        users.setdefault(row.get("user") or "0", []).append(values)
    if not users:
        raise ValueError("The file has no rows")
    tables = {name: np.array(rows) for name, rows in users.items()}
    return {name: (table[:, 0], table[:, 1:]) for name, table in tables.items()}


def _joined(points):
    """Times and places of pairs of a user's name and a point; a single point is no trip."""
    users: dict[str, list[Any]] = {}
    for name, point in points:
        users.setdefault(name, []).append(point)
    tables = {name: np.array(rows) for name, rows in users.items() if len(rows) > 1}
    if not tables:
        raise ValueError("The file has no trip of two points or more")
    return {name: (table[:, 0], table[:, 1:]) for name, table in tables.items()}


def _elements(path: pathlib.Path, root: str) -> Iterator[tuple[str, int, ElementTree.Element]]:
    """Event, depth and element, one after the other; what is done with is forgotten."""
    depth = 0
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        depth += event == "start"
        if depth > _DEEPEST:
            raise ValueError(f"Elements are nested more than {_DEEPEST} deep")
        element.tag = element.tag.rpartition("}")[2]
        if depth == 1 and event == "start" and element.tag != root:
            raise ValueError(f"Expected the element <{root}>, not <{element.tag[:40]}>")
        yield event, depth, element
        if event == "end":
            element.clear()
            depth -= 1


def _number(element, name):
    value = element.get(name)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"<{element.tag}> must have a number {name}, not {str(value)[:40]!r}"
        ) from None


def _read_gpx(path, in_degrees):
    """Pairs of track and segment, and seconds from the first point, latitude, longitude."""
    if not in_degrees:
        raise ValueError("Trips of GPX are in degrees: give origin = [latitude, longitude]")
    track = segment = 0
    first = place = stamp = None
    for event, depth, element in _elements(path, "gpx"):
        if event == "start" and element.tag == "trk":
            track, segment = track + 1, 0
        elif event == "start" and element.tag == "trkseg":
            segment += 1
        elif event == "start" and element.tag == "trkpt":
            place, stamp = [_number(element, "lat"), _number(element, "lon")], None
        elif element.tag == "time" and depth == _GPX_TIME:
            stamp = element.text
        elif element.tag == "trkpt":
            time = _seconds(stamp)
            first = time if first is None else first
            yield f"{track}.{segment}", [time - first, *place]


def _seconds(stamp):
    try:
        moment = datetime.datetime.fromisoformat(str(stamp).strip())
    except ValueError as error:
        raise ValueError(f"A point of a track has no time, but {str(stamp)[:40]!r}") from error
    # GPX has no time but universal time.
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def _read_fcd(path, in_degrees):
    """Pairs of user, and seconds and x, y, or latitude and longitude, which SUMO calls y and x."""
    step, time = 0, np.nan
    seen: dict[str, int] = {}
    visits: dict[str, int] = {}
    for event, _, element in _elements(path, "fcd-export"):
        if event == "start" and element.tag == "timestep":
            step, time = step + 1, _number(element, "time")
        elif event == "start" and element.tag in ("vehicle", "person", "container"):
            name = element.get("id", "")
            if seen.get(name) != step - 1:
                visits[name] = visits.get(name, 0) + 1
            seen[name] = step
            x, y = _number(element, "x"), _number(element, "y")
            user = name if visits[name] == 1 else f"{name} ({visits[name]})"
            yield user, [time, y, x] if in_degrees else [time, x, y]


_XML = {".gpx": _read_gpx, ".xml": _read_fcd}


def windows_of_trips(
    terrain: Terrain,
    rng: Random,
    trips: list[Trip],
    time: Array,
    *,
    num_tracks: int,
    slowest: float,
    user_height: float,
) -> Array:
    """Windows `[num_tracks, num_snapshots, 3]` of trips, each at a random instant of a random one.

    Snapshots are at `time`, seconds from zero `[num_snapshots]`. Windows whose mean speed is below
    `slowest` (metres per second) are drawn again; trips without heights run `user_height` metres
    above the ground.

    Raises:
        ValueError: If all trips are shorter than a window or slower, or one leaves the open ground
            or crosses a wall.
    """
    long_enough = [trip for trip in trips if trip.time[-1] - trip.time[0] >= time[-1]]
    if not long_enough:
        longest = max(trip.time[-1] - trip.time[0] for trip in trips)
        raise ValueError(
            f"No trip lasts as long as a sequence. Received: trips of at most {longest:g} s, "
            f"sequences of {time[-1]:g} s"
        )
    checked = set()
    windows: list[Array] = []
    for _ in range(num_tracks + _SPARE_WINDOWS):
        if len(windows) == num_tracks:
            break
        trip = long_enough[rng.integers(len(long_enough))]
        if trip.name not in checked:
            _check_trip(terrain, trip, user_height)
            checked.add(trip.name)
        begin = rng.uniform(trip.time[0], trip.time[-1] - time[-1])
        place = trip.at(begin + time)
        travelled = np.linalg.norm(np.diff(place, axis=0), axis=1).sum()
        if len(time) > 1 and travelled < slowest * time[-1]:
            continue
        windows.append(_lifted(terrain, place, user_height))
    if len(windows) < num_tracks:
        raise ValueError(
            "The users of the trips stand most of the time. Received: "
            f"slowest={slowest * 3.6:g} km/h, found {len(windows)} of num_tracks={num_tracks}"
        )
    return np.array(windows)


def _lifted(terrain, place, user_height):
    if place.shape[1] == 3:
        return place
    height, _ = terrain.drop_to_ground(place)
    return np.column_stack([place, height + user_height])


def _check_trip(terrain, trip, user_height):
    """Follows a trip at steps of at most half a metre."""
    legs = np.linalg.norm(np.diff(trip.position[:, :2], axis=0), axis=1)
    counts = np.maximum(np.ceil(legs / _CHECK_STEP).astype(int), 1)
    parts = [
        np.linspace(a, b, n, endpoint=False)
        for a, b, n in zip(trip.time[:-1], trip.time[1:], counts, strict=True)
    ]
    time = np.append(np.concatenate(parts), trip.time[-1])
    place = trip.at(time)
    if place.shape[1] == 2:
        height, is_ground = terrain.drop_to_ground(place)
        if not is_ground.all():
            first = int(np.argmin(is_ground))
            raise ValueError(
                "A trip leaves the open ground; give heights in a column z if that is meant. "
                f"Received: user={trip.name}, time={time[first]:g} s, at x={place[first, 0]:.1f}, "
                f"y={place[first, 1]:.1f}"
            )
        place = np.column_stack([place, height + user_height])
    free = terrain.segment_is_free(place[:-1], place[1:])
    if not free.all():
        first = int(np.argmin(free))
        raise ValueError(
            f"A trip crosses a wall. Received: user={trip.name}, time={time[first]:g} s, at "
            f"x={place[first, 0]:.1f}, y={place[first, 1]:.1f}"
        )
