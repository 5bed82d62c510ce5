"""Impairments: what they change, by how much, and what they leave alone."""

import numpy as np
import pytest

from lwmt_sionna import masking
from lwmt_sionna.masking import IMPAIRMENTS

DRAWS = 1000


@pytest.fixture
def h(rng):
    return rng.standard_normal((DRAWS, 8, 4, 6, 2)).astype(np.float32)


def to_complex(h):
    return np.asarray(h)[..., 0] + 1j * np.asarray(h)[..., 1]


@pytest.mark.parametrize("name", IMPAIRMENTS)
def test_seeds_and_severity(name, h):
    h = h[:50]
    impaired = np.asarray(IMPAIRMENTS[name](h, 3))
    assert impaired.shape == h.shape and impaired.dtype == h.dtype
    np.testing.assert_array_equal(impaired, IMPAIRMENTS[name](h, 3))
    assert np.abs(impaired - np.asarray(IMPAIRMENTS[name](h, 4))).max() > 1e-3
    mild = np.mean((np.asarray(IMPAIRMENTS[name](h, 3, severity=0.0)) - h) ** 2)
    # The mild ends: 30 dB of noise, 8 bits, and nothing at all
    assert mild < {"noise": 1.2e-3, "quantization": 2e-4}.get(name, 1e-12)
    assert mild < np.mean((np.asarray(IMPAIRMENTS[name](h, 3, severity=0.5)) - h) ** 2)


def test_noise_has_the_stated_power(h):
    h = h * np.linspace(0.1, 3.0, DRAWS, dtype=np.float32).reshape(-1, 1, 1, 1, 1)
    noise = np.asarray(masking.measurement_noise(h, 1, history_snr_db=(10.0, 10.0))) - h
    ratio = np.mean(noise**2, axis=(1, 2, 3, 4)) / np.mean(h**2, axis=(1, 2, 3, 4))
    assert abs(10 * np.log10(ratio.mean()) + 10.0) < 0.05
    noise = np.asarray(masking.measurement_noise(h, 1, history_snr_db=(30.0, 0.0))) - h
    ratio = np.mean(noise**2, axis=(1, 2, 3, 4)) / np.mean(h**2, axis=(1, 2, 3, 4))
    snr = -10 * np.log10(ratio)
    assert abs(snr.mean() - 15) < 5 * 30 / np.sqrt(12 * DRAWS) and snr.min() > -1


def test_phase_is_common_and_walks(h):
    impaired = to_complex(
        masking.common_phase_error(h, 1, jitter_deg=(3.0, 3.0), drift_deg=(5.0, 5.0))
    )
    turn = impaired / to_complex(h)
    np.testing.assert_allclose(np.abs(turn), 1.0, atol=1e-3)
    np.testing.assert_allclose(turn, turn[:, :, :1, :1] * np.ones_like(turn), atol=2e-3)
    phase = np.rad2deg(np.angle(turn[:, :, 0, 0]))
    # variance: the jitter's, and one step of drift per snapshot
    expected = np.sqrt(9.0 + 25.0 * np.arange(8))
    np.testing.assert_allclose(phase.std(axis=0), expected, rtol=5 / np.sqrt(2 * DRAWS))


def test_timing_turns_the_band_about_its_middle(h):
    impaired = masking.timing_offset(h, 1, offset=(0.3, 0.3), jitter=(0.0, 0.0))
    turn = to_complex(impaired) / to_complex(h)
    sign = np.sign(np.angle(turn[:, 0, 0, 2]))
    assert abs(sign.mean()) < 5 / np.sqrt(DRAWS)
    expected = np.exp(1j * sign[:, None] * 2 * np.pi * 0.3 * (3 - np.arange(6)) / 6)
    np.testing.assert_allclose(turn, expected[:, None, None] * np.ones_like(turn), atol=2e-3)
    jitter = masking.timing_offset(h, 1, offset=(0.0, 0.0), jitter=(0.1, 0.1))
    turn = to_complex(jitter) / to_complex(h)
    samples = np.angle(turn[:, :, 0, 2]) * 6 / (2 * np.pi)
    assert samples.std() == pytest.approx(0.1, rel=0.05)
    assert abs(np.corrcoef(samples[:, 0], samples[:, 1])[0, 1]) < 5 / np.sqrt(DRAWS)


def test_gain_scales_snapshots(h):
    ratio = np.asarray(masking.gain_error(h, 1, deviation_db=(2.0, 2.0))) / h
    np.testing.assert_allclose(ratio, ratio[:, :, :1, :1, :1] * np.ones_like(ratio), rtol=1e-3)
    assert (20 * np.log10(ratio[:, :, 0, 0, 0])).std() == pytest.approx(2.0, rel=0.05)


def test_calibration_errors_stay_with_their_antennas(h):
    impaired = masking.antenna_calibration_error(h, 1, gain_db=(1.0, 1.0), phase_deg=(10.0, 10.0))
    factor = to_complex(impaired) / to_complex(h)
    np.testing.assert_allclose(factor, factor[:, :1, :, :1] * np.ones_like(factor), atol=2e-3)
    own = factor[:, 0, :, 0]
    assert (20 * np.log10(np.abs(own))).std() == pytest.approx(1.0, rel=0.06)
    assert np.rad2deg(np.angle(own)).std() == pytest.approx(10.0, rel=0.06)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_quantization_error_is_bounded(h, bits):
    impaired = np.asarray(masking.quantization(h, 1, bits=(bits, bits)))
    full_scale = np.abs(h).max(axis=(2, 3, 4), keepdims=True)
    assert (np.abs(impaired - h) <= full_scale * 2.0**-bits * 1.001).all()
    for snapshot in (impaired / full_scale)[:5, 0]:
        assert len(np.unique(np.round(snapshot, 5))) <= 2**bits


def test_lost_reports_are_repeated(h):
    impaired = np.asarray(masking.dropped_reports(h, 1, share=(0.3, 0.3)))
    np.testing.assert_array_equal(impaired[:, 0], h[:, 0])
    same = (impaired == h).all(axis=(2, 3, 4))
    lost = 1 - same[:, 1:].mean()
    assert abs(lost - 0.3) < 5 * np.sqrt(0.21 / DRAWS / 7)
    repeated = (impaired[:, 1:] == impaired[:, :-1]).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(repeated, ~same[:, 1:])
    everything = np.asarray(masking.dropped_reports(h, 1, share=(1.0, 1.0)))
    np.testing.assert_array_equal(everything, np.repeat(h[:, :1], 8, axis=1))


def test_wrong_arguments_are_refused(h):
    with pytest.raises(ValueError, match=r"h\.shape="):
        masking.gain_error(h[0], 1)
    with pytest.raises(ValueError, match="bits"):
        masking.quantization(h, 1, bits=(8, 0))
    with pytest.raises(ValueError, match="share=2"):
        masking.dropped_reports(h, 1, share=2)
