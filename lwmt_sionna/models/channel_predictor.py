"""Channel prediction: noisy history in, future out."""

import keras
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform, InverseAngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.presets import load_preset, save_preset
from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked
from lwmt_sionna.ops.linear_prediction import (
    burg_coefficients,
    denoise,
    extrapolate,
    noise_power,
    prediction_error,
)
from lwmt_sionna.ops.patches import patchify, unpatchify

__all__ = ["ChannelPredictor"]

_TINY = 1e-12


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelPredictor(keras.Model):
    r"""Predicts the channels of the next snapshots from a noisy history.

    Physics comes first, learning on top. In the angle-delay domain every bin is denoised with its
    neighbours and continued by several linear predictions (`lwmt_sionna.ops.linear_prediction`):
    long memories for what has been there all the time, short ones for what has just changed. The
    last snapshots and these forecasts become the tokens of an `LWMTBackbone`, which decides for
    every bin and horizon how much of each forecast to keep, and adds what they miss:

    $$\hat X = X_E + \sum_e g_e X_e + s\, r$$

    with forecasts $X_e$, gates $g_e$ and residual $r$ from the network, and $s$ the local
    amplitude. Untrained, gates and residual are zero and the last forecast $X_E$ remains.
    Normalisation and transforms are inside: inputs and outputs are channels as they are, and
    scaling the history scales the prediction.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        num_horizons: Number of snapshots to predict.
        experts: Pairs of window and order, one per linear prediction: coefficients are estimated
            from the last `window` snapshots (all of them, if there are fewer). The last expert is
            the starting point.
        context: Number of the most recent snapshots that the network sees; linear prediction uses
            the whole history.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        array_shape: Number of rows, columns and polarisations of the array; a linear array if left
            out.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        history: Noisy channels of the past, the most recent last, in one of three forms:
            complex `[batch, time, num_ant, num_subcarriers]`; real `[batch, time, num_ant,
            num_subcarriers, 2]`; or Sionna's complex `[batch, num_rx, num_rx_ant, num_tx,
            num_tx_ant, time, num_subcarriers]`, whose array is the transmitter's.
        training: Whether dropout is active.

    Returns:
        Predicted channels in the form of `history`, with `num_horizons` in place of `time`.

    Example:

    >>> predictor = ChannelPredictor.from_preset("small")
    >>> h = keras.random.normal((8, 16, 32, 32, 2))
    >>> predictor(h).shape
    TensorShape([8, 5, 32, 32, 2])
    """

    def __init__(
        self,
        backbone,
        num_horizons=5,
        experts=((6, 2), (10, 4), (16, 2), (16, 4), (16, 6)),
        context=4,
        denoise_radius=2,
        array_shape=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        if not isinstance(backbone, LWMTBackbone):
            raise ValueError(f"`backbone` must be an LWMTBackbone. Received: backbone={backbone}")
        experts = tuple((int(window), int(order)) for window, order in experts)
        if not experts or any(not 0 < order < window for window, order in experts):
            raise ValueError(
                "`experts` must be pairs (window, order) with 0 < order < window. Received: "
                f"experts={experts}"
            )
        for name, value in (("num_horizons", num_horizons), ("context", context)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.backbone = backbone
        self.num_horizons = int(num_horizons)
        self.experts = experts
        self.context = int(context)
        self.denoise_radius = int(denoise_radius)
        self.array_shape = None if array_shape is None else tuple(array_shape)
        self.transform = AngleDelayTransform(self.array_shape, name="transform", dtype="float32")
        self.inverse = InverseAngleDelayTransform(self.array_shape, name="inverse", dtype="float32")
        options = {"dtype": self.dtype_policy}
        self.observed_features = keras.layers.Dense(
            backbone.width, name="observed_features", **options
        )
        self.forecast_features = keras.layers.Dense(
            backbone.width, name="forecast_features", **options
        )
        self.level_features = keras.layers.Dense(backbone.width, name="level_features", **options)
        # Zero weights: before training the predictor is linear prediction, exactly.
        self.head = keras.layers.Dense(
            backbone.patch[0] * backbone.patch[1] * (len(experts) + 2),
            kernel_initializer="zeros",
            name="head",
            dtype="float32",
        )

    def build(self, history_shape):
        bins = self.backbone.patch[0] * self.backbone.patch[1]
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        self.observed_features.build((None, None, bins * 2))
        self.forecast_features.build((None, None, bins * 2 * len(self.experts)))
        self.level_features.build((None, None, 2 + len(self.experts)))
        self.head.build((None, None, self.backbone.width))
        self.built = True

    def call(self, history, training=None):
        if not is_complex(history):
            self._check(history.shape, (5,), 1, 2)
            return self._predict(history, training)
        if len(history.shape) == 4:
            self._check(history.shape, (4,), 1, 2)
            return to_complex(self._predict(to_stacked(history), training))
        self._check(history.shape, (7,), 5, 4)
        links = history.shape[1:4]
        num_ant, num_snapshots, num_subcarriers = history.shape[4:]
        flat = ops.reshape(history, (-1, num_ant, num_snapshots, num_subcarriers))
        flat = to_stacked(ops.transpose(flat, (0, 2, 1, 3)))
        future = ops.transpose(to_complex(self._predict(flat, training)), (0, 2, 1, 3))
        return ops.reshape(future, (-1, *links, num_ant, self.num_horizons, num_subcarriers))

    def _check(self, shape, ranks, time_axis, antenna_axis):
        if len(shape) not in ranks or (ranks == (5,) and shape[-1] != 2):
            raise ValueError(
                "Expected complex [batch, time, num_ant, num_subcarriers], real [batch, time, "
                "num_ant, num_subcarriers, 2], or complex [batch, num_rx, num_rx_ant, num_tx, "
                f"num_tx_ant, time, num_subcarriers]. Received: history.shape={tuple(shape)}"
            )
        shortest = max(self.context, *(order + 1 for _, order in self.experts))
        if shape[time_axis] is not None and shape[time_axis] < shortest:
            raise ValueError(
                f"The history must have at least {shortest} snapshots. Received: "
                f"history.shape={tuple(shape)}"
            )
        if self.array_shape is not None:
            expected = self.array_shape[0] * self.array_shape[1] * self.array_shape[2]
            if shape[antenna_axis] != expected:
                raise ValueError(
                    f"The array {self.array_shape} has {expected} antennas. Received: "
                    f"history.shape={tuple(shape)}"
                )

    def _predict(self, history, training):
        """Real-stacked history to real-stacked future."""
        history = ops.cast(history, "float32")
        mean_square = 2.0 * ops.mean(ops.square(history), axis=(1, 2, 3, 4), keepdims=True)
        rms = ops.sqrt(mean_square)
        scale = ops.where(rms > 0, rms, ops.ones_like(rms))
        features = self.features(self.transform(history / scale))
        future = features["forecasts"][:, -1] + self.refine(features, training=training)
        # A history of zeros has no scale; its future is zero as well.
        return self.inverse(future) * rms

    def features(self, x):
        """Everything that comes before the network; it has no trainable weights.

        Args:
            x: History in the angle-delay domain, scaled to a root mean square near one, real
                `[batch, time, angle, delay, 2]`.

        Returns:
            Dictionary of real tensors without gradient: `observed` and `clean` `[batch, context,
            angle, delay, 2]`, the last snapshots before and after denoising; `forecasts` `[batch,
            expert, horizon, angle, delay, 2]`; `misfit` `[batch, angle, delay, expert]`, the power
            of each expert's one-step errors over the context; `noise` `[batch]`, its power per bin.
        """
        x = ops.stop_gradient(x)
        num_snapshots = x.shape[1]
        noise = noise_power(x)
        clean = denoise(x, radius=self.denoise_radius, noise=noise)
        windows = [min(window, num_snapshots) for window, _ in self.experts]
        coefficients = {}
        for window in sorted(set(windows)):
            orders = [o for (_, o), w in zip(self.experts, windows, strict=True) if w == window]
            coefficients[window] = burg_coefficients(clean[:, -window:], max(orders))
        forecasts, misfit = [], []
        for window, (_, order) in zip(windows, self.experts, strict=True):
            taps = coefficients[window][order - 1]
            forecasts.append(extrapolate(clean, taps, self.num_horizons))
            misfit.append(prediction_error(clean, taps, min(self.context, num_snapshots - order)))
        features = {
            "observed": x[:, -self.context :],
            "clean": clean[:, -self.context :],
            "forecasts": ops.stack(forecasts, axis=1),
            "misfit": ops.stack(misfit, axis=-1),
            "noise": noise,
        }
        return {name: ops.stop_gradient(value) for name, value in features.items()}

    def refine(self, features, training=None):
        """What the network adds to the last expert's forecast.

        Args:
            features: Dictionary that `features` returns.
            training: Whether dropout is active.

        Returns:
            Real `[batch, horizon, angle, delay, 2]`, angle-delay domain.
        """
        clean, forecasts = features["clean"], features["forecasts"]
        noise = features["noise"][:, None, None, None, None]
        patch = self.backbone.patch
        grid = self.backbone.grid((self.context + self.num_horizons, *clean.shape[2:4]))
        amplitude = self._local_amplitude(clean, noise)
        unit = 1.0 / amplitude
        tokens = self.backbone.tokens(ops.concatenate([clean, forecasts[:, -1]], axis=1) * unit)
        past = self.observed_features(patchify(features["observed"] * unit, patch))
        # [batch, horizon, angle, delay, expert, 2]
        choices = ops.transpose(forecasts, (0, 2, 3, 4, 1, 5))
        flat = ops.reshape(choices, (-1, *choices.shape[1:4], 2 * len(self.experts)))
        # Future tokens are hidden ones that hold forecasts: they carry the mask embedding as well.
        ahead = self.forecast_features(patchify(flat * unit, patch))
        if self.backbone.mask_embedding is not None:
            ahead = ahead + ops.cast(self.backbone.mask_embedding, ahead.dtype)
        levels = self._levels(amplitude, features["misfit"], noise)
        tokens = tokens + ops.concatenate([past, ahead], axis=1)
        tokens = tokens + ops.tile(levels, (1, grid[0], 1))
        embeddings = self.backbone.encode(
            tokens, grid, time_origin=self.context - 1, training=training
        )
        per_snapshot = grid[1] * grid[2]
        first, last = self.context * per_snapshot, grid[0] * per_snapshot
        decisions = self.head(embeddings[:, first:last])
        decisions = unpatchify(decisions, (self.num_horizons, *clean.shape[2:4]), patch)
        gates, residual = decisions[..., :-2], decisions[..., -2:]
        return ops.sum(gates[..., None] * choices, axis=-2) + amplitude * residual

    def _local_amplitude(self, clean, noise):
        """Amplitude of every patch, spread over its bins: `[batch, 1, angle, delay, 1]`."""
        patch = self.backbone.patch
        power = ops.mean(ops.sum(ops.square(clean), axis=-1, keepdims=True), axis=1, keepdims=True)
        level = ops.mean(patchify(power, patch), axis=-1, keepdims=True)
        level = ops.sqrt(level + 0.1 * noise[:, 0, 0] + _TINY)
        spread = ops.tile(level, (1, 1, patch[0] * patch[1]))
        return unpatchify(spread, (1, *power.shape[2:4]), patch)

    def _levels(self, amplitude, misfit, noise):
        """Embeds the amplitude of every patch, and the experts' misfits, against the noise."""
        patch = self.backbone.patch
        floor = ops.log(noise[:, 0, 0] + _TINY)
        level = 2.0 * ops.log(ops.mean(patchify(amplitude, patch), axis=-1, keepdims=True))
        features = [level - floor, ops.zeros_like(level) + floor]
        for expert in range(len(self.experts)):
            power = patchify(misfit[:, None, ..., expert : expert + 1], patch)
            power = ops.mean(power, axis=-1, keepdims=True)
            features.append(ops.log(power + 1e-3 * noise[:, 0, 0] + _TINY) - level)
        return self.level_features(0.2 * ops.concatenate(features, axis=-1))

    def compute_output_shape(self, history_shape):
        shape = list(history_shape)
        shape[5 if len(shape) == 7 else 1] = self.num_horizons
        return tuple(shape)

    @classmethod
    def from_preset(cls, preset):
        """Loads a predictor from a preset.

        Args:
            preset: Name of a shipped preset (see `lwmt_sionna.models.list_presets`), or path of a
                folder written by `save_to_preset`.

        Returns:
            `ChannelPredictor`.
        """
        return load_preset(preset, cls)

    def save_to_preset(self, folder, metadata=None, readme=None):
        """Writes configuration, weights and metadata to a folder.

        Args:
            folder: Path of the folder; made if missing.
            metadata: JSON-compatible dictionary, e.g. the training record.
            readme: Text of the folder's README.
        """
        save_preset(self, folder, metadata=metadata, readme=readme)

    def get_config(self):
        config = super().get_config()
        config.update(
            backbone=keras.saving.serialize_keras_object(self.backbone),
            num_horizons=self.num_horizons,
            experts=[list(pair) for pair in self.experts],
            context=self.context,
            denoise_radius=self.denoise_radius,
            array_shape=None if self.array_shape is None else list(self.array_shape),
        )
        return config
