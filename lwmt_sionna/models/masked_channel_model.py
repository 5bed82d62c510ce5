"""Masked channel modelling: the self-supervised task."""

import keras
from keras import ops

from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.presets import load_preset, save_preset
from lwmt_sionna.ops.patches import patchify, unpatchify

__all__ = ["MaskedChannelModel"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class MaskedChannelModel(keras.Model):
    """Reconstructs hidden tokens of a channel sequence from the visible ones.

    Trained with `fit` on dictionaries of channels and masks, with the channels (clean, where the
    input is impaired) as targets; the loss is the squared error on the hidden tokens over their
    power, per sequence.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `"channel"`, angle-delay domain, real `[batch, time, angle, delay,
            2]`, and `"mask"`, bool `[batch, num_tokens]`, true where a token is hidden (may be left
            out in calls). For physical positions also `"sampling_period"` (seconds) and
            `"bandwidth"` (hertz), `[batch]` or `[batch, 1]`.

    Returns:
        Reconstruction, real `[batch, time, angle, delay, 2]`.
    """

    def __init__(self, backbone, **kwargs):
        super().__init__(**kwargs)
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        if not isinstance(backbone, LWMTBackbone):
            raise ValueError(f"`backbone` must be an LWMTBackbone. Received: backbone={backbone}")
        self.backbone = backbone
        patch = backbone.patch
        self.head = keras.layers.Dense(
            patch[0] * patch[1] * 2, name="head", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        channel_shape = (None, None, None, None, 2)
        if not self.backbone.built:
            self.backbone.build(channel_shape)
        self.head.build((channel_shape[0], None, self.backbone.width))
        self.built = True

    def call(self, inputs, training=None):
        channel = inputs["channel"]
        embeddings = self.backbone(
            channel,
            mask=inputs.get("mask"),
            sampling_period=inputs.get("sampling_period"),
            bandwidth=inputs.get("bandwidth"),
            training=training,
        )
        if self.backbone.neighborhood.class_token:
            embeddings = embeddings[:, :-1]
        return unpatchify(self.head(embeddings), channel.shape[1:4], self.backbone.patch)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Normalised squared error on the hidden tokens, mean over the batch."""
        patch = self.backbone.patch
        hidden = ops.cast(x["mask"], y_pred.dtype)[..., None]
        target = patchify(ops.cast(y, y_pred.dtype), patch)
        error = ops.sum(hidden * ops.square(patchify(y_pred, patch) - target), axis=(1, 2))
        power = ops.sum(hidden * ops.square(target), axis=(1, 2))
        return ops.mean(error / (power + 1e-12))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape["channel"])

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None):
        """Loads a model from a preset: see `ChannelPredictor.from_preset`."""
        return load_preset(preset, cls, load_weights=load_weights, dtype=dtype)

    def save_to_preset(self, folder, metadata=None, readme=None):
        """Writes configuration, weights and metadata: see `ChannelPredictor.save_to_preset`."""
        save_preset(self, folder, metadata=metadata, readme=readme)

    def get_config(self):
        config = super().get_config()
        config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        return config
