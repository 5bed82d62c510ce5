"""Block errors without decoding: what a decoder is told decides whether it succeeds.

Whether a 5G LDPC decoder succeeds is nearly a function of the mutual information per bit at its
input, whatever the channel that left it. A table holds, per scheme and block size, the information
at which half of the blocks fail in white Gaussian noise, and the width of the transition.
Everything before the decoder is the full chain.

`SysAbstraction` is the same from SINR alone: Sionna SYS's effective SINR, and the table.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from lwmt_sionna.link.phy.mcs import get_mcs

__all__ = ["DecoderTable", "SysAbstraction", "Waterfall"]

_SHIPPED = pathlib.Path(__file__).parent / "decoder_table.json"


@dataclasses.dataclass(frozen=True)
class Waterfall:
    """Where the blocks of one scheme and size stop failing.

    Block error rates are `Q((x - centre) / width)` with the Gaussian tail `Q`.

    Args:
        information: float, mutual information per bit at which half of the blocks fail.
        information_width: float.
        snr_db: float, SNR of white Gaussian noise at which half of the blocks fail [dB].
        snr_width_db: float [dB].
    """

    information: float
    information_width: float
    snr_db: float
    snr_width_db: float

    def failure(self, information):
        """Probability that a block fails that was told `information` per bit.

        Args:
            information: float, any shape, what `bit_information` says of the block.

        Returns:
            float64, same shape.
        """
        return _tail((np.asarray(information) - self.information) / self.information_width)

    def failure_in_noise(self, snr_db):
        """Block error rate in white Gaussian noise.

        Args:
            snr_db: float, any shape [dB].

        Returns:
            float64, same shape.
        """
        return _tail((np.asarray(snr_db) - self.snr_db) / self.snr_width_db)

    def required_snr_db(self, bler):
        """SNR of white Gaussian noise that has this block error rate [dB], float."""
        from scipy.special import ndtri

        return float(self.snr_db - self.snr_width_db * ndtri(bler))


def _tail(x):
    from scipy.special import ndtr

    return ndtr(-x)


class DecoderTable:
    """Waterfalls of all schemes, between block sizes by interpolation.

    Centre and width change with the block size `n` like `1 / sqrt(n)`, as finite-length theory has
    it, so they are interpolated linearly in that.

    Args:
        path: path of a table that `experiments/decoder_table.py` wrote; the shipped one when None.

    Reference:
        Y. Polyanskiy, H. V. Poor, S. Verdú, "Channel coding rate in the finite blocklength regime",
        IEEE Trans. Inf. Theory, 2010.
    """

    def __init__(self, path=None):
        path = _SHIPPED if path is None else pathlib.Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.num_iterations = int(content["num_iterations"])
            self.cn_update = str(content["cn_update"])
            rows = content["waterfalls"]
            self._rows = {}
            for row in rows:
                self._rows.setdefault(row["mcs"], []).append(
                    (row["num_symbols"], [row[field.name] for field in _FIELDS])
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"This is no decoder table: {error}. Received: path={path}") from error

    @property
    def schemes(self):
        """tuple of int, indices of the schemes in the table, ascending."""
        return tuple(sorted(self._rows))

    def check(self, config):
        """Raises ValueError when a link decodes in another way than the table was made with.

        Args:
            config: `DownlinkConfig`.
        """
        for name in ("num_iterations", "cn_update"):
            if getattr(config, name) != getattr(self, name):
                raise ValueError(
                    f"The decoder table was made with {name}={getattr(self, name)!r}; make one of "
                    "your own with experiments/decoder_table.py. Received: "
                    f"{name}={getattr(config, name)!r}"
                )

    def waterfall(self, mcs, num_symbols):
        """Waterfall of a scheme.

        Args:
            mcs: int or `Mcs`.
            num_symbols: int, data symbols that a block fills.

        Returns:
            `Waterfall`.

        Raises:
            ValueError: the scheme is not in the table.
        """
        index = get_mcs(mcs).index
        if index not in self._rows:
            raise ValueError(
                f"The decoder table holds the schemes {self.schemes}. Received: mcs={index}"
            )
        rows = sorted(self._rows[index], reverse=True)
        x = np.array([size**-0.5 for size, _ in rows])
        values = np.array([row for _, row in rows])
        at = num_symbols**-0.5
        if len(rows) == 1:
            return Waterfall(*values[0])
        # Beyond the sizes of the table the nearest pair goes on.
        left = int(np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2))
        share = (at - x[left]) / (x[left + 1] - x[left])
        result = (1 - share) * values[left] + share * values[left + 1]
        result[[1, 3]] = np.maximum(result[[1, 3]], 0.2 * values[left][[1, 3]])
        return Waterfall(*map(float, result))


_FIELDS = dataclasses.fields(Waterfall)


class SysAbstraction:
    """Block errors from SINR alone: Sionna SYS's exponential effective SINR and our waterfalls.

    Sionna 1.2.2 ships block error rates every 1.8 dB, where the transition of these blocks is 1 dB
    wide, and is up to 0.6 dB too hopeful between them; so the waterfalls are those of the link's
    own decoder. Quicker than mutual information, and blind to what SINR does not tell: a receiver
    that mistakes its noise, as one with least-squares estimates does, hears worse by about 1 dB.

    Args:
        table: `DecoderTable`; the shipped one when None.
    """

    def __init__(self, table=None):
        self._table = DecoderTable() if table is None else table
        self._effective = _effective_sinr()

    def failure(self, sinr, mcs):
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

        waterfall = self._table.waterfall(mcs, np.shape(sinr)[-1])
        # Sionna: [..., num_ofdm_symbols, num_subcarriers, num_ut, num_streams_per_ut]. A SINR of
        # zero would mean that the element is not used.
        sinr = np.maximum(np.asarray(sinr, np.float32), 1e-6)
        sinr = tf.constant(np.moveaxis(sinr, 1, 2)[:, None, :, :, None])
        index = tf.fill([sinr.shape[0], sinr.shape[3]], get_mcs(mcs).index)
        effective = self._effective(sinr, index, mcs_table_index=1).numpy().astype(np.float64)
        return waterfall.failure_in_noise(10 * np.log10(effective))


@functools.cache
def _effective_sinr():
    from sionna.sys import EESM

    return EESM()
