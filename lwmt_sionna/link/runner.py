"""The compiled link, fed with bits and noise that depend on nothing but the seed."""

import functools

import numpy as np
import tensorflow as tf

from lwmt_sionna.link.config import DownlinkConfig
from lwmt_sionna.link.downlink import Downlink

__all__ = ["LinkRunner"]


class LinkRunner:
    """Counts errors on given drops, with bits and noise that depend on nothing but the seed.

    Bits and noise are drawn per drop and slot on the host, not inside the graph: policies, SNR
    points, batch sizes and execution modes all meet the same ones.

    Args:
        config: `DownlinkConfig`.
        num_slots, batch_size, seed, compile: as in `SweepConfig`.
    """

    def __init__(self, config=None, num_slots=1, batch_size=32, seed=0, compile="xla"):
        self.config = DownlinkConfig() if config is None else config
        self.num_slots = num_slots
        self.batch_size = batch_size
        self.seed = seed
        self._mode = compile
        self._downlinks = {}
        self._functions = {}
        self._draw = functools.lru_cache(maxsize=32)(self._draw_batch)

    def count(self, slot, h_hat, mcs, snr_db):
        """Bit errors of every block.

        Args:
            slot: complex64 `[num_drops, num_links, num_ofdm_symbols, num_antennas,
                num_subcarriers]`, true channels.
            h_hat: complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`.
            mcs: int, index of the scheme.
            snr_db: float, link SNR [dB].

        Returns:
            int64 `[num_drops, num_users, num_slots]`, wrong information bits per block.
        """
        function = self._function("count", mcs)
        no = np.float32(10 ** (-snr_db / 10))
        errors = np.zeros((len(slot), self.config.num_users, self.num_slots), np.int64)
        for drops, padded in self._batches(len(slot)):
            for index in range(self.num_slots):
                bits, noise = self._draw(mcs, index, tuple(padded))
                result = function(slot[padded], h_hat[padded], no, bits, noise)
                errors[drops, :, index] = result.numpy()[: len(drops)]
        return errors

    def spectral_efficiency(self, slot, h_hat, snr_db):
        """Rate of Gaussian signalling per user, float64 `[num_drops, num_users]` [bit/s/Hz]."""
        # The coding scheme does not matter to it: take one that is there anyway.
        mcs = next(iter(self._downlinks), 13)
        function = self._function("spectral_efficiency", mcs)
        no = np.float32(10 ** (-snr_db / 10))
        rates = np.zeros((len(slot), self.config.num_users))
        for drops, padded in self._batches(len(slot)):
            result = function(slot[padded], h_hat[padded], no)
            rates[drops] = result.numpy()[: len(drops)]
        return rates

    def downlink(self, mcs):
        """The `Downlink` of a scheme."""
        if mcs not in self._downlinks:
            self._downlinks[mcs] = Downlink(mcs, self.config)
        return self._downlinks[mcs]

    def _batches(self, num_drops):
        size = min(self.batch_size, num_drops)
        for first in range(0, num_drops, size):
            drops = np.arange(first, min(first + size, num_drops))
            # A shorter last batch would be compiled anew.
            yield drops, np.resize(drops, size)

    def _draw_batch(self, mcs, slot_index, drops):
        config = self.config
        num_bits = self.downlink(mcs).num_info_bits
        bits, noise = [], []
        for drop in drops:
            rng = np.random.default_rng([self.seed, 0, slot_index, drop])
            shape = (config.num_links, config.num_ofdm_symbols, config.num_subcarriers, 2)
            noise.append(rng.standard_normal(shape, np.float32).view(np.complex64)[..., 0])
            rng = np.random.default_rng([self.seed, 1, slot_index, drop, mcs])
            bits.append(rng.integers(2, size=(config.num_users, num_bits)).astype(np.float32))
        scale = np.float32(np.sqrt(0.5))
        return tf.constant(np.stack(bits)), tf.constant(scale * np.stack(noise))

    def _function(self, kind, mcs):
        if (kind, mcs) not in self._functions:
            downlink = self.downlink(mcs)
            if kind == "count":

                def function(slot, h_hat, no, bits, noise):
                    bits, bits_hat = downlink(slot, h_hat, no, bits=bits, noise=noise)
                    return tf.math.count_nonzero(tf.not_equal(bits, bits_hat), axis=-1)

            else:
                function = downlink.spectral_efficiency
            if self._mode != "eager":
                function = tf.function(function, jit_compile=self._mode == "xla")
            self._functions[kind, mcs] = function
        return self._functions[kind, mcs]
