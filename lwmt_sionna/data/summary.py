"""What stored sequences hold, in numbers."""

from typing import Any

import numpy as np

from lwmt_sionna.data.channels import vanishing_mask
from lwmt_sionna.data.events import event_mask
from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences
from lwmt_sionna.typing import Array

__all__ = ["spreads", "summarize"]


def spreads(paths: PathSequences) -> dict[str, Array]:
    """Second moments of the paths of every snapshot, weighted by their power.

    Args:
        paths: `PathSequences`.

    Returns:
        Dictionary of float64 `[num_sequences, num_snapshots]`, NaN where a snapshot has no path:
        `delay` (rms delay spread in seconds), `doppler` (rms Doppler spread in hertz) and
        `azimuth` (circular spread of the azimuth of departure in radians,
        `sqrt(-2 ln |E exp(j phi)|)`, 3GPP TR 38.901 annex A).
    """
    power = paths.power.astype(np.float64)
    total = power.sum(axis=-1)
    weight = power / np.where(total > 0, total, np.nan)[..., None]

    def deviation(value):
        value = np.where(paths.valid, value, 0.0).astype(np.float64)
        mean = np.sum(weight * value, axis=-1, keepdims=True)
        return np.sqrt(np.sum(weight * (value - mean) ** 2, axis=-1))

    resultant = np.abs(np.sum(weight * np.exp(1j * paths.phi_t), axis=-1))
    return {
        "delay": deviation(paths.tau),
        "doppler": deviation(paths.doppler),
        "azimuth": np.sqrt(-2.0 * np.log(np.clip(resultant, 1e-12, 1.0))),
    }


def summarize(paths: PathSequences) -> dict[str, Any]:
    """Counts, coverage and spreads of a data set.

    Args:
        paths: `PathSequences` with at least one sequence.

    Returns:
        Flat dictionary of text and numbers, units in the names. Coverage is the share of the drawn
        tracks that any path reached, `None` where the file does not say how many were drawn.
        `event_share` is the share of steps between consecutive snapshots in which notable paths
        are born or die (see `event_mask`).

    Raises:
        ValueError: If there is no sequence.
    """
    if not paths.num_sequences:
        raise ValueError("There is no sequence to summarise. Received: num_sequences=0")
    count = paths.valid.sum(axis=-1)
    seen = count > 0
    gain = paths.power.astype(np.float64).sum(axis=-1)
    gain_db = 10 * np.log10(gain[seen]) if seen.any() else np.array([np.nan])
    offset = paths.position - paths.bs_position[paths.bs_index][:, None]
    distance = np.linalg.norm(offset[..., :2], axis=-1)
    result = {
        "scene": paths.scene,
        "num_sequences": paths.num_sequences,
        "num_snapshots": paths.num_snapshots,
        "num_base_stations": len(np.unique(paths.bs_index)),
        "carrier_frequency_ghz": paths.carrier_frequency / 1e9,
        "sampling_period_ms": paths.sampling_period * 1e3,
        "speed_min_kmh": float(paths.speed.min() * 3.6),
        "speed_max_kmh": float(paths.speed.max() * 3.6),
        "normalized_doppler_max": float(paths.normalized_doppler.max()),
        "distance_min_m": float(distance.min()),
        "distance_max_m": float(distance.max()),
        "paths_mean": float(count.mean()),
        "paths_median": float(np.median(count)),
        "paths_max": int(count.max()),
        "line_of_sight_share": float(paths.line_of_sight.mean()),
        "gain_median_db": float(np.median(gain_db)),
        "gain_q10_db": float(np.quantile(gain_db, 0.1)),
        "gain_q90_db": float(np.quantile(gain_db, 0.9)),
    }
    for name, unit, scale in (
        ("delay", "ns", 1e9),
        ("doppler", "hz", 1.0),
        ("azimuth", "deg", np.rad2deg(1.0)),
    ):
        value = spreads(paths)[name][seen] * scale if seen.any() else np.array([np.nan])
        result[f"{name}_spread_median_{unit}"] = float(np.median(value))
        result[f"{name}_spread_q90_{unit}"] = float(np.quantile(value, 0.9))
    drawn, uncovered = (paths.metadata.get(n) for n in ("num_drawn", "num_out_of_coverage"))
    result["coverage_share"] = None if drawn is None else 1.0 - (uncovered or 0) / drawn
    result["vanishing_share"] = float(vanishing_mask(paths).mean())
    steps = [event_mask(paths, t, t + 1) for t in range(paths.num_snapshots - 1)]
    result["event_share"] = float(np.mean(steps)) if steps else None
    result["traced_share"] = float(paths.traced.mean())
    seams = np.array([]) if paths.seam_error is None else paths.seam_error
    seams = seams[~np.isnan(seams)]
    result["seam_error_median_db"] = (
        float(10 * np.log10(max(np.median(seams), 1e-12))) if seams.size else None
    )
    result["delay_range_m"] = float(paths.tau.max() * SPEED_OF_LIGHT)
    return result
