"""Teach a head on frozen embeddings what the line of sight looks like, in many cities.

The preset that it makes holds the head, and names the one that has the backbone. Embeddings are
kept: a killed run goes on where it stopped.

Example:
    make task-cities
    python experiments/teach_sight.py --config experiments/configs/teach_sight.toml \\
        --backbone base --out runs/teach_sight/preset
"""

import functools
import pathlib
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--backbone", required=True, metavar="PRESET", help="pretrained model: its name"
    )
    command_line.add_options(parser, "config", "limit", "workdir")
    parser.add_argument("--seed", type=int, help="of the head, in place of the configured one")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/teach_sight/preset"), help="preset"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.shipped import find
    from lwmt_sionna.runs.store import RunFolder
    from lwmt_sionna.training.teaching import TeachConfig, teach_sight

    config = TeachConfig.from_toml(args.config, {"limit": args.limit, "seed": args.seed})
    show = False if args.quiet else None
    bar = functools.partial(progress_bar, unit="piece", desc="windows", show=show)
    with RunFolder(command_line.workdir(args)) as folder:
        task, points = teach_sight(config, args.backbone, folder.store, bar)
    record = records.write_record(
        command_line.workdir(args) / "record.json",
        name="teach_sight",
        config=config.to_dict(),
        points=points,
        seeds=[config.seed],
        inputs={pathlib.Path(file.data).stem: find(file.data) for file in config.files},
        started=started,
    )
    task.save_to_preset(args.out, metadata={"training": record}, backbone=args.backbone)
    for p in points:
        print(f"{p['scene']:12s}{p['num_held']:5d} users held out{p['accuracy']:8.3f} right")
    print(f"preset: {args.out}")


if __name__ == "__main__":
    command_line.run(main)
