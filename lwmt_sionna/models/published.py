"""The published form of LWM-Temporal: reading its checkpoints, and converting them to presets.

A checkpoint is a PyTorch file (`.pth`, `pytorch_model.bin`), read without executing anything it
holds, or an `.npz` file of the same tensors. What tensors do not tell (heads, windows, routing)
stands in the `config.json` that `save_pretrained` writes beside.
"""

import dataclasses
import logging
import math
import os
import pathlib
import pickle
import re
import shutil
from typing import Any

import numpy as np

from lwmt_sionna.models.backbone import ROPE_BASE, LWMTBackbone
from lwmt_sionna.models.masked_channel_model import MaskedChannelModel
from lwmt_sionna.models.presets import load_preset
from lwmt_sionna.ops import Neighborhood, TopKRouting
from lwmt_sionna.runs import records
from lwmt_sionna.typing import Array, PathLike

logger = logging.getLogger(__name__)

__all__ = [
    "PublishedOptions",
    "convert",
    "model_from_state",
    "modern_names",
    "options_from_config",
    "read_checkpoint",
]

# Older files name three parts differently, and wrapped models put a prefix before all names.
_OLD_PREFIXES = {"embed.": "patch_embed.", "blocks.": "encoder.layers.", "norm.": "encoder.norm."}
_WRAPPERS = ("module.", "_orig_mod.")
_BLOCK = "encoder.layers."
_NESTED = "model_state_dict"
_GRID = (20, 32, 32)

_README = """# Converted checkpoint

A `MaskedChannelModel` converted from published LWM-Temporal weights (arXiv 2603.10024) by
`lwmt convert`. `metadata.json` holds the source's SHA-256, the options, and which
of them were assumed.

Inputs are channels in the angle-delay domain, `[batch, snapshots, angles, delays, 2]`.
"""


@dataclasses.dataclass(frozen=True)
class PublishedOptions:
    """What a checkpoint's tensors do not tell; None where nothing is known.

    Attributes:
        num_heads: Heads per block.
        grid: Snapshots, angle patches and delay patches of the learned position table.
        patch: Bins per patch in angle and delay.
        position: `"learned"` or `"rotary"`. If None, learned if the checkpoint has `pos_embed`.
        rope_base: Base of the rotary positions.
        routing: `TopKRouting`, its name `"topk"` or its configuration, or `"none"`.
        neighborhood: `Neighborhood`, in units of patches. Whether there is a class token follows
            from the tensors.
        ignore: Names of tensors that are in the checkpoint and not wanted.
    """

    num_heads: int | None = None
    grid: tuple[int, int, int] | None = None
    patch: tuple[int, int] | None = None
    position: str | None = None
    rope_base: float | None = None
    routing: TopKRouting | str | dict[str, Any] | None = None
    neighborhood: Neighborhood | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_heads is not None and self.num_heads < 1:
            raise ValueError(f"num_heads must be positive. Received: num_heads={self.num_heads}")
        if self.position not in (None, "learned", "rotary"):
            raise ValueError(
                f"position must be 'learned' or 'rotary'. Received: position={self.position!r}"
            )

    def over(self, others: "PublishedOptions") -> "PublishedOptions":
        """These options, and others where these say nothing."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        told = {name: value for name, value in own.items() if value is not None}
        return dataclasses.replace(others, **told)


class _Config(dict):
    """A published configuration, whose keys are taken one by one."""

    def take(self, *names, default=None):
        """Value of the first of some names that is there; the others are taken as well."""
        found = [self.pop(name) for name in names if name in self]
        return next((value for value in found if value is not None), default)

    def pair(self, *names, default):
        """A pair (angle, delay): of one value, a list of two, or two keys `_h` and `_w`."""
        value = self.take(*names, default=default)
        first, second = value if isinstance(value, list | tuple) else (value, value)
        return (
            self.take(*(f"{name}_h" for name in names), default=first),
            self.take(*(f"{name}_w" for name in names), default=second),
        )


def options_from_config(config: dict[str, Any]) -> tuple[PublishedOptions, list[str]]:
    """Options from the published `config.json`, and the names of the keys that are not known here.

    Keys that say what tensors say too count as known.

    Raises:
        ValueError: If it describes a model that this package cannot build.
    """
    if not isinstance(config, dict):
        raise ValueError(f"The published configuration is no dictionary. Received: {config!r:.80}")
    rest, usual = _Config(config), Neighborhood.published()
    phase = rest.take("phase_mode")
    if phase is not None and re.sub("[^a-z]", "", str(phase).lower()) not in ("realimag", "reim"):
        raise ValueError(
            "The model takes something else than real and imaginary parts. Expected "
            f"phase_mode='real_imag'. Received: phase_mode={phase!r}"
        )
    if rest.take("topk_per_head", "routing_topk_per_head", default=True) is not True:
        raise ValueError("Routing is by head here. Received: topk_per_head=False")
    try:
        position = rest.take("posenc", "pos_enc", "position", "positional_encoding")
        offsets = rest.take("temporal_offsets", "time_offsets", default=usual.time_offsets)
        if rest.take("spatial_only", default=False):
            offsets = ()
        own = rest.pair("same_frame_dilation", "dilation", default=1)
        other = rest.pair("temporal_spatial_dilation", "temporal_dilation", default=None)
        neighborhood = {
            "window": rest.pair("same_frame_window", "window", default=usual.window),
            "corridor": rest.pair(
                "temporal_spatial_window", "temporal_window", "corridor", default=usual.corridor
            ),
            "time_offsets": tuple(offsets),
            "drift": rest.pair("temporal_drift", "drift", default=usual.drift),
            "dilation": own,
            "corridor_dilation": tuple(
                one if step is None else step for step, one in zip(other, own, strict=True)
            ),
        }
        routing = {
            "fraction": rest.take("routing_topk_fraction", "topk_fraction", default=0.2),
            "min_keys": rest.take("routing_topk_min", "topk_min", default=8),
            "max_keys": rest.take("routing_topk_max", "topk_max", default=32),
        }
        routed = rest.take("routing_topk_enable", "routing_topk", "topk_enable", "routing")
        patch = rest.pair("patch_size", "patch", default=None)
        heads = rest.take("num_heads", "heads", "n_heads", "num_attention_heads")
        base = rest.take("rope_base", "rope_theta")
        options = PublishedOptions(
            num_heads=None if heads is None else int(heads),
            patch=None if None in patch else (int(patch[0]), int(patch[1])),
            position=_position(position),
            rope_base=None if base is None else float(base),
            routing="none" if routed in (False, "none") else TopKRouting(**routing),
            neighborhood=Neighborhood(**neighborhood),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"The published configuration cannot be read: {error}") from error
    # Sizes that tensors have, and what matters in training alone.
    rest.take(*_TOLD_BY_TENSORS)
    return options, sorted(rest)


_TOLD_BY_TENSORS = (
    "embed_dim", "width", "hidden_size", "depth", "num_layers", "num_hidden_layers", "mlp_ratio",
    "global_cls", "cls_token", "use_cls", "class_token", "max_seq_len", "seq_len", "max_position",
    "dropout", "attn_dropout", "proj_dropout", "architectures", "model_type", "torch_dtype",
)  # fmt: skip


def _position(name):
    if name is None:
        return None
    return "rotary" if str(name).lower().startswith(("rope", "rotary")) else str(name)


def read_checkpoint(path: PathLike) -> dict[str, Array]:
    """Reads the tensors of a checkpoint.

    Args:
        path: Path of a PyTorch file, or of an `.npz` file.

    Returns:
        Dictionary of names and float32 or float64 arrays.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If PyTorch is needed and missing.
        ValueError: If the file is no checkpoint, is damaged, or holds anything but tensors.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    state = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    if not isinstance(state, dict):
        raise ValueError(
            f"The file holds no dictionary of tensors. Received: {path} with a "
            f"{type(state).__name__}"
        )
    state = state.get(_NESTED, state)
    if not isinstance(state, dict):
        raise ValueError(
            f"The file holds no dictionary of tensors under {_NESTED}. Received: {path} with a "
            f"{type(state).__name__}"
        )
    arrays = {}
    for name, tensor in state.items():
        array = _to_array(tensor)
        if array is None:
            raise ValueError(
                f"The entry {name} is no floating-point tensor but a {type(tensor).__name__}. "
                f"Expected a state dict, or one under {_NESTED}. Received: {path}"
            )
        arrays[str(name)] = array
    return arrays


def convert(
    checkpoint: PathLike,
    out: PathLike,
    options: PublishedOptions | None = None,
    config: PathLike | None = None,
) -> MaskedChannelModel:
    """Converts a checkpoint to a preset, and logs what it had to assume.

    Args:
        checkpoint: Path of the checkpoint.
        out: Folder of the preset; it appears only when complete, and must not exist.
        options: What is known beside the configuration, and stands above it.
        config: Path of the published configuration. Defaults to the `config.json` beside the
            checkpoint, if there is one.

    Returns:
        The converted model.

    Raises:
        ValueError: If the checkpoint does not fit, or fits several readings.
    """
    options = PublishedOptions() if options is None else options
    source, out = pathlib.Path(checkpoint), pathlib.Path(out)
    if out.exists():
        raise ValueError(f"The folder exists; choose another one. Received: OUT={out}")
    state = read_checkpoint(source)
    if config is None and source.with_name("config.json").is_file():
        config = source.with_name("config.json")
    if config is not None:
        told, unknown = options_from_config(records.read_json(config))
        options = options.over(told)
        if unknown:
            logger.warning("%s: not known here, and left out: %s", config, ", ".join(unknown))
    model, assumed = _build(state, options)
    if assumed:
        logger.warning("assumed, as nothing says otherwise: %s", "; ".join(assumed))
    metadata = {
        "source": {"file": source.name, "sha256": records.sha256(source)},
        "options": dataclasses.asdict(dataclasses.replace(options, routing=None)),
        "routing": model.backbone.get_config()["routing"],
        "assumed": assumed,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        model.save_to_preset(partial, metadata, _README)
        again = load_preset(partial)
        for saved, loaded in zip(model.weights, again.weights, strict=True):
            if not np.array_equal(saved, loaded):
                raise RuntimeError(f"{saved.path} did not survive being saved")
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return model


def modern_names(state: dict[str, Any]) -> dict[str, Any]:
    """Tensors under today's names.

    Names may be those of older files (`embed.`, `blocks.`, `norm.`) and may all carry the prefixes
    of wrappers (`module.`, `_orig_mod.`), in any order.

    Raises:
        ValueError: If two names mean the same tensor.
    """
    while state and (
        wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in state)), None)
    ):
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    renamed: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, tensor in state.items():
        new = name
        for old, modern in _OLD_PREFIXES.items():
            if name.startswith(old):
                new = modern + name.removeprefix(old)
        if new in renamed:
            raise ValueError(f"Two tensors are the same one: {origin[new]} and {name}")
        renamed[new], origin[new] = tensor, name
    return renamed


def model_from_state(
    state: dict[str, Array], options: PublishedOptions | None = None
) -> MaskedChannelModel:
    """Builds the model of a checkpoint's tensors (see `modern_names`) and gives it their values.

    Width, depth, ratio of the perceptrons and class token are read off the tensors; what neither
    they nor the options tell is as published.

    Raises:
        ValueError: If tensors are missing, unknown, of another shape, or not finite (all of them
            are named), or if they fit several readings that nothing tells apart.
    """
    return _build(state, PublishedOptions() if options is None else options)[0]


def _build(state, options):
    """The model, and what was assumed for it."""
    state = modern_names(state)
    unknown = sorted(set(options.ignore) - set(state))
    if unknown:
        raise ValueError(f"Tensors to ignore are not in the checkpoint: {', '.join(unknown)}")
    state = {name: tensor for name, tensor in state.items() if name not in options.ignore}
    backbone, assumed = _architecture(state, options)
    model = MaskedChannelModel(backbone, name="masked_channel_model")
    model.build(None)
    variables = _variables(model)
    _check(state, {name: _shape_there(name, v) for name, v in variables.items()})
    for name, variable in variables.items():
        tensor = state[name]
        variable.assign(tensor.T if tensor.ndim == 2 else tensor.reshape(variable.shape))
    return model, assumed


def _architecture(state, options):
    """The backbone whose tensors these are, as far as the most telling of them say."""
    width, inputs = _shape(state, "patch_embed.weight", 2)
    depth = len({name.split(".")[2] for name in state if name.startswith(_BLOCK)})
    hidden, _ = _shape(state, f"{_BLOCK}0.mlp.0.weight", 2)
    position = options.position or ("learned" if "pos_embed" in state else "rotary")
    assumed = []

    def told(name, usual):
        value = getattr(options, name)
        if value is None:
            assumed.append(f"{name}={usual}")
            return usual
        return value

    class_token = "cls_token" in state
    overrides = {"position_grid": None}
    if position == "learned":
        overrides["position_grid"] = tuple(told("grid", _GRID))
    else:
        overrides["rope_base"] = told("rope_base", ROPE_BASE)
    routing = told("routing", "topk")
    neighborhood = told("neighborhood", Neighborhood.published())
    ratio = hidden / width
    backbone = LWMTBackbone.published(
        width=width,
        depth=depth,
        num_heads=_num_heads(options.num_heads, width, position),
        mlp_ratio=int(ratio) if ratio == int(ratio) else ratio,
        patch=_patch(options.patch, inputs),
        neighborhood=dataclasses.replace(neighborhood, class_token=class_token),
        routing=None if routing == "none" else routing,
        position=position,
        name="backbone",
        **overrides,
    )
    return backbone, assumed


def _num_heads(num_heads, width, position):
    if num_heads is None:
        step = 2 if position == "rotary" else 1
        fitting = [n for n in range(1, width + 1) if width % n == 0 and width // n % step == 0]
        if len(fitting) != 1:
            raise ValueError(
                f"The width {width} of patch_embed.weight fits {', '.join(map(str, fitting))} "
                "heads (8 as published): give num_heads, or the config.json that was beside the "
                "checkpoint. Received: num_heads=None"
            )
        return fitting[0]
    if width % num_heads:
        raise ValueError(
            f"The width {width} of patch_embed.weight must be a multiple of the heads. Received: "
            f"num_heads={num_heads}"
        )
    return num_heads


def _patch(patch, inputs):
    bins, odd = divmod(inputs, 2)
    if patch is None and inputs == 2:
        return (1, 1)
    if odd or patch is None or math.prod(patch) != bins:
        raise ValueError(
            f"patch_embed.weight takes {inputs} numbers, (real, imaginary) of the bins of a patch: "
            f"name the patch that it is for. Received: patch={patch}"
        )
    return tuple(patch)


def _shape(state, name, rank):
    if name not in state:
        raise ValueError(f"The checkpoint has no tensor {name}, from which its size is read")
    if np.ndim(state[name]) != rank:
        raise ValueError(
            f"{name} must have {rank} axes. Received: {name}.shape={np.shape(state[name])}"
        )
    return np.shape(state[name])


def _variables(model):
    """The variables of a model under the names of the tensors that belong to them."""
    backbone = model.backbone
    layers = {"patch_embed": backbone.embed}
    for index, block in enumerate(backbone.blocks):
        parts = {
            "norm1": block.norm1,
            "attn.qkv": block.attention.qkv,
            "attn.proj": block.attention.proj,
            "norm2": block.norm2,
            "mlp.0": block.expand,
            "mlp.2": block.contract,
        }
        layers |= {f"{_BLOCK}{index}.{name}": part for name, part in parts.items()}
    layers |= {"encoder.norm": backbone.norm, "head": model.head}
    found = {
        f"{name}.{kind}": variable
        for name, layer in layers.items()
        for kind, variable in zip(("weight", "bias"), layer.weights)
    }
    if backbone.position_kind == "learned":
        found["pos_embed"] = backbone.position.table
    if backbone.class_token is not None:
        found["cls_token"] = backbone.class_token
    return found


def _shape_there(name, variable):
    """Shape of the tensor of a variable: PyTorch has the outputs of a linear map first."""
    extra = {"pos_embed": (1,), "cls_token": (1, 1)}.get(name)
    shape = tuple(variable.shape)
    return shape[::-1] if extra is None else (*extra, *shape)


def _check(state, shapes):
    faults = [f"{name} is missing" for name in shapes if name not in state]
    faults += [f"{name} is unknown" for name in state if name not in shapes]
    for name, shape in shapes.items():
        if name not in state:
            continue
        if tuple(np.shape(state[name])) != shape:
            faults.append(f"{name} has the shape {tuple(np.shape(state[name]))}, not {shape}")
        elif not np.isfinite(state[name]).all():
            faults.append(f"{name} holds NaN or infinity")
    if faults:
        raise ValueError(
            f"The checkpoint does not fit the architecture ({len(faults)} faults): "
            + "; ".join(faults)
        )


def _read_torch(path):
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class|function)\s+([\w.]+\.[\w.]+)", str(error))
        what = f"the object {found[1]}" if found else "objects that are no tensors"
        raise ValueError(
            f"The file is refused: it would load {what}; expected tensors alone. Received: {path}"
        ) from error
    except Exception as error:  # what a damaged file raises takes many forms
        raise ValueError(
            f"The file is no PyTorch checkpoint, or damaged: {_first_line(error)}. Received: {path}"
        ) from error


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # what a damaged file raises takes many forms
        raise ValueError(f"The file is refused: {_first_line(error)}. Received: {path}") from error


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _to_array(tensor):
    """Float array of a tensor of PyTorch or NumPy, or None."""
    if isinstance(tensor, np.ndarray):
        return tensor if tensor.dtype.kind == "f" else None
    if not (hasattr(tensor, "is_floating_point") and tensor.is_floating_point()):
        return None
    # Sparse or quantised tensors have no place here; half precisions that NumPy lacks become float.
    tensor = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    if str(tensor.dtype) not in ("torch.float32", "torch.float64"):
        tensor = tensor.float()
    return tensor.numpy()
