"""How block errors are told: by decoding, from mutual information, or from SINR.

Each way is one object with the face of `BlockErrors`; everything before the decoder is the full
chain in all of them.

Whether a 5G LDPC decoder succeeds is nearly a function of the mutual information per bit at its
input, whatever the channel that left it. A table holds, per scheme and block size, the information
at which half of the blocks fail in white Gaussian noise, and the width of the transition.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from lwmt_sionna.link.phy.config import DownlinkConfig, Mcs, get_mcs
from lwmt_sionna.link.phy.information import MODULATIONS, effective_snr_db
from lwmt_sionna.runs import records
from lwmt_sionna.typing import Array, ArrayLike, PathLike

logger = logging.getLogger(__name__)

# Offsets from the SNR at which half of the blocks fail, in widths of the transition.
_OFFSETS = np.linspace(-2.2, 2.2, 8)
_SHIPPED = pathlib.Path(__file__).parent / "decoder_table.json"


@dataclasses.dataclass(frozen=True)
class Waterfall:
    """Where the blocks of one scheme and size stop failing.

    Block error rates are `Q((x - centre) / width)` with the Gaussian tail `Q`.

    Attributes:
        information: float, mutual information per bit at which half of the blocks fail.
        information_width: float.
        snr_db: float, SNR of white Gaussian noise at which half of the blocks fail [dB].
        snr_width_db: float [dB].
    """

    information: float
    information_width: float
    snr_db: float
    snr_width_db: float

    def failure(self, information: ArrayLike) -> Array:
        """Probability, float64, that a block fails that was told `information` per coded bit."""
        return _tail((np.asarray(information) - self.information) / self.information_width)

    def failure_in_noise(self, effective_snr_db: ArrayLike) -> Array:
        """Block error rate, float64, in white Gaussian noise of an SNR [dB]."""
        return _tail((np.asarray(effective_snr_db) - self.snr_db) / self.snr_width_db)

    def required_snr_db(self, bler: float) -> float:
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

    def __init__(self, path: PathLike | None = None) -> None:
        path = _SHIPPED if path is None else pathlib.Path(path)
        try:
            content = records.read_json(path)
            #: str, SHA-256 of the file.
            self.digest = records.sha256(path)
            self.num_iterations = int(content["num_iterations"])
            self.cn_update = str(content["cn_update"])
            self._rows: dict[int, list] = {}
            for row in content["waterfalls"]:
                values = [row[field.name] for field in dataclasses.fields(Waterfall)]
                self._rows.setdefault(row["mcs"], []).append((row["num_symbols"], values))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"This is no decoder table: {error}. Received: path={path}") from error

    @property
    def schemes(self) -> tuple[int, ...]:
        """tuple of int, indices of the schemes in the table, ascending."""
        return tuple(sorted(self._rows))

    def check(self, config: DownlinkConfig) -> None:
        """Raises ValueError when a link decodes in another way than the table was made with."""
        for name in ("num_iterations", "cn_update"):
            if getattr(config, name) != getattr(self, name):
                raise ValueError(
                    f"The decoder table was made with {name}={getattr(self, name)!r}; make one of "
                    "your own with experiments/decoder_table.py. Received: "
                    f"{name}={getattr(config, name)!r}"
                )

    def waterfall(self, mcs: int | Mcs, num_symbols: int) -> Waterfall:
        """Waterfall of a scheme whose blocks fill so many data symbols.

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


def measure_waterfall(
    mcs: int | Mcs,
    num_symbols: int,
    num_iterations: int = 20,
    cn_update: str = "boxplus-phi",
    num_blocks: int = 1600,
    batch_size: int = 100,
) -> tuple[Waterfall, int]:
    """Simulates blocks in white Gaussian noise and fits where they stop failing.

    Bits, noise and decoder are those of the link; the seed is Sionna's (`sionna.phy.config.seed`).

    `num_blocks` are decoded around the transition; see `make_awgn_link` for the others.

    Returns:
        The pair of the `Waterfall` and the number of blocks it rests on.
    """
    from lwmt_sionna.link.phy.runner import make_awgn_link

    scheme = get_mcs(mcs)
    simulate = make_awgn_link(scheme, num_symbols, num_iterations, cn_update, batch_size)
    centre, width = _locate(scheme, simulate)
    rounds = max(1, round(num_blocks / len(_OFFSETS) / batch_size))
    snr_db, information, failed = [], [], []
    for offset in _OFFSETS:
        for _ in range(rounds):
            told, wrong = simulate(centre + width * offset)
            snr_db.append(np.full(batch_size, centre + width * offset))
            information.append(told)
            failed.append(wrong)
    snr_db, information, failed = map(np.concatenate, (snr_db, information, failed))
    waterfall = Waterfall(*_fit(information, failed), *_fit(snr_db, failed))
    logger.info("%s, %d symbols: %s", scheme.name, num_symbols, waterfall)
    return waterfall, len(failed)


def _locate(scheme, simulate):
    """Centre and width of the transition, roughly."""
    # No code does better than capacity, and these are within 4 dB of it.
    low = float(effective_snr_db(scheme.code_rate, scheme.num_bits_per_symbol)) - 0.5
    high = low + 5.0
    while high - low > 0.2:
        middle = (low + high) / 2
        if simulate(middle)[1].mean() > 0.5:
            low = middle
        else:
            high = middle
    centre = (low + high) / 2
    width = 0.1
    while width < 2.0 and simulate(centre + 2 * width)[1].mean() > 0.03:
        width *= 1.3
    return centre, width


def _fit(x, failed):
    """Centre and width of `Q((x - centre) / width)` by maximum likelihood."""
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    scale = x.std()
    sign = np.where(failed, -1.0, 1.0)

    def loss(parameters):
        return -np.mean(log_ndtr(sign * (x - parameters[0]) / np.exp(parameters[1])))

    best = minimize(
        loss, (np.median(x), np.log(0.5 * scale)), method="Nelder-Mead", options={"maxiter": 2000}
    )
    return float(best.x[0]), float(np.exp(best.x[1]))


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

    Sionna ships block error rates every 1.8 dB, where the transition of these blocks is 1 dB
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
        """Block error rate, float64 `[batch_size, num_users]`.

        Of linear SINR, float `[batch_size, num_users, num_symbols]`, and a scheme of the table.
        """
        waterfall = self.table.waterfall(mcs, np.shape(sinr)[-1])
        # Sionna: [..., num_ofdm_symbols, num_subcarriers, num_ut, num_streams_per_ut]. A SINR of
        # zero would mean that the element is not used.
        sinr = np.maximum(np.asarray(sinr, np.float32), 1e-6)
        sinr = ops.convert_to_tensor(np.moveaxis(sinr, 1, 2)[:, None, :, :, None])
        index = ops.full([sinr.shape[0], sinr.shape[3]], get_mcs(mcs).index, "int32")
        effective = ops.convert_to_numpy(_effective_sinr()(sinr, index, mcs_table_index=1))
        return waterfall.failure_in_noise(10 * np.log10(effective.astype(np.float64)))


@functools.cache
def _effective_sinr():
    from sionna.sys import EESM

    return EESM()


#: The ways by the names that configurations give them.
DECODINGS = {"chain": FullDecoding, "information": MutualInformation, "sys": SysAbstraction}
