"""Finished parts of long runs, on the disk."""

import hashlib
import json
import pathlib

from lwmt_sionna.runs import records

__all__ = ["CellStore"]


class CellStore:
    """Finished cells in a folder, one file each: a killed run loses the cell it was at.

    Args:
        folder: Path of the folder; made if missing.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key, compute):
        """The result of a cell, from its file or computed now.

        Args:
            key: Everything that the result depends on, JSON-compatible.
            compute: Callable without arguments that returns a JSON-compatible value.

        Returns:
            The value.
        """
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["result"]
        result = compute()
        with records.atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"key": key, "result": result}), encoding="utf-8")
        return result
