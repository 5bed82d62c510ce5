"""What physics says about the future, before any network: forecasts in the angle-delay domain."""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform
from lwmt_sionna.ops.compiled import piece
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    least_squares_coefficients,
    noise_power,
    prediction_error,
)
from lwmt_sionna.ops.path_fit import PathFit
from lwmt_sionna.ops.stacking import stack_forecasts
from lwmt_sionna.typing import Array, Tensor

__all__ = ["Forecasts", "Physics"]

Pairs = tuple[tuple[int, int], ...]

# Weights of the experts before a history is seen: of the paths, and of the linear predictions of
# what they leave, all together. Those of the whole history have none: before and after the birth of
# a path it is not one process.
_PATHS, _REST = 0.9, 0.1
# Higher orders of linear prediction are cut to what a short history allows.
_SURE_ORDER = 8


class Forecasts(NamedTuple):
    """Forecasts of a history, and what a network may want to know about them; without gradient.

    Attributes:
        observed: The last snapshots as measured, real `[batch, context, angle, delay, 2]`.
        clean: The same as understood.
        forecasts: Real `[batch, expert, horizon, angle, delay, 2]`: by what those of the experts
            differ from the starting point, as far as the history is evidence of them (see
            `lwmt_sionna.ops.stacking`), and, last, the starting point. Without a backtest that
            is the paths' forecast, and those of linear predictions of what the paths leave stand as
            they are; where there are no paths it is the last expert's, and all stand as they are.
        misfit: Real `[batch, angle, delay, misfit]`: power of the experts' errors in held-out
            snapshots. Without a backtest, over the context, of the one-step errors of each linear
            prediction. Last, with paths, what these leave over the context (with experts of the
            whole history, and no backtest, of the last two snapshots as well).
        noise: Its power per bin, real `[batch]`.
    """

    observed: Tensor
    clean: Tensor
    forecasts: Tensor
    misfit: Tensor
    noise: Tensor

    @property
    def start(self) -> Tensor:
        """The starting point of a network, real `[batch, horizon, angle, delay, 2]`."""
        return self.forecasts[:, -1]


@dataclasses.dataclass(frozen=True)
class Physics:
    """Forecasts without weights.

    Without paths, every bin is denoised with its neighbours and continued by linear predictions of
    several memories. With paths, the history is first resolved into moving paths, each continued by
    its own motion (`lwmt_sionna.ops.path_fit`); what they leave is continued by the linear
    predictions. The last forecast is the starting point of a network.

    With a backtest, every expert also forecasts the last snapshots of the history from those
    before, and the starting point is the mix of experts that would have foreseen these best, patch
    by patch (`lwmt_sionna.ops.stacking`): whichever world the history comes from, it is about as
    good as the best of them, and predicts little where none of them foresees anything.

    Args:
        num_horizons: Number of snapshots to forecast.
        experts: Pairs (window, order) of the linear predictions, at least one. Orders above 8 are
            cut to what a short history allows.
        context: Number of the most recent snapshots to return.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        num_paths: Largest number of paths to resolve; 0 for linear prediction alone.
        whole_experts: Pairs (window, order) of linear predictions of the whole history beside the
            paths; only with paths.
        least_squares: Pairs (window, order) of linear predictions of the whole history by least
            squares, in place of Burg's method, of at most four times the history's power; only with
            paths. Where rays are many and noise is faint, these see more of them.
        backtest: Number of snapshots that are held out; 0 for no backtest.
        array_shape: Number of rows, columns and polarisations, which paths are resolved by; a
            linear array if left out.
        first_delay: First delay bin, where these are truncated.

    Call arguments:
        x: History in the angle-delay domain, scaled to a root mean square near one, real `[batch,
            time, angle, delay, 2]`.
        num_subcarriers: Number of subcarriers, for the paths, where delays are truncated. Defaults
            to the number of delay bins.
        arrived: Which snapshots were measured, bool `[batch, time]`, and not filled in; all if
            `None`. A backtest is judged by these alone.

    Raises:
        ValueError: If a number or a pair is impossible, or they do not fit together.
    """

    num_horizons: int = 5
    experts: Pairs = ((6, 2), (10, 4), (16, 2), (16, 4), (16, 6))
    context: int = 4
    denoise_radius: int = 2
    num_paths: int = 0
    whole_experts: Pairs = ()
    least_squares: Pairs = ()
    backtest: int = 0
    array_shape: tuple[int, int, int] | None = None
    first_delay: int = 0

    def __post_init__(self) -> None:
        for name in ("num_horizons", "context", "denoise_radius", "num_paths", "backtest"):
            value, least = getattr(self, name), int(name in ("num_horizons", "context"))
            if int(value) != value or value < least:
                raise ValueError(
                    f"`{name}` must be an integer of at least {least}. Received: {name}={value}"
                )
            object.__setattr__(self, name, int(value))
        for name in ("experts", "whole_experts", "least_squares"):
            pairs = tuple((int(window), int(order)) for window, order in getattr(self, name))
            if any(not 0 < order < window for window, order in pairs):
                raise ValueError(
                    f"`{name}` must be pairs (window, order) with 0 < order < window. Received: "
                    f"{name}={pairs}"
                )
            object.__setattr__(self, name, pairs)
        if not self.experts:
            raise ValueError("`experts` must not be empty. Received: experts=()")
        for name in ("whole_experts", "least_squares"):
            if getattr(self, name) and not self.num_paths:
                raise ValueError(
                    f"`{name}` stand beside paths: they need `num_paths`. Received: "
                    f"{name}={getattr(self, name)}, num_paths={self.num_paths}"
                )

    @property
    def shortest(self) -> int:
        """Fewest snapshots of a history."""
        longest = max(order for _, order in (*self.experts, *self._whole))
        return max(self.context, min(longest, _SURE_ORDER) + 1 + self.backtest)

    @property
    def num_experts(self) -> int:
        """Number of experts."""
        return len(self.experts) + len(self._whole) + (self.num_paths > 0)

    @property
    def num_forecasts(self) -> int:
        """Number of forecasts per bin and horizon."""
        return self.num_experts + (self.backtest > 0)

    @property
    def num_misfits(self) -> int:
        """Number of misfits per bin."""
        if self.backtest:
            return self.num_experts + (self.num_paths > 0)
        return self.num_experts + bool(self._whole)

    @property
    def _whole(self):
        """Pairs of all linear predictions of the whole history."""
        return self.whole_experts + self.least_squares

    def __call__(
        self, x: Tensor, num_subcarriers: int | None = None, arrived: Tensor | None = None
    ) -> Forecasts:
        x = ops.stop_gradient(x)
        num_subcarriers = x.shape[3] if num_subcarriers is None else num_subcarriers
        if self.backtest:
            forecasts = self._stack(x, num_subcarriers, arrived)
        else:
            forecasts = self._list(x, num_subcarriers)
        return Forecasts(*(ops.stop_gradient(value) for value in forecasts))

    def _list(self, x, num_subcarriers):
        """`Forecasts` of the experts as they are, of which the last is the starting point."""
        rest = x
        if self.num_paths:
            ahead, rest, _ = self._resolve(x, num_subcarriers)
        noise = noise_power(rest)
        clean = denoise(rest, radius=self.denoise_radius, noise=noise)
        forecasts, misfit = self._continue(clean, self.experts)
        if self._whole:
            whole = denoise(x, radius=self.denoise_radius, noise=noise)
            others, errors = self._continue(whole, self.whole_experts, self.least_squares)
            forecasts += [other - ahead for other in others]
            misfit += errors
        if self.num_paths:
            forecasts.append(ahead)
            misfit.append(_mean_power(rest[:, -self.context :]))
            clean = clean + (x - rest)
            if self._whole:
                misfit.append(_mean_power(rest[:, -min(2, self.context) :]))
        return self._gather(x, clean, forecasts, misfit, noise)

    def _stack(self, x, num_subcarriers, arrived):
        """`Forecasts` that say by what the experts differ from the mix that is backtested best."""
        held = self.backtest
        rest, found = x, 0.0
        experts, tested = [], []
        if self.num_paths:
            ahead, rest, back = self._resolve(x, num_subcarriers)
            experts.append(ahead)
            tested.append(back)
            found = x - rest
        noise = noise_power(rest)
        # What paths leave, and the whole history where it has experts: one program for both.
        lists = [self.experts, self.whole_experts][: 1 + bool(self._whole)]
        histories = ops.concatenate([rest, x][: len(lists)], axis=0)
        clean, futures = self._continue_all(histories, lists, noise, self.num_horizons)
        _, backs = self._continue_all(histories[:, :-held], lists, noise, held)
        if self.num_paths:
            futures[0] = [ahead + future for future in futures[0]]
            backs[0] = [back + one for one in backs[0]]
        experts += itertools.chain(*futures)
        tested += itertools.chain(*backs)
        judges = ops.ones_like(x[:, -held:, 0, 0, 0]) if arrived is None else arrived[:, -held:]
        return self._mix(x, rest, clean + found, experts, tested, noise, judges)

    @piece
    def _mix(self, x, rest, clean, experts, tested, noise, arrived):
        """`Forecasts` of experts: lists of what they say of the future and of what is held out."""
        held = self.backtest
        experts = ops.stack(experts, axis=1)
        resolved = {}
        if self.num_paths:
            count = 1 + len(self.experts)
            resolved = {"left": rest[:, -held:], "noise": noise, "num_models": count}
        start, errors, evidence = stack_forecasts(
            ops.stack(tested, axis=1),
            x[:, -held:],
            experts,
            self._prior(),
            arrived,
            **resolved,
        )
        misfit = [errors[..., e] for e in range(self.num_experts)]
        if self.num_paths:
            misfit.append(_mean_power(rest[:, -self.context :]))
        # A network may leave the start as far as there is evidence of the future in the past.
        differences = [evidence * (experts[:, e] - start) for e in range(self.num_experts)]
        return self._gather(x, clean, [*differences, start], misfit, noise)

    def _prior(self) -> Array:
        """Weights of the experts before a history is seen, float32 `[horizon, expert]`."""
        weights = np.full(len(self.experts), _REST / len(self.experts))
        if self.num_paths:
            weights = np.concatenate([[_PATHS], weights, np.zeros(len(self._whole))])
        weights = weights / weights.sum()
        return np.tile(weights.astype("float32"), (self.num_horizons, 1))

    def _gather(self, x, clean, forecasts, misfit, noise):
        return Forecasts(
            x[:, -self.context :],
            clean[:, -self.context :],
            ops.stack(forecasts, axis=1),
            ops.stack(misfit, axis=-1),
            noise,
        )

    def _continue(self, clean, experts, least_squares=()):
        """Linear predictions of several memories and the power of their one-step errors."""
        taps = _coefficients(clean, experts), _least_squares(clean, least_squares)
        return self._continue_by(clean, *taps)

    @piece
    def _continue_by(self, clean, *kinds):
        forecasts, misfit = [], []
        for kind, coefficients in enumerate(kinds):
            for taps in coefficients:
                forecasts.append(extrapolate(clean, taps, self.num_horizons, bounded=kind > 0))
                seen = min(self.context, clean.shape[1] - len(taps))
                misfit.append(prediction_error(clean, taps, seen))
        return forecasts, misfit

    def _continue_all(self, histories, lists, noise, num_horizons):
        """Linear predictions of histories that follow each other in the batch, a list for each.

        The last one may have some by least squares besides. Returns the first history, denoised,
        and the lists.
        """
        count = len(lists)
        clean = denoise(histories, radius=self.denoise_radius, noise=ops.tile(noise, count))
        taps = _coefficients(clean, sum(lists, ()))
        clean, forecasts = self._continue_lists(clean, taps, lists, num_horizons)
        if self.least_squares:
            taps = _least_squares(clean[-1], self.least_squares)
            forecasts[-1] = forecasts[-1] + self._continue_bounded(clean[-1], taps, num_horizons)
        return clean[0], forecasts

    @piece
    def _continue_lists(self, clean, taps, lists, num_horizons):
        count, taps = len(lists), iter(taps)
        clean = ops.split(clean, count)
        forecasts = []
        for place, pairs in enumerate(lists):
            own = [
                [tap.map(lambda m, place=place: ops.split(m, count)[place]) for tap in next(taps)]
                for _ in pairs
            ]
            forecasts.append([extrapolate(clean[place], each, num_horizons) for each in own])
        return clean, forecasts

    @piece
    def _continue_bounded(self, clean, taps, num_horizons):
        return [extrapolate(clean, each, num_horizons, bounded=True) for each in taps]

    def _resolve(self, x, num_subcarriers):
        """Forecasts of the resolved paths, what they leave, and their held-out snapshots."""
        shape, delays = self.array_shape, (x.shape[3], self.first_delay)
        fit = _path_fit(*x.shape[1:3], num_subcarriers, self.num_paths, shape, *delays)
        h = inverse_angle_delay_transform(x, shape, num_subcarriers, self.first_delay)
        if self.backtest:
            parts = fit.backtested(h, self.num_horizons, self.backtest)
        else:
            parts = fit.continued(h, self.num_horizons)
        parts = [angle_delay_transform(part, shape, *delays) for part in parts]
        return parts if self.backtest else (*parts, None)


@functools.lru_cache(maxsize=16)
def _path_fit(num_snapshots, num_ant, num_subcarriers, num_paths, shape, num_delay, first_delay):
    """One object for all calls of a shape: what is compiled of it is kept by it."""
    return PathFit(
        num_snapshots,
        num_ant,
        num_subcarriers,
        num_paths,
        array_shape=shape,
        num_delay=num_delay,
        first_delay=first_delay,
    )


def _mean_power(x):
    """Mean over time of the power of every bin, `[batch, angle, delay]`."""
    return ops.mean(ops.sum(ops.square(x), axis=-1), axis=1)


def _coefficients(clean, experts):
    """Coefficients of linear predictions of several memories, a list of `ComplexPair` for each."""
    pairs = _allowed(clean, experts)
    fitted = {}
    for window in sorted({window for window, _ in pairs}):
        orders = sorted({order for w, order in pairs if w == window})
        found = burg_coefficients(clean[:, -window:], orders)
        fitted |= zip(((window, order) for order in orders), found, strict=True)
    return [fitted[pair] for pair in pairs]


def _least_squares(clean, experts):
    """The same by least squares."""
    return [
        least_squares_coefficients(clean[:, -window:], order)
        for window, order in _allowed(clean, experts)
    ]


def _allowed(clean, experts):
    """Pairs of window and order as far as the history allows them."""
    windows = [min(window, clean.shape[1]) for window, _ in experts]
    return [(w, min(order, w - 1)) for w, (_, order) in zip(windows, experts, strict=True)]
