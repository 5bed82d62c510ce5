"""What attention is worth to a predictor: the same training with other neighbourhoods.

Physics, data, steps and shapes of weights are the same; only what a token sees differs: its
neighbourhood, all tokens, space and time in turns, as many drawn at random, or itself alone.
Judged is the loss on the configured validation data. Finished trainings are kept: a run that was
killed, or is asked for more, goes on.

Example:
    python experiments/attention_study.py --config experiments/configs/predictor_worlds.toml \\
        --features runs/features
"""

import dataclasses
import functools
import itertools
import pathlib
import time

from lwmt_sionna.runs import command_line

ATTENTIONS = ("ssta", "dense", "factored", "random", "none")


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--features", type=pathlib.Path,
        help="what physics says of the training data, for all that share it [WORKDIR/features]",
    )  # fmt: skip
    parser.add_argument("--attentions", nargs="+", choices=ATTENTIONS, default=list(ATTENTIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=300, help="training steps [300]")
    command_line.add_options(parser, "config", "data", "workdir")
    parser.add_argument("--out", type=pathlib.Path, help="record to write [WORKDIR/record.json]")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder
    from lwmt_sionna.training import TrainConfig, input_files, load_data

    config = TrainConfig.from_toml(args.config, {"files": args.data, "steps": args.steps})
    config = config.on_files()
    workdir = command_line.workdir(args)
    inputs = input_files(config)
    common = {
        "settings": config.to_dict(),
        "data": {name: records.sha256(path) for name, path in inputs.items()},
        "code": code_digest("lwmt_sionna.training.prediction"),
    }
    # It is made when the first training is missing.
    data = functools.cache(lambda: load_data(config, folder=args.features or workdir / "features"))
    points = []
    cases = list(itertools.product(args.seeds, args.attentions))
    with RunFolder(workdir) as folder:
        for seed, attention in progress_bar(cases, unit="training"):
            case = {"attention": attention, "seed": seed}
            scores = folder.store.compute(
                common | case,
                lambda case=case: _train(config, folder.path / "trainings", data(), **case),
            )
            points.append(case | scores)
    records.write_record(
        args.out or workdir / "record.json",
        name="attention_study",
        config=config.to_dict(),
        points=points,
        seeds=args.seeds,
        inputs=inputs,
        started=started,
    )
    _print_table(points)


def _train(config, folder, data, attention, seed):
    """Trains one predictor and returns its loss on the validation data, and what it took."""
    from lwmt_sionna.training import train

    alone = {"window": (0, 0), "corridor": (0, 0), "leakage": (0, 0), "time_offsets": ()}
    settings = alone if attention == "none" else {"attention": attention}
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, **settings), seed=seed
    )
    # The order of the draws is the seed's.
    training = data.training
    training = type(training)(training.pieces, training.batch_size, seed)
    begun = time.process_time()
    predictor, outcome = train(
        config, folder / f"{attention}_{seed}", data=data._replace(training=training), verbose=0
    )
    return {
        "validation_loss_db": outcome["validation_loss_db"],
        "validation_loss_untrained_db": outcome["validation_loss_untrained_db"],
        "num_parameters": predictor.count_params(),
        "processor_s": time.process_time() - begun,
    }


def _print_table(points):
    import numpy as np

    print(f"{'attention':12s}{'loss':>10s}{'seeds':>22s}{'processor':>12s}")
    for attention in dict.fromkeys(p["attention"] for p in points):
        mine = [p for p in points if p["attention"] == attention]
        losses = [p["validation_loss_db"] for p in mine]
        each = " ".join(f"{loss:.2f}" for loss in losses)
        spent = np.mean([p["processor_s"] for p in mine])
        print(f"{attention:12s}{np.mean(losses):7.2f} dB{each:>22s}{spent:10.0f} s")


if __name__ == "__main__":
    command_line.run(main)
