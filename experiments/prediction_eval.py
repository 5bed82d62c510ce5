"""Judge channel predictors on stored sequences: normalised errors and cosine similarity.

Example:
    python experiments/prediction_eval.py --data experiments/data/*.h5 --preset small

Paths are stored, so any linear array and band will do. The predictors stay as they are:
    python experiments/prediction_eval.py --data experiments/data/*.h5 --num-ant 16 \\
        --num-subcarriers 64 --snr 15 --out experiments/results/prediction_eval_16x64.json
"""

import pathlib
import time

from lwmt_sionna import cli


def main(argv=None):
    started = time.time()
    parser = cli.build_parser(__doc__)
    parser.add_argument("--data", nargs="+", type=pathlib.Path, required=True, help="HDF5 files")
    parser.add_argument("--preset", nargs="*", default=["small"], help="names or folders [small]")
    parser.add_argument("--snr", nargs="+", type=float, default=[5.0, 15.0, 25.0], help="dB")
    parser.add_argument("--num-ant", type=int, default=32, help="antennas of the linear array")
    parser.add_argument("--num-subcarriers", type=int, default=32, help="subcarriers of the grid")
    parser.add_argument("--subcarrier-spacing", type=float, default=540e3, help="hertz [540e3]")
    parser.add_argument("--num-history", type=int, default=16, help="snapshots of history")
    parser.add_argument("--num-horizons", type=int, default=5, help="snapshots to predict")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/prediction_eval.json"), help="record"
    )
    args = parser.parse_args(argv)
    cli.configure_logging(args)

    from lwmt_sionna.data import PlanarArray, read_paths, subcarrier_frequencies

    # Before the slow imports: a wrong file is told at once.
    sequences = {path: read_paths(path) for path in args.data}

    import tqdm

    from lwmt_sionna import baselines, records
    from lwmt_sionna.evaluation import evaluate_predictors
    from lwmt_sionna.models.presets import preset_folder

    predictors = {
        "zero": baselines.ZeroPredictor(),
        "hold": baselines.Hold(),
        "pooled_ar": baselines.PooledAutoregression(),
        "local_ar": baselines.LocalAutoregression(),
        "denoised_ar": baselines.DenoisedAutoregression(),
    }
    inputs = {path.stem: path for path in args.data}
    for preset in args.preset:
        name = pathlib.Path(preset).name
        predictors[name] = baselines.ModelPredictor(preset, name)
        inputs[f"preset_{name}"] = preset_folder(preset)
    grid = {n: getattr(args, n) for n in ("num_ant", "num_subcarriers", "subcarrier_spacing")}
    frequencies = subcarrier_frequencies(grid["num_subcarriers"], grid["subcarrier_spacing"])
    points = []
    for path, paths in sequences.items():
        for snr_db in tqdm.tqdm(args.snr, desc=path.stem, unit="snr", disable=None):
            points += evaluate_predictors(
                predictors,
                paths,
                PlanarArray(1, grid["num_ant"]),
                frequencies,
                snr_db=snr_db,
                num_history=args.num_history,
                num_horizons=args.num_horizons,
                seed=args.seed,
            )
    config = {**grid, "snr_db": args.snr, "num_history": args.num_history, "seed": args.seed}
    records.write_record(
        args.out,
        name="prediction_eval",
        config=config | {"num_horizons": args.num_horizons, "presets": args.preset},
        points=points,
        seeds=[args.seed],
        inputs=inputs,
        started=started,
    )
    print_table(points, args.num_horizons)
    print(f"record: {args.out}")


def print_table(points, num_horizons):
    keys = sorted(
        {(p["scene"], p["speed_kmh"], p["sampling_period_s"], p["history_snr_db"]) for p in points}
    )
    for key in keys:
        scene, speed, period, snr_db = key
        print(
            f"\n{scene}, {speed:.0f} km/h, CSI every {1e3 * period:g} ms, history SNR "
            f"{snr_db:g} dB: NMSE pooled / median [dB]"
        )
        horizons = sorted({1, num_horizons})
        header = "".join(f"{f'h={h} {s}':>26}" for h in horizons for s in ("event-free", "quiet"))
        print(f"{'predictor':<14}{header}")
        for name in dict.fromkeys(p["predictor"] for p in points):
            cells = ""
            for horizon in horizons:
                for subset in ("event_free", "quiet"):
                    cells += f"{_cell(points, key, name, horizon, subset):>26}"
            print(f"{name:<14}{cells}")


def _cell(points, key, name, horizon, subset):
    for p in points:
        place = (p["scene"], p["speed_kmh"], p["sampling_period_s"], p["history_snr_db"])
        if (place, p["predictor"], p["horizon"], p["subset"]) == (key, name, horizon, subset):
            return f"{p['nmse_pooled_db']:.1f} / {p['nmse_median_db']:.1f}"
    return "-"


if __name__ == "__main__":
    cli.run(main)
