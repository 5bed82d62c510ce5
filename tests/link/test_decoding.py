import itertools
import json
import pathlib

import numpy as np
import pytest

from lwmt_sionna.data import read_paths
from lwmt_sionna.link import (
    MCS_TABLE,
    DecoderTable,
    DownlinkConfig,
    DropConfig,
    DropFactory,
    LinkRunner,
    SysAbstraction,
)
from lwmt_sionna.link import decoding as tables
from lwmt_sionna.link.phy.information import effective_snr_db


def test_shipped_table_is_complete_and_plausible():
    table = DecoderTable()
    assert table.schemes == tuple(range(3, 29))
    table.check(DownlinkConfig())
    for index in table.schemes:
        mcs = MCS_TABLE[index]
        for num_symbols in (160, 320, 640, 1280, 2560):
            waterfall = table.waterfall(index, num_symbols)
            # A code fails below its rate, and these come within a few per cent of it.
            assert mcs.code_rate < waterfall.information < mcs.code_rate + 0.16
            assert 0 < waterfall.information_width < 0.05
            gap = waterfall.snr_db - effective_snr_db(mcs.code_rate, mcs.num_bits_per_symbol)
            assert 0.2 < gap < 3.0
        # Longer blocks fail more abruptly, by the square root of their length.
        short, long = (table.waterfall(index, n) for n in (320, 1280))
        assert short.snr_width_db / long.snr_width_db == pytest.approx(2.0, rel=0.25)
        assert abs(short.snr_db - long.snr_db) < 0.15
        assert short.required_snr_db(0.01) > long.required_snr_db(0.01)


def test_faster_schemes_need_more():
    table = DecoderTable()
    by_rate = sorted(table.schemes, key=DownlinkConfig().rate)
    # Two pairs of schemes share their rate; there the one with fewer bits per symbol needs less.
    needed = [table.waterfall(index, 320).required_snr_db(0.1) for index in by_rate]
    assert all(b > a - 0.6 for a, b in itertools.pairwise(needed))


def test_waterfall_is_a_tail():
    waterfall = DecoderTable().waterfall(13, 320)
    assert waterfall.failure_in_noise(waterfall.snr_db) == pytest.approx(0.5)
    assert waterfall.failure(waterfall.information) == pytest.approx(0.5)
    assert waterfall.failure_in_noise(waterfall.required_snr_db(0.1)) == pytest.approx(0.1)
    assert waterfall.failure(0.0) == 1.0 and waterfall.failure(1.0) < 1e-12


def test_sizes_between_those_of_the_table():
    table = DecoderTable()
    sizes = (80, 320, 500, 1280, 5000)
    widths = [table.waterfall(16, size).information_width for size in sizes]
    assert sorted(widths, reverse=True) == widths and widths[-1] > 0
    content = json.loads((pathlib.Path(tables.__file__).parent / "decoder_table.json").read_text())
    measured = [row for row in content["waterfalls"] if row["mcs"] == 16]
    assert [row["num_symbols"] for row in measured] == [320, 1280]
    for row in measured:
        waterfall = table.waterfall(16, row["num_symbols"])
        assert waterfall.information == pytest.approx(row["information"])


def test_table_is_what_the_decoder_does():
    """Measured again with few blocks."""
    import sionna.phy

    from lwmt_sionna.link.decoding import measure_waterfall

    sionna.phy.config.seed = 77
    waterfall, num_blocks = measure_waterfall(4, 320, num_blocks=400, batch_size=50)
    shipped = DecoderTable().waterfall(4, 320)
    assert num_blocks == 400
    assert waterfall.snr_db == pytest.approx(shipped.snr_db, abs=0.12)
    assert waterfall.information == pytest.approx(shipped.information, abs=0.006)


def test_effective_sinr_of_white_noise_is_its_snr():
    """Then Sionna SYS's effective SINR changes nothing, and the waterfall remains."""
    table, sys = DecoderTable(), SysAbstraction()
    for mcs in (4, 16, 27):
        waterfall = table.waterfall(mcs, 320)
        snr_db = waterfall.required_snr_db(0.1) + np.arange(-1.0, 1.1, 0.25)
        sinr = np.broadcast_to(10 ** (snr_db / 10), (1, len(snr_db)))[..., None] * np.ones(320)
        expected = waterfall.failure_in_noise(snr_db)
        np.testing.assert_allclose(sys.failure(sinr, mcs)[0], expected, atol=2e-3)
        # What varies over the block is worth less than its mean.
        uneven = sinr * np.tile([0.5, 1.5], 160)
        assert np.all(sys.failure(uneven, mcs) >= sys.failure(sinr, mcs) - 1e-6)
    with pytest.raises(ValueError, match="mcs=1"):
        sys.failure(np.ones((1, 1, 320)), 1)


def test_table_of_another_decoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"num_iterations=20.*num_iterations=8"):
        DecoderTable().check(DownlinkConfig(num_iterations=8))
    with pytest.raises(ValueError, match="cn_update='minsum'"):
        DecoderTable().check(DownlinkConfig(cn_update="minsum"))
    with pytest.raises(ValueError, match=r"holds the schemes \(3, .*mcs=1"):
        DecoderTable().waterfall(1, 320)
    path = tmp_path / "table.json"
    for content in (
        "no json",
        "{}",
        '{"num_iterations": 20, "cn_update": "x", "waterfalls": [{}]}',
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"no decoder table.*table\.json"):
            DecoderTable(path)


def test_table_of_ones_own(tmp_path):
    row = {"mcs": 9, "num_symbols": 100, "information": 0.7, "information_width": 0.02,
           "snr_db": 3.0, "snr_width_db": 0.5}  # fmt: skip
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"num_iterations": 8, "cn_update": "minsum", "waterfalls": [row]}))
    table = DecoderTable(path)
    table.check(DownlinkConfig(num_iterations=8, cn_update="minsum"))
    # With one size there is nothing to interpolate.
    assert table.waterfall(9, 100) == table.waterfall(9, 5000)


def test_information_tells_which_blocks_fail():
    """The fast mode against the decoder, block by block, on users of a ray-traced city."""
    root = pathlib.Path(__file__).resolve().parents[2]
    paths = read_paths(root / "experiments" / "data" / "san_francisco_30kmh_5ms.h5")
    paths = paths.select(slice(0, 120))
    drops = DropFactory(paths, config=DropConfig(num_drops=12)).at(1)
    h_hat = drops.history[:, :, -1]
    runner = LinkRunner(batch_size=12, compile="eager")
    waterfall = DecoderTable().waterfall(16, 320)
    failed, expected = [], []
    for snr_db in (1.0, 3.0):
        failed.append(runner.count(drops.slot, h_hat, 16, snr_db) > 0)
        expected.append(waterfall.failure(runner.information(drops.slot, h_hat, 4, snr_db)))
    failed, expected = np.stack(failed), np.stack(expected)
    assert 0.2 < failed.mean() < 0.8
    assert abs(failed.mean() - expected.mean()) < 0.05
    # Their bits differ, so blocks at the edge may; the others may not.
    assert np.mean(failed != (expected > 0.5)) < 0.1
