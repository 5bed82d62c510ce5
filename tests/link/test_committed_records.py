"""What the committed records of the link rest on."""

import pathlib

from lwmt_sionna import records
from lwmt_sionna.link.table import recovered_goodput

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "results"


def test_headline_has_errors_or_blocks_enough():
    record = records.read_record(FOLDER / "link_level_eval_30kmh_5ms.json")
    target = [p for p in record["points"] if p["mcs"] in record["config"]["sweep"]["target_mcs"]]
    assert {p["horizon"] for p in target} == {1, 5} and len(target) == 2 * 7 * 6
    for point in target:
        assert point["num_drops"] >= 200
        assert point["num_block_errors"] >= 100 or point["num_blocks"] >= 4000
        assert point["bler_low"] <= point["bler"] <= point["bler_high"]
    # The curve of perfect CSI falls through the range that is shown.
    perfect = [p["bler"] for p in target if (p["policy"], p["horizon"]) == ("perfect", 1)]
    assert max(perfect) > 0.5 and min(perfect) < 0.05
    assert not record["git"]["dirty"]


def test_model_wins_most_of_the_goodput_back_one_period_ahead():
    record = records.read_record(FOLDER / "link_level_eval_30kmh_5ms.json")
    (row,) = (
        row for row in recovered_goodput(record) if (row["policy"], row["horizon"]) == ("model", 1)
    )
    assert min(row[f"recovered_{way}"] for way in ("fixed", "inner", "outer", "own_best")) > 0.84
