"""Finished points on the disk."""

import base64
import json
import logging
import os
import pathlib
import zlib

import numpy as np

__all__ = ["PointStore", "pack", "unpack"]

logger = logging.getLogger(__name__)

_ARRAY = "__array__"


class PointStore:
    """Finished results in one file, a JSON object per line.

    A line is on the disk before the next one is written: a killed run loses what it was at.
    Results are found again by the digest of everything that they depend on; what was computed from
    other data, settings or weights or by another commit stays in the file and is not used.

    Args:
        path: path of the file, made with its folder when needed; None keeps results in memory.
    """

    def __init__(self, path=None):
        self.path = None if path is None else pathlib.Path(path)
        self._results = {}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read()

    def _read(self):
        text = self.path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            # The last line of a killed run: start the next one on a line of its own.
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._results[entry["digest"]] = entry["result"]
            except (json.JSONDecodeError, KeyError, TypeError):
                logger.warning("%s: an incomplete line was ignored.", self.path)

    def __contains__(self, digest):
        return digest in self._results

    def get(self, digest):
        """The result as it was added, or None."""
        result = self._results.get(digest)
        return None if result is None else unpack(result)

    def add(self, digest, label, result):
        """Stores a finished result.

        Args:
            digest: str, what identifies it.
            label: str, what it is, for people who read the file.
            result: dict of what JSON knows and of NumPy arrays.
        """
        packed = pack(result)
        self._results[digest] = packed
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            entry = {"digest": digest, "label": label, "result": packed}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def __len__(self):
        return len(self._results)


def pack(result):
    """Dict with NumPy arrays into one that JSON knows; `unpack` is the inverse."""
    return {
        name: _encode(value) if isinstance(value, np.ndarray) else value
        for name, value in result.items()
    }


def unpack(result):
    """Dict from `pack` with its arrays again."""
    return {
        name: _decode(value) if isinstance(value, dict) and _ARRAY in value else value
        for name, value in result.items()
    }


def _encode(array):
    # Block errors are mostly bits: eight to a byte, then compressed.
    content = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
    data = base64.b64encode(zlib.compress(content.tobytes())).decode("ascii")
    return {_ARRAY: data, "dtype": array.dtype.str, "shape": list(array.shape)}


def _decode(value):
    data = zlib.decompress(base64.b64decode(value[_ARRAY]))
    dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
    if dtype.kind == "b":
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=int(np.prod(shape)))
        return bits.astype(bool).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape).copy()
