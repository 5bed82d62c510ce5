"""Make a new city, check it, trace users in it and draw them, all in one go.

Into --out go the city (a scene for anything else here), the traced paths, pictures of the city, of
its coverage, of the trajectories and of angle-delay maps over time, and a record with the time that
every step took.

Example:
    lwmt scene new --kind old_town --seed 8 --out runs/my_town
"""

import pathlib
import time
import tomllib
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    args = _parse(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.data.summary import animate_angle_delay, plot_angle_delay, plot_tracks
    from lwmt_sionna.rt import (
        GenerationConfig,
        TrajectoryConfig,
        build_city,
        check_scene,
        city_config,
        generate,
        ground_map,
        load_scene,
        plot_coverage,
        render_scene,
    )
    from lwmt_sionna.runs import records

    steps: dict[str, float] = {}

    def done(step):
        steps[step] = time.time() - started - sum(steps.values())
        command_line.say(f"{step}: {steps[step]:.1f} s")

    try:
        parameters = tomllib.loads("\n".join(args.set))
    except tomllib.TOMLDecodeError as error:
        raise command_line.UsageError(
            f"--set wants KEY=VALUE with the value as in TOML: {error}. Received: {args.set}"
        ) from error
    city = city_config({"kind": args.kind, "seed": args.seed, **parameters})
    # The folder names the scene: data of two cities must not pass for those of one.
    folder = args.out / f"{args.kind}_{args.seed}"
    facts = build_city(city, folder)
    done("build")

    report = check_scene(folder, args.carrier, facts["base_stations"])
    for finding in report.findings:
        if finding.level != "ok":
            command_line.say(f"{finding.level}: {finding.check}: {finding.text}")
    if not report.is_fit:
        raise command_line.UsageError(
            "the city has faults; another seed or other parameters may help"
        )
    done("check")

    config = GenerationConfig(
        scene=str(folder / "scene.xml"),
        base_stations=facts["base_stations"],
        num_sequences=args.num_trajectories,
        num_snapshots=args.num_snapshots,
        sampling_period=args.period,
        speed_kmh=tuple(args.speed),
        carrier_frequency=args.carrier,
        tracks_per_solve=4,
        max_distance=150.0,
        seed=args.seed,
        trajectory=TrajectoryConfig(kind=args.trajectory, regime=args.regime),
    )
    paths = generate(config, args.out / "paths.h5", progress=not args.quiet)
    done("trace")

    loaded = load_scene(folder, args.carrier)
    render_scene(
        loaded,
        args.out / "city.png",
        base_stations=facts["base_stations"],
        users=paths.position[:, 0],
        resolution=(1200, 800),
        num_samples=128,
    )
    for index, coverage in enumerate(report.coverage):
        plot_coverage(coverage, args.out / f"coverage_{index}.png", f"{report.name}: ")
    ground = ground_map(loaded, 1.0)
    plot_tracks(paths, args.out / "tracks.png", (ground.height.T, ground.extent))
    fastest = int(paths.speed.argmax())
    plot_angle_delay(paths, fastest, args.out / "angle_delay.png")
    animate_angle_delay(paths, fastest, args.out / "angle_delay.gif")
    done("draw")

    total = time.time() - started
    records.write_record(
        args.out / "record.json" if args.record is None else args.record,
        name="new_city",
        config=config.to_dict() | {"city": facts["config"]},
        points=[{"step": step, "seconds": round(seconds, 2)} for step, seconds in steps.items()],
        seeds=[args.seed],
        inputs={},
        started=started,
        extra={
            "sequences": {
                "num_sequences": paths.num_sequences,
                "num_snapshots": paths.num_snapshots,
                "paths_per_snapshot": float(paths.valid.sum(-1).mean()),
                "num_out_of_coverage": paths.metadata["num_out_of_coverage"],
            },
            "covered_share": [entry["covered_share"] for entry in report.coverage],
        },
    )
    command_line.say(
        f"{args.out}: {facts['num_buildings']} buildings, {paths.num_sequences} trajectories of "
        f"{paths.num_snapshots} snapshots, {paths.valid.sum(-1).mean():.1f} paths per snapshot, "
        f"{total:.0f} s"
    )


def _parse(argv):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--kind", default="manhattan_grid", help="kind of city [manhattan_grid]")
    parser.add_argument("--seed", type=int, default=1, help="seed of city and users [1]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a parameter of the city, the value as in TOML",
    )  # fmt: skip
    parser.add_argument("--carrier", type=float, default=3.5e9, help="carrier in Hz [3.5e9]")
    parser.add_argument("--num-trajectories", type=int, default=16, help="[16]")
    parser.add_argument("--num-snapshots", type=int, default=21, help="[21]")
    parser.add_argument("--period", type=float, default=2.5e-3, help="seconds [2.5e-3]")
    parser.add_argument(
        "--speed", nargs=2, type=float, default=(20.0, 60.0), help="cruising speeds [20 60 km/h]"
    )
    parser.add_argument(
        "--trajectory", default="street", help="straight, street, random_waypoint, circular"
    )
    parser.add_argument("--regime", default="vehicular", help="pedestrian or vehicular [vehicular]")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--record", type=pathlib.Path, help="record to write [OUT/record.json]")
    return parser.parse_args(argv)
