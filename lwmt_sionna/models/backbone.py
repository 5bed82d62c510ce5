"""The encoder of angle-delay-time tokens that all tasks share."""

import keras

from lwmt_sionna.layers.encoder import EncoderBlock
from lwmt_sionna.layers.position import FactoredPositionEncoding
from lwmt_sionna.ops.neighborhood import Neighborhood
from lwmt_sionna.ops.patches import patchify, token_grid

__all__ = ["LWMTBackbone"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class LWMTBackbone(keras.Model):
    """Transformer encoder with sparse spatio-temporal attention over angle-delay-time tokens.

    Every snapshot of a channel sequence in the angle-delay domain is cut into patches, each patch
    becomes a token, and pre-norm blocks let tokens attend along the paths' corridors. The weights
    do not depend on the grid: any number of snapshots, angles and delays that the patches tile.

    Args:
        width: Size of a token.
        depth: Number of blocks.
        num_heads: Heads per block.
        mlp_ratio: Hidden units of the perceptrons over the width.
        patch: Bins per patch in angle and delay.
        neighborhood: `Neighborhood` in units of patches, or its config. Defaults to
            `Neighborhood.published()`.
        routing: See `SparseSpatioTemporalAttention`.
        dropout: Fraction dropped in training.
        kernel: Kernel of the attention; the result does not depend on it.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Channels in the angle-delay domain, real `[batch, time, angle, delay, 2]`.
        mask: Tokens to hide, bool `[batch, num_tokens]`; a learned embedding takes the place of
            their content and keeps their position.
        time_origin: Index of the snapshot that counts as time 0.
        training: Whether dropout is active.

    Returns:
        Embeddings `[batch, num_tokens, width]`, time-major, then angle, then delay.

    Example:

    >>> backbone = LWMTBackbone(width=32, depth=2, num_heads=4, patch=(4, 4))
    >>> backbone(keras.random.normal((1, 16, 32, 32, 2))).shape
    TensorShape([1, 1024, 32])

    Reference:
        [LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel Representation
        Learning](https://arxiv.org/abs/2603.10024)
    """

    def __init__(
        self,
        width=32,
        depth=12,
        num_heads=8,
        mlp_ratio=4,
        patch=(1, 1),
        neighborhood=None,
        routing=None,
        dropout=0.0,
        kernel="auto",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth < 1 or width < 1:
            raise ValueError(
                f"`depth` and `width` must be positive. Received: depth={depth}, width={width}"
            )
        if len(tuple(patch)) != 2 or min(patch) < 1:
            raise ValueError(f"`patch` must be two positive integers. Received: patch={patch}")
        if neighborhood is None:
            neighborhood = Neighborhood.published()
        elif isinstance(neighborhood, dict):
            neighborhood = Neighborhood.from_config(neighborhood)
        if neighborhood.class_token:
            raise ValueError(
                "The backbone has no class token; expected a neighbourhood without one. Received: "
                f"neighborhood={neighborhood}"
            )
        self.width = int(width)
        self.depth = int(depth)
        self.num_heads = int(num_heads)
        self.mlp_ratio = mlp_ratio
        self.patch = tuple(int(n) for n in patch)
        self.neighborhood = neighborhood
        self.routing = routing
        self.dropout = float(dropout)
        self.kernel = kernel
        # The mask is an argument of the call, not a Keras mask that travels with a tensor.
        self.supports_masking = True
        options = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(self.width, name="embed", **options)
        self.position = FactoredPositionEncoding(name="position", **options)
        self.blocks = [
            EncoderBlock(
                num_heads,
                mlp_ratio=mlp_ratio,
                neighborhood=neighborhood,
                routing=routing,
                dropout=dropout,
                kernel=kernel,
                name=f"block_{index}",
                **options,
            )
            for index in range(self.depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm", **options)

    def build(self, input_shape):
        tokens_shape = (input_shape[0], None, self.width)
        self.embed.build((input_shape[0], None, self.patch[0] * self.patch[1] * 2))
        self.position.build(tokens_shape)
        self.mask_embedding = self.add_weight(
            name="mask_embedding", shape=(self.width,), initializer="zeros"
        )
        for block in self.blocks:
            block.build(tokens_shape)
        self.norm.build(tokens_shape)
        self.built = True

    def grid(self, shape):
        """Grid of tokens of channels of `shape` (snapshots, angle bins, delay bins)."""
        return token_grid(shape, self.patch)

    def tokens(self, inputs, mask=None):
        """Embeds patches, without positions. See the call arguments."""
        tokens = self.embed(patchify(inputs, self.patch))
        if mask is None:
            return tokens
        hidden = keras.ops.cast(mask, tokens.dtype)[..., None]
        return tokens * (1 - hidden) + hidden * keras.ops.cast(self.mask_embedding, tokens.dtype)

    def encode(self, tokens, grid, time_origin=0, training=None):
        """Adds positions and runs the blocks.

        Args:
            tokens: `[batch, num_tokens, width]`.
            grid: Number of snapshots, angle patches and delay patches.
            time_origin: Index of the snapshot that counts as time 0.
            training: Whether dropout is active.

        Returns:
            `[batch, num_tokens, width]`.
        """
        tokens = self.position(tokens, grid=grid, time_origin=time_origin)
        for block in self.blocks:
            tokens = block(tokens, grid=grid, training=training)
        return self.norm(tokens)

    def call(self, inputs, mask=None, time_origin=0, training=None):
        grid = self.grid(inputs.shape[1:4])
        return self.encode(self.tokens(inputs, mask), grid, time_origin, training=training)

    def compute_output_shape(self, input_shape, *args, **kwargs):
        grid = self.grid(input_shape[1:4])
        return (input_shape[0], grid[0] * grid[1] * grid[2], self.width)

    def get_config(self):
        config = super().get_config()
        config.update(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch=list(self.patch),
            neighborhood=self.neighborhood.get_config(),
            routing=self.blocks[0].get_config()["routing"],
            dropout=self.dropout,
            kernel=self.kernel,
        )
        return config
