"""Tracks: pooled candidates, evolved snapshots, moving objects. Ray tracing on small scenes."""

import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import (
    PathSequences,
    PlanarArray,
    subcarrier_frequencies,
    synthesize,
    validate,
)

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
WAVELENGTH = 299_792_458.0 / CARRIER
BASE_STATION = (-20.0, 3.0, 15.0)
PERIOD = 2.5e-3


@pytest.fixture(scope="module")
def street():
    from lwmt_sionna.rt import load_scene

    return load_scene("simple_street_canyon", CARRIER)


def tracks(num_snapshots=11, speed=12.0, period=PERIOD):
    from lwmt_sionna.rt import Tracks

    start = np.array([[5.0, 1.0, 1.5], [20.0, -3.0, 1.5], [-5.0, 4.0, 1.5], [30.0, 2.0, 1.5]])
    heading = np.array([0.2, 2.8, -1.0, 3.1])
    velocity = speed * np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=-1)
    time = period * np.arange(num_snapshots)[:, None]
    return Tracks(start[:, None] + time * velocity[:, None], period)


def as_sequences(traced, tracks):
    return PathSequences(
        **traced,
        position=tracks.position,
        velocity=tracks.velocity,
        speed=tracks.speed,
        trajectory_id=np.arange(len(tracks.position)),
        bs_index=np.zeros(len(tracks.position), int),
        bs_position=BASE_STATION,
        bs_orientation=(0.0, 0.0, 0.0),
        sampling_period=tracks.sampling_period,
        carrier_frequency=CARRIER,
        scene="street",
    )


def trace(scene, tracks, **settings):
    from lwmt_sionna.rt import TracingConfig, trace_tracks

    moving = settings.pop("moving", ())
    config = TracingConfig(**{"samples_per_source": 100_000, **settings})
    traced = trace_tracks(scene, BASE_STATION, (0.0, 0.0, 0.0), tracks, config, moving=moving)
    return as_sequences(traced, tracks)


def error_db(paths, reference):
    h = [
        synthesize(p, PlanarArray(), subcarrier_frequencies(32, 540e3)) for p in (paths, reference)
    ]
    error = np.sum(np.abs(h[0] - h[1]) ** 2, axis=(2, 3))
    return 10 * np.log10(error / np.sum(np.abs(h[1]) ** 2, axis=(2, 3)) + 1e-15)


def test_pooled_candidates_find_the_paths_of_every_position(street):
    alone = trace(street, tracks(), candidate_spacing=0.0)
    pooled = trace(street, tracks(), candidate_spacing=0.5)
    assert validate(alone) == [] and validate(pooled) == []
    # Chance decides which of several wedges at one edge is kept, and the rounding of each mirror.
    assert np.median(error_db(pooled, alone)) < -45
    # No path that rays found for a position of its own is lost, but for those of the last decibels.
    for sequence, snapshot in np.ndindex(alone.valid.shape[:2]):
        mine, theirs = (
            np.sort(p.tau[sequence, snapshot, p.valid[sequence, snapshot]]) for p in (pooled, alone)
        )
        missing = np.abs(theirs[:, None] - mine).min(axis=1) > 1e-11
        assert missing.sum() <= 0.03 * len(theirs)
        assert len(mine) == len(np.unique(mine.round(14))) or len(mine) <= len(theirs)


def test_candidates_beyond_the_room_are_not_lost(street, monkeypatch):
    from lwmt_sionna.rt.tracing import solver

    whole = trace(street, tracks(5))
    monkeypatch.setattr(solver, "CANDIDATES_PER_RECEIVER", 1)
    monkeypatch.setattr(solver, "LEAST_ROOM", 50)
    crowded = trace(street, tracks(5))
    assert crowded.valid.sum() == whole.valid.sum()
    assert error_db(crowded, whole).max() < -50


def test_evolved_snapshots_are_close_to_traced_ones_and_seams_are_measured(street):
    whole = trace(street, tracks())
    hybrid = trace(street, tracks(), retrace_wavelengths=1.8)
    assert whole.traced.all() and np.isnan(whole.seam_error).all()
    # 3 cm a step, 15.4 cm a gap: every fifth snapshot.
    assert hybrid.traced[0].tolist() == [k % 5 == 0 for k in range(11)]
    assert validate(hybrid) == []
    error = error_db(hybrid, whole)
    assert np.median(error[~hybrid.traced]) < -45
    assert error[hybrid.traced].max() < -50
    assert (~np.isnan(hybrid.seam_error)).tolist() == [[k in (5, 10) for k in range(11)]] * 4
    seams = 10 * np.log10(hybrid.seam_error[:, [5, 10]])
    # Doppler shifts alone miss the curvature, which the joint polynomial has.
    assert -60 < np.median(seams) < -15


def test_choice_of_snapshots_and_shooters():
    from lwmt_sionna.rt.tracing.sequences import choose_shooters, choose_traced

    slow, fast = np.arange(21) * 0.01, np.arange(21) * 0.05
    assert choose_traced(np.stack([slow]), 0.0).all()
    for travelled in (np.stack([slow]), np.stack([slow, fast])):
        chosen = np.nonzero(choose_traced(travelled, 0.1))[0]
        assert chosen[0] == 0 and chosen[-1] == 20
        assert np.diff(travelled[:, chosen], axis=1).max() <= 0.1 + 1e-12
    # A step beyond the gap leaves nothing to evolve.
    assert choose_traced(np.stack([fast]), 0.01).all()
    shooters, listens = choose_shooters(np.arange(101) * 0.1, 2.5)
    assert len(shooters) == 4 and listens.any(axis=1).all()
    assert listens[0].tolist() == [True, True, False, False]
    assert listens[50].sum() == 3
    still, listens = choose_shooters(np.zeros(5), 0.5)
    assert len(still) == 1 and listens.all()


def test_coplanar_faces_share_a_representative(street):
    from lwmt_sionna.rt.tracing.solver import face_groups

    groups = face_groups(street.scene)
    names = sorted(street.scene.objects)
    identifiers = np.array([int(street.scene.objects[name].object_id) for name in names])
    np.testing.assert_array_equal(groups.rank(identifiers), np.arange(len(names)))
    assert groups.rank(np.array([0xFFFFFFFF]))[0] == -1
    for name, identifier in zip(names, identifiers, strict=True):
        mesh = street.scene.objects[name].mi_mesh
        corners = np.array(mesh.vertex_positions_buffer()).reshape(-1, 3).astype(float)
        faces = np.array(mesh.faces_buffer()).reshape(-1, 3)
        index = np.arange(len(faces))
        chosen = groups.representative(np.full(len(faces), identifier), index)
        triangle, plane = corners[faces], corners[faces[chosen]]
        normal = np.cross(plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        height = np.einsum("fcx,fx->fc", triangle - plane[:, :1], normal)
        assert np.abs(height).max() < 5e-3
        assert len(np.unique(chosen)) <= len(faces)


def test_path_keys_do_not_depend_on_what_else_was_loaded():
    program = """
import sys, numpy as np
from lwmt_sionna.rt import load_scene, trace_positions, TracingConfig
if sys.argv[1] == "second":
    load_scene("simple_street_canyon_with_cars", 3.5e9)
street = load_scene("simple_street_canyon", 3.5e9)
position = np.array([[5.0, 1.0, 1.5]])
config = TracingConfig(samples_per_source=20_000, diffraction=False)
traced = trace_positions(street, (-20.0, 3.0, 15.0), (0, 0, 0), position, 0 * position, config)
print(*sorted(traced["path_key"][traced["valid"]]))
"""
    keys = {
        subprocess.run(
            [sys.executable, "-c", program, order],
            capture_output=True, text=True, check=True, timeout=300,
        ).stdout.splitlines()[-1]
        for order in ("first", "second")
    }  # fmt: skip
    assert len(keys) == 1 and len(keys.pop().split()) > 3


@pytest.fixture
def cars():
    """The street with cars, each of them an object of its own."""
    from lwmt_sionna.rt import LoadedScene
    from lwmt_sionna.rt.tracing.engine import sionna_rt

    scene = sionna_rt.load_scene(sionna_rt.scene.simple_street_canyon_with_cars, merge_shapes=False)
    scene.frequency = CARRIER
    return LoadedScene(scene=scene, name="cars", ground_ids=())


def car_names(scene):
    return [name for name in scene.objects if name.startswith("car")]


def corners_of(scene, name):
    return np.array(scene.objects[name].mi_mesh.vertex_positions_buffer()).reshape(-1, 3)


def test_moving_objects_are_posed_and_put_back(cars):
    from lwmt_sionna.rt import MovingObject
    from lwmt_sionna.rt.tracing.sequences import moving_scene

    name = car_names(cars.scene)[0]
    rest = corners_of(cars.scene, name)
    centre = (rest.min(axis=0) + rest.max(axis=0)) / 2
    goal = centre + np.array([3.0, 1.0, 0.0])
    item = MovingObject(name, np.stack([centre, goal]), np.array([0.0, np.pi / 2]))
    with moving_scene(cars, [item], 2, 0.5) as pose:
        pose(0)
        np.testing.assert_allclose(corners_of(cars.scene, name), rest, atol=1e-4)
        pose(1)
        turned = np.column_stack([-(rest - centre)[:, 1], (rest - centre)[:, 0], rest[:, 2]])
        expected = turned + np.array([goal[0], goal[1], goal[2] - centre[2]])
        np.testing.assert_allclose(corners_of(cars.scene, name), expected, atol=1e-4)
        pace = np.ravel(cars.scene.objects[name].velocity)
        np.testing.assert_allclose(pace, [6, 2, 0], atol=1e-5)
    np.testing.assert_allclose(corners_of(cars.scene, name), rest, atol=1e-5)
    for wrong, words in (
        (MovingObject("tram", item.position, item.orientation), "name=tram"),
        (MovingObject(name, item.position[:1], item.orientation[:1]), "all 2 snapshots"),
    ):
        with pytest.raises(ValueError, match=words), moving_scene(cars, [wrong], 2, 0.5):
            pass


def test_a_passing_car_shifts_what_it_reflects(cars):
    from lwmt_sionna.rt import MovingObject, Tracks

    name = car_names(cars.scene)[0]
    rest = corners_of(cars.scene, name)
    centre = (rest.min(axis=0) + rest.max(axis=0)) / 2
    num_snapshots, speed = 5, 10.0
    drive = centre + speed * PERIOD * np.arange(num_snapshots)[:, None] * [1.0, 0.0, 0.0]
    item = MovingObject(name, drive, np.zeros(num_snapshots))
    # Users between the base station and the face that the car turns to it.
    before = centre + np.array([[-2.7, 0.0, 0.0], [-3.2, 0.3, -0.2], [-2.6, -0.4, 0.2]])
    still = Tracks(np.repeat(before[:, None], num_snapshots, axis=1), PERIOD)
    paths = trace(cars, still, moving=[item], diffraction=False, max_depth=2)
    assert validate(paths) == []
    shifted = paths.valid & (np.abs(paths.doppler) > 1.0)
    assert shifted.any(axis=(1, 2)).all() and not shifted[paths.path_key == 0].any()
    # Away from the base station: what the car reflects arrives later and later.
    assert (paths.doppler[shifted] < -speed / WAVELENGTH).any()
    # At most twice the speed in wavelengths per second.
    assert np.abs(paths.doppler[paths.valid]).max() < 2 * speed / WAVELENGTH
    parked = trace(cars, still, diffraction=False, max_depth=2)
    assert not (np.abs(parked.doppler[parked.valid]) > 1e-3).any()
    # Evolved between the first and the last snapshot.
    hybrid = trace(
        cars, still, moving=[item], diffraction=False, max_depth=2, retrace_wavelengths=2.0
    )
    assert hybrid.traced.sum(axis=1).tolist() == [2, 2, 2]
    assert np.median(error_db(hybrid, paths)) < -35


def test_a_depth_beyond_what_labels_hold_is_refused():
    from lwmt_sionna.rt import TracingConfig

    with pytest.raises(ValueError, match="max_depth=9"):
        TracingConfig(max_depth=9)
    with pytest.raises(ValueError, match="retrace_wavelengths=-1"):
        TracingConfig(retrace_wavelengths=-1)
