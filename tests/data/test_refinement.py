import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import PlanarArray, event_mask, replay, subcarrier_frequencies, synthesize
from tests.link.channels import make_paths

ARRAY = PlanarArray(1, 8)
FREQUENCIES = subcarrier_frequencies(8, 540e3)


def channel(paths):
    return synthesize(paths, ARRAY, FREQUENCIES)


@pytest.fixture(scope="module")
def paths():
    return make_paths(num_sequences=6, speed_kmh=30.0, sampling_period=5e-3)


def test_twice_as_fast_at_half_the_period_is_the_same(paths):
    fast = replay(paths, 2.0, 2.5e-3)
    np.testing.assert_array_equal(channel(fast), channel(paths))
    np.testing.assert_allclose(fast.speed * 3.6, 60.0, rtol=1e-5)
    np.testing.assert_allclose(fast.normalized_doppler, paths.normalized_doppler)
    np.testing.assert_allclose(fast.doppler, 2 * paths.doppler)
    assert fast.traced.all() and fast.sampling_period == 2.5e-3


@pytest.mark.parametrize("parts", [2, 20])
def test_slower_users_are_met_where_they_would_have_been_traced(paths, parts):
    slow = replay(paths, 2.0 / parts, 2.5e-3)
    traced = make_paths(num_sequences=6, speed_kmh=60.0 / parts, sampling_period=2.5e-3)
    error = np.abs(channel(slow) - channel(traced)) ** 2
    assert error.sum() < 1e-5 * (np.abs(channel(traced)) ** 2).sum()
    np.testing.assert_allclose(slow.position, traced.position, atol=1e-3)
    np.testing.assert_allclose(slow.time, traced.time, atol=1e-9)
    np.testing.assert_allclose(slow.velocity, traced.velocity, rtol=1e-4)
    # Within a slot it moves as it should.
    late = [synthesize(p, ARRAY, FREQUENCIES, times=[1e-3]) for p in (slow, traced)]
    np.testing.assert_allclose(late[0], late[1], atol=3e-3 * np.abs(late[1]).max())
    assert slow.traced.mean() == pytest.approx({2: 11 / 21, 20: 2 / 21}[parts])
    assert not event_mask(slow, 10, 15).any()


def test_births_lie_in_the_middle(paths):
    valid = paths.valid.copy()
    valid[0, 1:, 2] = False
    slow = replay(dataclasses.replace(paths, valid=valid), 0.5, 2.5e-3, num_snapshots=5)
    assert slow.num_snapshots == 5
    # Four steps make a stored one: the path dies with the second of them.
    np.testing.assert_array_equal(slow.valid[0].sum(axis=-1), [6, 6, 5, 5, 5])
    np.testing.assert_array_equal(slow.valid[1].sum(axis=-1), 6)


def test_wrong_settings(paths):
    with pytest.raises(ValueError, match=r"whole part.*speed_factor=3\.0"):
        replay(paths, 3.0, 2.5e-3)
    with pytest.raises(ValueError, match="sampling_period=0"):
        replay(paths, 1.0, 0)
    with pytest.raises(ValueError, match=r"1 to 21 snapshots.*num_snapshots=22"):
        replay(paths, 1.0, 5e-3, num_snapshots=22)
