"""The forms in which users hold channels, and the one that models compute on."""

import dataclasses

from keras import ops

from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked
from lwmt_sionna.ops.subcarriers import check_subcarriers, fill_nulls, restore_nulls

__all__ = ["ChannelForm"]

_EXPECTED = (
    "Expected complex [batch, time, num_ant, num_subcarriers], real [batch, time, num_ant, "
    "num_subcarriers, 2], or Sionna's complex [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, "
    "time, num_subcarriers]."
)


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
    shape: tuple
    subcarriers: tuple | None = None

    @classmethod
    def of(cls, h, *, array="tx", subcarriers=None, array_shape=None, shortest=1):
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
    def num_snapshots(self):
        """Snapshots of a link."""
        return self.shape[5 if self.kind == "sionna" else 1]

    @property
    def num_ant(self):
        """Antennas of the array."""
        if self.kind == "sionna":
            return self.shape[4 if self.array == "tx" else 2]
        return self.shape[2]

    @property
    def num_subcarriers(self):
        """Subcarriers, null ones included where the tensor has them."""
        return self.shape[-2 if self.kind == "stacked" else -1]

    @property
    def _links(self):
        """Axes of Sionna's form that are links, and their order in the tensor."""
        return (0, 1, 2, 3) if self.array == "tx" else (0, 1, 3, 4)

    def flatten(self, h):
        """Every link by itself: real `[links, time, num_ant, band, 2]`."""
        x = to_stacked(h) if self.kind != "stacked" else h
        if self.kind == "sionna":
            array_axis = 4 if self.array == "tx" else 2
            x = ops.transpose(x, (*self._links, 5, array_axis, 6, 7))
            x = ops.reshape(x, (-1, *x.shape[4:]))
        return x if self.subcarriers is None else fill_nulls(x, self.subcarriers)

    def restore(self, x):
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

    def split_links(self, x):
        """`[links, ...]` to `[batch, ..., ...]` with the axes of the links: `[batch, num_rx,
        num_rx_ant, num_tx, ...]` or, for an array at the receiver, `[batch, num_rx, num_tx,
        num_tx_ant, ...]`; unchanged for the other forms."""
        if self.kind != "sionna":
            return x
        links = [self.shape[axis] for axis in self._links[1:]]
        return ops.reshape(x, (-1, *links, *x.shape[1:]))
