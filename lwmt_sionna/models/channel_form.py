"""The forms in which users hold channels, and the one that models compute on."""

import dataclasses
from typing import Any

import keras
from keras import ops

from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked
from lwmt_sionna.ops.subcarriers import check_subcarriers, fill_nulls, restore_nulls
from lwmt_sionna.typing import Tensor

__all__ = ["ChannelForm", "as_links", "bandwidth_of", "pool_embeddings"]

_EXPECTED = (
    "Expected complex [batch, time, num_ant, num_subcarriers], real [batch, time, num_ant, "
    "num_subcarriers, 2], or Sionna's complex [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, "
    "time, num_subcarriers]."
)


PER = ("token", "snapshot", "sequence")


def as_links(h: Tensor, **options: Any) -> tuple["ChannelForm", Tensor]:
    """The form of channels, and every link by itself.

    Args:
        h: Channels in any form. Integers, as converters give them, count as float32.
        **options: See `ChannelForm.of`.

    Returns:
        Tuple of the `ChannelForm` and real `[links, time, num_ant, band, 2]`.
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
    """Pools the embeddings of tokens.

    Args:
        embeddings: `[batch, num_tokens, width]`, time-major, the class token last.
        num_snapshots: Number of snapshots.
        per: `"token"` (without the class token), `"snapshot"` (mean over its tokens) or
            `"sequence"` (the class token, or the mean over all tokens where there is none).
        class_token: Whether the last token is a class token.

    Returns:
        `[batch, num_tokens, width]`, `[batch, num_snapshots, width]` or `[batch, width]`.
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
