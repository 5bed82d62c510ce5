import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import PlanarArray, add_noise, sparse_mask, subcarrier_frequencies, synthesize
from lwmt_sionna.link import CsiPolicy, DownlinkConfig, DropFactory, SoundingConfig, make_policy
from lwmt_sionna.link.csi.drops import DropConfig
from lwmt_sionna.link.csi.policies import PredictedCsi
from lwmt_sionna.link.sweep.points import Bench, SweepConfig, Task
from lwmt_sionna.masking import HardwareConfig
from tests.link.channels import make_paths, store_channels

BLIND = DropConfig(max_similarity=1.0)


@pytest.fixture(scope="module")
def factory():
    return DropFactory(make_paths(num_sequences=26, num_stations=2, windows=1), config=BLIND)


def test_users_serve_once_and_share_the_station(factory):
    assert factory.num_drops == 6
    assert len(np.unique(factory.users)) == factory.users.size
    station = np.arange(26) % 2
    for group in factory.users:
        assert len(set(station[group])) == 1


def test_windows_of_one_trajectory_are_one_user():
    paths = make_paths(num_sequences=24, windows=3)
    factory = DropFactory(paths, config=BLIND)
    assert factory.num_drops == 2
    assert len(np.unique(paths.trajectory_id[factory.users])) == 8


def test_scale_is_that_of_the_noisy_history_alone(factory):
    drops = factory.at(3)
    power = np.mean(np.abs(drops.history) ** 2, axis=(2, 3, 4))
    np.testing.assert_allclose(power, 1.0, rtol=1e-4)
    # What is left of the unit power is the true history's: SNR / (1 + SNR).
    np.testing.assert_allclose(drops.history_rms**2, 10**1.5 / (1 + 10**1.5), rtol=0.02)


def test_history_does_not_depend_on_the_horizon(factory):
    np.testing.assert_array_equal(factory.at(1).history, factory.at(5).history)


def test_slot_surrounds_the_target(factory):
    paths = make_paths(num_sequences=26, num_stations=2)
    drops = factory.at(2)
    config = factory.downlink
    array = PlanarArray(1, 32)
    frequencies = subcarrier_frequencies(32, 540e3)
    first = factory.users[0, 0]
    h = synthesize(
        paths.select([first]),
        array,
        frequencies,
        times=[0.0, config.symbol_times[0], config.symbol_times[-1]],
        snapshots=[17],
    )[0, 0]
    scale = np.vdot(h[0], drops.target[0, 0]) / np.vdot(h[0], h[0])
    np.testing.assert_allclose(drops.target[0, 0], scale * h[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(drops.slot[0, 0, 0], scale * h[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(drops.slot[0, 0, -1], scale * h[2], rtol=1e-3, atol=1e-4)
    assert not np.allclose(drops.slot[0, 0, 0], drops.slot[0, 0, -1], rtol=1e-3)


def test_channel_stands_still_with_its_user():
    factory = DropFactory(make_paths(speed_kmh=0.0), config=BLIND)
    drops = factory.at(5)
    for symbol in range(14):
        np.testing.assert_allclose(drops.slot[:, :, symbol], drops.target, atol=1e-4)
    noise = drops.history - drops.target[:, :, None]
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(1 / (1 + 10**1.5), rel=0.02)


def test_antennas_of_a_user_differ_by_the_phases_of_its_array():
    """A plane wave from one direction: the phase grows by pi times the sine of its angle."""
    paths = make_paths(num_sequences=8, num_paths=1)
    downlink = DownlinkConfig(num_users=2, num_user_antennas=3, combining="eigen")
    factory = DropFactory(paths, downlink, BLIND)
    drops = factory.at(2)
    assert drops.num_users == 2 and drops.num_drops == 4
    assert drops.history.shape == (4, 6, 16, 32, 32) and drops.slot.shape == (4, 6, 14, 32, 32)
    assert drops.history_rms.shape == drops.event.shape == (4, 2)
    h = drops.target.reshape(4, 2, 3, 32, 32)
    steps = np.angle(h[:, :, 1:] * h[:, :, :-1].conj())
    np.testing.assert_allclose(steps, steps[..., :1, :1, :1] + 0 * steps, atol=1e-3)
    arrival = paths.phi_r[factory.users, 18, 0] - factory.channels.yaw[factory.users]
    expected = np.pi * np.sin(arrival)
    np.testing.assert_allclose(np.exp(1j * steps[:, :, 0, 0, 0]), np.exp(1j * expected), atol=2e-3)
    # The scale is the user's, not the antenna's.
    power = np.mean(np.abs(drops.history.reshape(4, 2, -1)) ** 2, axis=-1)
    np.testing.assert_allclose(power, 1.0, rtol=1e-4)


def test_one_antenna_is_the_middle_of_an_odd_array():
    paths = make_paths(num_sequences=8)
    one = DropFactory(paths, DownlinkConfig(num_users=2), BLIND)
    three = DropFactory(
        paths, DownlinkConfig(num_users=2, num_user_antennas=3, combining="eigen"), BLIND
    )
    drops = {"one": one.at(1), "three": three.at(1)}
    where = {tuple(u): i for i, u in enumerate(three.users.tolist())}
    middle = drops["three"].target.reshape(-1, 2, 3, 32, 32)[:, :, 1]
    for index, users in enumerate(one.users.tolist()):
        if tuple(users) in where:
            a, b = drops["one"].target[index], middle[where[tuple(users)]]
            ratio = np.sum(b * a.conj(), axis=(1, 2)) / np.sum(np.abs(a) ** 2, axis=(1, 2))
            np.testing.assert_allclose(b, ratio[:, None, None] * a, atol=1e-3)
            break
    else:
        pytest.fail("no drop has the same users with one antenna as with three")


def test_stride_lengthens_the_period():
    paths = make_paths(num_sequences=8, sampling_period=1e-3)
    config = dataclasses.replace(BLIND, stride=3, num_history=4)
    factory = DropFactory(paths, DownlinkConfig(), config)
    assert factory.name == "30 km/h, 3 ms" and factory.max_horizon == 3
    assert factory.normalized_doppler == pytest.approx(0.292, abs=1e-3)
    plain = DropFactory(
        paths, DownlinkConfig(), dataclasses.replace(BLIND, num_history=10, history_snr_db=90.0)
    )
    strided = DropFactory(paths, DownlinkConfig(), dataclasses.replace(config, history_snr_db=90.0))
    # Snapshots 0, 3, 6, 9 of the data; the slot after them is snapshot 12.
    own = {int(u): plain.at(3).target[d, k] for (d, k), u in np.ndenumerate(plain.users)}
    ours = {int(u): strided.at(1).target[d, k] for (d, k), u in np.ndenumerate(strided.users)}
    for user in own.keys() & ours.keys():
        ratio = np.vdot(own[user], ours[user]) / np.vdot(own[user], own[user])
        np.testing.assert_allclose(ours[user], ratio * own[user], atol=1e-3)


def test_histories_from_sounding_pilots_are_estimates_of_the_true_channel():
    paths = make_paths(num_sequences=10)
    for mode, limits in (("noise", (-15.5, -14.5)), ("pilots", (-20.0, -14.0))):
        config = dataclasses.replace(BLIND, num_drops=2)
        factory = DropFactory(paths, None, config, SoundingConfig(mode))
        true = factory.channels.true(factory.users.ravel(), list(range(16)))[:, 0]
        true = true.reshape(factory.at(1).history.shape)
        history = factory.at(1).history
        ratio = np.sum(history * true.conj(), axis=(2, 3, 4)) / np.sum(
            np.abs(true) ** 2, axis=(2, 3, 4)
        )
        error = history / ratio.real[..., None, None, None] - true
        nmse = np.sum(np.abs(error) ** 2) / np.sum(np.abs(true) ** 2)
        assert limits[0] < 10 * np.log10(nmse) < limits[1]


HARDWARE = HardwareConfig(
    phase_jitter_deg=20.0,
    timing_jitter=5e-9,
    calibration_error_db=-20.0,
    calibration_memory=0.5,
    quantization_bits=8,
    dropped=(5,),
    target="chains",
)


def test_sparse_sounding_leaves_pilots_of_the_same_drops():
    paths = make_paths()
    whole, sparse = (
        DropFactory(paths, config=BLIND, sounding=SoundingConfig("sparse", comb)) for comb in (1, 4)
    )
    np.testing.assert_array_equal(whole.users, sparse.users)
    np.testing.assert_array_equal(whole.rms, sparse.rms)
    assert sparse.columns["comb"] == 4 and whole.digest != sparse.digest
    full, seen = whole.at(0), sparse.at(0)
    known = ~sparse_mask(16, 32, 4)
    assert (np.isfinite(seen.history) == known[:, None]).all()
    np.testing.assert_array_equal(
        np.moveaxis(seen.history, 3, 4)[:, :, known], np.moveaxis(full.history, 3, 4)[:, :, known]
    )
    # The last snapshot is what the slot is about.
    noise = full.history[:, :, -1] - full.target
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(1 / (1 + 10**1.5), rel=0.02)
    assert not full.event.any()


def test_delays_of_sparse_sounding_count_from_the_first_path():
    paths = make_paths()
    late = dataclasses.replace(paths, tau=paths.tau + 1e-6)
    drops = [
        DropFactory(each, config=BLIND, sounding=SoundingConfig("sparse")).at(0).target
        for each in (paths, late)
    ]
    np.testing.assert_allclose(drops[0], drops[1], atol=1e-3)


def test_hardware_is_that_of_the_evaluation():
    """White noise on the grid: the draws of `HardwareConfig.impair` to the last bit."""
    paths = make_paths()
    factory = DropFactory(paths, config=BLIND, hardware=HARDWARE)
    channels = factory.channels
    true = channels.true(np.arange(16), range(16))
    measured = channels.measured(true, range(16), 15.0, SoundingConfig(), 4, HARDWARE)
    rng = np.random.default_rng([4, 1])
    expected = HARDWARE.impair(
        true[:, 0], channels.frequencies, 5e-3, 4, estimate=lambda h: add_noise(h, 15.0, rng)
    )
    np.testing.assert_array_equal(measured.h[:, 0], expected.h)
    np.testing.assert_array_equal(measured.arrived, expected.arrived)
    drops = factory.at(1)
    np.testing.assert_array_equal(drops.arrived, np.ones((4, 4, 1), bool) & (np.arange(16) != 5))
    np.testing.assert_array_equal(drops.history[:, :, 5], drops.history[:, :, 4])
    assert factory.columns["target"] == "chains"


def test_pilots_pass_the_same_chains_with_phases_of_their_own():
    """Users are sounded comb by comb, in several calls; a user's antennas share its oscillator."""
    downlink = DownlinkConfig(num_user_antennas=2, combining="eigen")
    settings = {"phase_jitter_deg": 20.0, "calibration_error_db": -20.0}
    channels = DropFactory(make_paths(40), downlink, BLIND).channels
    true = channels.true(np.arange(40), range(16))
    sounding = SoundingConfig("pilots", delay_window=3e-6)
    found = [
        channels.measured(true, range(16), 60.0, sounding, 4, hardware).h
        for hardware in (HardwareConfig(), HardwareConfig(**settings))
    ]
    ratio = np.sum(found[1] * found[0].conj(), axis=-1) / np.sum(np.abs(found[0]) ** 2, axis=-1)
    turn = np.angle(ratio.sum(axis=(1, 3)))
    assert np.rad2deg(turn.std()) == pytest.approx(20.0, rel=0.1)
    assert abs(np.corrcoef(turn[:20].ravel(), turn[20:].ravel())[0, 1]) < 0.2
    gain = ratio * np.exp(-1j * turn)[:, None, :, None]
    np.testing.assert_allclose(gain - gain[:1, :1, :1], 0, atol=0.03)
    assert np.mean(np.abs(gain[0, 0, 0] - 1) ** 2) == pytest.approx(0.01, rel=0.8)


def test_targets_and_slots_go_through_the_chains():
    paths = make_paths()
    plain = DropFactory(paths, config=dataclasses.replace(BLIND, history_snr_db=90.0))
    chains = HardwareConfig(calibration_error_db=-10.0, target="chains")
    through = DropFactory(paths, config=plain.config, hardware=chains)
    np.testing.assert_array_equal(plain.users, through.users)
    one, two = plain.at(2), through.at(2)
    history = two.history / one.history
    for name, axis in (("target", 2), ("slot", 3)):
        gain = getattr(two, name) / getattr(one, name)
        # Up to the scale of the user, one gain per antenna for all users, snapshots and symbols.
        gain = np.moveaxis(gain, axis, -1) / np.moveaxis(gain, axis, -1)[..., :1]
        own = history[0, 0, 0, :, 0] / history[0, 0, 0, 0, 0]
        np.testing.assert_allclose(gain - own, 0, atol=2e-2)
    assert np.abs(own - 1).max() > 0.1
    hardware = dataclasses.replace(chains, target="true")
    ratio = DropFactory(paths, config=plain.config, hardware=hardware).at(2).slot / one.slot
    np.testing.assert_allclose(ratio - ratio.mean(axis=(2, 3, 4), keepdims=True), 0, atol=1e-3)


class Listens(CsiPolicy):
    """Stops where the link would begin, with what it was told."""

    def __call__(self, history, horizon, target=None, arrived=None):
        raise LookupError(arrived)


def test_policies_hear_of_lost_reports():
    told, errors = [], []

    def listens(history, num_horizons, arrived=None):
        told.append(arrived)
        return history[:, -num_horizons:]

    policies = [make_policy("pooled_ar"), PredictedCsi(listens, "listens", batch_size=6)]
    for known in (True, False):
        hardware = HardwareConfig(dropped=(-1,), dropped_known=known)
        factory = DropFactory(make_paths(), config=BLIND, hardware=hardware)
        bench = Bench([factory], [Listens("stops")], SweepConfig(decoding="information"))
        with pytest.raises(LookupError) as stopped:
            bench.compute(Task(0, 1, "stops", 20.0))
        (arrived,) = stopped.value.args
        drops = factory.at(1)
        np.testing.assert_array_equal(arrived, drops.arrived if known else None)
        for policy in policies:
            h_hat = policy(drops.history, 1, **({} if arrived is None else {"arrived": arrived}))
            errors.append(np.sum(np.abs(h_hat - drops.target) ** 2))
    # Sixteen users, six at a time.
    assert [part.shape for part in told[:3]] == [(6, 16), (6, 16), (4, 16)]
    assert not any(part[:, -1].any() for part in told[:3])
    assert told[3:] == [None] * 3
    # Predictors of the package find what they are not told of.
    assert errors[0] == errors[2] and errors[1] == errors[3]
    assert errors[0] < 0.3 * errors[1]


def test_vanished_and_unheard_users_are_counted():
    paths = make_paths(num_sequences=20)
    valid = paths.valid.copy()
    valid[3, 7] = False
    a = paths.a.copy()
    a[5, 14:] *= 1e-2
    factory = DropFactory(dataclasses.replace(paths, valid=valid, a=a), config=BLIND)
    assert factory.counts["num_vanished"] == 1
    assert factory.counts["num_not_heard"] == 1
    assert not np.isin([3, 5], factory.users).any()


def test_regime_is_named():
    factory = DropFactory(make_paths(speed_kmh=120.0, sampling_period=2.5e-3), config=BLIND)
    assert factory.name == "120 km/h, 2.5 ms"
    assert factory.normalized_doppler == pytest.approx(0.973, abs=1e-3)


def test_a_user_of_another_speed_is_left_out():
    paths = make_paths(num_sequences=21)
    speed = paths.speed.copy()
    speed[3] *= 1.11
    factory = DropFactory(dataclasses.replace(paths, speed=speed), config=BLIND)
    assert factory.speed_kmh == 30
    assert factory.counts["num_off_speed"] == 1 and factory.counts["num_sequences"] == 21
    others = np.delete(np.arange(21), 3)
    assert factory.digest == DropFactory(paths.select(others), config=BLIND).digest


def test_digest_follows_data_and_settings():
    paths = make_paths()
    digests = {
        DropFactory(paths, config=BLIND).digest,
        DropFactory(paths, config=dataclasses.replace(BLIND, history_snr_db=5.0)).digest,
        DropFactory(dataclasses.replace(paths, a=1.01 * paths.a), config=BLIND).digest,
        DropFactory(paths, config=BLIND, sounding=SoundingConfig("pilots")).digest,
        DropFactory(paths, config=BLIND, hardware=HardwareConfig(timing_jitter=1e-9)).digest,
    }
    assert len(digests) == 5
    assert DropFactory(paths, config=BLIND).digest in digests


def test_wrong_input():
    paths = make_paths()
    mixed = dataclasses.replace(paths, speed=paths.speed * np.linspace(1, 2, 16))
    with pytest.raises(ValueError, match=r"one speed.*from 30.0 to 60.0 km/h"):
        DropFactory(mixed)
    with pytest.raises(ValueError, match="num_history=21"):
        DropFactory(paths, config=DropConfig(num_history=21))
    with pytest.raises(ValueError, match="Too few users"):
        DropFactory(make_paths(num_sequences=3))
    with pytest.raises(ValueError, match=r"from 0 to 5.*horizon=6"):
        DropFactory(paths, config=BLIND).at(6)
    with pytest.raises(ValueError, match="max_similarity=0"):
        DropConfig(max_similarity=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("a", np.nan, r"a is not finite in sequence 3 \(of 1 such\)"),
        ("doppler", np.inf, "doppler is not finite in sequence 3"),
        ("tau", -1e-6, "tau must lie between 0 and 0.001 s; it does not in sequence 3"),
    ],
)
def test_numbers_that_cannot_be_are_refused_at_the_door(field, value, message):
    """In the future of one user, which no history shows."""
    paths = make_paths()
    values = np.array(getattr(paths, field))
    values[3, 16:] = value
    with pytest.raises(ValueError, match=message):
        DropFactory(dataclasses.replace(paths, **{field: values}), config=BLIND)


def test_more_drops_than_the_data_allows(caplog):
    factory = DropFactory(make_paths(), DownlinkConfig(), dataclasses.replace(BLIND, num_drops=9))
    assert factory.num_drops == 4
    assert "9 drops asked for, the data allows 4" in caplog.text


def test_stored_channels_form_the_drops_of_their_paths():
    """The same users, histories and targets; within the slot they stand still."""
    paths, array = make_paths(num_sequences=20), PlanarArray(4, 8)
    traced = DropFactory(paths, DownlinkConfig(num_rows=4), BLIND)
    stored = DropFactory(store_channels(paths, array), config=BLIND)
    assert stored.downlink == traced.downlink and stored.downlink.array == array
    np.testing.assert_array_equal(stored.users, traced.users)
    own, theirs = stored.at(3), traced.at(3)
    for name in ("history", "target", "history_rms"):
        np.testing.assert_allclose(getattr(own, name), getattr(theirs, name), atol=1e-5)
    assert own.event is None and own.slot.shape == theirs.slot.shape
    np.testing.assert_array_equal(own.slot, np.repeat(own.target[:, :, None], 14, axis=2))
    assert stored.columns["slot_motion"] == "held" and traced.columns["slot_motion"] == "doppler"
    assert stored.name == "speed unknown, 5 ms" and stored.columns["normalized_doppler"] is None
    assert stored.digest not in (
        traced.digest, DropFactory(store_channels(paths, array), config=DropConfig()).digest
    )  # fmt: skip


def test_a_known_speed_makes_a_regime_of_stored_channels():
    channels = store_channels(make_paths(num_sequences=24, sampling_period=1e-3), PlanarArray(1, 8))
    speed = np.full(24, 30 / 3.6)
    speed[:2] = np.nan, 15.0
    channels = dataclasses.replace(channels, speed=speed)
    factory = DropFactory(channels, DownlinkConfig(num_users=2), BLIND)
    assert factory.name == "30 km/h, 1 ms" and factory.counts["num_off_speed"] == 1
    strided = DropFactory(channels, None, dataclasses.replace(BLIND, num_history=8, stride=2))
    assert strided.name == "30 km/h, 2 ms" and strided.max_horizon == 3
    assert strided.normalized_doppler == pytest.approx(2 * factory.normalized_doppler, abs=2e-3)


def test_a_dual_polarised_station_serves_paths_of_both_polarisations():
    paths = make_paths(num_sequences=12)
    paths = dataclasses.replace(paths, a=np.concatenate([paths.a, 0.3j * paths.a], axis=-1))
    downlink = DownlinkConfig(num_antennas=16, num_rows=2, polarization="VH")
    drops = DropFactory(paths, downlink, BLIND).at(1)
    np.testing.assert_allclose(drops.target[:, :, 8:], 0.3j * drops.target[:, :, :8], rtol=1e-4)
    with pytest.raises(ValueError, match=r"number of polarisations.*expected 2.*polarization=V"):
        DropFactory(paths, config=BLIND)
    with pytest.raises(ValueError, match=r"multiple of rows.*num_rows=5"):
        DownlinkConfig(num_rows=5)


def test_pilots_sound_stored_channels_at_their_own_subcarriers():
    paths, array = make_paths(num_sequences=10, num_paths=2), PlanarArray(1, 8)
    sounding = SoundingConfig("pilots", comb=2)
    factory = DropFactory(
        store_channels(paths, array, 64, 30e3), None, dataclasses.replace(BLIND, num_drops=2),
        sounding,
    )  # fmt: skip
    drops = factory.at(1)
    true = factory.channels.true(factory.users.ravel(), range(16))[:, 0].reshape(
        drops.history.shape
    )
    scale = np.sqrt(np.mean(np.abs(true) ** 2, axis=(2, 3, 4))) / drops.history_rms
    error = drops.history - true / scale[..., None, None, None]
    assert np.mean(np.abs(error) ** 2) < 10**-1.5
    with pytest.raises(ValueError, match=r"30000 Hz apart. Received: channels 540000 Hz apart"):
        DropFactory(store_channels(paths, array), config=BLIND, sounding=sounding)
    with pytest.raises(ValueError, match="num_user_antennas=2"):
        DropFactory(
            store_channels(paths, array),
            DownlinkConfig(num_user_antennas=2, streams_per_user=1, combining="eigen"),
        )
