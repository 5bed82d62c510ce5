"""One block of the encoder."""

from typing import Any

import keras

from lwmt_sionna.layers.attention import SparseSpatioTemporalAttention
from lwmt_sionna.layers.errors import PlainErrors, check_tokens
from lwmt_sionna.ops.attention import EnergyRouting, Neighborhood, TopKRouting
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["EncoderBlock"]


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
