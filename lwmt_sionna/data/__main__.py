"""Look after stored sequences.

    check    say of every file whether it is sound; damaged ones are named, the others unharmed
    summary  paths per snapshot, line of sight, delay and Doppler spread, coverage
    plot     the trajectories, and angle-delay maps of one sequence over time
    convert  folders of DeepMIMO v4 scenarios into files of paths

Example:
    python -m lwmt_sionna.data check experiments/data/*.h5
    python -m lwmt_sionna.data summary experiments/data/*.h5 --json
    python -m lwmt_sionna.data plot data/munich.h5 --scene munich --sequence 3 --animate
    python -m lwmt_sionna.data convert deepmimo_scenarios/asu_campus_3p5 --out data
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from lwmt_sionna.data.storage import check_file, read_paths
from lwmt_sionna.data.summary import summarize
from lwmt_sionna.runs import command_line

_MAP_POINTS = 400


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.build_parser(__doc__)
    parser.add_argument("command", choices=tuple(_COMMANDS))
    parser.add_argument(
        "files",
        nargs="+",
        type=pathlib.Path,
        help="HDF5 files, or folders of them; convert: folders of scenarios",
    )
    parser.add_argument("--json", action="store_true", help="summary: one JSON object per file")
    parser.add_argument("--sequence", type=int, default=0, help="plot: index of the sequence [0]")
    parser.add_argument("--animate", action="store_true", help="plot: write an animation (GIF) too")
    parser.add_argument("--out", type=pathlib.Path, help="plot, convert: folder [that of the file]")
    parser.add_argument(
        "--sampling-period", type=float, help="convert: seconds between scenes that change in time"
    )
    parser.add_argument("--scene", help="plot: name or scene.xml to draw underneath (traces it)")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    return _COMMANDS[args.command](args)


def _say(text):
    sys.stdout.write(f"{text}\n")


def _files(args):
    """The files asked for, each folder replaced by the HDF5 files in it."""
    found = []
    for path in args.files:
        inside = sorted(path.glob("*.h5")) if path.is_dir() else [path]
        if not inside:
            raise command_line.UsageError(f"there is no file *.h5 in the folder {path}")
        found += inside
    return found


def _check(args):
    failed = 0
    files = _files(args)
    for path in files:
        problems = check_file(path)
        failed += bool(problems)
        _say(f"{'FAIL' if problems else 'ok  '} {path}")
        for problem in problems:
            _say(f"     {problem}")
    _say(f"{len(files) - failed} of {len(files)} files are sound")
    return 1 if failed else 0


def _summary(args):
    for path in _files(args):
        numbers = summarize(read_paths(path))
        if args.json:
            _say(json.dumps({"path": str(path), **numbers}))
            continue
        _say(str(path))
        for name, value in numbers.items():
            shown = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else value
            _say(f"  {name:<28} {shown}")
    return 0


def _plot(args):
    from lwmt_sionna.data.figures import animate_angle_delay, plot_angle_delay, plot_tracks

    ground = None
    for path in _files(args):
        paths = read_paths(path)
        if args.scene is not None and ground is None:
            ground = _ground(args.scene, paths.carrier_frequency)
        folder = path.parent if args.out is None else args.out
        tracks = folder / f"{path.stem}_tracks.png"
        strip = folder / f"{path.stem}_sequence{args.sequence}.png"
        plot_angle_delay(paths, args.sequence, strip)
        plot_tracks(paths, tracks, ground)
        _say(f"{tracks}\n{strip}")
        if args.animate:
            animate_angle_delay(paths, args.sequence, strip.with_suffix(".gif"))
            _say(strip.with_suffix(".gif"))
    return 0


def _convert(args):
    from lwmt_sionna.data.deepmimo import read_deepmimo
    from lwmt_sionna.data.storage import write_paths

    for folder in args.files:
        paths = read_deepmimo(folder, sampling_period=args.sampling_period)
        target = (folder.parent if args.out is None else args.out) / f"{folder.name}.h5"
        write_paths(target, paths)
        _say(f"{target}: {paths.num_sequences} sequences of {paths.num_snapshots} snapshots")
    return 0


def _ground(scene, carrier_frequency):
    """Heights of a scene seen from above, and their extent in the coordinates of stored users."""
    from lwmt_sionna.rt import ground_map, load_scene

    loaded = load_scene(scene, carrier_frequency)
    lower, upper = loaded.bounds
    ground = ground_map(loaded, max(upper[:2] - lower[:2]) / _MAP_POINTS)
    (left, right, bottom, top), (x, y, _) = ground.extent, loaded.origin
    return ground.height.T, (left - x, right - x, bottom - y, top - y)


_COMMANDS = {"check": _check, "summary": _summary, "plot": _plot, "convert": _convert}


if __name__ == "__main__":
    command_line.run(main)
