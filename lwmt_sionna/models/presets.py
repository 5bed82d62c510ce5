"""Presets: folders with a configuration, weights, metadata and a README."""

import importlib
import json
import os
import pathlib

import keras

from lwmt_sionna.models.finetuning import num_saved_parameters

__all__ = ["list_presets", "load_preset", "save_preset"]

_SHIPPED = pathlib.Path(__file__).parent / "preset_files"
# Modules that presets of earlier versions name.
_MOVED = {"lwmt_sionna.baselines.neural": "lwmt_sionna.training.contestants"}
_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"


def list_presets(with_weights=None):
    """Names of the shipped presets.

    Args:
        with_weights: True for those with trained weights, False for those that are an architecture
            alone, None for all.

    Returns:
        List of names.
    """
    if not _SHIPPED.is_dir():
        return []
    names = sorted(p.name for p in _SHIPPED.iterdir() if (p / _CONFIG).is_file())
    return [n for n in names if with_weights in (None, (_SHIPPED / n / _WEIGHTS).is_file())]


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


def load_preset(preset, expected=keras.Model, load_weights=True, dtype=None):
    """Loads the model of a preset.

    Args:
        preset: Name of a shipped preset, or path of a folder.
        expected: Class that the model must be an instance of. A model's `backbone` will do too.
        load_weights: Whether to load weights. Without, they are random.
        dtype: Precision or policy of all layers, in place of the saved one.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such preset, its model is of another class, or its weights are
            asked for and missing or damaged.
    """
    folder = preset_folder(preset)
    with (folder / _CONFIG).open(encoding="utf-8") as file:
        config = json.load(file)
    if dtype is not None:
        config = _with_dtype(config, keras.dtype_policies.get(dtype).name)
    # How a model was trained is no part of it.
    config.pop("compile_config", None)
    _register(config)
    model = keras.saving.deserialize_keras_object(config)
    part = model
    if not isinstance(model, expected) and isinstance(getattr(model, "backbone", None), expected):
        part = model.backbone
    if not isinstance(part, expected):
        raise ValueError(
            f"The preset holds another kind of model: expected {expected.__name__}. Received: "
            f"preset={preset}, model={type(model).__name__}"
        )
    if not model.built:
        model.build(None)
    if not load_weights:
        return part
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise ValueError(
            "The preset is an architecture and has no weights; `load_weights=False` builds it with "
            f"random ones. Received: preset={preset}, where {weights} is missing"
        )
    try:
        model.load_weights(weights)
    except OSError as error:
        raise ValueError(
            f"The preset's weights are damaged: {error}. Received: {weights}"
        ) from error
    return part


def _register(config):
    """Imports the modules of the package that a model's classes are registered in."""
    if isinstance(config, list):
        for item in config:
            _register(item)
    elif isinstance(config, dict):
        for value in config.values():
            _register(value)
        module = config.get("module")
        if isinstance(module, str) and module.startswith("lwmt_sionna."):
            importlib.import_module(_MOVED.get(module, module))


def _with_dtype(config, name):
    """A serialised model with another policy wherever one was serialised."""
    if isinstance(config, list):
        return [_with_dtype(item, name) for item in config]
    if not isinstance(config, dict):
        return config
    changed = {key: _with_dtype(value, name) for key, value in config.items()}
    if isinstance(config.get("dtype"), dict):
        changed["dtype"] = keras.saving.serialize_keras_object(keras.DTypePolicy(name))
    return changed


def save_preset(model, folder, metadata=None, readme=None, with_weights=True):
    """Writes a model to a preset's folder; every file appears only when complete.

    Args:
        model: Built Keras model.
        folder: Path of the folder; made if missing.
        metadata: JSON-compatible dictionary that joins the parameter count.
        readme: Text of the README.
        with_weights: Whether to write the weights; without, the preset is an architecture alone.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if with_weights:
        partial = folder / f".{os.getpid()}.partial.weights.h5"
        try:
            model.save_weights(partial)
            os.replace(partial, folder / _WEIGHTS)
        finally:
            partial.unlink(missing_ok=True)
    else:
        (folder / _WEIGHTS).unlink(missing_ok=True)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    details = {
        "model": type(model).__name__,
        "num_parameters": num_saved_parameters(model),
        "has_weights": with_weights,
    }
    details |= {} if metadata is None else metadata
    _write(folder / _CONFIG, json.dumps(config, indent=1, sort_keys=True))
    _write(folder / _METADATA, json.dumps(details, indent=1, sort_keys=True))
    if readme is not None:
        _write(folder / "README.md", readme)


def _write(path, text):
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text.rstrip() + "\n", encoding="utf-8")
    os.replace(partial, path)
