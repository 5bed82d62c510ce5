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
# # Trace your own street
#
# From a scene to block error rates: users drive through a street, Sionna RT finds the paths, and
# the link tells what knowing the channel of a few milliseconds ago costs there. Any scene will
# do: a built-in one, or the path of a Mitsuba XML file with ITU materials.
#
# It needs Sionna RT and LLVM (`apt-get install libllvm19`) and takes about three minutes on two
# cores; `LWMT_QUICK=1` in the environment makes it less than one.

# %%
import os
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

from lwmt_sionna.data import PlanarArray, event_mask, subcarrier_frequencies, synthesize
from lwmt_sionna.link import (
    DownlinkConfig,
    DropConfig,
    LinkEvalConfig,
    SweepConfig,
    evaluate_link,
    format_table,
)
from lwmt_sionna.rt import GenerationConfig, generate, load_scene, render_scene

QUICK = os.environ.get("LWMT_QUICK") == "1"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="my_street_"))

# %% [markdown]
# ## What to trace
#
# One base station at the wall of a street canyon, users on straight lines over open ground at 30
# km/h, a snapshot every 5 ms. All snapshots of a line are receivers of one solve, so that phases
# are continuous. Stored are paths, not channels.

# %%
config = GenerationConfig(
    scene="simple_street_canyon",
    base_stations=[[-20.0, 3.0, 15.0]],
    num_sequences=8 if QUICK else 96,
    speed_kmh=(30.0, 30.0),
    sampling_period=5e-3,
    max_distance=60.0,
    shard_size=8 if QUICK else 24,
)
paths = generate(config, FOLDER / "my_street.h5")
print(f"{paths.num_sequences} sequences, at most {paths.num_paths} paths a snapshot")

# %% [markdown]
# ## The street, and who is in it
#
# A picture of the scene with the base station (red) and the users (green; a track is less than a
# metre long, shorter than its ball).

# %%
loaded = load_scene(config.scene, config.carrier_frequency)
picture = FOLDER / "street.png"
render_scene(
    loaded,
    picture,
    base_stations=config.base_stations,
    users=paths.position.mean(axis=1),
    resolution=(320, 210) if QUICK else (800, 525),
    num_samples=4 if QUICK else 64,
    num_colors=128,
)
display(Image(picture))

# %% [markdown]
# In an open notebook `scene.preview` shows the same to turn with the mouse: `loaded.scene` is
# Sionna's own scene, and takes its devices. It needs a running kernel; a page shows nothing here.

# %%
from sionna.rt import Receiver, Transmitter

for place in config.base_stations:
    loaded.scene.add(Transmitter("base station", loaded.local(place).tolist()))
for index, track in enumerate(paths.position):
    loaded.scene.add(Receiver(f"user {index}", loaded.local(track[0]).tolist()))
loaded.scene.preview()

# %% [markdown]
# ## From paths to channels
#
# The same paths serve any array and band. Here: 32 antennas in a row, 32 subcarriers over 17 MHz.

# %%
h = synthesize(paths, PlanarArray(1, 32), subcarrier_frequencies(32, 540e3))
print("h", h.shape, "[sequence, snapshot, antenna, subcarrier]")

step = np.abs(np.sum(h[:, 1:] * h[:, :-1].conj(), axis=(2, 3)))
power = np.sum(np.abs(h) ** 2, axis=(2, 3))
correlation = step / np.sqrt(power[:, 1:] * power[:, :-1])
print(f"correlation from one snapshot to the next: median {np.median(correlation):.3f}")
events = event_mask(paths, 15, 16)
print(f"a path is born or dies between the last two snapshots in {events.mean():.0%} of them")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
beams = np.fft.fftshift(np.fft.fft(h[0, -1], axis=0), axes=0)
axes[0].imshow(np.abs(np.fft.ifft(beams, axis=1)), aspect="auto", origin="lower")
axes[0].set(title="one snapshot", xlabel="delay bin", ylabel="angle bin")
for track in paths.position[:40]:
    axes[1].plot(track[:, 0], track[:, 1], lw=3)
axes[1].plot(*config.base_stations[0][:2], "k^")
axes[1].set(title="users and base station", xlabel="x [m]", ylabel="y [m]")
plt.show()

# %% [markdown]
# ## What age costs in this street
#
# Two users share a slot. All policies meet the same users, bits, noise and receiver; only the
# channel that the precoder is built on differs.

# %%
evaluation = LinkEvalConfig(
    data=[str(FOLDER / "my_street.h5")],
    policies=["perfect", "hold", "pooled_ar" if QUICK else "denoised_ar"],
    downlink=DownlinkConfig(num_users=2),
    drops=DropConfig(max_similarity=1.0 if QUICK else 0.9),
    sweep=SweepConfig(
        horizons=(1,) if QUICK else (1, 3),
        link_snr_db=(15.0,) if QUICK else (0.0, 5.0, 10.0, 15.0, 20.0),
        mcs=(4, 13, 22, 27),
        # Block errors told from what a decoder would be told: no block is decoded.
        decoding="information",
        compile="eager" if QUICK else "xla",
    ),
    report_mcs=22,
)
record = evaluate_link(evaluation, FOLDER / "link")
print(format_table(record))

# %% [markdown]
# Figures and the record lie in the folder. `lwmt link-eval --data FILE`
# does the same from the command line, and decodes every block unless told otherwise.

# %%
print(*sorted(path.name for path in (FOLDER / "link").glob("link_*")), sep="\n")
