"""Look after stored sequences.

    check    say of every file whether it is sound; damaged ones are named, the others unharmed
    summary  paths per snapshot, line of sight, delay and Doppler spread, coverage
    plot     the trajectories, and angle-delay maps of one sequence over time, of files of paths
    import   folders of DeepMIMO v4 scenarios into files of paths; arrays of one's own (.npy, .npz,
             .mat, .h5) into files of channels, with --axes, --carrier and --subcarrier-spacing

Example:
    lwmt data check data/*.h5
    lwmt data summary san_francisco_30kmh_5ms.h5 --json
    lwmt data plot data/munich.h5 --sequence 3 --animate
    lwmt data import deepmimo_scenarios/asu_campus_3p5 --out data
    lwmt data import measured.mat --name H --axes "subcarrier antenna time" \\
        --array-shape 4 8 1 --sampling-period 1e-3 --carrier 3.5e9 --subcarrier-spacing 30e3 \\
        --out data/measured.h5
"""

import json
import pathlib
from collections.abc import Sequence

from lwmt_sionna.data.channels import (
    CHANNEL_SCHEMA,
    check_channels,
    import_channels,
    write_channels,
)
from lwmt_sionna.data.container import read_schema
from lwmt_sionna.data.storage import check_file, read_paths, read_sequences
from lwmt_sionna.data.summary import summarize
from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.build_parser(__doc__)
    parser.add_argument("command", choices=tuple(_COMMANDS))
    parser.add_argument(
        "files",
        nargs="+",
        type=pathlib.Path,
        help="HDF5 files, or folders of them; import: folders of scenarios, files of arrays",
    )
    parser.add_argument("--json", action="store_true", help="summary: one JSON object per file")
    parser.add_argument("--sequence", type=int, default=0, help="plot: index of the sequence [0]")
    parser.add_argument("--animate", action="store_true", help="plot: write an animation (GIF) too")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="plot, import: folder [that of the file]; import of one: or a file, NAME.h5",
    )
    parser.add_argument(
        "--sampling-period", type=float, help="import: seconds between scenes or snapshots"
    )
    parser.add_argument(
        "--axes",
        help="import: names of an array's axes in their order, in quotes: sequence, time, antenna "
        "(or polarization, column, row), subcarrier, complex",
    )
    parser.add_argument("--name", help="import: name of the array within the file")
    parser.add_argument(
        "--array-shape", nargs=3, type=int, metavar=("ROWS", "COLUMNS", "POLARIZATIONS"),
        help="import: array of the axis antenna",
    )  # fmt: skip
    parser.add_argument("--carrier", type=float, help="import: hertz")
    parser.add_argument("--subcarrier-spacing", type=float, help="import: hertz")
    parser.add_argument("--speed", type=float, help="import: speed of the users in km/h")
    parser.add_argument(
        "--as-named", action="store_true", help="import: do not check whether axes look swapped"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    return _COMMANDS[args.command](args)


def _files(args):
    """The files asked for, each folder replaced by the HDF5 files in it."""
    found = []
    for path in args.files:
        # What a killed writer left is hidden; numbers in names are numbers.
        inside = [file for file in path.glob("*.h5") if not file.name.startswith(".")]
        inside.sort(key=lambda file: command_line.natural_order(file.name))
        inside = inside if path.is_dir() else [path]
        if not inside:
            raise command_line.UsageError(f"there is no file *.h5 in the folder {path}")
        found += inside
    return found


def _check(args):
    failed = 0
    files = _files(args)
    for path in files:
        problems = _problems(path)
        failed += bool(problems)
        command_line.say(f"{'FAIL' if problems else 'ok  '} {path}")
        for problem in problems:
            command_line.say(f"     {problem}")
    command_line.say(f"{len(files) - failed} of {len(files)} files are sound")
    return 1 if failed else 0


def _problems(path):
    try:
        schema = read_schema(path)
    except (OSError, ValueError) as error:
        return [str(error)]
    return check_channels(path) if schema == CHANNEL_SCHEMA else check_file(path)


def _summary(args):
    for path in _files(args):
        numbers = summarize(read_sequences(path))
        if args.json:
            command_line.say(json.dumps({"path": str(path), **numbers}))
            continue
        command_line.say(str(path))
        for name, value in numbers.items():
            shown = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else value
            command_line.say(f"  {name:<28} {shown}")
    return 0


def _plot(args):
    from lwmt_sionna.data.summary import animate_angle_delay, plot_angle_delay, plot_tracks

    for path in _files(args):
        paths = _to_draw(path)
        folder = path.parent if args.out is None else args.out
        tracks = folder / f"{path.stem}_tracks.png"
        strip = folder / f"{path.stem}_sequence{args.sequence}.png"
        plot_angle_delay(paths, args.sequence, strip)
        plot_tracks(paths, tracks)
        command_line.say(f"{tracks}\n{strip}")
        if args.animate:
            animate_angle_delay(paths, args.sequence, strip.with_suffix(".gif"))
            command_line.say(strip.with_suffix(".gif"))
    return 0


def _to_draw(path):
    if read_schema(path) == CHANNEL_SCHEMA:
        raise command_line.UsageError(
            f"plot draws tracks and paths, and {path} holds channels, which have neither; "
            "`summary` tells what is in it"
        )
    return read_paths(path)


def _import(args):
    from lwmt_sionna.data.deepmimo import read_deepmimo
    from lwmt_sionna.data.storage import write_paths

    names_file = args.out is not None and args.out.suffix == ".h5"
    if names_file and len(args.files) > 1:
        raise command_line.UsageError(f"--out names one file for several: {args.out}")
    for source in args.files:
        name = source.name if source.is_dir() else source.stem
        target = (source.parent if args.out is None else args.out) / f"{name}.h5"
        target = args.out if names_file else target
        if source.is_dir():
            stored = read_deepmimo(source, sampling_period=args.sampling_period)
            write_paths(target, stored)
        else:
            needed = ("axes", "sampling_period", "carrier", "subcarrier_spacing")
            missing = [n.replace("_", "-") for n in needed if getattr(args, n) is None]
            if missing or target.resolve() == source.resolve():
                raise command_line.UsageError(
                    f"an array needs --{', --'.join(missing)}: {source}"
                    if missing
                    else f"--out should name another folder than that of {source}, or a file"
                )
            stored = import_channels(
                source,
                args.axes,
                name=args.name,
                sampling_period=args.sampling_period,
                carrier_frequency=args.carrier,
                subcarrier_spacing=args.subcarrier_spacing,
                array_shape=args.array_shape,
                speed=None if args.speed is None else args.speed / 3.6,
                as_named=args.as_named,
            )
            write_channels(target, stored)
        command_line.say(
            f"{target}: {stored.num_sequences} sequences of {stored.num_snapshots} snapshots"
        )
    return 0


_COMMANDS = {
    "check": _check,
    "summary": _summary,
    "plot": _plot,
    "import": _import,
    "convert": _import,  # its name before
}


if __name__ == "__main__":
    command_line.run(main)
