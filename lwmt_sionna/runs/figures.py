"""The frame of all figures: panels, one legend, one style per policy."""

import contextlib
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from lwmt_sionna.runs import records
from lwmt_sionna.typing import Array, PathLike

# One colour and marker per policy, in every figure of the project (Okabe and Ito's palette: told
# apart with any colour vision, and by the markers in print).
STYLES = {
    "perfect": ("#000000", "o", "perfect CSI"),
    "noisy_perfect": ("#777777", "s", "noisy perfect CSI"),
    "causal": ("#444444", "D", "causal ceiling"),
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
    "linear": ("#D55E00", "v", "linear interpolation"),
    "pursuit": ("#009E73", "P", "matching pursuit"),
    "estimator": ("#0072B2", "*", "channel estimator, untrained"),
    "lmmse": ("#444444", "D", "LMMSE, true statistics"),
    "model": ("#0072B2", "*", "model"),
    "zero": ("#BBBBBB", "_", "zero"),
    "universal": ("#CC0000", "*", "preset universal"),
    "small": ("#A6761D", "d", "preset small"),
    "paths": ("#00429D", "h", "preset paths"),
}
_OTHER_COLOURS = ("#CC79A7", "#F0E442", "#8C564B", "#BCBD22", "#9467BD")
_OTHER_MARKERS = ("P", "d", "<", ">", "h")
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
    """Colour, marker and label of a policy, a dict of `color`, `marker` and `label`.

    `others` are the policies of one's own in the figure, in order; they take the remaining colours.
    """
    if policy in STYLES:
        color, marker, label = STYLES[policy]
    else:
        index = list(others).index(policy) if policy in others else 0
        color = _OTHER_COLOURS[index % len(_OTHER_COLOURS)]
        marker = _OTHER_MARKERS[index % len(_OTHER_MARKERS)]
        label = policy
    return {"color": color, "marker": marker, "label": label}


def as_record(record: dict[str, Any] | PathLike) -> dict[str, Any]:
    """A record from a dict or a path."""
    return record if isinstance(record, dict) else records.read_record(record)


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
