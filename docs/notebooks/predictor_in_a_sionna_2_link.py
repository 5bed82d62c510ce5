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
# # The predictor as a layer in a link of Sionna 2
#
# Sionna 2 computes with PyTorch. So does the predictor, once Keras is told to: this notebook puts
# it between the measured channel and the precoder of a multi-user downlink in an urban microcell,
# every block of which is Sionna's own, and counts block errors.
#
# It needs Sionna 2.2 and PyTorch (`make setup LINE=sionna2`), no TensorFlow. `LWMT_QUICK=1` in the
# environment makes it seconds: two drops, and the smallest preset.

# %%
import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import matplotlib.pyplot as plt
import numpy as np
import torch
from sionna.phy import config
from sionna.phy.channel import (
    ApplyOFDMChannel,
    cir_to_ofdm_channel,
    gen_single_sector_topology,
    subcarrier_frequencies,
)
from sionna.phy.channel.tr38901 import PanelArray, UMi
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Demapper, Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import LMMSEEqualizer, ResourceGrid, ResourceGridMapper, RZFPrecodedChannel
from sionna.phy.utils import complex_normal

from lwmt_sionna import ChannelPredictor

QUICK = os.environ.get("LWMT_QUICK") == "1"
torch.set_grad_enabled(False)
config.seed = 1

# %% [markdown]
# ## A cell and its users
#
# Four users ride through a sector of an urban microcell (TR 38.901, UMi) at 30 km/h.
# The base station has 32 antennas in a row and measures the channel every 5 ms. What was measured
# and what will be served come from **one** call of the channel model: two are two realisations.

# %%
NUM_USERS, NUM_ANTENNAS, NUM_SUBCARRIERS, NUM_SYMBOLS = 4, 32, 32, 14
NUM_HISTORY, PERIOD, SPEED, CARRIER = 16, 5e-3, 30 / 3.6, 3.5e9
NUM_DROPS = 2 if QUICK else 12

station = PanelArray(1, NUM_ANTENNAS, "single", "V", "38.901", CARRIER)
user = PanelArray(1, 1, "single", "V", "omni", CARRIER)
cell = UMi(
    CARRIER, "low", user, station, "downlink", enable_pathloss=False, enable_shadow_fading=False
)
cell.set_topology(
    *gen_single_sector_topology(
        NUM_DROPS,
        NUM_USERS,
        "umi",
        indoor_probability=0.0,
        min_ut_velocity=SPEED,
        max_ut_velocity=SPEED,
    )
)
a, tau = cell(NUM_HISTORY + 1, 1 / PERIOD)
h = cir_to_ofdm_channel(subcarrier_frequencies(NUM_SUBCARRIERS, 540e3), a, tau)
# Power control: every user's channel has unit mean power.
h /= h[..., :NUM_HISTORY, :].abs().square().mean(dim=(2, 3, 4, 5, 6), keepdim=True).sqrt()
history, target = h[..., :NUM_HISTORY, :], h[..., NUM_HISTORY:, :]
history = history + 10 ** (-15 / 20) * complex_normal(history.shape)  # measured at 15 dB
print("history", tuple(history.shape), "served", tuple(target.shape))

# %% [markdown]
# ## The predictor takes channels as Sionna has them
#
# `[batch, rx, rx antenna, tx, tx antenna, time, subcarrier]`, complex, and returns the next five
# snapshots in the same form. It was trained in ray-traced cities and in other cells than these.

# %%
predictor = ChannelPredictor.from_preset("small" if QUICK else "universal")
estimates = {
    "perfect": target,
    "hold": history[..., -1:, :],
    "predicted": predictor(history)[..., :1, :],
}
for name, h_hat in estimates.items():
    error = (h_hat - target).abs().square().sum(dim=(2, 3, 4, 5, 6))
    nmse = error / target.abs().square().sum(dim=(2, 3, 4, 5, 6))
    print(f"{name:10s} median NMSE {10 * np.log10(max(float(nmse.median()), 1e-20)):7.1f} dB")

# %% [markdown]
# ## The link
#
# Regularised zero-forcing from the channel that the base station believes in, over the channel that
# there is. `RZFPrecodedChannel` takes both; `RZFPrecoder(return_effective_channel=True)` would
# return the effective channel that the base station *expects*. The channel stands still within a
# slot, and users know their effective channel.

# %%
NUM_BITS, CODE_RATE = 6, 0.65  # 64-QAM
streams = StreamManagement(np.ones((NUM_USERS, 1), int), NUM_USERS)
grid = ResourceGrid(NUM_SYMBOLS, NUM_SUBCARRIERS, 30e3, num_streams_per_tx=NUM_USERS)
num_coded = int(grid.num_data_symbols) * NUM_BITS
encoder = LDPC5GEncoder(int(num_coded * CODE_RATE), num_coded)
decoder = LDPC5GDecoder(encoder, num_iter=8 if QUICK else 20, hard_out=True)
source, mapper = BinarySource(), Mapper("qam", NUM_BITS)
demapper = Demapper("app", "qam", NUM_BITS)
on_grid, equalizer = ResourceGridMapper(grid), LMMSEEqualizer(grid, streams)
precoded, transmit = RZFPrecodedChannel(grid, streams), ApplyOFDMChannel()


def blocks_lost(h_hat, link_snr_db):
    """Which blocks are lost, bool `[drops, users]`; one seed gives all policies the same noise."""
    config.seed = 2
    no = torch.tensor(10 ** (-link_snr_db / 10))
    bits = source([NUM_DROPS, 1, NUM_USERS, encoder.k])
    slot = (*target.shape[:5], NUM_SYMBOLS, NUM_SUBCARRIERS)
    power = torch.full((NUM_DROPS, 1, NUM_USERS), 1 / NUM_USERS)  # unit power in all
    alpha = torch.full((NUM_DROPS, 1, NUM_SYMBOLS, NUM_SUBCARRIERS), float(NUM_USERS * no))
    h_eff = precoded(target.expand(slot), power, h_hat.expand(slot), alpha)
    y = transmit(on_grid(mapper(encoder(bits))), h_eff, no)
    x_hat, no_eff = equalizer(y, h_eff, torch.zeros(()), no)
    return (decoder(demapper(x_hat, no_eff)) != bits).any(dim=-1)[:, 0]


# %% [markdown]
# ## Block error rates
#
# The axis is the link SNR: total transmit power times mean gain of an antenna, over noise power.
# Drops are what varies, so that the interval is a bootstrap over drops: of how much larger a share
# of its blocks a held channel loses than a predicted one.
# Where no block was lost the figure shows its floor; so few blocks tell nothing below a few
# hundredths.

# %%
link_snr_db = np.array([12.0]) if QUICK else np.arange(3.0, 19.0, 3.0)
bler = {name: [] for name in estimates}
rng = np.random.default_rng(3)
for snr in link_snr_db:
    lost = {
        name: blocks_lost(h_hat, snr).double().mean(dim=1).cpu().numpy()
        for name, h_hat in estimates.items()
    }
    for name, share in lost.items():
        bler[name].append(share.mean())
    difference = lost["hold"] - lost["predicted"]
    means = rng.choice(difference, (1000, NUM_DROPS)).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    values = ", ".join(f"{name} {share.mean():.3f}" for name, share in lost.items())
    print(f"{snr:4.0f} dB: {values}; held minus predicted {low:.3f} to {high:.3f}")

# %%
figure, axes = plt.subplots(figsize=(6, 4))
for name, values in bler.items():
    axes.semilogy(link_snr_db, np.maximum(values, 1e-3), marker="o", label=name)
axes.set_xlabel("link SNR [dB]")
axes.set_ylabel("block error rate")
axes.grid(alpha=0.3)
axes.legend()
plt.show()
