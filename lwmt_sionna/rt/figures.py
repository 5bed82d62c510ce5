"""Figures of what tracing costs and how exact it is, drawn from records."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lwmt_sionna.runs import records

__all__ = ["plot_tracing_benchmark"]

# Okabe and Ito's palette, as in the other figures of the project.
_GREY, _ORANGE, _BLUE = "#999999", "#D55E00", "#0072B2"
_WAYS = (
    ("Sionna RT's default path table", "Sionna RT's own path table", _ORANGE),
    ("large path table", "large path table", _GREY),
    ("pooled candidates", "pooled candidates (default)", _BLUE),
)
_LEVELS = (-20, -30, -40)


def plot_tracing_benchmark(record, path):
    """Draws cost per snapshot of every way of tracing, and births and deaths by the solver.

    Args:
        record: dict or path, a record of `experiments/tracing_benchmark.py`.
        path: Path of the figure; the extension chooses the format.

    Raises:
        ValueError: If the record has no points of costs or of artefacts.
    """
    record = record if isinstance(record, dict) else records.read_record(record)
    parts = {}
    for point in record["points"]:
        parts.setdefault(point["part"], []).append(point)
    for name in ("cost", "artefacts"):
        if name not in parts:
            raise ValueError(
                f"The record has no points of the part {name!r}. Received: name="
                f"{record.get('name')!r}, parts={sorted(parts)}"
            )
    scenes = list(dict.fromkeys(point["scene"] for point in parts["artefacts"]))
    style = {"font.size": 8.5, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 1 + len(scenes), width_ratios=(2.0, *[1.0] * len(scenes)))
        _draw_costs(axes[0], parts["cost"])
        for panel, scene in zip(axes[1:], scenes, strict=True):
            panel.sharey(axes[1])
            _draw_artefacts(panel, [p for p in parts["artefacts"] if p["scene"] == scene])
            panel.set_title(scene, fontsize=9)
        axes[1].set_ylabel("steps with a path born or dead\nthat geometry does not explain [%]")
        figure.legend(
            *axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False
        )
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def _draw_costs(axes, points):
    cost = np.array([point["cpu_ms_per_snapshot"] for point in points])
    place = np.arange(len(points))[::-1]
    color = [
        _ORANGE if p["way"] == "loop" else _BLUE if p.get("is_default") else _GREY for p in points
    ]
    axes.barh(place, cost, color=color, height=0.7)
    labels = []
    for at, point in zip(place, points, strict=True):
        name = "loop of one receiver" if point["way"] == "loop" else point["way"]
        rays = f"{point['samples'] / 1e6:g}e6 rays"
        labels.append(f"{name}{' (default)' if point.get('is_default') else ''}, {rays}")
        axes.annotate(
            f"{point['cpu_ms_per_snapshot']:,.0f} ms, {point['error_median_db']:.0f} dB",
            (point["cpu_ms_per_snapshot"], at),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(place, labels)
    axes.set(xscale="log", xlim=(min(1.0, cost.min()), 20 * cost.max()))
    axes.set_xlabel("processor time per snapshot [ms]; behind it the median error")
    axes.set_title(points[0]["scene"], fontsize=9)


def _draw_artefacts(axes, points):
    place = np.arange(len(_LEVELS))
    for index, (way, label, color) in enumerate(_WAYS):
        [point] = [point for point in points if point["way"] == way]
        share = [100 * point[f"share_{-level}db"] for level in _LEVELS]
        # A sliver shows where the share is zero.
        shown = np.maximum(share, 0.4)
        axes.bar(place + 0.27 * (index - 1), shown, 0.25, color=color, label=label)
    axes.set_xticks(place, [f"{level}" for level in _LEVELS])
    axes.set_xlabel("path at least [dB]")
