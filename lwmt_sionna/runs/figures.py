"""The frame of all figures: panels, one legend, one style per policy."""

import contextlib
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from lwmt_sionna.runs import records
from lwmt_sionna.typing import Array, PathLike

__all__ = [
    "as_record",
    "data_caption",
    "panels",
    "plot_bler",
    "plot_goodput",
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
    "aligned_hold": ("#B07AA1", "<", "phase-aligned hold"),
    "clamped_ar": ("#17BECF", ">", "clamped AR"),
    "direct_ar": ("#8C564B", "p", "direct AR"),
    "kalman": ("#BCBD22", "h", "Kalman"),
    "wiener": ("#9467BD", "d", "Wiener (Jakes)"),
    "prony": ("#E377C2", "s", "Prony"),
    "path_fit": ("#56B4E9", "X", "path fit"),
    "model": ("#0072B2", "*", "model"),
    "zero": ("#BBBBBB", "_", "zero"),
    "small": ("#A6761D", "d", "preset small"),
    "paths": ("#00429D", "*", "preset paths"),
}
_OTHER_COLOURS = ("#CC79A7", "#F0E442", "#8C564B", "#BCBD22", "#9467BD")
_OTHER_MARKERS = ("P", "d", "<", ">", "h")
_ADAPTATIONS = {
    "fixed": "the best of {} fixed schemes",
    "inner": "{} schemes, chosen by the base station's belief",
    "outer": "{} schemes, adapted by an outer loop",
}
_PANEL_INCHES = (4.0, 3.1)
# Of text in the size of legends and titles.
_CHARACTERS_PER_INCH = 13
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


def policy_style(policy: str, others: Sequence[str] = ()) -> dict[str, str]:
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
    their interval, with an open marker and unconnected.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
        mcs: int or None, scheme to show; the reported one of the record when None.

    Raises:
        ValueError: the record has no points of that scheme.
    """
    record = as_record(record)
    mcs = record["config"]["report_mcs"] if mcs is None else mcs
    points = [point for point in record["points"] if point["mcs"] == mcs]
    if not points:
        raise ValueError(f"The record has no points of this scheme. Received: mcs={mcs}")
    floor = 0.5 / max(point["num_blocks"] for point in points)
    lowest = min(point["bler"] if point["bler"] > 0 else point["bler_high"] for point in points)
    # The decade of the lowest point; what half an error would be is the least that can be told.
    bottom = max(floor, 0.8 * 10 ** math.floor(math.log10(max(lowest, floor))))

    def draw(axes, curve, style):
        x = [point["snr_db"] for point in curve]
        # A bound is not joined to what was measured.
        y = [point["bler"] if point["bler"] > 0 else math.nan for point in curve]
        low = [max(point["bler_low"], bottom) for point in curve]
        axes.fill_between(
            x, low, [point["bler_high"] for point in curve], color=style["color"], alpha=0.12, lw=0
        )
        axes.plot(x, y, **style)
        for point in curve:
            if point["bler"] == 0:
                bound = {**style, "label": None, "mfc": "white"}
                axes.plot(point["snr_db"], point["bler_high"], **bound)
        axes.set_yscale("log")
        axes.set_ylim(bottom, 1.4)

    _draw_panels(
        points, path, draw, "block error rate", f"{points[0]['mcs_name']}, {data_caption(record)}"
    )


def plot_goodput(record, path, adaptation=None):
    """Goodput per user over link SNR, one panel per regime and horizon, one curve per policy.

    Args:
        record: dict or path, a record of the link-level evaluation.
        path: path of the figure; the extension chooses the format.
        adaptation: str or None, how schemes are chosen (see
            `lwmt_sionna.link.sweep.summary.ADAPTATIONS`); the reported way of the record when None.
    """
    from lwmt_sionna.link.sweep.table import goodput_of

    record = as_record(record)
    rows = goodput_of(record, adaptation)

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

    chosen = rows[0].get("adaptation", "fixed")
    title = _ADAPTATIONS[chosen].format(len(record["config"]["sweep"]["mcs"]))
    _draw_panels(
        rows, path, draw, "goodput per user [bit/s/Hz]", f"{title}, {data_caption(record)}"
    )


def as_record(record: dict[str, Any] | PathLike) -> dict[str, Any]:
    """A record from a dict or a path."""
    return record if isinstance(record, dict) else records.read_record(record)


def data_caption(record: dict[str, Any]) -> str:
    """What a record of the link rests on, for the title of a figure."""
    scenes = sorted({str(point["scene"]) for point in record["points"]})
    drops = max(point["num_drops"] for point in record["points"])
    return f"{', '.join(scenes)}, {drops} drops"


@contextlib.contextmanager
def panels(
    path: PathLike,
    num_rows: int,
    num_columns: int,
    title: str,
    size: tuple[float, float] | None = None,
    style: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Array]:
    """A figure of panels with one legend, written when the block ends.

    Args:
        path: path of the figure; the extension chooses the format.
        num_rows: int.
        num_columns: int.
        title: str.
        size: width and height of the figure in inches; by the number of panels when None.
        style: dict of matplotlib's settings in place of the project's, or None.
        **options: options of matplotlib's `Figure.subplots`.

    Returns:
        A context manager whose value is the array of axes `[num_rows, num_columns]`.
    """
    # The figure is drawn without pyplot: no global state, no window, any thread.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _PANEL_INCHES
    if size is None:
        # One panel alone is made wider, for its legend to fit.
        size = (max(width * num_columns, 5.5), height * num_rows + 0.7)
    with matplotlib.rc_context(_RC | ({} if style is None else style)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(num_rows, num_columns, squeeze=False, **options)
        yield axes
        found: dict[str, Any] = {}
        for handle, label in (
            pair for panel in axes.ravel() for pair in zip(*panel.get_legend_handles_labels())
        ):
            found.setdefault(label, handle)
        if found:
            longest = max(map(len, found))
            columns = max(1, int(_CHARACTERS_PER_INCH * size[0] / (longest + 6)))
            figure.legend(
                found.values(), found.keys(), loc="outside lower center",
                ncols=math.ceil(len(found) / math.ceil(len(found) / columns)),
            )  # fmt: skip
        title = textwrap.fill(title, int(_CHARACTERS_PER_INCH * size[0]))
        figure.suptitle(title, fontsize=9)
        with records.atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def _draw_panels(points, path, draw, ylabel, title):
    regimes = list(dict.fromkeys(point["regime"] for point in points))
    horizons = sorted({point["horizon"] for point in points})
    policies = list(dict.fromkeys(point["policy"] for point in points))
    others = [policy for policy in policies if policy not in _STYLES]
    with panels(path, len(regimes), len(horizons), title, sharex=True, sharey=True) as grid:
        for (row, regime), (column, horizon) in itertools.product(
            enumerate(regimes), enumerate(horizons)
        ):
            axes = grid[row][column]
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
