"""Contestants of the model: recurrent, convolutional, and attention factored into space and time.

They are trained like the model: the same data, histories, loss and steps, and the same physics in
front of the network where they start from linear prediction.
"""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.normalization import Frame
from lwmt_sionna.models.presets import PresetModel
from lwmt_sionna.ops.attention import Neighborhood
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    noise_power,
)
from lwmt_sionna.ops.patches import patchify, token_grid, unpatchify
from lwmt_sionna.typing import Shape, Tensor

__all__ = [
    "ConvolutionalPredictor",
    "FactoredBackbone",
    "RecurrentPredictor",
    "RefiningPredictor",
]

_TINY = 1e-12
STARTS = ("hold", "linear")


class RefiningPredictor(PresetModel):
    """A starting point without weights, and a network that corrects it.

    Args:
        num_horizons: Number of snapshots to predict.
        start: What the network's output is added to: `"hold"`, the last snapshot, or `"linear"`,
            local linear prediction on denoised bins, which the network then sees as well.
        order: Order of the linear prediction.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        array_shape: Number of rows, columns and polarisations; a linear array if left out.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        history: Noisy channels, real `[batch, time, num_ant, num_subcarriers, 2]`.
        training: Whether the call is part of training.

    Returns:
        Real `[batch, num_horizons, num_ant, num_subcarriers, 2]`.
    """

    def __init__(
        self,
        num_horizons: int = 5,
        start: str = "linear",
        order: int = 6,
        denoise_radius: int = 3,
        array_shape: tuple[int, int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if start not in STARTS:
            raise ValueError(f"`start` must be one of {STARTS}. Received: start={start!r}")
        if num_horizons < 1:
            raise ValueError(
                f"`num_horizons` must be positive. Received: num_horizons={num_horizons}"
            )
        self.num_horizons = int(num_horizons)
        self.start = start
        self.order = int(order)
        self.denoise_radius = int(denoise_radius)
        self.array_shape: Any = None if array_shape is None else tuple(array_shape)
        self.transform = AngleDelayTransform(self.array_shape, name="transform", dtype="float32")

    def call(self, history: Tensor, training: bool | None = None) -> Tensor:
        """See the class."""
        if len(history.shape) != 5 or history.shape[-1] != 2:
            raise ValueError(
                "Expected real [batch, time, num_ant, num_subcarriers, 2]. Received: "
                f"history.shape={tuple(history.shape)}"
            )
        frame, past, _ = self.frame(history)
        features = self.features(past, history.shape[3])
        future = features["forecasts"][:, -1] + self.refine(features, training=training)
        return frame.back(future, history.shape[3])

    def frame(self, x: Tensor) -> tuple[Frame, Tensor, None]:
        """`Frame` of a history, and the history in it: see `ChannelPredictor.frame`."""
        return *Frame.of(x, self.transform), None

    def features(
        self, x: Tensor, num_subcarriers: int, arrived: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the network sees, without gradient: see `ChannelPredictor.features`."""
        del num_subcarriers, arrived  # as many as there are delay bins; lost reports count as any
        x = ops.stop_gradient(x)
        noise = noise_power(x)
        if self.start == "hold":
            last = ops.repeat(x[:, -1:], self.num_horizons, axis=1)
            features = {"clean": x, "forecasts": last[:, None], "noise": noise}
        else:
            clean = denoise(x, radius=self.denoise_radius, noise=noise)
            taps = burg_coefficients(clean, [self.order])[0]
            forecast = extrapolate(clean, taps, self.num_horizons)
            features = {"clean": clean, "forecasts": forecast[:, None], "noise": noise}
        return {name: ops.stop_gradient(value) for name, value in features.items()}

    def refine(self, features: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """What the network adds to the starting point, real `[batch, horizon, angle, delay, 2]`."""
        raise NotImplementedError

    def compute_output_shape(self, history_shape: Shape) -> Shape:
        """Shape of the prediction."""
        return (history_shape[0], self.num_horizons, *history_shape[2:])

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        config = super().get_config()
        config.update(
            num_horizons=self.num_horizons,
            start=self.start,
            order=self.order,
            denoise_radius=self.denoise_radius,
            array_shape=None if self.array_shape is None else list(self.array_shape),
        )
        return config


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class RecurrentPredictor(RefiningPredictor):
    """A gated recurrent unit over the snapshots of every patch of angle-delay bins.

    All patches share the weights, so that each trajectory gives many training sequences and any
    grid will do; the values are scaled by the amplitude of their patch.

    Args:
        units: Units of the recurrent layer.
        patch: Bins per patch in angle and delay.
        **kwargs: Arguments of `RefiningPredictor`.

    Reference:
        Jiang and Schotten 2019, Neural network-based fading channel prediction: a comprehensive
        overview (IEEE Access 7); Cho et al. 2014, Learning phrase representations using RNN
        encoder-decoder.
    """

    def __init__(self, units: int = 96, patch: tuple[int, int] = (4, 4), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be positive. Received: units={units}")
        self.units = int(units)
        self.patch = (int(patch[0]), int(patch[1]))
        options = {"dtype": self.dtype_policy}
        # Unrolled or fused kernels would tie it to a backend; the plain loop compiles anywhere.
        self.gru = keras.layers.GRU(self.units, use_cudnn=False, name="gru", **options)
        self.context = keras.layers.Dense(self.units, activation="gelu", name="context", **options)
        self.head = keras.layers.Dense(
            self.num_horizons * self.patch[0] * self.patch[1] * 2,
            kernel_initializer="zeros",
            name="head",
            dtype="float32",
        )

    def build(self, history_shape: Shape) -> None:
        """Makes the weights."""
        values = self.patch[0] * self.patch[1] * 2
        self.gru.build((None, None, values))
        self.context.build((None, self.units + self.num_horizons * values + 1))
        self.head.build((None, self.units))
        self.built = True

    def refine(self, features: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """See `RefiningPredictor`."""
        clean, forecast = features["clean"], features["forecasts"][:, -1]
        num_snapshots, num_angle, num_delay = clean.shape[1:4]
        noise = ops.convert_to_tensor(features["noise"])[:, None, None]
        values = self.patch[0] * self.patch[1] * 2
        grid = token_grid((1, num_angle, num_delay), self.patch)
        places = grid[1] * grid[2]
        # [batch, time, patch, values]
        past = ops.reshape(patchify(clean, self.patch), (-1, num_snapshots, places, values))
        ahead = ops.reshape(patchify(forecast, self.patch), (-1, self.num_horizons, places, values))
        power = ops.mean(ops.square(past), axis=(1, 3))[..., None]
        amplitude = ops.sqrt(2.0 * power + 0.1 * noise + _TINY)
        level = 0.2 * (2.0 * ops.log(amplitude) - ops.log(noise + _TINY))
        past = ops.transpose(past / amplitude[:, None], (0, 2, 1, 3))
        state = self.gru(ops.reshape(past, (-1, num_snapshots, values)), training=training)
        ahead = ops.transpose(ahead / amplitude[:, None], (0, 2, 1, 3))
        ahead = ops.reshape(ahead, (-1, self.num_horizons * values))
        level = ops.cast(ops.reshape(level, (-1, 1)), state.dtype)
        hidden = ops.concatenate([state, ops.cast(ahead, state.dtype), level], axis=-1)
        output = self.head(self.context(hidden))
        output = ops.reshape(output, (-1, places, self.num_horizons, values))
        output = ops.transpose(output * amplitude[:, :, None], (0, 2, 1, 3))
        tokens = ops.reshape(output, (-1, self.num_horizons * places, values))
        return unpatchify(tokens, (self.num_horizons, num_angle, num_delay), self.patch)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "units": self.units, "patch": list(self.patch)}


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ConvolutionalPredictor(RefiningPredictor):
    """A small residual network of three-dimensional convolutions over time, angle and delay.

    The volume holds the last snapshots and the starting point's forecasts; both bin axes are
    cyclic. Values are scaled by the amplitude around them.

    Args:
        width: Channels of the hidden layers.
        depth: Hidden layers.
        context: Most recent snapshots that the network sees.
        **kwargs: Arguments of `RefiningPredictor`.

    Reference:
        Tran et al. 2015, Learning spatiotemporal features with 3D convolutional networks.
    """

    #: XLA's convolutions take seven times as long on a CPU as those of TensorFlow.
    train_by_xla = False

    def __init__(self, width: int = 16, depth: int = 4, context: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("width", width), ("depth", depth), ("context", context)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.width = int(width)
        self.depth = int(depth)
        self.context = int(context)
        self.hidden = [
            keras.layers.Conv3D(
                self.width, 3, padding="valid", name=f"hidden_{i}", dtype=self.dtype_policy
            )
            for i in range(self.depth)
        ]
        self.head = keras.layers.Conv3D(
            2, 1, kernel_initializer="zeros", name="head", dtype="float32"
        )

    def build(self, history_shape: Shape) -> None:
        """Makes the weights."""
        channels = 4
        for layer in self.hidden:
            layer.build((None, None, None, None, channels))
            channels = self.width
        self.head.build((None, None, None, None, channels))
        self.built = True

    def refine(self, features: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """See `RefiningPredictor`."""
        clean, forecast = features["clean"], features["forecasts"][:, -1]
        noise = features["noise"][:, None, None, None, None]
        power = ops.mean(ops.sum(ops.square(clean), axis=-1, keepdims=True), axis=1, keepdims=True)
        for axis in (2, 3):
            power = power + 0.5 * (ops.roll(power, 1, axis=axis) + ops.roll(power, -1, axis=axis))
        amplitude = ops.sqrt(power + 0.1 * noise + _TINY)
        volume = ops.concatenate([clean[:, -self.context :], forecast], axis=1) / amplitude
        num_snapshots = volume.shape[1]
        ahead = ops.cast(ops.arange(num_snapshots) >= self.context, volume.dtype)
        flag = ops.zeros_like(volume[..., :1]) + ahead[None, :, None, None, None]
        level = 0.2 * (2.0 * ops.log(amplitude) - ops.log(noise + _TINY))
        level = ops.zeros_like(flag) + level
        x = ops.concatenate([volume, flag, level], axis=-1)
        for index, layer in enumerate(self.hidden):
            y = ops.gelu(layer(_surround(x)))
            x = y if index == 0 else x + y
        output = self.head(x)[:, self.context :]
        return output * amplitude

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            **super().get_config(),
            "width": self.width,
            "depth": self.depth,
            "context": self.context,
        }


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class FactoredBackbone(LWMTBackbone):
    """A backbone whose blocks attend to space and to time in turns.

    Even blocks: all tokens of the own snapshot. Odd blocks: the own bin in all snapshots. Same
    tokens, weights and loss as `LWMTBackbone`, whose arguments it takes; of the neighbourhood only
    the class token counts.

    Reference:
        Bertasius, Wang and Torresani 2021, Is space-time attention all you need for video
        understanding?
    """

    _LONGEST = 64

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.block_loop != "unroll":
            raise ValueError(
                "Blocks that differ need block_loop='unroll'. Received: "
                f"block_loop={self.block_loop!r}"
            )
        class_token = self.neighborhood.class_token
        space = Neighborhood(window=(-1, -1), time_offsets=(), class_token=class_token)
        offsets = tuple(o for o in range(-self._LONGEST, self._LONGEST + 1) if o)
        time = Neighborhood(
            window=(0, 0),
            time_offsets=offsets,
            corridor=(0, 0),
            drift=(0.0, 0.0),
            class_token=class_token,
        )
        for index, block in enumerate(self.blocks):
            block.attention.neighborhood = time if index % 2 else space


def _surround(x):
    """Pads for a kernel of 3: zeros in time, the opposite edge in angle and delay."""
    x = ops.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0], [0, 0]])
    x = ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    return ops.concatenate([x[:, :, :, -1:], x, x[:, :, :, :1]], axis=3)
