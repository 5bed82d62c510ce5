"""Channels from sparse pilots: what has no effect, what is exact, and what is gained."""

import numpy as np
import pytest
from keras import ops

from lwmt_sionna.data import (
    ClusterConfig,
    PlanarArray,
    add_noise,
    draw_clusters,
    sparse_mask,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.ops.pilot_filter import filter_pilots
from lwmt_sionna.ops.pilots import estimate_from_pilots

SHAPE = (4, 12, 16, 32)


@pytest.fixture(scope="module")
def channels():
    """Clean and noisy channels of walking users, of unit power, the first path at delay zero."""
    return draw_channels(ClusterConfig(speed_kmh=(1.0, 10.0)))


def draw_channels(config):
    rng = np.random.default_rng(5)
    num_sequences, num_snapshots, num_ant, num_subcarriers = SHAPE
    paths = draw_clusters(num_sequences, num_snapshots, 5e-3, rng, config)
    first = np.where(paths.valid, paths.tau, 1.0).min(axis=(1, 2))[:, None, None, None]
    frequencies = subcarrier_frequencies(num_subcarriers, 540e3)
    h = synthesize(paths, PlanarArray(num_cols=num_ant), frequencies)
    h = h * np.exp(2j * np.pi * first * frequencies)
    h = (h / np.sqrt(np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True))).astype(np.complex64)
    return h, add_noise(h, 10.0, rng)


def estimate(h, mask, **options):
    stacked = ops.convert_to_tensor(np.stack([h.real, h.imag], axis=-1).astype(np.float32))
    found = estimate_from_pilots(stacked, ops.convert_to_tensor(mask), **options)
    return ops.convert_to_numpy(found) @ np.array([1, 1j])


def error_db(h, estimate):
    error = np.sum(np.abs(estimate - h) ** 2, axis=(1, 2, 3)) / np.sum(np.abs(h) ** 2, (1, 2, 3))
    return np.mean(10 * np.log10(error))


def lines(h, mask, axis):
    """Straight lines between the pilots along an axis, each of whose lines has one."""
    h, mask = (np.moveaxis(v, axis, -1).copy() for v in (h, mask))
    places = np.arange(h.shape[-1])
    for index in np.ndindex(h.shape[:-1]):
        known = np.flatnonzero(~mask[index])
        line = h[index][known]
        h[index] = np.interp(places, known, line.real) + 1j * np.interp(places, known, line.imag)
    return np.moveaxis(h, -1, axis)


@pytest.mark.parametrize("pattern", ["random", "comb", "times"])
def test_a_quarter_of_the_pilots_tells_more_than_lines_between_them(pattern, channels):
    h, noisy = channels
    mask = np.ones(SHAPE, bool)
    if pattern == "random":
        mask = np.random.default_rng(1).uniform(size=SHAPE) > 0.25
        mask[..., 0] = False
    elif pattern == "comb":
        mask[..., ::4] = False
    else:
        mask[:, ::4] = False
    expected = lines(noisy, mask, 1 if pattern == "times" else 3)
    # Lines let the noise of the pilots through: 10 dB of it.
    found = estimate(noisy, mask)
    assert error_db(h, found) < min(error_db(h, expected) - 4.0, -15.0)
    if (mask == mask[:, :, :1]).all():
        np.testing.assert_allclose(found, estimate(noisy, mask[:, :, :1]), atol=0.02)


def test_what_has_no_effect_and_what_is_exact(channels):
    h, noisy = channels
    mask = np.arange(h.size).reshape(SHAPE) % 7 > 2
    found = estimate(noisy, mask)
    np.testing.assert_array_equal(estimate(np.where(mask, np.nan, noisy), mask), found)
    # A complex factor of the pilots is one of the estimate; conjugate gradients let rounding grow.
    assert error_db(-3j * found, estimate(-3j * noisy, mask)) < -25.0
    # Nothing comes of nothing, and next to all of all.
    nothing = estimate(noisy, np.arange(4)[:, None, None, None] + np.zeros(SHAPE) > 0)
    assert not nothing[1:].any() and nothing[0].any()
    assert error_db(h, estimate(h, np.zeros(SHAPE, bool))) < -20.0
    assert error_db(h, estimate(noisy, np.zeros(SHAPE, bool))) < -18.0
    # Rows, columns and polarisations have frequencies of their own, and their order is kept.
    planar = estimate(noisy, np.zeros(SHAPE, bool), array_shape=(2, 4, 2))
    assert error_db(h, planar) < -18.0


@pytest.mark.parametrize("speed", [(2.0, 4.0), (25.0, 35.0)])
def test_scattering_that_is_too_rich_for_paths_is_left_to_the_filter(speed):
    h, noisy = draw_channels(
        ClusterConfig(speed_kmh=speed, num_clusters=(23, 23), num_rays=(20, 20))
    )
    t, k = np.arange(SHAPE[1])[:, None, None], np.arange(SHAPE[3])
    mask = np.broadcast_to((k + t) % 4 > 0, (len(h), SHAPE[1], 1, SHAPE[3]))
    known = ~mask[..., None].repeat(2, axis=-1)
    pilots = np.stack([noisy.real, noisy.imag], axis=-1).astype("float32") * known
    given = map(ops.convert_to_tensor, (pilots, known[..., 0].astype("float32")))
    filtered = filter_pilots(*given, (1, SHAPE[2], 1))
    filtered = ops.convert_to_numpy(filtered) @ np.array([1, 1j])
    assert error_db(h, estimate(noisy, mask)) < error_db(h, filtered) + 0.2


def test_a_path_that_is_born_amid_the_pilots():
    t, m, k = (np.arange(n) for n in SHAPE[1:])
    present = t >= 7
    turn = 0.13 * t[:, None, None] + 0.21 * m[:, None] - 0.09 * k
    h = (np.exp(2j * np.pi * turn) * present[:, None, None])[None].astype(np.complex64)
    mask = np.broadcast_to((k[None] + t[:, None])[None, :, None] % 4 > 0, (1, *SHAPE[1:]))
    found = estimate(add_noise(h, 10.0, np.random.default_rng(2)), mask)
    error = np.mean(np.abs(found - h) ** 2, axis=(0, 2, 3))
    assert error[:6].max() < 0.02 and error[8:].max() < 0.02


def test_paths_of_one_snapshot_are_not_left_to_their_aliases():
    rng = np.random.default_rng(4)
    t, m, k = np.ogrid[tuple(slice(n) for n in SHAPE[1:])]

    def wave(delay):
        doppler, angle = rng.uniform(-0.5, 0.5, 2)
        return np.exp(2j * np.pi * (doppler * t + angle * m - delay * k))

    h = []
    for _ in range(8):
        steady, brief = (wave(rng.uniform(0.0, latest)) for latest in (0.0, 0.2))
        h.append(steady + 3 * brief * (t == rng.integers(1, 11)))
    h = np.array(h, np.complex64)
    h /= np.sqrt(np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True))
    mask = np.broadcast_to(sparse_mask(SHAPE[1], SHAPE[3], 4)[:, None], (8, SHAPE[1], 1, SHAPE[3]))
    found = estimate(add_noise(h, 10.0, rng), mask)
    # Taken for steady they share their power with aliases, and errors are -10 dB in the mean.
    assert error_db(h, found) < -20.0
