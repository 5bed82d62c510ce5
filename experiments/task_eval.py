"""What pretrained embeddings are worth with few labels: four tasks in a city never seen before.

Whether the base station is in sight, the best beam at another carrier, the position, and the
channel from sparse pilots: the same head on frozen embeddings and on the patches themselves, and
baselines without a network, over numbers of labels. Paths are traced before, by `lwmt trace`.
Embeddings and answers are kept: a killed run goes on where it stopped.

Example:
    lwmt trace --config wide_san_francisco_30kmh_5ms
    lwmt trace --config wide_san_francisco_30kmh_5ms_28ghz
    python experiments/task_eval.py --config experiments/configs/task_eval.toml \\
        --backbone base --out experiments/results/task_eval.json
"""

import pathlib
import time

from lwmt_sionna.runs import command_line


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--backbone", required=True, metavar="PRESET", help="pretrained model: a name, or a folder"
    )
    command_line.add_options(parser, "config", "limit", "workdir")
    group = parser.add_argument_group("in place of configured values")
    group.add_argument("--tasks", nargs="+", help="some of the tasks")
    group.add_argument("--num-labels", nargs="+", type=int, metavar="N", help="numbers of labels")
    group.add_argument("--seeds", nargs="+", type=int, help="of the draws and the heads")
    group.add_argument(
        "--sight", metavar="PRESET", help="taught in other cities, over --backbone; '' for none"
    )
    group.add_argument("--learning-rate", type=float, metavar="R", help="of the heads")
    group.add_argument("--weight-decay", type=float, metavar="W", help="of the heads")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/task_eval.json"), help="record"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.runs import records
    from lwmt_sionna.training.task_studies import TaskStudyConfig, evaluate_tasks

    names = ("tasks", "num_labels", "seeds", "sight", "learning_rate", "weight_decay", "limit")
    config = TaskStudyConfig.from_toml(args.config, {name: getattr(args, name) for name in names})
    scores = evaluate_tasks(
        config, args.backbone, command_line.workdir(args), progress=False if args.quiet else None
    )
    records.write_record(
        args.out,
        name="task_eval",
        config=config.to_dict(),
        points=scores.points,
        seeds=config.seeds,
        inputs=scores.inputs,
        started=started,
        extra={"comparisons": scores.comparisons, "embedding_map": scores.embedding_map},
    )
    _print_table(scores.points)
    print(f"record: {args.out}")


def _print_table(points):
    import collections

    import numpy as np

    values = collections.defaultdict(list)
    for p in points:
        values[p["task"], p["metric"], p["model"], p["num_labels"]].append(p["value"])
    for (task, metric, model, count), each in values.items():
        mean = np.mean([np.nan if v is None else v for v in each])
        print(f"{task:14s}{metric:16s}{model:16s}{count:7d} labels{mean:10.3f}")


if __name__ == "__main__":
    command_line.run(main)
