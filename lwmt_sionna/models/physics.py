"""What physics says about the future, before any network: forecasts in the angle-delay domain."""

import dataclasses
from typing import NamedTuple

from keras import ops

from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    noise_power,
    prediction_error,
)
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.typing import Tensor

__all__ = ["Forecasts", "Physics"]

Pairs = tuple[tuple[int, int], ...]


class Forecasts(NamedTuple):
    """Forecasts of a history, and what a network may want to know about them; without gradient.

    Attributes:
        observed: The last snapshots as measured, real `[batch, context, angle, delay, 2]`.
        clean: The same as understood.
        forecasts: Real `[batch, expert, horizon, angle, delay, 2]`: of the linear predictions, by
            what those of the whole history differ from the paths, and, last, of the paths.
        misfit: Real `[batch, angle, delay, expert]`: power over the context of the one-step errors
            of each linear prediction, and of what the paths leave (with experts of the whole
            history that of the last two snapshots as well).
        noise: Its power per bin, real `[batch]`.
    """

    observed: Tensor
    clean: Tensor
    forecasts: Tensor
    misfit: Tensor
    noise: Tensor


@dataclasses.dataclass(frozen=True)
class Physics:
    """Forecasts without weights.

    Without paths, every bin is denoised with its neighbours and continued by linear predictions of
    several memories. With paths, the history is first resolved into moving paths, each continued by
    its own motion (`lwmt_sionna.ops.path_fit`); what they leave is continued by the linear
    predictions. The last forecast is the starting point of a network.

    Args:
        num_horizons: Number of snapshots to forecast.
        experts: Pairs (window, order) of the linear predictions, at least one.
        context: Number of the most recent snapshots to return.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        num_paths: Largest number of paths to resolve; 0 for linear prediction alone.
        whole_experts: Pairs (window, order) of linear predictions of the whole history beside the
            paths; only with paths.

    Call arguments:
        x: History in the angle-delay domain, scaled to a root mean square near one, real `[batch,
            time, angle, delay, 2]`.

    Raises:
        ValueError: If a number or a pair is impossible, or they do not fit together.
    """

    num_horizons: int = 5
    experts: Pairs = ((6, 2), (10, 4), (16, 2), (16, 4), (16, 6))
    context: int = 4
    denoise_radius: int = 2
    num_paths: int = 0
    whole_experts: Pairs = ()

    def __post_init__(self) -> None:
        for name in ("num_horizons", "context", "denoise_radius", "num_paths"):
            value, least = getattr(self, name), int(name in ("num_horizons", "context"))
            if int(value) != value or value < least:
                raise ValueError(
                    f"`{name}` must be an integer of at least {least}. Received: {name}={value}"
                )
            object.__setattr__(self, name, int(value))
        for name in ("experts", "whole_experts"):
            pairs = tuple((int(window), int(order)) for window, order in getattr(self, name))
            if any(not 0 < order < window for window, order in pairs):
                raise ValueError(
                    f"`{name}` must be pairs (window, order) with 0 < order < window. Received: "
                    f"{name}={pairs}"
                )
            object.__setattr__(self, name, pairs)
        if not self.experts:
            raise ValueError("`experts` must not be empty. Received: experts=()")
        if self.whole_experts and not self.num_paths:
            raise ValueError(
                "`whole_experts` stand beside paths: they need `num_paths`. Received: "
                f"whole_experts={self.whole_experts}, num_paths={self.num_paths}"
            )

    @property
    def shortest(self) -> int:
        """Fewest snapshots of a history."""
        return max(self.context, *(o + 1 for _, o in (*self.experts, *self.whole_experts)))

    @property
    def num_forecasts(self) -> int:
        """Number of forecasts per bin and horizon."""
        return len(self.experts) + len(self.whole_experts) + (self.num_paths > 0)

    @property
    def num_misfits(self) -> int:
        """Number of misfits per bin."""
        return self.num_forecasts + bool(self.whole_experts)

    def __call__(self, x: Tensor) -> Forecasts:
        x = ops.stop_gradient(x)
        rest = x
        if self.num_paths:
            ahead, rest = self._resolve(x)
        noise = noise_power(rest)
        clean = denoise(rest, radius=self.denoise_radius, noise=noise)
        forecasts, misfit = self._continue(clean, self.experts)
        if self.whole_experts:
            whole = denoise(x, radius=self.denoise_radius, noise=noise)
            others, errors = self._continue(whole, self.whole_experts)
            forecasts += [other - ahead for other in others]
            misfit += errors
        if self.num_paths:
            forecasts.append(ahead)
            left = ops.sum(ops.square(rest[:, -self.context :]), axis=-1)
            misfit.append(ops.mean(left, axis=1))
            clean = clean + (x - rest)
            if self.whole_experts:
                misfit.append(ops.mean(left[:, -2:], axis=1))
        result = Forecasts(
            x[:, -self.context :],
            clean[:, -self.context :],
            ops.stack(forecasts, axis=1),
            ops.stack(misfit, axis=-1),
            noise,
        )
        return Forecasts(*(ops.stop_gradient(value) for value in result))

    def _continue(self, clean, experts):
        """Linear predictions of several memories and the power of their one-step errors."""
        num_snapshots = clean.shape[1]
        windows = [min(window, num_snapshots) for window, _ in experts]
        coefficients = {}
        for window in sorted(set(windows)):
            orders = [o for (_, o), w in zip(experts, windows, strict=True) if w == window]
            coefficients[window] = burg_coefficients(clean[:, -window:], max(orders))
        forecasts, misfit = [], []
        for window, (_, order) in zip(windows, experts, strict=True):
            taps = coefficients[window][order - 1]
            forecasts.append(extrapolate(clean, taps, self.num_horizons))
            seen = min(self.context, num_snapshots - order)
            misfit.append(prediction_error(clean, taps, seen))
        return forecasts, misfit

    def _resolve(self, x):
        """Forecasts of the resolved paths, and what they leave of the history."""
        fit = PathFit(*x.shape[1:4], num_paths=self.num_paths)
        future, rest = fit.continued(inverse_angle_delay_transform(x), self.num_horizons)
        return angle_delay_transform(future), angle_delay_transform(rest)
