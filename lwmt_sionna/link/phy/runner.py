"""Ways to run the link: on given drops with paired noise, in Sionna's own tools, in white noise."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from keras import ops
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Demapper, Mapper
from sionna.phy.utils import complex_normal, ebnodb2no

from lwmt_sionna.baselines import told_arrived
from lwmt_sionna.link.phy.config import DownlinkConfig, Mcs, get_mcs
from lwmt_sionna.link.phy.downlink import Downlink
from lwmt_sionna.link.phy.information import (
    MODULATIONS,
    bit_information,
    effective_snr_db,
    qam_information,
)
from lwmt_sionna.link.phy.line import Compile, compiled, draw_indices, dtypes
from lwmt_sionna.typing import Array

# Whatever does not depend on the code is computed with these schemes, one per modulation.
_REPRESENTATIVES = {2: 4, 4: 13, 6: 22}


class LinkRunner:
    """Runs the link on given drops, with bits and noise that depend on nothing but the seed.

    Bits and noise are drawn per drop and slot on the host, not inside the graph: policies, SNR
    points, batch sizes, execution modes and processes all meet the same ones.

    Args:
        batch_size: int, drops per call.
        seed: int, seed of bits and noise.
        compile: "xla", "graph" or "eager"; on PyTorch the link always runs eagerly.
    """

    def __init__(
        self,
        config: DownlinkConfig | None = None,
        batch_size: int = 32,
        seed: int = 0,
        compile: Compile = "xla",
    ) -> None:
        self.config = DownlinkConfig() if config is None else config
        self.batch_size = batch_size
        self.seed = seed
        self._mode = compile
        self._downlinks: dict[int, Downlink] = {}
        self._functions: dict[Any, Callable] = {}
        self._draw = functools.lru_cache(maxsize=32)(self._draw_batch)

    def count(
        self, slot: Array, h_hat: Array, mcs: int, link_snr_db: float, slots: Sequence[int] = (0,)
    ) -> Array:
        """Bit errors of every block.

        Args:
            slot: complex64 `[num_drops, num_links, num_ofdm_symbols, num_antennas,
                num_subcarriers]`, true channels.
            h_hat: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
            mcs: int, index of the scheme.
            link_snr_db: float, link SNR [dB].
            slots: sequence of int, slots to simulate: the same channel with bits and noise of their
                own.

        Returns:
            int64 `[num_drops, num_users, len(slots)]`, wrong information bits per block.
        """
        bits = ("info", mcs, self.downlink(mcs).num_info_bits)
        function = self._function(_count, mcs)
        return self._run(function, slot, h_hat, link_snr_db, slots, bits).astype(np.int64)

    def information(
        self,
        slot: Array,
        h_hat: Array,
        num_bits_per_symbol: int,
        link_snr_db: float,
        slots: Sequence[int] = (0,),
    ) -> Array:
        """What the decoder is told of every block, per coded bit (see `bit_information`).

        Args:
            slot, h_hat, link_snr_db, slots: as for `count`.
            num_bits_per_symbol: int, modulation: 2, 4 or 6.

        Returns:
            float64 `[num_drops, num_users, len(slots)]`.
        """
        mcs = _REPRESENTATIVES[num_bits_per_symbol]
        bits = ("coded", num_bits_per_symbol, self.downlink(mcs).num_coded_bits)
        function = self._function(_information, mcs)
        return self._run(function, slot, h_hat, link_snr_db, slots, bits)

    def sinr(
        self, slot: Array, h_hat: Array, link_snr_db: float, slots: Sequence[int] = (0,)
    ) -> Array:
        """SINR of the data behind the receiver (see `Downlink.data_sinr`).

        float64 `[num_drops, num_users, len(slots), block_symbols]`, linear; arguments as for
        `count`.
        """
        return self._run(self._function(_sinr), slot, h_hat, link_snr_db, slots, None)

    def spectral_efficiency(self, slot: Array, h_hat: Array, link_snr_db: float) -> Array:
        """Rate of Gaussian signalling per user, float64 `[num_drops, num_users]` [bit/s/Hz]."""
        function, no = self._function(_rate), _noise_power(link_snr_db)
        return self._batched(len(slot), lambda i: function(slot[i], h_hat[i], no))

    def believed_snr_db(self, h_hat: Array, link_snr_db: float) -> Array:
        """Effective SNR that the base station expects if its estimate is the channel.

        float64 `[num_drops, num_users, 3]` [dB], for 2, 4 and 6 bits per symbol: the SNR of white
        Gaussian noise with the same mutual information. Arguments as for `count`.
        """
        function, no = self._function(_belief), _noise_power(link_snr_db)
        sinr = self._batched(len(h_hat), lambda i: function(h_hat[i], no))
        told = [(qam_information(sinr, bits).mean(axis=-1), bits) for bits in MODULATIONS]
        return np.stack([effective_snr_db(*each) for each in told], axis=-1)

    def downlink(self, mcs: int) -> Downlink:
        """The `Downlink` of a scheme."""
        if mcs not in self._downlinks:
            self._downlinks[mcs] = Downlink(mcs, self.config)
        return self._downlinks[mcs]

    def _run(self, function, slot, h_hat, link_snr_db, slots, bits):
        """`[num_drops, num_users, len(slots), ...]` from a function of channels and noise."""
        no = _noise_power(link_snr_db)
        results = []
        for index in slots:

            def call(drops, index=index):
                noise = self._draw("noise", None, None, index, tuple(drops))
                arguments = [slot[drops], h_hat[drops], no, noise]
                if bits is not None:
                    arguments.append(self._draw(*bits, index, tuple(drops)))
                return function(*arguments)

            results.append(self._batched(len(slot), call))
        return np.stack(results, axis=2)

    def _batched(self, num_drops, call):
        size = min(self.batch_size, num_drops)
        results = []
        for first in range(0, num_drops, size):
            # A shorter last batch would be compiled anew.
            drops = np.resize(np.arange(first, min(first + size, num_drops)), size)
            results.append(ops.convert_to_numpy(call(drops))[: num_drops - first])
        return np.concatenate(results).astype(np.float64)

    def _draw_batch(self, kind, key, num_bits, slot_index, drops):
        config = self.config
        draws = []
        for drop in drops:
            if kind == "noise":
                rng = np.random.default_rng([self.seed, 0, slot_index, drop])
                shape = (config.num_links, config.num_ofdm_symbols, config.num_subcarriers, 2)
                noise = rng.standard_normal(shape, np.float32).view(np.complex64)[..., 0]
                draws.append(np.float32(np.sqrt(0.5)) * noise)
            else:
                stream = {"info": 1, "coded": 2}[kind]
                rng = np.random.default_rng([self.seed, stream, slot_index, drop, key])
                draws.append(rng.integers(2, size=(config.num_users, num_bits)).astype(np.float32))
        return ops.convert_to_tensor(np.stack(draws))

    def _function(self, computation, mcs=None):
        key = computation, mcs
        if key not in self._functions:
            # To what has no scheme it does not matter: take one that is there anyway.
            mcs = next(iter(self._downlinks), _REPRESENTATIVES[4]) if mcs is None else mcs
            function = functools.partial(computation, self.downlink(mcs))
            self._functions[key] = compiled(function, self._mode)
        return self._functions[key]


def _count(downlink, slot, h_hat, no, noise, bits):
    bits, bits_hat = downlink(slot, h_hat, no, bits=bits, noise=noise)
    return ops.sum(ops.cast(ops.not_equal(bits, bits_hat), "int32"), axis=-1)


def _information(downlink, slot, h_hat, no, noise, coded):
    return bit_information(coded, downlink.log_likelihood_ratios(coded, slot, h_hat, no, noise))


def _sinr(downlink, slot, h_hat, no, noise):
    return downlink.data_sinr(downlink.effective_channel(slot, h_hat, no), no, noise)


def _rate(downlink, slot, h_hat, no):
    return downlink.spectral_efficiency(downlink.effective_channel(slot, h_hat, no), no)


def _belief(downlink, h_hat, no):
    return downlink.sinr(downlink.believed_channel(h_hat, no), no)


def _noise_power(link_snr_db):
    return np.float32(10 ** (-link_snr_db / 10))


def make_sim_ber_model(
    drops: Any,
    policy: Callable | Array,
    mcs: int | Mcs,
    config: DownlinkConfig | None = None,
    x_axis: Literal["ebno", "snr"] = "ebno",
) -> Callable:
    """A model for `sionna.phy.utils.sim_ber` and `sionna.phy.utils.PlotBER`.

    Every call serves `batch_size` drops drawn at random, with fresh bits and noise from Sionna's
    generator. It runs eagerly, in graph mode and under XLA (`graph_mode="xla"`, Sionna 1.2) or
    `torch.compile` (`compile_mode="default"`, Sionna 2, which takes minutes and wins nothing).

    Args:
        drops: `LinkDrops`.
        policy: `CsiPolicy`, or complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`
            with one's own estimates.
        mcs: int or `Mcs`.
        x_axis: "ebno" or "snr". With "ebno" the second argument of the model is Eb/N0 [dB] as
            Sionna defines it (`ebnodb2no` with the resource grid, energy per symbol 1: the total
            transmit power of the base station). With "snr" it is the link SNR [dB], `1 / no`.

    Returns:
        Callable `(batch_size, ebno_db) -> (bits, bits_hat)`, float
        `[batch_size, num_users, num_info_bits]`.

    Example:
        >>> model = make_sim_ber_model(drops, make_policy("hold"), mcs=13)
        >>> ber, bler = sim_ber(model, [0.0, 5.0], batch_size=32, max_mc_iter=10, graph_mode="xla")
    """
    if x_axis not in ("ebno", "snr"):
        raise ValueError(f'`x_axis` is "ebno" or "snr". Received: x_axis={x_axis!r}')
    if config is None:
        config = DownlinkConfig(
            num_users=drops.num_users,
            num_user_antennas=drops.num_user_antennas,
            streams_per_user=drops.num_user_antennas,
            num_antennas=drops.target.shape[-2],
            num_subcarriers=drops.target.shape[-1],
        )
    downlink = Downlink(mcs, config)
    h_hat = policy
    if callable(policy):
        told = told_arrived(policy, drops.arrived)
        h_hat = policy(drops.history, drops.horizon, target=drops.target, **told)
    real, complex_ = dtypes(downlink.precision)
    slot = ops.convert_to_tensor(drops.slot, complex_)
    h_hat = ops.convert_to_tensor(np.asarray(h_hat), complex_)

    def model(batch_size, ebno_db):
        if x_axis == "snr":
            no = 10.0 ** (-ops.cast(ebno_db, real) / 10.0)
        else:
            no = ebnodb2no(
                ebno_db,
                downlink.mcs.num_bits_per_symbol,
                downlink.num_info_bits / downlink.num_coded_bits,
                downlink.resource_grid,
            )
        index = draw_indices(batch_size, drops.num_drops)
        return downlink(ops.take(slot, index, axis=0), ops.take(h_hat, index, axis=0), no)

    return model


def make_awgn_link(
    mcs: int | Mcs,
    num_symbols: int,
    num_iterations: int = 20,
    cn_update: str = "boxplus-phi",
    batch_size: int = 100,
) -> Callable[[float], tuple[Array, Array]]:
    """Code, modulation and decoder of the link alone, in white Gaussian noise.

    Args:
        num_symbols: int, data symbols that a block fills.
        num_iterations: int, iterations of the decoder.
        cn_update: str, check-node update of the decoder.
        batch_size: int, blocks per call.

    Returns:
        Callable from an SNR [dB] to the pair of what the decoder is told per bit, float32
        `[batch_size]`, and whether the block fails, bool `[batch_size]`. The seed is Sionna's
        (`sionna.phy.config.seed`).
    """
    scheme = get_mcs(mcs)
    num_bits = scheme.num_bits_per_symbol
    encoder = LDPC5GEncoder(
        scheme.num_info_bits(num_symbols), num_symbols * num_bits, num_bits_per_symbol=num_bits
    )
    decoder = LDPC5GDecoder(encoder, cn_update=cn_update, num_iter=num_iterations)
    mapper, demapper = Mapper("qam", num_bits), Demapper("app", "qam", num_bits)
    source = BinarySource()

    def run(no):
        bits = source([batch_size, encoder.k])
        coded = encoder(bits)
        x = mapper(coded)
        noise = complex_normal(ops.shape(x))
        llr = demapper(x + ops.cast(ops.sqrt(no), noise.dtype) * noise, no)
        failed = ops.any(ops.not_equal(decoder(llr), bits), axis=-1)
        return bit_information(coded, llr), failed

    run = compiled(run, "xla")

    def simulate(snr_db):
        told = run(ops.convert_to_tensor(_noise_power(snr_db)))
        information, failed = (ops.convert_to_numpy(each) for each in told)
        return information, failed

    return simulate
