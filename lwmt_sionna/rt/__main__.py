"""Look at scenes before tracing in them.

    list       names that go wherever a scene is asked for
    check      faults that would spoil a tracing run; exit status 1 if there is one
    describe   figures of a scene, and a rendered picture
    plot       the tracks of stored sequences, over the scene
    new        make a city, check it, trace users in it (`lwmt scene new --help`)

SCENE is a built-in name of Sionna RT, a folder's name in scenes/, or the path of an XML file.

Example:
    lwmt scene check my_city/scene.xml --carrier 3.5e9 --base-station 10 -4 25
    lwmt scene describe old_town --out runs/old_town
    lwmt scene plot munich data/munich.h5 --out runs
"""

import json
import pathlib
from collections.abc import Sequence

from lwmt_sionna.runs import command_line

# Of the longer side of a map of heights.
_MAP_POINTS = 400
_MARKS = {"ok": "ok   ", "note": "note ", "warning": "WARN ", "fault": "FAULT"}


def main(argv: Sequence[str] | None = None) -> int | None:
    parser = command_line.build_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(run, text, *names):
        command = commands.add_parser(names[0], aliases=names[1:], help=text)
        command.set_defaults(run=run)
        return command

    add(_list, "names of scenes", "list", "list-scenes")
    check = add(_check, "what is wrong with a scene", "check", "check-scene")
    describe = add(_describe, "what is in a scene", "describe", "describe-scene")
    plot = add(_plot_tracks, "tracks of stored sequences over a scene", "plot", "plot-tracks")
    for command in (check, describe):
        command.add_argument("scene", metavar="SCENE")
        command.add_argument("--carrier", type=float, default=3.5e9, help="carrier in Hz [3.5e9]")
        command.add_argument(
            "--base-station", nargs=3, type=float, action="append", metavar=("X", "Y", "Z"),
            help="a place in metres; more than once for more [the builder's, where it noted some]",
        )  # fmt: skip
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.add_argument("--out", type=pathlib.Path, help="folder for pictures")
    check.add_argument("--no-coverage", action="store_true", help="leave coverage maps out")
    plot.add_argument("scene", metavar="SCENE")
    plot.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE", help="HDF5 files")
    plot.add_argument("--out", type=pathlib.Path, help="folder [that of the file]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    return args.run(args)


def _list(args):
    from lwmt_sionna.rt import SCENES, own_scenes

    for name in SCENES:
        command_line.say(f"{name:<32} Sionna RT")
    for name, path in own_scenes().items():
        command_line.say(f"{name:<32} {path.parent}")


def _base_stations(args):
    from lwmt_sionna.rt import resolve_scene

    if args.base_station is not None:
        return args.base_station
    return resolve_scene(args.scene).facts.get("base_stations", [])


def _check(args):
    from lwmt_sionna.rt.tracing.check import check_scene
    from lwmt_sionna.rt.tracing.show import plot_coverage

    stations = _base_stations(args)
    report = check_scene(args.scene, args.carrier, stations, coverage=not args.no_coverage)
    pictures = []
    for index, entry in enumerate(report.coverage if args.out is not None else []):
        pictures.append(args.out / f"coverage_{index}.png")
        plot_coverage(entry, pictures[-1], f"{report.name}: ")
    if args.json:
        command_line.say(
            json.dumps(
                {
                    "scene": report.name,
                    "is_fit": report.is_fit,
                    "findings": [vars(finding) for finding in report.findings],
                    "coverage": [
                        {k: entry[k] for k in ("base_station", "covered_share", "median_gain_db")}
                        for entry in report.coverage
                    ],
                }
            )
        )
    else:
        for finding in report.findings:
            command_line.say(f"{_MARKS[finding.level]} {finding.check}: {finding.text}")
        for picture in pictures:
            command_line.say(f"      {picture}")
        count = len(report.faults)
        verdict = "fit for tracing" if report.is_fit else f"{count} fault{'s' * (count > 1)}"
        command_line.say(f"{report.name}: {verdict}")
    return 0 if report.is_fit else 1


def _describe(args):
    from lwmt_sionna.rt.tracing.show import describe_scene, render_scene

    facts = describe_scene(args.scene, args.carrier)
    loaded = facts.pop("loaded")
    folder = pathlib.Path("runs") / "scenes" / facts["name"] if args.out is None else args.out
    picture = folder / "picture.png"
    render_scene(loaded, picture, base_stations=_base_stations(args), num_samples=128)
    facts["picture"] = str(picture)
    if args.json:
        command_line.say(json.dumps(facts))
        return
    for key, value in facts.items():
        if key == "materials":
            for name, numbers in value.items():
                command_line.say(f"{'material':<20} {name}: {_pairs(numbers)}")
        elif key == "base_stations":
            for place in value:
                command_line.say(f"{'base_station':<20} {_join(place)}")
        else:
            command_line.say(f"{key:<20} {_join(value) if isinstance(value, list) else value}")


def _plot_tracks(args):
    from lwmt_sionna.data import read_paths
    from lwmt_sionna.data.summary import plot_tracks
    from lwmt_sionna.rt import ground_map, load_scene

    stored = {path: read_paths(path) for path in args.files}
    loaded = load_scene(args.scene, next(iter(stored.values())).carrier_frequency)
    lower, upper = loaded.bounds
    ground = ground_map(loaded, max(upper[:2] - lower[:2]) / _MAP_POINTS)
    # In the coordinates of stored users.
    (left, right, bottom, top), (x, y, _) = ground.extent, loaded.origin
    extent = (left - x, right - x, bottom - y, top - y)
    for path, paths in stored.items():
        folder = path.parent if args.out is None else args.out
        picture = folder / f"{path.stem}_tracks.png"
        plot_tracks(paths, picture, (ground.height.T, extent))
        command_line.say(picture)


def _join(values):
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values) or "-"


def _pairs(numbers):
    return ", ".join(f"{key} {value:g}" for key, value in numbers.items())


if __name__ == "__main__":
    command_line.run(main)
