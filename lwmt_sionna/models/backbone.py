"""The encoder of angle-delay-time tokens that all tasks share."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.encoder import EncoderBlock
from lwmt_sionna.layers.position import FactoredPositionEncoding, LearnedPositionEncoding
from lwmt_sionna.models.adapting import LORA_TARGETS, enable_lora, freeze
from lwmt_sionna.models.presets import PresetModel
from lwmt_sionna.ops.attention import (
    EnergyRouting,
    Neighborhood,
    TopKRouting,
    check_grid,
    get_neighborhood,
    get_routing,
    narrow,
    select_bins,
    widen,
)
from lwmt_sionna.ops.compiled import apply_repeatedly
from lwmt_sionna.ops.patches import patchify, token_grid
from lwmt_sionna.ops.positions import flat_rotation, grid_rotation, token_coordinates
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["LWMTBackbone", "get_backbone"]

MASKINGS = ("embedding", "zero")
BLOCK_LOOPS = ("unroll", "rematerialize")
ROPE_BASE = 10_000.0

Grid = tuple[int, int, int]


class PositionCode:
    """How the tokens of a backbone know their place: codes that are added, or rotations.

    Args:
        backbone: `LWMTBackbone`, whose layer `position` has the weights of the code, if any.
    """

    def __init__(self, backbone: "LWMTBackbone") -> None:
        self.backbone: Any = backbone

    def before_class_token(self, tokens: Tensor, grid: Grid, coordinates: tuple) -> Tensor:
        """Tokens with what is added to them alone."""
        return tokens

    def after_class_token(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens with what is added to them and the class token."""
        return tokens

    def rotation(self, grid: Grid, coordinates: tuple) -> Tensor | None:
        """Rotations of queries and keys, see `lwmt_sionna.ops.positions.rotate`, or None."""
        return None


class FactoredCode(PositionCode):
    """Sinusoidal codes per axis are added."""

    def before_class_token(self, tokens: Tensor, grid: Grid, coordinates: tuple) -> Tensor:
        return self.backbone.position(tokens, grid=grid, coordinates=coordinates)


class LearnedCode(PositionCode):
    """A table with one vector per token is added."""

    def after_class_token(self, tokens: Tensor, grid: Grid) -> Tensor:
        return self.backbone.position(tokens, grid=grid)


class GridRotation(PositionCode):
    """Queries and keys are turned by time, angle and delay."""

    def rotation(self, grid: Grid, coordinates: tuple) -> Tensor | None:
        heads, class_token = self.backbone.num_heads, self.backbone.neighborhood.class_token
        size = self.backbone.width // heads
        return grid_rotation(coordinates, heads, size, class_token=class_token)


class FlatRotation(PositionCode):
    """Queries and keys are turned by the flat index of their token."""

    def rotation(self, grid: Grid, coordinates: tuple) -> Tensor | None:
        own = self.backbone
        size, class_token = own.width // own.num_heads, own.neighborhood.class_token
        return flat_rotation(grid, size, base=own.rope_base, class_token=class_token)


POSITIONS = {
    "factored": FactoredCode,
    "rotary_grid": GridRotation,
    "learned": LearnedCode,
    "rotary": FlatRotation,
}


def get_backbone(backbone: "LWMTBackbone | dict[str, Any]") -> "LWMTBackbone":
    """A backbone from itself or its serialised form; anything else is an error."""
    if isinstance(backbone, dict):
        backbone = keras.saving.deserialize_keras_object(backbone)
    if not isinstance(backbone, LWMTBackbone):
        raise ValueError(f"`backbone` must be an LWMTBackbone. Received: backbone={backbone}")
    return backbone


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class LWMTBackbone(PresetModel):
    """Transformer encoder with sparse spatio-temporal attention over angle-delay-time tokens.

    Every snapshot of a channel sequence in the angle-delay domain is cut into patches, each patch
    becomes a token, and pre-norm blocks let tokens attend along the paths' corridors. The weights
    do not depend on the grid (but for the learned position table): any number of snapshots, angles
    and delays will do.

    Args:
        width: Size of a token.
        depth: Number of blocks.
        num_heads: Heads per block.
        mlp_ratio: Hidden units of the perceptrons over the width.
        patch: Bins per patch in angle and delay. Patches that hang over the edge see zeros there.
        neighborhood: `Neighborhood` in units of patches, or its config. Defaults to
            `Neighborhood.published()`. If it has a class token, so has the backbone.
        routing: None, `"topk"` or `"energy"`, or their objects: see `lwmt_sionna.ops`. Energy
            routing chooses once, before the first block, which angle and delay patches of a sample
            the blocks work on, by their energy over all visible snapshots; embeddings of all others
            are zero. Time falls with the number of tokens that are kept.
        dropout: Fraction dropped in training. Needs `block_loop="unroll"`.
        kernel: Kernel of the attention; the result does not depend on it.
        position: How tokens know their place:

            - `"factored"`: sinusoidal codes per axis are added; any grid;
            - `"rotary_grid"`: queries and keys are turned by time, angle and delay, so that
              attention sees differences of places; any grid;
            - `"learned"`: a table with one vector per token of `position_grid` is added, as
              published;
            - `"rotary"`: queries and keys are turned by the flat index of the token, as published.
        position_grid: Snapshots, angle patches and delay patches of the learned table.
        position_units: What counts as one step of a physical position: seconds between snapshots,
            sine of the angle, seconds of delay. Every call then needs `sampling_period` and
            `bandwidth`, and another sampling is another position. None (the default) counts
            snapshots and patches. For `"factored"` and `"rotary_grid"`.
        masking: What a hidden token becomes: `"embedding"`, a learned vector with its position, or
            `"zero"`, as published: zero, without a position.
        block_loop: How the blocks are run: `"unroll"`, each compiled on its own;
            `"rematerialize"`, one compiled loop over all, whose backward pass computes each block
            again, so that training keeps one token tensor per block and no more. Results and
            weights are the same.
        rope_base: Base of the frequencies of position="rotary".
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Channels in the angle-delay domain, real `[batch, time, angle, delay, 2]`.
        mask: Tokens to hide, bool `[batch, num_tokens]`, without the class token.
        time_origin: Index of the snapshot that counts as time 0.
        sampling_period: Time between snapshots in seconds, a number or a tensor `[batch]`. For
            physical positions.
        bandwidth: Bandwidth in hertz that the subcarriers span, number or tensor `[batch]`. For
            physical positions.
        training: Whether dropout is active.

    Returns:
        Embeddings `[batch, num_tokens, width]`, time-major, then angle, then delay, then the class
        token where there is one.

    Example:

    >>> backbone = LWMTBackbone(width=32, depth=2, num_heads=4, patch=(4, 4))
    >>> backbone(keras.random.normal((1, 16, 32, 32, 2))).shape
    TensorShape([1, 1024, 32])

    Reference:
        [LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel Representation
        Learning](https://arxiv.org/abs/2603.10024)
    """

    def __init__(  # noqa: PLR0913 - the configuration of a model
        self,
        width: int = 32,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4,
        patch: tuple[int, int] = (1, 1),
        neighborhood: Neighborhood | dict[str, Any] | None = None,
        routing: TopKRouting | EnergyRouting | str | dict[str, Any] | None = None,
        dropout: float = 0.0,
        kernel: str = "auto",
        position: str = "factored",
        position_grid: Grid | None = None,
        position_units: tuple[float, float, float] | None = None,
        masking: str = "embedding",
        block_loop: str = "unroll",
        rope_base: float = ROPE_BASE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if depth < 1 or width < 1:
            raise ValueError(
                f"`depth` and `width` must be positive. Received: depth={depth}, width={width}"
            )
        if len(tuple(patch)) != 2 or min(patch) < 1:
            raise ValueError(f"`patch` must be two positive integers. Received: patch={patch}")
        neighborhood = get_neighborhood(neighborhood)
        # Presets of older versions may have the loop "scan": with "unroll" they compute the same.
        block_loop = "unroll" if block_loop == "scan" else block_loop
        for name, value, known in (
            ("position", position, tuple(POSITIONS)),
            ("masking", masking, MASKINGS),
            ("block_loop", block_loop, BLOCK_LOOPS),
        ):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {known}. Received: {name}={value!r}")
        if block_loop != "unroll" and dropout:
            raise ValueError(
                "Dropout needs block_loop='unroll': blocks in one loop would share random "
                f"numbers. Received: {block_loop=}, {dropout=}"
            )
        self.position_units = _check_positions(position, position_grid, position_units, rope_base)
        if position.startswith("rotary") and (width % num_heads or width // num_heads % 2):
            raise ValueError(
                "Rotary positions need an even number of elements per head. Received: "
                f"width={width}, num_heads={num_heads}"
            )
        self.width = int(width)
        self.depth = int(depth)
        self.num_heads = int(num_heads)
        self.mlp_ratio = mlp_ratio
        self.patch = (int(patch[0]), int(patch[1]))
        self.neighborhood = neighborhood
        self.routing = get_routing(routing)
        self.dropout = float(dropout)
        self.kernel = kernel
        self.position_kind = position
        self.position_grid = None if position_grid is None else check_grid(position_grid)
        self.masking = masking
        self.block_loop = block_loop
        self.rope_base = float(rope_base)
        # The mask is an argument of the call, not a Keras mask that travels with a tensor.
        self.supports_masking = True
        options = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(self.width, name="embed", **options)
        self.mask_embedding = self.class_token = self.position = None
        if position == "factored":
            self.position = FactoredPositionEncoding(name="position", **options)
        elif self.position_grid is not None:
            self.position = LearnedPositionEncoding(
                self.position_grid, neighborhood.class_token, name="position", **options
            )
        self._code = POSITIONS[position](self)
        self.blocks = [
            EncoderBlock(
                num_heads,
                mlp_ratio=mlp_ratio,
                neighborhood=neighborhood,
                # Energy routing thins out the tokens of all blocks at once, before the first.
                routing=None if isinstance(self.routing, EnergyRouting) else self.routing,
                dropout=dropout,
                kernel=kernel,
                name=f"block_{index}",
                **options,
            )
            for index in range(self.depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm", **options)

    @classmethod
    def published(cls, **overrides: Any) -> "LWMTBackbone":
        """The published LWM-Temporal: learned positions of 20 x 32 x 32 tokens, routed scores.

        Args:
            **overrides: Arguments of `LWMTBackbone` that differ.

        Returns:
            `LWMTBackbone` with random weights.
        """
        arguments: dict[str, Any] = {
            "width": 32,
            "depth": 12,
            "num_heads": 8,
            "mlp_ratio": 4,
            "patch": (1, 1),
            "neighborhood": Neighborhood.published(),
            "routing": "topk",
            "position": "learned",
            "position_grid": (20, 32, 32),
            "masking": "zero",
        }
        return cls(**(arguments | overrides))

    def build(self, input_shape: Shape) -> None:
        tokens_shape = (None, None, self.width)
        self.embed.build((None, None, self.patch[0] * self.patch[1] * 2))
        if self.position is not None:
            self.position.build(tokens_shape)
        if self.masking == "embedding":
            self.mask_embedding = self.add_weight(
                name="mask_embedding", shape=(self.width,), initializer="zeros"
            )
        if self.neighborhood.class_token:
            self.class_token = self.add_weight(
                name="class_token",
                shape=(self.width,),
                initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            )
        for block in self.blocks:
            block.build(tokens_shape)
        self.norm.build(tokens_shape)
        if not self.trainable:  # as saved: what was just built does not know
            for part in (*self.layers, *self.variables):
                part.trainable = False
        self.built = True

    def grid(self, shape: Any) -> Grid:
        """Grid of tokens of channels of `shape` (snapshots, angle bins, delay bins)."""
        return token_grid(shape, self.patch)

    def tokens(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeds patches, without positions; hidden ones become the mask embedding, if any."""
        tokens = self.embed(patchify(inputs, self.patch))
        if mask is None or self.mask_embedding is None:
            return tokens
        hidden = ops.cast(mask, tokens.dtype)[..., None]
        return tokens * (1 - hidden) + hidden * ops.cast(self.mask_embedding, tokens.dtype)

    def encode(
        self,
        tokens: Tensor,
        shape: Shape,
        time_origin: int = 0,
        mask: Tensor | None = None,
        sampling_period: Tensor | None = None,
        bandwidth: Tensor | None = None,
        energy: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Adds the class token and positions and runs the blocks.

        Args:
            tokens: `[batch, num_tokens, width]`, without the class token.
            shape: Number of snapshots, angle bins and delay bins.
            time_origin: Index of the snapshot that counts as time 0.
            mask: Tokens to set to zero after positions are added, bool `[batch, num_tokens]`; for
                masking="zero" alone.
            sampling_period: See the call arguments.
            bandwidth: See the call arguments.
            energy: Energy of the tokens, `[batch, num_tokens]`, for energy routing alone.
            training: Whether dropout is active.

        Returns:
            `[batch, num_tokens, width]`, the class token last where there is one.
        """
        grid = self.grid(shape)
        coordinates = token_coordinates(
            grid,
            patch=self.patch,
            time_origin=time_origin,
            units=self.position_units,
            sampling_period=sampling_period,
            bandwidth=bandwidth,
            num_angle=shape[1],
        )
        tokens = self._code.before_class_token(tokens, grid, coordinates)
        if self.class_token is not None:
            extra = ops.zeros_like(tokens[:, :1]) + ops.cast(self.class_token, tokens.dtype)
            tokens = ops.concatenate([tokens, extra], axis=1)
        tokens = self._code.after_class_token(tokens, grid)
        if mask is not None and self.masking == "zero":
            kept = 1 - ops.cast(mask, tokens.dtype)[..., None]
            if self.class_token is not None:
                kept = ops.pad(kept, [[0, 0], [0, 1], [0, 0]], constant_values=1)
            tokens = tokens * kept
        rotation = self._code.rotation(grid, coordinates)
        if rotation is not None:
            rotation = ops.convert_to_tensor(rotation, dtype=self.compute_dtype)
        if not isinstance(self.routing, EnergyRouting):
            return self.norm(self._run_blocks(tokens, grid, rotation, training))
        if energy is None:
            raise ValueError("Energy routing needs the `energy` of the tokens. Received: None")
        bins = select_bins(ops.cast(energy, "float32"), grid, self.routing, self.compute_dtype)
        reduced = self.routing.reduced_grid(grid)
        if rotation is not None:
            # [..., num_tokens, pairs, 2], with or without axes of heads and batch
            flat = (1,) * (5 - len(rotation.shape)) + tuple(rotation.shape)
            rotation = ops.reshape(rotation, (-1, *flat[1:3], flat[3] * 2))
            rotation = rotation + ops.zeros_like(tokens[:, :1, :1, None])
            rotation = narrow(rotation, bins, grid)
            rotation = ops.reshape(rotation, (-1, *rotation.shape[1:3], flat[3], 2))
        tokens = narrow(tokens[:, None], bins, grid)[:, 0]
        tokens = self.norm(self._run_blocks(tokens, reduced, rotation, training))
        return widen(tokens[:, None], bins, grid)[:, 0]

    def _run_blocks(self, tokens, grid, rotation, training):
        if self.block_loop == "unroll":
            for block in self.blocks:
                tokens = block(tokens, grid=grid, rotation=rotation, training=training)
            return tokens
        first = self.blocks[0]

        def run(tokens, *weights):
            # The first block, with the weights of the one whose turn it is.
            mapping = list(zip(first.weights, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return first(tokens, grid=grid, rotation=rotation, training=training)

        columns = zip(*(block.weights for block in self.blocks), strict=True)
        stacked = [ops.stack([weight.value for weight in column]) for column in columns]
        return apply_repeatedly(run, tokens, stacked)

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        time_origin: int = 0,
        sampling_period: Tensor | None = None,
        bandwidth: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        energy = None
        if isinstance(self.routing, EnergyRouting):
            energy = ops.sum(ops.square(patchify(inputs, self.patch)), axis=-1)
            if mask is not None:
                energy = energy * (1 - ops.cast(mask, energy.dtype))
        return self.encode(
            self.tokens(inputs, mask),
            inputs.shape[1:4],
            time_origin,
            energy=energy,
            mask=mask,
            sampling_period=sampling_period,
            bandwidth=bandwidth,
            training=training,
        )

    def compute_output_shape(self, input_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        grid = self.grid(input_shape[1:4])
        num_tokens = grid[0] * grid[1] * grid[2] + int(self.neighborhood.class_token)
        return (input_shape[0], num_tokens, self.width)

    def freeze(self, num_blocks: int | None = None) -> None:
        """Keeps the first layers: see `lwmt_sionna.models.adapting.freeze`."""
        freeze(self, num_blocks)

    def enable_lora(
        self, rank: int = 4, alpha: float | None = None, targets: tuple[str, ...] = LORA_TARGETS
    ) -> None:
        """Trains corrections of low rank: see `lwmt_sionna.models.adapting.enable_lora`."""
        enable_lora(self, rank, alpha, targets)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch=list(self.patch),
            neighborhood=self.neighborhood.get_config(),
            routing=None if self.routing is None else self.routing.get_config(),
            dropout=self.dropout,
            kernel=self.kernel,
            position=self.position_kind,
            position_grid=None if self.position_grid is None else list(self.position_grid),
            position_units=None if self.position_units is None else list(self.position_units),
            masking=self.masking,
            block_loop=self.block_loop,
            rope_base=self.rope_base,
        )
        return config


def _check_positions(position, grid, units, rope_base):
    """Checks what belongs to a kind of positions; returns the units as floats."""
    if (position == "learned") != (grid is not None):
        raise ValueError(
            "`position_grid` belongs to position='learned', which needs it. Received: "
            f"position={position!r}, position_grid={grid}"
        )
    if not rope_base > 0 or (position != "rotary" and rope_base != ROPE_BASE):
        raise ValueError(
            "`rope_base` must be positive, and belongs to position='rotary'. Received: "
            f"position={position!r}, rope_base={rope_base}"
        )
    if units is None:
        return None
    if position not in ("factored", "rotary_grid"):
        raise ValueError(
            "Physical positions need position='factored' or 'rotary_grid'. Received: "
            f"position={position!r}, position_units={units}"
        )
    units = tuple(float(unit) for unit in units)
    if len(units) != 3 or not min(units) > 0:
        raise ValueError(
            "`position_units` must be three positive numbers (seconds, sine, seconds). "
            f"Received: position_units={units}"
        )
    return units
