"""Figures of a link-level evaluation, from its record and from nothing else."""

import pathlib

import numpy as np

from lwmt_sionna.link.sweep.table import goodput_of
from lwmt_sionna.runs.figures import (
    as_record,
    data_caption,
    panels,
    plot_bler,
    plot_goodput,
    policy_style,
)

__all__ = [
    "draw_figures",
    "plot_goodput_over_speed",
    "plot_nmse_goodput",
    "plot_required_snr",
    "plot_user_rate",
    "required_snr_db",
]

_KNOWN = ("perfect", "noisy_perfect", "hold", "pooled_ar", "local_ar", "denoised_ar", "model")


def draw_figures(record, folder):
    """Draws every figure that a record has the points for.

    Args:
        record: dict or path, a record of the link-level evaluation.
        folder: path of the folder to write to.

    Returns:
        List of `pathlib.Path`, the figures written.
    """
    record, folder = as_record(record), pathlib.Path(folder)
    drawn = {"link_bler": plot_bler, "link_goodput": plot_goodput, "link_users": plot_user_rate}
    if len({row["horizon"] for row in record["goodput"]}) > 1:
        drawn["link_required_snr"] = plot_required_snr
    if len(_speeds(record)) > 1:
        drawn["link_speed"] = plot_goodput_over_speed
    if "perfect" in {row["policy"] for row in record["goodput"]}:
        drawn["link_nmse"] = plot_nmse_goodput
    paths = []
    for name, draw in drawn.items():
        paths.append(folder / f"{name}.png")
        draw(record, paths[-1])
    return paths


def required_snr_db(curve, bler=0.1, column="bler"):
    """SNR at which a curve falls to a block error rate.

    Args:
        curve: list of dict, points of one policy with `snr_db` and the column.
        bler: float.
        column: str, `bler`, `bler_low` or `bler_high`.

    Returns:
        float [dB], by interpolation of the logarithm; None where the curve does not fall that far,
        minus infinity where it starts below.
    """
    curve = sorted(curve, key=lambda point: point["snr_db"])
    snr = np.array([point["snr_db"] for point in curve])
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


def plot_required_snr(record, path, bler=0.1):
    """Link SNR that a block error rate needs, over the horizon; one panel per regime.

    Bars reach to where the 95 % intervals of the block error rate cross it. Policies that do not
    get there at any SNR of the sweep are drawn at the upper edge, with an open marker.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
        bler: float, block error rate.
    """
    record = as_record(record)
    mcs = record["config"]["report_mcs"]
    points = [point for point in record["points"] if point["mcs"] == mcs]
    regimes, horizons, policies, others = _axes_of(points)
    last = max(point["snr_db"] for point in points)
    top = last + 1.0
    spread = 0.03 * max(horizons[-1] - horizons[0], 1)
    title = f"{100 * bler:g} % block errors, {points[0]['mcs_name']}, {data_caption(record)}"
    with panels(path, 1, len(regimes), title, sharey=True) as grid:
        for axes, regime in zip(grid[0], regimes):
            for number, policy in enumerate(policies):
                style = policy_style(policy, others)
                shift = spread * (number - (len(policies) - 1) / 2)
                reached = []
                for horizon in horizons:
                    curve = [
                        p
                        for p in points
                        if (p["regime"], p["policy"], p["horizon"]) == (regime, policy, horizon)
                    ]
                    if not curve:
                        continue
                    at, low, high = (
                        required_snr_db(curve, bler, name)
                        for name in ("bler", "bler_low", "bler_high")
                    )
                    if at is None:
                        open_style = {**style, "label": None, "mfc": "white", "ls": ""}
                        axes.plot(horizon + shift, top, **open_style)
                        continue
                    if not np.isfinite(at):
                        continue
                    reached.append((horizon + shift, at))
                    low = at if low is None or not np.isfinite(low) else low
                    axes.vlines(
                        horizon + shift, low, top if high is None else high, color=style["color"],
                        lw=1.0, alpha=0.6,
                    )  # fmt: skip
                axes.plot(*zip(*reached) if reached else ([], []), **style)
            axes.axhspan(last, last + 2.0, color="#000000", alpha=0.05, lw=0)
            axes.text(horizons[0], last + 1.4, f"not at {last:g} dB", fontsize=7, va="center")
            axes.set_ylim(top=last + 2.0)
            axes.set_title(regime)
            axes.set_xlabel("horizon [CSI periods]")
            axes.set_xticks(horizons)
        grid[0][0].set_ylabel("link SNR needed [dB]")


def plot_goodput_over_speed(record, path):
    """Goodput per user over speed, at the reported SNR; one panel per horizon.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
    """
    record = as_record(record)
    snr = record["config"]["report_snr_db"]
    period, regimes = next(iter(_speeds(record, True).items()))
    rows = [r for r in goodput_of(record) if r["snr_db"] == snr and r["regime"] in regimes]
    _, horizons, policies, others = _axes_of(rows)
    title = f"{snr:g} dB link SNR, CSI every {period * 1e3:g} ms, {data_caption(record)}"
    with panels(path, 1, len(horizons), title, sharey=True) as grid:
        for axes, horizon in zip(grid[0], horizons):
            for policy in policies:
                curve = sorted(
                    (r for r in rows if (r["policy"], r["horizon"]) == (policy, horizon)),
                    key=lambda row: row["speed_kmh"],
                )
                style = policy_style(policy, others)
                speed = [row["speed_kmh"] for row in curve]
                low, high = ([row[f"goodput_{end}"] for row in curve] for end in ("low", "high"))
                axes.fill_between(speed, low, high, color=style["color"], alpha=0.12, lw=0)
                axes.plot(speed, [row["goodput"] for row in curve], **style)
            axes.set_title(f"horizon {horizon} ({horizon * period * 1e3:g} ms)")
            axes.set_xlabel("speed [km/h]")
            axes.set_ylim(bottom=0)
        grid[0][0].set_ylabel("goodput per user [bit/s/Hz]")


def plot_nmse_goodput(record, path):
    """Do gains in NMSE become gains in rate? Goodput relative to perfect CSI over median NMSE.

    One marker per regime, horizon and policy, at the reported SNR; larger for later horizons.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
    """
    record = as_record(record)
    snr = record["config"]["report_snr_db"]
    rows = [row for row in goodput_of(record) if row["snr_db"] == snr]
    regimes, _, policies, others = _axes_of(rows)
    perfect = {
        (row["regime"], row["horizon"]): row["goodput"]
        for row in rows
        if row["policy"] == "perfect"
    }
    title = f"{snr:g} dB link SNR, {data_caption(record)}"
    with panels(path, 1, len(regimes), title, sharey=True, sharex=True) as grid:
        for axes, regime in zip(grid[0], regimes):
            for policy in policies:
                style = policy_style(policy, others)
                for row in rows:
                    best = perfect.get((regime, row["horizon"]))
                    if (row["regime"], row["policy"]) != (regime, policy) or not best:
                        continue
                    if policy == "perfect" or row["nmse_median_db"] is None:
                        continue
                    axes.plot(
                        row["nmse_median_db"],
                        100 * row["goodput"] / best,
                        **{**style, "ls": "", "markersize": 4.0 + row["horizon"]},
                    )
            axes.axhline(100, color="#000000", lw=0.8, ls=":")
            axes.set_title(regime)
            axes.set_xlabel("median NMSE [dB]")
        grid[0][0].set_ylabel("goodput, share of perfect CSI [%]")


def plot_user_rate(record, path):
    """Rate of the weakest 5 %, the median and the mean user, at the reported SNR.

    What Gaussian signalling would reach: a user's blocks either arrive or do not, and are too few
    to tell how users differ.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
    """
    record = as_record(record)
    snr = record["config"]["report_snr_db"]
    rows = [row for row in goodput_of(record) if row["snr_db"] == snr]
    regimes, horizons, policies, others = _axes_of(rows)
    title = (
        "users' rates: bars from the weakest 5 % to the median, marker: mean; "
        f"{snr:g} dB link SNR, {data_caption(record)}"
    )
    with panels(path, len(regimes), len(horizons), title, sharex=True, sharey=True) as grid:
        for line, regime in zip(grid, regimes):
            for axes, horizon in zip(line, horizons):
                for place, policy in enumerate(policies):
                    style = policy_style(policy, others)
                    for row in rows:
                        cell = row["regime"], row["horizon"], row["policy"]
                        if cell != (regime, horizon, policy):
                            continue
                        ends = [row["user_rate_q05"], row["user_rate_median"]]
                        axes.plot([place, place], ends, color=style["color"], lw=6, alpha=0.35)
                        mean = row["sum_rate"] / row["num_users"]
                        axes.plot(place, mean, **{**style, "ls": ""})
                axes.set_title(f"{regime}: horizon {horizon}")
                axes.set_xticks([])
                axes.set_ylim(bottom=0)
            line[0].set_ylabel("rate per user [bit/s/Hz]")


def _axes_of(rows):
    regimes = list(dict.fromkeys(row["regime"] for row in rows))
    horizons = sorted({row["horizon"] for row in rows})
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    return regimes, horizons, policies, [policy for policy in policies if policy not in _KNOWN]


def _speeds(record, by_period=False):
    """Speeds, or regimes, of the CSI period with the most speeds."""
    periods = {}
    for row in record["goodput"]:
        speeds = periods.setdefault(row.get("sampling_period"), {})
        speeds.setdefault(row.get("speed_kmh"), set()).add(row["regime"])
    period, speeds = max(periods.items(), key=lambda item: len(item[1]))
    if by_period:
        return {period: set().union(*speeds.values())}
    return list(speeds)
