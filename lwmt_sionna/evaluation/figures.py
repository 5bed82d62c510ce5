"""Figures of the prediction evaluation, drawn from its records.

Each takes a record, as a dict or by its path, and the path of the figure, whose extension chooses
the format.
"""

import itertools
from typing import Any

from lwmt_sionna.evaluation.evaluator import CEILINGS
from lwmt_sionna.evaluation.table import points_of
from lwmt_sionna.runs.figures import as_record, panels, policy_style
from lwmt_sionna.typing import PathLike

# Speed of users of whom none is known.
_UNKNOWN = -1


def plot_prediction_errors(
    record: dict[str, Any] | PathLike,
    path: PathLike,
    history_snr_db: float = 15.0,
    subset: str = "event_free",
) -> None:
    """Median prediction error over horizon, one panel per regime, one curve per predictor.

    Args:
        history_snr_db: history SNR in decibels.
        subset: subset of sequences; all of them where events are unknown.

    Raises:
        ValueError: the record has no such points.
    """
    record = as_record(record)
    points = [
        p
        for p in points_of(record["points"], subset)
        if p["history_snr_db"] == history_snr_db
        # Ceilings are exact but for events: they would leave the others no room.
        and p["predictor"] not in CEILINGS
    ]
    if not points:
        raise ValueError(
            "The record has no such points. Received: "
            f"history_snr_db={history_snr_db}, subset={subset}"
        )

    def draw(axes, curve, style):
        curve = sorted(curve, key=lambda p: p["horizon"])
        axes.plot([p["horizon"] for p in curve], [p["nmse_median_db"] for p in curve], **style)
        axes.set(xticks=[p["horizon"] for p in curve], xlabel="horizon")

    title = (
        f"median NMSE [dB], {subset.replace('_', '-')} sequences, history at {history_snr_db:g} dB"
    )
    _draw_regimes(points, path, draw, "NMSE [dB]", title)


def plot_sum_rates(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Sum rate over link SNR at the farthest horizon, a panel per regime, a curve per predictor."""
    record = as_record(record)
    rates = record["rates"]
    if not rates:
        raise ValueError("The record has no rates")
    horizon = max(p["horizon"] for p in rates)

    def draw(axes, curve, style):
        curve = sorted(curve, key=lambda p: p["link_snr_db"])
        axes.plot([p["link_snr_db"] for p in curve], [p["sum_rate"] for p in curve], **style)
        axes.set(xticks=[p["link_snr_db"] for p in curve], xlabel="link SNR [dB]")

    points = [p for p in rates if p["horizon"] == horizon]
    _draw_regimes(points, path, draw, "sum rate [bit/s/Hz]", f"four users, horizon {horizon}")


def plot_error_scatter(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Errors of the last preset over those of the best baseline at horizon 1, a panel per regime.

    A dot per sequence. The best baseline is the one with the smallest median error over the
    event-free sequences. Sequences with events are drawn as crosses.
    """
    record = as_record(record)
    presets = list(record["num_parameters"])
    if not presets or not record["sequences"]:
        raise ValueError("The record has no model to compare")
    model = presets[-1]
    errors: dict[str, dict[str, Any]] = {}
    for row in record["sequences"]:
        if row["horizon"] == 1:
            cell = errors.setdefault(_regime(row), {})
            cell.setdefault(row["predictor"], []).append((row["event"], row["nmse_db"]))
    best = {
        (_regime(p), p["history_snr_db"]): p["predictor"]
        for p in record["best_classical"]
        if p["by"] == "nmse_median_db" and p["horizon"] == 1
    }
    history_snr_db = record["sequences"][0]["history_snr_db"]

    def draw(axes, regime):
        name = best[regime, history_snr_db]
        for event, marker in ((False, "."), (True, "x")):
            pairs = [
                (b, m)
                for (e, b), (_, m) in zip(errors[regime][name], errors[regime][model], strict=True)
                if bool(e) is event
            ]
            if pairs:
                axes.plot(*zip(*pairs, strict=True), marker, ls="", color="#0072B2", ms=3)
        low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_ylim()[1], -5)
        axes.plot((low, high), (low, high), color="0.5", lw=0.7)
        axes.set(xlabel=f"{policy_style(name, [name])['label']}: NMSE [dB]")

    title = f"a dot per sequence (cross: an event), horizon 1, history at {history_snr_db:g} dB"
    _draw_grid(list(errors), path, draw, f"{model}: NMSE [dB]", title)


def _regime(point):
    speed = point["speed_kmh"]
    return point["scene"], point["sampling_period_s"], _UNKNOWN if speed is None else round(speed)


def _draw_regimes(points, path, draw, ylabel, title):
    names = list(dict.fromkeys(point["predictor"] for point in points))

    def fill(axes, regime):
        for name in names:
            curve = [p for p in points if p["predictor"] == name and _regime(p) == regime]
            if curve:
                draw(axes, curve, policy_style(name, names))

    regimes = list(dict.fromkeys(_regime(point) for point in points))
    _draw_grid(regimes, path, fill, ylabel, title)


def _draw_grid(regimes, path, fill, ylabel, title):
    """One panel per regime: scenes and periods are rows, speeds columns, if none is missing."""
    rows = sorted({regime[:2] for regime in regimes})
    columns = sorted({regime[2] for regime in regimes})
    places = [(*row, speed) for row, speed in itertools.product(rows, columns)]
    width = len(columns)
    if set(places) != set(regimes):
        places, width = sorted(regimes), min(len(regimes), 4)
    with panels(path, -(-len(places) // width), width, title) as grid:
        for axes, regime in itertools.zip_longest(grid.ravel(), places):
            if regime is None:
                axes.set_axis_off()
                continue
            scene, period, speed = regime
            fill(axes, regime)
            told = "speed unknown" if speed == _UNKNOWN else f"{speed:g} km/h"
            axes.set_title(f"{scene.replace('_', ' ')}, {told}, {1e3 * period:g} ms")
        for row in grid:
            row[0].set_ylabel(ylabel)
