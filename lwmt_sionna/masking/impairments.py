"""What is wrong with the measurements that are there.

All functions take measured channels before the transform, real `[batch, num_snapshots, num_ant,
num_subcarriers, 2]`, (real, imaginary) last, and return the same shape and dtype. They draw per
sample, from static shapes, and compile.

`severity` in [0, 1] narrows a range from its mild end (the first number): 0 draws the mild end
alone, 1 from the whole range.
"""

import math
from typing import Any

import numpy as np
from keras import ops

from lwmt_sionna.masking.draws import Draws, Range, Seed, check_integers, check_range
from lwmt_sionna.typing import ArrayLike, Tensor

__all__ = [
    "antenna_calibration_error",
    "common_phase_error",
    "dropped_reports",
    "frequency_offset",
    "gain_error",
    "measurement_noise",
    "quantization",
    "timing_offset",
]

_TINY = 1e-20


def measurement_noise(
    h: Tensor, seed: Seed, history_snr_db: Range = (30.0, 0.0), severity: Tensor = 1.0
) -> Tensor:
    """Adds white noise.

    Imitates the estimate of an uplink pilot at the base station.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        history_snr_db: Mild and severe ratio of the sequence's mean power to the noise power in
            decibels, uniform between both.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    level = draws.strength(
        _batch(h), *check_range("history_snr_db", history_snr_db, -100.0, 300.0), severity
    )
    # Half of the noise power falls on each of both parts, as half of the channel's does.
    power = ops.mean(ops.square(h), axis=(1, 2, 3, 4), keepdims=True)
    ratio = ops.exp(_column(level) * (-math.log(10.0) / 10.0))
    noise = draws.normal(ops.shape(h))
    return h + ops.cast(noise, h.dtype) * ops.sqrt(power * ops.cast(ratio, h.dtype))


def common_phase_error(
    h: Tensor,
    seed: Seed,
    jitter_deg: Range = (0.0, 10.0),
    drift_deg: Range = (0.0, 5.0),
    severity: Tensor = 1.0,
) -> Tensor:
    """Turns every snapshot by a phase common to all antennas and subcarriers.

    Imitates oscillators: a jitter that is independent from snapshot to snapshot, and a drift that
    adds up (phase noise, a residual frequency offset that wanders). The first snapshot has the
    jitter alone.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        jitter_deg: Mild and severe standard deviation of the jitter in degrees.
        drift_deg: Mild and severe standard deviation of the drift per snapshot in degrees.
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    num_snapshots = h.shape[1]
    jitter, drift = (
        draws.strength(_batch(h), *check_range(name, value, 0.0, 360.0), severity)[:, None]
        for name, value in (("jitter_deg", jitter_deg), ("drift_deg", drift_deg))
    )
    shape = (_batch(h), num_snapshots)
    steps = drift * draws.normal(shape)
    walk = ops.cumsum(steps, axis=1) - steps[:, :1]
    phase = (jitter * draws.normal(shape) + walk) * (math.pi / 180.0)
    return _turn(h, phase[:, :, None, None])


def frequency_offset(
    h: Tensor, seed: Seed, cycles: Range = (0.0, 0.05), severity: Tensor = 1.0
) -> Tensor:
    """Turns the snapshots further and further, by a step common to all antennas and subcarriers.

    Imitates carrier frequencies that differ between both ends: all paths gain the same Doppler
    shift. The first snapshot stays.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        cycles: Mild and severe magnitude of the turn per snapshot in cycles, the offset times the
            time between snapshots; its sign is random.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    step = draws.strength(_batch(h), *check_range("cycles", cycles, 0.0, 1e6), severity)
    # Whole cycles do not show, and would cost digits of the product with the time.
    step = ops.mod(step, 1.0) * _sign(draws, h)
    turns = step[:, None] * ops.arange(h.shape[1], dtype="float32")
    return _turn(h, turns[:, :, None, None] * (2.0 * math.pi))


def timing_offset(
    h: Tensor,
    seed: Seed,
    offset: Range = (0.0, 0.5),
    jitter: Range = (0.0, 0.1),
    frequencies: ArrayLike | None = None,
    severity: Tensor = 1.0,
) -> Tensor:
    """Delays the measurement by a fraction of a sample, or by a time.

    Imitates a user's timing advance that is off (an offset constant over the sequence) and the
    clock's jitter from snapshot to snapshot. A delay of one sample moves all paths by one delay
    bin; the phase at frequency zero, the middle subcarrier, stays.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        offset: Mild and severe magnitude of the constant offset in samples (1 over the bandwidth);
            its sign is random.
        jitter: Mild and severe standard deviation of the jitter in samples.
        frequencies: Baseband frequency of every subcarrier, float `[num_subcarriers]`, in cycles
            per sample; where they are given in hertz, `offset` and `jitter` are in seconds. Those
            of equally spaced subcarriers about the middle one if `None`.
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    num_snapshots, num_subcarriers = h.shape[1], h.shape[3]
    if frequencies is None:
        frequencies = (np.arange(num_subcarriers) - num_subcarriers // 2) / num_subcarriers
    constant = draws.strength(_batch(h), *check_range("offset", offset, 0.0, 1e3), severity)
    constant = constant * _sign(draws, h)
    spread = draws.strength(_batch(h), *check_range("jitter", jitter, 0.0, 1e3), severity)
    delay = constant[:, None] + spread[:, None] * draws.normal((_batch(h), num_snapshots))
    slope = ops.convert_to_tensor(-2.0 * math.pi * np.asarray(frequencies), "float32")
    return _turn(h, (delay[:, :, None] * slope)[:, :, None, :])


def gain_error(
    h: Tensor, seed: Seed, deviation_db: Range = (0.0, 1.5), severity: Tensor = 1.0
) -> Tensor:
    """Scales every snapshot by a random gain.

    Imitates automatic gain control and power control whose steps are not fully known.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        deviation_db: Mild and severe standard deviation of the gain in decibels.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    pair = check_range("deviation_db", deviation_db, 0.0, 100.0)
    spread = draws.strength(_batch(h), *pair, severity)[:, None]
    gain_db = spread * draws.normal((_batch(h), h.shape[1]))
    gain = ops.exp(gain_db * (math.log(10.0) / 20.0))
    return h * ops.cast(gain[:, :, None, None, None], h.dtype)


def antenna_calibration_error(
    h: Tensor,
    seed: Seed,
    gain_db: Range = (0.0, 1.0),
    phase_deg: Range = (0.0, 10.0),
    memory: float = 1.0,
    severity: Tensor = 1.0,
) -> Tensor:
    """Gives every antenna a gain and a phase of its own.

    Imitates receive chains whose calibration is off: paths leak along the angle axis.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        gain_db: Mild and severe standard deviation of the gains in decibels.
        phase_deg: Mild and severe standard deviation of the phases in degrees.
        memory: Correlation of both from one snapshot to the next, from 0 (drawn anew) to 1
            (constant over the sequence).
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    memory, _ = check_range("memory", (memory, memory), 0.0, 1.0)
    # Autoregression of the first order, at its steady state from the first snapshot on: [now, then]
    lag = np.subtract.outer(np.arange(h.shape[1]), np.arange(h.shape[1] if memory < 1 else 1))
    fading = np.where(lag >= 0, np.power(memory, np.maximum(lag, 0)), 0.0)
    fading[:, 1:] *= math.sqrt(1 - memory**2)
    gains, phases = (
        draws.strength(_batch(h), *check_range(name, value, 0.0, 360.0), severity)[:, None, None]
        * ops.matmul(
            ops.convert_to_tensor(fading, "float32"),
            draws.normal((_batch(h), fading.shape[1], h.shape[2])),
        )
        for name, value in (("gain_db", gain_db), ("phase_deg", phase_deg))
    )
    gain = ops.exp(gains * (math.log(10.0) / 20.0))
    turned = _turn(h, (phases * (math.pi / 180.0))[..., None])
    return turned * ops.cast(gain[..., None, None], h.dtype)


def quantization(h: Tensor, seed: Seed, bits: Range = (8, 3), severity: Tensor = 1.0) -> Tensor:
    """Rounds both parts to a few bits.

    Imitates a fronthaul or a feedback channel: a uniform mid-rise quantiser whose full scale is the
    largest part of the snapshot. The error of `n` bits is at most `2 ** -n` of it.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        bits: Mild and severe number of bits per part, uniform among the integers.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    count = draws.integers(_batch(h), *check_integers("bits", bits, 1, 24), severity)
    half_levels = ops.cast(_column(ops.exp((count - 1.0) * math.log(2.0))), h.dtype)
    full_scale = ops.max(ops.abs(h), axis=(2, 3, 4), keepdims=True) + _TINY
    level = ops.floor(h / full_scale * half_levels)
    level = ops.clip(level, -half_levels, half_levels - 1.0)
    return (level + 0.5) / half_levels * full_scale


def dropped_reports(
    h: Tensor,
    seed: Seed,
    share: Range = (0.0, 0.3),
    snapshots: tuple[int, ...] = (),
    return_arrived: bool = False,
    severity: Tensor = 1.0,
) -> Any:
    """Repeats the last report where one is lost.

    Imitates measurements that never arrive: the base station goes on with the one before. The
    first report always arrives.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        share: Mild and severe probability of a loss.
        snapshots: Reports that are lost besides, in all sequences; negative ones count from the
            end.
        return_arrived: Whether to tell as well which reports have arrived.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`; with `return_arrived`, a tuple of that and bool `[batch,
        num_snapshots]`.
    """
    h, draws = _start(h, seed)
    num_snapshots = h.shape[1]
    if not all(-num_snapshots < t < num_snapshots and t != 0 for t in snapshots):
        raise ValueError(
            f"snapshots must be some of the {num_snapshots} of a history but the first, which "
            f"always arrives. Received: snapshots={snapshots}"
        )
    level = draws.strength(_batch(h), *check_range("share", share, 0.0, 1.0), severity)
    arrived = draws.uniform((_batch(h), num_snapshots)) >= level[:, None]
    instant = np.arange(num_snapshots)
    lost = np.isin(instant, [t % num_snapshots for t in snapshots])
    arrived = (arrived & ops.convert_to_tensor(~lost)) | ops.convert_to_tensor(instant == 0)
    # [batch, now, candidate]: the latest report that has arrived by now
    past = ops.convert_to_tensor(instant <= instant[:, None])
    latest = ops.max(ops.where(arrived[:, None] & past, instant, 0), axis=2)
    chosen = ops.cast(ops.equal(instant, latest[..., None]), h.dtype)
    flat = ops.reshape(h, (-1, num_snapshots, h.shape[2] * h.shape[3] * 2))
    held = ops.reshape(ops.matmul(chosen, flat), (-1, *h.shape[1:]))
    return (held, arrived) if return_arrived else held


def _start(h, seed):
    if len(h.shape) != 5 or h.shape[-1] != 2:
        raise ValueError(
            "Expected a real tensor [batch, num_snapshots, num_ant, num_subcarriers, 2]. "
            f"Received: h.shape={tuple(h.shape)}"
        )
    return ops.convert_to_tensor(h), Draws(seed)


def _turn(h, phase):
    """Multiplies by `exp(j phase)`; `phase` broadcasts against `h` without its last axis."""
    cosine, sine = (ops.cast(f(phase), h.dtype) for f in (ops.cos, ops.sin))
    real, imaginary = h[..., 0], h[..., 1]
    return ops.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], axis=-1)


def _sign(draws, h):
    """Minus or plus one for each sample."""
    return ops.where(draws.uniform((_batch(h),)) < 0.5, -1.0, 1.0)


def _batch(h):
    return ops.shape(h)[0]


def _column(value):
    return ops.reshape(value, (-1, 1, 1, 1, 1))
