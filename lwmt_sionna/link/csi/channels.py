"""Channels of a mobility regime: the true ones, and what the base station measures of them."""

import dataclasses

import numpy as np

from lwmt_sionna import data
from lwmt_sionna.data.paths import OPTIONAL_FIELDS, PATH_FIELDS, SEQUENCE_FIELDS
from lwmt_sionna.link.csi.sounding import pilot_frequencies, sound

__all__ = ["RegimeChannels", "with_stride", "with_user_antenna"]

# Sequences whose channels at the sounding pilots are in memory at once.
_CHUNK = 32


class RegimeChannels:
    """Synthesises the channels of stored paths for one link.

    Args:
        paths: `lwmt_sionna.data.PathSequences` with one polarisation at the base station.
        downlink: `DownlinkConfig`.
        csi_subcarrier_spacing: float, spacing of the CSI grid [Hz].
        seed: int, seed of the orientation of the users' arrays.
    """

    def __init__(self, paths, downlink, csi_subcarrier_spacing, seed=0):
        self.paths = paths
        self.downlink = downlink
        self.frequencies = data.subcarrier_frequencies(
            downlink.num_subcarriers, csi_subcarrier_spacing
        )
        self._array = data.PlanarArray(num_rows=1, num_cols=downlink.num_antennas)
        rng = np.random.default_rng([seed, 2])
        self._yaw = rng.uniform(-np.pi, np.pi, paths.num_sequences)

    def true(self, users, snapshots, times=None, frequencies=None):
        """True channels.

        Args:
            users: int `[num_users]`, sequences.
            snapshots: list of int.
            times: float `[num_times]` or None, instants relative to each snapshot [s].
            frequencies: float `[num_frequencies]` or None, those of the CSI grid when None [Hz].

        Returns:
            complex64 `[num_users, num_user_antennas, num_snapshots, (num_times,) num_antennas,
            num_frequencies]`.
        """
        frequencies = self.frequencies if frequencies is None else frequencies
        paths = self.paths.select(users)
        size = self.downlink.num_user_antennas
        return np.stack(
            [
                data.synthesize(
                    with_user_antenna(paths, antenna, size, self._yaw[users]),
                    self._array,
                    frequencies,
                    times=times,
                    snapshots=snapshots,
                )
                for antenna in range(size)
            ],
            axis=1,
        )

    def measured(self, true, snapshots, snr_db, sounding, seed=0):
        """What the base station measures of all sequences.

        Args:
            true: complex64 `[num_sequences, num_user_antennas, num_snapshots, num_antennas,
                num_subcarriers]`, their true channels at `snapshots`.
            snapshots: list of int.
            snr_db: float, see `SoundingConfig`.
            sounding: `SoundingConfig`.
            seed: int, seed of noise and impairments.

        Returns:
            complex64, shape of `true`.
        """
        rng = np.random.default_rng([seed, 1])
        # The antennas of a user sound in turn; each estimate stands for itself.
        flat = true.reshape(-1, *true.shape[2:])
        if sounding.mode == "noise":
            return data.add_noise(flat, snr_db, rng).reshape(true.shape)
        history = np.empty_like(true)
        for offset in range(sounding.comb):
            pilots = pilot_frequencies(
                self.frequencies, self.downlink.subcarrier_spacing, sounding.comb, offset
            )
            users = np.arange(offset, len(true), sounding.comb)
            for first in range(0, len(users), _CHUNK):
                chunk = users[first : first + _CHUNK]
                h = self.true(chunk, snapshots, frequencies=pilots)
                estimate = sound(
                    h.reshape(-1, *h.shape[2:]),
                    pilots,
                    self.frequencies,
                    snr_db,
                    sounding,
                    rng,
                    station_rng=np.random.default_rng([seed, 3]),
                )
                history[chunk] = estimate.reshape(len(chunk), *true.shape[1:])
        return history


def with_user_antenna(paths, antenna, num_antennas, yaw):
    """Paths as one antenna of the users' arrays receives them.

    Users carry horizontal linear arrays with half a wavelength between antennas, centred on the
    position that was traced.

    Args:
        paths: `PathSequences`.
        antenna: int, index within the array.
        num_antennas: int, size of the array.
        yaw: float `[num_sequences]`, orientation of the arrays [radians].

    Returns:
        `PathSequences`.
    """
    if num_antennas == 1:
        return paths
    array = data.PlanarArray(num_rows=1, num_cols=num_antennas)
    turn = array.response(paths.theta_r, paths.phi_r - yaw[:, None, None])[..., antenna]
    return dataclasses.replace(paths, a=paths.a * turn[..., None, None])


def with_stride(paths, stride):
    """Every `stride`-th snapshot: the same motion with less frequent CSI.

    Args:
        paths: `PathSequences`.
        stride: int.

    Returns:
        `PathSequences` with `stride` times the sampling period.
    """
    if stride == 1:
        return paths
    chosen = {
        name: getattr(paths, name)[:, ::stride]
        for name, (_, axes) in {**PATH_FIELDS, **SEQUENCE_FIELDS, **OPTIONAL_FIELDS}.items()
        if axes.startswith("ST") and getattr(paths, name) is not None
    }
    return dataclasses.replace(paths, **chosen, sampling_period=stride * paths.sampling_period)
