"""Channel estimation: noisy, sparse pilots in, whole channels out."""

import math
from typing import Any

import keras
from keras import ops

from lwmt_sionna.models.channel_model import as_links
from lwmt_sionna.models.losses import LogNormalizedError
from lwmt_sionna.models.normalization import Frame, unit_power
from lwmt_sionna.models.task_model import Backbone, BackboneTask
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.ops.pilots import estimate_from_pilots
from lwmt_sionna.typing import Tensor

__all__ = ["ChannelEstimator"]


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelEstimator(BackboneTask):
    """Estimates whole channels from noisy pilots, sparse in time, antennas and subcarriers.

    A Wiener filter whose statistics the pilots tell (`lwmt_sionna.ops.pilots`) comes first. The
    backbone sees what it finds, with what it leaves of the pilots embedded beside, and a linear
    head adds what is missing, at the scale and with the motion of every patch. Untrained, that is
    nothing. Trained by true channels in the form of `h`; the loss is the normalised error in
    decibels.

    Args:
        backbone: See `BackboneTask`.
        **kwargs: `array_shape`, `num_delay` and `first_delay`, see `ChannelEncoder`, and arguments
            of `keras.Model`.

    Call arguments:
        inputs: Dictionary of `"h"`, channels in one of the forms of `ChannelEncoder`; `"mask"`,
            bool `[batch, time, num_ant, num_subcarriers]`, the same for all links of a user, of
            size 1 where an axis does not matter: true where there is no pilot, as on null
            subcarriers. What `h` holds there has no effect. For physical positions also
            `"sampling_period"` and `"subcarrier_spacing"`, as `TaskModel` has them; for trainings
            also `"start"`, what `start` returns, so that it is computed once.
        array: Which end of Sionna's links has the array: `"tx"` or `"rx"`.
        training: Whether dropout is active.

    Returns:
        Channels in the form of `h`.

    Example:

    >>> estimator = ChannelEstimator(LWMTBackbone(depth=2, patch=(4, 4)))
    >>> h = keras.random.normal((8, 16, 32, 32, 2))
    >>> mask = keras.random.uniform((8, 16, 32, 32)) < 0.75
    >>> estimator({"h": h, "mask": mask}).shape
    TensorShape([8, 16, 32, 32, 2])
    """

    _INPUTS = (*BackboneTask._INPUTS, "mask", "start")

    def __init__(self, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(backbone, LogNormalizedError(), **kwargs)
        zeros = {"kernel_initializer": "zeros", "dtype": "float32"}
        # A pretrained backbone sees at first what it has been trained on.
        self.pilot_features = keras.layers.Dense(self.backbone.width, name="pilots", **zeros)
        self.head = keras.layers.Dense(2 * math.prod(self.backbone.patch), name="head", **zeros)

    def build(self, h_shape: Any = None) -> None:
        super().build(h_shape)
        if not self.head.built:
            self.pilot_features.build((None, None, 2 * math.prod(self.backbone.patch)))
            self.head.build((None, None, self.backbone.width))

    def call(
        self,
        inputs: dict[str, Tensor],
        array: str = "tx",
        training: bool | None = None,
    ) -> Tensor:
        form, x, options = self._pilots(inputs, array)
        return form.restore(self._run(self._estimate, x, training=training, **options))

    def start(self, inputs: dict[str, Tensor], array: str = "tx") -> Tensor:
        """What the estimate starts from: the Wiener filter alone.

        Args:
            inputs: See the call arguments.
            array: See the call arguments.

        Returns:
            Channels in the form of `h`.
        """
        form, x, options = self._pilots(inputs, array)
        return form.restore(self._run(self._start, x, mask=options["mask"]))

    def _pilots(self, inputs, array):
        form, x, given, options = self._read(inputs, array)
        mask, start = given.get("mask"), given.get("start")
        shape = () if mask is None else tuple(mask.shape)
        if len(shape) != 4 or any(
            m not in (1, n) for m, n in zip(shape[1:], x.shape[1:4], strict=True)
        ):
            raise ValueError(
                "An estimator needs `mask`, true where there is no pilot, [batch, time, num_ant, "
                f"num_subcarriers] or sizes of 1. Received: mask.shape={shape} for "
                f"h.shape={form.shape}"
            )
        mask = ops.repeat(ops.cast(mask, "bool"), form.links_per_user, axis=0)
        options["mask"] = ops.logical_or(mask, ops.zeros_like(x[..., 0], dtype="bool"))
        if start is not None:
            options["start"] = as_links(start, array=array)[1]
        return form, x, options

    def _start(self, x, mask=None, training=None):
        hidden = ops.cast(mask, "bool")
        unit, scale = unit_power(ops.where(hidden[..., None], ops.zeros_like(x), x))
        h = estimate_from_pilots(unit, hidden, self.transform.array_shape)
        return ops.cast(h, x.dtype) * scale

    def _estimate(self, x, mask=None, start=None, training=None, **options):
        hidden = ops.cast(mask, "bool")
        start = self._start(x, hidden) if start is None else start
        frame, seen = Frame.of(start, self.transform)
        left = frame.into(ops.where(hidden[..., None], ops.zeros_like(x), x - start))
        embeddings, back = self.masked.encode(
            {"channel": seen, **options},
            self.pilot_features(patchify(left, self.backbone.patch)),
            training,
        )
        missing = ops.cast(back(self.head(embeddings)), "float32")
        return start + frame.back(missing, x.shape[3])
