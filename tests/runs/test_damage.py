"""Bits that flip and files that are cut: nothing damaged is believed, and no run is blocked."""

import collections
import time

import numpy as np
import pytest

from lwmt_sionna.runs import records
from lwmt_sionna.runs.store import Store

ARRAYS = {
    "failed": np.arange(512).reshape(16, 4, 8) % 3 == 0,
    "rate": np.linspace(0, 7, 64, dtype=np.float32).reshape(8, 8),
    "num_bit_errors": 123,
}
ROWS = {"points": [{"policy": "hold", "nmse_db": -12.345, "horizon": h} for h in (1, 3, 5)]}


class Piece:
    """A value in a store: of arrays, as the link's points, or of rows, as the cells of a grid."""

    def __init__(self, folder, value):
        self.store, self.value = Store(folder), value
        self.write()

    def write(self):
        self.store.put({"regime": 0}, self.value, "a label")

    def read(self):
        """Whether the value was believed; raises if another one was."""
        calls = []
        found = self.store.compute({"regime": 0}, lambda: calls.append(1) or self.value)
        check_same(found, self.value)
        # What was computed again is whole on the disk.
        check_same(Store(self.store.folder).get({"regime": 0}), self.value)
        return not calls


class Checkpoint:
    """Arrays in a file, with a note, as the states of a training."""

    arrays = (np.arange(60.0).reshape(3, 20), np.ones((4, 4), np.float32))

    def __init__(self, folder):
        self.store = Store(folder)
        self.write()

    def write(self):
        self.store.put_file({"step": 7}, lambda path: np.savez(path, *self.arrays), ".npz", "notes")

    def read(self):
        found = self.store.get_file({"step": 7})
        if found is None:
            return False
        path, notes = found
        assert notes == "notes"
        with np.load(path, allow_pickle=False) as file:
            for name, array in zip(file.files, self.arrays, strict=True):
                np.testing.assert_array_equal(file[name], array)
        return True


class Record:
    """What a run leaves behind."""

    def __init__(self, folder):
        self.path = folder / "record.json"
        self.write()
        self.value = records.read_record(self.path)

    def write(self):
        records.write_record(
            self.path,
            name="demo",
            config={"snr_db": [0.0, 10.0]},
            points=ROWS["points"],
            seeds=[1],
            inputs={},
            started=time.time(),
        )

    def read(self):
        try:
            found = records.read_record(self.path)
        except ValueError as error:
            assert str(self.path) in str(error)
            return False
        check_same(found, self.value)
        return True


def check_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


KINDS = {
    "point": lambda folder: Piece(folder, ARRAYS),
    "cell": lambda folder: Piece(folder, ROWS),
    "checkpoint": Checkpoint,
    "record": Record,
}


def flip(content, rng):
    damaged = bytearray(content)
    damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def cut(content, rng):
    return content[: rng.integers(len(content))]


def damage(folder, kind, harm, count, rng):
    """Tries and how many were believed, which the reader has found to be what was written."""
    thing = KINDS[kind](folder)
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert thing.read()
    tally = collections.Counter()
    for index in range(count):
        path = list(whole)[index % len(whole)]
        path.write_bytes(harm(whole[path], rng))
        tally["believed" if thing.read() else "passed over"] += 1
        for name, content in whole.items():
            name.write_bytes(content)
    return tally


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("harm", "count"), [(flip, 60), (cut, 20)])
def test_damage_is_never_believed(tmp_path, kind, harm, count, rng):
    tally = damage(tmp_path, kind, harm, count, rng)
    assert sum(tally.values()) == count
    # A digit beyond a number's precision may flip without another value.
    assert tally["believed"] <= count // 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("harm", "count"), [(flip, 400), (cut, 80)])
def test_much_damage_is_never_believed(tmp_path, kind, harm, count, rng):
    tally = damage(tmp_path, kind, harm, count, rng)
    print(f"{kind}, {harm.__name__}: {count} tries, {dict(tally)}, none wrong")
    assert tally["believed"] <= count // 50
