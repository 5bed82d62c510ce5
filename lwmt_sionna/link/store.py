"""Finished points on the disk."""

import json
import logging
import os
import pathlib

__all__ = ["PointStore"]

logger = logging.getLogger(__name__)


class PointStore:
    """Finished points in one file, a JSON object per line.

    A line is on the disk before the next point starts: a killed run loses the point it was at.
    Points are found again by their key (regime, horizon, policy, scheme, SNR) and the digest of
    everything that their counts depend on; what was computed from other data, settings or weights
    or by another commit stays in the file and is not used.

    Args:
        path: path of the file, made with its folder when needed; None keeps points in memory.
    """

    def __init__(self, path=None):
        self.path = None if path is None else pathlib.Path(path)
        self._points = {}
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
                self._points[entry["digest"]] = entry["point"], entry["failed"]
            except (json.JSONDecodeError, KeyError, TypeError):
                logger.warning("%s: an incomplete line was ignored.", self.path)

    def __contains__(self, digest):
        return digest in self._points

    def get(self, digest):
        """The pair of a point and its block errors per drop, or None."""
        return self._points.get(digest)

    def add(self, digest, point, failed):
        """Stores a finished point.

        Args:
            digest: str, what identifies it.
            point: dict, flat.
            failed: list of int, block errors of every drop.
        """
        self._points[digest] = point, failed
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            entry = {"digest": digest, "point": point, "failed": failed}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def __len__(self):
        return len(self._points)
