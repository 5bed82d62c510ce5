"""How well a masked channel model fills in what is hidden, condition by condition."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from lwmt_sionna.evaluation import summarize_errors, to_db
from lwmt_sionna.masking import Curriculum
from lwmt_sionna.models import MaskedChannelModel
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.training.histories import stack_complex
from lwmt_sionna.typing import Array

__all__ = ["CONDITIONS", "draw_views", "reconstruction_points"]

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
    h: Array,
    conditions: dict[str, Curriculum],
    patch: tuple[int, int],
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, dict[str, Array]]:
    """Draws one view of every sequence under every condition, the same for all contestants.

    Args:
        h: True channels, complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`.
        conditions: Dictionary from name to `Curriculum`, taken at the end of its schedule.
        patch: Bins per token in angle and delay.
        seed: Seed of masks and impairments.
        batch_size: Sequences per draw.

    Returns:
        Dictionary from name to a view: see `Curriculum.view`, arrays of NumPy.
    """
    h = stack_complex(h)
    views = {}
    for name, curriculum in conditions.items():
        parts = []
        for begin in range(0, len(h), batch_size):
            view = curriculum.view(h[begin : begin + batch_size], seed + begin, 1.0, patch)
            parts.append({key: np.asarray(value) for key, value in view.items()})
        views[name] = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    return views


def reconstruction_points(
    model: MaskedChannelModel, views: dict[str, dict[str, Array]], batch_size: int = 64
) -> Iterator[dict[str, Any]]:
    """Errors of a model under every condition.

    Args:
        model: `MaskedChannelModel`.
        views: What `draw_views` returns.
        batch_size: Sequences per call; the last batch is padded, so that one program serves all.

    Yields:
        Flat dictionary per condition: its name, the normalised errors of the tokens asked for in
        decibels (see `summarize_errors`), the mean over sequences of the value in decibels, and the
        number of sequences.
    """
    patch = model.backbone.patch
    # No optimiser: it would be saved with the weights.
    model.compile(optimizer=None, jit_compile=keras.backend.backend() != "torch")
    for name, view in views.items():
        guesses = []
        for begin in range(0, len(view["observed"]), batch_size):
            part = {
                "channel": view["observed"][begin : begin + batch_size],
                "mask": view["hidden"][begin : begin + batch_size],
            }
            count = len(part["mask"])
            padded = {
                key: np.pad(v, [(0, batch_size - count)] + [(0, 0)] * (v.ndim - 1), mode="edge")
                for key, v in part.items()
            }
            guesses.append(np.asarray(model.predict_on_batch(padded), np.float32)[:count])
        error, power = _token_sums(view, np.concatenate(guesses), patch)
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
