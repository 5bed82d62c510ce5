"""Mixtures of masks and impairments that change as training goes on."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.masking import impairments, masks
from lwmt_sionna.masking.draws import Draws, Seed
from lwmt_sionna.ops.angle_delay import angle_delay_transform
from lwmt_sionna.ops.patches import patchify, token_grid
from lwmt_sionna.runs.configuration import Config
from lwmt_sionna.typing import Tensor

__all__ = ["IMPAIRMENTS", "MASKS", "Curriculum", "Ingredient"]

MASKS: dict[str, Callable[..., Tensor]] = {
    "random": masks.random_mask,
    "tube": masks.tube_mask,
    "occlusion": masks.occlusion_mask,
    "time_comb": masks.time_comb_mask,
    "subcarrier_comb": masks.subcarrier_comb_mask,
    "antenna_comb": masks.antenna_comb_mask,
    "tail": masks.tail_mask,
}
# In the order in which a receiver meets them.
IMPAIRMENTS: dict[str, Callable[..., Tensor]] = {
    "calibration": impairments.antenna_calibration_error,
    "timing": impairments.timing_offset,
    "phase": impairments.common_phase_error,
    "gain": impairments.gain_error,
    "noise": impairments.measurement_noise,
    "quantization": impairments.quantization,
    "dropped": impairments.dropped_reports,
}
_MEASUREMENT_MASKS = ("subcarrier_comb", "antenna_comb")
_DEFAULT_MASKS = {
    "random": {"weight": [[0.0, 1.0], [0.5, 0.25]]},
    "tube": {"weight": 0.25},
    "occlusion": {"weight": 1.0, "severity": [[0.0, 0.25], [0.5, 1.0]]},
    "time_comb": {"weight": 0.5, "severity": [[0.0, 0.0], [0.5, 1.0]]},
    "subcarrier_comb": {"weight": 0.5, "severity": [[0.0, 0.0], [0.5, 1.0]]},
    "antenna_comb": {"weight": 0.5, "severity": [[0.0, 0.0], [0.5, 1.0]]},
    "tail": {"weight": [[0.0, 0.5], [1.0, 2.0]], "severity": [[0.0, 0.2], [0.5, 1.0]]},
}
_DEFAULT_IMPAIRMENTS = {
    "calibration": {"weight": 0.25},
    "timing": {"weight": 0.25},
    "phase": {"weight": 0.25},
    "gain": {"weight": 0.25},
    "noise": {"weight": 1.0, "severity": [[0.0, 0.3], [0.5, 1.0]]},
    "quantization": {"weight": 0.25},
    "dropped": {"weight": 0.25},
}


# A number, or knots ((progress, value), ...) between which it changes linearly.
Schedule = float | tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Ingredient(Config):
    """One mask or impairment of a curriculum.

    Attributes:
        weight: Weight in the mixture (masks) or probability (impairments): a number, or knots
            `((progress, value), ...)` between which it changes linearly.
        severity: Part of the ranges that is drawn from, in [0, 1]; a number or knots.
        settings: Further arguments of the function.
    """

    weight: Schedule = 1.0
    severity: Schedule = 1.0
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "severity"):
            knots = _knots(name, getattr(self, name))
            object.__setattr__(self, name, knots)
            if name == "severity" and max(v for _, v in knots) > 1:
                raise ValueError(f"severity must lie in [0, 1]. Received: severity={knots}")


@dataclasses.dataclass(frozen=True)
class Curriculum(Config):
    """Mixes masks and impairments by a schedule.

    Every sample gets one mask, drawn by the weights of the moment, and each impairment with its
    probability. Weights and severities follow the progress of the training from 0 to 1.

    Attributes:
        masks: Dictionary from a name of `MASKS` to an `Ingredient`, or to its fields and the
            function's arguments in one table, as TOML has it. A default mixture of all if left out.
        impairments: The same for `IMPAIRMENTS`.
    """

    masks: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(_DEFAULT_MASKS))
    impairments: dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(_DEFAULT_IMPAIRMENTS)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in (("masks", MASKS), ("impairments", IMPAIRMENTS)):
            given = getattr(self, field)
            ingredients = {name: _ingredient(field, name, given[name], known) for name in given}
            # The order of the file must not decide the draws.
            ordered = {name: ingredients[name] for name in known if name in ingredients}
            object.__setattr__(self, field, ordered)
        if not self.masks:
            raise ValueError("masks must name at least one mask. Received: masks={}")
        knots = {progress for i in self.masks.values() for progress, _ in i.weight}
        for progress in sorted(knots | {0.0, 1.0}):
            if sum(_value(i.weight, progress) for i in self.masks.values()) <= 0:
                raise ValueError(f"The weights of all masks vanish at progress {progress}")
        for name, ingredient in self.impairments.items():
            if max(v for _, v in ingredient.weight) > 1:
                raise ValueError(
                    "The weight of an impairment is a probability; expected at most 1. Received: "
                    f"{name}.weight={ingredient.weight}"
                )

    def without(self, *names: str) -> "Curriculum":
        """The curriculum without some masks or impairments, for ablations.

        Raises:
            ValueError: If a name is not part of the curriculum.
        """
        unknown = sorted(set(names) - set(self.masks) - set(self.impairments))
        if unknown:
            raise ValueError(
                f"The curriculum has no such ingredients; expected some of "
                f"{', '.join([*self.masks, *self.impairments])}. Received: {', '.join(unknown)}"
            )
        return Curriculum(
            masks={n: i for n, i in self.masks.items() if n not in names},
            impairments={n: i for n, i in self.impairments.items() if n not in names},
        )

    def only(self, *names: str) -> "Curriculum":
        """The curriculum with the named masks alone, impairments as they are."""
        return self.without(*(n for n in self.masks if n not in names))

    def shares(self, progress: float) -> dict[str, dict[str, float]]:
        """Probability of every mask and impairment at a moment.

        Args:
            progress: Number in [0, 1].

        Returns:
            Dictionary of two dictionaries, `"masks"` (they sum to 1) and `"impairments"`.
        """
        weights = {n: _value(i.weight, progress) for n, i in self.masks.items()}
        total = sum(weights.values())
        return {
            "masks": {n: w / total for n, w in weights.items()},
            "impairments": {n: _value(i.weight, progress) for n, i in self.impairments.items()},
        }

    def view(
        self,
        h: Tensor,
        seed: Seed,
        progress: Tensor,
        patch: tuple[int, int] = (1, 1),
        array_shape: tuple[int, int, int] | None = None,
    ) -> dict[str, Tensor]:
        """What a model gets to see of true channels, and what it should say about the rest.

        Args:
            h: True channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
            seed: Integer or `keras.random.SeedGenerator`.
            progress: Progress of the training in [0, 1], a number or a scalar tensor.
            patch: Bins per token in angle and delay.
            array_shape: Number of rows, columns and polarisations; a linear array if `None`.

        Returns:
            Dictionary of `observed`, the impaired channel in the angle-delay domain, real `[batch,
            num_snapshots, num_angle, num_delay, 2]`, whose visible part has a root mean square of
            one; `target`, the true channel at the same scale; `hidden`, bool `[batch, num_tokens]`,
            tokens that the model must not see; `wanted`, bool `[batch, num_tokens]`, tokens that
            the loss counts: the hidden ones, or all where measurements are missing; `missing`, bool
            `[batch, num_snapshots, num_ant, num_subcarriers]`, measurements that there are none of;
            and `mask`, int32 `[batch]`, which of the curriculum's masks it is.
        """
        h, draws = ops.convert_to_tensor(h), Draws(seed)
        batch_size = ops.shape(h)[0]
        measured = self._impair(h, draws, progress)
        grid = token_grid(tuple(h.shape[1:4]), patch)
        num_tokens = grid[0] * grid[1] * grid[2]
        clean = angle_delay_transform(h, array_shape)
        chosen = self._choose(draws, batch_size, progress)
        energy = ops.sum(ops.square(patchify(clean, patch)), axis=-1)
        energy = ops.sum(ops.reshape(energy, (-1, *grid)), axis=1)
        hidden = ops.zeros((batch_size, num_tokens), dtype="bool")
        wanted = ops.zeros((batch_size, num_tokens), dtype="bool")
        missing = ops.zeros((batch_size, *h.shape[1:4]), dtype="bool")
        for index, (name, ingredient) in enumerate(self.masks.items()):
            mine = ops.equal(chosen, index)
            options = dict(ingredient.settings, severity=_schedule(ingredient.severity, progress))
            if name == "occlusion":
                options["energy"] = energy
            shape = tuple(h.shape[1:4]) if name in _MEASUREMENT_MASKS else grid
            mask = MASKS[name](draws.child(), batch_size, shape, **options)
            if name in _MEASUREMENT_MASKS:
                missing = missing | (mask & mine[:, None, None, None])
                wanted = wanted | mine[:, None]
            else:
                mask = ops.reshape(mask, (-1, num_tokens)) & mine[:, None]
                hidden, wanted = hidden | mask, wanted | mask
        measured = ops.where(missing[..., None], ops.zeros_like(measured), measured)
        observed = angle_delay_transform(measured, array_shape)
        # The scale follows from what is visible: nothing hidden may enter.
        power = ops.sum(ops.square(patchify(observed, patch)), axis=-1)
        visible = ops.cast(ops.logical_not(hidden), power.dtype)
        bins = ops.sum(visible, axis=1) * (patch[0] * patch[1])
        mean = ops.sum(visible * power, axis=1) / ops.maximum(bins, 1.0)
        scale = 1.0 / ops.sqrt(ops.where(mean > 0, mean, ops.ones_like(mean)))
        scale = scale[:, None, None, None, None]
        return {
            "observed": observed * scale,
            "target": clean * scale,
            "hidden": hidden,
            "wanted": wanted,
            "missing": missing,
            "mask": chosen,
        }

    def _impair(self, h, draws, progress):
        for name, ingredient in self.impairments.items():
            probability = _schedule(ingredient.weight, progress)
            happens = draws.uniform((ops.shape(h)[0],)) < probability
            impaired = IMPAIRMENTS[name](
                h,
                draws.child(),
                severity=_schedule(ingredient.severity, progress),
                **ingredient.settings,
            )
            h = ops.where(ops.reshape(happens, (-1, 1, 1, 1, 1)), impaired, h)
        return h

    def _choose(self, draws, batch_size, progress):
        """Index of the mask of every sample, int32 `[batch]`."""
        weights = [_schedule(i.weight, progress) for i in self.masks.values()]
        ends = list(itertools.accumulate(weights))
        place = draws.uniform((batch_size,)) * ends[-1]
        passed = sum(ops.cast(place >= end, "int32") for end in ends[:-1])
        # One mask alone: there is nothing to pass.
        return ops.zeros((batch_size,), dtype="int32") + passed


def _ingredient(field, name, value, known):
    if name not in known:
        raise ValueError(
            f"Unknown name in {field}; expected some of {', '.join(known)}. Received: {name}"
        )
    if isinstance(value, Ingredient):
        return value
    value = dict(value)
    settings = {**value.pop("settings", {})}
    options = {key: value.pop(key) for key in ("weight", "severity") if key in value}
    settings |= value
    accepted = set(inspect.signature(known[name]).parameters)
    accepted -= {"h", "seed", "batch_size", "grid", "energy", "severity"}
    unknown = sorted(set(settings) - accepted)
    if unknown:
        raise ValueError(
            f"Unknown settings of {name}; expected some of "
            f"{', '.join(['weight', 'severity', *sorted(accepted)])}. Received: "
            f"{', '.join(unknown)}"
        )
    return Ingredient(settings=settings, **options)


def _knots(name, value):
    knots = ((0.0, value),) if isinstance(value, float) else value
    places = [progress for progress, _ in knots]
    if (
        not knots
        or places != sorted(set(places))
        or not all(0 <= p <= 1 for p in places)
        or min(level for _, level in knots) < 0
    ):
        raise ValueError(
            f"{name} must be a number of at least 0, or knots [[progress, value], ...] with "
            f"progress ascending in [0, 1]. Received: {name}={value}"
        )
    return knots


def _value(knots, progress):
    """Linear interpolation of knots at a Python number."""
    return float(np.interp(progress, *zip(*knots)))


def _schedule(knots, progress):
    """Linear interpolation of knots at a number or a scalar tensor."""
    if isinstance(progress, (int, float)):
        return _value(knots, progress)
    progress = keras.ops.cast(progress, "float32")
    value = knots[0][1]
    for (p0, v0), (p1, v1) in itertools.pairwise(knots):
        value = value + (v1 - v0) * ops.clip((progress - p0) / (p1 - p0), 0.0, 1.0)
    return value
