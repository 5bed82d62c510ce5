"""Trips in degrees and in the files of GPX and SUMO come to the same metres, or are refused."""

import sys

import numpy as np
import pytest

from lwmt_sionna.rt import (
    Clock,
    Ring,
    TrajectoryConfig,
    local_metres,
    read_trips,
    sample_tracks,
)

ORIGIN = (48.1372, 11.5755)
TIME = np.arange(12.0)
# Some 1.1 m to the north and 0.7 m to the east a second, standing at the end.
LATITUDE = ORIGIN[0] + 1e-5 * np.minimum(TIME, 8.0)
LONGITUDE = ORIGIN[1] + 1e-5 * np.minimum(TIME, 8.0)
AXIS, ECCENTRICITY = 6378137.0, 0.081819190842621


def trapezoid(y, x):
    return np.sum((y[1:] + y[:-1]) / 2 * np.diff(x))


def test_metres_along_the_meridian_and_the_equator_are_those_of_the_ellipsoid():
    """By the radius of curvature of the meridian, integrated, and by that of the equator."""
    north = np.radians(np.linspace(ORIGIN[0], ORIGIN[0] + 0.04, 1001))
    curvature = AXIS * (1 - ECCENTRICITY**2) / (1 - (ECCENTRICITY * np.sin(north)) ** 2) ** 1.5
    arc = trapezoid(curvature, north)
    x, y = local_metres(ORIGIN[0] + 0.04, ORIGIN[1], ORIGIN)
    assert abs(x) < 1e-9
    # What the plane loses is d^3 / (6 R^2): 0.4 mm here.
    assert 0.5e-3 > arc - y > 0.2e-3
    x, y = local_metres(0.0, 11.01, (0.0, 11.0))
    np.testing.assert_allclose([x, y], [AXIS * np.radians(0.01), 0.0], atol=1e-5)


def test_metres_are_measured_from_the_origin_and_turn_with_it():
    places = local_metres(LATITUDE, LONGITUDE, ORIGIN)
    assert places.shape == (12, 2)
    # Double precision of the Earth's radius is a nanometre, and processors round each their way.
    np.testing.assert_allclose(places[0], 0.0, atol=1e-6)
    turned = local_metres(LATITUDE, LONGITUDE + 90, (48.1372, 101.5755))
    np.testing.assert_allclose(turned, places, atol=1e-6)


def test_metres_are_those_of_the_orthographic_projection():
    pyproj = pytest.importorskip("pyproj")
    crs = "+proj=ortho +lat_0={} +lon_0={} +ellps=WGS84".format(*ORIGIN)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(
        LONGITUDE + 0.03, LATITUDE + 0.03
    )
    places = local_metres(LATITUDE + 0.03, LONGITUDE + 0.03, ORIGIN)
    np.testing.assert_allclose(places, np.column_stack([x, y]), atol=1e-6)
    utm = local_metres(*ORIGIN, crs="EPSG:32632")
    # Eastings of UTM count from 500 km at 9 degrees, and the zone's scale is 0.9996.
    assert 690e3 < utm[0] < 695e3 and 5.33e6 < utm[1] < 5.34e6
    apart = local_metres(LATITUDE, LONGITUDE, ORIGIN, "EPSG:32632")
    np.testing.assert_allclose(
        np.linalg.norm(apart, axis=1),
        np.linalg.norm(local_metres(LATITUDE, LONGITUDE, ORIGIN), axis=1),
        rtol=1e-3,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="in metres that pyproj knows"):
        local_metres(*ORIGIN, crs="EPSG:4326")


def test_map_coordinates_without_pyproj_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(ImportError, match=r"need pyproj: pip install .*\[maps\]"):
        local_metres(*ORIGIN, crs="EPSG:32632")


def gpx(segments):
    """A track; segments are lists of (time as text or None, latitude, longitude)."""
    points = [
        "".join(
            f'<trkpt lat="{a:.9f}" lon="{b:.9f}"><ele>519</ele>'
            + (f"<time>{t}</time>" if t is not None else "")
            + "</trkpt>"
            for t, a, b in segment
        )
        for segment in segments
    ]
    segments = "".join(f"<trkseg>{each}</trkseg>" for each in points)
    return (
        '<?xml version="1.0"?><gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">'
        "<metadata><time>2001-01-01T00:00:00Z</time></metadata>"
        f"<trk><name>walk</name>{segments}</trk></gpx>"
    )


def fcd(steps):
    """Steps are pairs of a time and a dict from (kind, user) to x and y."""
    inner = "".join(
        f'<timestep time="{time:.2f}">'
        + "".join(
            f'<{kind} id="{user}" x="{x:.9f}" y="{y:.9f}" angle="0" speed="1"/>'
            for (kind, user), (x, y) in users.items()
        )
        + "</timestep>"
        for time, users in steps
    )
    return f'<?xml version="1.0"?><fcd-export version="1.20">{inner}</fcd-export>'


def table(head, *columns):
    return "\n".join([head, *(",".join(f"{each:.9f}" for each in row) for row in zip(*columns))])


def stamps(time):
    return [f"2026-05-01T10:00:{second:06.3f}Z" for second in time]


X, Y = local_metres(LATITUDE, LONGITUDE, ORIGIN).T
WALK = {
    "metres.csv": (table("time,x,y", TIME, X, Y), None),
    "degrees.csv": (table("time,lat,lon", TIME, LATITUDE, LONGITUDE), ORIGIN),
    "walk.gpx": (gpx([list(zip(stamps(TIME), LATITUDE, LONGITUDE))]), ORIGIN),
    "metres.xml": (fcd([(t, {("person", "a"): p}) for t, p in zip(TIME, zip(X, Y))]), None),
    "degrees.xml": (
        fcd([(t, {("vehicle", "a"): p}) for t, p in zip(TIME, zip(LONGITUDE, LATITUDE))]),
        ORIGIN,
    ),
}


@pytest.mark.parametrize("name", WALK)
def test_all_files_tell_the_same_walk(name, tmp_path):
    text, origin = WALK[name]
    (tmp_path / name).write_text(text)
    (trip,) = read_trips(tmp_path / name, origin)
    np.testing.assert_allclose(trip.time, TIME, atol=1e-6)
    # Nine digits of a degree are a tenth of a millimetre.
    np.testing.assert_allclose(trip.position, np.column_stack([X, Y]), atol=2e-4)


class Plain:
    """Open ground three metres above zero, everywhere."""

    name = "plain"

    def drop_to_ground(self, xy):
        return np.full(len(xy), 3.0), np.ones(len(xy), bool)

    def segment_is_free(self, start, stop):
        return np.ones(len(start), bool)


def test_users_of_a_track_walk_through_the_scene(rng, tmp_path):
    (tmp_path / "walk.gpx").write_text(WALK["walk.gpx"][0])
    config = TrajectoryConfig(kind="file", file=str(tmp_path / "walk.gpx"), origin=list(ORIGIN))
    tracks = sample_tracks(
        Plain(), rng, config, num_tracks=6, clock=Clock(11, 0.1), speed=1.0, ring=Ring((0.0, 0.0))
    )
    assert tracks.speed.max() < 1.6
    # Heights are those above the scene's ground, and not those of the file.
    np.testing.assert_array_equal(tracks.position[..., 2], 4.5)


def test_who_comes_back_makes_another_trip(tmp_path):
    """A car that is teleported does not cross the town in between; one seen once has no trip."""
    there = [(0.0, 0.0), (5.0, 0.0), None, (900.0, 700.0), (905.0, 700.0)]
    steps = [(t, {("vehicle", "a"): p} if p else {}) for t, p in enumerate(there)]
    steps[1][1]["vehicle", "seen once"] = (1.0, 1.0)
    (tmp_path / "town.xml").write_text(fcd(steps))
    trips = read_trips(tmp_path / "town.xml")
    assert [(trip.name, *trip.time) for trip in trips] == [("a", 0.0, 1.0), ("a (2)", 3.0, 4.0)]
    np.testing.assert_array_equal(trips[1].position, [[900.0, 700.0], [905.0, 700.0]])


def test_segments_of_a_track_are_trips(tmp_path):
    points = list(zip(stamps(TIME), LATITUDE, LONGITUDE))
    points[0] = ("2026-05-01T12:00:00+02:00", *points[0][1:])  # the same instant
    (tmp_path / "walk.gpx").write_text(gpx([points[:5], points[5:6], points[6:]]))
    trips = read_trips(tmp_path / "walk.gpx", ORIGIN)
    assert [trip.name for trip in trips] == ["1.1", "1.3"]
    np.testing.assert_allclose(np.concatenate([t.time for t in trips]), np.delete(TIME, 5))


ONE = {("vehicle", "a"): (1.0, 2.0)}
NO_TIME = gpx([[(None, *ORIGIN), (None, *ORIGIN)]])


@pytest.mark.parametrize(
    ("name", "text", "origin", "words"),
    [
        ("walk.gpx", WALK["walk.gpx"][0], None, "GPX are in degrees: give origin"),
        ("walk.gpx", WALK["walk.gpx"][0], (11.5755, 48.1372), "exchanged.*km away"),
        ("walk.gpx", WALK["walk.gpx"][0], (91.0, 0.0), "within 90 degrees.*origin of 91"),
        ("walk.gpx", NO_TIME, ORIGIN, "has no time, but 'None'"),
        ("walk.gpx", WALK["walk.gpx"][0][:-9], ORIGIN, "no element found|unclosed"),
        ("walk.gpx", "<gpx><trk/></gpx>", ORIGIN, "no trip of two points"),
        ("walk.gpx", "<gpx>" + "<trk>" * 200, ORIGIN, "more than 100 deep"),
        ("cars.xml", WALK["walk.gpx"][0], ORIGIN, "<fcd-export>, not <gpx>"),
        ("cars.xml", fcd([(0, ONE), (1, {})]), None, "no trip of two points"),
        ("cars.xml", fcd([(0, ONE), (1, ONE)]).replace("x=", "z="), None, "a number x, not 'None'"),
        ("cars.xml", fcd([(0, ONE), (0, ONE)]), None, "must ascend"),
        ("cars.xml", WALK["metres.xml"][0], ORIGIN, "or metres.*km away"),
        ("walk.csv", WALK["metres.csv"][0], ORIGIN, "missing: lat, lon"),
        ("walk.csv", WALK["degrees.csv"][0], None, "missing: x, y.*need an origin"),
        ("walk.kml", "", None, r"\.csv, \.npz, \.gpx or \.xml"),
    ],
)
def test_wrong_files_end_in_one_line(name, text, origin, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_trips(tmp_path / name, origin)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_numpy_files_are_in_metres(tmp_path):
    np.savez(tmp_path / "walk.npz", time=TIME, position=np.column_stack([LATITUDE, LONGITUDE]))
    with pytest.raises(ValueError, match=r"in metres.*walk\.npz, origin"):
        read_trips(tmp_path / "walk.npz", ORIGIN)


def test_an_origin_is_of_files_alone():
    with pytest.raises(ValueError, match=r"of trips from files.*kind='street'"):
        TrajectoryConfig(kind="street", origin=ORIGIN)
