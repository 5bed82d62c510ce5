"""Configurations from TOML files, and folders that belong to one of them."""

import dataclasses
import json
import pathlib
import tomllib

__all__ = ["claim_folder", "from_toml", "to_json"]


def from_toml(cls, path, *, overrides=None, **nested):
    """Reads a dataclass from a TOML file; an unknown key is an error.

    Args:
        cls: Dataclass whose fields are the keys.
        path: Path of the file.
        overrides: Dictionary of values in place of those of the file, nested like them: what a
            command line gives.
        **nested: Dataclasses of fields that are tables of the file.

    Returns:
        An instance of `cls`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown, a required one missing, a value of a wrong type, or the
            file no TOML.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration here. Received: path={path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"The file is no TOML: {error}. Received: path={path}") from error
    for name, value in ({} if overrides is None else overrides).items():
        table = isinstance(value, dict) and isinstance(values.get(name, {}), dict)
        values[name] = {**values.get(name, {}), **value} if table else value
    for name, inner in nested.items():
        values[name] = _build(inner, values.pop(name, {}), f"[{name}] of {path}")
    return _build(cls, values, path)


def to_json(config):
    """The fields of a dataclass as JSON has them: tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def claim_folder(folder, config):
    """Binds a folder of intermediate results to one configuration.

    Args:
        folder: Path of the folder; made if missing.
        config: Dataclass.

    Raises:
        ValueError: If the folder belongs to another configuration.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "config.json"
    if not note.is_file():
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps(to_json(config), indent=1), encoding="utf-8")
        partial.replace(note)
    elif json.loads(note.read_text(encoding="utf-8")) != to_json(config):
        raise ValueError(
            "The folder holds results of another configuration; remove it or choose another one. "
            f"Received: folder={folder}"
        )


def _build(cls, values, path):
    if not isinstance(values, dict):
        raise ValueError(f"{path} must be a table. Received: {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(
            f"Unknown keys in {path}; expected {', '.join(sorted(fields))}. Received: "
            f"{', '.join(unknown)}"
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"Keys are missing in {path}: {', '.join(missing)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"A value in {path} is of a wrong type: {error}") from error
