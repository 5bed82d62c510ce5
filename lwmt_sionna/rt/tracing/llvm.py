"""Finding and loading LLVM so that ray tracing and TensorFlow share a process.

Dr.Jit, the engine under Sionna RT, compiles its CPU kernels with the LLVM shared library, which no
PyPI package supplies. TensorFlow exports LLVM symbols of its own; where it is imported first they
hijack those of Dr.Jit's library and the process crashes. Loading libLLVM beforehand with
``RTLD_DEEPBIND`` makes it prefer its own symbols, in whatever order the two are imported.
"""

import ctypes
import importlib.metadata
import logging
import os
import pathlib
import re

logger = logging.getLogger(__name__)

LLVM_HINT = (
    "Ray tracing on a CPU needs the LLVM shared library. On Debian or Ubuntu run "
    "`apt-get install libllvm19`, or set DRJIT_LIBLLVM_PATH to the path of a libLLVM.so."
)
_ENVIRONMENT_VARIABLE = "DRJIT_LIBLLVM_PATH"
_SEARCH_DIRECTORIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
# The first of these that exists is taken. Measured to work with Dr.Jit 1.3, of Sionna RT 1.2: 15
# and 17 to 20; with Dr.Jit 1.5, of Sionna RT 2.2: 19. With 15 and 16 the latter ends the process.
_PREFERRED_MAJORS = (19, 18, 20, 17, 15, 16)
_FATAL_MAJORS = (15, 16)
_loaded: dict[str, ctypes.CDLL] = {}


def find_libllvm() -> pathlib.Path | None:
    """Finds the LLVM shared library that Dr.Jit should use.

    The environment variable ``DRJIT_LIBLLVM_PATH`` wins; otherwise the usual library folders are
    searched, LLVM 19 first. A library with which the installed Dr.Jit ends the process is none.

    Returns:
        `pathlib.Path` of the library, or `None` where there is none.
    """
    configured = os.environ.get(_ENVIRONMENT_VARIABLE)
    if configured:
        path = pathlib.Path(configured)
        return path if path.is_file() and not _is_fatal(path) else None
    directories = [pathlib.Path(d) for d in _SEARCH_DIRECTORIES]
    directories += sorted(pathlib.Path("/usr/lib").glob("llvm-*/lib"))
    found: dict[int | None, pathlib.Path] = {}
    for directory in directories:
        for path in directory.glob("libLLVM*.so*"):
            found.setdefault(_major(path), path)
    for major in _PREFERRED_MAJORS:
        if major in found and not _is_fatal(found[major]):
            return found[major]
    return None


def _major(path):
    """LLVM's version by the name of a library; `None` if it does not say."""
    match = re.fullmatch(r"libLLVM(?:-(\d+)[\d.]*\.so[\d.]*|\.so\.(\d+)[\d.]*)", path.name)
    return None if match is None else int(match.group(1) or match.group(2))


def _is_fatal(path):
    """Whether the installed Dr.Jit ends the process with this library."""
    try:
        release = importlib.metadata.version("drjit").split(".")
    except importlib.metadata.PackageNotFoundError:
        return False
    major = _major(path) or _major(path.resolve())
    return [int(number) for number in release[:2]] >= [1, 5] and major in _FATAL_MAJORS


def load_libllvm() -> pathlib.Path:
    """Loads LLVM for Dr.Jit, safely with respect to TensorFlow. Idempotent.

    Must run before `mitsuba` or `sionna.rt` are imported; `lwmt_sionna.rt` does so.

    Returns:
        `pathlib.Path` of the loaded library.

    Raises:
        ImportError: If no library is found or it cannot be loaded. The message names the remedy.
    """
    path = find_libllvm()
    if path is None:
        configured = os.environ.get(_ENVIRONMENT_VARIABLE)
        if configured:
            is_there = pathlib.Path(configured).is_file()
            what = "an LLVM that ends this Dr.Jit" if is_there else "a file that does not exist"
            raise ImportError(
                f"{_ENVIRONMENT_VARIABLE} names {what}. {LLVM_HINT} "
                f"Received: {_ENVIRONMENT_VARIABLE}={configured}"
            )
        raise ImportError(f"No libLLVM was found. {LLVM_HINT}")
    key = str(path)
    if key not in _loaded:
        mode = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0)
        try:
            _loaded[key] = ctypes.CDLL(key, mode=mode)
        except OSError as error:
            raise ImportError(f"{key} cannot be loaded ({error}). {LLVM_HINT}") from error
        os.environ[_ENVIRONMENT_VARIABLE] = key
        logger.debug("loaded %s", key)
    return path
