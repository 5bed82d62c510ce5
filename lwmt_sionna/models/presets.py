"""Presets: folders with a configuration, weights, metadata and a README."""

import hashlib
import importlib
import json
import pathlib
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.models.adapting import num_saved_parameters
from lwmt_sionna.runs import records
from lwmt_sionna.typing import PathLike

__all__ = [
    "DEFAULT_PRESET",
    "PresetModel",
    "list_presets",
    "load_preset",
    "preset_digest",
    "preset_folder",
    "save_preset",
]

#: What is judged, and used by the link, where nobody names another one.
DEFAULT_PRESET = "universal"
_SHIPPED = pathlib.Path(__file__).parent / "preset_files"
# Modules that presets of earlier versions name.
_MOVED = {"lwmt_sionna.baselines.neural": "lwmt_sionna.training.contestants"}
_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
# Where a configuration says that another preset has the weights of the backbone.
_BACKBONE = "backbone_preset"
# What HDF5 needs beside the weights, with a margin.
_OVERHEAD_BYTES = 1 << 20


class PresetModel(PlainErrors, keras.Model):
    """A model that is read from a preset and written to one."""

    @classmethod
    def from_preset(
        cls,
        preset: PathLike,
        load_weights: bool = True,
        dtype: str | None = None,
        array_shape: tuple[int, int, int] | None = None,
    ) -> Self:
        """Loads a model from a preset: its own, or that of a model that has it as backbone.

        Args:
            preset: Name of a shipped preset (see `lwmt_sionna.models.list_presets`), or path of a
                folder written by `save_to_preset`.
            load_weights: Whether to load weights; without, they are random, which is the only
                choice where a preset is an architecture alone.
            dtype: Precision or policy in place of the saved one, such as "mixed_bfloat16".
            array_shape: Rows, columns and polarisations of the array that the model is used with,
                in place of the saved one: weights serve any array.

        Returns:
            The model.

        Raises:
            ValueError: If there is no such preset, its model is of another class or cannot use the
                array, its weights are asked for and missing, or a file is damaged: its checksum is
                another than that of the metadata, or it cannot be read.
        """
        return load_preset(preset, cls, load_weights, dtype, array_shape)

    def save_to_preset(
        self,
        folder: PathLike,
        metadata: dict[str, Any] | None = None,
        readme: str | None = None,
        backbone: str | None = None,
    ) -> None:
        """Writes configuration, weights, and metadata with the checksums of both, to a folder.

        Args:
            folder: Path of the folder; made if missing.
            metadata: JSON-compatible dictionary, e.g. the training record.
            readme: Text of the folder's README.
            backbone: Name of the shipped preset, such as `"base"`, that the backbone of a task was
                loaded from and still is: the folder then holds the rest of the task alone.
        """
        save_preset(self, folder, metadata=metadata, readme=readme, backbone=backbone)


def list_presets(with_weights: bool | None = None, model: str | None = None) -> list[str]:
    """Names of the shipped presets.

    Args:
        with_weights: True for those with trained weights, False for those that are an architecture
            alone, None for all.
        model: Name of the class of the models, such as `"ChannelPredictor"`; any if left out.

    Returns:
        List of names.
    """
    if not _SHIPPED.is_dir():
        return []
    names = sorted(p.name for p in _SHIPPED.iterdir() if (p / _CONFIG).is_file())
    if model is not None:
        names = [n for n in names if _read(_SHIPPED / n / _CONFIG)["class_name"] == model]
    return [n for n in names if with_weights in (None, (_SHIPPED / n / _WEIGHTS).is_file())]


def preset_folder(preset: PathLike) -> pathlib.Path:
    """Folder of a shipped preset, by name, or one that `save_to_preset` wrote, by path.

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


def preset_digest(preset: PathLike) -> str:
    """SHA-256 of a preset's configuration and weights, as 64 hexadecimal digits.

    Results that are kept depend on nothing else of it: not on words about the model.

    Raises:
        ValueError: If there is no such preset.
    """
    folder = preset_folder(preset)
    files = [folder / name for name in (_CONFIG, _WEIGHTS) if (folder / name).is_file()]
    # A backbone that is kept elsewhere is named in the configuration, with its digest.
    return hashlib.sha256("".join(map(records.sha256, files)).encode()).hexdigest()


def load_preset(
    preset: PathLike,
    expected: type = keras.Model,
    load_weights: bool = True,
    dtype: str | None = None,
    array_shape: tuple[int, int, int] | None = None,
) -> Any:
    """The model of a preset, or its `backbone`, whichever is of the class expected.

    Arguments and errors are those of `PresetModel.from_preset`.
    """
    folder = preset_folder(preset)
    sums = _read(folder / _METADATA).get("sha256", {}) if (folder / _METADATA).is_file() else {}
    _check_sum(folder / _CONFIG, sums)
    config = _read(folder / _CONFIG)
    if dtype is not None:
        config = _with_dtype(config, keras.dtype_policies.get(dtype).name)
    # How a model was trained is no part of it.
    config.pop("compile_config", None)
    backbone = config.pop(_BACKBONE, None)
    if array_shape is not None and isinstance(config.get("config"), dict):
        config["config"]["array_shape"] = list(array_shape)
    try:
        _register(config)
        model = keras.saving.deserialize_keras_object(config)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The preset's model cannot be built: {_first_line(error)}. Received: "
            f"{folder / _CONFIG}, array_shape={array_shape}"
        ) from error
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
    if load_weights:
        _load_weights(model, preset, sums, backbone)
    return part


def _load_weights(model, preset, sums, backbone):
    """Weights of a preset, checked, and those of its backbone where another preset has them."""
    weights = preset_folder(preset) / _WEIGHTS
    if not weights.is_file():
        raise ValueError(
            "The preset is an architecture and has no weights; `load_weights=False` builds it with "
            f"random ones. Received: preset={preset}, where {weights} is missing"
        )
    _check_sum(weights, sums)
    try:
        (model if backbone is None else _Rest(model)).load_weights(weights)
    except Exception as error:  # what a damaged file raises takes many forms
        raise ValueError(
            f"The preset's weights are damaged, or not of its architecture: {_first_line(error)}. "
            f"Received: {weights}"
        ) from error
    if backbone is not None:
        model.masked.set_weights(_shared(backbone, preset).get_weights())
    for variable in model.variables:
        values = ops.convert_to_numpy(variable)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(
                f"The preset's weights hold NaN or infinity, in {variable.path}. Received: "
                f"{weights}"
            )


class _Rest(keras.Model):
    """All of a task but its backbone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.rest = [layer for layer in model.layers if layer is not model.masked]
        self.built = True


def _shared(backbone, preset):
    """The shipped model that a preset has its backbone from, as it was."""
    if preset_digest(backbone["preset"]) != backbone["digest"]:
        raise ValueError(
            f"The preset was made for another `{backbone['preset']}` than is shipped here. "
            f"Received: preset={preset}"
        )
    return load_preset(backbone["preset"])


def _read(path):
    """The dictionary that a JSON file holds."""
    try:
        value = records.read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"The preset's file is damaged: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"The preset's file is damaged: no dictionary. Received: {path}")
    return value


def _check_sum(path, sums):
    """Compares a file with its checksum; presets of older versions have none."""
    if isinstance(sums, dict) and path.name not in sums:
        return
    if not isinstance(sums, dict) or records.sha256(path) != sums[path.name]:
        raise ValueError(
            f"The preset's file is damaged or was changed: its SHA-256 is not the one of "
            f"{_METADATA} beside it. Received: {path}"
        )


def _first_line(error):
    # Keras repeats the whole configuration before it comes to the point.
    text = str(error).rsplit("Exception encountered: ", 1)[-1].strip()
    return (text or type(error).__name__).splitlines()[0]


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


def save_preset(
    model: keras.Model,
    folder: PathLike,
    metadata: dict[str, Any] | None = None,
    readme: str | None = None,
    with_weights: bool = True,
    backbone: str | None = None,
) -> None:
    """Writes a model to a preset's folder; every file appears only when complete.

    Args:
        model: Built Keras model.
        folder: Path of the folder; made if missing.
        metadata: JSON-compatible dictionary that joins the parameter count and the checksums.
        readme: Text of the README.
        with_weights: Whether to write the weights; without, the preset is an architecture alone.
        backbone: See `PresetModel.save_to_preset`.

    Raises:
        ValueError: If the model has no backbone, or not that of `backbone`.
    """
    saved, shared = model, None
    if backbone is not None:
        saved, shared = _Rest(model), load_preset(backbone)
        pairs = zip(model.masked.get_weights(), shared.get_weights(), strict=True)
        if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            raise ValueError(f"The model's backbone is another one. Received: backbone={backbone}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if with_weights:
        room = 4 * num_saved_parameters(saved) + _OVERHEAD_BYTES
        with records.atomic_path(folder / _WEIGHTS, room) as temporary:
            saved.save_weights(temporary)
    else:
        (folder / _WEIGHTS).unlink(missing_ok=True)
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    if backbone is not None:
        config[_BACKBONE] = {"preset": backbone, "digest": preset_digest(backbone)}
    details = {
        "model": type(model).__name__,
        "num_parameters": num_saved_parameters(model),
        "has_weights": with_weights,
    }
    details |= {} if metadata is None else metadata
    _write(folder / _CONFIG, json.dumps(config, indent=1, sort_keys=True))
    names = (_CONFIG, _WEIGHTS) if with_weights else (_CONFIG,)
    details["sha256"] = {name: records.sha256(folder / name) for name in names}
    _write(folder / _METADATA, json.dumps(details, indent=1, sort_keys=True))
    if readme is not None:
        _write(folder / "README.md", readme)


def _write(path, text):
    with records.atomic_path(path) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
