"""Draw the figures of the training studies from their records.

Example:
    python experiments/plot_training.py --records experiments/results --out docs/figures
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--records", type=pathlib.Path, default=pathlib.Path("experiments/results"), help="folder"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("docs/figures"), help="folder"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.training import figures as study_plots

    figures = {
        "pretraining": study_plots.plot_mask_ablation,
        "finetuning": study_plots.plot_label_shares,
        "finetuning_predictor": study_plots.plot_label_shares,
        "attention_comparison": study_plots.plot_attention_comparison,
    }
    found = {n: draw for n, draw in figures.items() if (args.records / f"{n}.json").is_file()}
    if not found:
        raise command_line.UsageError(
            f"expected some of {', '.join(f'{n}.json' for n in figures)}. Received: "
            f"--records {args.records}"
        )
    for name, draw in found.items():
        path = args.out / f"{name}.png"
        draw(args.records / f"{name}.json", path)
        print(f"figure: {path}")


if __name__ == "__main__":
    command_line.run(main)
