"""What stored sequences hold, in numbers and in figures."""

from typing import Any

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.channels import ChannelSequences, vanishing_mask
from lwmt_sionna.data.events import event_mask
from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences
from lwmt_sionna.data.synthesis import subcarrier_frequencies, synthesize
from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.typing import Array, PathLike


def spreads(paths: PathSequences) -> dict[str, Array]:
    """Second moments of the paths of every snapshot, weighted by their power.

    Returns:
        Dictionary of float64 `[num_sequences, num_snapshots]`, NaN where a snapshot has no path:
        `delay` (rms delay spread in seconds), `doppler` (rms Doppler spread in hertz) and
        `azimuth` (circular spread of the azimuth of departure in radians,
        `sqrt(-2 ln |E exp(j phi)|)`, 3GPP TR 38.901 annex A).
    """
    power = paths.power.astype(np.float64)
    total = power.sum(axis=-1)
    weight = power / np.where(total > 0, total, np.nan)[..., None]

    def deviation(value):
        value = np.where(paths.valid, value, 0.0).astype(np.float64)
        mean = np.sum(weight * value, axis=-1, keepdims=True)
        return np.sqrt(np.sum(weight * (value - mean) ** 2, axis=-1))

    resultant = np.abs(np.sum(weight * np.exp(1j * paths.phi_t), axis=-1))
    return {
        "delay": deviation(paths.tau),
        "doppler": deviation(paths.doppler),
        "azimuth": np.sqrt(-2.0 * np.log(np.clip(resultant, 1e-12, 1.0))),
    }


def summarize(sequences: PathSequences | ChannelSequences) -> dict[str, Any]:
    """Counts of a data set, and, where paths are stored, coverage and spreads.

    Returns:
        Flat dictionary of text and numbers, units in the names. Coverage is the share of the drawn
        tracks that any path reached, `None` where the file does not say how many were drawn.
        `event_share` is the share of steps between consecutive snapshots in which notable paths
        are born or die (see `event_mask`).

    Raises:
        ValueError: If there is no sequence.
    """
    if not sequences.num_sequences:
        raise ValueError("There is no sequence to summarise. Received: num_sequences=0")
    known = np.isfinite(sequences.speed).any()
    speeds = {"min": np.nanmin, "max": np.nanmax}
    result = {
        "scene": sequences.scene,
        "num_sequences": sequences.num_sequences,
        "num_snapshots": sequences.num_snapshots,
        "num_base_stations": len(np.unique(sequences.bs_index)),
        "carrier_frequency_ghz": sequences.carrier_frequency / 1e9,
        "sampling_period_ms": sequences.sampling_period * 1e3,
        **{f"speed_{n}_kmh": float(3.6 * f(sequences.speed)) for n, f in speeds.items() if known},
        "normalized_doppler_max": float(np.nanmax(sequences.normalized_doppler)) if known else None,
        "vanishing_share": float(vanishing_mask(sequences).mean()),
    }
    if isinstance(sequences, PathSequences):
        return result | _summarize_paths(sequences)
    power = np.mean(np.abs(sequences.h) ** 2, axis=(1, 2, 3), dtype=np.float64)
    return result | {
        "num_antennas": sequences.h.shape[2],
        "array_shape": " x ".join(map(str, sequences.array_shape)),
        "num_subcarriers": sequences.h.shape[3],
        "subcarrier_spacing_khz": sequences.subcarrier_spacing / 1e3,
        "power_median_db": float(10 * np.log10(max(np.median(power), 1e-30))),
    }


def _summarize_paths(paths):
    count = paths.valid.sum(axis=-1)
    seen = count > 0
    gain = paths.power.astype(np.float64).sum(axis=-1)
    gain_db = 10 * np.log10(gain[seen]) if seen.any() else np.array([np.nan])
    offset = paths.position - paths.bs_position[paths.bs_index][:, None]
    distance = np.linalg.norm(offset[..., :2], axis=-1)
    result = {
        "distance_min_m": float(distance.min()),
        "distance_max_m": float(distance.max()),
        "paths_mean": float(count.mean()),
        "paths_median": float(np.median(count)),
        "paths_max": int(count.max()),
        "line_of_sight_share": float(paths.line_of_sight.mean()),
        "gain_median_db": float(np.median(gain_db)),
        "gain_q10_db": float(np.quantile(gain_db, 0.1)),
        "gain_q90_db": float(np.quantile(gain_db, 0.9)),
    }
    for name, unit, scale in (
        ("delay", "ns", 1e9),
        ("doppler", "hz", 1.0),
        ("azimuth", "deg", np.rad2deg(1.0)),
    ):
        value = spreads(paths)[name][seen] * scale if seen.any() else np.array([np.nan])
        result[f"{name}_spread_median_{unit}"] = float(np.median(value))
        result[f"{name}_spread_q90_{unit}"] = float(np.quantile(value, 0.9))
    drawn, uncovered = (paths.metadata.get(n) for n in ("num_drawn", "num_out_of_coverage"))
    result["coverage_share"] = None if drawn is None else 1.0 - (uncovered or 0) / drawn
    steps = [event_mask(paths, t, t + 1) for t in range(paths.num_snapshots - 1)]
    result["event_share"] = float(np.mean(steps)) if steps else None
    result["traced_share"] = float(paths.traced.mean())
    seams = np.array([]) if paths.seam_error is None else paths.seam_error
    seams = seams[~np.isnan(seams)]
    result["seam_error_median_db"] = (
        float(10 * np.log10(max(np.median(seams), 1e-12))) if seams.size else None
    )
    result["delay_range_m"] = float(paths.tau.max() * SPEED_OF_LIGHT)
    return result


_DYNAMIC_RANGE_DB = 40.0
_NUM_SUBCARRIERS, _SPACING = 32, 540e3
_ARROW_INCHES = 0.17
_NUM_PANELS, _FRAMES_PER_SECOND = 8, 5
_MAP_INCHES = 6.0
_ANGLE_LABEL = "sine of departure"
_DELAY_LABEL = "delay [µs]"


def angle_delay_power(paths: PathSequences, sequence: int) -> Array:
    """Power of one sequence over angle and delay, snapshot by snapshot.

    At a horizontal line of 32 elements, with the polarisations the paths were traced with, and 32
    subcarriers 540 kHz apart.

    Returns:
        float64 `[num_snapshots, num_ant, num_subcarriers]`: squared magnitude of the unitary
        discrete Fourier transform over antennas (the first polarisation's) and subcarriers,
        relative to the sequence's largest; angle bins in ascending order, delay bins from zero.
    """
    array = PlanarArray(polarization="V" if paths.a.shape[-1] == 1 else "VH")
    frequencies = subcarrier_frequencies(_NUM_SUBCARRIERS, _SPACING)
    h = synthesize(paths.select(slice(sequence, sequence + 1)), array, frequencies)[0]
    h = h[:, : array.num_rows * array.num_cols]
    spectrum = np.fft.ifft(np.fft.fft(h, axis=1, norm="ortho"), axis=2, norm="ortho")
    power = np.abs(np.fft.fftshift(spectrum, axes=1)) ** 2
    return power / max(power.max(), np.finfo(np.float64).tiny)


def plot_angle_delay(paths: PathSequences, sequence: int, path: PathLike) -> None:
    """Draws a strip of angle-delay maps of a sequence over time.

    Raises:
        ValueError: If there is no such sequence.
    """
    level = _angle_delay_db(paths, sequence)
    shown = np.unique(np.linspace(0, len(level) - 1, _NUM_PANELS).round().astype(int))
    figure = _figure(1.4 * len(shown) + 1.3, 2.5)
    panels = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for axes, snapshot in zip(panels, shown, strict=True):
        image = _show_map(axes, level[snapshot])
        axes.set_title(_stamp(paths, sequence, snapshot), fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel(_ANGLE_LABEL, fontsize=8)
    figure.supxlabel(_DELAY_LABEL, fontsize=8)
    bar = figure.colorbar(image, ax=panels, aspect=15, pad=0.01)
    bar.set_label("power [dB]", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(_headline(paths, sequence), fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def animate_angle_delay(paths: PathSequences, sequence: int, path: PathLike) -> None:
    """Writes an animation (GIF) of angle-delay maps, with the path gain over time below.

    Raises:
        ValueError: If there is no such sequence.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    level = _angle_delay_db(paths, sequence)
    gain = _gain_db(paths)[sequence]
    elapsed = (paths.time[sequence] - paths.time[sequence, 0]) * 1e3
    figure = _figure(4.6, 5.0)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1))
    image = _show_map(upper, level[0])
    upper.set(xlabel=_DELAY_LABEL, ylabel=_ANGLE_LABEL)
    figure.colorbar(image, ax=upper, label="power [dB]")
    lower.plot(elapsed, gain, ".-", color="#777777", lw=1, ms=4)
    (marker,) = lower.plot(elapsed[:1], gain[:1], "o", color="#D55E00")
    lower.set(xlabel="time [ms]", ylabel="path gain [dB]")
    lower.grid(alpha=0.3)
    figure.suptitle(_headline(paths, sequence), fontsize=9)

    def draw(snapshot):
        image.set_data(level[snapshot])
        marker.set_data(elapsed[snapshot : snapshot + 1], gain[snapshot : snapshot + 1])
        upper.set_title(_stamp(paths, sequence, snapshot), fontsize=9)

    movie = FuncAnimation(figure, draw, frames=len(level))
    with atomic_path(path) as temporary:
        movie.save(temporary, writer=PillowWriter(fps=_FRAMES_PER_SECOND), dpi=100)


def plot_tracks(
    paths: PathSequences, path: PathLike, ground: tuple[Array, Any] | None = None
) -> None:
    """Draws the trajectories over the extent of the scene, coloured by path gain.

    Sequences are mostly shorter than anything else on the map of a city: a dot tells where each
    begins and an arrow where it goes; users that stand have no arrow.

    Args:
        path: Path of the figure; the extension chooses the format.
        ground: Optional map of heights drawn underneath: tuple of float `[num_y, num_x]` (metres,
            NaN where there is nothing) and its extent `(left, right, bottom, top)` in metres.
    """
    from matplotlib.collections import LineCollection

    served = np.unique(paths.bs_index)
    places = np.concatenate([paths.position.reshape(-1, 3), paths.bs_position[served]])[:, :2]
    if ground is None:
        (left, bottom), (right, top) = places.min(axis=0) - 10.0, places.max(axis=0) + 10.0
        extent = (left, right, bottom, top)
    else:
        extent = ground[1]
    figure, axes = map_figure(extent)
    if ground is not None:
        axes.imshow(ground[0], origin="lower", extent=extent, cmap="Greys", alpha=0.7, zorder=0)
    gain_db = _gain_db(paths)
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
    first, way = paths.position[:, 0, :2], paths.position[:, -1, :2] - paths.position[:, 0, :2]
    color = {"norm": lines.norm, "cmap": "viridis"}
    axes.scatter(*first.T, c=np.ma.masked_invalid(gain_db[:, 0]), s=9, plotnonfinite=True, **color)
    length = np.linalg.norm(way, axis=1, keepdims=True)
    moves = length[:, 0] > 0
    axes.quiver(
        *first[moves].T,
        *(way[moves] / length[moves]).T,
        np.ma.masked_invalid(gain_db[moves, 0]),
        angles="xy",
        scale_units="inches",
        scale=1.0 / _ARROW_INCHES,
        units="inches",
        width=0.014,
        **color,
    )
    axes.plot(*paths.bs_position[served, :2].T, "r^", label="base station", ls="none")
    axes.plot([], [], ".", color="#21918c", label="user (arrow: direction of motion)")
    axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=8, frameon=False, borderpad=0
    )
    figure.suptitle(f"{paths.scene}: {paths.num_sequences} trajectories", fontsize=10)
    figure.colorbar(lines, ax=axes, label="path gain [dB]", fraction=0.05, pad=0.02)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def map_figure(extent: tuple[float, float, float, float]) -> tuple[Any, Any]:
    """A figure whose only axes show a part of the ground, and as high as that part asks for.

    `extent` is `(left, right, bottom, top)` in metres. Returns the figure and its axes, with room
    for a colour bar on the right.
    """
    left, right, bottom, top = extent
    height = np.clip(_MAP_INCHES * (top - bottom) / (right - left), 1.8, 9.0)
    figure = _figure(_MAP_INCHES + 1.6, height + 0.85)
    axes = figure.subplots()
    axes.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")
    return figure, axes


def _figure(width, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _angle_delay_db(paths, sequence):
    if not 0 <= sequence < paths.num_sequences:
        raise ValueError(
            f"sequence must lie between 0 and {paths.num_sequences - 1}. Received: "
            f"sequence={sequence}"
        )
    power = angle_delay_power(paths, sequence)
    return 10 * np.log10(np.maximum(power, 10 ** (-_DYNAMIC_RANGE_DB / 10)))


def _show_map(axes, level):
    # Antennas half a wavelength apart: bins are steps of the sine of the direction.
    num_angles, num_delays = level.shape
    step = 1e6 / (num_delays * _SPACING)
    sine = 2.0 / num_angles
    axes.set_yticks((-1.0, -0.5, 0.0, 0.5))
    return axes.imshow(
        level,
        origin="lower",
        aspect="auto",
        extent=(-step / 2, (num_delays - 0.5) * step, -1.0 - sine / 2, 1.0 - sine / 2),
        vmin=-_DYNAMIC_RANGE_DB,
        vmax=0,
    )


def _stamp(paths, sequence, snapshot):
    elapsed = (paths.time[sequence, snapshot] - paths.time[sequence, 0]) * 1e3
    sight = "" if paths.line_of_sight[sequence, snapshot] else ", no LOS"
    return f"{elapsed:.4g} ms{sight}"


def _headline(paths, sequence):
    return (
        f"{paths.scene}, trajectory {paths.trajectory_id[sequence]}, "
        f"{paths.speed[sequence] * 3.6:.0f} km/h"
    )


def _gain_db(paths):
    with np.errstate(divide="ignore"):
        return 10 * np.log10(paths.power.astype(np.float64).sum(axis=-1))
