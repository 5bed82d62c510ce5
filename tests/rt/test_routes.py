"""Routes without kinks, and drives within the limits of acceleration."""

import numpy as np
import pytest

from lwmt_sionna.rt.motion.routes import Drive, Route, offset_polyline, simplify_polyline

CORNERS = np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 30.0], [80.0, 50.0]])
LIMITS = {"acceleration": 2.0, "deceleration": 3.0, "lateral_acceleration": 2.5}


def sampled(route, drive, period=1e-3):
    time = np.arange(0.0, drive.duration, period)
    return time, route.position(drive.at(time))


def test_a_route_is_passed_at_unit_rate_without_kinks():
    route = Route(CORNERS, turn_radius=6.0)
    distance = np.linspace(0.0, route.length, 20_001)
    position = route.position(distance)
    rate = np.diff(position, axis=0) / np.diff(distance)[:, None]
    np.testing.assert_allclose(np.linalg.norm(rate, axis=1), 1.0, atol=1e-5)
    turn = np.abs(np.diff(np.unwrap(np.arctan2(rate[:, 1], rate[:, 0]))))
    # Nowhere does the heading turn faster than along an arc of 6 m.
    assert turn.max() < 1.01 * np.diff(distance)[0] / 6.0
    np.testing.assert_allclose(position[[0, -1]], CORNERS[[0, -1]], atol=1e-9)
    # A right angle rounded with radius r is 2 r - pi r / 2 shorter.
    square = Route(CORNERS[:3], turn_radius=6.0)
    assert square.length == pytest.approx(70.0 - 2 * 6.0 + np.pi / 2 * 6.0)


def test_heading_and_curvature_are_those_of_the_positions():
    route = Route(CORNERS, turn_radius=6.0)
    distance = np.linspace(0.0, route.length, 5001)
    x, y = np.gradient(route.position(distance), distance, axis=0).T
    off = np.angle(np.exp(1j * (route.heading(distance) - np.arctan2(y, x))))
    assert np.abs(off).max() < 5e-3
    assert set(np.round(np.abs(route.curvature(distance)), 6)) == {0.0, round(1 / 6, 6)}


def test_arcs_shrink_where_there_is_no_room():
    zigzag = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [4.0, 2.0]])
    route = Route(zigzag, turn_radius=50.0)
    position = route.position(np.linspace(0.0, route.length, 4001))
    step = np.linalg.norm(np.diff(position, axis=0), axis=1)
    assert step.max() < 1.01 * route.length / 4000
    assert position.min() >= 0.0 and position[:, 0].max() <= 4.0


def test_corners_stay_without_a_radius():
    route = Route(CORNERS)
    assert route.length == pytest.approx(70.0 + np.hypot(40.0, 20.0))
    np.testing.assert_allclose(route.position(40.0), CORNERS[1])


def test_a_circle_comes_round():
    route = Route.circle((3.0, 4.0), 5.0, 0.0, 2 * np.pi * 5.0, clockwise=True)
    np.testing.assert_allclose(route.position([0.0, route.length]), [[8.0, 4.0]] * 2, atol=1e-9)
    np.testing.assert_allclose(route.position(route.length / 4), [3.0, -1.0], atol=1e-9)


def test_a_drive_keeps_its_limits_and_stops():
    route = Route(CORNERS, turn_radius=6.0)
    drive = Drive.plan(route, 14.0, **LIMITS, stops=[(20.0, 4.0), (60.0, 1.5)])
    time, position = sampled(route, drive)
    velocity = np.gradient(position, time, axis=0)
    speed = np.linalg.norm(velocity, axis=1)
    assert speed.max() <= 14.0 + 1e-3
    along = np.gradient(speed, time)
    # A millisecond's difference sees the limits up to the kinks between pieces.
    assert along.max() < 2.0 + 0.05 and along.min() > -3.0 - 0.05
    bend = np.abs(route.curvature(drive.at(time)))
    assert np.max(speed**2 * bend) < 2.5 * 1.02
    assert speed[[0, -1]].max() < 0.05
    at_rest = speed < 1e-6
    assert at_rest.sum() * 1e-3 == pytest.approx(5.5, abs=0.1)
    places = np.unique(np.round(position[at_rest], 2), axis=0)
    np.testing.assert_allclose(places, route.position([20.0, 60.0]), atol=0.01)


def test_the_fastest_drive_over_a_straight_is_known():
    route = Route([[0.0, 0.0], [100.0, 0.0]])
    drive = Drive.plan(route, 10.0, **LIMITS)
    # Up within 25 m in 5 s, down within 50/3 m in 10/3 s, the rest at 10 m/s.
    assert drive.duration == pytest.approx(5 + 10 / 3 + (100 - 25 - 50 / 3) / 10, rel=1e-3)
    assert drive.at(5.0) == pytest.approx(25.0, rel=1e-3)
    rolling = Drive.plan(route, 10.0, **LIMITS, rolling=True)
    assert rolling.duration == pytest.approx(10.0)


def test_simplifying_keeps_the_shape():
    x = np.linspace(0.0, 10.0, 101)
    points = np.column_stack([x, np.abs(x - 5.0) + 1e-3 * np.sin(40 * x)])
    left = simplify_polyline(points, 0.01)
    np.testing.assert_allclose(left[:, 0], [0.0, 5.0, 10.0])


def test_an_offset_lane_keeps_its_distance():
    lane = offset_polyline(CORNERS[:3], -2.0)
    np.testing.assert_allclose(lane, [[0.0, -2.0], [42.0, -2.0], [42.0, 30.0]])


@pytest.mark.parametrize(
    "points", [[[0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, np.nan], [1, 1]]]
)
def test_no_route_is_refused(points):
    with pytest.raises(ValueError, match="Received"):
        Route(points)


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="cruise=0"):
        Drive.plan(Route(CORNERS), 0.0, **LIMITS)
