"""Baselines of the tasks on channels whose right answer is known."""

import numpy as np
import pytest

from lwmt_sionna.baselines.estimation import interpolate_pilots, path_lmmse, pursue_paths
from lwmt_sionna.baselines.tasks import (
    SIGHT_FEATURES,
    Neighbors,
    Threshold,
    angle_power,
    boost_classifier,
    delay_angle_profile,
    sight_features,
)
from lwmt_sionna.data import (
    ClusterConfig,
    PlanarArray,
    beam_power,
    best_beams,
    dft_codebook,
    draw_clusters,
    sparse_mask,
    subcarrier_frequencies,
    synthesize,
)

TIME, ANT, BAND = 8, 16, 16
BANDWIDTH = subcarrier_frequencies(BAND, 540e3)


def wave(doppler, angle, delay, shape=(TIME, ANT, BAND)):
    """A plane wave; arguments in turns from one sample to the next."""
    t, m, k = np.ogrid[tuple(slice(size) for size in shape)]
    return np.exp(2j * np.pi * (doppler * t + angle * m + delay * k)).astype(np.complex64)


def error_db(guess, h):
    return 10 * np.log10(np.sum(np.abs(guess - h) ** 2) / np.sum(np.abs(h) ** 2))


def test_a_quarter_are_pilots():
    mask = sparse_mask(TIME, BAND, 4)
    assert mask.mean() == 0.75
    assert not mask.all(axis=1).any() and not mask.all(axis=0).any()


def test_interpolation_is_exact_on_lines_and_reads_pilots_alone(rng):
    mask = sparse_mask(TIME, BAND, 4)
    # Between pilots channels that are linear in frequency; all snapshots have some.
    slope = np.arange(BAND) * np.ones((2, TIME, ANT, 1)) + 0j
    hidden = np.where(mask[:, None], np.nan, slope)
    found = interpolate_pilots(hidden, mask)
    inner = slice(3, BAND - 3)
    np.testing.assert_allclose(found[..., inner], slope[..., inner], rtol=1e-5)
    # Over time between the snapshots that have pilots.
    mask = np.ones((TIME, BAND), bool)
    mask[[1, 5]] = False
    over_time = np.arange(TIME).reshape(-1, 1, 1) * np.ones((1, TIME, ANT, BAND)) + 0j
    found = interpolate_pilots(over_time, mask)
    np.testing.assert_allclose(found[0, :, 0, 0].real, [1, 1, 2, 3, 4, 5, 5, 5], rtol=1e-5)
    with pytest.raises(ValueError, match="hides everything"):
        interpolate_pilots(over_time, np.ones((TIME, BAND), bool))


def test_pursuit_resolves_paths_off_the_grid(rng):
    h = wave(0.113, -0.21, -0.037) + 0.5j * wave(-0.05, 0.302, -0.21)
    mask = sparse_mask(TIME, BAND, 4)
    seen = np.where(mask[:, None], np.nan_to_num(np.inf), h)
    assert error_db(pursue_paths(seen[None], mask)[0], h) < -25
    # Noise alone is no path.
    noise = rng.standard_normal((1, TIME, ANT, BAND)) + 1j * rng.standard_normal(h.shape)
    assert np.sum(np.abs(pursue_paths(noise, mask)) ** 2) < 0.1 * np.sum(np.abs(noise) ** 2)


def test_true_statistics_leave_no_error_without_noise_and_less_than_the_noise_with_it(rng):
    config = ClusterConfig(num_clusters=(2, 3), num_rays=(1, 1))
    paths = draw_clusters(3, TIME, 5e-3, rng, config)
    array, mask = PlanarArray(num_cols=ANT), sparse_mask(TIME, BAND, 4)
    h = synthesize(paths, array, BANDWIDTH)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3))
    exact = path_lmmse(h, mask, paths, array, BANDWIDTH, 1e-9 * power)
    assert error_db(exact, h) < -50
    noise = rng.standard_normal(h.shape) + 1j * rng.standard_normal(h.shape)
    y = h + noise * np.sqrt(power / 20)[:, None, None, None]
    told = path_lmmse(y, mask, paths, array, BANDWIDTH, power / 10)
    # A few factors from a thousand pilots at 10 dB.
    assert error_db(told, h) < -25


@pytest.mark.parametrize("num_beams", [ANT, 2 * ANT])
def test_the_strongest_angle_is_the_beam_of_a_path(num_beams):
    """Of the same directions at another carrier, whose array has another number of antennas."""
    paths = draw_clusters(
        12, 2, 5e-3, np.random.default_rng(4), ClusterConfig(num_clusters=(1, 1), num_rays=(1, 1))
    )
    own, other = PlanarArray(num_cols=ANT), PlanarArray(num_cols=num_beams)
    h, there = (synthesize(paths, array, BANDWIDTH) for array in (own, other))
    best = best_beams(beam_power(there, dft_codebook(other)))
    np.testing.assert_array_equal(angle_power(h, num_beams).argmax(axis=-1), best)


def test_one_path_has_no_spread_and_many_have_no_k_factor(rng):
    index = {name: place for place, name in enumerate(SIGHT_FEATURES)}
    one = 1e-4 * wave(0.1, 3 / ANT, -5 / BAND)[None]
    many = rng.standard_normal((1, TIME, ANT, BAND)) + 1j * rng.standard_normal(one.shape)
    features = sight_features(np.concatenate([one, 1e-4 * many]))
    alone, rich = features
    assert alone[index["delay_spread"]] < 1e-3 and alone[index["angle_spread"]] < 1e-3
    assert alone[index["k_factor_db"]] > 25 and rich[index["k_factor_db"]] < 0
    assert alone[index["peak_delay"]] == 5 and alone[index["peak_after_first"]] == 0
    assert alone[index["level_db"]] == pytest.approx(-80, abs=1e-3)
    assert alone[index["coherence"]] > 0.999 > 0.5 > rich[index["coherence"]]
    assert alone[index["num_strong"]] == 1
    assert (alone > rich)[index["peak_share_db"]]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_threshold_lies_between_the_classes(sign):
    threshold = Threshold.fit(sign * np.array([1.0, 2, 5, 7]), np.array([False, False, True, True]))
    assert threshold.at == sign * 3.5 and threshold.sign == sign
    np.testing.assert_array_equal(threshold(sign * np.array([3.0, 4.0])) > 0, [False, True])


def test_boosting_learns_a_rule_and_one_class():
    pytest.importorskip("sklearn")
    features = np.random.default_rng(1).uniform(-1, 1, (200, 3))
    labels = features[:, 1] > 0.2
    asked = np.array([[0.0, 0.6, 0.0], [0.9, -0.6, 0.9]])
    assert list(boost_classifier(features, labels, asked) > 0) == [True, False]
    assert (boost_classifier(features[labels], labels[labels], asked) > 0).all()


def test_neighbors_know_what_they_have_seen(rng):
    profiles = delay_angle_profile(rng.standard_normal((30, TIME, ANT, BAND)) + 0j)
    np.testing.assert_allclose(np.linalg.norm(profiles, axis=1), 1, rtol=1e-5)
    places = rng.uniform(0, 100, (30, 2))
    groups = np.arange(30)
    model = Neighbors(profiles, None, places, groups)
    # The nearest is the one itself, at no distance, and counts for nearly all.
    np.testing.assert_allclose(model(profiles), places, atol=0.5)
    beams = rng.integers(0, 8, (30, 2))
    np.testing.assert_array_equal(Neighbors(profiles, None, beams, groups)(profiles), beams)


def test_the_number_of_neighbors_is_chosen_without_those_of_the_same_trajectory(rng):
    """Twins would say one; strangers, who are all alike, say that many are better."""
    level = np.repeat(np.arange(20.0), 2)
    labels = np.repeat(rng.standard_normal(20), 2)[:, None]
    profiles = np.ones((40, 1), np.float32)
    twins = Neighbors(profiles, level, labels, np.arange(40))
    strangers = Neighbors(profiles, level, labels, np.repeat(np.arange(20), 2))
    assert twins.num_neighbors == 1 < strangers.num_neighbors


def test_neighbors_of_the_same_base_station_count_where_labels_say_so(rng):
    level = np.tile(np.arange(20.0), 2)
    stations = np.repeat([0, 1], 20)
    labels = np.where(stations == 0, 10 * level, -10 * level)[:, None]
    model = Neighbors(np.ones((40, 1), np.float32), level, labels, np.arange(40), stations)
    assert model.same_station
    found = model(np.ones((2, 1), np.float32), np.array([10.0, 10.0]), np.array([0, 1]))
    assert found[0, 0] > 50 and found[1, 0] < -50
