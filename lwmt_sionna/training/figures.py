"""Figures of trainings, from their records and from nothing else.

Each takes a record, as a dict or by its path, and the path of the figure, whose extension chooses
the format; `subset` tells which sequences: `"event_free"` or `"all"`.
"""

from typing import Any

from lwmt_sionna.runs.figures import as_record, panels
from lwmt_sionna.typing import PathLike

__all__ = [
    "plot_attention_comparison",
    "plot_embeddings",
    "plot_label_shares",
    "plot_mask_ablation",
    "plot_tasks",
]

_MODES = {
    "scratch": ("#D55E00", "v", "from scratch"),
    "full": ("#0072B2", "o", "pretrained, all weights trained"),
    "frozen": ("#009E73", "s", "pretrained, backbone frozen"),
    "lora": ("#CC79A7", "D", "pretrained, LoRA"),
}
_BASELINES = {"hold": ("0.6", ":"), "denoised_ar": ("0.2", "--")}
_METRIC = "nmse_median_db"
# Of each task the metric that is drawn, and what it is called.
_TASKS = {
    "line_of_sight": ("auc", "line of sight: area under curve"),
    "beam": ("top_1_ahead", "best beam, 5 snapshots ahead"),
    "position": ("median_m", "position: median error [m]"),
    "estimation": ("nmse_median_db", "estimation: median NMSE [dB]"),
}
_CONTESTANTS = {
    "taught": ("#56B4E9", "^", "taught in other cities"),
    "taught_alone": ("#56B4E9", "--", "taught, no label here"),
    "base": ("#0072B2", "o", "head on pretrained embeddings"),
    "scratch": ("#D55E00", "v", "the same head on patches"),
    "neighbors": ("#009E73", "s", "K nearest neighbours"),
    "geometry": ("#F0E442", "P", "range and direction, sight unknown"),
    "boosting": ("#CC79A7", "D", "gradient boosting"),
    "k_factor": ("#E69F00", "<", "threshold of the K-factor"),
    "delay_spread": ("#8C564B", ">", "threshold of the delay spread"),
    "angle": ("0.5", ":", "strongest angle"),
    "predicted_angle": ("0.2", "--", "strongest predicted angle"),
    "start": ("0.5", ":", "resolved paths"),
    "linear": ("0.7", "-.", "linear interpolation"),
    "pursuit": ("0.2", "--", "matching pursuit"),
    "lmmse": ("#000000", "-", "true statistics (ceiling)"),
}


def plot_label_shares(
    record: dict[str, Any] | PathLike, path: PathLike, subset: str = "event_free"
) -> None:
    """Median error over the share of labels, one panel per test set and horizon.

    The record is that of the fine-tuning study `labels`.
    """
    record = as_record(record)
    points = [p for p in record["points"] if p["subset"] == subset]

    def draw(axes, cell):
        for mode, (color, marker, label) in _MODES.items():
            curve = sorted(
                (p for p in cell if p["mode"] == mode), key=lambda point: point["label_share"]
            )
            if curve:
                axes.plot(
                    [100 * p["label_share"] for p in curve],
                    [p[_METRIC] for p in curve],
                    color=color,
                    marker=marker,
                    label=label,
                )
        _draw_baselines(axes, cell)
        axes.set_xscale("log")

    _draw_cells(points, path, draw, "share of the labelled tracks [%]")


def plot_attention_comparison(
    record: dict[str, Any] | PathLike, path: PathLike, subset: str = "event_free"
) -> None:
    """Median errors of the neighbourhoods, every seed a marker, one panel per test set and horizon.

    The record is that of the fine-tuning study `attention`.
    """
    record = as_record(record)
    points = [p for p in record["points"] if p["subset"] == subset]
    names = list(dict.fromkeys(p["attention"] for p in points if "attention" in p))

    def draw(axes, cell):
        for place, name in enumerate(names):
            values = [p[_METRIC] for p in cell if p.get("attention") == name]
            if values:
                axes.plot([place] * len(values), values, "o", color="#0072B2", mfc="none")
                axes.plot(place, sum(values) / len(values), "_", color="#0072B2", ms=18)
        _draw_baselines(axes, cell)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)

    _draw_cells(points, path, draw, "attention (circles: seeds)")


def plot_mask_ablation(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Loss against the whole curriculum, contestants over conditions, one panel per test set.

    The record is that of the pretraining study, its errors the pooled ones.
    """
    import numpy as np

    points = as_record(record)["points"]
    sets, contestants, conditions = (
        list(dict.fromkeys(p[key] for p in points))
        for key in ("test_set", "contestant", "condition")
    )
    columns = min(2, len(sets))
    rows = -(-len(sets) // columns)
    title = "error of the hidden tokens [dB]; colour: against the whole curriculum (red is worse)"
    size = (1.5 + 4.2 * columns, 0.3 + (1.0 + 0.26 * len(contestants)) * rows)
    style = {"axes.grid": False, "font.size": 7}
    with panels(path, rows, columns, title, size, style, sharex=True, sharey=True) as grid:
        for axes in grid.flat[len(sets) :]:
            axes.set_axis_off()
        for axes, name in zip(grid.flat, sets, strict=False):
            table = np.full((len(contestants), len(conditions)), np.nan)
            for p in points:
                if p["test_set"] == name:
                    row, column = (
                        contestants.index(p["contestant"]),
                        conditions.index(p["condition"]),
                    )
                    table[row, column] = p["nmse_pooled_db"]
            excess = table - table[0]
            axes.imshow(excess, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
            for (row, column), value in np.ndenumerate(table):
                if np.isfinite(value):
                    axes.text(column, row, f"{value:.1f}", ha="center", va="center")
            axes.set_title(name)
            labels = [condition.replace("_", " ") for condition in conditions]
            axes.set_xticks(range(len(conditions)), labels, rotation=45, ha="right")
            axes.set_yticks(range(len(contestants)), [c.replace("_", " ") for c in contestants])


def plot_tasks(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """What each contestant makes of so many labels, mean over seeds, one panel per task.

    The record is that of `task_eval`; contestants without labels are lines across, and bars are
    95 % intervals over trajectories, mean over seeds.
    """
    import numpy as np

    points = as_record(record)["points"]
    tasks = [task for task in _TASKS if any(p["task"] == task for p in points)]
    title = "what labels are worth"
    with panels(path, 1, len(tasks), title, (3.2 * len(tasks), 4.2)) as grid:
        for axes, task in zip(grid[0], tasks):
            metric, label = _TASKS[task]
            mine = [p for p in points if (p["task"], p["metric"]) == (task, metric)]
            mine = [p for p in mine if p["value"] is not None]
            for model in dict.fromkeys(p["model"] for p in mine):
                color, marker, name = _CONTESTANTS[model]
                own = [p for p in mine if p["model"] == model]
                counts = sorted({p["num_labels"] for p in own})
                value, low, high = (
                    np.array([np.mean([p[k] for p in own if p["num_labels"] == n]) for n in counts])
                    for k in ("value", "low", "high")
                )
                if counts == [0]:
                    axes.axhline(value[0], color=color, ls=marker, label=name)
                    continue
                ends = np.maximum([value - low, high - value], 0)
                axes.errorbar(counts, value, ends, color=color, marker=marker, label=name)
            axes.set_xscale("log")
            axes.set_title(label)
            axes.set_xlabel("labels")


def plot_embeddings(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Embeddings of windows in the plane, coloured by what nobody told the backbone.

    The record is that of `task_eval`.
    """
    points = as_record(record)["embedding_map"]
    title = "embeddings of a city never seen"
    ways = (
        ("sight", "line of sight", "coolwarm"),
        ("distance_m", "distance [m]", "viridis"),
        ("speed_kmh", "speed [km/h]", "plasma"),
    )
    with panels(path, 1, len(ways), title, (3.6 * len(ways), 3.6)) as grid:
        for axes, (name, label, colors) in zip(grid[0], ways):
            places = ([p[k] for p in points] for k in ("x", "y"))
            values = [float(p[name]) for p in points]
            marks = axes.scatter(*places, c=values, s=6, cmap=colors)
            axes.figure.colorbar(marks, ax=axes)
            axes.set_title(label)
            axes.set_xticks([])
            axes.set_yticks([])


def _draw_baselines(axes, cell):
    for name, (color, style) in _BASELINES.items():
        values = [p[_METRIC] for p in cell if p["contestant"] == name]
        if values:
            axes.axhline(values[0], color=color, ls=style, label=name.replace("_", " "))


def _draw_cells(points, path, draw, xlabel):
    if not points:
        raise ValueError("The record has no points of this subset")
    sets = list(dict.fromkeys(p["test_set"] for p in points))
    horizons = sorted({p["horizon"] for p in points})
    size = (3.4 * len(horizons), 2.5 * len(sets) + 0.6)
    title = "median NMSE [dB]"
    with panels(path, len(sets), len(horizons), title, size, sharex=True, sharey="row") as grid:
        for row, name in enumerate(sets):
            for column, horizon in enumerate(horizons):
                axes = grid[row][column]
                draw(axes, [p for p in points if (p["test_set"], p["horizon"]) == (name, horizon)])
                axes.set_title(f"horizon {horizon}")
                if column == 0:
                    # Long names of files would not fit above the panels.
                    axes.set_ylabel(name.replace(", ", "\n"), fontsize=7)
                if row == len(sets) - 1:
                    axes.set_xlabel(xlabel)
