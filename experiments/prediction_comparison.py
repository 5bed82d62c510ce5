"""From a record of the prediction evaluation: who leads in how many cells, and what seeds do.

Example:
    python experiments/prediction_comparison.py experiments/results/prediction_eval_grid.json \\
        --seeds paths sparse_seed2 sparse_seed3 --seeds dense_seed1 dense_seed2 dense_seed3
"""

import pathlib

from lwmt_sionna.runs import command_line


def main(argv=None):
    parser = command_line.build_parser(__doc__)
    parser.add_argument("record", type=pathlib.Path, help="JSON record of prediction_eval.py")
    parser.add_argument("--predictor", default="paths", help="whose leads are told [paths]")
    parser.add_argument(
        "--seeds", nargs="+", action="append", default=[], help="predictors that differ in the seed"
    )
    command_line.add_options(parser, "history_snr")
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.evaluation.table import format_prediction_comparison
    from lwmt_sionna.runs import records

    record = records.read_record(args.record)
    chosen = args.history_snr
    if chosen is not None:
        known = {point["history_snr_db"] for point in record["points"]}
        if not set(chosen) <= known:
            raise command_line.UsageError(
                f"--history-snr must be some of {sorted(known)}. Received: {chosen}"
            )
        record["points"] = [p for p in record["points"] if p["history_snr_db"] in chosen]
    print(format_prediction_comparison(record, args.predictor, args.seeds))


if __name__ == "__main__":
    command_line.run(main)
