"""Heads of tasks: how they learn, from labels of a new city or, before that, of many others."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from lwmt_sionna.models import LineOfSightClassifier, MaskedChannelModel, TaskModel
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.runs.configuration import NonNegative, Positive, PositiveInt
from lwmt_sionna.runs.store import Store
from lwmt_sionna.training.task_windows import WindowConfig, load_windows
from lwmt_sionna.typing import Array, PathLike

__all__ = ["HeadConfig", "TeachConfig", "teach", "teach_sight"]

_BATCH, _LEAST_STEPS, _PATIENCE = 64, 20, 6


@dataclasses.dataclass(frozen=True)
class HeadConfig(WindowConfig):
    """Windows, and how heads learn from them.

    Attributes:
        steps: Training steps of a head at most; labels that are held out tell when to stop.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW; for all contestants alike, chosen in a city of training.
    """

    steps: PositiveInt = 1500
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-2


@dataclasses.dataclass(frozen=True)
class TeachConfig(HeadConfig):
    """Cities that a head is taught in.

    Attributes:
        files: Tuple of `LabelFile`, of any scenes. The users that are for tests tell when to stop.
        seed: Seed of the head.
    """

    seed: int = 1


def teach(
    solver: TaskModel,
    taught: tuple[Array, Array],
    held: tuple[Array, Array],
    config: HeadConfig,
) -> tuple[Array, Array]:
    """Trains the head of a task until labels that are held out are no longer answered better.

    Args:
        solver: `TaskModel`.
        taught: Features and labels to learn from.
        held: Features and labels that tell when to stop.
        config: `HeadConfig`.

    Returns:
        Mean loss of every answer on what is held out, before and after: `[]`, or `[num_answers]`.
    """
    features, labels = taught
    batch = min(_BATCH, len(features))
    # Epochs of whole batches: others would be compiled for themselves.
    rows = np.resize(
        np.arange(len(features)), batch * max(-(-len(features) // batch), _LEAST_STEPS)
    )
    before = _loss(solver, *held)
    solver.fit_head(
        features[rows],
        labels[rows],
        keras.optimizers.AdamW(config.learning_rate, config.weight_decay),
        batch_size=batch,
        epochs=max(1, config.steps * batch // len(rows)),
        validation_data=held,
        validation_batch_size=len(held[0]),
        callbacks=[keras.callbacks.EarlyStopping(patience=_PATIENCE, restore_best_weights=True)],
        verbose=0,
    )
    return before, _loss(solver, *held)


def _loss(solver, features, labels):
    answers = solver.head(features)
    return keras.ops.convert_to_numpy(solver.errors(labels, answers)).mean(axis=0)


def teach_sight(
    config: TeachConfig,
    preset: PathLike,
    store: Store,
    progress: Callable[[list[Any]], Iterator[Any]] = iter,
) -> tuple[LineOfSightClassifier, list[dict[str, Any]]]:
    """A classifier of the line of sight over a frozen backbone, taught in many cities.

    Args:
        config: `TeachConfig`.
        preset: Name or folder of a `MaskedChannelModel` preset.
        store: See `load_windows`.
        progress: See `load_windows`.

    Returns:
        `LineOfSightClassifier`, and for each file its scene, numbers of users that were learned
        from and not, and the accuracy of the latter.
    """
    keras.utils.set_random_seed(config.seed)
    cities = [
        load_windows(dataclasses.replace(config, files=(f,)), preset, store, progress, _SIGHT)
        for f in config.files
    ]
    task = LineOfSightClassifier(load_preset(preset, MaskedChannelModel))
    task.build()
    teach(task, _all_of(cities, "is_training"), _all_of(cities, "is_test"), config)
    points = []
    for city in cities:
        features = _embeddings(city, city.is_test)
        right = (keras.ops.convert_to_numpy(task.head(features)) > 0) == _sight(city, city.is_test)
        points.append(
            {
                "scene": city.scene,
                "num_training": int(city.is_training.sum()),
                "num_held": len(right),
                "accuracy": float(right.mean()),
            }
        )
    return task, points


_SIGHT = ("embeddings",)


def _all_of(cities, chosen):
    """Features and labels of all cities."""
    parts = [[part(c, getattr(c, chosen)) for c in cities] for part in (_embeddings, _sight)]
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _embeddings(city, chosen):
    return city.embeddings[chosen].astype(np.float32)


def _sight(city, chosen):
    return city.sight[chosen, None]
