"""Synthetic mobility sequences: users on straight lines among a few scatterers, without a scene."""

import dataclasses

import numpy as np

from lwmt_sionna.data import (
    ChannelSequences,
    PathSequences,
    subcarrier_frequencies,
    synthesize,
)

CARRIER = 3.5e9
WAVELENGTH = 299_792_458.0 / CARRIER


def make_paths(
    num_sequences=16,
    speed_kmh=30.0,
    sampling_period=5e-3,
    num_snapshots=21,
    num_paths=6,
    seed=0,
    num_stations=1,
    windows=1,
):
    """Paths whose phases, delays and Doppler shifts agree with a motion at constant speed."""
    rng = np.random.default_rng(seed)
    shape = (num_sequences, 1, num_paths)
    speed = speed_kmh / 3.6
    heading, arrival = rng.uniform(-np.pi, np.pi, (2, *shape))
    doppler = speed / WAVELENGTH * np.cos(arrival - heading[:, :, :1])
    time = sampling_period * np.arange(num_snapshots)[None, :, None]
    tau = rng.exponential(200e-9, shape) + 300e-9 - doppler / CARRIER * time
    gain = np.exp(-tau / 300e-9) * np.exp(2j * np.pi * (doppler * time + rng.uniform(size=shape)))
    full = np.broadcast_to
    axes = (num_sequences, num_snapshots, num_paths)
    angle = heading[:, 0, 0]
    direction = np.stack([np.cos(angle), np.sin(angle), np.zeros(num_sequences)], -1)
    position = 50 + speed * time * direction[:, None]
    return PathSequences(
        a=1e-5 * gain[..., None, None],
        tau=tau,
        theta_t=full(np.full(shape, np.pi / 2), axes),
        phi_t=full(rng.uniform(-1.2, 1.2, shape), axes),
        theta_r=full(np.full(shape, np.pi / 2), axes),
        phi_r=full(arrival, axes),
        doppler=full(doppler, axes),
        valid=np.ones(axes, bool),
        path_key=full(np.arange(num_paths)[None, None] + 1, axes),
        position=position,
        # The windows of a trajectory follow each other.
        time=(np.arange(num_sequences) % windows)[:, None] * num_snapshots * sampling_period
        + time[:, :, 0],
        velocity=full(speed * direction[:, None], (num_sequences, num_snapshots, 3)),
        speed=np.full(num_sequences, speed),
        trajectory_id=np.arange(num_sequences) // windows,
        bs_index=np.arange(num_sequences) // windows % num_stations,
        bs_position=np.zeros((num_stations, 3)),
        bs_orientation=np.zeros((num_stations, 3)),
        sampling_period=sampling_period,
        carrier_frequency=CARRIER,
        scene="synthetic",
    )


class FixedDrops:
    """Ready channels in the place of a `DropFactory`."""

    def __init__(self, drops, downlink, name="fixed", digest="digest"):
        self.drops, self.downlink, self.name, self.digest = drops, downlink, name, digest
        self.num_drops = drops.num_drops
        self.calls = 0

    def at(self, horizon):
        self.calls += 1
        return dataclasses.replace(self.drops, horizon=horizon)


def store_channels(paths, array, num_subcarriers=32, subcarrier_spacing=540e3):
    """The channels of paths as a file of channels holds them, with nothing known of the motion."""
    h = synthesize(paths, array, subcarrier_frequencies(num_subcarriers, subcarrier_spacing))
    return ChannelSequences(
        h, paths.sampling_period, paths.carrier_frequency, subcarrier_spacing, array.shape, "stored"
    )
