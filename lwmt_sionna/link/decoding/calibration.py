"""Where a 5G LDPC decoder stops failing, measured in white Gaussian noise."""

import logging

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import log_ndtr
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Demapper, Mapper
from sionna.phy.utils import complex_normal

from lwmt_sionna.link.decoding.tables import Waterfall
from lwmt_sionna.link.phy.information import bit_information, effective_snr_db
from lwmt_sionna.link.phy.mcs import get_mcs

__all__ = ["measure_waterfall"]

logger = logging.getLogger(__name__)

# Offsets from the SNR at which half of the blocks fail, in widths of the transition.
_OFFSETS = np.linspace(-2.2, 2.2, 8)


def measure_waterfall(
    mcs, num_symbols, num_iterations=20, cn_update="boxplus-phi", num_blocks=1600, batch_size=100
):
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
    scheme = get_mcs(mcs)
    simulate = _make_link(scheme, num_symbols, num_iterations, cn_update, batch_size)
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


def _make_link(scheme, num_symbols, num_iterations, cn_update, batch_size):
    num_bits = scheme.num_bits_per_symbol
    encoder = LDPC5GEncoder(
        scheme.num_info_bits(num_symbols), num_symbols * num_bits, num_bits_per_symbol=num_bits
    )
    decoder = LDPC5GDecoder(encoder, cn_update=cn_update, num_iter=num_iterations)
    mapper, demapper = Mapper("qam", num_bits), Demapper("app", "qam", num_bits)
    source = BinarySource()

    @tf.function(jit_compile=True)
    def run(no):
        bits = source([batch_size, encoder.k])
        coded = encoder(bits)
        x = mapper(coded)
        noise = complex_normal(tf.shape(x))
        llr = demapper(x + tf.cast(tf.sqrt(no), noise.dtype) * noise, no)
        failed = tf.reduce_any(tf.not_equal(decoder(llr), bits), axis=-1)
        return bit_information(coded, llr), failed

    def simulate(snr_db):
        information, failed = run(tf.constant(10 ** (-snr_db / 10), tf.float32))
        return information.numpy(), failed.numpy()

    return simulate


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
    scale = x.std()
    sign = np.where(failed, -1.0, 1.0)

    def loss(parameters):
        return -np.mean(log_ndtr(sign * (x - parameters[0]) / np.exp(parameters[1])))

    best = minimize(
        loss, (np.median(x), np.log(0.5 * scale)), method="Nelder-Mead", options={"maxiter": 2000}
    )
    return float(best.x[0]), float(np.exp(best.x[1]))
