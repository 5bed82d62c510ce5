"""From the tensors of a published LWM-Temporal checkpoint to a model of this package."""

import dataclasses
import math

import numpy as np

from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.masked_channel_model import MaskedChannelModel
from lwmt_sionna.ops.attention import Neighborhood

__all__ = ["PublishedOptions", "model_from_state", "modern_names"]

# Older files name three parts differently, and wrapped models put a prefix before all names.
_OLD_PREFIXES = {"embed.": "patch_embed.", "blocks.": "encoder.layers.", "norm.": "encoder.norm."}
_WRAPPERS = ("module.", "_orig_mod.")
_BLOCK = "encoder.layers."


@dataclasses.dataclass(frozen=True)
class PublishedOptions:
    """What a checkpoint's tensors do not tell.

    Attributes:
        num_heads: Heads per block.
        grid: Snapshots, angle patches and delay patches of the learned position table. The
            published one if None.
        patch: Bins per patch in angle and delay. If None, the square that fits the tensors.
        position: `"learned"`, `"rotary"`, or `"auto"`: learned if the checkpoint has `pos_embed`.
        routing: `"topk"`, as published, or None; see `SparseSpatioTemporalAttention`.
        neighborhood: `Neighborhood`, in units of patches. Whether there is a class token follows
            from the tensors.
        ignore: Names of tensors that are in the checkpoint and not wanted.
    """

    num_heads: int = 8
    grid: tuple | None = None
    patch: tuple | None = None
    position: str = "auto"
    routing: object = "topk"
    neighborhood: Neighborhood = dataclasses.field(default_factory=Neighborhood.published)
    ignore: tuple = ()

    def __post_init__(self):
        if self.num_heads < 1:
            raise ValueError(f"num_heads must be positive. Received: num_heads={self.num_heads}")
        if self.position not in ("auto", "learned", "rotary"):
            raise ValueError(
                "position must be 'auto', 'learned' or 'rotary'. Received: "
                f"position={self.position!r}"
            )


def modern_names(state):
    """Tensors under today's names.

    Args:
        state: Dictionary of names and tensors. Names may be those of older files (`embed.`,
            `blocks.`, `norm.`) and may all carry the prefix of a wrapper (`module.`).

    Returns:
        Dictionary with the same tensors.

    Raises:
        ValueError: If two names mean the same tensor.
    """
    for wrapper in _WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    renamed, origin = {}, {}
    for name, tensor in state.items():
        new = name
        for old, modern in _OLD_PREFIXES.items():
            if name.startswith(old):
                new = modern + name.removeprefix(old)
        if new in renamed:
            raise ValueError(f"Two tensors are the same one: {origin[new]} and {name}")
        renamed[new], origin[new] = tensor, name
    return renamed


def model_from_state(state, options=None):
    """Builds the model of a checkpoint and gives it the checkpoint's weights.

    Width, depth, ratio of the perceptrons and class token are read off the tensors.

    Args:
        state: Dictionary of names and NumPy arrays; see `modern_names`.
        options: `PublishedOptions`. The published ones if None.

    Returns:
        `MaskedChannelModel`.

    Raises:
        ValueError: If tensors are missing, unknown, of another shape, or not finite; all of them
            are named.
    """
    options = PublishedOptions() if options is None else options
    state = modern_names(state)
    unknown = sorted(set(options.ignore) - set(state))
    if unknown:
        raise ValueError(f"Tensors to ignore are not in the checkpoint: {', '.join(unknown)}")
    state = {name: tensor for name, tensor in state.items() if name not in options.ignore}
    backbone = _architecture(state, options)
    _check(state, _expected_shapes(backbone, state))
    model = MaskedChannelModel(backbone, name="masked_channel_model")
    model.build(None)
    _assign(model, state)
    return model


def _architecture(state, options):
    """The backbone whose tensors these are, as far as the most telling of them say."""
    width, inputs = _shape(state, "patch_embed.weight", 2)
    depth = len({name.split(".")[2] for name in state if name.startswith(_BLOCK)})
    hidden, _ = _shape(state, f"{_BLOCK}0.mlp.0.weight", 2)
    bins, odd = divmod(inputs, 2)
    if options.patch is not None:
        patch = tuple(options.patch)
    else:
        patch = (math.isqrt(bins),) * 2
    if odd or math.prod(patch) != bins:
        raise ValueError(
            f"patch_embed.weight takes {inputs} numbers, (real, imaginary) of the bins of a patch: "
            f"name the patch that it is for. Received: patch={options.patch}"
        )
    if width % options.num_heads:
        raise ValueError(
            f"The width {width} of patch_embed.weight must be a multiple of the heads. Received: "
            f"num_heads={options.num_heads}"
        )
    position = options.position
    if position == "auto":
        position = "learned" if "pos_embed" in state else "rotary"
    class_token = "cls_token" in state
    overrides = {}
    if position == "learned" and options.grid is not None:
        overrides["position_grid"] = tuple(options.grid)
    elif position != "learned":
        overrides["position_grid"] = None
    ratio = hidden / width
    return LWMTBackbone.published(
        width=width,
        depth=depth,
        num_heads=options.num_heads,
        mlp_ratio=int(ratio) if ratio == int(ratio) else ratio,
        patch=patch,
        neighborhood=dataclasses.replace(options.neighborhood, class_token=class_token),
        routing=options.routing,
        position=position,
        name="backbone",
        **overrides,
    )


def _shape(state, name, rank):
    if name not in state:
        raise ValueError(f"The checkpoint has no tensor {name}, from which its size is read")
    if np.ndim(state[name]) != rank:
        raise ValueError(
            f"{name} must have {rank} axes. Received: {name}.shape={np.shape(state[name])}"
        )
    return np.shape(state[name])


def _expected_shapes(backbone, state):
    """Name and shape of every tensor of the architecture."""
    width = backbone.width
    hidden = int(backbone.mlp_ratio * width)
    inputs = 2 * math.prod(backbone.patch)
    norm = {"weight": (width,), "bias": (width,)}
    block = {
        **{f"norm1.{name}": shape for name, shape in norm.items()},
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        **{f"norm2.{name}": shape for name, shape in norm.items()},
        "mlp.0.weight": (hidden, width),
        "mlp.0.bias": (hidden,),
        "mlp.2.weight": (width, hidden),
        "mlp.2.bias": (width,),
    }
    class_token = backbone.neighborhood.class_token
    shapes = {"patch_embed.weight": (width, inputs), "patch_embed.bias": (width,)}
    if backbone.position_kind == "learned":
        shapes["pos_embed"] = (1, math.prod(backbone.position_grid) + class_token, width)
    if class_token:
        shapes["cls_token"] = (1, 1, width)
    for index in range(backbone.depth):
        shapes |= {f"{_BLOCK}{index}.{name}": shape for name, shape in block.items()}
    shapes |= {f"encoder.norm.{name}": shape for name, shape in norm.items()}
    return shapes | {"head.weight": (inputs, width), "head.bias": (inputs,)}


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


def _assign(model, state):
    backbone = model.backbone
    _dense(backbone.embed, state, "patch_embed")
    if backbone.position_kind == "learned":
        backbone.position.table.assign(state["pos_embed"][0])
    if backbone.class_token is not None:
        backbone.class_token.assign(state["cls_token"][0, 0])
    for index, block in enumerate(backbone.blocks):
        prefix = f"{_BLOCK}{index}."
        _norm(block.norm1, state, f"{prefix}norm1")
        block.attention.qkv.kernel.assign(state[f"{prefix}attn.qkv.weight"].T)
        _dense(block.attention.proj, state, f"{prefix}attn.proj")
        _norm(block.norm2, state, f"{prefix}norm2")
        _dense(block.expand, state, f"{prefix}mlp.0")
        _dense(block.contract, state, f"{prefix}mlp.2")
    _norm(backbone.norm, state, "encoder.norm")
    _dense(model.head, state, "head")


def _dense(layer, state, name):
    """PyTorch has the outputs first."""
    layer.kernel.assign(state[f"{name}.weight"].T)
    layer.bias.assign(state[f"{name}.bias"])


def _norm(layer, state, name):
    layer.gamma.assign(state[f"{name}.weight"])
    layer.beta.assign(state[f"{name}.bias"])
