import numpy as np
import pytest
from keras import ops
from sionna.phy.ofdm import LSChannelEstimator, PilotPattern, ResourceGrid

from lwmt_sionna.data import PlanarArray, sparse_mask, subcarrier_frequencies, synthesize
from lwmt_sionna.link import SoundingConfig
from lwmt_sionna.link.csi.sounding import (
    interpolation_matrix,
    pilot_frequencies,
    sound,
)
from tests.link.channels import make_paths

GRID = subcarrier_frequencies(32, 540e3)


def channels(frequencies, num_users=12, **settings):
    paths = make_paths(num_users, num_snapshots=8, **settings)
    return synthesize(paths, PlanarArray(1, 4), frequencies)


def error_db(estimate, h):
    axes = (1, 2, 3)
    ratio = np.mean(np.abs(estimate - h) ** 2, axis=axes) / np.mean(np.abs(h) ** 2, axis=axes)
    return 10 * np.log10(np.median(ratio))


def measure(rng, snr_db, config, **settings):
    pilots = pilot_frequencies(GRID, 30e3, config.comb)
    h = channels(pilots, **settings)
    return sound(h, pilots, GRID, snr_db, config, rng), channels(GRID, **settings)


def test_pilots_cover_the_band_and_offsets_interleave():
    combs = [pilot_frequencies(GRID, 30e3, 4, offset) for offset in range(4)]
    together = np.sort(np.concatenate(combs))
    assert len(together) == 32 * 540 / 30
    np.testing.assert_allclose(np.diff(together), 30e3)
    # Half a spacing of the grid beyond its outer points.
    assert together[0] == pytest.approx(GRID[0] - 270e3 + 15e3)
    assert together[-1] == pytest.approx(GRID[-1] + 270e3 - 15e3)
    with pytest.raises(ValueError, match=r"two pilots at least.*comb=8"):
        pilot_frequencies(subcarrier_frequencies(1, 540e3), 30e3, 8)


def test_without_noise_the_channel_comes_out(rng):
    for interpolation, limit in (("wiener", -50.0), ("linear", -25.0)):
        config = SoundingConfig("pilots", interpolation=interpolation, delay_window=3e-6)
        estimate, h = measure(rng, 100.0, config)
        assert estimate.dtype == np.complex64 and estimate.shape == h.shape
        assert error_db(estimate, h) < limit


def test_energy_is_that_of_white_noise_on_the_grid(rng):
    """A window as long as the grid's own period keeps what white noise on the grid leaves."""
    for comb in (2, 4):
        config = SoundingConfig("pilots", comb, delay_window=1 / 540e3)
        estimate, h = measure(rng, 15.0, config)
        assert error_db(estimate, h) == pytest.approx(-15.0, abs=0.8)


def test_a_narrow_window_removes_noise_and_late_paths(rng):
    narrow = SoundingConfig("pilots", delay_window=0.6e-6)
    wide = SoundingConfig("pilots", delay_window=3e-6)
    assert error_db(*measure(rng, 5.0, narrow)) < error_db(*measure(rng, 5.0, wide)) - 2
    assert error_db(*measure(rng, 40.0, narrow)) > error_db(*measure(rng, 40.0, wide)) + 2


@pytest.mark.parametrize("comb", [2, 4])
def test_linear_estimates_are_those_of_sionnas_estimator(rng, comb):
    """The same pilots through Sionna's resource grid, estimator and interpolator."""
    num_carriers = 48
    frequencies = 30e3 * (np.arange(num_carriers) - num_carriers / 2 + 0.5)
    h = channels(frequencies, num_users=1)[0]
    mask = np.ones((1, 1, 1, num_carriers), bool)
    pilots = np.zeros((1, 1, num_carriers), np.complex64)
    pilots[..., ::comb] = 1.0
    grid = ResourceGrid(
        num_ofdm_symbols=1,
        fft_size=num_carriers,
        subcarrier_spacing=30e3,
        pilot_pattern=PilotPattern(mask, pilots),
    )
    y = ops.convert_to_tensor(
        (h * (pilots[0, 0] != 0))[:, None, :, None]
    )  # [batch, rx, ant, symbol, f]
    expected, _ = LSChannelEstimator(grid, interpolation_type="lin")(y, 0.0)
    matrix = interpolation_matrix(frequencies[::comb], frequencies, "linear", 1e-6, 0.0)
    np.testing.assert_allclose(
        h[..., ::comb] @ matrix.T, expected.numpy()[:, 0, :, 0, 0, 0], rtol=1e-3, atol=1e-9
    )


def test_late_users_are_no_worse(rng):
    """Delays beyond half the period of the comb are told by their sign: none is negative."""
    config = SoundingConfig("pilots", 8)
    pilots = pilot_frequencies(GRID, 30e3, 8)
    delay = 2.6e-6
    errors = []
    for late in (False, True):
        ramps = [np.exp(-2j * np.pi * f * delay * late) for f in (pilots, GRID)]
        h = channels(pilots) * ramps[0]
        estimate = sound(h.astype(np.complex64), pilots, GRID, 20.0, config, rng)
        errors.append(error_db(estimate, channels(GRID) * ramps[1]))
    assert errors[1] == pytest.approx(errors[0], abs=1.0)


@pytest.mark.parametrize("comb", [1, 2, 4, 8, 16])
def test_sparse_pilots_are_no_lattice(comb):
    pilots = ~sparse_mask(16, 32, comb)
    assert (pilots.sum(axis=1) == 32 // comb).all()
    # Somebody sounds every subcarrier, as early as there are snapshots enough.
    assert pilots[: max(comb, 4)].any(axis=0).all()
    # No delay and Doppler shift but zero turn all pilots alike, as those of a lattice would.
    spectrum = np.abs(np.fft.fft2(pilots, (64, 128))) / pilots.sum()
    spectrum[np.ix_(range(-4, 5), range(-4, 5))] = 0
    assert spectrum.max() < 0.9


@pytest.mark.parametrize("comb", [0, 3])
def test_combs_of_other_spacings_are_refused(comb):
    with pytest.raises(ValueError, match=f"power of two. Received: comb={comb}"):
        sparse_mask(16, 32, comb)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "magic"}, "'noise', 'pilots', 'sparse'. Received: mode='magic'"),
        ({"comb": 3}, "comb=3"),
        ({"mode": "pilots", "comb": 16}, "2nd, 4th or 8th.*comb=16"),
        ({"interpolation": "nearest"}, "interpolation='nearest'"),
        ({"delay_window": 0.0}, "delay_window=0.0"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        SoundingConfig(**values)
