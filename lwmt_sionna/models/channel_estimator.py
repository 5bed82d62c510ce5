"""Channel estimation: noisy, sparse pilots in, whole channels out."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from lwmt_sionna.models.channel_model import as_links
from lwmt_sionna.models.losses import LogNormalizedError
from lwmt_sionna.models.normalization import Frame, turn, unit_power
from lwmt_sionna.models.task_model import Backbone, BackboneTask
from lwmt_sionna.ops.complex import ComplexPair
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.ops.pilots import estimate_from_pilots
from lwmt_sionna.typing import Array, Tensor

__all__ = ["ChannelEstimator", "HeadSums"]


class HeadSums(NamedTuple):
    """What squared errors of a linear head depend on, link by link; the head itself need not run.

    A link is estimated with the squared error `error - 2 <cross, w> + <w, gram w>` by the weights
    `w` of a head, those of the bias in its last row.

    Attributes:
        gram: float32 `[num_links, width + 1, width + 1]`.
        cross: float32 `[num_links, width + 1, outputs]`.
        error: Squared error of the start over the power of the channel, float32 `[num_links]`.
    """

    gram: Array
    cross: Array
    error: Array

    def select(self, index: Any) -> "HeadSums":
        """The sums of some links, by any NumPy index."""
        return HeadSums(*(value[index] for value in self))

    def errors(self, weights: Array) -> Array:
        """Normalised errors with some weights `[width + 1, outputs]`, float `[num_links]`."""
        linear = np.einsum("nwo,wo->n", self.cross, weights)
        square = np.einsum("wo,nwv,vo->n", weights, self.gram, weights, optimize=True)
        return np.maximum(self.error - 2 * linear + square, _LEAST_ERROR)

    def solve(self, ridge: float = 1e-2) -> Array:
        """Weights `[width + 1, outputs]` of the least mean error in decibels over the links.

        Least squares, link by link weighted by the inverse of its last error, which makes the mean
        of logarithms of the mean of errors.

        Args:
            ridge: What large weights cost, over the mean of the diagonal of the sums.
        """
        weights = np.zeros(self.cross.shape[1:])
        for _ in range(_ROUNDS):
            share = 1.0 / self.errors(weights)
            gram = np.einsum("n,nwv->wv", share, self.gram.astype(np.float64))
            load = ridge * np.trace(gram) / len(gram) + _LEAST_ERROR
            cross = np.einsum("n,nwo->wo", share, self.cross.astype(np.float64))
            weights = np.linalg.solve(gram + load * np.eye(len(gram)), cross)
        return weights


# Repetitions of the weighted least squares, and a normalised error that counts as none.
_ROUNDS, _LEAST_ERROR = 5, 1e-12


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelEstimator(BackboneTask):
    """Estimates whole channels from noisy pilots, sparse in time, antennas and subcarriers.

    Paths that the pilots resolve, with amplitudes that vary, come first, or as much of a Wiener
    filter as suits rich scattering (`lwmt_sionna.ops.pilots`). The backbone sees that estimate,
    with what it leaves of the pilots embedded beside, and a linear head adds what is missing, at
    the scale and with the motion of every patch. Untrained, that is nothing. Trained by true
    channels in the form of `h`; the loss is the normalised error in decibels.

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
        """What the estimate starts from: what the pilots tell without a network.

        Args:
            inputs: See the call arguments.
            array: See the call arguments.

        Returns:
            Channels in the form of `h`.
        """
        form, x, options = self._pilots(inputs, array)
        return form.restore(self._run(self._start, x, mask=options["mask"]))

    def embed(
        self, inputs: dict[str, Tensor], h: Tensor, array: str = "tx", embeddings: bool = True
    ) -> HeadSums:
        """What the head alone is trained on, computed once: see `fit_head`.

        Args:
            inputs: See the call arguments; not many links at a time.
            h: True channels, in the form of `inputs["h"]`.
            array: See the call arguments.
            embeddings: Whether the head reads embeddings; else it reads what the backbone would
                see, the patches themselves. No head of this model does: it is to compare with.
        """
        self.build()
        _, x, options = self._pilots(inputs, array)
        truth = as_links(h, array=array)[1]
        if "start" not in options:
            options["start"] = self._run(self._start, x, mask=options["mask"])
        sums = self._run(self._sums, x, truth=truth, embeddings=embeddings, **options)
        return HeadSums(*map(ops.convert_to_numpy, sums))

    def fit_head(self, sums: HeadSums, ridge: float = 1e-2) -> None:
        """Sets the head to the best one on links, at once; what pilots tell it beside stays.

        The rest of the model is kept as it was for `embed`. The loss is that of the model, the mean
        over links of the normalised error in decibels.

        Args:
            sums: What `embed` returned, of all links for training.
            ridge: See `HeadSums.solve`.
        """
        self.build()
        weights = sums.solve(ridge)
        self.head.set_weights([weights[:-1], weights[-1]])

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
        # What is the same for all antennas stays so, which is quicker.
        options["mask"] = ops.logical_or(mask, ops.zeros_like(x[:, :, :1, :, 0], dtype="bool"))
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
        frame, _, embeddings, back = self._seen(x, hidden, start, training, options)
        missing = ops.cast(back(self.head(embeddings)), "float32")
        return start + frame.back(missing, x.shape[3])

    def _seen(self, x, hidden, start, training, options):
        frame, seen = Frame.of(start, self.transform)
        left = frame.into(ops.where(hidden[..., None], ops.zeros_like(x), x - start))
        embeddings, back = self.masked.encode(
            {"channel": seen, **options},
            self.pilot_features(patchify(left, self.backbone.patch)),
            training,
        )
        return frame, seen, embeddings, back

    def _sums(self, x, mask=None, start=None, truth=None, embeddings=True, **options):
        patch = self.backbone.patch
        hidden = ops.cast(mask, "bool")
        frame, seen, tokens, back = self._seen(x, hidden, start, None, options)
        target = frame.into(truth)
        power = ops.sum(ops.square(target), axis=(1, 2, 3, 4))
        # The way back is linear: what it makes of one in each bin are its scale and its motion.
        one = ops.tile(ops.convert_to_tensor([1.0, 0.0]), (patch[0] * patch[1],))
        shape = (*ops.shape(tokens)[:2], 2 * patch[0] * patch[1])
        factor = ops.cast(back(ops.cast(ops.broadcast_to(one, shape), tokens.dtype)), "float32")
        adjoint = ComplexPair.from_stacked(factor).conj()
        # Of the patch as a whole: bins that hang over the edge have none.
        square = patchify(ops.sum(ops.square(factor), axis=-1, keepdims=True), patch)
        square = ops.max(square, axis=-1, keepdims=True)
        goal = patchify(turn(target - seen, adjoint), patch)
        if not embeddings:
            tokens = patchify(turn(seen, adjoint), patch) / ops.maximum(square, _LEAST_ERROR)
        tokens = ops.cast(tokens, "float32")
        tokens = ops.concatenate([tokens, ops.ones_like(tokens[..., :1])], axis=-1)
        share = 1.0 / ops.maximum(power, _LEAST_ERROR)[:, None, None]
        # n link, t token, w width, o output
        gram = share * ops.einsum("ntw,ntv->nwv", tokens * square, tokens)
        cross = share * ops.einsum("ntw,nto->nwo", tokens, goal)
        error = ops.sum(ops.square(target - seen), axis=(1, 2, 3, 4)) * share[:, 0, 0]
        return gram, cross, error
