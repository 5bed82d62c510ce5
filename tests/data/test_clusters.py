"""Random clusters have the geometry and the statistics that they claim."""

import numpy as np
import pytest

from lwmt_sionna.data import ClusterConfig, draw_clusters, event_mask, validate

LIGHT = 299_792_458.0


def test_clusters_obey_their_geometry(rng):
    paths = draw_clusters(50, 11, 1e-3, rng, ClusterConfig(birth_rate=0.0))
    assert not validate(paths)
    valid = paths.valid
    # The Doppler shift is -f_c times the rate of change of the delay.
    rate = np.diff(paths.tau.astype(np.float64), axis=1) / 1e-3
    mean = (paths.doppler[:, 1:] + paths.doppler[:, :-1]) / 2
    step = np.abs(-rate * 3.5e9 - mean)[valid[:, 1:]]
    assert np.median(step) < 0.5  # delays are float32: 0.03 ns in 1 ms is a quarter of a hertz
    largest = paths.speed[:, None, None] * 3.5e9 / LIGHT
    assert (np.abs(paths.doppler) <= largest * (1 + 1e-5)).all()
    # The phase turns with the Doppler shift.
    turn = np.angle(paths.a[:, 1:, :, 0, 0] * paths.a[:, :-1, :, 0, 0].conj()) / (2 * np.pi * 1e-3)
    error = (turn - mean + 500) % 1000 - 500
    assert np.abs(error[valid[:, 1:]]).max() < 1e-2
    power = (np.abs(paths.a[:, 0, :, 0, 0]) ** 2).sum(axis=1)
    np.testing.assert_allclose(power, 1.0, rtol=1e-5)


def test_clusters_have_the_stated_statistics(rng):
    config = ClusterConfig(num_clusters=(3, 3), num_rays=(2, 2), line_of_sight=0.25)
    paths = draw_clusters(2000, 3, 1e-3, rng, config)
    assert paths.num_paths == 6
    assert abs(paths.line_of_sight[:, 0].mean() - 0.25) < 5 * np.sqrt(0.19 / 2000)
    kmh = paths.speed * 3.6
    assert 1 <= kmh.min() and kmh.max() <= 150
    assert abs(np.log(kmh).mean() - np.log(150) / 2) < 0.2


def test_births_and_deaths_come_at_their_rate(rng):
    config = ClusterConfig(num_clusters=(1, 1), num_rays=(1, 1), birth_rate=2.0, line_of_sight=0.0)
    paths = draw_clusters(4000, 101, 1e-3, rng, config)
    events = event_mask(paths, 0, 100)
    expected = 1 - np.exp(-2.0 * 0.1)
    assert abs(events.mean() - expected) < 5 * np.sqrt(expected / 4000)
    born = ~paths.valid[:, 0, 0] & paths.valid[:, -1, 0]
    died = paths.valid[:, 0, 0] & ~paths.valid[:, -1, 0]
    assert abs(born.mean() - died.mean()) < 0.05


def test_same_seed_same_clusters():
    first, second = (draw_clusters(3, 4, 1e-3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.a, second.a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clusters": (0, 2)}, "num_clusters"),
        ({"speed_kmh": (5.0, 1.0)}, "speed_kmh"),
        ({"line_of_sight": 2.0}, "line_of_sight=2"),
    ],
)
def test_wrong_statistics_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**arguments)
