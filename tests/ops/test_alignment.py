"""Lost reports, phases and delays on channels whose motion is known."""

import keras
import numpy as np
import pytest

from lwmt_sionna.masking import HardwareConfig
from lwmt_sionna.ops.alignment import (
    align,
    fill_reports,
    find_nuisances,
    hold_reports,
    reports_arrived,
    restore,
)
from lwmt_sionna.ops.compiled import call_compiled

NUM_SNAPSHOTS, NUM_ANT, NUM_SUBCARRIERS = 16, 8, 16
PLACES = (np.arange(NUM_SUBCARRIERS) - (NUM_SUBCARRIERS - 1) / 2) / NUM_SUBCARRIERS


def channels(rng, num_users=3, drift=0.0):
    """Four paths each, complex `[user, time, antenna, subcarrier]`; delays grow by `drift`."""
    shape = (num_users, 4)
    angle, doppler = rng.uniform(-0.5, 0.5, shape), rng.uniform(-0.3, 0.3, shape)
    delay = rng.uniform(0, 6, shape)
    time = np.arange(NUM_SNAPSHOTS)
    delay = delay[:, None] + drift * time[:, None]
    gain = np.exp(
        2j * np.pi * (rng.uniform(size=shape)[:, None] + doppler[:, None] * time[:, None])
    )
    gain = gain * np.array([1.0, 0.7, 0.5, 0.35])
    array = np.exp(2j * np.pi * angle[..., None] * np.arange(NUM_ANT))
    band = np.exp(-2j * np.pi * delay[..., None] * PLACES)
    return np.einsum("utp,upa,utpk->utak", gain, array, band)


def noisy(rng, h, history_snr_db=20.0):
    noise = rng.standard_normal((*h.shape, 2)) @ [1, 1j]
    return h + noise * np.sqrt(np.mean(np.abs(h) ** 2) / 2) * 10 ** (-history_snr_db / 20)


def stacked(h):
    return np.stack([h.real, h.imag], axis=-1).astype(np.float32)


def as_complex(x):
    x = keras.ops.convert_to_numpy(x)
    return x[..., 0] + 1j * x[..., 1]


def _found(h, settings):
    return keras.ops.stack(find_nuisances(h))


def _aligned(h, settings):
    return align(h)


def without_line(values):
    time = np.arange(values.shape[1])
    return values - np.stack([np.polyval(np.polyfit(time, v, 1), time) for v in values])


def rms(values):
    return np.sqrt(np.mean(values**2, axis=1))


def relative_error(guess, truth):
    return np.sum(np.abs(guess - truth) ** 2) / np.sum(np.abs(truth) ** 2)


def test_phases_and_delays_are_found_and_straight_lines_are_kept(rng):
    phase = np.radians(8.0) * rng.standard_normal((3, NUM_SNAPSHOTS))
    delay = 0.1 * rng.standard_normal((3, NUM_SNAPSHOTS))
    time = np.arange(NUM_SNAPSHOTS)
    turn = phase + 0.3 * time
    turned = (
        channels(rng, drift=0.01)
        * np.exp(1j * turn[..., None] - 2j * np.pi * (delay + 0.004 * time)[..., None] * PLACES)[
            :, :, None
        ]
    )
    history = keras.ops.convert_to_tensor(stacked(noisy(rng, turned)))
    found = call_compiled(_found, [history], None)
    found = keras.ops.convert_to_numpy(found)
    # A part of the parabola may pass for motion.
    assert np.all(rms(found[0] - without_line(phase)) < 0.5 * rms(without_line(phase)))
    assert np.all(rms(found[1] - without_line(delay)) < 0.5 * rms(without_line(delay)))
    assert np.median(rms(found[0] - without_line(phase))) < np.radians(2.0)
    assert np.median(rms(found[1] - without_line(delay))) < 0.02
    for values in found:
        np.testing.assert_allclose(values, without_line(values), atol=1e-5)


def test_a_channel_without_nuisances_is_returned_as_it_is(rng):
    h = channels(rng, drift=0.01)
    for history in (noisy(rng, h), noisy(rng, h, 5.0), h):
        x = stacked(history)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(restore(x)), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_subcarriers", [1, NUM_SUBCARRIERS])
def test_what_tells_nothing_is_no_obstacle(num_subcarriers):
    nothing = np.zeros((2, NUM_SNAPSHOTS, 2, num_subcarriers, 2), np.float32)
    np.testing.assert_array_equal(align(nothing), nothing)
    short = np.ones((2, 3, 2, num_subcarriers, 2), np.float32)
    np.testing.assert_array_equal(align(short), short)


@pytest.mark.parametrize("bits", [None, 6])
def test_lost_reports_are_told_whatever_the_quantisation(rng, bits):
    h = noisy(rng, channels(rng))
    hardware = HardwareConfig(dropped=(4, -1), quantization_bits=bits)
    history, arrived = hardware.impair(h, PLACES * 1e7, 5e-3)
    assert not arrived.all()
    np.testing.assert_array_equal(reports_arrived(stacked(history)), arrived)


def test_a_channel_that_stands_still_has_lost_nothing(rng):
    still = np.repeat(channels(rng)[:, :1], NUM_SNAPSHOTS, axis=1)
    assert keras.ops.convert_to_numpy(reports_arrived(stacked(still))).all()
    np.testing.assert_array_equal(restore(stacked(still)), stacked(still))


def test_lost_reports_are_filled_and_the_others_are_kept(rng):
    truth = channels(rng)
    history = noisy(rng, truth, 30.0)
    arrived = np.ones((3, NUM_SNAPSHOTS), bool)
    arrived[[0, 1, 2, 2], [7, 15, 6, 7]] = False
    held = history.copy()
    for user, place in np.argwhere(~arrived):
        held[user, place] = held[user, place - 1]
    np.testing.assert_array_equal(reports_arrived(stacked(held)), arrived)
    filled = as_complex(restore(stacked(held)))
    for user in range(3):
        lost = ~arrived[user]
        assert relative_error(filled[user, lost], truth[user, lost]) < 0.1
    np.testing.assert_allclose(filled[arrived], history[arrived], atol=1e-5)


def test_births_are_no_nuisances():
    """Strong paths that appear amid a history pass for delays, at some seeds; few paths know."""
    rng = np.random.default_rng(4)
    born = np.arange(NUM_SNAPSHOTS) >= rng.integers(5, 12, 16)[:, None]
    h = 0.1 * channels(rng, 16) + born[..., None, None] * channels(rng, 16)
    h = stacked(noisy(rng, h, 40.0))
    phase, delay = call_compiled(_found, [h], ())
    assert np.any(np.asarray(delay)) or np.any(np.asarray(phase))
    np.testing.assert_array_equal(call_compiled(_aligned, [h], ()), h)


def test_zeros_are_a_channel_without_paths_and_no_lost_report(rng):
    vanished = noisy(rng, channels(rng))
    vanished[0, -6:] = 0
    vanished[1, 5:8] = 0
    assert keras.ops.convert_to_numpy(reports_arrived(stacked(vanished))).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_stands_in_the_place_of_lost_reports_is_not_looked_at(rng, dtype):
    h = rng.standard_normal((4, 9, 2, 3, 2)).astype(dtype)
    arrived = rng.uniform(size=(4, 9)) < 0.4
    arrived[:3] = [[False], [True], [False]]
    arrived[2, 4] = True
    told = np.where(arrived[..., None, None, None], h, np.nan).astype(dtype)
    held = keras.ops.convert_to_numpy(hold_reports(keras.ops.convert_to_tensor(told), arrived))
    assert held.dtype == dtype
    assert not held[0].any()
    np.testing.assert_array_equal(held[1], h[1])
    np.testing.assert_array_equal(held[2], np.repeat(h[2, 4:5], 9, axis=0))
    for place in range(9):
        before = np.flatnonzero(arrived[3, : place + 1])
        source = before[-1] if before.size else np.flatnonzero(arrived[3])[0]
        np.testing.assert_array_equal(held[3, place], h[3, source])


@pytest.mark.parametrize("pattern", [(1, 0), (0, 1), (1, 0, 0), (0,) * 15 + (1,)])
def test_reports_that_nothing_tells_are_held(rng, pattern):
    """No two in a row arrived: there is no prediction to err least with."""
    h = stacked(noisy(rng, channels(rng)))
    arrived = np.resize(np.array(pattern, bool), (3, NUM_SNAPSHOTS))
    held = hold_reports(keras.ops.convert_to_tensor(h), arrived)
    np.testing.assert_array_equal(fill_reports(held, arrived), held)


@pytest.mark.parametrize("num_snapshots", [7, 8, 9])
def test_short_histories_are_filled(rng, num_snapshots):
    truth = channels(rng)[:, :num_snapshots]
    arrived = np.ones((3, num_snapshots), bool)
    arrived[:, -2] = False
    lost = ~arrived[0]
    held = np.where(arrived[..., None, None], noisy(rng, truth, 40.0), truth[:, -4:-3])
    filled = as_complex(fill_reports(keras.ops.convert_to_tensor(stacked(held)), arrived))
    assert relative_error(filled[:, lost], truth[:, lost]) < 0.3
    assert relative_error(held[:, lost], truth[:, lost]) > 0.6


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_filled_reports_have_the_precision_of_the_others(rng, dtype):
    h = stacked(noisy(rng, channels(rng))).astype(dtype)
    arrived = np.ones((3, NUM_SNAPSHOTS), bool)
    arrived[1, 6] = False
    filled = fill_reports(keras.ops.convert_to_tensor(h), arrived)
    assert keras.backend.standardize_dtype(filled.dtype) == dtype
    assert np.isfinite(keras.ops.convert_to_numpy(filled)).all()
