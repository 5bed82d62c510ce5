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
# # A task of your own
#
# A pretrained backbone turns channels into features; a task adds a head, a loss and metrics. This
# notebook asks what no shipped task asks, how fast a user moves, teaches a head with few labels,
# and holds the features of the preset `base` against others that need no network.
#
# It needs no Sionna, and computes on any Keras backend. `LWMT_QUICK=1` in the environment makes it
# short: fewer channels, and a small backbone that was never pretrained.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

from lwmt_sionna.data import (
    PlanarArray,
    add_noise,
    draw_clusters,
    subcarrier_frequencies,
    synthesize,
)
from lwmt_sionna.layers import AngleDelayTransform, Readout
from lwmt_sionna.models import LWMTBackbone, MaskedChannelModel, TaskModel
from lwmt_sionna.ops.patches import patchify

QUICK = os.environ.get("LWMT_QUICK") == "1"
NUM_USERS, NUM_TESTS = (48, 16) if QUICK else (500, 200)
PERIOD, SPACING = 2.5e-3, 540e3

# %% [markdown]
# ## Channels and labels
#
# Random path clusters: every user has paths, a speed between 1 and 150 km/h and a direction of its
# own. 32 antennas and 32 subcarriers, 16 snapshots 2.5 ms apart, measured at 10 dB. `base` was
# pretrained on clusters like these among other worlds, but never saw a speed. The label is the
# logarithm of the speed: off by 1 is off by a factor of 2.

# %%
rng = np.random.default_rng(1)
paths = draw_clusters(NUM_USERS, 16, PERIOD, rng)
h = synthesize(paths, PlanarArray(num_cols=32), subcarrier_frequencies(32, SPACING))
h = add_noise(h, 10.0, rng)
octaves = np.log2(paths.speed / paths.speed.mean())[:, None].astype(np.float32)
train, test = np.arange(NUM_USERS - NUM_TESTS), np.arange(NUM_USERS - NUM_TESTS, NUM_USERS)
print("h", h.shape, "; speeds", np.round(3.6 * np.quantile(paths.speed, [0, 0.5, 1])), "km/h")

# %% [markdown]
# ## The task, in twenty lines
#
# Features of the frozen backbone are computed once, then heads train on them in seconds. Positions
# of `base` are physical: it is told the time between snapshots and the distance of subcarriers.
# A fifth of the labels tells when to stop.

# %%
if QUICK:
    base = MaskedChannelModel(LWMTBackbone(width=16, depth=1, num_heads=2, patch=(4, 4)))
else:
    base = MaskedChannelModel.from_preset("base")


def make_task():
    return TaskModel(base, head=Readout(1), loss="mse", metrics=["mae"])


def fit(features, num_labels, seed):
    """Mean error in octaves over the tests of a head that saw some of the labels."""
    keras.utils.set_random_seed(seed)
    task = make_task()
    seen = np.random.default_rng(seed).permutation(train)[:num_labels]
    held, seen = seen[: num_labels // 5], seen[num_labels // 5 :]
    rows = np.resize(seen, max(num_labels, 320))  # epochs are as long with few labels
    middle = octaves[seen].mean()
    task.fit_head(
        features[rows],
        octaves[rows] - middle,
        keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
        epochs=1 if QUICK else 40,
        validation_data=(features[held], octaves[held] - middle),
        callbacks=[keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)],
        verbose=0,
    )
    answers = middle + keras.ops.convert_to_numpy(task.head(features[test]))
    return np.abs(answers - octaves[test]).mean()


scales = {"sampling_period": PERIOD, "subcarrier_spacing": SPACING}
scales = {name: np.full(NUM_USERS, value, np.float32) for name, value in scales.items()}
embeddings = make_task().embed({"h": h} if QUICK else {"h": h, **scales})
print("features", embeddings.shape, "[user, angle, delay, width]")

# %% [markdown]
# ## What to compare with
#
# The same head on three kinds of features, on the same grid of patches of 4 x 4 bins:
#
# - `base`: embeddings of the frozen backbone;
# - `patches`: the angle-delay bins themselves, all snapshots of them, and no network;
# - `correlation`: what an engineer would take. A patch that moves fast forgets: the correlation of
#   its bins over 1 to 8 snapshots, and its power.

# %%
x = np.stack([h.real, h.imag], axis=-1).astype(np.float32)
x /= np.sqrt(2 * np.mean(x**2, axis=(1, 2, 3, 4), keepdims=True))
tokens = keras.ops.convert_to_numpy(patchify(AngleDelayTransform()(x), (4, 4)))
bins = tokens.reshape(NUM_USERS, 16, 8, 8, 32)  # [user, snapshot, angle, delay, bins and (re, im)]
power = 2 * np.mean(bins**2, axis=(1, 4))
level = np.log2(power + 1e-4)[..., None]
z = bins[..., ::2] + 1j * bins[..., 1::2]
lags = [np.abs(np.mean(z[:, k:] * z[:, :-k].conj(), axis=(1, 4))) / power for k in range(1, 9)]
features = {
    "base": embeddings,
    "patches": np.concatenate([*np.moveaxis(bins, 1, 0), level], axis=-1),
    "correlation": np.concatenate([np.stack(lags, axis=-1), level], axis=-1).astype(np.float32),
}

# %% [markdown]
# ## Who needs how many labels
#
# Three draws of labels each. The guess is the mean of the labels, whoever the user is.

# %%
counts = (16,) if QUICK else (30, 100, 300)
seeds = (1,) if QUICK else (1, 2, 3)
errors = {
    name: [[fit(each, count, seed) for seed in seeds] for count in counts]
    for name, each in features.items()
}
guess = np.abs(octaves[test] - octaves[train].mean()).mean()
print(f"error in octaves; guess {guess:.2f}")
print(f"{'labels':12s}", *(f"{count:16d}" for count in counts))
for name, rows in errors.items():
    print(f"{name:12s}", *(f"{np.mean(row):7.2f} ({min(row):.2f}-{max(row):.2f})" for row in rows))

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for name, rows in errors.items():
    axes.plot(counts, np.mean(rows, axis=1), "o-", label=name)
    axes.fill_between(counts, np.min(rows, axis=1), np.max(rows, axis=1), alpha=0.15)
axes.axhline(guess, color="grey", ls="--", label="guess")
axes.set(xscale="log", xlabel="labels", ylabel="mean error [octaves]")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# Embeddings of `base` tell less of the speed than the bins that they were made from, and with the
# fewest labels no head is much better than the guess. A likely reason: before its backbone, `base`
# turns every patch back by the patch's own Doppler shift, so that slow and fast users look alike.
# That helps to fill in channels, and takes away what this question asks for. So compare before you
# trust pretraining, with features as plain as these; which tasks it serves with how many labels is
# what `experiments/task_eval.py` measures.
