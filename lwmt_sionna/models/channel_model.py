"""Models that take channels in the forms in which users hold them, compiled wherever called."""

import collections
import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.angle_delay import AngleDelayTransform
from lwmt_sionna.models.backbone import LWMTBackbone, get_backbone
from lwmt_sionna.models.losses import as_stacked
from lwmt_sionna.models.masked_channel_model import MaskedChannelModel
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.models.presets import PresetModel
from lwmt_sionna.ops.compiled import (
    call_untraced,
    compile_function,
    is_outermost,
    is_traced,
    piece,
    runs_by_row,
)
from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked
from lwmt_sionna.ops.subcarriers import check_subcarriers, fill_nulls, restore_nulls
from lwmt_sionna.typing import Shape, Tensor

__all__ = [
    "ChannelEncoder",
    "ChannelForm",
    "ChannelModel",
    "as_links",
    "bandwidth_of",
    "pool_embeddings",
]

_MAX_PROGRAMS = 16


class ChannelModel(PresetModel):
    """Base of models whose call takes channels.

    A call from Python, outside of any graph, runs as a program that is compiled once per shape:
    operation by operation, the physics in front of a network takes a hundred times as long.
    Training, symbolic calls and calls from within other programs are as Keras has them, and so are
    all calls where `run_eagerly` is set. On PyTorch calls are eager unless they come from
    `torch.compile`, or the model was compiled with `jit_compile=True`.
    """

    def __init__(self, **kwargs: Any) -> None:
        # The physics in front of a network stays in the precision of its input.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self._programs = _Programs()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if is_traced():
            return call_untraced(self.__call__, *args, **kwargs)
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
            one = {
                n: ops.ones((1, *v.shape[1:])) if hasattr(v, "shape") else v
                for n, v in options.items()
            }
            x = ops.ones((1, *x.shape[1:]), dtype=x.dtype)
            return self._run(function, x, training, **one)[:0]
        own = [variable.value for variable in self.variables]
        if training or self.run_eagerly or not is_outermost([x, *own], asked=self.jit_compile):
            if training is not None:  # embeddings know of none
                options["training"] = training
            return function(x, **options)
        if x.shape[0] > 1 and runs_by_row(x):
            rows = [
                self._run(function, x[i : i + 1], training, **_rows(options, i))
                for i in range(x.shape[0])
            ]
            return ops.concatenate(rows)
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


@piece
def _embedded(backbone, channel, options):
    return backbone(channel, **options)


@piece
def _encoded(masked, inputs, training):
    return masked.encode(inputs, training=training)[0]


def _rows(options, index):
    """Options of one row of a batch: what has axes has the batch first."""
    return {
        name: value[index : index + 1] if len(getattr(value, "shape", ())) else value
        for name, value in options.items()
    }


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class ChannelEncoder(ChannelModel):
    """Channels in, embeddings out: normalisation, angle-delay transform and backbone in one.

    Args:
        backbone: `LWMTBackbone`, or `MaskedChannelModel` with all that it does to channels before
            its backbone, as the pretrained presets need it; or the serialised form.
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

    >>> encoder = ChannelEncoder(MaskedChannelModel.from_preset("base"), per="sequence")
    >>> h = keras.random.normal((8, 16, 32, 32, 2))
    >>> encoder(h, sampling_period=5e-3, subcarrier_spacing=540e3).shape
    TensorShape([8, 128])
    """

    def __init__(
        self,
        backbone: LWMTBackbone | MaskedChannelModel | dict[str, Any],
        per: str = "token",
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if per not in PER:
            raise ValueError(f"`per` must be one of {PER}. Received: per={per!r}")
        if isinstance(backbone, dict):
            backbone = keras.saving.deserialize_keras_object(backbone)
        self.masked: Any = backbone if isinstance(backbone, MaskedChannelModel) else None
        self.backbone = get_backbone(backbone if self.masked is None else self.masked.backbone)
        self.per = per
        self.transform = AngleDelayTransform(
            array_shape, num_delay, first_delay, name="transform", dtype="float32"
        )

    def build(self, h_shape: Shape) -> None:
        if not self.backbone.built:
            self.backbone.build((None, None, None, None, 2))
        if self.masked is not None and not self.masked.built:
            self.masked.build()
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
        channel = self.transform(unit_power(x)[0])
        class_token = self.backbone.neighborhood.class_token
        if self.masked is None:
            embeddings = _embedded(self.backbone, channel, options)
        else:
            training, class_token = options.pop("training", None), False
            embeddings = _encoded(self.masked, {"channel": channel, **options}, training)
        return pool_embeddings(embeddings, x.shape[1], self.per, class_token)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        transform = self.transform.get_config()
        config.update(
            backbone=keras.saving.serialize_keras_object(
                self.backbone if self.masked is None else self.masked
            ),
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


_EXPECTED = (
    "Expected complex [batch, time, num_ant, num_subcarriers], real [batch, time, num_ant, "
    "num_subcarriers, 2], or Sionna's complex [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, "
    "time, num_subcarriers]."
)


PER = ("token", "snapshot", "sequence")


def as_links(h: Tensor, **options: Any) -> tuple["ChannelForm", Tensor]:
    """The form of channels, and every link by itself: real `[links, time, num_ant, band, 2]`.

    Integers, as converters give them, count as float32. For the options see `ChannelForm.of`.
    """
    h = h if keras.utils.is_keras_tensor(h) else ops.convert_to_tensor(h)
    kind = keras.backend.standardize_dtype(h.dtype)
    if "float" not in kind and "complex" not in kind:
        h = ops.cast(h, "float32")
    form = ChannelForm.of(h, **options)
    return form, form.flatten(h)


def bandwidth_of(x: Tensor, subcarrier_spacing: Tensor | None) -> Tensor | None:
    """Bandwidth in hertz of `[links, time, num_ant, band, 2]`, or None."""
    return None if subcarrier_spacing is None else subcarrier_spacing * x.shape[3]


@dataclasses.dataclass(frozen=True)
class ChannelForm:
    """How a tensor holds channels.

    Attributes:
        kind: `"plain"`, complex `[batch, time, num_ant, num_subcarriers]`; `"stacked"`, the same
            as real `[..., 2]`; or `"sionna"`, complex `[batch, num_rx, num_rx_ant, num_tx,
            num_tx_ant, time, num_subcarriers]`.
        array: Which end of Sionna's links has the array: `"tx"` or `"rx"`.
        shape: Shape of the tensor.
        subcarriers: Indices of the effective subcarriers, or None if all of them are.
    """

    kind: str
    array: str
    shape: tuple[Any, ...]
    subcarriers: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        h: Tensor,
        *,
        array: str = "tx",
        subcarriers: tuple[int, ...] | None = None,
        array_shape: tuple[int, int, int] | None = None,
        shortest: int = 1,
    ) -> "ChannelForm":
        """Form of a tensor.

        Args:
            h: Channels.
            array: Which end of Sionna's links has the array.
            subcarriers: Indices of the effective subcarriers.
            array_shape: Rows, columns and polarisations that the antennas must match.
            shortest: Fewest snapshots.

        Raises:
            ValueError: If the tensor has none of the forms, or does not match.
        """
        if array not in ("tx", "rx"):
            raise ValueError(f"`array` must be 'tx' or 'rx'. Received: array={array!r}")
        shape = tuple(h.shape)
        kinds = {4: "plain", 7: "sionna"} if is_complex(h) else {5: "stacked"}
        kind = kinds.get(len(shape))
        if kind is None or (kind == "stacked" and shape[-1] != 2):
            raise ValueError(f"{_EXPECTED} Received: h.shape={shape}, h.dtype={h.dtype}")
        form = cls(kind, array, shape)
        if form.num_snapshots is not None and form.num_snapshots < shortest:
            raise ValueError(
                f"At least {shortest} snapshots are needed. Received: {form.num_snapshots}, in "
                f"h.shape={shape}"
            )
        if 0 in (form.num_ant, form.num_subcarriers):
            raise ValueError(
                f"Channels need antennas and subcarriers. Received: num_ant={form.num_ant}, "
                f"num_subcarriers={form.num_subcarriers}, in h.shape={shape}"
            )
        if array_shape is not None:
            expected = array_shape[0] * array_shape[1] * array_shape[2]
            if form.num_ant != expected:
                raise ValueError(
                    f"The array {tuple(array_shape)} (rows, columns, polarisations) has {expected} "
                    f"antennas. Received: {form.num_ant}, in h.shape={shape}"
                )
        if subcarriers is None:
            return form
        chosen = check_subcarriers(subcarriers, form.num_subcarriers)
        return dataclasses.replace(form, subcarriers=chosen)

    @property
    def num_snapshots(self) -> int | None:
        """Snapshots of a link."""
        return self.shape[5 if self.kind == "sionna" else 1]

    @property
    def num_ant(self) -> int:
        """Antennas of the array."""
        if self.kind == "sionna":
            return self.shape[4 if self.array == "tx" else 2]
        return self.shape[2]

    @property
    def num_subcarriers(self) -> int:
        """Subcarriers, null ones included where the tensor has them."""
        return self.shape[-2 if self.kind == "stacked" else -1]

    @property
    def _links(self):
        """Axes of Sionna's form that are links, and their order in the tensor."""
        return (0, 1, 2, 3) if self.array == "tx" else (0, 1, 3, 4)

    @property
    def links_per_user(self) -> int:
        """Links that one entry of the batch has."""
        return (
            math.prod(self.shape[axis] for axis in self._links[1:]) if self.kind == "sionna" else 1
        )

    def flatten(self, h: Tensor) -> Tensor:
        """Every link by itself: real `[links, time, num_ant, band, 2]`."""
        x = to_stacked(h) if self.kind != "stacked" else h
        if self.kind == "sionna":
            array_axis = 4 if self.array == "tx" else 2
            x = ops.transpose(x, (*self._links, 5, array_axis, 6, 7))
            links = 0 if 0 in x.shape[:4] else -1
            x = ops.reshape(x, (links, *x.shape[4:]))
        return x if self.subcarriers is None else fill_nulls(x, self.subcarriers)

    def restore(self, x: Tensor) -> Tensor:
        """Channels in the form of the tensor from `[links, time, num_ant, band, 2]`."""
        if self.subcarriers is not None:
            x = restore_nulls(x, self.subcarriers, self.num_subcarriers)
        if self.kind == "stacked":
            return x
        if self.kind == "plain":
            return to_complex(x)
        x = self.split_links(to_complex(x))
        # [*links, time, num_ant, num_subcarriers]
        order = (0, 1, 2, 3, 5, 4, 6) if self.array == "tx" else (0, 1, 5, 2, 3, 4, 6)
        return ops.transpose(x, order)

    def split_links(self, x: Tensor) -> Tensor:
        """`[links, ...]` to `[batch, ..., ...]` with the axes of the links: `[batch, num_rx,
        num_rx_ant, num_tx, ...]` or, for an array at the receiver, `[batch, num_rx, num_tx,
        num_tx_ant, ...]`; unchanged for the other forms."""
        if self.kind != "sionna":
            return x
        links = [self.shape[axis] for axis in self._links]
        # Nothing tells how many there were of one axis where another is empty.
        first = links[0] if 0 in links else -1
        return ops.reshape(x, (first, *links[1:], *x.shape[1:]))


def pool_embeddings(
    embeddings: Tensor, num_snapshots: int, per: str = "token", class_token: bool = False
) -> Tensor:
    """Pools embeddings of tokens `[batch, num_tokens, width]`, time-major, the class token last.

    `per` is `"token"` (without the class token), `"snapshot"` (mean over its tokens: `[batch,
    num_snapshots, width]`) or `"sequence"` (the class token, or the mean over all tokens where
    there is none: `[batch, width]`).
    """
    if per not in PER:
        raise ValueError(f"`per` must be one of {PER}. Received: per={per!r}")
    if class_token:
        if per == "sequence":
            return embeddings[:, -1]
        embeddings = embeddings[:, :-1]
    if per == "token":
        return embeddings
    if per == "sequence":
        return ops.mean(embeddings, axis=1)
    width = embeddings.shape[-1]
    per_snapshot = embeddings.shape[1] // num_snapshots
    return ops.mean(ops.reshape(embeddings, (-1, num_snapshots, per_snapshot, width)), axis=2)
