"""Multi-user MIMO downlink with a precoder that knows the channel only as well as its CSI."""

import numpy as np
from keras import ops
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
)
from sionna.phy.utils import complex_normal, expand_to_rank

from lwmt_sionna.link.phy.config import PILOT_COMB, DownlinkConfig, Mcs, get_mcs
from lwmt_sionna.link.phy.line import dtypes, einsum
from lwmt_sionna.link.phy.processing import (
    WienerInterpolator,
    dominant_rows,
    effective_channel,
    post_equalization_sinr,
    rzf_precoder,
)
from lwmt_sionna.typing import Tensor

_MIN_CODE_RATE = 0.2
_MAX_CODE_RATE = 0.95
_MAX_INFO_BITS = 8448
# What the Wiener filter expects of effective channels: the width of the window of delays, as a
# share of the reciprocal of the spacing of the simulated subcarriers (pilots on every second of
# them tell delays apart within half of it), and of the window of Doppler shifts [Hz].
_DELAY_SPREAD = 0.2
_DOPPLER_SPREAD = 800.0


def comb_pilot_pattern(config: DownlinkConfig, precision: str | None = None) -> PilotPattern:
    """Orthogonal pilots: each stream has a comb in one OFDM symbol of every group.

    Like the demodulation reference signals of NR (type 1, double symbol, one additional
    position), with the two ports that NR separates by code separated by symbol. Power freed by
    the silent streams is given to the active one, so every pilot symbol radiates what a data
    symbol radiates. The pattern is that of one transmitter with `num_streams` streams.
    """
    symbols = sorted(symbol for group in config.pilot_groups for symbol in group)
    num_streams = config.num_streams
    shape = (1, num_streams, config.num_ofdm_symbols, config.num_subcarriers)
    mask = np.zeros(shape, bool)
    mask[:, :, symbols, :] = True
    quadrant = np.random.default_rng(7).integers(4, size=shape)
    sequence = np.exp(1j * (np.pi / 4 + np.pi / 2 * quadrant)) * np.sqrt(num_streams)
    grid = np.zeros(shape, np.complex64)
    for stream in range(num_streams):
        row, offset = divmod(stream, PILOT_COMB)
        for group in config.pilot_groups:
            comb = np.s_[0, stream, group[row], offset::PILOT_COMB]
            grid[comb] = sequence[comb]
    pilots = grid[mask].reshape(1, num_streams, -1)
    return PilotPattern(mask, pilots, normalize=False, precision=precision)


class Downlink(Block):
    r"""TDD downlink to several users, one code word per user and slot.

    The base station precodes with regularised zero-forcing (RZF) from its channel estimate
    $\hat{H}$, per subcarrier and constant over the slot. With one row of $\hat{H}$
    `[num_streams, num_antennas]` per stream (a receive antenna, or an eigenmode of a user's
    antennas, see `DownlinkConfig.combining`),

    $$G = \hat{H}^H (\hat{H}\hat{H}^H + \alpha I)^{-1} D, \qquad
      \alpha = K \sigma^2 / P,$$

    where $D$ gives every column the power $P / K$, $K$ is the number of streams, $P = 1$ the total
    power per resource element and $\sigma^2$ the noise power: the CSI is trusted. What the users
    receive is the **true** channel of each OFDM symbol times $G$, $y = H G x + n$. Interference
    between subcarriers, from motion within a symbol, is left out.

    The chain is Sionna's: 5G LDPC code, QAM mapper, resource grid with precoded pilots, channel
    estimation, LMMSE detection (the interference of the other users' streams is treated as coloured
    noise), soft demapper, belief propagation. On Sionna 1.2 it compiles with
    `tf.function(jit_compile=True)`; on Sionna 2.2 it computes with PyTorch, as it is.

    With channels of unit mean power per coefficient, `1 / no` is the *link SNR*: total transmit
    power times mean gain of an antenna, over noise power.

    Args:
        mcs: int or `Mcs`, modulation and coding scheme.
        config: `DownlinkConfig`. Defaults to 4 users, 32 antennas, 14 x 32 resource elements.
        precision: None, "single" or "double", as for every Sionna block.

    Call arguments:
        h: true channel of the slot, complex `[batch_size, num_rx, num_rx_ant, num_tx, num_tx_ant,
            num_ofdm_symbols, fft_size]` as Sionna has it, users being the receivers and `num_tx` 1;
            or short `[batch_size, num_links, num_ofdm_symbols, num_tx_ant, fft_size]`. `num_links`
            counts the receive antennas of all users, those of a user being neighbours: with
            single-antenna users it is `num_rx`.
        h_hat: what the base station believes, complex `[batch_size, num_rx, num_rx_ant, num_tx,
            num_tx_ant, 1, fft_size]`, or short `[batch_size, num_links, num_tx_ant, fft_size]`.
        no: float, scalar or `[batch_size]`, noise power.
        bits: float `[batch_size, num_users, num_info_bits]`, zeros and ones; drawn from
            Sionna's generator when None.
        noise: complex `[batch_size, num_links, num_ofdm_symbols, num_subcarriers]`, noise of unit
            variance; drawn from Sionna's generator when None.

    Returns:
        The pair `(bits, bits_hat)`, float `[batch_size, num_users, num_info_bits]`: what was sent
        and what was decoded.

    Example:
        >>> downlink = Downlink(mcs=13)
        >>> h = complex_normal([2, 4, 1, 32, 32])
        >>> bits, bits_hat = downlink(keras.ops.repeat(h, 14, axis=2), h[:, :, 0], no=0.1)
        >>> tuple(bits_hat.shape)
        (2, 4, 612)

    Reference:
        C. B. Peel, B. M. Hochwald, A. L. Swindlehurst, "A vector-perturbation technique for
        near-capacity multiantenna multiuser communication, part I", IEEE Trans. Commun., 2005.
    """

    def __init__(
        self,
        mcs: int | Mcs,
        config: DownlinkConfig | None = None,
        precision: str | None = None,
    ) -> None:
        super().__init__(precision=precision)
        self._real, self._complex = dtypes(self.precision)
        self.config = DownlinkConfig() if config is None else config
        self.mcs = get_mcs(mcs)
        config = self.config

        # One transmitter whose streams go to the receivers in order.
        self.stream_management = StreamManagement(
            np.ones([config.num_users, 1], int), config.num_streams
        )
        self.resource_grid = ResourceGrid(
            num_ofdm_symbols=config.num_ofdm_symbols,
            fft_size=config.num_subcarriers,
            subcarrier_spacing=config.subcarrier_spacing,
            num_tx=1,
            num_streams_per_tx=config.num_streams,
            pilot_pattern=comb_pilot_pattern(config, precision),
            precision=precision,
        )
        num_bits, kept = self.mcs.num_bits_per_symbol, {"precision": precision}
        self._encoder = _make_encoder(self.mcs, config, precision)
        self._decoder = LDPC5GDecoder(
            self._encoder,
            cn_update=config.cn_update,
            num_iter=config.num_iterations,
            hard_out=True,
            **kept,
        )
        self._source = BinarySource(**kept)
        self._mapper = Mapper(constellation=Constellation("qam", num_bits, **kept), **kept)
        self._grid_mapper = ResourceGridMapper(self.resource_grid, **kept)
        interpolator = None
        if config.receiver == "lmmse":
            doppler = _DOPPLER_SPREAD * config.symbol_duration
            interpolator = WienerInterpolator(
                self.resource_grid.pilot_pattern, _DELAY_SPREAD, doppler, precision
            )
        self._estimator = LSChannelEstimator(
            self.resource_grid, interpolation_type="lin", interpolator=interpolator, **kept
        )
        self._equalizer = LMMSEEqualizer(self.resource_grid, self.stream_management, **kept)
        self._demapper = Demapper(
            "app", constellation_type="pam", num_bits_per_symbol=num_bits // 2, **kept
        )

    @property
    def num_info_bits(self) -> int:
        """int, information bits of a block."""
        return self._encoder.k

    @property
    def num_coded_bits(self) -> int:
        """int, coded bits of a block."""
        return self._encoder.n

    @property
    def rate(self) -> float:
        """float, spectral efficiency of a user without block errors [bit/s/Hz]."""
        return self.config.rate(self.mcs)

    def precoder(self, h_hat: Tensor, no: Tensor) -> Tensor:
        """What the base station radiates, of unit power; arguments are those of the block.

        Complex `[batch_size, fft_size, num_tx_ant, num_streams]`.
        """
        config = self.config
        rows = ops.transpose(self._estimate(h_hat)[:, :, 0], [0, 3, 1, 2])
        if config.combining == "eigen":
            shape = [-1, config.num_subcarriers, config.num_users]
            split = ops.reshape(rows, [*shape, config.num_user_antennas, config.num_antennas])
            modes = dominant_rows(ops.transpose(split, [0, 2, 1, 3, 4]), config.streams_per_user)
            modes = ops.transpose(modes, [0, 2, 1, 3, 4])
            rows = ops.reshape(modes, [*shape[:2], config.num_streams, config.num_antennas])
        alpha = config.num_streams * ops.cast(no, self._real)
        return rzf_precoder(rows, expand_to_rank(alpha, 2))

    def effective_channel(self, h: Tensor, h_hat: Tensor, no: Tensor) -> Tensor:
        """True channel times the precoder of the estimated one.

        Call arguments:
            h, h_hat, no: as for the block; `h` may have any number of OFDM symbols.

        Returns:
            Complex `[batch_size, num_links, num_ofdm_symbols, fft_size, num_streams]`: what each
            receive antenna (axis 1) receives of each stream (last axis).
        """
        return effective_channel(self._short("h", h, None), self.precoder(h_hat, no))

    def believed_channel(self, h_hat: Tensor, no: Tensor) -> Tensor:
        """The effective channel that the base station expects: its estimate times its precoder.

        Complex `[batch_size, num_links, 1, fft_size, num_streams]`; see `precoder`.
        """
        return self.effective_channel(self._estimate(h_hat), h_hat, no)

    def sinr(self, h_eff: Tensor, no: Tensor) -> Tensor:
        """SINR of users that know their effective channel.

        Call arguments:
            h_eff: complex `[batch_size, num_links, num_ofdm_symbols, fft_size, num_streams]`, what
                `effective_channel` returns.
            no: as for the block.

        Returns:
            Float `[batch_size, num_users, streams_per_user * num_ofdm_symbols * fft_size]`, linear.
        """
        return self._sinr(h_eff, no, None, tuple(range(h_eff.shape[2])))

    def spectral_efficiency(self, h_eff: Tensor, no: Tensor) -> Tensor:
        """Rate that Gaussian signalling would reach with users that know their effective channel.

        Call arguments:
            h_eff, no: as for `sinr`.

        Returns:
            Float `[batch_size, num_users]` [bit/s/Hz]: mean over the resource elements of
            `log2(1 + SINR)`, summed over a user's streams, pilots not deducted.
        """
        rate = ops.mean(ops.log1p(self.sinr(h_eff, no)), axis=-1) / float(np.log(2.0))
        return self.config.streams_per_user * rate

    def data_sinr(self, h_eff: Tensor, no: Tensor, noise: Tensor | None = None) -> Tensor:
        """SINR of the data as the configured receiver hears them, its estimation errors included.

        Call arguments:
            h_eff, no: as for `sinr`.
            noise: as for the block. Only the noise of the pilots matters, and none for a receiver
                with perfect knowledge.

        Returns:
            Float `[batch_size, num_users, streams_per_user * num_data_symbols]`, linear.
        """
        estimate = None
        if self.config.receiver != "perfect":
            size = ops.shape(h_eff)[0]
            shape = [size, 1, self.config.num_streams, self.config.num_data_symbols]
            pilots = self._grid_mapper(ops.zeros(shape, self._complex))
            no = self._noise_power(no, h_eff)
            estimate = self._estimator(self._receive(h_eff, pilots, no, noise), no)
        return self._sinr(h_eff, no, estimate, self.config.data_symbols)

    def _sinr(self, h_eff, no, estimate, symbols):
        """SINR per user over the given OFDM symbols, flattened."""
        config = self.config
        h_eff_hat, error = None, 0.0
        symbols = np.asarray(symbols, np.int32)
        if estimate is not None:
            # Of Sionna's seven axes the one of transmitters goes, streams become the last.
            h_eff_hat, error = (
                ops.take(ops.transpose(x[:, :, :, 0], [0, 1, 2, 4, 5, 3]), symbols, axis=3)
                for x in (estimate[0], ops.broadcast_to(estimate[1], ops.shape(estimate[0])))
            )
        sinr = post_equalization_sinr(
            ops.take(self._by_user(h_eff), symbols, axis=3),
            expand_to_rank(ops.cast(no, self._real), 1),
            config.streams_per_user,
            h_eff_hat,
            error,
        )
        size = config.streams_per_user * len(symbols) * config.num_subcarriers
        return ops.reshape(sinr, [-1, config.num_users, size])

    def call(
        self,
        h: Tensor,
        h_hat: Tensor,
        no: Tensor,
        bits: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if bits is None:
            shape = [ops.shape(h)[0], self.config.num_users, self.num_info_bits]
            bits = self._source(shape)
        coded = self._encoder(bits)
        return bits, self._decoder(self.log_likelihood_ratios(coded, h, h_hat, no, noise))

    def log_likelihood_ratios(
        self,
        coded: Tensor,
        h: Tensor,
        h_hat: Tensor,
        no: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The link without its code: what the decoder is given.

        Call arguments:
            coded: float `[batch_size, num_users, num_coded_bits]`, zeros and ones.
            h, h_hat, no, noise: as for the block.

        Returns:
            Float `[batch_size, num_users, num_coded_bits]`; positive where a one is likelier.
        """
        config = self.config
        per_stream = self.num_coded_bits // config.streams_per_user
        x = self._mapper(ops.reshape(coded, [-1, 1, config.num_streams, per_stream]))
        h_eff = self.effective_channel(h, h_hat, no)
        no = self._noise_power(no, h_eff)
        y = self._receive(h_eff, self._grid_mapper(x), no, noise)
        if config.receiver == "perfect":
            h_eff_hat = ops.transpose(self._by_user(h_eff), [0, 1, 2, 5, 3, 4])[:, :, :, None]
            error_variance = ops.zeros([1] * 7, self._real)
        else:
            h_eff_hat, error_variance = self._estimator(y, no)
        x_hat, no_eff = self._equalizer(y, h_eff_hat, error_variance, no)
        llr = self._demap(x_hat, no_eff)
        return ops.reshape(llr, [-1, config.num_users, self.num_coded_bits])

    def _short(self, name, h, num_symbols):
        """`[batch_size, num_links, num_ofdm_symbols, num_tx_ant, fft_size]` of either form."""
        config = self.config
        h = ops.cast(h, self._complex)
        users = (config.num_users, config.num_user_antennas, 1)
        grid = (num_symbols, config.num_subcarriers)
        if len(h.shape) == 7:
            expected = (None, *users, config.num_antennas, *grid)
        else:
            expected = (None, config.num_links, num_symbols, config.num_antennas, grid[1])
        if len(h.shape) != len(expected) or any(
            None not in sizes and sizes[0] != sizes[1] for sizes in zip(h.shape, expected)
        ):
            raise ValueError(
                f"`{name}` has the shape (batch_size, num_rx, num_rx_ant, num_tx, num_tx_ant, "
                "num_ofdm_symbols, fft_size) or (batch_size, num_links, num_ofdm_symbols, "
                f"num_tx_ant, fft_size), estimates without or with one symbol: here {expected}. "
                f"Received: {name}.shape={tuple(h.shape)}"
            )
        if len(h.shape) == 7:
            h = ops.transpose(h[:, :, :, 0], [0, 1, 2, 4, 3, 5])
            h = ops.reshape(h, [-1, config.num_links, *h.shape[3:]])
        return h

    def _estimate(self, h_hat):
        """`[batch_size, num_links, 1, num_tx_ant, fft_size]` of any form of the estimate."""
        h_hat = ops.convert_to_tensor(h_hat)
        return self._short("h_hat", h_hat[:, :, None] if len(h_hat.shape) == 4 else h_hat, 1)

    def _noise_power(self, no, h_eff):
        no = expand_to_rank(ops.cast(no, self._real), 1)
        return ops.broadcast_to(no, [ops.shape(h_eff)[0]])

    def _receive(self, h_eff, x, no, noise):
        """`[batch_size, num_users, num_user_antennas, num_ofdm_symbols, num_subcarriers]`."""
        if noise is None:
            noise = complex_normal(ops.shape(h_eff)[:-1], precision=self.precision)
        # b batch, r receive antenna, s stream, t OFDM symbol, f subcarrier
        y = einsum("brtfs,bstf->brtf", h_eff, x[:, 0])
        scale = ops.cast(ops.sqrt(no), self._complex)[:, None, None, None]
        return self._by_user(y + scale * ops.cast(noise, self._complex))

    def _by_user(self, x):
        """Splits receive antennas (axis 1) into users and antennas of a user."""
        config = self.config
        return ops.reshape(x, [-1, config.num_users, config.num_user_antennas, *x.shape[2:]])

    def _demap(self, x_hat, no_eff):
        """Log-likelihood ratios of the bits, exactly those of Sionna's demapper for QAM.

        A square constellation is the product of two real ones: 2 x 8 distances in place of 64.
        """
        half = self.mcs.num_bits_per_symbol // 2
        parts = ops.stack([ops.real(x_hat), ops.imag(x_hat)], axis=-1)
        # Each part has half the energy and half the noise; Sionna's PAM has unit energy.
        parts = ops.cast(float(np.sqrt(2.0)) * parts, self._complex)
        llr = self._demapper(parts, 2.0 * no_eff[..., None])
        # Bits alternate between the real and the imaginary part.
        llr = ops.reshape(llr, [*ops.shape(parts), half])
        return ops.reshape(ops.swapaxes(llr, -1, -2), [*ops.shape(x_hat)[:-1], -1])


def _make_encoder(mcs, config, precision):
    num_info_bits = mcs.num_info_bits(config.block_symbols)
    if not _MIN_CODE_RATE <= mcs.code_rate <= _MAX_CODE_RATE:
        raise ValueError(
            f"Sionna's 5G LDPC encoder takes code rates from {_MIN_CODE_RATE} to "
            f"{_MAX_CODE_RATE}. Received: mcs={mcs.name}"
        )
    if num_info_bits > _MAX_INFO_BITS:
        raise ValueError(
            f"A user's block is one code word of at most {_MAX_INFO_BITS} information bits. "
            f"Received: {mcs.name} on {config.block_symbols} data symbols, {num_info_bits} bits"
        )
    return LDPC5GEncoder(
        num_info_bits,
        config.block_symbols * mcs.num_bits_per_symbol,
        num_bits_per_symbol=mcs.num_bits_per_symbol,
        precision=precision,
    )
