"""The link against closed forms and against Sionna's own channels."""

import dataclasses
from math import comb

import numpy as np
import pytest
from keras import ops
from scipy.special import exp1
from scipy.stats import norm
from sionna.phy.channel import FlatFadingChannel
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import Demapper, Mapper

from lwmt_sionna.link import Downlink, DownlinkConfig
from lwmt_sionna.link.phy.config import get_mcs

ALONE = DownlinkConfig(
    num_users=1,
    num_antennas=1,
    num_subcarriers=16,
    pilot_groups=((2,), (11,)),
    receiver="perfect",
    num_iterations=8,
)
# One index of the table per modulation.
SCHEMES = {2: 4, 4: 13, 6: 22}


def complex_normal(rng, shape):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] / np.sqrt(2)


def slot_of(h, config):
    """Channels `[batch, num_links, num_antennas]` without selectivity, as slots."""
    h = np.broadcast_to(h[..., None], (*h.shape, config.num_subcarriers))
    slot = np.broadcast_to(h[:, :, None], (*h.shape[:2], config.num_ofdm_symbols, *h.shape[2:]))
    return slot.astype(np.complex64), h.astype(np.complex64)


def raw_bit_errors(rng, h, snr, num_bits_per_symbol, config):
    """Share of wrong coded bits per slot, decided by the sign of the log-likelihood ratios."""
    downlink = Downlink(SCHEMES[num_bits_per_symbol], config)
    slot, h_hat = slot_of(h, config)
    coded = rng.integers(2, size=(len(h), 1, downlink.num_coded_bits)).astype(np.float32)
    noise = complex_normal(rng, (len(h), config.num_links, *slot.shape[2::2]))
    llr = downlink.log_likelihood_ratios(coded, slot, h_hat, 1 / snr, noise).numpy()
    return np.mean((llr > 0) != (coded > 0.5), axis=(1, 2))


def qam_bit_error_rate(snr, num_bits_per_symbol):
    """Gray-mapped square QAM in white Gaussian noise, exactly."""
    if num_bits_per_symbol == 2:
        return norm.sf(np.sqrt(snr))
    if num_bits_per_symbol == 4:
        a = np.sqrt(snr / 5)
        return 3 / 4 * norm.sf(a) + 1 / 2 * norm.sf(3 * a) - 1 / 4 * norm.sf(5 * a)
    a = np.sqrt(snr / 21)
    terms = {1: 7, 3: 6, 5: -1, 9: 1, 13: -1}
    return sum(weight * norm.sf(k * a) for k, weight in terms.items()) / 12


@pytest.mark.parametrize(("num_bits", "snr_db"), [(2, 4.0), (4, 10.0), (6, 15.0)])
def test_bit_errors_in_white_noise(rng, num_bits, snr_db):
    snr = 10 ** (snr_db / 10)
    errors = raw_bit_errors(rng, np.ones((200, 1, 1)), snr, num_bits, ALONE)
    expected = qam_bit_error_rate(snr, num_bits)
    # Bits of a symbol are not quite independent: the spread is taken over slots.
    assert abs(errors.mean() - expected) < 4 * errors.std() / np.sqrt(len(errors))
    assert errors.mean() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("num_bits", [2, 4, 6])
def test_log_likelihood_ratios_are_those_of_sionnas_demapper(rng, num_bits):
    """One user, one antenna, a channel of one: what is left is mapper, noise and demapper."""
    downlink = Downlink(SCHEMES[num_bits], ALONE)
    slot, h_hat = slot_of(np.ones((3, 1, 1)), ALONE)
    coded = rng.integers(2, size=(3, 1, downlink.num_coded_bits)).astype(np.float32)
    noise = complex_normal(rng, (3, 1, ALONE.num_ofdm_symbols, ALONE.num_subcarriers))
    no = np.float32(0.2)
    llr = downlink.log_likelihood_ratios(coded, slot, h_hat, no, noise)
    at_data = noise[:, :, ALONE.data_symbols].reshape(3, 1, -1)
    y = Mapper("qam", num_bits)(ops.convert_to_tensor(coded)) + np.sqrt(no) * at_data
    expected = Demapper("app", "qam", num_bits)(y, no)
    np.testing.assert_allclose(llr, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_antennas", [1, 4])
def test_bit_errors_in_rayleigh_fading_have_the_diversity_of_the_antennas(rng, num_antennas):
    """Maximum-ratio transmission to one user: diversity of order `num_antennas`."""
    config = dataclasses.replace(ALONE, num_antennas=num_antennas)
    snr = 10 ** (2.0 / 10) if num_antennas == 4 else 10 ** (8.0 / 10)
    h = complex_normal(rng, (3000, 1, num_antennas))
    errors = raw_bit_errors(rng, h, snr, 2, config)
    mu = np.sqrt(snr / 2 / (1 + snr / 2))
    expected = ((1 - mu) / 2) ** num_antennas * sum(
        comb(num_antennas - 1 + k, k) * ((1 + mu) / 2) ** k for k in range(num_antennas)
    )
    assert abs(errors.mean() - expected) < 3 * errors.std() / np.sqrt(len(errors))
    assert errors.mean() == pytest.approx(expected, rel=0.15)


def test_rate_in_rayleigh_fading(rng):
    snr = 10.0
    slot, h_hat = slot_of(complex_normal(rng, (20_000, 1, 1)), ALONE)
    downlink = Downlink(4, ALONE)
    h_eff = downlink.effective_channel(slot[:, :, :1], h_hat, 1 / snr)
    rate = downlink.spectral_efficiency(h_eff, 1 / snr).numpy()
    expected = np.exp(1 / snr) * exp1(1 / snr) / np.log(2)
    assert abs(rate.mean() - expected) < 3 * rate.std() / np.sqrt(rate.size)


@pytest.mark.parametrize("mcs", [4, 13])
def test_block_errors_in_rayleigh_fading_are_those_of_sionnas_channel(rng, mcs):
    downlink = Downlink(mcs, ALONE)
    no = 0.25 if mcs == 4 else 0.1
    num_blocks, num_bits = 500, get_mcs(mcs).num_bits_per_symbol
    slot, h_hat = slot_of(complex_normal(rng, (num_blocks, 1, 1)), ALONE)
    bits, bits_hat = downlink(slot, h_hat, no)
    failed = np.any(bits.numpy() != bits_hat.numpy(), axis=-1)

    encoder = LDPC5GEncoder(
        downlink.num_info_bits, downlink.num_coded_bits, num_bits_per_symbol=num_bits
    )
    bits = ops.convert_to_tensor(
        rng.integers(2, size=(num_blocks, downlink.num_info_bits)), "float32"
    )
    x = Mapper("qam", num_bits)(encoder(bits))
    # One coefficient per block: the symbols of a block as the antennas of one diagonal channel.
    _, h = FlatFadingChannel(1, 1, add_awgn=False, return_channel=True)(
        ops.ones([num_blocks, 1], "complex64")
    )
    h = h[:, :, 0]
    y = h * x + ops.cast(np.sqrt(no), "complex64") * complex_normal(rng, x.shape)
    llr = Demapper("app", "qam", num_bits)(y / h, no / ops.abs(h) ** 2 * ops.ones(x.shape))
    decoder = LDPC5GDecoder(encoder, num_iter=ALONE.num_iterations)
    reference = np.any(decoder(llr).numpy() != bits.numpy(), axis=-1)

    deviation = np.sqrt((failed.var() + reference.var()) / num_blocks)
    assert 0.1 < reference.mean() < 0.9
    assert abs(failed.mean() - reference.mean()) < 3 * deviation


def test_aged_channel_of_standing_users_is_the_perfect_one(rng):
    """Speed zero, no noise in the history: hold equals perfect, block for block."""
    from lwmt_sionna.link import DropConfig, DropFactory, make_policy
    from tests.link.channels import make_paths

    config = DownlinkConfig(num_users=2, num_antennas=8, num_subcarriers=16)
    settings = DropConfig(history_snr_db=100.0, max_similarity=1.0, csi_subcarrier_spacing=1.08e6)
    factory = DropFactory(make_paths(16, speed_kmh=0.0), config, settings)
    drops = factory.at(5)
    downlink = Downlink(13, config)
    failed = []
    for name in ("perfect", "hold"):
        h_hat = make_policy(name)(drops.history, drops.horizon, target=drops.target)
        np.testing.assert_allclose(h_hat, drops.target, atol=1e-3)
        bits = rng.integers(2, size=(8, 2, downlink.num_info_bits)).astype(np.float32)
        noise = complex_normal(np.random.default_rng(1), (8, 2, 14, 16))
        _, bits_hat = downlink(drops.slot, h_hat, 0.6, bits=bits, noise=noise)
        failed.append(np.any(bits != bits_hat.numpy(), axis=-1))
        rng = np.random.default_rng(42)
    np.testing.assert_array_equal(failed[0], failed[1])
    assert 0 < failed[0].sum() < failed[0].size
