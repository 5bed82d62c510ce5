"""Masked channel modelling: the self-supervised task."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from lwmt_sionna.models.backbone import LWMTBackbone, get_backbone
from lwmt_sionna.models.losses import token_error
from lwmt_sionna.models.normalization import turn
from lwmt_sionna.models.presets import PresetModel
from lwmt_sionna.ops import EnergyRouting
from lwmt_sionna.ops.patches import local_motion, patchify, unpatchify
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["MaskedChannelModel"]

_TINY = 1e-12
# Power of the faintest patches, relative to the mean: below lies nothing but noise.
_FAINTEST = 1e-3


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class MaskedChannelModel(PresetModel):
    """Reconstructs hidden tokens of a channel sequence from the visible ones.

    Trained with `fit` on dictionaries of channels and masks, with the channels (clean, where the
    input is impaired) as targets; the loss is the squared error on the hidden tokens over their
    power, per sequence.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        local_scale: Whether every angle-delay patch is brought to the scale of its visible
            snapshots before the backbone, and back after the head. Weak paths then look like
            strong ones, as they do to the backbone of a `ChannelPredictor`; the scale itself is
            embedded beside.
        local_motion: Whether every angle-delay patch is turned back by the phase and the Doppler
            shift of its visible snapshots before the backbone, and forth again after the head: see
            `lwmt_sionna.ops.patches`. Paths then stand still, and what is hidden resembles
            its neighbours in time.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `"channel"`, angle-delay domain, real `[batch, time, angle, delay,
            2]`, and `"mask"`, bool `[batch, num_tokens]`, true where a token is hidden (may be left
            out in calls). For training also `"wanted"`, bool `[batch, num_tokens]`, the tokens that
            the loss counts, if they are others than the hidden ones. For physical positions also
            `"sampling_period"` (seconds) and `"bandwidth"` (hertz), `[batch]` or `[batch, 1]`.

    Returns:
        Reconstruction, real `[batch, time, angle, delay, 2]`.
    """

    def __init__(
        self,
        backbone: LWMTBackbone | dict[str, Any],
        local_scale: bool = False,
        local_motion: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone = get_backbone(backbone)
        self.local_scale = bool(local_scale)
        self.local_motion = bool(local_motion)
        patch = backbone.patch
        self.head = keras.layers.Dense(
            patch[0] * patch[1] * 2, name="head", dtype=self.dtype_policy
        )
        self.level_features: Any = None
        if self.local_scale:
            self.level_features = keras.layers.Dense(
                backbone.width, name="level_features", dtype=self.dtype_policy
            )

    def build(self, input_shape: Any = None) -> None:
        channel_shape = (None, None, None, None, 2)
        if not self.backbone.built:
            self.backbone.build(channel_shape)
        self.head.build((channel_shape[0], None, self.backbone.width))
        if self.level_features is not None:
            self.level_features.build((None, None, 1))
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        embeddings, back = self.encode(inputs, training=training)
        return back(self.head(embeddings))

    def encode(
        self,
        inputs: dict[str, Tensor],
        extra: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Embeddings, and the way back to channels for what heads read from them.

        Args:
            inputs: See the call arguments.
            extra: What is added to the embedded patches, `[batch, num_tokens, width]`.
            training: Whether dropout is active.

        Returns:
            Embeddings of the patches `[batch, num_tokens, width]`, and a function from values of
            patches, `[batch, num_tokens, patch[0] * patch[1] * 2]`, to `[batch, time, angle, delay,
            2]`: put together, at the scale and with the motion of the channel.
        """
        channel, mask = inputs["channel"], inputs.get("mask")
        shape, patch = channel.shape[1:4], self.backbone.patch
        x, scale, motion, energy = channel, None, None, None
        if self.local_motion:
            visible = None if mask is None else 1.0 - ops.cast(mask, "float32")
            motion = local_motion(channel, patch, visible)
            x = ops.cast(turn(ops.cast(x, "float32"), motion.conj()), x.dtype)
        if self.local_scale:
            scale, level = self._scale(x, mask)
            scale = ops.cast(scale, x.dtype)
            x, energy = x / scale, ops.exp(level[..., 0])
        elif isinstance(self.backbone.routing, EnergyRouting):
            energy = ops.sum(ops.square(patchify(x, patch)), axis=-1)
            energy = energy if mask is None else energy * (1 - ops.cast(mask, energy.dtype))
        tokens = self.backbone.tokens(x, mask)
        if self.local_scale:
            tokens = tokens + self.level_features(level)
        embeddings = self.backbone.encode(
            tokens if extra is None else tokens + ops.cast(extra, tokens.dtype),
            shape,
            mask=mask,
            sampling_period=inputs.get("sampling_period"),
            bandwidth=inputs.get("bandwidth"),
            energy=energy,
            training=training,
        )

        def back(values):
            h = unpatchify(values, shape, patch)
            h = h if scale is None else h * scale
            return h if motion is None else ops.cast(turn(ops.cast(h, "float32"), motion), h.dtype)

        has_class = self.backbone.neighborhood.class_token
        return embeddings[:, :-1] if has_class else embeddings, back

    def _scale(self, channel, mask):
        """Amplitude of every patch over its visible snapshots, `[batch, 1, angle, delay, 1]`.

        And the logarithm of its square over the mean of all, `[batch, num_tokens, 1]`.
        """
        patch = self.backbone.patch
        num_snapshots = channel.shape[1]
        channel = ops.cast(channel, "float32")
        # Per complex bin, as `ChannelPredictor` has it.
        power = 2.0 * ops.mean(ops.square(patchify(channel, patch)), axis=-1)
        visible = ops.ones_like(power) if mask is None else 1.0 - ops.cast(mask, power.dtype)
        overall = ops.sum(power * visible, axis=1, keepdims=True) / (
            ops.sum(visible, axis=1, keepdims=True) + _TINY
        )
        over_time = (-1, num_snapshots, power.shape[1] // num_snapshots)
        power, visible = (ops.reshape(v, over_time) for v in (power * visible, visible))
        count = ops.sum(visible, axis=1)
        own = ops.sum(power, axis=1) / ops.maximum(count, 1.0)
        # A patch that is never seen is taken for an average one.
        own = ops.where(count > 0, own, overall) + _FAINTEST * overall + _TINY
        spread = ops.tile(ops.sqrt(own)[..., None], (1, 1, patch[0] * patch[1]))
        scale = unpatchify(spread, (1, *channel.shape[2:4]), patch)
        level = ops.log(own) - ops.log(overall + _TINY)
        return scale, ops.tile(0.2 * level, (1, num_snapshots))[..., None]

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Normalised squared error on the hidden tokens, mean over the batch."""
        wanted = x["wanted"] if "wanted" in x else x["mask"]
        return ops.mean(token_error(y, y_pred, wanted, self.backbone.patch))

    def compute_output_shape(self, input_shape: dict[str, Shape]) -> Shape:
        return tuple(input_shape["channel"])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        config["local_scale"] = self.local_scale
        config["local_motion"] = self.local_motion
        return config
