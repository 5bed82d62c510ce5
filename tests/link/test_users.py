import numpy as np

from lwmt_sionna.link.csi.drops import admitted, group_users, spatial_similarity


def steering(angle, num_antennas=32):
    return np.exp(1j * np.pi * np.arange(num_antennas) * np.sin(angle))


def test_similarity_tells_directions_apart(rng):
    angles = np.array([0.1, 0.1, 0.6])
    gains = rng.standard_normal((3, 4, 1, 5)) + 1j * rng.standard_normal((3, 4, 1, 5))
    history = gains * np.stack([steering(angle) for angle in angles])[:, None, :, None]
    similarity = spatial_similarity(history)
    np.testing.assert_allclose(np.diag(similarity), 1.0)
    np.testing.assert_allclose(similarity[0, 1], 1.0)
    assert similarity[0, 2] < 0.05


def test_silent_users_do_not_break_it():
    assert np.isfinite(spatial_similarity(np.zeros((2, 3, 4, 5), complex))).all()


def test_users_that_went_behind_a_house_are_not_admitted():
    history = np.ones((2, 16, 4, 4), complex)
    history[1, -1] *= 0.1
    assert admitted(history).tolist() == [True, False]


def test_groups_share_a_station_and_no_trajectory(rng):
    trajectory = np.arange(60) // 2
    station = trajectory % 3
    similarity = rng.uniform(0, 1, (60, 60))
    similarity = np.triu(similarity, 1) + np.triu(similarity, 1).T + np.eye(60)
    groups = group_users(np.arange(60), trajectory, station, similarity, 3, 0.6, rng)
    assert len(groups) > 3
    assert len(np.unique(trajectory[groups])) == groups.size
    for group in groups:
        assert len(set(station[group])) == 1
        assert np.max(similarity[np.ix_(group, group)] - np.eye(3)) <= 0.6


def test_too_few_users_make_no_group(rng):
    groups = group_users(np.arange(3), np.arange(3), np.zeros(3, int), np.eye(3), 4, 1.0, rng)
    assert groups.shape == (0, 4)
