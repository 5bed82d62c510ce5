"""Pretrain a backbone by masked channel modelling and save it as a preset.

Masks and impairments come from the curriculum of the configuration; each can be left out. A killed
run goes on from its last checkpoint when started again with the same arguments, with the same
losses as one that was not killed.

Example:
    lwmt pretrain --config pretrain_small --workdir runs/pretrain_small
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    parser = command_line.build_parser(__doc__)
    command_line.add_training_options(parser)
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="masks or impairments to leave out"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="masks to keep alone")
    parser.add_argument("--steps", type=int, help="in place of the configured number")
    parser.add_argument("--precision", help="float32, mixed_bfloat16 or mixed_float16")
    parser.add_argument("--devices", type=int, default=1, help="devices that share a batch [1]")
    parser.add_argument("--stop", action="store_true", help="end at the last checkpoint there is")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.training import PretrainConfig, load_scenes, train
    from lwmt_sionna.training.studies import (
        CONDITIONS,
        draw_views,
        reconstruction_points,
    )

    overrides = {
        "source": {"data": args.data},
        "optimization": {"steps": args.steps, "precision": args.precision},
        "seed": args.seed,
    }
    config = PretrainConfig.from_toml(args.config, overrides)
    config = config.ablated(args.without, args.only)
    workdir = args.workdir or pathlib.Path("runs") / args.config.stem
    source = config.source
    scenes, held_out = load_scenes(source.data, source.validation_share, source.split_seed)
    model, outcome = train(
        config,
        workdir,
        data=scenes,
        num_devices=args.devices,
        stop=args.stop,
        verbose=0 if args.quiet else "auto",
    )
    if config.optimization.precision != "float32":
        # How fast it was trained is nothing that users have to compute with.
        full = dataclasses.replace(config.optimization, precision="float32")
        trained, model = model, dataclasses.replace(config, optimization=full).build()
        model.set_weights(trained.get_weights())
    history = outcome["history"]
    points: list[dict[str, Any]] = []
    folder = args.out or workdir / "preset"

    def keep():
        record = records.write_record(
            args.record or workdir / "record.json",
            name="pretrain",
            config=config.to_dict(),
            points=points,
            seeds=[config.seed],
            inputs={pathlib.Path(name).stem: name for name in source.data},
            started=started,
            extra={"history": history, "num_parameters": model.count_params()},
        )
        model.save_to_preset(folder, metadata={"training": record})

    # What follows takes a while, and the weights are there.
    keep()
    grid = source.grids[0]
    bandwidth = (source.bandwidth[0] * source.bandwidth[1]) ** 0.5
    for paths in held_out:
        views = draw_views(paths, grid, bandwidth, CONDITIONS, model.backbone.patch)
        for point in reconstruction_points(model, views, batch_size=16):
            points.append({"scene": paths.scene, "tracks": "held out", **point})
    keep()
    command_line.say(
        f"{folder}: {model.count_params()} parameters; last loss {history[-1]['loss']:.3f}"
    )
    for point in points:
        command_line.say(
            f"{point['scene']:<16} {point['condition']:<16} median "
            f"{point['nmse_median_db']:6.2f} dB, pooled {point['nmse_pooled_db']:6.2f} dB"
        )
