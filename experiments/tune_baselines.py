"""Tune the training-free baselines on the validation sequences of the training scenes.

The score is the mean over sequences and horizons of the normalised error in decibels, for each SNR
of the history; the held-out scenes play no part. The winners are the settings in
`lwmt_sionna.baselines.TUNED`. A killed run goes on where it stopped.

Example:
    python experiments/tune_baselines.py --config experiments/configs/predictor_small.toml
"""

import pathlib
import time

from lwmt_sionna.runs import command_line

GRID = {
    "pooled_ar": [
        {"order": order, "ridge": ridge}
        for order in (6, 8, 10, 12, 13)
        for ridge in (1e-5, 1e-4, 1e-3, 1e-2)
    ],
    "local_ar": [
        *({"order": order, "pool_weight": 0.5} for order in (4, 6, 8)),
        *({"order": 6, "pool_weight": weight} for weight in (0.25, 1.0)),
    ],
    "denoised_ar": [
        {"order": order, "denoise_radius": radius}
        for order in (5, 7, 9, 11)
        for radius in (3, 4, 5, 6)
    ],
    "clamped_ar": [
        *(
            {"order": order, "ridge": ridge}
            for order in (6, 8, 10)
            for ridge in (1e-5, 1e-4, 1e-3, 1e-2)
        ),
        {"order": 8, "ridge": 1e-4, "radius": 0.98},
        {"order": 8, "ridge": 1e-4, "pool_weight": 1.0},
        *(
            {"order": 8, "ridge": 1e-4, "pool_weight": weight, "denoise_radius": radius}
            for weight in (0.5, 1.0)
            for radius in (4, 5, 6)
        ),
    ],
    "direct_ar": [
        *(
            {"order": order, "ridge": ridge}
            for order in (4, 6, 8, 10)
            for ridge in (1e-4, 1e-3, 1e-2)
        ),
        {"order": 6, "ridge": 1e-3, "pool_weight": 0.5},
        *(
            {"order": order, "ridge": 1e-4, "denoise_radius": radius}
            for order in (4, 10)
            for radius in (4, 5, 6)
        ),
    ],
    "kalman": [
        *(
            {"order": order, "noise_factor": factor}
            for order in (4, 6, 8)
            for factor in (0.003, 0.01, 0.03, 0.1)
        ),
        {"order": 6, "noise_factor": 0.03, "ridge": 1e-3},
        {"order": 6, "noise_factor": 0.03, "radius": 0.99},
        {"order": 8, "noise_factor": 0.03, "pool_weight": 1.0},
        *({"order": 8, "noise_factor": 0.03, "denoise_radius": radius} for radius in (4, 5, 6)),
        {"order": 8, "noise_factor": 0.03, "denoise_radius": 4, "pool_weight": 1.0},
    ],
    "wiener": [
        *({"denoise_radius": None, "noise_factor": factor} for factor in (0.1, 0.3, 1.0)),
        *(
            {"denoise_radius": radius, "noise_factor": factor}
            for radius in (3, 4, 5, 6)
            for factor in (0.03, 0.1, 0.3, 1.0)
        ),
    ],
    "prony": [
        {"order": order, "rank": rank, "ridge": ridge}
        for order in (8, 10, 12)
        for rank in (4, 6, 8)
        for ridge in (1e-5, 1e-4, 1e-3)
    ]
    + [{"order": 12, "rank": 6, "ridge": 1e-4, "denoise_radius": radius} for radius in (4, 5, 6)],
    "path_fit": [
        {},
        *({"num_paths": count} for count in (16, 32)),
        *({"window_penalty": penalty} for penalty in (10.0, 30.0, 45.0)),
        *({"full_drift": pace} for pace in (0.01, 0.15, 0.4)),
        *({"num_peaks": peaks} for peaks in (2, 6)),
        *({"shortest": shortest} for shortest in (1, 3)),
        {"residual_order": 6},
    ],
}


def main(argv=None):
    started = time.time()
    parser = command_line.build_parser(__doc__)
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file of a TrainConfig"
    )
    command_line.add_options(
        parser, "history_snr", "limit", "workdir", history_snr=[5.0, 15.0, 25.0], limit=8
    )
    parser.add_argument("--predictors", nargs="+", choices=list(GRID), help="some of them [all]")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/tune_baselines.json"), help="record"
    )
    args = parser.parse_args(argv)
    command_line.configure_logging(args)

    import numpy as np

    from lwmt_sionna import baselines
    from lwmt_sionna.data import add_noise
    from lwmt_sionna.runs import records
    from lwmt_sionna.runs.digests import code_digest
    from lwmt_sionna.runs.parallel import progress_bar
    from lwmt_sionna.runs.store import RunFolder
    from lwmt_sionna.training import TrainConfig, input_files

    config = TrainConfig.from_toml(args.config)
    h = validation_channels(config, args.limit, np)
    inputs = input_files(config)
    common = {
        "config": config.to_dict(),
        "limit": args.limit,
        "data": {name: records.sha256(path) for name, path in inputs.items()},
        "code": code_digest("lwmt_sionna.baselines", "lwmt_sionna.data.synthesis"),
    }
    names = args.predictors or list(GRID)
    trials = [(name, settings) for name in names for settings in GRID[name]]
    points = []
    with RunFolder(command_line.workdir(args)) as folder:
        for name, settings in progress_bar(trials, unit="setting"):
            predictor = baselines.CLASSICAL[name](**settings)
            for history_snr_db in args.history_snr:
                points.append(
                    folder.store.compute(
                        {
                            **common,
                            "predictor": name,
                            "settings": settings,
                            "history_snr_db": history_snr_db,
                        },
                        lambda p=predictor, s=history_snr_db: score(p, h, s, config, add_noise, np),
                    )
                    | {
                        "predictor": name,
                        "history_snr_db": history_snr_db,
                        "settings": repr(settings),
                    }
                )
    winners = {
        (point["predictor"], point["history_snr_db"]): point
        for point in sorted(points, key=lambda p: -p["score_db"])
    }
    for point in points:
        point["is_best"] = point is winners[point["predictor"], point["history_snr_db"]]
    records.write_record(
        args.out,
        name="tune_baselines",
        config=config.to_dict() | {"history_snr_db": args.history_snr, "limit": args.limit},
        points=points,
        seeds=[config.seed],
        inputs=inputs,
        started=started,
        extra={"num_sequences": len(h)},
    )
    for (name, history_snr_db), point in sorted(winners.items()):
        print(
            f"{name:<12} {history_snr_db:4g} dB: {point['score_db']:7.2f} dB (h=1 "
            f"{point['score_h1_db']:7.2f}, last {point['score_last_db']:7.2f})  {point['settings']}"
        )
    print(f"record: {args.out}")


def validation_channels(config, limit, np):
    """Channels of some validation sequences of every file, drawn at random."""
    from lwmt_sionna.data import (
        PlanarArray,
        read_paths,
        split_by_trajectory,
        subcarrier_frequencies,
        synthesize,
        vanishing_mask,
    )

    data, rng = config.data, np.random.default_rng(config.seed)
    frequencies = subcarrier_frequencies(data.num_subcarriers, data.subcarrier_spacing)
    snapshots = np.arange(data.num_history + config.predictor.num_horizons)
    channels = []
    for path in data.files:
        paths = read_paths(path)
        paths = paths.select(~vanishing_mask(paths))
        held_out = split_by_trajectory(paths, data.validation_share, seed=config.seed)[1]
        chosen = np.sort(rng.permutation(held_out.num_sequences)[:limit])
        array = PlanarArray(1, data.num_ant)
        channels.append(
            synthesize(held_out.select(chosen), array, frequencies, snapshots=snapshots)
        )
    return np.concatenate(channels)


def score(predictor, h, history_snr_db, config, add_noise, np):
    """Mean error in decibels over sequences and horizons."""
    from lwmt_sionna.evaluation import normalized_error, to_db

    num_history, num_horizons = config.data.num_history, config.predictor.num_horizons
    past, future = h[:, :num_history], h[:, num_history:]
    history = add_noise(past, history_snr_db, np.random.default_rng(config.seed))
    predicted = predictor(history, num_horizons)
    ratios = []
    for horizon in range(num_horizons):
        error, power = normalized_error(predicted[:, horizon], future[:, horizon])
        ratios.append(error / np.maximum(power, 1e-30))
    by_horizon = to_db(np.clip(ratios, 1e-5, 1e2)).mean(axis=1)
    return {
        "score_db": round(float(by_horizon.mean()), 4),
        "score_h1_db": round(float(by_horizon[0]), 4),
        "score_last_db": round(float(by_horizon[-1]), 4),
    }


if __name__ == "__main__":
    command_line.run(main)
