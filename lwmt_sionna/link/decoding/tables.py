"""Where a 5G LDPC decoder stops failing: measured, kept in a table, looked up.

Whether the decoder succeeds is nearly a function of the mutual information per bit at its input,
whatever the channel that left it. A table holds, per scheme and block size, the information at
which half of the blocks fail in white Gaussian noise, and the width of the transition.
"""

import dataclasses
import logging
import pathlib

import numpy as np

from lwmt_sionna.link.phy.config import DownlinkConfig, Mcs, get_mcs
from lwmt_sionna.link.phy.information import effective_snr_db
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
            rows = content["waterfalls"]
            self._rows: dict[int, list] = {}
            for row in rows:
                self._rows.setdefault(row["mcs"], []).append(
                    (
                        row["num_symbols"],
                        [row[field.name] for field in dataclasses.fields(Waterfall)],
                    )
                )
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
        """Waterfall of a scheme.

        Args:
            mcs: int or `Mcs`.
            num_symbols: int, data symbols that a block fills.

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

    Args:
        mcs: int or `Mcs`.
        num_symbols: int, data symbols that a block fills.
        num_iterations: int, iterations of the decoder.
        cn_update: str, check-node update of the decoder.
        num_blocks: int, blocks to decode around the transition.
        batch_size: int, blocks per call.

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
