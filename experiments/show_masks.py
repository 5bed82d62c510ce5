"""Draw every mask and impairment of the curriculum on a real channel.

Example:
    python experiments/show_masks.py --data experiments/data/san_francisco_30kmh_5ms.h5
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="HDF5 file of paths")
    parser.add_argument("--sequence", type=int, default=0, help="which sequence of the file [0]")
    parser.add_argument("--seed", type=int, default=6, help="seed of all draws [6]")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/masks.png"), help="figure to write"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.data import PlanarArray, read_paths, subcarrier_frequencies, synthesize

    paths = read_paths(args.data)
    if not 0 <= args.sequence < paths.num_sequences:
        raise command_line.UsageError(
            f"the file has {paths.num_sequences} sequences. Received: --sequence {args.sequence}"
        )

    import numpy as np

    from lwmt_sionna.masking import IMPAIRMENTS, MASKS, Curriculum

    chosen = paths.select([args.sequence])
    h = synthesize(chosen, PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))
    h = h / np.sqrt(np.mean(np.abs(h) ** 2))
    stacked = np.ascontiguousarray(h).view(np.float32).reshape(*h.shape, 2)
    # Impairments one at a time at their severe ends, nothing hidden but the last snapshot.
    last = {"tail": {"horizon": [1, 1]}}
    curricula = {name: Curriculum(masks={name: {}}, impairments={}) for name in MASKS}
    curricula |= {
        name: Curriculum(masks=last, impairments={name: _SEVERE[name]}) for name in IMPAIRMENTS
    }
    views, clean = {}, None
    for name, curriculum in curricula.items():
        view = {k: np.asarray(v) for k, v in curriculum.view(stacked, args.seed, 1.0).items()}
        scale = np.sqrt(np.mean(view["target"] ** 2))
        observed = view["observed"][0] / scale
        hidden = view["hidden"].reshape(observed.shape[:3])
        views[name] = (observed[..., 0] + 1j * observed[..., 1], hidden)
        clean = view["target"][0] / scale
    draw_views(clean[..., 0] + 1j * clean[..., 1], views, args.out)
    print(f"figure: {args.out}")


def draw_views(clean, views, path):
    """Draws what masks and impairments leave of a channel, three panels for each.

    The panels are the angle-delay plane in the middle of the sequence, delays over time at the
    strongest angle, and the strongest bin over time (true: grey line; observed: markers). Hidden
    bins are grey.

    Args:
        clean: complex `[num_snapshots, num_angle, num_delay]`, the true channel, angle-delay
            domain.
        views: Dictionary from a name to a pair of the observed channel, complex, and what of it is
            hidden, bool, both shaped like `clean`.
        path: Path of the figure; the extension chooses the format.
    """
    import matplotlib
    import numpy as np

    from lwmt_sionna.runs.figures import panels

    power = np.mean(np.abs(clean) ** 2, axis=0)
    angle, delay = np.unravel_index(power.argmax(), power.shape)
    middle, time = len(clean) // 2, np.arange(len(clean))
    peak_db = 20 * np.log10(np.abs(clean).max())
    cmap = matplotlib.colormaps["viridis"].with_extremes(bad="0.8")
    rows = -(-len(views) // 2)
    style = {"axes.grid": False, "font.size": 7}
    with panels(path, rows, 6, "", size=(10.0, 1.55 * rows + 0.4), style=style) as grid:
        for axes in grid.flat:
            axes.set_axis_off()
        for index, (name, (observed, hidden)) in enumerate(views.items()):
            row, column = divmod(index, 2)
            plane, course, strongest = grid[row][3 * column : 3 * column + 3]
            level = 20 * np.log10(np.abs(observed) + 1e-12) - peak_db
            level = np.ma.masked_array(level, hidden)
            for axes, image, label in (
                (plane, level[middle], "angle"),
                (course, level[:, angle], "time"),
            ):
                axes.imshow(
                    image, aspect="auto", cmap=cmap, vmin=-40, vmax=0, interpolation="nearest"
                )
                axes.set(ylabel=label)
            plane.set_title(name.replace("_", " "), loc="left")
            seen = ~hidden[:, angle, delay]
            strongest.plot(time, clean[:, angle, delay].real, color="0.6", lw=1)
            strongest.plot(
                time[seen], observed[seen, angle, delay].real, ".", color="#0072B2", ms=4
            )
            for axes, label in ((plane, "delay"), (course, "delay"), (strongest, "time")):
                axes.set_axis_on()
                axes.set(xticks=[], yticks=[], xlabel=label if row == rows - 1 else "")


_SEVERE = {
    "calibration": {"gain_db": [1.0, 1.0], "phase_deg": [10.0, 10.0]},
    "timing": {"offset": [0.5, 0.5], "jitter": [0.1, 0.1]},
    "phase": {"jitter_deg": [10.0, 10.0], "drift_deg": [5.0, 5.0]},
    "gain": {"deviation_db": [1.5, 1.5]},
    "noise": {"history_snr_db": [0.0, 0.0]},
    "quantization": {"bits": [3, 3]},
    "dropped": {"share": [0.3, 0.3]},
}


if __name__ == "__main__":
    command_line.run(main)
