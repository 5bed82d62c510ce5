"""Fine-tune a pretrained backbone to channel prediction, or train one from scratch.

A killed run goes on from its last checkpoint when started again with the same arguments.

Example:
    python experiments/finetune.py --config experiments/configs/finetune_small.toml --mode full \\
        --init runs/pretrain_small/preset --label-share 0.1 --workdir runs/finetune_small
"""

import pathlib
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a FinetuneConfig"
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="checkpoints and logs [runs/CONFIG]")
    parser.add_argument("--preset", type=pathlib.Path, help="folder to save [WORKDIR/preset]")
    parser.add_argument("--record", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    parser.add_argument("--data", nargs="+", help="HDF5 files, in place of the configured ones")
    parser.add_argument("--init", help="preset to start from")
    parser.add_argument("--mode", help="scratch, full, frozen or lora")
    parser.add_argument(
        "--task", help="predictor (linear predictions in front) or direct (the network alone)"
    )
    parser.add_argument("--label-share", type=float, help="share of the training trajectories")
    parser.add_argument("--attention", help="ssta, dense or random: see ModelConfig")
    parser.add_argument("--steps", type=int, help="in place of the configured number")
    parser.add_argument("--seed", type=int, help="in place of the configured seed")
    parser.add_argument("--devices", type=int, default=1, help="devices that share a batch [1]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.training import FinetuneConfig, finetune, load_tracks
    from lwmt_sionna.training.studies import prediction_points

    names = ("data", "init", "mode", "task", "label_share", "seed")
    overrides = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if args.attention is not None:
        overrides["model"] = {"attention": args.attention}
    if args.steps is not None:
        overrides["optimization"] = {"steps": args.steps}
    config = FinetuneConfig.from_toml(args.config, overrides)
    workdir = args.workdir or pathlib.Path("runs") / args.config.stem
    tracks = load_tracks(config)
    model, outcome = finetune(
        config,
        workdir,
        tracks=tracks,
        num_devices=args.devices,
        verbose=0 if args.quiet else "auto",
    )
    points = prediction_points(
        model, config, {f"{paths.scene}, held-out tracks": paths for paths in tracks["test"]}
    )
    history = outcome.pop("history")
    record = records.write_record(
        args.record or workdir / "record.json",
        name="finetune",
        config=config.to_dict(),
        points=points,
        seeds=[config.seed],
        inputs={pathlib.Path(name).stem: name for name in config.data},
        started=started,
        extra={"history": history, **outcome},
    )
    folder = args.preset or workdir / "preset"
    model.save_to_preset(folder, metadata={"training": record})
    print(
        f"{folder}: {outcome['num_trained_parameters']} trained parameters; validation loss "
        f"{outcome['validation_loss_db']:.2f} dB at step {outcome['best_step']}, before training "
        f"{outcome['validation_loss_untrained_db']:.2f} dB"
    )
    for point in points:
        if point["subset"] == "event_free":
            print(
                f"{point['test_set']:<28} horizon {point['horizon']}: median "
                f"{point['nmse_median_db']:6.2f} dB, pooled {point['nmse_pooled_db']:6.2f} dB"
            )


if __name__ == "__main__":
    command_line.run(main)
