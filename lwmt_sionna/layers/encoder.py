"""One block of the encoder."""

import keras

from lwmt_sionna.layers.attention import SparseSpatioTemporalAttention

__all__ = ["EncoderBlock"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class EncoderBlock(keras.layers.Layer):
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
        num_heads,
        mlp_ratio=4,
        neighborhood=None,
        routing=None,
        dropout=0.0,
        kernel="auto",
        **kwargs,
    ):
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

    def build(self, tokens_shape, *args, **kwargs):
        width = tokens_shape[-1]
        self.expand = keras.layers.Dense(
            int(self.mlp_ratio * width),
            activation=_exact_gelu,
            dtype=self.dtype_policy,
            name="expand",
        )
        self.contract = keras.layers.Dense(width, dtype=self.dtype_policy, name="contract")
        for layer in (self.norm1, self.attention, self.norm2, self.expand):
            layer.build(tokens_shape)
        self.contract.build((*tokens_shape[:-1], int(self.mlp_ratio * width)))

    def call(self, tokens, grid, rotation=None, training=None):
        tokens = tokens + self.attention(
            self.norm1(tokens), grid=grid, rotation=rotation, training=training
        )
        hidden = self.contract(self.expand(self.norm2(tokens)))
        return tokens + self.dropout(hidden, training=training)

    def compute_output_shape(self, tokens_shape, *args, **kwargs):
        return tuple(tokens_shape)

    def get_config(self):
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
