"""Run records: one JSON file per run, from which figures and tables are drawn.

A record says what was run (command, resolved configuration, seeds), on what (versions, git commit,
machine, SHA-256 of every input) and what came out (`points`, a list of flat objects). Paths in it
are relative to the repository, so that a record reads the same on every machine, and it carries a
digest of its own content, so that a damaged one is refused.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from lwmt_sionna.runs.shipped import ROOT, find
from lwmt_sionna.typing import PathLike

SCHEMA_VERSION = 2
# Records of version 1 carry no digest of their own.
_READABLE = (1, SCHEMA_VERSION)
# A file larger than this is no record, and would take the machine's memory.
_MAX_JSON_BYTES = 200_000_000

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_PACKAGES = (
    "keras",
    "numpy",
    "tensorflow",
    "jax",
    "torch",
    "sionna",
    "sionna-rt",
    "mitsuba",
    "drjit",
    "h5py",
    "scipy",
)
# What a run writes does not make the code that wrote it dirty; such files are hashed as inputs.
_RESULT_FOLDERS = (
    "docs/figures",
    "experiments/data",
    "experiments/results",
    "lwmt_sionna/models/preset_files",
)
_REQUIRED_KEYS = (
    "command",
    "config",
    "created",
    "git",
    "inputs",
    "name",
    "points",
    "schema_version",
    "seeds",
    "versions",
    "wall_time_s",
)


@contextlib.contextmanager
def atomic_path(path: PathLike, num_bytes: int = 0) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which becomes `path` when the block succeeds.

    Readers see the old file or the whole new one. A block that raises leaves `path` as it was and
    removes the temporary file; on a full disk its error names `path`.

    Args:
        path: Path of the file to be written. Missing parent folders are made.
        num_bytes: Room that is made sure of before: HDF5 ends the process where a disk fills up
            under it.

    Returns:
        A context manager whose value is the `pathlib.Path` to write to. Its name ends like that
        of `path`, for writers that choose the format by the extension.

    Raises:
        OSError: If the file cannot be written.

    Example:

    >>> with atomic_path("runs/demo/channels.h5") as temporary:
    ...     with h5py.File(temporary, "w") as file:
    ...         file["h"] = h
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        if num_bytes:
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, num_bytes)
        yield temporary
        # Without this a crash of the machine could leave the new name with half of the content.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # NumPy tells a full disk by a sentence of its own, without a number.
        if error.errno in _NO_ROOM or "requested and" in str(error):
            number = errno.ENOSPC if error.errno is None else error.errno
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: PathLike) -> str:
    """SHA-256 of a file, or of a folder's files and their names, as 64 hexadecimal digits.

    Words about what is in a folder, files `*.md`, do not count.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".md"):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    with open(find(path), "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def portable_path(path: PathLike) -> str:
    """Returns `path` as text relative to the repository, or `.../name` if it lies outside of it.

    Files that a wheel brings have the places that they have in the repository.
    """
    path = pathlib.Path(path).resolve()
    for root in (ROOT, _REPOSITORY):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return f".../{path.name}"


@functools.cache
def git_state() -> dict[str, Any]:
    """Returns the commit of the running code and whether the tree differs from it.

    It is read once per process, so that a record written hours later still names the code that
    was started. Files in the folders of results and data do not count as differences.

    Returns:
        `{"commit": str, "dirty": bool}`; both `None` outside a git checkout or without git.
    """
    top = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD")
    # An installed copy may lie inside somebody else's checkout: that commit is not its own.
    if commit is None or top is None or pathlib.Path(top).resolve() != _REPOSITORY:
        return {"commit": None, "dirty": None}
    excluded = [f":(exclude){folder}" for folder in _RESULT_FOLDERS]
    status = _git("status", "--porcelain", "--", ".", *excluded)
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(*arguments):
    options = {"cwd": _REPOSITORY, "capture_output": True, "text": True, "timeout": 30}
    try:
        return subprocess.run(["git", *arguments], check=True, **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def package_versions() -> dict[str, str | None]:
    """Returns the versions that decide a result, without importing any of the packages.

    Returns:
        Dictionary from name to version: python, lwmt_sionna, every installed package of the
        numerical stack, and `backend`, the name of the Keras backend (`None` if Keras was not
        imported and `KERAS_BACKEND` is not set).
    """
    from lwmt_sionna import __version__

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "lwmt_sionna": __version__,
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        versions["backend"] = keras.config.backend()
    else:
        versions["backend"] = os.environ.get("KERAS_BACKEND")
    return versions


def machine_info() -> dict[str, Any]:
    """Returns system, processor, usable cores and the accelerators of the backend in use."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "cpu_cores": usable_cores(),
        "accelerators": _accelerators(),
    }


def usable_cores() -> int:
    """Number of cores that this process may use."""
    is_told = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if is_told else os.cpu_count() or 1


def _processor_name():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _accelerators():
    # Only a backend that the run has imported is asked: a record must not start another one.
    with contextlib.suppress(Exception):
        if "tensorflow" in sys.modules:
            config = sys.modules["tensorflow"].config
            gpus = config.list_physical_devices("GPU")
            return [config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus]
        if "torch" in sys.modules:
            cuda = sys.modules["torch"].cuda
            return [cuda.get_device_name(index) for index in range(cuda.device_count())]
        if "jax" in sys.modules:
            devices = sys.modules["jax"].devices()
            return [device.device_kind for device in devices if device.platform != "cpu"]
    return []


def check_points(points: Any) -> None:
    """Checks that `points` is a list of flat objects.

    They are dictionaries from text to text, number, boolean or `None`. NumPy's scalars count as
    numbers.

    Raises:
        ValueError: If it is not; the message names the point and the key.
    """

    def refuse(what, where, value):
        kind = type(value).__name__
        raise ValueError(f"{what}. Received: points{where} of type {kind}")

    if not isinstance(points, list | tuple):
        refuse("`points` should be a list of dictionaries", "", points)
    for index, point in enumerate(points):
        if not isinstance(point, dict):
            refuse("Every point should be a dictionary", f"[{index}]", point)
        for key, value in point.items():
            if not isinstance(key, str):
                refuse("The keys of a point should be text", f"[{index}] key {key!r}", key)
            # Scalars of NumPy, without NumPy: the doctor runs where it is missing.
            plain = value.item() if getattr(value, "shape", None) == () else value
            if plain is not None and not isinstance(plain, str | bool | int | float):
                kinds = "The values of a point should be text, numbers, booleans or None"
                refuse(kinds, f"[{index}][{key!r}]", value)


def write_record(
    path: PathLike,
    *,
    name: str,
    config: Any,
    points: list[dict[str, Any]],
    seeds: Any,
    inputs: Mapping[str, PathLike],
    started: float,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the record of one run, atomically.

    Args:
        path: Path of the JSON file.
        name: Name of the experiment, such as `"link_level_eval"`.
        config: The resolved configuration: a dictionary or a dataclass, nested as needed.
        points: List of flat dictionaries, one per result (see `check_points`). What is undefined,
            such as a ratio to nothing, is left out or said to be `None`, never NaN. Those of
            workers may name the `accelerator` that they were computed on.
        seeds: Integer, list or dictionary of integers.
        inputs: Dictionary from a name to the path of a file or folder that the run read. Each is
            stored with its SHA-256.
        started: Float, `time.time()` at the start of the run [s].
        extra: Optional dictionary of further top-level entries.

    Returns:
        The record as it was written, a dictionary.

    Raises:
        ValueError: If `points` is not flat, a number is NaN or infinite, `started` is no
            `time.time()` or `extra` would overwrite an entry.
        FileNotFoundError: If an input does not exist.
    """
    check_points(points)
    now = time.time()
    # A monotonic clock counts from the boot of the machine; decades of wall time betray it.
    if not 1.5e9 < started <= now + 1.0:
        raise ValueError(
            "`started` should be `time.time()` at the start of the run. "
            f"Received: started={started}"
        )
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "command": _command(),
        "config": config,
        "seeds": seeds,
        "versions": package_versions(),
        "git": git_state(),
        "machine": machine_info(),
        "inputs": {
            key: {"path": portable_path(find(file)), "sha256": sha256(file)}
            for key, file in inputs.items()
        },
        "wall_time_s": round(max(now - started, 0.0), 3),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "points": list(points),
    }
    named = sorted({p["accelerator"] for p in points if p.get("accelerator")})
    if named:
        record["machine"]["accelerators"] = named
    for key, value in ({} if extra is None else extra).items():
        if key in (*record, "sha256"):
            raise ValueError(f"`extra` may not overwrite an entry. Received: key {key!r}")
        record[key] = value
    record = _to_json(record, "")
    record["sha256"] = _digest(record)
    with atomic_path(path) as temporary:
        temporary.write_text(_to_text(record), encoding="utf-8")
    return record


def _to_text(record):
    """JSON with a point on a line: thousands of them are read by eye, and compared by git."""
    dumps = functools.partial(json.dumps, sort_keys=True, allow_nan=False, ensure_ascii=False)
    points = ",\n".join(dumps(point, separators=(",", ":")) for point in record["points"])
    entries = (
        f'  "{key}": [\n{points}\n  ]' if key == "points" else f'  "{key}": {dumps(value)}'
        for key, value in sorted(record.items())
    )
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read_record(path: PathLike) -> dict[str, Any]:
    """Reads a record.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no record, damaged, or of another schema version.
    """
    record = read_json(path)
    if not isinstance(record, dict) or "schema_version" not in record:
        raise ValueError(f"A run record should have a `schema_version`. Received: path={path}")
    if record["schema_version"] not in _READABLE:
        raise ValueError(
            f"This version reads records of schema version {SCHEMA_VERSION}. "
            f"Received: path={path} with schema_version={record['schema_version']}"
        )
    if record["schema_version"] == SCHEMA_VERSION and record.get("sha256") != _digest(record):
        raise ValueError(f"The record is damaged or was edited by hand. Received: path={path}")
    missing = [key for key in _REQUIRED_KEYS if key not in record]
    if missing:
        raise ValueError(f"A run record lacks entries: {missing}. Received: path={path}")
    check_points(record["points"])
    return record


def read_json(path: PathLike) -> Any:
    """Reads a JSON file that may be anything.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no JSON, holds numbers that are none, or is too large or nested
            too deeply to be read.
    """
    path = pathlib.Path(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(
            f"The file should have at most {_MAX_JSON_BYTES} bytes. Received: path={path} of "
            f"{path.stat().st_size} bytes"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"The file is nested too deeply. Received: path={path}") from error
    except ValueError as error:
        raise ValueError(f"The file should be JSON. Received: path={path} ({error})") from error


def _refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def _finite(digits):
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is beyond the largest number")
    return number


def _digest(record):
    """SHA-256 of a record's content, without the digest itself."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:  # nested as deeply as no record is
        return ""


def _command():
    """Returns the command line of this process, with paths relative to the repository."""
    words = [_portable_word(word) for word in sys.orig_argv[1:]]
    if words and pathlib.PurePath(words[0]).name == "lwmt":
        return shlex.join(["lwmt", *words[1:]])
    return shlex.join(["python", *words])


def _portable_word(word):
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if os.path.isabs(value):
        value = portable_path(value)
    return f"{option}{equals}{value}"


def _to_json(value, where):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {
            str(key): _to_json(item, f"{where}.{key}" if where else str(key))
            for key, item in value.items()
        }
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_to_json(item, f"{where}[{i}]") for i, item in enumerate(items)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"The numbers of a record should be finite. Received: {where}={value}")
    # An absolute path of this repository would tie the record to this machine.
    if isinstance(value, os.PathLike) or (
        isinstance(value, str)
        and os.path.isabs(value)
        and pathlib.Path(value).is_relative_to(_REPOSITORY)
    ):
        return portable_path(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        "A record holds text, numbers, booleans, None, lists, dictionaries and dataclasses. "
        f"Received: {where} of type {type(value).__name__}"
    )
