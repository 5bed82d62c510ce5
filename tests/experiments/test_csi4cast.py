"""The benchmark of CSI-4CAST: its PAD, its error, and a run that goes on."""

import sys

import numpy as np
import pytest

from lwmt_sionna.runs import command_line
from lwmt_sionna.runs.records import read_record
from tests.experiments.scripts import script


def test_pad_continues_tones_that_all_antennas_share(rng):
    tones = np.exp(2j * np.pi * np.outer(np.arange(20), [0.03, 0.19, -0.31]))
    amplitudes = rng.standard_normal((3, 3, 4, 6)) + 1j * rng.standard_normal((3, 3, 4, 6))
    h = np.einsum("tp,bpmk->btmk", tones, amplitudes)
    predicted = script("csi4cast_eval.py").pad(h[:, :16], 4)
    error = np.sum(np.abs(predicted - h[:, 16:]) ** 2) / np.sum(np.abs(h[:, 16:]) ** 2)
    # Its regularisation of 1e-4 is what is left.
    assert error < 1e-5


def test_the_error_is_a_mean_of_ratios_per_antenna(rng):
    h = rng.standard_normal((2, 20, 3, 5)) + 1j * rng.standard_normal((2, 20, 3, 5))
    h[:, :, 0] *= 100
    double = script("csi4cast_eval.py").judge(
        lambda snr: lambda history, count: np.where([[1], [0], [0]], 0.0, 2.0) * h[:, 16:],
        lambda: h, [0.0, 10.0], seed=1,
    )  # fmt: skip
    assert double.shape == (2, 2, 4)
    np.testing.assert_allclose(double, 1.0, rtol=1e-6)


def test_a_setting_is_drawn_judged_and_kept(tmp_path, monkeypatch, capsys):
    arguments = [
        "--general", "D", "30", "1", "--sequences", "4", "--baselines", "hold", "--preset",
        "--history-snr", "15", "--workdir", str(tmp_path / "work"),
        "--out", str(tmp_path / "r.json"),
    ]  # fmt: skip
    module = script("csi4cast_eval.py")
    monkeypatch.setattr(sys, "argv", ["csi4cast_eval.py", *arguments])
    module.main(arguments)
    assert "published CSI-4CAST" in capsys.readouterr().out
    record = read_record(tmp_path / "r.json")
    assert {(p["predictor"], p["horizon"]) for p in record["points"]} == {
        (name, horizon) for name in ("pad", "hold") for horizon in (1, 2, 3, 4)
    }
    for point in record["points"]:
        assert point["nmse_low"] <= point["nmse"] <= point["nmse_high"]
        assert (point["profile"], point["num_sequences"]) == ("CDL-D", 4)
    # Noise alone is 10^-1.5; what moves by 2 % of a period adds a little.
    assert 0.03 < record["points"][4]["nmse"] < 0.2
    monkeypatch.setattr(module, "draw_block", lambda config: pytest.fail("drawn again"))
    module.main([*arguments[:4], "--sequences", "10", *arguments[6:]])
    assert read_record(tmp_path / "r.json")["points"][0]["num_sequences"] == 10


def test_unknown_profiles_are_refused():
    with pytest.raises(command_line.UsageError, match="profile"):
        script("csi4cast_eval.py").main(["--general", "F", "30", "1"])
