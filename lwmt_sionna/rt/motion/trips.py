"""Trips recorded or simulated elsewhere, from CSV and NumPy files."""

import csv
import dataclasses
import functools
import pathlib
import zipfile
import zlib

import numpy as np

from lwmt_sionna.rt.motion.ground import Terrain
from lwmt_sionna.rt.motion.tracks import Clock
from lwmt_sionna.typing import Array, ArrayLike, PathLike, Random

_STEP = 0.5
_MAX_TRIES = 200
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
# A user for a day, ten times a second, has twenty megabytes.
_LARGEST_FILE = 2**28


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
        """Positions at given instants.

        Between way points each coordinate follows the monotone cubic of Fritsch and Butland
        (SIAM J. Sci. Stat. Comput. 5, 1984): velocities are continuous, and a user that stands in
        the file stands.

        Args:
            time: Seconds within the trip, float `[num_times]`.

        Returns:
            float64 `[num_times, 2 or 3]`, metres.
        """
        return self._curve(np.asarray(time, dtype=np.float64))

    @functools.cached_property
    def _curve(self):
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.time, self.position, axis=0)


def read_trips(path: PathLike) -> list[Trip]:
    """Reads trips.

    CSV: a header with the columns `time`, `x`, `y`, and perhaps `z` and `user`; one row per way
    point, in seconds and metres. NumPy (`.npz`): `time` float `[num_points]` and `position` float
    `[num_users, num_points, 2 or 3]` (or without the axis of users).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If columns or arrays are missing, a value is no number, or times do not ascend.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of trajectories here. Received: path={path}")
    if path.suffix not in (".csv", ".npz"):
        raise ValueError(f"Expected a file in .csv or .npz. Received: path={path}")
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(
            f"A file of trips has at most {_LARGEST_FILE} bytes. Received: path={path}"
        )
    users = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    trips = []
    for name, (time, position) in users.items():
        if len(time) < 2 or np.any(np.diff(time) <= 0):
            raise ValueError(
                "The times of a user must ascend and be at least two. Received: "
                f"path={path}, user={name}"
            )
        if not (np.isfinite(time).all() and np.isfinite(position).all()):
            raise ValueError(f"Times and places must be finite. Received: path={path}, user={name}")
        trips.append(Trip(name, time, position))
    return trips


def _read_npz(path):
    try:
        with zipfile.ZipFile(path) as archive:
            # What is packed may be any number of times larger.
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_FILE:
                raise ValueError(f"more than {_LARGEST_FILE} bytes when unpacked")
        with np.load(path) as arrays:
            time = np.asarray(arrays["time"], dtype=np.float64)
            position = np.asarray(arrays["position"], dtype=np.float64)
    except (KeyError, TypeError, ValueError, EOFError, OSError, *_DAMAGED) as error:
        raise ValueError(
            f"Expected the arrays time and position: {error}. Received: path={path}"
        ) from error
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


def _read_csv(path):
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _read_rows(csv.DictReader(file, skipinitialspace=True))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{error}. Received: path={path}") from error


def _read_rows(reader):
    users: dict[str, list[list[float]]] = {}
    columns = reader.fieldnames or []
    missing = [name for name in ("time", "x", "y") if name not in columns]
    if missing:
        raise ValueError(
            f"Columns are missing: {', '.join(missing)}; expected time, x, y, and perhaps z and "
            f"user, not {', '.join(columns)[:80]}"
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"Columns appear twice: {', '.join(twice)[:80]}")
    axes = ("time", "x", "y", "z") if "z" in columns else ("time", "x", "y")
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


def windows_of_trips(
    terrain: Terrain,
    rng: Random,
    trips: list[Trip],
    clock: Clock,
    *,
    num_tracks: int,
    slowest: float,
    user_height: float,
) -> Array:
    """Windows `[num_tracks, num_snapshots, 3]` of trips, each at a random instant of a random one.

    Windows whose mean speed is below `slowest` (metres per second) are drawn again; trips without
    heights run `user_height` metres above the ground.

    Raises:
        ValueError: If all trips are shorter than a window or slower, or one leaves the open ground
            or crosses a wall.
    """
    time = clock.time
    long_enough = [trip for trip in trips if trip.time[-1] - trip.time[0] >= time[-1]]
    if not long_enough:
        longest = max(trip.time[-1] - trip.time[0] for trip in trips)
        raise ValueError(
            f"No trip lasts as long as a sequence. Received: trips of at most {longest:g} s, "
            f"sequences of {time[-1]:g} s"
        )
    checked = set()
    windows: list[Array] = []
    for _ in range(num_tracks + _MAX_TRIES):
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
    counts = np.maximum(np.ceil(legs / _STEP).astype(int), 1)
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
