"""Arrays in files of others: `.npy`, `.npz`, `.mat` and HDF5, damaged and enormous ones too.

Readers of MATLAB and HDF5 files may end their process on a damaged file, so they work in one of
their own. Nothing is unpickled, no other file is followed, and a file that claims to hold more than
it can is refused before memory is asked for.
"""

import contextlib
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import zipfile
from typing import Any, Self

import numpy as np

from lwmt_sionna.data.container import (
    LARGEST_RATIO,
    MATLAB_COMPLEX,
    child_environment,
    own_array,
)
from lwmt_sionna.typing import Array, PathLike

SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5")
_KINDS = "biufc"
# Of the process of its own: seconds for a file and for each of its bytes, bytes of memory.
_SECONDS, _SECONDS_PER_BYTE = 20.0, 1e-7
_MEMORY_BYTES = 8 * 2**30
_SERVE = "from lwmt_sionna.data.array_files import serve; serve()"


class ArrayReader:
    """Reads arrays from files of others; a context manager that ends its process when left.

    Example:

    >>> with ArrayReader() as reader:
    ...     h = reader.read("measured.mat", "H")
    """

    def __init__(self) -> None:
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def read(self, path: PathLike, name: str | None = None) -> Array:
        """Reads one array.

        Args:
            path: Path of a file; its suffix, one of `SUFFIXES`, tells the format.
            name: Name of the array within the file; may be left out where there is only one.

        Returns:
            Array of numbers, as the file has it. MATLAB's axes keep MATLAB's order.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or of another format, or holds no such array of
                numbers. The message names the file.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no such file. Received: path={path}")
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f"Arrays are read from files that end in {', '.join(SUFFIXES)}. "
                f"Received: path={path}"
            )
        try:
            if path.suffix == ".npy":
                with open(path, "rb") as file:
                    return _read_npy(file, path.stat().st_size)
            if path.suffix == ".npz":
                return _read_npz(path, name)
            return self._ask(path, name)
        # Each reader has errors of its own for a damaged file.
        except Exception as error:
            raise ValueError(f"The file is damaged: {error}. Received: path={path}") from error

    def _ask(self, path, name):
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE], env=child_environment(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        process = self._process
        seconds = _SECONDS + _SECONDS_PER_BYTE * path.stat().st_size
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps([str(path.resolve()), name]).encode() + b"\n")
            process.stdin.flush()
            reply = json.loads(process.stdout.readline() or "null")
            content = b"" if not reply else process.stdout.read(reply.get("size", 0))
        except BrokenPipeError:
            reply, content = None, b""
        finally:
            timer.cancel()
        if reply is None or len(content) < reply.get("size", 0):
            self.__exit__()
            raise ValueError("its reader ended on it, or took too long")
        if "error" in reply:
            raise ValueError(reply["error"])
        return np.frombuffer(content, reply["dtype"]).reshape(reply["shape"]).copy()


def serve() -> None:
    """Reads what is asked for on the standard input: the process that may end on a bad file."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # What libraries print must not mix with the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        path, name = json.loads(line)
        content, reply = b"", {}
        try:
            value = _load(pathlib.Path(path), name)
            content = np.ascontiguousarray(value).tobytes()
            reply = {"dtype": value.dtype.str, "shape": value.shape, "size": len(content)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply).encode() + b"\n" + content)
        replies.flush()


def _load(path, name):
    if path.suffix == ".mat":
        import scipy.io

        try:
            names = None if name is None else [name]
            found = scipy.io.loadmat(path, variable_names=names)
        except NotImplementedError:
            # Version 7.3 is HDF5, with the axes the other way round.
            return _read_hdf5(path, name).T
        own = {key: value for key, value in found.items() if not key.startswith("__")}
        return _numbers(_only(own, name)[1])
    return _read_hdf5(path, name)


def _read_hdf5(path, name):
    import h5py

    with h5py.File(path, "r") as file:
        name, _ = _only({key: None for key in file if not key.startswith("#")}, name)
        limit = LARGEST_RATIO * path.stat().st_size
        value = own_array(file, name, limit)[()]
    # MATLAB's complex numbers.
    if value.dtype.names == MATLAB_COMPLEX:
        value = value["real"] + 1j * value["imag"]
    return _numbers(value)


def _read_npz(path, name):
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        name, info = _only(members, name)
        if info.file_size > LARGEST_RATIO * max(info.compress_size, 1):
            raise ValueError(f"{name} claims {info.file_size} bytes")
        with archive.open(info) as file:
            return _read_npy(file, info.file_size)


def _read_npy(file, size):
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise ValueError(f"version {version} of the format")
    shape, fortran_order, dtype = header(file)
    num_bytes = math.prod(shape) * dtype.itemsize
    # Before memory is asked for: the content is what the file holds beyond its header.
    if dtype.kind not in _KINDS or min(shape, default=0) < 0 or num_bytes != size - file.tell():
        raise ValueError(f"it claims an array {shape} of {dtype}, which it does not hold")
    value = np.frombuffer(file.read(num_bytes), dtype)
    return value.reshape(shape, order="F" if fortran_order else "C").copy()


def _only(members: dict[str, Any], name: str | None) -> tuple[str, Any]:
    """The member of a name, or the only one."""
    if name is None and len(members) == 1:
        return next(iter(members.items()))
    if name not in members:
        raise ValueError(f"it holds {', '.join(sorted(members)[:20])}; expected {name}")
    return name, members[name]


def _numbers(value):
    value = np.asarray(value)
    if value.dtype.kind not in _KINDS:
        raise ValueError(f"expected an array of numbers, and found {value.dtype}")
    return value
