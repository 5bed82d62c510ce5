"""The LLVM library for ray tracing: what is found, and what is refused before it ends a process."""

import importlib.metadata

import pytest

from lwmt_sionna.rt.tracing.llvm import find_libllvm, load_libllvm


@pytest.mark.parametrize(
    ("drjit", "name", "is_fit"),
    [
        ("1.3.1", "libLLVM-15.so.1", True),
        ("1.3.1", "libLLVM.so.19.1", True),
        ("1.5.0", "libLLVM.so.19.1", True),
        ("1.5.0", "libLLVM-15.so.1", False),
        ("1.5.0", "libLLVM-16.so", False),
        ("1.5.0", "libLLVM.so", True),
        (None, "libLLVM-15.so.1", True),
    ],
)
def test_a_library_that_ends_the_process_is_none(drjit, name, is_fit, monkeypatch, tmp_path):
    def version(package):
        if drjit is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return drjit

    monkeypatch.setattr(importlib.metadata, "version", version)
    path = tmp_path / name
    path.touch()
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(path))
    assert find_libllvm() == (path if is_fit else None)
    words = "cannot be loaded" if is_fit else "an LLVM that ends this Dr.Jit"
    with pytest.raises(ImportError, match=rf"{words}.*libllvm19"):
        load_libllvm()


def test_a_name_without_a_version_is_told_by_what_it_leads_to(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.5.0")
    (tmp_path / "libLLVM-16.so.1").touch()
    link = tmp_path / "libLLVM.so"
    link.symlink_to("libLLVM-16.so.1")
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(link))
    assert find_libllvm() is None


def test_without_a_variable_the_first_that_is_fit_is_taken(monkeypatch, tmp_path):
    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    monkeypatch.setattr("lwmt_sionna.rt.tracing.llvm._SEARCH_DIRECTORIES", (str(tmp_path),))
    for name in ("libLLVM-15.so.1", "libLLVM-18.so.1", "libLLVM.so.19.1"):
        (tmp_path / name).touch()
    assert find_libllvm() == tmp_path / "libLLVM.so.19.1"
