"""Path sequences in HDF5: one file, written atomically, refused when damaged.

The schema has a major and a minor version. Readers refuse another major version; a later minor one
adds labels that older readers ignore. Version 1.1 added labels (time stamps, traced snapshots, seam
errors, kinds of interaction) and, in a line of text before the HDF5 content, a checksum of every
byte of it.
"""

import contextlib
import hashlib
import json
import pathlib
import re

import numpy as np

from lwmt_sionna.data.paths import (
    OPTIONAL_FIELDS,
    PATH_FIELDS,
    SEQUENCE_FIELDS,
    PathSequences,
    check_alike,
    pad_paths,
)
from lwmt_sionna.runs.records import atomic_path

SCHEMA = "lwmt_sionna.paths"
SCHEMA_VERSION = 1
SCHEMA_MINOR = 1
UNITS = {
    "tau": "s", "theta_t": "rad", "phi_t": "rad", "theta_r": "rad", "phi_r": "rad",
    "doppler": "Hz", "position": "m", "velocity": "m/s", "speed": "m/s", "time": "s",
    "bs_position": "m", "bs_orientation": "rad",
}  # fmt: skip
_REQUIRED = (*PATH_FIELDS, *SEQUENCE_FIELDS, "bs_position", "bs_orientation")
# HDF5 leaves the first bytes of a file to its user where asked to; a power of two, at least 512.
_BLOCK_BYTES = 512
_BLOCK = re.compile(rb"lwmt_sionna\.paths \d+\.\d+, HDF5 content sha256 ([0-9a-f]{64})\n\0*")
# What gzip can shrink at most, with a margin: a file that claims to hold more is damaged, and must
# not claim the machine's memory either.
_LARGEST_RATIO = 2_000


def write_paths(path, paths):
    """Writes sequences to an HDF5 file; the file appears under its name only when complete.

    Args:
        path: Target path, ending in `.h5`.
        paths: `PathSequences`.
    """
    arrays = paths.arrays | _stations(paths)
    with _new_file(path, paths, paths.metadata) as file:
        for name, value in arrays.items():
            options = {"compression": "gzip", "shuffle": True} if value.size else {}
            _describe(file.create_dataset(name, data=value, **options))


def merge_paths(path, parts, metadata):
    """Joins files of sequences, holding one of them in memory at a time.

    Args:
        path: Target path, ending in `.h5`.
        parts: Paths of files with the same scene, base stations, carrier and sampling period, in
            the order in which their sequences are stored.
        metadata: Metadata of the joined file.

    Raises:
        ValueError: If there is no part, the parts do not belong together, or one is damaged.
    """
    shapes = [_shapes(part) for part in parts]
    if not shapes:
        raise ValueError("There is nothing to join. Received: parts=[]")
    common = [name for name in shapes[0] if all(name in shape for shape in shapes)]
    num_sequences = sum(shape["tau"][0] for shape in shapes)
    num_paths = max(shape["tau"][2] for shape in shapes)
    first = read_paths(parts[0])
    with _new_file(path, first, metadata) as file:
        for name, value in _stations(first).items():
            _describe(file.create_dataset(name, data=value))
        begin = 0
        for part in parts:
            paths = read_paths(part)
            check_alike(first, paths)
            paths = pad_paths(paths, num_paths)
            end = begin + paths.num_sequences
            for name, value in paths.arrays.items():
                if name not in common:
                    continue
                if name not in file:
                    # One part, one chunk: every chunk is compressed once.
                    options = {"compression": "gzip", "shuffle": True, "chunks": value.shape}
                    options = options if value.size else {}
                    shape = (num_sequences, *value.shape[1:])
                    _describe(file.create_dataset(name, shape, value.dtype, **options))
                file[name][begin:end] = value
            begin = end


def _stations(paths):
    return {"bs_position": paths.bs_position, "bs_orientation": paths.bs_orientation}


def _describe(dataset):
    name = dataset.name.strip("/")
    if name in UNITS:
        dataset.attrs["unit"] = UNITS[name]


@contextlib.contextmanager
def _new_file(path, paths, metadata):
    """An HDF5 file with the attributes of sequences, which appears whole and with its checksum."""
    import h5py

    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=_BLOCK_BYTES) as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["schema_minor"] = SCHEMA_MINOR
            file.attrs["sampling_period_s"] = float(paths.sampling_period)
            file.attrs["carrier_frequency_hz"] = float(paths.carrier_frequency)
            file.attrs["scene"] = paths.scene
            file.attrs["metadata"] = json.dumps(metadata, sort_keys=True)
            yield file
        digest = _digest_content(temporary)
        line = f"{SCHEMA} {SCHEMA_VERSION}.{SCHEMA_MINOR}, HDF5 content sha256 {digest}\n"
        with open(temporary, "r+b") as file:
            file.write(line.encode())


def _shapes(path):
    import h5py

    with h5py.File(path, "r") as file:
        return {name: file[name].shape for name in file}


def read_paths(path):
    """Reads sequences and checks that they are whole.

    Args:
        path: Path of a file that `write_paths` wrote.

    Returns:
        `PathSequences`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version. The
            message names the file.
    """
    attributes, arrays, _ = read_raw(path)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"The file lacks {', '.join(missing)}. Received: path={path}")
    known = (*_REQUIRED, *OPTIONAL_FIELDS)
    try:
        return PathSequences(
            **{name: value for name, value in arrays.items() if name in known},
            sampling_period=float(attributes["sampling_period_s"]),
            carrier_frequency=float(attributes["carrier_frequency_hz"]),
            scene=str(attributes["scene"]),
            metadata=json.loads(attributes["metadata"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The file is damaged: {error}. Received: path={path}") from error


def read_raw(path):
    """Reads attributes and datasets of a file of paths and checks version and checksum.

    Args:
        path: Path of the file.

    Returns:
        Tuple of three dictionaries: the file's attributes, its arrays, and the unit that the file
        states for each array (`None` where it states none).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of paths here. Received: path={path}")
    # Before anything else: libhdf5 may crash the process on a damaged file.
    with open(path, "rb") as file:
        block = _BLOCK.fullmatch(file.read(_BLOCK_BYTES))
    if block is not None and _digest_content(path) != block.group(1).decode():
        raise ValueError(f"The file's content does not match its checksum. Received: path={path}")
    try:
        attributes, arrays, units = _load(path)
    except ImportError:
        raise
    # What a damaged file makes of libhdf5 takes many forms; all of them mean the same.
    except Exception as error:
        raise ValueError(
            f"The file is damaged or no HDF5 file: {error}. Received: path={path}"
        ) from error
    if attributes.get("schema") != SCHEMA:
        raise ValueError(
            f"The file holds no path sequences: expected schema {SCHEMA!r}. Received: "
            f"path={path}, schema={attributes.get('schema')!r}"
        )
    if attributes.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"Expected version {SCHEMA_VERSION} of the schema. Received: path={path}, "
            f"schema_version={attributes.get('schema_version')}"
        )
    if block is None and (
        "schema_minor" in attributes or _digest_arrays(arrays) != attributes.get("sha256")
    ):
        raise ValueError(f"The file's content does not match its checksum. Received: path={path}")
    return attributes, arrays, units


def _load(path):
    import h5py

    limit = _LARGEST_RATIO * path.stat().st_size
    with h5py.File(path, "r") as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        # A foreign file may hold anything: nothing of it is read.
        names = list(file) if attributes.get("schema") == SCHEMA else []
        for name in names:
            if file[name].nbytes > limit:
                raise ValueError(f"{name} claims {file[name].nbytes} bytes")
        arrays = {name: file[name][()] for name in names}
        units = {name: file[name].attrs.get("unit") for name in names}
    return attributes, arrays, units


def _plain(value):
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else repr(value)


def _digest_content(path):
    with open(path, "rb") as file:
        file.seek(_BLOCK_BYTES)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_arrays(arrays):
    """SHA-256 over names, types, shapes and contents: the checksum of version 1.0."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
