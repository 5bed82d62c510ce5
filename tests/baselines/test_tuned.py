"""The committed settings are those that won, where nothing held out was seen."""

import ast
import pathlib

import pytest

from lwmt_sionna.baselines import (
    CLASSICAL,
    TUNED,
    TUNED_SNR_DB,
    tuned_baselines,
    tuned_settings,
)
from lwmt_sionna.runs import records

RECORD = pathlib.Path(__file__).parents[2] / "experiments" / "results" / "tune_baselines.json"


def test_settings_are_those_of_the_record():
    record = records.read_record(RECORD)
    assert set(record["inputs"]) == {"etoile", "munich"}
    winners = {
        (p["predictor"], p["history_snr_db"]): ast.literal_eval(p["settings"])
        for p in record["points"]
        if p["is_best"]
    }
    assert {name for name, _ in winners} == set(TUNED)
    for (name, snr_db), settings in winners.items():
        assert TUNED[name][TUNED_SNR_DB.index(snr_db)] == settings


def test_all_can_be_made():
    for snr_db in TUNED_SNR_DB:
        assert list(tuned_baselines(snr_db)) == list(CLASSICAL)


def test_some_are_chosen_and_made_once():
    chosen = tuned_baselines(12.0, names=("kalman", "hold"), array_shape=(2, 4, 1))
    assert list(chosen) == ["hold", "kalman"] and chosen["kalman"].array_shape == (2, 4, 1)
    assert tuned_baselines(15.0, names=["hold"])["hold"] is chosen["hold"]
    with pytest.raises(ValueError, match="oracle"):
        tuned_baselines(15.0, names=["oracle"])


def test_the_nearest_ratio_decides():
    assert tuned_settings("denoised_ar", -10.0) == TUNED["denoised_ar"][0]
    assert tuned_settings("denoised_ar", 14.0) == TUNED["denoised_ar"][1]
    assert tuned_settings("denoised_ar", float("inf")) == TUNED["denoised_ar"][2]
    assert tuned_settings("hold", 15.0) == {}
