"""Tasks over a backbone: features, a head, a loss and metrics."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone, get_backbone
from lwmt_sionna.models.channel_model import ChannelModel, as_links, bandwidth_of
from lwmt_sionna.models.masked_channel_model import MaskedChannelModel
from lwmt_sionna.models.normalization import Frame
from lwmt_sionna.ops.patches import patchify
from lwmt_sionna.typing import Array, Tensor

__all__ = ["Backbone", "BackboneTask", "TaskModel"]

Backbone = LWMTBackbone | MaskedChannelModel | dict[str, Any]
# Patches fainter than this, relative to the mean power, are all alike.
_FAINTEST = 1e-4
# Levels are told in doublings of power: in decades they are lost among hundreds of numbers.
_PER_DECADE = 1.0 / math.log10(2.0)
_TINY = 1e-30


class BackboneTask(ChannelModel):
    """Base of models that solve a task over a backbone, with the task's own loss and metrics.

    Args:
        backbone: `LWMTBackbone`, or `MaskedChannelModel` with all that it does to channels before
            its backbone (its own head is set aside: it is not trained any more); or the serialised
            form. `task.backbone` is the `LWMTBackbone`, which may be frozen (`trainable = False`)
            or adapted (`enable_lora`).
        loss: Loss as `compile` takes it: a name, an object or a registered function.
        metrics: Metrics of the same kinds.
        array_shape: See `ChannelEncoder`, as `num_delay` and `first_delay`.
        **kwargs: Arguments of `keras.Model`.
    """

    # Names of what a call takes in a dictionary.
    _INPUTS: tuple[str, ...] = ("h", "sampling_period", "subcarrier_spacing")

    def __init__(
        self,
        backbone: Backbone,
        loss: Any,
        metrics: Sequence[Any] = (),
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        if not isinstance(backbone, MaskedChannelModel):
            backbone = get_backbone(backbone)
            policy = backbone.dtype_policy
            backbone = MaskedChannelModel(backbone, name="masked_channel_model", dtype=policy)
        self.masked: Any = backbone
        self.transform = AngleDelayTransform(
            array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )
        self._objective = {
            "loss": _serialized(loss),
            "metrics": [_serialized(metric) for metric in metrics],
        }

    def build(self, h_shape: Any = None) -> None:
        if not self.masked.built:
            self.masked.build()
        self.masked.head.trainable = False
        self.built = True

    @property
    def backbone(self) -> LWMTBackbone:
        """The backbone, without what is around it."""
        return self.masked.backbone

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """As Keras has it; loss and metrics are those of the task where none are given."""
        loss = _restored(self._objective["loss"]) if loss is None else loss
        if metrics is None:
            metrics = [_restored(metric) for metric in self._objective["metrics"]]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def _read(self, inputs, array, subcarriers=None):
        """Form of the channels, every link by itself, what else was given, and physical scales."""
        given = dict(inputs) if isinstance(inputs, dict) else {"h": inputs}
        if "h" not in given or set(given) - set(self._INPUTS):
            raise ValueError(
                f"Expected channels, or a dictionary of some of {self._INPUTS} with `h` among "
                f"them. Received: keys={sorted(given)}"
            )
        shape = self.transform.array_shape
        form, x = as_links(given.pop("h"), array=array, subcarriers=subcarriers, array_shape=shape)
        period, spacing = (_of_links(given.pop(name, None), form) for name in self._INPUTS[1:3])
        scales = {"sampling_period": period, "bandwidth": bandwidth_of(x, spacing)}
        return form, x, given, scales

    def get_config(self) -> dict[str, Any]:
        transform = self.transform.get_config()
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.masked),
            **{name: transform[name] for name in ("array_shape", "num_delay", "first_delay")},
        }


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class TaskModel(BackboneTask):
    """A task over a backbone: channels become features, a head answers, a loss judges.

    Features of an angle-delay patch are its embedding in the last snapshot, the mean of its
    embeddings over time, and its power in doublings. Embeddings are those of channels of
    unit power and a common phase; the level, which tells the path loss and so the distance, reaches
    the head by that last number alone, if at all.

    A task of one's own is a head, a loss and metrics. Three ways to train: `embed` and `fit_head`,
    the head alone, on features computed once; `fit` after `task.backbone.enable_lora()`; `fit`.

    Args:
        backbone: See `BackboneTask`.
        head: Keras layer from features `[batch, angle, delay, width]` to the answer: a `Readout`,
            or any for images.
        loss: Loss as `compile` takes it: a name, an object or a registered function.
        metrics: Metrics of the same kinds.
        reference_db: Power gain of the channels, in decibels, from which powers count, so that they
            tell the path loss: -100 for cells, 0 for channels of unit power. None counts from the
            mean of each sequence: no complex factor has an effect then.
        **kwargs: `array_shape`, `num_delay` and `first_delay`, see `ChannelEncoder`, and arguments
            of `keras.Model`.

    Call arguments:
        h: Channels in one of the forms of `ChannelEncoder`; or a dictionary of `"h"` and, for
            physical positions, `"sampling_period"` (seconds) and `"subcarrier_spacing"` (hertz),
            `[batch]` or `[batch, 1]`.
        array: Which end of Sionna's links has the array: `"tx"` or `"rx"`.
        subcarriers: Indices of the effective subcarriers: see `ChannelPredictor`.
        training: Whether dropout is active.

    Returns:
        The answer of the head, `[batch, ...]`; for Sionna's form with the axes of the links in
        place of `batch`.

    Example:

    How fast is the user? `h` holds channels `[batch, time, num_ant, num_subcarriers]`, `speed`
    metres per second, `[batch, 1]`:

    >>> backbone = LWMTBackbone(depth=2, patch=(4, 4))
    >>> task = TaskModel(backbone, head=Readout(1), loss="mse", metrics=["mae"])
    >>> features = task.embed(h)
    >>> task.fit_head(features, speed, epochs=50)
    >>> task(h).shape
    TensorShape([8, 1])
    """

    # What the constructor takes in place of head, loss and metrics, where a task has its own.
    _settings: dict[str, Any] | None = None

    def __init__(
        self,
        backbone: Backbone,
        head: keras.layers.Layer | dict[str, Any],
        loss: Any,
        metrics: Sequence[Any] = (),
        reference_db: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, loss, metrics, **kwargs)
        self.head = keras.saving.deserialize_keras_object(head) if isinstance(head, dict) else head
        if not isinstance(self.head, keras.layers.Layer):
            raise ValueError(f"`head` must be a Keras layer. Received: head={head!r}")
        self.reference_db = None if reference_db is None else float(reference_db)

    def build(self, h_shape: Any = None) -> None:
        super().build(h_shape)
        if not self.head.built:
            self.head.build((None, None, None, self._width))

    @property
    def _width(self):
        return 2 * self.backbone.width + 1

    def call(
        self,
        h: Tensor | dict[str, Tensor],
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        training: bool | None = None,
    ) -> Tensor:
        form, x, _, scales = self._read(h, array, subcarriers)
        return form.split_links(self._solve(x, training=training, **scales))

    def embed(
        self,
        h: Tensor | dict[str, Tensor],
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        batch_size: int = 32,
    ) -> Array:
        """Features of channels, computed once for `fit_head`.

        Args:
            h: See the call arguments; arrays, of any number of sequences.
            array: See the call arguments.
            subcarriers: See the call arguments.
            batch_size: Sequences at a time.

        Returns:
            float32 NumPy array `[num_links, angle patches, delay patches, 2 * width + 1]`.
        """
        self.build()
        inputs = h if isinstance(h, dict) else {"h": h}
        parts = []
        for begin in range(0, max(1, len(inputs.get("h", ()))), batch_size):
            part = {name: value[begin : begin + batch_size] for name, value in inputs.items()}
            _, x, _, scales = self._read(part, array, subcarriers)
            parts.append(ops.convert_to_numpy(self._run(self.features, x, **scales)))
        return np.concatenate(parts)

    def fit_head(
        self, features: Array, labels: Array, optimizer: Any = "adam", **options: Any
    ) -> keras.callbacks.History:
        """Trains the head alone on features that were computed once.

        Args:
            features: What `embed` returns, or others for a head that nothing was built for yet:
                `[num_links, angle, delay, any width]`. The head then reads no embeddings any more.
            labels: What the loss compares answers with, one row per feature.
            optimizer: Keras optimizer or its name.
            **options: Arguments of `fit`: `epochs`, `batch_size`, `validation_data`.

        Returns:
            What `fit` returns.
        """
        model = keras.Sequential([keras.Input(features.shape[1:]), self.head])
        loss, metrics = _restored(self._objective["loss"]), self._objective["metrics"]
        model.compile(optimizer, loss, metrics=[_restored(metric) for metric in metrics])
        return model.fit(features, labels, **options)

    def errors(self, labels: Any, answers: Tensor) -> Tensor:
        """Loss of every answer of each link, `[num_links]` or `[num_links, num_answers]`.

        Args:
            labels: See `fit_head`.
            answers: Of the head.
        """
        loss: Any = keras.losses.get(_restored(self._objective["loss"]))
        return getattr(loss, "call", loss)(ops.convert_to_tensor(labels), answers)

    def features(self, x: Tensor, **options: Any) -> Tensor:
        """What the head gets.

        Args:
            x: Channels, real `[batch, time, num_ant, num_subcarriers, 2]`.
            **options: `sampling_period`, `bandwidth` and `training`, where they are known.

        Returns:
            float32 `[batch, angle patches, delay patches, 2 * width + 1]`.
        """
        training = options.pop("training", None)
        frame, x = Frame.of(x, self.transform)
        embeddings, _ = self.masked.encode({"channel": x, **options}, training=training)
        grid = self.backbone.grid(x.shape[1:4])
        embeddings = ops.cast(ops.reshape(embeddings, (-1, *grid, self.backbone.width)), "float32")
        # Per complex bin; the frame's is one on average.
        power = 2.0 * ops.mean(ops.square(patchify(x, self.backbone.patch)), axis=-1)
        power = ops.mean(ops.reshape(power, (-1, *grid, 1)), axis=1)
        level = ops.log10(power + _FAINTEST)
        if self.reference_db is not None:
            scale = ops.reshape(ops.cast(frame.peak, "float32") * frame.rms, (-1, 1, 1, 1))
            gain = 2.0 * ops.log10(ops.maximum(ops.cast(scale, "float32"), _TINY))
            level = level + gain - 0.1 * self.reference_db
        parts = [embeddings[:, -1], ops.mean(embeddings, axis=1), _PER_DECADE * level]
        return ops.concatenate(parts, axis=-1)

    def _solve(self, x, **options):
        return self._run(self._answer, x, **options)

    def _answer(self, x, **options):
        return self.head(self.features(x, **options))

    def get_config(self) -> dict[str, Any]:
        settings = self._settings
        if settings is None:
            settings = {"head": keras.saving.serialize_keras_object(self.head), **self._objective}
        return {**super().get_config(), "reference_db": self.reference_db, **settings}


def _of_links(value, form):
    """A number of every user, for each of the links."""
    if value is None:
        return None
    return ops.repeat(ops.reshape(value, (-1,)), form.links_per_user, axis=0)


def _serialized(thing):
    return thing if isinstance(thing, str | dict) else keras.saving.serialize_keras_object(thing)


def _restored(thing):
    return thing if isinstance(thing, str) else keras.saving.deserialize_keras_object(thing)
