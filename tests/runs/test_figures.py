import itertools

import matplotlib
import pytest

from lwmt_sionna.runs import figures as plots


def make_record(policies=("perfect", "hold", "mine:Own")):
    points = []
    cells = itertools.product(("30 km/h, 5 ms", "120 km/h, 2.5 ms"), (1, 5), policies, (4, 13))
    for regime, horizon, policy, mcs in cells:
        for snr, bler in ((0.0, 0.5), (5.0, 0.1), (10.0, 0.0)):
            points.append(
                {
                    "regime": regime,
                    "sampling_period": 5e-3,
                    "scene": "synthetic",
                    "horizon": horizon,
                    "policy": policy,
                    "mcs": mcs,
                    "mcs_name": f"MCS {mcs}",
                    "snr_db": snr,
                    "num_drops": 50,
                    "num_blocks": 200,
                    "bler": bler,
                    "bler_low": 0.8 * bler,
                    "bler_high": 1.2 * bler + 0.01,
                    "goodput": 1 - bler,
                    "goodput_low": 0.9 * (1 - bler),
                    "goodput_high": 1.0,
                }
            )
    return {
        "config": {"report_mcs": 13, "sweep": {"mcs": [4, 13]}},
        "points": points,
        "goodput": [point for point in points if point["mcs"] == 13],
    }


@pytest.mark.parametrize("draw", [plots.plot_bler, plots.plot_goodput])
@pytest.mark.parametrize("extension", ["png", "svg"])
def test_figures_are_written(tmp_path, draw, extension):
    path = tmp_path / "figures" / f"figure.{extension}"
    draw(make_record(), path)
    assert path.stat().st_size > 5_000
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_cell_has_a_panel_and_every_policy_a_curve(tmp_path, monkeypatch):
    figures = []
    from matplotlib.figure import Figure

    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    plots.plot_bler(make_record(), tmp_path / "figure.png")
    (figure,) = figures
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "30 km/h, 5 ms: horizon 1 (5 ms)" and len(titles) == 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["perfect CSI", "hold", "mine:Own"]
    assert figure.get_suptitle() == "MCS 13, synthetic, 50 drops"


def test_colours_stay_with_their_policies():
    known = {plots.policy_style(name)["color"] for name in ("perfect", "hold", "local_ar", "model")}
    assert len(known) == 4
    others = ["a", "b"]
    assert plots.policy_style("hold", others) == plots.policy_style("hold")
    assert len({plots.policy_style(name, others)["color"] for name in others} | known) == 6


def test_style_of_the_caller_is_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.plot_goodput(make_record(), tmp_path / "figure.png")
    assert dict(matplotlib.rcParams) == before


def test_unknown_scheme(tmp_path):
    with pytest.raises(ValueError, match="mcs=22"):
        plots.plot_bler(make_record(), tmp_path / "figure.png", mcs=22)
