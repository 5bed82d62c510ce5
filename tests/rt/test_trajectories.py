"""Users stay outdoors, cross no wall, and move as their kind does."""

import numpy as np
import pytest

from lwmt_sionna.rt import derive_velocity

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
PERIOD = 0.1
LONG = 101


@pytest.fixture(scope="module")
def town():
    from lwmt_sionna.rt import load_scene, resolve_scene

    loaded = load_scene("old_town", CARRIER)
    return loaded, resolve_scene("old_town").facts["base_stations"][0]


def sample(town, rng, kind, regime, clock=(LONG, PERIOD), **options):
    from lwmt_sionna.rt import Clock, Ring, TrajectoryConfig, sample_tracks

    loaded, station = town
    settings = {
        "num_tracks": 4,
        "clock": Clock(*clock),
        "speed": 1.4 if regime == "pedestrian" else 9.0,
        "ring": Ring(station, max_distance=120.0),
    }
    config = TrajectoryConfig(kind=kind, regime=regime, slowest_kmh=options.pop("slowest", 0.0))
    return sample_tracks(loaded, rng, config, **settings | options)


def crosses_a_wall(loaded, position):
    """Looks at every step of the way from above and along it, apart from the code under test."""
    for track in position:
        step = np.diff(track, axis=0)
        length = np.linalg.norm(step, axis=1)
        moved = length > 0
        direction = step[moved] / length[moved, None]
        distance, _ = loaded.cast_rays(track[:-1][moved], direction)
        above = track + np.array([0.0, 0.0, 200.0])
        down, shape = loaded.cast_rays(above, np.tile([0.0, 0, -1], (len(track), 1)))
        if np.any(distance < length[moved]) or not np.isin(shape, loaded.ground_ids).all():
            return True
        np.testing.assert_allclose(down, 201.5, atol=1e-2)
    return False


def test_the_judge_sees_walls(town):
    x, y = town[1][:2]
    through = np.linspace([x, y, 1.5], [x + 120.0, y, 1.5], LONG)
    assert crosses_a_wall(town[0], through[None])


@pytest.mark.parametrize(
    ("kind", "regime", "cruise", "limit"),
    [
        ("street", "vehicular", 9.0, 2.5),
        ("street", "pedestrian", 1.4, 1.0),
        ("random_waypoint", "pedestrian", 1.4, 1.0),
        ("circular", "vehicular", 4.0, 0.1),
    ],
)
def test_users_stay_outdoors_and_within_their_limits(town, rng, kind, regime, cruise, limit):
    tracks = sample(town, rng, kind, regime, speed=cruise)
    assert tracks.position.shape == (4, LONG, 3)
    assert not crosses_a_wall(town[0], tracks.position)
    np.testing.assert_allclose(
        tracks.velocity, derive_velocity(tracks.position, PERIOD), atol=1e-12
    )
    speed = np.linalg.norm(np.diff(tracks.position[..., :2], axis=1), axis=-1) / PERIOD
    assert speed.max() < 1.001 * cruise
    # Chords of an arc are shorter than it, by up to 0.1 m/s at the corner of a pedestrian's way.
    assert np.abs(np.diff(speed, axis=1)).max() / PERIOD < 1.05 * limit + 0.3
    distance = np.linalg.norm(tracks.position[:, 0, :2] - town[1][:2], axis=-1)
    assert distance.max() < 320.0


def test_speeds_vary_along_streets_and_stops_are_made(town):
    tracks = sample(
        town, np.random.default_rng(3), "street", "vehicular", (301, PERIOD), num_tracks=6
    )
    speed = np.linalg.norm(tracks.velocity, axis=-1)
    assert speed.std(axis=1).max() > 1.0
    assert (speed < 0.05).any(axis=1).any()
    # Someone turns by more than sixty degrees.
    moving = np.where(
        speed > 0.5, np.arctan2(tracks.velocity[..., 1], tracks.velocity[..., 0]), np.nan
    )
    turn = np.nanmax(np.cos(moving[:, :1] - moving) < 0.5, axis=1)
    assert turn.any()


def test_standing_users_are_drawn_again_when_asked(town, rng):
    tracks = sample(town, rng, "street", "pedestrian", (5, 2.5e-3), slowest=0.5, num_tracks=12)
    assert tracks.speed.min() * 3.6 > 0.5


def test_the_same_seed_gives_the_same_users(town):
    first, second = (
        sample(town, np.random.default_rng(5), "street", "vehicular").position for _ in range(2)
    )
    np.testing.assert_allclose(first, second)


def test_straight_users_have_the_speed_they_were_given(town, rng):
    tracks = sample(town, rng, "straight", "vehicular", speed=np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(tracks.speed, [1, 2, 3, 4])
    assert not crosses_a_wall(town[0], tracks.position)


def test_users_keep_their_height_on_slopes():
    from lwmt_sionna.rt import Clock, Ring, TrajectoryConfig, load_scene, sample_tracks

    loaded = load_scene("san_francisco", CARRIER)
    tracks = sample_tracks(
        loaded,
        np.random.default_rng(1),
        TrajectoryConfig(kind="street", slowest_kmh=0.0),
        num_tracks=3,
        clock=Clock(LONG, PERIOD),
        speed=9.0,
        ring=Ring((220.05, -36.03)),
    )
    height, is_ground = loaded.drop_to_ground(tracks.position.reshape(-1, 3)[:, :2])
    assert is_ground.all()
    np.testing.assert_allclose(tracks.position[..., 2].ravel() - height, 1.5, atol=1e-3)
    assert np.ptp(tracks.position[..., 2], axis=1).max() > 0.1


def test_trips_come_from_csv_and_numpy(town, rng, tmp_path):
    from lwmt_sionna.rt import Clock, Ring, TrajectoryConfig, read_trips, sample_tracks

    loaded, station = town
    time = np.arange(0.0, 12.0, 0.5)
    walk = np.asarray(station[:2]) + np.column_stack([1.2 * np.minimum(time, 6.0), 0 * time])
    rows = "".join(f"{t},{x},{y},anna\n" for t, (x, y) in zip(time, walk))
    (tmp_path / "walk.csv").write_text("time,x,y,user\n" + rows)
    np.savez(tmp_path / "walk.npz", time=time, position=walk)
    for name in ("walk.csv", "walk.npz"):
        (trip,) = read_trips(tmp_path / name)
        np.testing.assert_allclose(trip.at(time), walk)
        # Who stands in the file stands in between, too.
        assert np.ptp(trip.at(np.linspace(6.0, 11.0, 77)), axis=0).max() < 1e-9
        config = TrajectoryConfig(kind="file", file=str(tmp_path / name))
        tracks = sample_tracks(
            loaded, rng, config, num_tracks=5, clock=Clock(21, 0.02), speed=1.0, ring=Ring(station),
        )  # fmt: skip
        assert tracks.speed.min() > 0.1 and tracks.speed.max() < 1.25
        np.testing.assert_allclose(tracks.position[..., 2], 1.5, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,x\n0,1\n", "missing: y"),
        ("time,x,y,x\n0,1,2,3\n1,1,2,3\n", "twice: x"),
        ("time,x,y\n0,1,2\n1,one,2\n", "line 3"),
        ("time,x,y\n0,1,2\n0,1,3\n", "ascend"),
        ("time,x,y\n", "no rows"),
        ("time,x,y\n0,0,0\n5,inf,0\n", "finite"),
    ],
)
def test_wrong_files_of_trips_are_refused(tmp_path, text, words):
    from lwmt_sionna.rt import read_trips

    (tmp_path / "trips.csv").write_text(text)
    with pytest.raises(ValueError, match=f"{words}.*trips|trips.*{words}"):
        read_trips(tmp_path / "trips.csv")


def test_trips_through_walls_and_short_ones_are_refused(town, rng, tmp_path):
    from lwmt_sionna.rt import Clock, Ring, TrajectoryConfig, sample_tracks

    loaded, station = town

    def run(text, period=0.1):
        (tmp_path / "trips.csv").write_text(text)
        config = TrajectoryConfig(kind="file", file=str(tmp_path / "trips.csv"))
        return sample_tracks(
            loaded, rng, config, num_tracks=2, clock=Clock(5, period), speed=1.0, ring=Ring(station)
        )

    x, y = station[:2]
    with pytest.raises(ValueError, match=r"leaves the open ground.*user=0.*time="):
        run(f"time,x,y\n0,{x},{y}\n60,{x + 120},{y}\n")
    with pytest.raises(ValueError, match=r"crosses a wall.*user=bob"):
        run(f"time,x,y,z,user\n0,{x},{y},1.5,bob\n60,{x + 120},{y},1.5,bob\n")
    with pytest.raises(ValueError, match="at most 1 s, sequences of 4"):
        run(f"time,x,y\n0,{x},{y}\n1,{x + 1},{y}\n", 1.0)
    with pytest.raises(ValueError, match="stand most of the time"):
        run(f"time,x,y\n0,{x},{y}\n9,{x},{y}\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "flying"}, "kind: expected one of .straight.*'flying'"),
        ({"regime": "maritime"}, "regime: expected one of .pedestrian., .vehicular."),
        ({"kind": "file"}, "wants a file"),
        ({"file": "x.csv"}, "wants a file"),
        ({"radius": [9.0, 2.0]}, "radius: expected"),
        ({"slowest_kmh": -1}, "slowest_kmh=-1"),
    ],
)
def test_wrong_configurations_are_refused(options, words):
    from lwmt_sionna.rt import TrajectoryConfig

    with pytest.raises(ValueError, match=words):
        TrajectoryConfig(**options)


def test_no_room_is_said(town, rng):
    with pytest.raises(ValueError, match=r"old_town.*kind=circular"):
        sample(town, rng, "circular", "vehicular", speed=60.0)


def test_cars_drive_along_streets_and_keep_apart():
    from lwmt_sionna.rt import Clock, Ring, load_scene, sample_moving_objects

    loaded = load_scene("boulevard", CARRIER)
    cars = sample_moving_objects(
        loaded,
        np.random.default_rng(2),
        loaded.cars[:3],
        clock=Clock(LONG, PERIOD),
        speed=8.0,
        ring=Ring((0.0, 0.0), 0.0, 150.0),
    )
    assert [car.name for car in cars] == ["car_1", "car_2", "car_3"]
    for car in cars:
        parked = loaded.scene.objects[car.name]
        # The body floats 0.3 m over the ground, and goes on doing so.
        np.testing.assert_allclose(car.position[:, 2], np.ravel(parked.position)[2], atol=1e-3)
        velocity = car.velocity(PERIOD)
        speed = np.linalg.norm(velocity, axis=1)
        assert speed.max() < 8.05
        moving = speed > 1.0
        heading = np.arctan2(velocity[moving, 1], velocity[moving, 0])
        # Parked along the street (x), so the rotation is the heading, up to the two ends of a car.
        assert np.abs(np.sin(car.orientation[moving] - heading)).max() < 0.1
    for first in range(3):
        for second in range(first):
            gap = np.linalg.norm(cars[first].position - cars[second].position, axis=1)
            assert gap.min() > 4.4
    with pytest.raises(ValueError, match=r"car_1.*Received: tram"):
        sample_moving_objects(
            loaded, np.random.default_rng(2), ["tram"], clock=Clock(5, PERIOD), speed=8.0,
            ring=Ring((0.0, 0.0)),
        )  # fmt: skip


def test_generation_takes_a_kind_of_trajectory(tmp_path):
    from lwmt_sionna.rt import GenerationConfig, generate

    path = tmp_path / "walkers.toml"
    path.write_text(
        'scene = "old_town"\nbase_stations = [[-6.37, -12.68, 10.0]]\nnum_sequences = 2\n'
        "speed_kmh = [4.0, 6.0]\nnum_snapshots = 3\ntracks_per_solve = 2\nmax_distance = 60.0\n"
        '[trajectory]\nkind = "random_waypoint"\nregime = "pedestrian"\n'
        "[tracing]\nmax_depth = 1\n"
    )
    config = GenerationConfig.from_toml(path)
    assert config.trajectory.kind == "random_waypoint"
    paths = generate(config, tmp_path / "walkers.h5", progress=False)
    assert paths.scene == "old_town" and paths.num_sequences == 2
    assert 0.5 / 3.6 < paths.speed.min() and paths.speed.max() < 6.1 / 3.6
    assert paths.metadata["config"]["trajectory"]["regime"] == "pedestrian"
    path.write_text(path.read_text().replace("regime", "regimen"))
    with pytest.raises(ValueError, match="regimen"):
        GenerationConfig.from_toml(path)


def test_the_documented_example_runs_as_printed(capsys):
    import pathlib
    import re

    text = (pathlib.Path(__file__).parents[2] / "docs" / "trajectories.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "docs/trajectories.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"# prints (.*)$", code, flags=re.MULTILINE)


def test_trips_that_are_too_large_unpacked_are_refused(tmp_path):
    from lwmt_sionna.rt import read_trips

    position = np.zeros((1, 12_000_000, 3), np.int8)
    np.savez_compressed(
        tmp_path / "huge.npz", time=np.zeros(12_000_000, np.int8), position=position
    )
    with pytest.raises(ValueError, match="bytes when unpacked"):
        read_trips(tmp_path / "huge.npz")
