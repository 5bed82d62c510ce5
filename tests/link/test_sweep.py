import dataclasses
import json

import numpy as np
import pytest

from lwmt_sionna.link.csi.drops import DropConfig, DropFactory, LinkDrops
from lwmt_sionna.link.csi.policies import CsiPolicy, NoisyPerfectCsi, PerfectCsi, PredictedCsi
from lwmt_sionna.link.phy.runner import LinkRunner
from lwmt_sionna.link.sweep.points import SweepConfig
from lwmt_sionna.link.sweep.run import run_sweep
from lwmt_sionna.runs.store import Store
from tests.link.channels import FixedDrops, make_paths

QUICK = SweepConfig(horizons=(1,), link_snr_db=(3.0,), mcs=(13,), batch_size=6, compile="eager")


def sweep(*arguments, **options):
    return run_sweep(*arguments, progress=False, **options).points


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
    perfect, twin, hold = sweep([factory], policies, QUICK)
    assert perfect["num_bit_errors"] == twin["num_bit_errors"]
    assert perfect["num_block_errors"] == twin["num_block_errors"]
    assert perfect["sum_rate"] == twin["sum_rate"] > hold["sum_rate"]
    assert perfect["nmse_pooled_db"] < -100 < hold["nmse_pooled_db"]
    for point in (perfect, twin):
        assert point["bler_minus_hold"] == pytest.approx(point["bler"] - hold["bler"])
        assert point["bler_minus_hold_low"] <= point["bler_minus_hold"]
    assert "bler_minus_hold" not in hold
    for quantity in ("goodput", "sum_rate"):
        assert twin[f"{quantity}_reference"] == "hold"
        difference = twin[f"{quantity}_difference"]
        assert difference == pytest.approx(twin[quantity] - hold[quantity], rel=1e-5)


def test_hold_equals_perfect_at_zero_speed_without_noise(small_drops, small_config):
    slot = np.repeat(small_drops.target[:, :, None], 14, axis=2)
    history = np.repeat(small_drops.target[:, :, None], 16, axis=2)
    still = FixedDrops(LinkDrops(history, small_drops.target, slot, 1), small_config)
    perfect, hold = sweep([still], [PerfectCsi(), PredictedCsi(last_snapshot, "hold")], QUICK)
    for name in ("num_bit_errors", "num_block_errors", "sum_rate"):
        assert perfect[name] == hold[name]


def test_every_regime_has_the_noise_of_its_own_history(small_config):
    """Perfect CSI of age zero is off by the noise of a snapshot, in each regime by its own."""
    paths = make_paths(num_sequences=12, sampling_period=1e-3)
    factories = [
        DropFactory(
            paths,
            small_config,
            DropConfig(
                num_drops=4,
                max_similarity=1.0,
                csi_subcarrier_spacing=1.08e6,
                history_snr_db=history_snr_db,
            ),
            label=f"{history_snr_db:g} dB",
        )
        for history_snr_db in (0.0, 20.0)
    ]
    noisy, clear = sweep(factories, [NoisyPerfectCsi(20.0)], QUICK)
    assert noisy["nmse_pooled_db"] == pytest.approx(0.0, abs=0.5)
    assert clear["nmse_pooled_db"] == pytest.approx(-20.0, abs=0.5)


def test_users_with_several_antennas(small_config):
    """Single-user streams and multi-user eigenmodes through the whole sweep."""
    paths = make_paths(num_sequences=12, speed_kmh=10.0, sampling_period=1e-3)
    config = dataclasses.replace(QUICK, link_snr_db=(15.0,), batch_size=4)
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
        perfect, hold = sweep(
            [factory], [PerfectCsi(), PredictedCsi(last_snapshot, "hold")], config
        )
        assert perfect["num_blocks"] == 4 * num_users
        assert perfect["sum_rate"] > hold["sum_rate"] > 2.0
        assert perfect["num_block_errors"] <= hold["num_block_errors"]
        assert perfect["rate"] == pytest.approx(streams * 1.367, rel=0.01)


def test_counts_do_not_depend_on_the_batch(small_drops, small_config):
    h_hat = small_drops.history[:, :, -1]
    counts = [
        LinkRunner(small_config, batch_size=size, compile="eager").count(
            small_drops.slot, h_hat, 13, 3.0, slots=(0, 1)
        )
        for size in (6, 4)
    ]
    np.testing.assert_array_equal(counts[0] > 0, counts[1] > 0)
    assert counts[0].shape == (6, 2, 2)


def test_slots_of_a_drop_have_their_own_noise(small_drops, small_config):
    runner = LinkRunner(small_config, batch_size=6, compile="eager")
    counts = runner.count(small_drops.slot, small_drops.target, 13, -3.0, slots=(0, 1))
    assert not np.array_equal(counts[..., 0], counts[..., 1])


def test_counts_add_up(factory):
    config = dataclasses.replace(QUICK, num_slots=3)
    (point,) = sweep([factory], [PredictedCsi(last_snapshot, "hold")], config)
    assert point["num_drops"] == 6
    assert point["num_blocks"] == 6 * 2 * 3
    assert point["bler"] == point["num_block_errors"] / point["num_blocks"]
    assert point["bler_low"] <= point["bler"] <= point["bler_high"]
    assert point["goodput"] == pytest.approx(point["rate"] * (1 - point["bler"]))
    assert point["num_blocks_event_free"] <= point["num_blocks"]


def test_bler_falls_with_snr(factory):
    config = dataclasses.replace(QUICK, link_snr_db=(-6.0, 0.0, 12.0))
    points = sweep([factory], [PerfectCsi()], config)
    bler = [point["bler"] for point in points]
    assert bler[0] == 1.0 and bler[-1] == 0.0
    assert sorted(bler, reverse=True) == bler


def test_finished_points_are_not_computed_again(factory, tmp_path, monkeypatch):
    path = tmp_path / "out"
    policies = [PerfectCsi(), PredictedCsi(last_snapshot, "hold")]
    first = sweep([factory], policies, QUICK, Store(path))
    assert factory.calls == 1

    def refuse(*args, **options):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(LinkRunner, "count", refuse)
        again = sweep([factory], policies, QUICK, Store(path))
        assert again == first
        # Not even the channels are made again.
        assert factory.calls == 1
        changed = FixedDrops(factory.drops, factory.downlink, digest="other")
        with pytest.raises(AssertionError, match="computed again"):
            sweep([changed], policies, QUICK, Store(path))

    wider = dataclasses.replace(QUICK, link_snr_db=(3.0, 6.0))
    points = sweep([factory], policies, wider, Store(path))
    assert [point for point in points if point["link_snr_db"] == 3.0] == first


def test_interrupted_sweep_keeps_its_finished_points(factory, tmp_path, monkeypatch):
    path = tmp_path
    config = dataclasses.replace(QUICK, link_snr_db=(0.0, 3.0, 6.0))
    expected = sweep([factory], [PerfectCsi()], config)
    count = LinkRunner.count
    calls = []

    def killed(self, *args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LinkRunner, "count", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep([factory], [PerfectCsi()], config, Store(path))
    # Three SNR without a scheme, and the first with one.
    assert len(list(path.glob("*.json"))) == 4
    assert sweep([factory], [PerfectCsi()], config, Store(path)) == expected
    labels = {json.loads(file.read_text())["label"] for file in path.glob("*.json")}
    assert len(labels) == 6 and "fixed, horizon 1, perfect, 6 dB, MCS 13" in labels


def test_slots_are_added_until_there_are_errors_enough(factory):
    policies = [PerfectCsi(), PredictedCsi(last_snapshot, "hold")]
    config = dataclasses.replace(
        QUICK,
        link_snr_db=(3.0, 30.0),
        mcs=(4, 13),
        max_slots=4,
        target_block_errors=8,
        target_mcs=(13,),
    )
    points = {
        (p["policy"], p["mcs"], p["link_snr_db"]): p for p in sweep([factory], policies, config)
    }
    for (_, mcs, snr), point in points.items():
        num_slots = point["num_blocks"] // 12
        errors = point["num_block_errors"]
        if mcs == 4:
            assert num_slots == 1
        elif snr == 30.0:
            assert num_slots == 4 and errors < 8
        else:
            assert errors >= 8 and 1 <= num_slots <= 4
    plain = {(p["policy"], p["link_snr_db"]): p for p in sweep([factory], policies, QUICK)}
    # Policies are compared in the slots that both have: here at least the first.
    assert plain["perfect", 3.0]["bler_minus_hold"] <= 0
    assert points["perfect", 13, 3.0]["bler_minus_hold"] <= 0


def test_all_schemes_only_where_goodput_is_told(factory):
    config = dataclasses.replace(
        QUICK, mcs=(4, 13), link_snr_db=(0.0, 3.0), target_mcs=(13,), goodput_link_snr_db=(3.0,)
    )
    points, goodput = run_sweep([factory], [PerfectCsi()], config, progress=False)
    assert [(p["mcs"], p["link_snr_db"]) for p in points] == [(4, 3.0), (13, 0.0), (13, 3.0)]
    assert {row["link_snr_db"] for row in goodput} == {3.0}
    everywhere = dataclasses.replace(config, goodput_link_snr_db=None)
    points_everywhere, goodput_everywhere = run_sweep(
        [factory], [PerfectCsi()], everywhere, progress=False
    )
    assert [p for p in points_everywhere if (p["mcs"], p["link_snr_db"]) != (4, 0.0)] == points
    assert [row for row in goodput_everywhere if row["link_snr_db"] == 3.0] == goodput


def test_goodput_of_adapted_schemes(factory, tmp_path):
    """With schemes to choose from, the outer loop beats belief where belief is wrong."""
    table = tmp_path / "table.json"
    rows = [(4, 0.37, -1.6), (13, 0.55, 6.3), (19, 0.56, 11.6)]
    waterfalls = [
        {"mcs": mcs, "num_symbols": 192, "information": i, "information_width": 0.015,
         "snr_db": snr, "snr_width_db": 0.4}
        for mcs, i, snr in rows
    ]  # fmt: skip
    content = {"num_iterations": 8, "cn_update": "boxplus-phi", "waterfalls": waterfalls}
    table.write_text(json.dumps(content))
    config = dataclasses.replace(
        QUICK, mcs=(4, 13, 19), link_snr_db=(3.0,), num_slots=4, decoder_table=str(table)
    )
    policies = [PerfectCsi(), PredictedCsi(last_snapshot, "hold")]
    points, goodput = run_sweep([factory], policies, config, progress=False)
    rows = {(row["policy"], row["adaptation"]): row for row in goodput}
    assert len(rows) == 6 and len(points) == 6
    for row in goodput:
        assert row["goodput_low"] - 1e-9 <= row["goodput"] <= row["goodput_high"] + 1e-9
        assert row["user_goodput_q05"] <= row["user_goodput_median"]
    # The best fixed scheme is the best of its points.
    for policy in ("perfect", "hold"):
        own = [point["goodput"] for point in points if point["policy"] == policy]
        assert rows[policy, "fixed"]["goodput"] == pytest.approx(max(own))
    assert rows["hold", "outer"]["offset_db"] > rows["perfect", "outer"]["offset_db"]
    assert rows["hold", "outer"]["bler"] < rows["hold", "inner"]["bler"]
    assert rows["perfect", "outer"]["goodput"] > rows["hold", "outer"]["goodput"]


def test_without_a_table_for_its_decoder_there_is_no_adaptation(factory, caplog):
    _, goodput = run_sweep([factory], [PerfectCsi()], QUICK, progress=False)
    assert [row["adaptation"] for row in goodput] == ["fixed"]
    assert "num_iterations=20" in caplog.text
    with pytest.raises(ValueError, match="num_iterations=8"):
        sweep([factory], [PerfectCsi()], dataclasses.replace(QUICK, decoding="information"))


def test_events_are_told_apart(small_drops, small_config):
    event = np.zeros((6, 2), bool)
    event[0] = True
    h_hat = small_drops.target.copy()
    h_hat[0] = 0.1 * h_hat[0] + np.roll(small_drops.target[0], 3, axis=-2)

    class LostDrop(CsiPolicy):
        def __call__(self, history, horizon, target=None):
            return h_hat

    drops = dataclasses.replace(small_drops, event=event)
    config = dataclasses.replace(QUICK, link_snr_db=(12.0,))
    (point,) = sweep([FixedDrops(drops, small_config)], [LostDrop("lost")], config)
    assert point["event_share"] == pytest.approx(1 / 6, abs=1e-4)
    assert point["nmse_pooled_db_event_free"] < -100 < point["nmse_pooled_db_event"]
    assert point["num_blocks_event_free"] == 10
    assert point["bler_event_free"] == 0.0 < point["bler"]


def test_wrong_input(factory):
    with pytest.raises(ValueError, match="different names"):
        sweep([factory], [PerfectCsi(), PerfectCsi()], QUICK)

    class Flat(CsiPolicy):
        def __call__(self, history, horizon, target=None):
            return target[0]

    with pytest.raises(ValueError, match="'flat' must return channels of shape"):
        sweep([factory], [Flat("flat")], QUICK)

    class Broken(CsiPolicy):
        def __call__(self, history, horizon, target=None):
            return np.full_like(target, np.nan)

    with pytest.raises(ValueError, match="'broken' returned NaN or infinite values"):
        sweep([factory], [Broken("broken")], QUICK)
    for values, message in (
        ({"link_snr_db": ()}, "link_snr_db=\\(\\)"),
        ({"mcs": (13, 13)}, "different values"),
        ({"mcs": (77,)}, "mcs=77"),
        ({"horizons": (-1,)}, "at least 0.*horizons=\\(-1,\\)"),
        ({"compile": "fast"}, "compile='fast'"),
        ({"decoding": "guess"}, "decoding='guess'"),
        ({"num_slots": 3, "max_slots": 2}, "max_slots=2, num_slots=3"),
        ({"target_block_errors": -1}, "target_block_errors=-1"),
        ({"target_mcs": (5,)}, r"target_mcs=\(5,\)"),
        ({"goodput_link_snr_db": (2.0,)}, r"goodput_link_snr_db=\(2.0,\), target_mcs=None"),
        ({"goodput_link_snr_db": (3.0,), "target_mcs": (13,)}, r"goodput_link_snr_db=\(3.0,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SweepConfig(**values)
