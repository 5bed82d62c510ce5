"""The evaluation of channel predictors over regimes and noise, one cell after the other."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from lwmt_sionna.baselines.base import check_array, told_arrived
from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    PlanarArray,
    history_scale,
    interpolate,
    read_sequences,
    retime,
    subcarrier_frequencies,
    vanishing_mask,
)
from lwmt_sionna.data.arrays import Polarization
from lwmt_sionna.data.synthesis import check_polarization
from lwmt_sionna.evaluation.evaluator import (
    CEILINGS,
    SUBSETS,
    Forecast,
    Subset,
    array_shape,
    causal_forecast,
    draw_trial,
    evaluate,
    vanishing,
)
from lwmt_sionna.evaluation.leaks import check_held_out, other_histories, shuffled_histories
from lwmt_sionna.evaluation.metrics import normalized_error, to_db, zero_forcing_rates
from lwmt_sionna.masking import HardwareConfig
from lwmt_sionna.models.presets import DEFAULT_PRESET, preset_digest, preset_folder
from lwmt_sionna.runs import records
from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.store import Store
from lwmt_sionna.typing import Array, PathLike

# Rates, errors per sequence and controls are computed at one pilot SNR.
_RATE_HISTORY_SNR_DB = 15.0
_RATIO_RANGE = (1e-7, 1e3)


@dataclasses.dataclass(frozen=True)
class Regime(Config):
    """Stored sequences, as they are or met at another pace.

    Attributes:
        data: Path of an HDF5 file of paths, or of channels, which are met as they are.
        interpolate: Snapshots per stored snapshot, see `lwmt_sionna.data.interpolate`.
        sampling_period: Time between snapshots in seconds to which the sequences are brought by
            another speed, see `lwmt_sionna.data.retime`; after interpolation. As it is if 0.
        controls: Whether the controls with wrong histories run.
    """

    data: str
    interpolate: PositiveInt = 1
    sampling_period: NonNegative = 0.0
    controls: bool = False


@dataclasses.dataclass(frozen=True)
class GridConfig(Config):
    """What is evaluated.

    Attributes:
        regimes: Tables of `Regime`.
        presets: Names or folders of presets.
        baselines: Names of the training-free baselines; all of them if empty.
        training: HDF5 files that were trained or tuned on: the evaluated must be others.
        history_snr_db: Pilot SNRs of the histories in decibels.
        num_ant: Antennas of the base station, both polarisations counted. Array and subcarriers
            are for paths; stored channels have theirs.
        num_rows: Rows of its array; one makes a line.
        polarization: Polarisation of its array, that of the stored paths; see `PlanarArray`.
        num_subcarriers: Subcarriers.
        subcarrier_spacing: Hertz.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        limit: Sequences per regime at most, the first ones; all if 0.
        subsets: Subsets of sequences that are reported; `"all"` where events are unknown.
        link_snr_db: Link SNRs of the rates in decibels.
        rate_horizons: Horizons of the rates and of the errors per sequence, as far as predicted.
        seed: Seed of noise, impairments and user groups.
        hardware: Table of `lwmt_sionna.masking.HardwareConfig`: what impairs the histories.
    """

    regimes: Annotated[tuple[Regime, ...], FILLED]
    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    baselines: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    history_snr_db: Annotated[tuple[float, ...], FILLED] = (5.0, 15.0, 25.0)
    num_ant: PositiveInt = 32
    num_rows: PositiveInt = 1
    polarization: Polarization = "V"
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: Positive = 540e3
    num_history: PositiveInt = 16
    num_horizons: PositiveInt = 5
    limit: NonNegativeInt = 0
    subsets: tuple[Subset, ...] = SUBSETS
    link_snr_db: tuple[float, ...] = (0.0, 10.0, 20.0)
    rate_horizons: tuple[PositiveInt, ...] = (1, 5)
    seed: NonNegativeInt = 0
    hardware: HardwareConfig = dataclasses.field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        # Said here rather than when the files are read.
        _ = self.array

    @property
    def array(self) -> PlanarArray:
        """The array of the base station."""
        return PlanarArray.of(self.num_ant, self.num_rows, self.polarization)


def load_regime(regime: Regime, config: GridConfig) -> PathSequences | ChannelSequences:
    """Reads the sequences of a regime.

    Raises:
        ValueError: If they are too short, were traced with another number of polarisations, cannot
            be met at the pace, or every channel vanishes. The message names the file.
    """
    sequences = read_sequences(regime.data)
    length = config.num_history + config.num_horizons
    if config.limit:
        sequences = sequences.select(slice(0, config.limit))
    try:
        if isinstance(sequences, PathSequences):
            check_polarization(sequences, config.array)
            if regime.interpolate > 1:
                sequences = interpolate(sequences, regime.interpolate, length)
            if regime.sampling_period:
                sequences = retime(sequences, regime.sampling_period)
        elif regime.interpolate > 1 or regime.sampling_period:
            raise ValueError(
                "Stored channels are met as they are: expected interpolate=1, sampling_period=0. "
                f"Received: interpolate={regime.interpolate}, "
                f"sampling_period={regime.sampling_period}"
            )
        vanishing(sequences, length)
    except ValueError as error:
        raise ValueError(f"{regime.data}: {error}") from error
    return sequences


def evaluate_cell(
    predictors: Mapping[str, Forecast],
    sequences: PathSequences | ChannelSequences,
    history_snr_db: float,
    config: GridConfig,
    *,
    controls: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Judges predictors on the same noisy histories of one regime at one SNR.

    Args:
        predictors: Dictionary of names and `lwmt_sionna.baselines.Predictor`.
        sequences: `lwmt_sionna.data.PathSequences` or `ChannelSequences` of one speed and period.
        history_snr_db: Pilot SNR of the histories in decibels.
        controls: Whether to run the controls with wrong histories as well, at the SNR of the rates.

    Returns:
        Dictionary of lists of flat dictionaries: `"points"` (see `evaluate`; among them those of
        the causal ceiling where paths are stored), `"rates"` (with all of `CEILINGS`),
        `"sequences"` (errors of every sequence), `"controls"` and `"costs"`.

    Raises:
        ValueError: If a predictor is made for another array.
    """
    for name, predictor in predictors.items():
        check_array(predictor, name, array_shape(sequences, config.array))
    # Stored channels have a grid of their own.
    frequencies = subcarrier_frequencies(config.num_subcarriers, config.subcarrier_spacing)
    grid = (config.array, frequencies) if isinstance(sequences, PathSequences) else ()
    trial = draw_trial(
        sequences,
        *grid,
        history_snr_db=history_snr_db,
        num_history=config.num_history,
        num_horizons=config.num_horizons,
        seed=config.seed,
        hardware=config.hardware,
    )
    timed = {name: _Timed(predictor) for name, predictor in predictors.items()}
    # Where events are unknown, all sequences are all there is.
    known = {str(name): trial.subsets[name] for name in config.subsets if name in trial.subsets}
    subsets = known if known else trial.subsets
    ceilings = _ceilings(trial, history_snr_db, config, frequencies)
    # The errors of the others are zero, and that of the noise.
    judged = timed | {name: each for name, each in ceilings.items() if name == "causal"}
    points = evaluate(
        judged,
        trial.history,
        trial.future,
        scale=trial.scale,
        subsets=subsets,
        arrived=trial.arrived,
    )
    unlike = ("num_vanishing", "target")
    cell = {name: value for name, value in trial.labels.items() if name not in unlike}
    result = {
        "points": [_rounded({**trial.labels, **point}) for point in points],
        "rates": [],
        "sequences": [],
        "controls": [],
        "costs": [{**cell, "predictor": name, **each.cost} for name, each in timed.items()],
    }
    if history_snr_db != _RATE_HISTORY_SNR_DB:
        return result
    predicted = {name: each.predicted for name, each in timed.items()}
    result["sequences"] = [
        {**cell, "predictor": name, **row}
        for name, values in predicted.items()
        for row in _per_sequence(values, trial, config)
    ]
    predicted |= {name: each.future for name, each in ceilings.items()}
    result["rates"] = [
        {**cell, "predictor": name, **row}
        for name, values in predicted.items()
        for row in _rates(values, trial, config)
    ]
    if controls:
        result["controls"] = [
            {**cell, "predictor": name, **row}
            for name, each in predictors.items()
            for row in _controls(each, trial, config.seed)
        ]
    return result


def run_grid(
    config: GridConfig,
    regimes: list[tuple[Regime, PathSequences | ChannelSequences]],
    store: Store,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any], dict[str, int]]:
    """Evaluates every regime at every SNR; finished cells are not computed again.

    Args:
        regimes: List of tuples of a `Regime` and what `load_regime` made of it.

    Returns:
        Tuple of the joined results of `evaluate_cell` (and `"splits"`: distances from the training
        tracks), the files that were read by name, and the number of parameters by preset.
    """
    from lwmt_sionna.baselines import CLASSICAL, ModelPredictor, tuned_baselines

    inputs: dict[str, PathLike] = {
        pathlib.Path(regime.data).stem: regime.data for regime in config.regimes
    }
    named = {pathlib.Path(preset).name: preset for preset in config.presets}
    for name, preset in named.items():
        if name in CLASSICAL or name in CEILINGS:
            raise ValueError(f"A preset may not be named like a baseline. Received: {preset}")
        inputs[f"preset_{name}"] = preset_folder(preset)
    parameters = {}
    models: dict[tuple[int, int, int] | None, dict[str, ModelPredictor]] = {}
    for _, sequences in regimes:
        shape = _shape_unless_line(sequences, config)
        if shape not in models:
            models[shape] = {
                name: ModelPredictor(preset, name, array_shape=shape)
                for name, preset in named.items()
            }
            parameters = {n: int(m.model.count_params()) for n, m in models[shape].items()}
    inputs |= {f"training_{pathlib.Path(path).stem}": path for path in config.training}
    splits = _splits(config, regimes)
    settings = config.to_dict()
    del settings["regimes"], settings["history_snr_db"]
    common = {
        "settings": settings,
        "code": code_digest(__name__),
        "presets": {name: preset_digest(preset) for name, preset in named.items()},
    }
    joined: dict[str, list[Any]] = {}
    cells = [(*regime, snr) for regime in regimes for snr in config.history_snr_db]
    for regime, sequences, history_snr_db in progress_bar(cells, unit="cell"):
        key = {
            **common,
            "regime": regime.to_dict(),
            "data": records.sha256(regime.data),
            "history_snr_db": history_snr_db,
        }

        def compute(regime=regime, sequences=sequences, history_snr_db=history_snr_db):
            shape = _shape_unless_line(sequences, config)
            baselines = tuned_baselines(history_snr_db, config.baselines, shape)
            predictors = {**baselines, **models[shape]}
            return evaluate_cell(
                predictors, sequences, history_snr_db, config, controls=regime.controls
            )

        label = f"{pathlib.Path(regime.data).name}, {history_snr_db:g} dB"
        for name, rows in store.compute(key, compute, label).items():
            joined.setdefault(name, []).extend(rows)
    return {**joined, "splits": splits}, inputs, parameters


def _shape_unless_line(sequences, config):
    """What predictors are made with: those that are told no shape serve a line."""
    shape = array_shape(sequences, config.array)
    return None if shape[::2] == (1, 1) else shape


class _Timed:
    """A predictor that keeps what it predicted, and what that cost per sequence."""

    def __init__(self, predictor: Forecast) -> None:
        self.predictor = predictor

    def __call__(self, history: Array, num_horizons: int, arrived: Array | None = None) -> Array:
        told = told_arrived(self.predictor, arrived)
        start, busy = time.perf_counter(), time.process_time()
        self.predicted = self.predictor(history, num_horizons, **told)
        self.cost = {
            "wall_ms": 1e3 * (time.perf_counter() - start) / len(history),
            "cpu_ms": 1e3 * (time.process_time() - busy) / len(history),
        }
        return self.predicted


def _splits(config, regimes):
    training = [read_sequences(path) for path in config.training]
    splits = []
    for regime, paths in regimes if training else ():
        nearest = check_held_out(training, paths.select(~vanishing_mask(paths)))
        splits.append(
            {
                "scene": paths.scene,
                "data": pathlib.Path(regime.data).name,
                "trained_scenes": ", ".join(sorted({part.scene for part in training})),
                # None where no scene is shared: there is no distance then.
                "nearest_training_m": round(nearest, 2) if np.isfinite(nearest) else None,
            }
        )
    return splits


def _ceilings(trial, history_snr_db, config, frequencies):
    """What knows more than the histories, as predictors, by names of `CEILINGS`."""
    from lwmt_sionna.baselines import PerfectCsi

    ceilings = {
        "perfect": PerfectCsi(trial.future),
        "noisy_perfect": PerfectCsi(trial.future, history_snr_db, config.seed + 1),
    }
    if isinstance(trial.sequences, PathSequences):
        lengths = config.num_history, config.num_horizons
        foreseen = causal_forecast(trial.sequences, config.array, frequencies, *lengths)
        foreseen = config.hardware.targets(foreseen, config.num_history, config.seed)
        ceilings["causal"] = PerfectCsi(foreseen)
    return ceilings


def _rate_horizons(config):
    return [horizon for horizon in config.rate_horizons if horizon <= config.num_horizons]


def _rates(predicted, trial, config):
    # Users of equal mean power: differences come from the CSI alone.
    unit = history_scale(trial.history)[:, 0]
    for horizon in _rate_horizons(config):
        guess, truth = predicted[:, horizon - 1] / unit, trial.future[:, horizon - 1] / unit
        for link_snr_db in config.link_snr_db:
            rates = zero_forcing_rates(
                guess, truth, link_snr_db, groups=trial.groups, seed=config.seed
            )
            if len(rates):
                yield {
                    "horizon": horizon,
                    "link_snr_db": link_snr_db,
                    "sum_rate": round(float(rates.mean()), 4),
                    "num_groups": len(rates),
                }


def _per_sequence(predicted, trial, config):
    for horizon in _rate_horizons(config):
        error, power = normalized_error(predicted[:, horizon - 1], trial.future[:, horizon - 1])
        ratio = np.clip(error / np.maximum(power, 1e-30), *_RATIO_RANGE)
        events = trial.subsets.get("events")
        for index, value in enumerate(to_db(ratio)):
            yield {
                "horizon": horizon,
                "sequence": index,
                "event": None if events is None else bool(events[horizon - 1, index]),
                "nmse_db": round(float(value), 3),
            }


def _controls(predictor, trial, seed):
    history, future = trial.history, trial.future
    for kind, wrong in (
        ("shuffled", shuffled_histories(history, seed)),
        ("other", other_histories(history)),
    ):
        guess = predictor(wrong, future.shape[1])[:, 0]  # the program is compiled already
        if kind == "other":  # brought to the power of the own history, as hold would be
            guess = guess * (history_scale(history) / history_scale(wrong))[:, 0]
        error, power = normalized_error(guess, future[:, 0], trial.scale)
        median = to_db(np.median(error / np.maximum(power, 1e-30)))
        yield {"control": kind, "nmse_median_db": round(float(median), 3)}


def _rounded(point):
    """What a record needs: thousandths of a decibel, and shares."""
    digits = {"share": 4, "sgcs": 5} | {n: 3 for n in point if n.startswith("nmse_")}
    return {n: round(value, digits[n]) if n in digits else value for n, value in point.items()}
