"""What the committed records of the link rest on."""

import pathlib

import pytest

from lwmt_sionna.link.sweep.table import recovered_goodput
from lwmt_sionna.runs import records

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "results"


@pytest.fixture(scope="module")
def record():
    return records.read_record(FOLDER / "link_level_eval.json")


def test_headline_has_errors_or_blocks_enough(record):
    config = record["config"]
    target = [p for p in record["points"] if p["mcs"] in config["sweep"]["target_mcs"]]
    regimes = {point["regime"] for point in target}
    assert regimes == {"30 km/h, 5 ms", "120 km/h, 2.5 ms"}
    assert {point["horizon"] for point in target} == {1, 5}
    assert len(target) == 4 * len(config["policies"]) * len(config["sweep"]["link_snr_db"])
    for point in target:
        assert point["num_drops"] >= 200
        assert point["num_block_errors"] >= 100 or point["num_blocks"] >= 4000
        assert point["bler_low"] <= point["bler"] <= point["bler_high"]
    # The curve of perfect CSI falls through the range that is shown.
    for regime in regimes:
        perfect = [
            p["bler"]
            for p in target
            if (p["policy"], p["horizon"], p["regime"]) == ("perfect", 1, regime)
        ]
        assert max(perfect) > 0.4 and min(perfect) < 0.06
    assert not record["git"]["dirty"]


@pytest.mark.parametrize(("horizon", "share"), [(1, 0.85), (5, 0.7)])
def test_model_wins_most_of_the_goodput_back(record, horizon, share):
    """At 30 km/h and 5 ms, whichever way schemes are chosen."""
    (row,) = (
        row
        for row in recovered_goodput(record)
        if (row["policy"], row["horizon"], row["regime"]) == ("model", horizon, "30 km/h, 5 ms")
    )
    assert min(row[f"recovered_{way}"] for way in ("fixed", "inner", "outer")) > share
