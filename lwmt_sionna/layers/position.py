"""Position codes that are added to tokens."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors, check_tokens
from lwmt_sionna.ops.attention import check_grid
from lwmt_sionna.ops.positions import token_coordinates
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["FactoredPositionEncoding", "LearnedPositionEncoding"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class FactoredPositionEncoding(PlainErrors, keras.layers.Layer):
    """Adds a position code made of one sinusoidal code per axis.

    Each axis (time, angle, delay) has sines and cosines of geometrically spaced frequencies, which
    one linear map without bias brings to the width of the tokens. Any grid has a code, so a model
    runs at grids it was not trained on.

    Args:
        num_frequencies: Frequencies per axis.
        max_period: Longest period, in units of the coordinates.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: `[batch, num_tokens, width]`, time-major, then angle, then delay.
        grid: Number of snapshots, angle patches and delay patches, Python integers.
        coordinates: Coordinates along the three axes (see
            `lwmt_sionna.ops.positions.token_coordinates`). Defaults to counting.

    Returns:
        `[batch, num_tokens, width]`.
    """

    def __init__(self, num_frequencies: int = 8, max_period: float = 128.0, **kwargs: Any) -> None:
        # Coordinates keep their precision under mixed precision.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if num_frequencies < 1 or max_period <= 2:
            raise ValueError(
                "`num_frequencies` must be positive and `max_period` above 2. Received: "
                f"num_frequencies={num_frequencies}, max_period={max_period}"
            )
        self.num_frequencies = int(num_frequencies)
        self.max_period = float(max_period)

    def build(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(6 * self.num_frequencies, tokens_shape[-1]),
            initializer="glorot_uniform",
        )

    def call(
        self,
        tokens: Tensor,
        grid: tuple[int, int, int],
        coordinates: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        check_tokens(tokens)
        grid = check_grid(grid)
        _check_count(tokens, math.prod(grid), grid)
        if coordinates is None:
            coordinates = token_coordinates(grid)
        tokens = ops.cast(tokens, self.compute_dtype)
        rows = 2 * self.num_frequencies
        total: Tensor = 0.0
        for axis, coordinate in enumerate(coordinates):
            kernel = ops.cast(self.kernel[axis * rows : (axis + 1) * rows], self.compute_dtype)
            code = ops.matmul(ops.cast(self._code(coordinate), self.compute_dtype), kernel)
            shape = [1, 1, 1]
            shape[axis] = grid[axis]
            code = ops.reshape(code, (-1, *shape, code.shape[-1]))
            total = total + code
        return tokens + ops.reshape(total, (-1, math.prod(grid), total.shape[-1]))

    def _code(self, coordinate):
        """Sines and cosines of a coordinate: `[..., size, 2 * num_frequencies]`."""
        spacing = max(self.num_frequencies - 1, 1)
        ratio = (self.max_period / 2.0) ** (np.arange(self.num_frequencies) / spacing)
        if isinstance(coordinate, np.ndarray):
            phase = coordinate[..., None] * (math.pi / ratio)
            return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1).astype("float32")
        scale = ops.convert_to_tensor((math.pi / ratio).astype("float32"))
        phase = ops.cast(coordinate, "float32")[..., None] * scale
        return ops.concatenate([ops.sin(phase), ops.cos(phase)], axis=-1)

    def compute_output_shape(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        return tuple(tokens_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(num_frequencies=self.num_frequencies, max_period=self.max_period)
        return config


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class LearnedPositionEncoding(PlainErrors, keras.layers.Layer):
    """Adds one learned vector per token of a fixed grid, as the published LWM-Temporal does.

    Args:
        grid: Number of snapshots, angle patches and delay patches of the table.
        class_token: Whether the table has a last row for a class token.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        tokens: `[batch, num_tokens, width]`, time-major, then angle, then delay, then the class
            token where there is one.
        grid: Number of snapshots (those of the table or fewer), angle patches and delay patches
            (those of the table).

    Returns:
        `[batch, num_tokens, width]`.
    """

    def __init__(
        self, grid: tuple[int, int, int], class_token: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.grid = check_grid(grid)
        self.class_token = bool(class_token)

    def build(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(math.prod(self.grid) + int(self.class_token), tokens_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, tokens: Tensor, grid: tuple[int, int, int] | None = None) -> Tensor:
        check_tokens(tokens)
        grid = self.grid if grid is None else check_grid(grid)
        if grid[1:] != self.grid[1:] or grid[0] > self.grid[0]:
            raise ValueError(
                f"The learned table has positions for the grid {self.grid} or fewer snapshots of "
                f"it. Received: grid={grid}"
            )
        num_tokens = math.prod(grid)
        _check_count(tokens, num_tokens + int(self.class_token), grid)
        table = self.table[:num_tokens]
        if self.class_token:
            table = ops.concatenate([table, self.table[-1:]], axis=0)
        return tokens + ops.cast(table, tokens.dtype)[None]

    def compute_output_shape(self, tokens_shape: Shape, *args: Any, **kwargs: Any) -> Shape:
        return tuple(tokens_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(grid=list(self.grid), class_token=self.class_token)
        return config


def _check_count(tokens, num_tokens, grid):
    if tokens.shape[1] not in (num_tokens, None):
        raise ValueError(
            f"Expected {num_tokens} tokens for the grid {grid}. Received: "
            f"tokens.shape={tuple(tokens.shape)}"
        )
