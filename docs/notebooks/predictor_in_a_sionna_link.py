# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The predictor as a layer in a Sionna link
#
# A base station precodes with the channel it measured some milliseconds ago. This notebook puts a
# trained predictor between the measurement and the precoder of a link made of Sionna's blocks,
# and counts what it is worth in block errors, with Sionna's own Monte-Carlo tools.
#
# It needs TensorFlow and Sionna and takes about three minutes on two cores; `LWMT_QUICK=1` in the
# environment makes it half a minute.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sionna.phy.utils import PlotBER, sim_ber

from lwmt_sionna import ChannelPredictor
from lwmt_sionna.data import read_paths
from lwmt_sionna.link import (
    Downlink,
    DownlinkConfig,
    DropConfig,
    DropFactory,
    make_policy,
    make_sim_ber_model,
)

QUICK = os.environ.get("LWMT_QUICK") == "1"
tf.config.run_functions_eagerly(QUICK)  # for a handful of blocks compiling does not pay

# %% [markdown]
# ## Users in a city
#
# Stored are ray-traced propagation paths of users that move through San Francisco at 30 km/h, one
# snapshot every 5 ms. From them any array and any subcarrier grid can be made. A *drop* is a
# group of four users that the base station serves at once; `DropFactory` measures their histories
# (16 snapshots at 15 dB), groups users that it can tell apart, and synthesises the true channel
# of the slot that is served `horizon` snapshots later, OFDM symbol by OFDM symbol.

# %%
paths = read_paths("experiments/data/san_francisco_30kmh_5ms.h5")
config = DownlinkConfig(num_iterations=8 if QUICK else 20)
factory = DropFactory(paths, config, DropConfig(num_drops=2 if QUICK else 64))
drops = factory.at(horizon=1)
print(f"{factory.name}: {drops.num_drops} drops, normalised Doppler {factory.normalized_doppler}")
print("history", drops.history.shape, "slot", drops.slot.shape)

# %% [markdown]
# ## The predictor is a Keras layer
#
# It takes complex channels, `[batch, time, antenna, subcarrier]`, and returns
# the next five snapshots in the same form. Normalisation and transforms are inside. Link and
# predictor compile together.

# %%
predictor = ChannelPredictor.from_preset("small" if QUICK else "universal")
downlink = Downlink(mcs=22, config=config)


@tf.function(jit_compile=True)
def serve(history, slot, no):
    """From measured histories to decoded blocks, in one XLA program."""
    users = tf.reshape(history, [-1, *history.shape[2:]])
    h_hat = tf.reshape(predictor(users)[:, 0], tf.shape(history[:, :, 0]))
    bits, bits_hat = downlink(slot, h_hat, no)
    return tf.reduce_any(bits != bits_hat, axis=-1)


batch = slice(0, 4)
failed = serve(drops.history[batch], drops.slot[batch], 10 ** (-12 / 10)).numpy()
print(f"{failed.sum()} of {failed.size} blocks lost")

# %% [markdown]
# ## What the base station could believe instead
#
# A *policy* maps the measured past to the channel that the precoder is built on. `perfect` looks
# into the future, `hold` takes the last measurement, `denoised_ar` is linear prediction without
# any training. A policy of your own is a callable of three lines.


# %%
def two_step_line(history, num_horizons):
    """Continues the straight line through the last two snapshots."""
    steps = np.arange(1, num_horizons + 1)[:, None, None]
    return history[:, -1:] + steps * (history[:, -1:] - history[:, -2:-1])


def quality(h_hat):
    error = np.sum(np.abs(h_hat - drops.target) ** 2, axis=(2, 3))
    ratio = np.median(error / np.sum(np.abs(drops.target) ** 2, axis=(2, 3)))
    return 10 * np.log10(max(ratio, 1e-20))


names = ("perfect", "hold") if QUICK else ("perfect", "hold", "denoised_ar")
estimates = {
    name: make_policy(name)(drops.history, drops.horizon, target=drops.target) for name in names
}
users = drops.history.reshape(-1, *drops.history.shape[2:])
for name, predict in {"my line": two_step_line, "model": lambda h, _: predictor(h)}.items():
    parts = np.array_split(users, 1 if QUICK else 4)
    predicted = [np.asarray(predict(part, 1))[:, 0] for part in parts]
    estimates[name] = np.concatenate(predicted).reshape(drops.target.shape)
for name, h_hat in estimates.items():
    print(f"{name:12s} median NMSE {quality(h_hat):7.1f} dB")

# %% [markdown]
# ## Block error rates with Sionna's `sim_ber`
#
# `make_sim_ber_model` wraps drops, estimates and link as the `(batch_size, ebno_db)` function
# that `sim_ber` and `PlotBER` take. With `x_axis="snr"` the axis is the link SNR: total transmit
# power times the mean gain of an antenna, over the noise power.

# %%
link_snr_db = np.array([12.0]) if QUICK else np.arange(4.0, 17.0, 3.0)
plot = PlotBER("64-QAM, rate 0.65, San Francisco, 30 km/h, CSI 5 ms old")
for name, h_hat in estimates.items():
    model = make_sim_ber_model(drops, h_hat, mcs=22, config=config, x_axis="snr")
    _, bler = sim_ber(
        model,
        link_snr_db,
        batch_size=2 if QUICK else 32,
        max_mc_iter=1 if QUICK else 8,
        num_target_block_errors=200,
        graph_mode="xla",
        verbose=False,
    )
    plot.add(link_snr_db, bler.numpy(), legend=name, is_bler=True)
    print(f"{name:12s}", np.round(bler.numpy(), 3))

# %%
figure, axes = plt.subplots(figsize=(6, 4))
for values, legend in zip(plot.ber, plot.legend):
    axes.semilogy(link_snr_db, np.maximum(values, 1e-3), marker="o", label=legend)
axes.set_xlabel("link SNR [dB]")
axes.set_ylabel("block error rate")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# Blocks of one drop share a channel, so intervals belong over drops, not over blocks.
# `experiments/link_level_eval.py` gives them, pairs all policies on the same drops, bits and
# noise, and adds goodput with link adaptation.
