"""Embeddings of channels as users hold them."""

import keras
import numpy as np

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone
from lwmt_sionna.models.channel_form import ChannelForm
from lwmt_sionna.models.embedding import pool_embeddings
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.presets import load_preset, save_preset

__all__ = ["ChannelEncoder"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelEncoder(keras.Model):
    """Channels in, embeddings out: normalisation, angle-delay transform and backbone in one.

    Args:
        backbone: `LWMTBackbone`, or its serialised form.
        per: `"token"`, `"snapshot"` (mean over its tokens) or `"sequence"` (the class token, or the
            mean over all tokens).
        array_shape: Number of rows, columns and polarisations of the array; a linear array if left
            out.
        num_delay: Delay bins to work on. Defaults to all.
        first_delay: First of those bins, below 0 for bins before delay 0.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        h: Channels in one of three forms: complex `[batch, time, num_ant, num_subcarriers]`; real
            `[batch, time, num_ant, num_subcarriers, 2]`; or Sionna's complex `[batch, num_rx,
            num_rx_ant, num_tx, num_tx_ant, time, num_subcarriers]`. Their magnitude has no effect.
            A link that holds NaN or infinity gets NaN.
        array: Which end of Sionna's links has the array: `"tx"` (downlink) or `"rx"` (uplink).
        subcarriers: Indices of the effective subcarriers, if the grid has null ones: see
            `ChannelPredictor`.
        sampling_period: Time between snapshots in seconds; for physical positions of the backbone.
        subcarrier_spacing: In hertz; for physical positions of the backbone.
        training: Whether dropout is active.

    Returns:
        `[batch, num_tokens, width]`, `[batch, time, width]` or `[batch, width]`. For Sionna's form,
        the links take the place of `batch`: `[batch, num_rx, num_rx_ant, num_tx, ...]`, or `[batch,
        num_rx, num_tx, num_tx_ant, ...]` for an array at the receiver.

    Example:

    >>> encoder = ChannelEncoder(LWMTBackbone(depth=2, patch=(4, 4)), per="sequence")
    >>> encoder(keras.random.normal((8, 16, 32, 32, 2))).shape
    TensorShape([8, 32])
    """

    def __init__(
        self, backbone, per="token", array_shape=None, num_delay=None, first_delay=0, **kwargs
    ):
        # The physics in front of the network stays in the precision of its input.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        if not isinstance(backbone, LWMTBackbone):
            raise ValueError(f"`backbone` must be an LWMTBackbone. Received: backbone={backbone}")
        if per not in ("token", "snapshot", "sequence"):
            raise ValueError(
                f"`per` must be 'token', 'snapshot' or 'sequence'. Received: per={per!r}"
            )
        self.backbone = backbone
        self.per = per
        self.transform = AngleDelayTransform(
            array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )

    def build(self, h_shape):
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        self.built = True

    def __call__(self, h, *args, subcarriers=None, **kwargs):
        # Indices decide shapes: they must not become tensors of a graph on their way to `call`.
        if subcarriers is not None:
            kwargs["subcarriers"] = tuple(int(i) for i in np.asarray(subcarriers).reshape(-1))
        return super().__call__(h, *args, **kwargs)

    def call(
        self,
        h,
        array="tx",
        subcarriers=None,
        sampling_period=None,
        subcarrier_spacing=None,
        training=None,
    ):
        array_shape = self.transform.array_shape
        form = ChannelForm.of(h, array=array, subcarriers=subcarriers, array_shape=array_shape)
        x = form.flatten(h)
        bandwidth = None if subcarrier_spacing is None else subcarrier_spacing * x.shape[3]
        embeddings = self.backbone(
            self.transform(unit_power(x)[0]),
            sampling_period=sampling_period,
            bandwidth=bandwidth,
            training=training,
        )
        class_token = self.backbone.neighborhood.class_token
        return form.split_links(pool_embeddings(embeddings, x.shape[1], self.per, class_token))

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None):
        """Loads an encoder from a preset: see `ChannelPredictor.from_preset`."""
        return load_preset(preset, cls, load_weights=load_weights, dtype=dtype)

    def save_to_preset(self, folder, metadata=None, readme=None):
        """Writes configuration, weights and metadata: see `ChannelPredictor.save_to_preset`."""
        save_preset(self, folder, metadata=metadata, readme=readme)

    def get_config(self):
        config = super().get_config()
        transform = self.transform.get_config()
        config.update(
            backbone=keras.saving.serialize_keras_object(self.backbone),
            per=self.per,
            **{name: transform[name] for name in ("array_shape", "num_delay", "first_delay")},
        )
        return config
