"""Finished work is believed whole or not at all, and a folder serves one run."""

import json
import logging

import numpy as np
import pytest

from lwmt_sionna.runs.records import atomic_path
from lwmt_sionna.runs.store import RunFolder, Store

VALUE = {
    "failed": np.arange(24).reshape(2, 3, 4) % 5 == 0,
    "nmse": np.linspace(-20, 0, 7, dtype=np.float32),
    "rows": [{"horizon": 1, "nmse_db": -12.5, "name": "hold"}, {"nested": np.int64(3)}],
}


def check(value):
    np.testing.assert_array_equal(value["failed"], VALUE["failed"])
    np.testing.assert_array_equal(value["nmse"], VALUE["nmse"])
    assert (value["failed"].dtype, value["nmse"].dtype) == (bool, np.float32)
    assert value["rows"] == [{"horizon": 1, "nmse_db": -12.5, "name": "hold"}, {"nested": 3}]


@pytest.mark.parametrize("on_disk", [True, False])
def test_pieces_come_back_as_they_were(tmp_path, on_disk):
    folder = tmp_path if on_disk else None
    store = Store(folder)
    assert store.get({"a": 1}) is None
    store.put({"a": 1, "b": [2.5]}, VALUE, "a label")
    store.put({"a": 2}, None)
    store = Store(folder) if on_disk else store
    check(store.get({"b": [2.5], "a": 1}))
    assert store.get({"a": 2}, "default") is None and store.get({"a": 3}, "default") == "default"


def test_what_is_kept_is_not_computed_again(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return VALUE

    for _ in range(3):
        check(Store(tmp_path).compute(("key", 1), compute))
    assert len(calls) == 1


def test_a_piece_is_readable_json(tmp_path):
    Store(tmp_path).put({"a": 1}, [1, 2], "what it is")
    [path] = tmp_path.iterdir()
    entry = json.loads(path.read_text())
    assert (entry["key"], entry["label"], entry["value"]) == ({"a": 1}, "what it is", [1, 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw + b" ",
        lambda raw: raw.replace(b'"label": ""', b'"label": "x"'),
        lambda raw: b'{"result": 3}',
        lambda raw: b"\xff" * 100,
    ],
)
def test_damaged_pieces_are_computed_again_with_a_word(tmp_path, caplog, damage):
    store = Store(tmp_path)
    store.put("key", VALUE)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        check(store.compute("key", lambda: VALUE))
    assert len(caplog.records) == 1 and str(path) in caplog.text
    check(Store(tmp_path).get("key"))


def test_the_piece_of_another_key_is_no_answer(tmp_path):
    store = Store(tmp_path)
    store.put("one", 1)
    [one] = tmp_path.iterdir()
    store.put("two", 2)
    [two] = set(tmp_path.iterdir()) - {one}
    two.write_bytes(one.read_bytes())
    assert store.get("two") is None and store.get("one") == 1


def test_files_are_pieces_with_a_note(tmp_path, caplog):
    store = Store(tmp_path)
    path = store.put_file(
        {"shard": 1}, lambda temporary: temporary.write_bytes(b"content"), ".h5", {"num_drawn": 3}
    )
    assert Store(tmp_path).get_file({"shard": 1}) == (path, {"num_drawn": 3})
    assert path.suffix == ".h5" and path.read_bytes() == b"content"
    path.write_bytes(b"Content")
    assert store.get_file({"shard": 1}) is None and str(path) in caplog.text
    path.unlink()
    assert store.get_file({"shard": 1}) is None


def test_a_file_without_its_note_does_not_count(tmp_path):
    store = Store(tmp_path)

    def killed(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_file("key", killed, ".npz")
    assert store.get_file("key") is None and not list(tmp_path.iterdir())


def test_a_full_disk_is_told_by_path_and_costs_nothing_finished(tmp_path, full_disk):
    store = Store(tmp_path)
    store.put("finished", VALUE)
    large = np.random.default_rng(0).random(10_000)
    with full_disk(4096):
        with pytest.raises(OSError, match=str(tmp_path)):
            store.put("next", large)
        with pytest.raises(OSError, match=str(tmp_path)):
            store.put_file("file", lambda path: np.save(path, large), ".npy")
        with pytest.raises(OSError, match=str(tmp_path)):
            with atomic_path(tmp_path / "weights.h5", num_bytes=100_000):
                raise AssertionError("the room was not made sure of")
    check(store.get("finished"))
    assert len(list(tmp_path.iterdir())) == 1


def test_one_run_works_in_a_folder(tmp_path):
    with RunFolder(tmp_path / "run", {"seed": 1}):
        with pytest.raises(ValueError, match="another run works in this folder"):
            RunFolder(tmp_path / "run", {"seed": 1}).__enter__()
    with RunFolder(tmp_path / "run", {"seed": 1}):
        pass


def test_a_folder_belongs_to_one_claim_once_work_lies_there(tmp_path):
    with RunFolder(tmp_path, {"seed": 1, "sizes": (1, 2)}) as folder:
        assert not folder.has_work()
    # Nothing was finished: the folder is free.
    with RunFolder(tmp_path, {"seed": 2, "sizes": (1, 2)}, ignore=("*.log",)) as folder:
        (tmp_path / "run.log").write_text("started")
        assert not folder.has_work()
        folder.store.put("key", 1)
        assert folder.has_work()
    with RunFolder(tmp_path, {"seed": 2, "sizes": [1, 2]}) as folder:
        assert folder.store.get("key") == 1
    with pytest.raises(
        ValueError, match=r"another configuration.*differs in seed \(2 there, 1 here\)"
    ):
        RunFolder(tmp_path, {"seed": 1, "sizes": [1, 2]}).__enter__()
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2


def test_a_resumed_run_says_what_it_keeps(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lwmt_sionna"):
        with RunFolder(tmp_path) as folder:
            folder.store.put("one", 1)
        assert not caplog.messages
        RunFolder(tmp_path).__enter__().__exit__()
    assert caplog.messages == [f"{tmp_path}: kept from before: 1 finished pieces"]


def test_a_damaged_claim_is_one_line(tmp_path):
    with RunFolder(tmp_path, {"seed": 1}) as folder:
        folder.store.put("key", 1)
    (tmp_path / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"damaged.*config\.json"):
        RunFolder(tmp_path, {"seed": 1}).__enter__()
    next((tmp_path / "pieces").glob("*.json")).unlink()
    with RunFolder(tmp_path, {"seed": 1}):
        assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 1}


def test_what_killed_writers_left_is_removed(tmp_path):
    (tmp_path / "pieces").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".lock").touch()
    for folder in (tmp_path, tmp_path / "pieces", tmp_path / "other"):
        (folder / ".tmp-123-x.json").write_text("{")
    (tmp_path / ".tmp-456-preset").mkdir()
    with RunFolder(tmp_path, {"seed": 1}) as folder:
        assert not folder.has_work()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob(".tmp-*"))
    assert left == ["other/.tmp-123-x.json"]
