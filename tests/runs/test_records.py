"""Run records: what goes in comes out, whole or not at all."""

import dataclasses
import hashlib
import json
import os
import pathlib
import time

import numpy as np
import pytest

from lwmt_sionna.runs import records

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    speeds: tuple = (30.0, 120.0)
    scene: str = "san_francisco"


def write(path, **changes):
    arguments = {
        "name": "link_level_eval",
        "config": {"link": Config(), "snr_db": np.arange(3)},
        "points": [{"policy": "hold", "bler": np.float32(0.5), "blocks": np.int64(200)}],
        "seeds": [1, 2, 3],
        "inputs": {},
        "started": time.time() - 2.0,
    }
    return records.write_record(path, **(arguments | changes))


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "record.json"
    written = write(path)
    read = records.read_record(path)
    assert read == written
    assert read["points"] == [{"policy": "hold", "bler": 0.5, "blocks": 200}]
    assert read["config"] == {
        "link": {"speeds": [30.0, 120.0], "scene": "san_francisco"},
        "snr_db": [0, 1, 2],
    }
    assert read["seeds"] == [1, 2, 3]
    assert 2.0 <= read["wall_time_s"] < 10.0
    assert read["versions"]["numpy"] == np.__version__
    assert set(read["git"]) == {"commit", "dirty"}


def test_file_is_sorted_with_a_point_on_a_line(tmp_path):
    points = [{"b": 1, "a": 0.5}, {"a": 0.25}]
    write(tmp_path / "record.json", points=points)
    text = (tmp_path / "record.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))
    first = text.splitlines().index('  "points": [') + 1
    assert text.splitlines()[first : first + 2] == ['{"a":0.5,"b":1},', '{"a":0.25}']


def test_inputs_are_hashed(tmp_path):
    file = tmp_path / "paths.h5"
    file.write_bytes(b"paths")
    record = write(tmp_path / "record.json", inputs={"paths": file, "code": ROOT / "LICENSE"})
    assert record["inputs"]["paths"] == {
        "path": ".../paths.h5",
        "sha256": hashlib.sha256(b"paths").hexdigest(),
    }
    assert record["inputs"]["code"]["path"] == "LICENSE"


def test_folder_hash_sees_content_and_names(tmp_path):
    """But not the words about it: the card of a preset is written after its records."""
    preset = tmp_path / "preset"
    preset.mkdir()
    (preset / "config.json").write_text("{}")
    before = records.sha256(preset)
    (preset / "README.md").write_text("Figures.")
    assert records.sha256(preset) == before
    (preset / "config.json").write_text("{ }")
    changed = records.sha256(preset)
    (preset / "config.json").rename(preset / "other.json")
    assert len({before, changed, records.sha256(preset)}) == 3


def test_missing_input(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "record.json", inputs={"paths": tmp_path / "absent.h5"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), np.float32("-inf")])
def test_undefined_numbers_are_refused_by_name(tmp_path, value):
    points = [{"nmse_db": -3.0}, {"nmse_db": value}]
    with pytest.raises(ValueError, match=r"finite. Received: points\[1\]\.nmse_db="):
        write(tmp_path / "record.json", points=points)
    assert list(tmp_path.iterdir()) == []
    # What is undefined is said to be so by who writes it.
    write(tmp_path / "record.json", points=[{"nmse_db": None}])
    assert records.read_record(tmp_path / "record.json")["points"] == [{"nmse_db": None}]


def test_a_record_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "record.json"
    write(path)
    text = path.read_text()
    path.write_text(text.replace('"bler":0.5', '"bler":0.4'))
    with pytest.raises(ValueError, match=r"damaged.*record\.json"):
        records.read_record(path)


def test_records_of_before_are_read():
    for path in sorted((ROOT / "experiments" / "results").glob("*.json")):
        assert records.read_record(path)["points"], path


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"bler": 0.1}, "points of type dict"),
        ([[0.1]], r"points\[0\] of type list"),
        ([{"bler": 0.1}, {"bler": [0.1]}], r"points\[1\]\['bler'\] of type list"),
        ([{"bler": {"mean": 0.1}}], "of type dict"),
        ([{"bler": np.zeros(2)}], "of type ndarray"),
        ([{1: 0.1}], "key 1"),
    ],
)
def test_points_must_be_flat(tmp_path, points, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "record.json", points=points)
    assert list(tmp_path.iterdir()) == []


def test_started_must_be_wall_clock(tmp_path):
    with pytest.raises(ValueError, match="started"):
        write(tmp_path / "record.json", started=time.perf_counter())


def test_extra_entries(tmp_path):
    record = write(tmp_path / "record.json", extra={"events": {"share": 0.1}})
    assert record["events"] == {"share": 0.1}
    with pytest.raises(ValueError, match="key 'points'"):
        write(tmp_path / "record.json", extra={"points": []})


def test_paths_do_not_tie_a_record_to_a_machine(tmp_path):
    config = {"out": ROOT / "runs" / "demo", "data": str(ROOT / "data" / "a.h5"), "far": tmp_path}
    record = write(tmp_path / "record.json", config=config)
    assert record["config"] == {
        "out": "runs/demo",
        "data": "data/a.h5",
        "far": f".../{tmp_path.name}",
    }
    assert str(ROOT) not in (tmp_path / "record.json").read_text()


def test_command_is_relative_to_the_repository(tmp_path, monkeypatch):
    script = str(ROOT / "experiments" / "link_level_eval.py")
    words = ["/usr/bin/python3", script, "--snr", "1 2", f"--out={ROOT / 'runs'}"]
    monkeypatch.setattr("sys.orig_argv", words)
    record = write(tmp_path / "record.json")
    assert record["command"] == "python experiments/link_level_eval.py --snr '1 2' --out=runs"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "should be JSON"),
        ('{"schema_version": NaN}', "NaN is no JSON"),
        ('{"schema_version": 1e999}', "1e999 is beyond"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "schema_version"),
        ('{"schema_version": 99}', "schema_version=99"),
        ('{"schema_version": 1}', "lacks entries"),
    ],
)
def test_read_refuses(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        records.read_record(path)
    assert str(path) in str(error.value)


def test_an_enormous_file_is_told_at_once(tmp_path):
    path = tmp_path / "record.json"
    path.touch()
    os.truncate(path, 10**12)
    with pytest.raises(ValueError, match=r"at most .*record\.json"):
        records.read_record(path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "channels.h5"
    path.write_text("old")
    with pytest.raises(RuntimeError), records.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_keeps_the_extension(tmp_path):
    with records.atomic_path(tmp_path / "model.weights.h5") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("model.weights.h5")
        temporary.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["model.weights.h5"]
