"""HDF5 files that are whole or refused, and that hold all of their content themselves.

Before the HDF5 content stands a line of text with the schema, its version and the SHA-256 of every
byte that follows, so that a damaged file is refused before HDF5 opens it. A file is built in memory
and then written in one go: libhdf5 may end the process where a disk is full.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lwmt_sionna.runs.records import atomic_path, sha256
from lwmt_sionna.runs.shipped import find
from lwmt_sionna.typing import Array, PathLike

# HDF5 leaves the first bytes of a file to its user where asked to; a power of two, at least 512.
_BLOCK_BYTES = 512
MATLAB_COMPLEX = ("real", "imag")
# What a process of its own tries, and for how many seconds.
_TRY = "import sys; from lwmt_sionna.data.container import load; load(sys.argv[1])"
_TRY_SECONDS = 60.0
_BLOCK = re.compile(rb"(lwmt_sionna\.\w+) (\d+)\.\d+, HDF5 content sha256 ([0-9a-f]{64})\n\0*")
# What gzip can shrink at most, with a margin: a file that claims to hold more is damaged, and must
# not claim the machine's memory either.
LARGEST_RATIO = 2_000


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        attributes: The file's attributes: text and numbers.
        arrays: Its arrays by name.
        units: The unit that the file states for each array, `None` where it states none.
        has_checksum: Whether the file began with a checksum, which then was right.
    """

    attributes: dict[str, Any]
    arrays: dict[str, Array]
    units: dict[str, str | None]
    has_checksum: bool


@contextlib.contextmanager
def new_file(
    path: PathLike, schema: str, version: tuple[int, int], attributes: dict[str, Any]
) -> Iterator[Any]:
    """A new HDF5 file, which appears under its name when the block succeeds, whole.

    Args:
        path: Target path.
        schema: Name of the schema, `lwmt_sionna.` and a word.
        version: Major and minor version.
        attributes: Attributes of the file by name.

    Yields:
        `h5py.File`, in memory.

    Raises:
        OSError: If the file cannot be written, as on a full disk. The error names the path.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=_BLOCK_BYTES) as file:
        file.attrs["schema"] = schema
        file.attrs["schema_version"], file.attrs["schema_minor"] = version
        file.attrs.update(attributes)
        yield file
    try:
        # No frame of an error keeps a view of the buffer, or CPython 3.12 crashes collecting both.
        with buffer.getbuffer() as content, content[_BLOCK_BYTES:] as body:
            digest = hashlib.sha256(body).hexdigest()
            line = f"{schema} {version[0]}.{version[1]}, HDF5 content sha256 {digest}\n".encode()
            content[: len(line)] = line
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                stream.write(content)
    except OSError as error:
        # A write that fails halfway does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_content(path: PathLike, schema: str, major: int) -> Content:
    """Reads a file and checks its checksum, the schema that it names and the major version.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version, or if
            what it holds lies in another file. The message names the file.
    """
    with _opened(path) as (file, has_checksum):
        # A foreign file may hold anything: nothing of it is read.
        attributes, arrays, units = _contents(file, path, schema)
    if attributes.get("schema") != schema:
        raise ValueError(
            f"The file holds something else: expected schema {schema!r}. Received: "
            f"path={path}, schema={attributes.get('schema')!r}"
        )
    if attributes.get("schema_version") != major:
        raise ValueError(
            f"Expected version {major} of the schema. Received: path={path}, "
            f"schema_version={attributes.get('schema_version')}"
        )
    return Content(attributes, arrays, units, has_checksum)


def read_schema(path: PathLike) -> Any:
    """The schema that a file names, or `None`; see `read_content` for what is raised."""
    with _opened(path) as (file, _):
        return file.attrs.get("schema")


def read_shapes(path: PathLike) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a file, by name; see `read_content` for what is raised."""
    with _opened(path) as (file, _):
        return {name: own_array(file, name).shape for name in file}


def load(path: PathLike) -> None:
    """Reads a file to no end: what a process of its own does with one that may end it."""
    import h5py

    with h5py.File(path, "r") as file:
        _contents(file, path, file.attrs.get("schema"))


def child_environment() -> dict[str, str]:
    """Environment of a Python process that imports what this one can."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _contents(file, path, schema):
    """Attributes, arrays and units of an open file; of another schema the attributes alone."""
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    arrays, units = {}, {}
    for name in file if attributes.get("schema") == schema else ():
        dataset = own_array(file, name, LARGEST_RATIO * find(path).stat().st_size)
        arrays[name], units[name] = dataset[()], dataset.attrs.get("unit")
    return attributes, arrays, units


@functools.lru_cache(maxsize=256)
def _is_harmless(path, digest):
    """Whether a process survives a file of this SHA-256."""
    command = [sys.executable, "-c", _TRY, path]
    try:
        tried = subprocess.run(
            command, env=child_environment(), capture_output=True, timeout=_TRY_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode >= 0


@contextlib.contextmanager
def _opened(path):
    """The open file, and whether it has a checksum; whatever goes wrong names the file."""
    import h5py

    path = find(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no such file. Received: path={path}")
    # Before anything else: libhdf5 may crash the process on a damaged file.
    with open(path, "rb") as file:
        block = _BLOCK.fullmatch(file.read(_BLOCK_BYTES))
        if block is not None:
            file.seek(_BLOCK_BYTES)
            if hashlib.file_digest(file, "sha256").hexdigest() != block.group(3).decode():
                raise ValueError(
                    f"The file's content does not match its checksum. Received: path={path}"
                )
    # Of what has no checksum nobody knows but who tries.
    if block is None and not _is_harmless(str(path), sha256(path)):
        raise ValueError(f"The file is damaged: its reader ended on it. Received: path={path}")
    try:
        with h5py.File(path, "r") as file:
            yield file, block is not None
    # What a damaged file makes of libhdf5 takes many forms; all of them mean the same.
    except Exception as error:
        raise ValueError(
            f"The file is damaged or no HDF5 file: {error}. Received: path={path}"
        ) from error


def own_array(file: Any, name: str, limit: float = np.inf) -> Any:
    """A dataset of an open HDF5 file that holds numbers, and holds them itself.

    Args:
        file: `h5py.File`.
        name: Name of the dataset.
        limit: Most bytes that the numbers may take.

    Returns:
        `h5py.Dataset`; complex numbers may be pairs `("real", "imag")`, as MATLAB stores them.

    Raises:
        ValueError: If it is a link, a group or no numbers, lies in another file, or claims more.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link; expected an array in the file itself")
    dataset = file[name]
    is_array = isinstance(dataset, h5py.Dataset)
    if not is_array or not (dataset.dtype.kind in "biufc" or dataset.dtype.names == MATLAB_COMPLEX):
        raise ValueError(f"{name} is no array of numbers")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} lies in another file; expected an array in the file itself")
    if dataset.nbytes > limit:
        raise ValueError(f"{name} claims {dataset.nbytes} bytes")
    return dataset


def _plain(value):
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else repr(value)
