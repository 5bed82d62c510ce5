import dataclasses
import json

import numpy as np
import pytest

from lwmt_sionna.link.drops import DropConfig, DropFactory, LinkDrops
from lwmt_sionna.link.policies import CsiPolicy, PerfectCsi, PredictedCsi
from lwmt_sionna.link.runner import LinkRunner
from lwmt_sionna.link.store import PointStore
from lwmt_sionna.link.sweep import SweepConfig, run_sweep
from tests.link.channels import FixedDrops, make_paths

QUICK = SweepConfig(horizons=(1,), snr_db=(3.0,), mcs=(13,), batch_size=6, compile="eager")


def last_snapshot(history, num_horizons):
    return np.repeat(history[:, -1:], num_horizons, axis=1)


class Twin(CsiPolicy):
    """Knows what perfect CSI knows, under another name."""

    def __call__(self, history, horizon, target=None):
        return target.copy()


@pytest.fixture
def factory(small_drops, small_config):
    return FixedDrops(small_drops, small_config)


def test_equal_estimates_meet_equal_noise(factory):
    policies = [PerfectCsi(), Twin("twin"), PredictedCsi(last_snapshot, "hold")]
    perfect, twin, hold = run_sweep([factory], policies, QUICK, progress=False)
    assert perfect["num_bit_errors"] == twin["num_bit_errors"]
    assert perfect["num_block_errors"] == twin["num_block_errors"]
    assert perfect["sum_rate"] == twin["sum_rate"] > hold["sum_rate"]
    assert perfect["nmse_pooled_db"] < -100 < hold["nmse_pooled_db"]
    for point in (perfect, twin):
        assert point["bler_minus_hold"] == pytest.approx(point["bler"] - hold["bler"])
        assert point["bler_minus_hold_low"] <= point["bler_minus_hold"]
    assert "bler_minus_hold" not in hold


def test_hold_equals_perfect_at_zero_speed_without_noise(small_drops, small_config):
    slot = np.repeat(small_drops.target[:, :, None], 14, axis=2)
    history = np.repeat(small_drops.target[:, :, None], 16, axis=2)
    still = FixedDrops(LinkDrops(history, small_drops.target, slot, 1), small_config)
    perfect, hold = run_sweep(
        [still], [PerfectCsi(), PredictedCsi(last_snapshot, "hold")], QUICK, progress=False
    )
    for name in ("num_bit_errors", "num_block_errors", "sum_rate"):
        assert perfect[name] == hold[name]


def test_users_with_several_antennas(small_config):
    """Single-user streams and multi-user eigenmodes through the whole sweep."""
    paths = make_paths(num_sequences=12, speed_kmh=10.0, sampling_period=1e-3)
    config = dataclasses.replace(QUICK, snr_db=(15.0,), batch_size=4)
    for num_users, streams in ((1, 2), (2, 1)):
        downlink = dataclasses.replace(
            small_config,
            num_users=num_users,
            num_user_antennas=2,
            streams_per_user=streams,
            combining="eigen",
            pilot_groups=((2, 3), (10, 11)),
            subcarrier_spacing=15e3,
        )
        settings = DropConfig(num_drops=4, max_similarity=1.0, csi_subcarrier_spacing=1.08e6)
        factory = DropFactory(paths, downlink, settings)
        perfect, hold = run_sweep(
            [factory], [PerfectCsi(), PredictedCsi(last_snapshot, "hold")], config, progress=False
        )
        assert perfect["num_blocks"] == 4 * num_users
        assert perfect["sum_rate"] > hold["sum_rate"] > 2.0
        assert perfect["num_block_errors"] <= hold["num_block_errors"]
        assert perfect["rate"] == pytest.approx(streams * 1.367, rel=0.01)


def test_counts_do_not_depend_on_the_batch(small_drops, small_config):
    h_hat = small_drops.history[:, :, -1]
    counts = [
        LinkRunner(small_config, num_slots=2, batch_size=size, compile="eager").count(
            small_drops.slot, h_hat, 13, 3.0
        )
        for size in (6, 4)
    ]
    np.testing.assert_array_equal(counts[0] > 0, counts[1] > 0)
    assert counts[0].shape == (6, 2, 2)


def test_slots_of_a_drop_have_their_own_noise(small_drops, small_config):
    runner = LinkRunner(small_config, num_slots=2, batch_size=6, compile="eager")
    counts = runner.count(small_drops.slot, small_drops.target, 13, -3.0)
    assert not np.array_equal(counts[..., 0], counts[..., 1])


def test_counts_add_up(factory):
    config = dataclasses.replace(QUICK, num_slots=3)
    (point,) = run_sweep([factory], [PredictedCsi(last_snapshot, "hold")], config, progress=False)
    assert point["num_drops"] == 6
    assert point["num_blocks"] == 6 * 2 * 3
    assert point["bler"] == point["num_block_errors"] / point["num_blocks"]
    assert point["bler_low"] <= point["bler"] <= point["bler_high"]
    assert point["goodput"] == pytest.approx(point["rate"] * (1 - point["bler"]))
    assert point["num_blocks_event_free"] <= point["num_blocks"]


def test_bler_falls_with_snr(factory):
    config = dataclasses.replace(QUICK, snr_db=(-6.0, 0.0, 12.0))
    points = run_sweep([factory], [PerfectCsi()], config, progress=False)
    bler = [point["bler"] for point in points]
    assert bler[0] == 1.0 and bler[-1] == 0.0
    assert sorted(bler, reverse=True) == bler


def test_finished_points_are_not_computed_again(factory, tmp_path, monkeypatch):
    path = tmp_path / "out" / "points.jsonl"
    policies = [PerfectCsi(), PredictedCsi(last_snapshot, "hold")]
    first = run_sweep([factory], policies, QUICK, PointStore(path), progress=False)
    assert factory.calls == 1

    def refuse(*args):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(LinkRunner, "count", refuse)
        again = run_sweep([factory], policies, QUICK, PointStore(path), progress=False)
        assert again == first
        # Not even the channels are made again.
        assert factory.calls == 1
        changed = FixedDrops(factory.drops, factory.downlink, digest="other")
        with pytest.raises(AssertionError, match="computed again"):
            run_sweep([changed], policies, QUICK, PointStore(path), progress=False)

    wider = dataclasses.replace(QUICK, snr_db=(3.0, 6.0))
    points = run_sweep([factory], policies, wider, PointStore(path), progress=False)
    assert [point for point in points if point["snr_db"] == 3.0] == first


def test_interrupted_sweep_keeps_its_finished_points(factory, tmp_path, monkeypatch):
    path = tmp_path / "points.jsonl"
    config = dataclasses.replace(QUICK, snr_db=(0.0, 3.0, 6.0))
    expected = run_sweep([factory], [PerfectCsi()], config, progress=False)
    count = LinkRunner.count
    calls = []

    def killed(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LinkRunner, "count", killed)
        with pytest.raises(KeyboardInterrupt):
            run_sweep([factory], [PerfectCsi()], config, PointStore(path), progress=False)
    # As if the machine had stopped in the middle of a line.
    with path.open("a") as file:
        file.write('{"digest": "12')
    assert len(PointStore(path)) == 1
    assert (
        run_sweep([factory], [PerfectCsi()], config, PointStore(path), progress=False) == expected
    )
    lines = path.read_text().splitlines()
    assert sum(line.startswith('{"digest"') and line.endswith("]}") for line in lines) == 3
    assert json.loads(lines[-1])["point"] == expected[-1]


def test_events_are_told_apart(small_drops, small_config):
    event = np.zeros((6, 2), bool)
    event[0] = True
    h_hat = small_drops.target.copy()
    h_hat[0] = 0.1 * h_hat[0] + np.roll(small_drops.target[0], 3, axis=-2)

    class LostDrop(CsiPolicy):
        def __call__(self, history, horizon, target=None):
            return h_hat

    drops = dataclasses.replace(small_drops, event=event)
    config = dataclasses.replace(QUICK, snr_db=(12.0,))
    (point,) = run_sweep(
        [FixedDrops(drops, small_config)], [LostDrop("lost")], config, progress=False
    )
    assert point["event_share"] == pytest.approx(1 / 6, abs=1e-4)
    assert point["nmse_pooled_db_event_free"] < -100 < point["nmse_pooled_db_event"]
    assert point["num_blocks_event_free"] == 10
    assert point["bler_event_free"] == 0.0 < point["bler"]


def test_wrong_input(factory):
    with pytest.raises(ValueError, match="different names"):
        run_sweep([factory], [PerfectCsi(), PerfectCsi()], QUICK, progress=False)

    class Flat(CsiPolicy):
        def __call__(self, history, horizon, target=None):
            return target[0]

    with pytest.raises(ValueError, match="'flat' must return channels of shape"):
        run_sweep([factory], [Flat("flat")], QUICK, progress=False)
    for values in ({"snr_db": ()}, {"mcs": (13, 13)}, {"mcs": (77,)}, {"horizons": (0,)}):
        with pytest.raises(ValueError):
            SweepConfig(**values)
    with pytest.raises(ValueError, match="compile='fast'"):
        SweepConfig(compile="fast")
