"""Presets: folders with a configuration, weights, metadata and a README."""

import json
import os
import pathlib

import keras

__all__ = ["list_presets", "load_preset", "save_preset"]

_SHIPPED = pathlib.Path(__file__).parent / "preset_files"
_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"


def list_presets():
    """Names of the shipped presets."""
    if not _SHIPPED.is_dir():
        return []
    return sorted(p.name for p in _SHIPPED.iterdir() if (p / _CONFIG).is_file())


def preset_folder(preset):
    """Folder of a preset.

    Args:
        preset: Name of a shipped preset, or path of a folder.

    Returns:
        `pathlib.Path`.

    Raises:
        ValueError: If there is no such preset.
    """
    for folder in (_SHIPPED / str(preset), pathlib.Path(preset)):
        if (folder / _CONFIG).is_file():
            return folder
    raise ValueError(
        f"Unknown preset. Expected one of {', '.join(list_presets()) or '(none shipped)'} or a "
        f"folder with {_CONFIG} and {_WEIGHTS}. Received: preset={preset}"
    )


def load_preset(preset, expected=keras.Model):
    """Loads the model of a preset.

    Args:
        preset: Name of a shipped preset, or path of a folder.
        expected: Class that the model must be an instance of.

    Returns:
        The model, with its weights.

    Raises:
        ValueError: If there is no such preset, its model is of another class, or its weights are
            missing or damaged.
    """
    folder = preset_folder(preset)
    with (folder / _CONFIG).open(encoding="utf-8") as file:
        config = json.load(file)
    model = keras.saving.deserialize_keras_object(config)
    if not isinstance(model, expected):
        raise ValueError(
            f"The preset holds another kind of model: expected {expected.__name__}. Received: "
            f"preset={preset}, model={type(model).__name__}"
        )
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise ValueError(f"The preset has no weights. Expected a file {weights}")
    if not model.built:
        model.build(None)
    try:
        model.load_weights(weights)
    except OSError as error:
        raise ValueError(
            f"The preset's weights are damaged: {error}. Received: {weights}"
        ) from error
    return model


def save_preset(model, folder, metadata=None, readme=None):
    """Writes a model to a preset's folder; every file appears only when complete.

    Args:
        model: Built Keras model.
        folder: Path of the folder; made if missing.
        metadata: JSON-compatible dictionary that joins the parameter count.
        readme: Text of the README.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}.partial.weights.h5"
    try:
        model.save_weights(partial)
        os.replace(partial, folder / _WEIGHTS)
    finally:
        partial.unlink(missing_ok=True)
    config = keras.saving.serialize_keras_object(model)
    details = {"model": type(model).__name__, "num_parameters": int(model.count_params())}
    details |= {} if metadata is None else metadata
    _write(folder / _CONFIG, json.dumps(config, indent=1, sort_keys=True))
    _write(folder / _METADATA, json.dumps(details, indent=1, sort_keys=True))
    if readme is not None:
        _write(folder / "README.md", readme)


def _write(path, text):
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text.rstrip() + "\n", encoding="utf-8")
    os.replace(partial, path)
