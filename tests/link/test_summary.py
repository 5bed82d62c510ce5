import numpy as np
import pytest

from lwmt_sionna.evaluation import paired_difference
from lwmt_sionna.link.sweep.summary import (
    add_differences,
    nmse_summary,
    recovered_share,
)


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


def test_policies_are_paired_with_the_best_training_free_one_of_their_cell(rng):
    common = rng.gamma(2.0, 1.0, (2, 40))  # of two cells, drop by drop
    gains = {"perfect": 1.0, "hold": -1.0, "local_ar": 0.0, "model": 0.2}

    def row(policy, ratio):
        values = common[ratio] + gains[policy] + rng.normal(0, 0.1, 40)
        if ratio and policy == "hold":  # the best one differs from cell to cell
            values += 2.0
        figures = {"goodput": values.mean(), "sum_rate": 4 * values.mean()}
        by_drop = {"goodput": values, "sum_rate": 4 * values}
        return {"policy": policy, "link_snr_db": ratio, "mcs": 4, **figures}, by_drop

    rows = [row(policy, ratio) for policy in gains for ratio in (0, 1)]
    found = add_differences(rows, "mcs")
    assert [(r["policy"], r["link_snr_db"]) for r in found] == [
        (policy, ratio) for policy in gains for ratio in (0, 1)
    ]
    told = {(r["policy"], r["link_snr_db"]): r for r in found}
    by_drop = {(r["policy"], r["link_snr_db"]): values for r, values in rows}
    for (policy, ratio), one in told.items():
        best = "hold" if ratio else "local_ar"
        for quantity in ("goodput", "sum_rate"):
            assert one[f"{quantity}_reference"] == best
            own, other = (by_drop[name, ratio][quantity] for name in (policy, best))
            assert paired_difference(own, other) == tuple(
                one[f"{quantity}_difference{end}"] for end in ("", "_low", "_high")
            )
    assert [told["model", ratio]["goodput_verdict"] for ratio in (0, 1)] == ["better", "worse"]
    assert told["local_ar", 0]["goodput_verdict"] == "no detectable difference"
    # One drop tells nothing, and records hold no infinities.
    single = [(one, {name: x[:1] for name, x in values.items()}) for one, values in rows]
    assert add_differences(single, "mcs")[0]["goodput_difference_low"] is None
    # Without a training-free policy there is nothing to compare with.
    alone = [pair for pair in rows if pair[0]["policy"] in ("perfect", "model")]
    assert add_differences(alone, "mcs") == [one for one, _ in alone]


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
