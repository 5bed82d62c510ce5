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
# # Train and judge your own predictor
#
# A predictor of your own is any Keras model from past channels to future ones. This notebook
# writes a small one, trains it on noisy histories and true futures, and judges it twice: by the
# error of its predictions, and by what it does to a multi-user link.
#
# It takes about three minutes on two cores; `LWMT_QUICK=1` in the environment makes it less than
# one.

# %%
import os
import pathlib
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from lwmt_sionna import baselines
from lwmt_sionna.data import (
    PlanarArray,
    add_noise,
    read_paths,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
    write_paths,
)
from lwmt_sionna.evaluation import evaluate_paths
from lwmt_sionna.layers import AngleDelayTransform, InverseAngleDelayTransform

QUICK = os.environ.get("LWMT_QUICK") == "1"
tf.config.run_functions_eagerly(QUICK)  # for a handful of sequences compiling does not pay
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="my_predictor_"))
NUM_HISTORY, NUM_HORIZONS = 16, 5
NUM_ANTENNAS = NUM_SUBCARRIERS = 16 if QUICK else 32
keras.utils.set_random_seed(1)

# %% [markdown]
# ## Data
#
# Ray-traced users in San Francisco at 30 km/h. Trajectories are split, never snapshots. (A result
# to report needs another *scene* for the test; see `experiments/prediction_eval.py`.)

# %%
paths = read_paths("experiments/data/san_francisco_30kmh_5ms.h5")
paths = paths.select(~vanishing_mask(paths))
if QUICK:
    paths = paths.select(slice(0, 48))
training, test = split_by_trajectory(paths, 0.5, seed=1)
array = PlanarArray(1, NUM_ANTENNAS)
frequencies = subcarrier_frequencies(NUM_SUBCARRIERS, 540e3)
h = synthesize(training, array, frequencies, snapshots=np.arange(NUM_HISTORY + NUM_HORIZONS))
print(f"{training.num_sequences} sequences to train on, {test.num_sequences} to test on")


def stacked(x):
    """Complex arrays as real ones with a last axis of (re, im)."""
    return np.stack([x.real, x.imag], axis=-1).astype(np.float32)


def draw(h, rng):
    """A noisy history and the true future, scaled by what the base station has measured."""
    past = h[:, :NUM_HISTORY]
    history = add_noise(past, rng.uniform(5.0, 25.0, len(h)), rng)
    scale = np.sqrt(np.mean(np.abs(history) ** 2, axis=(1, 2, 3), keepdims=True))
    return stacked(history / scale), stacked(h[:, NUM_HISTORY:] / scale)


# %% [markdown]
# ## A predictor
#
# In the angle-delay domain a path is a peak that turns at the rate of its Doppler shift. So:
# transform, let every bin mix its own past with complex weights that a small network chooses from
# the powers around it, transform back.


# %%
@keras.saving.register_keras_serializable("notebook")
class GatedRecursion(keras.Model):
    """Mixes linear predictions of several orders, bin by bin."""

    num_horizons = NUM_HORIZONS

    def __init__(self, width=16, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.transform = AngleDelayTransform()
        self.inverse = InverseAngleDelayTransform()
        self.orders = [baselines.LocalAutoregression(order=order) for order in (2, 4, 6)]
        self.experts = [order.make_model(NUM_HORIZONS) for order in self.orders]
        self.hidden = keras.layers.Conv2D(width, 3, padding="same", activation="gelu")
        self.gates = keras.layers.Conv2D(NUM_HORIZONS * 3, 1, kernel_initializer="zeros")

    def call(self, history):
        ops = keras.ops
        futures = ops.stack([self.transform(e(history)) for e in self.experts], axis=1)
        spread = ops.sum(ops.square(futures - ops.mean(futures, 1, keepdims=True)), axis=(1, 2, -1))
        power = ops.sum(ops.square(self.transform(history)), axis=(1, -1))
        features = ops.log(ops.stack([spread, power], axis=-1) + 1e-6)
        gates = self.gates(self.hidden(features))
        shape = (-1, *features.shape[1:3], NUM_HORIZONS, len(self.experts))
        gates = ops.softmax(ops.reshape(gates, shape), axis=-1)
        # b batch, e expert, t horizon, a angle, d delay, c (re, im)
        return self.inverse(ops.einsum("betadc,badte->btadc", futures, gates))


def log_error(target, predicted):
    """Mean over sequences of the error in decibels: a few lost sequences must not rule."""
    axes = (1, 2, 3, 4)
    error = keras.ops.sum(keras.ops.square(predicted - target), axis=axes)
    power = keras.ops.sum(keras.ops.square(target), axis=axes)
    return keras.ops.mean(keras.ops.log10(error / power + 1e-6)) * 10.0


model = GatedRecursion()
rng = np.random.default_rng(0)
x, y = map(np.concatenate, zip(*(draw(h, rng) for _ in range(1 if QUICK else 2))))
model.compile("adam", log_error, jit_compile=not QUICK)
model.optimizer.learning_rate = 3e-3
history = model.fit(x, y, batch_size=16, epochs=1 if QUICK else 4, verbose=0)
print("training loss [dB]:", np.round(history.history["loss"], 2))

# %% [markdown]
# ## Judged by its error
#
# Through the same call as every baseline, on the same noisy histories. *Event-free*: no notable
# path is born or dies between the last measurement and the target.

# %%
predictors = {
    "hold": baselines.Hold(),
    "local_ar": baselines.LocalAutoregression(),
    "mine": baselines.ModelPredictor(model, "mine"),
}
points = evaluate_paths(
    predictors,
    test,
    array,
    frequencies,
    history_snr_db=15.0,
    num_history=NUM_HISTORY,
    num_horizons=NUM_HORIZONS,
)
for point in points:
    if point["subset"] == "event_free" and point["horizon"] in (1, 5):
        print(
            f"{point['predictor']:10s} horizon {point['horizon']}: pooled "
            f"{point['nmse_pooled_db']:6.1f} dB, median {point['nmse_median_db']:6.1f} dB"
        )

figure, axes = plt.subplots(figsize=(6, 3.5))
for name in predictors:
    own = [p for p in points if p["predictor"] == name and p["subset"] == "event_free"]
    axes.plot([p["horizon"] for p in own], [p["nmse_median_db"] for p in own], "o-", label=name)
axes.set(xlabel="horizon [snapshots]", ylabel="median NMSE [dB]", title="event-free")
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# ## Judged by the link
#
# A model, or any callable, takes part in the link-level evaluation as a policy named
# `module:object`. From the command line that is `lwmt link-eval --config
# ... --policy my_module:predict`; here the module is made on the spot.

# %%
import sys
import types

from lwmt_sionna.link import (
    DownlinkConfig,
    DropConfig,
    LinkEvalConfig,
    SweepConfig,
    evaluate_link,
    format_table,
)

sys.modules["my_module"] = types.ModuleType("my_module")
sys.modules["my_module"].model = model

write_paths(FOLDER / "test.h5", test)
config = LinkEvalConfig(
    data=[str(FOLDER / "test.h5")],
    policies=["perfect", "hold", "local_ar", "my_module:model"],
    downlink=DownlinkConfig(
        num_antennas=NUM_ANTENNAS, num_subcarriers=NUM_SUBCARRIERS, num_users=2 if QUICK else 4
    ),
    drops=DropConfig(num_drops=4 if QUICK else None, max_similarity=0.8),
    sweep=SweepConfig(
        horizons=(1,) if QUICK else (1, 5),
        link_snr_db=(12.0,) if QUICK else (4.0, 8.0, 12.0, 16.0),
        mcs=(10, 16, 22, 27),
        decoding="information",
        compile="eager" if QUICK else "xla",
    ),
    report_mcs=22,
    report_link_snr_db=12.0,
)
record = evaluate_link(config, FOLDER / "link")
print(format_table(record))

# %% [markdown]
# An honest verdict: so small a network, so shortly trained, is not ahead of the recursion with one
# order. Its median errors are a little larger, and the link does not tell the two apart. Presets of
# the package go through the same two calls; their trainings are in `experiments/configs`.
