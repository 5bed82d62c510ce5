"""Tune the baselines on the validation sequences of the training scenes.

The score is the mean over sequences and horizons of the normalised error in decibels; the held-out
scene plays no part. The defaults of `lwmt_sionna.baselines` are the winners.

Example:
    python experiments/tune_baselines.py --config experiments/configs/predictor_small.toml
"""

import pathlib
import time

from lwmt_sionna import cli


def candidates():
    """Yields name, settings and predictor of everything tried."""
    from lwmt_sionna import baselines

    for order in (2, 3, 4, 6, 8):
        for ridge in (1e-3, 1e-2, 1e-1):
            settings = {"order": order, "ridge": ridge}
            yield "pooled_ar", settings, baselines.PooledAutoregression(**settings)
    for order in (3, 4, 5, 6):
        for ridge in (1e-3, 1e-2):
            settings = {"order": order, "method": "covariance", "ridge": ridge}
            yield "local_ar", settings, baselines.LocalAutoregression(**settings)
    for order in (4, 5, 6, 7, 8):
        for pool_weight in (0.5, 1.0):
            settings = {"order": order, "method": "burg", "pool_weight": pool_weight}
            yield "local_ar", settings, baselines.LocalAutoregression(**settings)
    for order in (5, 6, 7, 8):
        for radius in (1, 2, 3):
            settings = {"order": order, "denoise_radius": radius}
            yield "denoised_ar", settings, baselines.DenoisedAutoregression(**settings)


def main(argv=None):
    started = time.time()
    parser = cli.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    parser.add_argument("--snr", type=float, default=15.0, help="history SNR in dB [15]")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/tune_baselines.json"), help="record"
    )
    args = parser.parse_args(argv)
    cli.configure_logging(args)

    import numpy as np
    import tqdm

    from lwmt_sionna import records
    from lwmt_sionna.data import add_noise
    from lwmt_sionna.evaluation import normalized_error, to_db
    from lwmt_sionna.training import TrainConfig, load_training_data

    config = TrainConfig.from_toml(args.config)
    _, h, _ = load_training_data(config)
    past, future = h[:, : config.num_history], h[:, config.num_history :]
    history = add_noise(past, args.snr, np.random.default_rng(config.seed))
    points = []
    for name, settings, predictor in tqdm.tqdm(list(candidates()), unit="setting", disable=None):
        predicted = predictor(history, config.num_horizons)
        ratios = []
        for horizon in range(config.num_horizons):
            error, power = normalized_error(predicted[:, horizon], future[:, horizon])
            ratios.append(error / np.maximum(power, 1e-30))
        by_horizon = to_db(np.clip(ratios, 1e-4, 1e2)).mean(axis=1)
        points.append(
            {
                "predictor": name,
                **settings,
                "score_db": float(by_horizon.mean()),
                "score_h1_db": float(by_horizon[0]),
                "score_last_db": float(by_horizon[-1]),
            }
        )
    records.write_record(
        args.out,
        name="tune_baselines",
        config=config.to_dict() | {"history_snr_db": args.snr},
        points=points,
        seeds=[config.seed],
        inputs={pathlib.Path(path).stem: path for path in config.data},
        started=started,
    )
    for point in sorted(points, key=lambda p: (p["predictor"], p["score_db"])):
        settings = {k: v for k, v in point.items() if "score" not in k and k != "predictor"}
        print(
            f"{point['predictor']:<12} {point['score_db']:7.2f} dB "
            f"(h=1 {point['score_h1_db']:7.2f})  {settings}"
        )
    print(f"record: {args.out}")


if __name__ == "__main__":
    cli.run(main)
