"""Train a channel predictor and save it as a preset.

A killed run goes on from its last checkpoint when started again with the same arguments, and ends
as if it had not been killed; a finished one is not trained again.

Example:
    lwmt train --config predictor_small --workdir runs/predictor_small --out runs/mine/preset
"""

import pathlib
import time
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    parser = command_line.build_parser(__doc__)
    command_line.add_training_options(parser)
    parser.add_argument(
        "--features", type=pathlib.Path,
        help="what physics says of the training data, for all that share it [WORKDIR/features]",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, help="in place of the configured number")
    parser.add_argument(
        "--init", metavar="PRESET", help="preset to start from [configured]; '' for none"
    )
    parser.add_argument("--tensorboard", action="store_true", help="log to WORKDIR/tensorboard")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.training import TrainConfig, input_files, load_data, train

    overrides = {"files": args.data, "epochs": args.epochs, "seed": args.seed, "init": args.init}
    config = TrainConfig.from_toml(args.config, overrides).on_files()
    workdir = args.workdir or pathlib.Path("runs") / args.config.stem
    callbacks = []
    if args.tensorboard:
        import keras

        callbacks = [keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False)]
    data = None if args.features is None else load_data(config, folder=args.features)
    predictor, outcome = train(
        config, workdir, data=data, callbacks=callbacks, verbose=0 if args.quiet else "auto"
    )
    names = ("validation_loss_db", "validation_loss_untrained_db", "best_step")
    record = records.write_record(
        args.record or workdir / "record.json",
        name="train_predictor",
        config=config.to_dict(),
        points=[{**{n: outcome[n] for n in names}, "num_parameters": predictor.count_params()}],
        seeds=[config.seed],
        inputs=input_files(config),
        started=started,
        extra={"sequences": outcome["sequences"], "history": outcome["history"]},
    )
    folder = args.out or workdir / "preset"
    predictor.save_to_preset(folder, metadata={"training": record})
    command_line.say(
        f"{folder}: {predictor.count_params()} parameters; validation loss "
        f"{outcome['validation_loss_db']:.2f} dB, before training "
        f"{outcome['validation_loss_untrained_db']:.2f} dB"
    )
