"""How much of a code word a decoder is told: mutual information of QAM, bit by bit."""

import functools

import numpy as np
from keras import ops

from lwmt_sionna.typing import Array, ArrayLike, Tensor

#: Bits per symbol of the modulations: QPSK, 16-QAM, 64-QAM.
MODULATIONS = (2, 4, 6)
# SINR beyond these is as good as none, or as perfect [dB].
_GRID_DB = np.arange(-25.0, 50.01, 0.1)
_NUM_NODES = 96


def qam_information(snr: ArrayLike, num_bits_per_symbol: int) -> Array:
    """Mutual information per bit of Gray-mapped square QAM in white Gaussian noise.

    What a bit-interleaved decoder can learn per coded bit: the mean over the bits of a symbol.

    Args:
        snr: float, any shape, signal-to-noise ratio (linear).
        num_bits_per_symbol: int, 2, 4 or 6.

    Returns:
        float64, shape of `snr`, from 0 to 1.

    Reference:
        G. Caire, G. Taricco, E. Biglieri, "Bit-interleaved coded modulation", IEEE Trans. Inf.
        Theory, 1998.
    """
    with np.errstate(divide="ignore"):
        snr_db = 10 * np.log10(np.asarray(snr, np.float64))
    return np.interp(snr_db, _GRID_DB, _information_table(num_bits_per_symbol))


def effective_snr_db(information: ArrayLike, num_bits_per_symbol: int) -> Array:
    """SNR at which white Gaussian noise leaves as much information: inverse of `qam_information`.

    float64, shape of `information` [dB], from -25 to 50.
    """
    table = _information_table(num_bits_per_symbol)
    # Where the table is flat to rounding any of its points would do: keep it increasing.
    table = table + 1e-12 * np.arange(len(table))
    return np.interp(information, table, _GRID_DB)


def bit_information(coded: Tensor, llr: Tensor) -> Tensor:
    """What log-likelihood ratios tell about the bits that were sent, per bit.

    `1 - mean(log2(1 + exp(-s llr)))` with `s` = 1 for a one and -1 for a zero. With true
    log-likelihood ratios its mean is the mutual information; ratios that overstate or understate
    what is known, as those of a receiver with a wrong idea of its channel do, tell less.

    Args:
        coded: float tensor `[..., num_bits]`, zeros and ones.
        llr: float tensor, same shape, positive where a one is likelier.

    Returns:
        Float tensor `[...]`; at most 1, and below 0 where ratios mislead.
    """
    loss = ops.softplus((1.0 - 2.0 * coded) * llr)
    return 1.0 - ops.mean(loss, axis=-1) / float(np.log(2.0))


@functools.cache
def _information_table(num_bits_per_symbol):
    if num_bits_per_symbol not in MODULATIONS:
        raise ValueError(
            "Square constellations here have 2, 4 or 6 bits per symbol. "
            f"Received: num_bits_per_symbol={num_bits_per_symbol}"
        )
    num_bits = num_bits_per_symbol // 2
    # Real and imaginary part are amplitude modulations of half the energy each.
    index = np.arange(2**num_bits)
    levels = 2.0 * index - (2**num_bits - 1)
    levels /= np.sqrt(2 * np.mean(levels**2))
    labels = index ^ (index >> 1)
    nodes, weights = np.polynomial.hermite.hermgauss(_NUM_NODES)
    weights = weights / np.sqrt(np.pi)
    information = np.zeros(len(_GRID_DB))
    for row, snr_db in enumerate(_GRID_DB):
        deviation = np.sqrt(10 ** (-snr_db / 10) / 2)
        # l level sent, n noise, k level believed
        y = levels[:, None] + np.sqrt(2) * deviation * nodes
        metric = -((y[:, :, None] - levels) ** 2) / (2 * deviation**2)
        total = np.logaddexp.reduce(metric, axis=-1)
        for bit in range(num_bits):
            value = (labels >> bit) & 1
            same = value[:, None] == value
            right = np.logaddexp.reduce(np.where(same[:, None], metric, -np.inf), axis=-1)
            information[row] += 1 + np.mean((right - total) @ weights) / np.log(2)
    return np.maximum.accumulate(np.clip(information / num_bits, 0.0, 1.0))
