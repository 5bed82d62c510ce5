"""Positions of tokens that do not depend on the size of the grid."""

import math

import keras
import numpy as np
from keras import ops

__all__ = ["FactoredPositionEncoding"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class FactoredPositionEncoding(keras.layers.Layer):
    """Adds a position code made of one sinusoidal code per axis.

    Each axis (time, angle, delay) has sines and cosines of geometrically spaced frequencies, which
    one linear map without bias brings to the width of the tokens. Any grid has a code, so a model
    runs at grids it was not trained on.

    Args:
        num_frequencies: Frequencies per axis.
        max_period: Longest period, in tokens.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: `[batch, num_tokens, width]`, time-major, then angle, then delay.
        grid: Number of snapshots, angle patches and delay patches, Python integers.
        time_origin: Index of the snapshot that counts as time 0.

    Returns:
        `[batch, num_tokens, width]`.
    """

    def __init__(self, num_frequencies=8, max_period=128.0, **kwargs):
        super().__init__(**kwargs)
        if num_frequencies < 1 or max_period <= 2:
            raise ValueError(
                "`num_frequencies` must be positive and `max_period` above 2. Received: "
                f"num_frequencies={num_frequencies}, max_period={max_period}"
            )
        self.num_frequencies = int(num_frequencies)
        self.max_period = float(max_period)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(6 * self.num_frequencies, input_shape[-1]),
            initializer="glorot_uniform",
        )

    def call(self, tokens, grid, time_origin=0):
        table = ops.convert_to_tensor(self._table(grid, time_origin), dtype=self.compute_dtype)
        return tokens + ops.matmul(table, self.kernel)[None]

    def compute_output_shape(self, tokens_shape, *args, **kwargs):
        return tuple(tokens_shape)

    def _table(self, grid, time_origin):
        spacing = max(self.num_frequencies - 1, 1)
        ratio = (self.max_period / 2.0) ** (np.arange(self.num_frequencies) / spacing)
        codes = []
        for axis, size in enumerate(grid):
            place = np.arange(size) - (time_origin if axis == 0 else 0)
            phase = math.pi * place[:, None] / ratio
            code = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)
            shape = [1, 1, 1, code.shape[-1]]
            shape[axis] = size
            codes.append(np.broadcast_to(code.reshape(shape), (*grid, code.shape[-1])))
        table = np.concatenate(codes, axis=-1)
        return table.reshape(-1, table.shape[-1]).astype("float32")

    def get_config(self):
        config = super().get_config()
        config.update(num_frequencies=self.num_frequencies, max_period=self.max_period)
        return config
