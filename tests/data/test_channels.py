"""Files of channels, and arrays of one's own on their way into them."""

import dataclasses

import h5py
import numpy as np
import pytest

from lwmt_sionna.data import (
    ChannelSequences,
    as_channels,
    check_channels,
    draw_clusters,
    import_channels,
    read_channels,
    read_sequences,
    write_channels,
    write_paths,
)
from lwmt_sionna.data.__main__ import main

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
        with pytest.raises(ValueError, match=f"file of paths or of channels.*convert.*{name}"):
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
    words = ["convert", str(tmp_path / "m.mat"), "--axes", "subcarrier antenna time", "--name", "H"]
    words += ["--array-shape", "2", "4", "1", "--sampling-period", "1e-3", "--speed", "36"]
    with pytest.raises(UsageError, match="needs --carrier, --subcarrier-spacing"):
        main(words)
    assert main([*words, "--carrier", "3.5e9", "--subcarrier-spacing", "30e3"]) == 0
    assert "1 sequences of 7 snapshots" in capsys.readouterr().out
    channels = read_channels(tmp_path / "m.h5")
    np.testing.assert_allclose(channels.h[0], h.transpose(2, 1, 0), rtol=1e-6)
    assert channels.origin == "m.mat" and channels.speed.tolist() == [10.0]
    np.save(tmp_path / "n.npy", np.where(h.real > 2.0, np.nan, h))
    with pytest.raises(ValueError, match=r"not finite.*n\.npy"):
        import_channels(
            tmp_path / "n.npy", "subcarrier antenna time", array_shape=(1, 8, 1), **SETTINGS
        )
