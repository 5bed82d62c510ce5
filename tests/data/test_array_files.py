"""Arrays in files of others: what is read, and that nothing worse than one line happens."""

import io
import zipfile

import numpy as np
import pytest

from lwmt_sionna.data.array_files import ArrayReader

VALUE = (np.arange(60.0) + 1j).reshape(3, 4, 5)


def write(path, value=VALUE, name="H"):
    if path.suffix == ".npy":
        np.save(path, value)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: value, "other": np.zeros(3)})
    elif path.suffix == ".mat":
        import scipy.io

        scipy.io.savemat(path, {name: value, "other": np.zeros(3)}, do_compression=True)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file[name], file["other"] = value, np.zeros(3)


@pytest.fixture(scope="module")
def reader():
    with ArrayReader() as reader:
        yield reader


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5"])
def test_what_was_written_is_read(reader, tmp_path, suffix):
    path = tmp_path / f"h{suffix}"
    write(path)
    np.testing.assert_array_equal(reader.read(path, "H"), VALUE)
    if suffix != ".npy":
        with pytest.raises(ValueError, match=rf"expected G.*h\{suffix}"):
            reader.read(path, "G")
        with pytest.raises(ValueError, match="H, other"):
            reader.read(path)
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        reader.read(tmp_path / "none.npy")


def test_matlab_files_of_version_7_3(reader, tmp_path):
    """HDF5 with the axes the other way round, and pairs of numbers."""
    import h5py

    with h5py.File(tmp_path / "h.mat", "w", userblock_size=512) as file:
        pairs = np.empty(VALUE.T.shape, [("real", "f8"), ("imag", "f8")])
        pairs["real"], pairs["imag"] = VALUE.T.real, VALUE.T.imag
        file["H"] = pairs
    with open(tmp_path / "h.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM")
    np.testing.assert_array_equal(reader.read(tmp_path / "h.mat", "H"), VALUE)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5"])
def test_damaged_files_end_in_one_line(reader, rng, tmp_path, suffix):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    write(good)
    content = good.read_bytes()
    head = min(len(content), 400)
    damaged = [content[:length] for length in rng.integers(0, len(content), 25)]
    for place in (*rng.integers(0, head, 50), *rng.integers(0, len(content), 25)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    refused = 0
    for wrong in damaged:
        bad.write_bytes(wrong)
        try:
            reader.read(bad, "H")
        except ValueError as error:
            refused += 1
            assert "bad" in str(error)
    assert refused > 25


def claim(shape, dtype="<f8"):
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(80)


@pytest.mark.parametrize("shape", [(10**13,), (2**40, 2**40), (-1,), (3, -3), (11,)])
def test_claims_are_not_believed(reader, tmp_path, shape):
    (tmp_path / "h.npy").write_bytes(claim(shape))
    with pytest.raises(ValueError, match=r"claims.*h\.npy"):
        reader.read(tmp_path / "h.npy")
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as archive:
        archive.writestr("h.npy", claim(shape))
    with pytest.raises(ValueError, match=r"claims.*h\.npz"):
        reader.read(tmp_path / "h.npz")


def test_nothing_is_unpickled_and_nothing_blown_up(reader, tmp_path):
    np.save(tmp_path / "h.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"object.*h\.npy"):
        reader.read(tmp_path / "h.npy")
    with zipfile.ZipFile(tmp_path / "h.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("h.npy", bytes(10**7))
    # Ten megabytes of zeros are no bomb: they are no array either.
    with pytest.raises(ValueError, match=r"h\.npz"):
        reader.read(tmp_path / "h.npz")
    import h5py

    with h5py.File(tmp_path / "h.h5", "w") as file:
        file["h"] = h5py.ExternalLink("/etc/hostname", "x")
    with pytest.raises(ValueError, match=r"link.*h\.h5"):
        reader.read(tmp_path / "h.h5")
    (tmp_path / "h.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"end in .npy.*h\.csv"):
        reader.read(tmp_path / "h.csv")


def test_a_reader_that_dies_is_told_and_replaced(reader, tmp_path, monkeypatch):
    """As scipy's does on some damaged files."""
    from lwmt_sionna.data import array_files

    write(tmp_path / "h.mat")
    monkeypatch.setattr(array_files, "_SERVE", "import os, sys; sys.stdin.readline(); os.abort()")
    with ArrayReader() as dying:
        with pytest.raises(ValueError, match=r"ended on it.*h\.mat"):
            dying.read(tmp_path / "h.mat", "H")
        monkeypatch.undo()
        np.testing.assert_array_equal(dying.read(tmp_path / "h.mat", "H"), VALUE)
