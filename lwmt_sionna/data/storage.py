"""Path sequences in HDF5: one file, written atomically, refused when damaged."""

import hashlib
import json
import os
import pathlib

import numpy as np

from lwmt_sionna.data.paths import PATH_FIELDS, SEQUENCE_FIELDS, PathSequences

SCHEMA = "lwmt_sionna.paths"
SCHEMA_VERSION = 1
_UNITS = {
    "tau": "s", "theta_t": "rad", "phi_t": "rad", "theta_r": "rad", "phi_r": "rad",
    "doppler": "Hz", "position": "m", "velocity": "m/s", "speed": "m/s",
    "bs_position": "m", "bs_orientation": "rad",
}  # fmt: skip


def write_paths(path, paths):
    """Writes sequences to an HDF5 file; the file appears under its name only when complete.

    Args:
        path: Target path, ending in `.h5`.
        paths: `PathSequences`.
    """
    import h5py

    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    arrays = {name: getattr(paths, name) for name in (*PATH_FIELDS, *SEQUENCE_FIELDS)}
    arrays |= {"bs_position": paths.bs_position, "bs_orientation": paths.bs_orientation}
    try:
        with h5py.File(partial, "w") as file:
            for name, value in arrays.items():
                options = {"compression": "gzip", "shuffle": True} if value.size else {}
                dataset = file.create_dataset(name, data=value, **options)
                if name in _UNITS:
                    dataset.attrs["unit"] = _UNITS[name]
            file.attrs["schema"] = SCHEMA
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["sampling_period_s"] = float(paths.sampling_period)
            file.attrs["carrier_frequency_hz"] = float(paths.carrier_frequency)
            file.attrs["scene"] = paths.scene
            file.attrs["metadata"] = json.dumps(paths.metadata, sort_keys=True)
            file.attrs["sha256"] = _digest(arrays)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def read_paths(path):
    """Reads sequences and checks that they are whole.

    Args:
        path: Path of a file that `write_paths` wrote.

    Returns:
        `PathSequences`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version.
    """
    import h5py

    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of paths here. Received: path={path}")
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            if attributes.get("schema") != SCHEMA:
                raise ValueError(
                    f"The file holds no path sequences: expected schema {SCHEMA!r}. Received: "
                    f"path={path}, schema={attributes.get('schema')!r}"
                )
            version = int(attributes["schema_version"])
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"Expected version {SCHEMA_VERSION} of the schema. Received: path={path}, "
                    f"schema_version={version}"
                )
            names = (*PATH_FIELDS, *SEQUENCE_FIELDS, "bs_position", "bs_orientation")
            arrays = {name: file[name][()] for name in names}
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"The file is damaged or no HDF5 file: {error}. Received: path={path}"
        ) from error
    if _digest(arrays) != attributes.get("sha256"):
        raise ValueError(f"The file's content does not match its checksum. Received: path={path}")
    return PathSequences(
        **arrays,
        sampling_period=float(attributes["sampling_period_s"]),
        carrier_frequency=float(attributes["carrier_frequency_hz"]),
        scene=str(attributes["scene"]),
        metadata=json.loads(attributes["metadata"]),
    )


def _digest(arrays):
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
