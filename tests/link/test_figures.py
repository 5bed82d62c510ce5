import copy
import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from lwmt_sionna.link.sweep.figures import (
    draw_figures,
    plot_bler,
    plot_goodput,
    plot_goodput_over_speed,
    plot_nmse_goodput,
    plot_required_snr,
    plot_user_rate,
    required_snr_db,
)
from lwmt_sionna.link.sweep.table import (
    cells_lost,
    format_comparison,
    format_table,
    goodput_of,
    link_record,
    recovered_goodput,
)

SNR = (0.0, 5.0, 10.0)
LIMIT = "no errors: upper limit (95 %)"


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
                "link_snr_db": snr,
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
        "report_link_snr_db": 10.0,
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


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, by the names of their files; nothing is written but these."""
    saved = {}
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, path, **_: (saved.update({path.name[-12:]: self}), path.write_bytes(b"")),
    )
    return saved


def curve(axes, label):
    """Horizontal and vertical values of a policy's line."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_figure_that_has_its_points_is_drawn(tmp_path, figures):
    names = {path.stem for path in draw_figures(make_record(), tmp_path)}
    assert names == {
        "link_bler",
        "link_goodput",
        "link_users",
        "link_nmse",
        "link_required_snr",
        "link_speed",
    }
    assert len(figures) == 6
    # A policy of one's own is in every legend.
    assert all("mine:Own" in legend(figure) for figure in figures.values())
    few = make_record(speeds=(30,), policies=("hold", "mine:Own"))
    names = {path.stem for path in draw_figures(few, tmp_path / "few")}
    assert names == {"link_bler", "link_goodput", "link_users", "link_required_snr"}


def test_block_error_rates_are_drawn_as_they_are(tmp_path, figures):
    record = make_record()
    for point in record["points"]:
        point["num_drops"] = 64 if point["speed_kmh"] == 30 else 128
    plot_bler(record, tmp_path / "link_bler.png")
    (figure,) = figures.values()
    assert legend(figure) == ["perfect CSI", "hold", "mine:Own", LIMIT]
    assert figure.get_suptitle() == "MCS 13, synthetic"
    # Counts are those of the panel.
    assert [axes.get_title() for axes in figure.axes] == [
        "30 km/h, 2.5 ms: horizon 1 (2.5 ms)\n64 drops",
        "30 km/h, 2.5 ms: horizon 5 (12.5 ms)\n64 drops",
        "120 km/h, 2.5 ms: horizon 1 (2.5 ms)\n128 drops",
        "120 km/h, 2.5 ms: horizon 5 (12.5 ms)\n128 drops",
    ]
    for axes in figure.axes:
        x, y = curve(axes, "mine:Own")
        assert x == list(SNR) and y[:2] == [0.9, 0.2] and np.isnan(y[2])
        assert curve(axes, "hold")[1] == pytest.approx([1.0, 0.3, 0.1])
        # No errors: an upper limit at the end of the interval, of perfect CSI and of one's own.
        limits = [line for line in axes.lines if "downarrow" in str(line.get_marker())]
        drawn = [line for line in limits if len(line.get_xdata())]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in drawn] == [(10.0, 0.01)] * 2


def test_goodput_is_drawn_as_it_is(tmp_path, figures):
    plot_goodput(make_record(), tmp_path / "link_goodput.png")
    plot_goodput_over_speed(make_record(), tmp_path / "link_speed.png")
    over_snr, over_speed = figures.values()
    assert over_snr.get_suptitle() == "schemes adapted by an outer loop, out of 1; synthetic"
    for axes in over_snr.axes:
        assert curve(axes, "mine:Own") == (list(SNR), pytest.approx([0.15, 1.2, 1.5]))
    for axes in over_speed.axes:
        assert curve(axes, "hold") == ([30.0, 120.0], pytest.approx([1.35, 1.35]))


def test_users_and_nmse_are_drawn_as_they_are(tmp_path, figures):
    plot_user_rate(make_record(), tmp_path / "link_users.png")
    plot_nmse_goodput(make_record(), tmp_path / "link_nmse.png")
    users, nmse = figures.values()
    for axes in users.axes:
        # The mean of four users that share 20 bit/s/Hz; bars from the weakest to the median.
        assert curve(axes, "mine:Own") == ([2.0], [5.0])
        bars = [line for line in axes.lines if len(line.get_xdata()) == 2]
        assert [list(line.get_ydata()) for line in bars] == [[1.5, 4.5]] * 3
    for axes in nmse.axes:
        own = [line for line in axes.lines if line.get_label() == "mine:Own"]
        # Without errors goodput is that of perfect CSI, at both horizons.
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in own] == [(-15.0, 100.0)] * 2


def test_what_is_exact_does_not_stretch_the_axis(tmp_path, figures):
    record = make_record()
    for point in record["points"]:
        if point["policy"] == "hold":
            point["nmse_median_db"] = -200.0
    plot_nmse_goodput(record, tmp_path / "link_nmse.png")
    (figure,) = figures.values()
    for axes in figure.axes:
        assert axes.get_xlim()[0] > -20.0
        assert sum(line.get_label() == "hold" for line in axes.lines) == 2


def test_required_snr_is_drawn_over_the_horizon(tmp_path, figures):
    plot_required_snr(make_record(), tmp_path / "link_required.png")
    (figure,) = figures.values()
    for axes in figure.axes:
        x, y = curve(axes, "mine:Own")
        assert x == pytest.approx([1, 5], abs=0.2)
        # From 0.2 at 5 dB to half an error in 200 blocks at 10 dB.
        assert y == pytest.approx([5 + 5 * np.log10(2) / np.log10(80)] * 2)


def test_required_snr_beyond_the_sweep_is_drawn_at_its_ends(tmp_path, figures):
    record = make_record()
    for point in record["points"]:
        point["bler"] = {"perfect": 0.05, "hold": 0.5}.get(point["policy"], point["bler"])
    plot_required_snr(record, tmp_path / "link_required.png")
    (figure,) = figures.values()
    for axes in figure.axes:
        bounds = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        # Two horizons each: perfect CSI is there at 0 dB already, hold not at 10 dB.
        assert [line.get_ydata()[0] for line in bounds] == [-1.0, -1.0, 11.0, 11.0]
        words = [text.get_text() for text in axes.texts]
        assert words == ["not at 10 dB", "at 0 dB already"]


def test_goodput_over_pilots_is_drawn_as_it_is(tmp_path, figures):
    records = {comb: make_record(policies=("perfect", "linear")) for comb in (4, 1, 2)}
    for comb, record in records.items():
        for row in record["goodput"]:
            row |= {"comb": comb, "history_snr_db": 10.0, "goodput": row["goodput"] / comb}
    goodput = [row for record in records.values() for row in record["goodput"]]
    record = {**records[4], "goodput": goodput}
    assert "link_pilots" in {path.stem for path in draw_figures(record, tmp_path)}
    axes = figures["k_pilots.png"].axes
    assert len(axes) == 4
    x, y = curve(axes[0], "linear interpolation")
    assert x == [0.25, 0.5, 1.0]
    np.testing.assert_allclose(y, [1.5 / 4, 1.5 / 2, 1.5])
    assert [text.get_text() for text in axes[2].get_xticklabels()] == ["1/4", "1/2", "all"]


def test_unknown_scheme(tmp_path):
    with pytest.raises(ValueError, match="mcs=22"):
        plot_bler(make_record(), tmp_path / "figure.png", mcs=22)


def test_nothing_of_a_figure_is_cut(tmp_path):
    """Titles and labels lie within the page, and do not run into each other."""
    record = make_record(policies=("perfect", "hold", "mine:Own", "a_module.of_mine:Predictor"))
    for row in [*record["points"], *record["goodput"]]:
        row["regime"] += ", calibration_error_db=-20, phase_jump_deg=5"
    drawn = []
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Figure, "savefig", lambda self, *a, **k: (save(self, *a, **k), drawn.append(self))
        )
        draw_figures(record, tmp_path)
    for figure in drawn:
        page = figure.bbox
        assert figure.axes[0].get_ylabel()
        for axes in figure.axes:
            if axes.get_subplotspec().is_last_row() and len(axes.get_xticks()):
                assert axes.get_xlabel()
            top = axes.get_ylim()[1]
            assert all(y <= top for line in axes.lines for y in line.get_ydata() if np.isfinite(y))
            for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
                box = text.get_window_extent()
                assert page.x0 <= box.x0 and box.x1 <= page.x1, text
                assert page.y0 <= box.y0 and box.y1 <= page.y1, text
        titles = [axes.title.get_window_extent() for axes in figure.axes]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))


def test_old_records_give_the_same(tmp_path, figures):
    """Of a time when one name stood for two ratios, and schemes were not adapted."""
    record = make_record()
    old = copy.deepcopy(record)
    for row in [*old["points"], *old["goodput"]]:
        row["snr_db"] = row.pop("link_snr_db")
    old["config"]["report_snr_db"] = old["config"].pop("report_link_snr_db")
    assert link_record(old) == record == link_record(record)
    assert format_table(old) == format_table(record)
    assert format_comparison(old, "mine:Own") == format_comparison(record, "mine:Own")
    assert recovered_goodput(old) == recovered_goodput(record)
    assert len(draw_figures(old, tmp_path)) == 6
    for row in old["goodput"]:
        del row["adaptation"]
    assert {row["adaptation"] for row in goodput_of(old)} == {"fixed"}


def test_required_snr_is_interpolated_in_the_logarithm():
    def curve(*values):
        return [{"link_snr_db": s, "bler": b, "num_blocks": 100} for s, b in zip(SNR, values)]

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


def test_a_line_of_the_table_ends_in_its_verdict():
    names = ("perfect", "hold", "local_ar", "mine:Own")
    record = make_record(policies=names)
    for row in record["goodput"]:
        row |= {
            "goodput_reference": "local_ar", "goodput_difference": 0.1,
            "goodput_difference_low": -0.05, "goodput_difference_high": 0.25,
            "goodput_verdict": "better" if row["policy"] == "mine:Own" else "worse",
        }  # fmt: skip
    lines = [line for line in format_table(record).splitlines() if " km/h, " in line]
    for line, name in zip(lines, names * 4, strict=True):
        told = {"perfect": "ceiling", "local_ar": "best training-free"}.get(name)
        if told is None:
            told = f"+0.10 (-0.05 to +0.25)  {'better' if name == 'mine:Own' else 'worse'}"
        assert name in line and line.endswith(told)
    for row in record["goodput"]:
        row["goodput"] -= 0.1 * (row["policy"] == "mine:Own")
    lost = [cell for cell in cells_lost(record, "mine:Own") if cell["quantity"] == "goodput"]
    assert {cell["verdict"] for cell in lost if cell["winner"] == "local_ar"} == {"better"}


def test_cells_that_a_rival_wins_are_listed():
    record = make_record(policies=("perfect", "hold", "local_ar", "model"))
    # All equal but for hold, which is worse: nothing is lost to a rival, nor to perfect CSI.
    assert cells_lost(record) == []
    worse = next(
        p
        for p in record["points"]
        if (p["policy"], p["link_snr_db"], p["horizon"]) == ("model", 5.0, 5)
    )
    worse["bler"] = 0.25
    (cell,) = cells_lost(record)
    assert (cell["winner"], cell["quantity"], cell["detail"]) == ("local_ar", "bler", "MCS 13")
    assert (cell["of_winner"], cell["of_policy"]) == (0.2, 0.25)
    text = format_comparison(record)
    # 12 points, 24 goodputs and 12 sum rates.
    assert "beats model: 1 of 48, 0 of them" in text and "0.2500" in text
