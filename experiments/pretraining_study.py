"""What each mask of the curriculum is worth: leave one out, and random masking alone.

Every contestant is pretrained with the same data, model, seed and number of steps. Errors are those
of the hidden tokens, on held-out tracks of the training scenes and on scenes never trained on. A
killed study goes on where it stopped; the record is written after every contestant.

Example:
    python experiments/pretraining_study.py --config experiments/configs/pretrain_small.toml \\
        --held-out experiments/data/*.h5 --out experiments/results/pretraining.json
"""

import pathlib
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a PretrainConfig"
    )
    parser.add_argument(
        "--held-out", nargs="*", default=[], help="HDF5 files of scenes that nothing is trained on"
    )
    command_line.add_options(parser, "limit", limit=128)
    parser.add_argument("--contestants", nargs="+", help="some of them; all by default")
    parser.add_argument("--workdir", type=pathlib.Path, help="trainings [runs/pretraining_study]")
    parser.add_argument("--out", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.data import read_paths, vanishing_mask
    from lwmt_sionna.runs import records
    from lwmt_sionna.training import PretrainConfig, load_scenes, train
    from lwmt_sionna.training.studies import (
        CONDITIONS,
        ablations,
        reconstruction_study_points,
        run_tasks,
        thin_out,
    )

    config = PretrainConfig.from_toml(args.config)
    contestants = ablations(config)
    if args.contestants:
        unknown = sorted(set(args.contestants) - set(contestants))
        if unknown:
            raise command_line.UsageError(
                f"expected some of {', '.join(contestants)}. Received: {', '.join(unknown)}"
            )
        contestants = {n: c for n, c in contestants.items() if n in args.contestants}
    workdir = args.workdir or pathlib.Path("runs/pretraining_study")
    source = config.source
    scenes, held_out = load_scenes(source.data, source.validation_share, source.split_seed)
    test_sets = {f"{paths.scene}, held-out tracks": paths for paths in held_out}
    for name in args.held_out:
        paths = read_paths(name)
        kept = paths.select(~vanishing_mask(paths))
        test_sets[f"{pathlib.Path(name).stem}, held-out scene"] = kept
    test_sets = thin_out(test_sets, args.limit, source.split_seed)
    bandwidth = (source.bandwidth[0] * source.bandwidth[1]) ** 0.5
    cache = {}

    def work(name, changed):
        def run(folder):
            began = time.process_time()
            model, outcome = train(
                changed, folder, data=scenes, verbose=0 if args.quiet else "auto"
            )
            spent = time.process_time() - began
            model.save_to_preset(folder / "preset")
            points = reconstruction_study_points(
                model, test_sets, source.grids[0], bandwidth, CONDITIONS, cache
            )
            extra = {
                "contestant": name,
                "seed": changed.seed,
                "train_loss": outcome["history"][-1]["loss"],
                "train_cpu_s": round(spent, 1),
            }
            return [{**extra, **point} for point in points]

        return run

    def write(points):
        records.write_record(
            args.out or workdir / "record.json",
            name="pretraining",
            config=config.to_dict(),
            points=points,
            seeds=[config.seed],
            inputs={pathlib.Path(name).stem: name for name in (*source.data, *args.held_out)},
            started=started,
            extra={"conditions": {name: c.to_dict() for name, c in CONDITIONS.items()}},
        )

    points = run_tasks({name: work(name, c) for name, c in contestants.items()}, workdir, write)
    for name in contestants:
        mine = [p for p in points if p["contestant"] == name]
        conditions = dict.fromkeys(p["condition"] for p in mine)
        row = [
            sum(p["nmse_pooled_db"] for p in mine if p["condition"] == c) / len(test_sets)
            for c in conditions
        ]
        print(f"{name:<24}" + " ".join(f"{c} {v:.2f}" for c, v in zip(conditions, row)))


if __name__ == "__main__":
    command_line.run(main)
