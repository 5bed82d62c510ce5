"""Fine-tune a pretrained backbone or a predictor to channel prediction, or train from scratch.

A preset to start from brings its architecture with it. The weights that are kept are the best ones
on held-out tracks, those of the start included. A killed run goes on from its last checkpoint when
started again with the same arguments; a finished one is not trained again.

Example:
    lwmt finetune --config finetune_small --mode full --init runs/pretrain_small/preset \\
        --label-share 0.1 --workdir runs/finetune_small
"""

import pathlib
import time
from collections.abc import Sequence

from lwmt_sionna.runs import command_line

MODES = ("scratch", "full", "frozen", "lora")
TEST = {"history_snr": [15.0], "horizons": [1, 3, 5]}


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    parser = command_line.build_parser(__doc__)
    command_line.add_training_options(parser)
    command_line.add_options(parser, "history_snr", "horizons", **TEST)
    parser.add_argument("--init", help="preset to start from: name or folder")
    parser.add_argument("--mode", choices=MODES, help="what is trained [full with --init]")
    parser.add_argument(
        "--kind", help="predictor (linear predictions in front) or direct (the network alone)"
    )
    parser.add_argument("--label-share", type=float, help="share of the training trajectories")
    parser.add_argument("--attention", help="ssta, dense, factored or random: see ModelConfig")
    parser.add_argument("--steps", type=int, help="in place of the configured number")
    parser.add_argument("--devices", type=int, default=1, help="devices that share a batch [1]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    if args.mode is not None and (args.mode == "scratch") == (args.init is not None):
        raise command_line.UsageError(
            "the modes full, frozen and lora need --init, and scratch has none. Received: "
            f"--mode {args.mode}, --init {args.init}"
        )

    from lwmt_sionna.runs import records
    from lwmt_sionna.training import TrainConfig, input_files, load_tracks, train
    from lwmt_sionna.training.studies import check_horizons, prediction_points

    names = ("init", "kind", "label_share", "attention", "steps", "seed")
    overrides = {name: getattr(args, name) for name in names}
    overrides |= {"files": args.data, "mode": None if args.mode == "scratch" else args.mode}
    config = TrainConfig.from_toml(args.config, overrides).on_files()
    check_horizons(config, args.horizons)
    workdir = args.workdir or pathlib.Path("runs") / args.config.stem
    model, outcome = train(
        config, workdir, num_devices=args.devices, verbose=0 if args.quiet else "auto"
    )
    tests = load_tracks(config.data, config.seed)["test"]
    points = prediction_points(
        model,
        config,
        {f"{paths.scene}, held-out tracks": paths for paths in tests},
        args.history_snr,
        args.horizons,
    )
    history = outcome.pop("history")
    record = records.write_record(
        args.record or workdir / "record.json",
        name="finetune",
        config=config.to_dict(),
        points=points,
        seeds=[config.seed],
        inputs=input_files(config),
        started=started,
        extra={"history": history, **outcome},
    )
    folder = args.out or workdir / "preset"
    model.save_to_preset(folder, metadata={"training": record})
    command_line.say(
        f"{folder}: {outcome['num_trained_parameters']} trained parameters; validation loss "
        f"{outcome['validation_loss_db']:.2f} dB at step {outcome['best_step']}, before training "
        f"{outcome['validation_loss_untrained_db']:.2f} dB"
    )
    subsets = {point["subset"] for point in points}
    shown = "event_free" if "event_free" in subsets else "all"
    for point in points:
        if point["subset"] == shown:
            command_line.say(
                f"{point['test_set']:<28} {point['history_snr_db']:g} dB, horizon "
                f"{point['horizon']}: median "
                f"{point['nmse_median_db']:6.2f} dB, pooled {point['nmse_pooled_db']:6.2f} dB"
            )
