"""Compiled programs that outlive their process."""

import os
import subprocess
import sys

import pytest

from lwmt_sionna.runs import compilation

PROGRAM = """
from lwmt_sionna.runs.compilation import keep_compiled

folder = keep_compiled()
import tensorflow as tf

print(folder, float(tf.function(lambda x: tf.reduce_sum(x @ x), jit_compile=True)(tf.ones((8, 8)))))
"""


@pytest.fixture
def early(monkeypatch):
    """As in a process that has not imported TensorFlow, and has no flags."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.delenv("LWMT_COMPILED", raising=False)


def test_what_is_compiled_is_kept(tmp_path):
    flags = {"LWMT_COMPILED": str(tmp_path), "TF_XLA_FLAGS": ""}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | flags, capture_output=True, text=True
    ).stdout.split()
    assert told[1] == "512.0"
    kept = list(tmp_path.glob("*/*.pb"))
    assert len(kept) == 1 and str(kept[0].parent) == told[0]


def test_flags_of_ones_own_stay(early, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug")
    path = compilation.keep_compiled(tmp_path)
    assert path.parent == tmp_path and path.is_dir()
    flags = os.environ["TF_XLA_FLAGS"]
    assert flags == f"--tf_xla_clustering_debug --tf_xla_persistent_cache_directory={path}"
    # Somebody has chosen a folder already.
    assert compilation.keep_compiled(tmp_path / "other") is None
    assert os.environ["TF_XLA_FLAGS"] == flags


def test_programs_compiled_in_other_ways_are_kept_apart(early, tmp_path, monkeypatch):
    folders = set()
    for flags in ("", "--xla_backend_optimization_level=0"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setenv("TF_XLA_FLAGS", "")
        folders.add(compilation.keep_compiled(tmp_path))
    assert len(folders) == 2


def test_flags_cannot_name_a_folder_with_a_space(early, tmp_path):
    assert compilation.keep_compiled(tmp_path / "my programs") is None
    assert os.environ["TF_XLA_FLAGS"] == ""


def test_nothing_is_kept_where_the_variable_is_empty_or_tensorflow_is_there(
    early, tmp_path, monkeypatch
):
    monkeypatch.setenv("LWMT_COMPILED", "")
    assert compilation.keep_compiled() is None
    monkeypatch.setitem(sys.modules, "tensorflow", compilation)
    assert compilation.keep_compiled(tmp_path) is None
    assert os.environ["TF_XLA_FLAGS"] == "" and not any(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["no home", "a file in its place", "not writable"])
def test_without_a_folder_to_write_to_nothing_is_kept(early, tmp_path, monkeypatch, broken):
    if broken == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif broken == "a file in its place":
        (tmp_path / "lwmt_sionna").write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    if broken != "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.keep_compiled() is None
    assert os.environ["TF_XLA_FLAGS"] == ""


def test_the_folder_of_caches_is_the_users(early, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.keep_compiled().parent == tmp_path / "lwmt_sionna" / "compiled"


def test_what_was_compiled_first_goes_first(early, tmp_path, monkeypatch):
    folder = compilation.keep_compiled(tmp_path)
    for age, name in enumerate(("new", "old", "older")):
        file = folder / f"{name}.pb"
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    assert compilation.keep_compiled(tmp_path, largest_bytes=20) == folder
    assert sorted(file.stem for file in folder.iterdir()) == ["new", "old"]
