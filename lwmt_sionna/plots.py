"""Figures: of results from records, and from nothing else; of what a token or a model sees."""

import itertools

from lwmt_sionna import records

__all__ = [
    "plot_bler",
    "plot_error_scatter",
    "plot_goodput",
    "plot_neighborhood",
    "plot_prediction_errors",
    "plot_sum_rates",
    "plot_views",
    "policy_style",
]

# One colour and marker per policy, in every figure of the project (Okabe and Ito's palette: told
# apart with any colour vision, and by the markers in print).
_STYLES = {
    "perfect": ("#000000", "o", "perfect CSI"),
    "noisy_perfect": ("#777777", "s", "noisy perfect CSI"),
    "hold": ("#D55E00", "v", "hold"),
    "pooled_ar": ("#E69F00", "^", "pooled AR"),
    "local_ar": ("#009E73", "D", "local AR"),
    "denoised_ar": ("#CC79A7", "P", "denoised local AR"),
    "path_fit": ("#56B4E9", "X", "path fit"),
    "model": ("#0072B2", "*", "model"),
}
_OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#8C564B", "#BCBD22", "#9467BD")
_OTHER_MARKERS = ("P", "X", "<", ">", "h")
_PANEL_INCHES = (4.0, 3.1)
_RC = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.dpi": 130,
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


def policy_style(policy, others=()):
    """Colour, marker and label of a policy.

    Args:
        policy: str, name of the policy.
        others: list of str, the policies of one's own in the figure, in order; they take the
            remaining colours.

    Returns:
        Dict with `color`, `marker` and `label`.
    """
    if policy in _STYLES:
        color, marker, label = _STYLES[policy]
    else:
        index = list(others).index(policy) if policy in others else 0
        color = _OTHER_COLOURS[index % len(_OTHER_COLOURS)]
        marker = _OTHER_MARKERS[index % len(_OTHER_MARKERS)]
        label = policy
    return {"color": color, "marker": marker, "label": label}


def plot_bler(record, path, mcs=None):
    """Block error rate over link SNR, one panel per regime and horizon, one curve per policy.

    Shaded bands are 95 % intervals over drops. Points without errors are drawn at the upper end of
    their interval, with an open marker.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
        mcs: int or None, scheme to show; the reported one of the record when None.

    Raises:
        ValueError: the record has no points of that scheme.
    """
    record = _as_record(record)
    mcs = record["config"]["report_mcs"] if mcs is None else mcs
    points = [point for point in record["points"] if point["mcs"] == mcs]
    if not points:
        raise ValueError(f"The record has no points of this scheme. Received: mcs={mcs}")
    floor = 0.5 / max(point["num_blocks"] for point in points)

    def draw(axes, curve, style):
        x = [point["snr_db"] for point in curve]
        y = [point["bler"] if point["bler"] > 0 else point["bler_high"] for point in curve]
        low = [max(point["bler_low"], floor) for point in curve]
        axes.fill_between(
            x, low, [point["bler_high"] for point in curve], color=style["color"], alpha=0.12, lw=0
        )
        axes.plot(x, y, **style)
        for point, value in zip(curve, y):
            if point["bler"] == 0:
                axes.plot(point["snr_db"], value, mfc="white", **{**style, "label": None})
        axes.set_yscale("log")
        axes.set_ylim(floor, 1.4)

    _draw_panels(
        points, path, draw, "block error rate", f"{points[0]['mcs_name']}, {_data(record)}"
    )


def plot_goodput(record, path):
    """Goodput per user over link SNR, one panel per regime and horizon, one curve per policy.

    Every SNR uses the scheme of the sweep with the highest goodput, the same for all users.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
    """
    record = _as_record(record)

    def draw(axes, curve, style):
        x = [point["snr_db"] for point in curve]
        axes.fill_between(
            x,
            [point["goodput_low"] for point in curve],
            [point["goodput_high"] for point in curve],
            color=style["color"],
            alpha=0.12,
            lw=0,
        )
        axes.plot(x, [point["goodput"] for point in curve], **style)
        axes.set_ylim(bottom=0)

    title = f"best fixed scheme of {record['config']['sweep']['mcs']}, {_data(record)}"
    _draw_panels(record["goodput"], path, draw, "goodput per user [bit/s/Hz]", title)


def plot_neighborhood(
    neighborhood,
    grid,
    token=None,
):
    """Draws what one token sees: one angle-delay plane per snapshot.

    Args:
        neighborhood: `lwmt_sionna.Neighborhood`.
        grid: Number of snapshots, angle bins and delay bins.
        token: Snapshot, angle bin and delay bin of the token. Defaults to the centre.

    Returns:
        A matplotlib `Figure`, not attached to any window.
    """
    from matplotlib.figure import Figure

    seen = neighborhood.footprint(grid, token)
    token = tuple(size // 2 for size in seen.shape) if token is None else token
    figure = Figure(figsize=(1.2 * len(seen) + 0.6, 2.2))
    axes = figure.subplots(1, len(seen), sharex=True, sharey=True, squeeze=False)[0]
    for snapshot, (axis, plane) in enumerate(zip(axes, seen, strict=True)):
        axis.imshow(plane, cmap="Blues", vmin=0, vmax=1.5, origin="lower")
        axis.set_title(f"t {snapshot - token[0]:+d}" if snapshot != token[0] else "t")
    axes[token[0]].plot(token[2], token[1], "x", color="black")
    axes[0].set_ylabel("angle bin")
    figure.supxlabel("delay bin")
    figure.tight_layout()
    return figure


def plot_views(clean, views, path):
    """Draws what masks and impairments leave of a channel, three panels for each.

    The panels are the angle-delay plane in the middle of the sequence, delays over time at the
    strongest angle, and the strongest bin over time (true: grey line; observed: markers). Hidden
    bins are grey.

    Args:
        clean: complex `[num_snapshots, num_angle, num_delay]`, the true channel, angle-delay
            domain.
        views: dict from a name to a pair of the observed channel, complex, and what of it is
            hidden, bool, both shaped like `clean`.
        path: path of the figure; the extension chooses the format.
    """
    import matplotlib
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    power = np.mean(np.abs(clean) ** 2, axis=0)
    angle, delay = np.unravel_index(power.argmax(), power.shape)
    middle = len(clean) // 2
    peak_db = 20 * np.log10(np.abs(clean).max())
    columns = 2
    rows = -(-len(views) // columns)
    with matplotlib.rc_context(_RC | {"axes.grid": False, "font.size": 7}):
        figure = Figure(figsize=(10.0, 1.55 * rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, 3 * columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for index, (name, (observed, hidden)) in enumerate(views.items()):
            row, column = divmod(index, columns)
            plane, course, bin_axes = panels[row][3 * column : 3 * column + 3]
            level = 20 * np.log10(np.abs(observed) + 1e-12) - peak_db
            level = np.ma.masked_array(level, hidden)
            cmap = matplotlib.colormaps["viridis"].with_extremes(bad="0.8")
            for axes, image, label in (
                (plane, level[middle], "angle"),
                (course, level[:, angle], "time"),
            ):
                axes.set_axis_on()
                axes.imshow(
                    image, aspect="auto", cmap=cmap, vmin=-40, vmax=0, interpolation="nearest"
                )
                axes.set(xticks=[], yticks=[], ylabel=label)
            plane.set_title(name.replace("_", " "), loc="left")
            bin_axes.set_axis_on()
            time = np.arange(len(clean))
            seen = ~hidden[:, angle, delay]
            bin_axes.plot(time, clean[:, angle, delay].real, color="0.6", lw=1)
            bin_axes.plot(time[seen], observed[seen, angle, delay].real, ".", color="#0072B2", ms=4)
            bin_axes.set(xticks=[], yticks=[])
            if row == rows - 1:
                for axes, label in ((plane, "delay"), (course, "delay"), (bin_axes, "time")):
                    axes.set_xlabel(label)
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def plot_prediction_errors(record, path, snr_db=15.0, subset="event_free"):
    """Median prediction error over horizon, one panel per regime, one curve per predictor.

    Args:
        record: dict or path, a record of the prediction evaluation.
        path: path of the figure; the extension chooses the format.
        snr_db: history SNR in decibels.
        subset: subset of sequences.

    Raises:
        ValueError: the record has no such points.
    """
    record = _as_record(record)
    points = [
        p for p in record["points"] if p["history_snr_db"] == snr_db and p["subset"] == subset
    ]
    if not points:
        raise ValueError(
            f"The record has no such points. Received: snr_db={snr_db}, subset={subset}"
        )

    def draw(axes, curve, style):
        curve = sorted(curve, key=lambda p: p["horizon"])
        axes.plot([p["horizon"] for p in curve], [p["nmse_median_db"] for p in curve], **style)
        axes.set(xticks=[p["horizon"] for p in curve], xlabel="horizon")

    title = f"median NMSE [dB], {subset.replace('_', '-')} sequences, history at {snr_db:g} dB"
    _draw_regimes(points, path, draw, "NMSE [dB]", title)


def plot_sum_rates(record, path, horizon=None):
    """Sum rate over link SNR, one panel per regime, one curve per predictor.

    Args:
        record: dict or path, a record of the prediction evaluation.
        path: path of the figure; the extension chooses the format.
        horizon: int or None, horizon of the predictions; the farthest when None.
    """
    record = _as_record(record)
    rates = record["rates"]
    if not rates:
        raise ValueError("The record has no rates")
    horizon = max(p["horizon"] for p in rates) if horizon is None else horizon

    def draw(axes, curve, style):
        curve = sorted(curve, key=lambda p: p["link_snr_db"])
        axes.plot([p["link_snr_db"] for p in curve], [p["sum_rate"] for p in curve], **style)
        axes.set(xticks=[p["link_snr_db"] for p in curve], xlabel="link SNR [dB]")

    points = [p for p in rates if p["horizon"] == horizon]
    _draw_regimes(points, path, draw, "sum rate [bit/s/Hz]", f"four users, horizon {horizon}")


def plot_error_scatter(record, path, model=None, horizon=1):
    """Errors of a model over those of the best baseline, a dot per sequence, a panel per regime.

    The best baseline is the one with the smallest median error over the event-free sequences.
    Sequences with events are drawn as crosses.

    Args:
        record: dict or path, a record of the prediction evaluation.
        path: path of the figure; the extension chooses the format.
        model: str or None, name of the model; the record's first preset when None.
        horizon: int, horizon of the predictions.
    """
    record = _as_record(record)
    presets = list(record["num_parameters"])
    if model is None and not presets:
        raise ValueError("The record has no model to compare. Received: model=None")
    model = presets[0] if model is None else model
    errors = {}
    for row in record["sequences"]:
        if row["horizon"] == horizon:
            cell = errors.setdefault(_regime(row), {})
            cell.setdefault(row["predictor"], []).append((row["event"], row["nmse_db"]))
    best = {
        (_regime(p), p["history_snr_db"]): p["predictor"]
        for p in record["best_classical"]
        if p["by"] == "nmse_median_db" and p["horizon"] == horizon
    }
    snr_db = record["config"]["rate_snr_db"]

    def draw(axes, regime):
        name = best[regime, snr_db]
        for event, marker in ((False, "."), (True, "x")):
            pairs = [
                (b, m)
                for (e, b), (_, m) in zip(errors[regime][name], errors[regime][model], strict=True)
                if e is event
            ]
            if pairs:
                axes.plot(*zip(*pairs, strict=True), marker, ls="", color="#0072B2", ms=3)
        low, high = axes.get_xlim()
        axes.plot((low, high), (low, high), color="0.5", lw=0.7)
        axes.set(xlabel=f"{policy_style(name, [name])['label']}: NMSE [dB]")

    _draw_grid(list(errors), path, draw, f"{model}: NMSE [dB]", f"horizon {horizon}")


def _regime(point):
    return point["scene"], point["sampling_period_s"], point["speed_kmh"]


def _draw_regimes(points, path, draw, ylabel, title):
    names = list(dict.fromkeys(point["predictor"] for point in points))
    others = [name for name in names if name not in _STYLES]

    def fill(axes, regime):
        for name in names:
            curve = [p for p in points if p["predictor"] == name and _regime(p) == regime]
            if curve:
                draw(axes, curve, policy_style(name, others))

    regimes = list(dict.fromkeys(_regime(point) for point in points))
    _draw_grid(regimes, path, fill, ylabel, title)


def _draw_grid(regimes, path, fill, ylabel, title):
    """One panel per regime: scenes and periods are rows, speeds columns."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted({regime[:2] for regime in regimes})
    columns = sorted({regime[2] for regime in regimes})
    with matplotlib.rc_context(_RC):
        width, height = _PANEL_INCHES
        size = (0.7 * width * len(columns) + 0.4, 0.8 * height * len(rows) + 1.0)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(rows), len(columns), squeeze=False)
        for (i, row), (j, speed) in itertools.product(enumerate(rows), enumerate(columns)):
            axes = panels[i][j]
            if (*row, speed) not in regimes:
                axes.set_axis_off()
                continue
            fill(axes, (*row, speed))
            axes.set_title(f"{row[0].replace('_', ' ')}, {speed:g} km/h, {1e3 * row[1]:g} ms")
            if j == 0:
                axes.set_ylabel(ylabel)
        handles = {
            label: handle
            for axes in panels.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                handles.values(),
                handles.keys(),
                loc="outside lower center",
                ncols=min(len(handles), 7),
            )
        figure.suptitle(title, fontsize=9)
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)


def _as_record(record):
    return record if isinstance(record, dict) else records.read_record(record)


def _data(record):
    scenes = sorted({str(point["scene"]) for point in record["points"]})
    drops = max(point["num_drops"] for point in record["points"])
    return f"{', '.join(scenes)}, {drops} drops"


def _draw_panels(points, path, draw, ylabel, title):
    # The figure is drawn without pyplot: no global state, no window, any thread.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    regimes = list(dict.fromkeys(point["regime"] for point in points))
    horizons = sorted({point["horizon"] for point in points})
    policies = list(dict.fromkeys(point["policy"] for point in points))
    others = [policy for policy in policies if policy not in _STYLES]
    with matplotlib.rc_context(_RC):
        width, height = _PANEL_INCHES
        figure = Figure(
            figsize=(width * len(horizons), height * len(regimes) + 0.7), layout="constrained"
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(
            len(regimes), len(horizons), sharex=True, sharey=True, squeeze=False
        )
        for (row, regime), (column, horizon) in itertools.product(
            enumerate(regimes), enumerate(horizons)
        ):
            axes = panels[row][column]
            for policy in policies:
                curve = sorted(
                    (
                        point
                        for point in points
                        if (point["regime"], point["horizon"], point["policy"])
                        == (regime, horizon, policy)
                    ),
                    key=lambda point: point["snr_db"],
                )
                if curve:
                    draw(axes, curve, policy_style(policy, others))
            age = horizon * curve[0]["sampling_period"] * 1e3 if curve else None
            aged = "" if age is None else f" ({age:g} ms)"
            axes.set_title(f"{regime}: horizon {horizon}{aged}")
            axes.set_xticks(sorted({point["snr_db"] for point in points}))
            if row == len(regimes) - 1:
                axes.set_xlabel("link SNR [dB]")
            if column == 0:
                axes.set_ylabel(ylabel)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        figure.suptitle(title, fontsize=9)
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
