"""Sparse pilots: a Wiener filter over angle, delay and Doppler shift whose statistics they tell."""

import functools

import numpy as np
from keras import ops

from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    dft_matrix,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.linear_algebra import conjugate_gradients
from lwmt_sionna.typing import Tensor

__all__ = ["filter_pilots"]

# Fewer steps leave much out, more fit the noise.
_ROUNDS, _STEPS = 4, 12
# The spectrum that is expected first: mean delay as a share of all delays, and half width of the
# Doppler shifts in bins.
_MEAN_DELAY, _HALF_WIDTH = 1 / 8, 1.0
# What is found tells what to expect next, with this exponent: below 1, the faint stays possible.
_TRUST = 0.75
_FAINTEST = 1e-3
# Noise over the power of the pilots: at first, at least and at most.
_FIRST_NOISE, _LEAST_NOISE, _MOST_NOISE = 0.1, 1e-6, 0.9
# Share of the pilots that is free at least, whatever is fitted.
_LEAST_FREE = 0.2
_TINY = 1e-20


def filter_pilots(y: Tensor, known: Tensor, array_shape: tuple[int, int, int]) -> Tensor:
    r"""Estimates channels of any spectrum, rich scattering included.

    With $F$ the transform from angle, delay and Doppler shift, of twice as many delays and Doppler
    shifts as the grid resolves, $M$ the choice of the pilots, and $W$ the power that is expected in
    each bin, the linear minimum mean-square error estimate is

    $$\hat h = F W^{1/2} (W^{1/2} F^H M F W^{1/2} + \sigma^2)^{-1} W^{1/2} F^H M y$$

    by conjugate gradients. At first $W$ is an exponential profile of delays, slow in Doppler and
    flat in angle: without it a comb could not tell a delay from its aliases. Then it is what was
    found, smoothed, and the filter runs again (reweighted least squares); $\sigma^2$ is what the
    pilots leave unexplained.

    Args:
        y: Pilots, zero elsewhere, real `[batch, time, num_ant, num_subcarriers, 2]`.
        known: 1 where a pilot is, else 0, `[batch, time, num_ant or 1, num_subcarriers]`.
        array_shape: Rows, columns and polarisations.

    Returns:
        Real, shape as `y`; errors do not fall far below -20 dB, however clean the pilots are.

    Reference:
        Gorodnitsky and Rao 1997, Sparse signal reconstruction from limited data using FOCUSS: a
        re-weighted minimum norm algorithm (IEEE TSP 45).
    """
    known = known[..., None]
    count = ops.maximum(_total(known) * (y.shape[2] // known.shape[2]), 1.0)
    power = _total(ops.square(y)) / count
    expected = _expected(*y.shape[1:4])
    # Of the columns of the transform, what the pilots see.
    share = count / expected.size

    def refine(_, state):
        weight, noise, _ = state
        spectrum = _regress(y, known, ops.sqrt(weight), noise, array_shape)
        h = _channel(spectrum, y.shape, array_shape)
        # As many degrees of freedom are fitted as bins stand out of the noise.
        fitted = _total(weight * share / (weight * share + noise + _TINY))
        free = ops.maximum(count - fitted, _LEAST_FREE * count)
        noise = _total(ops.square(known * (y - h))) / free
        noise = ops.clip(noise, _LEAST_NOISE * power, _MOST_NOISE * power)
        found = _smooth(ops.sum(ops.square(spectrum), axis=-1, keepdims=True))
        found = ops.power(found / (_mean(found) + _TINY) + _FAINTEST, _TRUST)
        return found / _mean(found) * (power - noise), noise, h

    weight = ops.convert_to_tensor(expected, dtype=y.dtype) * (1.0 - _FIRST_NOISE) * power
    state = (weight, _FIRST_NOISE * power, ops.zeros_like(y))
    return ops.fori_loop(0, _ROUNDS, refine, state)[2]


def _regress(y, known, gain, noise, array_shape):
    """Spectrum of the estimate."""
    shape = (-1, *gain.shape[1:4], 2)
    start = gain * _spectrum(y, array_shape)

    def image(z):
        z = ops.reshape(z, shape)
        h = known * _channel(gain * z, y.shape, array_shape)
        return _flat(gain * _spectrum(h, array_shape) + noise * z)

    return gain * ops.reshape(conjugate_gradients(image, _flat(start), _STEPS), shape)


def _spectrum(h, array_shape):
    """Channels to Doppler shifts, angles and delays; adjoint of `_channel`."""
    num_snapshots, _, num_subcarriers = h.shape[1:4]
    h = ops.pad(h, [[0, 0], [0, num_snapshots], [0, 0], [0, num_subcarriers], [0, 0]])
    return _over_time(angle_delay_transform(h, array_shape), 1)


def _channel(x, shape, array_shape):
    """Doppler shifts, angles and delays to channels of a shape."""
    x = _over_time(x, -1)[:, : shape[1]]
    return inverse_angle_delay_transform(x, array_shape)[:, :, :, : shape[3]]


def _over_time(x, sign):
    matrix = dft_matrix(x.shape[1])
    cosine, sine = (ops.convert_to_tensor(m, dtype=x.dtype) for m in (matrix.real, -matrix.imag))
    z = ComplexPair.from_stacked(x)
    # n snapshot, d Doppler shift, b batch, m angle, k delay
    turned = z.map(lambda part: ops.einsum("nd,bnmk->bdmk", sine, part))
    z = z.map(lambda part: ops.einsum("nd,bnmk->bdmk", cosine, part))
    return z.plus(ComplexPair(sign * turned.im, -sign * turned.re)).stacked()


@functools.lru_cache(maxsize=16)
def _expected(num_snapshots, num_ant, num_subcarriers):
    """Power that is expected in each bin, of mean 1, `[1, 2 time, num_ant, 2 subcarriers, 1]`."""
    delay = np.arange(2 * num_subcarriers) / 2
    # The shortest delays leak to just before zero, which is the end of the axis.
    profile = np.maximum(
        np.exp(-delay / (_MEAN_DELAY * num_subcarriers)), np.exp(delay - num_subcarriers)
    )
    doppler = np.arange(2 * num_snapshots)
    doppler = np.minimum(doppler, 2 * num_snapshots - doppler) / 2
    power = np.multiply.outer(1 / (1 + np.square(doppler / _HALF_WIDTH)), profile)
    power = np.repeat(power[:, None] / power.mean(), num_ant, axis=1)
    return power[None, ..., None]


def _smooth(power):
    for axis in (1, 2, 3):
        around = ops.roll(power, 1, axis=axis) + ops.roll(power, -1, axis=axis)
        power = 0.5 * power + 0.25 * around
    return power


def _flat(x):
    return ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4]))


def _total(x):
    return ops.sum(x, axis=(1, 2, 3, 4), keepdims=True)


def _mean(x):
    return ops.mean(x, axis=(1, 2, 3, 4), keepdims=True)
