"""Who is ahead of whom in a record of the prediction evaluation, and how much seeds differ."""

import collections
import statistics
from collections.abc import Collection, Sequence
from typing import Any

from lwmt_sionna.baselines import CLASSICAL
from lwmt_sionna.evaluation.evaluator import CEILINGS

FIGURES = ("nmse_median_db", "nmse_pooled_db")
BIN_BY_BIN = "best bin by bin"
_RESOLVING = "path_fit"
# Published work sees as much between seeds: from here on a predictor counts as behind.
_MARGIN_DB = 0.5


def best_classical(
    points: Sequence[dict[str, Any]], classical: Collection[str], by: str = "nmse_median_db"
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The strongest training-free baseline of every cell and horizon, over event-free sequences.

    Args:
        points: Points of `evaluate_cell`.
        classical: Names of the training-free baselines.
        by: Figure that decides; the smallest wins.

    Returns:
        Dictionary from (scene, speed, period, history SNR, horizon) to the point that wins.
    """
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in points_of(points):
        if point["predictor"] in classical:
            key = cell_key(point)
            if key not in best or point[by] < best[key][by]:
                best[key] = point
    return best


def points_of(points: Sequence[dict[str, Any]], subset: str = "event_free") -> list[dict[str, Any]]:
    """The points of a subset; those of all sequences in cells whose events are unknown."""
    told = {cell_key(point)[:-1] for point in points if point["subset"] != "all"}
    return [
        point
        for point in points
        if point["subset"] == (subset if cell_key(point)[:-1] in told else "all")
    ]


def cell_key(point: dict[str, Any]) -> tuple[Any, ...]:
    """(scene, speed, period, history SNR, horizon) of a point."""
    names = ("scene", "speed_kmh", "sampling_period_s", "history_snr_db", "horizon")
    return tuple(point[name] for name in names)


def leads(
    record: dict[str, Any], predictor: str, by: str, subset: str = "event_free"
) -> dict[str, dict[tuple[Any, ...], float]]:
    """By how many decibels a predictor is ahead of every other, cell by cell.

    Args:
        record: Record of `experiments/prediction_eval.py`.
        predictor: Name of the predictor.
        by: Figure that is compared, such as `"nmse_median_db"`.
        subset: Subset of sequences; all of them where events are unknown.

    Returns:
        Dictionary from the name of a rival to a dictionary from (scene, speed, period, history SNR,
        horizon) to the lead in dB, negative where the rival is ahead. The rival `BIN_BY_BIN` is in
        every cell the best of the training-free baselines that do not resolve paths.

    Raises:
        ValueError: If the record does not hold the predictor.
    """
    cells: dict[tuple[Any, ...], dict[str, float]] = collections.defaultdict(dict)
    for point in points_of(record["points"], subset):
        if point["predictor"] not in CEILINGS:
            cells[cell_key(point)][point["predictor"]] = point[by]
    known = list(dict.fromkeys(name for cell in cells.values() for name in cell))
    if predictor not in known:
        raise ValueError(
            f"The record holds no such predictor; expected one of {', '.join(known)}. Received: "
            f"predictor={predictor!r}"
        )
    rivals: dict[str, dict[tuple[Any, ...], float]] = collections.defaultdict(dict)
    for key, cell in cells.items():
        own = cell.pop(predictor)
        simple = [cell[name] for name in cell if name in CLASSICAL and name != _RESOLVING]
        if simple:
            rivals[BIN_BY_BIN][key] = min(simple) - own
        for name, value in cell.items():
            rivals[name][key] = value - own
    return dict(rivals)


def seed_gains(
    record: dict[str, Any], names: Sequence[str], reference: str, by: str, horizon: int
) -> list[float]:
    """Mean over the cells of one horizon of what trainings of several seeds win over a predictor.

    In dB, one gain for each of `names`, predictors of one kind; the others are those of `leads`.
    """
    gains = []
    for name in names:
        lead = leads(record, name, by)[reference]
        gains.append(statistics.fmean(v for key, v in lead.items() if key[-1] == horizon))
    return gains


def format_prediction_comparison(
    record: dict[str, Any], predictor: str, kinds: Sequence[Sequence[str]] = ()
) -> str:
    """Tables of the leads of a predictor, of the best classical ones, and of seeds.

    `kinds` are lists of names of predictors that differ in their seed alone.
    """
    lines = []
    for by in FIGURES:
        lines += [
            f"{predictor} against others, {by}, event-free sequences [dB]:",
            f"{'rival':<18}{'cells':>6}{'ahead':>7}{f'behind > {_MARGIN_DB:g}':>14}"
            f"{'lead: least':>13}{'middle':>8}{'most':>8}",
        ]
        for name, lead in leads(record, predictor, by).items():
            values = list(lead.values())
            lines.append(
                f"{name:<18}{len(values):>6}{sum(v > 0 for v in values):>7}"
                f"{sum(v < -_MARGIN_DB for v in values):>14}{min(values):>13.1f}"
                f"{statistics.median(values):>8.1f}{max(values):>8.1f}"
            )
        best = best_classical(record["points"], CLASSICAL, by)
        counts = collections.Counter(point["predictor"] for point in best.values())
        wins = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        lines += [f"best training-free one, by cells: {wins}", ""]
    horizons = sorted({point["horizon"] for point in record["points"]})
    for names in kinds:
        told = ", ".join(names)
        lines.append(f"{told} over {_RESOLVING}, mean over cells, mean +- std of seeds:")
        for by in FIGURES:
            for horizon in (horizons[0], horizons[-1]):
                gains = seed_gains(record, names, _RESOLVING, by, horizon)
                spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
                lines.append(
                    f"  {by}, horizon {horizon}: {statistics.fmean(gains):.2f} +- {spread:.2f} dB"
                )
    return "\n".join(lines).rstrip()


def format_points(points: Sequence[dict[str, Any]], horizons: Sequence[int] | None = None) -> str:
    """Tables of errors, one per regime and SNR, from points of `evaluate_cell` or `evaluate_paths`.

    Of the given horizons, or of the first and the last.
    """
    cells = {(cell_key(p)[:4], p["predictor"], p["horizon"], p["subset"]): p for p in points}
    if horizons is None:
        known = [p["horizon"] for p in points]
        horizons = sorted({min(known), max(known)})
    lines = []
    for key in sorted({cell[0] for cell in cells}, key=lambda key: (key[0], key[1] or 0, *key[2:])):
        scene, speed, period, history_snr_db = key
        told = any(cell == key and subset != "all" for cell, *_, subset in cells)
        subsets = ("event_free", "quiet") if told else ("all",)
        columns = [(horizon, subset) for horizon in horizons for subset in subsets]
        speed = "speed unknown" if speed is None else f"{speed:.0f} km/h"
        lines += [
            f"{scene}, {speed}, CSI every {1e3 * period:g} ms, history SNR "
            f"{history_snr_db:g} dB: NMSE pooled / median [dB]",
            f"{'predictor':<16}"
            + "".join(f"{f'h={h} {s}':>26}".replace("_", "-") for h, s in columns),
        ]
        for name in dict.fromkeys(p["predictor"] for p in points):
            found = [cells.get((key, name, *column)) for column in columns]
            form = "{nmse_pooled_db:.1f} / {nmse_median_db:.1f}"
            texts = ("-" if p is None else form.format(**p) for p in found)
            texts = (text.replace("-200.0", "exact") for text in texts)
            label = f"{name} (ceiling)" if name in CEILINGS else name
            lines.append(f"{label:<16}" + "".join(f"{text:>26}" for text in texts))
        lines.append("")
    return "\n".join(lines).rstrip()
