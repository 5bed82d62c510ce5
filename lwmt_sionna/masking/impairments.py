"""What is wrong with the measurements that are there.

All functions take measured channels before the transform, real `[batch, num_snapshots, num_ant,
num_subcarriers, 2]`, (real, imaginary) last, and return the same shape and dtype. They draw per
sample, from static shapes, and compile.

`severity` in [0, 1] narrows a range from its mild end (the first number): 0 draws the mild end
alone, 1 from the whole range.
"""

import math

from keras import ops

from lwmt_sionna.masking.draws import Draws, Range, Seed, check_integers, check_range
from lwmt_sionna.typing import Tensor

__all__ = [
    "antenna_calibration_error",
    "common_phase_error",
    "dropped_reports",
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


def timing_offset(
    h: Tensor,
    seed: Seed,
    offset: Range = (0.0, 0.5),
    jitter: Range = (0.0, 0.1),
    severity: Tensor = 1.0,
) -> Tensor:
    """Delays the measurement by a fraction of a sample.

    Imitates a user's timing advance that is off (an offset constant over the sequence) and the
    clock's jitter from snapshot to snapshot. A delay of one sample moves all paths by one delay
    bin; the phase at the middle subcarrier stays.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        offset: Mild and severe magnitude of the constant offset in samples (1 over the bandwidth);
            its sign is random.
        jitter: Mild and severe standard deviation of the jitter in samples.
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    num_snapshots, num_subcarriers = h.shape[1], h.shape[3]
    constant = draws.strength(_batch(h), *check_range("offset", offset, 0.0, 1e3), severity)
    sign = ops.where(draws.uniform((_batch(h),)) < 0.5, -1.0, 1.0)
    spread = draws.strength(_batch(h), *check_range("jitter", jitter, 0.0, 1e3), severity)
    samples = (constant * sign)[:, None]
    samples = samples + spread[:, None] * draws.normal((_batch(h), num_snapshots))
    place = ops.arange(num_subcarriers, dtype="float32") - num_subcarriers // 2
    phase = samples[:, :, None] * (place * (-2.0 * math.pi / num_subcarriers))
    return _turn(h, phase[:, :, None, :])


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
    severity: Tensor = 1.0,
) -> Tensor:
    """Gives every antenna a gain and a phase of its own, constant over the sequence.

    Imitates receive chains whose calibration is off: paths leak along the angle axis.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        gain_db: Mild and severe standard deviation of the gains in decibels.
        phase_deg: Mild and severe standard deviation of the phases in degrees.
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    shape = (_batch(h), h.shape[2])
    gains, phases = (
        draws.strength(_batch(h), *check_range(name, value, 0.0, 360.0), severity)[:, None]
        * draws.normal(shape)
        for name, value in (("gain_db", gain_db), ("phase_deg", phase_deg))
    )
    gain = ops.exp(gains * (math.log(10.0) / 20.0))
    turned = _turn(h, (phases * (math.pi / 180.0))[:, None, :, None])
    return turned * ops.cast(gain[:, None, :, None, None], h.dtype)


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
    h: Tensor, seed: Seed, share: Range = (0.0, 0.3), severity: Tensor = 1.0
) -> Tensor:
    """Repeats the last report where one is lost.

    Imitates measurements that never arrive: the base station goes on with the one before. The
    first report always arrives.

    Args:
        h: Measured channels, real `[batch, num_snapshots, num_ant, num_subcarriers, 2]`.
        seed: Integer or `keras.random.SeedGenerator`.
        share: Mild and severe probability of a loss.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        Real, shape as `h`.
    """
    h, draws = _start(h, seed)
    num_snapshots = h.shape[1]
    level = draws.strength(_batch(h), *check_range("share", share, 0.0, 1.0), severity)
    arrived = draws.uniform((_batch(h), num_snapshots)) >= level[:, None]
    instant = ops.arange(num_snapshots, dtype="float32")
    past = instant[None, :] <= instant[:, None]
    # [batch, now, candidate]: the latest report that has arrived by now
    candidates = ops.where(arrived[:, None] & past, instant, 0.0)
    latest = ops.max(candidates, axis=2)
    chosen = ops.cast(ops.equal(instant, latest[..., None]), h.dtype)
    flat = ops.reshape(h, (-1, num_snapshots, h.shape[2] * h.shape[3] * 2))
    return ops.reshape(ops.matmul(chosen, flat), (-1, *h.shape[1:]))


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


def _batch(h):
    return ops.shape(h)[0]


def _column(value):
    return ops.reshape(value, (-1, 1, 1, 1, 1))
