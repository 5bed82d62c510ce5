"""Other periods, speeds and lengths of stored sequences."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import (
    ClusterConfig,
    PlanarArray,
    draw_clusters,
    evolve,
    interpolate,
    retime,
    subcarrier_frequencies,
    synthesize,
)

ARRAY = PlanarArray(1, 8)
FREQUENCIES = subcarrier_frequencies(8, 540e3)


@pytest.fixture
def paths(rng):
    return draw_clusters(12, 9, 2.5e-3, rng, ClusterConfig(birth_rate=0.0))


def test_another_period_is_another_speed(paths):
    slower = retime(paths, 5e-3)
    np.testing.assert_allclose(slower.speed, paths.speed / 2)
    np.testing.assert_allclose(slower.normalized_doppler, paths.normalized_doppler, rtol=1e-6)
    np.testing.assert_array_equal(
        synthesize(slower, ARRAY, FREQUENCIES), synthesize(paths, ARRAY, FREQUENCIES)
    )
    # Between snapshots the paths evolve as long as it takes to the next one.
    late = synthesize(slower, ARRAY, FREQUENCIES, times=[5e-3], snapshots=[0])[:, :, 0]
    early = synthesize(paths, ARRAY, FREQUENCIES, times=[2.5e-3], snapshots=[0])[:, :, 0]
    np.testing.assert_allclose(late, early, atol=1e-5)
    np.testing.assert_allclose(slower.time[:, 1], 5e-3)
    with pytest.raises(ValueError, match="sampling_period=0"):
        retime(paths, 0)


def test_evolution_follows_the_paths(paths):
    same = evolve(paths, 9, 2.5e-3)
    truth = synthesize(paths, ARRAY, FREQUENCIES)
    guess = synthesize(same, ARRAY, FREQUENCIES)
    np.testing.assert_allclose(guess[:, 0], truth[:, 0], atol=1e-5)
    slow = paths.speed < 5
    error = np.abs(guess - truth)[slow].max() / np.abs(truth)[slow].max()
    assert error < 0.05  # a plane wave, over some centimetres
    assert slow.any()


def test_evolution_at_another_speed_and_period(paths):
    doubled = evolve(paths, 5, 2.5e-3, speed_factor=2.0)
    longer = evolve(paths, 5, 5e-3)
    np.testing.assert_allclose(
        synthesize(doubled, ARRAY, FREQUENCIES),
        synthesize(longer, ARRAY, FREQUENCIES),
        atol=1e-4,
    )
    np.testing.assert_allclose(doubled.speed, 2 * paths.speed)
    assert longer.sampling_period == 5e-3 and longer.num_snapshots == 5
    chosen = evolve(paths, 2, 1e-3, snapshot=np.arange(12) % 9)
    for index in (0, 5, 11):
        np.testing.assert_allclose(
            synthesize(chosen, ARRAY, FREQUENCIES)[index, 0],
            synthesize(paths, ARRAY, FREQUENCIES)[index, index % 9],
            atol=1e-5,
        )


def test_interpolation_meets_the_geometry(rng):
    """Every other snapshot left out and put back: births apart, the channel is the same."""
    seed = int(rng.integers(1 << 30))
    still = ClusterConfig(birth_rate=0.0, speed_kmh=(10.0, 60.0))
    dense = draw_clusters(10, 21, 1.25e-3, np.random.default_rng(seed), still)
    coarse = dataclasses.replace(
        dense.select(slice(None)),
        **{name: value[:, ::4] for name, value in dense.arrays.items() if value.ndim > 1},
        sampling_period=5e-3,
    )
    fine = interpolate(coarse, 4, 21)
    assert fine.sampling_period == dense.sampling_period
    np.testing.assert_array_equal(fine.valid.sum(axis=2), dense.valid.sum(axis=2))
    np.testing.assert_allclose(fine.time, dense.time)
    np.testing.assert_allclose(fine.position, dense.position, atol=1e-4)
    np.testing.assert_array_equal(fine.traced[0], np.arange(21) % 4 == 0)
    truth = synthesize(dense, ARRAY, FREQUENCIES)
    guess = synthesize(fine, ARRAY, FREQUENCIES)
    error = np.sum(np.abs(guess - truth) ** 2, axis=(1, 2, 3))
    power = np.sum(np.abs(truth) ** 2, axis=(1, 2, 3))
    assert 10 * np.log10(np.median(error / power)) < -40  # float32 delays
    # Slower users: the same places, a tenth of the way per snapshot.
    slow = retime(interpolate(coarse, 10, 21), 5e-3)
    np.testing.assert_allclose(slow.speed, coarse.speed / 10, rtol=1e-6)
    np.testing.assert_allclose(slow.position[:, 10], coarse.position[:, 1], atol=1e-4)
    with pytest.raises(ValueError, match=r"paths\.num_snapshots=6"):
        interpolate(coarse, 4, 23)
