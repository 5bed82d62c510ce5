"""Figures of stored sequences: where the users go, and what their channels do over time."""

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.synthesis import subcarrier_frequencies, synthesize
from lwmt_sionna.records import atomic_path

__all__ = ["angle_delay_power", "plot_angle_delay", "plot_tracks"]

_DYNAMIC_RANGE_DB = 40.0


def angle_delay_power(paths, sequence, array=None, frequencies=None):
    """Power of one sequence over angle and delay, snapshot by snapshot.

    Args:
        paths: `PathSequences`.
        sequence: Index of the sequence.
        array: `PlanarArray`; a horizontal line of 32 elements, with the polarisations the paths
            were traced with, if `None`.
        frequencies: Subcarrier frequencies in hertz, equally spaced; 32 subcarriers 540 kHz apart
            if `None`.

    Returns:
        float64 `[num_snapshots, num_ant, num_subcarriers]`: squared magnitude of the unitary
        discrete Fourier transform over antennas (the first polarisation's) and subcarriers,
        relative to the sequence's largest; angle bins in ascending order, delay bins from zero.
    """
    if array is None:
        array = PlanarArray(polarization="V" if paths.a.shape[-1] == 1 else "VH")
    frequencies = subcarrier_frequencies(32, 540e3) if frequencies is None else frequencies
    h = synthesize(paths.select(slice(sequence, sequence + 1)), array, frequencies)[0]
    h = h[:, : array.num_rows * array.num_cols]
    spectrum = np.fft.ifft(np.fft.fft(h, axis=1, norm="ortho"), axis=2, norm="ortho")
    power = np.abs(np.fft.fftshift(spectrum, axes=1)) ** 2
    return power / max(power.max(), np.finfo(np.float64).tiny)


def plot_angle_delay(paths, sequence, path, num_panels=8):
    """Draws a strip of angle-delay maps over time.

    Args:
        paths: `PathSequences`.
        sequence: Index of the sequence.
        path: Path of the figure; the extension chooses the format.
        num_panels: Number of snapshots to show, spread over the sequence.

    Raises:
        ValueError: If there is no such sequence.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not 0 <= sequence < paths.num_sequences:
        raise ValueError(
            f"sequence must lie between 0 and {paths.num_sequences - 1}. Received: "
            f"sequence={sequence}"
        )
    power = angle_delay_power(paths, sequence)
    level = 10 * np.log10(np.maximum(power, 10 ** (-_DYNAMIC_RANGE_DB / 10)))
    shown = np.unique(np.linspace(0, len(level) - 1, num_panels).round().astype(int))
    figure = Figure(figsize=(1.45 * len(shown) + 1.3, 2.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for axes, snapshot in zip(panels, shown, strict=True):
        image = axes.imshow(
            level[snapshot], origin="lower", aspect="auto", vmin=-_DYNAMIC_RANGE_DB, vmax=0
        )
        stamp = (paths.time[sequence, snapshot] - paths.time[sequence, 0]) * 1e3
        direct = "" if paths.line_of_sight[sequence, snapshot] else ", no LOS"
        axes.set_title(f"{stamp:g} ms{direct}", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("angle bin", fontsize=8)
    figure.supxlabel("delay bin", fontsize=8)
    figure.colorbar(image, ax=panels, label="power [dB]")
    figure.suptitle(
        f"{paths.scene}, trajectory {paths.trajectory_id[sequence]}, "
        f"{paths.speed[sequence] * 3.6:.0f} km/h",
        fontsize=9,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def plot_tracks(paths, path, ground=None):
    """Draws the trajectories over the extent of the scene, coloured by path gain.

    Args:
        paths: `PathSequences`.
        path: Path of the figure; the extension chooses the format.
        ground: Optional map of heights drawn underneath: tuple of float `[num_y, num_x]` (metres,
            NaN where there is nothing) and its extent `(left, right, bottom, top)` in metres.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if ground is not None:
        height, extent = ground
        axes.imshow(height, origin="lower", extent=extent, cmap="Greys", alpha=0.7, zorder=0)
    gain = paths.power.astype(np.float64).sum(axis=-1)
    with np.errstate(divide="ignore"):
        gain_db = 10 * np.log10(gain)
    finite = gain_db[np.isfinite(gain_db)]
    start, stop = paths.position[:, :-1, :2], paths.position[:, 1:, :2]
    lines = LineCollection(
        np.stack([start, stop], axis=2).reshape(-1, 2, 2),
        array=np.ma.masked_invalid(((gain_db[:, :-1] + gain_db[:, 1:]) / 2).ravel()),
        linewidths=1.5,
        cmap="viridis",
    )
    if finite.size:
        lines.set_clim(np.quantile(finite, 0.02), finite.max())
    axes.add_collection(lines)
    # Tracks of a few metres are lost on the map of a city: a dot tells where each of them is.
    axes.scatter(
        *paths.position[:, 0, :2].T,
        c=np.ma.masked_invalid(gain_db[:, 0]),
        s=7,
        norm=lines.norm,
        cmap="viridis",
        plotnonfinite=True,
    )
    served = np.unique(paths.bs_index)
    axes.plot(*paths.bs_position[served, :2].T, "r^", label="base station", ls="none")
    if ground is None:
        axes.autoscale_view()
    axes.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")
    axes.set_title(f"{paths.scene}: {paths.num_sequences} trajectories", fontsize=10)
    axes.legend(loc="upper right", fontsize=8)
    figure.colorbar(lines, ax=axes, label="path gain [dB]")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
