"""Checkpoints that survive a kill at any instant, and tell when they are damaged."""

import json
import logging
import pathlib

import numpy as np

from lwmt_sionna.runs.records import atomic_path, sha256

logger = logging.getLogger(__name__)

__all__ = ["Checkpoints"]

_PATTERN = "step_*.json"


class Checkpoints:
    """A folder of checkpoints, of which the newest undamaged one counts.

    A checkpoint is a file of arrays and a note with its SHA-256; both appear only when complete,
    the note last. Older ones are kept, so that a damaged file costs some steps and not the run.

    Args:
        folder: Path of the folder; made if missing.
        keep: Number of checkpoints to keep, at least 1.
    """

    def __init__(self, folder, keep=2):
        if keep < 1:
            raise ValueError(f"keep must be positive. Received: keep={keep}")
        self.folder = pathlib.Path(folder)
        self.keep = int(keep)
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step, arrays, notes=None):
        """Writes a checkpoint and removes those that are too old.

        Args:
            step: Number of steps done.
            arrays: List of arrays: the whole state of the training.
            notes: JSON-compatible dictionary of what else should come back.
        """
        name = f"step_{step:08d}"
        path = self.folder / f"{name}.npz"
        with atomic_path(path) as temporary:
            np.savez(temporary, *arrays)
        note = {
            "step": int(step),
            "num_arrays": len(arrays),
            "sha256": sha256(path),
            "notes": {} if notes is None else notes,
        }
        with atomic_path(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        for old in sorted(self.folder.glob(_PATTERN))[: -self.keep]:
            old.unlink()
            old.with_suffix(".npz").unlink(missing_ok=True)

    def restore(self):
        """The newest undamaged checkpoint.

        Returns:
            Tuple of the step, the list of arrays and the notes; None if there is no checkpoint.

        Raises:
            ValueError: If there are checkpoints and all of them are damaged.
        """
        notes = sorted(self.folder.glob(_PATTERN), reverse=True)
        for path in notes:
            try:
                return self._read(path)
            except (OSError, ValueError, KeyError) as error:
                logger.warning("%s is damaged and passed over: %s", path, error)
        if notes:
            raise ValueError(
                "All checkpoints are damaged; remove the folder to start anew. Received: "
                f"folder={self.folder}"
            )
        return None

    def _read(self, path):
        note = json.loads(path.read_text(encoding="utf-8"))
        content = path.with_suffix(".npz")
        digest = sha256(content)
        if digest != note["sha256"]:
            raise ValueError(f"expected SHA-256 {note['sha256']}, received {digest}")
        with np.load(content, allow_pickle=False) as file:
            arrays = [file[f"arr_{index}"] for index in range(note["num_arrays"])]
        return int(note["step"]), arrays, note["notes"]
