"""Train a neural baseline with the data, histories, loss and steps of the model's training.

A killed run goes on from its last checkpoint when started again with the same arguments. Its preset
(runs/KIND_seedSEED/KIND_seedSEED) is evaluated like any other (`--preset` of prediction_eval.py).
Several kinds of attention share the draws of noise and the physics, computed once per seed.

Example:
    python experiments/train_baseline.py --kind gru \\
        --config experiments/configs/predictor_small.toml
    python experiments/train_baseline.py --kind sparse dense random --seeds 1 2 3 \\
        --config experiments/configs/predictor_paths.toml
"""

import dataclasses
import pathlib
import time

from lwmt_sionna.runs import command_line

# These share the physics in front of the network.
ATTENTIONS = ("sparse", "dense", "factored", "random")
KINDS = ("gru", "conv", *ATTENTIONS)


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("--kind", choices=KINDS, nargs="+", required=True, help="which baselines")
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=pathlib.Path("runs"), help="one folder each [runs]"
    )
    command_line.add_options(parser, "data")
    parser.add_argument("--epochs", type=int, help="in place of the configured number")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the configured seed")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.training import TrainConfig

    overrides = {"files": args.data, "epochs": args.epochs}
    config = TrainConfig.from_toml(args.config, overrides).on_files()
    for seed in args.seeds or [config.seed]:
        _train_kinds(args.kind, dataclasses.replace(config, seed=seed), args.workdir, args.quiet)


def _train_kinds(kinds, config, workdir, quiet):
    from lwmt_sionna.runs import records
    from lwmt_sionna.training import input_files, load_data, train

    shared = None
    for kind in kinds:
        started = time.time()
        # The preset's folder names the predictor in tables and records.
        name = f"{kind}_seed{config.seed}"
        folder = workdir / name
        if (folder / name / "metadata.json").is_file():
            print(f"{folder}: trained already")
            continue
        if kind in ATTENTIONS and shared is None:
            shared = load_data(config)
        contestant = config.contestant(kind)
        model, outcome = train(
            contestant,
            folder,
            data=shared if kind in ATTENTIONS else None,
            verbose=0 if quiet else "auto",
        )
        apart = {"sequences": outcome.pop("sequences"), "history": outcome.pop("history")}
        record = records.write_record(
            folder / "record.json",
            name="train_baseline",
            config=contestant.to_dict(),
            points=[{"kind": kind, "num_parameters": model.count_params(), **outcome}],
            seeds=[config.seed],
            inputs=input_files(config),
            started=started,
            extra=apart,
        )
        model.save_to_preset(folder / name, metadata={"training": record})
        print(
            f"{folder / name}: {model.count_params()} parameters; validation loss "
            f"{outcome['validation_loss_db']:.2f} dB, untrained "
            f"{outcome['validation_loss_untrained_db']:.2f} dB",
            flush=True,
        )


if __name__ == "__main__":
    command_line.run(main)
