"""Figures of a link-level evaluation, from its record and from nothing else.

Each takes a record, as a dict or by its path, and the path of the figure, whose extension chooses
the format.
"""

import contextlib
import itertools
import math
import pathlib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lwmt_sionna.link.sweep.adaptation import ADAPTATIONS
from lwmt_sionna.link.sweep.table import EXACT_DB, goodput_of, link_record, span, world_points
from lwmt_sionna.runs.figures import STYLES, as_record, panels, policy_style
from lwmt_sionna.typing import PathLike

# Of a title that is no wider than its panel.
_TITLE_CHARACTERS = 44
_LIMIT = "no errors: upper limit (95 %)"
_ARROW = {"marker": "$\\downarrow$", "ms": 9.0, "ls": ""}


def draw_figures(record: dict[str, Any] | PathLike, folder: PathLike) -> list[pathlib.Path]:
    """Draws every figure that a record has the points for into a folder; returns their paths."""
    record, folder = link_record(record), pathlib.Path(folder)
    drawn: dict[str, Callable] = {
        "link_bler": plot_bler,
        "link_goodput": plot_goodput,
        "link_users": plot_user_rate,
    }
    if len({row["horizon"] for row in record["goodput"]}) > 1:
        drawn["link_required_snr"] = plot_required_snr
    if len(_speeds(record)[1]) > 1:
        drawn["link_speed"] = plot_goodput_over_speed
    if len({row.get("comb") for row in record["goodput"]}) > 1:
        drawn["link_pilots"] = plot_goodput_over_pilots
    if "perfect" in {row["policy"] for row in record["goodput"]}:
        drawn["link_nmse"] = plot_nmse_goodput
    paths = []
    for name, draw in drawn.items():
        paths.append(folder / f"{name}.png")
        draw(record, paths[-1])
    return paths


def plot_bler(record: dict[str, Any] | PathLike, path: PathLike, mcs: int | None = None) -> None:
    """Block error rate over link SNR, one panel per regime and horizon, one curve per policy.

    Shaded bands are 95 % intervals over drops. Where there was no error, an arrow points down from
    the upper end of the interval: the rate lies somewhere below.

    Args:
        mcs: int or None, scheme to show; the reported one of the record when None.

    Raises:
        ValueError: the record has no points of that scheme.
    """
    record = link_record(record)
    mcs = record["config"]["report_mcs"] if mcs is None else mcs
    points = [point for point in record["points"] if point["mcs"] == mcs]
    if not points:
        raise ValueError(f"The record has no points of this scheme. Received: mcs={mcs}")
    floor = 0.5 / max(point["num_blocks"] for point in points)
    lowest = min(point["bler"] if point["bler"] > 0 else point["bler_high"] for point in points)
    # The decade of the lowest point; what half an error would be is the least that can be told.
    bottom = max(floor, 0.8 * 10 ** math.floor(math.log10(max(lowest, floor))))

    def draw(axes, curve, style):
        x = [point["link_snr_db"] for point in curve]
        # A limit is not joined to what was measured.
        y = [point["bler"] if point["bler"] > 0 else math.nan for point in curve]
        low = [max(point["bler_low"], bottom) for point in curve]
        high = [point["bler_high"] for point in curve]
        _draw_band(axes, x, (low, y, high), style)
        limits = [point for point in curve if point["bler"] == 0]
        x, y = ([point[name] for point in limits] for name in ("link_snr_db", "bler_high"))
        axes.plot(x, y, **_ARROW, color=style["color"])
        axes.set_yscale("log")
        axes.set_ylim(bottom, 1.4)

    def finish(grid):
        if any(point["bler"] == 0 for point in points):
            grid[-1][-1].plot([], [], **_ARROW, color="#444444", label=_LIMIT)

    title = f"{points[0]['mcs_name']}, {_scenes(record)}"
    _draw_over_snr(points, path, draw, "block error rate", title, finish)


def plot_goodput(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Goodput per user over link SNR, one panel per regime and horizon, one curve per policy.

    Schemes are chosen in the reported way of the record.
    """
    record = link_record(record)
    rows = goodput_of(record)

    def draw(axes, curve, style):
        _draw_goodput(axes, curve, "link_snr_db", style)

    num_schemes = len(record["config"]["sweep"]["mcs"])
    title = f"{ADAPTATIONS[rows[0]['adaptation']]}, out of {num_schemes}; {_scenes(record)}"
    _draw_over_snr(rows, path, draw, "goodput per user [bit/s/Hz]", title, _from_zero)


def _draw_over_snr(rows, path, draw, ylabel, title, finish):
    _, _, policies, others = _axes_of(rows)

    def draw_cell(axes, cell):
        cell = sorted(cell, key=lambda row: row["link_snr_db"])
        for policy in policies:
            curve = [row for row in cell if row["policy"] == policy]
            if curve:
                draw(axes, curve, policy_style(policy, others))
        axes.set_xticks(sorted({row["link_snr_db"] for row in rows}))

    with _cells(rows, path, title, ylabel, draw_cell) as grid:
        for axes in grid[-1]:
            axes.set_xlabel("link SNR [dB]")
        finish(grid)


@contextlib.contextmanager
def _cells(rows, path, title, ylabel, draw):
    """Panels of regimes and horizons, each with what `draw` makes of its axes and rows."""
    regimes, horizons, *_ = _axes_of(rows)
    with panels(path, len(regimes), len(horizons), title, sharex=True, sharey=True) as grid:
        for (regime, horizon), axes in zip(itertools.product(regimes, horizons), grid.flat):
            cell = [r for r in rows if (r["regime"], r["horizon"]) == (regime, horizon)]
            draw(axes, cell)
            age = f" ({horizon * cell[0]['sampling_period'] * 1e3:g} ms)" if cell else ""
            _set_title(axes, f"{regime}: horizon {horizon}{age}", cell)
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        yield grid


def required_snr_db(
    curve: Sequence[dict[str, Any]], bler: float = 0.1, column: str = "bler"
) -> float | None:
    """Link SNR at which a curve falls to a block error rate [dB], by interpolating the logarithm.

    None where it does not fall that far, minus infinity where it starts below. A curve are points
    of one policy; the column is `bler`, `bler_low` or `bler_high`.
    """
    curve = sorted(curve, key=lambda point: point["link_snr_db"])
    snr = np.array([point["link_snr_db"] for point in curve])
    # Points without errors are somewhere below; half an error stands for them.
    value = np.array([max(point[column], 0.5 / point["num_blocks"]) for point in curve])
    below = np.flatnonzero(value <= bler)
    if not below.size:
        return None
    index = below[0]
    if index == 0:
        return -np.inf
    high, low = np.log10(value[index - 1 : index + 1])
    share = (high - np.log10(bler)) / (high - low)
    return float(snr[index - 1] + share * (snr[index] - snr[index - 1]))


def plot_required_snr(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Link SNR that 10 % block errors need, over the horizon; one panel per regime.

    Bars reach to where the 95 % intervals of the block error rate cross it. Policies that do not
    get there at any SNR of the sweep are drawn at the upper edge with an open marker, those that
    are there at all of them at the lower edge.
    """
    record = link_record(record)
    mcs = record["config"]["report_mcs"]
    points = [point for point in record["points"] if point["mcs"] == mcs]
    regimes, horizons, policies, others = _axes_of(points)
    ratios = [point["link_snr_db"] for point in points]
    first, last = min(ratios), max(ratios)
    spread = 0.03 * max(horizons[-1] - horizons[0], 1)
    title = f"10 % block errors, {points[0]['mcs_name']}, {_scenes(record)}"
    with panels(path, 1, len(regimes), title, sharey=True) as grid:
        for axes, regime in zip(grid[0], regimes):
            own = [point for point in points if point["regime"] == regime]
            for number, policy in enumerate(policies):
                curves = {
                    horizon + spread * (number - (len(policies) - 1) / 2): [
                        p for p in own if (p["policy"], p["horizon"]) == (policy, horizon)
                    ]
                    for horizon in horizons
                }
                ends = (first - 1.0, last + 1.0)
                _draw_required(axes, curves, ends, policy_style(policy, others))
            edges = {last: f"not at {last:g} dB", first - 2: f"at {first:g} dB already"}
            for low, text in edges.items():
                axes.axhspan(low, low + 2.0, color="#000000", alpha=0.05, lw=0)
                axes.text(horizons[0], low + 1.5, text, fontsize=7, va="center")
            axes.set_ylim(first - 2.0, last + 2.0)
            _set_title(axes, regime, own)
            axes.set_xlabel("horizon [CSI periods]")
            axes.set_xticks(horizons)
        grid[0][0].set_ylabel("link SNR needed [dB]")


def _draw_required(axes, curves, ends, style):
    """One policy: from places on the axis of horizons to the points of a curve over SNR.

    What lies beyond the SNR of the sweep is drawn at its ends.
    """
    reached = []
    for place, curve in curves.items():
        if not curve:
            continue
        names = ("bler", "bler_low", "bler_high")
        at, low, high = (required_snr_db(curve, column=name) for name in names)
        if at is None or not np.isfinite(at):
            end = ends[at is None]
            axes.plot(place, end, **{**style, "label": None, "mfc": "white", "ls": ""})
        else:
            reached.append((place, at))
            low = at if low is None or not np.isfinite(low) else low
            high = ends[1] if high is None else high
            axes.vlines(place, low, high, color=style["color"], lw=1.0, alpha=0.6)
    axes.plot(*zip(*reached) if reached else ([], []), **style)


def plot_goodput_over_speed(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Goodput per user over speed, at the reported SNR; one panel per horizon."""
    record = link_record(record)
    snr = record["config"]["report_link_snr_db"]
    period, speeds = _speeds(record)
    regimes = set().union(*speeds.values())
    rows = [row for row in _reported(record) if row["regime"] in regimes]
    _, horizons, policies, others = _axes_of(rows)
    title = f"{snr:g} dB link SNR, CSI every {period * 1e3:g} ms, {_scenes(record)}"
    with panels(path, 1, len(horizons), title, sharey=True) as grid:
        for axes, horizon in zip(grid[0], horizons):
            cell = [row for row in rows if row["horizon"] == horizon]
            cell.sort(key=lambda row: row["speed_kmh"])
            for policy in policies:
                curve = [row for row in cell if row["policy"] == policy]
                _draw_goodput(axes, curve, "speed_kmh", policy_style(policy, others))
            _set_title(axes, f"horizon {horizon} ({horizon * period * 1e3:g} ms)", cell)
            axes.set_xlabel("speed [km/h]")
        grid[0][0].set_ylabel("goodput per user [bit/s/Hz]")
        _from_zero(grid)


def plot_goodput_over_pilots(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Goodput per user over the share of subcarriers that are sounded, at the reported SNR.

    One panel per speed and horizon; of records with several combs of sparse sounding.
    """
    record = link_record(record)
    snr = record["config"]["report_link_snr_db"]
    rows = [row for row in _reported(record) if "comb" in row]
    _, horizons, policies, others = _axes_of(rows)
    speeds = list(dict.fromkeys((row["speed_kmh"], row["sampling_period"]) for row in rows))
    combs = sorted({row["comb"] for row in rows}, reverse=True)
    pilots = f"pilots at {span({round(row['history_snr_db']) for row in rows})} dB"
    title = f"{snr:g} dB link SNR, {pilots}, {_scenes(record)}"
    with panels(path, len(horizons), len(speeds), title, sharex=True, sharey=True) as grid:
        for (horizon, (speed, period)), axes in zip(itertools.product(horizons, speeds), grid.flat):
            place = speed, period, horizon
            names = ("speed_kmh", "sampling_period", "horizon")
            cell = [row for row in rows if tuple(row[name] for name in names) == place]
            cell = sorted(({**row, "pilots": 1 / row["comb"]} for row in cell), key=_pilots)
            for policy in policies:
                curve = [row for row in cell if row["policy"] == policy]
                _draw_goodput(axes, curve, "pilots", policy_style(policy, others))
            axes.set_xscale("log", base=2)
            axes.set_xticks([1 / comb for comb in combs], [_fraction(comb) for comb in combs])
            _set_title(axes, f"{speed:g} km/h, every {period * 1e3:g} ms: horizon {horizon}", cell)
        for axes in grid[-1]:
            axes.set_xlabel("subcarriers with a pilot in each snapshot")
        for axes in grid[:, 0]:
            axes.set_ylabel("goodput per user [bit/s/Hz]")
        _from_zero(grid)


def _pilots(row):
    return row["pilots"]


def _fraction(comb):
    return "all" if comb == 1 else f"1/{comb}"


def plot_nmse_goodput(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Do gains in NMSE become gains in rate? Goodput relative to perfect CSI over median NMSE.

    One marker per regime, horizon and policy, at the reported SNR; larger for later horizons.
    """
    record = link_record(record)
    snr, rows = record["config"]["report_link_snr_db"], _reported(record)
    regimes, _, policies, others = _axes_of(rows)
    ceilings = [row for row in rows if row["policy"] == "perfect"]
    perfect = {(row["regime"], row["horizon"]): row["goodput"] for row in ceilings}
    title = f"{snr:g} dB link SNR, {_scenes(record)}"
    with panels(path, 1, len(regimes), title, sharey=True, sharex=True) as grid:
        for axes, regime in zip(grid[0], regimes):
            own = [row for row in rows if row["regime"] == regime]
            for row in sorted(own, key=lambda row: policies.index(row["policy"])):
                best = perfect.get((regime, row["horizon"]))
                if row["policy"] == "perfect" or not best or row["nmse_median_db"] is None:
                    continue
                style: dict[str, Any] = policy_style(row["policy"], others)
                style |= {"ls": "", "markersize": 4.0 + row["horizon"]}
                x = row["nmse_median_db"]
                if x < EXACT_DB:
                    # Rounding, and far off: at the edge, so that the others can be told apart.
                    x = 0.0
                    style |= {"transform": axes.get_yaxis_transform(), "clip_on": False}
                axes.plot(x, 100 * row["goodput"] / best, **style)
            axes.axhline(100, color="#000000", lw=0.8, ls=":")
            _set_title(axes, regime, own)
            axes.set_xlabel("median NMSE [dB]; what is exact: at the left edge")
        grid[0][0].set_ylabel("goodput, share of perfect CSI [%]")


def plot_user_rate(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Rate of the weakest 5 %, the median and the mean user, at the reported SNR.

    What Gaussian signalling would reach: a user's blocks either arrive or do not, and are too few
    to tell how users differ.
    """
    record = link_record(record)
    snr, rows = record["config"]["report_link_snr_db"], _reported(record)
    _, _, policies, others = _axes_of(rows)
    title = (
        "users' rates: bars from the weakest 5 % to the median, marker: mean; "
        f"{snr:g} dB link SNR, {_scenes(record)}"
    )

    def draw(axes, cell):
        for row in cell:
            place = policies.index(row["policy"])
            style = policy_style(row["policy"], others)
            ends = [row["user_rate_q05"], row["user_rate_median"]]
            axes.plot([place, place], ends, color=style["color"], lw=6, alpha=0.35)
            axes.plot(place, row["sum_rate"] / row["num_users"], **{**style, "ls": ""})
        axes.set_xticks([])

    with _cells(rows, path, title, "rate per user [bit/s/Hz]", draw) as grid:
        _from_zero(grid)


def _draw_band(axes, x, values, style):
    """A curve and the band of its interval; `values` are lower end, curve and upper end."""
    low, y, high = values
    axes.fill_between(x, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.plot(x, y, **style)


def _draw_goodput(axes, curve, over, style):
    names = ("goodput_low", "goodput", "goodput_high")
    values = [[row[name] for row in curve] for name in names]
    _draw_band(axes, [row[over] for row in curve], values, style)


def _reported(record):
    """Rows of the goodput at the reported SNR."""
    snr = record["config"]["report_link_snr_db"]
    return [row for row in goodput_of(record) if row["link_snr_db"] == snr]


def _from_zero(grid):
    """Lets the vertical axis that panels share begin at zero, once everything is drawn.

    A limit that is set ends the scaling to what is drawn later.
    """
    grid[0][0].set_ylim(bottom=0)


def _axes_of(rows):
    regimes = list(dict.fromkeys(row["regime"] for row in rows))
    horizons = sorted({row["horizon"] for row in rows})
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    return regimes, horizons, policies, [policy for policy in policies if policy not in STYLES]


def _scenes(record):
    return ", ".join(sorted({str(point["scene"]) for point in record["points"]}))


def _set_title(axes, title, rows):
    """Names a panel, and says what it rests on."""
    drops = f"{span(row['num_drops'] for row in rows)} drops" if rows else "no points"
    axes.set_title(f"{textwrap.fill(title, _TITLE_CHARACTERS)}\n{drops}")


def _speeds(record):
    """The CSI period with the most speeds, and the regimes of each of these."""
    periods: dict[Any, dict[Any, set]] = {}
    for row in record["goodput"]:
        speeds = periods.setdefault(row.get("sampling_period"), {})
        if row.get("speed_kmh") is not None:
            speeds.setdefault(row["speed_kmh"], set()).add(row["regime"])
    return max(periods.items(), key=lambda item: len(item[1]))


def plot_worlds(record: dict[str, Any] | PathLike, path: PathLike) -> None:
    """Goodput won back per world and predictor, one panel per horizon, the ceiling marked.

    The record is one of `experiments/worlds_eval.py`.
    """
    record = as_record(record)
    ratios = record["config"]["history_snr_db"]
    snr, horizons = ratios[len(ratios) // 2], record["config"]["horizons"]
    kinds = {point["predictor"]: point["kind"] for point in record["points"]}
    presets = [name for name, kind in kinds.items() if kind == "preset"]
    free = [name for name in ("pooled_ar", "denoised_ar", "path_fit") if name in kinds]
    worlds = list(world_points(record, snr, horizons[0]))
    size = (4.2 * len(horizons) + 2.0, 0.2 * len(worlds) + 1.6)
    title = f"goodput won back between hold and perfect CSI, histories at {snr:g} dB"
    with panels(path, 1, len(horizons), title, size, sharey=True) as grid:
        for axes, horizon in zip(grid[0], horizons, strict=True):
            linked = world_points(record, snr, horizon, errors=False)
            ceiling = {"marker": "|", "ms": 11, "color": "black", "label": "causal ceiling"}
            for name in (*free, *presets, "causal"):
                told = [linked[world].get(name, {}).get("recovered_goodput") for world in worlds]
                share = [math.nan if value is None else 100 * value for value in told]
                style = ceiling if name == "causal" else policy_style(name, presets)
                axes.plot(share, range(len(worlds)), ls="", **style)
            axes.set(xlim=(-20, 105), xlabel="won back [%]", title=f"horizon {horizon}")
        grid[0][0].set_yticks(range(len(worlds)), worlds, fontsize=7)
        grid[0][0].set_ylim(len(worlds) - 0.5, -0.5)
