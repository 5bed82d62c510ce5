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
# # Channels of your own
#
# Channels that you measured, simulated or exported from a data set such as DeepMIMO are an array
# with axes in some order. This notebook tells the package what they are, predicts them, and judges
# the predictor against baselines on the same noisy histories.
#
# `LWMT_QUICK=1` in the environment makes it short: fewer users, and the smallest preset.

# %%
import os
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np

from lwmt_sionna import ChannelPredictor, baselines
from lwmt_sionna.data import (
    ChannelSequences,
    PlanarArray,
    as_channels,
    import_channels,
    read_paths,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
    write_channels,
)
from lwmt_sionna.evaluation import evaluate_paths

QUICK = os.environ.get("LWMT_QUICK") == "1"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="my_channels_"))

# %% [markdown]
# ## An array
#
# Nothing was measured for this notebook. What stands in for a measurement is an array of the same
# kind: users of a ray-traced city at 30 km/h, seen by a panel of 4 rows and 8 columns every 5 ms,
# 21 times, stored as a sounder might have left it. Put your own in its place.

# %%
paths = read_paths("experiments/data/san_francisco_30kmh_5ms.h5")
paths = paths.select(~vanishing_mask(paths)).select(slice(0, 24 if QUICK else 192))
panel = PlanarArray(num_rows=4, num_cols=8)
h = synthesize(paths, panel, subcarrier_frequencies(32, 540e3))
h = h.reshape(*h.shape[:2], 8, 4, 32)  # antennas go down the columns first
measured = np.ascontiguousarray(np.moveaxis(h, -1, 1))
np.save(FOLDER / "measured.npy", measured)
print("measured", measured.shape, measured.dtype, "[user, subcarrier, snapshot, column, row]")

# %% [markdown]
# ## What it is
#
# Axes are given by name, and so is what no array tells: time between snapshots in seconds,
# carrier and subcarrier spacing in hertz. In a shell, that is
#
# ```
# lwmt data import measured.npy --axes "sequence subcarrier time column row" \
#     --sampling-period 5e-3 --carrier 3.5e9 --subcarrier-spacing 540e3
# ```
#
# If rows and columns are one axis `antenna` already, `array_shape=(rows, columns, polarisations)`
# tells them apart; their order is then Sionna's: polarisation, column, row.

# %%
scales = {"sampling_period": 5e-3, "carrier_frequency": 3.5e9, "subcarrier_spacing": 540e3}
channels = import_channels(FOLDER / "measured.npy", "sequence subcarrier time column row", **scales)
write_channels(FOLDER / "measured.h5", channels)
print("h", channels.h.shape, "[sequence, time, antenna, subcarrier]; array", channels.array_shape)

# %% [markdown]
# From memory the same goes without a file. What differs is that nothing looks at the axes: a file
# whose time and subcarriers look swapped is refused.

# %%
value, array_shape = as_channels(measured, "sequence subcarrier time column row")
same = ChannelSequences(value, array_shape=array_shape, origin="from memory", **scales)
print("the same channels:", np.array_equal(same.h, channels.h))
try:
    import_channels(FOLDER / "measured.npy", "sequence time subcarrier column row", **scales)
except ValueError as error:
    print(str(error).partition(" Received")[0])

# %% [markdown]
# ## Predict
#
# The predictor takes complex channels and answers with the next five snapshots. `array_shape`
# tells it that the antennas are a plane: the weights stay the same, the angles become two.

# %%
PRESET = "small" if QUICK else "universal"
predictor = ChannelPredictor.from_preset(PRESET, array_shape=channels.array_shape)
future = predictor(channels.h[:8, :16])
print("predicted", tuple(future.shape), "[sequence, horizon, antenna, subcarrier]")

# %% [markdown]
# ## Judge
#
# Every predictor gets the same histories of 16 snapshots, measured at 15 dB, and is held against
# the true next five. No baseline needs training: hold repeats the last measurement,
# autoregression continues every angle-delay bin by itself, the path fit resolves the history into
# moving paths.

# %%
predictors = {
    "hold": baselines.Hold(),
    "autoregression": baselines.LocalAutoregression(array_shape=channels.array_shape),
    "path fit": baselines.PathPredictor(array_shape=channels.array_shape),
    PRESET: predictor,
}
if QUICK:
    del predictors["path fit"]
points = evaluate_paths(predictors, channels, history_snr_db=15.0)
errors = {
    name: [p["nmse_median_db"] for p in points if p["predictor"] == name] for name in predictors
}
print(f"{'median NMSE [dB]':22s}", *(f"{horizon * 5:4d} ms" for horizon in range(1, 6)))
for name, values in errors.items():
    print(f"{name:22s}", *(f"{value:7.1f}" for value in values))

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for name, values in errors.items():
    axes.plot(5 * np.arange(1, 6), values, marker="o", label=name)
axes.set(xlabel="time ahead [ms]", ylabel="median NMSE [dB]")
axes.grid(alpha=0.3)
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# Here the default preset is as good as the path fit and not better: these paths are few and
# clean, and what resolves them has little to leave to a network. Both tell nothing of channels of
# another kind, measured ones above all; there the table is to be made anew. A file goes on
# to fine-tuning (`lwmt finetune`) and into a link with coded blocks (`lwmt link-eval`).
