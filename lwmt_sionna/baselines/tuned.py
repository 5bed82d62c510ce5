"""The training-free baselines in their best form, tuned per pilot SNR.

The settings won on the validation tracks of the training scenes (etoile, munich); the held-out
scenes played no part. `experiments/tune_baselines.py` repeats it, its record is
`experiments/results/tune_baselines.json`.
"""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

from lwmt_sionna.baselines.autoregression import (
    ClampedAutoregression,
    DenoisedAutoregression,
    DirectAutoregression,
    LocalAutoregression,
    PooledAutoregression,
)
from lwmt_sionna.baselines.base import Predictor
from lwmt_sionna.baselines.bins import KalmanPredictor, PronyPredictor, WienerPredictor
from lwmt_sionna.baselines.parametric import PathPredictor
from lwmt_sionna.baselines.reference import Hold, PhaseAlignedHold, ZeroPredictor

CLASSICAL = {
    "zero": ZeroPredictor,
    "hold": Hold,
    "aligned_hold": PhaseAlignedHold,
    "pooled_ar": PooledAutoregression,
    "local_ar": LocalAutoregression,
    "denoised_ar": DenoisedAutoregression,
    "clamped_ar": ClampedAutoregression,
    "direct_ar": DirectAutoregression,
    "kalman": KalmanPredictor,
    "wiener": WienerPredictor,
    "prony": PronyPredictor,
    "path_fit": PathPredictor,
}
TUNED_SNR_DB = (5.0, 15.0, 25.0)


def _per_snr(**settings):
    """Settings for each of TUNED_SNR_DB: tuples hold one value each, others are the same."""
    return tuple(
        {name: value[k] if isinstance(value, tuple) else value for name, value in settings.items()}
        for k in range(len(TUNED_SNR_DB))
    )


# Name -> settings for each of TUNED_SNR_DB; what is not named has none.
TUNED: dict[str, tuple[dict[str, Any], ...]] = {
    "pooled_ar": _per_snr(order=13, ridge=(1e-3, 1e-5, 1e-5)),
    "local_ar": _per_snr(order=(4, 6, 8), pool_weight=0.5),
    "denoised_ar": _per_snr(order=(7, 9, 11), denoise_radius=(4, 5, 6)),
    "clamped_ar": _per_snr(
        order=8, ridge=1e-4, pool_weight=(1.0, 1.0, 0.5), denoise_radius=(6, 5, 6)
    ),
    "direct_ar": _per_snr(order=4, ridge=1e-4, denoise_radius=(6, 5, 6)),
    "kalman": _per_snr(order=8, noise_factor=0.03, denoise_radius=(6, 5, 6)),
    "wiener": _per_snr(denoise_radius=6, noise_factor=(0.3, 0.3, 1.0)),
    "prony": _per_snr(order=12, rank=6, ridge=1e-4, denoise_radius=6),
    "path_fit": ({"num_paths": 32}, {"num_peaks": 2}, {"num_paths": 32}),
}


def tuned_settings(name: str, history_snr_db: float) -> dict[str, Any]:
    """Arguments of a training-free baseline's constructor, tuned at the nearest pilot SNR in dB.

    A baseline that has nothing to tune gives none.
    """
    # Infinity is far from all.
    ratio = min(max(history_snr_db, TUNED_SNR_DB[0]), TUNED_SNR_DB[-1])
    nearest = min(range(len(TUNED_SNR_DB)), key=lambda i: abs(TUNED_SNR_DB[i] - ratio))
    return dict(TUNED.get(name, ({}, {}, {}))[nearest])


def tuned_baselines(
    history_snr_db: float,
    names: Iterable[str] | None = None,
    array_shape: tuple[int, int, int] | None = None,
) -> dict[str, Predictor]:
    """Training-free baselines with the settings tuned at the nearest pilot SNR.

    Equal settings give the same predictor, which compiles once.

    Args:
        history_snr_db: Pilot SNR of the histories in decibels.
        names: Which of `CLASSICAL`; all of them if `None` or empty.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.

    Returns:
        Dictionary of names and predictors, in the order of `CLASSICAL`.

    Raises:
        ValueError: If a name is unknown.
    """
    names = list(CLASSICAL) if not names else list(names)
    unknown = sorted(set(names) - set(CLASSICAL))
    if unknown:
        raise ValueError(
            f"Unknown baselines; expected some of {', '.join(CLASSICAL)}. Received: {unknown}"
        )
    predictors = {}
    for name, make in CLASSICAL.items():
        if name not in names:
            continue
        settings = tuned_settings(name, history_snr_db)
        # The others do not ask which antenna is where.
        by_array = "array_shape" in inspect.signature(make).parameters
        if array_shape is not None and by_array:
            settings["array_shape"] = tuple(array_shape)
        predictors[name] = _make(make, tuple(sorted(settings.items())))
    return predictors


@functools.lru_cache(maxsize=64)
def _make(make, settings):
    return make(**dict(settings))
