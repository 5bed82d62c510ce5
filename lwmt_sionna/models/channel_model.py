"""Models that take channels as users hold them, compiled wherever they are called."""

import collections
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone, get_backbone
from lwmt_sionna.models.channel_form import PER, as_links, bandwidth_of, pool_embeddings
from lwmt_sionna.models.losses import as_stacked
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.presets import PresetModel
from lwmt_sionna.ops.compiled import compile_function, is_outermost
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["ChannelEncoder", "ChannelModel"]

_MAX_PROGRAMS = 16


class ChannelModel(PresetModel):
    """Base of models whose call takes channels.

    A call from Python, outside of any graph, runs as a program that is compiled once per shape:
    operation by operation, the physics in front of a network takes a hundred times as long.
    Training, symbolic calls and calls from within other programs are as Keras has them, and so are
    all calls where `run_eagerly` is set, or where the backend compiles no loops (PyTorch).
    """

    def __init__(self, **kwargs: Any) -> None:
        # The physics in front of a network stays in the precision of its input.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self._programs = _Programs()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        # Indices decide shapes: they must not become tensors of a graph on their way to `call`.
        if kwargs.get("subcarriers") is not None:
            chosen = np.asarray(kwargs["subcarriers"]).reshape(-1)
            kwargs["subcarriers"] = tuple(int(i) for i in chosen)
        return super().__call__(*args, **kwargs)

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: Tensor | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """As Keras has it; complex channels count with both of their parts."""
        return super().compute_loss(x, as_stacked(y), as_stacked(y_pred), sample_weight, training)

    def compute_metrics(
        self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As Keras has it; complex channels count with both of their parts."""
        return super().compute_metrics(x, as_stacked(y), as_stacked(y_pred), sample_weight)

    def _run(self, function, x, training=None, **options):
        """What a function of flat channels and options returns, as a compiled program if it can."""
        options = {name: value for name, value in options.items() if value is not None}
        if x.shape[0] == 0:  # no link: nothing of what one gives
            one = {n: ops.ones((1,)) if hasattr(v, "shape") else v for n, v in options.items()}
            x = ops.ones((1, *x.shape[1:]), dtype=x.dtype)
            return self._run(function, x, training, **one)[:0]
        own = [variable.value for variable in self.variables]
        if training or self.run_eagerly or not is_outermost([x, *own]):
            return function(x, training=training, **options)
        tensors = {name: value for name, value in options.items() if hasattr(value, "shape")}
        fixed = {name: value for name, value in options.items() if name not in tensors}
        key = (
            function.__name__,
            *((tuple(v.shape), str(v.dtype)) for v in (x, *tensors.values())),
            tuple(options),
            tuple(fixed.items()),
            # Layers that are replaced or adapted make other programs.
            tuple(id(v) for v in self.variables),
        )

        def run(x, *values):
            return function(x, **fixed, **dict(zip(tensors, values, strict=True)))

        program = self._programs.get(key, lambda: compile_function(run, self.variables))
        return program(x, *tensors.values())


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelEncoder(ChannelModel):
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
        self,
        backbone: LWMTBackbone | dict[str, Any],
        per: str = "token",
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if per not in PER:
            raise ValueError(f"`per` must be one of {PER}. Received: per={per!r}")
        self.backbone = get_backbone(backbone)
        self.per = per
        self.transform = AngleDelayTransform(
            array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )

    def build(self, h_shape: Shape) -> None:
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        self.built = True

    def call(
        self,
        h: Tensor,
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        sampling_period: Tensor | None = None,
        subcarrier_spacing: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        form, x = as_links(
            h, array=array, subcarriers=subcarriers, array_shape=self.transform.array_shape
        )
        embeddings = self._run(
            self._encode,
            x,
            sampling_period=sampling_period,
            bandwidth=bandwidth_of(x, subcarrier_spacing),
            training=training,
        )
        return form.split_links(embeddings)

    def _encode(self, x, **options):
        embeddings = self.backbone(self.transform(unit_power(x)[0]), **options)
        class_token = self.backbone.neighborhood.class_token
        return pool_embeddings(embeddings, x.shape[1], self.per, class_token)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        transform = self.transform.get_config()
        config.update(
            backbone=keras.saving.serialize_keras_object(self.backbone),
            per=self.per,
            **{name: transform[name] for name in ("array_shape", "num_delay", "first_delay")},
        )
        return config


class _Programs:
    """The compiled programs that were used last, in an object that Keras does not track."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[tuple, Callable] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key, make):
        with self._lock:
            program = self._kept.pop(key, None)
            self._kept[key] = program = make() if program is None else program
            while len(self._kept) > _MAX_PROGRAMS:
                self._kept.popitem(last=False)
            return program
