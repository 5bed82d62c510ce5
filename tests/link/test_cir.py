"""Stored paths through Sionna's own channel models."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from lwmt_sionna.data import PlanarArray, subcarrier_frequencies, synthesize
from lwmt_sionna.link import CirGenerator, cir_dataset
from tests.mirrors import sequences

FREQUENCIES = subcarrier_frequencies(16, 540e3)


def ofdm(a, tau):
    from sionna.phy.channel import cir_to_ofdm_channel

    given = FREQUENCIES.astype(np.float32), a[None], tau[None]
    return cir_to_ofdm_channel(*(ops.convert_to_tensor(each) for each in given))[0].numpy()


def test_impulse_responses_give_the_synthesised_channel(rng):
    pytest.importorskip("sionna.phy")
    paths = sequences(rng, num_sequences=3, num_snapshots=4)
    valid = paths.valid.copy()
    valid[1, 2, 1:] = False
    paths = dataclasses.replace(paths, valid=valid)
    array = PlanarArray(2, 4)
    generator = CirGenerator(paths, array, num_time_steps=5, sampling_frequency=2e3)
    assert len(generator) == 12 and generator.shape == (1, 1, 1, 8, 5, 5)
    expected = synthesize(paths, array, FREQUENCIES, times=np.arange(5) / 2e3)
    for number, (a, tau) in enumerate(generator()):
        assert a.shape == generator.shape and tau.shape == (1, 1, 5)
        # [num_rx, num_rx_ant, num_tx, num_tx_ant, num_time_steps, fft_size]
        h = np.moveaxis(ofdm(a, tau)[0, 0, 0], 0, 1)
        truth = expected[number // 4, number % 4]
        assert np.linalg.norm(h - truth) < 1e-4 * np.linalg.norm(truth)


def test_uplink_and_several_users(rng):
    paths = sequences(rng, num_sequences=5, num_snapshots=2)
    down = CirGenerator(paths, PlanarArray(1, 4), num_users=2)
    up = CirGenerator(paths, PlanarArray(1, 4), num_users=2, uplink=True)
    assert down.shape == (2, 1, 1, 4, 5, 1) and up.shape == (1, 4, 2, 1, 5, 1)
    # The fifth sequence is left over.
    assert len(down) == len(up) == 4
    for (a, tau), (b, other) in zip(down(), up(), strict=True):
        np.testing.assert_array_equal(np.transpose(a, (2, 3, 0, 1, 4, 5)), b)
        np.testing.assert_array_equal(tau[:, 0], other[0])


def test_wrong_settings_are_refused(rng):
    paths = sequences(rng, num_sequences=3, num_snapshots=2)
    with pytest.raises(ValueError, match="num_users=4"):
        CirGenerator(paths, PlanarArray(), num_users=4)
    with pytest.raises(ValueError, match="polarization=VH"):
        CirGenerator(paths, PlanarArray(polarization="VH"))


def test_energy_beyond_the_largest_delay_is_reported(rng, caplog):
    """Sionna's TimeChannel has taps for 3 us, unless it is told otherwise: the rest is lost."""
    paths = sequences(rng, num_sequences=4, num_snapshots=3)
    tau = np.where(paths.valid, np.float32(0.5e-6), np.float32(-1))
    CirGenerator(dataclasses.replace(paths, tau=tau), PlanarArray(1, 4))
    assert not caplog.records
    # The second of four users is 1500 m away.
    tau[1] = np.where(paths.valid[1], np.float32(5e-6), np.float32(-1))
    far = dataclasses.replace(paths, tau=tau)
    CirGenerator(far, PlanarArray(1, 4))
    energy = np.sum(np.abs(paths.a) ** 2, axis=(1, 2, 3, 4))
    share = energy[1] / energy.sum()
    assert "1 of 4 sequences have paths that arrive later than 3 us" in caplog.text
    assert f"({10 * np.log10(share):.1f} dB)" in caplog.text
    caplog.clear()
    CirGenerator(far, PlanarArray(1, 4), max_delay=6e-6)
    CirGenerator(far, PlanarArray(1, 4), max_delay=None)
    assert not caplog.records


def test_ofdm_channel_plays_stored_paths(rng):
    phy = pytest.importorskip("sionna.phy")
    paths = sequences(rng, num_sequences=4, num_snapshots=3)
    array = PlanarArray(1, 4)
    model = cir_dataset(paths, array, 6, num_time_steps=14, sampling_frequency=1 / 66.7e-6)
    grid = phy.ofdm.ResourceGrid(
        num_ofdm_symbols=14, fft_size=16, subcarrier_spacing=15e3, cyclic_prefix_length=0
    )
    generate = phy.channel.GenerateOFDMChannel(model, grid)
    h = generate(6).numpy()
    assert h.shape == (6, 1, 1, 1, 4, 14, 16)
    stored = synthesize(paths, array, subcarrier_frequencies(16, 15e3)).reshape(-1, 4, 16)
    for example in h[:, 0, 0, 0, :, 0]:
        error = np.linalg.norm(stored - example, axis=(1, 2)) / np.linalg.norm(example)
        assert error.min() < 1e-3
