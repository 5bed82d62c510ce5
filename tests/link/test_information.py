import numpy as np
import pytest
from keras import ops
from sionna.phy.mapping import Demapper, Mapper

from lwmt_sionna.link.phy.information import bit_information, effective_snr_db, qam_information


@pytest.mark.parametrize(("num_bits", "snr_db"), [(2, 0.0), (4, 8.0), (6, 12.0)])
def test_information_is_that_of_sionnas_demapper(rng, num_bits, snr_db):
    no = np.float32(10 ** (-snr_db / 10))
    coded = ops.convert_to_tensor(rng.integers(2, size=(200, 600)), "float32")
    x = Mapper("qam", num_bits)(coded)
    noise = rng.standard_normal((*x.shape, 2), np.float32).view(np.complex64)[..., 0]
    llr = Demapper("app", "qam", num_bits)(x + np.sqrt(no / 2) * noise, no)
    told = bit_information(coded, llr).numpy()
    expected = qam_information(1 / no, num_bits)
    assert abs(told.mean() - expected) < 4 * told.std() / np.sqrt(told.size)
    # Ratios that overstate what is known tell less, and so do those that understate it.
    for factor in (0.4, 2.5):
        assert bit_information(coded, factor * llr).numpy().mean() < told.mean() - 0.01
    assert bit_information(coded, -llr).numpy().mean() < 0


def test_binary_information_is_the_known_curve():
    """QPSK is two binary channels, half known at 0.19 dB; Shannon's limits at the ends."""
    assert qam_information(10 ** (0.19 / 10), 2) == pytest.approx(0.5, abs=0.002)
    low = 1e-2
    assert 2 * qam_information(low, 2) == pytest.approx(np.log2(1 + low), rel=0.02)
    for num_bits in (2, 4, 6):
        snr = 10 ** (np.arange(-20, 45) / 10)
        information = qam_information(snr, num_bits)
        assert np.all(np.diff(information) >= 0)
        assert np.all(num_bits * information <= np.log2(1 + snr) * 1.001)
        assert information[-1] == pytest.approx(1.0, abs=1e-6)
        assert qam_information(0.0, num_bits) < 0.01


@pytest.mark.parametrize("num_bits", [2, 4, 6])
def test_effective_snr_is_the_inverse(num_bits):
    snr_db = np.linspace(-8.0, 15.0, 24)
    information = qam_information(10 ** (snr_db / 10), num_bits)
    np.testing.assert_allclose(effective_snr_db(information, num_bits), snr_db, atol=0.05)


def test_unknown_modulation():
    with pytest.raises(ValueError, match="num_bits_per_symbol=3"):
        qam_information(1.0, 3)
