import dataclasses

import numpy as np
import pytest
from keras import ops
from sionna.phy.channel import ApplyOFDMChannel
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import Demapper, Mapper
from sionna.phy.ofdm import (
    LMMSEEqualizer,
    LMMSEPostEqualizationSINR,
    LSChannelEstimator,
    ResourceGridMapper,
    RZFPrecoder,
)

from lwmt_sionna.link import Downlink, DownlinkConfig, comb_pilot_pattern
from lwmt_sionna.link.phy.runner import LinkRunner

NO = 0.05


def complex_normal(rng, shape):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] / np.sqrt(2)


def draw(rng, config, num_info_bits, batch_size):
    bits = rng.integers(2, size=(batch_size, config.num_users, num_info_bits))
    shape = (batch_size, config.num_links, config.num_ofdm_symbols, config.num_subcarriers)
    return bits.astype(np.float32), complex_normal(rng, shape)


def static_channel(rng, config, batch_size, num_taps=2):
    """Flat over the slot, smooth over the subcarriers."""
    taps = complex_normal(rng, (batch_size, config.num_links, config.num_antennas, num_taps))
    ramp = np.exp(
        -2j * np.pi * np.arange(num_taps)[:, None] * np.arange(config.num_subcarriers) / 64
    )
    h = (taps @ ramp / np.sqrt(num_taps)).astype(np.complex64)
    return np.repeat(h[:, :, None], config.num_ofdm_symbols, axis=2), h


def test_effective_channel_is_true_channel_times_precoder_of_the_estimate(small_config, rng):
    config = small_config
    h = complex_normal(rng, (3, config.num_users, config.num_ofdm_symbols, config.num_antennas, 16))
    h_hat = complex_normal(rng, (3, config.num_users, config.num_antennas, 16))
    no = np.array([0.1, 0.2, 0.4], np.float32)
    h_eff = Downlink(4, config).effective_channel(h, h_hat, no).numpy()

    k = config.num_users
    for b in range(3):
        for f in range(16):
            estimate = h_hat[b, :, :, f].astype(np.complex128)
            gram = estimate @ estimate.conj().T + k * no[b] * np.eye(k)
            precoder = estimate.conj().T @ np.linalg.inv(gram)
            precoder /= np.linalg.norm(precoder, axis=0) * np.sqrt(k)
            assert np.sum(np.abs(precoder) ** 2) == pytest.approx(1.0)
            for t in (0, 13):
                expected = h[b, :, t, :, f] @ precoder
                np.testing.assert_allclose(h_eff[b, :, t, f], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("receiver", "num_users", "num_user_antennas", "no"),
    [("ls", 2, 1, 0.55), ("perfect", 2, 1, 0.55), ("ls", 2, 2, 0.17), ("perfect", 1, 2, 0.8)],
)
def test_perfect_csi_equals_a_link_of_sionnas_blocks_block_for_block(
    small_config, rng, receiver, num_users, num_user_antennas, no
):
    """Multi-user, multi-user with two antennas each, and single-user multi-stream."""
    config = dataclasses.replace(
        small_config,
        receiver=receiver,
        num_users=num_users,
        num_user_antennas=num_user_antennas,
        streams_per_user=num_user_antennas,
        pilot_groups=((2, 3), (10, 11)),
    )
    downlink = Downlink(13, config)
    slot, h = static_channel(rng, config, batch_size=12)
    bits, noise = draw(rng, config, downlink.num_info_bits, 12)
    # `no` is such that some blocks fail, so that failures are compared as well.
    _, bits_hat = downlink(slot, h, no, bits=bits, noise=noise)

    grid = downlink.resource_grid
    streams = downlink.stream_management
    encoder = LDPC5GEncoder(downlink.num_info_bits, downlink.num_coded_bits, num_bits_per_symbol=4)
    split = (12, num_users, num_user_antennas)
    h_sionna = slot.transpose(0, 1, 3, 2, 4)
    h_sionna = ops.convert_to_tensor(h_sionna.reshape(*split, 1, *h_sionna.shape[2:]))
    coded = ops.reshape(encoder(ops.convert_to_tensor(bits)), [12, 1, config.num_streams, -1])
    x = ResourceGridMapper(grid)(Mapper("qam", 4)(coded))
    precoder = RZFPrecoder(grid, streams, return_effective_channel=True)
    alpha = config.num_streams * no * np.ones((12, 1, 14, 16), np.float32)
    scale = 1 / np.sqrt(config.num_streams).astype(np.float32)
    x, h_eff = precoder(x * scale, h_sionna, alpha)
    y = ApplyOFDMChannel(add_awgn=False)(x, h_sionna)
    y += np.sqrt(no) * noise.reshape(*split, 14, 16)
    if receiver == "ls":
        h_eff_hat, error = LSChannelEstimator(grid, interpolation_type="lin")(y, no)
    else:
        h_eff_hat, error = h_eff * scale, 0.0
    x_hat, no_eff = LMMSEEqualizer(grid, streams)(y, h_eff_hat, error, no)
    llr = Demapper("app", "qam", 4)(x_hat, no_eff)
    llr = ops.reshape(llr, [12, num_users, -1])
    expected = LDPC5GDecoder(encoder, num_iter=config.num_iterations)(llr)

    bits_hat, expected = bits_hat.numpy(), expected.numpy()
    failed = np.any(bits != bits_hat, axis=-1)
    expected_failed = np.any(bits != expected, axis=-1)
    np.testing.assert_array_equal(failed, expected_failed)
    assert 0 < failed.sum() < failed.size
    good = ~failed
    np.testing.assert_array_equal(bits_hat[good], expected[good])


def test_eigenmodes_give_each_user_its_stream(small_config, rng):
    config = dataclasses.replace(
        small_config, num_user_antennas=2, combining="eigen", receiver="perfect"
    )
    downlink = Downlink(13, config)
    slot, h = static_channel(rng, config, batch_size=6)
    h_eff = downlink.effective_channel(slot, h, 1e-6).numpy()
    for b, f in ((0, 0), (5, 15)):
        channels = h[b, :, :, f].reshape(2, 2, 8).astype(np.complex128)
        modes = [np.linalg.svd(channel) for channel in channels]
        rows = np.stack([s[0] * vh[0] for _, s, vh in modes])
        g = np.linalg.pinv(rows)
        g /= np.sqrt(2) * np.linalg.norm(g, axis=0)
        expected = np.abs(np.concatenate(channels) @ g)
        np.testing.assert_allclose(np.abs(h_eff[b, :, 3, f]), expected, atol=2e-3)
    # Two antennas with one stream hear what one antenna cannot.
    bits, noise = draw(rng, config, downlink.num_info_bits, 6)
    _, bits_hat = downlink(slot, h, 0.5, bits=bits, noise=noise)
    np.testing.assert_array_equal(bits, bits_hat)


def test_orthogonal_users_see_an_awgn_channel(small_config, rng):
    config = dataclasses.replace(small_config, receiver="perfect")
    downlink = Downlink(4, config)
    # Rows of a unitary matrix: zero forcing costs nothing, the array gain is `num_antennas`.
    q, _ = np.linalg.qr(complex_normal(rng, (config.num_antennas, config.num_antennas)))
    h = np.sqrt(config.num_antennas) * q[None, : config.num_users, :, None]
    h = np.repeat(np.repeat(h, 100, axis=0), config.num_subcarriers, axis=-1).astype(np.complex64)
    slot = np.repeat(h[:, :, None], config.num_ofdm_symbols, axis=2)
    bits, noise = draw(rng, config, downlink.num_info_bits, 100)
    snr = 10 ** (-0.8 / 10)
    no = config.num_antennas / config.num_users / snr
    _, bits_hat = downlink(slot, h, no, bits=bits, noise=noise)
    bler = np.mean(np.any(bits != bits_hat.numpy(), axis=-1))

    encoder = LDPC5GEncoder(downlink.num_info_bits, downlink.num_coded_bits, num_bits_per_symbol=2)
    decoder = LDPC5GDecoder(encoder, num_iter=config.num_iterations)
    bits, _ = draw(rng, config, downlink.num_info_bits, 400)
    x = Mapper("qam", 2)(encoder(ops.convert_to_tensor(bits)))
    y = x.numpy() + np.sqrt(1 / snr) * complex_normal(rng, x.shape)
    y = ops.cast(y, "complex64")
    bits_hat = decoder(Demapper("app", "qam", 2)(y, ops.convert_to_tensor(1 / snr, "float32")))
    reference = np.mean(np.any(bits != bits_hat.numpy(), axis=-1))
    # 200 blocks against 800: three standard deviations of the difference.
    deviation = np.sqrt(reference * (1 - reference) * (1 / 200 + 1 / 800))
    assert 0.05 < reference < 0.95
    assert abs(bler - reference) < 3 * deviation


def test_pilots_are_orthogonal_and_radiate_as_much_as_data():
    config = DownlinkConfig()
    pattern = comb_pilot_pattern(config)
    mask = pattern.mask.numpy().astype(bool)
    grid = np.zeros(mask.shape, np.complex64)
    grid[mask] = pattern.pilots.numpy().ravel()
    active = np.abs(grid[0]) > 0
    assert active.sum(axis=0).max() == 1
    # Streams carry 1 / num_users of the power each: a pilot element radiates 1, like data.
    power = np.sum(np.abs(grid[0]) ** 2, axis=0) / config.num_users
    np.testing.assert_allclose(power[[2, 3, 10, 11]], 1.0, rtol=1e-5)
    for stream in range(config.num_users):
        symbols = np.flatnonzero(active[stream].any(axis=1))
        assert len(symbols) == 2 and symbols[1] - symbols[0] == 8


def test_a_flat_channel_is_estimated_without_error(small_config, rng):
    """Without noise least squares leaves the SINR of a user that knows its channel."""
    downlink = Downlink(4, small_config)
    slot, h = static_channel(rng, small_config, batch_size=2, num_taps=1)
    h_eff = downlink.effective_channel(slot, h, NO)
    silence = np.zeros((2, 2, 14, 16), np.complex64)
    heard = downlink.data_sinr(h_eff, NO, silence).numpy().reshape(2, 2, -1, 16)
    known = downlink.sinr(h_eff, NO).numpy().reshape(2, 2, 14, 16)
    np.testing.assert_allclose(heard, known[:, :, list(small_config.data_symbols)], rtol=1e-3)


@pytest.mark.parametrize(("num_users", "num_user_antennas"), [(2, 1), (1, 2)])
def test_sionnas_seven_axes_are_the_short_form(small_config, rng, num_users, num_user_antennas):
    config = dataclasses.replace(
        small_config,
        num_users=num_users,
        num_user_antennas=num_user_antennas,
        streams_per_user=num_user_antennas,
    )
    downlink = Downlink(4, config)
    slot, h = static_channel(rng, config, batch_size=3)
    h_hat = h + 0.3 * complex_normal(rng, h.shape)
    bits, noise = draw(rng, config, downlink.num_info_bits, 3)
    short = downlink(slot, h_hat, NO, bits=bits, noise=noise)
    # [batch_size, num_rx, num_rx_ant, num_tx, num_tx_ant, num_ofdm_symbols, fft_size]
    users = (3, num_users, num_user_antennas, 1)
    h_sionna = slot.transpose(0, 1, 3, 2, 4).reshape(*users, 8, 14, 16)
    h_hat_sionna = h_hat.reshape(*users, 8, 1, 16)
    sionna = downlink(h_sionna, h_hat_sionna, NO, bits=bits, noise=noise)
    np.testing.assert_array_equal(short[1], sionna[1])
    np.testing.assert_array_equal(
        downlink.effective_channel(slot, h_hat, NO),
        downlink.effective_channel(h_sionna, h_hat_sionna, NO),
    )


def test_channels_of_another_shape(small_config):
    downlink = Downlink(4, small_config)
    h, h_hat = np.ones((3, 2, 14, 8, 16), np.complex64), np.ones((3, 2, 8, 16), np.complex64)
    with pytest.raises(ValueError, match=r"`h` has.*Received: h.shape=\(3, 2, 14, 8, 15\)"):
        downlink(h[..., 1:], h_hat, NO)
    with pytest.raises(ValueError, match=r"`h_hat` has.*h_hat.shape=\(3, 1, 1, 8, 16\)"):
        downlink(h, h_hat[:, :1], NO)
    with pytest.raises(ValueError, match=r"h_hat.shape=\(3, 2, 1, 1, 8, 14, 16\)"):
        downlink(h, np.ones((3, 2, 1, 1, 8, 14, 16), np.complex64), NO)


def test_spectral_efficiency_is_that_of_sionnas_sinr(small_config, rng):
    downlink = Downlink(4, small_config)
    slot, h = static_channel(rng, small_config, batch_size=2)
    h_hat = h + 0.3 * complex_normal(rng, h.shape)
    h_eff = downlink.effective_channel(slot, h_hat, NO)
    rate = downlink.spectral_efficiency(h_eff, NO).numpy()
    sinr = LMMSEPostEqualizationSINR(downlink.resource_grid, downlink.stream_management)(
        ops.transpose(h_eff, [0, 1, 4, 2, 3])[:, :, None, None],
        ops.convert_to_tensor(NO),
        # A receiver with one antenna has nothing to whiten; see also `test_receiver.py`.
        interference_whitening=False,
    ).numpy()
    expected = np.log2(1 + sinr[..., 0]).mean(axis=(1, 2))
    np.testing.assert_allclose(rate, expected, rtol=1e-4)


def test_compiled_and_eager_runs_count_alike(small_drops, small_config):
    counts = [
        LinkRunner(small_config, batch_size=6, compile=mode).count(
            small_drops.slot, small_drops.history[:, :, -1], 13, 3.0
        )
        for mode in ("eager", "xla")
    ]
    # Rounding may turn single bits of a block that fails either way, not whole blocks.
    np.testing.assert_array_equal(counts[0] > 0, counts[1] > 0)
    assert 0 < np.count_nonzero(counts[0]) < counts[0].size


@pytest.mark.parametrize("users", [{}, {"num_user_antennas": 2, "combining": "eigen"}])
def test_compiled_and_eager_rates_are_alike(small_config, rng, users):
    config = dataclasses.replace(small_config, **users)
    slot, h = static_channel(rng, config, batch_size=3)
    rates = [
        LinkRunner(config, compile=mode).spectral_efficiency(slot, h, 10.0)
        for mode in ("eager", "xla")
    ]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-4)


def test_draws_its_own_bits_and_noise(small_config, rng):
    downlink = Downlink(4, small_config)
    slot, h = static_channel(rng, small_config, batch_size=3)
    bits, bits_hat = downlink(slot, h, 0.01)
    assert bits.shape == (3, 2, downlink.num_info_bits)
    assert set(np.unique(bits)) == {0.0, 1.0}
    np.testing.assert_array_equal(bits, bits_hat)


def test_symbols_surround_the_snapshot():
    times = DownlinkConfig().symbol_times
    assert times.sum() == pytest.approx(0.0)
    # A slot of 14 symbols at 30 kHz lasts half a millisecond.
    assert times[-1] - times[0] == pytest.approx(13 / 14 * 0.5e-3)


@pytest.mark.parametrize(
    ("spacing", "duration"), [(15e3, 1e-3), (30e3, 0.5e-3), (60e3, 0.25e-3), (120e3, 0.125e-3)]
)
def test_numerologies_of_nr(spacing, duration):
    config = DownlinkConfig(subcarrier_spacing=spacing)
    assert 14 * config.symbol_duration == pytest.approx(duration)
    assert np.ptp(config.symbol_times) == pytest.approx(13 / 14 * duration)


def test_rate_counts_pilots_as_overhead():
    config = DownlinkConfig()
    assert config.num_data_symbols == 10 * 32
    assert config.rate(13) == pytest.approx(612 / (14 * 32))
    assert Downlink(13).rate == config.rate(13)
    double = DownlinkConfig(num_user_antennas=2, streams_per_user=2, num_users=2)
    assert double.rate(13) == pytest.approx(2 * config.rate(13), rel=2e-3)
    with pytest.raises(ValueError, match="at most 8448 information bits"):
        Downlink(28, dataclasses.replace(config, num_subcarriers=256))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_users": 0}, "num_users=0"),
        ({"num_users": 64}, "num_users=64, streams_per_user=1, num_antennas=32"),
        ({"streams_per_user": 2}, "streams_per_user=2, num_user_antennas=1"),
        ({"num_user_antennas": 2}, 'choose "eigen".*streams_per_user=1'),
        ({"combining": "magic"}, "'antenna', 'eigen'. Received: combining='magic'"),
        ({"subcarrier_spacing": 45e3}, "15000.0, 30000.0.*subcarrier_spacing=45000.0"),
        ({"receiver": "genie"}, "receiver='genie'"),
        ({"num_iterations": 0}, "num_iterations=0"),
        ({"cn_update": "magic"}, "cn_update='magic'"),
        ({"pilot_groups": ((2, 3), (3, 4))}, "must be different"),
        ({"pilot_groups": ((2, 14),)}, "14 symbols"),
        ({"pilot_groups": ((2,),)}, "room for all streams"),
        ({"num_subcarriers": 1}, "num_subcarriers=1"),
        ({"num_users": True}, "num_users=True"),
    ],
)
def test_wrong_configurations(values, message):
    with pytest.raises(ValueError, match=message):
        DownlinkConfig(**values)


def test_code_rate_that_sionna_does_not_encode():
    with pytest.raises(ValueError, match=r"MCS 0"):
        Downlink(0)
