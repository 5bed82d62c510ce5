"""Experiments of many trainings: resumable, one folder per training, a record after each.

What they compare is told here too: the errors of predictors, and how well a masked channel model
fills in what is hidden, condition by condition.
"""

import dataclasses
import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lwmt_sionna.baselines import ModelPredictor, Predictor
from lwmt_sionna.data import ChannelSequences, PathSequences
from lwmt_sionna.evaluation import evaluate_paths, summarize_errors, to_db
from lwmt_sionna.masking import Curriculum
from lwmt_sionna.models import MaskedChannelModel
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.histories import stack_complex
from lwmt_sionna.training.optimization import DataParallel
from lwmt_sionna.training.prediction import TrainConfig, as_predictor
from lwmt_sionna.training.pretraining import PretrainConfig
from lwmt_sionna.training.sources import synthesize_grid
from lwmt_sionna.typing import Array, PathLike

logger = logging.getLogger(__name__)

__all__ = [
    "CONDITIONS",
    "ablations",
    "check_horizons",
    "draw_views",
    "equal_time_contestants",
    "guess_points",
    "measure_steps",
    "prediction_points",
    "reconstruction_points",
    "reconstruction_study_points",
    "run_tasks",
    "thin_out",
]

Points = list[dict[str, Any]]


def run_tasks(
    tasks: dict[str, Callable[[pathlib.Path], Points]],
    folder: PathLike,
    write: Callable[[Points], object],
) -> Points:
    """Runs what has not been run yet, and writes the record after every task.

    Args:
        tasks: Dictionary from a name to a callable from the task's folder to its points, a list of
            flat dictionaries.
        folder: Folder of all tasks.
        write: Callable from all points so far to nothing: writes the record.

    Returns:
        All points, in the order of the tasks.
    """
    store = Store(pathlib.Path(folder) / "points")
    points: Points = []
    for index, (name, work) in enumerate(tasks.items(), start=1):
        known = store.get(name)
        if known is None:
            logger.info("%d of %d: %s", index, len(tasks), name)
            known = work(pathlib.Path(folder) / name)
            store.put(name, known, name)
            write([*points, *known])
        else:
            logger.info("%d of %d: %s is kept from before", index, len(tasks), name)
        points += known
    write(points)
    return points


def ablations(config: PretrainConfig) -> dict[str, PretrainConfig]:
    """Contestants of the study of masks, by name, from a configuration of the whole curriculum.

    They are the curriculum, random masks with the same impairments and with none, and the
    curriculum without each mask, without noise and without all impairments. Most telling first, so
    that a study that was stopped says most.
    """
    curriculum = config.curriculum
    every = tuple(curriculum.impairments)
    contestants = {
        "curriculum": config,
        "random_masks": config.ablated(only=("random",)),
        "random_masks_clean": config.ablated(without=every, only=("random",)),
    }
    order = ("occlusion", "subcarrier_comb", "time_comb", "antenna_comb", "tail", "tube", "random")
    for name in order:
        if name in curriculum.masks:
            contestants[f"without_{name}"] = config.ablated(without=(name,))
    if "noise" in every:
        contestants["without_noise"] = config.ablated(without=("noise",))
    if every:
        contestants["without_impairments"] = config.ablated(without=every)
    return contestants


def equal_time_contestants(config: PretrainConfig) -> dict[str, PretrainConfig]:
    """Contestants for equal time, by name, from a configuration of the whole curriculum.

    They are the curriculum with the neighbourhood of the configuration, random masks alone, and the
    curriculum with dense attention and with neighbours drawn at random.
    """
    dense, random = (
        dataclasses.replace(config, model=model)
        for model in (
            dataclasses.replace(config.model, attention="dense"),
            dataclasses.replace(config.model, attention="random"),
        )
    )
    return {
        "curriculum": config,
        "random_masks": config.ablated(only=("random",)),
        "dense": dense,
        "random_neighbourhood": random,
    }


def measure_steps(configs: Mapping[str, PretrainConfig], rounds: int) -> dict[str, float]:
    """Processor seconds of a training step of each, compiled, its share of the data included.

    They take their steps in turns, so that all see the same machine; the median of the rounds.
    """
    steps, shares = {}, {}
    for name, config in configs.items():
        task = config.prepare(config.build(), DataParallel(1))
        began = time.process_time()
        task.draw_batch(0)
        shares[name] = (time.process_time() - began) / task.epoch

        def take(step, task=task):
            key, x, y = task.draw_batch(step)
            task.models[key].train_on_batch(x, y)

        logger.info("%s: compiling", name)
        take(0)
        steps[name] = take
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for step in range(1, rounds + 1):
        for name, take in steps.items():
            began = time.process_time()
            take(step)
            spent[name].append(time.process_time() - began)
    return {name: shares[name] + statistics.median(each) for name, each in spent.items()}


def reconstruction_study_points(
    model: MaskedChannelModel,
    test_sets: dict[str, PathSequences],
    grid: tuple[int, int, int],
    bandwidth: float,
    conditions: dict[str, Curriculum],
    cache: dict[str, Any],
) -> Points:
    """Errors of a masked channel model on several test sets: see `reconstruction_points`.

    Args:
        model: `MaskedChannelModel`.
        test_sets: Dictionary from a name to `PathSequences`.
        grid: Snapshots, antennas and subcarriers.
        bandwidth: Hertz.
        conditions: Dictionary from a name to `Curriculum`.
        cache: Dictionary in which the views are kept: they are the same for all contestants.
    """
    points = []
    for name, paths in test_sets.items():
        if name not in cache:
            cache[name] = draw_views(paths, grid, bandwidth, conditions, model.backbone.patch)
        for point in reconstruction_points(model, cache[name]):
            points.append({"test_set": name, **point})
    return points


def prediction_points(
    model: keras.Model | Predictor,
    config: TrainConfig,
    test_sets: Mapping[str, PathSequences | ChannelSequences],
    history_snr_db: Sequence[float],
    horizons: Sequence[int],
) -> Points:
    """Errors of a predictor on several test sets, with the noise that all contestants get.

    Args:
        model: What `train` returns, or any predictor of `lwmt_sionna.baselines`.
        config: `TrainConfig`.
        test_sets: Dictionary from a name to `PathSequences` or `ChannelSequences`.
        history_snr_db: Pilot SNRs of the histories in decibels.
        horizons: Horizons to report.

    Returns:
        List of flat dictionaries, one per test set, SNR, horizon and subset (`"event_free"`, where
        events are known, and `"all"`).
    """
    data = config.data
    predictor = model
    if isinstance(model, keras.Model):
        predictor = ModelPredictor(as_predictor(model, config), batch_size=64, num_threads=1)
    points = []
    for name, paths in test_sets.items():
        for snr_db in history_snr_db:
            for point in evaluate_paths(
                {"model": predictor},
                paths,
                data.array,
                data.frequencies,
                history_snr_db=snr_db,
                num_history=data.num_history,
                num_horizons=max(horizons),
            ):
                if point["horizon"] in horizons and point["subset"] in ("event_free", "all"):
                    del point["predictor"]
                    points.append({"test_set": name, "history_snr_db": snr_db, **point})
    return points


def check_horizons(config: TrainConfig, horizons: Sequence[int]) -> None:
    """Refuses horizons that a predictor is not made for, before it is trained.

    Raises:
        ValueError: If it is not made for one of them.
    """
    most = getattr(config.build(), "num_horizons", config.predictor.num_horizons)
    if not all(1 <= horizon <= most for horizon in horizons):
        raise ValueError(f"horizons: expected 1 to {most}. Received: horizons={list(horizons)}")


def thin_out(test_sets: dict[str, PathSequences], most: int, seed: int) -> dict[str, PathSequences]:
    """Draws a part of test sets that are larger than need be: `most` sequences of each at most."""
    rng = np.random.default_rng(seed)
    thinned = {}
    for name, paths in test_sets.items():
        chosen = np.sort(rng.permutation(paths.num_sequences)[:most])
        thinned[name] = paths.select(chosen) if len(chosen) < paths.num_sequences else paths
    return thinned


_NOISE = {"noise": {"history_snr_db": [15.0, 15.0]}}


def _condition(mask, impairments=None, **settings):
    impairments = _NOISE if impairments is None else impairments
    return Curriculum(masks={mask: settings}, impairments=impairments)


# Each imitates one impairment of a link, at 15 dB SNR where nothing else is said.
CONDITIONS = {
    "random": _condition("random"),
    "tube": _condition("tube"),
    "occlusion": _condition("occlusion"),
    "time_comb": _condition("time_comb"),
    "subcarrier_comb": _condition("subcarrier_comb"),
    "antenna_comb": _condition("antenna_comb"),
    "tail": _condition("tail"),
    # Nothing hidden to speak of: what is left is the noise of isolated estimates.
    "noise_5db": _condition("random", {"noise": {"history_snr_db": [5.0, 5.0]}}),
    "noise_5db_tail": _condition("tail", {"noise": {"history_snr_db": [5.0, 5.0]}}),
    "impaired": _condition(
        "random", {name: {} for name in ("calibration", "timing", "phase", "gain", "quantization")}
    ),
}


def draw_views(
    sequences: PathSequences | ChannelSequences,
    grid: tuple[int, int, int],
    bandwidth: float,
    conditions: dict[str, Curriculum],
    patch: tuple[int, int],
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, dict[str, Array]]:
    """Draws one view of every sequence under every condition, the same for all contestants.

    Grid and bandwidth are those of `synthesize_grid`, and curricula are taken at the end of their
    schedule. Returns a view by name of the condition: see `Curriculum.view`, arrays of NumPy, with
    the physical scales of `MaskedChannelModel`.
    """
    if isinstance(sequences, ChannelSequences):
        bandwidth = grid[2] * sequences.subcarrier_spacing
    h = stack_complex(synthesize_grid(sequences, grid, bandwidth))
    scales = {"sampling_period": sequences.sampling_period, "bandwidth": bandwidth}
    views = {}
    for name, curriculum in conditions.items():
        parts = []
        for begin in range(0, len(h), batch_size):
            view = curriculum.view(h[begin : begin + batch_size], seed + begin, 1.0, patch)
            parts.append({key: np.asarray(value) for key, value in view.items()})
        views[name] = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        views[name] |= {key: np.full(len(h), value, "float32") for key, value in scales.items()}
    return views


def reconstruction_points(
    model: MaskedChannelModel, views: dict[str, dict[str, Array]], batch_size: int = 64
) -> Iterator[dict[str, Any]]:
    """Errors of a masked channel model under every condition.

    Args:
        model: `MaskedChannelModel`.
        views: What `draw_views` returns.
        batch_size: Sequences per call; the last batch is padded, so that one program serves all.

    Returns:
        Iterator of a flat dictionary per condition: its name, the normalised errors of the tokens
        asked for in decibels (see `summarize_errors`), the mean over sequences of the value in
        decibels, and the number of sequences.
    """
    names = {"channel": "observed", "mask": "hidden"}
    if model.backbone.position_units is not None:
        names |= {"sampling_period": "sampling_period", "bandwidth": "bandwidth"}
    # No optimiser: it would be saved with the weights.
    model.compile(optimizer=None, jit_compile=keras.backend.backend() != "torch")

    batch_size = min(batch_size, max(len(view["observed"]) for view in views.values()))

    def guess(view):
        guesses = []
        for begin in range(0, len(view["observed"]), batch_size):
            part = {key: view[name][begin : begin + batch_size] for key, name in names.items()}
            count = len(part["mask"])
            padded = {
                key: np.pad(v, [(0, batch_size - count)] + [(0, 0)] * (v.ndim - 1), mode="edge")
                for key, v in part.items()
            }
            guesses.append(np.asarray(model.predict_on_batch(padded), np.float32)[:count])
        return np.concatenate(guesses)

    return guess_points(guess, views, model.backbone.patch)


def guess_points(
    guess: Callable[[dict[str, Array]], Array],
    views: dict[str, dict[str, Array]],
    patch: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    """Errors of anything that fills views in, under every condition: see `reconstruction_points`.

    Args:
        guess: Callable from a view to the whole channel in the angle-delay domain, at the scale of
            the view: such as those of `lwmt_sionna.baselines.reconstruction`.
        views: What `draw_views` returns.
        patch: Bins per token in angle and delay.
    """
    for name, view in views.items():
        error, power = _token_sums(view, guess(view), patch)
        # Sequences whose hidden tokens hold a thousandth of the mean power or less say nothing.
        mean = np.mean(view["target"] ** 2, axis=(1, 2, 3, 4)) * view["wanted"].sum(axis=1)
        mean = mean * 2 * patch[0] * patch[1]
        seen = power > 1e-3 * mean
        yield {
            "condition": name,
            **summarize_errors(error[seen], power[seen]),
            "nmse_log_mean_db": float(to_db(error[seen] / power[seen]).mean()),
            "num_without_power": int((~seen).sum()),
        }


def _token_sums(view, guess, patch):
    """Squared errors and powers of the wanted tokens, float64 `[num_sequences]` each."""
    wanted = view["wanted"].astype(np.float64)
    target = np.asarray(patchify(view["target"], patch), np.float64)
    error = target - np.asarray(patchify(guess, patch), np.float64)
    return tuple(np.sum(wanted * np.sum(v**2, axis=-1), axis=1) for v in (error, target))
