"""Multi-user MIMO downlink with a precoder that knows the channel only as well as its CSI."""

import numpy as np
import tensorflow as tf
from sionna.phy import Block
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Constellation, Demapper, Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import (
    LMMSEEqualizer,
    LSChannelEstimator,
    PilotPattern,
    ResourceGrid,
    ResourceGridMapper,
    RZFPrecodedChannel,
)
from sionna.phy.utils import complex_normal, expand_to_rank

from lwmt_sionna.link.config import DownlinkConfig
from lwmt_sionna.link.mcs import get_mcs

__all__ = ["Downlink", "comb_pilot_pattern"]

_MIN_CODE_RATE = 0.2
_MAX_CODE_RATE = 0.95


def comb_pilot_pattern(config, seed=7):
    """Orthogonal pilots: each stream has a comb in one OFDM symbol of every group.

    Like the demodulation reference signals of NR (type 1, double symbol, one additional
    position), with the two ports that NR separates by code separated by symbol. Power freed by
    the silent streams is given to the active one, so every pilot symbol radiates what a data
    symbol radiates.

    Args:
        config: `DownlinkConfig`.
        seed: int, seed of the QPSK sequence.

    Returns:
        A `sionna.phy.ofdm.PilotPattern` for one transmitter with `num_users` streams.
    """
    symbols = sorted(symbol for group in config.pilot_groups for symbol in group)
    shape = (1, config.num_users, config.num_ofdm_symbols, config.num_subcarriers)
    mask = np.zeros(shape, bool)
    mask[:, :, symbols, :] = True
    rng = np.random.default_rng(seed)
    quadrant = rng.integers(4, size=shape)
    sequence = np.exp(1j * (np.pi / 4 + np.pi / 2 * quadrant)) * np.sqrt(config.num_users)
    grid = np.zeros(shape, np.complex64)
    for stream in range(config.num_users):
        row, offset = divmod(stream, config.pilot_comb)
        for group in config.pilot_groups:
            comb = np.s_[0, stream, group[row], offset :: config.pilot_comb]
            grid[comb] = sequence[comb]
    pilots = grid[mask].reshape(1, config.num_users, -1)
    return PilotPattern(mask, pilots, normalize=False)


class Downlink(Block):
    r"""TDD downlink to several single-antenna users, one code word per user and slot.

    The base station precodes with regularised zero-forcing (RZF) from its channel estimate
    $\hat{H}$ `[num_users, num_antennas]`, per subcarrier and constant over the slot,

    $$G = \hat{H}^H (\hat{H}\hat{H}^H + \alpha I)^{-1} D, \qquad
      \alpha = K (\sigma^2 / P + \sigma_e^2),$$

    where $D$ gives every column the power $P / K$, $K$ is the number of users, $P = 1$ the total
    power per resource element, $\sigma^2$ the noise power and $\sigma_e^2$ the variance of the
    CSI error per coefficient (0 unless given: the CSI is trusted). What the users receive is the
    **true** channel of each OFDM symbol times $G$, $y = H G x + n$.

    The chain is Sionna's: 5G LDPC code, QAM mapper, resource grid with precoded pilots,
    least-squares channel estimation, LMMSE detection (the interference of the other streams is
    treated as coloured noise), soft demapper, belief propagation. It compiles with
    `tf.function(jit_compile=True)`.

    With channels of unit mean power per coefficient, `1 / no` is the *link SNR*: total transmit
    power times mean gain of an antenna, over noise power.

    Args:
        mcs: int or `Mcs`, modulation and coding scheme.
        config: `DownlinkConfig`. Defaults to 4 users, 32 antennas, 14 x 32 resource elements.
        precision: None, "single" or "double", as for every Sionna block.

    Call arguments:
        h: complex `[batch_size, num_users, num_ofdm_symbols, num_antennas, num_subcarriers]`,
            true channel of the slot.
        h_hat: complex `[batch_size, num_users, num_antennas, num_subcarriers]`, what the base
            station believes.
        no: float, scalar or `[batch_size]`, noise power.
        bits: float `[batch_size, num_users, num_info_bits]`, zeros and ones; drawn from
            Sionna's generator when None.
        noise: complex `[batch_size, num_users, num_ofdm_symbols, num_subcarriers]`, noise of unit
            variance; drawn from Sionna's generator when None.
        csi_error_variance: float, scalar or `[batch_size]`, $\sigma_e^2$; that of `config` when
            None.

    Returns:
        The pair `(bits, bits_hat)`, float `[batch_size, num_users, num_info_bits]`: what was sent
        and what was decoded.

    Example:
        >>> downlink = Downlink(mcs=13)
        >>> h = complex_normal([2, 4, 1, 32, 32])
        >>> bits, bits_hat = downlink(tf.repeat(h, 14, axis=2), h[:, :, 0], no=0.1)
        >>> bits_hat.shape
        TensorShape([2, 4, 612])

    Reference:
        C. B. Peel, B. M. Hochwald, A. L. Swindlehurst, "A vector-perturbation technique for
        near-capacity multiantenna multiuser communication, part I", IEEE Trans. Commun., 2005.
    """

    def __init__(self, mcs, config=None, precision=None):
        super().__init__(precision=precision)
        self.config = DownlinkConfig() if config is None else config
        self.mcs = get_mcs(mcs)
        config = self.config

        # One transmitter whose streams go to one receiver each, in order.
        self.stream_management = StreamManagement(
            np.ones([config.num_users, 1], int), config.num_users
        )
        self.resource_grid = ResourceGrid(
            num_ofdm_symbols=config.num_ofdm_symbols,
            fft_size=config.num_subcarriers,
            subcarrier_spacing=config.subcarrier_spacing,
            num_tx=1,
            num_streams_per_tx=config.num_users,
            pilot_pattern=comb_pilot_pattern(config),
            precision=precision,
        )
        num_bits = self.mcs.num_bits_per_symbol
        if not _MIN_CODE_RATE <= self.mcs.code_rate <= _MAX_CODE_RATE:
            raise ValueError(
                f"Sionna's 5G LDPC encoder takes code rates from {_MIN_CODE_RATE} to "
                f"{_MAX_CODE_RATE}. Received: mcs={self.mcs.name}"
            )
        self._encoder = LDPC5GEncoder(
            self.mcs.num_info_bits(config.num_data_symbols),
            config.num_data_symbols * num_bits,
            num_bits_per_symbol=num_bits,
            precision=precision,
        )
        self._decoder = LDPC5GDecoder(
            self._encoder,
            cn_update=config.cn_update,
            num_iter=config.num_iterations,
            hard_out=True,
            precision=precision,
        )
        constellation = Constellation("qam", num_bits, precision=precision)
        self._source = BinarySource(precision=precision)
        self._mapper = Mapper(constellation=constellation, precision=precision)
        self._grid_mapper = ResourceGridMapper(self.resource_grid, precision=precision)
        self._precoded_channel = RZFPrecodedChannel(
            self.resource_grid, self.stream_management, precision=precision
        )
        self._estimator = LSChannelEstimator(
            self.resource_grid, interpolation_type="lin", precision=precision
        )
        self._equalizer = LMMSEEqualizer(
            self.resource_grid, self.stream_management, precision=precision
        )
        self._demapper = Demapper(
            "app", constellation_type="pam", num_bits_per_symbol=num_bits // 2, precision=precision
        )

    @property
    def num_info_bits(self):
        """int, information bits of a block."""
        return self._encoder.k

    @property
    def num_coded_bits(self):
        """int, coded bits of a block."""
        return self._encoder.n

    @property
    def rate(self):
        """float, spectral efficiency of a user without block errors [bit/s/Hz]."""
        return self.config.rate(self.mcs)

    def effective_channel(self, h, h_hat, no, csi_error_variance=None):
        """True channel times the precoder of the estimated one.

        Call arguments:
            h, h_hat, no, csi_error_variance: as for the block.

        Returns:
            Complex `[batch_size, num_users, num_ofdm_symbols, num_subcarriers, num_users]`:
            what each user (axis 1) receives of each stream (last axis).
        """
        h_eff = self._effective_channel(h, h_hat, no, csi_error_variance)
        return tf.transpose(h_eff[:, :, 0, 0], [0, 1, 3, 4, 2])

    def _effective_channel(self, h, h_hat, no, csi_error_variance):
        # Sionna: [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, num_ofdm_symbols, fft_size]
        h = tf.transpose(h, [0, 1, 3, 2, 4])[:, :, None, None]
        # One OFDM symbol is enough for the precoder, which then serves the whole slot.
        h_hat = h_hat[:, :, None, None, :, None, :]
        num_users = tf.cast(self.config.num_users, self.rdtype)
        if csi_error_variance is None:
            csi_error_variance = self.config.csi_error_variance
        error = tf.cast(csi_error_variance, self.rdtype)
        alpha = expand_to_rank(num_users * (tf.cast(no, self.rdtype) + error), 1)
        # Full rank: the precoding blocks broadcast a regularisation of lower rank differently.
        alpha = tf.broadcast_to(
            alpha[:, None, None, None], [tf.shape(h)[0], 1, 1, self.config.num_subcarriers]
        )
        tx_power = tf.ones([1, 1, self.config.num_users], self.rdtype) / num_users
        return self._precoded_channel(h, tx_power, h_hat=h_hat, alpha=alpha)

    def spectral_efficiency(self, h, h_hat, no, csi_error_variance=None):
        """Rate that Gaussian signalling would reach with this precoder and a perfect receiver.

        Call arguments:
            h, h_hat, no, csi_error_variance: as for the block.

        Returns:
            Float `[batch_size, num_users]` [bit/s/Hz]: mean over the resource elements of
            `log2(1 + SINR)`, pilots not deducted.
        """
        gain = tf.abs(self.effective_channel(h, h_hat, no, csi_error_variance)) ** 2
        signal = tf.linalg.diag_part(tf.transpose(gain, [0, 2, 3, 1, 4]))
        total = tf.reduce_sum(tf.transpose(gain, [0, 2, 3, 1, 4]), axis=-1)
        no = expand_to_rank(tf.cast(no, self.rdtype), 1)[:, None, None, None]
        sinr = signal / (total - signal + no)
        return tf.reduce_mean(tf.math.log1p(sinr), axis=[1, 2]) / np.log(2.0)

    def call(self, h, h_hat, no, bits=None, noise=None, csi_error_variance=None):
        config = self.config
        batch_size = tf.shape(h)[0]
        no = tf.broadcast_to(expand_to_rank(tf.cast(no, self.rdtype), 1), [batch_size])
        if bits is None:
            bits = self._source([batch_size, config.num_users, self.num_info_bits])
        if noise is None:
            noise = complex_normal(
                tf.stack(
                    [batch_size, config.num_users, config.num_ofdm_symbols, config.num_subcarriers]
                ),
                precision=self.precision,
            )

        # [batch, num_tx = 1, num_streams_per_tx, ...]
        x = self._grid_mapper(self._mapper(self._encoder(bits[:, None])))
        h_eff = self._effective_channel(h, h_hat, no, csi_error_variance)
        # b batch, u user, s stream, t OFDM symbol, f subcarrier
        y = tf.einsum("bustf,bstf->butf", h_eff[:, :, 0, 0], x[:, 0])
        y = y + tf.cast(tf.sqrt(no), self.cdtype)[:, None, None, None] * noise
        y = y[:, :, None]

        if config.receiver == "perfect":
            h_eff_hat, error_variance = h_eff, tf.zeros([1] * 7, self.rdtype)
        else:
            h_eff_hat, error_variance = self._estimator(y, no)
        x_hat, no_eff = self._equalizer(y, h_eff_hat, error_variance, no)
        return bits, self._decoder(self._demap(x_hat, no_eff))[:, 0]

    def _demap(self, x_hat, no_eff):
        """Log-likelihood ratios of the bits, exactly those of Sionna's demapper for QAM.

        A square constellation is the product of two real ones: 2 x 8 distances in place of 64.
        """
        half = self.mcs.num_bits_per_symbol // 2
        parts = tf.stack([tf.math.real(x_hat), tf.math.imag(x_hat)], axis=-1)
        # Each part has half the energy and half the noise; Sionna's PAM has unit energy.
        parts = tf.cast(np.sqrt(2.0) * parts, self.cdtype)
        llr = self._demapper(parts, 2.0 * no_eff[..., None])
        # Bits alternate between the real and the imaginary part.
        llr = tf.reshape(llr, tf.concat([tf.shape(parts), [half]], axis=0))
        llr = tf.linalg.matrix_transpose(llr)
        shape = [tf.shape(x_hat)[0], 1, self.config.num_users, self.num_coded_bits]
        return tf.reshape(llr, shape)
