import numpy as np
import pytest

from lwmt_sionna.link.sweep.summary import (
    cluster_bootstrap,
    cluster_mean,
    nmse_summary,
    paired_bootstrap,
    recovered_share,
)


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


def test_nmse_in_three_ways():
    h = np.ones((1, 2, 4, 4), complex)
    h[0, 1] *= 10
    h_hat = h * np.array([1.1, 1.2])[None, :, None, None]
    quality = nmse_summary(h_hat, h, rms=np.ones((1, 2)))
    assert quality["nmse_pooled_db"] == pytest.approx(10 * np.log10((0.01 + 4) / 101), abs=1e-3)
    assert quality["nmse_mean_db"] == pytest.approx(10 * np.log10(0.025), abs=1e-3)
    assert quality["nmse_median_db"] == pytest.approx(10 * np.log10(0.025), abs=1e-3)
    scaled = nmse_summary(h_hat, h, rms=np.array([[1, 10]]))
    assert scaled["nmse_pooled_db"] == pytest.approx(10 * np.log10(0.05 / 2), abs=1e-3)
    assert nmse_summary(h[:0], h[:0], np.ones((0, 2)))["nmse_pooled_db"] is None


def test_interval_of_a_mean(rng):
    values = rng.normal(3.0, 1.0, 400)
    low, high = cluster_mean(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_pairing_sees_what_separate_intervals_do_not(rng):
    blocks = np.full(100, 8)
    hard = rng.random(100) < 0.5
    reference = np.where(hard, 8, 0)
    errors = np.where(hard, 7, 0)  # better in every hard drop, by one block
    difference, low, high = paired_bootstrap(errors, reference, blocks)
    assert difference == pytest.approx(-hard.mean() / 8)
    assert low < difference < high < 0
    apart = cluster_bootstrap(errors, blocks), cluster_bootstrap(reference, blocks)
    assert apart[0][1] > apart[1][0]
    assert paired_bootstrap(errors, errors, blocks) == (0.0, 0.0, 0.0)


def test_share_of_what_age_costs():
    def rows(**rates):
        cell = {"regime": "r", "horizon": 1, "link_snr_db": 0.0}
        return [{**cell, "policy": name, "sum_rate": rate} for name, rate in rates.items()]

    assert recovered_share(rows(hold=10.0, mine=16.0, perfect=18.0), "sum_rate") == [0, 0.75, 1]
    assert recovered_share(rows(hold=10.0, mine=16.0), "sum_rate") == [None, None]
    assert recovered_share(rows(hold=10.0, mine=9.0, perfect=10.05), "sum_rate") == [None] * 3
    # Ways of choosing schemes are cells of their own.
    both = [
        {**row, "adaptation": name, "sum_rate": scale * row["sum_rate"]}
        for name, scale in (("inner", 1), ("outer", 2))
        for row in rows(hold=10.0, mine=16.0, perfect=18.0)
    ]
    assert recovered_share(both, "sum_rate") == [0, 0.75, 1] * 2
