"""The blocks of the encoder, and their attention."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors, check_tokens
from lwmt_sionna.ops.attention import (
    KERNELS,
    EnergyRouting,
    Neighborhood,
    TopKRouting,
    check_grid,
    get_neighborhood,
    get_routing,
    sparse_attention,
)
from lwmt_sionna.ops.positions import rotate
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["EncoderBlock", "SparseSpatioTemporalAttention"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class EncoderBlock(PlainErrors, keras.layers.Layer):
    """Pre-norm transformer block: sparse attention, then a two-layer perceptron, both residual.

    Args:
        num_heads: Number of heads.
        mlp_ratio: Hidden units of the perceptron over the width of the tokens.
        neighborhood: `Neighborhood` or its config.
        routing: See `SparseSpatioTemporalAttention`.
        dropout: Fraction dropped after attention and perceptron in training.
        kernel: Kernel of the attention; the result does not depend on it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: `[batch, num_tokens, width]`.
        grid: Number of snapshots, angle patches and delay patches, Python integers.
        rotation: Rotary positions: see `SparseSpatioTemporalAttention`.
        training: Whether dropout is active.

    Returns:
        `[batch, num_tokens, width]`.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_ratio: float = 4,
        neighborhood: Neighborhood | dict | None = None,
        routing: TopKRouting | EnergyRouting | str | dict | None = None,
        dropout: float = 0.0,
        kernel: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_ratio = mlp_ratio
        self.norm1 = keras.layers.LayerNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="norm1"
        )
        self.attention = SparseSpatioTemporalAttention(
            num_heads,
            neighborhood,
            routing=routing,
            kernel=kernel,
            dropout=dropout,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.norm2 = keras.layers.LayerNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="norm2"
        )
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> None:
        self.attention.build(tokens_shape)
        width: Any = tokens_shape[-1]
        self.expand = keras.layers.Dense(
            int(self.mlp_ratio * width),
            activation=_exact_gelu,
            dtype=self.dtype_policy,
            name="expand",
        )
        self.contract = keras.layers.Dense(width, dtype=self.dtype_policy, name="contract")
        for layer in (self.norm1, self.norm2, self.expand):
            layer.build(tokens_shape)
        self.contract.build((*tokens_shape[:-1], int(self.mlp_ratio * width)))

    def call(
        self,
        tokens: Tensor,
        grid: tuple[int, int, int],
        rotation: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        check_tokens(tokens)
        tokens = tokens + self.attention(
            self.norm1(tokens), grid=grid, rotation=rotation, training=training
        )
        hidden = self.contract(self.expand(self.norm2(tokens)))
        return tokens + self.dropout(hidden, training=training)

    def compute_output_shape(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        return tuple(tokens_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        attention = self.attention.get_config()
        config.update(
            num_heads=attention["num_heads"],
            mlp_ratio=self.mlp_ratio,
            neighborhood=attention["neighborhood"],
            routing=attention["routing"],
            dropout=attention["dropout"],
            kernel=attention["kernel"],
        )
        return config


def _exact_gelu(x):
    return keras.ops.gelu(x, approximate=False)


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class SparseSpatioTemporalAttention(PlainErrors, keras.layers.Layer):
    """Multi-head self-attention of angle-delay-time tokens over their neighbourhoods.

    Cost and memory grow linearly with the number of tokens. The weights do not depend on the grid:
    a layer trained at one grid runs at any other.

    Args:
        num_heads: Number of heads.
        neighborhood: The tokens that a token attends to: a `Neighborhood` or its config. Defaults
            to `Neighborhood.published()`.
        head_dim: Size of a head. Defaults to the input width over `num_heads`.
        grid: Number of snapshots, angle bins and delay bins. May be left out and given to each call
            instead.
        routing: None, `"topk"`, `"energy"`, a `TopKRouting`, an `EnergyRouting` or the config of
            one: see `lwmt_sionna.ops`. Energy routing needs `energy` in every call.
        kernel: How attention is computed; the result does not depend on it. `"auto"` picks by grid.
        dropout: Fraction of the output that is dropped in training.
        kernel_initializer: Initialiser of both linear maps.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tokens `[batch, num_tokens, width]`, time-major, then angle, then delay, then the
            class token where the neighbourhood has one.
        grid: Number of snapshots, angle bins and delay bins, as Python integers. Defaults to the
            `grid` of the constructor.
        energy: Energy of the tokens without the class token, `[batch, num_tokens]`, for energy
            routing: that of the channel before any normalisation.
        rotation: Rotary positions, (cosine, sine) of every pair of a head's elements, broadcast
            against `[batch, num_heads, num_tokens, head_dim / 2, 2]`; see
            `lwmt_sionna.ops.positions`.
        training: Whether dropout is active.

    Returns:
        `[batch, num_tokens, width]`.

    Example:

    >>> layer = SparseSpatioTemporalAttention(num_heads=8)
    >>> layer(keras.random.normal((2, 4 * 16 * 16, 32)), grid=(4, 16, 16)).shape
    TensorShape([2, 1024, 32])

    Reference:
        [LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel Representation
        Learning](https://arxiv.org/abs/2603.10024)
    """

    def __init__(
        self,
        num_heads: int,
        neighborhood: Neighborhood | dict | None = None,
        head_dim: int | None = None,
        grid: tuple[int, int, int] | None = None,
        routing: TopKRouting | EnergyRouting | str | dict | None = None,
        kernel: str = "auto",
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"`num_heads` must be positive. Received: num_heads={num_heads}")
        if head_dim is not None and head_dim < 1:
            raise ValueError(f"`head_dim` must be positive. Received: head_dim={head_dim}")
        if kernel not in KERNELS:
            raise ValueError(f"`kernel` must be one of {KERNELS}. Received: kernel={kernel!r}")
        self.num_heads = int(num_heads)
        self.neighborhood = get_neighborhood(neighborhood)
        self.head_dim = head_dim
        self.grid = None if grid is None else check_grid(grid)
        self.routing = get_routing(routing)
        self.kernel = kernel
        self.dropout = float(dropout)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(
        self,
        inputs_shape: Shape,
        energy_shape: Shape | None = None,
        rotation_shape: Shape | None = None,
    ) -> None:
        width = inputs_shape[-1]
        if width is None:
            raise ValueError(
                f"The last axis of the inputs must be known. Received: inputs_shape={inputs_shape}"
            )
        head_dim = self.head_dim
        if head_dim is None:
            if width % self.num_heads:
                raise ValueError(
                    "The input width must be a multiple of `num_heads` unless `head_dim` is given. "
                    f"Received: width={width}, num_heads={self.num_heads}"
                )
            head_dim = width // self.num_heads
        self._head_dim = head_dim
        inner = self.num_heads * head_dim
        self.qkv = keras.layers.Dense(
            3 * inner,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.proj = keras.layers.Dense(
            width,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="proj",
        )
        self.output_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.qkv.build(inputs_shape)
        self.proj.build((*inputs_shape[:-1], inner))
        super().build(inputs_shape)

    def call(
        self,
        inputs: Tensor,
        grid: tuple[int, int, int] | None = None,
        energy: Tensor | None = None,
        rotation: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        if grid is None:
            grid = self.grid
        if grid is None:
            raise ValueError(
                "`grid` must be given to the constructor or to the call: three integers "
                "(num_snapshots, num_angle, num_delay). Received: grid=None"
            )
        check_tokens(inputs)
        num_tokens = inputs.shape[1]
        heads = ops.reshape(self.qkv(inputs), (-1, num_tokens, 3, self.num_heads, self._head_dim))
        query, key, value = ops.unstack(ops.transpose(heads, (2, 0, 3, 1, 4)), 3, axis=0)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        outputs = sparse_attention(
            query,
            key,
            value,
            self.neighborhood,
            grid,
            routing=self.routing,
            kernel=self.kernel,
            energy=energy,
        )
        outputs = ops.reshape(
            ops.transpose(outputs, (0, 2, 1, 3)), (-1, num_tokens, self.num_heads * self._head_dim)
        )
        return self.output_dropout(self.proj(outputs), training=training)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> None:
        if any(mask is not None for mask in keras.tree.flatten(previous_mask)):
            raise ValueError(
                "Attention over neighbourhoods takes no Keras mask: give hidden tokens a value of "
                "their own, as the `mask` of `LWMTBackbone` does. Received: inputs with a mask"
            )

    def compute_output_shape(
        self,
        inputs_shape: Shape,
        energy_shape: Shape | None = None,
        rotation_shape: Shape | None = None,
    ) -> Shape:
        return tuple(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            neighborhood=self.neighborhood.get_config(),
            head_dim=self.head_dim,
            grid=None if self.grid is None else list(self.grid),
            routing=None if self.routing is None else self.routing.get_config(),
            kernel=self.kernel,
            dropout=self.dropout,
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
        )
        return config
