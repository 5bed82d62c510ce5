"""Train a channel predictor and save it as a preset.

A killed run goes on with the epoch it was in when started again with the same arguments.

Example:
    python experiments/train_predictor.py --config experiments/configs/predictor_small.toml \\
        --workdir runs/predictor_small --preset runs/predictor_small/preset
"""

import dataclasses
import pathlib
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="backups and logs [runs/CONFIG]")
    parser.add_argument("--preset", type=pathlib.Path, help="folder to save [WORKDIR/preset]")
    parser.add_argument("--record", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    parser.add_argument("--data", nargs="+", help="HDF5 files, in place of the configured ones")
    parser.add_argument("--epochs", type=int, help="in place of the configured number")
    parser.add_argument("--seed", type=int, help="in place of the configured seed")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.training import TrainConfig, train

    overrides = {"data": args.data, "epochs": args.epochs, "seed": args.seed}
    config = dataclasses.replace(
        TrainConfig.from_toml(args.config),
        **{name: value for name, value in overrides.items() if value is not None},
    )
    workdir = args.workdir or pathlib.Path("runs") / args.config.stem
    predictor, outcome = train(config, workdir, verbose=0 if args.quiet else "auto")
    record = records.write_record(
        args.record or workdir / "record.json",
        name="train_predictor",
        config=config.to_dict(),
        points=[
            {
                "validation_loss_db": outcome["validation_loss_db"],
                "validation_loss_untrained_db": outcome["validation_loss_untrained_db"],
                "num_parameters": predictor.count_params(),
            }
        ],
        seeds=[config.seed],
        inputs={pathlib.Path(name).stem: name for name in config.data},
        started=started,
        extra={"sequences": outcome["sequences"]},
    )
    folder = args.preset or workdir / "preset"
    predictor.save_to_preset(folder, metadata={"training": record})
    print(
        f"{folder}: {predictor.count_params()} parameters; validation loss "
        f"{outcome['validation_loss_db']:.2f} dB, linear prediction alone "
        f"{outcome['validation_loss_untrained_db']:.2f} dB"
    )


if __name__ == "__main__":
    command_line.run(main)
