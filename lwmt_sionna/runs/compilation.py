"""Compiled programs that outlive their process, so that only the first of many waits for XLA."""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import sys

from lwmt_sionna.typing import PathLike

__all__ = ["keep_compiled"]

_VARIABLE = "LWMT_COMPILED"
_FLAG = "--tf_xla_persistent_cache_directory"


def keep_compiled(
    folder: PathLike | None = None, largest_bytes: int = 1 << 30
) -> pathlib.Path | None:
    """Keeps what XLA compiles for TensorFlow in files, and looks for it there first.

    The first call of a predictor then costs its tracing alone, less than half. Programs are found
    by what they compute, and apart by the version of TensorFlow, the instructions of the processor
    and ``XLA_FLAGS``. Call it before TensorFlow is imported, which reads its flags once; scripts do
    (`lwmt_sionna.runs.command_line.run`).

    Args:
        folder: Where to keep them. Defaults to the environment variable ``LWMT_COMPILED``, which
            turns this off where it is empty, and else to ``lwmt_sionna/compiled`` in the user's
            folder of caches. It may be removed at any time.
        largest_bytes: Size from which on the programs that were compiled first are removed.

    Returns:
        Path of the folder in use, or `None` where nothing is kept: without TensorFlow, too late,
        where the folder cannot be written to, or where flags of TensorFlow name one already or
        cannot name this one.

    Example:

    >>> from lwmt_sionna.runs.compilation import keep_compiled
    >>> folder = keep_compiled()  # before `import tensorflow`
    """
    chosen = os.environ.get(_VARIABLE) if folder is None else str(folder)
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if chosen == "" or _FLAG in flags or "tensorflow" in sys.modules:
        return None
    try:
        version = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        return None
    if chosen is None:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        chosen = os.path.join(caches, "lwmt_sionna", "compiled")
    try:
        path = pathlib.Path(chosen).expanduser().absolute() / f"{version}-{_compiler()}"
        path.mkdir(parents=True, exist_ok=True)
        _shrink(path, largest_bytes)
    except (OSError, RuntimeError):  # no home, or none that can be written to
        return None
    # TensorFlow fails where it cannot write, and takes a flag to end at a space.
    if not os.access(path, os.W_OK | os.X_OK) or len(str(path).split()) > 1:
        return None
    os.environ["TF_XLA_FLAGS"] = f"{flags} {_FLAG}={path}".strip()
    return path


def _compiler():
    """Digest of the instructions that compiled programs may use, and of how they are compiled."""
    told = [platform.machine(), platform.processor(), *os.environ.get("XLA_FLAGS", "").split()]
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _shrink(folder, largest_bytes):
    """Removes the oldest files; another process may do so at the same time."""
    total = 0
    for _, size, path in sorted(_files(folder), reverse=True):
        total += size
        if total > largest_bytes:
            pathlib.Path(path).unlink(missing_ok=True)


def _files(folder):
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            told = entry.stat()
            yield told.st_mtime, told.st_size, entry.path
