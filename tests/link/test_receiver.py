import dataclasses

import numpy as np
import pytest
from keras import ops
from sionna.phy.ofdm import LMMSEPostEqualizationSINR

from lwmt_sionna.link import Downlink, DownlinkConfig, comb_pilot_pattern
from lwmt_sionna.link.phy.processing import WienerInterpolator, post_equalization_sinr


def complex_normal(rng, shape):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] / np.sqrt(2)


@pytest.mark.parametrize(
    ("num_users", "antennas", "streams"), [(3, 1, 1), (2, 2, 1), (2, 3, 2), (1, 4, 3)]
)
def test_sinr_is_that_of_a_simulation(rng, num_users, antennas, streams):
    """Symbols through the true channel and the filter of the estimated one, error by error."""
    num_streams = num_users * streams
    shape = (1, num_users, antennas, 1, 3, num_streams)
    h = complex_normal(rng, shape)
    h_hat = h + 0.2 * complex_normal(rng, shape)
    no, expected_error = 0.1, 0.04
    sinr = post_equalization_sinr(h, no, streams, h_hat, expected_error).numpy()
    assert sinr.shape == (1, num_users, streams, 1, 3)
    x = complex_normal(rng, (num_streams, 200_000))
    for user in range(num_users):
        own = slice(user * streams, (user + 1) * streams)
        for f in range(3):
            true, belief = (c[0, user, :, 0, f].astype(np.complex128) for c in (h, h_hat))
            load = (no + num_streams * expected_error) * np.eye(antennas)
            w = belief[:, own].conj().T @ np.linalg.inv(belief @ belief.conj().T + load)
            w /= np.diag(w @ belief[:, own])[:, None]
            y = true @ x + np.sqrt(no) * complex_normal(rng, (antennas, x.shape[1]))
            x_hat = w @ y
            gain = np.mean(x_hat * x[own].conj(), axis=1)
            power = np.mean(np.abs(x_hat - x[own]) ** 2, axis=1)
            np.testing.assert_allclose(sinr[0, user, :, 0, f], np.abs(gain) ** 2 / power, rtol=0.05)


def test_sionnas_sinr_with_whitening_counts_interference_twice(small_config, rng):
    """Why `post_equalization_sinr` exists."""
    downlink = Downlink(4, small_config)
    h = complex_normal(rng, (2, 2, 14, 8, 16))
    h_eff = downlink.effective_channel(h, h[:, :, 0], 0.1)
    sionna = ops.transpose(h_eff, [0, 1, 4, 2, 3])[:, :, None, None]
    reference = LMMSEPostEqualizationSINR(downlink.resource_grid, downlink.stream_management)
    gain = np.abs(h_eff.numpy()) ** 2  # [batch, user, symbol, subcarrier, stream]
    signal = np.einsum("butfu->btfu", gain)
    interference = np.moveaxis(gain.sum(axis=-1), 1, -1) - signal
    expected = {False: signal / (interference + 0.1), True: signal / (2 * interference + 0.1)}
    for whitening, values in expected.items():
        sinr = reference(sionna, ops.convert_to_tensor(0.1), interference_whitening=whitening)
        np.testing.assert_allclose(sinr[..., 0], values, rtol=1e-3)
    own = post_equalization_sinr(h_eff[:, :, None], 0.1, 1).numpy()
    np.testing.assert_allclose(np.moveaxis(own[:, :, 0], 1, -1), expected[False], rtol=1e-3)


def test_sinr_of_a_vanished_user_is_zero():
    h = np.zeros((1, 2, 1, 1, 1, 2), np.complex64)
    h[0, 0, 0, 0, 0, 0] = 1.0
    sinr = post_equalization_sinr(h, 0.5, 1).numpy().ravel()
    np.testing.assert_allclose(sinr, [2.0, 0.0], rtol=1e-5)


@pytest.fixture(scope="module")
def wide_config():
    return DownlinkConfig(num_antennas=8, num_subcarriers=24, receiver="lmmse")


def pilot_estimates(rng, config, h, no):
    """Least-squares estimates of channels `[batch, streams, symbols, subcarriers]`."""
    pattern = comb_pilot_pattern(config)
    mask = pattern.mask.numpy()[0].astype(bool)
    pilots = pattern.pilots.numpy()[0]
    active = np.abs(pilots) > 0
    divisor = np.where(active, pilots, 1)
    true = np.stack([h[:, s][:, mask[s]] for s in range(len(mask))], axis=1)
    noise = np.sqrt(no) * complex_normal(rng, true.shape)
    estimate = np.where(active, true + noise / divisor, 0).astype(np.complex64)
    variance = np.where(active, no / np.abs(divisor) ** 2, 0).astype(np.float32)
    axes = (slice(None), None, None, None)
    return (
        pattern,
        ops.convert_to_tensor(estimate[axes]),
        ops.convert_to_tensor(variance[None, None, None, None]),
    )


def draw_channels(rng, config, batch_size, delay_spread, doppler_spread):
    """Channels of exactly the statistics that the filter expects."""
    from scipy.linalg import sqrtm

    sizes = (config.num_ofdm_symbols, config.num_subcarriers)
    roots = [
        sqrtm(np.sinc(width * np.subtract.outer(np.arange(n), np.arange(n))) + 1e-9 * np.eye(n))
        for n, width in zip(sizes, (doppler_spread, delay_spread))
    ]
    white = complex_normal(rng, (batch_size, config.num_streams, *sizes))
    return (roots[0].real @ white @ roots[1].real).astype(np.complex64)


def test_wiener_error_is_what_it_says(wide_config, rng):
    h = draw_channels(rng, wide_config, 400, 0.2, 0.05)
    pattern, estimate, variance = pilot_estimates(rng, wide_config, h, no=0.4)
    h_hat, error = WienerInterpolator(pattern, 0.2, 0.05)(estimate, variance)
    assert h_hat.shape == error.shape == (400, 1, 1, 1, 4, 14, 24)
    measured = np.mean(np.abs(h_hat.numpy()[:, 0, 0, 0] - h) ** 2, axis=0)
    expected = np.mean(error.numpy()[:, 0, 0, 0], axis=0)
    # The filter weighs by the measured power of each stream, so it is near the optimum, not on it.
    assert measured.mean() == pytest.approx(expected.mean(), rel=0.1)
    assert measured.mean() < 0.6 * 0.4 / 4  # the noise of a pilot, boosted four times


def test_wiener_without_noise_returns_the_pilots(wide_config, rng):
    h = draw_channels(rng, wide_config, 3, 0.2, 0.05)
    pattern, estimate, variance = pilot_estimates(rng, wide_config, h, no=1e-9)
    h_hat, _ = WienerInterpolator(pattern, 0.2, 0.05)(estimate, variance)
    error = h_hat.numpy()[:, 0, 0, 0] - h
    active = np.abs(pattern.pilots.numpy()[0]) > 0
    for stream, mask in enumerate(pattern.mask.numpy()[0].astype(bool)):
        assert np.abs(error[:, stream][:, mask][:, active[stream]]).max() < 1e-3


def test_wiener_shrinks_a_stream_that_is_not_there(wide_config, rng):
    h = np.zeros((200, 4, 14, 24), np.complex64)
    pattern, estimate, variance = pilot_estimates(rng, wide_config, h, no=0.4)
    h_hat, error = WienerInterpolator(pattern, 0.2, 0.05)(estimate, variance)
    assert np.mean(np.abs(h_hat.numpy()) ** 2) < 0.1 * 0.1
    assert np.isfinite(error.numpy()).all()


@pytest.mark.parametrize("receiver", ["ls", "lmmse", "perfect"])
def test_better_receivers_hear_better(small_config, rng, receiver):
    config = dataclasses.replace(small_config, receiver=receiver)
    downlink = Downlink(4, config)
    taps = complex_normal(rng, (40, 2, 8, 1))
    slot = np.broadcast_to(taps[:, :, None], (40, 2, 14, 8, 16))
    h_hat = np.broadcast_to(taps, (40, 2, 8, 16))
    noise = complex_normal(rng, (40, 2, 14, 16))
    sinr = {}
    for name in (receiver, "perfect"):
        downlink = Downlink(4, dataclasses.replace(small_config, receiver=name))
        h_eff = downlink.effective_channel(slot, h_hat, 0.5)
        sinr[name] = np.mean(np.log2(1 + downlink.data_sinr(h_eff, 0.5, noise).numpy()))
    assert 0.6 * sinr["perfect"] < sinr[receiver] <= sinr["perfect"]
