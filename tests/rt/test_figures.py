"""The figure of the tracing benchmark."""

import pytest

from tests.experiments.scripts import script

plot_tracing_benchmark = script("tracing_benchmark.py").plot_tracing_benchmark
WAYS = ("Sionna RT's default path table", "large path table", "pooled candidates")


def make_points():
    costs = [("loop", 1e3, False), ("pooled candidates", 9.0, True), ("hybrid", 15.0, False)]
    points = [
        {
            "part": "cost",
            "scene": "munich",
            "way": way,
            "samples": 400_000,
            "is_default": is_default,
            "cpu_ms_per_snapshot": cost,
            "error_median_db": -20.0,
        }
        for way, cost, is_default in costs
    ]
    for scene in ("munich", "etoile"):
        for way, share in zip(WAYS, (0.3, 0.02, 0.0), strict=True):
            shares = {f"share_{level}db": share for level in (20, 30, 40)}
            points.append({"part": "artefacts", "scene": scene, "way": way, **shares})
    return points


def test_figure_shows_every_way_and_scene(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    plot_tracing_benchmark({"points": make_points()}, tmp_path / "figure.png")
    cost, *artefacts = figures[0].axes
    assert [axes.get_title() for axes in artefacts] == ["munich", "etoile"]
    labels = [label.get_text() for label in cost.get_yticklabels()]
    assert labels[1] == "pooled candidates (default), 0.4e6 rays"
    assert [bar.get_height() for bar in artefacts[0].containers[0]] == pytest.approx([30.0] * 3)


def test_other_records_are_refused(tmp_path):
    points = [point for point in make_points() if point["part"] == "cost"]
    with pytest.raises(ValueError, match="no points of the part 'artefacts'"):
        plot_tracing_benchmark({"points": points}, tmp_path / "figure.png")
