"""Diffuse scattering: its power, its coherence along a track, and its data sets."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import (
    PlanarArray,
    read_channels,
    read_paths,
    subcarrier_frequencies,
    synthesize,
)
from tests.rt.towns import MESHES, write_town

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
WAVELENGTH = 299_792_458.0 / CARRIER
BASE_STATION = np.array([-20.0, 0.0, 20.0])
USER = np.array([15.0, 5.0, 6.0])
METAL = '<bsdf type="diffuse" id="mat-itu_metal"/>'
SINGLE = PlanarArray(num_cols=1)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A ground of metal, which reflects all power; loaded by a function of how it scatters."""
    from lwmt_sionna.rt import Scattering, load_scene

    ground = '<shape type="ply" id="mesh-ground"><string name="filename" '
    ground += 'value="meshes/ground.ply"/><ref id="mat-itu_metal" name="bsdf"/></shape>'
    path = write_town(tmp_path_factory.mktemp("plane"), shapes=[ground], materials=METAL)

    def load(**settings):
        return load_scene(path, CARRIER, scattering={"all": Scattering(**settings)})

    return load


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    from lwmt_sionna.rt import Scattering, load_scene

    path = write_town(tmp_path_factory.mktemp("town"))
    return load_scene(path, CARRIER, scattering={"all": Scattering(0.5)})


def scatter(loaded, position, velocity=(0.0, 0.0, 0.0), num_rays=50_000, **settings):
    from lwmt_sionna.rt import trace_scattered

    position = np.atleast_2d(position)
    velocity = np.broadcast_to(velocity, position.shape)
    return trace_scattered(
        loaded, BASE_STATION, (0, 0, 0), position, velocity,
        samples_per_source=num_rays, **settings,
    )  # fmt: skip


def power(traced):
    gain = np.where(traced["valid"][..., None, None], traced["a"], 0.0)
    return np.sum(np.abs(gain) ** 2, axis=(1, 2, 3), dtype=np.float64)


def scattered_power(coefficient):
    """Integral over the ground of what a Lambertian surface makes of a wave.

    `(lambda / 4 pi)^2` times the solid angle of a patch at the base station, `S^2 cos / pi` into
    the direction of the user, and the spreading on the way there.
    """
    side = MESHES["ground"].vertices[:, 0].max()
    grid = (np.arange(1_200) + 0.5) / 1_200 * 2 * side - side
    x, y = np.meshgrid(grid, grid)
    density = np.ones_like(x)
    for place in (BASE_STATION, USER):
        distance = np.sqrt((x - place[0]) ** 2 + (y - place[1]) ** 2 + place[2] ** 2)
        density *= place[2] / distance**3
    area = (2 * side / 1_200) ** 2
    return (WAVELENGTH / (4 * np.pi)) ** 2 * coefficient**2 / np.pi * density.sum() * area


def test_power_is_split_between_mirror_and_scattering(plane):
    from lwmt_sionna.rt import TracingConfig, trace_positions

    coefficient = 0.6
    loaded = plane(coefficient=coefficient)
    config = TracingConfig(max_depth=1, diffraction=False)
    traced = trace_positions(loaded, BASE_STATION, (0, 0, 0), USER[None], 0 * USER[None], config)
    mirrored = traced["valid"][0] & (traced["interactions"][0] > 0)
    image = np.linalg.norm(USER - BASE_STATION * [1, 1, -1])
    friis = (WAVELENGTH / (4 * np.pi * image)) ** 2
    found = np.abs(traced["a"][0, mirrored, 0, 0]) ** 2
    np.testing.assert_allclose(found, (1 - coefficient**2) * friis, rtol=1e-3)
    # A sixth of the rays meets the ground and is scattered: so many points of the integral.
    field = scatter(loaded, USER, num_rays=500_000, max_depth=1)
    np.testing.assert_allclose(power(field), scattered_power(coefficient), rtol=0.03)
    assert set(np.unique(field["interactions"][field["valid"]])) == {2}


def test_patterns_and_polarisation_of_scattering(plane):
    mirror = BASE_STATION + (USER - BASE_STATION) * BASE_STATION[2] / (BASE_STATION[2] + USER[2])

    def spread(**settings):
        """Root mean square angle between where power leaves to, and the mirrored path."""
        field = scatter(plane(coefficient=0.5, **settings), USER, max_depth=1)
        theta, phi = field["theta_t"][0], field["phi_t"][0]
        towards = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
        direction = mirror * [1, 1, 0] - BASE_STATION
        cosine = direction / np.linalg.norm(direction) @ np.stack(towards)
        weight = np.where(field["valid"][0], np.abs(field["a"][0, :, 0, 0]) ** 2, 0.0)
        return np.sqrt(np.average(np.arccos(np.clip(cosine, -1, 1)) ** 2, weights=weight))

    wide, narrow = (spread(pattern="directive", alpha_r=alpha) for alpha in (2, 20))
    both = spread(pattern="backscattering", alpha_r=20, alpha_i=20, lobe_share=0.2)
    assert narrow < 0.7 * wide and narrow < 0.8 * both
    kept = scatter(plane(coefficient=0.5, xpd_coefficient=0.3), USER, max_depth=1)
    whole = scatter(plane(coefficient=0.5), USER, max_depth=1)
    np.testing.assert_allclose(power(kept) / power(whole), 0.7, rtol=1e-3)


def test_more_rays_change_points_but_not_power(town):
    few, many = (power(scatter(town, USER, num_rays=n)) for n in (30_000, 120_000))
    assert np.abs(10 * np.log10(many / few)).max() < 0.5


def test_scattered_field_is_one_field_for_all_who_move_through_it(town):
    """Receivers of other solves see the same points: a solve draws nothing anew."""
    position = USER + 0.02 * np.arange(6)[:, None] * np.array([1.0, 0.0, 0.0])
    together = scatter(town, position)
    alone = scatter(town, position[3])
    count = alone["valid"].sum()
    assert together["valid"][3].sum() == pytest.approx(count, abs=3) and count > 300
    field = [np.where(t["valid"], t["a"][..., 0, 0], 0).sum(1) for t in (together, alone)]
    scale = np.abs(field[0]).max()
    assert np.abs(field[0][3] - field[1][0]) < 0.02 * scale


def test_correlation_over_distance_follows_from_the_angles_of_arrival(town):
    """Wiener-Khinchin: the field's correlation is the transform of its angular power spectrum."""
    step, num_lags = WAVELENGTH / 10, 10
    position = USER + step * np.arange(36)[:, None] * np.array([1.0, 0.0, 0.0])
    velocity = np.broadcast_to([1.0, 0.0, 0.0], position.shape)
    traced = scatter(town, position, velocity, num_rays=50_000)
    # Frequencies far apart stand for an ensemble: delays spread over hundreds of nanoseconds.
    frequencies = subcarrier_frequencies(200, 2e6)
    h = synthesize(field_of(traced, position, velocity, step), SINGLE, frequencies)[0, :, 0]
    measured = np.array(
        [np.mean(h[: len(h) - lag].conj() * h[lag:]) for lag in range(num_lags)]
    ) / np.mean(np.abs(h) ** 2)
    weight = np.where(traced["valid"], np.abs(traced["a"][..., 0, 0]) ** 2, 0.0)
    # Doppler shifts at one metre per second are components of the wave vector.
    turns = traced["doppler"] * step
    predicted = np.array(
        [np.sum(weight * np.exp(2j * np.pi * lag * turns)) for lag in range(num_lags)]
    ) / np.sum(weight)
    # 200 frequencies and 36 places are some hundred independent samples.
    assert np.abs(measured - predicted).max() < 0.12
    # The field forgets, and not at once.
    assert np.abs(predicted[1]) > 0.9 and np.abs(predicted[-1]) < 0.7


def field_of(traced, position, velocity, period):
    from lwmt_sionna.data import PathSequences

    return PathSequences(
        **{name: value[None] for name, value in traced.items()},
        position=position[None],
        velocity=np.asarray(velocity)[None],
        speed=np.ones(1),
        trajectory_id=np.arange(1),
        bs_index=np.zeros(1, int),
        bs_position=BASE_STATION,
        bs_orientation=(0.0, 0.0, 0.0),
        sampling_period=period,
        carrier_frequency=CARRIER,
        scene="town",
    )


def test_phases_evolve_by_the_doppler_shifts(town):
    """Between neighbouring places a scattered field is what its own Doppler shifts say."""
    period = 1e-3
    velocity = np.array([8.0, 3.0, 0.0])
    position = USER + period * np.arange(2)[:, None] * velocity
    traced = scatter(town, position, velocity)
    paths = field_of(traced, position, np.tile(velocity, (2, 1)), period)
    h = synthesize(
        paths, PlanarArray(num_cols=4), subcarrier_frequencies(4, 2e6), times=[0, period]
    )
    # Sequence, snapshot, instant: the first evolved, and held, against the second.
    error, held = (
        10
        * np.log10(np.sum(np.abs(h[0, 0, i] - h[0, 1, 0]) ** 2) / np.sum(np.abs(h[0, 1, 0]) ** 2))
        for i in (1, 0)
    )
    assert error < -30 and error < held - 15, (error, held)


def diffuse_config(path, **changes):
    from lwmt_sionna.rt import DiffuseConfig, GenerationConfig, Scattering, TracingConfig

    config = GenerationConfig(
        scene=str(path),
        base_stations=(tuple(BASE_STATION), (20.0, 0.0, 20.0)),
        num_sequences=5,
        num_snapshots=3,
        shard_size=3,
        tracks_per_solve=4,
        max_distance=60.0,
        tracing=TracingConfig(samples_per_source=50_000),
        scattering={"all": Scattering(0.5)},
        diffuse=DiffuseConfig(samples_per_source=50_000, array=PlanarArray(num_cols=4)),
    )
    return dataclasses.replace(config, **changes)


def test_data_sets_hold_the_channel_of_all_paths(tmp_path):
    from lwmt_sionna.rt import generate

    config = diffuse_config(write_town(tmp_path / "town"))
    channels = generate(config, tmp_path / "channels.h5", progress=False)
    assert generate(config, tmp_path / "channels.h5", progress=False).h.shape == channels.h.shape
    stored = read_channels(tmp_path / "channels.h5")
    np.testing.assert_array_equal(stored.h, channels.h)
    assert stored.h.shape == (5, 3, 4, 32) and stored.array_shape == (1, 4, 1)
    np.testing.assert_array_equal(stored.bs_index, [0, 1, 0, 1, 0])
    assert stored.metadata["config"] == config.to_dict()
    assert stored.metadata["num_scattered"] > 100
    # The same configuration without it: the specular paths of the same tracks.
    bare = dataclasses.replace(config, diffuse=None)
    paths = generate(bare, tmp_path / "paths.h5", progress=False)
    np.testing.assert_array_equal(paths.trajectory_id, stored.trajectory_id)
    np.testing.assert_allclose(paths.speed, stored.speed, rtol=1e-6)
    specular = synthesize(paths, config.diffuse.array, stored.frequencies)
    rest = np.mean(np.abs(stored.h - specular) ** 2, axis=(1, 2, 3))
    share = np.mean(rest / (rest + np.mean(np.abs(specular) ** 2, axis=(1, 2, 3))))
    assert share == pytest.approx(stored.metadata["scattered_share"], rel=0.02)
    assert read_paths(tmp_path / "paths.h5").metadata["num_drawn"] == stored.metadata["num_drawn"]


def test_what_cannot_be_is_refused(tmp_path, plane):
    from lwmt_sionna.rt import load_scene

    path = write_town(tmp_path)
    with pytest.raises(ValueError, match=r"moving_objects=\('car',\)"):
        diffuse_config(path, moving_objects=("car",))
    with pytest.raises(ValueError, match=r"polarization=VH"):
        array = PlanarArray(polarization="VH")
        diffuse_config(path, diffuse=dataclasses.replace(diffuse_config(path).diffuse, array=array))
    with pytest.raises(ValueError, match=r"concrete.*all.*scattering of cheese"):
        load_scene(path, CARRIER, scattering={"cheese": diffuse_config(path).scattering["all"]})
