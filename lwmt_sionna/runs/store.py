"""Finished work on the disk: pieces that are believed only whole, and folders of one run."""

import base64
import contextlib
import fcntl
import fnmatch
import hashlib
import json
import logging
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from lwmt_sionna.runs.records import atomic_path, sha256
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

_ARRAY = "__array__"
_FILE = "__file__"
_CLAIM = "config.json"
_LOCK = ".lock"
_LEFTOVERS = ".tmp-*"
_HEAD = '{"sha256": "%s",\n'


class Store:
    """Finished pieces of a long run: what is kept is not computed again.

    Each piece is a file under the digest of its key, which appears when it is whole and starts with
    a digest of its own content. What was damaged, cut or written by something else is passed over
    with a warning, and computed again. A killed run loses the piece that it was at.

    Args:
        folder: Path of the folder, made when the first piece is written; `None` keeps pieces in
            memory.

    Example:

    >>> store = Store("runs/demo/pieces")
    >>> errors = store.compute({"snr_db": 10.0}, lambda: {"failed": np.zeros((4, 32), bool)})
    >>> errors["failed"].shape
    (4, 32)
    """

    def __init__(self, folder: PathLike | None = None) -> None:
        self.folder = None if folder is None else pathlib.Path(folder)
        self._memory: dict[str, str] = {}

    def get(self, key: Any, default: Any = None) -> Any:
        """The piece of a key, or `default` where there is none.

        The key is everything that the piece depends on, JSON-compatible. The value comes with its
        NumPy arrays; tuples have become lists.
        """
        name = _name(key)
        if self.folder is None:
            text = self._memory.get(name)
            return default if text is None else _unpack(json.loads(text)["value"])
        entry = self._read(self.folder / f"{name}.json")
        if entry is None:
            return default
        if entry.get("key") != json.loads(json.dumps(key)):
            logger.warning("%s: passed over, for it has another key", self.folder / f"{name}.json")
            return default
        return _unpack(entry["value"])

    def put(self, key: Any, value: Any, label: str = "") -> None:
        """Keeps a piece, in place of what there was.

        Args:
            key: Everything that the piece depends on, JSON-compatible.
            value: What JSON knows, and NumPy arrays, nested as needed.
            label: What it is, for people who read the file.
        """
        body = json.dumps({"key": key, "label": label, "value": _pack(value)})
        if self.folder is None:
            self._memory[_name(key)] = body
            return
        # The digest stands in front of what it covers, and both are one JSON object.
        body = body[1:] + "\n"
        with atomic_path(self.folder / f"{_name(key)}.json") as temporary:
            temporary.write_text(_HEAD % _digest(body) + body, encoding="utf-8")

    def compute(self, key: Any, function: Callable[[], Any], label: str = "") -> Any:
        """The piece of a key, computed by a function without arguments and kept if there is none.

        Returns the value as `get` does, whether it was kept or has just been computed.
        """
        missing = object()
        value = self.get(key, missing)
        if value is missing:
            value = function()
            self.put(key, value, label)
            value = _unpack(json.loads(json.dumps(_pack(value))))
        return value

    def put_file(
        self,
        key: Any,
        write: Callable[[pathlib.Path], object],
        suffix: str,
        notes: Any = None,
        label: str = "",
        name: str | None = None,
    ) -> pathlib.Path:
        """Keeps a file as a piece: an HDF5 file, weights, a state.

        Args:
            key: Everything that the piece depends on, JSON-compatible.
            write: Callable that is given the path of a file to write.
            suffix: How the file's name ends, such as `".h5"`.
            notes: Value kept beside the file.
            label: See `put`.
            name: How the file's name begins, for people who look for it; the key's digest if None.
        """
        if self.folder is None:
            raise ValueError("A store in memory keeps no files. Received: folder=None")
        path = self.folder / f"{_name(key) if name is None else name}{suffix}"
        with atomic_path(path) as temporary:
            write(temporary)
        # The note comes last: without it the file does not count.
        content = {_FILE: path.name, "sha256": sha256(path), "notes": notes}
        self.put(key, content, label)
        return path

    def get_file(self, key: Any) -> tuple[pathlib.Path, Any] | None:
        """The file of a key and its notes, as `put_file` kept them; None if it is not whole."""
        content = self.get(key)
        if self.folder is None or not isinstance(content, dict) or _FILE not in content:
            return None
        path = self.folder / pathlib.Path(content[_FILE]).name
        try:
            if sha256(path) == content["sha256"]:
                return path, content["notes"]
            logger.warning("%s: damaged and passed over", path)
        except OSError as error:
            logger.warning("%s: passed over: %s", path, error.strerror)
        return None

    def _read(self, path):
        """The content of a piece; None, with a warning where there is a file, if it is not whole"""
        try:
            text = path.read_bytes().decode("utf-8")
            head = len(_HEAD % _digest(""))
            if text[:head] != _HEAD % _digest(text[head:]):
                raise ValueError("its digest is another one")
            return json.loads(text)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s: damaged, foreign or cut, and passed over: %s", path, error)
            return None


class RunFolder:
    """The folder of one run: one process at a time, and one configuration once work lies there.

    A context manager. On entry it makes the folder, locks it, removes what killed writers left and
    compares the claim. A folder in which nothing was finished yet belongs to nobody: a run that
    failed early does not lock it.

    Args:
        path: Path of the folder.
        claim: What the run is made from, JSON-compatible: its settings, digests of its inputs.
            `None` where every finished piece says so itself.
        ignore: Patterns of names that are no finished work, such as logs.

    Raises:
        ValueError: On entry, if another run works in the folder, or its finished work is of another
            claim.

    Example:

    >>> with RunFolder("runs/demo", config.to_dict()) as folder:
    ...     folder.store.compute(key, function)
    """

    def __init__(self, path: PathLike, claim: Any = None, ignore: tuple[str, ...] = ()) -> None:
        self.path = pathlib.Path(path)
        self.claim = json.loads(json.dumps(claim))
        self.ignore = (_LOCK, _CLAIM, _LEFTOVERS, *ignore)
        self.store = Store(self.path / "pieces")
        self._lock = -1

    def __enter__(self) -> Self:
        self._lock = self._acquire()
        try:
            self._clear()
            if self.claim is not None:
                self._compare()
            kept = sum(1 for _ in self.path.glob("pieces/*.json"))
            if kept:
                logger.info("%s: kept from before: %d finished pieces", self.path, kept)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)

    def has_work(self) -> bool:
        """Whether anything finished lies in the folder."""
        return any(
            path.is_file()
            and not any(
                fnmatch.fnmatch(part, pattern)
                for part in path.relative_to(self.path).parts
                for pattern in self.ignore
            )
            for path in self.path.rglob("*")
        )

    def _acquire(self):
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise ValueError(
                    f"another run works in this folder. Received: folder={self.path}"
                ) from None
            # The run that had the lock may have removed the folder.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(self.path / _LOCK)):
                    return lock
            os.close(lock)

    def _clear(self):
        # Subfolders with a lock are runs of their own.
        folders = [self.path]
        folders += [p for p in self.path.iterdir() if p.is_dir() and not (p / _LOCK).exists()]
        for leftover in (path for folder in folders for path in folder.glob(_LEFTOVERS)):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)

    def _compare(self):
        note = self.path / _CLAIM
        if self.has_work() and note.is_file():
            try:
                there = json.loads(note.read_text(encoding="utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    "The note of what the folder was made from is damaged; remove it to go on with "
                    f"the folder. Received: {note}"
                ) from error
            if there == self.claim:
                return
            raise ValueError(
                "The folder holds results of another configuration; remove it or choose another "
                f"one. Received: folder={self.path}{_difference(there, self.claim)}"
            )
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(self.claim, indent=1) + "\n", encoding="utf-8")


def _difference(there, here):
    if not isinstance(there, dict) or not isinstance(here, dict):
        return ""
    names = sorted({*there, *here})
    told = []
    for name in names:
        values = there.get(name, "nothing"), here.get(name, "nothing")
        if values[0] != values[1]:
            # Long values would hide the line.
            is_short = len(str(values)) < 120
            told.append(name + (f" ({values[0]} there, {values[1]} here)" if is_short else ""))
    return f", which differs in {', '.join(told)}"


def _name(key):
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def _pack(value):
    """A value with NumPy arrays as one that JSON knows; `_unpack` is the inverse."""
    if isinstance(value, np.ndarray):
        # Block errors are mostly bits: eight to a byte, then compressed.
        content = np.packbits(value) if value.dtype == bool else np.ascontiguousarray(value)
        data = base64.b64encode(zlib.compress(content.tobytes())).decode("ascii")
        return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _pack(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    return value


def _unpack(value):
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY not in value:
        return {name: _unpack(item) for name, item in value.items()}
    data = zlib.decompress(base64.b64decode(value[_ARRAY]))
    dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
    if dtype.kind == "b":
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=int(np.prod(shape)))
        return bits.astype(bool).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape).copy()
