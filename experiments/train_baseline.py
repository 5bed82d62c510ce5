"""Train a neural baseline with the data, histories, loss and steps of the model's training.

A killed run goes on with the epoch it was in when started again with the same arguments. Its preset
(WORKDIR/KIND_seedSEED) is evaluated like any other (`--preset` of prediction_eval.py).

Example:
    python experiments/train_baseline.py --kind gru \\
        --config experiments/configs/predictor_small.toml
"""

import dataclasses
import pathlib
import time

from lwmt_sionna import cli

KINDS = ("gru", "conv", "dense", "factored", "random", "sparse")


def main(argv=None):
    started = time.time()
    parser = cli.build_parser(__doc__)
    parser.add_argument("--kind", choices=KINDS, required=True, help="which baseline")
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="backups, logs [runs/KIND_seedSEED]")
    parser.add_argument(
        "--preset", type=pathlib.Path, help="folder to save [WORKDIR/KIND_seedSEED]"
    )
    parser.add_argument("--data", nargs="+", help="HDF5 files, in place of the configured ones")
    parser.add_argument("--epochs", type=int, help="in place of the configured number")
    parser.add_argument("--seed", type=int, help="in place of the configured seed")
    args = parser.parse_args(argv)
    cli.configure_logging(args)

    from lwmt_sionna import records
    from lwmt_sionna.baselines.training import train_baseline
    from lwmt_sionna.training import TrainConfig

    overrides = {"data": args.data, "epochs": args.epochs, "seed": args.seed}
    config = dataclasses.replace(
        TrainConfig.from_toml(args.config),
        **{name: value for name, value in overrides.items() if value is not None},
    )
    # The preset's folder names the predictor in tables and records.
    name = f"{args.kind}_seed{config.seed}"
    workdir = args.workdir or pathlib.Path("runs") / name
    model, outcome = train_baseline(args.kind, config, workdir, verbose=0 if args.quiet else "auto")
    losses = {key: value for key, value in outcome.items() if key != "sequences"}
    record = records.write_record(
        workdir / "record.json",
        name="train_baseline",
        config=config.to_dict() | {"kind": args.kind},
        points=[{"kind": args.kind, "num_parameters": model.count_params(), **losses}],
        seeds=[config.seed],
        inputs={pathlib.Path(path).stem: path for path in config.data},
        started=started,
        extra={"sequences": outcome["sequences"]},
    )
    folder = args.preset or workdir / name
    model.save_to_preset(folder, metadata={"training": record})
    print(
        f"{folder}: {model.count_params()} parameters; validation loss "
        f"{outcome['validation_loss_db']:.2f} dB, untrained "
        f"{outcome['validation_loss_untrained_db']:.2f} dB"
    )


if __name__ == "__main__":
    cli.run(main)
