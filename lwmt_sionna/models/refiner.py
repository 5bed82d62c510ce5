"""What a network makes of the forecasts of physics: weights for each, and what they miss."""

from typing import Any

import keras
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.normalization import turn
from lwmt_sionna.models.physics import Forecasts, Physics
from lwmt_sionna.ops import EnergyRouting
from lwmt_sionna.ops.patches import local_motion, patchify, unpatchify
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["Refiner"]

_TINY = 1e-12
# Least power over that of the noise that an expert is taken to have missed.
_LEAST_DOUBT = 0.05


class Refiner(PlainErrors, keras.layers.Layer):
    """The part of a `ChannelPredictor` that has weights.

    The last snapshots and the forecasts of every angle-delay patch, scaled by its amplitude, become
    the tokens of the backbone. From the embeddings of the horizons, a linear head reads how much of
    each forecast to keep, bin by bin, and what to add. Untrained, that is nothing.

    Args:
        backbone: `LWMTBackbone`.
        physics: `Physics` whose forecasts it refines.
        local_motion: Whether the backbone sees every patch turned back by its phase and Doppler
            shift: see `MaskedChannelModel`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: `Forecasts`.
        sampling_period: In seconds, for physical positions of the backbone. Without both of these,
            a snapshot and a delay bin are one step of its `position_units`.
        bandwidth: In hertz, for physical positions of the backbone.
        training: Whether dropout is active.

    Returns:
        What is added to the starting point, real `[batch, horizon, angle, delay, 2]`, angle-delay
        domain.
    """

    def __init__(
        self, backbone: LWMTBackbone, physics: Physics, local_motion: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self.physics = physics
        self.local_motion = bool(local_motion)
        for name in ("observed_features", "forecast_features", "level_features"):
            layer = keras.layers.Dense(backbone.width, name=name, dtype=self.dtype_policy)
            setattr(self, name, layer)
        # Zero weights: before training the predictor is its starting point, exactly.
        self.head = keras.layers.Dense(
            backbone.patch[0] * backbone.patch[1] * (physics.num_forecasts + 2),
            kernel_initializer="zeros",
            name="head",
            dtype="float32",
        )

    def build(self, *shapes: Shape) -> None:
        values = self.backbone.patch[0] * self.backbone.patch[1] * 2
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        self.observed_features.build((None, None, values))
        self.forecast_features.build((None, None, values * self.physics.num_forecasts))
        # The patch's amplitude and the noise come before the misfits.
        self.level_features.build((None, None, 2 + self.physics.num_misfits))
        self.head.build((None, None, self.backbone.width))

    def call(
        self,
        features: Forecasts,
        sampling_period: Tensor | None = None,
        bandwidth: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        embeddings, amplitude, motion = self._encode(features, sampling_period, bandwidth, training)
        choices = _experts_last(features.forecasts)
        shape = (self.physics.num_horizons, *choices.shape[2:4])
        num_ahead, *patches = self.backbone.grid(shape)
        per_snapshot = patches[0] * patches[1]
        first = self.physics.context * per_snapshot
        embeddings = embeddings[:, first : first + num_ahead * per_snapshot]
        decisions = self.head(embeddings)
        if isinstance(self.backbone.routing, EnergyRouting):
            # Patches that the network has not looked at keep the starting point.
            seen = ops.any(ops.not_equal(embeddings, 0), axis=-1, keepdims=True)
            decisions = decisions * ops.cast(seen, decisions.dtype)
        decisions = unpatchify(decisions, shape, self.backbone.patch)
        gates, residual = decisions[..., :-2], decisions[..., -2:]
        if self.physics.backtest:
            doubt = self._doubt(features, amplitude)
            start = doubt[..., None] * choices[..., -1:, :]
            choices = ops.concatenate([choices[..., :-1, :], start], axis=-2)
            amplitude = ops.sqrt(doubt) * amplitude
        if motion is not None:
            residual = turn(residual, motion.map(lambda m: m[:, self.physics.context :]))
        return ops.sum(gates[..., None] * choices, axis=-2) + amplitude * residual

    def embed(
        self,
        features: Forecasts,
        sampling_period: Tensor | None = None,
        bandwidth: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of the last snapshots and of the horizons, `[batch, num_tokens, width]`."""
        return self._encode(features, sampling_period, bandwidth)[0]

    def _encode(self, features, sampling_period=None, bandwidth=None, training=None):
        """Embeddings of all tokens, and the amplitude and motion of every bin's patch."""
        context, patch = self.physics.context, self.backbone.patch
        clean, observed, forecasts = features.clean, features.observed, features.forecasts
        motion = None
        if self.local_motion:
            motion = local_motion(ops.concatenate([clean, features.start], axis=1), patch)
            back = motion.conj()
            past, ahead = (
                back.map(lambda m, part=part: m[:, part])
                for part in (slice(None, context), slice(context, None))
            )
            clean, observed = turn(clean, past), turn(observed, past)
            forecasts = ops.stack(
                [turn(forecasts[:, e], ahead) for e in range(forecasts.shape[1])], axis=1
            )
        noise = features.noise[:, None, None, None, None]
        shape = (context + self.physics.num_horizons, *clean.shape[2:4])
        amplitude = self._local_amplitude(clean, noise)
        unit = 1.0 / amplitude
        tokens = self.backbone.tokens(ops.concatenate([clean, forecasts[:, -1]], axis=1) * unit)
        past = self.observed_features(patchify(observed * unit, patch))
        choices = _experts_last(forecasts)
        flat = ops.reshape(choices, (-1, *choices.shape[1:4], 2 * choices.shape[4]))
        # Future tokens are hidden ones that hold forecasts: they carry the mask embedding as well.
        ahead = self.forecast_features(patchify(flat * unit, patch))
        if self.backbone.mask_embedding is not None:
            ahead = ahead + ops.cast(self.backbone.mask_embedding, ahead.dtype)
        levels = self._levels(amplitude, features.misfit, noise)
        tokens = tokens + ops.concatenate([past, ahead], axis=1)
        tokens = tokens + ops.tile(levels, (1, shape[0], 1))
        energy = None
        if isinstance(self.backbone.routing, EnergyRouting):
            energy = ops.mean(patchify(ops.square(amplitude), patch), axis=-1)
            energy = ops.tile(energy, (1, shape[0]))
        units = self.backbone.position_units
        if units is not None and sampling_period is None and bandwidth is None:
            sampling_period, bandwidth = units[0], 1.0 / units[2]
        embeddings = self.backbone.encode(
            tokens,
            shape,
            energy=energy,
            time_origin=context - 1,
            sampling_period=sampling_period,
            bandwidth=bandwidth,
            training=training,
        )
        return embeddings, amplitude, motion

    def _local_amplitude(self, clean, noise):
        """Amplitude of every patch, spread over its bins: `[batch, 1, angle, delay, 1]`."""
        power = ops.mean(ops.sum(ops.square(clean), axis=-1, keepdims=True), axis=1)
        level = ops.sqrt(self._over_patches(power) + 0.1 * noise[:, 0, 0] + _TINY)
        return self._over_bins(level, clean.shape[2:4])

    def _doubt(self, features, amplitude):
        """Share of every patch's power that the best expert has missed in the held-out snapshots.

        What is said of the starting point itself, and what is added, is in proportion to it: where
        physics is right to a hundredth, a network that is right to a tenth of it costs nothing.
        """
        missed = self._over_patches(features.misfit[..., : self.physics.num_experts])
        missed = ops.min(missed, axis=-1, keepdims=True)
        noise = features.noise[:, None, None]
        missed = ops.maximum(missed - noise, _LEAST_DOUBT * noise) + _TINY
        missed = self._over_bins(missed, amplitude.shape[2:4])
        return missed / (missed + ops.square(amplitude))

    def _levels(self, amplitude, misfit, noise):
        """Embeds the amplitude of every patch, and the experts' misfits, against the noise."""
        floor = ops.log(noise[:, 0, 0] + _TINY)
        level = 2.0 * ops.log(self._over_patches(amplitude[:, 0]))
        missed = ops.log(self._over_patches(misfit) + 1e-3 * noise[:, 0, 0] + _TINY) - level
        features = [level - floor, ops.zeros_like(level) + floor, missed]
        return self.level_features(0.2 * ops.concatenate(features, axis=-1))

    def _over_patches(self, x):
        """Means over the bins of patches: `[batch, angle, delay, n]` to `[batch, patch, n]`."""
        values = patchify(x[:, None], self.backbone.patch)
        values = ops.reshape(
            values, (-1, values.shape[1], values.shape[2] // x.shape[-1], x.shape[-1])
        )
        return ops.mean(values, axis=2)

    def _over_bins(self, level, grid):
        """A value of every patch for its bins: `[batch, patch, 1]` to `[batch, 1, *grid, 1]`."""
        patch = self.backbone.patch
        return unpatchify(ops.tile(level, (1, 1, patch[0] * patch[1])), (1, *grid), patch)


def _experts_last(forecasts):
    """`[batch, expert, horizon, angle, delay, 2]` with the experts before the last axis."""
    return ops.transpose(forecasts, (0, 2, 3, 4, 1, 5))
