"""What is trained, and what is kept, when a model is adapted."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from lwmt_sionna.models.backbone import LWMTBackbone

__all__ = ["LORA_TARGETS", "enable_lora", "freeze", "has_lora", "num_saved_parameters"]

# Linear maps of a block by name: attention's input and output, the perceptron's two.
LORA_TARGETS = ("qkv", "proj", "expand", "contract")


def freeze(backbone: "LWMTBackbone", num_blocks: int | None = None) -> None:
    """Keeps the first layers of a backbone as they are in training.

    Frozen are the embedding, positions, class token, mask embedding and the first blocks. A
    compiled model must be compiled again. What is frozen is not saved with the weights, but for a
    backbone that is frozen as a whole (`backbone.trainable = False`).

    Args:
        backbone: Built `LWMTBackbone`.
        num_blocks: Number of blocks to freeze, the first ones. Defaults to all, and the last norm.

    Raises:
        ValueError: If the backbone is not built or has fewer blocks.
    """
    _check_built(backbone)
    if num_blocks is None:
        frozen = [*backbone.blocks, backbone.norm]
    elif 0 <= num_blocks <= backbone.depth:
        frozen = backbone.blocks[:num_blocks]
    else:
        raise ValueError(
            f"`num_blocks` must lie between 0 and the {backbone.depth} blocks of the backbone. "
            f"Received: num_blocks={num_blocks}"
        )
    inner = {id(v) for layer in backbone.layers for v in layer.variables}
    for variable in backbone.variables:
        if id(variable) not in inner:  # the backbone's own: mask embedding, class token
            variable.trainable = False
    for layer in (backbone.embed, backbone.position, *frozen):
        if layer is not None:
            layer.trainable = False


def enable_lora(
    backbone: "LWMTBackbone",
    rank: int = 4,
    alpha: float | None = None,
    targets: tuple[str, ...] = LORA_TARGETS,
) -> None:
    """Freezes a backbone and gives its linear maps trainable corrections of low rank.

    Uses the low-rank adaptation that Keras' `Dense` has (Hu et al. 2021). Saving merges the
    corrections into the kernels: what is loaded is a plain model with the same outputs.

    Args:
        backbone: Built `LWMTBackbone`.
        rank: Rank of the corrections.
        alpha: Scale of the corrections over `rank`. Defaults to `rank`, a scale of one.
        targets: Names of the linear maps of every block: some of `"qkv"`, `"proj"`, `"expand"`,
            `"contract"`.

    Raises:
        ValueError: If the backbone is not built or has corrections already, or an argument is
            wrong.
    """
    _check_built(backbone)
    unknown = sorted(set(targets) - set(LORA_TARGETS))
    if unknown or not targets:
        raise ValueError(f"`targets` must be some of {LORA_TARGETS}. Received: targets={targets}")
    if rank < 1:
        raise ValueError(f"`rank` must be positive. Received: rank={rank}")
    if has_lora(backbone):
        raise ValueError("The backbone has low-rank corrections already; save and load it to merge")
    # By variable: a layer that is not trainable would hide its corrections.
    for variable in backbone.variables:
        variable.trainable = False
    for block in backbone.blocks:
        maps = {
            "qkv": block.attention.qkv,
            "proj": block.attention.proj,
            "expand": block.expand,
            "contract": block.contract,
        }
        for name in targets:
            maps[name].enable_lora(rank, lora_alpha=alpha)


def has_lora(model: keras.Model) -> bool:
    """Whether a linear map of the model has low-rank corrections."""
    return any(getattr(layer, "lora_enabled", False) for layer in model._flatten_layers())


def num_saved_parameters(model: keras.Model) -> int:
    """Parameters that saving writes: low-rank corrections are merged into their kernels."""
    extra = sum(
        int(layer.lora_kernel_a.shape[0] + layer.lora_kernel_b.shape[1]) * int(layer.lora_rank)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense) and layer.lora_enabled
    )
    return int(model.count_params()) - extra


def _check_built(backbone):
    if not backbone.built:
        raise ValueError(
            "The backbone has no weights yet: call or build it first. Received: "
            f"backbone={backbone.name}"
        )
