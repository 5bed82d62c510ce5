"""Leads and seeds are counted as told."""

import pytest

from lwmt_sionna.evaluation.table import (
    BIN_BY_BIN,
    format_prediction_comparison,
    leads,
    seed_gains,
)

CELL = {"scene": "s", "speed_kmh": 30.0, "sampling_period_s": 5e-3, "history_snr_db": 15.0}


def record(**errors):
    """Record of two horizons, the second 1 dB worse, pooled 2 dB above the median."""
    points = [
        {
            **CELL, "horizon": horizon, "predictor": name, "subset": subset,
            "nmse_median_db": error + horizon - 1, "nmse_pooled_db": error + horizon + 1,
        }
        for name, error in errors.items()
        for horizon in (1, 2)
        for subset in ("event_free", "quiet")
    ]  # fmt: skip
    return {"points": points}


def test_leads_are_differences_and_the_best_of_a_cell_is_its_best():
    told = leads(
        record(hold=0.0, kalman=-20.0, path_fit=-30.0, ours=-29.0), "ours", "nmse_median_db"
    )
    assert {name: list(lead.values()) for name, lead in told.items()} == {
        "hold": [29.0, 29.0],
        "kalman": [9.0, 9.0],
        "path_fit": [-1.0, -1.0],
        BIN_BY_BIN: [9.0, 9.0],
    }


def test_gains_of_seeds():
    data = record(path_fit=-30.0, a_seed1=-31.0, a_seed2=-33.0)
    assert seed_gains(data, ["a_seed1", "a_seed2"], "path_fit", "nmse_pooled_db", 2) == [1.0, 3.0]


def test_table():
    data = record(hold=0.0, path_fit=-30.0, a_seed1=-31.0, a_seed2=-33.0)
    text = format_prediction_comparison(data, "a_seed1", [["a_seed1", "a_seed2"]])
    assert "path_fit               2      2             0          1.0     1.0     1.0" in text
    assert "best training-free one, by cells: path_fit 2" in text
    assert "nmse_median_db, horizon 1: 2.00 +- 1.41 dB" in text


def test_an_unknown_predictor_is_named():
    with pytest.raises(ValueError, match=r"expected one of hold\. Received: predictor='ours'"):
        leads(record(hold=0.0), "ours", "nmse_median_db")
