"""Users and objects in motion: velocities come from positions."""

import numpy as np
import pytest

from lwmt_sionna.rt import MovingObject, Tracks, derive_velocity


def test_velocity_of_a_parabola_is_exact_everywhere():
    time = 0.1 * np.arange(9)
    position = np.stack([3.0 * time - time**2, 0.5 * time**2, np.full(9, 1.5)], axis=-1)
    velocity = np.stack([3.0 - 2 * time, time, np.zeros(9)], axis=-1)
    np.testing.assert_allclose(derive_velocity(position, 0.1), velocity, atol=1e-12)


def test_tracks_share_a_clock_and_tell_their_mean_speed():
    position = np.zeros((2, 5, 3))
    position[0, :, 0] = 0.02 * np.arange(5)
    position[1, :, 1] = [0.0, 0.0, 0.0, 0.04, 0.04]
    tracks = Tracks(position, 1e-2)
    np.testing.assert_allclose(tracks.speed, [2.0, 1.0])
    np.testing.assert_allclose(tracks.time, [0, 0.01, 0.02, 0.03, 0.04])
    assert tracks.velocity.shape == position.shape


@pytest.mark.parametrize("num_snapshots", [1, 2])
def test_short_tracks(num_snapshots):
    position = np.arange(num_snapshots)[:, None] * np.array([1.0, 0.0, 0.0])
    expected = np.zeros(3) if num_snapshots == 1 else np.array([10.0, 0.0, 0.0])
    np.testing.assert_allclose(derive_velocity(position, 0.1), [expected] * num_snapshots)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"position.shape=\(5, 3\)"):
        Tracks(np.zeros((5, 3)), 1e-3)
    with pytest.raises(ValueError, match="sampling_period=0"):
        Tracks(np.zeros((1, 5, 3)), 0)
    with pytest.raises(ValueError, match=r"name=car_1.*orientation.shape=\(4,\)"):
        MovingObject("car_1", np.zeros((5, 3)), np.zeros(4))
