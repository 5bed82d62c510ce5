"""The one way in which channel predictors are judged: from arrays, or from stored paths."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from lwmt_sionna.baselines import ModelPredictor, check_array, told_arrived
from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    PlanarArray,
    add_noise,
    event_mask,
    history_scale,
    synthesize,
    true_channels,
    vanishing_mask,
)
from lwmt_sionna.data.events import may_continue, snapshot_paths
from lwmt_sionna.evaluation.leaks import check_causal
from lwmt_sionna.evaluation.metrics import (
    FLOOR,
    aligned_error,
    normalized_error,
    sgcs,
    summarize_errors,
    to_db,
    zero_forcing_rates,
)
from lwmt_sionna.masking import HardwareConfig
from lwmt_sionna.typing import Array, ArrayLike

# What has a keyword `arrived` is told of lost reports.
Forecast: TypeAlias = Callable[..., Any]
Subset: TypeAlias = Literal["event_free", "events", "quiet", "all"]
#: What knows more than measured channels tell: the future, the future with noise, and the future
#: but for the births and deaths of paths.
CEILINGS = ("perfect", "noisy_perfect", "causal")
SUBSETS: tuple[Subset, ...] = ("event_free", "events", "quiet", "all")


class Trial(NamedTuple):
    """Sequences that predictors are judged on.

    Attributes:
        history: Measured channels, complex64 `[batch, num_history, num_ant, num_subcarriers]`.
        future: True channels, or those through the antenna chains where the hardware says so,
            complex64 `[batch, num_horizons, num_ant, num_subcarriers]`.
        scale: Root mean square of each true history, float64 `[batch]`.
        subsets: Who counts, by subset: bool `[num_horizons, batch]`. `"event_free"` and `"events"`
            are told by the window from the last measured snapshot to the target; `"quiet"` has no
            event from the first measured snapshot on. `"all"` alone where events are unknown.
        groups: Base station of each sequence, `[batch]`.
        labels: What the sequences are, for records.
        sequences: The sequences themselves, in their order, as they are stored.
        arrived: Which reports are known to have arrived, bool `[batch, num_history]`; the others
            repeat the one before.
    """

    history: Array
    future: Array
    scale: Array
    subsets: dict[str, Array]
    groups: Array
    labels: dict[str, Any]
    sequences: PathSequences | ChannelSequences
    arrived: Array


def evaluate(
    predictors: Mapping[str, Forecast],
    history: ArrayLike,
    future: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    subsets: Mapping[str, ArrayLike] | None = None,
    link_snr_db: float | None = None,
    groups: ArrayLike | None = None,
    arrived: ArrayLike | None = None,
) -> list[dict[str, Any]]:
    """Judges predictors on the same histories.

    Args:
        predictors: By name: `lwmt_sionna.baselines.Predictor`, Keras models that predict like
            `ChannelPredictor`, or any callable `(history, num_horizons) -> prediction`. What has a
            keyword `arrived` besides is told of lost reports, as all of the first two are.
        history: Measured channels, the most recent last, complex `[batch, num_snapshots, num_ant,
            num_subcarriers]`, or real with (real, imaginary) as a last axis more.
        future: True channels, without noise, `[batch, num_horizons, num_ant, num_subcarriers]`, in
            either form.
        scale: Root mean square of each true history, float `[batch]`, by which sequences are
            weighed in pooled figures. That of the measured history if `None`, which gives the same
            figures where all have the same signal-to-noise ratio.
        subsets: Who counts, by the subset's name: bool `[batch]` or `[num_horizons, batch]`. All if
            `None`.
        link_snr_db: Link SNR in decibels of the sum rate of groups of four users; no rate if
            `None`.
        groups: Labels of the users that may share a group, `[batch]`; see `zero_forcing_rates`.
        arrived: Which reports are known to have arrived, bool `[batch, num_snapshots]`, the others
            repeating the one before; all if `None`.

    Returns:
        List of flat dictionaries, one per predictor, horizon and subset that holds a sequence with
        power: `predictor`, `horizon` (from 1 on), `subset`, `share` of the sequences, the figures
        of `summarize_errors`, `nmse_aligned_median_db` (see `aligned_error`), `sgcs` and, where
        asked for, `sum_rate` [bit/s/Hz].

    Raises:
        ValueError: If shapes do not fit each other, there is no sequence, or a predictor returns
            what is no prediction.

    Example:

    >>> from lwmt_sionna.baselines import Hold, KalmanPredictor
    >>> points = evaluate({"hold": Hold(), "kalman": KalmanPredictor()}, h[:, :16], h[:, 16:])
    >>> points[0]["nmse_median_db"]
    -3.1
    """
    history, future = _as_complex("history", history), _as_complex("future", future)
    if len(history) != len(future) or history.shape[2:] != future.shape[2:] or not len(history):
        raise ValueError(
            "history and future must be of the same sequences, at least one. Received: "
            f"history.shape={history.shape}, future.shape={future.shape}"
        )
    num_horizons = future.shape[1]
    shape = (num_horizons, len(future))
    scale = history_scale(history).reshape(-1) if scale is None else np.asarray(scale, np.float64)
    everyone = {"all": np.ones(len(future), bool)}
    masks = {
        name: np.broadcast_to(np.asarray(mask, bool), shape)
        for name, mask in (everyone if subsets is None else subsets).items()
    }
    # Users of equal mean power: differences of rates come from the CSI alone.
    unit = history_scale(history)[:, 0]
    points = []
    for name, predictor in predictors.items():
        predicted = _predict(name, _as_forecast(predictor, name), history, future, arrived)
        for index in range(num_horizons):
            guess, truth = predicted[:, index], future[:, index]
            error, power = normalized_error(guess, truth, scale)
            # Its rounding is not that of the error itself: what is exact has no infinity here, too.
            aligned = np.maximum(aligned_error(guess, truth) / scale**2, FLOOR * power)
            similarity = sgcs(guess, truth)
            for subset, mask in masks.items():
                chosen = mask[index]
                seen = chosen & (power > 0)
                if not seen.any():
                    continue
                point = {
                    "predictor": name,
                    "horizon": index + 1,
                    "subset": subset,
                    "share": float(chosen.mean()),
                    **summarize_errors(error[chosen], power[chosen]),
                    "nmse_aligned_median_db": float(to_db(np.median(aligned[seen] / power[seen]))),
                    "sgcs": float(similarity[chosen].mean()),
                }
                if link_snr_db is not None:
                    labels = None if groups is None else np.asarray(groups)[chosen]
                    rates = zero_forcing_rates(
                        (guess / unit)[chosen], (truth / unit)[chosen], link_snr_db, groups=labels
                    )
                    point["sum_rate"] = float(rates.mean()) if len(rates) else None
                points.append(point)
    return points


def evaluate_paths(
    predictors: Mapping[str, Forecast],
    sequences: PathSequences | ChannelSequences,
    array: PlanarArray | None = None,
    frequencies: ArrayLike | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Judges predictors on stored sequences: `draw_trial`, then `evaluate`.

    See there for predictors, array and frequencies; `settings` are the other arguments of
    `draw_trial`, `history_snr_db` among them. Returns the points of `evaluate` with the labels of
    the trial.

    Raises:
        ValueError: If a predictor is made for another array, the sequences are too short, or every
            channel vanishes.
    """
    for name, predictor in predictors.items():
        check_array(predictor, name, array_shape(sequences, array))
    trial = draw_trial(sequences, array, frequencies, **settings)
    points = evaluate(
        predictors,
        trial.history,
        trial.future,
        scale=trial.scale,
        subsets=trial.subsets,
        arrived=trial.arrived,
    )
    return [{**trial.labels, **point} for point in points]


def array_shape(
    sequences: PathSequences | ChannelSequences, array: PlanarArray | None
) -> tuple[int, int, int]:
    """Rows, columns and polarisations of the base station: those of the channels, or of `array`."""
    if isinstance(sequences, ChannelSequences):
        return sequences.array_shape
    if array is None:
        raise ValueError("Channels of paths need an array. Received: array=None")
    return array.shape


def draw_trial(
    sequences: PathSequences | ChannelSequences,
    array: PlanarArray | None = None,
    frequencies: ArrayLike | None = None,
    *,
    history_snr_db: float,
    num_history: int = 16,
    num_horizons: int = 5,
    seed: int = 0,
    hardware: HardwareConfig | None = None,
) -> Trial:
    """Channels of stored sequences, their measured histories, and who meets an event.

    Targets are the true channels, or, where the hardware says so, those through its antenna chains.
    Sequences whose channel vanishes in a snapshot are left out and counted; the others are told
    apart by events, paths that are born or die between the last measured snapshot and the target,
    where paths tell of them. The noise depends on the seed and on the SNR in whole decibels.

    Args:
        sequences: `PathSequences` or `ChannelSequences` of one speed and period.
        array: As the frequencies, see `lwmt_sionna.data.true_channels`.
        history_snr_db: Pilot SNR of the histories in decibels.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        seed: Seed of the noise and of the impairments, which are the same at every SNR.
        hardware: `lwmt_sionna.masking.HardwareConfig`; nothing but noise if `None`.

    Raises:
        ValueError: If the sequences are too short, every channel vanishes, or array or frequencies
            are not those of the stored channels.
    """
    length = num_history + num_horizons
    gone = vanishing(sequences, length)
    sequences = sequences.select(~gone)
    h = true_channels(sequences, array, frequencies, np.arange(length))
    whole_db = int(history_snr_db) % 2**32 if math.isfinite(history_snr_db) else 0
    hardware = HardwareConfig() if hardware is None else hardware
    grid = getattr(sequences, "frequencies", frequencies)

    def measure(channels):
        rng = np.random.default_rng([seed, whole_db])
        return hardware.impair(
            channels[:, :num_history],
            grid,
            float(sequences.sampling_period),
            seed,
            estimate=lambda received: add_noise(received, history_snr_db, rng),
        )

    check_causal(measure, h[:4], num_history)
    history, arrived = measure(h)
    future = hardware.targets(h[:, num_history:], num_history, seed)
    power = np.mean(np.abs(h[:, :num_history]) ** 2, axis=(1, 2, 3), dtype=np.float64)
    labels = {
        "scene": sequences.scene,
        "speed_kmh": _mean(3.6 * sequences.speed, 3),
        "sampling_period_s": round(float(sequences.sampling_period), 9),
        "normalized_doppler": _mean(sequences.normalized_doppler, 4),
        "history_snr_db": float(history_snr_db),
        "num_vanishing": int(gone.sum()),
        "target": hardware.target,
    }
    subsets, groups = event_subsets(sequences, num_history, num_horizons), sequences.bs_index
    return Trial(history, future, np.sqrt(power), subsets, groups, labels, sequences, arrived)


def vanishing(sequences: PathSequences | ChannelSequences, length: int) -> Array:
    """Which sequences have no channel throughout, bool `[num_sequences]`: see `vanishing_mask`.

    Raises:
        ValueError: If all of them, or if they have fewer snapshots than `length`.
    """
    if sequences.num_snapshots < length:
        raise ValueError(
            f"The sequences are too short: expected at least {length} snapshots. Received: "
            f"num_snapshots={sequences.num_snapshots}, scene={sequences.scene}"
        )
    gone = vanishing_mask(sequences)
    if gone.all():
        raise ValueError(
            "No sequence has a channel throughout. Received: "
            f"num_sequences={sequences.num_sequences}, scene={sequences.scene}"
        )
    return gone


def causal_forecast(
    paths: PathSequences | ChannelSequences,
    array: PlanarArray,
    frequencies: ArrayLike,
    num_history: int,
    num_horizons: int,
) -> Array:
    """The causal ceiling: what could be foreseen at best, see `causal_channel`.

    Of all horizons after `num_history` snapshots, complex64 `[num_sequences, num_horizons, num_ant,
    num_subcarriers]`. The sequences are such as `Trial.sequences`.

    Example:

    >>> trial = draw_trial(paths, array, frequencies, history_snr_db=15.0)
    >>> ceiling = causal_forecast(trial.sequences, array, frequencies, 16, 5)
    >>> points = evaluate({"causal": PerfectCsi(ceiling)}, trial.history, trial.future)
    """
    targets = range(num_history, num_history + num_horizons)
    channels = [causal_channel(paths, array, frequencies, num_history - 1, t) for t in targets]
    return np.stack(channels, axis=1)


def causal_channel(
    paths: PathSequences | ChannelSequences,
    array: PlanarArray,
    frequencies: ArrayLike,
    last: int,
    target: int,
) -> Array:
    """A channel as far as it could be foreseen at best from an earlier snapshot.

    Paths that live on (see `event_mask`) are known exactly. Those that die are kept on, for nobody
    sees it coming: with the amplitude that they had, and the phase and delay to which their Doppler
    shift leads. Those that are born are missing. Without births and deaths this is the channel
    itself; no prediction from measured channels alone can be counted on to be better.

    Args:
        paths: Stored paths.
        array: That of the base station.
        frequencies: Subcarrier frequencies in hertz, float `[num_subcarriers]`.
        last: Index of the last measured snapshot.
        target: Index of the snapshot to be predicted.

    Returns:
        complex64 `[num_sequences, num_ant, num_subcarriers]`.

    Raises:
        ValueError: If the sequences are stored as channels.
    """
    if not isinstance(paths, PathSequences):
        raise ValueError(
            "The causal ceiling is told by paths that are born and die; expected stored paths. "
            f"Received: channels of {paths.scene}"
        )
    elapsed = (target - last) * paths.sampling_period
    before, after = snapshot_paths(paths, last), snapshot_paths(paths, target)
    same = may_continue(before, after, elapsed, paths.carrier_frequency)
    valid, tau = paths.valid.copy(), paths.tau.copy()
    valid[:, last] &= ~same.any(axis=2)
    valid[:, target] &= same.any(axis=1)
    tau[:, last] -= before["doppler"] / paths.carrier_frequency * elapsed
    foreseen = dataclasses.replace(paths, valid=valid, tau=tau)
    kept_on = synthesize(foreseen, array, frequencies, times=[elapsed], snapshots=[last])
    return synthesize(foreseen, array, frequencies, snapshots=[target])[:, 0] + kept_on[:, 0, 0]


def _mean(values, digits):
    """Mean of what is known, `None` where nothing is: records hold no NaN."""
    known = values[np.isfinite(values)]
    return round(float(np.mean(known)), digits) if known.size else None


def event_subsets(
    paths: PathSequences | ChannelSequences, num_history: int, num_horizons: int
) -> dict[str, Array]:
    """Which sequences meet an event, by subset and horizon: see `Trial.subsets`."""
    if isinstance(paths, ChannelSequences):
        return {"all": np.ones((num_horizons, paths.num_sequences), bool)}
    steps = [event_mask(paths, t, t + 1) for t in range(num_history - 1)]
    quiet = ~np.any(steps, axis=0) if steps else np.ones(paths.num_sequences, bool)
    last = num_history - 1
    events = np.stack([event_mask(paths, last, last + h) for h in range(1, num_horizons + 1)])
    everyone = np.ones_like(events)
    return dict(zip(SUBSETS, (~events, events, quiet & ~events, everyone), strict=True))


def _as_complex(name, value):
    value = np.asarray(value)
    if not np.iscomplexobj(value) and value.ndim == 5 and value.shape[-1] == 2:
        value = value[..., 0] + 1j * value[..., 1]
    if value.ndim != 4 or not np.iscomplexobj(value):
        raise ValueError(
            f"{name} must be complex [batch, time, num_ant, num_subcarriers], or real with (real, "
            f"imaginary) last. Received: {name}.shape={value.shape}, {name}.dtype={value.dtype}"
        )
    if not np.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinity; expected finite values")
    return value.astype(np.complex64)


def _as_forecast(predictor, name):
    # A Keras model: compiled once, fed in batches of one size.
    if hasattr(predictor, "predict_on_batch"):
        return ModelPredictor(predictor, name)
    return predictor


def _predict(name, predictor, history, future, arrived):
    told = told_arrived(predictor, arrived)
    predicted = _as_complex(name, predictor(history, future.shape[1], **told))
    if predicted.shape != future.shape:
        raise ValueError(
            f"The predictor {name!r} must return channels of shape {future.shape}. Received: "
            f"predicted.shape={predicted.shape}"
        )
    return predicted
