"""The link as a model for Sionna's own Monte-Carlo tools."""

import numpy as np
import tensorflow as tf
from sionna.phy import config as sionna_config
from sionna.phy.utils import ebnodb2no

from lwmt_sionna.link.phy.config import DownlinkConfig
from lwmt_sionna.link.phy.downlink import Downlink

__all__ = ["make_sim_ber_model"]


def make_sim_ber_model(drops, policy, mcs, config=None, x_axis="ebno"):
    """A model for `sionna.phy.utils.sim_ber` and `sionna.phy.utils.PlotBER`.

    Every call serves `batch_size` drops drawn at random, with fresh bits and noise from Sionna's
    generator. It runs eagerly, in graph mode and under XLA (`graph_mode="xla"`).

    Args:
        drops: `LinkDrops`.
        policy: `CsiPolicy`, or complex64 `[num_drops, num_links, num_antennas, num_subcarriers]`
            with one's own estimates.
        mcs: int or `Mcs`.
        config: `DownlinkConfig`.
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
        h_hat = policy(drops.history, drops.horizon, target=drops.target)
    slot = tf.constant(drops.slot, downlink.cdtype)
    h_hat = tf.constant(np.asarray(h_hat), downlink.cdtype)

    def model(batch_size, ebno_db):
        if x_axis == "snr":
            no = 10.0 ** (-tf.cast(ebno_db, downlink.rdtype) / 10.0)
        else:
            no = ebnodb2no(
                ebno_db,
                downlink.mcs.num_bits_per_symbol,
                downlink.num_info_bits / downlink.num_coded_bits,
                downlink.resource_grid,
            )
        index = sionna_config.tf_rng.uniform([batch_size], 0, drops.num_drops, dtype=tf.int32)
        return downlink(tf.gather(slot, index), tf.gather(h_hat, index), no)

    return model
