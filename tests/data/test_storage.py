"""Files of paths: what they keep, and what is refused."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import (
    ChannelSequences,
    check_file,
    read_paths,
    summarize,
    write_channels,
    write_paths,
)
from tests.mirrors import sequences

SHIPPED = sorted((pathlib.Path(__file__).parents[2] / "experiments" / "data").glob("*.h5"))


def same(one, other):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lwmt_sionna.data", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_labels_survive_storage(rng, tmp_path):
    seam = np.full((6, 8), np.nan, np.float32)
    seam[:, 4] = 1e-5
    traced = np.zeros((6, 8), bool)
    traced[:, ::4] = True
    paths = sequences(rng, seam_error=seam, traced=traced, metadata={"num_drawn": 7})
    paths = dataclasses.replace(paths, time=paths.time + np.arange(6)[:, None])
    write_paths(tmp_path / "p.h5", paths)
    same(read_paths(tmp_path / "p.h5"), paths)
    assert check_file(tmp_path / "p.h5") == []
    # Users see the base station unless its path is missing.
    assert paths.line_of_sight.all()
    assert paths.num_interactions[0, 0].tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_sound_and_get_default_labels(path):
    assert check_file(path) == []
    paths = read_paths(path)
    assert paths.traced.all() and paths.interactions is None and paths.seam_error is None
    np.testing.assert_allclose(np.diff(paths.time, axis=1), paths.sampling_period)


def flip(content, place, rng):
    flipped = bytearray(content)
    flipped[place] ^= 1 << rng.integers(8)
    return bytes(flipped)


def test_every_flipped_bit_and_every_cut_is_refused_by_name(rng, tmp_path):
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    write_paths(good, sequences(rng, num_sequences=2))
    content = good.read_bytes()
    # Past the first line of text, whose padding holds nothing.
    damaged = [flip(content, place, rng) for place in rng.integers(512, len(content), 300)]
    damaged += [content[:length] for length in rng.integers(0, len(content), 100)]
    damaged += [content[:length] for length in (0, 100, 512, 513, len(content) - 1)]
    for wrong in (*damaged, content + b"x"):
        bad.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"bad\.h5"):
            read_paths(bad)


def test_no_flipped_bit_of_the_first_schema_is_believed(rng, tmp_path):
    """It has a checksum of its arrays alone; what else there is speaks for itself."""
    import hashlib

    import h5py

    old, bad = tmp_path / "old.h5", tmp_path / "bad.h5"
    with h5py.File(SHIPPED[0]) as source, h5py.File(old, "w") as target:
        digest = hashlib.sha256()
        for name in sorted(source):
            value = source[name][()] if name.startswith("bs_") else source[name][:4]
            value = source[name][:4] if name == "bs_index" else value
            target.create_dataset(name, data=value, compression="gzip", shuffle=True)
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
        target.attrs.update(source.attrs)
        target.attrs["sha256"] = digest.hexdigest()
    good, content = read_paths(old), old.read_bytes()
    text = content.index(b"carrier_frequency_hz")
    # Each is tried in a process of its own: HDF5 ends some of them.
    places = [*rng.integers(0, len(content), 3), *rng.integers(text - 300, text + 3000, 10)]
    refused = 0
    for place in places:
        bad.write_bytes(flip(content, place, rng))
        try:
            paths = read_paths(bad)
        except ValueError as error:
            assert "bad.h5" in str(error)
            refused += 1
        else:
            for name, value in good.arrays.items():
                np.testing.assert_array_equal(getattr(paths, name), value)
            assert paths.sampling_period == good.sampling_period
            assert paths.carrier_frequency == good.carrier_frequency
    assert refused > 0


def test_a_damaged_first_line_is_refused(rng, tmp_path):
    write_paths(tmp_path / "p.h5", sequences(rng, num_sequences=2))
    content = bytearray((tmp_path / "p.h5").read_bytes())
    assert content.startswith(b"lwmt_sionna.paths 1.1, HDF5 content sha256 ")
    for place in (3, 60):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (tmp_path / "p.h5").write_bytes(flipped)
        with pytest.raises(ValueError, match="checksum"):
            read_paths(tmp_path / "p.h5")


def test_a_later_version_is_told_from_a_later_minor_version(rng, tmp_path):
    import h5py

    from lwmt_sionna.data import storage

    paths = sequences(rng, num_sequences=2)
    for name, value, problem in (
        ("SCHEMA_VERSION", 2, "schema_version=2"),
        ("SCHEMA_MINOR", 7, None),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, name, value)
            write_paths(tmp_path / "p.h5", paths)
        if problem is None:
            same(read_paths(tmp_path / "p.h5"), paths)
        else:
            with pytest.raises(ValueError, match=problem):
                read_paths(tmp_path / "p.h5")
    # A file of one's own that looks like one of ours, without what belongs in it.
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file.attrs["schema"] = "lwmt_sionna.paths"
        file.attrs["schema_version"] = [1, 1]
    with pytest.raises(ValueError, match=r"p\.h5"):
        read_paths(tmp_path / "p.h5")


def test_files_that_lead_elsewhere_are_refused(rng, tmp_path):
    """Whatever they link to, with a right checksum: nobody's file reads another one."""
    import h5py

    from lwmt_sionna.data.container import new_file

    paths = sequences(rng, num_sequences=2)
    write_paths(tmp_path / "good.h5", paths)
    secret = tmp_path / "secret"
    secret.write_bytes(paths.tau.tobytes())
    layout = h5py.VirtualLayout(paths.tau.shape, "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "good.h5", "tau", paths.tau.shape)
    ways = {
        "soft": lambda file: file.update(tau=h5py.SoftLink("/doppler")),
        "external": lambda file: file.update(tau=h5py.ExternalLink(tmp_path / "good.h5", "tau")),
        "storage": lambda file: file.create_dataset(
            "tau", paths.tau.shape, "f4", external=[(str(secret), 0, secret.stat().st_size)]
        ),
        "virtual": lambda file: file.create_virtual_dataset("tau", layout),
        "group": lambda file: file.create_group("tau"),
        "text": lambda file: file.update(tau=["some"]),
    }
    attributes = {
        "sampling_period_s": 1.0,
        "carrier_frequency_hz": 1.0,
        "scene": "",
        "metadata": "{}",
    }
    for name, plant in ways.items():
        bad = tmp_path / f"{name}.h5"
        with new_file(bad, "lwmt_sionna.paths", (1, 1), attributes) as file:
            for field, value in paths.arrays.items():
                if field != "tau":
                    file[field] = value
            plant(file)
        with pytest.raises(ValueError, match=rf"tau .*{name}\.h5"):
            read_paths(bad)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("a", np.nan, "a is not finite in sequence 3"),
        ("tau", np.inf, "tau is not finite"),
        ("tau", -1e-9, "tau must lie between"),
        ("tau", 0.5, "tau must lie between"),
        ("doppler", np.nan, "doppler is not finite"),
        ("speed", -np.inf, "speed is not finite"),
        ("bs_index", 7, "bs_index must lie below"),
        ("bs_index", -1, "bs_index must lie below"),
        ("trajectory_id", 0, "trajectory_id: 1 trajectories are stored more than once"),
        ("bs_position", np.nan, "bs_position is not finite"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_file_and_field(rng, tmp_path, field, value, problem):
    paths = sequences(rng)
    wrong = getattr(paths, field).copy()
    wrong[np.minimum(3, len(wrong) - 1)] = value
    # An honest writer would not get this far.
    object.__setattr__(paths, field, wrong)
    write_paths(tmp_path / "bad.h5", paths)
    with pytest.raises(ValueError, match=rf"{problem}.*bad\.h5"):
        read_paths(tmp_path / "bad.h5")
    assert len(check_file(tmp_path / "bad.h5")) == 1


def test_a_full_disk_is_told_and_leaves_nothing(rng, tmp_path):
    """A limit on the size of files stands for the disk; libhdf5 would end the process."""
    write_paths(tmp_path / "good.h5", sequences(rng))
    code = """
import pathlib, resource, signal, sys
from lwmt_sionna.data import merge_paths, read_paths, write_paths
from lwmt_sionna.runs import command_line
good, bad = map(pathlib.Path, sys.argv[1:])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
paths = read_paths(good)
try:
    merge_paths(bad, [good], {})
except OSError as error:
    assert str(bad) in str(error), error
command_line.run(lambda argv: write_paths(bad, paths), [])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "good.h5", tmp_path / "bad.h5"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1 and "File too large" in result.stderr
    assert str(tmp_path / "bad.h5") in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["good.h5"]


def test_check_names_the_damaged_files_and_goes_on(rng, tmp_path):
    import h5py

    stored = {name: sequences(rng, num_sequences=2) for name in ("one", "two", "three")}
    for name, paths in stored.items():
        write_paths(tmp_path / f"{name}.h5", paths)
    content = (tmp_path / "two.h5").read_bytes()
    (tmp_path / "two.h5").write_bytes(content[:-200])
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.zeros(3)
    files = [tmp_path / f"{name}.h5" for name in ("one", "two", "foreign", "gone", "three")]
    result = run("check", *files)
    assert result.returncode == 1 and not result.stderr
    verdicts = [line for line in result.stdout.splitlines() if line[:4] in ("ok  ", "FAIL")]
    assert [line[:4] for line in verdicts] == ["ok  ", "FAIL", "FAIL", "FAIL", "ok  "]
    assert "2 of 5 files are sound" in result.stdout
    assert run("check", files[0]).returncode == 0
    same(read_paths(files[0]), stored["one"])
    same(read_paths(files[-1]), stored["three"])


def test_a_folder_stands_for_its_files(rng, tmp_path, capsys):
    from lwmt_sionna.data.__main__ import main
    from lwmt_sionna.runs.command_line import UsageError

    for name in ("city2", "city10", "city1"):
        write_paths(tmp_path / "data" / f"{name}.h5", sequences(rng, num_sequences=2))
    # What a killed writer left does not count.
    (tmp_path / "data" / ".tmp-1234-city1.h5").write_bytes(b"half")
    assert main(["check", str(tmp_path / "data")]) == 0
    told = capsys.readouterr().out
    assert "3 of 3 files are sound" in told
    assert [told.index(f"city{n}.h5") for n in (1, 2, 10)] == sorted(
        told.index(f"city{n}.h5") for n in (1, 2, 10)
    )
    with pytest.raises(UsageError, match="no file"):
        main(["summary", str(tmp_path)])


def test_summary_of_known_geometry(rng):
    paths = sequences(rng, num_sequences=40, metadata={"num_drawn": 50, "num_out_of_coverage": 10})
    valid = paths.valid.copy()
    valid[:10, :, 0] = False
    valid[0, 3] = False
    blocked = dataclasses.replace(paths, valid=valid)
    numbers = summarize(blocked)
    assert numbers["line_of_sight_share"] == pytest.approx(0.75)
    assert numbers["coverage_share"] == pytest.approx(0.8)
    assert numbers["vanishing_share"] == pytest.approx(1 / 40)
    assert numbers["paths_max"] == 5
    # Two steps of one sequence lose or gain all paths.
    assert numbers["event_share"] == pytest.approx(2 / (40 * 7))
    # Spreads of the first snapshot by hand.
    power = np.abs(paths.a[20, 0, :, 0, 0].astype(complex)) ** 2
    mean = np.average(paths.tau[20, 0], weights=power)
    delay = np.sqrt(np.average((paths.tau[20, 0] - mean) ** 2, weights=power))
    from lwmt_sionna.data import spreads

    assert spreads(blocked)["delay"][20, 0] == pytest.approx(delay, rel=1e-4)
    with pytest.raises(ValueError, match="no sequence"):
        summarize(paths.select(slice(0, 0)))


def test_summary_and_plots_from_the_command_line(rng, tmp_path):
    import json

    from PIL import Image

    write_paths(tmp_path / "p.h5", sequences(rng))
    result = run("summary", tmp_path / "p.h5", "--json")
    assert json.loads(result.stdout)["num_sequences"] == 6
    assert "line_of_sight_share" in run("summary", tmp_path / "p.h5").stdout
    arguments = ("--sequence", 2, "--animate", "--out", tmp_path / "figures")
    result = run("plot", tmp_path / "p.h5", *arguments)
    assert result.returncode == 0, result.stderr
    drawn = {path.name: path for path in (tmp_path / "figures").iterdir()}
    assert set(drawn) == {"p_tracks.png", "p_sequence2.png", "p_sequence2.gif"}
    assert min(path.stat().st_size for path in drawn.values()) > 10_000
    with Image.open(drawn["p_sequence2.gif"]) as movie:
        assert movie.n_frames == 8
    wrong = run("plot", tmp_path / "p.h5", "--sequence", 6)
    assert wrong.returncode == 2 and "sequence=6" in wrong.stderr
    own = ChannelSequences(np.ones((1, 2, 2, 2)) + 0j, 1e-3, 1e9, 1e5, (1, 2, 1), "mine")
    write_channels(tmp_path / "c.h5", own)
    wrong = run("plot", tmp_path / "c.h5")
    assert wrong.returncode == 2 and "c.h5 holds channels" in wrong.stderr
    assert "`summary`" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_angle_delay_map_peaks_where_the_path_is(rng):
    from lwmt_sionna.data.summary import angle_delay_power

    paths = sequences(rng, num_sequences=1)
    only = np.zeros_like(paths.valid)
    only[..., 2] = True
    paths = dataclasses.replace(paths, valid=only)
    power = angle_delay_power(paths, 0)
    assert power.shape == (8, 32, 32)
    angle, delay = np.unravel_index(power[0].argmax(), (32, 32))
    # Bins are 1 / (32 * 540 kHz) wide; half-wavelength spacing turns phases by pi sin(azimuth).
    assert delay == pytest.approx((paths.tau[0, 0, 2] * 32 * 540e3) % 32, abs=0.6)
    direction = np.sin(paths.theta_t[0, 0, 2]) * np.sin(paths.phi_t[0, 0, 2])
    assert (angle - 16) % 32 == pytest.approx(direction * 16 % 32, abs=0.6)
