"""Channel prediction: noisy history in, future out."""

import math

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.channel_form import ChannelForm
from lwmt_sionna.models.embedding import pool_embeddings
from lwmt_sionna.models.forecasts import check_experts, forecast_features
from lwmt_sionna.models.normalization import common_phasor, turn, unit_power
from lwmt_sionna.models.presets import load_preset, save_preset
from lwmt_sionna.ops.angle_delay import inverse_angle_delay_transform
from lwmt_sionna.ops.attention import EnergyRouting
from lwmt_sionna.ops.local_motion import local_motion
from lwmt_sionna.ops.patches import patchify, unpatchify

__all__ = ["ChannelPredictor"]

_TINY = 1e-12


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelPredictor(keras.Model):
    r"""Predicts the channels of the next snapshots from a noisy history.

    Physics comes first, learning on top. In the angle-delay domain every bin is denoised with its
    neighbours and continued by several linear predictions (`lwmt_sionna.ops.linear_prediction`):
    long memories for what has been there all the time, short ones for what has just changed; paths
    that can be resolved are continued by their own motion first (`num_paths`). The
    last snapshots and these forecasts become the tokens of an `LWMTBackbone`, which decides for
    every bin and horizon how much of each forecast to keep, and adds what they miss:

    $$\hat X = X_E + \sum_e g_e X_e + s\, r$$

    with forecasts $X_e$, gates $g_e$ and residual $r$ from the network, and $s$ the local
    amplitude. Untrained, gates and residual are zero and the last forecast $X_E$ remains.
    Normalisation and transforms are inside: inputs and outputs are channels as they are, and a
    complex factor of the history is one of the prediction.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        num_horizons: Number of snapshots to predict.
        experts: Pairs of window and order, one per linear prediction: coefficients are estimated
            from the last `window` snapshots (all of them, if there are fewer). The last expert is
            the starting point.
        context: Number of the most recent snapshots that the network sees; linear prediction uses
            the whole history.
        denoise_radius: See `lwmt_sionna.ops.linear_prediction.denoise`.
        num_paths: Largest number of moving paths that the history is resolved into first (see
            `lwmt_sionna.ops.path_fit`; linear arrays and all delay bins only); linear prediction
            then works on what they leave, and their continuation is the starting point. 0 for
            linear prediction alone.
        whole_experts: Pairs of window and order of linear predictions of the whole history, for
            where the paths are wrong; only with `num_paths`.
        array_shape: Number of rows, columns and polarisations of the array; a linear array if left
            out.
        num_delay: Delay bins to work on, for wide bands whose paths lie in few of them; what lies
            in the others is predicted as zero. Defaults to all.
        first_delay: First of those bins, below 0 for bins before delay 0.
        local_motion: Whether the network sees every patch turned back by its phase and Doppler
            shift: see `MaskedChannelModel`.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        history: Noisy channels of the past, the most recent last, in one of three forms:
            complex `[batch, time, num_ant, num_subcarriers]`; real `[batch, time, num_ant,
            num_subcarriers, 2]`; or Sionna's complex `[batch, num_rx, num_rx_ant, num_tx,
            num_tx_ant, time, num_subcarriers]`. Links are predicted one by one. A link whose
            history holds NaN or infinity gets NaN, and the others are not touched; a history of
            zeros gets zeros.
        num_horizons: Number of snapshots to predict. Defaults to all that the model is made for.
        array: Which end of Sionna's links has the array: `"tx"` (downlink) or `"rx"` (uplink).
        subcarriers: Indices of the effective subcarriers, such as Sionna's
            `ResourceGrid.effective_subcarrier_ind`, if the grid has null ones. The history may hold
            all subcarriers or the effective ones. Nulls inside of the band are interpolated;
            those outside get the prediction of the nearest effective subcarrier.
        sampling_period: Time between snapshots in seconds; for physical positions of the backbone.
        subcarrier_spacing: In hertz; for physical positions of the backbone.
        training: Whether dropout is active.

    Returns:
        Predicted channels in the form of `history`, with the horizons in place of `time`. They have
        the precision of the input; inside, all is float32.

    Raises:
        ValueError: If the history has none of the forms or is too short, its antennas are not those
            of the array, or more horizons are asked for than the model is made for.

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
        num_paths=0,
        array_shape=None,
        num_delay=None,
        first_delay=0,
        local_motion=False,
        whole_experts=(),
        **kwargs,
    ):
        # The physics in front of the network stays in the precision of its input.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        if not isinstance(backbone, LWMTBackbone):
            raise ValueError(f"`backbone` must be an LWMTBackbone. Received: backbone={backbone}")
        experts, whole_experts = check_experts(experts, whole_experts, num_paths)
        for name, value in (("num_horizons", num_horizons), ("context", context)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.backbone = backbone
        self.num_horizons = int(num_horizons)
        self.experts = experts
        self.whole_experts = whole_experts
        self.context = int(context)
        self.denoise_radius = int(denoise_radius)
        self.num_paths = int(num_paths)
        linear = array_shape is None or math.prod(array_shape) == array_shape[1]
        if self.num_paths < 0 or (self.num_paths and not (linear and num_delay is None)):
            raise ValueError(
                "`num_paths` must not be negative, and 0 for planar or dual-polarised arrays and "
                f"truncated delays. Received: num_paths={num_paths}, array_shape={array_shape}, "
                f"num_delay={num_delay}"
            )
        self.array_shape = None if array_shape is None else tuple(array_shape)
        self.num_delay = num_delay
        self.first_delay = int(first_delay)
        self.local_motion = bool(local_motion)
        self.transform = AngleDelayTransform(
            self.array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )
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
            backbone.patch[0] * backbone.patch[1] * (self._num_forecasts + 2),
            kernel_initializer="zeros",
            name="head",
            dtype="float32",
        )

    @property
    def _num_forecasts(self):
        return len(self.experts) + len(self.whole_experts) + (self.num_paths > 0)

    def build(self, history_shape):
        bins = self.backbone.patch[0] * self.backbone.patch[1]
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        self.observed_features.build((None, None, bins * 2))
        self.forecast_features.build((None, None, bins * 2 * self._num_forecasts))
        # One misfit per forecast, and with `whole_experts` the latest of the paths.
        num_levels = 2 + self._num_forecasts + bool(self.whole_experts)
        self.level_features.build((None, None, num_levels))
        self.head.build((None, None, self.backbone.width))
        self.built = True

    def __call__(self, history, *args, subcarriers=None, **kwargs):
        # Indices decide shapes: they must not become tensors of a graph on their way to `call`.
        if subcarriers is not None:
            kwargs["subcarriers"] = tuple(int(i) for i in np.asarray(subcarriers).reshape(-1))
        return super().__call__(history, *args, **kwargs)

    def call(
        self,
        history,
        num_horizons=None,
        array="tx",
        subcarriers=None,
        sampling_period=None,
        subcarrier_spacing=None,
        training=None,
    ):
        if num_horizons is None:
            num_horizons = self.num_horizons
        if not 0 < num_horizons <= self.num_horizons:
            raise ValueError(
                f"The predictor is made for 1 to {self.num_horizons} horizons. Received: "
                f"num_horizons={num_horizons}"
            )
        form, x = self._flatten(history, array, subcarriers)
        features, phasor, scale, options = self._prepare(x, sampling_period, subcarrier_spacing)
        future = features["forecasts"][:, -1]
        future = future + self.refine(features, training=training, **options)
        future = turn(future, phasor)
        future = inverse_angle_delay_transform(
            future[:, :num_horizons], self.array_shape, x.shape[3], self.first_delay
        )
        # A history of zeros has no scale; its future is zero as well.
        return form.restore(ops.cast(future, x.dtype) * scale)

    def embed(
        self,
        history,
        per="token",
        array="tx",
        subcarriers=None,
        sampling_period=None,
        subcarrier_spacing=None,
    ):
        """Embeddings of the last `context` snapshots and of the horizons.

        Args:
            history: See the call arguments.
            per: `"token"`, `"snapshot"` or `"sequence"`.
            array: See the call arguments.
            subcarriers: See the call arguments.
            sampling_period: See the call arguments.
            subcarrier_spacing: See the call arguments.

        Returns:
            `[batch, num_tokens, width]`, `[batch, context + num_horizons, width]` or `[batch,
            width]`; for Sionna's form with the axes of the links in place of `batch`: see
            `ChannelEncoder`.
        """
        form, x = self._flatten(history, array, subcarriers)
        if not self.built:
            self.build(x.shape)
        features, _, _, options = self._prepare(x, sampling_period, subcarrier_spacing)
        embeddings, _, _ = self._embed(features, **options)
        num_snapshots = self.context + self.num_horizons
        class_token = self.backbone.neighborhood.class_token
        return form.split_links(pool_embeddings(embeddings, num_snapshots, per, class_token))

    def _flatten(self, history, array, subcarriers):
        """The form of a history, and real `[links, time, num_ant, band, 2]`."""
        history = ops.convert_to_tensor(history)
        shortest = max(
            self.context, *(order + 1 for _, order in (*self.experts, *self.whole_experts))
        )
        form = ChannelForm.of(
            history,
            array=array,
            subcarriers=subcarriers,
            array_shape=self.array_shape,
            shortest=shortest,
        )
        return form, form.flatten(history)

    def _prepare(self, x, sampling_period, subcarrier_spacing):
        """Features of a flat history, its phase and scale, and options of the backbone's call."""
        scaled, scale = unit_power(x)
        bandwidth = None if subcarrier_spacing is None else subcarrier_spacing * x.shape[3]
        options = {"sampling_period": sampling_period, "bandwidth": bandwidth}
        scaled = self.transform(scaled)
        phasor = common_phasor(scaled[:, -1:])
        return self.features(turn(scaled, phasor.conj())), phasor, scale, options

    def features(self, x):
        """Everything that comes before the network; it has no trainable weights.

        Args:
            x: History in the angle-delay domain, scaled to a root mean square near one, real
                `[batch, time, angle, delay, 2]`.

        Returns:
            Dictionary: see `lwmt_sionna.models.forecasts.forecast_features`.
        """
        return forecast_features(
            x,
            self.num_horizons,
            self.experts,
            self.context,
            self.denoise_radius,
            self.num_paths,
            self.whole_experts,
        )

    def refine(self, features, training=None, sampling_period=None, bandwidth=None):
        """What the network adds to the last expert's forecast.

        Args:
            features: Dictionary that `features` returns.
            training: Whether dropout is active.
            sampling_period: In seconds, for physical positions of the backbone.
            bandwidth: In hertz, for physical positions of the backbone.

        Returns:
            Real `[batch, horizon, angle, delay, 2]`, angle-delay domain.
        """
        embeddings, amplitude, motion = self._embed(features, training, sampling_period, bandwidth)
        choices = _by_horizon(features["forecasts"])
        shape = (self.num_horizons, *choices.shape[2:4])
        num_snapshots, *patches = self.backbone.grid((self.context + shape[0], *shape[1:]))
        per_snapshot = patches[0] * patches[1]
        first, last = self.context * per_snapshot, num_snapshots * per_snapshot
        embeddings = embeddings[:, first:last]
        decisions = self.head(embeddings)
        if isinstance(self.backbone.routing, EnergyRouting):
            # Patches that the network has not looked at keep the last expert's forecast.
            seen = ops.any(ops.not_equal(embeddings, 0), axis=-1, keepdims=True)
            decisions = decisions * ops.cast(seen, decisions.dtype)
        decisions = unpatchify(decisions, shape, self.backbone.patch)
        gates, residual = decisions[..., :-2], decisions[..., -2:]
        if motion is not None:
            residual = turn(residual, motion.map(lambda m: m[:, self.context :]))
        return ops.sum(gates[..., None] * choices, axis=-2) + amplitude * residual

    def _embed(self, features, training=None, sampling_period=None, bandwidth=None):
        """Embeddings of all tokens, and the amplitude and motion of every bin's patch."""
        clean, observed, forecasts = (features[n] for n in ("clean", "observed", "forecasts"))
        motion = None
        if self.local_motion:
            whole = ops.concatenate([clean, forecasts[:, -1]], axis=1)
            motion = local_motion(whole, self.backbone.patch)
            back = motion.conj()
            past, ahead = (
                back.map(lambda m, part=part: m[:, part])
                for part in (slice(None, self.context), slice(self.context, None))
            )
            clean, observed = turn(clean, past), turn(observed, past)
            forecasts = ops.stack(
                [turn(forecasts[:, e], ahead) for e in range(self._num_forecasts)], axis=1
            )
        noise = features["noise"][:, None, None, None, None]
        patch = self.backbone.patch
        grid = self.backbone.grid((self.context + self.num_horizons, *clean.shape[2:4]))
        amplitude = self._local_amplitude(clean, noise)
        unit = 1.0 / amplitude
        tokens = self.backbone.tokens(ops.concatenate([clean, forecasts[:, -1]], axis=1) * unit)
        past = self.observed_features(patchify(observed * unit, patch))
        choices = _by_horizon(forecasts)
        flat = ops.reshape(choices, (-1, *choices.shape[1:4], 2 * self._num_forecasts))
        # Future tokens are hidden ones that hold forecasts: they carry the mask embedding as well.
        ahead = self.forecast_features(patchify(flat * unit, patch))
        if self.backbone.mask_embedding is not None:
            ahead = ahead + ops.cast(self.backbone.mask_embedding, ahead.dtype)
        levels = self._levels(amplitude, features["misfit"], noise)
        tokens = tokens + ops.concatenate([past, ahead], axis=1)
        tokens = tokens + ops.tile(levels, (1, grid[0], 1))
        energy = None
        if isinstance(self.backbone.routing, EnergyRouting):
            energy = ops.mean(patchify(ops.square(amplitude), patch), axis=-1)
            energy = ops.tile(energy, (1, grid[0]))
        embeddings = self.backbone.encode(
            tokens,
            grid,
            energy=energy,
            time_origin=self.context - 1,
            num_angle=clean.shape[2],
            sampling_period=sampling_period,
            bandwidth=bandwidth,
            training=training,
        )
        return embeddings, amplitude, motion

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
        for column in range(misfit.shape[-1]):
            power = patchify(misfit[:, None, ..., column : column + 1], patch)
            power = ops.mean(power, axis=-1, keepdims=True)
            features.append(ops.log(power + 1e-3 * noise[:, 0, 0] + _TINY) - level)
        return self.level_features(0.2 * ops.concatenate(features, axis=-1))

    def compute_output_shape(self, history_shape):
        shape = list(history_shape)
        shape[5 if len(shape) == 7 else 1] = self.num_horizons
        return tuple(shape)

    def compute_output_spec(self, history, num_horizons=None, **kwargs):
        shape = list(self.compute_output_shape(history.shape))
        if num_horizons is not None:
            shape[5 if len(shape) == 7 else 1] = num_horizons
        return keras.KerasTensor(shape, dtype=history.dtype)

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None):
        """Loads a predictor from a preset.

        Args:
            preset: Name of a shipped preset (see `lwmt_sionna.models.list_presets`), or path of a
                folder written by `save_to_preset`.
            load_weights: Whether to load weights; without, they are random, which is the only
                choice where a preset is an architecture alone.
            dtype: Precision or policy in place of the saved one, such as "mixed_bfloat16".

        Returns:
            `ChannelPredictor`.
        """
        return load_preset(preset, cls, load_weights=load_weights, dtype=dtype)

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
            num_paths=self.num_paths,
            array_shape=None if self.array_shape is None else list(self.array_shape),
            num_delay=self.num_delay,
            first_delay=self.first_delay,
            local_motion=self.local_motion,
            whole_experts=[list(pair) for pair in self.whole_experts],
        )
        return config


def _by_horizon(forecasts):
    """Moves the experts of `[batch, expert, horizon, angle, delay, 2]` behind the bins."""
    return ops.transpose(forecasts, (0, 2, 3, 4, 1, 5))
