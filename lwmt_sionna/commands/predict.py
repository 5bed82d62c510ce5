"""Judge channel predictors on stored sequences: normalised errors, cosine similarity, rates.

Regimes come from a configuration or are the files given. Baselines have the settings tuned at the
nearest SNR. Finished cells (one regime at one SNR) are kept: a killed run goes on where it stopped.

Example:
    lwmt predict --data san_francisco_30kmh_5ms.h5 san_francisco_120kmh_2p5ms.h5

The grid over scenes, speeds, periods and SNRs:
    lwmt predict --config prediction_eval

Paths are stored, so any array and band will do. The predictors stay as they are:
    lwmt predict --data mine.h5 --num-ant 16 --num-subcarriers 64 --history-snr 15
    lwmt predict --data mine.h5 --num-ant 32 --num-rows 4
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from lwmt_sionna.runs import command_line


def main(argv: Sequence[str] | None = None) -> None:
    started = time.time()
    args = _parse(argv)
    command_line.configure_logging(args)

    from lwmt_sionna.evaluation.grid import GridConfig, Regime, load_regime

    overrides = {
        "presets": args.preset, "baselines": args.baselines, "history_snr_db": args.history_snr,
        "link_snr_db": args.link_snr, "num_ant": args.num_ant,
        "num_rows": args.num_rows, "polarization": args.polarization,
        "num_subcarriers": args.num_subcarriers, "subcarrier_spacing": args.subcarrier_spacing,
        "num_history": args.num_history, "rate_horizons": args.horizons,
        "num_horizons": None if args.horizons is None else max(args.horizons),
        "limit": args.limit, "seed": args.seed,
    }  # fmt: skip
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if args.config is not None:
        config = GridConfig.from_toml(args.config, overrides)
    else:
        config = GridConfig(tuple(Regime(path) for path in args.data), **overrides)
    if args.only is not None:
        chosen = tuple(r for r in config.regimes if args.only in pathlib.Path(r.data).name)
        config = dataclasses.replace(config, regimes=chosen)
    if args.figures is not None and not config.presets:
        raise command_line.UsageError("figures show a preset; expected one. Received: --preset")
    # Before the slow imports: a wrong file is told at once.
    regimes = [(regime, load_regime(regime, config)) for regime in config.regimes]
    for regime, sequences in regimes:
        _refuse_other_grids(args, regime.data, sequences)

    from lwmt_sionna.baselines import CLASSICAL
    from lwmt_sionna.evaluation import figures
    from lwmt_sionna.evaluation.grid import run_grid
    from lwmt_sionna.evaluation.table import best_classical, format_points
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.store import RunFolder

    with RunFolder(command_line.workdir(args)) as folder:
        result, inputs, parameters = run_grid(config, regimes, folder.store)
    points = result.pop("points")
    best = [
        {"by": by, **point}
        for by in ("nmse_pooled_db", "nmse_median_db")
        for point in best_classical(points, CLASSICAL, by).values()
    ]
    # The record holds what the figures show; the cells keep the errors of all predictors.
    shown = set(parameters) | {point["predictor"] for point in best if point["horizon"] == 1}
    result["sequences"] = [
        row for row in result["sequences"] if row["horizon"] == 1 and row["predictor"] in shown
    ]
    record = records.write_record(
        args.out,
        name="prediction_eval",
        config=config.to_dict(),
        points=points,
        seeds=[config.seed],
        inputs=inputs,
        started=started,
        extra={**result, "best_classical": best, "num_parameters": parameters},
    )
    command_line.say(f"\n{format_points(points, sorted({1, *config.rate_horizons}))}")
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)
        figures.plot_prediction_errors(record, args.figures / "prediction_nmse.png")
        figures.plot_error_scatter(record, args.figures / "prediction_scatter.png")
        figures.plot_sum_rates(record, args.figures / "prediction_rates.png")
    command_line.say(f"record: {args.out}")


def _parse(argv):
    parser = command_line.build_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=pathlib.Path, help="TOML file of a GridConfig")
    command_line.add_options(source, "data")
    command_line.add_options(parser, "preset", "history_snr", "link_snr", "horizons")
    parser.add_argument("--baselines", nargs="+", help="training-free baselines [all]")
    parser.add_argument("--num-ant", type=int, help="antennas of the base station [32]")
    parser.add_argument("--num-rows", type=int, help="rows of its array [1]")
    parser.add_argument("--polarization", help="V, H, VH or cross, as the paths were traced [V]")
    parser.add_argument("--num-subcarriers", type=int, help="subcarriers of the grid [32]")
    parser.add_argument("--subcarrier-spacing", type=float, help="hertz [540e3]")
    parser.add_argument("--num-history", type=int, help="snapshots of history [16]")
    parser.add_argument("--only", help="regimes whose file's name holds this [all]")
    command_line.add_options(parser, "limit", "seed", "workdir")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/prediction_eval.json"), help="record"
    )
    parser.add_argument("--figures", type=pathlib.Path, help="folder for the figures")
    return parser.parse_args(argv)


def _refuse_other_grids(args, file, sequences):
    """Stored channels have an array and a band of their own, whatever is asked for."""
    from lwmt_sionna.data import ChannelSequences, PlanarArray

    if not isinstance(sequences, ChannelSequences):
        return
    own = {
        "num_ant": sequences.h.shape[2], "num_rows": sequences.array_shape[0],
        "num_subcarriers": sequences.h.shape[3],
        "subcarrier_spacing": sequences.subcarrier_spacing,
    }  # fmt: skip
    for name, value in own.items():
        asked = getattr(args, name)
        if asked not in (None, value):
            option = f"--{name.replace('_', '-')}"
            raise command_line.UsageError(
                f"{file} holds channels, which are met as they are: {option} is {value:g} there. "
                f"Received: {option}={asked:g}"
            )
    # Which one a file of channels does not tell, but how many.
    there = sequences.array_shape[2]
    asked = args.polarization
    if asked is not None and PlanarArray(polarization=asked).num_polarizations != there:
        raise command_line.UsageError(
            f"{file} holds channels, which are met as they are: of {there} polarisations. "
            f"Received: --polarization={asked}"
        )
