"""Prediction by a masked channel model alone, without physics in front of it."""

import keras
from keras import ops

from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.ops.angle_delay import angle_delay_transform, inverse_angle_delay_transform

__all__ = ["DirectPredictor"]


class DirectPredictor(keras.Model):
    """Reads the future out of a masked channel model whose last snapshots are hidden.

    Args:
        model: `MaskedChannelModel`.
        num_horizons: Snapshots to predict.
        context: Most recent snapshots that the model sees.

    Call arguments:
        history: Noisy channels, real `[batch, time, num_ant, num_subcarriers, 2]`.

    Returns:
        Real `[batch, num_horizons, num_ant, num_subcarriers, 2]`.
    """

    def __init__(self, model, num_horizons, context):
        super().__init__(name="direct_predictor", autocast=False)
        self.model = model
        self.num_horizons = int(num_horizons)
        self.context = int(context)

    def build(self, input_shape):
        self.built = True

    def call(self, history):
        if history.shape[1] < self.context:
            raise ValueError(
                f"The history must have at least {self.context} snapshots. Received: "
                f"history.shape={tuple(history.shape)}"
            )
        scaled, scale = unit_power(history[:, -self.context :])
        seen = angle_delay_transform(scaled)
        channel = ops.pad(seen, [[0, 0], [0, self.num_horizons], [0, 0], [0, 0], [0, 0]])
        grid = self.model.backbone.grid(channel.shape[1:4])
        tokens = ops.arange(grid[0] * grid[1] * grid[2])
        hidden = ops.greater_equal(tokens, self.context * grid[1] * grid[2])
        hidden = ops.broadcast_to(hidden[None], (ops.shape(channel)[0], hidden.shape[0]))
        whole = self.model({"channel": channel, "mask": hidden})
        future = ops.cast(whole[:, self.context :], "float32")
        return inverse_angle_delay_transform(future) * scale
