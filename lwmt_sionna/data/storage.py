"""Path sequences in HDF5: one file, written atomically, refused when damaged.

The schema has a major and a minor version. Readers refuse another major version; a later minor one
adds labels that older readers ignore. Version 1.1 added labels (time stamps, traced snapshots, seam
errors, kinds of interaction) and the checksum of `lwmt_sionna.data.container`.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lwmt_sionna.data.array_files import SUFFIXES
from lwmt_sionna.data.channels import CHANNEL_SCHEMA, ChannelSequences, read_channels
from lwmt_sionna.data.container import (
    Content,
    new_file,
    read_content,
    read_schema,
    read_shapes,
)
from lwmt_sionna.data.labelled import UNITS
from lwmt_sionna.data.paths import (
    OPTIONAL_FIELDS,
    PATH_FIELDS,
    SEQUENCE_FIELDS,
    STATION_FIELDS,
    PathSequences,
    check_alike,
    pad_paths,
)
from lwmt_sionna.data.validation import check_values, validate
from lwmt_sionna.typing import PathLike

SCHEMA = "lwmt_sionna.paths"
SCHEMA_VERSION = 1
SCHEMA_MINOR = 1
_REQUIRED = (*PATH_FIELDS, *SEQUENCE_FIELDS, *STATION_FIELDS)


def write_paths(path: PathLike, paths: PathSequences) -> None:
    """Writes sequences to an HDF5 file; the file appears under its name only when complete.

    Args:
        path: Target path, ending in `.h5`.

    Raises:
        OSError: If the file cannot be written, as on a full disk. The error names the path.
    """
    with _new_file(path, paths, paths.metadata) as file:
        for name, value in (paths.arrays | _stations(paths)).items():
            options = {"compression": "gzip", "shuffle": True} if value.size else {}
            _describe(file.create_dataset(name, data=value, **options))


def merge_paths(path: PathLike, parts: Sequence[PathLike], metadata: dict[str, Any]) -> None:
    """Joins files of sequences, holding one of them in memory at a time, and the joined file.

    Args:
        path: Target path, ending in `.h5`.
        parts: Paths of files with the same scene, base stations, carrier, sampling period and
            tracer, in the order in which their sequences are stored.
        metadata: Metadata of the joined file.

    Raises:
        ValueError: If there is no part, the parts do not belong together, or one is damaged.
        OSError: If the file cannot be written, as on a full disk. The error names the path.
    """
    shapes = [read_shapes(part) for part in parts]
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


def read_paths(path: PathLike) -> PathSequences:
    """Reads sequences and checks that they are whole, and possible.

    Args:
        path: Path of a file that `write_paths` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version, if it
            leads to other files, or if a number in it cannot be (see `check_values`). The message
            names the file and the field.
    """
    return _to_paths(path, _read(path))


def read_sequences(path: PathLike) -> PathSequences | ChannelSequences:
    """Reads sequences of either kind: the schema in the file tells which.

    Args:
        path: Path of a file of paths or of channels.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds neither, or is damaged; see `read_paths`, `read_channels`.
    """
    suffix = pathlib.Path(path).suffix
    foreign = suffix in SUFFIXES and suffix not in (".h5", ".hdf5") and pathlib.Path(path).is_file()
    schema = suffix if foreign else read_schema(path)
    if schema == CHANNEL_SCHEMA:
        return read_channels(path)
    if schema == SCHEMA:
        return read_paths(path)
    raise ValueError(
        f"Expected a file of paths or of channels; `lwmt data import` makes one of an array. "
        f"Received: path={path}, schema={schema!r}"
    )


def check_file(path: PathLike) -> list[str]:
    """Checks a file of path sequences; never raises for what is wrong with the file.

    Args:
        path: Path of an HDF5 file.

    Returns:
        List of problems, each a sentence; empty where the file is sound.
    """
    try:
        content = _read(path)
        paths = _to_paths(path, content)
    except (OSError, ValueError) as error:
        return [str(error)]
    wrong = [
        f"{name} is stated in {content.units[name]!r}; expected {unit!r}."
        for name, unit in UNITS.items()
        if name in content.arrays and content.units[name] != unit
    ]
    return wrong + validate(paths)


def _new_file(path, paths, metadata):
    attributes = paths.attributes | {"metadata": json.dumps(metadata, sort_keys=True)}
    return new_file(path, SCHEMA, (SCHEMA_VERSION, SCHEMA_MINOR), attributes)


def _stations(paths):
    return {name: getattr(paths, name) for name in STATION_FIELDS}


def _describe(dataset):
    name = dataset.name.strip("/")
    if name in UNITS:
        dataset.attrs["unit"] = UNITS[name]


def _read(path: PathLike) -> Content:
    content = read_content(path, SCHEMA, SCHEMA_VERSION)
    attributes, arrays = content.attributes, content.arrays
    if not content.has_checksum and (
        "schema_minor" in attributes or _digest_arrays(arrays) != attributes.get("sha256")
    ):
        raise ValueError(f"The file's content does not match its checksum. Received: path={path}")
    return content


def _to_paths(path, content):
    attributes, arrays = content.attributes, content.arrays
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise ValueError(f"The file lacks {', '.join(missing)}. Received: path={path}")
    known = (*_REQUIRED, *OPTIONAL_FIELDS)
    try:
        paths = PathSequences(
            **{name: value for name, value in arrays.items() if name in known},
            sampling_period=float(attributes["sampling_period_s"]),
            carrier_frequency=float(attributes["carrier_frequency_hz"]),
            scene=str(attributes["scene"]),
            metadata=json.loads(attributes["metadata"]),
        )
        problems = check_values(paths)
        problems += [] if content.has_checksum else _contradictions(paths)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The file is damaged: {error}. Received: path={path}") from error
    if problems:
        raise ValueError(f"The file holds what cannot be: {problems[0]} Received: path={path}")
    return paths


def _contradictions(paths):
    """Attributes against the configuration in the metadata: version 1.0 has no checksum of them."""
    config = paths.metadata.get("config")
    if not isinstance(config, dict) or "replayed_from" in paths.metadata:
        return []
    return [
        f"{name} is {getattr(paths, name)}, and {config[name]} in its configuration."
        for name in ("sampling_period", "carrier_frequency")
        if config.get(name, getattr(paths, name)) != getattr(paths, name)
    ]


def _digest_arrays(arrays):
    """SHA-256 over names, types, shapes and contents: the checksum of version 1.0."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
