"""The evaluation of channel predictors over regimes and noise, one cell after the other."""

import dataclasses
import hashlib
import pathlib
import time

import numpy as np
from tqdm import tqdm

from lwmt_sionna.data import (
    PlanarArray,
    add_noise,
    event_mask,
    history_scale,
    read_paths,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.evaluation import (
    normalized_error,
    sgcs,
    summarize_errors,
    to_db,
    zero_forcing_rates,
)
from lwmt_sionna.evaluation.leaks import (
    check_causal,
    check_held_out,
    other_histories,
    shuffled_histories,
)
from lwmt_sionna.runs import records

__all__ = [
    "best_classical",
    "cell_key",
    "evaluate_cell",
    "run_grid",
]

# What the figures depend on: another version of it computes its cells anew.
_PACKAGE = pathlib.Path(__file__).parents[1]
_CODE = (
    "baselines/*.py",
    "data/*.py",
    "models/*.py",
    "ops/*.py",
    "evaluation/grid.py",
    "evaluation/metrics.py",
)
CEILINGS = ("perfect", "noisy_perfect")
_RATIO_RANGE = (1e-7, 1e3)


def evaluate_cell(predictors, paths, snr_db, config, *, num_vanishing=0, controls=False):
    """Judges predictors on the same noisy histories of one regime at one SNR.

    Targets are the true channels. Sequences are told apart by events, paths that are born or die
    between the last measured snapshot and the target.

    Args:
        predictors: Dictionary of names and `lwmt_sionna.baselines.Predictor`.
        paths: `lwmt_sionna.data.PathSequences` of one speed and period.
        snr_db: Pilot SNR of the histories in decibels.
        config: `GridConfig`.
        num_vanishing: Sequences left out before, for the record.
        controls: Whether to run the controls with wrong histories as well, at the SNR of the rates.

    Returns:
        Dictionary of lists of flat dictionaries: `"points"` (one per predictor, horizon and
        subset), `"rates"`, `"sequences"` (errors of every sequence), `"controls"` and `"costs"`.
    """
    num_history, num_horizons = config.num_history, config.num_horizons
    array = PlanarArray(1, config.num_ant)
    frequencies = subcarrier_frequencies(config.num_subcarriers, config.subcarrier_spacing)
    h = synthesize(paths, array, frequencies, snapshots=np.arange(num_history + num_horizons))

    def measure(channels):
        return add_noise(
            channels[:, :num_history], snr_db, np.random.default_rng([config.seed, int(snr_db)])
        )

    check_causal(measure, h[:4], num_history)
    past, future = h[:, :num_history], h[:, num_history:]
    history = measure(h)
    scale = np.sqrt(np.mean(np.abs(past) ** 2, axis=(1, 2, 3), dtype=np.float64))
    cell = {
        "scene": paths.scene,
        "speed_kmh": round(float(np.mean(paths.speed) * 3.6), 3),
        "sampling_period_s": round(float(paths.sampling_period), 9),
        "normalized_doppler": round(float(np.mean(paths.normalized_doppler)), 4),
        "history_snr_db": float(snr_db),
    }
    masks = _subsets(paths, num_history, num_horizons)
    result = {"points": [], "rates": [], "sequences": [], "controls": [], "costs": []}
    for name, predictor in {**predictors, **_ceilings(future, snr_db, config)}.items():
        start, busy = time.perf_counter(), time.process_time()
        predicted = predictor(history, num_horizons)
        cost = {
            "wall_ms": 1e3 * (time.perf_counter() - start) / len(h),
            "cpu_ms": 1e3 * (time.process_time() - busy) / len(h),
        }
        if name not in CEILINGS:
            result["costs"].append({**cell, "predictor": name, **cost})
            for horizon in range(1, num_horizons + 1):
                rows = _points(predicted, future, scale, horizon, masks[horizon - 1], config)
                for row in rows:
                    row = {"predictor": name, "horizon": horizon, **row}
                    result["points"].append({**cell, "num_vanishing": num_vanishing, **row})
        if snr_db == config.rate_snr_db:
            result["rates"] += _rates(name, predicted, future, history, paths, config, cell)
            if name not in CEILINGS:
                result["sequences"] += _per_sequence(name, predicted, future, masks, config, cell)
        if controls and snr_db == config.rate_snr_db and name not in CEILINGS:
            for kind, wrong in (
                ("shuffled", shuffled_histories(history, config.seed)),
                ("other", other_histories(history)),
            ):
                guess = predictor(wrong, num_horizons)[:, 0]  # the program is compiled already
                if kind == "other":  # brought to the power of the own history, as hold would be
                    guess = guess * (history_scale(history) / history_scale(wrong))[:, 0]
                error, power = normalized_error(guess, future[:, 0], scale)
                median = to_db(np.median(error / np.maximum(power, 1e-30)))
                result["controls"].append(
                    {**cell, "predictor": name, "control": kind, "nmse_median_db": _round(median)}
                )
    return result


def run_grid(config, regimes, store):
    """Evaluates every regime at every SNR; finished cells are not computed again.

    Args:
        config: `GridConfig`.
        regimes: List of tuples of a `Regime` and what `load_regime` made of it.
        store: `CellStore`.

    Returns:
        Tuple of the joined results of `evaluate_cell` (and `"splits"`: distances from the training
        tracks), the files that were read by name, and the number of parameters by preset.
    """
    from lwmt_sionna.baselines import CLASSICAL, ModelPredictor, tuned_baselines
    from lwmt_sionna.models.presets import preset_folder

    inputs = {pathlib.Path(regime.data).stem: regime.data for regime in config.regimes}
    models, parameters = {}, {}
    for preset in config.presets:
        name = pathlib.Path(preset).name
        if name in CLASSICAL or name in CEILINGS:
            raise ValueError(f"A preset may not be named like a baseline. Received: {preset}")
        models[name] = ModelPredictor(preset, name)
        parameters[name] = int(models[name].model.count_params())
        inputs[f"preset_{name}"] = preset_folder(preset)
    training = [read_paths(path) for path in config.training]
    inputs |= {f"training_{pathlib.Path(path).stem}": path for path in config.training}
    splits = []
    for regime, paths, _ in regimes if training else ():
        nearest = check_held_out(training, paths)
        splits.append(
            {
                "scene": paths.scene,
                "data": pathlib.Path(regime.data).name,
                "trained_scenes": ", ".join(sorted({part.scene for part in training})),
                # None where no scene is shared: there is no distance then.
                "nearest_training_m": round(nearest, 2) if np.isfinite(nearest) else None,
            }
        )
    settings = {k: v for k, v in config.to_dict().items() if k not in ("regimes", "snr_db")}
    common = {
        "settings": settings,
        "code": _code_digest(),
        "presets": {name: records.sha256(inputs[f"preset_{name}"]) for name in models},
    }
    joined = {}
    cells = [(regime, snr_db) for regime in regimes for snr_db in config.snr_db]
    for (regime, paths, num_vanishing), snr_db in tqdm(cells, unit="cell", disable=None):
        key = {
            **common,
            "regime": dataclasses.asdict(regime),
            "data": records.sha256(regime.data),
            "snr_db": snr_db,
        }

        def compute(regime=regime, paths=paths, vanishing=num_vanishing, snr_db=snr_db):
            predictors = {**tuned_baselines(snr_db, config.baselines), **models}
            return evaluate_cell(
                predictors,
                paths,
                snr_db,
                config,
                num_vanishing=vanishing,
                controls=regime.controls,
            )

        for name, rows in store.get(key, compute).items():
            joined.setdefault(name, []).extend(rows)
    return {**joined, "splits": splits}, inputs, parameters


def _code_digest():
    files = [file for name in _CODE for file in sorted(_PACKAGE.glob(name))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _ceilings(future, snr_db, config):
    from lwmt_sionna.baselines import PerfectCsi

    if snr_db != config.rate_snr_db:
        return {}
    return {
        "perfect": PerfectCsi(future),
        "noisy_perfect": PerfectCsi(future, snr_db, config.seed + 1),
    }


def _subsets(paths, num_history, num_horizons):
    """Masks of the subsets for every horizon."""
    births = [event_mask(paths, t, t + 1) for t in range(num_history - 1)]
    quiet = ~np.any(births, axis=0) if births else np.ones(paths.num_sequences, bool)
    masks = []
    for horizon in range(1, num_horizons + 1):
        events = event_mask(paths, num_history - 1, num_history - 1 + horizon)
        masks.append(
            {
                "event_free": ~events,
                "events": events,
                "quiet": quiet & ~events,
                "all": np.ones_like(events),
            }
        )
    return masks


def _points(predicted, future, scale, horizon, masks, config):
    truth, guess = future[:, horizon - 1], predicted[:, horizon - 1]
    error, power = normalized_error(guess, truth, scale)
    similarity = sgcs(guess, truth)
    for subset in config.subsets:
        chosen = masks[subset]
        if not (chosen & (power > 0)).any():
            continue
        row = summarize_errors(error[chosen], power[chosen])
        row = {k: _round(v) if k.endswith("_db") else v for k, v in row.items()}
        yield {
            "subset": subset,
            "share": round(float(chosen.mean()), 4),
            **row,
            "sgcs": round(float(similarity[chosen].mean()), 5),
        }


def _rates(name, predicted, future, history, paths, config, cell):
    # Users of equal mean power: differences come from the CSI alone.
    unit = history_scale(history)[:, 0]
    rows = []
    for horizon in config.rate_horizons:
        guess, truth = predicted[:, horizon - 1] / unit, future[:, horizon - 1] / unit
        for link_snr_db in config.link_snr_db:
            rates = zero_forcing_rates(
                guess, truth, link_snr_db, groups=paths.bs_index, seed=config.seed
            )
            rows.append(
                {
                    **cell,
                    "predictor": name,
                    "horizon": horizon,
                    "link_snr_db": float(link_snr_db),
                    "sum_rate": round(float(rates.mean()), 4),
                    "num_groups": len(rates),
                }
            )
    return rows


def _per_sequence(name, predicted, future, masks, config, cell):
    rows = []
    for horizon in config.rate_horizons:
        error, power = normalized_error(predicted[:, horizon - 1], future[:, horizon - 1])
        ratio = np.clip(error / np.maximum(power, 1e-30), *_RATIO_RANGE)
        event = masks[horizon - 1]["events"]
        for index, value in enumerate(to_db(ratio)):
            rows.append(
                {
                    **cell,
                    "predictor": name,
                    "horizon": horizon,
                    "sequence": index,
                    "event": bool(event[index]),
                    "nmse_db": _round(value),
                }
            )
    return rows


def best_classical(points, classical, by="nmse_median_db", subset="event_free"):
    """The strongest training-free baseline of every cell and horizon.

    Args:
        points: Points of `evaluate_cell`.
        classical: Names of the training-free baselines.
        by: Figure that decides; the smallest wins.
        subset: Subset of sequences that it is taken from.

    Returns:
        Dictionary from (scene, speed, period, history SNR, horizon) to the point that wins.
    """
    best = {}
    for point in points:
        if point["predictor"] not in classical or point["subset"] != subset:
            continue
        key = cell_key(point)
        if key not in best or point[by] < best[key][by]:
            best[key] = point
    return best


def cell_key(point):
    """(scene, speed, period, history SNR, horizon) of a point."""
    names = ("scene", "speed_kmh", "sampling_period_s", "history_snr_db", "horizon")
    return tuple(point[name] for name in names)


def _round(value):
    return round(float(value), 3)
