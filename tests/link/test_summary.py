import numpy as np
import pytest

from lwmt_sionna.link.sweep.summary import (
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
