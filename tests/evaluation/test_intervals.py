import numpy as np
import pytest

from lwmt_sionna.evaluation import cluster_bootstrap, cluster_mean, paired_difference, verdict


def test_interval_covers_the_truth_as_often_as_it_says(rng):
    # Drops are good or bad as a whole: blocks of one drop are not independent.
    covered = []
    for _ in range(200):
        bad = rng.random(80) < 0.3
        errors = rng.binomial(8, np.where(bad, 0.9, 0.05))
        low, high = cluster_bootstrap(errors, np.full(80, 8))
        covered.append(low <= 0.3 * 0.9 + 0.7 * 0.05 <= high)
    assert 0.89 < np.mean(covered) < 0.99


def test_interval_over_drops_is_wider_than_over_blocks(rng):
    errors = np.where(rng.random(100) < 0.5, 8, 0)
    low, high = cluster_bootstrap(errors, np.full(100, 8))
    binomial = 2 * 1.96 * np.sqrt(0.25 / 800)
    assert high - low > 2 * binomial


def test_no_error_still_leaves_a_bound():
    low, high = cluster_bootstrap(np.zeros(60, int), np.full(60, 4))
    assert low == 0.0
    # The rule of three, over drops.
    assert high == pytest.approx(3 / 60, rel=0.05)
    assert cluster_bootstrap([4, 4], [4, 4])[1] == 1.0


def test_interval_refuses_empty_drops():
    with pytest.raises(ValueError, match="positive block count"):
        cluster_bootstrap([0, 1], [0, 4])


def test_interval_of_a_mean(rng):
    values = rng.normal(3.0, 1.0, 400)
    low, high = cluster_mean(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_values_of_one_cluster_count_once(rng):
    values = rng.normal(3.0, 1.0, 100)
    alone = cluster_mean(values)
    repeated = cluster_mean(np.repeat(values, 5), np.repeat(np.arange(100), 5))
    np.testing.assert_allclose(repeated, alone)
    low, high = cluster_mean(np.repeat(values, 5))
    assert high - low < (alone[1] - alone[0]) / 2


def test_pairing_sees_what_separate_intervals_do_not(rng):
    reference = rng.gamma(2.0, 1.0, 80)  # drops differ by much more than ways of serving them
    values = reference + rng.normal(0.1, 0.1, 80)
    difference, low, high = paired_difference(values, reference)
    assert difference == pytest.approx(values.mean() - reference.mean())
    assert 0 < low < difference < high
    assert verdict(low, high) == "better"
    assert cluster_mean(values)[0] < cluster_mean(reference)[1]
    back = paired_difference(reference, values)
    assert back == pytest.approx((-difference, -high, -low), abs=0.02)
    assert verdict(*back[1:]) == "worse"
    assert paired_difference(values, values) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("statistic", "num_clusters"), [("mean", 4), ("mean", 40), ("median", 20), ("pooled_db", 40)]
)
def test_interval_of_a_difference_covers_the_truth(rng, statistic, num_clusters):
    covered = []
    labels = np.repeat(np.arange(num_clusters), 3)
    for _ in range(200):
        # Values of a cluster have most in common; the two that are compared differ by nothing.
        common = rng.gamma(3.0, 1.0, (num_clusters, 1))
        own, other = (
            (
                common * rng.gamma(3.0, 1.0, (num_clusters, 1)) + rng.random((num_clusters, 3))
            ).ravel()
            for _ in range(2)
        )
        if statistic == "pooled_db":
            power = np.repeat(common.ravel() ** 2, 3)
            own, other = (np.stack([x, power], axis=1) for x in (own, other))
        _, low, high = paired_difference(own, other, labels, statistic=statistic)
        covered.append(low <= 0 <= high)
    # Three standard deviations of 200 draws about 95 %; medians, which are lumpy, err on its side.
    assert 0.90 < np.mean(covered)


def test_figures_are_those_of_the_whole_sample(rng):
    error, power = rng.gamma(1.0, 1.0, (2, 51))
    other = rng.gamma(1.0, 2.0, 51)
    found = paired_difference(
        np.stack([error, power], 1), np.stack([other, power], 1), statistic="pooled_db"
    )
    assert found[0] == pytest.approx(10 * np.log10(error.sum() / other.sum()))
    for size in (50, 51):
        middle, _, _ = paired_difference(error[:size], other[:size], statistic="median")
        assert middle == pytest.approx(np.median(error[:size]) - np.median(other[:size]))


def test_nothing_is_claimed_from_one_cluster():
    difference, low, high = paired_difference([1.0, 2.0], [0.0, 0.0], clusters=[7, 7])
    assert difference == 1.5
    assert verdict(low, high) == "no detectable difference"


@pytest.mark.parametrize(
    ("low", "high", "gain", "error"),
    [
        (0.1, 0.2, "better", "worse"),
        (-0.2, -0.1, "worse", "better"),
        (-0.1, 0.1, "no detectable difference", "no detectable difference"),
        (0.0, 0.1, "no detectable difference", "no detectable difference"),
    ],
)
def test_a_verdict_needs_zero_outside(low, high, gain, error):
    assert verdict(low, high) == gain
    assert verdict(low, high, lower_is_better=True) == error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": [1.0]}, "equal shapes"),
        ({"reference": [1.0, np.nan]}, "NaN"),
        ({"clusters": [1]}, "needs a cluster"),
        ({"statistic": "mode"}, "statistic must be one of"),
        ({"statistic": "pooled_db"}, r"\[num_values, 2\]"),
    ],
)
def test_a_difference_of_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(**{"values": [1.0, 2.0], "reference": [1.0, 1.0], **arguments})
