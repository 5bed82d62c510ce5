"""Both lines of Sionna, 1.2 on TensorFlow and 2.2 on PyTorch, are one link.

What the first line computes is written here, and both are compared with it: channels, bits and
noise are drawn by NumPy, so that they are the same.
"""

import dataclasses
import importlib
import sys

import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna import link
from lwmt_sionna.link import Downlink, DownlinkConfig, LinkRunner
from lwmt_sionna.link.phy import line
from lwmt_sionna.link.phy.config import get_mcs

NUM_DROPS = 48
CONFIG = DownlinkConfig(num_users=2, num_antennas=8, num_subcarriers=16)
VARIANTS = {
    "perfect": {"receiver": "perfect"},
    "ls": {"receiver": "ls"},
    "lmmse": {"receiver": "lmmse"},
    "eigen": {"num_user_antennas": 2, "combining": "eigen"},
    "two streams": {"num_user_antennas": 2, "streams_per_user": 2},
}
# Link SNR [dB], and of the first line: mean sum rate [bit/s/Hz], lost blocks of 96, and what
# decoders of 16-QAM are told per bit.
STORED = {
    "perfect": (1.0, 4.639943, 37, 0.544038),
    "ls": (3.0, 5.695315, 39, 0.539188),
    "lmmse": (2.0, 5.157984, 31, 0.557211),
    "eigen": (1.0, 5.568280, 49, 0.504315),
    "two streams": (7.0, 10.988183, 43, 0.529831),
}


def complex_normal(rng, *shape):
    return rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0] / np.sqrt(2)


def link_of(name, link_snr_db):
    rng = np.random.default_rng(5)
    config = dataclasses.replace(CONFIG, **VARIANTS[name])
    shape = (NUM_DROPS, config.num_links, config.num_antennas, config.num_subcarriers)
    start, change = complex_normal(rng, *shape[:3], 1), complex_normal(rng, *shape[:3], 1)
    h_hat = np.repeat(start, config.num_subcarriers, axis=-1)
    age = 0.02 * np.arange(config.num_ofdm_symbols)[:, None, None]
    slot = np.cos(age) * h_hat[:, :, None] + np.sin(age) * change[:, :, None]
    runner = LinkRunner(config, batch_size=NUM_DROPS, seed=3, compile="eager")
    slot, h_hat = slot.astype(np.complex64), h_hat.astype(np.complex64)
    rate = runner.spectral_efficiency(slot, h_hat, link_snr_db).sum(axis=1).mean()
    lost = runner.count(slot, h_hat, 13, link_snr_db) > 0
    told = runner.information(slot, h_hat, get_mcs(13).num_bits_per_symbol, link_snr_db)
    return rate, int(lost.sum()), told.mean()


@pytest.mark.parametrize("name", STORED)
def test_same_drops_give_the_same_rate_and_block_errors(name):
    link_snr_db, *expected = STORED[name]
    rate, lost, told = link_of(name, link_snr_db)
    assert rate == pytest.approx(expected[0], rel=1e-5)
    # Rounding decides blocks at the edge; phases of eigenmodes are the library's choice, and meet
    # other noise: then the counts are two samples of one share, within two standard deviations.
    assert 5 < expected[1] < 91
    share = expected[1] / 96
    allowed = 2 * np.sqrt(2 * 96 * share * (1 - share)) if name == "eigen" else 1
    assert abs(lost - expected[1]) <= allowed
    assert told == pytest.approx(expected[2], abs=1e-2 if name == "eigen" else 1e-5)


def test_without_sionna_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    monkeypatch.delitem(sys.modules, "lwmt_sionna.link.phy.downlink", raising=False)
    monkeypatch.delitem(vars(link), "Downlink", raising=False)
    with pytest.raises(ImportError, match=r"\.\[tf\].*\.\[sionna2\].*Missing: sionna"):
        link.Downlink  # noqa: B018


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"KERAS_BACKEND=(tensorflow|torch).*backend=jax"):
        importlib.reload(line)


@pytest.mark.parametrize("name", STORED)
def test_double_precision_is_kept(name):
    config = dataclasses.replace(CONFIG, **VARIANTS[name])
    rng = np.random.default_rng(8)
    h = complex_normal(rng, 3, config.num_links, 1, config.num_antennas, config.num_subcarriers)
    noise = complex_normal(rng, 3, config.num_links, 14, config.num_subcarriers)
    found = {}
    for precision in ("single", "double"):
        downlink = Downlink(13, config, precision)
        coded = np.random.default_rng(2).integers(2, size=(3, 2, downlink.num_coded_bits))
        real, complex_ = line.dtypes(precision)
        slot, told, heard = (
            ops.convert_to_tensor(x, complex_) for x in (h.repeat(14, axis=2), h[:, :, 0], noise)
        )
        h_eff = downlink.effective_channel(slot, told, 0.1)
        sinr = downlink.data_sinr(h_eff, 0.1, heard)
        llr = downlink.log_likelihood_ratios(
            ops.convert_to_tensor(coded, real), slot, told, 0.1, heard
        )
        assert keras.backend.standardize_dtype(h_eff.dtype) == complex_
        assert keras.backend.standardize_dtype(sinr.dtype) == real
        assert keras.backend.standardize_dtype(llr.dtype) == real
        found[precision] = ops.convert_to_numpy(sinr), ops.convert_to_numpy(llr)
    if name == "eigen":
        return  # the phases of modes are the library's choice, and meet other noise
    for single, double in zip(found["single"], found["double"]):
        np.testing.assert_allclose(single, double, rtol=1e-2, atol=1e-2)
