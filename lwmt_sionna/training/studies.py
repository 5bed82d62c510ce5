"""Experiments of many trainings: resumable, one folder per training, a record after each."""

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lwmt_sionna.baselines import ModelPredictor, Predictor
from lwmt_sionna.data import ChannelSequences, PathSequences
from lwmt_sionna.evaluation import evaluate_paths
from lwmt_sionna.masking import Curriculum
from lwmt_sionna.models import MaskedChannelModel
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.prediction import TrainConfig, as_predictor
from lwmt_sionna.training.pretraining import PretrainConfig
from lwmt_sionna.training.reconstruction import draw_views, reconstruction_points
from lwmt_sionna.training.sources import synthesize_grid
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

Points = list[dict[str, Any]]

__all__ = [
    "ablations",
    "check_horizons",
    "prediction_points",
    "reconstruction_study_points",
    "run_tasks",
    "thin_out",
]


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
    """The contestants of the study of masks.

    Args:
        config: `PretrainConfig` with the whole curriculum.

    Returns:
        Dictionary from name to `PretrainConfig`: the curriculum, random masks with the same
        impairments and with none, and the curriculum without each mask, without noise and without
        all impairments. Most telling first, so that a study that was stopped says most.
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

    Returns:
        List of flat dictionaries.
    """
    points = []
    for name, paths in test_sets.items():
        if name not in cache:
            h = synthesize_grid(paths, grid, bandwidth)
            cache[name] = draw_views(h, conditions, model.backbone.patch)
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

    Args:
        config: `TrainConfig`.
        horizons: Horizons to report.

    Raises:
        ValueError: If it is not made for one of them.
    """
    most = getattr(config.build(), "num_horizons", config.predictor.num_horizons)
    if not all(1 <= horizon <= most for horizon in horizons):
        raise ValueError(f"horizons: expected 1 to {most}. Received: horizons={list(horizons)}")


def thin_out(test_sets: dict[str, PathSequences], most: int, seed: int) -> dict[str, PathSequences]:
    """Draws a part of test sets that are larger than need be.

    Args:
        test_sets: Dictionary from a name to `PathSequences`.
        most: Most sequences to keep of each.
        seed: Seed of the draw.

    Returns:
        Dictionary like `test_sets`.
    """
    rng = np.random.default_rng(seed)
    thinned = {}
    for name, paths in test_sets.items():
        chosen = np.sort(rng.permutation(paths.num_sequences)[:most])
        thinned[name] = paths.select(chosen) if len(chosen) < paths.num_sequences else paths
    return thinned
