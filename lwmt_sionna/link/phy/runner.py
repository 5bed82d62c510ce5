"""The compiled link, fed with bits and noise that depend on nothing but the seed."""

import functools

import numpy as np
import tensorflow as tf

from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.link.phy.downlink import Downlink
from lwmt_sionna.link.phy.information import bit_information, effective_snr_db, qam_information

__all__ = ["LinkRunner"]

# Whatever does not depend on the code is computed with these schemes, one per modulation.
_REPRESENTATIVES = {2: 4, 4: 13, 6: 22}


class LinkRunner:
    """Runs the link on given drops, with bits and noise that depend on nothing but the seed.

    Bits and noise are drawn per drop and slot on the host, not inside the graph: policies, SNR
    points, batch sizes, execution modes and processes all meet the same ones.

    Args:
        config: `DownlinkConfig`.
        batch_size, seed, compile: as in `SweepConfig`.
    """

    def __init__(self, config=None, batch_size=32, seed=0, compile="xla"):
        self.config = DownlinkConfig() if config is None else config
        self.batch_size = batch_size
        self.seed = seed
        self._mode = compile
        self._downlinks = {}
        self._functions = {}
        self._draw = functools.lru_cache(maxsize=32)(self._draw_batch)

    def count(self, slot, h_hat, mcs, snr_db, slots=(0,)):
        """Bit errors of every block.

        Args:
            slot: complex64 `[num_drops, num_links, num_ofdm_symbols, num_antennas,
                num_subcarriers]`, true channels.
            h_hat: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
            mcs: int, index of the scheme.
            snr_db: float, link SNR [dB].
            slots: sequence of int, slots to simulate: the same channel with bits and noise of their
                own.

        Returns:
            int64 `[num_drops, num_users, len(slots)]`, wrong information bits per block.
        """
        function = self._function("count", mcs)
        bits = ("info", mcs, self.downlink(mcs).num_info_bits)
        return self._run(function, slot, h_hat, snr_db, slots, bits).astype(np.int64)

    def information(self, slot, h_hat, num_bits_per_symbol, snr_db, slots=(0,)):
        """What the decoder is told of every block, per coded bit (see `bit_information`).

        Args:
            slot, h_hat, snr_db, slots: as for `count`.
            num_bits_per_symbol: int, modulation: 2, 4 or 6.

        Returns:
            float64 `[num_drops, num_users, len(slots)]`.
        """
        mcs = _REPRESENTATIVES[num_bits_per_symbol]
        function = self._function("information", mcs)
        bits = ("coded", num_bits_per_symbol, self.downlink(mcs).num_coded_bits)
        return self._run(function, slot, h_hat, snr_db, slots, bits)

    def sinr(self, slot, h_hat, snr_db, slots=(0,)):
        """SINR of the data behind the receiver (see `Downlink.sinr`).

        Args:
            slot, h_hat, snr_db, slots: as for `count`.

        Returns:
            float64 `[num_drops, num_users, len(slots), streams_per_user * num_data_symbols]`.
        """
        return self._run(self._function("sinr"), slot, h_hat, snr_db, slots, None)

    def spectral_efficiency(self, slot, h_hat, snr_db):
        """Rate of Gaussian signalling per user, float64 `[num_drops, num_users]` [bit/s/Hz]."""
        function = self._function("spectral_efficiency")
        no = np.float32(10 ** (-snr_db / 10))
        return self._batched(len(slot), lambda i: function(slot[i], h_hat[i], no))

    def believed_snr_db(self, h_hat, snr_db):
        """Effective SNR that the base station expects if its estimate is the channel.

        Args:
            h_hat: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
            snr_db: float, link SNR [dB].

        Returns:
            Dict from bits per symbol (2, 4, 6) to float64 `[num_drops, num_users]` [dB]: the SNR of
            white Gaussian noise with the same mutual information.
        """
        function = self._function("believed_sinr")
        no = np.float32(10 ** (-snr_db / 10))
        sinr = self._batched(len(h_hat), lambda i: function(h_hat[i], no))
        return {
            bits: effective_snr_db(qam_information(sinr, bits).mean(axis=-1), bits)
            for bits in _REPRESENTATIVES
        }

    def downlink(self, mcs):
        """The `Downlink` of a scheme."""
        if mcs not in self._downlinks:
            self._downlinks[mcs] = Downlink(mcs, self.config)
        return self._downlinks[mcs]

    def _run(self, function, slot, h_hat, snr_db, slots, bits):
        """`[num_drops, num_users, len(slots), ...]` from a function of channels and noise."""
        no = np.float32(10 ** (-snr_db / 10))
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
            results.append(np.asarray(call(drops))[: num_drops - first])
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
        return tf.constant(np.stack(draws))

    def _function(self, kind, mcs=None):
        if mcs is None:
            # The scheme does not matter to it: take one that is there anyway.
            mcs = next(iter(self._downlinks), _REPRESENTATIVES[4])
            key = kind
        else:
            key = kind, mcs
        if key not in self._functions:
            function = self._make_function(kind, self.downlink(mcs))
            if self._mode != "eager":
                function = tf.function(function, jit_compile=self._mode == "xla")
            self._functions[key] = function
        return self._functions[key]

    @staticmethod
    def _make_function(kind, downlink):
        if kind == "count":

            def function(slot, h_hat, no, noise, bits):
                bits, bits_hat = downlink(slot, h_hat, no, bits=bits, noise=noise)
                return tf.math.count_nonzero(tf.not_equal(bits, bits_hat), axis=-1)

        elif kind == "information":

            def function(slot, h_hat, no, noise, coded):
                llr = downlink.log_likelihood_ratios(coded, slot, h_hat, no, noise)
                return bit_information(coded, llr)

        elif kind == "sinr":

            def function(slot, h_hat, no, noise):
                return downlink.sinr(slot, h_hat, no, noise)

        else:
            function = getattr(downlink, kind)
        return function
