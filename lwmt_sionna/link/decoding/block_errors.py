"""How block errors are told: by decoding, from mutual information, or from SINR.

Each way is one object with the face of `BlockErrors`; everything before the decoder is the full
chain in all of them.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lwmt_sionna.link.decoding.tables import DecoderTable
from lwmt_sionna.link.phy.config import DownlinkConfig, Mcs, get_mcs
from lwmt_sionna.link.phy.information import MODULATIONS
from lwmt_sionna.typing import Array

if TYPE_CHECKING:
    from lwmt_sionna.link.phy.runner import LinkRunner


class BlockErrors:
    """A way of telling block errors.

    Args:
        table: `DecoderTable`; the shipped one when None.
        schemes: sequence of int, the schemes that are told of.
        num_slots: int, slots per drop.
    """

    #: Whether every scheme is simulated by itself, until it has errors enough.
    decodes = False
    #: Whether nothing can be told of a decoder that the table does not belong to.
    needs_table = False

    def __init__(
        self,
        table: DecoderTable | None = None,
        schemes: Sequence[int] = (),
        num_slots: int = 1,
    ) -> None:
        self.table = DecoderTable() if table is None else table
        self.schemes = tuple(schemes)
        self.num_slots = num_slots

    @property
    def key(self) -> list[Any]:
        """What `survey` depends on besides the link and its channels, JSON-compatible."""
        return [type(self).__name__]

    def survey(
        self, runner: "LinkRunner", slot: Array, h_hat: Array, link_snr_db: float
    ) -> dict[str, Array]:
        """What is computed once for all schemes: dict of arrays, for `failures`.

        The arguments are those of `LinkRunner.count`.
        """
        return {}

    def failures(self, downlink: DownlinkConfig, found: dict[str, Array], mcs: int) -> Array:
        """Which blocks of a scheme fail, or how probably.

        `found` is what `survey` returns, or where schemes are decoded, what counting found. Returns
        `[num_drops, num_users, num_slots]`, bool or a float probability.
        """
        raise NotImplementedError


class FullDecoding(BlockErrors):
    """Every block is decoded and compared with what was sent."""

    decodes = True

    def failures(self, downlink: DownlinkConfig, found: dict[str, Array], mcs: int) -> Array:
        return found["failed"]


class MutualInformation(BlockErrors):
    """What the decoder is told of a block says whether it succeeds (see `DecoderTable`).

    One pass per modulation serves all schemes.
    """

    needs_table = True

    @property
    def key(self) -> list[Any]:
        return [*super().key, sorted(self._modulations())]

    def survey(
        self, runner: "LinkRunner", slot: Array, h_hat: Array, link_snr_db: float
    ) -> dict[str, Array]:
        """float32 `information` `[num_drops, num_users, num_slots, 3]`, per coded bit.

        NaN for modulations that none of the schemes has.
        """
        shape = (len(slot), runner.config.num_users, self.num_slots, len(MODULATIONS))
        told = np.full(shape, np.nan, np.float32)
        for column, bits in enumerate(MODULATIONS):
            if bits in self._modulations():
                told[..., column] = runner.information(
                    slot, h_hat, bits, link_snr_db, range(self.num_slots)
                )
        return {"information": told}

    def failures(self, downlink: DownlinkConfig, found: dict[str, Array], mcs: int) -> Array:
        told = found["information"][..., MODULATIONS.index(get_mcs(mcs).num_bits_per_symbol)]
        return self.table.waterfall(mcs, downlink.block_symbols).failure(told)

    def _modulations(self):
        return {get_mcs(mcs).num_bits_per_symbol for mcs in self.schemes}


class SysAbstraction(BlockErrors):
    """Block errors from SINR alone: Sionna SYS's exponential effective SINR and our waterfalls.

    Sionna 1.2.2 ships block error rates every 1.8 dB, where the transition of these blocks is 1 dB
    wide, and is up to 0.6 dB too hopeful between them; so the waterfalls are those of the link's
    own decoder. Quicker than mutual information, and blind to what SINR does not tell: a receiver
    that mistakes its noise, as one with least-squares estimates does, hears worse by about 1 dB.
    """

    @property
    def key(self) -> list[Any]:
        return [*super().key, list(self.schemes), self.table.digest]

    def survey(
        self, runner: "LinkRunner", slot: Array, h_hat: Array, link_snr_db: float
    ) -> dict[str, Array]:
        """float32 `failure` `[num_schemes, num_drops, num_users, num_slots]`."""
        sinr = runner.sinr(slot, h_hat, link_snr_db, range(self.num_slots))
        told = [
            np.stack([self.failure(sinr[:, :, s], mcs) for s in range(self.num_slots)], axis=-1)
            for mcs in self.schemes
        ]
        return {"failure": np.stack(told).astype(np.float32)}

    def failures(self, downlink: DownlinkConfig, found: dict[str, Array], mcs: int) -> Array:
        return found["failure"][self.schemes.index(mcs)]

    def failure(self, sinr: Array, mcs: int | Mcs) -> Array:
        """Block error rate.

        Args:
            sinr: float `[batch_size, num_users, num_symbols]`, linear.
            mcs: int or `Mcs`.

        Returns:
            float64 `[batch_size, num_users]`.

        Raises:
            ValueError: the scheme is not in the table.
        """
        import tensorflow as tf

        waterfall = self.table.waterfall(mcs, np.shape(sinr)[-1])
        # Sionna: [..., num_ofdm_symbols, num_subcarriers, num_ut, num_streams_per_ut]. A SINR of
        # zero would mean that the element is not used.
        sinr = np.maximum(np.asarray(sinr, np.float32), 1e-6)
        sinr = tf.constant(np.moveaxis(sinr, 1, 2)[:, None, :, :, None])
        index = tf.fill([sinr.shape[0], sinr.shape[3]], get_mcs(mcs).index)
        effective = _effective_sinr()(sinr, index, mcs_table_index=1).numpy().astype(np.float64)
        return waterfall.failure_in_noise(10 * np.log10(effective))


@functools.cache
def _effective_sinr():
    from sionna.sys import EESM

    return EESM()


#: The ways by the names that configurations give them.
DECODINGS = {"chain": FullDecoding, "information": MutualInformation, "sys": SysAbstraction}
