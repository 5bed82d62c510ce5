"""Files of channels, and arrays of one's own on their way into them."""

import dataclasses
import itertools
import json
import pathlib

import h5py
import numpy as np
import pytest

from lwmt_sionna.data import (
    ChannelSequences,
    ClusterConfig,
    PlanarArray,
    as_channels,
    axes_fault,
    check_channels,
    draw_clusters,
    import_channels,
    join_channels,
    read_channels,
    read_paths,
    read_sequences,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
    write_channels,
    write_paths,
)
from lwmt_sionna.data.__main__ import main

DATA = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "data"
SETTINGS = {"sampling_period": 2.5e-3, "carrier_frequency": 3.5e9, "subcarrier_spacing": 30e3}


@pytest.fixture
def channels(rng):
    h = rng.standard_normal((3, 7, 8, 6)) + 1j * rng.standard_normal((3, 7, 8, 6))
    return ChannelSequences(
        h, **SETTINGS, array_shape=(2, 2, 2), origin="made up", speed=[3.0, np.nan, 30.0],
        sequence_id=[5, 2, 9], metadata={"place": "hall"},
    )  # fmt: skip


def test_storage_keeps_everything(channels, tmp_path):
    write_channels(tmp_path / "c.h5", channels)
    back = read_channels(tmp_path / "c.h5")
    for field in dataclasses.fields(channels):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(channels, field.name))
    assert check_channels(tmp_path / "c.h5") == []
    assert back.select([2]).sequence_id.tolist() == [9]
    np.testing.assert_allclose(back.normalized_doppler[2], 30 * 3.5e9 / 299792458 * 2.5e-3)
    np.testing.assert_allclose(back.frequencies, np.arange(-3, 3) * 30e3)
    assert main(["check", str(tmp_path / "c.h5")]) == 0


def test_a_summary_of_channels(channels, tmp_path, capsys):
    write_channels(tmp_path / "c.h5", channels)
    assert main(["summary", str(tmp_path / "c.h5"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    counts = ("num_sequences", "num_snapshots", "num_antennas", "num_subcarriers")
    assert [told[name] for name in counts] == [3, 7, 8, 6]
    assert told["speed_min_kmh"] == pytest.approx(10.8) and told["array_shape"] == "2 x 2 x 2"
    assert told["vanishing_share"] == 0.0
    power = np.median(np.mean(np.abs(channels.h) ** 2, axis=(1, 2, 3)))
    assert told["power_median_db"] == pytest.approx(10 * np.log10(power), abs=1e-4)


def test_the_schema_tells_the_kind_of_file(channels, rng, tmp_path):
    paths = draw_clusters(2, 3, 5e-3, rng)
    write_channels(tmp_path / "c.h5", channels)
    write_paths(tmp_path / "p.h5", paths)
    np.testing.assert_array_equal(read_sequences(tmp_path / "c.h5").h, channels.h)
    np.testing.assert_array_equal(read_sequences(tmp_path / "p.h5").tau, paths.tau)
    np.save(tmp_path / "n.npy", channels.h)
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["h"] = channels.h
    for name in ("n.npy", "o.h5"):
        with pytest.raises(ValueError, match=f"file of paths or of channels.*import.*{name}"):
            read_sequences(tmp_path / name)
    for name in ("none.h5", "none.npy"):
        with pytest.raises(FileNotFoundError, match=name):
            read_sequences(tmp_path / name)


def test_damaged_files_are_refused_by_name(channels, rng, tmp_path):
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    write_channels(good, channels)
    content = good.read_bytes()
    damaged = [content[:length] for length in rng.integers(0, len(content), 30)]
    for place in rng.integers(512, len(content), 100):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for wrong in damaged:
        bad.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"bad\.h5"):
            read_channels(bad)
    assert main(["check", str(bad), str(good)]) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"h": np.ones((1, 2, 3, 4))}, "h.dtype=float64"),
        ({"h": np.full((1, 2, 8, 4), np.nan + 0j), "speed": 1.0}, "h is not finite in sequence 0"),
        ({"array_shape": (4, 4, 1)}, r"array_shape=\(4, 4, 1\)"),
        ({"sampling_period": np.nan}, "sampling_period=nan"),
        ({"speed": [-1.0, 1.0, 1.0]}, "speed must be"),
        ({"sequence_id": [1, 1, 2]}, "different integers"),
    ],
)
def test_what_cannot_be_is_refused(channels, values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(channels, **values)


def test_axes_are_named_and_never_guessed(rng):
    size = {"sequence": 2, "time": 3, "polarization": 2, "column": 4, "row": 5, "subcarrier": 6}
    names = list(size)
    h = rng.standard_normal([*size.values(), 2]).astype(np.float32)
    truth = (h[..., 0] + 1j * h[..., 1]).reshape(2, 3, 40, 6)
    for order in (rng.permutation(7) for _ in range(10)):
        axes = " ".join([*names, "complex"][axis] for axis in order)
        found, shape = as_channels(h.transpose(order), axes)
        assert shape == (5, 4, 2)
        np.testing.assert_array_equal(found, truth)
    flat, shape = as_channels(truth[0].transpose(2, 1, 0), "subcarrier,antenna,time", (5, 4, 2))
    np.testing.assert_array_equal(flat, truth[:1])
    for value, axes, shape, message in (
        (truth, "sequence time antenna subcarrier", None, "needs an array_shape"),
        (truth, "sequence time antenna", (5, 4, 2), "each once"),
        (truth, "sequence time time subcarrier", None, "each once"),
        (truth, "sequence time beam subcarrier", None, "each once"),
        (truth[0], "time antenna row", None, "time, subcarrier"),
        (truth.real, "sequence time antenna subcarrier", (5, 4, 2), "axis complex"),
        (h, "sequence time polarization column row complex subcarrier", None, "imaginary"),
        (truth[:0], "sequence time antenna subcarrier", (5, 4, 2), "no empty axis"),
        (h[..., 0], "sequence time polarization column row subcarrier", None, "axis complex"),
    ):
        with pytest.raises(ValueError, match=message):
            as_channels(value, axes, shape)


def test_import_from_the_command_line(rng, tmp_path, capsys):
    import scipy.io

    from lwmt_sionna.runs.command_line import UsageError

    h = rng.standard_normal((6, 8, 7)) + 1j * rng.standard_normal((6, 8, 7))
    scipy.io.savemat(tmp_path / "m.mat", {"H": h, "other": [1.0]})
    words = ["import", str(tmp_path / "m.mat"), "--axes", "subcarrier antenna time", "--name", "H"]
    words += ["--array-shape", "2", "4", "1", "--sampling-period", "1e-3", "--speed", "36"]
    with pytest.raises(UsageError, match="needs --carrier, --subcarrier-spacing"):
        main(words)
    assert main([*words, "--carrier", "3.5e9", "--subcarrier-spacing", "30e3"]) == 0
    assert "1 sequences of 7 snapshots" in capsys.readouterr().out
    channels = read_channels(tmp_path / "m.h5")
    band = ["--carrier", "3.5e9", "--subcarrier-spacing", "30e3"]
    assert main([*words, *band, "--out", str(tmp_path / "named.h5")]) == 0
    np.testing.assert_array_equal(read_channels(tmp_path / "named.h5").h, channels.h)
    with pytest.raises(UsageError, match="one file for several"):
        main([*words[:2], *words[1:], *band, "--out", str(tmp_path / "named.h5")])
    np.testing.assert_allclose(channels.h[0], h.transpose(2, 1, 0), rtol=1e-6)
    assert channels.origin == "m.mat" and channels.speed.tolist() == [10.0]
    np.save(tmp_path / "n.npy", np.where(h.real > 2.0, np.nan, h))
    with pytest.raises(ValueError, match=r"not finite.*n\.npy"):
        import_channels(
            tmp_path / "n.npy", "subcarrier antenna time", array_shape=(1, 8, 1), **SETTINGS
        )


def every_order(h, shape):
    """What `axes_fault` says of each order of the axes of an array that has its own size on all."""
    for order in itertools.permutations(range(4)):
        channels = ChannelSequences(h.transpose(order), **SETTINGS, array_shape=shape, origin="x")
        yield order, axes_fault(channels)


@pytest.mark.parametrize("shape", [(1, 16, 1), (4, 4, 1), (4, 2, 2)])
@pytest.mark.parametrize("name", ["walk", "city", "far"])
def test_a_wrong_order_of_axes_is_told(name, shape, rng):
    """Whatever the array; and the right one is not, even where Doppler shifts are aliased."""
    if name == "walk":
        paths = draw_clusters(16, 16, 5e-3, rng, ClusterConfig(speed_kmh=(3.0, 3.0)))
    else:
        speed = {"city": "30kmh_5ms", "far": "120kmh_2p5ms"}[name]
        paths = read_paths(DATA / f"san_francisco_{speed}.h5")
        paths = paths.select(~vanishing_mask(paths)).select(slice(0, 384, 22))
        paths = paths.select(slice(0, 16))
    polarization = "V" if shape[2] == 1 else "VH"
    if shape[2] == 2:
        other = paths.a * np.exp(2j * np.pi * rng.uniform(size=paths.a.shape))
        paths = dataclasses.replace(paths, a=np.concatenate([paths.a, other], axis=-1))
    array = PlanarArray(*shape[:2], polarization=polarization)
    h = synthesize(paths, array, subcarrier_frequencies(16, 540e3), snapshots=np.arange(16))
    for order, fault in every_order(h, shape):
        if order == (0, 1, 2, 3):
            assert fault is None
        elif order != (0, 2, 1, 3) or shape[0] > 1 or name == "walk":
            assert fault is not None, order


def test_an_aliased_file_is_not_taken_for_a_swapped_one():
    """Every second snapshot: 120 km/h, 5 ms."""
    paths = read_paths(DATA / "san_francisco_120kmh_2p5ms.h5")
    paths = paths.select(~vanishing_mask(paths)).select(slice(0, 64))
    h = synthesize(paths, PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))[:, ::2]
    settings = SETTINGS | {"sampling_period": 5e-3}
    assert axes_fault(ChannelSequences(h, **settings, array_shape=(1, 32, 1), origin="x")) is None


def test_who_is_sure_of_the_axes_says_so(rng, tmp_path):
    paths = draw_clusters(16, 8, 5e-3, rng, ClusterConfig(speed_kmh=(3.0, 3.0)))
    h = synthesize(paths, PlanarArray(1, 8), subcarrier_frequencies(8, 540e3))
    np.save(tmp_path / "h.npy", h)
    settings = SETTINGS | {"array_shape": (1, 8, 1)}
    wrong = "sequence subcarrier antenna time"
    with pytest.raises(ValueError, match=r"axes look swapped.*looks like subcarriers.*h\.npy"):
        import_channels(tmp_path / "h.npy", wrong, **settings)
    sure = import_channels(tmp_path / "h.npy", wrong, as_named=True, **settings)
    np.testing.assert_array_equal(sure.h, h.swapaxes(1, 3))
    # White noise speaks for no order.
    for shape in ((1, 8, 1), (2, 4, 1)):
        noise = rng.standard_normal((30, 9, 8, 7, 2)).view(np.complex128)[..., 0]
        assert (
            axes_fault(ChannelSequences(noise, **SETTINGS, array_shape=shape, origin="x")) is None
        )
    # Of few sequences signs are chance.
    few = ChannelSequences(h[:9].swapaxes(1, 3), **settings, origin="x")
    assert axes_fault(few) is None


def test_channels_of_two_tracers_are_not_joined(channels):
    by = {"tracer": "sionna-rt 2.2.0, deterministic"}
    traced = dataclasses.replace(channels, sequence_id=[1, 3, 4], metadata=by)
    assert join_channels([traced, dataclasses.replace(channels, metadata=by)]).metadata == by
    with pytest.raises(ValueError, match=r"differ in what traced them.*1\.2\.2.*2\.2\.0"):
        join_channels([channels, traced])
