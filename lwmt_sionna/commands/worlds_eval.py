"""Judge predictors in every world that users may have: errors, and what they are worth in a link.

Worlds, pilot SNRs and predictors come from a configuration: ray-traced streets with and without
diffuse scattering, 3GPP TR 38.901, imperfect hardware, sounding pilots, other arrays. Each
predictor is compared with the best training-free one on the same sequences and users, and the
comparison ends in a verdict. Channels of TR 38.901 are drawn on the way; traced ones of the
configuration `worlds_eval` are made before, by `lwmt trace`. Finished cells (one world at one SNR)
are kept: a killed run goes on where it stopped.

Example:
    lwmt worlds-eval --quick
    lwmt trace --config worlds/data_old_town --out runs/worlds
    lwmt trace --config worlds/data_san_francisco --out runs/worlds
    lwmt worlds-eval --config worlds_eval --workers 2 --out runs/worlds_eval.json
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    parser = command_line.build_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=pathlib.Path, help="TOML file of a WorldsConfig")
    source.add_argument(
        "--quick", action="store_true", help="three worlds of shipped data, in minutes"
    )
    group = parser.add_argument_group("in place of configured values")
    group.add_argument("--worlds", nargs="+", metavar="NAME", help="names, or parts of names")
    group.add_argument("--baselines", nargs="+", help="training-free predictors")
    command_line.add_options(group, "preset", "history_snr", "horizons", "limit", "seed")
    command_line.add_options(parser, "workers", "dask", "workdir", workers=1)
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/worlds_eval.json"), help="record"
    )
    parser.add_argument("--figure", type=pathlib.Path, help="goodput won back, as a picture")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.link.sweep.figures import plot_worlds
    from lwmt_sionna.link.sweep.table import format_worlds
    from lwmt_sionna.link.sweep.worlds import WorldsConfig, evaluate_worlds
    from lwmt_sionna.runs import records

    overrides = {
        "presets": args.preset, "baselines": args.baselines, "history_snr_db": args.history_snr,
        "horizons": args.horizons, "num_sequences": args.limit, "seed": args.seed,
    }  # fmt: skip
    config = WorldsConfig.from_toml("worlds_quick" if args.quick else args.config, overrides)
    if args.worlds is not None:
        exact = {w.name for w in config.worlds} & set(args.worlds)
        parts = [part for part in args.worlds if part not in exact]
        for part in parts:
            if not any(part in world.name for world in config.worlds):
                names = ", ".join(world.name for world in config.worlds)
                raise command_line.UsageError(
                    f"--worlds: expected names, or parts, of {names}. Received: {part}"
                )
        chosen = [w for w in config.worlds if w.name in exact or any(p in w.name for p in parts)]
        config = dataclasses.replace(config, worlds=tuple(chosen))
    points, inputs = evaluate_worlds(
        config,
        command_line.workdir(args),
        workers=args.workers,
        dask=args.dask,
        progress=False if args.quiet else None,
    )
    record = records.write_record(
        args.out,
        name="worlds_eval",
        config=config,
        points=[_recorded(point) for point in points],
        seeds=[config.seed],
        inputs=inputs,
        started=started,
    )
    command_line.say(format_worlds(record))
    if args.figure is not None:
        plot_worlds(record, args.figure)
    command_line.say(f"record: {args.out}")


def _recorded(point):
    """What a record keeps of a point: thousands of them are one file.

    Numbers of four significant digits, differences of three; no differences of ceilings, which
    nobody competes with, and of untrained starts, which are compared with what was trained; of the
    verdicts that of the goodput, as the others can be read from their intervals.
    """
    kept = {}
    for name, value in point.items():
        compared = "_difference" in name or name.endswith("_verdict")
        aside = compared and point["kind"] in ("ceiling", "untrained_start")
        if name in ("share", "nmse_q90_db") or aside:
            continue
        if name.endswith("_verdict") and name != "goodput_verdict":
            continue
        kept[name] = (
            float(f"{value:.{3 if compared else 4}g}") if isinstance(value, float) else value
        )
    return kept
