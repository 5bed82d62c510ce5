"""Curves over label shares, and attention by physics against dense and random attention.

`labels` compares models that start from pretrained weights (full, frozen, LoRA) with models from
scratch, over label shares; `attention` compares neighbourhoods from scratch, over seeds. All
contestants have the same architecture, data, noise and number of steps. A killed study goes on
where it stopped; the record is written after every training.

Example:
    python experiments/finetuning_study.py labels \\
        --config experiments/configs/finetune_small.toml \\
        --init runs/pretraining_study/curriculum/preset --held-out experiments/data/*.h5 \\
        --out experiments/results/finetuning.json
"""

import dataclasses
import pathlib
import time

from lwmt_sionna.runs import command_line


def label_contestants(config, init, shares, modes):
    """Fine-tuned and from scratch over label shares, most telling first."""
    order = sorted(shares, key=lambda share: (share != 0.1, share != 1.0, share))
    cells = [(share, mode) for mode in modes for share in order]
    # The curves of the first two modes side by side, then the other ways to fine-tune.
    cells.sort(key=lambda cell: (cell[1] not in ("scratch", "full"), order.index(cell[0])))
    for share, mode in cells:
        if mode in ("frozen", "lora") and share not in (0.01, 0.1, 1.0):
            continue
        data = dataclasses.replace(config.data, label_share=share)
        start = {} if mode == "scratch" else {"mode": mode, "init": str(init)}
        yield mode, dataclasses.replace(config, data=data, **start)


def attention_contestants(config, seeds):
    """Three neighbourhoods from scratch; all of one seed before the next."""
    for seed in seeds:
        for attention in ("ssta", "dense", "random"):
            model = dataclasses.replace(config.model, attention=attention)
            yield "scratch", dataclasses.replace(config, model=model, seed=seed)


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument("study", choices=("labels", "attention"))
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    parser.add_argument("--init", type=pathlib.Path, help="pretrained preset, for `labels`")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.01, 0.05, 0.1, 0.25, 1.0], help="of labels"
    )
    parser.add_argument(
        "--modes", nargs="+", default=["scratch", "full", "frozen", "lora"], help="for `labels`"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="for `attention`")
    parser.add_argument(
        "--held-out", nargs="*", default=[], help="HDF5 files of scenes that nothing is trained on"
    )
    command_line.add_options(
        parser, "limit", "history_snr", "horizons", limit=128, history_snr=[15.0],
        horizons=[1, 3, 5],
    )  # fmt: skip
    parser.add_argument("--workdir", type=pathlib.Path, help="trainings [runs/STUDY_CONFIG]")
    parser.add_argument("--out", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)
    if args.study == "labels" and args.init is None and set(args.modes) != {"scratch"}:
        raise command_line.UsageError("`labels` needs --init, the pretrained preset to start from")

    from lwmt_sionna.baselines import DenoisedAutoregression, Hold
    from lwmt_sionna.data import read_paths, vanishing_mask
    from lwmt_sionna.models.presets import preset_folder
    from lwmt_sionna.runs import records
    from lwmt_sionna.training import TrainConfig, input_files, load_tracks, train
    from lwmt_sionna.training.studies import check_horizons, prediction_points, run_tasks, thin_out

    config = TrainConfig.from_toml(args.config)
    check_horizons(config, args.horizons)
    if args.study == "labels":
        contestants = list(label_contestants(config, args.init, args.shares, args.modes))
    else:
        contestants = list(attention_contestants(config, args.seeds))
    workdir = args.workdir or pathlib.Path("runs") / f"{args.study}_{args.config.stem}"
    tracks = load_tracks(config.data, config.seed)
    test_sets = {f"{paths.scene}, held-out tracks": paths for paths in tracks["test"]}
    for name in args.held_out:
        paths = read_paths(name)
        kept = paths.select(~vanishing_mask(paths))
        test_sets[f"{pathlib.Path(name).stem}, held-out scene"] = kept
    test_sets = thin_out(test_sets, args.limit, config.data.split_seed or config.seed)

    def work(mode, changed, name):
        def run(folder):
            began = time.process_time()
            model, outcome = train(changed, folder, verbose=0 if args.quiet else "auto")
            spent = time.process_time() - began
            model.save_to_preset(folder / "preset")
            extra = {
                "contestant": name,
                "task": changed.predictor.kind,
                "mode": mode,
                "attention": changed.model.attention,
                "label_share": changed.data.label_share,
                "seed": changed.seed,
                "num_training": sum(n["training"] for n in outcome["sequences"].values()),
                "num_trained_parameters": outcome["num_trained_parameters"],
                "validation_loss_db": outcome["validation_loss_db"],
                "best_step": outcome["best_step"],
                "train_cpu_s": round(spent, 1),
            }
            points = prediction_points(model, changed, test_sets, args.history_snr, args.horizons)
            return [{**extra, **point} for point in points]

        return run

    def reference(name, predictor):
        def run(folder):
            points = prediction_points(
                predictor, config, test_sets, args.history_snr, args.horizons
            )
            return [{"contestant": name, "mode": "baseline", **point} for point in points]

        return run

    tasks = {
        "hold": reference("hold", Hold()),
        "denoised_ar": reference("denoised_ar", DenoisedAutoregression()),
    }
    for mode, changed in contestants:
        share = changed.data.label_share
        name = f"{mode}_{changed.model.attention}_{share:g}_{changed.seed}"
        tasks[name] = work(mode, changed, name)
    inputs = {**input_files(config), **{pathlib.Path(name).stem: name for name in args.held_out}}
    if args.init is not None:
        inputs["init"] = preset_folder(args.init)

    def write(points):
        records.write_record(
            args.out or workdir / "record.json",
            name="finetuning" if args.study == "labels" else "attention_comparison",
            config=config.to_dict(),
            points=points,
            seeds=sorted({c.seed for _, c in contestants}),
            inputs=inputs,
            started=started,
        )

    points = run_tasks(tasks, workdir, write)
    for name in tasks:
        mine = [p for p in points if p["contestant"] == name and p["subset"] == "event_free"]
        text = []
        for horizon in args.horizons:
            values = [p["nmse_median_db"] for p in mine if p["horizon"] == horizon]
            text.append(f"h{horizon} {sum(values) / len(values):.2f}")
        print(f"{name:<28} median, mean over test sets [dB]: {', '.join(text)}")


if __name__ == "__main__":
    command_line.run(main)
