import itertools

import numpy as np
import pytest

from lwmt_sionna.link.sweep.figures import draw_figures, required_snr_db
from lwmt_sionna.link.sweep.table import (
    cells_lost,
    format_comparison,
    format_table,
    goodput_of,
    recovered_goodput,
)

SNR = (0.0, 5.0, 10.0)


def make_record(speeds=(30, 120), policies=("perfect", "hold", "mine:Own")):
    points, goodput = [], []
    for speed, horizon, policy in itertools.product(speeds, (1, 5), policies):
        for snr, bler in zip(SNR, (0.9, 0.2, 0.0)):
            bler = min(1.0, bler + 0.1 * (policy == "hold"))
            common = {
                "regime": f"{speed} km/h, 2.5 ms",
                "speed_kmh": speed,
                "sampling_period": 2.5e-3,
                "scene": "synthetic",
                "horizon": horizon,
                "policy": policy,
                "snr_db": snr,
                "num_drops": 50,
                "nmse_pooled_db": -200.0 if policy == "perfect" else -12.0,
                "nmse_median_db": -200.0 if policy == "perfect" else -15.0,
                "sum_rate": 20.0,
                "num_users": 4,
                "user_rate_q05": 1.5,
                "user_rate_median": 4.5,
            }
            points.append(
                {
                    **common,
                    "mcs": 13,
                    "mcs_name": "MCS 13",
                    "num_blocks": 200,
                    "bler": bler,
                    "bler_low": 0.8 * bler,
                    "bler_high": 1.1 * bler + 0.01,
                }
            )
            for adaptation, scale in (("fixed", 1.0), ("outer", 1.5)):
                rate = scale * (1 - bler)
                goodput.append(
                    {
                        **common,
                        "adaptation": adaptation,
                        "goodput": rate,
                        "goodput_low": 0.9 * rate,
                        "goodput_high": 1.1 * rate,
                        "user_goodput_q05": 0.2 * rate,
                        "user_goodput_median": 0.95 * rate,
                        "recovered_goodput": 0.5,
                        "recovered_sum_rate": None,
                    }
                )
    config = {
        "report_mcs": 13,
        "report_snr_db": 10.0,
        "report_adaptation": "outer",
        "sweep": {"mcs": [13], "decoding": "chain"},
    }
    users = {"regime": "r", "num_sequences": 9, "num_vanished": 1, "num_not_heard": 0}
    return {
        "config": config,
        "points": points,
        "goodput": goodput,
        "users": [{**users, "num_grouped": 8}],
    }


def test_every_figure_that_has_its_points_is_drawn(tmp_path):
    names = {path.stem for path in draw_figures(make_record(), tmp_path)}
    assert names == {
        "link_bler",
        "link_goodput",
        "link_users",
        "link_nmse",
        "link_required_snr",
        "link_speed",
    }
    assert all((tmp_path / f"{name}.png").stat().st_size > 5_000 for name in names)
    few = make_record(speeds=(30,), policies=("hold", "mine:Own"))
    names = {path.stem for path in draw_figures(few, tmp_path / "few")}
    assert names == {"link_bler", "link_goodput", "link_users", "link_required_snr"}


def test_a_policy_of_ones_own_is_in_every_legend(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    legends = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, path, **_: (
            legends.append([text.get_text() for text in self.legends[0].get_texts()]),
            path.write_bytes(b""),
        ),
    )
    assert len(draw_figures(make_record(), tmp_path)) == len(legends) == 6
    assert all("mine:Own" in labels for labels in legends)


def test_required_snr_is_interpolated_in_the_logarithm():
    def curve(*values):
        return [{"snr_db": s, "bler": b, "num_blocks": 100} for s, b in zip(SNR, values)]

    assert required_snr_db(curve(1.0, 0.1, 0.01)) == pytest.approx(5.0)
    assert required_snr_db(curve(1.0, 0.01, 0.0)) == pytest.approx(2.5)
    assert required_snr_db(curve(1.0, 0.5, 0.2)) is None
    assert required_snr_db(curve(0.05, 0.01, 0.0)) == -np.inf
    # No errors in 100 blocks: half an error stands for them.
    assert required_snr_db(curve(1.0, 0.5, 0.0)) == pytest.approx(
        5 + 5 * np.log10(5) / np.log10(100)
    )


def test_goodput_is_that_of_the_reported_adaptation():
    record = make_record()
    assert {row["adaptation"] for row in goodput_of(record)} == {"outer"}
    assert {row["adaptation"] for row in goodput_of(record, "inner")} == {"fixed"}
    del record["config"]["report_adaptation"]
    assert {row["adaptation"] for row in goodput_of(record)} == {"fixed"}


def test_table_has_a_line_per_cell():
    table = format_table(make_record())
    lines = [line for line in table.splitlines() if " km/h, " in line]
    assert len(lines) == 2 * 2 * 3
    assert sum("mine:Own" in line for line in lines) == 4
    assert "exact" in lines[0] and "50 %" in lines[0]
    assert "outer loop" in table and "every block decoded" in table


def test_share_won_back_with_each_policys_best_way():
    record = make_record(policies=("perfect", "hold", "model"))
    good = {"perfect": (1.0, 2.0), "hold": (0.8, 0.5), "model": (0.9, 1.7)}
    for row in record["goodput"]:
        row["goodput"] = good[row["policy"]][row["adaptation"] == "outer"]
    rows = [row for row in recovered_goodput(record) if row["policy"] == "model"]
    assert len(rows) == 4
    assert rows[0]["recovered_fixed"] == pytest.approx(0.5)
    assert rows[0]["recovered_outer"] == pytest.approx(0.8)
    assert rows[0]["recovered_inner"] is None
    assert rows[0]["recovered_own_best"] == pytest.approx((1.7 - 0.8) / (2.0 - 0.8))


def test_cells_that_a_rival_wins_are_listed():
    record = make_record(policies=("perfect", "hold", "local_ar", "model"))
    # All equal but for hold, which is worse: nothing is lost to a rival, nor to perfect CSI.
    assert cells_lost(record) == []
    worse = next(
        p for p in record["points"] if (p["policy"], p["snr_db"], p["horizon"]) == ("model", 5.0, 5)
    )
    worse["bler"] = 0.25
    (cell,) = cells_lost(record)
    assert (cell["winner"], cell["quantity"], cell["detail"]) == ("local_ar", "bler", "MCS 13")
    assert (cell["of_winner"], cell["of_policy"]) == (0.2, 0.25)
    text = format_comparison(record)
    # 12 points, 24 goodputs and 12 sum rates.
    assert "beats model: 1 of 48." in text and "0.2500" in text
