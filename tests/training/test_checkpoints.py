"""Checkpoints: whole or absent, and told apart when damaged."""

import json

import numpy as np
import pytest

from lwmt_sionna.training import Checkpoints


def arrays(value):
    return [np.full((2, 3), value, np.float32), np.array(int(value)), np.arange(4)]


def test_what_is_saved_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore() is None
    checkpoints.save(7, arrays(1.5), {"best": -3.25})
    step, restored, notes = Checkpoints(tmp_path).restore()
    assert step == 7 and notes == {"best": -3.25}
    for got, expected in zip(restored, arrays(1.5), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 10):
        checkpoints.save(step, arrays(step))
    names = sorted(p.name for p in tmp_path.iterdir())
    expected = ["step_00000003", "step_00000010"]
    assert names == sorted(f"{n}{s}" for n in expected for s in (".json", ".npz"))
    assert checkpoints.restore()[0] == 10


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "note"])
def test_damage_is_told_and_the_last_good_one_used(tmp_path, damage, caplog):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (4, 8):
        checkpoints.save(step, arrays(step))
    content, note = tmp_path / "step_00000008.npz", tmp_path / "step_00000008.json"
    data = bytearray(content.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        content.write_bytes(data)
    elif damage == "cut":
        content.write_bytes(data[:-40])
    elif damage == "missing":
        content.unlink()
    else:
        note.write_text(note.read_text()[:-20])
    step, restored, _ = checkpoints.restore()
    assert step == 4
    np.testing.assert_array_equal(restored[0], arrays(4)[0])
    assert "step_00000008" in caplog.text


def test_all_damaged_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, arrays(1))
    (tmp_path / "step_00000001.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="All checkpoints are damaged"):
        checkpoints.restore()


def test_arrays_without_a_note_do_not_count(tmp_path):
    """What a kill between the two files leaves."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, arrays(1))
    checkpoints.save(2, arrays(2))
    (tmp_path / "step_00000002.json").unlink()
    assert checkpoints.restore()[0] == 1
    assert json.loads((tmp_path / "step_00000001.json").read_text())["step"] == 1


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
