"""Hardware: every impairment's statistic, and what users, targets and orders share."""

import numpy as np
import pytest

from lwmt_sionna.data import add_noise, subcarrier_frequencies
from lwmt_sionna.evaluation.metrics import zero_forcing_rates
from lwmt_sionna.masking import HardwareConfig, HardwareRanges

PERIOD = 5e-3
FREQUENCIES = subcarrier_frequencies(8, 540e3)
USERS = 800


@pytest.fixture
def h(rng):
    return rng.standard_normal((USERS, 8, 4, 8, 2), np.float32).view(np.complex64)[..., 0]


def turns(h, seed=0, **settings):
    """Phases and gains that hardware multiplies by, complex `[batch, time, ant, subcarrier]`."""
    return HardwareConfig(**settings).impair(h, FREQUENCIES, PERIOD, seed).h / h


def test_clean_hardware_changes_nothing(h):
    impaired = HardwareConfig().impair(h, FREQUENCIES, PERIOD, 0)
    np.testing.assert_array_equal(impaired.h, h)
    assert impaired.arrived.shape == (USERS, 8) and impaired.arrived.all()


def test_phase_jitters_and_walks(h):
    turn = turns(h, phase_jitter_deg=5.0)
    np.testing.assert_allclose(turn, turn[:, :, :1, :1] * np.ones_like(turn), atol=1e-3)
    phase = np.rad2deg(np.angle(turn[:, :, 0, 0]))
    assert phase.std() == pytest.approx(5.0, rel=0.05)
    assert abs(np.corrcoef(phase[:, 0], phase[:, 1])[0, 1]) < 5 / np.sqrt(USERS)
    walk = np.rad2deg(np.angle(turns(h, phase_walk_deg=3.0)[:, :, 0, 0]))
    expected = 3.0 * np.sqrt(np.arange(8))
    np.testing.assert_allclose(walk.std(axis=0), expected, rtol=5 / np.sqrt(2 * USERS), atol=1e-3)


@pytest.mark.parametrize("offset", [10.0, 410.0])  # the second is the first and two whole turns
def test_frequency_offset_is_a_slope_over_time(h, offset):
    turn = turns(h, frequency_offset=offset)
    sign = np.sign(np.angle(turn[:, 1, 0, 0]))
    assert abs(sign.mean()) < 5 / np.sqrt(USERS)
    phase = 2 * np.pi * 10.0 * PERIOD * sign[:, None] * np.arange(8)
    np.testing.assert_allclose(turn, np.exp(1j * phase)[..., None, None] + 0 * turn, atol=1e-3)


def test_timing_is_a_slope_over_frequency(h):
    turn = turns(h, timing_jitter=10e-9)
    slope = np.angle(turn[..., 1:] / turn[..., :-1]) / (-2 * np.pi * 540e3)
    np.testing.assert_allclose(slope, slope[:, :, :1, :1] * np.ones_like(slope), atol=1e-10)
    delay = slope[:, :, 0, 0]
    assert delay.std() == pytest.approx(10e-9, rel=0.05)
    assert abs(np.corrcoef(delay[:, 0], delay[:, 1])[0, 1]) < 5 / np.sqrt(USERS)
    expected = np.exp(-2j * np.pi * delay[..., None, None] * FREQUENCIES)
    np.testing.assert_allclose(turn, expected + 0 * turn, atol=1e-3)
    constant = turns(h, timing_offset=30e-9)
    slope = np.angle(constant[..., 1:] / constant[..., :-1]) / (-2 * np.pi * 540e3)
    np.testing.assert_allclose(np.abs(slope), 30e-9, rtol=0.01)


@pytest.mark.parametrize("memory", [0.0, 0.9, 1.0])
def test_calibration_has_its_power_and_memory(memory):
    h = np.ones((2, 8, 3000, 1), np.complex64)
    gain = turns(h, calibration_error_db=-10.0, calibration_memory=memory)
    np.testing.assert_array_equal(gain[0], gain[1])  # users share the chains
    error = gain[0, :, :, 0] - 1
    assert np.mean(np.abs(error) ** 2) == pytest.approx(0.1, rel=0.1)
    assert abs(np.mean(error)) < 0.02
    again = np.mean(error[:-1].conj() * error[1:]) / np.mean(np.abs(error) ** 2)
    assert again == pytest.approx(memory, abs=0.05)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_quantisation_noise_is_that_of_a_uniform_quantiser(h, bits):
    quantised = HardwareConfig(quantization_bits=bits).impair(h, FREQUENCIES, PERIOD).h
    noise = np.mean(np.abs(quantised - h) ** 2, axis=(2, 3))
    full_scale = np.maximum(np.abs(h.real), np.abs(h.imag)).max(axis=(2, 3))
    # Uniform over a step of 2^(1 - bits) of full scale, in both parts.
    expected = 2 * (2.0 ** (1 - bits) * full_scale) ** 2 / 12
    assert np.mean(noise / expected) == pytest.approx(1.0, rel=0.05)


def test_lost_reports_are_held(h):
    hardware = HardwareConfig(dropped=(3, -1))
    impaired = hardware.impair(h, FREQUENCIES, PERIOD)
    np.testing.assert_array_equal(impaired.h, h[:, [0, 1, 2, 2, 4, 5, 6, 6]])
    np.testing.assert_array_equal(impaired.arrived, [[1, 1, 1, 0, 1, 1, 1, 0]] * USERS)
    some, arrived = HardwareConfig(dropped_share=0.3).impair(h, FREQUENCIES, PERIOD, 5)
    assert abs(arrived[:, 1:].mean() - 0.7) < 5 * np.sqrt(0.21 / USERS / 7) and arrived[:, 0].all()
    np.testing.assert_array_equal((some == h).all(axis=(2, 3)), arrived)
    unseen = HardwareConfig(dropped_share=0.3, dropped_known=False)
    unseen = unseen.impair(h, FREQUENCIES, PERIOD, 5)
    np.testing.assert_array_equal(unseen.h, some)
    assert unseen.arrived.all()


EVERYTHING = HardwareConfig(
    phase_jitter_deg=5.0,
    phase_walk_deg=3.0,
    frequency_offset=20.0,
    timing_jitter=3e-9,
    timing_offset=10e-9,
    calibration_error_db=-20.0,
    calibration_memory=0.9,
    quantization_bits=6,
    dropped_share=0.2,
)


def test_draws_follow_from_the_seed_alone(h):
    first, again = (EVERYTHING.impair(h[:20], FREQUENCIES, PERIOD, 3) for _ in range(2))
    np.testing.assert_array_equal(first.h, again.h)
    np.testing.assert_array_equal(first.arrived, again.arrived)
    assert not np.array_equal(first.h, EVERYTHING.impair(h[:20], FREQUENCIES, PERIOD, 4).h)
    # Fewer users, fewer snapshots: the same beginning. The future changes nothing.
    fewer = EVERYTHING.impair(h[:5, :4], FREQUENCIES, PERIOD, 3)
    np.testing.assert_allclose(fewer.h, first.h[:5, :4], atol=1e-6)
    np.testing.assert_array_equal(fewer.arrived, first.arrived[:5, :4])
    # Others of the same base station: other phases through the same chains.
    settings = HardwareConfig(phase_jitter_deg=20.0, calibration_error_db=-10.0)
    one, two = (
        settings.impair(h, FREQUENCIES, PERIOD, 3, first_user=user).h / h for user in (0, USERS)
    )
    np.testing.assert_allclose(np.abs(one), np.abs(two), rtol=1e-3)
    phases = (np.angle(turn[:, :, 0, 0]).ravel() for turn in (one, two))
    assert abs(np.corrcoef(*phases)[0, 1]) < 5 / np.sqrt(8 * USERS)


@pytest.mark.parametrize("memory", [0.5, 1.0])
def test_targets_go_through_the_chains_of_the_history(h, memory):
    settings = {"calibration_error_db": -10.0, "calibration_memory": memory}
    gains = turns(h, seed=2, **settings)
    hardware = HardwareConfig(**settings, target="chains", phase_jitter_deg=9.0)
    target = hardware.targets(h[:, 6:], first_snapshot=6, seed=2)
    np.testing.assert_allclose(target, h[:, 6:] * gains[:, 6:], rtol=1e-3, atol=1e-6)
    true = HardwareConfig(**settings).targets(h[:, 6:], first_snapshot=6, seed=2)
    np.testing.assert_array_equal(true, h[:, 6:])


def test_noise_comes_after_the_chains_and_before_the_quantiser(h):
    seen = []

    def estimate(received):
        seen.append(received)
        return add_noise(received, 10.0, np.random.default_rng(1))[..., ::2]

    hardware = HardwareConfig(phase_jitter_deg=5.0, quantization_bits=3, dropped=(2,))
    impaired = hardware.impair(h, FREQUENCIES, PERIOD, estimate=estimate)
    np.testing.assert_allclose(np.abs(seen[0]), np.abs(h), rtol=1e-4)
    assert impaired.h.shape == (*h.shape[:3], 4)
    for snapshot in impaired.h[:5, 1]:
        assert len(np.unique(np.round(snapshot.real, 5))) <= 8
    np.testing.assert_array_equal(impaired.h[:, 2], impaired.h[:, 1])


def test_zero_forcing_does_not_see_a_users_phase_and_delay(h):
    """Rows of the channel matrix turned: the precoder's columns turn back."""
    settings = {"phase_jitter_deg": 90.0, "frequency_offset": 30.0, "timing_offset": 50e-9}
    turned = HardwareConfig(**settings).impair(h[:8], FREQUENCIES, PERIOD).h
    rates = [zero_forcing_rates(x[:, 3], h[:8, 3], 20.0) for x in (h[:8], turned)]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-4)
    chains = HardwareConfig(calibration_error_db=-10.0).impair(h[:8], FREQUENCIES, PERIOD).h
    assert zero_forcing_rates(chains[:, 3], h[:8, 3], 20.0).mean() < 0.9 * rates[0].mean()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropped": (0,)}, r"dropped=\(0,\)"),
        ({"quantization_bits": 0}, "quantization_bits=0"),
        ({"phase_jitter_deg": -1.0}, "phase_jitter_deg=-1.0"),
        ({"calibration_memory": 1.5}, "calibration_memory=1.5"),
        ({"target": "chain"}, "'true', 'chains'. Received: target='chain'"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        HardwareConfig(**values)


def test_reports_that_the_history_has_not_are_refused(h):
    with pytest.raises(ValueError, match=r"8 of a history.*snapshots=\(8,\)"):
        HardwareConfig(dropped=(8,)).impair(h[:2], FREQUENCIES, PERIOD)


def test_hardware_is_drawn_alone_and_combined():
    rng = np.random.default_rng(0)
    ranges = HardwareRanges(clean_share=0.4, share=0.25)
    drawn = [ranges.draw(rng) for _ in range(USERS)]
    clean = HardwareConfig(dropped_known=False, target="chains")
    names = [name for name in ranges.to_dict() if name not in ("clean_share", "share")]
    counts = []
    for hardware in drawn:
        met = [name for name in names if getattr(hardware, name) != getattr(clean, name)]
        counts.append(len(met))
        for name in met:
            low, high = getattr(ranges, name)
            assert low <= getattr(hardware, name) <= high
    # 0.4, and what the others have none of by chance.
    expected = 0.4 + 0.6 * 0.75 ** len(names)
    assert np.mean(np.equal(counts, 0)) == pytest.approx(expected, abs=3 / np.sqrt(USERS))
    assert np.mean(counts) == pytest.approx(0.6 * 0.25 * len(names), rel=0.1)
    assert {h.quantization_bits for h in drawn} == {None, *range(4, 11)}
    again = np.random.default_rng(0)
    assert drawn == [ranges.draw(again) for _ in range(USERS)]
    with pytest.raises(ValueError, match="phase_jitter_deg"):
        HardwareRanges(share=1.0, clean_share=0.0, phase_jitter_deg=(400.0, 400.0)).draw(rng)
