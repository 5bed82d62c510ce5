"""Experiments of many trainings: resumable, one folder per training, a record after each."""

import json
import logging
import pathlib

import numpy as np

from lwmt_sionna.baselines import ModelPredictor
from lwmt_sionna.data import PlanarArray, subcarrier_frequencies
from lwmt_sionna.evaluation import evaluate_paths
from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.training.finetuning import as_predictor
from lwmt_sionna.training.reconstruction import draw_views, reconstruction_points
from lwmt_sionna.training.sources import synthesize_grid

logger = logging.getLogger(__name__)

__all__ = ["ablations", "prediction_points", "reconstruction_study_points", "run_tasks", "thin_out"]


def run_tasks(tasks, folder, write):
    """Runs what has not been run yet, and writes the record after every task.

    Args:
        tasks: Dictionary from a name to a callable from the task's folder to its points, a list of
            flat dictionaries.
        folder: Folder of all tasks.
        write: Callable from all points so far to nothing: writes the record.

    Returns:
        All points, in the order of the tasks.
    """
    folder = pathlib.Path(folder)
    points = []
    for index, (name, work) in enumerate(tasks.items(), start=1):
        note = folder / name / "points.json"
        if note.is_file():
            points += json.loads(note.read_text(encoding="utf-8"))
            continue
        logger.info("%d of %d: %s", index, len(tasks), name)
        new = work(folder / name)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(new, indent=1), encoding="utf-8")
        points += new
        write(points)
    write(points)
    return points


def ablations(config):
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


def reconstruction_study_points(model, test_sets, grid, bandwidth, conditions, cache):
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


def prediction_points(model, config, test_sets, snr_db=15.0, horizons=(1, 3, 5)):
    """Errors of a predictor on several test sets, with the noise that all contestants get.

    Args:
        model: What `finetune` returns, or any predictor of `lwmt_sionna.baselines`.
        config: `FinetuneConfig`.
        test_sets: Dictionary from a name to `PathSequences`.
        snr_db: Pilot SNR of the histories in decibels.
        horizons: Horizons to report.

    Returns:
        List of flat dictionaries, one per test set, horizon and subset (`"event_free"`, `"all"`).
    """
    predictor = model
    if hasattr(model, "backbone"):
        predictor = ModelPredictor(as_predictor(model, config), batch_size=64, num_threads=1)
    array = PlanarArray(1, config.num_ant)
    spacing = config.bandwidth / config.num_subcarriers
    frequencies = subcarrier_frequencies(config.num_subcarriers, spacing)
    points = []
    for name, paths in test_sets.items():
        for point in evaluate_paths(
            {"model": predictor},
            paths,
            array,
            frequencies,
            history_snr_db=snr_db,
            num_history=config.num_history,
            num_horizons=config.num_horizons,
        ):
            if point["horizon"] in horizons and point["subset"] in ("event_free", "all"):
                del point["predictor"]
                points.append({"test_set": name, **point})
    return points


def thin_out(test_sets, most, seed):
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
